import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { FRESH_MS } from '../../src/access/accounts/fresh-sign-in.js';
import { SCOPES } from '../../src/access/roles.js';
import type { Operation } from '../../src/app/api/openapi.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { startApp } from '../support/app.js';
import { callAs, personOf } from '../support/people.js';

const PASSWORD = 'three quiet herons';
const HOOK = { url: 'https://example.org/hook', events: ['channel.on_air'] };

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

/** What each operation that wants a fresh sign-in is asked with; `unasked`: a body with which it does not want one. */
const BODIES: Readonly<Record<string, { readonly body?: unknown; readonly unasked?: unknown }>> = {
  createApiKey: { body: { name: 'k', scopes: ['channels:read'] } },
  createApiKeyFor: { body: { name: 'k', scopes: ['channels:read'] } },
  beginTotp: {},
  confirmTotp: { body: { code: '123456' } },
  beginPasskey: {},
  createPasskey: {
    body: {
      name: 'p',
      response: { id: 'AA', rawId: 'AA', type: 'public-key', response: { clientDataJSON: 'AA', attestationObject: 'AA' } },
    },
  },
  deletePasskey: {},
  createAccount: { body: { email: 'invited@example.org', name: 'x', role: 'admin' } },
  updateAccount: { body: { role: 'admin' } },
  unbanAccount: {},
  createAccountLink: {},
  removeSecondFactor: {},
  setMember: { body: { role: 'owner' } },
  addMember: { body: { email: 'somebody@example.org', role: 'host' } },
  rotateStreamKey: {},
  createWebhook: { body: HOOK },
  createChannelWebhook: { body: HOOK },
  updateWebhook: { body: { url: HOOK.url }, unasked: { active: false } },
  updateChannelWebhook: { body: { active: true }, unasked: { active: false } },
  replaceWebhookSecret: { body: {} },
  replaceChannelWebhookSecret: { body: {} },
  exportPlaybackKeys: {},
  issueChannelLink: { body: { expiresInS: 86_401 }, unasked: { expiresInS: 86_400 } },
  issueAssetLink: { body: { expiresInS: 86_401 }, unasked: {} },
};

test('each operation that makes what outlives the session refuses an old one, and takes a fresh one, a key and the admin token', async (t) => {
  const app = await startApp();
  t.after(() => app.stop());
  const flagged = app.operations.filter(({ wantsFreshSignIn }) => wantsFreshSignIn !== undefined);
  assert.deepEqual(flagged.map(({ id }) => id).sort(), Object.keys(BODIES).sort());
  const page = await readFile('docs/second-factor.md', 'utf8');
  const table = page.split('## What wants a fresh sign-in')[1]!.split('\nNot asked:')[0]!;
  const documented = [...table.matchAll(/^\| (`.*?) \|/gm)].flatMap(([, ids]) => [...ids!.matchAll(/`(\w+)`/g)].map(([, id]) => id));
  assert.deepEqual(documented.sort(), Object.keys(BODIES).sort(), 'docs/second-factor.md');

  const admin = await personOf(app, 'admin', true);
  const target = await personOf(app, 'listener', false);
  const { channel } = await app.access.channels.create('radio', { title: 'x', visibility: 'public', recording: true }, admin.id);
  await app.broadcasts.insert({ id: 'recording', channelId: channel.id, title: 'x', recording: true, startedAtMs: 1e12, firstNumber: 0 });
  await app.broadcasts.end('recording', { endedAtMs: 1e12 + 9000, durationMs: 9000, lastNumber: 4 });
  const hook = async (path: string): Promise<string> => {
    const made = await callAs(app, app.token, 'POST', path, HOOK);
    assert.equal(made.status, 201, `the admin token is not asked: ${made.text}`);
    return made.body.webhook.id;
  };
  const ofService = await hook('/webhooks');
  const ofChannel = await hook('/channels/radio/webhooks');
  const key = await callAs(app, admin.token, 'POST', '/me/api-keys', { name: 'k', scopes: Object.keys(SCOPES) });
  const pathOf = ({ path }: Operation) =>
    path
      .replace('{slug}', 'radio')
      .replace('{accountId}', target.id)
      .replace('{webhookId}', path.startsWith('/webhooks') ? ofService : ofChannel)
      .replace('{id}', path.startsWith('/assets') ? 'recording' : path.startsWith('/me') ? 'abc' : target.id);
  const state = (column: string, interval: string) =>
    app.database.query(`update sessions set ${column} = now() + $2::interval where account_id = $1`, [admin.id, interval]);
  const asked = async (token: string, operation: Operation, body: unknown) =>
    (await callAs(app, token, operation.method, pathOf(operation), body)).body?.code;

  await state('created_at', '-10 minutes');
  for (const operation of flagged) {
    const { body, unasked } = BODIES[operation.id]!;
    assert.equal(await asked(admin.token, operation, body), 'fresh_sign_in_required', operation.id);
    if (unasked !== undefined) assert.equal(await asked(admin.token, operation, unasked), undefined, operation.id);
  }
  const { rows } = await app.database.query<{ role: string }>('select role from accounts where id = $1', [target.id]);
  assert.equal(rows[0]!.role, 'listener');
  const own = `/accounts/${admin.id}/second-factor`;
  for (const column of ['proven_at', 'created_at']) {
    for (const operation of flagged) {
      await app.database.query('update sessions set created_at = now(), proven_at = null, ended_at = null where account_id = $1', [
        admin.id,
      ]);
      if (column === 'proven_at') await state('created_at', '-1 hour');
      await state(column, '-9 minutes');
      // What it is answered beside that is told elsewhere; it may be that there is no such passkey.
      assert.notEqual(await asked(admin.token, operation, BODIES[operation.id]!.body), 'fresh_sign_in_required', operation.id);
    }
    const removed = await callAs(app, admin.token, 'DELETE', own);
    assert.deepEqual([removed.status, removed.body.code], [403, 'forbidden'], 'one’s own second factor, by a fresh session');
  }
  for (const operation of flagged)
    assert.notEqual(
      await asked(key.body.secret, operation, BODIES[operation.id]!.body),
      'fresh_sign_in_required',
      `${operation.id} by a key`,
    );
});
