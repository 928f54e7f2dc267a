import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import type { Tokens } from '../../src/access/tokens/sessions.js';
import { problemSchema } from '../../src/app/api/openapi.js';
import { startApp, type TestApp } from '../support/app.js';

let app: TestApp;
before(async () => {
  app = await startApp();
});
after(() => app.stop());

async function person(role = 'listener'): Promise<Tokens & { accountId: string }> {
  const accountId = randomUUID();
  await app.database.query(`insert into accounts (id, email, email_key, name, role) values ($1, $2, $2, 'Ada', $3)`, [
    accountId,
    `${accountId}@example.org`,
    role,
  ]);
  return { ...(await signIn(accountId)), accountId };
}
const signIn = (accountId: string, amr = ['pwd']) =>
  app.access.sessions.begin({ accountId, amr, client: { address: '192.0.2.1', userAgent: 'Test/1' } });

/** Holds every answer against what the API says of itself. */
async function call(method: string, path: string, { token, body }: { token?: string | undefined; body?: unknown } = {}) {
  const response = await fetch(`${app.url}/api/v1${path}`, {
    method,
    headers: { 'user-agent': 'Call/1', ...(token && { authorization: `Bearer ${token}` }), 'content-type': 'application/json' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const answer = text === '' ? undefined : JSON.parse(text);
  const operation = app.operations.find(
    (candidate) =>
      candidate.method === method.toLowerCase() && new RegExp(`^${candidate.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(path),
  )!;
  if (response.status >= 400) problemSchema.parse(answer);
  else if (operation.answer) operation.answer.parse(answer);
  else assert.equal(text, '');
  if (response.ok) assert.equal(response.status, operation.status);
  return { status: response.status, headers: response.headers, body: answer };
}
const items = async (token: string) => (await call('GET', '/me/sessions', { token })).body.items as { id: string; current: boolean }[];

test('refresh: a new pair, also with an access token in the header that has expired', async () => {
  const { refreshToken } = await person();
  const first = await call('POST', '/auth/refresh', { token: 'expired.long.ago', body: { refreshToken } });
  assert.equal(first.status, 200);
  assert.equal(first.headers.get('cache-control'), 'no-store');
  assert.equal(first.body.expiresIn, 900);
  const again = await call('POST', '/auth/refresh', { body: { refreshToken } });
  assert.equal(again.body.refreshToken, first.body.refreshToken, 'two tabs');
  assert.equal((await items(first.body.accessToken)).length, 1);
});

test('refresh: used twice, the session is over', async () => {
  const { refreshToken, accountId } = await person();
  const { body } = await call('POST', '/auth/refresh', { body: { refreshToken } });
  await app.database.query(`update refresh_tokens set replaced_at = replaced_at - interval '10 s' where replaced_at is not null`);
  assert.equal((await call('POST', '/auth/refresh', { body: { refreshToken } })).body.code, 'unauthorized');
  assert.equal((await call('POST', '/auth/refresh', { body: { refreshToken: body.refreshToken } })).status, 401);
  assert.equal((await call('GET', '/me/sessions', { token: body.accessToken })).status, 401);
  assert.equal((await app.access.audit.list({ action: 'refreshTokenReused', target: `account:${accountId}` }, 9)).length, 1);
  assert.equal((await app.access.audit.list({ action: 'refreshSession' }, 9)).length, 0, 'what is routine would bury it');
});

test('refresh: a body that is none of ours', async () => {
  for (const body of [{}, { refreshToken: '' }, { refreshToken: 7 }, { refreshToken: 'x'.repeat(513) }, { refreshToken: 'x', more: 1 }, []])
    assert.equal((await call('POST', '/auth/refresh', { body })).body.code, 'bad_request', JSON.stringify(body));
  for (const refreshToken of ['x', 'vzr_', `vzr_${'x'.repeat(43)}`, app.token])
    assert.equal((await call('POST', '/auth/refresh', { body: { refreshToken } })).body.code, 'unauthorized', refreshToken);
});

test('refresh: guessing is limited, refreshing is not', async () => {
  const strict = await startApp({}, { rateLimitPerMinute: 1000 });
  try {
    const accountId = randomUUID();
    await strict.database.query(`insert into accounts (id, email, email_key, name) values ($1, 'a@b', 'a@b', 'Ada')`, [accountId]);
    let { refreshToken } = await strict.access.sessions.begin({ accountId, amr: ['pwd'], client: { address: '', userAgent: '' } });
    const refresh = (token: string) =>
      fetch(`${strict.url}/api/v1/auth/refresh`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ refreshToken: token }),
      });
    for (let i = 0; i < 70; i++) ({ refreshToken } = (await (await refresh(refreshToken)).json()) as { refreshToken: string });
    const statuses = [];
    for (let i = 0; i < 61; i++) statuses.push((await refresh(`vzr_${'x'.repeat(43)}`)).status);
    assert.deepEqual([...new Set(statuses)], [401, 429]);
    assert.equal(statuses.indexOf(429), 60);
  } finally {
    await strict.stop();
  }
});

test('logout: by refresh token, by access token, and twice is no error', async () => {
  const one = await person();
  assert.equal((await call('POST', '/auth/logout', { token: 'expired.long.ago', body: { refreshToken: one.refreshToken } })).status, 204);
  assert.equal((await call('GET', '/me/sessions', { token: one.accessToken })).status, 401);
  assert.equal((await call('POST', '/auth/logout', { body: { refreshToken: one.refreshToken } })).status, 204);
  assert.equal((await call('POST', '/auth/refresh', { body: { refreshToken: one.refreshToken } })).status, 401);
  const [entry] = await app.access.audit.list({ action: 'logout', target: `account:${one.accountId}` }, 9);
  assert.deepEqual(entry?.details, { sessionId: one.sessionId });

  const two = await person();
  assert.equal((await call('POST', '/auth/logout', { token: two.accessToken })).status, 204);
  assert.equal((await call('POST', '/auth/refresh', { body: { refreshToken: two.refreshToken } })).status, 401);

  assert.equal((await call('POST', '/auth/logout')).status, 401, 'of nobody');
  assert.equal((await call('POST', '/auth/logout', { token: app.token })).status, 401, 'the admin token has no session');
  const kept = await person();
  const thief = await person();
  await call('POST', '/auth/logout', { token: thief.accessToken, body: { refreshToken: 'x' } });
  const entries = await app.access.audit.list({ action: 'logout' }, 99);
  assert.deepEqual(
    entries.filter(({ target }) => target === undefined),
    [],
    'a logout that ended nothing is not in the audit log',
  );
  await items(kept.accessToken);
});

test('sessions are listed, and ended one by one and all together; never those of others', async () => {
  const me = await person();
  const there = await signIn(me.accountId);
  const other = await person();
  const listed = await items(me.accessToken);
  assert.deepEqual(new Set(listed.map(({ id }) => id)), new Set([me.sessionId, there.sessionId]));
  assert.deepEqual(
    listed.filter(({ current }) => current).map(({ id }) => id),
    [me.sessionId],
  );
  for (const id of [other.sessionId, randomUUID()])
    assert.equal((await call('DELETE', `/me/sessions/${id}`, { token: me.accessToken })).body.code, 'not_found');
  for (const id of ['x', "' or 1=1 --", '..%2f', `${me.sessionId}x`])
    assert.equal((await call('DELETE', `/me/sessions/${encodeURIComponent(id)}`, { token: me.accessToken })).body.code, 'bad_request', id);
  await items(other.accessToken);

  assert.equal((await call('DELETE', `/me/sessions/${there.sessionId}`, { token: me.accessToken })).status, 204);
  assert.equal((await call('DELETE', `/me/sessions/${there.sessionId}`, { token: me.accessToken })).status, 404);
  assert.equal((await call('GET', '/me/sessions', { token: there.accessToken })).status, 401);
  assert.equal((await call('POST', '/auth/refresh', { body: { refreshToken: there.refreshToken } })).status, 401);

  const again = await signIn(me.accountId);
  assert.equal((await call('DELETE', '/me/sessions', { token: me.accessToken })).status, 204);
  for (const over of [me, again]) assert.equal((await call('GET', '/me/sessions', { token: over.accessToken })).status, 401);
  await items(other.accessToken);
  for (const [method, path] of [
    ['GET', '/me/sessions'],
    ['DELETE', '/me/sessions'],
    ['DELETE', `/me/sessions/${randomUUID()}`],
  ] as const) {
    assert.equal((await call(method, path)).status, 401);
    assert.equal((await call(method, path, { token: app.token })).status, 403, 'this is for people');
  }
});

test('a bad token is told from none (RFC 6750 3.1)', async () => {
  const challenge = async (token?: string) => (await call('GET', '/me/sessions', { token })).headers.get('www-authenticate');
  assert.equal(await challenge(), 'Bearer realm="veza"');
  assert.equal(await challenge('wrong'), 'Bearer realm="veza", error="invalid_token"');
  const { accessToken, sessionId } = await person();
  await app.access.sessions.end(sessionId);
  assert.equal(await challenge(accessToken), 'Bearer realm="veza", error="invalid_token"');
});

test('the key set is public; what others check with it, they get right', async () => {
  const url = new URL(`${app.url}/.well-known/jwks.json`);
  const response = await fetch(url, { headers: { origin: 'https://elsewhere.example' } });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('cache-control'), 'public, max-age=300');
  assert.equal(response.headers.get('access-control-allow-origin'), '*');
  assert.match(response.headers.get('content-type')!, /^application\/json/);
  const text = await response.text();
  assert.doesNotMatch(text, /"d":/);
  assert.equal(JSON.parse(text).keys.length, 1);
  const { accessToken, accountId } = await person();
  const { payload } = await jwtVerify(accessToken, createRemoteJWKSet(url), {
    issuer: 'http://radio.example:8080',
    audience: 'veza',
    algorithms: ['EdDSA'],
    typ: 'at+jwt',
  });
  assert.equal(payload.sub, accountId);
  assert.equal((await fetch(url, { method: 'HEAD' })).status, 200);
  const posted = await fetch(url, { method: 'POST' });
  assert.equal(posted.status, 405);
  assert.equal(posted.headers.get('allow'), 'GET, HEAD, OPTIONS');
  assert.equal((await fetch(`${url}x`)).status, 404);
});

test('a new signing key is for those who may, and signs no sooner than it is known', async () => {
  const { accessToken } = await person('admin');
  assert.equal((await call('POST', '/service/signing-keys', { token: accessToken })).body.code, 'second_factor_missing');
  assert.equal((await call('POST', '/service/signing-keys', { token: (await person()).accessToken })).body.code, 'forbidden');
  assert.equal((await call('POST', '/service/signing-keys', { token: app.token, body: { revoke: 'yes' } })).status, 400);
  const { body } = await call('POST', '/service/signing-keys', { token: app.token });
  assert.ok(Date.parse(body.signsFrom) - decodeJwt(accessToken).iat! * 1000 >= 10 * 60_000);
  const set = async () => ((await (await fetch(`${app.url}/.well-known/jwks.json`)).json()) as { keys: { kid: string }[] }).keys;
  assert.equal((await set()).at(-1)!.kid, body.kid);
  await items(accessToken);

  const revoked = await call('POST', '/service/signing-keys', { token: app.token, body: { revoke: true } });
  assert.deepEqual(
    (await set()).map(({ kid }) => kid),
    [revoked.body.kid],
  );
  assert.equal((await call('GET', '/me/sessions', { token: accessToken })).status, 401);
  await items((await person()).accessToken);
  const entries = await app.access.audit.list({ action: 'rotateSigningKey' }, 9);
  assert.deepEqual(
    entries.map(({ target }) => target),
    [`signing-key:${revoked.body.kid}`, `signing-key:${body.kid}`],
  );
});
