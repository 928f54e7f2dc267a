import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { ABSOLUTE_MS, GRACE_MS, IDLE_MS, MAX_SESSIONS } from '../../src/access/tokens/sessions.js';
import { ACCESS_TOKEN_MS } from '../../src/access/tokens/signing-keys.js';
import { VezaError } from '../../src/runtime/errors.js';
import { client, type SessionWorld, sessionProcess, sessionWorld } from './session-world.js';

let world: SessionWorld;
before(async () => {
  world = await sessionWorld();
});
after(() => world.stop());

const DAY_MS = 24 * 3_600_000;
const code = (wanted: string) => (error: unknown) => error instanceof VezaError && error.code === wanted;
const unauthorized = code('unauthorized');
const begin = async (accountId: string, amr = ['pwd']) => world.sessions.begin({ accountId, amr, client });

test('a session from its sign-in to its end', async () => {
  const accountId = await world.account('broadcaster', 'Ada Lovelace');
  const begun = await begin(accountId);
  assert.match(begun.refreshToken, /^vzr_[\w-]{43}$/);
  assert.equal(begun.expiresIn, 900);
  const principal = await world.tokens.verify(begun.accessToken);
  assert.deepEqual(principal, {
    kind: 'account',
    id: `account:${accountId}`,
    name: 'Ada Lovelace',
    role: 'broadcaster',
    accountId,
    sessionId: begun.sessionId,
    signedBy: decodeProtectedHeader(begun.accessToken).kid,
    expiresAtMs: world.clock.wallMs() + ACCESS_TOKEN_MS,
    secondFactor: false,
  });
  const claims = decodeJwt(begun.accessToken);
  assert.deepEqual(claims, {
    iss: 'https://radio.example',
    aud: 'veza',
    sub: accountId,
    sid: begun.sessionId,
    role: 'broadcaster',
    name: 'Ada Lovelace',
    amr: ['pwd'],
    iat: world.clock.wallMs() / 1000,
    exp: world.clock.wallMs() / 1000 + 900,
  });

  world.clock.advance(ACCESS_TOKEN_MS);
  await assert.rejects(world.tokens.verify(begun.accessToken), unauthorized, 'expired');
  const next = await world.sessions.refresh(begun.refreshToken, { address: '192.0.2.9', userAgent: 'Other/2' });
  assert.equal(next.sessionId, begun.sessionId);
  assert.notEqual(next.refreshToken, begun.refreshToken);
  assert.equal((await world.tokens.verify(next.accessToken)).accountId, accountId);
  const [listed] = await world.sessions.list(accountId);
  assert.deepEqual(listed, {
    id: begun.sessionId,
    client: 'Other/2',
    address: '192.0.2.9',
    amr: ['pwd'],
    createdAtMs: world.clock.wallMs() - ACCESS_TOKEN_MS,
    lastUsedAtMs: world.clock.wallMs(),
    expiresAtMs: world.clock.wallMs() + IDLE_MS,
  });

  assert.equal(await world.sessions.end(begun.sessionId, randomUUID()), false, 'somebody else’s is none');
  assert.equal(await world.sessions.end(begun.sessionId, accountId), true);
  assert.equal(await world.sessions.end(begun.sessionId), false);
  await assert.rejects(world.tokens.verify(next.accessToken), unauthorized, 'at once, though it is not expired');
  await assert.rejects(world.sessions.refresh(next.refreshToken), unauthorized);
  assert.deepEqual(await world.sessions.list(accountId), []);
});

test('no token is in the database as it is', async () => {
  const { refreshToken } = await begin(await world.account());
  const { refreshToken: next } = await world.sessions.refresh(refreshToken);
  const { rows } = await world.database.query('select refresh_tokens::text as row from refresh_tokens');
  for (const token of [refreshToken, next]) {
    for (const { row } of rows) {
      assert.ok(!String(row).includes(token));
      assert.ok(!String(row).includes(Buffer.from(token).toString('hex')));
    }
  }
});

