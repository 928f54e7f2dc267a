import { KEY_MS } from '../../backing/room-log/room-log.js';

/** Messages of one room that are remembered, of all within `KEY_MS`. */
const MAX_KNOWN = 2000;

export interface KnownMessage {
  readonly offset: number;
  readonly atMs: number;
  readonly userId: string | undefined;
}

/** The messages of the last minutes by their mid, so that one that is sent again is known before any rule is asked. */
export class KnownMessages {
  readonly #known = new Map<string, KnownMessage>();
  /** It has everything that the log took after this time. */
  #sinceMs = Number.POSITIVE_INFINITY;

  /** From here on everything is added; `sinceMs`: the time of the entry before. */
  startAfter(sinceMs: number): void {
    this.#sinceMs = sinceMs;
  }

  get(mid: string): KnownMessage | undefined {
    return this.#known.get(mid);
  }

  /** Whether a message that is not here was not said within `KEY_MS`. */
  isComplete(nowMs: number): boolean {
    return this.#sinceMs <= nowMs - KEY_MS;
  }

  add(mid: string, known: KnownMessage): void {
    // The first place counts: what comes under the same mid later is the same message.
    if (!this.#known.has(mid)) this.#known.set(mid, known);
    for (const [oldest, { atMs }] of this.#known) {
      const isOld = atMs < known.atMs - 2 * KEY_MS;
      if (!isOld && this.#known.size <= MAX_KNOWN) break;
      this.#known.delete(oldest);
      this.#sinceMs = Math.max(this.#sinceMs, atMs);
    }
  }

  /** Those were withdrawn. */
  dropAbove(offset: number): void {
    for (const [mid, known] of this.#known) if (known.offset > offset) this.#known.delete(mid);
  }

  /** Their author is forgotten; that they were said is not, or they could be said again under the same key. */
  forgetAuthor(wanted: (known: KnownMessage) => boolean): void {
    for (const [mid, known] of this.#known) if (wanted(known)) this.#known.set(mid, { ...known, userId: undefined });
  }
}
