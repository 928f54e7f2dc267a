import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, describe, test } from 'node:test';
import {
  type Append,
  type AppendOutcome,
  type AppendRules,
  KEPT,
  KEY_MS,
  type LogEntry,
  MAX_PLACES,
  MAX_UNARCHIVED,
  type RoomLog,
  UNIQUE_MS,
} from '../../src/backing/room-log/room-log.js';

/** A log and the processes at it. */
export interface RoomLogWorld {
  /** One more process; where there can be only one, that one. */
  open(): Promise<RoomLog>;
  /** Moves the log's own clock; also back. */
  passTime(ms: number): void;
  stop(): Promise<void>;
}

export const EASY: AppendRules = { userId: 'ann', perS: 1000, burst: 1000, roomPerS: 1000, slowMs: 0 };

/** A follower that keeps what it is told. */
export function listener() {
  const entries: (LogEntry & { epoch: number })[] = [];
  let restored = 0;
  let seen = () => {};
  return {
    entries,
    offsets: () => entries.map(({ offset }) => offset),
    restored: () => restored,
    onEntry: (epoch: number, entry: LogEntry) => {
      entries.push({ epoch, ...entry });
      seen();
    },
    onRestored: () => {
      restored++;
      seen();
    },
    /** Resolves as soon as it holds; the test's own deadline ends it otherwise. */
    until: (holds: () => boolean) =>
      new Promise<void>((resolve) => {
        seen = () => {
          if (holds()) resolve();
        };
        seen();
      }),
  };
}

export const upTo = (last: number, first = 1) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** From 1 to `count`, a few hundred at once: each has a second for its answer, also on a machine that others use. */
async function inBursts(count: number, act: (i: number) => Promise<unknown>): Promise<void> {
  for (let done = 0; done < count; done += 250) await Promise.all(upTo(Math.min(250, count - done)).map((i) => act(done + i)));
}

export function offsetOf(outcome: AppendOutcome): number {
  assert.ok(outcome.kind === 'appended' || outcome.kind === 'duplicate', JSON.stringify(outcome));
  return outcome.offset;
}

