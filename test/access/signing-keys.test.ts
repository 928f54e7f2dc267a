import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { createLocalJWKSet, decodeProtectedHeader, type JSONWebKeySet, jwtVerify, SignJWT } from 'jose';
import { ACCESS_TOKEN_MS, SigningKeys } from '../../src/access/tokens/signing-keys.js';
import { openVault, type Vault } from '../../src/access/vault.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const masterKey = randomBytes(32);

let dataDir: string;
let database: Database;
let vault: Vault;
let clock: FakeClock;
before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'veza-signing-'));
  database = await openTestDatabase();
});
after(async () => {
  await database.stop();
  await rm(dataDir, { recursive: true });
});
beforeEach(async () => {
  await database.query('delete from signing_keys');
  clock = new FakeClock();
  // Its own clock, which stands: it would read the database every minute as well.
  vault = await openVault({ database, masterKey, clock: new FakeClock(), log: silentLog });
});

const process_ = (over: Partial<Database> = {}, as = vault) =>
  new SigningKeys({ database: { ...database, ...over }, vault: as, clock, log: silentLog });

const kids = (keys: SigningKeys) => keys.keySet().keys.map((key) => key.kid!);

async function sign(keys: SigningKeys): Promise<string> {
  const { kid, privateKey } = await keys.signer();
  const nowS = Math.floor(clock.wallMs() / 1000);
  return new SignJWT({})
    .setProtectedHeader({ alg: 'EdDSA', kid })
    .setIssuedAt(nowS)
    .setExpirationTime(nowS + ACCESS_TOKEN_MS / 1000)
    .sign(privateKey);
}

/** The timers of every process fire; what they began is awaited. */
async function pass(ms: number, ...processes: SigningKeys[]): Promise<void> {
  clock.advance(ms);
  for (const keys of processes) await keys.reload();
}

test('three days, two processes: every live token has its key in both key sets, and each key was there 10 minutes before it signed', async () => {
  const one = process_();
  const two = process_();
  await Promise.all([one.reload(), two.reload()]);
  assert.deepEqual(kids(one), kids(two), 'the first start makes one key, whoever comes first');
  const startMs = clock.wallMs();
  // Half a minute apart, so that one process knows of a new key later than the other.
  await one.start();
  clock.advance(MINUTE_MS / 2);
  await two.start();

  /** When each process began to publish a key. */
  const published = [new Map<string, number>(), new Map<string, number>()];
  const firstSigned = new Map<string, number>();
  const lastSigned = new Map<string, number>();
  for (let minute = 0; minute < 3 * 24 * 60 + 60; minute += 2) {
    await pass(MINUTE_MS, one);
    await pass(MINUTE_MS, two);
    const nowMs = clock.wallMs();
    for (const [index, keys] of [one, two].entries()) {
      for (const kid of kids(keys)) if (!published[index]!.has(kid)) published[index]!.set(kid, nowMs);
      const { kid } = await keys.signer();
      if (!firstSigned.has(kid)) firstSigned.set(kid, nowMs);
      lastSigned.set(kid, nowMs);
    }
    for (const [kid, atMs] of lastSigned) {
      const isLive = nowMs - atMs <= ACCESS_TOKEN_MS;
      for (const keys of [one, two]) if (isLive) assert.ok(kids(keys).includes(kid), `${kid} at minute ${minute}`);
    }
    assert.ok(kids(one).length <= 2);
  }
  const order = [...firstSigned.keys()];
  assert.equal(order.length, 4, 'one key a day');
  for (const [index, kid] of order.entries()) {
    if (index === 0) continue;
    const atMs = firstSigned.get(kid)!;
    assert.ok(Math.abs(atMs - startMs - index * 24 * HOUR_MS) <= 2 * MINUTE_MS, 'every 24 hours');
    for (const seen of published) assert.ok(atMs - seen.get(kid)! >= 10 * MINUTE_MS, `published ${atMs - seen.get(kid)!} ms before`);
    assert.ok(lastSigned.get(order[index - 1]!)! <= atMs, 'one signs at a time');
  }
  assert.ok(!kids(one).includes(order[0]!), 'what nobody needs any more is gone');
  await one.stop();
  await two.stop();
});

