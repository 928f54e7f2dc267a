import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { type Database, openDatabase } from '../../src/backing/database/database.js';
import type { Moderator } from '../../src/chat/moderation/acts.js';
import { ModerationService } from '../../src/chat/moderation/service.js';
import { type ChatChange, ControlRoom } from '../../src/chat/protocol/control.js';
import type { RoomInfo } from '../../src/chat/rooms/room.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';

/** Several processes at once on a PostgreSQL that several sessions use at a time. */
let postgres: TestDatabase;
const databases: Database[] = [];
let room: RoomInfo;
const moderator: Moderator = { id: 'mod', name: 'Mod', role: 'moderator', actor: 'account:mod' };

before(async () => {
  postgres = await createTestDatabase();
  for (let n = 0; n < 3; n++)
    databases.push(await openDatabase({ url: postgres.url, dataDir: '/nowhere', poolSize: 8, timeoutMs: 20_000, log: silentLog }));
  const channelId = randomUUID();
  await databases[0]!.query(`insert into channels (id, slug, title, visibility, stream_key_hash) values ($1, 'radio', 'x', 'public', $2)`, [
    channelId,
    randomBytes(32),
  ]);
  const { rows } = await databases[0]!.query<{ id: string }>('select id from rooms where channel_id = $1', [channelId]);
  room = { id: rows[0]!.id, slug: 'radio', channelId, visibility: 'public', settings: {} };
});
after(async () => {
  for (const database of databases) await database.stop();
  await postgres?.drop();
});

function deskOf(database: Database): ModerationService {
  return new ModerationService({
    database,
    clock: new SystemClock(),
    log: silentLog,
    addressKey: Buffer.alloc(32),
    people: { find: async (id) => ({ name: id, role: 'viewer' }), names: async () => new Map() },
    audit: { record: async () => undefined },
    withRoom: (_roomId, work) =>
      work({
        appendEntry: async () => ({ epoch: 1, offset: 1 }),
        eraseMessages: async () => undefined,
        publishHeld: async () => ({ epoch: 1, offset: 1 }),
        recentMessage: () => undefined,
        untilStored: async () => undefined,
        barUser: async () => undefined,
      }),
  });
}

test('what many decide at once in several processes is told to each of them, in one order, and nothing of it is missed', async () => {
  const [one, two, three] = databases as [Database, Database, Database];
  const clock = new FakeClock();
  const followers = [one, two, three].map((database) => {
    const control = new ControlRoom({ database, clock, log: silentLog });
    const changes: ChatChange[] = [];
    let lost = 0;
    control.follow({
      onChanges: (more) => changes.push(...more),
      onLost: () => {
        lost++;
      },
    });
    return { control, changes, lost: () => lost };
  });
  for (const { control } of followers) await control.start();
  const desks = [deskOf(one), deskOf(two)];
  const accounts = Array.from({ length: 20 }, () => randomUUID());
  for (const id of accounts)
    await one.query('insert into accounts (id, email, email_key, name) values ($1, $2, $2, $2)', [id, `${id}@x.example`]);

  let isDone = false;
  const looking = (async () => {
    // They look while it is being written: a version that is committed after a higher one would never be seen.
    while (!isDone) await Promise.all(followers.map(({ control }) => control.readChanges()));
  })();
  await Promise.all([
    ...Array.from({ length: 60 }, (_, n) => desks[n % 2]!.moderate(room, moderator, { action: 'ban', user: `user-${n}` })),
    ...Array.from({ length: 30 }, (_, n) => desks[n % 2]!.moderate(room, moderator, { action: 'slow', seconds: n })),
    ...accounts.flatMap((id, n) => [
      // In the order in which an account is banned, and in the other.
      one.transaction(async (connection) => {
        await connection.query('update accounts set banned_at = now() where id = $1', [id]);
        await connection.query('insert into ended_sessions (session_id) values ($1)', [randomUUID()]);
      }),
      two.transaction(async (connection) => {
        await connection.query('insert into ended_sessions (session_id) values ($1)', [randomUUID()]);
        await connection.query('update accounts set role = $2 where id = $1', [accounts[(n + 1) % accounts.length], 'moderator']);
      }),
    ]),
  ]);
  isDone = true;
  await looking;
  await Promise.all(followers.map(({ control }) => control.readChanges()));
  const { rows } = await one.query<{ n: number }>('select count(*)::int as n from chat_changes');
  const [first, ...others] = followers;
  assert.equal(first!.changes.length, rows[0]!.n);
  assert.equal(first!.changes.filter(({ kind }) => kind === 'sanction').length, 60);
  assert.equal(first!.changes.filter(({ kind }) => kind === 'account').length, 40);
  assert.equal(first!.changes.filter(({ kind }) => kind === 'session').length, 40);
  for (const { changes } of others) assert.deepEqual(changes, first!.changes);
  assert.deepEqual(
    followers.map(({ lost }) => lost()),
    [0, 0, 0],
  );
  for (const { control } of followers) await control.stop();
  for (const desk of desks) await desk.stop();
});

