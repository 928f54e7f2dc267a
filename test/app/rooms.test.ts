import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { channelStandingOf, provenIdentityOf } from '../../src/access/chat-authorization.js';
import type { RoomsApi } from '../../src/app/api/rooms/room-access.js';
import type { Database } from '../../src/backing/database/database.js';
import { parseModAction } from '../../src/chat/moderation/mod-actions.js';
import { PAGE_LIMITS } from '../../src/chat/rooms/page-limits.js';
import { type ChatRooms, openChatRooms } from '../../src/compose/chat-service.js';
import { Broadcasts } from '../../src/library/broadcasts.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { userIdOf } from '../../src/runtime/user-id.js';
import { startApp, type TestApp } from '../support/app.js';
import { openTestDatabase } from '../support/database.js';
import { callAs, type Person, personOf } from '../support/people.js';
import { eventually } from '../support/process.js';

/** The API on the real rooms: the log of one process, and PostgreSQL. */
let database: Database;
let app: TestApp;
let chat: ChatRooms;
/** Flags what has "vile" in it. */
let remoteJudge: Server;
let owner: Person;
let moderator: Person;
let viewer: Person;
let bot: string;
let keys = 0;

before(async () => {
  database = await openTestDatabase();
  const api = {} as RoomsApi;
  app = await startApp({ broadcasts: new Broadcasts(database), chat: api }, { database });
  remoteJudge = createServer(async (req, res) => {
    const { input } = (await json(req)) as { input: string };
    const flagged = input.includes('vile');
    res.end(JSON.stringify({ results: [{ flagged, categories: { hate: flagged }, category_scores: { hate: 1 } }] }));
  }).listen(0, '127.0.0.1');
  await once(remoteJudge, 'listening');
  const moderationUrl = `http://127.0.0.1:${(remoteJudge.address() as AddressInfo).port}/v1/moderations`;
  const config = { maxMessageBytes: 8192, moderationEnabled: true, moderationUrl };
  const { vault, audit } = app.access;
  chat = await openChatRooms({ config, database, vault, audit, clock: new SystemClock(), log: silentLog });
  await chat.start();
  const presence = { count: () => 2, people: async () => [{ id: 'x', name: 'Somebody' }] };
  const { rooms, desk } = chat;
  Object.assign(api, {
    rooms,
    desk,
    history: rooms,
    pageLimits: rooms.pageLimits,
    presence,
    tryText: (roomId, text) =>
      chat.moderation?.classify({
        roomId,
        authorId: '',
        privileged: false,
        text,
        settings: desk.rules.classifierSettingsOf(roomId),
        isTrial: true,
      }),
    who: (principal, channelRole) => ({ ...provenIdentityOf(principal), ...channelStandingOf(principal, channelRole) }),
    async sinceMs(accountId) {
      const { rows } = await database.query<{ created_at: Date }>('select created_at from accounts where id = $1', [accountId]);
      return rows[0]?.created_at.getTime();
    },
  } satisfies RoomsApi);

  const world = { ...app, database } as TestApp;
  owner = await personOf(world, 'broadcaster', false, 'Olive');
  moderator = await personOf(world, 'listener', false, 'Mod');
  viewer = await personOf(world, 'listener', false, 'Vera');
  for (const [slug, visibility] of [
    ['radio', 'public'],
    ['secret', 'private'],
  ] as const) {
    const { channel } = await app.access.channels.create(slug, { title: slug, visibility, recording: true }, owner.id);
    await app.access.members.set(channel, moderator.id, 'moderator');
  }
  const made = await callAs(app, moderator.token, 'POST', '/me/api-keys', { name: 'bot', scopes: ['moderate', 'channels:read'] });
  bot = made.body.secret;
  // Of the messages of one test some are the spam of another.
  await calls(owner, 'PATCH', '/rooms/radio', { moderated: false, perS: 100, burst: 100, roomPerS: 1000 });
});
after(async () => {
  await chat.stop();
  remoteJudge.close();
  remoteJudge.closeAllConnections();
  await app.stop();
  await database.stop();
});

const tokenOf = (who: Person | string | undefined) => (typeof who === 'object' ? who.token : who);
const calls = (who: Person | string | undefined, method: string, path: string, body?: unknown) =>
  callAs(app, tokenOf(who), method, path, body);

