import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crossfade, fade, resample } from '../../src/media/pcm.js';

const constant = (samples: number, value: number) => new Int16Array(samples * 2).fill(value);

test('a crossfade of a signal with itself changes nothing', () => {
  const pcm = constant(960, 12_345);
  crossfade(pcm, constant(960, 12_345));
  assert.deepEqual(pcm, constant(960, 12_345));
});

test('a fade out goes monotonically to nothing, a fade in comes from it', () => {
  for (const direction of ['in', 'out'] as const) {
    const pcm = constant(240, 20_000);
    fade(pcm, direction);
    const left = [...pcm].filter((_, index) => index % 2 === 0);
    const rising = direction === 'in' ? left : left.reverse();
    assert.ok((rising[0] ?? 99) < 5);
    assert.ok((rising.at(-1) ?? 0) > 19_990);
    for (let at = 1; at < rising.length; at += 1) assert.ok((rising[at] ?? 0) >= (rising[at - 1] ?? 0));
  }
});

test('resampling at 500 ppm keeps a sine a sine, below −60 dB of it', () => {
  const ratio = 1 + 500e-6;
  const input = new Int16Array(2 * 50_000);
  for (let at = 0; at < 50_000; at += 1)
    input.fill(Math.round(20_000 * Math.sin((2 * Math.PI * 1000 * (at - 1)) / 48_000)), at * 2, at * 2 + 2);
  const output = new Int16Array(2 * 48_000);
  const { consumed, phase } = resample(input, 0, ratio, output);
  assert.ok(Math.abs(consumed + phase - 48_000 * ratio) < 1e-6);
  let worst = 0;
  for (let at = 10; at < 48_000; at += 1) {
    worst = Math.max(worst, Math.abs((output[at * 2] ?? 0) - 20_000 * Math.sin((2 * Math.PI * 1000 * at * ratio) / 48_000)));
  }
  assert.ok(worst < 20, `off by ${worst}`);
});

test('resampling clips where interpolation overshoots instead of wrapping round', () => {
  const input = new Int16Array([0, 0, 32_767, 32_767, 32_767, 32_767, 0, 0, 0, 0, 0, 0]);
  const output = new Int16Array(2 * 2);
  resample(input, 0.5, 1, output);
  for (const value of output) assert.ok(value >= 0);
});
