import { CHANNELS, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { crossfade } from '../media/pcm.js';
import type { PcmBuffer } from './pcm-buffer.js';

/** 20 ms: the step of the clock and the length of a crossfade. */
export const BLOCK_SAMPLES = SAMPLE_RATE_HZ / 50;

/** Rendered and encoded at once: a step of 20 ms woke each encoder and this process three times as often, for 60 ms less delay. */
export const RENDER_STEP_MS = 60;

export interface PlayoutSource {
  readonly buffer: PcmBuffer;
  /** It is heard from now on; the one before it (if any) is not heard again. */
  readonly onAir: (displaced: PlayoutSource | undefined) => void;
  /** Its last sample was played. */
  readonly onDrained: () => void;
}

/**
 * What is heard: the source that is on air, fill when there is none or it is starved, and a crossfade to the next one when
 * that is ready. It knows nothing of the wall clock: whoever calls `render` decides what is due, and each call continues
 * where the last ended. So whatever happens to a broadcaster, what comes out is one unbroken stream of samples.
 */
export class Playout {
  #current: PlayoutSource | undefined;
  #next: PlayoutSource | undefined;
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

  /** The source that waits to be put on. */
  get next(): PlayoutSource | undefined {
    return this.#next;
  }

  /** Puts a source on as soon as it is ready. One that was waiting before it is given up, and returned. */
  put(source: PlayoutSource): PlayoutSource | undefined {
    const given = this.#next;
    this.#next = source;
    return given;
  }

  /** Takes a source off without waiting for its end. */
  remove(source: PlayoutSource): void {
    if (this.#next === source) this.#next = undefined;
    if (this.#current === source) this.#current = undefined;
  }

  /** Whether the next block would have a hole that a little patience may fill. */
  short(nowMs: number): boolean {
    return this.#current?.buffer.short(BLOCK_SAMPLES) === true && this.#next?.buffer.ready(nowMs) !== true;
  }

  /** The next block of `BLOCK_SAMPLES`; a fresh array each time. */
  render(nowMs: number): Int16Array {
    const out = new Int16Array(BLOCK_SAMPLES * CHANNELS);
    let got = this.#current ? this.#current.buffer.read(out, nowMs) : 0;
    if (this.#next?.buffer.ready(nowMs)) {
      const incoming = new Int16Array(BLOCK_SAMPLES * CHANNELS);
      got = Math.max(got, this.#next.buffer.read(incoming, nowMs));
      crossfade(out, incoming);
      const displaced = this.#current;
      this.#current = this.#next;
      this.#next = undefined;
      this.#current.onAir(displaced);
    }
    if (got > 0) this.#soundEnd = this.#rendered + got;
    this.#rendered += BLOCK_SAMPLES;
    if (this.#next?.buffer.drained) this.#drop('next');
    if (this.#current?.buffer.drained) this.#drop('current');
    return out;
  }

  #drop(which: 'current' | 'next'): void {
    const source = which === 'current' ? this.#current : this.#next;
    if (which === 'current') this.#current = undefined;
    else this.#next = undefined;
    source?.onDrained();
  }
}
