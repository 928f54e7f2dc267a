import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import installer from '@ffmpeg-installer/ffmpeg';
import { StreamHead } from '../../src/media/stream-head.js';

const FORMATS = {
  ogg: { encode: ['-c:a', 'libopus', '-f', 'ogg'], demuxer: 'ogg' },
  // One cluster for all of it, as a browser's recorder makes them.
  matroska: {
    encode: ['-c:a', 'libopus', '-live', '1', '-cluster_time_limit', '30000', '-cluster_size_limit', '5000000', '-f', 'webm'],
    demuxer: 'matroska',
  },
  flac: { encode: ['-c:a', 'flac', '-f', 'flac'], demuxer: 'flac' },
  wav: { encode: ['-c:a', 'pcm_s24le', '-f', 'wav'], demuxer: 'wav' },
  mp3: { encode: ['-c:a', 'libmp3lame', '-f', 'mp3'], demuxer: 'mp3' },
  adts: { encode: ['-c:a', 'aac', '-f', 'adts'], demuxer: 'aac' },
} as const;

for (const [format, { encode, demuxer }] of Object.entries(FORMATS)) {
  test(`${format}: a decoder that begins in the middle, after the head, gives the rest as it is`, () => {
    const stream = execFileSync(
      installer.path,
      ['-v', 'error', '-f', 'lavfi', '-i', 'sine=1000:d=4:r=48000', '-ac', '2', ...encode, 'pipe:1'],
      {
        maxBuffer: 1 << 26,
      },
    );
    // An odd place, in the middle of whatever is there; fed in pieces before it.
    const middle = Math.floor(stream.length / 2) + 1;
    const head = new StreamHead(format);
    for (let at = 0; at < middle; at += 777) head.push(stream.subarray(at, Math.min(middle, at + 777)));
    const pieces: Uint8Array[] = [head.resume()];
    for (let at = middle; at < stream.length; at += 333) pieces.push(head.push(stream.subarray(at, at + 333)));
    const input = Buffer.concat(pieces);
    const pcm = execFileSync(
      installer.path,
      ['-v', 'quiet', '-f', demuxer, '-i', 'pipe:0', '-f', 's16le', '-ac', '1', '-ar', '48000', 'pipe:1'],
      {
        input,
        maxBuffer: 1 << 26,
      },
    );
    const seconds = pcm.length / 96_000;
    assert.ok(seconds > 1.5 && seconds < 2.6, `${seconds} s`);
    // The last second is a clean tone, not noise: its level is the tone's, and it repeats each 48 samples.
    let energy = 0;
    let difference = 0;
    const end = pcm.length / 2 - 2400;
    for (let at = end - 48_000; at < end; at += 1) {
      const value = pcm.readInt16LE(at * 2);
      energy += value ** 2;
      difference += (value - pcm.readInt16LE((at - 48) * 2)) ** 2;
    }
    assert.ok(energy / 48_000 > 1000 ** 2, 'there is no tone');
    assert.ok(difference / energy < 0.01, `noise at ${difference / energy}`);
  });
}

test('a head that never ends is not collected for ever', () => {
  const head = new StreamHead('matroska');
  for (let index = 0; index < 100; index += 1) head.push(Buffer.alloc(10_000));
  assert.ok(head.resume().length <= 256 * 1024);
});
