import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { MAIL_INTERVAL_MS } from '../../src/access/accounts/account-links.js';
import { problemSchema } from '../../src/app/api/openapi.js';
import { startApp, type TestApp } from '../support/app.js';
import { callAs, personOf } from '../support/people.js';
import { type SmtpServer, startSmtp } from '../support/smtp.js';

const PASSWORD = 'three quiet herons';
const OTHER = 'another five loud storks';

let app: TestApp;
let smtp: SmtpServer;
before(async () => {
  smtp = await startSmtp();
  app = await startApp({}, { smtpUrl: smtp.url, environment: 'test' });
});
after(async () => {
  await app.stop();
  await smtp.stop();
});

/** Holds every answer against what the API says of itself. */
async function call(method: string, path: string, body?: unknown, token?: string) {
  const answer = await callAs(app, token, method, path, body);
  const operation = app.operations.find(
    (candidate) =>
      candidate.method === method.toLowerCase() &&
      new RegExp(`^${candidate.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(path.split('?')[0]!),
  )!;
  if (answer.status >= 400) {
    const { code } = problemSchema.parse(answer.body);
    const known = ['bad_request', 'unauthorized', 'forbidden', 'second_factor_missing', ...operation.errors];
    assert.ok(known.includes(code), `${code} is not documented for ${method} ${path}`);
  } else {
    assert.equal(answer.status, operation.status, answer.text);
    if (operation.answer) operation.answer.parse(answer.body);
    else assert.equal(answer.text, '');
  }
  return answer;
}
const post = (path: string, body?: unknown, token?: string) => call('POST', path, body, token);
/** Takes the mails to this address. */
async function mailsTo(address: string) {
  await app.access.registration.idle();
  await app.access.mail.idle();
  const mine = smtp.mails.filter(({ to }) => to.includes(address));
  smtp.mails.splice(0, smtp.mails.length, ...smtp.mails.filter((mail) => !mine.includes(mail)));
  return mine;
}
async function account(email: string) {
  assert.equal((await post('/auth/register', { email, password: PASSWORD, name: 'Ann' })).status, 201);
  const [mail] = await mailsTo(email);
  assert.equal((await post('/auth/confirm', { token: mail!.token, password: PASSWORD })).status, 204);
  const { body } = await post('/auth/login', { email, password: PASSWORD });
  return body as { accessToken: string; refreshToken: string; user: { id: string } };
}
/** What a stranger can see of an answer. */
const seen = ({ status, headers, body }: Awaited<ReturnType<typeof call>>) => ({
  status,
  headers: [...headers.keys()].filter((name) => !/^ratelimit/.test(name)),
  body: { ...body, requestId: undefined },
});
const admin = () => personOf(app, 'admin', true).then(({ token }) => token);

test('from registration to deletion', async () => {
  const registered = await post('/auth/register', { email: 'Life@a.example', password: PASSWORD, name: ' Ann ' });
  assert.deepEqual(registered.body, { user: { email: 'Life@a.example', name: 'Ann' } });
  assert.equal((await post('/auth/login', { email: 'life@a.example', password: PASSWORD })).body.code, 'invalid_credentials');
  const [mail] = await mailsTo('Life@a.example');
  assert.match(mail!.text, /http:\/\/radio\.example:8080\/account#token=/);
  // A token that has expired is no reason not to let somebody sign in.
  assert.equal((await post('/auth/confirm', { token: mail!.token })).body.code, 'bad_request', 'the link alone');
  assert.equal((await post('/auth/confirm', { token: mail!.token, password: OTHER })).body.code, 'invalid_credentials');
  assert.equal((await post('/auth/confirm', { token: mail!.token, password: PASSWORD }, 'expired')).status, 204);
  const login = await post('/auth/login', { email: 'life@a.example', password: PASSWORD }, 'expired');
  assert.deepEqual(login.body.user, { id: login.body.user.id, email: 'Life@a.example', name: 'Ann', role: 'listener' });
  assert.equal(login.headers.get('cache-control'), 'no-store');
  const token = login.body.accessToken as string;

  const me = await call('GET', '/me', undefined, token);
  assert.deepEqual(me.body.secondFactor, { totp: false, recoveryCodesLeft: 0, passkeys: 0, needed: false });
  assert.equal((await call('PATCH', '/me', { name: 'Zoë' }, token)).body.name, 'Zoë');
  assert.equal((await call('PATCH', '/me', { name: 'a\u202eb' }, token)).body.code, 'bad_request');

  const other = (await post('/auth/login', { email: 'life@a.example', password: PASSWORD })).body.accessToken as string;
  assert.equal((await post('/me/password', { password: 'wrong', newPassword: OTHER }, token)).body.code, 'invalid_credentials');
  assert.equal((await post('/me/password', { password: PASSWORD, newPassword: 'password1' }, token)).body.code, 'bad_request');
  assert.equal((await post('/me/password', { password: PASSWORD, newPassword: OTHER }, token)).status, 204);
  assert.equal((await call('GET', '/me', undefined, other)).status, 401);

  const exported = (await call('GET', '/me/export', undefined, token)).body;
  assert.equal(exported.account.name, 'Zoë');
  assert.equal(exported.sessions.length, 2);
  const actions = exported.audit.map(({ action }: { action: string }) => action);
  for (const action of ['confirmAddress', 'signIn', 'signInFailed', 'updateMe', 'changePassword'])
    assert.ok(actions.includes(action), action);
  assert.doesNotMatch(JSON.stringify(exported), /argon2|herons|storks/);

  assert.equal((await post('/me/delete', { password: PASSWORD }, token)).body.code, 'invalid_credentials');
  assert.equal((await post('/me/delete', { password: OTHER }, token)).status, 204);
  assert.equal((await call('GET', '/me', undefined, token)).status, 401);
  assert.equal((await post('/auth/login', { email: 'life@a.example', password: OTHER })).body.code, 'invalid_credentials');
});

test('no such account, another password, an account without one: the same answer, the same work', async () => {
  await account('here@a.example');
  await post('/accounts', { email: 'invited@a.example', name: 'x' }, await admin());
  const tried = async (email: string) => {
    const before = app.access.passwords.worked;
    const answer = await post('/auth/login', { email, password: 'wrong password' });
    return { ...seen(answer), work: app.access.passwords.worked - before };
  };
  const expected = await tried('here@a.example');
  assert.deepEqual([expected.status, expected.body.code, expected.work], [401, 'invalid_credentials', 1]);
  for (const email of ['nobody@a.example', 'invited@a.example', 'no address']) assert.deepEqual(await tried(email), expected, email);
});

test('registration tells nobody whether an address is known, and neither does recovery', async () => {
  await account('known@a.example');
  const registered = async (email: string, password = OTHER) => {
    const before = app.access.passwords.worked;
    const answer = seen(await post('/auth/register', { email, password, name: 'Eve' }));
    return { ...answer, body: JSON.stringify(answer.body).replaceAll(email, ''), work: app.access.passwords.worked - before };
  };
  assert.deepEqual(await registered('known@a.example'), await registered('new@a.example'));
  assert.deepEqual(await registered('known@a.example', 'password1'), await registered('new2@a.example', 'password1'));
  const [known, fresh] = [await mailsTo('known@a.example'), await mailsTo('new@a.example')];
  assert.deepEqual(
    [known[0]!.headers.get('subject'), fresh[0]!.headers.get('subject')],
    ['You have an account already', 'Confirm your address'],
  );
  // What was registered over it changed nothing, and signing in shows no difference.
  const signIn = async (email: string) => seen(await post('/auth/login', { email, password: OTHER }));
  assert.deepEqual(await signIn('known@a.example'), await signIn('new@a.example'));
  assert.equal((await post('/auth/login', { email: 'known@a.example', password: PASSWORD })).status, 200);

  const recovered = async (email: string) => seen(await post('/auth/recover', { email }));
  const [one, two, three] = [await recovered('known@a.example'), await recovered('nobody@a.example'), await recovered('no address')];
  assert.deepEqual([one, one], [two, three]);
  assert.equal(one.status, 202);
});

test('nobody gives himself what he may not choose', async () => {
  const body = { email: 'mass@a.example', password: PASSWORD, name: 'x' };
  for (const more of [
    { role: 'admin' },
    { confirmedAt: '2030-01-01' },
    { id: 'x' },
    { state: 'active' },
    { password_hash: 'x' },
    { __proto__x: 1 },
  ]) {
    assert.equal((await post('/auth/register', { ...body, ...more })).body.code, 'bad_request', JSON.stringify(more));
  }
  assert.equal(await app.access.accounts.byEmail('mass@a.example'), undefined);
  const { accessToken } = await account('mass@a.example');
  for (const more of [{ role: 'admin' }, { email: 'x@a.example' }, { id: 'x' }]) {
    assert.equal((await call('PATCH', '/me', { name: 'x', ...more }, accessToken)).body.code, 'bad_request', JSON.stringify(more));
  }
  assert.equal((await call('GET', '/me', undefined, accessToken)).body.role, 'listener');
  for (const wrong of [
    null,
    [],
    'x',
    { email: {}, password: PASSWORD, name: 'x' },
    { ...body, password: ['x'] },
    { ...body, name: 'x\0y' },
    { ...body, email: 'a\0@a.example' },
  ]) {
    assert.equal((await post('/auth/register', wrong)).status, 400, JSON.stringify(wrong));
  }
  for (const wrong of [
    {},
    { email: 'x' },
    { email: 'x', password: 'x', code: {} },
    { email: 'x'.repeat(255), password: 'x' },
    { email: 'x', password: 'x'.repeat(1025) },
  ]) {
    assert.equal((await post('/auth/login', wrong)).status, 400, JSON.stringify(wrong).slice(0, 80));
  }
});

test('links: once, for one purpose, for their time, by their newest', async () => {
  const { accessToken, user } = await account('links@a.example');
  const recover = async () => {
    await post('/auth/recover', { email: 'links@a.example' });
    return (await mailsTo('links@a.example')).at(-1)?.token;
  };
  const first = await recover();
  assert.equal(await recover(), undefined, 'not twice at once');
  assert.equal((await post('/auth/confirm', { token: first, password: PASSWORD })).body.code, 'not_found', 'for another purpose');
  assert.equal((await post('/auth/reset', { token: first, newPassword: 'links@a.example' })).body.code, 'bad_request');
  assert.equal((await post('/auth/reset', { token: first, newPassword: OTHER })).status, 204);
  assert.equal((await post('/auth/reset', { token: first, newPassword: PASSWORD })).body.code, 'not_found', 'once');
  assert.equal((await call('GET', '/me', undefined, accessToken)).status, 401, 'all sessions end');

  const age = (byMs: number) =>
    app.database.query(
      `update one_time_links set created_at = created_at - $2 * interval '1 ms', expires_at = expires_at - $2 * interval '1 ms' where account_id = $1`,
      [user.id, byMs],
    );
  const second = await recover();
  await age(MAIL_INTERVAL_MS);
  const third = await recover();
  assert.equal((await post('/auth/reset', { token: second, newPassword: PASSWORD })).body.code, 'not_found', 'a newer one was sent');
  await age(3_600_000);
  assert.equal((await post('/auth/reset', { token: third, newPassword: PASSWORD })).body.code, 'not_found', 'an hour is over');
  for (const token of ['x', '', 'x'.repeat(201), null, { $ne: null }]) {
    assert.ok([400, 404].includes((await post('/auth/reset', { token, newPassword: PASSWORD })).status));
    assert.ok([400, 404].includes((await post('/auth/confirm', { token, password: PASSWORD })).status));
  }
});

test('who registers somebody else’s address has nothing of it when its holder follows the link', async () => {
  const email = 'victim@a.example';
  for (const password of ['password of a stranger', PASSWORD]) {
    assert.equal((await post('/auth/register', { email, password, name: 'Ann' })).status, 201);
  }
  const [mail, ...more] = await mailsTo(email);
  assert.equal(more.length, 0);
  assert.equal((await post('/auth/confirm', { token: mail!.token, password: PASSWORD })).status, 204);
  assert.equal((await post('/auth/login', { email, password: 'password of a stranger' })).body.code, 'invalid_credentials');
  assert.equal((await post('/auth/login', { email, password: PASSWORD })).status, 200);
});

test('an administrator invites, finds, changes, bans and deletes', async () => {
  const token = await admin();
  const made = await post('/accounts', { email: 'guest@a.example', name: 'Guest', role: 'broadcaster' }, token);
  assert.equal(made.body.account.state, 'invited');
  const { id } = made.body.account as { id: string };
  const linkToken = /#token=([\w-]+)&for=invitation$/.exec(made.body.link)![1];
  assert.equal((await mailsTo('guest@a.example'))[0]!.token, linkToken);
  assert.equal((await post('/auth/reset', { token: linkToken, newPassword: PASSWORD })).status, 204);
  const guest = (await post('/auth/login', { email: 'guest@a.example', password: PASSWORD })).body.accessToken as string;

  assert.equal((await call('GET', `/accounts?query=${encodeURIComponent('GUEST@a.example')}`, undefined, token)).body.items[0].id, id);
  assert.equal((await call('GET', `/accounts/${id}`, undefined, token)).body.state, 'active');
  assert.equal((await call('PATCH', `/accounts/${id}`, { role: 'moderator' }, token)).body.role, 'moderator');
  assert.equal((await call('GET', '/me', undefined, guest)).status, 401, 'what is in its tokens is no longer true');
  assert.equal((await post(`/accounts/${id}/ban`, { reason: 'spam' }, token)).body.banReason, 'spam');
  const refused = await post('/auth/login', { email: 'guest@a.example', password: PASSWORD });
  assert.deepEqual([refused.body.code, refused.body.details], ['forbidden', { reason: 'spam' }]);
  assert.equal((await post(`/accounts/${id}/link`, undefined, token)).body.code, 'forbidden');
  assert.equal((await post(`/accounts/${id}/unban`, undefined, token)).body.state, 'active');
  assert.match((await post(`/accounts/${id}/link`, undefined, token)).body.link, /for=recovery$/);
  assert.equal((await call('DELETE', `/accounts/${id}`, undefined, token)).status, 204);
  assert.equal((await call('GET', `/accounts/${id}`, undefined, token)).status, 404);

  const log = await app.access.audit.list({ target: `account:${id}` }, 20);
  assert.deepEqual(
    log.map(({ action }) => action).filter((action) => action !== 'signIn'),
    ['deleteAccount', 'createAccountLink', 'unbanAccount', 'signInFailed', 'banAccount', 'updateAccount', 'resetPassword', 'createAccount'],
  );
  assert.doesNotMatch(JSON.stringify(log), /token=|herons/);
});

test('who may not', async () => {
  const [listener, moderator, unproven] = [
    await personOf(app, 'listener', false),
    await personOf(app, 'moderator', true),
    await personOf(app, 'admin', false),
  ];
  const tried = (method: string, path: string, token: string, body?: object) =>
    call(method, path, body, token).then(({ body: { code } }) => code);
  for (const [method, path, body] of [
    ['GET', '/accounts'],
    ['POST', '/accounts', { email: 'x@a.example', name: 'x' }],
    ['GET', `/accounts/${listener.id}`],
    ['PATCH', `/accounts/${listener.id}`, { role: 'admin' }],
    ['DELETE', `/accounts/${listener.id}`],
    ['POST', `/accounts/${listener.id}/ban`],
    ['POST', `/accounts/${listener.id}/unban`],
    ['POST', `/accounts/${listener.id}/link`],
  ] as const) {
    assert.equal(await tried(method, path, listener.token, body), 'forbidden', `${method} ${path}`);
    assert.equal(await tried(method, path, unproven.token, body), 'second_factor_missing', `${method} ${path}`);
  }
  assert.equal(await tried('PATCH', `/accounts/${moderator.id}`, moderator.token, { role: 'admin' }), 'forbidden');
  const peer = await personOf(app, 'moderator', true);
  assert.equal(await tried('POST', `/accounts/${peer.id}/ban`, moderator.token), 'forbidden');
  assert.equal((await post(`/accounts/${listener.id}/ban`, undefined, moderator.token)).status, 200);
  for (const id of ['x', '00000000-0000-4000-8000-000000000000', `${listener.id}%00`, '..%2fchannels']) {
    assert.ok([400, 404].includes((await callAs(app, await admin(), 'GET', `/accounts/${id}`)).status), id);
  }
  for (const query of ['query=%00', 'cursor=x', 'cursor=WzEsMl0', 'query=', `query=${'x'.repeat(255)}`]) {
    assert.equal((await call('GET', `/accounts?${query}`, undefined, moderator.token)).body.code, 'bad_request', query);
  }
});

test('a list is paged', async () => {
  const token = await admin();
  // As the service writes them; the test's own people have microseconds.
  await app.database.query(`update accounts set created_at = date_trunc('milliseconds', created_at)`);
  const found: string[] = [];
  for (let next: string | null = ''; next !== null; ) {
    const { body } = await call('GET', `/accounts?limit=3${next && `&cursor=${next}`}`, undefined, token);
    assert.ok(body.items.length <= 3);
    found.push(...body.items.map(({ id }: { id: string }) => id));
    next = body.next;
  }
  const { rows } = await app.database.query<{ count: number }>('select count(*)::int as count from accounts');
  assert.deepEqual([new Set(found).size, found.length], [rows[0]!.count, rows[0]!.count]);
});

test('channels go with the account only if that is wanted, and their shows end', async () => {
  for (const [channels, stays] of [
    ['keep', true],
    ['delete', false],
  ] as const) {
    const slug = `of-${channels}`;
    const { accessToken, user } = await account(`${slug}@a.example`);
    await app.channels.create(slug, { title: 'x', visibility: 'public', recording: false }, user.id);
    app.live.shows.set(slug, { state: 'live', listeners: 0, nowPlaying: undefined });
    assert.equal((await post('/me/delete', { password: PASSWORD, channels }, accessToken)).status, 204);
    assert.deepEqual([(await app.channels.get(slug)) !== undefined, app.live.shows.has(slug)], [stays, stays]);
  }
});
