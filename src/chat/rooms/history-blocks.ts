import type { Clock } from '../../runtime/clock.js';
import type { EntryFrame } from '../protocol/entry-frame.js';

/**
 * Entries per block. Blocks begin at fixed offsets, so pages that differ by a few entries share one
 * read.
 */
export const BLOCK_ENTRIES = 100;
/** The memory of the blocks of all rooms of a process. */
const BLOCKS_BYTES = 16 * 1024 * 1024;
/**
 * How long a block is served without another read. Many members may ask for the same entries within
 * seconds.
 */
const FRESH_MS = 10_000;
/**
 * The memory of a frame besides its text, and the assumed size of a block that is still being read.
 */
const FRAME_BYTES = 200;
const UNREAD_BYTES = 1000;

type BlockFrames = readonly EntryFrame[] | undefined;

interface Block {
  readonly frames: Promise<BlockFrames>;
  readonly atMs: number;
  bytes: number;
}

/**
 * Blocks of entries that were read recently or are being read. Callers that ask for the same block
 * share the read.
 */
export class HistoryBlocks {
  readonly #clock: Clock;
  readonly #maxBytes: number;
  /** By room id and the name that the room gives the block. The oldest comes first. */
  readonly #blocks = new Map<string, Block>();
  #bytes = 0;

  constructor(clock: Clock, maxBytes = BLOCKS_BYTES) {
    this.#clock = clock;
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Undefined: the block has to be read. */
  get(roomId: string, name: string): Promise<BlockFrames> | undefined {
    const id = `${roomId} ${name}`;
    const block = this.#blocks.get(id);
    if (block && this.#clock.monotonicMs() - block.atMs < FRESH_MS) return block.frames;
    if (block) this.#drop(id, block);
    return undefined;
  }

  /**
   * Adds a block whose read has begun. Callers share it until `FRESH_MS` after that. A read that
   * fails or finds fewer than `count` entries is removed.
   */
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

  /**
   * Removes the room's blocks. Called when messages were erased or the room has a new epoch. A
   * running read may have the old state: its callers get it, but it is not kept.
   */
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
