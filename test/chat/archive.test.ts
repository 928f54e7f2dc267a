import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import { encodeEntry, midOf } from '../../src/chat/protocol/entry-frame.js';
import { Archive, type ArchiveEntry } from '../../src/chat/rooms/archive.js';
import { RoomHistory } from '../../src/chat/rooms/room-history.js';
import { RoomSweeper } from '../../src/chat/rooms/sweeper.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { Member, makeRoom, makeRooms } from '../support/chat-rooms.js';
import { openTestDatabase } from '../support/database.js';

describe('the archive', () => {
  let database: Database;
  let history: RoomHistory;
  const clock = new SystemClock();
  const stored: number[] = [];
  let archive: Archive;
  before(async () => {
    database = await openTestDatabase();
    history = new RoomHistory(database, clock);
    archive = new Archive({ database, clock, log: silentLog, onStored: (_room, _epoch, offsets) => stored.push(...offsets) });
  });
  after(async () => {
    await archive.stop();
    await database.stop();
  });

  const entry = (roomId: string, epoch: number, offset: number, key = `k${offset}`, atMs = Date.UTC(2030, 0, 1) + offset): ArchiveEntry => {
    const mid = midOf(roomId, 'u', key);
    const payload = JSON.stringify({ mid, user: { id: 'u', name: 'U', role: 'viewer' }, body: { text: key } });
    return { roomId, epoch, offset, atMs, type: 'msg', payload, key: `${mid}:${key}` };
  };

  test('an epoch that has ended takes nothing more; what was stored in it stays', async () => {
    const id = await makeRoom(database);
    const { epoch: first, ...opened } = (await history.raiseEpoch(id, 0))!;
    assert.deepEqual(opened, { head: 0, keep: 0 });
    assert.deepEqual(
      await Promise.all([1, 2, 4].map((offset) => archive.storeEntry(entry(id, first, offset)))),
      Array(3).fill({ kind: 'stored' }),
    );
    assert.equal(await history.raiseEpoch(id, 0), undefined);
    const { epoch: second, ...raised } = (await history.raiseEpoch(id, first))!;
    assert.ok(second > first);
    assert.deepEqual(raised, { head: 4, keep: 2 });
    assert.deepEqual(await archive.storeEntry(entry(id, first, 3)), { kind: 'fenced' });
    assert.deepEqual(await archive.storeEntry(entry(id, first, 5)), { kind: 'fenced' });
    assert.deepEqual(await archive.storeEntry(entry(id, second, 5)), { kind: 'stored' });
    assert.deepEqual(
      (await history.readRange(id, 1, 9)).map(({ offset, type }) => `${offset} ${type}`),
      ['1 msg', '2 msg', '3 gone', '4 msg', '5 msg'],
    );
    assert.deepEqual(
      [first, second].map((epoch) => epoch > Date.UTC(2026, 0) * 1024 && epoch < Number.MAX_SAFE_INTEGER / 4),
      [true, true],
    );
    const { ageMs: _age, ...kept } = await history.keptSince(id, first, second);
    assert.deepEqual(kept, { keep: 2, isFirst: false });
    assert.equal((await history.keptSince(id, first, first)).isFirst, true);
    // Of an epoch that this database does not know nothing is kept: neither of one from long ago nor of one that only a lost database has seen.
    for (const unknown of [0, first - 1, first + 1, second + 1]) assert.equal((await history.keptSince(id, unknown, second)).keep, 0);
  });

  test('an epoch is never given twice, also by a database that was set back, and is above every epoch that was seen', async () => {
    const id = await makeRoom(database);
    const given = new Set<number>();
    let expected = 0;
    for (let i = 0; i < 20; i++) {
      const { epoch } = (await history.raiseEpoch(id, expected))!;
      assert.ok(epoch > expected && !given.has(epoch));
      given.add(epoch);
      // A backup is put back: what was raised is forgotten.
      if (i % 2 === 0) await database.query('update rooms set epoch = $2 where id = $1', [id, expected]);
      if (i % 2 === 0) await database.query('delete from room_epochs where room_id = $1 and epoch > $2', [id, expected]);
      else expected = epoch;
    }
    // By a clock that is behind.
    const above = Math.max(...given) + 1e9;
    assert.equal((await history.raiseEpoch(id, expected, above))!.epoch, above + 1);
  });

  test('a batch with an entry of a dead epoch and one of the new at one offset acknowledges the one that is stored', async () => {
    const id = await makeRoom(database);
    const dead = (await history.raiseEpoch(id, 0))!.epoch;
    const { epoch } = (await history.raiseEpoch(id, dead))!;
    const places = await Promise.all([
      archive.storeEntry(entry(id, dead, 1, 'withdrawn')),
      archive.storeEntry(entry(id, epoch, 1, 'kept')),
      archive.storeEntry(entry(id, epoch, 2, 'next')),
      archive.storeEntry(entry(id, dead, 2, 'withdrawn too')),
    ]);
    assert.deepEqual(
      places.map(({ kind }) => kind),
      ['fenced', 'stored', 'stored', 'fenced'],
    );
    // In one epoch as well: two messages at one place, of a log that was set back, are one that is stored and one that is not.
    const one = await Promise.all([
      archive.storeEntry(entry(id, epoch, 3, 'first')),
      archive.storeEntry(entry(id, epoch, 3, 'second')),
      archive.storeEntry(entry(id, epoch, 3, 'first')),
    ]);
    assert.deepEqual(
      one.map(({ kind }) => kind),
      ['stored', 'fenced', 'stored'],
    );
    assert.deepEqual(
      (await history.readRange(id, 1, 9)).map(({ key }) => key?.split(':')[1]),
      ['kept', 'next', 'first'],
    );
    assert.deepEqual(await history.storedOffsets(id, epoch, [1, 2, 3, 4]), new Set([1, 2, 3]));
    assert.deepEqual(await history.storedOffsets(id, dead, [1, 2, 3, 4]), new Set());
  });

  test('a deletion of a dead epoch takes nothing from who has its place now', async () => {
    const id = await makeRoom(database);
    const dead = (await history.raiseEpoch(id, 0))!.epoch;
    const { epoch } = (await history.raiseEpoch(id, dead))!;
    const message = entry(id, epoch, 1);
    await archive.storeEntry(message);
    const mid = message.key!.split(':')[0]!;
    await database.query('select * from chat_react($1::uuid[], $2::text[], $3::text[], $4::text[], $5::boolean[])', [
      [id],
      [mid],
      ['👍'],
      ['v'],
      [true],
    ]);
    const del = (payload: object): ArchiveEntry => ({
      ...entry(id, dead, 2),
      type: 'del',
      payload: JSON.stringify(payload),
      key: undefined,
    });
    await Promise.all([archive.storeEntry(del({ offsets: [1] })), archive.storeEntry(del({ user: 'u', upTo: 1 }))]);
    assert.equal((await history.readRange(id, 1, 1))[0]?.type, 'msg');
    const { rows } = await database.query<{ n: number }>('select count(*) as n from reactions where room_id = $1', [id]);
    assert.equal(rows[0]!.n, 1);
  });

  test('the same entry twice is stored once; one message at two places stays at the first', async () => {
    const id = await makeRoom(database);
    const { epoch } = (await history.raiseEpoch(id, 0))!;
    const twice = await Promise.all([archive.storeEntry(entry(id, epoch, 1)), archive.storeEntry(entry(id, epoch, 1))]);
    assert.deepEqual(twice, [{ kind: 'stored' }, { kind: 'stored' }]);
    // In one batch, so that neither is there when the other is looked for.
    const places = await Promise.all([archive.storeEntry(entry(id, epoch, 2, 'same')), archive.storeEntry(entry(id, epoch, 3, 'same'))]);
    assert.deepEqual(places, [{ kind: 'stored' }, { kind: 'known', offset: 2 }]);
    assert.deepEqual(await archive.storeEntry(entry(id, epoch, 3, 'same')), { kind: 'known', offset: 2 });
    assert.deepEqual(
      (await history.readRange(id, 1, 9)).map(({ type }) => type),
      ['msg', 'msg', 'gone'],
    );
    // Another message in a place that is taken: the log that gave it was set back.
    assert.deepEqual(await archive.storeEntry(entry(id, epoch, 1, 'other')), { kind: 'fenced' });
  });

  test('one entry that cannot be stored holds up no other', async () => {
    const id = await makeRoom(database);
    const { epoch } = (await history.raiseEpoch(id, 0))!;
    const poison = { ...entry(id, epoch, 2), payload: JSON.stringify({ mid: 'x', user: { id: 'u\u0000' }, body: { text: '' } }) };
    const all = await Promise.all([
      archive.storeEntry(entry(id, epoch, 1)),
      archive.storeEntry(poison),
      archive.storeEntry(entry(id, epoch, 3)),
    ]);
    assert.deepEqual(all, Array(3).fill({ kind: 'stored' }));
    assert.deepEqual(
      (await history.readRange(id, 1, 9)).map(({ type }) => type),
      ['msg', 'gone', 'msg'],
    );
  });

  test('entries that a damaged log gives are refused alone, and take nothing from what is stored', async () => {
    const id = await makeRoom(database);
    const { epoch } = (await history.raiseEpoch(id, 0))!;
    const before = archive.refused;
    const damaged: Partial<ArchiveEntry>[] = [
      { payload: '{"mid":' },
      { payload: 'null' },
      { payload: '' },
      { payload: '{"user":{"id":7}}' },
      { payload: '{"user":{"id":"u"},"sentAt":"yesterday"}' },
      { atMs: Number.NaN },
      { type: 'del', payload: '{"offsets":7}', key: undefined },
      { type: 'del', payload: '{"offsets":[1]', key: undefined },
      { type: 'act', payload: '\ufffd', key: undefined },
    ];
    const all = damaged.map((part, i) => ({ ...entry(id, epoch, i + 2), ...part }));
    const outcomes = await Promise.all([entry(id, epoch, 1), ...all, entry(id, epoch, 11)].map((one) => archive.storeEntry(one)));
    assert.deepEqual(
      outcomes.map(({ kind }) => kind),
      ['stored', ...damaged.map(() => 'fenced'), 'stored'],
    );
    const types = async () => (await history.readRange(id, 1, 20)).map(({ type }) => type);
    const expected = ['msg', ...damaged.map(() => 'gone'), 'msg'];
    assert.deepEqual(await types(), expected);
    assert.equal(archive.refused - before, damaged.length);
    // Acknowledged before the log was damaged.
    assert.deepEqual(await archive.storeEntry({ ...entry(id, epoch, 1), payload: '{' }), { kind: 'fenced' });
    assert.deepEqual(await types(), expected);
    for (const one of all) assert.equal(encodeEntry(id, epoch, one).type, 'gone');
  });

  test('what is old is let go, except the newest and what belongs to a recording; a cursor below goes on at the floor', async () => {
    const id = await makeRoom(database);
    const { epoch } = (await history.raiseEpoch(id, 0))!;
    const dayMs = 86_400_000;
    const nowMs = clock.wallMs();
    const at = (offset: number) => nowMs - (offset <= 60 ? 40 * dayMs - offset * 1000 : dayMs - offset * 1000);
    await Promise.all(Array.from({ length: 100 }, (_, i) => archive.storeEntry(entry(id, epoch, i + 1, `k${i}`, at(i + 1)))));
    await database.query(
      `insert into broadcasts (id, channel_id, title, recording, started_at, ended_at, first_number)
       select 'show', channel_id, 'Show', true, $2, $3, 1 from rooms where id = $1`,
      [id, new Date(at(10)), new Date(at(19))],
    );
    const roomLog = new MemoryRoomLog({ clock, log: silentLog });
    const retain = (entries: number) =>
      new RoomSweeper({ database, roomLog, clock, log: silentLog, archive, history, retention: { entries, ageMs: 30 * dayMs } }).retain();
    const offsets = async () => (await history.readRange(id, 1, 1000)).map(({ offset }) => offset);
    const span = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
    await retain(70);
    assert.deepEqual(await offsets(), [...span(10, 19), ...span(31, 100)]);
    await retain(5);
    assert.deepEqual(await offsets(), [...span(10, 19), ...span(61, 100)]);
    const { rooms } = makeRooms(database, roomLog);
    const room = await rooms.open(id);
    assert.deepEqual([room.head, room.floor], [100, 60]);
    const member = new Member(room, 0);
    await member.until(() => member.cursor === 100);
    assert.deepEqual([...member.entries.keys()], span(61, 100));
    assert.deepEqual(await room.resumeFrom({ epoch, offset: 20 }), { recovered: 'partial', cursor: 60, keep: 100 });
    const page = await room.readPage({ before: 71, limit: 100 });
    assert.deepEqual([page.frames[0]!.offset, page.more], [61, false]);
    await rooms.stop();
    await roomLog.stop();
  });
});
