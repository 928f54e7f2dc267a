import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import { NowPlaying } from '../../src/chat/rooms/now-playing.js';
import type { NewEntry } from '../../src/chat/rooms/room.js';
import type { Rooms } from '../../src/chat/rooms/rooms.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { Member, makeRoom, makeRooms } from '../support/chat-rooms.js';
import { openTestDatabase } from '../support/database.js';

describe('what is playing', () => {
  let database: Database;
  let roomLog: MemoryRoomLog;
  let roomId: string;
  let processes: Rooms[];
  const clock = new FakeClock();
  before(async () => {
    database = await openTestDatabase();
  });
  after(async () => {
    await database.stop();
  });
  beforeEach(async () => {
    await database.query('delete from now_playing');
    roomId = await makeRoom(database);
    roomLog = new MemoryRoomLog({ clock: new SystemClock(), log: silentLog });
    processes = [makeRooms(database, roomLog).rooms, makeRooms(database, roomLog).rooms, makeRooms(database, roomLog).rooms];
  });
  const end = async () => {
    await Promise.all(processes.map((rooms) => rooms.stop()));
    await roomLog.stop();
  };

  const telling = (act: (roomId: string, entry: NewEntry) => Promise<unknown>) => new NowPlaying({ database, clock, log: silentLog, act });
  const of = (rooms: Rooms) => telling((id, entry) => rooms.appendEntry(id, entry));
  const plays = (id: string, title: string, artist?: string, broadcast = 'show') =>
    database.query(
      `insert into now_playing (channel_id, title_id, broadcast_id, title, artist, started_at) select channel_id, $2, $5, $3, $4, $6 from rooms where id = $1
       on conflict (channel_id) do update set title_id = excluded.title_id, broadcast_id = excluded.broadcast_id, title = excluded.title,
         artist = excluded.artist, started_at = excluded.started_at`,
      [roomId, id, title, artist ?? null, broadcast, new Date(clock.wallMs())],
    );
  const entries = async () =>
    (
      await database.query<{ type: string; payload: string }>('select type, payload from messages where room_id = $1 order by "offset"', [
        roomId,
      ])
    ).rows.map(({ type, payload }) => ({ type, ...JSON.parse(payload) }));
  const titles = async () => (await entries()).map(({ title }) => title);

  test('three processes tell a change once, in the room and in the database', async () => {
    const room = await processes[0]!.open(roomId);
    const member = new Member(room, 0);
    await plays('t1', 'A song', 'Somebody');
    const all = processes.map(of);
    for (let i = 0; i < 3; i++) await Promise.all(all.map((one) => one.look()));
    assert.deepEqual(await entries(), [{ type: 'now', title: 'A song', artist: 'Somebody' }]);
    await member.until(() => member.cursor === 1);
    const { t, title, artist } = member.entries.get(1)!;
    assert.deepEqual({ t, title, artist }, { t: 'now', title: 'A song', artist: 'Somebody' });
    clock.advance(20_000);
    await plays('t2', 'Another');
    await Promise.all(all.map((one) => one.look()));
    assert.deepEqual(await titles(), ['A song', 'Another']);
    member.leave();
    await Promise.all(all.map((one) => one.stop()));
    await end();
  });

  test('who dies after he has told it, and before he has noted that, has told it', async () => {
    await plays('t1', 'A song');
    const dying = telling(async (id, entry) => {
      await processes[0]!.appendEntry(id, entry);
      throw new Error('dead');
    });
    await dying.look();
    const next = of(processes[1]!);
    await next.look();
    assert.equal((await entries()).length, 1);
    clock.advance(10_001);
    await next.look();
    const claimed = await database.query('select told_id from now_playing');
    assert.deepEqual([await titles(), claimed.rows], [['A song'], [{ told_id: 't1' }]]);
    await end();
    // The log is lost: what is in PostgreSQL counts.
    roomLog = new MemoryRoomLog({ clock: new SystemClock(), log: silentLog });
    processes = [makeRooms(database, roomLog).rooms];
    await processes[0]!.appendEntry(roomId, { type: 'now', payload: { title: 'A song' }, key: 'show:t1' });
    assert.deepEqual(await titles(), ['A song']);
    await processes[0]!.appendEntry(roomId, { type: 'now', payload: { title: 'A song' }, key: 'show:t2' });
    assert.deepEqual(await titles(), ['A song', 'A song']);
    await end();
  });

  test('put in by three processes at the same time it is one entry', async () => {
    const entry = { type: 'now', payload: { title: 'A song' }, key: 'k' };
    const said = await Promise.all(processes.map((rooms) => rooms.appendEntry(roomId, entry)));
    assert.deepEqual(
      said.map(({ offset }) => offset),
      [1, 1, 1],
    );
    assert.deepEqual(await titles(), ['A song']);
    // It is no message: nobody can delete it as one.
    const { rows } = await database.query<{ mid: string }>('select mid from messages where room_id = $1', [roomId]);
    const erased = await processes[0]!.withRoom(roomId, (room) => room.eraseMessages({ mids: [rows[0]!.mid] }, { id: 'm', name: 'M' }));
    assert.equal(erased, undefined);
    await end();
  });

  test('of ten titles a second a room is told one in ten seconds, and the last one', async () => {
    const telling = of(processes[0]!);
    for (let i = 0; i <= 600; i++) {
      await plays(`t${i}`, `Song ${i}`);
      if (i % 10 === 0) await telling.look();
      clock.advance(100);
    }
    clock.advance(10_000);
    await telling.look();
    await telling.look();
    assert.deepEqual(
      await titles(),
      [0, 100, 200, 300, 400, 500, 600].map((i) => `Song ${i}`),
    );
    // Away and back between two entries is no change; the same in another show is.
    clock.advance(20_000);
    await plays('t601', 'Song 600');
    await telling.look();
    assert.equal((await titles()).length, 7);
    await plays('t602', 'Song 600', undefined, 'next show');
    await telling.look();
    assert.equal((await titles()).length, 8);
    await end();
  });

  test('what began long ago is told no more; a long title is cut; a room that fails holds up no other', async () => {
    await plays('t1', 'Old');
    clock.advance(600_001);
    const telling = of(processes[0]!);
    await telling.look();
    assert.deepEqual(await titles(), []);
    await plays('t2', '😀'.repeat(1000), 'a'.repeat(300));
    const mine = roomId;
    const other = await makeRoom(database);
    await database.query(
      `insert into now_playing (channel_id, title_id, broadcast_id, title, started_at) select channel_id, 'x', 'show', 'X', $2 from rooms where id = $1`,
      [other, new Date(0)],
    );
    await database.query("update now_playing set started_at = $1 where title_id = 'x'", [new Date(clock.wallMs() - 1000)]);
    await telling.stop();
    const failing = new NowPlaying({
      database,
      clock,
      log: silentLog,
      act: (id, entry) => (id === other ? Promise.reject(new Error('busy')) : processes[0]!.appendEntry(id, entry)),
    });
    await failing.look();
    assert.equal(roomId, mine);
    const [told] = await entries();
    assert.deepEqual([told.title.length, told.title.endsWith('😀…'), told.artist.length], [299, true, 300]);
    await end();
  });

  test('the room goes with its channel', async () => {
    await plays('t1', 'A song');
    await database.query('delete from channels where id = (select channel_id from rooms where id = $1)', [roomId]);
    await of(processes[0]!).look();
    assert.deepEqual((await database.query('select 1 from now_playing')).rows, []);
    await end();
  });
});
