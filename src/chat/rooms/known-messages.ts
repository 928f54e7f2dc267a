import { KEY_MS } from '../../backing/room-log/room-log.js';

/** Messages of one room that are remembered, even if more are newer than `KEY_MS`. */
const MAX_KNOWN = 2000;

export interface KnownMessage {
  readonly offset: number;
  readonly atMs: number;
  readonly userId: string | undefined;
}

/**
 * The messages of the last minutes by `mid`. A message that is sent again is found here before any
 * rule is checked.
 */
export class KnownMessages {
  readonly #known = new Map<string, KnownMessage>();
  /** Every message that the log accepted after this time is known here. */
  #sinceMs = Number.POSITIVE_INFINITY;

  /** From now on every message is added. `sinceMs`: the time of the entry before. */
  startAfter(sinceMs: number): void {
    this.#sinceMs = sinceMs;
  }

  get(mid: string): KnownMessage | undefined {
    return this.#known.get(mid);
  }

  /** Whether a message that is not known here was surely not published within `KEY_MS`. */
  isComplete(nowMs: number): boolean {
    return this.#sinceMs <= nowMs - KEY_MS;
  }

  add(mid: string, known: KnownMessage): void {
    // The first offset counts: a later entry with the same `mid` is the same message.
    if (!this.#known.has(mid)) this.#known.set(mid, known);
    for (const [oldest, { atMs }] of this.#known) {
      const isOld = atMs < known.atMs - 2 * KEY_MS;
      if (!isOld && this.#known.size <= MAX_KNOWN) break;
      this.#known.delete(oldest);
      this.#sinceMs = Math.max(this.#sinceMs, atMs);
    }
  }

  /** Removes messages that were withdrawn. */
  dropAbove(offset: number): void {
    for (const [mid, known] of this.#known) if (known.offset > offset) this.#known.delete(mid);
  }

  /**
   * Forgets the author of these messages. The messages stay known; otherwise they could be
   * published again under the same key.
   */
  forgetAuthor(wanted: (known: KnownMessage) => boolean): void {
    for (const [mid, known] of this.#known) if (wanted(known)) this.#known.set(mid, { ...known, userId: undefined });
  }
}
