import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import type { Role, Scope } from '../../src/access/roles.js';
import { ApiKeys, MAX_API_KEYS, scopesOf } from '../../src/access/tokens/api-keys.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

let database: Database;
let queries = 0;
let clock: FakeClock;
let apiKeys: ApiKeys;
before(async () => {
  database = await openTestDatabase();
});
after(async () => {
  await database.stop();
});
beforeEach(() => {
  clock = new FakeClock();
  apiKeys = process();
});

/** As another process has it. */
function process(): ApiKeys {
  const counted: Database = {
    ...database,
    query: (sql, values) => {
      queries++;
      return database.query(sql, values);
    },
  };
  return new ApiKeys({ database: counted, clock, log: silentLog });
}

async function account(role: Role = 'broadcaster'): Promise<string> {
  const id = randomUUID();
  await database.query('insert into accounts (id, email, email_key, name, role) values ($1, $2, $2, $3, $4)', [
    id,
    `${id}@example.org`,
    'Ada',
    role,
  ]);
  return id;
}
const make = (accountId: string, more: { scopes?: Scope[]; expiresAtMs?: number; secondFactor?: boolean } = {}) =>
  apiKeys.create(accountId, { name: 'key', scopes: ['channels:read'], expiresAtMs: undefined, secondFactor: false, ...more });
const dead = { code: 'unauthorized' };

test('a key is its account, within its scopes, as its maker was signed in', async () => {
  const id = await account();
  const { apiKey, secret } = await make(id, { scopes: ['broadcast', 'channels:read', 'broadcast'], secondFactor: true });
  assert.match(secret, /^vza_[0-9a-hjkmnp-tv-z]{26}$/);
  assert.equal(apiKey.hint, secret.slice(0, 8));
  assert.deepEqual(apiKey.scopes, ['broadcast', 'channels:read']);
  assert.deepEqual(await apiKeys.verify(secret), {
    kind: 'api-key',
    id: `api-key:${apiKey.id}`,
    name: 'Ada',
    role: 'broadcaster',
    accountId: id,
    secondFactor: true,
    scopes: ['broadcast', 'channels:read'],
  });
  assert.equal((await apiKeys.verify((await make(id)).secret))!.secondFactor, false);
});

test('what is no API key is left to others; what looks like one and is none is refused', async () => {
  const { secret } = await make(await account());
  for (const other of ['', 'vz_0123456789', 'eyJhbGciOiJub25lIn0.e30.', 'VZA_x']) assert.equal(await apiKeys.verify(other), undefined);
  const last = secret.at(-1) === 'x' ? 'y' : 'x';
  for (const wrong of [
    'vza_',
    secret.slice(0, -1),
    `${secret}x`,
    secret.slice(0, -1) + last,
    `${secret.slice(0, -1)}u`,
    `${secret}\0`,
    secret.toUpperCase().replace('VZA', 'vza'),
  ])
    await assert.rejects(apiKeys.verify(wrong), dead, wrong);
  const { rows } = await database.query<{ row: string }>('select row_to_json(k)::text as row from api_keys k');
  assert.ok(!rows.some(({ row }) => row.includes(secret)), 'it is not in the database');
});

test('the role is the one that the account has now', async () => {
  const id = await account('admin');
  const { secret } = await make(id, { scopes: ['admin'] });
  assert.equal((await apiKeys.verify(secret))!.role, 'admin');
  await database.query(`update accounts set role = 'listener' where id = $1`, [id]);
  clock.advance(5000);
  assert.equal((await apiKeys.verify(secret))!.role, 'listener');
});