/** Does it, and says what came of it when it is not that. */
async function does(who: Person | string | undefined, method: string, path: string, body: unknown, status: number) {
  const answer = await calls(who, method, path, body);
  assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
  return answer.body;
}
const says = async (who: Person | string, text: string, room = 'radio') =>
  (await does(who, 'POST', `/rooms/${room}/messages`, { text, key: `k${++keys}` }, 201)) as { mid: string; offset: number; state: string };
const newest = async (limit = 10) => (await does(undefined, 'GET', `/rooms/radio/messages?limit=${limit}`, undefined, 200)).items;
const newcomer = (name: string) => personOf({ ...app, database } as TestApp, 'listener', false, name);

test('what is posted is in the history, once for each key, by slug and by id', async () => {
  const first = await does(viewer, 'POST', '/rooms/radio/messages', { text: 'hello', key: 'same' }, 201);
  assert.deepEqual([first.state, first.dup], ['published', false]);
  const again = await does(viewer, 'POST', '/rooms/radio/messages', { text: 'hello', key: 'same' }, 201);
  assert.deepEqual({ ...again, dup: false }, first);
  assert.equal(again.dup, true);
  const { id } = await does(undefined, 'GET', '/rooms/radio', undefined, 200);
  const reply = await does(bot, 'POST', `/rooms/${id}/messages`, { text: 'welcome', key: 'b1', reply: first.mid }, 201);
  const entries = await newest(2);
  assert.deepEqual(
    entries.map((entry: { t: string; mid: string; offset: number; user: object; body: object }) => [
      entry.t,
      entry.mid,
      entry.offset,
      entry.user,
      entry.body,
    ]),
    [
      ['msg', first.mid, first.offset, { id: viewer.id, name: 'Vera', role: 'viewer' }, { text: 'hello' }],
      ['msg', reply.mid, first.offset + 1, { id: moderator.id, name: 'Mod', role: 'moderator' }, { text: 'welcome', reply: first.mid }],
    ],
  );
  // The author's copy carries the key, and nobody else's.
  const own = await does(viewer, 'GET', '/rooms/radio/messages?limit=2', undefined, 200);
  assert.deepEqual([own.items[0].key, own.items[1].key], ['same', undefined]);
});

test('history is paged from the newest to the oldest, without a hole', async () => {
  for (let n = 0; n < 12; n++) await says(viewer, `message ${n}`);
  const offsets: number[] = [];
  for (let before: string | null = ''; before !== null; ) {
    const page: { items: { offset: number }[]; next: string | null } = await does(
      undefined,
      'GET',
      `/rooms/radio/messages?limit=5${before && `&before=${before}`}`,
      undefined,
      200,
    );
    assert.ok(page.items.length <= 5);
    offsets.unshift(...page.items.map(({ offset }) => offset));
    before = page.next;
  }
  assert.deepEqual(
    offsets,
    offsets.map((_, index) => index + 1),
  );
});

test('pages are counted: who reads without end is told when to go on', async () => {
  const person = await newcomer('Hasty');
  const answers: Awaited<ReturnType<typeof calls>>[] = [];
  const refusedOf = () => answers.filter(({ status }) => status === 429);
  // A machine that others use may answer more slowly than pages come back; twenty bursts at once are more than any has allowed.
  for (let bursts = 0; bursts < 20 && refusedOf().length === 0; bursts++) {
    answers.push(
      ...(await Promise.all(
        Array.from({ length: PAGE_LIMITS.account.burst + 10 }, () => calls(person, 'GET', '/rooms/radio/messages?limit=1')),
      )),
    );
  }
  const refused = refusedOf();
  assert.ok(refused.length > 0 && answers.filter(({ status }) => status === 200).length >= PAGE_LIMITS.account.burst);
  for (const { body, headers } of refused) {
    assert.equal(body.code, 'rate_limited');
    assert.ok(Number(headers.get('retry-after')) >= 1);
  }
});