/** What every maker of RoomLog promises. */
export function roomLogContract(name: string, make: () => Promise<RoomLogWorld>): void {
  describe(`${name}:`, { timeout: 60_000 }, () => {
    const worlds: RoomLogWorld[] = [];
    after(async () => {
      for (const world of worlds) await world.stop();
    });
    let shared: Promise<RoomLogWorld> | undefined;
    const world = () => {
      shared ??= make().then((made) => {
        worlds.push(made);
        return made;
      });
      return shared;
    };
    /** A room of its own for each test, begun under epoch 1. */
    const begin = async (head = 0) => {
      const log = await (await world()).open();
      const roomId = randomUUID();
      assert.equal(await log.open({ roomId, epoch: 1, head, atMs: 0, entries: [] }), true);
      let count = 0;
      const say = (append: Partial<Append> = {}, by = log) =>
        by.append({ roomId, epoch: 1, type: 'msg', payload: `{"body":{"text":"${++count}"}}`, ...append });
      return { log, roomId, say };
    };

    test('a room that nobody has opened is not held', async () => {
      const log = await (await world()).open();
      const roomId = randomUUID();
      assert.deepEqual(await log.append({ roomId, epoch: 1, type: 'msg', payload: '{}' }), { kind: 'reopen' });
      assert.equal(await log.read(roomId, 0, 10), undefined);
      await log.archived(roomId, 1, 5);
      await log.erase(roomId, 1, 1, 'gone', '{}');
      await log.remove(roomId);
      assert.equal(await log.read(roomId, 0, 10), undefined);
    });

    test('offsets go on at the head that was given, and what was appended is read as it was', async () => {
      const { log, roomId, say } = await begin(41);
      const payload = '{"body":{"text":"zwölf Boxkämpfer 🥊 \\u0000\\n \\ud800"},"n":" 1 2 3\t"}\r\n';
      const first = await say({ payload, key: 'κλειδί 1 2' });
      const second = await say({ type: 'del', payload: '' });
      assert.deepEqual([first.kind, offsetOf(first), second.kind, offsetOf(second)], ['appended', 42, 'appended', 43]);
      const page = await log.read(roomId, 41, 10);
      assert.deepEqual(page, {
        epoch: 1,
        head: 43,
        archived: 41,
        entries: [
          { offset: 42, atMs: 'atMs' in first && first.atMs, type: 'msg', payload, key: 'κλειδί 1 2' },
          { offset: 43, atMs: 'atMs' in second && second.atMs, type: 'del', payload: '', key: undefined },
        ],
      });
    });

    test('pages begin where they are told to and end at the limit', async () => {
      const { log, roomId, say } = await begin();
      await Promise.all(upTo(30).map(() => say()));
      const offsets = async (from: number, limit: number) => (await log.read(roomId, from, limit))?.entries.map(({ offset }) => offset);
      assert.deepEqual(await offsets(0, 10), upTo(10));
      assert.deepEqual(await offsets(25, 10), upTo(30, 26));
      assert.deepEqual(await offsets(30, 10), []);
      assert.deepEqual(await offsets(99, 10), []);
      assert.deepEqual(await offsets(-5, 2), [1, 2]);
      assert.deepEqual(await offsets(0, 0), []);
      assert.deepEqual(await offsets(0, 1_000_000), upTo(30));
    });

    test('many at once from several processes: contiguous, in one order for every follower, and the time never falls', async () => {
      const { log, roomId } = await begin();
      const processes = [log, await (await world()).open(), await (await world()).open()];
      const followers = await Promise.all(
        processes.map(async (process) => {
          const follower = listener();
          await process.follow(roomId, follower);
          return follower;
        }),
      );
      const outcomes = await Promise.all(
        upTo(600).map((i) => processes[i % 3]!.append({ roomId, epoch: 1, type: 'msg', payload: `{"i":${i}}`, key: `k${i}`, rules: EASY })),
      );
      assert.deepEqual(
        outcomes.map(offsetOf).sort((a, b) => a - b),
        upTo(600),
      );
      for (const follower of followers) {
        await follower.until(() => follower.entries.length >= 600);
        assert.deepEqual(follower.offsets(), upTo(600));
        assert.deepEqual(follower.entries, followers[0]!.entries);
        for (const [i, outcome] of outcomes.entries()) {
          const entry = follower.entries[offsetOf(outcome) - 1]!;
          assert.deepEqual([entry.epoch, entry.payload, entry.key], [1, `{"i":${i + 1}}`, `k${i + 1}`]);
        }
      }
      const page = await log.read(roomId, 0, 1000);
      assert.deepEqual(
        page?.entries,
        followers[0]!.entries.map(({ epoch, ...entry }) => entry),
      );
      for (const [i, { atMs }] of page!.entries.entries()) if (i > 0) assert.ok(atMs >= page!.entries[i - 1]!.atMs);
    });

    test('a clock that is set back does not set an entry back', async () => {
      const { passTime } = await world();
      const { log, roomId, say } = await begin();
      await say({ rules: { ...EASY, perS: 1, burst: 1 } });
      passTime(-3_600_000);
      const slow = await say({ rules: { ...EASY, perS: 1, burst: 1 } });
      passTime(1100);
      await say({ rules: { ...EASY, perS: 1, burst: 1 } });
      passTime(3_600_000);
      const page = await log.read(roomId, 0, 10);
      assert.deepEqual(slow.kind, 'refused');
      assert.ok(slow.kind === 'refused' && slow.retryMs <= 1000, `nobody is kept out for an hour: ${JSON.stringify(slow)}`);
      assert.equal(page!.entries.length, 2);
      assert.ok(page!.entries[1]!.atMs >= page!.entries[0]!.atMs);
    });

    test('the same key is one entry, at once and from several processes, and its first outcome', async () => {
      const { log, roomId } = await begin();
      const other = await (await world()).open();
      const outcomes = await Promise.all(
        upTo(20).map((i) => (i % 2 ? log : other).append({ roomId, epoch: 1, type: 'msg', payload: `{"i":${i}}`, key: 'once' })),
      );
      assert.equal(outcomes.filter(({ kind }) => kind === 'appended').length, 1);
      assert.equal(new Set(outcomes.map((outcome) => JSON.stringify({ ...outcome, kind: '' }))).size, 1);
      assert.equal((await log.read(roomId, 0, 10))?.head, 1);
      assert.equal(offsetOf(await log.append({ roomId, epoch: 1, type: 'msg', payload: '{}', key: 'twice' })), 2);
    });

    test('a key is known for five minutes', async () => {
      const { passTime } = await world();
      const { say } = await begin();
      await say({ key: 'k' });
      passTime(KEY_MS - 5000);
      assert.equal((await say({ key: 'k' })).kind, 'duplicate');
      assert.equal((await say({ key: 'later' })).kind, 'appended');
      passTime(5000);
      assert.equal((await say({ key: 'k' })).kind, 'appended');
      assert.equal((await say({ key: 'later' })).kind, 'duplicate', 'and the one from before is still known');
      passTime(KEY_MS);
      assert.equal((await say({ key: 'k' })).kind, 'appended');
      passTime(10 * KEY_MS);
      assert.equal((await say({ key: 'k' })).kind, 'appended');
    });

    test('a key of one room is none of another', async () => {
      const one = await begin();
      const two = await begin();
      await one.say({ key: 'k' });
      assert.equal((await two.say({ key: 'k' })).kind, 'appended');
    });

    test('an account has a bucket in each room, and is told when there is a token again', async () => {
      const { passTime } = await world();
      const { say } = await begin();
      const other = await begin();
      const rules = { ...EASY, perS: 2, burst: 3 };
      const kinds = (await Promise.all(upTo(5).map(() => say({ rules })))).map(({ kind }) => kind);
      assert.deepEqual(kinds, ['appended', 'appended', 'appended', 'refused', 'refused']);
      const refused = await say({ rules });
      assert.ok(refused.kind === 'refused' && refused.code === 'rate_limited' && refused.retryMs > 0 && refused.retryMs <= 500);
      assert.equal((await say({ rules: { ...rules, userId: 'bob' } })).kind, 'appended');
      assert.equal((await say()).kind, 'appended', 'a process speaks as it likes');
      assert.equal((await other.say({ rules })).kind, 'appended');
      passTime(500);
      assert.equal((await say({ rules })).kind, 'appended');
      passTime(3_600_000);
      assert.deepEqual(
        (await Promise.all(upTo(4).map(() => say({ rules })))).map(({ kind }) => kind),
        ['appended', 'appended', 'appended', 'refused'],
        'an hour fills the bucket and no more',
      );
    });

    test('the room has a bucket for all accounts together', async () => {
      const { passTime } = await world();
      const { log, roomId, say } = await begin();
      const by = (i: number) => say({ rules: { ...EASY, userId: `u${i}`, roomPerS: 4 } });
      const outcomes = await Promise.all(upTo(8).map(by));
      assert.deepEqual(outcomes.map(({ kind }) => kind).filter((kind) => kind === 'appended').length, 4);
      const refused = outcomes[7]!;
      assert.ok(refused.kind === 'refused' && refused.code === 'rate_limited' && refused.retryMs > 0 && refused.retryMs <= 250);
      passTime(250);
      assert.equal((await by(9)).kind, 'appended');
      assert.equal((await log.read(roomId, 0, 10))?.head, 5);
    });

    test('slow mode: one message, then the wait', async () => {
      const { passTime } = await world();
      const { say } = await begin();
      const rules = { ...EASY, slowMs: 30_000 };
      assert.equal((await say({ rules, key: 'a' })).kind, 'appended');
      const refused = await say({ rules });
      assert.ok(refused.kind === 'refused' && refused.code === 'slow_mode' && refused.retryMs > 0 && refused.retryMs <= 30_000);
      assert.equal((await say({ rules, key: 'a' })).kind, 'duplicate', 'a retry does not meet the rules');
      assert.equal((await say({ rules: { ...rules, userId: 'bob' } })).kind, 'appended');
      passTime(15_000);
      const again = await say({ rules });
      assert.ok(again.kind === 'refused' && again.retryMs <= 15_000, 'what was refused does not prolong it');
      passTime(15_000);
      assert.equal((await say({ rules })).kind, 'appended');
      assert.equal((await say({ rules: EASY })).kind, 'appended', 'slow mode is over');
    });

    test('unique mode: the same text once an hour, by anybody', async () => {
      const { passTime } = await world();
      const { say } = await begin();
      const rules = (uniqueHash: string, userId = 'ann') => ({ ...EASY, userId, uniqueHash });
      assert.equal((await say({ rules: rules('h1'), key: 'a' })).kind, 'appended');
      const refused = await say({ rules: rules('h1', 'bob') });
      assert.ok(refused.kind === 'refused' && refused.code === 'not_unique' && refused.retryMs > UNIQUE_MS - 60_000);
      assert.equal((await say({ rules: rules('h1'), key: 'a' })).kind, 'duplicate');
      passTime(UNIQUE_MS - 60_000);
      assert.equal((await say({ rules: rules('h2') })).kind, 'appended');
      assert.equal((await say({ rules: rules('h1') })).kind, 'refused');
      passTime(60_000);
      assert.equal((await say({ rules: rules('h1') })).kind, 'appended');
      assert.equal((await say({ rules: rules('h2') })).kind, 'refused');
    });

    test('what is refused counts nowhere', async () => {
      const { say } = await begin();
      const slow = { ...EASY, slowMs: 60_000, roomPerS: 3 };
      await say({ rules: slow });
      for (let i = 0; i < 10; i++) assert.equal((await say({ rules: { ...slow, uniqueHash: 'h' }, key: 'mine' })).kind, 'refused');
      const bob = { ...EASY, userId: 'bob', uniqueHash: 'h', roomPerS: 3, perS: 1, burst: 1 };
      assert.equal((await say({ rules: bob, key: 'mine' })).kind, 'appended', 'neither token, text nor key was used up');
      const refused = await say({ rules: { ...bob, uniqueHash: 'other' }, key: 'next' });
      assert.ok(refused.kind === 'refused' && refused.code === 'rate_limited');
      assert.equal((await say({ rules: { ...EASY, userId: 'eve', uniqueHash: 'other', roomPerS: 3 }, key: 'next' })).kind, 'appended');
    });

    test('an account that is barred is not taken by any process, until it ends or is lifted; what was taken before is a duplicate', async () => {
      const { log, roomId, say } = await begin();
      const other = await (await world()).open();
      const userId = 'issuer:a: b\u{1f600}';
      const rules = { ...EASY, userId };
      offsetOf(await say({ rules, key: 'before' }));
      await log.bar(roomId, userId, 60_000, 'banned');
      for (const process of [log, other])
        assert.deepEqual(await process.append({ roomId, epoch: 1, type: 'msg', payload: '{}', rules }), { kind: 'barred', why: 'banned' });
      await log.bar(roomId, userId, 60_000, 'timed_out');
      for (const process of [log, other])
        assert.deepEqual(await process.append({ roomId, epoch: 1, type: 'msg', payload: '{}', rules }), {
          kind: 'barred',
          why: 'timed_out',
        });
      assert.equal((await say({ rules, key: 'before' })).kind, 'duplicate');
      offsetOf(await say({ rules: EASY }));
      offsetOf(await say());
      await other.bar(roomId, userId, 0, 'timed_out');
      offsetOf(await say({ rules }));
      await other.bar(roomId, userId, 60_000, 'timed_out');
      assert.ok(await log.open({ roomId, epoch: 2, head: 10, atMs: 0, entries: [] }));
      const again = () => log.append({ roomId, epoch: 2, type: 'msg', payload: '{}', rules });
      assert.equal((await again()).kind, 'barred', 'also when the room is begun anew');
      (await world()).passTime(60_001);
      assert.equal(offsetOf(await again()), 11);
      await assert.rejects(log.bar(roomId, '', 1, 'banned'), RangeError);
    });

    test('another epoch writes nothing and says reopen', async () => {
      const { log, roomId, say } = await begin();
      await say({ key: 'k' });
      for (const epoch of [0, 2]) assert.deepEqual(await say({ epoch }), { kind: 'reopen' });
      assert.equal(await log.open({ roomId, epoch: 1, head: 7, atMs: 0, entries: [] }), false);
      assert.equal(await log.open({ roomId, epoch: 0, head: 7, atMs: 0, entries: [] }), false);
      const page = await log.read(roomId, 0, 10);
      assert.deepEqual([page?.epoch, page?.head, page?.entries.length], [1, 1, 1]);
    });

    test('of several that open at once one does, and a higher epoch takes over', async () => {
      const { log, roomId, say } = await begin();
      const other = await (await world()).open();
      await say({ key: 'lost' });
      const opening = { roomId, epoch: 2, head: 0, atMs: 0, entries: [] };
      const opened = await Promise.all([log.open(opening), other.open(opening), log.open(opening), other.open(opening)]);
      assert.equal(opened.filter(Boolean).length, 1);
      assert.deepEqual(await say({ key: 'lost' }), { kind: 'reopen' });
      assert.deepEqual(await log.read(roomId, 0, 10), { epoch: 2, head: 0, archived: 0, entries: [] });
      const again = await say({ epoch: 2, key: 'lost' });
      assert.deepEqual([again.kind, offsetOf(again)], ['appended', 1], 'what was withdrawn is not known by its key');
    });

    test('an opening brings entries, their keys and the time of the newest', async () => {
      const log = await (await world()).open();
      const roomId = randomUUID();
      const { atMs: nowMs } = (await (await begin()).say()) as { atMs: number };
      const entry = (offset: number, atMs: number): LogEntry => ({
        offset,
        atMs,
        type: 'msg',
        payload: `{"i":${offset}}`,
        key: `k${offset}`,
      });
      const newestMs = nowMs + 60_000;
      const entries = [entry(8, nowMs - KEY_MS - 1000), entry(9, nowMs - 1000), entry(10, newestMs)];
      assert.equal(await log.open({ roomId, epoch: 5, head: 10, atMs: newestMs, entries }), true);
      assert.deepEqual(await log.read(roomId, 0, 10), { epoch: 5, head: 10, archived: 10, entries });
      const say = (key: string) => log.append({ roomId, epoch: 5, type: 'msg', payload: '{}', key });
      assert.deepEqual(await say('k9'), { kind: 'duplicate', epoch: 5, offset: 9, atMs: nowMs - 1000 });
      assert.deepEqual(await say('k10'), { kind: 'duplicate', epoch: 5, offset: 10, atMs: newestMs });
      const next = await say('k8');
      assert.ok(next.kind === 'appended' && next.offset === 11 && next.atMs >= newestMs, JSON.stringify(next));
    });

    test('an opening with a hole holds what is above it', async () => {
      const log = await (await world()).open();
      const entry = (offset: number): LogEntry => ({ offset, atMs: 1000, type: 'msg', payload: '{}', key: undefined });
      const held = async (head: number, entries: LogEntry[]) => {
        const roomId = randomUUID();
        assert.equal(await log.open({ roomId, epoch: 1, head, atMs: 1000, entries }), true);
        const page = await log.read(roomId, 0, 1000);
        assert.equal(page?.head, head);
        return page?.entries.map(({ offset }) => offset);
      };
      assert.deepEqual(await held(5, [entry(1), entry(2), entry(4), entry(5)]), [4, 5]);
      assert.deepEqual(await held(6, [entry(1), entry(2), entry(4), entry(5)]), []);
      assert.deepEqual(await held(1500, upTo(1500).map(entry)), upTo(1500, 501));
    });

    test('archived: by a head or by a list, over several processes, up to the first that is missing', async () => {
      const { log, roomId, say } = await begin();
      const other = await (await world()).open();
      await Promise.all(upTo(20).map(() => say()));
      const archived = async () => (await log.read(roomId, 0, 1))?.archived;
      await log.archived(roomId, 1, 3);
      assert.equal(await archived(), 3);
      await other.archived(roomId, 1, [6, 7, 9, 9]);
      assert.equal(await archived(), 3);
      await log.archived(roomId, 1, [5, 2, 21, 1000]);
      assert.equal(await archived(), 3);
      await log.archived(roomId, 1, [4]);
      assert.equal(await archived(), 7);
      await log.archived(roomId, 1, 5);
      assert.equal(await archived(), 7, 'never back');
      await other.archived(roomId, 1, 8);
      assert.equal(await archived(), 9);
      await log.archived(roomId, 2, 20);
      await log.archived(roomId, 0, [10]);
      assert.equal(await archived(), 9, 'another epoch is ignored');
      await log.archived(roomId, 1, 1_000_000);
      assert.equal(await archived(), 20, 'never above the head');
      await say();
      assert.equal(await archived(), 20);
    });

    test('what waits too long is found, until it is archived', async () => {
      const { passTime } = await world();
      const { log, roomId, say } = await begin();
      const quiet = await begin();
      const waiting = async (olderThanMs: number) =>
        (await log.unarchived(olderThanMs, 1000)).filter((found) => found.roomId === roomId || found.roomId === quiet.roomId);
      await say();
      await say();
      await say();
      assert.deepEqual(await waiting(60_000), []);
      assert.deepEqual(await waiting(0), [{ roomId, epoch: 1, archived: 0, head: 3 }]);
      passTime(60_000);
      assert.deepEqual(await waiting(60_000), [{ roomId, epoch: 1, archived: 0, head: 3 }]);
      await say();
      assert.deepEqual(await waiting(60_000), [{ roomId, epoch: 1, archived: 0, head: 4 }], 'the next one does not hide it');
      await log.archived(roomId, 1, [2, 3, 4]);
      assert.deepEqual(await waiting(60_000), [{ roomId, epoch: 1, archived: 0, head: 4 }], 'nor what others archive');
      await log.archived(roomId, 1, [1]);
      assert.deepEqual(await waiting(0), []);
      await say();
      passTime(60_000);
      await say();
      await log.archived(roomId, 1, 5);
      assert.deepEqual(await waiting(60_000), [], 'something moved');
      passTime(60_000);
      assert.deepEqual(await waiting(60_000), [{ roomId, epoch: 1, archived: 5, head: 6 }]);
      await quiet.say();
      passTime(60_000);
      assert.equal((await log.unarchived(60_000, 1)).length, 1);
      assert.equal((await waiting(60_000)).length, 2);
      await log.remove(roomId);
      assert.equal((await waiting(60_000)).length, 1);
      await quiet.log.archived(quiet.roomId, 1, 1);
    });

    test('where many rooms stand, in one question', async () => {
      const { log, roomId, say } = await begin();
      const others = await Promise.all(upTo(3).map(() => begin()));
      await say();
      await say();
      await others[0]!.say();
      const missing = randomUUID();
      const places = await log.places([roomId, missing, ...others.map((other) => other.roomId)]);
      assert.deepEqual(places.get(roomId), { epoch: 1, head: 2 });
      assert.deepEqual(places.get(others[0]!.roomId), { epoch: 1, head: 1 });
      assert.deepEqual(places.get(others[2]!.roomId), { epoch: 1, head: 0 });
      assert.equal(places.has(missing), false);
      assert.equal(places.size, 4);
      await log.remove(roomId);
      assert.equal((await log.places([roomId])).size, 0);
      assert.equal((await log.places([])).size, 0);
      await assert.rejects(log.places(Array.from({ length: MAX_PLACES + 1 }, () => roomId)), RangeError);
      await assert.rejects(log.places(['not a room']), RangeError);
    });

    test('nothing is trimmed that is not archived, nor of the newest thousand', async () => {
      const { log, roomId, say } = await begin();
      const first = async () => (await log.read(roomId, 0, 1))?.entries[0]?.offset;
      await inBursts(KEPT + 500, () => say());
      assert.equal(await first(), 1);
      await log.archived(roomId, 1, 200);
      assert.equal(await first(), 201);
      await log.archived(roomId, 1, KEPT + 500);
      assert.equal(await first(), 501);
      const page = await log.read(roomId, 0, 1000);
      assert.deepEqual(
        page?.entries.map(({ offset }) => offset),
        upTo(KEPT + 500, 501),
      );
    });

    test('busy when too many wait, until some are archived; a retry is still answered', async () => {
      const { log, roomId, say } = await begin();
      await inBursts(MAX_UNARCHIVED, (i) => say({ payload: '{}', key: `k${i}` }));
      assert.deepEqual(await say(), { kind: 'busy' });
      assert.deepEqual(await say({ rules: EASY }), { kind: 'busy' });
      assert.equal((await say({ key: 'k20000' })).kind, 'duplicate');
      assert.equal((await log.read(roomId, 0, 1))?.entries[0]?.offset, 1);
      await log.archived(roomId, 1, 1);
      assert.equal((await say()).kind, 'appended');
      assert.deepEqual(await say(), { kind: 'busy' });
      await log.remove(roomId);
    });

    test('an entry is replaced in its place', async () => {
      const { log, roomId, say } = await begin();
      await Promise.all(upTo(3).map((i) => say({ key: `k${i}` })));
      const before = (await log.read(roomId, 0, 10))!.entries;
      await log.erase(roomId, 1, 2, 'gone', '{"why":"ünwanted"}');
      await log.erase(roomId, 1, 0, 'gone', '{}');
      await log.erase(roomId, 1, 4, 'gone', '{}');
      // Of an epoch that has ended, and of one that is to come: there it is another entry's place.
      for (const epoch of [0, 2]) await log.erase(roomId, epoch, 3, 'gone', '{}');
      const page = await log.read(roomId, 0, 10);
      assert.deepEqual(page?.entries, [before[0], { ...before[1], type: 'gone', payload: '{"why":"ünwanted"}' }, before[2]]);
      assert.equal((await say({ key: 'k2' })).kind, 'duplicate');
      assert.equal(offsetOf(await say()), 4);
    });

    test('followers hear their room only, until they stop', async () => {
      const { log, roomId, say } = await begin();
      const other = await begin();
      const [one, two, elsewhere] = [listener(), listener(), listener()];
      const following = await log.follow(roomId, one);
      const twice = await log.follow(roomId, two);
      await log.follow(other.roomId, elsewhere);
      await say();
      await one.until(() => one.entries.length === 1);
      await two.until(() => two.entries.length === 1);
      following.stop();
      following.stop();
      await say();
      await two.until(() => two.entries.length === 2);
      twice.stop();
      await say();
      const third = listener();
      await log.follow(roomId, third);
      await say();
      await third.until(() => third.entries.length === 1);
      assert.deepEqual([one.offsets(), two.offsets(), third.offsets(), elsewhere.offsets()], [[1], [1, 2], [4], []]);
      assert.deepEqual([one.restored(), two.restored(), third.restored()], [0, 0, 0]);
    });

    test('a follower that throws harms nobody', async () => {
      const { log, roomId, say } = await begin();
      const well = listener();
      await log.follow(roomId, {
        onEntry: () => {
          throw new Error('on purpose');
        },
        onRestored: () => {},
      });
      await log.follow(roomId, well);
      assert.equal((await say()).kind, 'appended');
      assert.equal((await say()).kind, 'appended');
      await well.until(() => well.entries.length === 2);
    });

    test('a follower that appends keeps the order for the others', async () => {
      const { log, roomId, say } = await begin();
      const well = listener();
      await log.follow(roomId, {
        onEntry: (_, { offset }) => {
          if (offset < 5) say();
        },
        onRestored: () => {},
      });
      await log.follow(roomId, well);
      await say();
      await well.until(() => well.entries.length === 5);
      assert.deepEqual(well.offsets(), upTo(5));
    });

    test('a room that is removed is not held, and nothing of it is known', async () => {
      const { log, roomId, say } = await begin();
      await say({ key: 'k', rules: { ...EASY, uniqueHash: 'h' } });
      await log.remove(roomId);
      assert.deepEqual(await say({ key: 'k' }), { kind: 'reopen' });
      assert.equal(await log.read(roomId, 0, 10), undefined);
      assert.equal(await log.open({ roomId, epoch: 1, head: 0, atMs: 0, entries: [] }), true);
      assert.equal((await say({ key: 'k', rules: { ...EASY, uniqueHash: 'h' } })).kind, 'appended');
    });

    test('a room that was silent for less than a day is held', async () => {
      const { passTime } = await world();
      const { log, roomId, say } = await begin();
      await say();
      await log.archived(roomId, 1, 1);
      passTime(12 * 3_600_000);
      await say();
      await log.archived(roomId, 1, 2);
      passTime(12 * 3_600_000);
      await (await begin()).say();
      assert.equal((await log.read(roomId, 0, 10))?.head, 2);
    });

    test('what breaks the form is the caller’s mistake, and nothing is written', async () => {
      const { log, roomId, say } = await begin();
      const wrong: Partial<Append>[] = [
        { roomId: '' },
        { roomId: 'a}{b' },
        { roomId: 'a b' },
        { roomId: 'x'.repeat(65) },
        { type: '' },
        { type: 'msg 1' },
        { type: 'x'.repeat(17) },
        { payload: 'x'.repeat(65_537) },
        { key: '' },
        { key: 'x'.repeat(1025) },
        { epoch: 1.5 },
        { epoch: -1 },
        { rules: { ...EASY, perS: 0 } },
        { rules: { ...EASY, roomPerS: Number.NaN } },
        { rules: { ...EASY, burst: 0 } },
        { rules: { ...EASY, slowMs: -1 } },
        { rules: { ...EASY, userId: '' } },
        { rules: { ...EASY, uniqueHash: 'x'.repeat(1025) } },
      ];
      for (const append of wrong) await assert.rejects(say(append), RangeError, JSON.stringify(append).slice(0, 100));
      await assert.rejects(log.open({ roomId, epoch: 2, head: -1, atMs: 0, entries: [] }), RangeError);
      await assert.rejects(log.erase(roomId, 1, 1, 'a b', ''), RangeError);
      await assert.rejects(log.read('*', 0, 1), RangeError);
      await assert.rejects(log.follow('*', listener()), RangeError);
      await assert.rejects(log.remove('*'), RangeError);
      assert.equal((await log.read(roomId, 0, 10))?.head, 0);
      assert.equal((await say({ payload: 'x'.repeat(65_536) })).kind, 'appended');
    });
  });
}
