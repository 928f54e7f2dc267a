import { CHANNELS, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { crossfade, fade } from '../media/pcm.js';
import type { PcmBuffer } from './pcm-buffer.js';

/** 20 ms: the step of the clock and the length of a crossfade. */
export const BLOCK_SAMPLES = SAMPLE_RATE_HZ / 50;

/** Rendered and encoded at once: a step of 20 ms woke each encoder and this process three times as often, for 60 ms less delay. */
export const RENDER_STEP_MS = 60;

/** 5 ms: a source may begin in the middle of its sound. */
const EDGE_FADE_SAMPLES = SAMPLE_RATE_HZ / 200;

export interface PlayoutSource {
  readonly buffer: PcmBuffer;
  /** It has ended, and what it has sent is to be heard whole: the next one waits for it. */
  readonly playsOut: boolean;
  /** It is heard from now on; the one before it (if any) is not heard again. */
  readonly onAir: (displaced: PlayoutSource | undefined) => void;
  /** Its last sample was played. */
  readonly onDrained: () => void;
}

/**
 * What is heard: the source that is on air, fill when there is none or it is starved, and a crossfade to the next one when
 * that is ready. Of a source that plays out, the next one follows its last sample. It knows nothing of the wall clock: whoever calls `render`
 * decides what is due, and each call continues where the last ended. So whatever happens to a broadcaster, what comes out is one unbroken
 * stream of samples.
 */
export class Playout {
  #current: PlayoutSource | undefined;
  /** First come, first played; all but the last one play out. */
  #waiting: PlayoutSource[] = [];
  #rendered = 0;
  #soundEnd = 0;

  /** Samples rendered since the run began. */
  get rendered(): number {
    return this.#rendered;
  }

  /** Position after the last sample that came from a source: what follows is fill. */
  get soundEnd(): number {
    return this.#soundEnd;
  }

  get current(): PlayoutSource | undefined {
    return this.#current;
  }

  /** The source that is put on next. */
  get next(): PlayoutSource | undefined {
    return this.#waiting[0];
  }

  /** Puts a source on as soon as it is ready. Those that wait and do not play out are given up, and returned. */
  put(source: PlayoutSource): PlayoutSource[] {
    const given = this.#waiting.filter((waiting) => !waiting.playsOut);
    this.#waiting = [...this.#waiting.filter((waiting) => waiting.playsOut), source];
    return given;
  }

  /** Takes a source off without waiting for its end. */
  remove(source: PlayoutSource): void {
    this.#waiting = this.#waiting.filter((waiting) => waiting !== source);
    if (this.#current === source) this.#current = undefined;
  }

  /** Whether the next block would have a hole that a little patience may fill. */
  short(nowMs: number): boolean {
    return this.#current?.buffer.short(BLOCK_SAMPLES) === true && !this.#takesOver(nowMs);
  }

  /** The next block of `BLOCK_SAMPLES`; a fresh array each time. */
  render(nowMs: number): Int16Array {
    const out = new Int16Array(BLOCK_SAMPLES * CHANNELS);
    let got = this.#current ? this.#current.buffer.read(out, nowMs) : 0;
    if (this.#current?.buffer.drained) {
      this.#dropCurrent();
      // The next one begins where this one ended, not a block later.
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

  /** Lets go of waiting sources in which there is nothing more. */
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