test('who may not write is told why; what is refused has a status that a bot can go by', async () => {
  await does(undefined, 'POST', '/rooms/radio/messages', { text: 'x', key: 'x' }, 401);
  const readsOnly = (await calls(viewer, 'POST', '/me/api-keys', { name: 'x', scopes: ['channels:read'] })).body.secret;
  await does(readsOnly, 'POST', '/rooms/radio/messages', { text: 'x', key: 'x' }, 403);
  const long = await does(viewer, 'POST', '/rooms/radio/messages', { text: 'x'.repeat(8193), key: 'long' }, 413);
  assert.equal(long.details.refusal, 'too_long');
  await does(owner, 'PUT', '/rooms/radio/terms', { blocked: ['forbidden fruit'] }, 204);
  await does(owner, 'PATCH', '/rooms/radio', { moderated: true }, 200);
  const term = await does(viewer, 'POST', '/rooms/radio/messages', { text: 'a forbidden fruit', key: 'term' }, 403);
  assert.equal(term.details.refusal, 'moderated');
  const tried = (text: string) => does(moderator, 'POST', '/rooms/radio/terms/try', { text }, 200);
  assert.deepEqual(await tried('a forbidden  fruit!'), {
    verdict: 'refuse',
    text: null,
    reasons: [{ rule: 'term', category: 'term', score: 1 }],
  });
  // Tried as often as one likes, and it counts for nothing.
  for (let i = 0; i < 40; i++) assert.equal((await tried('a good word')).verdict, 'allow');
  await does(owner, 'PATCH', '/rooms/radio', { moderated: false }, 200);

  await does(bot, 'POST', '/rooms/radio/modes', { slowS: 600 }, 200);
  const one = await newcomer('Slow');
  await says(one, 'first');
  const slow = await calls(one, 'POST', '/rooms/radio/messages', { text: 'second', key: 'second' });
  assert.deepEqual([slow.status, slow.body.details.refusal], [429, 'slow_mode']);
  assert.ok(Number(slow.headers.get('retry-after')) > 590);
  await says(moderator, 'not for me');
  await says(moderator, 'as you see');
  const modes = await does(bot, 'POST', '/rooms/radio/modes', { slowS: 0, emoteOnly: true, unique: true }, 200);
  assert.deepEqual(modes, { slowS: 0, followersMin: 0, unique: true, emoteOnly: true, shield: false });
  const words = await does(viewer, 'POST', '/rooms/radio/messages', { text: 'words', key: 'words' }, 403);
  assert.equal(words.details.refusal, 'emote_only');
  await says(viewer, '🎺');
  const twice = await does(viewer, 'POST', '/rooms/radio/messages', { text: '🎺', key: 'twice' }, 409);
  assert.equal(twice.details.refusal, 'not_unique');
  await does(bot, 'POST', '/rooms/radio/modes', { emoteOnly: false, unique: false, followersMin: 60 }, 200);
  const young = await does(viewer, 'POST', '/rooms/radio/messages', { text: 'young', key: 'young' }, 403);
  assert.equal(young.details.refusal, 'too_new');
  await database.query(`update accounts set created_at = now() - interval '61 minutes' where id = $1`, [viewer.id]);
  await says(viewer, 'old enough');
  await does(bot, 'POST', '/rooms/radio/modes', { followersMin: 0 }, 200);
});

test('a bot deletes a message, and everything of somebody: gone from history, export and database', async () => {
  const one = await newcomer('Eve');
  const { mid, offset } = await says(one, 'something vile');
  await says(one, 'something worse');
  await does(viewer, 'DELETE', `/rooms/radio/messages/${mid}`, undefined, 403);
  await does(bot, 'DELETE', `/rooms/radio/messages/${mid}`, undefined, 204);
  const entries = await newest();
  assert.equal(entries.find((entry: { offset: number }) => entry.offset === offset).t, 'gone');
  assert.equal(entries.at(-1).t, 'del');
  assert.deepEqual(entries.at(-1).mids, [mid]);
  await does(bot, 'DELETE', `/rooms/radio/users/${one.id}/messages`, undefined, 204);
  const everything = (await calls(owner, 'GET', '/rooms/radio/export')).text;
  assert.ok(!everything.includes('something'), 'not in the export');
  const { rows } = await database.query(`select 1 from messages where payload like '%something%'`);
  assert.deepEqual(rows, []);
});