test('many processes that start at once on a database server make one key, and one more when it is time', async () => {
  const server = await openTestDatabase({ poolSize: 8 });
  try {
    const serverVault = await openVault({ database: server, masterKey, clock: new FakeClock(), log: silentLog });
    for (let round = 0; round < 5; round++) {
      await server.query('delete from signing_keys');
      const fresh = Array.from({ length: 6 }, () => new SigningKeys({ database: server, vault: serverVault, clock, log: silentLog }));
      await Promise.all(fresh.map((keys) => keys.reload()));
      assert.equal(new Set(fresh.flatMap(kids)).size, 1);
      clock.advance(23.8 * HOUR_MS);
      await Promise.all(fresh.map((keys) => keys.reload()));
      assert.equal(new Set(fresh.flatMap(kids)).size, 2);
    }
    serverVault.stop();
  } finally {
    await server.stop();
  }
});

test('tokens of either process verify with the key set of the other, across a change of keys', async () => {
  const one = process_();
  const two = process_();
  await one.start();
  await two.start();
  const verify = (token: string, by: SigningKeys) =>
    jwtVerify(token, createLocalJWKSet(by.keySet() as JSONWebKeySet), { currentDate: new Date(clock.wallMs()) });
  await pass(24 * HOUR_MS - 40 * MINUTE_MS, one, two);
  const seen = new Set<string>();
  const live: { token: string; untilMs: number }[] = [];
  for (let minute = 0; minute < 60; minute++) {
    await pass(MINUTE_MS, one, two);
    for (const keys of [one, two]) live.push({ token: await sign(keys), untilMs: clock.wallMs() + ACCESS_TOKEN_MS });
    for (const { token, untilMs } of live.filter((made) => made.untilMs > clock.wallMs())) {
      assert.ok(untilMs);
      seen.add(decodeProtectedHeader(token).kid!);
      await verify(token, one);
      await verify(token, two);
    }
  }
  assert.equal(seen.size, 2);
  await one.stop();
  await two.stop();
});

