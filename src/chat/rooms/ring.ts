import type { EntryFrame } from '../protocol/entry-frame.js';

/** Frames in the ring of one room. */
export const RING_FRAMES = 64;
/** The memory of all rings of a process. */
const RINGS_BYTES = 64 * 1024 * 1024;
/** The memory of a frame besides its text. */
const FRAME_BYTES = 200;

/**
 * The rings of a process within one memory budget. Above it, frames are dropped from the rooms
 * whose last entry is the oldest.
 */
export class Rings {
  readonly #maxBytes: number;
  /** The room with the newest entry comes last. */
  readonly #rings = new Set<Ring>();
  #bytes = 0;

  constructor(maxBytes = RINGS_BYTES) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  counted(ring: Ring, bytes: number): void {
    this.#bytes += bytes;
    this.#rings.delete(ring);
    if (!ring.isEmpty) this.#rings.add(ring);
    if (bytes <= 0) return;
    for (const oldest of this.#rings) {
      if (this.#bytes <= this.#maxBytes) return;
      // The room that has just got an entry keeps its newest frame: it is about to be written to
      // members.
      oldest.shrink(oldest === ring ? 1 : 0, this.#bytes - this.#maxBytes);
    }
  }

  shrunk(ring: Ring, bytes: number): void {
    this.#bytes -= bytes;
    if (ring.isEmpty) this.#rings.delete(ring);
  }
}

/** The newest frames of a room, contiguous. */
export class Ring {
  readonly #rings: Rings;
  readonly #frames: EntryFrame[] = [];

  constructor(rings: Rings) {
    this.#rings = rings;
  }

  get isEmpty(): boolean {
    return this.#frames.length === 0;
  }

  /** The lowest offset in the ring; undefined: the ring is empty. */
  get first(): number | undefined {
    return this.#frames[0]?.offset;
  }

  pushFrame(frame: EntryFrame): void {
    let bytes = sizeOf(frame);
    if (this.#frames.length > 0 && this.#frames.at(-1)!.offset !== frame.offset - 1) this.clear();
    this.#frames.push(frame);
    if (this.#frames.length > RING_FRAMES) bytes -= sizeOf(this.#frames.shift()!);
    this.#rings.counted(this, bytes);
  }

  /** Undefined: the ring does not reach back to this offset. */
  framesAfter(offset: number, limit: number): readonly EntryFrame[] | undefined {
    const first = this.first;
    if (first === undefined || offset + 1 < first) return undefined;
    return this.#frames.slice(offset + 1 - first, offset + 1 - first + limit);
  }

  findFrame(wanted: (frame: EntryFrame) => boolean): EntryFrame | undefined {
    return this.#frames.findLast(wanted);
  }

  /** Replaces the frames for which `wanted` is true. */
  replaceFrames(wanted: (frame: EntryFrame) => boolean, by: (frame: EntryFrame) => EntryFrame): void {
    for (const [index, frame] of this.#frames.entries()) {
      if (!wanted(frame)) continue;
      const replacement = by(frame);
      this.#frames[index] = replacement;
      this.#rings.shrunk(this, sizeOf(frame) - sizeOf(replacement));
    }
  }

  /** Drops the oldest frames until `bytes` are free or `kept` frames are left. */
  shrink(kept: number, bytes: number): void {
    let freed = 0;
    while (this.#frames.length > kept && freed < bytes) freed += sizeOf(this.#frames.shift()!);
    this.#rings.shrunk(this, freed);
  }

  clear(): void {
    this.shrink(0, Number.POSITIVE_INFINITY);
  }
}

const sizeOf = (frame: EntryFrame) => FRAME_BYTES + frame.bytes + 2 * (frame.hidden?.length ?? 0);