test('an account’s export has what the chat keeps about it, page for page, and nothing of others or of what it is not to know', async () => {
  const [one, other] = [await newcomer('Dora'), await newcomer('Else')];
  const mine = await says(one, 'my own words');
  const theirs = await says(other, 'what the other says');
  const room = (await chat.rooms.find('radio'))!.id;
  await chat.rooms.withRoom(room, (opened) => opened.setReaction(one.id, theirs.mid, '👍', true));
  await database.query(
    `insert into held_messages (room_id, mid, user_id, user_name, user_role, key, body, why, created_at)
     values ($1, $2, $3, 'Dora', 'viewer', 'k', '{"text":"hm"}', 'the judge’s own notes', now())`,
    [room, 'h'.repeat(22), one.id],
  );
  await does(bot, 'POST', `/rooms/radio/users/${one.id}/warnings`, { text: 'quieter' }, 204);
  await does(bot, 'PUT', `/rooms/radio/timeouts/${one.id}`, { seconds: 600, reason: 'caps' }, 200);
  await does(bot, 'PUT', `/rooms/radio/bans/${one.id}`, { reason: 'loud' }, 200);
  await does(one, 'POST', '/rooms/radio/appeals', { text: 'I was not' }, 201);
  await database.query(
    `insert into messages (room_id, "offset", epoch, type, mid, user_id, payload, created_at)
     select gen_random_uuid(), n, 1, 'msg', lpad(n::text, 22, '-'), $1, '{"body":{"text":"again"}}', now() from generate_series(1, 600) n
     union all select '00000000-0000-4000-8000-000000000001', n, 1, 'msg', lpad(n::text, 22, '-'), $1, '{"body":{"text":"again"}}', now()
     from generate_series(1, 600) n`,
    [one.id],
  );

  const { text } = await calls(one, 'GET', '/me/export/chat');
  const records = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const of = (kind: string) => records.filter((record) => record.kind === kind);
  const messages = of('message');
  assert.equal(messages.length, 1201);
  assert.equal(new Set(messages.map((record) => `${record.room} ${record.offset}`)).size, 1201);
  const said = messages.find(({ mid }) => mid === mine.mid);
  assert.deepEqual([said?.room, said?.channel, said?.offset, said?.body], [room, 'radio', mine.offset, { text: 'my own words' }]);
  assert.deepEqual(
    of('reaction').map(({ mid, emoji }) => [mid, emoji]),
    [[theirs.mid, '👍']],
  );
  assert.deepEqual(of('held')[0]?.body, { text: 'hm' });
  assert.deepEqual(
    [of('warning')[0]?.text, of('timeout')[0]?.reason, of('ban')[0]?.reason, of('appeal')[0]?.text],
    ['quieter', 'caps', 'loud', 'I was not'],
  );
  assert.equal(of('writer').length, 1);
  assert.doesNotMatch(text, /what the other says|the judge/);
  const exported = await does(one, 'GET', '/me/export', undefined, 200);
  assert.deepEqual([exported.chat, exported.chatIsComplete], [records, true]);

  await does(bot, 'PUT', `/rooms/radio/bans/${other.id}`, { shadow: true, reason: 'troll' }, 200);
  await says(other, 'nobody hears this');
  const theirRecords = (await calls(other, 'GET', '/me/export/chat')).text;
  assert.match(theirRecords, /nobody hears this/);
  assert.doesNotMatch(theirRecords, /shadow|troll/);
  await database.query('delete from messages where user_id = $1 and room_id not in (select id from rooms)', [one.id]);
  for (const table of ['held_messages', 'room_appeals']) await database.query(`delete from ${table} where user_id = $1`, [one.id]);
});

test('what a remote judge is asked about afterwards is published at once, and taken back; a moderator may put it back', async () => {
  const one = await newcomer('Ivy');
  await does(owner, 'PATCH', '/rooms/radio', { moderated: true, remote: 'retract' }, 200);
  const kind = await says(one, 'a kind word');
  const vile = await says(one, 'a vile word');
  assert.deepEqual([kind.state, vile.state], ['published', 'published']);
  const entries = await eventually('it is taken back', async () => {
    const found = await newest(3);
    return found.at(-1).t === 'del' ? found : undefined;
  });
  assert.deepEqual(
    entries.map(({ t, offset }: { t: string; offset: number }) => [t, offset]),
    [
      ['msg', kind.offset],
      ['gone', vile.offset],
      ['del', vile.offset + 1],
    ],
  );
  assert.deepEqual(entries.at(-1).by, { id: 'service', name: 'Automatic moderation' });
  const held = await eventually('it waits', async () => {
    const { items } = await does(moderator, 'GET', '/rooms/radio/held', undefined, 200);
    return items.find((item: { body: { text: string } }) => item.body.text === 'a vile word');
  });
  assert.equal(held.why, 'hate');
  const [act] = (await does(moderator, 'GET', `/rooms/radio/acts?limit=1`, undefined, 200)).items;
  assert.deepEqual([act.action, act.userId, act.details.mid], ['retract', one.id, vile.mid]);
  await does(moderator, 'POST', `/rooms/radio/held/${held.mid}/approve`, undefined, 200);
  const [back] = await newest(1);
  assert.deepEqual([back.t, back.body.text, back.mid], ['msg', 'a vile word', held.mid]);
  await does(owner, 'PATCH', '/rooms/radio', { moderated: false, remote: 'off' }, 200);
});

