import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import { openVault, type Vault } from '../../src/access/vault.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

let database: Database;
let clock: FakeClock;
const masterKey = randomBytes(32);
const opened: Vault[] = [];

before(async () => {
  database = await openTestDatabase();
});
after(async () => {
  for (const vault of opened) vault.stop();
  await database.stop();
});
beforeEach(async () => {
  clock = new FakeClock();
  await database.query('delete from accounts');
  await database.query('delete from encryption_keys');
});

async function vaultOf(key: Uint8Array = masterKey, previous?: Uint8Array): Promise<Vault> {
  const vault = await openVault({ database, masterKey: key, previousMasterKey: previous, clock, log: silentLog });
  opened.push(vault);
  return vault;
}

const keyIdOf = (sealed: Buffer) => sealed.readUInt32BE(1);
const keyIds = async () => (await database.query<{ id: number }>('select id from encryption_keys order by id')).rows.map((row) => row.id);

/** An account with something sealed: the row that `rotate` is to find. */
async function account(vault: Vault, secret: string): Promise<string> {
  const id = randomUUID();
  await database.query('insert into accounts (id, email, email_key, name, sealed_totp) values ($1, $2, $2, $2, $3)', [
    id,
    `${id}@example.org`,
    vault.seal(`totp:${id}`, secret),
  ]);
  return id;
}
const sealedOf = async (id: string) =>
  (await database.query<{ sealed_totp: Buffer }>('select sealed_totp from accounts where id = $1', [id])).rows[0]!.sealed_totp;
const secretOf = async (vault: Vault, id: string) => (await vault.open(`totp:${id}`, await sealedOf(id))).toString();

test('what is sealed opens for the same purpose only, and never looks the same twice', async () => {
  const vault = await vaultOf();
  const sealed = vault.seal('totp:a', 'secret');
  assert.equal((await vault.open('totp:a', sealed)).toString(), 'secret');
  assert.equal((await vault.open('totp:a', new Uint8Array(sealed))).toString(), 'secret');
  assert.equal((await vault.open('x', vault.seal('x', ''))).length, 0);
  assert.notDeepEqual(vault.seal('totp:a', 'secret'), sealed);
  assert.ok(!sealed.includes('secret'));
  await assert.rejects(vault.open('totp:b', sealed), /does not open/);
  await assert.rejects(vault.open('webhook:a', sealed), /does not open/);
});

test('a changed byte, a missing byte, another key: nothing of it opens', async () => {
  const vault = await vaultOf();
  const sealed = vault.seal('p', 'secret');
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at]! ^= 1;
    await assert.rejects(vault.open('p', changed), `byte ${at}`);
    await assert.rejects(vault.open('p', sealed.subarray(0, at)), `cut at ${at}`);
  }
  await assert.rejects(vault.open('p', Buffer.concat([sealed, Buffer.of(0)])));
  await database.query('delete from encryption_keys');
  const other = await vaultOf(randomBytes(32));
  await assert.rejects(other.open('p', sealed), /does not open/);
});

test('the database alone opens nothing: data keys are sealed with ENCRYPTION_KEY', async () => {
  await vaultOf();
  await assert.rejects(vaultOf(randomBytes(32)), /ENCRYPTION_KEY is not the one that this database was written with/);
  await database.query('update encryption_keys set wrapped = set_byte(wrapped, 40, (get_byte(wrapped, 40) + 1) % 256)');
  await assert.rejects(vaultOf(), /ENCRYPTION_KEY/);
});

test('two that start at once on one database use one key', async () => {
  const [one, other] = await Promise.all([vaultOf(), vaultOf()]);
  assert.equal((await other.open('p', one.seal('p', 'x'))).toString(), 'x');
  assert.deepEqual(await keyIds(), [1]);
});

test('rotation encrypts everything again, and the key before goes when nobody uses it any more', async () => {
  const vault = await vaultOf();
  const ids: string[] = [];
  // More than one batch.
  for (let i = 0; i < 450; i++) ids.push(await account(vault, `secret ${i}`));
  assert.deepEqual(await vault.rotate(), { keyId: 2, reencrypted: 450, unreadable: 0 });
  for (const [i, id] of ids.entries()) {
    assert.equal(keyIdOf(await sealedOf(id)), 2);
    assert.equal(await secretOf(vault, id), `secret ${i}`);
  }
  assert.deepEqual(await keyIds(), [1, 2], 'another process may seal with it for a moment');
  clock.advance(10 * 60_000);
  assert.equal((await vault.rotate()).keyId, 3);
  assert.deepEqual(await keyIds(), [2, 3]);
  assert.equal(await secretOf(vault, ids[7]!), 'secret 7');
});

