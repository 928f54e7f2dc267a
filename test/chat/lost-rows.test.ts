import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Database, openDatabase } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import type { Rooms } from '../../src/chat/rooms/rooms.js';
import { silentLog } from '../../src/runtime/log.js';
import { Member, makeRoom, makeRooms, say } from '../support/chat-rooms.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { FastClock } from '../support/faulty-chat.js';
import { eventually } from '../support/process.js';

/** A replica that was behind takes over, or a backup is put back, while the log and the processes go on. */
describe('a database that is set back under a log that goes on', () => {
  let postgres: TestDatabase;
  let inner: Database;
  let database: Database;
  let server = 'the first';
  let roomLog: MemoryRoomLog;
  let rooms: Rooms;
  let clock: FastClock;
  const started: Rooms[] = [];
  const process = () => {
    const { rooms } = makeRooms(database, roomLog, { clock });
    rooms.start();
    started.push(rooms);
    return rooms;
  };
  before(async () => {
    clock = new FastClock(20);
    postgres = await createTestDatabase();
    inner = await openDatabase({ url: postgres.url, dataDir: '/nonexistent', poolSize: 8, timeoutMs: 30_000, log: silentLog });
    database = {
      ...inner,
      query: async (sql, values) => {
        const answer = await inner.query(sql, values);
        return sql.includes('pg_postmaster_start_time') ? ({ rows: [{ server }], rowCount: 1 } as never) : (answer as never);
      },
    };
    roomLog = new MemoryRoomLog({ clock, log: silentLog });
    rooms = process();
  });
  after(async () => {
    for (const one of started) await one.stop();
    clock?.halt();
    await inner?.stop();
    await postgres?.drop();
  });
  const stored = async (id: string) =>
    (await inner.query<{ n: number }>("select count(*) as n from messages where room_id = $1 and type = 'msg'", [id])).rows[0]!.n;
  const loses = (id: string, from: number) => inner.query('delete from messages where room_id = $1 and "offset" >= $2', [id, from]);

  test('what the log has is stored again, by a process that has the room open and by one that opens it: nothing acknowledged is lost', async () => {
    const id = await makeRoom(database);
    const room = await rooms.open(id);
    const member = new Member(room, 0);
    const { epoch } = room;
    await Promise.all(Array.from({ length: 60 }, (_, i) => say(room, 'ann', `k${i}`, `text ${i}`)));
    await member.until(() => member.cursor === 60);
    // The first sweep has seen which server answers.
    await eventually('a sweep', async () => ((await roomLog.unarchived(0, 1)).length === 0 ? true : undefined));
    await new Promise<void>((resolve) => clock.after(11_000, resolve));
    await loses(id, 41);
    // It is spoken on at once, so that the newest row is no sign.
    await say(room, 'ann', 'next', 'next');
    server = 'the second';
    await eventually('the rows are back', async () => ((await stored(id)) === 61 ? true : undefined));
    assert.equal(room.epoch, epoch);

    await loses(id, 50);
    await process().open(id);
    assert.equal(await stored(id), 61);
    assert.deepEqual([member.faults, member.resets], [[], []]);
  });

  test('what the log does not have either is withdrawn by a new epoch, and everybody sees the same', async () => {
    const id = await makeRoom(database);
    const room = await rooms.open(id);
    const member = new Member(room, 0);
    const { epoch } = room;
    await Promise.all(Array.from({ length: 1200 }, (_, i) => say(room, 'ann', `k${i}`, `text ${i}`)));
    await member.until(() => member.cursor === 1200);
    await eventually('all is reported', async () => {
      const page = await roomLog.read(id, 0, 1);
      return page?.archived === 1200 && page.entries[0]!.offset > 100 ? true : undefined;
    });
    await loses(id, 21);
    server = 'the third';
    await eventually('the room is begun anew', () => (room.epoch > epoch ? true : undefined));
    const place = await say(room, 'ann', 'after', 'after');
    await member.until(() => member.cursor === place.offset);
    assert.equal(member.resets.at(-1)!.keep, 20);
    assert.deepEqual(member.faults, []);
    const { rows } = await inner.query<{ offset: number; type: string; mid: string | null }>(
      'select "offset", type, mid from messages where room_id = $1 order by "offset"',
      [id],
    );
    assert.deepEqual(
      [...member.entries.values()].map(({ offset, t, mid }) => `${offset} ${t} ${mid ?? ''}`),
      rows.map(({ offset, type, mid }) => `${offset} ${type} ${mid ?? ''}`),
    );
    // What the log had has its place still.
    assert.ok(rows.filter(({ type }) => type === 'msg').length >= 1020);
  });
});