test('ban, appeal, answer: each sees what is his to see', async () => {
  const one = await newcomer('Mallory');
  await says(one, 'before the ban');
  const { offset } = await does(bot, 'PUT', `/rooms/radio/bans/${one.id}`, { reason: 'trolling', seconds: 3600 }, 200);
  const entry = (await newest()).find((found: { offset: number }) => found.offset === offset);
  assert.deepEqual([entry.t, entry.action, entry.user, entry.reason], ['act', 'ban', { id: one.id, name: 'Mallory' }, undefined]);
  const refused = await does(one, 'POST', '/rooms/radio/messages', { text: 'x', key: 'x' }, 403);
  assert.equal(refused.details.refusal, 'banned');
  const out = await does(one, 'GET', '/rooms/radio/messages', undefined, 403);
  assert.equal(out.details.refusal, 'banned');
  await does(one, 'GET', '/rooms/radio/members', undefined, 403);
  const standing = await does(one, 'GET', '/rooms/radio/me', undefined, 200);
  assert.equal(standing.ban.reason, 'trolling');
  const { id } = await does(one, 'POST', '/rooms/radio/appeals', { text: 'I am\nsorry' }, 201);
  await does(one, 'POST', '/rooms/radio/appeals', { text: 'really' }, 409);
  await does(viewer, 'POST', '/rooms/radio/appeals', { text: 'me too' }, 404);
  await does(viewer, 'GET', '/rooms/radio/appeals', undefined, 403);
  const open = await does(bot, 'GET', '/rooms/radio/appeals?open=true', undefined, 200);
  assert.deepEqual([open.items[0].id, open.items[0].text, open.items[0].accepted], [id, 'I am\nsorry', null]);
  await does(bot, 'POST', `/rooms/radio/appeals/${id}`, { accepted: true, answer: 'welcome back' }, 200);
  await says(one, 'thank you');
  assert.equal((await does(one, 'GET', '/rooms/radio/me', undefined, 200)).appeal.answer, 'welcome back');
  // Nobody bans the owner; and of the service nobody is touched by it.
  await does(bot, 'PUT', `/rooms/radio/bans/${owner.id}`, {}, 403);
  await does(bot, 'PUT', `/rooms/radio/bans/${randomUUID()}`, {}, 404);
});

test('timeouts and warnings; what moderators see of somebody', async () => {
  const one = await newcomer('Tim');
  await does(bot, 'PUT', `/rooms/radio/timeouts/${one.id}`, { seconds: 600, reason: 'caps' }, 200);
  const refused = await does(one, 'POST', '/rooms/radio/messages', { text: 'x', key: 'x' }, 403);
  assert.equal(refused.details.refusal, 'timed_out');
  await does(one, 'GET', '/rooms/radio/messages', undefined, 200);
  await does(bot, 'POST', `/rooms/radio/users/${one.id}/warnings`, { text: 'no caps' }, 204);
  const standing = await does(one, 'GET', '/rooms/radio/me', undefined, 200);
  assert.equal(standing.timeout.reason, 'caps');
  assert.equal(standing.warnings[0].text, 'no caps');
  await does(one, 'POST', `/rooms/radio/me/warnings/${standing.warnings[0].id}`, undefined, 204);
  assert.deepEqual((await does(one, 'GET', '/rooms/radio/me', undefined, 200)).warnings, []);
  await does(bot, 'DELETE', `/rooms/radio/timeouts/${one.id}`, undefined, 204);
  await says(one, 'back');
  const seen = await does(bot, 'GET', `/rooms/radio/users/${one.id}`, undefined, 200);
  assert.deepEqual(
    seen.acts.map(({ action, by }: { action: string; by: { name: string } }) => [action, by.name]),
    [
      ['untimeout', 'Mod'],
      ['warn', 'Mod'],
      ['timeout', 'Mod'],
    ],
  );
  assert.deepEqual(new Set(seen.acts.map(({ userName }: { userName: string }) => userName)), new Set(['Tim']));
  assert.ok(seen.warnings[0].seenAt);
  await does(viewer, 'GET', `/rooms/radio/users/${one.id}`, undefined, 403);
});

