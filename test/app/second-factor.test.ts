import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { codeOf, stepAt } from '../../src/access/second-factor/totp.js';
import { startApp, type TestApp } from '../support/app.js';
import { SoftAuthenticator } from '../support/authenticator.js';
import { type Answer, callAs, personOf, signedIn } from '../support/people.js';

const ORIGIN = 'http://radio.example:8080';
let app: TestApp;
before(async () => {
  app = await startApp();
});
after(() => app.stop());

const decoded = (text: string) => {
  const bits = [...text].map((letter) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('');
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
};
/** What the app shows now; `later`: the one after it, that is good already. */
const codeNow = (secret: string, later = 0) => codeOf(decoded(secret), stepAt(Date.now()) + later);
const post = (token: string | undefined, path: string, body?: unknown) => callAs(app, token, 'POST', path, body);
const refused = (answer: Answer, status: number, code: string) =>
  assert.deepEqual([answer.status, answer.body?.code], [status, code], answer.text);

test('a moderator does nothing privileged before a second factor, sets one up, and goes on in the same session', async () => {
  const email = 'mod@example.org';
  const password = 'a long enough sentence';
  assert.equal((await post(undefined, '/auth/register', { email, password, name: 'Mod' })).status, 201);
  const { id } = (await app.database.query<{ id: string }>('select id from accounts where email_key = $1', [email])).rows[0]!;
  await app.database.query(`update accounts set role = 'moderator', confirmed_at = now() where id = $1`, [id]);
  const login = (more: object = {}) => post(undefined, '/auth/login', { email, password, ...more });
  const first = await login();
  assert.equal(first.status, 200, first.text);
  const { accessToken, refreshToken } = first.body;
  assert.equal((await callAs(app, accessToken, 'GET', '/me')).body.secondFactor.needed, true);
  refused(await callAs(app, accessToken, 'GET', '/accounts'), 403, 'second_factor_missing');

  const { secret, uri } = (await post(accessToken, '/me/totp')).body;
  assert.match(uri, /^otpauth:\/\/totp\/radio\.example:mod%40example\.org\?secret=/);
  refused(await callAs(app, accessToken, 'GET', '/accounts'), 403, 'second_factor_missing');
  assert.equal((await login()).status, 200, 'what is not confirmed does not lock out');
  refused(await post(accessToken, '/me/totp/confirm', { code: '000000' }), 401, 'invalid_credentials');
  const confirmed = await post(accessToken, '/me/totp/confirm', { code: codeNow(secret) });
  assert.equal(confirmed.status, 200, confirmed.text);
  assert.equal(confirmed.body.recoveryCodes.length, 10);
  assert.equal((await callAs(app, confirmed.body.accessToken, 'GET', '/accounts')).status, 200);
  const refreshed = await post(undefined, '/auth/refresh', { refreshToken });
  assert.equal((await callAs(app, refreshed.body.accessToken, 'GET', '/accounts')).status, 200, 'the session, not the token alone');
  const me = (await callAs(app, confirmed.body.accessToken, 'GET', '/me')).body;
  assert.deepEqual(me.secondFactor, { totp: true, recoveryCodesLeft: 10, passkeys: 0, needed: false });

  refused(await login(), 401, 'second_factor_required');
  refused(await login({ code: codeNow(secret) }), 401, 'second_factor_required');
  const [recoveryCode] = confirmed.body.recoveryCodes;
  const byRecovery = await login({ code: recoveryCode.toUpperCase().replaceAll('-', ' ') });
  assert.equal(byRecovery.status, 200, byRecovery.text);
  assert.equal((await callAs(app, byRecovery.body.accessToken, 'GET', '/accounts')).status, 200);
  refused(await login({ code: recoveryCode }), 401, 'second_factor_required');

  const token = byRecovery.body.accessToken;
  const renewed = await post(token, '/me/recovery-codes', { code: confirmed.body.recoveryCodes[1] });
  assert.equal(renewed.status, 200, renewed.text);
  refused(await login({ code: confirmed.body.recoveryCodes[2] }), 401, 'second_factor_required');
  refused(await post(token, '/me/totp'), 409, 'conflict');
  refused(
    await post(token, '/me/totp/remove', { password: 'not it at all', code: renewed.body.recoveryCodes[0] }),
    401,
    'invalid_credentials',
  );
  assert.equal((await post(token, '/me/totp/remove', { password, code: renewed.body.recoveryCodes[0] })).status, 204);
  const without = await login();
  assert.equal(without.status, 200);
  refused(await callAs(app, without.body.accessToken, 'GET', '/accounts'), 403, 'second_factor_missing');
  for (const path of ['/me/totp/remove', '/me/recovery-codes'])
    refused(await post(without.body.accessToken, path, { code: '000000', ...(path.endsWith('remove') && { password }) }), 409, 'conflict');
});

test('a passkey signs in, and counts as a second factor', async () => {
  const person = await personOf(app, 'admin', false);
  const authenticator = new SoftAuthenticator({ origin: ORIGIN, counting: true });
  refused(await callAs(app, person.token, 'GET', '/audit'), 403, 'second_factor_missing');
  const options = await post(person.token, '/me/passkeys/options');
  assert.equal(options.status, 200, options.text);
  const created = await post(person.token, '/me/passkeys', { name: 'Laptop', response: authenticator.create(options.body) });
  assert.equal(created.status, 201, created.text);
  assert.deepEqual(
    (await callAs(app, person.token, 'GET', '/me/passkeys')).body.items.map(({ name }: { name: string }) => name),
    ['Laptop'],
  );
  refused(await callAs(app, person.token, 'GET', '/audit'), 403, 'second_factor_missing');

  const signIn = async () => {
    const asked = (await post(undefined, '/auth/passkey/options')).body;
    // As browsers send it: with members of their own.
    const response = { ...authenticator.get(asked.options), authenticatorAttachment: 'platform' };
    return post(undefined, '/auth/passkey', { challengeId: asked.challengeId, response });
  };
  const signed = await signIn();
  assert.equal(signed.status, 200, signed.text);
  assert.equal(signed.body.user.id, person.id);
  assert.equal((await callAs(app, signed.body.accessToken, 'GET', '/audit')).status, 200);
  assert.equal((await callAs(app, signed.body.accessToken, 'GET', '/me')).body.secondFactor.passkeys, 1);

  // The password alone makes no second factor beside this one, and takes none away.
  refused(await post(person.token, '/me/totp'), 403, 'second_factor_missing');
  refused(await post(person.token, '/me/totp/confirm', { code: '000000' }), 403, 'second_factor_missing');
  refused(await post(person.token, '/me/passkeys/options'), 403, 'second_factor_missing');
  const forged = new SoftAuthenticator({ origin: ORIGIN, counting: true }).create(options.body);
  refused(await post(person.token, '/me/passkeys', { name: 'x', response: forged }), 403, 'second_factor_missing');
  refused(await callAs(app, person.token, 'DELETE', `/me/passkeys/${created.body.id}`), 403, 'second_factor_missing');

  const other = await personOf(app, 'admin', true);
  refused(await callAs(app, other.token, 'DELETE', `/me/passkeys/${created.body.id}`), 404, 'not_found');
  refused(await post(other.token, `/accounts/${person.id}/ban`, { reason: 'test' }), 403, 'forbidden');
  await app.database.query('update accounts set banned_at = now() where id = $1', [person.id]);
  refused(await signIn(), 401, 'invalid_credentials');
  const [failed] = (await callAs(app, app.token, 'GET', '/audit?action=signInFailed')).body.items;
  assert.deepEqual([failed.target, failed.details], [`account:${person.id}`, { reason: 'banned' }]);
  await app.database.query('update accounts set banned_at = null where id = $1', [person.id]);
  const again = await signIn();
  assert.equal((await callAs(app, again.body.accessToken, 'DELETE', `/me/passkeys/${created.body.id}`)).status, 204);
  refused(await signIn(), 401, 'invalid_credentials');
});

test('who has lost the second factor is helped by an administrator', async () => {
  const person = await personOf(app, 'broadcaster', false);
  const { secret } = (await post(person.token, '/me/totp')).body;
  const confirmed = await post(person.token, '/me/totp/confirm', { code: codeNow(secret) });
  assert.equal(confirmed.status, 200, confirmed.text);
  const path = `/accounts/${person.id}/second-factor`;
  refused(await callAs(app, (await personOf(app, 'moderator', true)).token, 'DELETE', path), 403, 'forbidden');
  refused(await callAs(app, (await personOf(app, 'admin', false)).token, 'DELETE', path), 403, 'second_factor_missing');
  const admin = await personOf(app, 'admin', true);
  assert.equal((await callAs(app, admin.token, 'DELETE', path)).status, 204);
  refused(await callAs(app, confirmed.body.accessToken, 'GET', '/me'), 401, 'unauthorized');
  const back = await signedIn(app, person, false);
  assert.deepEqual((await callAs(app, back.token, 'GET', '/me')).body.secondFactor, {
    totp: false,
    recoveryCodesLeft: 0,
    passkeys: 0,
    needed: false,
  });
  assert.equal((await callAs(app, admin.token, 'GET', '/audit?action=removeSecondFactor')).body.items[0].target, `account:${person.id}`);
});

test('who sets up a second factor is alone: sessions of the password end', async () => {
  const person = await personOf(app, 'broadcaster', false);
  const other = await signedIn(app, person, false);
  const { secret } = (await post(person.token, '/me/totp')).body;
  refused(await post(person.token, '/me/totp/confirm', { code: '000000' }), 401, 'invalid_credentials');
  assert.equal((await callAs(app, other.token, 'GET', '/me')).status, 200, 'not for a wrong code');
  const confirmed = await post(person.token, '/me/totp/confirm', { code: codeNow(secret) });
  assert.equal(confirmed.status, 200, confirmed.text);
  refused(await callAs(app, other.token, 'GET', '/me'), 401, 'unauthorized');
  refused(await post(undefined, '/auth/refresh', { refreshToken: other.refreshToken }), 401, 'unauthorized');
  assert.equal((await callAs(app, confirmed.body.accessToken, 'GET', '/me')).status, 200);
  assert.equal((await post(undefined, '/auth/refresh', { refreshToken: person.refreshToken })).status, 200);
});

test('no secret of a second factor is in the audit log', async () => {
  const { rows } = await app.database.query<{ row: string }>('select row_to_json(a)::text as row from audit_log a');
  assert.ok(rows.length > 5);
  for (const { row } of rows) assert.doesNotMatch(row, /secret=|otpauth|recoveryCodes|clientDataJSON|password"/, row);
});

test('the keys that secrets are encrypted with are replaced, whatever is encrypted', async () => {
  const { body } = await post(app.token, '/service/encryption-keys');
  assert.equal(body.unreadable, 0);
  assert.ok(body.reencrypted > 0);
  const rows = await app.database.query<{ kid: string }>('select kid from signing_keys');
  assert.ok(rows.rows.length > 0, 'a signing key was among them');
  assert.equal((await callAs(app, (await personOf(app, 'listener', false)).token, 'GET', '/me')).status, 200);
});
