import type { Clock } from '../../runtime/clock.js';
import type { EntryFrame } from '../protocol/entry-frame.js';

/** Entries of a block. Blocks begin at fixed offsets, so that pages that differ by a few entries are read once. */
export const BLOCK_ENTRIES = 100;
/** Of all rooms of a process. */
const BLOCKS_BYTES = 16 * 1024 * 1024;
/** How long a block is served without being read again: a crowd that comes at one moment. */
const FRESH_MS = 10_000;
/** A frame in memory beside its text, and what a block is counted as until it has been read. */
const FRAME_BYTES = 200;
const UNREAD_BYTES = 1000;

type BlockFrames = readonly EntryFrame[] | undefined;

interface Block {
  readonly frames: Promise<BlockFrames>;
  readonly atMs: number;
  bytes: number;
}

/** Blocks of entries that were read lately, or are being read: who asks for the same meanwhile gets the same. */
export class HistoryBlocks {
  readonly #clock: Clock;
  readonly #maxBytes: number;
  /** By room, then by what the room calls it. The oldest first. */
  readonly #blocks = new Map<string, Block>();
  #bytes = 0;

  constructor(clock: Clock, maxBytes = BLOCKS_BYTES) {
    this.#clock = clock;
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Undefined: it has to be read. */
  get(roomId: string, name: string): Promise<BlockFrames> | undefined {
    const id = `${roomId} ${name}`;
    const block = this.#blocks.get(id);
    if (block && this.#clock.monotonicMs() - block.atMs < FRESH_MS) return block.frames;
    if (block) this.#drop(id, block);
    return undefined;
  }

  /** Whoever asks until it has been read, and for a while after, gets it. A read that fails, or finds less than `count` entries, is not kept. */
  set(roomId: string, name: string, count: number, frames: Promise<BlockFrames>): void {
    const id = `${roomId} ${name}`;
    const before = this.#blocks.get(id);
    if (before) this.#drop(id, before);
    const block: Block = { frames, atMs: this.#clock.monotonicMs(), bytes: UNREAD_BYTES };
    this.#blocks.set(id, block);
    this.#count(UNREAD_BYTES);
    const settled = (found: BlockFrames) => {
      if (this.#blocks.get(id) !== block) return;
      if (found?.length !== count) {
        this.#drop(id, block);
        return;
      }
      const bytes = found.reduce((sum, frame) => sum + FRAME_BYTES + frame.bytes + 2 * (frame.hidden?.length ?? 0), 0);
      const more = bytes - block.bytes;
      block.bytes = bytes;
      this.#count(more);
    };
    frames.then(settled, () => settled(undefined));
  }

  /** Something in the room was erased, or the room has another epoch. What is being read may be from before: it is given to those who wait for it, and not kept. */
  forget(roomId: string): void {
    for (const [id, block] of this.#blocks) if (id.startsWith(`${roomId} `)) this.#drop(id, block);
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    for (const [id, block] of this.#blocks) {
      if (this.#bytes <= this.#maxBytes) return;
      this.#drop(id, block);
    }
  }

  #drop(id: string, block: Block): void {
    this.#blocks.delete(id);
    this.#bytes -= block.bytes;
  }
}
