import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { processTree } from '../bench/cpu.js';
import { ChatChecker, NO_FAULTS, STORED_ENTRIES, type StoredEntry } from '../support/chat-checker.js';
import { freePorts } from '../support/free-port.js';
import { startPostgres } from '../support/postgres.js';
import { eventually } from '../support/process.js';
import { startRedis } from '../support/redis.js';
import { Server } from '../support/server.js';

const ROOMS = ['one', 'two', 'three'];
const MEMBERS = 24;
const PROCESSES = 2;

const WORDS =
  'piano drums bass guitar singer chorus bridge verse melody rhythm evening morning winter summer river garden window street coffee letter story picture quiet loud gentle bright early late again never always maybe almost really hardly today'.split(
    ' ',
  );

/** No two alike: whoever says the same again and again is refused. */
const sentence = (seed: number) =>
  Array.from({ length: 6 }, (_, word) => WORDS[Math.floor(Math.abs(Math.sin(seed * 7 + word * 13.7)) * WORDS.length)]).join(' ');

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

test('every message once, in one order, acked means kept: while everything that can be killed is killed', async (t) => {
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
  const tokenOf = (name: string) => {
    const claims = { iss: 'gateway', aud: 'test', sub: name, name, role: 'listener', exp: Math.floor(Date.now() / 1000) + 3600 };
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  };

  const checker = new ChatChecker(`ws://127.0.0.1:${wsPort}/chat`);
  t.after(() => checker.stop());
  await Promise.all(
    Array.from({ length: MEMBERS }, (_, index) =>
      checker.join(`member-${index}`, tokenOf(`member-${index}`), [ROOMS[index % 3]!, ROOMS[(index + 1) % 3]!]),
    ),
  );

  // Everybody talks, and somebody loses his line now and then, all the time.
  let said = 0;
  const talking = setInterval(() => {
    const member = checker.members[said % MEMBERS]!;
    void checker.say(member, member.rooms[said % 2]!, sentence(said++));
  }, 20);
  const dropping = setInterval(() => checker.members[Math.floor(Math.random() * MEMBERS)]!.drop(), 400);
  t.after(() => {
    clearInterval(talking);
    clearInterval(dropping);
  });
  const ackedMore = async (what: string) => {
    const from = checker.acked;
    await eventually(`messages are acknowledged again after ${what}`, () => (checker.acked > from + 20 ? true : undefined), 60_000).catch(
      (error) => {
        throw new Error(`${error.message}; ${checker.state()}\n${server.logTail()}`);
      },
    );
  };
  await ackedMore('the start');

  const chatProcess = () => {
    const found = processTree(server.pid).filter(({ parent, name }) => parent === server.pid && name !== 'ffmpeg');
    assert.ok(found.length >= PROCESSES, `${PROCESSES} chat processes`);
    return found[Math.floor(Math.random() * found.length)]!.pid;
  };
  for (let times = 0; times < 2; times++) {
    process.kill(chatProcess(), 'SIGKILL');
    await ackedMore('a chat process was killed');
  }
  await redis.kill9();
  await sleep(1500);
  await redis.restart();
  await ackedMore('Redis lost everything');
  redis.suspend();
  await sleep(2500);
  redis.resume();
  await ackedMore('Redis was silent');
  await redis.command('flushall');
  await ackedMore('Redis was wiped');
  await postgres.crash();
  await sleep(5000);
  await postgres.restart();
  await ackedMore('PostgreSQL was away');
  await Promise.all([postgres.crash(), redis.kill9()]);
  await sleep(1000);
  await Promise.all([postgres.restart(), redis.restart()]);
  await ackedMore('both were gone');
  await server.kill9();
  await server.restart();
  await ackedMore('the whole service was killed');

  clearInterval(talking);
  clearInterval(dropping);
  const database = new pg.Pool({ connectionString: postgres.url, max: 1 });
  const stored = async () => (await database.query<StoredEntry>(STORED_ENTRIES)).rows;
  const report = checker.check(await checker.settle(stored, 60_000));
  await database.end();
  await mkdir('bench-results', { recursive: true });
  await writeFile('bench-results/chat-check.json', `${JSON.stringify({ ...report, refused: checker.refused }, null, 2)}\n`);
  const { members, entries, acked, compared, told, unsettled, ...faults } = report;
  t.diagnostic(
    `${members} members, ${entries} entries, ${acked} acknowledged, ${compared} offsets compared; refused ${JSON.stringify(checker.refused)}`,
  );
  assert.deepEqual(faults, NO_FAULTS);
  assert.deepEqual([told, unsettled], [0, []]);
  assert.ok(acked > 200 && compared > entries, 'something was looked at');
});
