import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import installer from '@ffmpeg-installer/ffmpeg';
import { chunk, id3, initSegment, packedAudioTag, titleEvent } from '../../src/media/cmaf.js';
import { FRAME_SAMPLES, LADDER } from '../../src/media/ladder.js';
import { MatroskaFrames } from '../../src/media/matroska.js';

const ENCODERS = { aac: ['-c:a', 'aac', '-b:a', '128k'], opus: ['-c:a', 'libopus', '-b:a', '96k'] } as const;

/** A second of a 1 kHz tone as frames of the codec. */
function frames(codec: 'aac' | 'opus'): Buffer[] {
  const found: Buffer[] = [];
  const reader = new MatroskaFrames((_track, frame) => found.push(frame));
  const args = ['-v', 'error', '-f', 'lavfi', '-i', 'sine=1000:d=1:r=48000', '-ac', '2', ...ENCODERS[codec], '-f', 'matroska', 'pipe:1'];
  reader.push(execFileSync(installer.path, args, { maxBuffer: 1 << 24 }));
  return found;
}

const boxAt = (bytes: Buffer, at: number) => ({ size: bytes.readUInt32BE(at), type: bytes.toString('latin1', at + 4, at + 8) });

for (const codec of ['aac', 'opus'] as const) {
  test(`${codec}: init and chunks are a file that ffmpeg decodes whole, with the delay taken off`, () => {
    const rendition = LADDER.find((candidate) => candidate.codec === codec);
    assert.ok(rendition);
    const all = frames(codec);
    const parts: Buffer[] = [initSegment(rendition)];
    for (let at = 0; at < all.length; at += 15) {
      const some = all.slice(at, at + 15);
      parts.push(chunk({ codec, sequence: parts.length, mediaTime: at * FRAME_SAMPLES[codec], frames: some }));
    }
    const folder = mkdtempSync(join(tmpdir(), 'veza-cmaf-'));
    try {
      writeFileSync(join(folder, 'a.mp4'), Buffer.concat(parts));
      const pcm = execFileSync(installer.path, ['-v', 'error', '-i', join(folder, 'a.mp4'), '-f', 's16le', '-ac', '1', 'pipe:1'], {
        maxBuffer: 1 << 24,
      });
      const seconds = pcm.length / 2 / 48_000;
      assert.ok(Math.abs(seconds - (all.length * FRAME_SAMPLES[codec] - 1024) / 48_000) < 0.03, `${seconds} s`);
      let energy = 0;
      for (let at = 4800; at < 43_200; at += 1) energy += pcm.readInt16LE(at * 2) ** 2;
      const rms = Math.sqrt(energy / 38_400);
      // ffmpeg's sine is at −21 dB, and 3 dB go when one channel becomes two.
      assert.ok(Math.abs(20 * Math.log10(rms / 32768) + 24) < 1, `${rms}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test('a chunk is events, moof, mdat; its tfdt is 64 bits wide', () => {
  const event = titleEvent({ id: 7, mediaTime: 2 ** 33 + 5, title: 'Ä title', artist: 'Somebody' });
  const bytes = chunk({
    codec: 'aac',
    sequence: 3,
    mediaTime: 2 ** 33 + 1024,
    frames: [Buffer.alloc(10), Buffer.alloc(20)],
    events: [event],
  });
  const types: string[] = [];
  for (let at = 0; at < bytes.length; at += boxAt(bytes, at).size) types.push(boxAt(bytes, at).type);
  assert.deepEqual(types, ['emsg', 'moof', 'mdat']);
  const tfdt = bytes.indexOf('tfdt');
  assert.equal(bytes[tfdt + 4], 1);
  assert.equal(bytes.readBigUInt64BE(tfdt + 8), 2n ** 33n + 1024n);
  assert.ok(event.includes(Buffer.from('Ä title', 'utf8')));
  assert.equal(boxAt(event, 0).size, event.length);
});

test('packed audio starts with its 33-bit timestamp, which rolls over', () => {
  const tag = packedAudioTag(48_000);
  assert.equal(tag.toString('latin1', 0, 3), 'ID3');
  assert.equal(tag.readBigUInt64BE(tag.length - 8), 90_000n);
  const rolled = packedAudioTag((2 ** 33 / 90_000) * 48_000 + 48_000);
  assert.equal(rolled.readBigUInt64BE(rolled.length - 8), 90_000n);
});

test('ID3 sizes are syncsafe', () => {
  const tag = id3({ TIT2: 'x'.repeat(1000) });
  assert.equal(((tag[6] ?? 0) << 21) | ((tag[7] ?? 0) << 14) | ((tag[8] ?? 0) << 7) | (tag[9] ?? 0), tag.length - 10);
});
