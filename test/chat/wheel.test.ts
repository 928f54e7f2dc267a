import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type InTimingWheel, TimingWheel } from '../../src/chat/gateway/wheel.js';
import { unexpectedIn } from '../support/unexpected.js';

const made = (count: number): InTimingWheel[] => Array.from({ length: count }, () => ({ slot: 0, slotIndex: 0 }));

test('everybody has his turn once in a round, and as often as asked in between', () => {
  const wheel = new TimingWheel<InTimingWheel>(30);
  const all = made(1000);
  for (const one of all) wheel.add(one);
  const turns = new Map(all.map((one) => [one, [0, 0]]));
  for (let step = 0; step < 60; step++) {
    wheel.step();
    wheel.turn(30, (one) => turns.get(one)![0]!++);
    wheel.turn(5, (one) => turns.get(one)![1]!++);
  }
  assert.ok([...turns.values()].every(([seldom, often]) => seldom === 2 && often === 12));
  const slots = new Set(all.map(({ slot }) => slot));
  assert.equal(slots.size, 30, 'spread over all of it');
});

test('what is looked at may go, with others of its slot, and nobody else loses his turn', () => {
  const wheel = new TimingWheel<InTimingWheel>(1);
  const all = made(100);
  for (const one of all) wheel.add(one);
  const gone = new Set<InTimingWheel>();
  const seen = new Set<InTimingWheel>();
  const remove = (one: InTimingWheel | undefined) => {
    if (!one || gone.has(one)) return;
    gone.add(one);
    wheel.remove(one);
  };
  wheel.turn(1, (one) => {
    seen.add(one);
    if (seen.size % 3 === 0) remove(one);
  });
  assert.equal(seen.size, 100);
  assert.deepEqual(new Set(wheel.all()), new Set(all.filter((one) => !gone.has(one))));
  wheel.turn(1, (one) => {
    remove(one);
    remove(all[0]);
    remove(all[99]);
  });
  assert.deepEqual(wheel.all(), []);
});

test('a look that fails at one costs none of the others its turn', (t) => {
  const errors = unexpectedIn(t);
  const wheel = new TimingWheel<InTimingWheel>(1);
  const all = made(10);
  for (const one of all) wheel.add(one);
  const seen = new Set<InTimingWheel>();
  wheel.turn(1, (one) => {
    seen.add(one);
    if (seen.size === 3) throw new Error('a defect');
  });
  assert.deepEqual([seen.size, errors.length], [10, 1]);
});
