import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import { KEPT } from '../../src/backing/room-log/room-log.js';
import { ConcurrencyGate } from '../../src/chat/rooms/concurrency-gate.js';
import { PAGE_LIMITS, PageLimits, PagesLimited } from '../../src/chat/rooms/page-limits.js';
import type { Room } from '../../src/chat/rooms/room.js';
import type { Rooms } from '../../src/chat/rooms/rooms.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { entryOf, makeRoom, makeRooms, say } from '../support/chat-rooms.js';
import { openTestDatabase } from '../support/database.js';
import { type AnyFrame, ChatWorld, roomId } from './chat-world.js';

const isLimited = (error: unknown) => error instanceof PagesLimited && error.code === 'rate_limited' && error.retryMs > 0;
const span = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

test('pages are counted by connection or account and by address, and come back with time', () => {
  const clock = new FakeClock();
  const limits = new PageLimits(clock);
  const guest = (n: number) => ({ id: `g${n}`, isGuest: true, address: '192.0.2.1' });
  const taken = (take: () => void) => {
    for (let count = 0; ; count++) {
      try {
        take();
      } catch (error) {
        assert.ok(isLimited(error));
        return count;
      }
    }
  };
  const { guest: ofGuest, account, address, reads, joins } = PAGE_LIMITS;
  assert.ok(ofGuest.burst < account.burst && ofGuest.perS < account.perS);
  assert.equal(
    taken(() => limits.takePage(guest(0))),
    ofGuest.burst,
  );
  assert.equal(
    taken(() => limits.takePage({ id: 'a', isGuest: false, address: '192.0.2.9' })),
    account.burst,
  );
  assert.equal(
    taken(() => limits.takeJoin('c')),
    joins.burst,
  );
  clock.advance(1000);
  assert.equal(
    taken(() => limits.takePage(guest(0))),
    ofGuest.perS,
  );
  // All guests of an address together; what was refused has taken nothing.
  let n = 1;
  assert.ok(taken(() => limits.takePage(guest(n++))) >= address.burst - ofGuest.burst);
  assert.equal(
    taken(() => limits.takePage({ id: undefined, isGuest: true, address: '192.0.2.2' })),
    address.burst,
  );
  assert.equal(
    taken(() => limits.takeRead(guest(0))),
    reads.burst,
  );
});

test('few read at a time, in their order; too many are told so, and a read that fails leaves its place', async () => {
  const gate = new ConcurrencyGate();
  let reading = 0;
  let most = 0;
  const ends: ((failed: boolean) => void)[] = [];
  const read = (n: number) =>
    gate.run(async () => {
      most = Math.max(most, ++reading);
      const failed = await new Promise<boolean>((resolve) => ends.push(resolve));
      reading--;
      if (failed) throw new Error('it failed');
      return n;
    });
  const first = Array.from({ length: 202 }, (_, n) => read(n).catch(() => -n));
  await assert.rejects(read(999), { code: 'busy' });
  for (let n = 0; n < 202; n++) {
    while (ends.length === 0) await undefined;
    ends.shift()!(n % 3 === 1);
  }
  assert.deepEqual(
    await Promise.all(first),
    span(0, 201).map((n) => (n % 3 === 1 ? -n : n)),
  );
  assert.equal(most, 2);
});

