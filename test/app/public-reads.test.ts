import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { type ChatRooms, openChatRooms } from '../../src/compose/chat-service.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { startApp, type TestApp } from '../support/app.js';
import { type Answer, callAs, personOf } from '../support/people.js';

let app: TestApp;
/** The real rooms, on the log of one process. */
let chat: ChatRooms;
before(async () => {
  app = await startApp({ trustProxyHops: 1 }, { rateLimitPerMinute: 20 });
  const { database, access } = app;
  const config = { maxMessageBytes: 8192, moderationEnabled: false };
  chat = await openChatRooms({ config, database, vault: access.vault, audit: access.audit, clock: new SystemClock(), log: silentLog });
  await chat.start();
  Object.assign(app.chat, { rooms: chat.rooms, desk: chat.desk, history: chat.rooms, pageLimits: chat.rooms.pageLimits });
  for (const slug of ['radio', 'other', 'hidden']) await app.channels.create(slug, { title: slug, visibility: 'public', recording: false });
});
after(async () => {
  await chat.stop();
  await app.stop();
});

const get = (slug: string, headers: Record<string, string> = {}) => fetch(`${app.url}/api/v1/channels/${slug}`, { headers });

test('a channel that is known is read by any number of guests, however much was asked for from their address', async () => {
  assert.equal((await get('radio')).status, 200);
  let queries = 0;
  const { database } = app as { database: Database };
  const query = database.query.bind(database);
  database.query = ((sql: string, values?: readonly unknown[]) => {
    if (sql.startsWith('select * from channels')) queries++;
    return query(sql, values);
  }) as Database['query'];
  const answers = await Promise.all(Array.from({ length: 300 }, () => get('radio')));
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.ok(queries <= 20, `${queries} queries for 300 reads`);
  assert.match(answers[0]!.headers.get('ratelimit-policy')!, /^"api";q=20;w=60$/);
  assert.match(answers.at(-1)!.headers.get('ratelimit')!, /r=19;/);

  for (let i = 0; i < 19; i++) assert.equal((await get(`unknown-${i}`)).status, 404, 'what is no channel is counted');
  for (const path of ['unknown-0', 'other', 'radio?x=1']) assert.equal((await get(path)).status, 429, path);
  assert.equal((await get('radio')).status, 200);
  database.query = query;
});

test('a change is seen by the next who asks, and a channel that is private now by nobody', async () => {
  await get('radio');
  await app.channels.update('radio', { title: 'Another' });
  assert.equal(((await (await get('radio')).json()) as { title: string }).title, 'Another');
  await app.channels.update('radio', { visibility: 'private' });
  assert.notEqual((await get('radio')).status, 200);
  assert.equal((await get('radio', { authorization: `Bearer ${app.token}` })).status, 200);
});

test('the list of channels is read by any number of guests behind one address, and what is written is in it at once', async () => {
  const list = async () => {
    const answer = await fetch(`${app.url}/api/v1/channels`);
    assert.equal(answer.status, 200);
    return ((await answer.json()) as { items: { slug: string }[] }).items.map(({ slug }) => slug);
  };
  for (const one of await Promise.all(Array.from({ length: 300 }, list))) assert.ok(one.includes('other') && !one.includes('radio'));
  await app.channels.create('newest', { title: 'x', visibility: 'public', recording: false });
  assert.ok((await list()).includes('newest'));
  await app.channels.update('newest', { visibility: 'private' });
  assert.ok(!(await list()).includes('newest'));
  await app.channels.delete('other');
  assert.ok(!(await list()).includes('other'));
});

