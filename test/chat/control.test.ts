import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { type ChatChange, ControlRoom } from '../../src/chat/protocol/control.js';
import { silentLog } from '../../src/runtime/log.js';
import { type DeskWorld, deskWorld } from './moderation-world.js';

let world: DeskWorld;
before(async () => {
  world = await deskWorld();
});
after(() => world.stop());

async function followed() {
  const control = new ControlRoom({ database: world.database, clock: world.clock, log: silentLog });
  const changes: ChatChange[] = [];
  let lost = 0;
  control.follow({
    onChanges: (more) => changes.push(...more),
    onLost: () => {
      lost++;
    },
  });
  await control.start();
  return { control, changes, lost: () => lost };
}

test('what is decided elsewhere is in the journal: accounts, sessions, channels and who has a role in them', async () => {
  const { control, changes } = await followed();
  const { database, room } = world;
  const account = randomUUID();
  const session = randomUUID();
  await database.query('insert into accounts (id, email, email_key, name) values ($1, $2, $2, $2)', [account, `${account}@example.org`]);
  await database.query(`update accounts set password_hash = 'x' where id = $1`, [account]);
  await control.readChanges();
  assert.deepEqual(changes, [], 'of no matter to a chat');
  await database.query('update accounts set banned_at = now() where id = $1', [account]);
  await database.query('insert into ended_sessions (session_id) values ($1)', [session]);
  await database.query(`insert into channel_members (channel_id, account_id, role) values ($1, $2, 'host')`, [room.channelId, account]);
  await database.query(`update channels set visibility = 'private' where id = $1`, [room.channelId]);
  await database.query('delete from channel_members where account_id = $1', [account]);
  await database.query('delete from accounts where id = $1', [account]);
  await control.readChanges();
  assert.deepEqual(changes, [
    { kind: 'account', userId: account },
    { kind: 'session', sessionId: session },
    { kind: 'member', channelId: room.channelId, userId: account },
    { kind: 'channel', roomId: room.id, channelId: room.channelId },
    { kind: 'member', channelId: room.channelId, userId: account },
    { kind: 'account', userId: account },
  ]);
  await control.stop();
});

test('a channel that is deleted takes its room with it, and every process learns of both', async () => {
  const { control, changes } = await followed();
  const channelId = randomUUID();
  await world.database.query(
    `insert into channels (id, slug, title, visibility, stream_key_hash) values ($1, 'short-lived', 'x', 'public', $2)`,
    [channelId, Buffer.alloc(32, 7)],
  );
  const { rows } = await world.database.query<{ id: string }>('select id from rooms where channel_id = $1', [channelId]);
  await world.database.query('delete from channels where id = $1', [channelId]);
  await control.readChanges();
  assert.deepEqual(changes, [{ kind: 'channel', roomId: rows[0]!.id, channelId }]);
  await control.stop();
});

test('what was rolled back is not in it, and leaves no hole', async () => {
  const { control, changes, lost } = await followed();
  const rename = (connection: { query: typeof world.database.query }, name: string) =>
    connection.query(
      `insert into room_terms (room_id, blocked, allowed) values ($1, $2, '{}')
      on conflict (room_id) do update set blocked = excluded.blocked`,
      [world.room.id, [name]],
    );
  await rename(world.database, 'a');
  await assert.rejects(
    world.database.transaction(async (connection) => {
      await rename(connection, 'b');
      throw new Error('undone');
    }),
  );
  await rename(world.database, 'c');
  await control.readChanges();
  assert.deepEqual(changes, [
    { kind: 'rules', roomId: world.room.id },
    { kind: 'rules', roomId: world.room.id },
  ]);
  assert.equal(lost(), 0);
  await control.stop();
});

test('more than are read at a time all come, in order', async () => {
  const { control, changes } = await followed();
  const ids = Array.from({ length: 2500 }, () => randomUUID());
  await world.database.query('insert into ended_sessions (session_id) select unnest($1::uuid[])', [ids]);
  await control.readChanges();
  assert.deepEqual(
    changes.map(({ sessionId }) => sessionId),
    ids,
  );
  await control.stop();
});

test('a process that slept past what the journal keeps is told to read everything again', async () => {
  const { control, lost } = await followed();
  await world.database.query('insert into ended_sessions (session_id) values ($1)', [randomUUID()]);
  await world.database.query('insert into ended_sessions (session_id) values ($1)', [randomUUID()]);
  // As another process cleans up.
  await world.database.query('delete from chat_changes where version < (select max(version) from chat_changes)');
  await control.readChanges();
  assert.equal(lost(), 1);
  await world.database.query('delete from chat_changes');
  world.clock.sleep(1_900_000);
  await control.readChanges();
  assert.equal(lost(), 2, 'also when there is nothing left to see');
  await control.stop();
});

test('while the database is away what is known counts on, and what was missed comes', async () => {
  let isAway = false;
  const { database } = world;
  const control = new ControlRoom({
    database: {
      ...database,
      query: (sql: string, values?: readonly unknown[]) =>
        (isAway ? Promise.reject(new Error('away')) : database.query(sql, values)) as never,
    },
    clock: world.clock,
    log: silentLog,
  });
  const changes: ChatChange[] = [];
  control.follow({ onChanges: (more) => changes.push(...more), onLost: () => undefined });
  await control.start();
  isAway = true;
  const session = randomUUID();
  await database.query('insert into ended_sessions (session_id) values ($1)', [session]);
  await control.readChanges();
  await control.readChanges();
  assert.deepEqual(changes, []);
  isAway = false;
  await control.readChanges();
  assert.deepEqual(changes, [{ kind: 'session', sessionId: session }]);
  await control.stop();
  await control.stop();
});
