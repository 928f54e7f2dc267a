import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { WebSocket } from 'ws';
import { SUBPROTOCOL } from '../../src/chat-client/index.js';
import { ChatChecker, type CheckedMember, NO_FAULTS, type Span, STORED_ENTRIES, type StoredEntry } from './chat-checker.js';
import { Moderator } from './chat-moderator.js';
import { Tenfold, type TenfoldReport } from './chat-tenfold.js';
import { processTree } from './cpu.js';
import { freePorts } from './free-port.js';
import { gatewayTokens } from './gateway-token.js';
import { startPostgres } from './postgres.js';
import { eventually } from './process.js';
import { startRedis } from './redis.js';
import { Server } from './server.js';

const ROOMS = ['one', 'two', 'three'];
const MEMBERS = 24;
const PROCESSES = 2;
/** Accounts that say everything ten times. */
const TENFOLD = 6;
const TALK_MS = 20;
/** While PostgreSQL is away eight messages of a client wait for their acknowledgement, and the ninth is not sent: so that somebody says something all the time. */
const SLOW_TALK_MS = 350;
/** Before Redis is wiped as well: some hundred messages wait. */
const BOTH_MS = 5000;
/** Of one user, so that every process is asked. */
const CONNECTIONS = 4 * PROCESSES;

const WORDS =
  'piano drums bass guitar singer chorus bridge verse melody rhythm evening morning winter summer river garden window street coffee letter story picture quiet loud gentle bright early late again never always maybe almost really hardly today'.split(
    ' ',
  );

/** No two alike: whoever says the same again and again is refused. */
const sentence = (seed: number) =>
  Array.from({ length: 6 }, (_, word) => WORDS[Math.floor(Math.abs(Math.sin(seed * 7 + word * 13.7)) * WORDS.length)]).join(' ');

/** What somebody who is banned is answered on a connection of his own: to `join`, and to `pub` all the same. */
function knock(url: string, token: string, room: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, [SUBPROTOCOL]);
    const codes: string[] = [];
    const say = (frame: object) => socket.send(JSON.stringify(frame));
    socket.on('open', () => say({ t: 'hello', token }));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`closed after ${codes}`)));
    socket.on('message', (data) => {
      const { t, id, code } = JSON.parse(String(data)) as { t: string; id?: string; code?: string };
      if (t === 'welcome') say({ t: 'join', id: 'join', room });
      else if (id !== undefined) codes.push(code ?? t);
      if (id === 'join') say({ t: 'pub', id: 'pub', room, key: 'let me in', body: { text: 'let me in' } });
      if (id !== 'pub') return;
      socket.removeAllListeners('close');
      socket.close();
      resolve(codes);
    });
  });
}

/**
 * Every message once, in one order, acked means kept, deleted means gone: while everything that can be killed is killed, PostgreSQL for `awayS`.
 */
