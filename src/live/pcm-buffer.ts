import { CHANNELS, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { crossfade, fade, resample } from '../media/pcm.js';

export interface PcmBufferOptions {
  /**
   * The level to keep. Undefined: the largest gap between arrivals of the last 10 s, plus 50 ms, at
   * most 2 s.
   */
  readonly targetMs: number | undefined;
  /**
   * The time between two arrivals. With a fixed target the buffer starts this much above it, so
   * that the level does not fall below the target before the next arrival.
   */
  readonly arrivalMs?: number;
  /** Called to pause (true) or resume (false) reading from the decoder. */
  readonly onPressure: (pause: boolean) => void;
  /** Called when a lasting surplus was cut out of the sound. */
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
/**
 * How long a source with a fixed target is observed to decide whether it is faster than real time.
 */
const OBSERVE_MS = 200;
/**
 * How long a source whose target follows its gaps is observed. In less time it has shown no gap,
 * and would run empty at its first one.
 */
const OBSERVE_FOLLOWED_MS = 1000;
/** A source that has sent this much more than the time observed is a file. */
const FAST_SURPLUS_MS = 1000;
/**
 * A source that has sent this much more than the time observed is a file without further
 * observation: no encoder sends as much of its past when it begins.
 */
const FAST_AT_ONCE_MS = 2000;
const HIGH_WATER = samplesOf(3000);
const LOW_WATER = samplesOf(2500);
/**
 * The level at which a waiting real-time source is trimmed. Below `HIGH_WATER`, so that its
 * broadcaster is not paused.
 */
const HELD_AT_MOST = samplesOf(2500);
/**
 * The most late sound that is taken in above `HIGH_WATER`: 2 MB of PCM. A connection that is silent
 * for longer is closed by its protocol.
 */
const MAX_LATE = samplesOf(10_000);
const LEVEL_WINDOW_MS = 5000;
const SURPLUS_MS = 250;
/**
 * After fill was played, late sound is cut when it is more than this. The glitch was heard already;
 * left to the 500 ppm of drift correction, the sound would add latency for minutes.
 */
const LATE_SURPLUS_MS = 60;
const MAX_DRIFT = 500e-6;
/** The samples that interpolation needs after its last position. */
const RESAMPLE_REACH = 3;
/**
 * The deviation of the level that is corrected at the full 500 ppm. At 200 ppm of drift the level
 * settles 12 ms off.
 */
const FULL_CORRECTION_MS = 30;
/** While the deviation of the level is at most this, nothing is resampled. */
const DEAD_BAND_MS = 4;

/** The gain 1 in the gains of a fade. */
const FULL_GAIN = 32_767;

type BufferMode = 'filling' | 'playing' | 'drained';

/**
 * The buffer between the decoder of one source and the playout. It decides the latency and absorbs
 * jitter and clock drift.
 *
 * The mode of the buffer; only `#enter` changes it.
 * - `filling`: collects sound until the target level is reached, and gives none.
 * - `playing`: gives sound. When the buffer runs empty, the last 5 ms fade out and it is `filling`
 *   again.
 * - `drained`: the source has ended and everything was played.
 *
 * Surplus is treated by its origin. Sound that a real-time source sent before it was put on air is
 * trimmed at that moment (untrimmed, it added 130 to 200 ms of latency for good). Sound that piled
 * up while the playout played fill, because an uplink stalled and then caught up, is removed by one
 * crossfaded cut. A source that is faster than real time, such as a file, is never cut: above 3 s
 * its decoder is paused, and with it the broadcaster's socket.
 *
 * Clock drift of at most 500 ppm is corrected by resampling, steered by the lowest level of the
 * last 5 s.
 */
export class PcmBuffer {
  readonly #options: PcmBufferOptions;
  #mode: BufferMode = 'filling';
  #chunks: Int16Array[] = [];
  /** Samples of the first chunk that were read already. */
  #offset = 0;
  #level = 0;
  #ended = false;
  #paused = false;

  #firstArrivalMs: number | undefined;
  #lastArrivalMs = 0;
  #gaps: { atMs: number; gapMs: number }[] = [];
  #received = 0;
  #fast: boolean | undefined;

  /**
   * Samples of fill that were played while this source was connected and empty. Cuts remove at most
   * this many.
   */
  #debt = 0;
  #starved = false;
  #windowStartMs = 0;
  #windowMin = Number.POSITIVE_INFINITY;
  #postponed = false;
  #ratio = 1;
  #phase = 0;
  #history = new Int16Array(CHANNELS);
  /** Samples that arrive next and are still to be faded in. */
  #fadeIn = 0;

  constructor(options: PcmBufferOptions) {
    this.#options = options;
  }

  /** Milliseconds of sound in the buffer. */
  get levelMs(): number {
    return msOf(this.#level);
  }

  /** True when the buffer will give no more sound. */
  get drained(): boolean {
    return this.#mode === 'drained';
  }

  /** How much faster than its nominal rate the source is read, in ppm. */
  get correctionPpm(): number {
    return (this.#ratio - 1) * 1e6;
  }

  targetMs(nowMs: number): number {
    if (this.#options.targetMs !== undefined) return this.#options.targetMs;
    let largest = 0;
    for (const gap of this.#gaps) if (nowMs - gap.atMs <= ARRIVAL_WINDOW_MS && gap.gapMs > largest) largest = gap.gapMs;
    return Math.min(MAX_TARGET_MS, Math.max(MIN_TARGET_MS, largest + ARRIVAL_MARGIN_MS));
  }

  /**
   * Appends decoded PCM (interleaved stereo). It is always accepted; `onPressure` pauses the
   * decoder.
   */
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

  /**
   * Fades over 5 ms on both sides of this point, because the next PCM does not continue the PCM in
   * the buffer.
   */
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

  /** Marks the end of the source. The sound in the buffer is still played. */
  end(): void {
    this.#ended = true;
    if (this.#level === 0) this.#enter('drained');
  }

  /**
   * Returns whether `read` would give sound, so that the source can be put on air. The call that
   * first returns true decides whether the source is a file, and trims it.
   */
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
   * Called instead of `ready` and `read` while another source is played to its end. Sound that a
   * real-time source sends in that time is discarded, otherwise it would be late for good. A file
   * is paused, as always.
   */
  hold(nowMs: number): void {
    if (this.#mode !== 'filling' || this.#ended || this.#firstArrivalMs === undefined || this.#fast === true) return;
    if (msOf(this.#received) > nowMs - this.#firstArrivalMs + FAST_SURPLUS_MS) this.#fast = true;
    else if (this.#level > HELD_AT_MOST) this.#skip(this.#level - samplesOf(this.targetMs(nowMs)));
  }

  /** Returns whether reading `samples` now would end in fill although more may arrive. */
  short(samples: number): boolean {
    return this.#mode === 'playing' && !this.#ended && this.#level < samples + EDGE_FADE + RESAMPLE_REACH;
  }

  /**
   * Fills `out` with the next samples, and the missing ones with silence, faded at the edges.
   * Returns how many samples of `out` have sound. To be called for as long as the source is on air,
   * also while the buffer is empty: it starts again by itself.
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
    // While more may arrive, 5 ms are kept in the buffer, so that it can always fade out.
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

  #enter(mode: BufferMode, nowMs = 0): void {
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

  /** Late sound of a stalled real-time source is taken in whole, so that one cut can remove it. */
  get #highWater(): number {
    return HIGH_WATER + (this.#fast ? 0 : Math.min(this.#debt, MAX_LATE));
  }

  /** Fades in the PCM after a seam. Its chunks may be shorter than the fade. */
  #soften(pcm: Int16Array): void {
    const edge = new Int16Array(EDGE_FADE * CHANNELS).fill(FULL_GAIN);
    fade(edge, 'in');
    scale(pcm, edge.subarray((EDGE_FADE - this.#fadeIn) * CHANNELS));
    this.#fadeIn = Math.max(0, this.#fadeIn - pcm.length / CHANNELS);
  }

  #rememberGap(nowMs: number): void {
    this.#gaps.push({ atMs: nowMs, gapMs: nowMs - this.#lastArrivalMs });
    // There is one entry per arrival, a few hundred in 10 s. They are pruned in steps, not at each
    // arrival.
    if (this.#gaps.length > 2048) this.#gaps = this.#gaps.filter((gap) => nowMs - gap.atMs <= ARRIVAL_WINDOW_MS).slice(-1024);
  }

  /** Takes the last samples before the buffer is empty, faded out at their end. */
  #takeLast(out: Int16Array, wanted: number): number {
    this.#ratio = 1;
    const got = Math.min(wanted, this.#level);
    this.#take(out, got);
    out.fill(0, got * CHANNELS);
    fade(out.subarray(Math.max(0, got - EDGE_FADE) * CHANNELS, got * CHANNELS), 'out');
    // The samples that are left, less than 5 ms of them, begin the next stretch. After the end none
    // are left.
    this.#enter(this.#ended ? 'drained' : 'filling');
    return got;
  }

  #take(out: Int16Array, samples: number): number {
    if (this.#ratio === 1 && this.#phase === 0) {
      this.#copy(out, samples);
      this.#skip(samples);
      return samples;
    }
    // Back at ratio 1, the remaining fraction of a sample is spread over one block; after it
    // samples are copied again.
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

  /**
   * Once per LEVEL_WINDOW_MS: cuts the surplus that a stall has left, or sets the resampling ratio.
   */
  #steer(nowMs: number): void {
    this.#windowMin = Math.min(this.#windowMin, this.#level);
    if (nowMs - this.#windowStartMs < LEVEL_WINDOW_MS) return;
    const lowest = this.#windowMin;
    this.#windowStartMs = nowMs;
    this.#windowMin = Number.POSITIVE_INFINITY;
    if (this.#fast || this.#ended) return;
    const target = samplesOf(this.targetMs(nowMs));
    if (lowest > target + samplesOf(LATE_SURPLUS_MS) && this.#debt > 0) {
      // The late sound arrived within this window. The next window has all of it, so one cut is
      // enough.
      if (this.#level > lowest + samplesOf(SURPLUS_MS) && !this.#postponed) {
        this.#postponed = true;
        return;
      }
      this.#postponed = false;
      this.#cut(Math.min(lowest - target, this.#debt));
      return;
    }
    const errorMs = msOf(lowest - target);
    // Without fill to make up for, sound far above the target was sent early, not late. It is left
    // in the buffer.
    if (Math.abs(errorMs) <= DEAD_BAND_MS || errorMs > SURPLUS_MS) this.#ratio = 1;
    else this.#ratio = 1 + Math.max(-MAX_DRIFT, Math.min(MAX_DRIFT, (errorMs / FULL_CORRECTION_MS) * MAX_DRIFT));
  }

  #cut(samples: number): void {
    // Interpolation continues from the sample that was played last, not from the cut.
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
      // `#offset` belongs to the first chunk, which is `from` now. The chunk after it is shortened
      // instead.
      const second = this.#chunks[1];
      if (second) this.#chunks[1] = second.subarray(this.#offset * CHANNELS);
      this.#offset = 0;
    }
    this.#level += CUT_FADE;
    this.#history.set(played);
    this.#debt = Math.max(0, this.#debt - samples);
    this.#options.onCut?.(msOf(samples));
  }

  /** Copies samples without removing them. */
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