test('a token that was just replaced gives the same successor for ten seconds', async () => {
  const { refreshToken: first } = await begin(await world.account());
  const { refreshToken: second, sessionId } = await world.sessions.refresh(first);
  world.clock.advance(GRACE_MS - 1);
  const again = await world.sessions.refresh(first);
  assert.equal(again.refreshToken, second);
  assert.equal((await world.tokens.verify(again.accessToken)).sessionId, sessionId);
  const { refreshToken: third } = await world.sessions.refresh(second);
  assert.notEqual(third, second);
  await world.sessions.refresh(third);
});

test('a token that is used again after that ends the family, and the audit log has it', async () => {
  const accountId = await world.account();
  const { refreshToken: first, sessionId } = await begin(accountId);
  const other = await begin(accountId);
  const { refreshToken: second, accessToken } = await world.sessions.refresh(first);
  world.clock.advance(GRACE_MS);
  await assert.rejects(world.sessions.refresh(first, client), unauthorized);
  await assert.rejects(world.sessions.refresh(second), unauthorized, 'whoever has the newest is out too');
  await assert.rejects(world.tokens.verify(accessToken), unauthorized);
  await world.sessions.refresh(other.refreshToken);
  const entries = await world.audit.list({ action: 'refreshTokenReused', target: `account:${accountId}` }, 10);
  assert.equal(entries.length, 1);
  assert.equal(entries[0]!.address, client.address);
  assert.deepEqual(entries[0]!.details, { sessionId });
});

test('an old token ends the family however many came after it, also when the cleaning has been', async () => {
  const { refreshToken: first } = await begin(await world.account());
  let { refreshToken } = await world.sessions.refresh(first);
  for (let i = 0; i < 5; i++) {
    world.clock.advance(5 * DAY_MS);
    await world.sessions.clean();
    ({ refreshToken } = await world.sessions.refresh(refreshToken));
  }
  await assert.rejects(world.sessions.refresh(first), unauthorized);
  await assert.rejects(world.sessions.refresh(refreshToken), unauthorized);
});

test('tabs that refresh at the same moment get the same successor', async () => {
  const { refreshToken } = await begin(await world.account());
  const tabs = await Promise.all(Array.from({ length: 10 }, () => world.sessions.refresh(refreshToken)));
  assert.equal(new Set(tabs.map((tab) => tab.refreshToken)).size, 1);
  await world.sessions.refresh(tabs[0]!.refreshToken);
});

test('and so they do in different processes on a database server', async () => {
  const one = await sessionWorld(8);
  const two = await sessionProcess(one.database, one.clock);
  try {
    for (let round = 0; round < 10; round++) {
      const accountId = await one.account();
      const { refreshToken, sessionId } = await one.sessions.begin({ accountId, amr: ['pwd'], client });
      const tabs = await Promise.all(Array.from({ length: 8 }, (_, index) => (index % 2 ? one : two).sessions.refresh(refreshToken)));
      assert.equal(new Set(tabs.map((tab) => tab.refreshToken)).size, 1);
      const { rows } = await one.database.query('select 1 from refresh_tokens where session_id = $1', [sessionId]);
      assert.equal(rows.length, 2, 'one successor, not one for each');

      // Refreshing, ending, cleaning and banning at once: none waits for another for ever.
      const { refreshToken: next } = await one.sessions.refresh(tabs[0]!.refreshToken);
      one.clock.advance(GRACE_MS);
      const settled = await Promise.allSettled([
        one.sessions.refresh(next),
        two.sessions.refresh(refreshToken),
        one.sessions.clean(),
        two.sessions.clean(),
        one.database.transaction(async (connection) => {
          await connection.query('update accounts set banned_at = now() where id = $1', [accountId]);
          await two.sessions.endAll(accountId, { connection });
        }),
        two.sessions.begin({ accountId, amr: ['pwd'], client }),
      ]);
      for (const result of settled) {
        if (result.status === 'rejected') assert.ok(unauthorized(result.reason), String(result.reason));
      }
      const { rows: left } = await one.database.query('select 1 from sessions where account_id = $1 and ended_at is null', [accountId]);
      assert.equal(left.length, 0, 'who is banned has no session, whatever came first');
    }
  } finally {
    await two.stop();
    await one.stop();
  }
});