test('a ban, a deleted account and a deleted key count within 5 s, in a process that knew the key', async () => {
  const banned = await account();
  const deleted = await account();
  const keys = { banned: await make(banned), deleted: await make(deleted), gone: await make(banned) };
  const other = process();
  for (const { secret } of Object.values(keys)) await other.verify(secret);
  await database.query('update accounts set banned_at = now() where id = $1', [banned]);
  await database.query('delete from accounts where id = $1', [deleted]);
  clock.advance(4999);
  await other.verify(keys.banned.secret);
  clock.advance(1);
  for (const { secret } of Object.values(keys)) await assert.rejects(other.verify(secret), dead);
  await database.query('update accounts set banned_at = null where id = $1', [banned]);
  assert.ok(await other.verify(keys.banned.secret), 'a refusal is not kept');
  await apiKeys.delete(banned, keys.banned.apiKey.id);
  await assert.rejects(apiKeys.verify(keys.banned.secret), dead, 'at once where it was deleted');
  clock.advance(5000);
  await assert.rejects(other.verify(keys.banned.secret), dead);
});

test('a key ends when it was to end, even from memory', async () => {
  const id = await account();
  const { secret } = await make(id, { expiresAtMs: clock.wallMs() + 60_000 });
  clock.advance(59_999);
  assert.ok(await apiKeys.verify(secret));
  clock.advance(1);
  await assert.rejects(apiKeys.verify(secret), dead);
  await assert.rejects(process().verify(secret), dead);
  await assert.rejects(make(id, { expiresAtMs: clock.wallMs() }), { code: 'bad_request' });
});

test('many requests at once cost one look; the last use is written at most once a minute', async () => {
  const id = await account();
  const { secret } = await make(id);
  queries = 0;
  await Promise.all(Array.from({ length: 50 }, () => apiKeys.verify(secret)));
  assert.equal(queries, 2, 'one to read it, one to note the use');
  const used = async () => (await apiKeys.list(id))[0]!.lastUsedAtMs;
  const first = clock.wallMs();
  assert.equal(await used(), first);
  for (let i = 0; i < 11; i++) {
    clock.advance(5000);
    await apiKeys.verify(secret);
  }
  assert.equal(await used(), first);
  clock.advance(5000);
  await apiKeys.verify(secret);
  assert.equal(await used(), first + 60_000);
});

test('what cannot be read now is read again, and not remembered', async () => {
  const { secret } = await make(await account());
  let isAway = true;
  const flaky = new ApiKeys({
    database: { ...database, query: (sql, values) => (isAway ? Promise.reject(new Error('away')) : database.query(sql, values)) },
    clock,
    log: silentLog,
  });
  await assert.rejects(flaky.verify(secret), /away/);
  isAway = false;
  assert.ok(await flaky.verify(secret));
});

test('scopes are within what the role can do anything with', async () => {
  assert.ok(!scopesOf('listener').includes('admin') && !scopesOf('broadcaster').includes('admin'));
  assert.ok(scopesOf('moderator').includes('admin') && scopesOf('admin').includes('admin'));
  assert.ok(scopesOf('listener').includes('moderate'), 'as moderator of a channel');
  await assert.rejects(make(await account('broadcaster'), { scopes: ['channels:read', 'admin'] }), { code: 'bad_request' });
  await assert.rejects(make(await account(), { scopes: [] }), { code: 'bad_request' });
  await assert.rejects(make(randomUUID()), { code: 'not_found' });
});

test('an account has a bounded number of them, however many are asked for at once', async () => {
  const id = await account();
  for (let i = 0; i < MAX_API_KEYS - 1; i++) await make(id);
  const answers = await Promise.allSettled([make(id), make(id), make(id)]);
  assert.equal(answers.filter(({ status }) => status === 'fulfilled').length, 1);
  assert.equal((await apiKeys.list(id)).length, MAX_API_KEYS);
  await assert.rejects(make(id), { code: 'conflict' });
});

test('nobody deletes another’s', async () => {
  const { apiKey, secret } = await make(await account());
  await assert.rejects(apiKeys.delete(await account(), apiKey.id), { code: 'not_found' });
  assert.ok(await apiKeys.verify(secret));
});