describe('pages of a room', () => {
  const COUNT = KEPT + 400;
  let database: Database;
  let reads = 0;
  let roomLog: MemoryRoomLog;
  let rooms: Rooms;
  let room: Room;
  before(async () => {
    const inner = await openTestDatabase();
    database = {
      ...inner,
      query: (sql, values) => {
        if (/from messages where room_id = \$1 and "offset"/.test(sql)) reads++;
        return inner.query(sql, values);
      },
    };
    roomLog = new MemoryRoomLog({ clock: new SystemClock(), log: silentLog });
    ({ rooms } = makeRooms(database, roomLog));
    room = await rooms.open(await makeRoom(database));
    await Promise.all(Array.from({ length: COUNT }, (_, i) => say(room, 'ann', `k${i}`, `text ${i}`)));
  });
  after(async () => {
    await rooms?.stop();
    await roomLog?.stop();
    await database?.stop();
  });

  test('a crowd that reads the same or nearly the same costs one read a block, each with the right entries', async () => {
    const old = COUNT - KEPT;
    reads = 0;
    let charged = 0;
    const pages = await Promise.all(
      Array.from({ length: 500 }, (_, i) => room.readPage({ before: old - (i % 50), limit: 50, onRead: () => charged++ })),
    );
    for (const [i, { frames }] of pages.entries())
      assert.deepEqual(
        frames.map(({ offset }) => offset),
        span(old - (i % 50) - 50, old - (i % 50) - 1),
      );
    assert.ok(reads <= 2 && charged <= 2, `${reads} reads, ${charged} charged`);
    // At the head it is the log that is read, which nobody is charged for.
    charged = 0;
    const fresh = await room.readPage({ before: COUNT - 100, limit: 100, onRead: () => charged++ });
    assert.equal(fresh.frames.length, 100);
    assert.equal(charged, 0);
  });

  test('who is charged too much reads nothing', async () => {
    reads = 0;
    const limited = () => {
      throw new PagesLimited(1000);
    };
    await assert.rejects(room.readPage({ before: 150, limit: 100, onRead: limited }), isLimited);
    assert.equal(reads, 0);
    assert.equal((await room.readPage({ before: 150, limit: 100 })).frames.length, 100);
    assert.equal((await room.readPage({ before: 140, limit: 10, onRead: limited })).frames.length, 10, 'what is at hand is no read');
  });

  test('what is erased is not served again from what was read before', async () => {
    const text = async (offset: number) => {
      const { frames } = await room.readPage({ from: offset, to: offset, limit: 1 });
      return entryOf(frames[0]!).body?.text ?? entryOf(frames[0]!).t;
    };
    const mid = async (offset: number) => entryOf((await room.readPage({ from: offset, to: offset, limit: 1 })).frames[0]!).mid!;
    assert.equal(await text(70), 'text 69');
    await room.eraseMessages({ mids: [await mid(70)] }, { id: 'mod', name: 'Mod' });
    assert.equal(await text(70), 'gone');
    assert.equal(await text(71), 'text 70');
    await room.eraseMessages({ userId: 'ann' }, { id: 'mod', name: 'Mod' });
    assert.equal(await text(71), 'gone');
  });
});

test('500 people of one address who join and read two pages back are not refused; one who goes on for ever is, and only he', async () => {
  const world = await ChatWorld.start();
  try {
    const room = world.rooms.get(roomId(1))!;
    for (let n = 0; n < 300; n++) room.message(`text ${n}`);
    const refused: AnyFrame[] = [];
    for (let group = 0; group < 10; group++) {
      await Promise.all(
        Array.from({ length: 50 }, async () => {
          const guest = await world.joined(undefined);
          let before = guest.all('joined')[0].entries[0].offset;
          for (const id of ['p1', 'p2']) {
            const page = await guest.ask({ t: 'history', id, room: 'radio', before });
            if (page.t !== 'page') refused.push(page);
            else before = page.entries[0].offset;
          }
          await guest.close();
        }),
      );
    }
    assert.deepEqual(refused, []);

    const greedy = await world.joined(undefined);
    const other = await world.joined(undefined);
    let pages = 0;
    for (let n = 0; n < 2 * PAGE_LIMITS.guest.burst; n++) {
      const answer = await greedy.ask({ t: 'history', id: `h${n}`, room: 'radio', before: 200 });
      if (answer.t === 'page') pages++;
      else assert.ok(answer.code === 'rate_limited' && answer.retryMs > 0);
    }
    assert.equal(pages, PAGE_LIMITS.guest.burst);
    assert.equal((await other.ask({ t: 'history', id: 'o', room: 'radio', before: 200 })).t, 'page');
    await world.pass(1000);
    assert.equal((await greedy.ask({ t: 'history', id: 'again', room: 'radio', before: 200 })).t, 'page');
    // Joining costs a page as well.
    const codes = new Set<string>();
    for (let n = 0; n < PAGE_LIMITS.joins.burst + 5; n++)
      codes.add((await greedy.ask({ t: 'join', id: `j${n}`, room: 'radio' })).code ?? 'joined');
    assert.deepEqual([...codes], ['joined', 'rate_limited']);
  } finally {
    await world.stop();
  }
});
