import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Database, openDatabase, type Queryable } from '../../src/backing/database/database.js';
import { midOf } from '../../src/chat/protocol/entry-frame.js';
import { Archive, type ArchiveEntry } from '../../src/chat/rooms/archive.js';
import { RoomHistory } from '../../src/chat/rooms/room-history.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { makeRoom } from '../support/chat-rooms.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';

/** Reactions that are being stored while another process takes their message away. The embedded database has one connection, where nothing crosses. */
let postgres: TestDatabase;
let database: Database;
let archive: Archive;
const clock = new SystemClock();
before(async () => {
  postgres = await createTestDatabase();
  database = await openDatabase({ url: postgres.url, dataDir: '/nonexistent', poolSize: 6, timeoutMs: 20_000, log: silentLog });
  archive = new Archive({ database, clock, log: silentLog, onStored: () => undefined });
});
after(async () => {
  await archive?.stop();
  await database?.stop();
  await postgres?.drop();
});

async function scene() {
  const roomId = await makeRoom(database);
  const { epoch } = (await new RoomHistory(database, clock).raiseEpoch(roomId, 0))!;
  const mid = midOf(roomId, 'u', 'k');
  const payload = JSON.stringify({ mid, user: { id: 'u', name: 'U', role: 'viewer' }, body: { text: 'hello' } });
  const entry = { roomId, epoch, offset: 1, atMs: Date.now(), type: 'msg', payload, key: `${mid}:k` } satisfies ArchiveEntry;
  await archive.storeEntry(entry);
  const react = async (connection: Queryable, userId: string) => {
    const { rows } = await connection.query('select * from chat_react($1::uuid[], $2::text[], $3::text[], $4::text[], $5::boolean[])', [
      [roomId],
      [mid],
      ['👍'],
      [userId],
      [true],
    ]);
    return rows;
  };
  const left = async () => {
    const { rows } = await database.query<{ n: number }>(
      `select (select count(*)::int from reactions where room_id = $1) + (select count(*)::int from reaction_counts where room_id = $1) as n`,
      [roomId],
    );
    return rows[0]!.n;
  };
  const say = (del: object) =>
    archive.storeEntry({ roomId, epoch, offset: 2, atMs: Date.now(), type: 'del', payload: JSON.stringify(del), key: undefined });
  return { roomId, mid, react, left, say };
}

/** Resolves when some statement waits for a lock, or `doing` has ended without. */
async function waitsFor(doing: Promise<unknown>): Promise<void> {
  let isOver = false;
  doing.finally(() => {
    isOver = true;
  });
  for (;;) {
    const { rows } = await database.query<{ n: number }>(
      `select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
    );
    if (isOver || rows[0]!.n > 0) return;
  }
}

for (const [name, takesAway] of Object.entries({
  'a deletion': ({ say }) => say({ offsets: [1], mids: [], by: { id: 'm', name: 'M' } }),
  'a purge, a ban with deletion or an erased account': ({ say }) => say({ user: 'u', upTo: 1, by: { id: 'm', name: 'M' } }),
  retention: ({ roomId }) => database.query('delete from messages where room_id = $1', [roomId]),
} satisfies Record<string, (one: Awaited<ReturnType<typeof scene>>) => Promise<unknown>>)) {
  for (const others of [0, 1])
    test(`${name} takes a reaction with it that is not committed yet, where there ${others ? 'is another' : 'is none'}`, async () => {
      const one = await scene();
      if (others) await one.react(database, 'other');
      let doing: Promise<unknown> = Promise.resolve();
      await database.transaction(async (connection) => {
        assert.equal((await one.react(connection, 'fan')).length, 1);
        doing = takesAway(one);
        await waitsFor(doing);
      });
      await doing;
      assert.equal(await one.left(), 0);
      assert.deepEqual(await one.react(database, 'late'), [], 'and none comes later');
      assert.equal(await one.left(), 0);
    });
}

test('a reaction that waits for a deletion finds that the message is gone', async () => {
  const one = await scene();
  await one.react(database, 'other');
  let reacting: Promise<readonly unknown[]> = Promise.resolve([]);
  await database.transaction(async (connection) => {
    await connection.query(`update messages set type = 'gone' where room_id = $1 and mid = $2`, [one.roomId, one.mid]);
    reacting = one.react(database, 'fan');
    await waitsFor(reacting);
  });
  assert.deepEqual(await reacting, []);
  assert.equal(await one.left(), 0);
});

test('the reactions of an account are erased while somebody else reacts: the counts are what is there, and the account comes back with none', async () => {
  const one = await scene();
  await one.react(database, 'leaves');
  let erasing: Promise<unknown> = Promise.resolve();
  await database.transaction(async (connection) => {
    await one.react(connection, 'stays');
    erasing = database.query('select chat_erase_reactions($1)', ['leaves']);
    await waitsFor(erasing);
  });
  await erasing;
  await database.query('insert into chat_erasures (account_id) values ($1)', ['leaves']);
  await one.react(database, 'leaves');
  const { rows } = await database.query('select counts from reaction_counts where room_id = $1', [one.roomId]);
  assert.deepEqual(rows, [{ counts: { '👍': 1 } }]);
});
