import assert from 'node:assert/strict';
import { test } from 'node:test';
import { each } from '../../src/runtime/each.js';
import { unexpectedCounts } from '../../src/runtime/unexpected.js';
import { unexpectedIn } from '../support/unexpected.js';

test('one that throws is reported and counted, and the others have their turn', (t) => {
  const errors = unexpectedIn(t);
  const before = unexpectedCounts().exception;
  const seen: number[] = [];
  each([1, 2, 3], (n) => {
    if (n === 2) throw new Error('a defect');
    seen.push(n);
  });
  assert.deepEqual(seen, [1, 3]);
  assert.deepEqual(errors.map(String), ['Error: a defect']);
  assert.equal(unexpectedCounts().exception, before + 1);
});
