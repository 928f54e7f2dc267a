import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Database, openDatabase } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import { midOf } from '../../src/chat/protocol/entry-frame.js';
import { Archive, type ArchiveEntry } from '../../src/chat/rooms/archive.js';
import { RoomHistory } from '../../src/chat/rooms/room-history.js';
import { type Retention, RoomSweeper } from '../../src/chat/rooms/sweeper.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { entryOf, Member, makeRoom, makeRooms } from '../support/chat-rooms.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';

/** What is let go by age, on a PostgreSQL that several sessions use at a time. */
const DAY_MS = 86_400_000;
const clock = new SystemClock();
let postgres: TestDatabase;
let database: Database;
let history: RoomHistory;
let archive: Archive;
let roomLog: MemoryRoomLog;

before(async () => {
  postgres = await createTestDatabase();
  database = await openDatabase({ url: postgres.url, dataDir: '/nowhere', poolSize: 8, timeoutMs: 20_000, log: silentLog });
  history = new RoomHistory(database, clock);
  archive = new Archive({ database, clock, log: silentLog, onStored: () => undefined });
  roomLog = new MemoryRoomLog({ clock, log: silentLog });
});
after(async () => {
  await roomLog?.stop();
  await archive?.stop();
  await database?.stop();
  await postgres?.drop();
});

const keyOf = (offset: number) => `k${offset}`;
const midAt = (roomId: string, offset: number) => midOf(roomId, 'u', keyOf(offset));
function entry(roomId: string, epoch: number, offset: number, atMs: number): ArchiveEntry {
  const mid = midAt(roomId, offset);
  const payload = JSON.stringify({ mid, user: { id: 'u', name: 'U', role: 'viewer' }, body: { text: `text ${offset}` } });
  return { roomId, epoch, offset, atMs, type: 'msg', payload, key: `${mid}:${keyOf(offset)}` };
}
/** One a second, the first so long ago. */
async function roomWith(count: number, agoMs: number): Promise<{ id: string; epoch: number; at: (offset: number) => number }> {
  const id = await makeRoom(database);
  const { epoch } = (await history.raiseEpoch(id, 0))!;
  const startMs = Math.trunc(clock.wallMs()) - agoMs;
  const at = (offset: number) => startMs + offset * 1000;
  await Promise.all(Array.from({ length: count }, (_, i) => archive.storeEntry(entry(id, epoch, i + 1, at(i + 1)))));
  return { id, epoch, at };
}
const record = (roomId: string, show: string, fromMs: number, toMs: number) =>
  database.query(
    `insert into broadcasts (id, channel_id, title, recording, started_at, ended_at, first_number)
     select $4, channel_id, 'Show', true, $2, $3, 1 from rooms where id = $1`,
    [roomId, new Date(fromMs), new Date(toMs), show],
  );
const retain = (retention: Retention) =>
  new RoomSweeper({ database, roomLog, clock, log: silentLog, archive, history, retention }).retain();
const offsetsOf = async (roomId: string) => {
  const { rows } = await database.query<{ offset: number }>('select "offset" from messages where room_id = $1 order by "offset"', [roomId]);
  return rows.map(({ offset }) => offset);
};
const span = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

test('what is older than the age and not among the newest goes, room by room; what is young stays, however much it is', async (t) => {
  const old = await roomWith(1200, 40 * DAY_MS);
  const young = await roomWith(300, DAY_MS);
  const few = await roomWith(10, 400 * DAY_MS);
  await makeRoom(database);
  await retain({ entries: 100, ageMs: 30 * DAY_MS });
  assert.deepEqual(await offsetsOf(old.id), span(1101, 1200));
  assert.deepEqual(await offsetsOf(young.id), span(1, 300));
  assert.deepEqual(await offsetsOf(few.id), span(1, 10));
  await retain({ entries: 0, ageMs: 0 });
  assert.deepEqual(await offsetsOf(old.id), [1200], 'the newest stays');
  const { rooms } = makeRooms(database, roomLog);
  t.after(() => rooms.stop());
  const room = await rooms.open(old.id);
  assert.deepEqual([room.head, room.floor], [1200, 1199]);
  const member = new Member(room, 0);
  await member.until(() => member.cursor === 1200);
  assert.deepEqual([...member.entries.keys()], [1200]);
  assert.deepEqual(await room.resumeFrom({ epoch: old.epoch, offset: 700 }), { recovered: 'partial', cursor: 1199, keep: 1200 });
});

