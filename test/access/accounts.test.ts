import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { MAIL_INTERVAL_MS } from '../../src/access/accounts/account-links.js';
import { ANONYMOUS, type Principal, type Role } from '../../src/access/roles.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type AccountWorld, accountWorld, client, PASSWORD } from './account-world.js';

const code =
  (wanted: string, text = /./) =>
  (error: unknown) =>
    error instanceof VezaError && error.code === wanted && text.test(error.message);
const HOUR_MS = 3_600_000;
const OTHER = 'another five loud storks';

let world: AccountWorld;
before(async () => {
  world = await accountWorld();
});
after(() => world.stop());

const register = (email: string, password = PASSWORD, name = 'Ann') =>
  world.access.registration.register({ email, password, name }, client.address);
const signIn = (email: string, password = PASSWORD, more: { code?: string; address?: string } = {}) =>
  world.access.accounts.signIn({ email, password, code: more.code, client: { ...client, address: more.address ?? client.address } });
const principal = (role: Role): Principal => ({ kind: 'account', id: 'account:x', name: '', role, secondFactor: true });
const isGood = async (accessToken: string) =>
  world.access.identity.ofCredential(accessToken).then(
    () => true,
    () => false,
  );

test('registered, confirmed by mail, signed in', async () => {
  assert.deepEqual(await register(' Ann@Radio.Example ', PASSWORD, ' Ann '), { email: 'Ann@Radio.Example', name: 'Ann' });
  await assert.rejects(signIn('ann@radio.example'), code('invalid_credentials'), 'not before it is confirmed');
  const [mail, ...more] = await world.mailsTo('Ann@Radio.Example');
  assert.deepEqual([mail!.subject, more.length], ['Confirm your address', 0]);
  assert.doesNotMatch(mail!.text, /Ann/, 'what somebody typed is not sent to an address that may be another’s');
  assert.match(mail!.text, /https:\/\/radio\.example\/account#token=[\w-]{43}&for=confirmation\n/);
  const before = world.access.passwords.worked;
  await assert.rejects(world.access.registration.reset(mail!.token!, OTHER, client.address), code('not_found'), 'it is for something else');
  assert.equal(world.access.passwords.worked, before, 'and that costs no hash');
  await world.access.registration.confirm(mail!.token!, PASSWORD, client.address);
  const { account, tokens } = await signIn('ANN@radio.example');
  assert.deepEqual([account.email, account.name, account.role, account.state], ['Ann@Radio.Example', 'Ann', 'listener', 'active']);
  const who = await world.access.identity.ofCredential(tokens.accessToken);
  assert.deepEqual([who.accountId, who.role, who.secondFactor, who.sessionId], [account.id, 'listener', false, tokens.sessionId]);
  assert.deepEqual(await world.access.accounts.byEmail('ann@RADIO.example'), account);
  assert.equal(await world.access.accounts.byEmail('not an address'), undefined);
});

test('an address that is known is answered the same, costs the same, changes nothing, and gets a mail', async () => {
  const id = await world.account('known@a.example');
  const cost = async (email: string) => {
    const before = world.access.passwords.worked;
    const answer = await register(email, OTHER, 'Eve');
    return { work: world.access.passwords.worked - before, name: answer.name };
  };
  assert.deepEqual(await cost('known@a.example'), await cost('unknown@a.example'));
  await assert.rejects(signIn('known@a.example', OTHER), code('invalid_credentials'));
  assert.equal((await signIn('known@a.example')).account.id, id);
  assert.deepEqual(
    (await world.mailsTo('known@a.example')).map(({ subject }) => subject),
    ['You have an account already'],
  );
  // Whoever registered it cannot see by signing in whether there was one, either.
  const errors = await Promise.all(
    ['known@a.example', 'unknown@a.example', 'nobody@a.example'].map((email) =>
      signIn(email, OTHER).catch((error: VezaError) => [error.code, error.message]),
    ),
  );
  assert.deepEqual(errors[0], errors[1]);
  assert.deepEqual(errors[0], errors[2]);
});

test('as many statements for a known address as for an unknown one', async () => {
  const count = async (email: string) => {
    let statements = 0;
    const { database } = world;
    const counted = {
      ...database,
      transaction: <T>(work: (connection: typeof database) => Promise<T>) =>
        database.transaction((connection) =>
          work({
            ...database,
            query: (sql, values) => {
              statements++;
              return connection.query(sql, values);
            },
          }),
        ),
    };
    const access = await world.open({ database: counted as typeof database });
    await access.registration.register({ email, password: PASSWORD, name: 'Ann' }, client.address);
    return statements;
  };
  await world.account('counted@a.example');
  const [known, unknown] = [await count('counted@a.example'), await count('uncounted@a.example')];
  // The one more looks the account up that the other one has made.
  assert.deepEqual([known - unknown], [1]);
});

test('an address that is not confirmed is opened by its link together with the password that was registered last', async () => {
  const { registration } = world.access;
  const STRANGERS = 'password of a stranger';
  const stranger = (email: string) => register(email, STRANGERS, 'Eve');
  // First, to be confirmed by the link that its holder waits for.
  await stranger('before@a.example');
  await register('before@a.example', PASSWORD, 'Ann');
  const [link, ...more] = await world.mailsTo('before@a.example');
  assert.equal(more.length, 0, 'nobody can fill a mailbox');
  await assert.rejects(registration.confirm(link!.token!, STRANGERS, client.address), code('invalid_credentials'));
  await registration.confirm(link!.token!, PASSWORD, client.address);
  await assert.rejects(signIn('before@a.example', STRANGERS), code('invalid_credentials'));
  assert.equal((await signIn('before@a.example')).account.name, 'Ann');

  // After its holder: he is told what to do, and the stranger has nothing of it.
  await register('after@a.example');
  await stranger('after@a.example');
  const [late] = await world.mailsTo('after@a.example');
  await assert.rejects(registration.confirm(late!.token!, PASSWORD, client.address), code('invalid_credentials', /Forgotten password/));
  assert.equal(await world.state('after@a.example'), 'unconfirmed');
  await assert.rejects(signIn('after@a.example', STRANGERS), code('invalid_credentials'));
  await registration.recover('after@a.example', client.address);
  const [recovery] = await world.mailsTo('after@a.example');
  await registration.reset(recovery!.token!, OTHER, client.address);
  await assert.rejects(registration.confirm(late!.token!, STRANGERS, client.address), code('not_found'), 'older links are void');
  await assert.rejects(signIn('after@a.example', STRANGERS), code('invalid_credentials'));
  await signIn('after@a.example', OTHER);

  // A new mail after a while, which voids the older one.
  await stranger('twice@a.example');
  const [first] = await world.mailsTo('twice@a.example');
  world.clock.advance(MAIL_INTERVAL_MS);
  await register('twice@a.example', OTHER);
  const [second] = await world.mailsTo('twice@a.example');
  await assert.rejects(registration.confirm(first!.token!, OTHER, client.address), code('not_found'), 'a new one voids the older');
  await registration.confirm(second!.token!, OTHER, client.address);
  await signIn('twice@a.example', OTHER);
});

test('an address that is registered again while it is confirmed is not confirmed for both', async () => {
  await register('between@a.example');
  const [link] = await world.mailsTo('between@a.example');
  const { passwords, registration } = world.access;
  const verify = passwords.verify.bind(passwords);
  passwords.verify = async (...given) => {
    passwords.verify = verify;
    const verified = await verify(...given);
    await register('between@a.example', OTHER);
    return verified;
  };
  await assert.rejects(registration.confirm(link!.token!, PASSWORD, client.address), code('invalid_credentials'));
  assert.equal(await world.state('between@a.example'), 'unconfirmed');
  await registration.confirm(link!.token!, OTHER, client.address);
});

test('a link that is wrong costs no hash when an address is confirmed', async () => {
  const before = world.access.passwords.worked;
  for (const wrong of ['', 'x', 'A'.repeat(43)])
    await assert.rejects(world.access.registration.confirm(wrong, PASSWORD, client.address), code('not_found'));
  assert.equal(world.access.passwords.worked, before);
});

/** Everything that opens an account beside its password; resolves to the API keys. */
async function moreWaysIn(id: string): Promise<string[]> {
  const { apiKeys } = world.access;
  const key = () => apiKeys.create(id, { name: 'k', scopes: ['links'], expiresAtMs: undefined, secondFactor: false });
  const secrets = [(await key()).secret, (await key()).secret];
  await world.database.query(`update accounts set sealed_totp = '\\x00', totp_confirmed_at = now() where id = $1`, [id]);
  await world.database.query(`insert into recovery_codes (account_id, code_hash) values ($1, '\\x00')`, [id]);
  await world.database.query(
    `insert into passkeys (id, account_id, name, public_key, counter) values (decode(replace($1::text, '-', ''), 'hex'), $1::uuid, 'x', '\\x00', 0)`,
    [id],
  );
  for (const secret of secrets) await apiKeys.verify(secret);
  return secrets;
}
async function recovered(email: string): Promise<string> {
  const { registration } = world.access;
  await registration.recover(email, client.address);
  await registration.reset((await world.mailsTo(email)).at(-1)!.token!, OTHER, client.address);
  return (await world.mailsTo(email)).at(-1)!.text.replaceAll(/\s+/g, ' ');
}

test('what was put into an account before its address was proven opens it no more', async () => {
  await register('unproven@a.example');
  const { id } = (await world.access.accounts.byEmail('unproven@a.example'))!;
  const secrets = await moreWaysIn(id);
  await recovered('unproven@a.example');
  for (const secret of secrets) await assert.rejects(world.access.apiKeys.verify(secret), code('unauthorized'));
  assert.deepEqual(await world.access.twoFactor.status(id), { totp: false, recoveryCodesLeft: 0 });
  assert.equal(await world.access.passkeys.count(id), 0);
  await signIn('unproven@a.example', OTHER);
});

test('what stays when a password is recovered or changed is named in the mail about it', async () => {
  const id = await world.account('stays@a.example');
  assert.doesNotMatch(await recovered('stays@a.example'), /API key|passkey|authenticator/);
  const secrets = await moreWaysIn(id);
  world.clock.advance(MAIL_INTERVAL_MS);
  const named = /2 API keys, 1 passkey, the authenticator app with its recovery codes\. Delete there what is not yours: https:/;
  assert.match(await recovered('stays@a.example'), named);
  await world.access.accounts.changePassword(id, OTHER, PASSWORD, undefined);
  assert.match((await world.mailsTo('stays@a.example')).at(-1)!.text.replaceAll(/\s+/g, ' '), named);
  for (const secret of secrets) await world.access.apiKeys.verify(secret);
  assert.equal((await world.access.twoFactor.status(id)).totp, true);
  assert.equal(await world.access.passkeys.count(id), 1);
});

test('API keys that were just used follow a ban, another role and the end of their account at once', async () => {
  const id = await world.account('keys@a.example', 'broadcaster');
  const { accounts, apiKeys } = world.access;
  const { secret } = await apiKeys.create(id, { name: 'k', scopes: ['links'], expiresAtMs: undefined, secondFactor: false });
  await apiKeys.verify(secret);
  await accounts.ban(principal('admin'), id, undefined);
  await assert.rejects(apiKeys.verify(secret), code('unauthorized'));
  await accounts.unban(principal('admin'), id);
  assert.equal((await apiKeys.verify(secret))!.role, 'broadcaster');
  await accounts.setRole(id, 'listener');
  assert.equal((await apiKeys.verify(secret))!.role, 'listener');
  await accounts.delete(id, false);
  await assert.rejects(apiKeys.verify(secret), code('unauthorized'));
});

test('who is not there, and who has another password, are refused with the same answer and the same work', async () => {
  await world.account('there@a.example');
  const tried = async (email: string) => {
    const before = world.access.passwords.worked;
    const error = await signIn(email, 'wrong password').catch((failure: VezaError) => failure);
    assert.ok(error instanceof VezaError);
    return { work: world.access.passwords.worked - before, code: error.code, message: error.message, details: error.details };
  };
  const there = await tried('there@a.example');
  assert.deepEqual([there.work, there.code], [1, 'invalid_credentials']);
  await world.access.registration.invite({ email: 'invited@a.example', name: 'x', role: 'listener' });
  for (const email of ['nobody@a.example', 'not an address', 'invited@a.example', '\0', '@'.repeat(254)])
    assert.deepEqual(await tried(email), there, email);
});

test('a ban is told, with its reason, to whoever has the password, and to nobody else', async () => {
  const id = await world.account('banned@a.example');
  const { tokens } = await signIn('banned@a.example');
  await world.access.registration.recover('banned@a.example', client.address);
  const [recovery] = await world.mailsTo('banned@a.example');
  await world.access.accounts.ban(principal('moderator'), id, 'spam');
  assert.equal(await isGood(tokens.accessToken), false, 'its sessions end');
  await assert.rejects(signIn('banned@a.example'), code('forbidden', /spam/));
  await assert.rejects(signIn('banned@a.example', OTHER), code('invalid_credentials'));
  await assert.rejects(world.access.registration.reset(recovery!.token!, OTHER, client.address), code('not_found'), 'and its links');
  await world.access.registration.recover('banned@a.example', client.address);
  await register('banned@a.example', OTHER);
  assert.deepEqual(await world.mailsTo('banned@a.example'), []);
  await world.access.accounts.unban(principal('moderator'), id);
  await signIn('banned@a.example');
  for (const reason of ['x'.repeat(501), 'a\nb', 'a\0b']) {
    await assert.rejects(world.access.accounts.ban(principal('admin'), id, reason), code('bad_request'));
  }
});

test('nobody bans his equal', async () => {
  const moderator = await world.account('moderator@a.example', 'moderator');
  await assert.rejects(world.access.accounts.ban(principal('moderator'), moderator, undefined), code('forbidden'));
  await assert.rejects(world.access.accounts.ban(principal('broadcaster'), moderator, undefined), code('forbidden'));
  await assert.rejects(world.access.accounts.ban(ANONYMOUS, moderator, undefined), code('forbidden'));
  assert.equal((await world.access.accounts.ban(principal('admin'), moderator, undefined)).state, 'banned');
  await assert.rejects(world.access.accounts.unban(principal('moderator'), moderator), code('forbidden'));
  await world.access.accounts.unban(principal('admin'), moderator);
  await assert.rejects(world.access.accounts.ban(principal('admin'), '00000000-0000-4000-8000-000000000000', undefined), code('not_found'));
});

test('a lost password: one mail, one link, once; all sessions end', async () => {
  await world.account('lost@a.example');
  const { tokens } = await signIn('lost@a.example');
  await world.access.registration.recover('LOST@a.example', client.address);
  await world.access.registration.recover('lost@a.example', client.address);
  await world.access.registration.recover('nobody@a.example', client.address);
  await world.access.registration.recover('not an address', client.address);
  const [mail, ...more] = await world.mailsTo('lost@a.example');
  assert.deepEqual([mail!.subject, more.length], ['Choose a new password', 0], 'nobody can fill a mailbox');
  assert.deepEqual([...(await world.mailsTo('nobody@a.example')), ...(await world.mailsTo('not an address'))], []);

  const { registration } = world.access;
  await assert.rejects(registration.confirm(mail!.token!, PASSWORD, client.address), code('not_found'), 'it is for something else');
  await assert.rejects(registration.reset(mail!.token!, 'password', client.address), code('bad_request'), 'and stays good');
  await assert.rejects(registration.reset(mail!.token!, 'lost@a.example', client.address), code('bad_request'));
  const before = world.access.passwords.worked;
  for (const wrong of ['', 'x', `${mail!.token!}x`, mail!.token!.toUpperCase()]) {
    await assert.rejects(registration.reset(wrong, OTHER, client.address), code('not_found'));
  }
  assert.equal(world.access.passwords.worked, before, 'a token that is wrong costs no hash');
  await registration.reset(mail!.token!, OTHER, client.address);
  await assert.rejects(registration.reset(mail!.token!, PASSWORD, client.address), code('not_found'), 'once');
  assert.equal(await isGood(tokens.accessToken), false);
  await assert.rejects(world.access.sessions.refresh(tokens.refreshToken, client), code('unauthorized'));
  await assert.rejects(signIn('lost@a.example'), code('invalid_credentials'));
  await signIn('lost@a.example', OTHER);
  assert.deepEqual(
    (await world.mailsTo('lost@a.example')).map(({ subject }) => subject),
    ['Your password was changed'],
  );
});

test('two who come with one link at once: one is too late', async () => {
  await world.account('race@a.example');
  await world.access.registration.recover('race@a.example', client.address);
  const [mail] = await world.mailsTo('race@a.example');
  const both = await Promise.allSettled(
    [PASSWORD, OTHER].map((password) => world.access.registration.reset(mail!.token!, password, client.address)),
  );
  assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

test('a link ends, and a newer one voids it', async () => {
  await world.account('late@a.example');
  const { registration } = world.access;
  const next = async () => {
    await registration.recover('late@a.example', client.address);
    return (await world.mailsTo('late@a.example'))[0]!.token!;
  };
  const first = await next();
  world.clock.advance(HOUR_MS);
  await assert.rejects(registration.reset(first, OTHER, client.address), code('not_found'), 'an hour is over');
  const second = await next();
  world.clock.advance(MAIL_INTERVAL_MS);
  const third = await next();
  await assert.rejects(registration.reset(second, OTHER, client.address), code('not_found'));
  world.clock.advance(HOUR_MS - 1);
  await registration.reset(third, OTHER, client.address);
});

test('the right password that was typed before it was changed opens nothing after it', async () => {
  const id = await world.account('raced@a.example');
  const { accounts, sessions, registration } = world.access;
  const begin = sessions.begin.bind(sessions);
  // Between the check and the session: somebody recovers the account.
  sessions.begin = async (given) => {
    sessions.begin = begin;
    await registration.recover('raced@a.example', client.address);
    await registration.reset((await world.mailsTo('raced@a.example'))[0]!.token!, OTHER, client.address);
    return begin(given);
  };
  await assert.rejects(signIn('raced@a.example'), code('invalid_credentials'));
  assert.deepEqual(await sessions.list(id), []);
  assert.equal(await accounts.checkPassword(id, OTHER), true);
});

test('a hash of an older cost is made anew when its password comes by', async () => {
  const id = await world.account('older@a.example');
  const kept = async () =>
    (await world.database.query<{ password_hash: string }>('select password_hash from accounts where id = $1', [id])).rows[0]!
      .password_hash;
  const cheap = (await kept()).replace('m=19456,t=2', 'm=8192,t=1');
  await world.database.query('update accounts set password_hash = $2 where id = $1', [id, cheap]);
  await assert.rejects(signIn('older@a.example'), code('invalid_credentials'), 'the digest belongs to its cost');
  assert.equal(await kept(), cheap);
  const { hashSync } = await import('@node-rs/argon2');
  await world.database.query('update accounts set password_hash = $2 where id = $1', [
    id,
    hashSync(PASSWORD, { memoryCost: 8192, timeCost: 1 }),
  ]);
  await signIn('older@a.example');
  assert.match(await kept(), /m=19456,t=2,p=1/);
  await signIn('older@a.example');
});

test('another password ends the other sessions, and wants the old one', async () => {
  const id = await world.account('change@a.example');
  const [here, there] = [await signIn('change@a.example'), await signIn('change@a.example')];
  const { accounts, registration } = world.access;
  await assert.rejects(accounts.changePassword(id, 'wrong', OTHER, here.tokens.sessionId), code('invalid_credentials'));
  await assert.rejects(accounts.changePassword(id, PASSWORD, 'Somebody1', here.tokens.sessionId), code('bad_request'), 'his name');
  await registration.recover('change@a.example', client.address);
  const [mail] = await world.mailsTo('change@a.example');
  await accounts.changePassword(id, PASSWORD, OTHER, here.tokens.sessionId);
  assert.deepEqual([await isGood(here.tokens.accessToken), await isGood(there.tokens.accessToken)], [true, false]);
  await assert.rejects(registration.reset(mail!.token!, PASSWORD, client.address), code('not_found'), 'links that are out are void');
  await signIn('change@a.example', OTHER);
});

test('the second factor is asked for when the password is right, and only then', async () => {
  const id = await world.account('factor@a.example');
  const { twoFactor } = world.access;
  const { isOn, check } = twoFactor;
  const asked: string[] = [];
  twoFactor.isOn = async (accountId) => accountId === id;
  twoFactor.check = async (_, given) => {
    asked.push(given);
    return given === '123456';
  };
  try {
    await assert.rejects(signIn('factor@a.example'), code('second_factor_required'));
    await assert.rejects(signIn('factor@a.example', OTHER, { code: '123456' }), code('invalid_credentials'));
    assert.deepEqual(asked, [], 'a wrong password uses up no code');
    await assert.rejects(signIn('factor@a.example', PASSWORD, { code: '000000' }), code('second_factor_required'));
    const { tokens } = await signIn('factor@a.example', PASSWORD, { code: '123456' });
    assert.equal((await world.access.identity.ofCredential(tokens.accessToken)).secondFactor, true);
  } finally {
    Object.assign(twoFactor, { isOn, check });
  }
});

test('to be asked for the code is no failure; a wrong code is', async () => {
  const email = 'twelve@a.example';
  const id = await world.account(email);
  const { twoFactor, limits } = world.access;
  const { isOn, check } = twoFactor;
  twoFactor.isOn = async (accountId) => accountId === id;
  twoFactor.check = async (_, given) => given === '123456';
  const address = '203.0.113.77';
  const left = async () => (await limits.peek('sign-in-account', [email, address])).remaining;
  const all = await left();
  try {
    for (let i = 0; i < 12; i++) {
      await assert.rejects(signIn(email, PASSWORD, { address }), code('second_factor_required'));
      // The password alone makes no address known.
      if (i === 0) assert.equal((await limits.peek('sign-in-known', [email, address])).remaining, 1);
      await signIn(email, PASSWORD, { address, code: '123456' });
    }
    assert.equal(await left(), all);
    assert.equal((await limits.peek('sign-in-address', address)).remaining, 30);
    await assert.rejects(signIn(email, PASSWORD, { address, code: '000000' }), code('second_factor_required'));
    assert.equal(await left(), all - 1);
  } finally {
    Object.assign(twoFactor, { isOn, check });
  }
});

test('a session of the password alone does not begin when a second factor was just set up', async () => {
  const id = await world.account('set-up@a.example');
  const { sessions } = world.access;
  const begin = sessions.begin.bind(sessions);
  sessions.begin = async (given) => {
    sessions.begin = begin;
    await world.database.query(`update accounts set totp_confirmed_at = now() where id = $1`, [id]);
    return begin(given);
  };
  await assert.rejects(signIn('set-up@a.example'), code('invalid_credentials'));
  assert.deepEqual(await sessions.list(id), []);
});

test('failed sign-ins are in the audit log, without what was typed', async () => {
  const id = await world.account('audited@a.example');
  await signIn('audited@a.example', 'wrong password').catch(() => undefined);
  await signIn('nobody-to-audit@a.example', 'wrong password').catch(() => undefined);
  const [unknown, known] = await world.access.audit.list({ action: 'signInFailed' }, 2);
  assert.deepEqual([known!.target, known!.address, known!.details], [`account:${id}`, client.address, { reason: 'password' }]);
  assert.deepEqual([unknown!.target, unknown!.details], [undefined, { reason: 'unknown' }]);
  assert.doesNotMatch(JSON.stringify([known, unknown]), /wrong password|nobody-to-audit/);
});

test('a role is given, and ends the sessions; the last administrator stays', async () => {
  const { accounts } = world.access;
  const one = await world.account('one@a.example', 'admin');
  for (const refused of [
    accounts.setRole(one, 'listener'),
    accounts.ban({ ...ANONYMOUS, kind: 'admin-token' }, one, undefined),
    accounts.delete(one, false),
  ]) {
    await assert.rejects(refused, code('conflict', /last administrator/));
  }
  const invited = await world.access.registration.invite({ email: 'two@a.example', name: 'Two', role: 'admin' });
  await assert.rejects(accounts.setRole(one, 'listener'), code('conflict'), 'one who cannot sign in yet does not count');
  await accounts.delete(invited.account.id, false);
  // Nor one that waits for the link in its mail, nor one that is banned; the next start does not take it for an administrator either.
  const unconfirmed = await world.account('unconfirmed@a.example', 'admin');
  const banned = await world.account('banned@a.example', 'admin');
  await world.database.query('update accounts set confirmed_at = null where id = $1', [unconfirmed]);
  await world.database.query('update accounts set banned_at = now() where id = $1', [banned]);
  for (const refused of [accounts.setRole(one, 'listener'), accounts.delete(one, false)]) await assert.rejects(refused, code('conflict'));
  await world.database.query(`update accounts set role = 'listener' where id = $1`, [one]);
  assert.ok(await world.access.registration.firstAdmin(), 'nobody is left who can sign in: the start shows a link');
  await world.database.query(`update accounts set role = 'admin' where id = $1`, [one]);
  await world.database.query(`delete from accounts where id = any($1) or email_key = 'admin@localhost'`, [[unconfirmed, banned]]);
  const two = await world.account('two@a.example');
  const { tokens } = await signIn('two@a.example');
  assert.equal((await accounts.setRole(two, 'admin')).role, 'admin');
  assert.equal(await isGood(tokens.accessToken), false);
  const both = await Promise.allSettled([accounts.setRole(one, 'listener'), accounts.setRole(two, 'listener')]);
  assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  await world.database.query(`update accounts set role = 'listener' where id = any($1)`, [[one, two]]);
});

test('deleted with its data; channels only if that is wanted', async () => {
  const { accounts, channels, sessions, registration } = world.access;
  const settings = { title: 'x', visibility: 'public', recording: true } as const;
  const id = await world.account('gone@a.example', 'broadcaster');
  await channels.create('orphan', settings, id);
  const { tokens } = await signIn('gone@a.example');
  await registration.recover('gone@a.example', client.address);
  await world.mailsTo('gone@a.example');
  assert.deepEqual(await accounts.delete(id, false), []);
  assert.equal(await isGood(tokens.accessToken), false, 'a token of somebody who is gone is worth nothing');
  await assert.rejects(sessions.refresh(tokens.refreshToken, client), code('unauthorized'));
  assert.equal((await channels.get('orphan'))!.ownerId, undefined);
  for (const table of ['sessions', 'one_time_links', 'mail_outbox']) {
    assert.equal((await world.database.query(`select 1 from ${table} where account_id = $1`, [id])).rowCount, 0, table);
  }
  assert.deepEqual(
    (await world.mailsTo('gone@a.example')).map(({ subject }) => subject),
    ['Your account is deleted'],
  );
  await assert.rejects(accounts.delete(id, false), code('not_found'));

  const again = await world.account('gone@a.example', 'broadcaster');
  await channels.create('mine', settings, again);
  assert.deepEqual(await accounts.delete(again, true), ['mine']);
  assert.equal(await channels.get('mine'), undefined);
  assert.ok(await channels.get('orphan'));
});

test('an invitation opens an account once, by mail or by hand', async () => {
  const { registration, accounts } = world.access;
  const { account, link } = await registration.invite({ email: 'guest@a.example', name: 'Guest', role: 'broadcaster' });
  assert.deepEqual([account.role, account.state], ['broadcaster', 'invited']);
  await assert.rejects(registration.invite({ email: 'Guest@a.example', name: 'x', role: 'admin' }), code('conflict'));
  const [mail] = await world.mailsTo('guest@a.example');
  assert.equal(link, `https://radio.example/account#token=${mail!.token}&for=invitation`);
  world.clock.advance(MAIL_INTERVAL_MS);
  await register('guest@a.example', OTHER);
  const [second] = await world.mailsTo('guest@a.example');
  assert.equal(second!.subject, 'You are invited', 'whoever registers an invited address does not take it over');
  await assert.rejects(registration.reset(mail!.token!, PASSWORD, client.address), code('not_found'));
  await registration.reset(second!.token!, PASSWORD, client.address);
  assert.equal((await signIn('guest@a.example')).account.role, 'broadcaster');

  const byHand = await registration.link(principal('admin'), account.id);
  assert.match(byHand.link, /for=recovery$/);
  await registration.reset(/token=([\w-]+)/.exec(byHand.link)![1]!, OTHER, client.address);
  const admin = await world.account('boss@a.example', 'admin');
  await assert.rejects(registration.link(principal('admin'), admin), code('forbidden'), 'no administrator takes over another');
  assert.ok(await registration.link({ ...ANONYMOUS, kind: 'admin-token' }, admin));
  await world.database.query('delete from accounts where id = $1', [admin]);
  assert.equal((await accounts.get(account.id))!.state, 'active');
});

test('names and addresses have their limits', async () => {
  for (const name of ['', '  ', 'x'.repeat(65), 'a\nb', 'a\0b', 'a\u202eb', '\ud800', 'a\u2028b']) {
    await assert.rejects(register('named@a.example', PASSWORD, name), code('bad_request'), JSON.stringify(name));
  }
  for (const name of ['x'.repeat(64), '👩‍👩‍👧', 'Zoë', 'אבג']) {
    const id = await world.account(`n${Math.random()}@a.example`);
    await world.access.accounts.rename(id, name);
    assert.equal((await world.access.accounts.get(id))!.name, name.normalize('NFC'));
  }
  await assert.rejects(register('not an address'), code('bad_request'));
  await assert.rejects(register('weak@a.example', 'password1'), code('bad_request'));
  assert.equal(await world.state('weak@a.example'), undefined);
});

test('listed newest first, and found', async () => {
  const { accounts } = world.access;
  await world.database.query('delete from accounts');
  const ids: string[] = [];
  for (const [email, name] of [
    ['a1@b.example', 'Ann'],
    ['a2@b.example', '100%_\\'],
    ['a3@b.example', 'Zoë'],
  ] as const) {
    ids.unshift(await world.account(email));
    await accounts.rename(ids[0]!, name);
  }
  const found = async (query?: string) => (await accounts.list(query, undefined, 10)).map(({ id }) => ids.indexOf(id));
  assert.deepEqual((await found()).sort(), [0, 1, 2]);
  assert.deepEqual(await found('A1@B.example'), [2]);
  assert.deepEqual(await found('ZO'), [0]);
  assert.deepEqual(await found('%'), [1], 'what is a sign for the database is a sign like others here');
  assert.deepEqual(await found('_\\'), [1]);
  assert.deepEqual((await found('b.example')).length, 3);
  const page = await accounts.list(undefined, undefined, 2);
  const rest = await accounts.list(undefined, { createdAtMs: page[1]!.createdAtMs, id: page[1]!.id }, 2);
  assert.equal(new Set([...page, ...rest].map(({ id }) => id)).size, 3);
});

test('without a mail server an account is good at once, and links are in the log', async () => {
  const access = await world.open({ smtpUrl: undefined });
  await access.registration.register({ email: 'dev@a.example', password: PASSWORD, name: 'Dev' }, client.address);
  await signIn('dev@a.example');
  for (let i = 0; i < 2; i++) {
    world.lines.length = 0;
    await access.registration.recover('dev@a.example', client.address);
    await access.registration.idle();
    assert.match(String(world.lines.at(-1)!.fields.link), /#token=[\w-]{43}&for=recovery$/, 'each time, since the one before is not kept');
  }
  const closed = await world.open({ registration: 'closed' });
  await assert.rejects(
    closed.registration.register({ email: 'x@a.example', password: PASSWORD, name: 'x' }, client.address),
    code('forbidden'),
  );
  const station = await world.open({ smtpUrl: undefined, defaultRole: 'broadcaster' });
  await station.registration.register({ email: 'dj@a.example', password: PASSWORD, name: 'DJ' }, client.address);
  assert.equal((await signIn('dj@a.example')).account.role, 'broadcaster');
});

test('where nobody gets a mail, what strangers ask for voids no link that was handed over', async () => {
  const { registration } = await world.open({ smtpUrl: undefined, environment: 'production' });
  const by = { kind: 'admin-token', id: 'admin-token', name: '', role: 'admin', secondFactor: true } as const;
  const { account, link: invitation } = await registration.invite({ email: 'handed@a.example', name: 'Handed', role: 'broadcaster' });
  const ask = async () => {
    await registration.recover('handed@a.example', '198.51.100.7');
    await registration.idle();
    await registration.register({ email: 'handed@a.example', password: PASSWORD, name: 'Stranger' }, '198.51.100.7');
  };
  const tokenOf = (link: string) => /token=([\w-]+)/.exec(link)![1]!;
  await ask();
  await registration.reset(tokenOf(invitation), PASSWORD, client.address);
  const { link: recovery } = await registration.link(by, account.id);
  await ask();
  await registration.reset(tokenOf(recovery), OTHER, client.address);
});

test('the first start makes an administrator, and each shows a link until one is used', async () => {
  await world.database.query('delete from accounts');
  const { registration } = world.access;
  const first = (await registration.firstAdmin())!;
  assert.equal(first.email, 'admin@localhost');
  const other = await world.open({ adminEmail: 'Boss@Radio.example' });
  const second = (await registration.firstAdmin())!;
  assert.notEqual(first.link, second.link);
  const tokenOf = (link: string) => /token=([\w-]+)&for=invitation$/.exec(link)![1]!;
  await registration.reset(tokenOf(first.link), PASSWORD, client.address);
  await assert.rejects(registration.reset(tokenOf(second.link), OTHER, client.address), code('not_found'), 'one is enough');
  assert.equal((await signIn('admin@localhost')).account.role, 'admin');
  assert.equal(await registration.firstAdmin(), undefined);
  assert.equal(await other.registration.firstAdmin(), undefined);

  await world.database.query('delete from accounts');
  assert.equal((await other.registration.firstAdmin())!.email, 'Boss@Radio.example');
  await world.database.query('delete from accounts');
  await world.account('boss@radio.example');
  assert.equal(await other.registration.firstAdmin(), undefined, 'an address that a stranger has registered makes no administrator');
  assert.match(world.lines.at(-1)!.message, /set-role/);
  assert.equal((await world.access.accounts.byEmail('boss@radio.example'))!.role, 'listener');
});

test('addresses that were never confirmed are free again after a week', async () => {
  await register('never@a.example');
  await world.mailsTo('never@a.example');
  const invited = await world.access.registration.invite({ email: 'invited2@a.example', name: 'x', role: 'listener' });
  world.clock.sleep(7 * 24 * HOUR_MS - 1);
  await world.access.registration.clean();
  assert.equal(await world.state('never@a.example'), 'unconfirmed');
  world.clock.sleep(1);
  await world.access.registration.clean();
  assert.equal(await world.state('never@a.example'), undefined);
  assert.equal(await world.state('invited2@a.example'), 'invited');
  assert.equal((await world.database.query('select 1 from one_time_links where account_id = $1', [invited.account.id])).rowCount, 0);
});

test('nobody locks another out: what fails elsewhere does not count where its owner is at home', async () => {
  const limited = { rateLimitPerMinute: undefined };
  await world.account('target@a.example');
  const access = await world.open(limited);
  const from = (one: typeof access, address: string, password = PASSWORD) =>
    one.accounts.signIn({ email: 'Target@a.example', password, client: { ...client, address } }).then(
      () => 'in',
      (error: VezaError) => error.code,
    );
  assert.equal(await from(access, '2001:db8::1'), 'in');
  const attack = async (one: typeof access) => {
    const answers = new Set<string>();
    for (let i = 0; i < 30; i++) answers.add(await from(one, `198.51.100.${i % 4}`, 'wrong password'));
    assert.ok(answers.has('rate_limited'));
  };
  await attack(access);
  assert.equal(await from(access, '2001:db8::2'), 'in', 'from where he was signed in, or next to it');
  const restarted = await world.open(limited);
  await attack(restarted);
  assert.equal(await from(restarted, '2001:db8::3'), 'in', 'also when the process has forgotten what it counted');
  assert.equal(await from(restarted, '198.51.100.99'), 'rate_limited', 'a new address waits with the others');
  world.clock.advance(60_000);
  assert.equal(await from(restarted, '198.51.100.99'), 'in', 'for a minute');
  for (let i = 0; i < 20; i++) await from(restarted, '2001:db8::3', 'wrong password');
  assert.equal(await from(restarted, '2001:db8::3'), 'rate_limited', 'and who tries at home is slowed too');
});
