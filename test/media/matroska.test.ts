import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import installer from '@ffmpeg-installer/ffmpeg';
import fc from 'fast-check';
import { MatroskaFrames } from '../../src/media/matroska.js';
import { VezaError } from '../../src/runtime/errors.js';

const live = execFileSync(
  installer.path,
  [
    '-v',
    'error',
    '-f',
    'lavfi',
    '-i',
    'sine=440:d=0.4:r=48000',
    '-map',
    '0',
    '-map',
    '0',
    '-ac',
    '2',
    '-c:a:0',
    'aac',
    '-c:a:1',
    'libopus',
  ].concat(['-flush_packets', '1', '-cluster_time_limit', '1', '-f', 'matroska', 'pipe:1']),
  { maxBuffer: 1 << 24 },
);

function read(pieces: Buffer[]): string[] {
  const frames: string[] = [];
  const reader = new MatroskaFrames((track, frame) => frames.push(`${track}:${frame.toString('hex')}`));
  for (const piece of pieces) reader.push(piece);
  return frames;
}

const whole = read([live]);

test('frames of both tracks come out, as many as 0.4 s holds', () => {
  assert.equal(whole.filter((frame) => frame.startsWith('1:')).length, 20);
  assert.equal(whole.filter((frame) => frame.startsWith('2:')).length, 21);
});

test('cut anywhere, and byte by byte, the same frames', () => {
  for (let at = 0; at <= live.length; at += 1) assert.deepEqual(read([live.subarray(0, at), live.subarray(at)]), whole);
  assert.deepEqual(read([...live].map((byte) => Buffer.from([byte]))), whole);
});

test('anything else is refused with a VezaError or waited for; it never throws otherwise', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        read([Buffer.from(bytes)]);
      } catch (error) {
        assert.ok(error instanceof VezaError);
      }
    }),
  );
});

test('an element above 1 MiB is refused before it is collected', () => {
  const header = (size: number) => Buffer.from([0xa3, 0x10, (size >> 16) & 0xff, (size >> 8) & 0xff, size & 0xff]);
  assert.deepEqual(read([header(1 << 20)]), []);
  assert.throws(() => read([header((1 << 20) + 1)]), VezaError);
});
