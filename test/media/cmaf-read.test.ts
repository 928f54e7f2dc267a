import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chunk, titleEvent } from '../../src/media/cmaf.js';
import { samplesOf } from '../../src/media/cmaf-read.js';
import { VezaError } from '../../src/runtime/errors.js';

const frames = [3, 1, 700].map((length) => new Uint8Array(length).fill(length & 255));
const part = (sequence: number, events: Uint8Array[] = []) => chunk({ codec: 'aac', sequence, mediaTime: 0, frames, events });

test('frames come back as they went in, with events in front and over several chunks', () => {
  assert.deepEqual(samplesOf(part(1)), frames);
  const event = titleEvent({ id: 1, mediaTime: 0, title: 'x' });
  assert.deepEqual(samplesOf(Buffer.concat([part(1, [event]), part(2)])), [...frames, ...frames]);
  assert.deepEqual(samplesOf(new Uint8Array(0)), []);
});

test('a chunk cut at any byte is refused, never read past', () => {
  const whole = part(1);
  const moofBytes = whole.readUInt32BE(0);
  for (let length = 1; length < whole.length; length++) {
    // Cut exactly between the boxes it is a moof whose data is missing: refused too.
    assert.throws(() => samplesOf(whole.subarray(0, length)), VezaError, `cut at ${length} of ${moofBytes}`);
  }
});
