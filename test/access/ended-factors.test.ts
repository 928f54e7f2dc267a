import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import type { Access } from '../../src/access/access.js';
import { codeOf, stepAt } from '../../src/access/second-factor/totp.js';
import { whileAllowed } from '../../src/app/api/streamed.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type AccountWorld, accountWorld, client } from './account-world.js';

let world: AccountWorld;
let other: Access;
before(async () => {
  world = await accountWorld();
  other = await world.open();
});
after(() => world.stop());

const makeKey = (id: string, byServer: boolean) =>
  world.access.apiKeys.create(id, { name: 'k', scopes: ['channels:read'], expiresAtMs: undefined, secondFactor: true, byServer });

test('with its last second factor a session and the keys of an account count as unproven, in every process, also when it sets up another', async () => {
  const id = await world.account('factor@a.example', 'moderator');
  await world.database.query('update accounts set totp_confirmed_at = now() where id = $1', [id]);
  const { accessToken, refreshToken } = await world.access.sessions.begin({ accountId: id, amr: ['pwd', 'otp', 'mfa'], client });
  const [own, ofServer] = [await makeKey(id, false), await makeKey(id, true)];
  const proven = () =>
    Promise.all(
      [accessToken, own.secret, ofServer.secret].map(async (credential) => (await other.identity.ofCredential(credential)).secondFactor),
    );
  assert.deepEqual(await proven(), [true, true, true]);
  await world.access.twoFactor.remove(id);
  world.clock.advance(5000);
  assert.deepEqual(await proven(), [false, false, true]);
  const refreshed = await world.access.sessions.refresh(refreshToken, client);
  assert.equal((await other.identity.ofCredential(refreshed.accessToken)).secondFactor, false);
  await world.database.query('update accounts set totp_confirmed_at = now() where id = $1', [id]);
  world.clock.advance(5000);
  assert.deepEqual(await proven(), [false, false, true]);
});

test('an account that has a passkey left keeps what it has shown', async () => {
  const id = await world.account('two@a.example', 'moderator');
  await world.database.query('update accounts set totp_confirmed_at = now() where id = $1', [id]);
  await world.database.query(
    `insert into passkeys (id, account_id, name, public_key, counter, transports, created_at) values ('\\x01', $1, 'k', '\\x01', 0, '{}', now())`,
    [id],
  );
  const { accessToken } = await world.access.sessions.begin({ accountId: id, amr: ['hwk', 'mfa'], client });
  await world.access.twoFactor.remove(id);
  world.clock.advance(5000);
  assert.equal((await other.identity.ofCredential(accessToken)).secondFactor, true);
  await world.access.passkeys.deleteAll(id);
  world.clock.advance(5000);
  assert.equal((await other.identity.ofCredential(accessToken)).secondFactor, false);
});

test('the holder of an account is told of a new API key and a new authenticator app; one whose address is not confirmed is not', async () => {
  const id = await world.account('told@a.example');
  await makeKey(id, false);
  const { secret } = await world.access.twoFactor.begin({ id, email: 'told@a.example' });
  await world.access.twoFactor.confirm(id, codeOf(fromBase32(secret), stepAt(world.clock.wallMs())));
  assert.deepEqual(
    (await world.mailsTo('told@a.example')).map(({ subject }) => subject),
    ['An API key was made', 'An authenticator app was added'],
  );
  await world.database.query('update accounts set confirmed_at = null where id = $1', [id]);
  await makeKey(id, false);
  assert.deepEqual(await world.mailsTo('told@a.example'), []);
});

test('a long answer ends within five seconds after its reader lost the right, and goes on while that cannot be told', async () => {
  const clock = new FakeClock();
  let error: VezaError | undefined;
  const check = async () => {
    if (error) throw error;
  };
  const stream = whileAllowed(new Readable({ read() {} }), clock, check);
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  for (const code of [undefined, 'unavailable'] as const) {
    error = code && new VezaError(code, 'x');
    clock.advance(10_000);
    await turn();
    assert.equal(stream.destroyed, false, code);
  }
  error = new VezaError('forbidden', 'x');
  const ended = once(stream, 'close').catch((reason) => reason);
  clock.advance(5000);
  assert.equal(((await ended) as VezaError).code, 'forbidden');
});

function fromBase32(text: string): Uint8Array {
  let bits = '';
  for (const letter of text) bits += 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0');
  return Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2));
}