test('whoever a token can name can be moderated, looked up and purged, over REST as by frame', async () => {
  const room = (await chat.rooms.find('radio'))!;
  const subjects = [
    'Ann Lee',
    ' x ',
    'jürgen',
    '李雷',
    'a/b?c#d%e',
    '..',
    'a:b+c',
    '%2F',
    'مرحبا\u200f',
    '\u2028',
    viewer.id,
    '😀'.repeat(255),
    '李'.repeat(255),
  ];
  const ids = subjects.flatMap((subject) => [
    userIdOf('gateway', subject)!,
    userIdOf(`issuer:${encodeURIComponent('https://id.example/')}`, subject)!,
  ]);
  assert.equal(new Set(ids).size, 2 * subjects.length);
  for (const id of ids) {
    const said = await chat.rooms.withRoom(room.id, async (opened) => {
      await chat.desk.rules.openRoom(room.id);
      const outcome = await opened.publishMessage({
        author: { id, name: 'Somebody', role: 'viewer' },
        key: `k${++keys}`,
        body: { text: `hello ${keys}` },
      });
      return outcome.kind === 'published' ? await outcome.committed : outcome;
    });
    assert.equal(said.kind, 'stored', id);
    const path = encodeURIComponent(id);
    await does(bot, 'PUT', `/rooms/radio/timeouts/${path}`, { seconds: 600 }, 200);
    await does(bot, 'PUT', `/rooms/radio/bans/${path}`, {}, 200);
    await does(bot, 'POST', `/rooms/radio/users/${path}/warnings`, { text: 'stop' }, 204);
    await does(bot, 'DELETE', `/rooms/radio/users/${path}/messages`, undefined, 204);
    const seen = await does(bot, 'GET', `/rooms/radio/users/${path}`, undefined, 200);
    assert.deepEqual([seen.ban.user.id, seen.timeout.user.id, seen.warnings.length, seen.acts.length], [id, id, 1, 4]);
    assert.equal((await does(bot, 'GET', `/rooms/radio/acts?user=${path}`, undefined, 200)).items.length, 4);
    for (const action of ['timeout', 'ban']) assert.equal(parseModAction({ action, user: id, seconds: 60 }).action, action, 'and by frame');
    await does(bot, 'DELETE', `/rooms/radio/bans/${path}`, undefined, 204);
  }
  const listed: string[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: { items: { user: { id: string } }[]; next: string | null } = await does(
      bot,
      'GET',
      `/rooms/radio/timeouts?limit=1${cursor && `&cursor=${cursor}`}`,
      undefined,
      200,
    );
    listed.push(...page.items.map(({ user }) => user.id));
    cursor = page.next;
  }
  for (const id of ids) {
    assert.ok(listed.includes(id), 'a page of the list begins behind any of them');
    await does(bot, 'DELETE', `/rooms/radio/timeouts/${encodeURIComponent(id)}`, undefined, 204);
  }
  assert.equal(
    (await does(viewer, 'GET', '/rooms/radio/me', undefined, 200)).ban,
    null,
    'an account is another than a subject of its name',
  );
  for (const subject of ['', 'a\u0000', 'a\nb', '\ud800', 'x'.repeat(256)]) assert.equal(userIdOf('gateway', subject), undefined);
  assert.equal(userIdOf(`issuer:${'x'.repeat(1000)}`, 'y'.repeat(30)), undefined);
});

