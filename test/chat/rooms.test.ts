import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import type { Rooms } from '../../src/chat/rooms/rooms.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { anything, author, entryOf, Member, makeRoom, makeRooms, publish, say } from '../support/chat-rooms.js';
import { openTestDatabase } from '../support/database.js';

const by = { id: 'mod', name: 'Mod' };

describe('rooms of one process on the embedded database', () => {
  let database: Database;
  let roomLog: MemoryRoomLog;
  let rooms: Rooms;
  before(async () => {
    database = await openTestDatabase();
    roomLog = new MemoryRoomLog({ clock: new SystemClock(), log: silentLog });
    ({ rooms } = makeRooms(database, roomLog));
    rooms.start();
  });
  after(async () => {
    await rooms.stop();
    await roomLog.stop();
    await database.stop();
  });

  test('what is published is delivered, acknowledged and in the history', async () => {
    const room = await rooms.open(await makeRoom(database));
    const member = new Member(room);
    const places = await Promise.all(Array.from({ length: 200 }, (_, i) => say(room, `u${i % 7}`, `k${i}`, `text ${i}`)));
    await member.until(() => member.cursor === 200);
    assert.deepEqual(member.faults, []);
    assert.equal(new Set(places.map((place) => place.offset)).size, 200);
    for (const { mid, offset } of places) assert.equal(member.entries.get(offset)!.mid, mid);
    const { rows } = await database.query('select "offset" from messages where room_id = $1', [room.id]);
    assert.equal(rows.length, 200);
    const page = await room.readPage({ limit: 100 });
    assert.deepEqual(
      page.frames.map((frame) => frame.offset),
      Array.from({ length: 100 }, (_, i) => 101 + i),
    );
    assert.equal(page.more, true);
    const older = await room.readPage({ before: 101, limit: 100 });
    assert.equal(older.frames[0]!.offset, 1);
    assert.equal(older.more, false);
    const hole = await room.readPage({ from: 10, to: 12, limit: 100 });
    assert.deepEqual(
      hole.frames.map((frame) => entryOf(frame).body),
      [10, 11, 12].map((offset) => member.entries.get(offset)!.body),
    );
    member.leave();
  });

  test('the same key is one message, whoever asks how often', async () => {
    const room = await rooms.open(await makeRoom(database));
    const member = new Member(room);
    const places = await Promise.all(Array.from({ length: 10 }, () => say(room, 'ann', 'same', 'once')));
    places.push(await say(room, 'ann', 'same', 'other text'));
    assert.equal(new Set(places.map((place) => place.offset)).size, 1);
    assert.equal(places.filter((place) => !place.dup).length, 1);
    assert.notEqual((await say(room, 'bob', 'same', 'mine')).offset, places[0]!.offset);
    await member.until(() => member.cursor === 2);
    assert.deepEqual(member.texts, ['once', 'mine']);
    member.leave();
  });

  test('a room that the log has lost goes on under a new epoch, and what was acknowledged is there', async () => {
    const room = await rooms.open(await makeRoom(database));
    const member = new Member(room);
    for (let i = 0; i < 5; i++) await say(room, 'ann', `k${i}`, `text ${i}`);
    const { epoch } = room;
    await roomLog.remove(room.id);
    const place = await say(room, 'ann', 'k5', 'text 5');
    assert.equal(place.offset, 6);
    assert.equal((await say(room, 'ann', 'k2', 'text 2')).offset, 3);
    await member.until(() => member.cursor === 6);
    assert.ok(room.epoch > epoch);
    assert.deepEqual(member.resets, [{ epoch: room.epoch, keep: 5 }]);
    assert.deepEqual(member.faults, []);
    assert.deepEqual(await room.resumeFrom({ epoch, offset: 5 }), { recovered: 'full', cursor: 5, keep: 5 });
    assert.deepEqual(await room.resumeFrom({ epoch, offset: 9 }), { recovered: 'partial', cursor: 5, keep: 5 });
    // Of a time that this database has never seen, and beyond the head of this one.
    for (const other of [epoch - 1, epoch + 1, room.epoch + 7]) {
      assert.deepEqual(await room.resumeFrom({ epoch: other, offset: 9 }), { recovered: 'none', cursor: 0, keep: 0 });
    }
    assert.deepEqual(await room.resumeFrom({ epoch: room.epoch, offset: 9 }), { recovered: 'none', cursor: 0, keep: 0 });
    member.leave();
  });

  test('a deleted message is gone from log, ring, database and members', async () => {
    const room = await rooms.open(await makeRoom(database));
    const member = new Member(room);
    const first = await say(room, 'ann', 'a', 'secret one');
    const second = await say(room, 'ann', 'b', 'secret two');
    await say(room, 'bob', 'c', 'kept');
    const said = await room.eraseMessages({ mids: [first.mid, 'A'.repeat(22)] }, by);
    assert.equal(said?.offset, 4);
    await member.until(() => member.cursor === 4);
    assert.deepEqual(member.texts, ['secret two', 'kept']);
    assert.equal((await room.eraseMessages({ userId: 'ann' }, by))?.offset, 5);
    await member.until(() => member.cursor === 5);
    assert.deepEqual(member.texts, ['kept']);
    assert.equal((await room.eraseMessages({ mids: [first.mid, second.mid] }, by).then((again) => again?.offset ?? 0)) > 0, true);
    const { frames } = await room.readPage({ limit: 100 });
    assert.deepEqual(
      frames.slice(0, 3).map((frame) => frame.type),
      ['gone', 'gone', 'msg'],
    );
    const everywhere = [
      JSON.stringify(frames),
      JSON.stringify((await roomLog.read(room.id, 0, 100))!.entries),
      JSON.stringify((await database.query('select * from messages where room_id = $1', [room.id])).rows),
    ];
    for (const place of everywhere) assert.doesNotMatch(place, /secret/);
    // It was said: the same key is no new message.
    assert.equal((await say(room, 'ann', 'a', 'secret one')).offset, 1);
    member.leave();
  });

  test('somebody who is shadowed sees himself, and nobody else does', async () => {
    const { rooms: own } = makeRooms(database, roomLog, { rules: { ...anything, isShadowed: (_, { id }) => id === 'troll' } });
    const room = await own.open(await makeRoom(database));
    const ann = new Member(room, 0, 'ann');
    const troll = new Member(room, 0, 'troll');
    await say(room, 'troll', 'k', 'hear me');
    await troll.until(() => troll.cursor === 1);
    await ann.until(() => ann.cursor === 1);
    assert.deepEqual([ann.texts, troll.texts], [[], ['hear me']]);
    assert.equal(ann.entries.get(1)!.t, 'gone');
    assert.equal(troll.entries.get(1)!.key, 'k');
    const { frames } = await room.readPage({ limit: 10 });
    assert.deepEqual(Object.keys(entryOf(frames[0]!, 'ann')).sort(), ['at', 'epoch', 'offset', 'room', 't']);
    assert.equal(entryOf(frames[0]!, 'troll').body!.text, 'hear me');
    const { mid } = troll.entries.get(1)!;
    await room.setReaction('troll', mid!, '👍', true);
    await assert.rejects(room.setReaction('ann', mid!, '👍', true), { code: 'not_found' });
    assert.deepEqual(await room.reactionCounts([mid!]), {});
    await own.stop();
  });

  test('limits: text, key, what goes with it', async () => {
    const room = await rooms.open(await makeRoom(database));
    const refused = async (key: string, body: { text: string; [field: string]: unknown }) => {
      const outcome = await room.publishMessage({ author: author('ann'), key, body });
      return outcome.kind === 'refused' ? outcome.code : outcome.kind;
    };
    assert.equal(await refused('k', { text: 'x'.repeat(8193) }), 'too_long');
    assert.equal(await refused('k', { text: 'é'.repeat(4097) }), 'too_long');
    assert.equal(await refused('k', { text: '' }), 'bad_request');
    assert.equal(await refused('', { text: 'x' }), 'bad_request');
    assert.equal(await refused('k'.repeat(65), { text: 'x' }), 'bad_request');
    assert.equal(await refused('k\n', { text: 'x' }), 'bad_request');
    assert.equal(await refused('k', { text: 'x', more: 'y'.repeat(4096) }), 'too_long');
    assert.equal(await refused('all', { text: '\u007f\ufffd"\u0001'.repeat(1000), reply: 'x' }), 'published');
    // Two of these would be one message: UTF-8 makes U+FFFD of both.
    for (const half of ['\ud800', '\udfff', '\u0000']) {
      assert.equal(await refused(`k${half}`, { text: 'x' }), 'bad_request');
      assert.equal(await refused('k', { text: `x${half}` }), 'bad_request');
      assert.equal(await refused('k', { text: 'x', mentions: [half] }), 'bad_request');
    }
    assert.equal(room.head, 1);
    room.release();
  });

  test('held, refused and masked; a retry does not meet the judge', async () => {
    let judged = 0;
    const { rooms: own, held } = makeRooms(database, roomLog, {
      reviewer: {
        review({ body }) {
          judged++;
          if (body.text === 'maybe') return { kind: 'hold', reason: 'spam' };
          if (body.text === 'never') return { kind: 'refuse', code: 'blocked', reason: 'No.' };
          return { kind: 'allow', text: body.text.replace('damn', '****') };
        },
      },
    });
    const room = await own.open(await makeRoom(database));
    const member = new Member(room);
    const outcome = await publish(room, 'ann', 'h', 'maybe');
    assert.equal(outcome.kind, 'held');
    assert.equal(member.cursor, 0);
    const refused = await publish(room, 'ann', 'n', 'never');
    assert.deepEqual(refused.kind === 'refused' && [refused.code, refused.retryMs], ['blocked', undefined]);
    const first = await say(room, 'ann', 'd', 'damn');
    const before = judged;
    assert.equal((await say(room, 'ann', 'd', 'never')).offset, first.offset);
    assert.equal(judged, before);
    const said = await room.publishHeld(held[0]!);
    assert.equal((await room.publishHeld(held[0]!)).offset, said.offset);
    await member.until(() => member.cursor === 2);
    assert.deepEqual(member.texts, ['****', 'maybe']);
    const approved = member.entries.get(2)!;
    assert.equal(approved.mid, held[0]!.mid);
    assert.equal(approved.sentAt, held[0]!.saidAtMs);
    await own.stop();
  });

  test('reactions are absolute counts, told once a second, kept, limited', async () => {
    const room = await rooms.open(await makeRoom(database));
    const member = new Member(room);
    const { mid } = await say(room, 'ann', 'k', 'hello');
    await Promise.all(['a', 'b', 'c'].map((who) => room.setReaction(who, mid, '👍', true)));
    await room.setReaction('a', mid, '👍', true);
    await room.setReaction('b', mid, '👍', false);
    await room.setReaction('b', mid, '👩‍👩‍👧', true);
    const last = () => (member.events.at(-1)?.counts as Record<string, Record<string, number>> | undefined)?.[mid];
    await member.until(() => last()?.['👩‍👩‍👧'] === 1);
    assert.deepEqual(last(), { '👍': 2, '👩‍👩‍👧': 1 });
    assert.deepEqual(await room.reactionCounts([mid, 'x']), { [mid]: { '👍': 2, '👩‍👩‍👧': 1 } });
    await assert.rejects(room.setReaction('a', mid, 'text', true), { code: 'bad_request' });
    await assert.rejects(room.setReaction('a', mid, '7', true), { code: 'bad_request' });
    await assert.rejects(room.setReaction('a', 'A'.repeat(22), '👍', true), { code: 'not_found' });
    await Promise.all([...'😀😁😂😃😄😅😆😇😈😉😊😋😌😍😎'].map((emoji) => room.setReaction('zed', mid, emoji, true)));
    const counts = (await room.reactionCounts([mid]))[mid]!;
    assert.equal(Object.keys(counts).length, 12);
    await room.eraseMessages({ mids: [mid] }, by);
    assert.deepEqual(await room.reactionCounts([mid]), {});
    member.leave();
  });

  test('found by id and by slug; a deleted channel closes its room', async () => {
    const id = await makeRoom(database, 'the-slug');
    assert.equal((await rooms.find('the-slug'))?.id, id);
    assert.equal((await rooms.find(id))?.slug, 'the-slug');
    assert.equal(await rooms.find('nothing'), undefined);
    await assert.rejects(rooms.open('00000000-0000-4000-8000-00000000abcd'), { code: 'not_found' });
    const room = await rooms.open(id);
    const member = new Member(room);
    await say(room, 'ann', 'k', 'hello');
    await database.query("delete from channels where slug = 'the-slug'");
    await rooms.rereadRoom(id);
    assert.equal(member.closed, 'deleted');
    assert.equal(await rooms.find('the-slug'), undefined);
    assert.equal(await roomLog.read(id, 0, 1), undefined);
    assert.deepEqual((await database.query('select 1 from messages where room_id = $1', [id])).rows, []);
    const outcome = await publish(room, 'ann', 'k2', 'hello?');
    assert.equal(outcome.kind === 'refused' && outcome.code, 'not_found');
    member.leave();
  });

  test('an export has everything, in order', async () => {
    const room = await rooms.open(await makeRoom(database));
    await Promise.all(Array.from({ length: 1100 }, (_, i) => say(room, 'ann', `k${i}`, `text ${i}`)));
    await room.appendEntry({ type: 'now', payload: { title: 'Song' } });
    const lines = [];
    for await (const entry of rooms.export(room.id)) lines.push(entry);
    assert.deepEqual(
      lines.map((line) => line.offset),
      Array.from({ length: 1101 }, (_, i) => i + 1),
    );
    assert.equal(lines.at(-1)!.title, 'Song');
    const replay = await rooms.readBetween(room.id, Date.parse(lines[0]!.at), Date.parse(lines.at(-1)!.at) + 1, 1000, 500);
    assert.equal(replay.length, 101);
    room.release();
  });
});