/** Of all guests. */
let address = '192.0.2.0';
async function guest(path: string): Promise<{ status: number; headers: Headers; body: Answer['body'] }> {
  const answer = await fetch(`${app.url}/api/v1${path}`, { headers: { 'x-forwarded-for': address } });
  return { status: answer.status, headers: answer.headers, body: await answer.json() };
}
const signIn = (body: { email: string; password: string }) =>
  fetch(`${app.url}/api/v1/auth/login`, {
    method: 'POST',
    headers: { 'x-forwarded-for': address, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
/** What the address of the guests may ask for still; asking for it takes nothing. */
const left = async (): Promise<number> => Number(/r=(\d+);/.exec((await guest('/channels')).headers.get('ratelimit')!)![1]);
/** How much is counted for the reads. */
const counted = async (...paths: string[]): Promise<number> => {
  const before = await left();
  for (const path of paths) await guest(path);
  return before - (await left());
};

async function recordedShow(id: string, slug: string, startedAtMs = Date.now()): Promise<void> {
  const { id: channelId } = (await app.channels.get(slug))!;
  await app.broadcasts.insert({ id, channelId, title: id, recording: true, startedAtMs, firstNumber: 0 });
  await app.broadcasts.end(id, { endedAtMs: startedAtMs + 60_000, durationMs: 60_000, lastNumber: 9 });
}

test('hundreds of guests behind one address open every page, few queries are made for them, and people there sign in', async () => {
  for (let i = 0; i < 60; i++) await app.channels.create(`many-${i}`, { title: `Many ${i}`, visibility: 'public', recording: true });
  await recordedShow('show', 'many-0');
  const room = (await chat.rooms.find('many-0'))!;
  const author = { id: 'somebody', name: 'Somebody', role: 'viewer', address: '' } as const;
  await chat.rooms.withRoom(room.id, async (opened) => {
    for (const key of ['a', 'b', 'c']) await opened.publishMessage({ author, key, body: { text: key } });
  });
  const passwords = ['three quiet herons', 'four quiet herons', 'five quiet herons'];
  for (const [i, password] of passwords.entries()) {
    const { email } = await personOf(app, 'listener', false);
    await app.database.query('update accounts set password_hash = $2, email = $3, email_key = $3 where email = $1', [
      email,
      await app.access.passwords.hash(password),
      `heron-${i}@example.org`,
    ]);
  }

  address = '192.0.2.1';
  const { next } = (await guest('/channels')).body;
  const page = [
    '/channels',
    `/channels?cursor=${next}`,
    '/channels/many-0',
    '/channels/many-0/broadcasts?limit=50',
    '/assets/show',
    '/rooms/many-0',
    '/rooms/many-0/messages?before=3&limit=1',
  ];
  for (const path of page) assert.equal((await guest(path)).status, 200, path);
  // The channel, its shows and the recording were not known.
  assert.ok((await left()) >= 20 - 2, 'what was read first');
  while ((await guest('/channels/nobody')).status === 404);
  assert.equal(await left(), 0, 'the address has used up what it may');

  let queries = 0;
  const query = app.database.query.bind(app.database);
  app.database.query = ((sql: string, values?: readonly unknown[]) => {
    queries++;
    return query(sql, values);
  }) as Database['query'];
  const startMs = performance.now();
  const statuses = new Map<string, number>();
  const open = async () => {
    for (const path of page) {
      const { status } = await guest(path);
      statuses.set(`${status} ${path}`, (statuses.get(`${status} ${path}`) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: 300 }, open));
  const tookS = (performance.now() - startMs) / 1000;
  app.database.query = query;
  assert.deepEqual(Object.fromEntries(statuses), Object.fromEntries(page.map((path) => [`200 ${path}`, 300])));
  assert.ok(queries <= 15 * (tookS + 1), `${queries} queries for ${300 * page.length} reads in ${tookS} s`);

  const signIns = await Promise.all(passwords.map((password, i) => signIn({ email: `heron-${i}@example.org`, password })));
  for (const answer of signIns) assert.equal(answer.status, 200, await answer.text());
});

test('what is not there, what is private and cursors that no page gave are counted', async () => {
  await recordedShow('seen', 'many-1');
  await app.channels.create('closed', { title: 'Closed', visibility: 'private', recording: true });
  await recordedShow('closed-show', 'closed');
  await recordedShow('secret', 'many-1');
  address = '192.0.2.2';
  for (const path of ['/channels/many-1', '/assets/seen', '/assets/secret']) assert.equal((await guest(path)).status, 200, path);
  assert.equal(await counted('/channels/many-1', '/assets/seen', '/assets/secret', '/rooms/many-1'), 0);
  await app.broadcasts.update('secret', { visibility: 'private' });
  assert.equal((await guest('/assets/secret')).status, 404, 'seen at once');

  const madeUp = Buffer.from(JSON.stringify(['many-2'])).toString('base64url');
  const costly = [
    '/assets/secret',
    '/assets/closed-show',
    '/assets/nothing',
    '/rooms/closed',
    '/rooms/nothing',
    '/channels/closed/broadcasts',
    '/channels/nothing/broadcasts?limit=50',
    '/channels/many-1/broadcasts?limit=49',
    `/channels?cursor=${madeUp}`,
    `/channels/many-1/broadcasts?cursor=${madeUp}`,
    '/rooms/many-1/messages',
  ];
  assert.equal(await counted(...costly), costly.length);
  address = '192.0.2.3';
  // Neither does asking twice make it known, nor a page that such a cursor gave.
  const { next } = (await guest(`/channels?cursor=${Buffer.from('["many-10"]').toString('base64url')}&limit=50`)).body;
  assert.equal(await counted(...costly, ...(next === null ? [] : [`/channels?cursor=${next}`])), costly.length + (next === null ? 0 : 1));
});

test('a show, its end, its title and its removal are seen by the next guest who asks, and so is what moderators do in the room', async () => {
  address = '192.0.2.4';
  const { id: channelId } = (await app.channels.get('many-2'))!;
  const shows = async () => (await guest('/channels/many-2/broadcasts?limit=50')).body.items as { title: string; asset: string | null }[];
  assert.deepEqual(await shows(), []);
  await app.broadcasts.insert({ id: 'new', channelId, title: 'New', recording: true, startedAtMs: 1000, firstNumber: 0 });
  assert.deepEqual(
    (await shows()).map(({ asset }) => asset),
    [null],
  );
  await app.broadcasts.end('new', { endedAtMs: 2000, durationMs: 1000, lastNumber: 0 });
  assert.deepEqual(
    (await shows()).map(({ asset }) => asset),
    ['new'],
  );
  assert.equal((await guest('/assets/new')).body.title, 'New');
  await app.broadcasts.update('new', { title: 'Newer' });
  assert.equal((await guest('/assets/new')).body.title, 'Newer');
  assert.equal((await shows())[0]!.title, 'Newer');
  await app.broadcasts.delete('new');
  assert.equal((await guest('/assets/new')).status, 404);
  assert.deepEqual(await shows(), []);

  assert.equal((await guest('/rooms/many-2')).body.settings.slowS, 0);
  const { status, text } = await callAs(app, app.token, 'patch', '/rooms/many-2', { slowS: 7 });
  assert.equal(status, 200, text);
  assert.equal((await guest('/rooms/many-2')).body.settings.slowS, 7);
  await app.channels.update('many-2', { visibility: 'private' });
  for (const path of ['/rooms/many-2', '/channels/many-2/broadcasts?limit=50']) assert.equal((await guest(path)).status, 404, path);
});
