import { type Running, run, start } from './process.js';

/**
 * A listener that is a machine: decodes what a player would play and says whether there are holes, clicks or lost samples in it.
 * Everything is in samples at 48 kHz; amplitudes are −1 … 1.
 */
export const RATE_HZ = 48_000;

export interface Sound {
  readonly left: Float32Array;
  readonly right: Float32Array;
  readonly durationS: number;
}

export interface DecodeOptions {
  /** Which ffmpeg decodes (Debian's unless said). */
  ffmpeg?: string;
  /** Arguments before `-i`. */
  inputArgs?: readonly string[];
  /** Stop after so much sound. */
  seconds?: number;
  /** Kill the decoder after so much time. What it printed by then does not count. */
  timeoutMs?: number;
}

const decodeArgs = (input: string, options: DecodeOptions) => [
  '-hide_banner',
  '-nostdin',
  '-loglevel',
  'warning',
  ...(options.inputArgs ?? []),
  '-i',
  input,
  '-vn',
  ...(options.seconds === undefined ? [] : ['-t', String(options.seconds)]),
  ...['-f', 's16le', '-ar', String(RATE_HZ), '-ac', '2', 'pipe:1'],
];

/** Decodes an address or bytes to their end (or for `seconds`). Rejects when the decoder fails. */
export async function decode(source: string | Uint8Array, options: DecodeOptions = {}): Promise<Sound> {
  const ffmpeg = options.ffmpeg ?? '/usr/bin/ffmpeg';
  const timeoutMs = options.timeoutMs ?? 120_000;
  const end =
    typeof source === 'string'
      ? await run(ffmpeg, decodeArgs(source, options), { timeoutMs })
      : await run(
          ffmpeg,
          decodeArgs('pipe:0', options).filter((arg) => arg !== '-nostdin'),
          { timeoutMs, input: source },
        );
  return soundOf(end.stdout);
}

/** A decoder that goes on listening while the test does something to the stream; `stop` gives what it has heard. */
export function listen(source: string, options: DecodeOptions = {}): { running: Running; heardS(): number; stop(): Promise<Sound> } {
  const running = start(options.ffmpeg ?? '/usr/bin/ffmpeg', decodeArgs(source, options));
  let bytes = 0;
  running.child.stdout?.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  return {
    running,
    heardS: () => bytes / 4 / RATE_HZ,
    stop: async () => soundOf((await running.kill('SIGKILL')).stdout),
  };
}

/** Sound from s16le stereo bytes; a torn last sample is dropped. */
export function soundOf(bytes: Uint8Array): Sound {
  const count = Math.floor(bytes.length / 4);
  const view = new DataView(bytes.buffer, bytes.byteOffset, count * 4);
  const left = new Float32Array(count);
  const right = new Float32Array(count);
  for (let at = 0; at < count; at++) {
    left[at] = view.getInt16(at * 4, true) / 32_768;
    right[at] = view.getInt16(at * 4 + 2, true) / 32_768;
  }
  return { left, right, durationS: count / RATE_HZ };
}

/** Root mean square in dBFS (a full-scale sine is −3.01); −Infinity for silence. */
export function loudnessDbfs(samples: Float32Array, from = 0, to = samples.length): number {
  let sum = 0;
  for (let at = from; at < to; at++) sum += samples[at]! ** 2;
  return 10 * Math.log10(sum / Math.max(1, to - from));
}

export interface Stretch {
  /** First sample. */
  readonly at: number;
  readonly samples: number;
  readonly ms: number;
}

const stretch = (at: number, samples: number): Stretch => ({ at, samples, ms: (samples * 1000) / RATE_HZ });

/**
 * Runs of near-silence longer than `minMs` between the first and the last sound. A sine of 200 Hz or more is never below the floor for
 * longer than a tenth of a millisecond, so in a tone each such run is a hole.
 */
export function findHoles(samples: Float32Array, options: { minMs?: number; floorDbfs?: number } = {}): Stretch[] {
  const floor = 10 ** ((options.floorDbfs ?? -50) / 20);
  const least = ((options.minMs ?? 5) * RATE_HZ) / 1000;
  const holes: Stretch[] = [];
  let last = -1;
  for (let at = 0; at < samples.length; at++) {
    if (Math.abs(samples[at]!) < floor) continue;
    if (last >= 0 && at - last - 1 > least) holes.push(stretch(last + 1, at - last - 1));
    last = at;
  }
  return holes;
}

