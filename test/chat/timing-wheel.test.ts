import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type InTimingWheel, TimingWheel } from '../../src/chat/gateway/timing-wheel.js';
import { unexpectedIn } from '../support/unexpected.js';

class Item implements InTimingWheel {
  wheelSlot = 0;
  wheelIndex = 0;
  setWheelPlace(slot: number, index: number): void {
    this.wheelSlot = slot;
    this.wheelIndex = index;
  }
}
const made = (count: number): Item[] => Array.from({ length: count }, () => new Item());

test('every item is visited once in a round, and as often as asked in between', () => {
  const wheel = new TimingWheel<Item>(30);
  const all = made(1000);
  for (const one of all) wheel.add(one);
  const turns = new Map(all.map((one) => [one, [0, 0]]));
  for (let step = 0; step < 60; step++) {
    wheel.advance();
    wheel.visitDue(30, (one) => turns.get(one)![0]!++);
    wheel.visitDue(5, (one) => turns.get(one)![1]!++);
  }
  assert.ok([...turns.values()].every(([seldom, often]) => seldom === 2 && often === 12));
  const slots = new Set(all.map(({ wheelSlot }) => wheelSlot));
  assert.equal(slots.size, 30, 'spread over all of it');
});

test('a visit may remove any item, and no other item loses its turn', () => {
  const wheel = new TimingWheel<Item>(1);
  const all = made(100);
  for (const one of all) wheel.add(one);
  const gone = new Set<Item>();
  const seen = new Set<Item>();
  const remove = (one: Item | undefined) => {
    if (!one || gone.has(one)) return;
    gone.add(one);
    wheel.remove(one);
  };
  wheel.visitDue(1, (one) => {
    seen.add(one);
    if (seen.size % 3 === 0) remove(one);
  });
  assert.equal(seen.size, 100);
  assert.deepEqual(new Set(wheel.all()), new Set(all.filter((one) => !gone.has(one))));
  wheel.visitDue(1, (one) => {
    remove(one);
    remove(all[0]);
    remove(all[99]);
  });
  assert.deepEqual(wheel.all(), []);
});

test('a visit that fails costs no other item its turn', (t) => {
  const errors = unexpectedIn(t);
  const wheel = new TimingWheel<Item>(1);
  const all = made(10);
  for (const one of all) wheel.add(one);
  const seen = new Set<Item>();
  wheel.visitDue(1, (one) => {
    seen.add(one);
    if (seen.size === 3) throw new Error('a defect');
  });
  assert.deepEqual([seen.size, errors.length], [10, 1]);
});
