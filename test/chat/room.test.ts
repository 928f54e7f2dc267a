import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import type { Rooms, RoomsOptions } from '../../src/chat/rooms/rooms.js';
import { Member, makeRoom, makeRooms, publish, say } from '../support/chat-rooms.js';
import { openTestDatabase } from '../support/database.js';
import { FastClock, FaultyDatabase, FaultyLink, Gate, LogServer } from '../support/faulty-chat.js';
import { eventually } from '../support/process.js';

const by = { id: 'mod', name: 'Mod' };

describe('a room between a log and a database that fail', () => {
  let database: Database;
  const clock = new FastClock(10);
  const started: Rooms[] = [];
  let server: LogServer;
  before(async () => {
    database = await openTestDatabase();
    server = new LogServer(clock);
  });
  afterEach(async () => {
    await Promise.all(started.splice(0).map((rooms) => rooms.stop()));
  });
  after(async () => {
    clock.halt();
    await server.inner.stop();
    await database.stop();
  });

  function start(options: Partial<RoomsOptions> = {}) {
    const logGate = new Gate();
    const databaseGate = new Gate();
    const link = new FaultyLink(server, logGate);
    const { rooms } = makeRooms(new FaultyDatabase(database, databaseGate), link, { clock, ...options });
    rooms.start();
    started.push(rooms);
    return { rooms, link, logGate, databaseGate };
  }

  test('PostgreSQL is away: delivery goes on, acknowledgements wait, and come', async () => {
    const { rooms, databaseGate } = start();
    const room = await rooms.open(await makeRoom(database));
    const member = new Member(room);
    await say(room, 'ann', 'first', 'first');
    const first = room.epoch;
    await server.wipe();
    await eventually('the room is begun anew', () => (room.epoch > first ? true : undefined));
    // The first minutes of a later epoch want PostgreSQL: what the log knew is gone.
    databaseGate.isCut = true;
    const early = await publish(room, 'ann', 'early', 'early');
    assert.deepEqual(early.kind === 'refused' && [early.code, early.retryMs], ['busy', 1000]);
    databaseGate.isCut = false;
    await database.query("update room_epochs set opened_at = opened_at - interval '10 minutes' where room_id = $1", [room.id]);
    const { rooms: other, databaseGate: gate } = start();
    const there = await other.open(room.id);
    gate.isCut = true;
    const outcomes = await Promise.all(Array.from({ length: 50 }, (_, i) => publish(there, 'bob', `k${i}`, `text ${i}`)));
    await member.until(() => member.cursor === 51);
    let acked = 0;
    const commits = outcomes.map((outcome) => {
      assert.equal(outcome.kind, 'published');
      const { committed } = outcome as Extract<typeof outcome, { kind: 'published' }>;
      return committed.then((commit) => {
        acked++;
        return commit;
      });
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(acked, 0);
    assert.equal(other.stats.pending, 50);
    gate.isCut = false;
    for (const commit of await Promise.all(commits)) assert.equal(commit.kind, 'stored');
    assert.equal(other.stats.pending, 0);
  });

  test('what waits for PostgreSQL is bounded: then the room is busy, and nothing is appended', async () => {
    const { rooms, databaseGate } = start({ maxPendingBytes: 10_000 });
    const id = await makeRoom(database);
    await rooms.withRoom(id, (room) => say(room, 'ann', 'first', 'first'));
    await database.query("update room_epochs set opened_at = opened_at - interval '10 minutes' where room_id = $1", [id]);
    const { rooms: other, databaseGate: gate } = start({ maxPendingBytes: 10_000 });
    const room = await other.open(id);
    gate.isCut = true;
    const kinds: string[] = [];
    for (let i = 0; i < 40; i++) {
      const outcome = await publish(room, 'bob', `k${i}`, 'x'.repeat(500));
      kinds.push(outcome.kind === 'refused' ? outcome.code : outcome.kind);
    }
    const published = kinds.filter((kind) => kind === 'published').length;
    assert.deepEqual(kinds, [...Array(published).fill('published'), ...Array(40 - published).fill('busy')]);
    assert.ok(published > 0 && published < 20, `${published}`);
    assert.equal(room.head, 1 + published);
    gate.isCut = false;
    databaseGate.isCut = false;
    await say(room, 'bob', 'k39', 'x');
  });

  test('a subscription that is deaf without knowing is found out, though nothing more is said', async () => {
    const one = start();
    const two = start();
    const id = await makeRoom(database);
    const room = await one.rooms.open(id);
    const deaf = new Member(await two.rooms.open(id));
    two.link.isDeaf = true;
    await say(room, 'ann', 'a', 'unheard');
    await deaf.until(() => deaf.cursor === 1);
    // Its own entries it knows of at once.
    await say(deaf.room, 'bob', 'b', 'mine');
    await deaf.until(() => deaf.cursor === 2);
    assert.deepEqual(deaf.texts, ['unheard', 'mine']);
    assert.deepEqual(deaf.faults, []);
  });

  test('what a process that died had put into the log only is stored by another', async () => {
    const one = start();
    const two = start();
    const id = await makeRoom(database);
    const room = await one.rooms.open(id);
    const { mid, offset } = await say(room, 'ann', 'a', 'to be deleted');
    const member = new Member(await two.rooms.open(id));
    await database.query("update room_epochs set opened_at = opened_at - interval '10 minutes' where room_id = $1", [id]);
    const three = start();
    const dying = await three.rooms.open(id);
    three.databaseGate.isDead = true;
    const outcome = await publish(dying, 'bob', 'b', 'orphan');
    assert.equal(outcome.kind, 'published');
    // As a deletion does once it has found what it deletes stored.
    await three.link.append({
      roomId: id,
      epoch: dying.epoch,
      type: 'del',
      payload: JSON.stringify({ offsets: [offset], mids: [mid], by }),
    });
    await member.until(() => member.cursor === 3);
    three.logGate.isDead = true;
    started.splice(started.indexOf(three.rooms), 1);
    for (;;) {
      const { rows } = await database.query<{ type: string }>('select type from messages where room_id = $1 order by "offset"', [id]);
      if (rows.length === 3) {
        // The deletion too, with what it deletes.
        assert.deepEqual(rows, [{ type: 'gone' }, { type: 'msg' }, { type: 'del' }]);
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const again = await say(member.room, 'bob', 'b', 'orphan');
    assert.deepEqual([again.offset, again.dup], [2, true]);
  });

  test('what was never stored is withdrawn with its epoch, and a hole is filled', async () => {
    const one = start();
    const id = await makeRoom(database);
    const room = await one.rooms.open(id);
    const member = new Member(room);
    await say(room, 'ann', 'a', 'kept');
    await database.query("update room_epochs set opened_at = opened_at - interval '10 minutes' where room_id = $1", [id]);
    const two = start();
    const there = await two.rooms.open(id);
    two.databaseGate.isCut = true;
    const lost = await publish(there, 'bob', 'b', 'lost');
    await member.until(() => member.cursor === 2);
    await say(room, 'ann', 'c', 'above the hole');
    await member.until(() => member.cursor === 3);
    await server.wipe();
    await say(room, 'ann', 'd', 'after');
    await member.until(() => member.cursor === 4);
    assert.deepEqual(
      member.resets.map(({ keep }) => keep),
      [1],
    );
    assert.deepEqual(member.texts, ['kept', 'above the hole', 'after']);
    assert.equal(member.entries.get(2)!.t, 'gone');
    assert.deepEqual(member.faults, []);
    two.databaseGate.isCut = false;
    assert.equal(lost.kind === 'published' && (await lost.committed).kind, 'resend');
    assert.equal((await say(there, 'bob', 'b', 'lost')).offset, 5);
  });

  test('a log that was set back under its epoch is not believed', async () => {
    const { rooms } = start();
    const id = await makeRoom(database);
    const room = await rooms.open(id);
    const member = new Member(room);
    for (let i = 0; i < 5; i++) await say(room, 'ann', `k${i}`, `text ${i}`);
    const before = room.epoch;
    await server.setBack(id, 2);
    const place = await say(room, 'ann', 'k5', 'text 5');
    await member.until(() => member.cursor >= place.offset && member.entries.get(place.offset)?.mid === place.mid);
    const { rows } = await database.query<{ mid: string }>(
      'select mid from messages where room_id = $1 and type = \'msg\' order by "offset"',
      [id],
    );
    assert.deepEqual(
      [...member.entries.values()].flatMap((entry) => entry.mid ?? []),
      rows.map((row) => row.mid),
    );
    assert.equal(rows.length, 6);
    assert.ok(room.epoch > before);
  });

  test('what is older than the ring comes from the log, what is older than that from PostgreSQL, without a hole', async () => {
    const { rooms } = start({ maxRingBytes: 5000 });
    const id = await makeRoom(database);
    const room = await rooms.open(id);
    await Promise.all(Array.from({ length: 1300 }, (_, i) => say(room, 'ann', `k${i}`, `text ${i}`)));
    assert.ok(rooms.stats.ringBytes <= 5000);
    for (;;) {
      const page = await server.inner.read(id, 0, 1);
      if (page!.entries[0]!.offset > 200) break;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const member = new Member(room, 0);
    await member.until(() => member.cursor === 1300);
    assert.equal(member.entries.size, 1300);
    assert.deepEqual(member.faults, []);
    const { frames } = await room.readPage({ from: 250, to: 349, limit: 100 });
    assert.deepEqual(
      frames.map((frame) => frame.offset),
      Array.from({ length: 100 }, (_, i) => 250 + i),
    );
  });
});