/** The part from the first to the last sample above the floor. */
export function trimSilence(samples: Float32Array, floorDbfs = -50): Float32Array {
  const floor = 10 ** (floorDbfs / 20);
  let from = 0;
  let to = samples.length;
  while (from < to && Math.abs(samples[from]!) < floor) from++;
  while (to > from && Math.abs(samples[to - 1]!) < floor) to--;
  return samples.subarray(from, to);
}

export interface Fit {
  readonly amplitude: number;
  /** Radians of the cosine at sample 0 of the whole signal, so that fits at different places can be compared. */
  readonly phase: number;
  /** Root mean square of what is not the tone. */
  readonly residual: number;
}

/** Least-squares fit of a sine of known frequency to samples [from, to). */
export function fitTone(samples: Float32Array, hz: number, from = 0, to = samples.length): Fit {
  const w = (2 * Math.PI * hz) / RATE_HZ;
  let cc = 0;
  let ss = 0;
  let cs = 0;
  let xc = 0;
  let xs = 0;
  let xx = 0;
  for (let at = from; at < to; at++) {
    const c = Math.cos(w * at);
    const s = Math.sin(w * at);
    const x = samples[at]!;
    cc += c * c;
    ss += s * s;
    cs += c * s;
    xc += x * c;
    xs += x * s;
    xx += x * x;
  }
  const det = cc * ss - cs * cs;
  if (to - from < 3 || Math.abs(det) < 1e-9) return { amplitude: 0, phase: 0, residual: Math.sqrt(xx / Math.max(1, to - from)) };
  const a = (xc * ss - xs * cs) / det;
  const b = (xs * cc - xc * cs) / det;
  const explained = a * xc + b * xs;
  return {
    amplitude: Math.hypot(a, b),
    phase: Math.atan2(-b, a),
    residual: Math.sqrt(Math.max(0, xx - explained) / (to - from)),
  };
}

/** How much of the power is this tone, 0 … 1. Measured in windows of 50 ms, so that a slip does not cancel the tone; the median counts. */
export function toneShare(samples: Float32Array, hz: number): number {
  const window = Math.min(samples.length, 2400);
  const shares: number[] = [];
  for (let at = 0; at + window <= samples.length && window > 0; at += window) {
    const { amplitude, residual } = fitTone(samples, hz, at, at + window);
    const power = amplitude ** 2 / 2;
    shares.push(power === 0 ? 0 : power / (power + residual ** 2));
  }
  return median(shares);
}

export interface Click {
  readonly at: number;
  /** Times the background. */
  readonly times: number;
}

/**
 * Places where a signal of known tones has something that is none of them. For a sine, x[n+1] − 2·cos(w)·x[n] + x[n−1] is zero whatever its
 * phase and level, so one such step per tone removes them all and leaves the codec's noise and, far above it, every break of the wave. A crossfade,
 * which is smooth, leaves nothing. The background is the median of the peaks of 5 ms windows; `times` it (8) is a click.
 */
export function findClicks(samples: Float32Array, tonesHz: readonly number[], options: { times?: number } = {}): Click[] {
  let error = samples;
  for (const hz of tonesHz) {
    const k = 2 * Math.cos((2 * Math.PI * hz) / RATE_HZ);
    const next = new Float32Array(Math.max(0, error.length - 2));
    for (let at = 0; at < next.length; at++) next[at] = error[at + 2]! - k * error[at + 1]! + error[at]!;
    error = next;
  }
  const window = 240;
  const peaks: number[] = [];
  for (let at = 0; at + window <= error.length; at += window) {
    let peak = 0;
    for (let i = at; i < at + window; i++) peak = Math.max(peak, Math.abs(error[i]!));
    peaks.push(peak);
  }
  // Sixteen-bit rounding alone leaves a few units; below that nobody hears anything.
  const background = Math.max(median(peaks), 2 ** -15 * 4 ** tonesHz.length * 0.5);
  const limit = background * (options.times ?? 8);
  const clicks: Click[] = [];
  peaks.forEach((peak, index) => {
    if (peak <= limit) return;
    const at = index * window + tonesHz.length;
    const before = clicks.at(-1);
    // One break rings over two windows: one click.
    if (before && at - before.at <= 2 * window) return;
    clicks.push({ at, times: peak / background });
  });
  return clicks;
}

