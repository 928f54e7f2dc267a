import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import { IDLE_MS, KEY_MS, UNIQUE_HASHES } from '../../src/backing/room-log/room-log.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { EASY, offsetOf, roomLogContract, upTo } from '../contract/room-log.js';

class MovableClock extends FakeClock {
  movedMs = 0;
  override wallMs() {
    return super.wallMs() + this.movedMs;
  }
}

roomLogContract('memory', async () => {
  const clock = new MovableClock();
  const log = new MemoryRoomLog({ clock, log: silentLog });
  return {
    open: async () => log,
    passTime: (ms) => {
      clock.movedMs += ms;
    },
    stop: () => log.stop(),
  };
});

const world = (maxBytes?: number) => {
  const clock = new FakeClock();
  const log = new MemoryRoomLog({ clock, log: silentLog, ...(maxBytes === undefined ? {} : { maxBytes }) });
  const open = (roomId: string) => log.open({ roomId, epoch: 1, head: 0, atMs: 0, entries: [] });
  const say = (roomId: string, payload = '{}', more = {}) => log.append({ roomId, epoch: 1, type: 'msg', payload, ...more });
  return { clock, log, open, say };
};

test('memory log: what waits in a full memory is kept and the next is refused; what is archived is dropped', async () => {
  const { clock, log, open, say } = world(1_000_000);
  await open('waits');
  await open('done');
  const payload = 'x'.repeat(1000);
  for (let i = 0; i < 300; i++) {
    assert.equal((await say('waits', payload)).kind, 'appended');
    assert.equal((await say('done', payload)).kind, 'appended');
    await log.archived('done', 1, i + 1);
  }
  assert.ok(log.sizeBytes < 1_010_000, `${log.sizeBytes} bytes`);
  assert.equal((await log.read('waits', 0, 1000))?.entries.length, 300, 'not one of those that wait was dropped');
  const done = await log.read('done', 0, 1000);
  assert.ok(done && done.head === 300 && done.entries.length < 300 && done.entries.at(-1)?.offset === 300);

  while ((await say('waits', payload)).kind === 'appended');
  assert.deepEqual(await say('waits', payload), { kind: 'busy' });
  assert.deepEqual(await say('done', payload), { kind: 'busy' });
  const head = (await log.read('waits', 0, 1))!.head;
  clock.advance(1000);
  await log.archived('waits', 1, head);
  assert.equal(offsetOf(await say('waits', payload)), head + 1);
});

test('memory log: rooms without end are bounded, the silent ones go first', async () => {
  const { clock, log, open, say } = world(2_000_000);
  for (const i of upTo(5000)) {
    await open(`room-${i}`);
    await say(`room-${i}`);
    await log.archived(`room-${i}`, 1, 1);
    clock.advance(KEY_MS / 100);
  }
  assert.ok(log.sizeBytes <= 2_010_000, `${log.sizeBytes} bytes`);
  assert.equal(await log.read('room-1', 0, 1), undefined);
  assert.equal((await log.read('room-5000', 0, 1))?.head, 1);
});

test('memory log: what the rules remember is forgotten in time, and bounded before that', async () => {
  const { clock, log, open, say } = world();
  await open('r');
  await say('r');
  await log.archived('r', 1, 1);
  const emptyBytes = log.sizeBytes;
  const last = UNIQUE_HASHES * 2 + 10_000;
  const rules = (i: number) => ({ ...EASY, userId: `u${i}`, uniqueHash: `h${i}`, perS: 1e6, roomPerS: 1e6, burst: 10 });
  for (const i of upTo(last)) {
    await say('r', '{}', { rules: rules(i) });
    if (i % 1000 === 0) {
      await log.archived('r', 1, i + 1);
      clock.advance(1);
    }
  }
  const refused = async (i: number) => (await say('r', '{}', { rules: { ...rules(i), userId: 'other' } })).kind === 'refused';
  assert.equal(await refused(last - UNIQUE_HASHES + 1), true, 'so many are remembered for certain');
  assert.equal(await refused(1), false, 'the oldest went early');
  clock.advance(3_600_000);
  for (let i = 0; i < 3; i++) await say('r');
  await log.archived('r', 1, 1e6);
  assert.ok(log.sizeBytes < emptyBytes + 1100 * 200, `${log.sizeBytes - emptyBytes} bytes are left of it`);
});

test('memory log: a room in which nobody has spoken for a day goes with the next message anywhere, unless something waits', async () => {
  const { clock, log, open, say } = world();
  for (const roomId of ['waits', 'done', 'other']) {
    await open(roomId);
    await say(roomId);
  }
  await log.archived('done', 1, 1);
  clock.advance(IDLE_MS);
  for (let i = 0; i < 3; i++) await say('other');
  assert.equal((await log.read('waits', 0, 1))?.head, 1);
  await log.archived('waits', 1, 1);
  for (let i = 0; i < 3; i++) await say('other');
  assert.equal(await log.read('waits', 0, 1), undefined);
  assert.equal(await log.read('done', 0, 1), undefined);
});

test('memory log: the failure of a follower is in the log, and a log that was stopped is unavailable', async () => {
  const lines: string[] = [];
  const noting: Log = { ...silentLog, error: (_, message) => lines.push(message) };
  const log = new MemoryRoomLog({ clock: new FakeClock(), log: noting });
  await log.open({ roomId: 'r', epoch: 1, head: 0, atMs: 0, entries: [] });
  await log.follow('r', {
    onEntry: () => {
      throw new Error('on purpose');
    },
    onRestored: () => {},
  });
  await log.append({ roomId: 'r', epoch: 1, type: 'msg', payload: '{}' });
  assert.deepEqual(lines, ['a subscriber of a room log failed']);
  await log.stop();
  await log.stop();
  await assert.rejects(log.append({ roomId: 'r', epoch: 1, type: 'msg', payload: '{}' }), { code: 'unavailable' });
  await assert.rejects(log.read('r', 0, 1), { code: 'unavailable' });
});
