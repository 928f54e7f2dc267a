import type { Deletion, EntryFrame } from '../protocol/entry-frame.js';

/** Deletions that are remembered, by offset and by user. */
const MAX_REMEMBERED = 2000;

/**
 * What was deleted in a room lately. Entries that were read before a deletion and arrive after it are checked against this, so
 * that no deleted text comes back into memory.
 */
export class RecentErasures {
  readonly #offsets = new Set<number>();
  /** By user: every message up to this offset. */
  readonly #users = new Map<string, number>();

  add({ offsets = [], user, upTo = 0 }: Deletion): void {
    for (const offset of offsets) this.#offsets.add(offset);
    for (const offset of this.#offsets) {
      if (this.#offsets.size <= MAX_REMEMBERED) break;
      this.#offsets.delete(offset);
    }
    if (user === undefined) return;
    this.#users.delete(user);
    this.#users.set(user, upTo);
    if (this.#users.size > MAX_REMEMBERED) this.#users.delete(this.#users.keys().next().value!);
  }

  hasOffset(offset: number): boolean {
    return this.#offsets.has(offset);
  }

  /** Whether the frame is of a message that was deleted. */
  covers({ mid, offset, userId }: EntryFrame): boolean {
    if (mid === undefined) return false;
    return this.#offsets.has(offset) || (userId !== undefined && offset <= (this.#users.get(userId) ?? 0));
  }

  /** A new epoch has withdrawn the entries above `keep`: other entries may get their offsets. */
  withdrawAbove(keep: number): void {
    for (const offset of this.#offsets) if (offset > keep) this.#offsets.delete(offset);
    for (const [user, upTo] of this.#users) if (upTo > keep) this.#users.set(user, keep);
  }
}