export interface Slip {
  readonly at: number;
  /** Samples that are missing (positive) or too many (negative), modulo the period of the tone, at most half of it. */
  readonly samples: number;
}

/**
 * Where a tone jumps in time: samples that were lost or repeated, however smoothly it was done. The phase is followed from window to
 * window; a steady drift is taken out with the median step, and what remains above `toleranceSamples` (2) is a slip. Windows in which the tone is
 * not alone are passed over.
 */
export function findSlips(samples: Float32Array, hz: number, options: { toleranceSamples?: number } = {}): Slip[] {
  const window = 960;
  const phases: (number | undefined)[] = [];
  for (let at = 0; at + window <= samples.length; at += window) {
    const fit = fitTone(samples, hz, at, at + window);
    phases.push(fit.amplitude > 1e-3 && fit.residual < fit.amplitude * 0.15 ? fit.phase : undefined);
  }
  const steps: { index: number; step: number }[] = [];
  let previous: number | undefined;
  phases.forEach((phase, index) => {
    if (phase === undefined) return;
    if (previous !== undefined) steps.push({ index, step: wrap(phase - previous) });
    previous = phase;
  });
  const drift = median(steps.map(({ step }) => step));
  const radiansASample = (2 * Math.PI * hz) / RATE_HZ;
  return steps
    .map(({ index, step }) => ({ at: index * window, samples: wrap(step - drift) / radiansASample }))
    .filter(({ samples: by }) => Math.abs(by) > (options.toleranceSamples ?? 2));
}

/** Parts per million by which the tone is faster than `hz`: the difference of two clocks. Needs a slip-free tone of some seconds. */
export function driftPpm(samples: Float32Array, hz: number): number {
  const window = 4800;
  let total = 0;
  let steps = 0;
  let previous: number | undefined;
  for (let at = 0; at + window <= samples.length; at += window) {
    const { phase } = fitTone(samples, hz, at, at + window);
    if (previous !== undefined) {
      total += wrap(phase - previous);
      steps++;
    }
    previous = phase;
  }
  return (total / Math.max(1, steps) / ((2 * Math.PI * hz * window) / RATE_HZ)) * 1e6;
}

/**
 * Samples at which a beep of `hz` begins: 2 ms windows every half millisecond, on when the tone passes a quarter of the loudest one's amplitude,
 * off after `quietMs` (50) below it.
 */
export function findOnsets(samples: Float32Array, hz: number, options: { quietMs?: number; leastAmplitude?: number } = {}): number[] {
  const window = 96;
  const hop = 24;
  const quiet = ((options.quietMs ?? 50) * RATE_HZ) / 1000;
  const levels: number[] = [];
  for (let at = 0; at + window <= samples.length; at += hop) levels.push(fitTone(samples, hz, at, at + window).amplitude);
  const threshold = Math.max(options.leastAmplitude ?? 0.02, levels.reduce((a, b) => Math.max(a, b), 0) / 4);
  const onsets: number[] = [];
  let offSince = -Infinity;
  let on = false;
  levels.forEach((level, index) => {
    const at = index * hop;
    if (level >= threshold) {
      if (!on && at - offSince >= quiet) onsets.push(at + window / 2);
      on = true;
    } else {
      if (on) offSince = at;
      on = false;
    }
  });
  return onsets;
}

/** A test tone as s16le stereo. */
export function tonePcm(hz: number, seconds: number, options: { amplitude?: number; phase?: number; rateHz?: number } = {}): Buffer {
  const rateHz = options.rateHz ?? RATE_HZ;
  const count = Math.round(seconds * rateHz);
  const bytes = Buffer.alloc(count * 4);
  for (let at = 0; at < count; at++) {
    const x = Math.round((options.amplitude ?? 0.5) * 32_767 * Math.sin((2 * Math.PI * hz * at) / rateHz + (options.phase ?? 0)));
    bytes.writeInt16LE(x, at * 4);
    bytes.writeInt16LE(x, at * 4 + 2);
  }
  return bytes;
}

export function median(values: readonly number[]): number {
  if (values.length === 0) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

/** The value below which `share` of the values lie (nearest rank). */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] ?? Number.NaN;
}

const wrap = (radians: number) => radians - 2 * Math.PI * Math.round(radians / (2 * Math.PI));