test('a session ends after 30 days without a refresh, and 90 days after it was begun', async () => {
  const accountId = await world.account();
  const idle = await begin(accountId);
  world.clock.advance(IDLE_MS - 1);
  const { refreshToken } = await world.sessions.refresh(idle.refreshToken);
  world.clock.advance(IDLE_MS);
  await assert.rejects(world.sessions.refresh(refreshToken), unauthorized);
  assert.deepEqual(await world.sessions.list(accountId), []);

  const begunMs = world.clock.wallMs();
  let token = (await begin(accountId)).refreshToken;
  while (world.clock.wallMs() + 20 * DAY_MS < begunMs + ABSOLUTE_MS) {
    world.clock.advance(20 * DAY_MS);
    token = (await world.sessions.refresh(token)).refreshToken;
  }
  world.clock.advance(begunMs + ABSOLUTE_MS - world.clock.wallMs() - 1);
  token = (await world.sessions.refresh(token)).refreshToken;
  world.clock.advance(1);
  await assert.rejects(world.sessions.refresh(token), unauthorized);
});

test('name, role and ban are read at every refresh', async () => {
  const accountId = await world.account('broadcaster', 'Before');
  const begun = await begin(accountId);
  await world.database.query(`update accounts set role = 'listener', name = 'After' where id = $1`, [accountId]);
  const next = await world.sessions.refresh(begun.refreshToken);
  const { role, name } = await world.tokens.verify(next.accessToken);
  assert.deepEqual({ role, name }, { role: 'listener', name: 'After' });
  await world.database.query('update accounts set banned_at = now() where id = $1', [accountId]);
  await assert.rejects(world.sessions.refresh(next.refreshToken), unauthorized);
  await assert.rejects(world.sessions.upgrade(begun.sessionId, ['otp']), unauthorized);
  await assert.rejects(begin(accountId), unauthorized);
  await assert.rejects(begin(randomUUID()), unauthorized);
});

test('a second factor counts for the session from when it was shown', async () => {
  const begun = await begin(await world.account('admin'));
  assert.equal((await world.tokens.verify(begun.accessToken)).secondFactor, false);
  const upgraded = await world.sessions.upgrade(begun.sessionId, ['otp']);
  assert.equal((await world.tokens.verify(upgraded.accessToken)).secondFactor, true);
  const { accessToken } = await world.sessions.refresh(begun.refreshToken);
  assert.equal((await world.tokens.verify(accessToken)).secondFactor, true);
  await world.sessions.end(begun.sessionId);
  await assert.rejects(world.sessions.upgrade(begun.sessionId, ['otp']), unauthorized);
});

test('all sessions of an account end, but for the one that asks, in every process', async () => {
  const accountId = await world.account();
  const [here, there, elsewhere] = [await begin(accountId), await begin(accountId), await begin(accountId)];
  const stranger = await begin(await world.account());
  const other = await sessionProcess(world.database, world.clock);
  await other.ended.start();
  assert.equal((await other.tokens.verify(there.accessToken)).sessionId, there.sessionId, 'verified, and remembered as such');
  assert.equal(await world.sessions.endAll(accountId, { except: here.sessionId }), 2);
  for (const over of [there, elsewhere]) await assert.rejects(world.tokens.verify(over.accessToken), unauthorized);
  await world.tokens.verify(here.accessToken);
  await world.tokens.verify(stranger.accessToken);

  world.clock.advance(2000);
  // There is one connection: what the timer asked is answered before this is.
  await world.database.query('select 1');
  await assert.rejects(other.tokens.verify(there.accessToken), unauthorized, 'two seconds later also there');
  await other.tokens.verify(here.accessToken);
  const late = await sessionProcess(world.database, world.clock);
  await assert.rejects(late.tokens.verify(there.accessToken), unauthorized, 'and in one that began after');
  assert.equal(await world.sessions.endAll(accountId), 1);
  await other.stop();
  await late.stop();
});

test('sessions of an account that is deleted are over too, though their rows are gone', async () => {
  const accountId = await world.account();
  const begun = await begin(accountId);
  const other = await sessionProcess(world.database, world.clock);
  await world.sessions.endAll(accountId);
  await world.database.query('delete from accounts where id = $1', [accountId]);
  await other.ended.poll();
  for (const process of [world, other]) await assert.rejects(process.tokens.verify(begun.accessToken), unauthorized);
  await assert.rejects(world.sessions.refresh(begun.refreshToken), unauthorized);
  await other.stop();
});