/** A transaction that a test steps through. */
function stepped(database: Database) {
  let commit = () => {};
  let connection: Parameters<Parameters<Database['transaction']>[0]>[0] | undefined;
  const ended = new Promise<void>((resolve) => {
    commit = resolve;
  });
  let begun = () => {};
  const ready = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const done = database.transaction(async (given) => {
    connection = given;
    begun();
    await ended;
  });
  done.catch(() => undefined);
  return {
    query: async (sql: string, values: readonly unknown[] = []) => {
      await ready;
      return connection!.query(sql, values);
    },
    async commit() {
      commit();
      await done;
    },
  };
}

/** Resolves when somebody waits for a lock, or `other` has ended without one. */
async function waitsForLock(database: Database, other: Promise<unknown>): Promise<void> {
  let hasEnded = false;
  const ended = () => {
    hasEnded = true;
  };
  other.then(ended, ended);
  while (!hasEnded) {
    const { rows } = await database.query(`select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`);
    if (rows.length > 0) return;
  }
}

const SESSION = 'insert into ended_sessions (session_id) values ($1)';

test('who has a version and has not committed is waited for: no version comes after a higher one', async () => {
  const [one, two] = databases as [Database, Database];
  const control = new ControlRoom({ database: one, clock: new FakeClock(), log: silentLog });
  const seen: (string | undefined)[] = [];
  control.follow({ onChanges: (more) => seen.push(...more.map(({ sessionId }) => sessionId)), onLost: () => undefined });
  await control.start();
  const [first, second] = [randomUUID(), randomUUID()];
  const slow = stepped(one);
  await slow.query(SESSION, [first]);
  await slow.query('set constraints all immediate');
  const fast = two.query(SESSION, [second]);
  await waitsForLock(one, fast);
  await control.readChanges();
  await slow.commit();
  await fast;
  await control.readChanges();
  assert.deepEqual(seen, [first, second]);
  await control.stop();
});

test('the journal is written last, so that two who change the same in another order do not wait for each other', async () => {
  const [one, two] = databases as [Database, Database];
  const account = randomUUID();
  await one.query('insert into accounts (id, email, email_key, name) values ($1, $2, $2, $2)', [account, `${account}@x.example`]);
  const a = stepped(one);
  const b = stepped(two);
  await a.query(`update accounts set password_hash = 'x' where id = $1`, [account]);
  await b.query(SESSION, [randomUUID()]);
  const waiting = b.query(`update accounts set role = 'moderator' where id = $1`, [account]);
  waiting.catch(() => undefined);
  await waitsForLock(one, waiting);
  await a.query(SESSION, [randomUUID()]);
  await a.commit();
  await waiting;
  await b.commit();
});

test('of two who decide about one held message at once, one does', async () => {
  const desks = [deskOf(databases[0]!), deskOf(databases[1]!)];
  for (let n = 0; n < 10; n++) {
    const mid = `race-${n}`.padEnd(22, '_');
    const author = { id: 'author', name: 'A', role: 'viewer' } as const;
    await desks[0]!.held.holdMessage({ roomId: room.id, mid, key: 'k', author, body: { text: 'x' }, saidAtMs: 1e12, reason: 'x' });
    const both = await Promise.allSettled([
      desks[0]!.moderate(room, moderator, { action: 'approve', mid }),
      desks[1]!.moderate(room, moderator, { action: 'deny', mid }),
    ]);
    assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  }
  for (const desk of desks) await desk.stop();
});

test('of two who ban somebody at once there is one ban, and what two settings are set to at once are both set', async () => {
  const desks = [deskOf(databases[0]!), deskOf(databases[1]!)];
  for (let n = 0; n < 10; n++) {
    const user = `twice-${n}`;
    await Promise.all(desks.map((desk) => desk.moderate(room, moderator, { action: 'ban', user })));
    const { rows } = await databases[0]!.query('select 1 from room_bans where user_id = $1 and lifted_at is null', [user]);
    assert.equal(rows.length, 1);
    await Promise.all([
      desks[0]!.moderate(room, moderator, { action: 'unique', on: n % 2 === 0 }),
      desks[1]!.moderate(room, moderator, { action: 'emoteOnly', on: n % 2 === 0 }),
    ]);
    const { unique, emoteOnly } = await desks[0]!.readSettings(room);
    assert.deepEqual([unique, emoteOnly], [n % 2 === 0, n % 2 === 0]);
  }
  for (const desk of desks) await desk.stop();
});
