import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Access } from '../../src/access/access.js';
import { MAIL_INTERVAL_MS } from '../../src/access/accounts/account-links.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type AccountWorld, accountWorld, client, PASSWORD } from './account-world.js';

/** Processes on one PostgreSQL, with connections enough that statements truly run at once. */
let world: AccountWorld;
let processes: Access[];
before(async () => {
  world = await accountWorld({}, 10);
  processes = [world.access, await world.open(), await world.open()];
});
after(async () => {
  await world.stop();
});

/** What came of it: how often each outcome. */
async function outcomes(all: readonly Promise<unknown>[]): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const result of await Promise.allSettled(all)) {
    const { reason } = result as PromiseRejectedResult;
    if (result.status === 'rejected' && !(reason instanceof VezaError)) throw reason;
    const name = result.status === 'fulfilled' ? 'done' : (reason as VezaError).code;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}
const each = (count: number, run: (access: Access, i: number) => Promise<unknown>) =>
  outcomes(Array.from({ length: count }, (_, i) => run(processes[i % processes.length]!, i)));

test('one address registered by many at once: one account, one mail, and its link goes with its password', async () => {
  const passwords = Array.from({ length: 9 }, (_, i) => `three quiet herons ${i}`);
  // The second time it is there, not confirmed, and long enough for another mail.
  for (let round = 0; round < 3; round++) {
    const done = await each(9, ({ registration }, i) =>
      registration.register({ email: 'many@a.example', password: passwords[i]!, name: `n${i}` }, client.address),
    );
    assert.deepEqual(done, { done: 9 });
    const mails = await world.mailsTo('many@a.example');
    assert.equal(mails.length, 1);
    world.clock.sleep(MAIL_INTERVAL_MS);
    if (round < 2) continue;
    const confirmed = await each(9, ({ registration }, i) => registration.confirm(mails[0]!.token!, passwords[i]!, client.address));
    const { done: good, invalid_credentials: otherPassword = 0, not_found: late = 0 } = confirmed;
    assert.deepEqual([good, otherPassword + late], [1, 8], JSON.stringify(confirmed));
    const tried = await each(9, ({ accounts }, i) => accounts.signIn({ email: 'many@a.example', password: passwords[i]!, client }));
    assert.deepEqual(tried, { done: 1, invalid_credentials: 8 });
  }
});

test('a link is good once, whoever comes with it', async () => {
  await world.account('link@a.example');
  const asked = await each(6, ({ registration }) => registration.recover('link@a.example', client.address));
  assert.deepEqual(asked, { done: 6 });
  const mails = await world.mailsTo('link@a.example');
  assert.equal(mails.length, 1, 'six at once are one mail');
  const done = await each(6, ({ registration }, i) =>
    registration.reset(mails[0]!.token!, `another five loud storks ${i}`, client.address),
  );
  assert.deepEqual(done, { done: 1, not_found: 5 });
});

test('of administrators who all give up their role at once, one stays', async () => {
  const ids = await Promise.all(['a', 'b', 'c'].map((name) => world.account(`${name}@admins.example`)));
  for (let round = 0; round < 20; round++) {
    await world.database.query(`update accounts set role = 'admin' where id = any($1)`, [ids]);
    const done = await each(3, ({ accounts }, i) => accounts.setRole(ids[i]!, 'listener'));
    assert.deepEqual(done, { done: 2, conflict: 1 });
    const { rowCount } = await world.database.query(`select id from accounts where role = 'admin'`);
    assert.equal(rowCount, 1);
  }
  await world.database.query(`update accounts set role = 'admin' where id = any($1)`, [ids]);
  assert.deepEqual(await each(3, ({ accounts }, i) => accounts.delete(ids[i]!, false)), { done: 2, conflict: 1 });
});

test('whoever signs in while the account is banned or deleted has no session that is good', async () => {
  for (const how of ['ban', 'delete'] as const) {
    for (let round = 0; round < 5; round++) {
      const email = `${how}${round}@a.example`;
      const id = await world.account(email);
      const [signedIn] = await Promise.allSettled([
        processes[1]!.accounts.signIn({ email, password: PASSWORD, client }),
        how === 'ban'
          ? processes[2]!.accounts.ban({ kind: 'admin-token', id: 'x', name: '', role: 'admin', secondFactor: true }, id, undefined)
          : processes[2]!.accounts.delete(id, false),
      ]);
      if (signedIn.status === 'rejected') {
        assert.ok(signedIn.reason instanceof VezaError, signedIn.reason);
        continue;
      }
      const { refreshToken, sessionId } = signedIn.value.tokens;
      await assert.rejects(processes[0]!.sessions.refresh(refreshToken, client));
      const { rowCount } = await world.database.query('select 1 from ended_sessions where session_id = $1', [sessionId]);
      assert.equal(rowCount, 1, 'and every process hears of it');
    }
  }
});

test('the first start of several processes makes one administrator, and every link is good', async () => {
  await world.database.query('delete from accounts');
  const links = (await Promise.all(processes.map(({ registration }) => registration.firstAdmin()))).map((first) => first!.link);
  assert.equal(new Set(links).size, 3);
  assert.equal((await world.database.query('select 1 from accounts')).rowCount, 1);
  const token = /token=([\w-]+)/.exec(links[0]!)![1]!;
  await world.access.registration.reset(token, PASSWORD, client.address);
  assert.equal((await world.access.accounts.byEmail('admin@localhost'))!.state, 'active');
});

test('a mail that several processes see is sent by one of them', async () => {
  for (let i = 0; i < 20; i++) await world.access.mail.post({ to: `m${i}@a.example`, subject: 'x', text: 'x' }, world.database);
  for (const { mail } of processes) mail.wake();
  await Promise.all(processes.map(({ mail }) => mail.idle()));
  const to = world.smtp.mails.map((mail) => mail.to[0]!).filter((one) => /^m\d+@/.test(one));
  assert.deepEqual([to.length, new Set(to).size], [20, 20]);
});