test('two rotations in a row lose nothing that another process seals with the key it knows', async () => {
  const [one, other] = await Promise.all([vaultOf(), vaultOf()]);
  const id = await account(one, 'before');
  await one.rotate();
  await one.rotate();
  // It has not heard of the new keys: it reads them once a minute.
  await database.query('update accounts set sealed_totp = $2 where id = $1', [id, other.seal(`totp:${id}`, 'since')]);
  assert.equal(keyIdOf(await sealedOf(id)), 1);
  await one.rotate();
  assert.equal(await secretOf(one, id), 'since');
  assert.equal(keyIdOf(await sealedOf(id)), 4);
  assert.equal(await secretOf(other, id), 'since', 'a key that is not known is read at once');
});

test('a key that something is still sealed with stays, however old it is', async () => {
  const vault = await vaultOf();
  const id = await account(vault, 'secret');
  await vault.rotate();
  clock.advance(3_600_000);
  // As if a writer had put it there between the walk and the end of the rotation.
  const kept = await sealedOf(id);
  const stuck = Buffer.from(kept);
  stuck.writeUInt32BE(1, 1);
  await database.query('update accounts set sealed_totp = $2 where id = $1', [id, stuck]);
  const { unreadable } = await vault.rotate();
  assert.equal(unreadable, 1, 'it does not open, is said, and stops nothing');
  assert.ok((await keyIds()).includes(1));
});

test('writers go on while everything is encrypted again, and what they write stays', async () => {
  const vault = await vaultOf();
  const other = await vaultOf();
  const ids: string[] = [];
  for (let i = 0; i < 60; i++) ids.push(await account(vault, 'old'));
  let isOver = false;
  const rotating = (async () => {
    for (let i = 0; i < 3; i++) await vault.rotate();
    isOver = true;
  })();
  const written = new Map<string, string>();
  for (let i = 0; !isOver || i < 60; i++) {
    const id = ids[(i * 7) % ids.length]!;
    const writer = i % 2 === 0 ? vault : other;
    await database.query('update accounts set sealed_totp = $2 where id = $1', [id, writer.seal(`totp:${id}`, `new ${i}`)]);
    written.set(id, `new ${i}`);
  }
  await rotating;
  for (const id of ids) assert.equal(await secretOf(vault, id), written.get(id) ?? 'old');
});

test('two processes that rotate at once', async () => {
  const [one, other] = await Promise.all([vaultOf(), vaultOf()]);
  const ids = await Promise.all(Array.from({ length: 30 }, (_, i) => account(one, `secret ${i}`)));
  await Promise.all([one.rotate(), other.rotate()]);
  for (const [i, id] of ids.entries()) {
    assert.equal(await secretOf(one, id), `secret ${i}`);
    assert.equal(await secretOf(other, id), `secret ${i}`);
  }
});

test('another process uses a new key within a minute', async () => {
  const [one, other] = await Promise.all([vaultOf(), vaultOf()]);
  await one.rotate();
  assert.equal(keyIdOf(other.seal('p', 'x')), 1);
  clock.advance(60_000);
  // The reading was begun by the timer; a query of our own is answered after it.
  await database.query('select 1');
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(keyIdOf(other.seal('p', 'x')), 2);
});

test('ENCRYPTION_KEY is changed by one start with the old one beside it', async () => {
  const before = await vaultOf();
  const id = await account(before, 'secret');
  await before.rotate();
  const newKey = randomBytes(32);
  await assert.rejects(vaultOf(newKey), /start with that one, or with it as ENCRYPTION_KEY_PREVIOUS/);
  const changed = await vaultOf(newKey, masterKey);
  assert.equal(await secretOf(changed, id), 'secret');
  const since = await vaultOf(newKey);
  assert.equal(await secretOf(since, id), 'secret');
  await assert.rejects(vaultOf(masterKey), /ENCRYPTION_KEY is not the one/, 'the old one opens nothing any more');
  // A process that still runs with the old one goes on with the data keys that it knows.
  assert.equal((await since.open('p', before.seal('p', 'x'))).toString(), 'x');
  await assert.rejects(before.rotate(), /ENCRYPTION_KEY is not the one/);
});
