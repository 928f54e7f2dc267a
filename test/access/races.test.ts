import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Audit } from '../../src/access/audit.js';
import { Channels } from '../../src/access/channels.js';
import { Members } from '../../src/access/members.js';
import { MAX_PASSKEYS, Passkeys } from '../../src/access/second-factor/passkeys.js';
import { codeOf, STEP_MS, stepAt } from '../../src/access/second-factor/totp.js';
import { TwoFactor } from '../../src/access/second-factor/two-factor.js';
import { ApiKeys, MAX_API_KEYS } from '../../src/access/tokens/api-keys.js';
import { openVault, type Vault } from '../../src/access/vault.js';
import { type Database, openDatabase } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { SoftAuthenticator } from '../support/authenticator.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';

/** What is good once, or bounded, when two processes with many connections go about it at the same moment. The embedded database has one connection. */
const ORIGIN = 'https://radio.example';
const AT_ONCE = 20;
const clock = new FakeClock();
const masterKey = randomBytes(32);
let postgres: TestDatabase;
const databases: Database[] = [];
const vaults: Vault[] = [];

before(async () => {
  postgres = await createTestDatabase();
  for (let i = 0; i < 2; i++) {
    const database = await openDatabase({ url: postgres.url, dataDir: '/nonexistent', poolSize: 12, timeoutMs: 20_000, log: silentLog });
    databases.push(database);
  }
  // At once, as they start.
  vaults.push(...(await Promise.all(databases.map((database) => openVault({ database, masterKey, clock, log: silentLog })))));
});
after(async () => {
  for (const vault of vaults) vault.stop();
  for (const database of databases) await database.stop();
  await postgres.drop();
});

const unlimited = { take: async () => undefined, reward: async () => undefined };
const factors = () =>
  databases.map((database, i) => new TwoFactor({ database, vault: vaults[i]!, clock, tries: unlimited, issuer: 'radio.example' }));

async function account(): Promise<{ id: string; email: string; name: string }> {
  const id = randomUUID();
  const email = `${id}@example.org`;
  await databases[0]!.query(
    `insert into accounts (id, email, email_key, name, password_hash, confirmed_at) values ($1, $2, $2, $3, 'of a password', now())`,
    [id, email, 'Ada'],
  );
  return { id, email, name: 'Ada' };
}
/** Many times at once, by both processes in turn; how many went well. */
async function wins(work: (process: number, i: number) => Promise<unknown>): Promise<number> {
  const settled = await Promise.allSettled(Array.from({ length: AT_ONCE }, (_, i) => work(i % 2, i)));
  return settled.filter((one) => one.status === 'fulfilled' && one.value !== false && one.value !== undefined).length;
}

test('two that start at once have one data key', async () => {
  assert.equal((await vaults[1]!.open('p', vaults[0]!.seal('p', 'x'))).toString(), 'x');
  assert.equal((await databases[0]!.query('select 1 from encryption_keys')).rows.length, 1);
});

