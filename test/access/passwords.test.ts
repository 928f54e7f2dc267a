import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { PasswordPool } from '../../src/access/accounts/password-pool.js';
import { MAX_PASSWORD_UNITS, PASSWORD_COST, Passwords } from '../../src/access/accounts/passwords.js';
import { VezaError } from '../../src/runtime/errors.js';

const code = (wanted: string) => (error: unknown) => error instanceof VezaError && error.code === wanted;
const CHEAP = { memoryKib: 64, passes: 1, lanes: 1 };

const passwords = new Passwords();
const cheap = new Passwords({ cost: CHEAP });
after(async () => {
  await passwords.stop();
  await cheap.stop();
});

test('a password is kept as argon2id with the cost that OWASP asks for, salted', async () => {
  const hash = await passwords.hash('three quiet herons');
  assert.match(hash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  assert.notEqual(await passwords.hash('three quiet herons'), hash);
  assert.deepEqual(await passwords.verify(hash, 'three quiet herons'), { right: true, outdated: false });
  assert.deepEqual(await passwords.verify(hash, 'three quiet heron'), { right: false, outdated: false });
  assert.deepEqual(await passwords.verify(hash, ''), { right: false, outdated: false });
});

test('a hash of another cost is right, and to be made anew', async () => {
  const hash = await cheap.hash('three quiet herons');
  assert.match(hash, /m=64,t=1,p=1/);
  assert.deepEqual(await passwords.verify(hash, 'three quiet herons'), { right: true, outdated: true });
  assert.deepEqual(await passwords.verify(hash, 'wrong'), { right: false, outdated: false });
});

test('without a hash the same work is done, and no password is right', async () => {
  const before = passwords.worked;
  assert.deepEqual(await passwords.verify(undefined, 'three quiet herons'), { right: false, outdated: false });
  assert.equal(passwords.worked, before + 1);
  assert.deepEqual(PASSWORD_COST, { memoryKib: 19_456, passes: 2, lanes: 1 });
});

test('what looks the same is the same: composed and decomposed letters', async () => {
  const hash = await cheap.hash('pa\u0308pstlich');
  assert.equal((await cheap.verify(hash, 'p\u00e4pstlich')).right, true);
  assert.equal((await cheap.verify(hash, 'papstlich')).right, false);
});

test('8 to 256 characters, counted as people count', async () => {
  await cheap.check('k3 9vq#w', []);
  await assert.rejects(cheap.check('k3 9vq#', []), code('bad_request'));
  const long = 'aü7 𝄞x-'.repeat(40);
  await cheap.check([...long].slice(0, 256).join(''), []);
  await assert.rejects(cheap.check([...long].slice(0, 257).join(''), []), code('bad_request'));
  await assert.rejects(cheap.check('x\ud800yz tvw q', []), code('bad_request'), 'half a character');
  const tooLong = 'x'.repeat(MAX_PASSWORD_UNITS + 1);
  await assert.rejects(cheap.verify(undefined, tooLong), code('bad_request'));
  await assert.rejects(cheap.hash(tooLong), code('bad_request'));
});

test('what everybody tries first is refused', async () => {
  for (const password of [
    'password',
    'PassWord',
    'password1',
    'P@ssw0rd',
    'p@$$w0rd2024!',
    'qwertyuiop',
    'iloveyou',
    'trustno1',
    'dragon12345',
    'football!',
    'aaaaaaaa',
    'abababababab',
    '12312312312',
    'abcdefgh',
    '98765432',
  ]) {
    await assert.rejects(cheap.check(password, []), code('bad_request'), password);
  }
  for (const password of ['three quiet herons', 'Tr0ub4dor&3x', 'password manager made this', 'grüße aus köln', '馬が好きですねえ本当']) {
    await cheap.check(password, []);
  }
});

test('so is what anybody knows of its owner', async () => {
  const own = ['quintarelle@radio.example', 'quintarelle', 'Anna Belle-Hélène', 'Anna', 'Belle-Hélène'];
  for (const password of [
    'quintarelle@radio.example',
    'Quintarelle',
    'quintarelle1',
    'QUINTARELLE99!',
    'quintarellequintarelle',
    'belle-he\u0301le\u0300ne',
    'Anna1234',
  ]) {
    await assert.rejects(cheap.check(password, own), code('bad_request'), password);
  }
  await cheap.check('quintarelle likes quiet herons', own);
  await cheap.check('quintarelle', []);
});

test('the queue is bounded: who comes too late is told so, and the others are served', async () => {
  const pool = new PasswordPool({ threads: 1, maxWaiting: 3 });
  const hashed = Array.from({ length: 6 }, (_, i) => pool.run({ task: 'hash', password: `password ${i}`, cost: CHEAP }));
  const settled = await Promise.allSettled(hashed);
  // One under way, three that wait.
  assert.deepEqual(
    settled.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'rejected'],
  );
  assert.ok(code('busy')((settled[5] as PromiseRejectedResult).reason));
  assert.equal(pool.refused, 2);
  assert.match(String(await pool.run({ task: 'hash', password: 'again', cost: CHEAP })), /^\$argon2id/);
  await pool.stop();
});

test('a task that cannot be done fails alone, and a pool that is stopped fails what it has', async () => {
  const pool = new PasswordPool({ threads: 1 });
  const broken = pool.run({ task: 'verify', hash: 'not a hash', password: 'x' });
  const fine = pool.run({ task: 'hash', password: 'x', cost: CHEAP });
  await assert.rejects(broken, /a password task failed/);
  assert.match(String(await fine), /^\$argon2id/);
  const cut = [
    pool.run({ task: 'hash', password: 'x', cost: PASSWORD_COST }),
    pool.run({ task: 'hash', password: 'y', cost: PASSWORD_COST }),
  ];
  const ends = Promise.all(cut.map((job) => assert.rejects(job, code('unavailable'))));
  await pool.stop();
  await ends;
  await assert.rejects(pool.run({ task: 'hash', password: 'x', cost: CHEAP }), code('unavailable'));
  await pool.stop();
});