test('a held message waits, is approved once under its own mid, or denied', async () => {
  await does(owner, 'PATCH', '/rooms/radio', { moderated: true, links: 'hold' }, 200);
  const one = await newcomer('Linda');
  const held = await says(one, 'look at https://example.org/a');
  assert.deepEqual([held.state, held.offset], ['held', null]);
  const other = await says(one, 'and at https://example.org/b');
  const waiting = async (who: Person | string) => (await does(who, 'GET', '/rooms/radio', undefined, 200)).waiting;
  assert.deepEqual([await waiting(bot), await waiting(viewer)], [{ held: 2, appeals: 0 }, null]);
  const queue = await does(bot, 'GET', '/rooms/radio/held?limit=1', undefined, 200);
  assert.deepEqual([queue.items[0].mid, queue.items[0].user.name], [held.mid, 'Linda']);
  const rest = await does(bot, 'GET', `/rooms/radio/held?limit=1&cursor=${queue.next}`, undefined, 200);
  assert.deepEqual([rest.items[0].mid, rest.next], [other.mid, null]);
  const { offset } = await does(bot, 'POST', `/rooms/radio/held/${held.mid}/approve`, undefined, 200);
  await does(bot, 'POST', `/rooms/radio/held/${held.mid}/approve`, undefined, 409);
  const entry = (await newest()).find((found: { offset: number }) => found.offset === offset);
  assert.deepEqual([entry.t, entry.mid, entry.body.text], ['msg', held.mid, 'look at https://example.org/a']);
  assert.ok(entry.sentAt);
  await does(bot, 'POST', `/rooms/radio/held/${other.mid}/deny`, { reason: 'one is enough' }, 204);
  const mine = (await does(one, 'GET', '/rooms/radio/me', undefined, 200)).held;
  assert.deepEqual(
    mine.map(({ mid, state, reason }: { mid: string; state: string; reason: string | null }) => [mid, state, reason]),
    [
      [other.mid, 'denied', 'one is enough'],
      [held.mid, 'approved', null],
    ],
  );
  await does(owner, 'PATCH', '/rooms/radio', { moderated: false, links: 'allow' }, 200);
});

test('a pin is shown with the room until its message is deleted', async () => {
  const { mid } = await says(viewer, 'be kind');
  await does(bot, 'PUT', '/rooms/radio/pin', { mid }, 200);
  const room = await does(undefined, 'GET', '/rooms/radio', undefined, 200);
  assert.deepEqual([room.pinned.mid, room.pinned.body.text, room.pinned.user.name], [mid, 'be kind', 'Vera']);
  await does(bot, 'DELETE', `/rooms/radio/messages/${mid}`, undefined, 204);
  assert.equal((await does(undefined, 'GET', '/rooms/radio', undefined, 200)).pinned, null);
});

test('settings: what moderators may, what only who runs the channel may, and what guests are told', async () => {
  await does(moderator, 'PATCH', '/rooms/radio', { perS: 1 }, 403);
  const wrong = await does(owner, 'PATCH', '/rooms/radio', { perS: 101 }, 400);
  assert.equal(wrong.details.at, 'body.perS');
  await does(owner, 'PATCH', '/rooms/radio', { allowedHosts: ['http://no host'] }, 400);
  const all = await does(owner, 'PATCH', '/rooms/radio', { allowedHosts: ['example.org'] }, 200);
  assert.deepEqual([all.allowedHosts, all.perS], [['example.org'], 100]);
  const toGuests = (await does(undefined, 'GET', '/rooms/radio', undefined, 200)).settings;
  assert.deepEqual([toGuests.slowS, toGuests.links, toGuests.allowedHosts], [0, undefined, undefined]);
  assert.deepEqual((await does(moderator, 'GET', '/rooms/radio', undefined, 200)).settings.allowedHosts, ['example.org']);
  await does(owner, 'PATCH', '/rooms/radio', { guests: 'none' }, 200);
  await does(undefined, 'GET', '/rooms/radio/messages', undefined, 401);
  await does(viewer, 'GET', '/rooms/radio/messages', undefined, 200);
  await does(owner, 'PATCH', '/rooms/radio', { guests: 'read' }, 200);
  await does(undefined, 'GET', '/rooms/radio/members', undefined, 401);
  assert.equal((await does(viewer, 'GET', '/rooms/radio/members', undefined, 200)).count, 2);
});

