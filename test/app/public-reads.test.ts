import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { startApp, type TestApp } from '../support/app.js';

let app: TestApp;
before(async () => {
  app = await startApp({}, { rateLimitPerMinute: 20 });
  for (const slug of ['radio', 'other', 'hidden']) await app.channels.create(slug, { title: slug, visibility: 'public', recording: false });
});
after(() => app.stop());

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