test('the key set is public, and the private keys are nowhere in the database as they are', async () => {
  const keys = process_();
  await keys.start();
  for (const jwk of keys.keySet().keys) {
    assert.deepEqual(Object.keys(jwk).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x']);
    assert.equal(jwk.kty, 'OKP');
  }
  const { rows } = await database.query<{ kid: string; row: string; sealed_private_jwk: Buffer }>(
    'select kid, signing_keys::text as row, sealed_private_jwk from signing_keys',
  );
  const { d } = JSON.parse((await vault.open(`signing-key:${rows[0]!.kid}`, rows[0]!.sealed_private_jwk)).toString());
  assert.match(d, /^[\w-]{43}$/);
  assert.ok(!rows[0]!.row.includes(d) && !rows[0]!.row.includes(Buffer.from(d).toString('hex')));
  await keys.stop();
});

test('the database is away: the keys known are used on, for longer than a key signs, and afterwards nothing is lost', async () => {
  let away = false;
  const gone = () => Promise.reject(new VezaError('unavailable', 'away'));
  const keys = process_({
    query: (sql, values) => (away ? gone() : database.query(sql, values)),
    transaction: (work) => (away ? gone() : database.transaction(work)),
  });
  await keys.start();
  const [first] = kids(keys);
  away = true;
  clock.advance(30 * HOUR_MS);
  const late = await sign(keys);
  assert.equal(decodeProtectedHeader(late).kid, first);
  assert.ok(await keys.publicKey(first!));
  assert.equal(await keys.publicKey('x'.repeat(43)), undefined);
  away = false;
  await pass(MINUTE_MS, keys);
  const [, second] = kids(keys);
  assert.ok(second, 'the next one is published');
  assert.equal((await keys.signer()).kid, first, 'and does not sign before its time');
  await pass(11 * MINUTE_MS, keys);
  const last = await sign(keys);
  assert.equal(decodeProtectedHeader(last).kid, first);
  await pass(2 * MINUTE_MS, keys);
  assert.equal((await keys.signer()).kid, second);
  await pass(ACCESS_TOKEN_MS - 2 * MINUTE_MS - 1, keys);
  await jwtVerify(last, (await keys.publicKey(first!))!, { currentDate: new Date(clock.wallMs()) });
  await keys.stop();
});

test('a service that was off for three days goes on with its last key until the next has been published', async () => {
  const before = process_();
  await before.start();
  await before.stop();
  const [first] = kids(before);
  clock.advance(72 * HOUR_MS);
  const after = process_();
  await after.start();
  assert.equal((await after.signer()).kid, first);
  assert.equal(kids(after).length, 2);
  await pass(13 * MINUTE_MS, after);
  assert.notEqual((await after.signer()).kid, first);
  await after.stop();
});

test('a process that slept does not sign with a key that others have put away', async () => {
  const sleeper = process_();
  await sleeper.start();
  const [first] = kids(sleeper);
  const other = process_();
  await other.start();
  for (let hour = 0; hour < 30; hour++) {
    clock.sleep(HOUR_MS);
    await other.reload();
  }
  assert.ok(!kids(other).includes(first!));
  assert.notEqual((await sleeper.signer()).kid, first);
  await sleeper.stop();
  await other.stop();
});

test('an unknown key id is looked for, once in three seconds however many ask; what is no key id, never', async () => {
  let queries = 0;
  const keys = process_({
    query: (sql, values) => {
      queries++;
      return database.query(sql, values);
    },
  });
  await keys.start();
  await pass(3000, keys);
  queries = 0;
  for (const kid of ['', "' or 1=1 --", '../../etc/passwd', '__proto__', 'constructor', 'x'.repeat(44), 'x'.repeat(1e6)])
    assert.equal(await keys.publicKey(kid), undefined);
  assert.equal(queries, 0);
  const asked = await Promise.all(Array.from({ length: 100 }, (_, i) => keys.publicKey(`${i}`.padEnd(43, 'x'))));
  assert.ok(asked.every((key) => key === undefined));
  assert.equal(queries, 1);

  const other = process_();
  await other.start();
  const { kid } = await other.rotate();
  assert.equal(await keys.publicKey(kid), undefined, 'within the cool-down');
  clock.advance(3000);
  assert.ok(await keys.publicKey(kid), 'after it');
  await keys.stop();
  await other.stop();
});

test('a new key on demand is published first; many of them do not pile up', async () => {
  const keys = process_();
  await keys.start();
  const [first] = kids(keys);
  const times = await keys.rotate();
  assert.deepEqual(kids(keys), [first, times.kid]);
  assert.ok(times.signsFromMs - clock.wallMs() >= 10 * MINUTE_MS);
  for (let i = 0; i < 20; i++) await keys.rotate();
  assert.equal(kids(keys).length, 2);
  assert.equal((await keys.signer()).kid, first);
  await pass(13 * MINUTE_MS, keys);
  assert.equal((await keys.signer()).kid, kids(keys).at(-1));
  await pass(ACCESS_TOKEN_MS, keys);
  await pass(5 * MINUTE_MS, keys);
  assert.equal(kids(keys).length, 1);
  await keys.stop();
});

test('after a leak the new key signs at once, and the others are nobody’s any more', async () => {
  const one = process_();
  const two = process_();
  await one.start();
  await two.start();
  const [leaked] = kids(one);
  const { kid } = await one.rotate({ revoke: true });
  assert.deepEqual(kids(one), [kid]);
  assert.equal((await one.signer()).kid, kid);
  // By itself: nobody asks the other process for anything meanwhile.
  clock.advance(4000);
  await two.stop();
  assert.deepEqual(kids(two), [kid]);
  assert.equal(await two.publicKey(leaked!), undefined);
  await one.stop();
});

test('a key that does not open is not signed with; another takes its place at once', async () => {
  const keys = process_();
  await keys.start();
  await keys.stop();
  const [first] = kids(keys);
  await database.query('update signing_keys set sealed_private_jwk = set_byte(sealed_private_jwk, 40, 0)');
  await database.query('update signing_keys set sealed_private_jwk = set_byte(sealed_private_jwk, 41, 0)');
  const next = process_();
  await next.start();
  assert.notEqual((await next.signer()).kid, first);
  await next.stop();
});