test('what was said while a kept recording was made is there for its replay and in the export, and can be deleted; it goes with the recording', async (t) => {
  const { id, at } = await roomWith(2500, 40 * DAY_MS);
  await record(id, 'show', at(600), at(719));
  // This process has looked at the room before anything was let go.
  const { rooms } = makeRooms(database, roomLog);
  t.after(() => rooms.stop());
  const room = await rooms.open(id);
  await retain({ entries: 100, ageMs: 30 * DAY_MS });
  assert.deepEqual(await offsetsOf(id), [...span(600, 719), ...span(2401, 2500)]);

  const pageBefore = async (before: number, limit: number) => {
    const { frames, more } = await room.readPage({ before, limit });
    return { offsets: frames.map(({ offset }) => offset), more };
  };
  assert.deepEqual(await pageBefore(700, 30), { offsets: span(670, 699), more: true });
  assert.deepEqual(await pageBefore(800, 1), { offsets: [719], more: true });
  assert.deepEqual(await pageBefore(610, 100), { offsets: span(600, 609), more: false });
  assert.deepEqual(await pageBefore(600, 100), { offsets: [], more: false });
  assert.deepEqual(await pageBefore(2420, 100), { offsets: span(2401, 2419), more: false });
  const between = await rooms.readBetween(id, at(600), at(720), 0, 500);
  assert.deepEqual(
    between.map(({ offset }) => offset),
    span(600, 719),
  );
  const exported: number[] = [];
  for await (const { offset } of rooms.export(id)) exported.push(offset);
  assert.deepEqual(exported, [...span(600, 719), ...span(2401, 2500)]);

  assert.ok(await room.eraseMessages({ mids: [midAt(id, 650)] }, { id: 'mod', name: 'Mod' }));
  assert.doesNotMatch(JSON.stringify((await history.readRange(id, 600, 719)).map(({ payload }) => payload)), /text 650"/);
  const [frame] = (await room.readPage({ before: 651, limit: 1 })).frames;
  assert.equal(entryOf(frame!).t, 'gone');

  await database.query("delete from broadcasts where id = 'show'");
  await retain({ entries: 100, ageMs: 30 * DAY_MS });
  assert.deepEqual(await offsetsOf(id), span(2402, 2501));
});

test('a recording may go on over the floor: who looks for a moment in it steps over nothing, and who reads back comes to an end', async (t) => {
  const { id, at } = await roomWith(300, 40 * DAY_MS);
  await record(id, 'over', at(90), at(110));
  await retain({ entries: 200, ageMs: 30 * DAY_MS });
  const { rooms } = makeRooms(database, roomLog);
  t.after(() => rooms.stop());
  const room = await rooms.open(id);
  assert.equal(room.floor, 100);
  const page = async (before: number, limit: number, kept = false) =>
    (await room.readPage({ before, limit, kept })).frames.map(({ offset }) => offset);
  assert.deepEqual(await page(101, 1), []);
  assert.deepEqual(await page(101, 1, true), [100]);
  assert.deepEqual(await page(100, 100), span(90, 99));
});

test('who was within a recording when the rest was let go is told so', async (t) => {
  const { id, at } = await roomWith(300, 40 * DAY_MS);
  await record(id, 'old', at(10), at(19));
  const { rooms } = makeRooms(database, roomLog);
  t.after(() => rooms.stop());
  const room = await rooms.open(id);
  await retain({ entries: 50, ageMs: 30 * DAY_MS });
  // As after a restart of the log: what it was begun with is what the database has.
  await roomLog.remove(id);
  await retain({ entries: 50, ageMs: 30 * DAY_MS });
  assert.equal(await room.framesAfter(9, 50), undefined);
  assert.equal(room.floor, 250);
  assert.equal((await room.resumeFrom({ epoch: room.epoch, offset: 9 })).recovered, 'partial');
});

test('a pinned message stays for as long as it is pinned', async () => {
  const { id } = await roomWith(200, 40 * DAY_MS);
  await database.query("insert into room_pins (room_id, mid, by_id) values ($1, $2, 'mod')", [id, midAt(id, 7)]);
  await retain({ entries: 50, ageMs: 30 * DAY_MS });
  assert.deepEqual(await offsetsOf(id), [7, ...span(151, 200)]);
  await database.query('update room_pins set mid = $2 where room_id = $1', [id, midAt(id, 160)]);
  await retain({ entries: 50, ageMs: 30 * DAY_MS });
  assert.deepEqual(await offsetsOf(id), span(151, 200));
});

test('two processes let go at once, while others store: everything is stored, and nothing is let go that should stay', async () => {
  const rooms = await Promise.all(Array.from({ length: 30 }, () => roomWith(60, 40 * DAY_MS)));
  const nowMs = Math.trunc(clock.wallMs());
  let next = 61;
  let isDone = false;
  const storing = (async () => {
    while (!isDone) {
      const offset = next++;
      const stored = await Promise.all(rooms.map(({ id, epoch }) => archive.storeEntry(entry(id, epoch, offset, nowMs))));
      assert.ok(stored.every(({ kind }) => kind === 'stored'));
    }
  })();
  const retention = { entries: 20, ageMs: 30 * DAY_MS };
  for (let n = 0; n < 5; n++) await Promise.all([retain(retention), retain(retention)]);
  isDone = true;
  await storing;
  await retain(retention);
  const head = next - 1;
  for (const { id } of rooms) assert.deepEqual(await offsetsOf(id), span(Math.min(61, head - 19), head));
});

test('a process that is to do it does it every ten minutes, and another does not', async () => {
  const { id } = await roomWith(30, 40 * DAY_MS);
  const fake = new FakeClock(clock.wallMs());
  const other = makeRooms(database, roomLog, { clock: fake }).rooms;
  other.start();
  fake.advance(600_000);
  await other.stop();
  assert.equal((await offsetsOf(id)).length, 30);
  const { rooms } = makeRooms(database, roomLog, { clock: fake, retention: { entries: 5, ageMs: 30 * DAY_MS } });
  rooms.start();
  fake.advance(600_000);
  while ((await offsetsOf(id)).length > 5) await new Promise((resolve) => setImmediate(resolve));
  await rooms.stop();
});