test('the room of a private channel is not there for who may not see it, and its id does not say which it is', async () => {
  const { id } = await does(owner, 'GET', '/rooms/secret', undefined, 200);
  for (const who of [undefined, viewer])
    for (const room of ['secret', id, 'no-such-room', randomUUID()])
      for (const [method, path, body] of [
        ['GET', '', undefined],
        ['GET', '/messages', undefined],
        ['POST', '/messages', { text: 'x', key: 'x' }],
        ['GET', '/members', undefined],
        ['GET', '/me', undefined],
        ['POST', '/appeals', { text: 'x' }],
      ] as const) {
        const answer = await does(who, method, `/rooms/${room}${path}`, body, 404);
        assert.ok(room === 'secret' || !JSON.stringify(answer).includes('secret'), JSON.stringify(answer));
      }
  const answer = await does(viewer, 'GET', `/rooms/${id}/bans`, undefined, 404);
  assert.ok(!JSON.stringify(answer).includes('secret'));
  assert.equal((await says(bot, 'we are among ourselves', 'secret')).state, 'published');
});

test('who did what, from where and to whom is in the audit log, and for moderators in the room', async () => {
  const one = await newcomer('Norman');
  await does(bot, 'PUT', `/rooms/radio/bans/${one.id}`, { shadow: true, reason: 'sock puppet' }, 200);
  await calls(owner, 'GET', '/rooms/radio/export');
  const [exported, banned] = await app.access.audit.list({ channel: 'radio' }, 2);
  assert.deepEqual([exported?.action, exported?.actor], ['chat.export', `account:${owner.id}`]);
  assert.deepEqual(
    [banned?.action, banned?.actor.split(':')[0], banned?.actorName, banned?.target, banned?.details],
    ['chat.shadowBan', 'api-key', 'Mod', `user:${one.id}`, { reason: 'sock puppet' }],
  );
  assert.ok(banned?.address && banned.requestId);
  const acts = await does(moderator, 'GET', '/rooms/radio/acts?limit=1', undefined, 200);
  assert.equal(acts.items[0].action, 'shadowBan');
  const older = await does(moderator, 'GET', `/rooms/radio/acts?limit=1&cursor=${acts.next}`, undefined, 200);
  assert.ok(older.items[0].id < acts.items[0].id);
  await does(viewer, 'GET', '/rooms/radio/acts', undefined, 403);

  // He sees what he says; nobody else does, nor that there is a ban.
  const { offset } = await says(one, 'does anybody hear me?');
  const of = async (who: Person | undefined) =>
    (await does(who, 'GET', '/rooms/radio/messages', undefined, 200)).items.find((entry: { offset: number }) => entry.offset === offset);
  assert.equal((await of(one)).body.text, 'does anybody hear me?');
  assert.deepEqual([(await of(viewer)).t, (await of(undefined)).body], ['gone', undefined]);
  assert.equal((await does(one, 'GET', '/rooms/radio/me', undefined, 200)).ban, null);
});

test('lists are paged', async () => {
  for (const name of ['A', 'B', 'C']) {
    const one = await newcomer(name);
    await does(bot, 'PUT', `/rooms/secret/bans/${one.id}`, {}, 200);
    await does(bot, 'PUT', `/rooms/secret/timeouts/${one.id}`, { seconds: 600 }, 200);
  }
  for (const list of ['bans', 'timeouts']) {
    const names: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: { items: { user: { name: string } }[]; next: string | null } = await does(
        bot,
        'GET',
        `/rooms/secret/${list}?limit=2${cursor && `&cursor=${cursor}`}`,
        undefined,
        200,
      );
      names.push(...page.items.map(({ user }) => user.name));
      cursor = page.next;
    }
    assert.deepEqual(names.sort(), ['A', 'B', 'C'], list);
  }
});

test('an export is a line for each entry, in order', async () => {
  const answer = await calls(owner, 'GET', '/rooms/radio/export');
  assert.equal(answer.headers.get('content-type'), 'application/jsonl');
  const entries = answer.text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { offset: number });
  assert.deepEqual(
    entries.map(({ offset }) => offset),
    entries.map((_, index) => index + 1),
  );
  await does(moderator, 'GET', '/rooms/radio/export', undefined, 403);
});

test('a process without a chat says so', async () => {
  const other = await startApp({ chat: undefined }, {});
  await other.access.channels.create('radio', { title: 'x', visibility: 'public', recording: true });
  for (const [method, path] of [
    ['GET', '/rooms/radio'],
    ['GET', '/rooms/radio/bans'],
  ] as const) {
    const answer = await callAs(other, other.token, method, path);
    assert.deepEqual([answer.status, answer.body.code], [503, 'unavailable']);
    assert.match(answer.body.detail, /ROLES/);
  }
  await other.stop();
});
