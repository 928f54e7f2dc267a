import { CHANNELS, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { crossfade, fade } from '../media/pcm.js';
import type { PcmBuffer } from './pcm-buffer.js';

/** 20 ms: the smallest step of the playout, and the length of a crossfade. */
export const BLOCK_SAMPLES = SAMPLE_RATE_HZ / 50;

/**
 * How often sound is rendered and encoded. A step of 20 ms woke each encoder and this process three
 * times as often, for 60 ms less latency.
 */
export const RENDER_STEP_MS = 60;

/** 5 ms: the length of a fade-in. A source may begin in the middle of its sound. */
const EDGE_FADE_SAMPLES = SAMPLE_RATE_HZ / 200;

export interface PlayoutSource {
  readonly buffer: PcmBuffer;
  /**
   * True when the source has ended and its sound must be played to the end: the next source waits
   * for it.
   */
  readonly playsOut: boolean;
  /**
   * Called when the source is on air. `displaced`, the source before it, is not played any more.
   */
  readonly onAir: (displaced: PlayoutSource | undefined) => void;
  /** Called when the last sample of the source was played. */
  readonly onDrained: () => void;
}

/**
 * Renders what is heard: the source that is on air, fill while there is none or its buffer is
 * empty, and a crossfade to the next source when that is ready. After a source that plays out, the
 * next one begins at its last sample.
 *
 * The playout does not read the wall clock. Its caller decides what is due, and each call continues
 * where the last one ended. So the result is one unbroken stream of samples, whatever happens to
 * the broadcasters.
 */
export class Playout {
  #current: PlayoutSource | undefined;
  /** The sources that wait, oldest first. All except the last one play out. */
  #waiting: PlayoutSource[] = [];
  #rendered = 0;
  #soundEnd = 0;

  /** The number of samples rendered since the broadcast began. */
  get rendered(): number {
    return this.#rendered;
  }

  /** The position after the last sample that came from a source. Fill follows it. */
  get soundEnd(): number {
    return this.#soundEnd;
  }

  get current(): PlayoutSource | undefined {
    return this.#current;
  }

  /** The source that is put on air next. */
  get next(): PlayoutSource | undefined {
    return this.#waiting[0];
  }

  /**
   * Lets a source wait until it can be put on air. Returns the waiting sources that it replaces:
   * those that do not play out.
   */
  put(source: PlayoutSource): PlayoutSource[] {
    const given = this.#waiting.filter((waiting) => !waiting.playsOut);
    this.#waiting = [...this.#waiting.filter((waiting) => waiting.playsOut), source];
    return given;
  }

  /** Removes a source without playing it to its end. */
  remove(source: PlayoutSource): void {
    this.#waiting = this.#waiting.filter((waiting) => waiting !== source);
    if (this.#current === source) this.#current = undefined;
  }

  /** Returns whether the next block would contain fill that a little waiting may avoid. */
  short(nowMs: number): boolean {
    return this.#current?.buffer.short(BLOCK_SAMPLES) === true && !this.#takesOver(nowMs);
  }

  /** Returns the next block of `BLOCK_SAMPLES`, a new array each time. */
  render(nowMs: number): Int16Array {
    const out = new Int16Array(BLOCK_SAMPLES * CHANNELS);
    let got = this.#current ? this.#current.buffer.read(out, nowMs) : 0;
    if (this.#current?.buffer.drained) {
      this.#dropCurrent();
      // The next source begins at the end of this one, not one block later.
      if (this.#takesOver(nowMs)) {
        const rest = out.subarray(got * CHANNELS);
        const more = this.#waiting[0]!.buffer.read(rest, nowMs);
        fade(rest.subarray(0, Math.min(EDGE_FADE_SAMPLES, more) * CHANNELS), 'in');
        got += more;
        this.#putOn();
      }
    } else if (this.#takesOver(nowMs)) {
      const incoming = new Int16Array(BLOCK_SAMPLES * CHANNELS);
      got = Math.max(got, this.#waiting[0]!.buffer.read(incoming, nowMs));
      crossfade(out, incoming);
      this.#putOn();
    }
    for (const waiting of this.#waiting) waiting.buffer.hold(nowMs);
    this.prune();
    if (got > 0) this.#soundEnd = this.#rendered + got;
    this.#rendered += BLOCK_SAMPLES;
    return out;
  }

  /** Removes waiting sources that have no sound left. */
  prune(): void {
    for (const waiting of this.#waiting.filter(({ buffer }) => buffer.drained)) {
      this.remove(waiting);
      waiting.onDrained();
    }
  }

  #takesOver(nowMs: number): boolean {
    return this.#current?.playsOut !== true && this.#waiting[0]?.buffer.ready(nowMs) === true;
  }

  #putOn(): void {
    const displaced = this.#current;
    this.#current = this.#waiting.shift();
    this.#current?.onAir(displaced);
  }

  #dropCurrent(): void {
    const source = this.#current;
    this.#current = undefined;
    source?.onDrained();
  }
}
