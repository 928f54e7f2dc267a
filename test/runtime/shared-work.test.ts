import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../src/runtime/clock.js';
import { recent } from '../../src/runtime/shared-work.js';

test('work that is under way is shared, and begins twice in a window at most', async () => {
  const clock = new FakeClock();
  let begun = 0;
  let finish = () => {};
  const ask = recent(clock, 1000, () => {
    const number = ++begun;
    return new Promise<number>((resolve) => {
      finish = () => resolve(number);
    });
  });
  const first = Array.from({ length: 1000 }, () => ask());
  assert.equal(begun, 1);
  finish();
  assert.deepEqual(new Set(await Promise.all(first)), new Set([1]));
  void ask();
  finish();
  assert.equal(await ask(), 2, 'who asks rarely is told what is so now');
  clock.advance(999);
  assert.deepEqual(new Set(await Promise.all(Array.from({ length: 1000 }, () => ask()))), new Set([2]));
  clock.advance(1);
  const later = ask();
  finish();
  assert.equal(await later, 3);
});

test('a rejection is not kept', async () => {
  let begun = 0;
  const ask = recent(new FakeClock(), 1000, async () => {
    if (++begun === 1) throw new Error('away');
    return begun;
  });
  const both = [ask(), ask()];
  for (const asked of both) await assert.rejects(asked, /away/);
  assert.equal(await ask(), 2);
});
