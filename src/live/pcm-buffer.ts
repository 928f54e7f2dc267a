import { CHANNELS, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { crossfade, fade, resample } from '../media/pcm.js';

/**
 * The buffer between one broadcaster's decoder and the playout: it decides latency and peace.
 *
 * Modes, changed in `#enter` alone:
 *   filling   collects until the target is reached; gives nothing.
 *   playing   gives samples; fades out over the last 5 ms when it runs dry, and is `filling` again.
 *   drained   the source has ended and everything was played.
 *
 * How surplus is treated depends on where it came from. What a real-time source sent before it was put on is trimmed at its
 * start (untrimmed it held 130–200 ms for good). What piled up while the playout was playing fill for want of it (an uplink
 * that stalled and caught up) is removed by one crossfaded cut. A source that is simply faster than real time, a file, is
 * never cut: its decoder is paused above 3 s, and through it the broadcaster's socket.
 * Clock drift up to 500 ppm is taken up by resampling, steered by the lowest level of the last 5 s.
 */
export interface PcmBufferOptions {
  /** The level to hold; undefined follows the largest gap between arrivals of the last 10 s + 50 ms, at most 2 s. */
  readonly targetMs: number | undefined;
  /** How far apart arrivals are. A fixed target is what the level does not go below until the next: what it starts at is that much above. */
  readonly arrivalMs?: number;
  /** Stop or go on reading the decoder. */
  readonly onPressure: (pause: boolean) => void;
  /** A standing surplus was cut out of what is heard. */
  readonly onCut?: (removedMs: number) => void;
}

const samplesOf = (ms: number) => Math.round((ms * SAMPLE_RATE_HZ) / 1000);
const msOf = (samples: number) => (samples * 1000) / SAMPLE_RATE_HZ;

const EDGE_FADE = samplesOf(5);
const CUT_FADE = samplesOf(20);
const MIN_TARGET_MS = 100;
const MAX_TARGET_MS = 2000;
const ARRIVAL_MARGIN_MS = 50;
const ARRIVAL_WINDOW_MS = 10_000;
/** Time from the first PCM to the decision whether the source is faster than real time. */
const OBSERVE_MS = 200;
/** The same for a source whose gaps decide the target: in less it has shown none, and runs dry at its first. */
const OBSERVE_FOLLOWED_MS = 1000;
/** More than this above the time observed, and it is a file. */
const FAST_SURPLUS_MS = 1000;
/** More than this above the time observed needs no more observation: no encoder sends as much of its past when it begins. */
const FAST_AT_ONCE_MS = 2000;
const HIGH_WATER = samplesOf(3000);
const LOW_WATER = samplesOf(2500);
/** Of a source that waits and does not seem to be a file; below `HIGH_WATER`, so that its broadcaster is not held up. */
const HELD_AT_MOST = samplesOf(2500);
/** A connection that is silent for longer is closed by its protocol: 2 MB of PCM at most. */
const MAX_LATE = samplesOf(10_000);
const LEVEL_WINDOW_MS = 5000;
const SURPLUS_MS = 250;
/**
 * After fill was played, what came late is cut from this much on: the glitch has been heard, and left to the drift's 500 ppm it would be
 * delay for minutes.
 */
const LATE_SURPLUS_MS = 60;
const MAX_DRIFT = 500e-6;
/** Samples that interpolation looks at past its last position. */
const RESAMPLE_REACH = 3;
/** A level off by this much is corrected at the full 500 ppm: 12 ms stand at 200 ppm of drift. */
const FULL_CORRECTION_MS = 30;
/** Within this the ratio stays exactly 1, and nothing is resampled. */
const DEAD_BAND_MS = 4;

/** 1 in the gains of a seam. */
const FULL_GAIN = 32_767;

type Mode = 'filling' | 'playing' | 'drained';

export class PcmBuffer {
  readonly #options: PcmBufferOptions;
  #mode: Mode = 'filling';
  #chunks: Int16Array[] = [];
  /** Samples of the first chunk that are used up. */
  #offset = 0;
  #level = 0;
  #ended = false;
  #paused = false;

  #firstArrivalMs: number | undefined;
  #lastArrivalMs = 0;
  #gaps: { atMs: number; gapMs: number }[] = [];
  #received = 0;
  #fast: boolean | undefined;

  /** Samples of fill played while this source was connected and empty: the most that cuts may remove. */
  #debt = 0;
  #starved = false;
  #windowStartMs = 0;
  #windowMin = Number.POSITIVE_INFINITY;
  #postponed = false;
  #ratio = 1;
  #phase = 0;
  #history = new Int16Array(CHANNELS);
  /** Samples of what comes next that are faded in yet. */
  #fadeIn = 0;

  constructor(options: PcmBufferOptions) {
    this.#options = options;
  }

  /** Milliseconds of audio waiting. */
  get levelMs(): number {
    return msOf(this.#level);
  }

  /** Nothing will come out any more. */
  get drained(): boolean {
    return this.#mode === 'drained';
  }

  /** How much faster than the nominal rate it is being read, in ppm. */
  get correctionPpm(): number {
    return (this.#ratio - 1) * 1e6;
  }

  targetMs(nowMs: number): number {
    if (this.#options.targetMs !== undefined) return this.#options.targetMs;
    let largest = 0;
    for (const gap of this.#gaps) if (nowMs - gap.atMs <= ARRIVAL_WINDOW_MS && gap.gapMs > largest) largest = gap.gapMs;
    return Math.min(MAX_TARGET_MS, Math.max(MIN_TARGET_MS, largest + ARRIVAL_MARGIN_MS));
  }

  /** Takes decoded PCM (interleaved stereo). Never refuses: the pressure goes out by `onPressure`. */
  push(pcm: Int16Array, nowMs: number): void {
    if (pcm.length === 0 || this.#ended) return;
    if (this.#firstArrivalMs === undefined) this.#firstArrivalMs = nowMs;
    else if (nowMs - this.#lastArrivalMs > 5) this.#rememberGap(nowMs);
    this.#lastArrivalMs = nowMs;
    if (this.#fadeIn > 0) this.#soften(pcm);
    this.#chunks.push(pcm);
    this.#level += pcm.length / CHANNELS;
    this.#received += pcm.length / CHANNELS;
    if (!this.#paused && this.#level > this.#highWater) {
      this.#paused = true;
      this.#options.onPressure(true);
    }
  }

  /** What is pushed from now on does not continue what is here: both edges are softened over 5 ms. */
  seam(): void {
    let left = Math.min(this.#level, EDGE_FADE);
    const edge = new Int16Array(left * CHANNELS).fill(FULL_GAIN);
    fade(edge, 'out');
    for (let index = this.#chunks.length - 1; index >= 0 && left > 0; index -= 1) {
      const chunk = this.#chunks[index]!;
      const now = Math.min(left, chunk.length / CHANNELS);
      left -= now;
      scale(chunk.subarray(chunk.length - now * CHANNELS), edge.subarray(left * CHANNELS));
    }
    this.#fadeIn = EDGE_FADE;
  }

  /** The decoder has given its last. What is here is still played. */
  end(): void {
    this.#ended = true;
    if (this.#level === 0) this.#enter('drained');
  }

  /** Whether `read` would give sound: the source can be put on. Settles what kind of source it is, and trims it. */
  ready(nowMs: number): boolean {
    if (this.#mode === 'playing') return true;
    if (this.#mode === 'drained' || this.#firstArrivalMs === undefined) return false;
    if (this.#fast === undefined) {
      const observedMs = nowMs - this.#firstArrivalMs;
      const neededMs = this.#options.targetMs === undefined ? OBSERVE_FOLLOWED_MS : OBSERVE_MS;
      const isFast = this.#ended || msOf(this.#received) > observedMs + FAST_AT_ONCE_MS;
      if (observedMs < neededMs && !isFast) return false;
      this.#fast = isFast || msOf(this.#received) > observedMs + FAST_SURPLUS_MS;
    }
    const followed = this.#options.targetMs === undefined;
    const nextArrivalMs = followed ? 0 : Math.max(0, this.#lastArrivalMs + (this.#options.arrivalMs ?? 0) - nowMs);
    const target = samplesOf(this.targetMs(nowMs) + nextArrivalMs);
    if (this.#level < target && !this.#ended) return false;
    if (!this.#fast && !this.#starved) this.#skip(Math.max(0, this.#level - target));
    this.#enter('playing', nowMs);
    return true;
  }

  /**
   * Called instead of `ready` and `read` while another source is played to its end. What a real-time source sends in that time is not
   * heard, or it would be late for good; the rest of a file is held back, as always.
   */
  hold(nowMs: number): void {
    if (this.#mode !== 'filling' || this.#ended || this.#firstArrivalMs === undefined || this.#fast === true) return;
    if (msOf(this.#received) > nowMs - this.#firstArrivalMs + FAST_SURPLUS_MS) this.#fast = true;
    else if (this.#level > HELD_AT_MOST) this.#skip(this.#level - samplesOf(this.targetMs(nowMs)));
  }

  /** Whether reading `samples` now would end in fill though more may come. */
  short(samples: number): boolean {
    return this.#mode === 'playing' && !this.#ended && this.#level < samples + EDGE_FADE + RESAMPLE_REACH;
  }

  /**
   * Fills `out` with the next samples; what is missing is silence, with soft edges. Returns how many samples of `out` hold
   * sound. Call it for as long as the source is on, also while it is starved: it begins again by itself.
   */
  read(out: Int16Array, nowMs: number): number {
    const wanted = out.length / CHANNELS;
    const resumes = this.#mode === 'filling' && this.ready(nowMs);
    if (this.#mode !== 'playing') {
      out.fill(0);
      if (this.#mode === 'filling' && this.#starved) this.#debt += wanted;
      return 0;
    }
    this.#steer(nowMs);
    // While more may come, 5 ms are held back, so that a shortage can always be faded into.
    const runsDry = this.#ended ? this.#level <= wanted : this.short(wanted);
    const got = runsDry ? this.#takeLast(out, wanted) : this.#take(out, wanted);
    if (resumes && this.#starved) fade(out.subarray(0, Math.min(EDGE_FADE, got) * CHANNELS), 'in');
    this.#starved = runsDry;
    if (this.#paused && this.#level < LOW_WATER) {
      this.#paused = false;
      this.#options.onPressure(false);
    }
    return got;
  }

  #enter(mode: Mode, nowMs = 0): void {
    this.#mode = mode;
    if (mode === 'playing') {
      this.#windowStartMs = nowMs;
      this.#windowMin = Number.POSITIVE_INFINITY;
    } else {
      this.#ratio = 1;
      this.#phase = 0;
      this.#history.fill(0);
    }
  }

  /** What a stalled real-time source sends late is taken in whole, so that one cut can remove it. */
  get #highWater(): number {
    return HIGH_WATER + (this.#fast ? 0 : Math.min(this.#debt, MAX_LATE));
  }

  /** A decoder's chunks may be shorter than the fade. */
  #soften(pcm: Int16Array): void {
    const edge = new Int16Array(EDGE_FADE * CHANNELS).fill(FULL_GAIN);
    fade(edge, 'in');
    scale(pcm, edge.subarray((EDGE_FADE - this.#fadeIn) * CHANNELS));
    this.#fadeIn = Math.max(0, this.#fadeIn - pcm.length / CHANNELS);
  }

  #rememberGap(nowMs: number): void {
    this.#gaps.push({ atMs: nowMs, gapMs: nowMs - this.#lastArrivalMs });
    // One entry an arrival, a few hundred in 10 s; pruned in steps so that it is not done each time.
    if (this.#gaps.length > 2048) this.#gaps = this.#gaps.filter((gap) => nowMs - gap.atMs <= ARRIVAL_WINDOW_MS).slice(-1024);
  }

  /** The last samples before a shortage or the end: as much as there is, faded out over its end. */
  #takeLast(out: Int16Array, wanted: number): number {
    this.#ratio = 1;
    const got = Math.min(wanted, this.#level);
    this.#take(out, got);
    out.fill(0, got * CHANNELS);
    fade(out.subarray(Math.max(0, got - EDGE_FADE) * CHANNELS, got * CHANNELS), 'out');
    // What is left, below 5 ms, begins the next stretch; after the end nothing is.
    this.#enter(this.#ended ? 'drained' : 'filling');
    return got;
  }

  #take(out: Int16Array, samples: number): number {
    if (this.#ratio === 1 && this.#phase === 0) {
      this.#copy(out, samples);
      this.#skip(samples);
      return samples;
    }
    // Back at ratio 1 the fraction of a sample that is left is spread over one block, and copying can go on.
    const settling = this.#ratio === 1;
    const ratio = settling ? 1 + (1 - this.#phase) / samples : this.#ratio;
    const reach = Math.ceil(samples * ratio + this.#phase) + RESAMPLE_REACH;
    const input = new Int16Array((reach + 1) * CHANNELS);
    input.set(this.#history);
    this.#copy(input.subarray(CHANNELS), Math.min(reach, this.#level));
    const used = resample(input, this.#phase, ratio, out.subarray(0, samples * CHANNELS));
    this.#phase = settling ? 0 : used.phase;
    this.#skip(Math.min(settling ? samples + 1 : used.consumed, this.#level));
    return samples;
  }

  /** Once a window: cut a surplus that a stall has left, or set the resampling ratio. */
  #steer(nowMs: number): void {
    this.#windowMin = Math.min(this.#windowMin, this.#level);
    if (nowMs - this.#windowStartMs < LEVEL_WINDOW_MS) return;
    const lowest = this.#windowMin;
    this.#windowStartMs = nowMs;
    this.#windowMin = Number.POSITIVE_INFINITY;
    if (this.#fast || this.#ended) return;
    const target = samplesOf(this.targetMs(nowMs));
    if (lowest > target + samplesOf(LATE_SURPLUS_MS) && this.#debt > 0) {
      // What was sent late came within this window: the next one sees all of it, and one cut is enough.
      if (this.#level > lowest + samplesOf(SURPLUS_MS) && !this.#postponed) {
        this.#postponed = true;
        return;
      }
      this.#postponed = false;
      this.#cut(Math.min(lowest - target, this.#debt));
      return;
    }
    const errorMs = msOf(lowest - target);
    // A source with no more debt that stands far above its target is left there: it was sent early, not late.
    if (Math.abs(errorMs) <= DEAD_BAND_MS || errorMs > SURPLUS_MS) this.#ratio = 1;
    else this.#ratio = 1 + Math.max(-MAX_DRIFT, Math.min(MAX_DRIFT, (errorMs / FULL_CORRECTION_MS) * MAX_DRIFT));
  }

  #cut(samples: number): void {
    // What was played last stays what interpolation sees before the next sample.
    const played = this.#history.slice();
    const from = new Int16Array(CUT_FADE * CHANNELS);
    this.#copy(from, CUT_FADE);
    this.#skip(samples);
    const onto = new Int16Array(CUT_FADE * CHANNELS);
    this.#copy(onto, CUT_FADE);
    this.#skip(CUT_FADE);
    crossfade(from, onto);
    this.#chunks.unshift(from);
    if (this.#offset > 0) {
      // The chunk behind `from` was partly used: the offset belongs to the first chunk only.
      const second = this.#chunks[1];
      if (second) this.#chunks[1] = second.subarray(this.#offset * CHANNELS);
      this.#offset = 0;
    }
    this.#level += CUT_FADE;
    this.#history.set(played);
    this.#debt = Math.max(0, this.#debt - samples);
    this.#options.onCut?.(msOf(samples));
  }

  /** Copies without using up. */
  #copy(out: Int16Array, samples: number): void {
    let at = 0;
    let offset = this.#offset;
    for (const chunk of this.#chunks) {
      const there = chunk.length / CHANNELS - offset;
      const now = Math.min(there, samples - at);
      out.set(chunk.subarray(offset * CHANNELS, (offset + now) * CHANNELS), at * CHANNELS);
      at += now;
      offset = 0;
      if (at === samples) break;
    }
  }

  #skip(samples: number): void {
    if (samples <= 0) return;
    let left = samples;
    this.#level -= samples;
    while (left > 0) {
      const first = this.#chunks[0];
      if (!first) break;
      const there = first.length / CHANNELS - this.#offset;
      if (there > left) {
        this.#offset += left;
        this.#history.set(first.subarray((this.#offset - 1) * CHANNELS, this.#offset * CHANNELS));
        break;
      }
      this.#history.set(first.subarray(first.length - CHANNELS));
      this.#chunks.shift();
      this.#offset = 0;
      left -= there;
    }
  }
}

function scale(pcm: Int16Array, gains: Int16Array): void {
  const length = Math.min(pcm.length, gains.length);
  for (let at = 0; at < length; at += 1) pcm[at] = Math.round((pcm[at]! * gains[at]!) / FULL_GAIN);
}