test('a code of an app, and a recovery code, let one in', async () => {
  const both = factors();
  const somebody = await account();
  const { secret } = await both[0]!.begin(somebody);
  const bits = [...secret].map((letter) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const bytes = Buffer.from(bits.match(/.{8}/g)!.map((byte) => Number.parseInt(byte, 2)));
  const code = () => codeOf(bytes, stepAt(clock.wallMs()));
  const sets: string[][] = [];
  assert.equal(
    await wins(async (process) => {
      const codes = await both[process]!.confirm(somebody.id, code());
      sets.push(codes);
      return codes;
    }),
    1,
    'one is given recovery codes',
  );
  assert.equal((await both[0]!.status(somebody.id)).recoveryCodesLeft, 10);
  clock.advance(STEP_MS);
  assert.equal(await wins((process) => both[process]!.check(somebody.id, code())), 1);
  assert.equal(await wins((process) => both[process]!.check(somebody.id, sets[0]![0]!)), 1);
  const renewed: string[][] = [];
  await wins(async (process) => renewed.push(await both[process]!.renewRecoveryCodes(somebody.id)));
  assert.equal((await both[0]!.status(somebody.id)).recoveryCodesLeft, 10, 'of many sets one is left');
  const good = await Promise.all(renewed.map((codes) => both[0]!.check(somebody.id, codes[0]!)));
  assert.equal(good.filter(Boolean).length, 1);
});

test('a challenge, and a count of a passkey, let one in; passkeys are bounded', async () => {
  const both = databases.map(
    (database, i) => new Passkeys({ database, vault: vaults[i]!, clock, log: silentLog, publicUrl: ORIGIN, serviceName: 'Veza' }),
  );
  const somebody = await account();
  const silent = new SoftAuthenticator({ origin: ORIGIN, counting: false });
  const registration = silent.create(await both[0]!.registration(somebody));
  assert.equal(await wins((process) => both[process]!.register(somebody.id, 'key', registration)), 1);
  const asked = await both[0]!.signIn();
  const answer = silent.get(asked.options);
  assert.equal(await wins((process) => both[process]!.verify(asked.challengeId, answer)), 1, 'the challenge');

  const counting = new SoftAuthenticator({ origin: ORIGIN, counting: true });
  await both[0]!.register(somebody.id, 'other', counting.create(await both[0]!.registration(somebody)));
  const same = async (process: number) => {
    const { options, challengeId } = await both[process]!.signIn();
    return both[process]!.verify(challengeId, counting.get(options, { counter: 7 }));
  };
  assert.equal(await wins(same), 1, 'the count');

  const fresh = await account();
  await wins(async (process) =>
    both[process]!.register(
      fresh.id,
      'x',
      new SoftAuthenticator({ origin: ORIGIN, counting: true }).create(await both[process]!.registration(fresh)),
    ),
  );
  await wins(async (process) =>
    both[process]!.register(
      fresh.id,
      'x',
      new SoftAuthenticator({ origin: ORIGIN, counting: true }).create(await both[process]!.registration(fresh)),
    ),
  );
  assert.equal(await both[0]!.count(fresh.id), MAX_PASSKEYS);
});

test('API keys are bounded', async () => {
  const both = databases.map((database) => new ApiKeys({ database, clock, log: silentLog }));
  const { id } = await account();
  let made = 0;
  for (let i = 0; i < 4; i++)
    made += await wins((process) =>
      both[process]!.create(id, { name: 'x', scopes: ['links'], expiresAtMs: undefined, secondFactor: false }),
    );
  assert.equal(made, MAX_API_KEYS);
  assert.equal((await both[0]!.list(id)).length, MAX_API_KEYS);
});

test('a channel that is handed to many at once has one owner, and nobody is two things in it', async () => {
  const both = databases.map((database) => new Members(database, new Channels(database)));
  const owner = await account();
  const { channel } = await new Channels(databases[0]!).create('handed', { title: 'x', visibility: 'public', recording: true }, owner.id);
  const people = await Promise.all(Array.from({ length: AT_ONCE }, account));
  assert.equal(await wins((process, i) => both[process]!.set(channel, people[i]!.id, 'owner').then(() => true)), 1);
  const now = (await new Channels(databases[1]!).get('handed'))!;
  const members = await both[0]!.list(now, undefined, 100);
  assert.deepEqual(
    members.map(({ accountId, role }) => [accountId, role]),
    [
      [now.ownerId, 'owner'],
      [owner.id, 'host'],
    ],
  );
});

test('both encrypt everything again while both write, and every value opens afterwards', async () => {
  const ids = (await Promise.all(Array.from({ length: 40 }, account))).map(({ id }) => id);
  const put = (process: number, id: string, text: string) =>
    databases[process]!.query('update accounts set sealed_totp = $2 where id = $1', [id, vaults[process]!.seal(`totp:${id}`, text)]);
  await Promise.all(ids.map((id) => put(0, id, 'before')));
  const last = new Map(ids.map((id) => [id, 'before']));
  let isOver = false;
  const rotations = Promise.all(
    vaults.map(async (vault) => {
      for (let i = 0; i < 4; i++) {
        assert.equal((await vault.rotate()).unreadable, 0);
      }
    }),
  ).finally(() => {
    isOver = true;
  });
  const writers = [0, 1].map(async (process) => {
    for (let i = 0; !isOver; i++) {
      // Each value has one writer, so that it is known what must be there in the end.
      const id = ids[(i * 14 + process) % ids.length]!;
      await put(process, id, `${process}:${i}`);
      last.set(id, `${process}:${i}`);
    }
  });
  await Promise.all([rotations, ...writers]);
  const newest = async () => (await databases[0]!.query<{ id: number }>('select max(id) as id from encryption_keys')).rows[0]!.id;
  clock.advance(11 * 60_000);
  let lastId = await newest();
  // Both have read the keys again when they seal with the last one.
  while (vaults.some((vault) => vault.seal('p', 'x').readUInt32BE(1) !== lastId)) lastId = await newest();
  const { unreadable, keyId } = await vaults[0]!.rotate();
  assert.equal(unreadable, 0);
  const kept = await databases[0]!.query<{ id: number }>('select id from encryption_keys order by id');
  assert.deepEqual(
    kept.rows.map((row) => row.id),
    [keyId - 1, keyId],
    'the others are gone',
  );
  for (const id of ids) {
    const { rows } = await databases[0]!.query<{ sealed_totp: Buffer }>('select sealed_totp from accounts where id = $1', [id]);
    for (const vault of vaults) {
      assert.equal((await vault.open(`totp:${id}`, rows[0]!.sealed_totp)).toString(), last.get(id));
    }
  }
});

test('the log takes entries of all, and lets nobody take one away', async () => {
  const both = databases.map((database) => new Audit(database));
  await wins((process, i) => both[process]!.record({ principal: 'system', action: 'raced', details: { i } }));
  assert.equal((await both[0]!.list({ action: 'raced' }, 100)).length, AT_ONCE);
  for (const sql of ['delete from audit_log', `update audit_log set action = 'x'`, 'truncate audit_log'])
    await assert.rejects(databases[1]!.query(sql), /append-only/);
});