export async function checkChatUnderFaults(t: TestContext, awayS: number): Promise<void> {
  const [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
  const secret = randomBytes(32).toString('base64url');
  const [wsPort] = (await freePorts(1)) as [number];
  const server = await Server.start({
    env: {
      DATABASE_URL: postgres.url,
      REDIS_URL: redis.url,
      JWT_SECRET: secret,
      JWT_AUDIENCE: 'test',
      WORKER_THREADS: String(PROCESSES),
      WS_PORT: String(wsPort),
      LOG_LEVEL: 'warn',
    },
  });
  t.after(async () => {
    await server.stop();
    await Promise.all([postgres.stop(), redis.stop()]);
  });
  for (const room of ROOMS) await server.createChannel(room);
  const tokenOf = gatewayTokens(secret);

  const url = `ws://127.0.0.1:${wsPort}/chat`;
  const checker = new ChatChecker(url);
  t.after(() => checker.stop());
  await Promise.all(
    Array.from({ length: MEMBERS }, (_, index) =>
      checker.join(`member-${index}`, tokenOf(`member-${index}`), [ROOMS[index % 3]!, ROOMS[(index + 1) % 3]!]),
    ),
  );

  // Everybody talks, and somebody loses his line now and then, all the time.
  let said = 0;
  let talkMs = TALK_MS;
  let talking: NodeJS.Timeout;
  const talk = () => {
    const member = checker.members[said % MEMBERS]!;
    void checker.say(member, member.rooms[Math.floor(said / MEMBERS) % 2]!, sentence(said++));
    talking = setTimeout(talk, talkMs);
  };
  talk();
  let isDropping = true;
  const dropping = setInterval(() => {
    if (isDropping) checker.members[Math.floor(Math.random() * MEMBERS)]!.drop();
  }, 400);
  // Some are never sure that they were heard.
  const tenfolds = Array.from(
    { length: TENFOLD },
    (_, index) => new Tenfold(url, `unsure-${index}`, tokenOf(`unsure-${index}`), ROOMS[index % 3]!),
  );
  for (const [index, tenfold] of tenfolds.entries())
    tenfold.start(
      (n) => sentence(1e6 * (index + 1) + n),
      (room, message) => checker.isAcked(room, message),
    );
  // And somebody keeps order.
  const [purged, banned, silenced, outcast] = checker.members.slice(-4) as [CheckedMember, CheckedMember, CheckedMember, CheckedMember];
  const moderator = new Moderator(server, checker, { purged, banned, silenced }, () => sentence(said++));
  t.after(() => {
    clearTimeout(talking);
    clearInterval(dropping);
    moderator.stop();
    for (const tenfold of tenfolds) tenfold.stop();
  });
  const until = (what: string, is: () => boolean) =>
    eventually(what, () => (is() ? true : undefined), 60_000).catch((error) => {
      throw new Error(`${error.message}; ${checker.state()} ${JSON.stringify(moderator.done)}\n${server.logTail()}`);
    });
  /** Also those that are said ten times, of which each was under way before. */
  const ackedMore = async (after: string) => {
    const from = checker.acked;
    const messages = tenfolds.map((tenfold) => tenfold.messages);
    await until(`messages are acknowledged again after ${after}`, () => checker.acked > from + 20);
    await until(`what is said ten times is, after ${after}`, () => tenfolds.every((tenfold, i) => tenfold.messages > messages[i]! + 1));
  };
  await ackedMore('the start');
  moderator.start();
  await until('everything that is moderated was', () => moderator.done.untimeout !== undefined);

  const faults: { fault: string; during: Span; after: Span }[] = [];
  const fault = async (what: string, make: (during: Span) => Promise<void>) => {
    const during = checker.span(what);
    await make(during);
    const after = checker.span(`after: ${what}`);
    await ackedMore(what);
    faults.push({ fault: what, during, after });
  };
  const chatProcesses = () =>
    processTree(server.pid).flatMap(({ pid, parent, name }) => (parent === server.pid && name !== 'ffmpeg' ? [pid] : []));
  // First, since a room whose log was lost asks for five minutes whether PostgreSQL knows a key.
  let away!: Span;
  let delivery = { delivered: 0, incomplete: 0 };
  clearTimeout(talking!);
  await postgres.crash();
  await fault(`PostgreSQL was away for ${awayS} s`, async (during) => {
    away = during;
    talkMs = SLOW_TALK_MS;
    talk();
    await sleep(awayS * 1000);
    clearTimeout(talking);
    // Who was lost again and again waits longer and longer before he comes back.
    isDropping = false;
    await until('what was said meanwhile is shown by everybody', () => {
      delivery = checker.delivery(away);
      return delivery.incomplete === 0;
    });
    assert.ok(delivery.delivered > awayS, `${delivery.delivered} messages were delivered while PostgreSQL was away`);
    assert.equal(away.saidAndAcked, 0, 'nothing is acknowledged that is not stored');
    t.diagnostic(`while PostgreSQL was away ${delivery.delivered} messages were delivered to everybody, and none of them was acknowledged`);
    await postgres.restart();
    isDropping = true;
    talkMs = TALK_MS;
    talk();
  });
  await until('everything that was said meanwhile is acknowledged', () => away.saidAndAcked + away.saidAndRefused === away.said);
  assert.ok(away.saidAndAcked >= delivery.delivered - away.saidAndRefused);

  const killOne = async () => {
    const before = chatProcesses();
    assert.ok(before.length >= PROCESSES, `${PROCESSES} chat processes`);
    const victim = before[Math.floor(Math.random() * before.length)]!;
    process.kill(victim, 'SIGKILL');
    await until('another process is there', () => {
      const now = chatProcesses();
      return !now.includes(victim) && now.length === before.length;
    });
  };
  // Two at once, also before a log was lost: what waits for PostgreSQL is of an epoch that has ended when it comes back.
  await fault('PostgreSQL was away, and Redis was wiped before it came back', async () => {
    await postgres.crash();
    await sleep(BOTH_MS);
    await redis.command('flushall');
    await postgres.restart();
  });
  await fault('PostgreSQL was away, and a chat process was killed meanwhile', async () => {
    await postgres.crash();
    await sleep(1000);
    await killOne();
    await postgres.restart();
  });
  for (let times = 0; times < 2; times++) await fault('a chat process was killed', killOne);
  await fault('Redis lost everything', async () => {
    await redis.kill9();
    await sleep(1500);
    await redis.restart();
  });
  await fault('Redis was silent', async () => {
    redis.suspend();
    await sleep(2500);
    redis.resume();
  });
  await fault('Redis was wiped', async () => {
    const epochs = new Map(checker.members.flatMap(({ rooms }) => rooms).map((room) => [room, room.epoch]));
    await redis.command('flushall');
    await until('somebody in every room has its new epoch', () =>
      ROOMS.every((name) => [...epochs].some(([room, epoch]) => room.name === name && room.epoch > epoch)),
    );
  });
  // From here on two are as they will be at the end.
  await moderator.finish();
  await moderator.ban(outcast);
  await moderator.silence(silenced);
  await fault('both were gone', async () => {
    await Promise.all([postgres.crash(), redis.kill9()]);
    await sleep(1000);
    await Promise.all([postgres.restart(), redis.restart()]);
  });
  await fault('the whole service was killed', async () => {
    await server.kill9();
    await server.restart();
  });

  clearTimeout(talking!);
  clearInterval(dropping);
  for (const tenfold of tenfolds) await tenfold.finish();
  const [closedRoom] = outcast.rooms as [CheckedMember['rooms'][number]];
  const answers = await Promise.all(Array.from({ length: CONNECTIONS }, () => knock(url, tokenOf(outcast.name), closedRoom.name)));
  for (const answer of answers) assert.deepEqual(answer, ['banned', 'not_joined'], 'who is banned is let in nowhere, and says nothing');
  const present = async () =>
    (await server.api<{ items: { id: string }[] }>('GET', `/rooms/${closedRoom.name}/members`)).items.map(({ id }) => id);
  await eventually('who is banned is not among the members', async () =>
    (await present()).includes(outcast.client.user!.id) ? undefined : true,
  );
  assert.equal(await checker.say(silenced, silenced.rooms[0]!, sentence(said++)), 'timed_out');

  const database = new pg.Pool({ connectionString: postgres.url, max: 1 });
  const stored = async () => (await database.query<StoredEntry>(STORED_ENTRIES)).rows;
  await checker.settle(stored, 60_000);
  // Somebody who has seen nothing of it all.
  await checker.join('newcomer', tokenOf('newcomer'), ROOMS);
  await checker.readBack();
  const rows = await stored();
  const log = new Map<string, string[]>();
  for (const { slug, id } of (
    await database.query<{ slug: string; id: string }>('select c.slug, r.id from rooms r join channels c on c.id = r.channel_id')
  ).rows) {
    const [name] = (await redis.command('keys', `*${id}:log`)).split('\n');
    log.set(slug, (await redis.command('lrange', name!, '0', '-1')).trim().split('\n'));
    assert.ok(log.get(slug)!.length > 100, 'there is a log to be looked through');
  }
  await database.end();
  const report = checker.check(rows, log);
  const tenfold: Record<string, TenfoldReport> = Object.fromEntries(tenfolds.map((one) => [one.name, one.report(rows)]));
  await mkdir('bench-results', { recursive: true });
  await writeFile(
    'bench-results/chat-check.json',
    `${JSON.stringify({ ...report, refused: checker.refused, whilePostgresWasAway: delivery, faults, tenfold, moderation: moderator.done }, null, 2)}\n`,
  );
  const { members, entries, acked, compared, told, unsettled, ...found } = report;
  const deletions = rows.filter(({ type }) => type === 'gone').length;
  t.diagnostic(
    `${members} members, ${entries} entries, ${acked} acknowledged, ${deletions} erased, ${compared} offsets compared; refused ${JSON.stringify(checker.refused)}; moderated ${JSON.stringify(moderator.done)}`,
  );
  assert.deepEqual(found, NO_FAULTS);
  assert.deepEqual(unsettled, []);
  assert.equal(told, 0, 'nobody was told that something is missing');
  assert.deepEqual(
    Object.values(tenfold).flatMap(({ unequal }) => unequal),
    [],
  );
  assert.deepEqual(
    Object.keys(checker.refused).filter((code) => !['banned', 'timed_out'].includes(code)),
    [],
  );
  assert.ok(acked > 500 && compared > entries, 'something was looked at');
  for (const act of ['delete', 'purge', 'ban', 'unban', 'timeout', 'untimeout'])
    assert.ok((moderator.done[act] ?? 0) > 0, `${act}: ${moderator.done[act]}`);
}