test('sessions that were ended in a transaction that failed go on with the next refresh', async () => {
  const accountId = await world.account();
  const begun = await begin(accountId);
  const failed = world.database.transaction(async (connection) => {
    await world.sessions.endAll(accountId, { connection });
    throw new Error('on purpose');
  });
  await assert.rejects(failed, /on purpose/);
  await assert.rejects(world.tokens.verify(begun.accessToken), unauthorized, 'to be safe');
  await world.tokens.verify((await world.sessions.refresh(begun.refreshToken)).accessToken);
});

test('what ended is remembered as long as a token of it could be good, and no longer', async () => {
  const { sessionId, accessToken } = await begin(await world.account());
  const other = await begin(await world.account());
  await world.sessions.end(sessionId);
  world.clock.advance(ACCESS_TOKEN_MS - 2000);
  await world.ended.poll();
  await world.sessions.clean();
  await world.tokens.verify(other.accessToken);
  await assert.rejects(world.tokens.verify(accessToken), unauthorized);
  world.clock.advance(2 * 60_000);
  await world.ended.poll();
  await world.sessions.clean();
  assert.equal(world.ended.size, 0);
  assert.equal((await world.database.query('select 1 from ended_sessions')).rows.length, 0);
});

test('an account has a hundred sessions at most; the one used least lately gives way', async () => {
  const accountId = await world.account();
  const first = await begin(accountId);
  for (let i = 1; i < MAX_SESSIONS; i++) {
    world.clock.advance(1);
    await begin(accountId);
  }
  await world.sessions.refresh((await begin(accountId)).refreshToken);
  await assert.rejects(world.tokens.verify(first.accessToken), unauthorized);
  assert.equal((await world.sessions.list(accountId)).length, MAX_SESSIONS);
});

test('successors are not kept longer than they are given, and what is over is deleted', async () => {
  const accountId = await world.account();
  const { refreshToken, sessionId } = await begin(accountId);
  await world.sessions.refresh(refreshToken);
  const sealed = async () => (await world.database.query('select 1 from refresh_tokens where sealed_successor is not null')).rows.length;
  assert.ok((await sealed()) > 0);
  world.clock.advance(GRACE_MS);
  await world.sessions.clean();
  assert.equal(await sealed(), 0);
  const kept = async () => (await world.database.query('select 1 from sessions where id = $1', [sessionId])).rows.length;
  world.clock.advance(IDLE_MS + DAY_MS - GRACE_MS - 1);
  await world.sessions.clean();
  assert.equal(await kept(), 1);
  world.clock.advance(1);
  await world.sessions.clean();
  assert.equal(await kept(), 0);
});

test('one cleaning takes all that is over, however much it is', async () => {
  const { sessionId } = await begin(await world.account());
  const long = new Date(world.clock.wallMs() - 2 * IDLE_MS);
  await world.database.query(
    `insert into refresh_tokens (token_hash, session_id, created_at, replaced_at)
     select decode(md5(n::text), 'hex'), $1, $2, $2 from generate_series(1, 2500) n`,
    [sessionId, long],
  );
  await world.sessions.clean();
  const { rows } = await world.database.query('select 1 from refresh_tokens where replaced_at = $1', [long]);
  assert.equal(rows.length, 0);
});

test('what is no refresh token is refused without a query', async () => {
  const { accessToken } = await begin(await world.account());
  for (const token of [
    '',
    'vzr_',
    accessToken,
    `vzr_${'x'.repeat(44)}`,
    `vzr_${'é'.repeat(43)}`,
    "vzr_' or 1=1 --",
    'x'.repeat(1e6),
    'vza_key',
  ])
    await assert.rejects(world.sessions.refresh(token), unauthorized);
  await assert.rejects(world.sessions.refresh(`vzr_${'x'.repeat(43)}`), unauthorized);
});

test('a user agent is text, whatever was sent', async () => {
  const accountId = await world.account();
  await world.sessions.begin({ accountId, amr: ['pwd'], client: { userAgent: `a\0b\n${'x'.repeat(1000)}`, address: '::1' } });
  const [session] = await world.sessions.list(accountId);
  assert.match(session!.client, /^a b x+$/);
  assert.equal(session!.client.length, 300);
});
