import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type Waiter, WaitingRoom } from '../../src/app/playback/waiting.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { unexpectedIn } from '../support/unexpected.js';

test('a request whose answer fails is cut off; the others of its group, and other groups, are answered', async (t) => {
  const errors = unexpectedIn(t);
  let changed = () => {};
  let waiting = 0;
  const room = new WaitingRoom(
    new FakeClock(),
    (listener) => {
      changed = listener;
      return () => undefined;
    },
    (change) => {
      waiting += change;
    },
  );
  const answered: number[] = [];
  const cut: number[] = [];
  const waiter = (n: number) =>
    ({ n, req: {}, res: Object.assign(new EventEmitter(), { destroy: () => cut.push(n) }) }) as unknown as Waiter;
  const answer = (asked: Waiter) => {
    const { n } = asked as Waiter & { n: number };
    if (n === 1) throw new Error('a defect of one response');
    answered.push(n);
  };
  const settle = () => answer;
  for (const n of [0, 1, 2]) room.add('part', waiter(n), 1000, answer, settle);
  room.add('broken', waiter(3), 1000, answer, () => {
    throw new Error('a defect of one group');
  });
  room.add('other', waiter(4), 1000, answer, settle);
  changed();
  await turn();
  await turn();
  assert.deepEqual([answered, cut, waiting], [[0, 2, 4], [1], 1]);
  assert.equal(errors.length, 2);
});
