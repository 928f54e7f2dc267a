import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FRESH_MS } from '../../src/access/accounts/fresh-sign-in.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { startApp } from '../support/app.js';
import { callAs, personOf } from '../support/people.js';

const PASSWORD = 'three quiet herons';

test('what outlives a session wants a sign-in of the last ten minutes or the password once more', async (t) => {
  const clock = new FakeClock();
  const app = await startApp({}, { clock, maxChannelsPerAccount: 2 });
  t.after(() => app.stop());
  const { access } = app;
  const key = { name: 'k', scopes: ['channels:read'] };
  const register = async (email: string) => {
    await callAs(app, undefined, 'POST', '/auth/register', { email, password: PASSWORD, name: 'Ann' });
    return (await access.accounts.byEmail(email))!.id;
  };
  const signIn = async (email: string): Promise<string> =>
    (await callAs(app, undefined, 'POST', '/auth/login', { email, password: PASSWORD })).body.accessToken;

  const id = await register('ann@example.org');
  const first = await signIn('ann@example.org');
  const bySessionAlone = await callAs(app, first, 'POST', '/me/api-keys', key);
  assert.equal(bySessionAlone.status, 201);
  const { rows } = await app.database.query<{ id: string }>('select id from sessions where account_id = $1', [id]);
  const age = (ms: number) =>
    app.database.query(
      'update sessions set created_at = created_at - make_interval(secs => $2), proven_at = proven_at - make_interval(secs => $2) where id = $1',
      [rows[0]!.id, ms / 1000],
    );
  await age(FRESH_MS);
  for (const [method, path, body] of [
    ['POST', '/me/api-keys', key],
    ['POST', '/me/totp', undefined],
    ['POST', '/me/totp/confirm', { code: '123456' }],
    ['POST', '/me/passkeys/options', undefined],
    ['DELETE', '/me/passkeys/abc', undefined],
  ] as const) {
    const { status, body: problem } = await callAs(app, first, method, path, body);
    assert.deepEqual([status, problem.code], [403, 'fresh_sign_in_required'], path);
  }
  assert.equal((await callAs(app, first, 'POST', '/me/proof', {})).status, 400);
  const wrong = await callAs(app, first, 'POST', '/me/proof', { password: 'another one' });
  assert.deepEqual([wrong.status, wrong.body.code], [401, 'invalid_credentials']);
  assert.equal(
    (await callAs(app, bySessionAlone.body.secret, 'POST', '/me/proof', { password: PASSWORD })).status,
    403,
    'no key proves anything',
  );
  assert.equal((await callAs(app, first, 'POST', '/me/proof', { password: PASSWORD })).status, 204);
  const proven = await callAs(app, first, 'POST', '/me/api-keys', key);
  assert.equal(proven.status, 201);
  assert.equal((await callAs(app, first, 'POST', '/me/totp')).status, 200);

  // A new password and the end of all sessions take what a session alone has made.
  const isGood = async (secret: string) => (await callAs(app, secret, 'GET', '/channels')).status === 200;
  assert.deepEqual([await isGood(bySessionAlone.body.secret), await isGood(proven.body.secret)], [true, true]);
  assert.equal((await callAs(app, first, 'POST', '/me/password', { password: PASSWORD, newPassword: 'four loud storks' })).status, 204);
  assert.deepEqual([await isGood(bySessionAlone.body.secret), await isGood(proven.body.secret)], [false, true]);
  const other = await personOf(app, 'listener', false);
  const another = await callAs(app, other.token, 'POST', '/me/api-keys', key);
  await callAs(app, other.token, 'DELETE', '/me/sessions');
  assert.equal(await isGood(another.body.secret), false);

  // The quota of channels: not one more, whoever makes or is handed it; administrators have none.
  const dj = await personOf(app, 'broadcaster', false);
  const djTwo = await personOf(app, 'broadcaster', false);
  for (const slug of ['one', 'two']) assert.equal((await callAs(app, dj.token, 'POST', '/channels', { slug })).status, 201);
  const third = await callAs(app, dj.token, 'POST', '/channels', { slug: 'three' });
  assert.deepEqual([third.status, third.body.code, third.body.details], [409, 'quota_exceeded', { limit: 2 }]);
  await callAs(app, djTwo.token, 'POST', '/channels', { slug: 'of-two' });
  const handed = await callAs(app, djTwo.token, 'PUT', `/channels/of-two/members/${dj.id}`, { role: 'owner' });
  assert.deepEqual([handed.status, handed.body.code], [409, 'quota_exceeded']);
  const admin = await personOf(app, 'admin', true);
  for (const slug of ['a-one', 'a-two', 'a-three'])
    assert.equal((await callAs(app, admin.token, 'POST', '/channels', { slug })).status, 201);
});
