import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decode,
  driftPpm,
  findClicks,
  findHoles,
  findOnsets,
  findSlips,
  fitTone,
  loudnessDbfs,
  percentile,
  RATE_HZ,
  soundOf,
  tonePcm,
  toneShare,
  trimSilence,
} from './audio.js';
import { run } from './process.js';

const HZ = 997;

/** A tone with the noise of a codec at 64 kbit/s under it; the same every time. */
function tone(seconds: number, hz = HZ, noise = 0.002): Float32Array {
  const samples = new Float32Array(Math.round(seconds * RATE_HZ));
  let seed = 1;
  for (let at = 0; at < samples.length; at++) {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    samples[at] = 0.5 * Math.sin((2 * Math.PI * hz * at) / RATE_HZ) + noise * (seed / 1_073_741_824 - 1);
  }
  return samples;
}

const without = (samples: Float32Array, at: number, count: number) =>
  Float32Array.from([...samples.subarray(0, at), ...samples.subarray(at + count)]);

test('a clean tone has no hole, no click, no slip', () => {
  const samples = tone(3);
  assert.deepEqual(findHoles(samples), []);
  assert.deepEqual(findClicks(samples, [HZ]), []);
  assert.deepEqual(findSlips(samples, HZ), []);
  assert.ok(toneShare(samples, HZ) > 0.999);
  assert.ok(toneShare(samples, 440) < 0.01);
  assert.ok(Math.abs(loudnessDbfs(samples) - -9.03) < 0.05);
});

test('a hole of 6 ms is found where it is, one of 4 ms is not, silence around the tone is none', () => {
  const samples = tone(2);
  samples.fill(0, 48_000, 48_000 + 288);
  samples.fill(0, 70_000, 70_000 + 192);
  samples.fill(0, 0, 9600);
  samples.fill(0, 90_000);
  const holes = findHoles(samples);
  assert.equal(holes.length, 1);
  assert.ok(Math.abs(holes[0]!.at - 48_000) < 3 && Math.abs(holes[0]!.ms - 6) < 0.1, JSON.stringify(holes));
  assert.ok(Math.abs(trimSilence(samples).length - 80_400) < 3);
});

test('an AAC frame that is lost is a click and a slip', () => {
  const samples = without(tone(3), 60_000, 1024);
  const clicks = findClicks(samples, [HZ]);
  assert.equal(clicks.length, 1);
  assert.ok(Math.abs(clicks[0]!.at - 60_000) < 480 && clicks[0]!.times > 10, JSON.stringify(clicks));
  const slips = findSlips(samples, HZ);
  // 1024 samples are 21.27 periods of 997 Hz: the tone jumps by 0.27 of a period, 13 samples.
  assert.ok(slips.length >= 1 && slips.length <= 2, JSON.stringify(slips));
  assert.ok(Math.abs(slips.reduce((sum, slip) => sum + slip.samples, 0) - 12.9) < 1, JSON.stringify(slips));
});

test('samples lost under a smooth crossfade are no click but still a slip', () => {
  const whole = tone(3);
  const samples = without(whole, 60_000, 1024);
  for (let i = 0; i < 960; i++) samples[60_000 + i] = whole[60_000 + i]! * (1 - i / 960) + samples[60_000 + i]! * (i / 960);
  assert.deepEqual(findClicks(samples, [HZ]), []);
  assert.ok(findSlips(samples, HZ).length >= 1);
});

test('a level step, a single wrong sample and a muted half-millisecond are clicks', () => {
  for (const damage of [
    (samples: Float32Array) =>
      samples.set(
        samples.subarray(50_011).map((x) => x * 0.5),
        50_011,
      ),
    (samples: Float32Array) => samples.set([samples[50_000]! + 0.1], 50_000),
    (samples: Float32Array) => samples.fill(0, 50_000, 50_024),
  ]) {
    const samples = tone(2);
    damage(samples);
    assert.equal(findClicks(samples, [HZ]).length, 1);
  }
});

test('a crossfade from one tone to another is clean when both are named, a hard cut is not', () => {
  const a = tone(3);
  const b = tone(3, 440);
  const faded = a.map((x, at) => {
    const t = Math.min(1, Math.max(0, (at - 60_000) / 960));
    return x * Math.cos((t * Math.PI) / 2) + b[at]! * Math.sin((t * Math.PI) / 2);
  });
  assert.deepEqual(findClicks(faded, [HZ, 440]), []);
  const cut = a.map((x, at) => (at < 60_013 ? x : b[at]!));
  assert.equal(findClicks(cut, [HZ, 440]).length, 1);
});

test('phase of a fit does not depend on the window; drift is measured in ppm', () => {
  const samples = tone(4);
  const early = fitTone(samples, HZ, 0, 4800);
  const late = fitTone(samples, HZ, 100_000, 104_800);
  assert.ok(Math.abs(early.phase - late.phase) < 0.01);
  assert.ok(Math.abs(early.amplitude - 0.5) < 0.001);
  assert.ok(Math.abs(driftPpm(tone(4, HZ * 1.0002), HZ) - 200) < 5);
});

test('beeps are found to the millisecond over noise', () => {
  const samples = tone(3, HZ, 0.004).map((x, at) => (at % RATE_HZ < RATE_HZ / 10 ? x : 0.004 * Math.sin(at * 1.7)));
  const onsets = findOnsets(samples, HZ);
  assert.equal(onsets.length, 3);
  onsets.forEach((at, index) => {
    assert.ok(Math.abs(at - index * RATE_HZ) <= 72, `${index}: ${at}`);
  });
  assert.deepEqual(findOnsets(new Float32Array(RATE_HZ), HZ), []);
});

test('what ffmpeg encodes and decodes as AAC comes back without a finding; with a packet cut out it does not', async () => {
  const pcm = tonePcm(HZ, 3);
  const args = ['-f', 's16le', '-ar', '48000', '-ac', '2', '-i', 'pipe:0', '-c:a', 'aac', '-b:a', '128k', '-f', 'adts', 'pipe:1'];
  const { stdout: adts } = await run('/usr/bin/ffmpeg', ['-loglevel', 'error', ...args], { input: pcm });
  const good = (await decode(adts)).left.subarray(4800, 120_000);
  assert.deepEqual([findHoles(good), findClicks(good, [HZ]), findSlips(good, HZ)], [[], [], []]);
  let at = 0;
  const sizeAt = (from: number) => ((adts[from + 3]! & 3) << 11) | (adts[from + 4]! << 3) | (adts[from + 5]! >> 5);
  for (let frame = 0; frame < 60; frame++) at += sizeAt(at);
  const damaged = (await decode(Buffer.concat([adts.subarray(0, at), adts.subarray(at + sizeAt(at))]))).left.subarray(4800, 118_000);
  assert.ok(findSlips(damaged, HZ).length >= 1);
});

test('bytes become samples; percentiles are the nearest rank', () => {
  const sound = soundOf(Buffer.from([0, 0x40, 0, 0xc0, 1]));
  assert.deepEqual([...sound.left, ...sound.right], [0.5, -0.5]);
  assert.equal(
    percentile(
      Array.from({ length: 100 }, (_, i) => i + 1),
      0.95,
    ),
    95,
  );
});
