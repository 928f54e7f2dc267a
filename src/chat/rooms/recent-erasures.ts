import type { Deletion, EntryFrame } from '../protocol/entry-frame.js';

/** Deletions that are remembered: this many by offset, and this many by user. */
const MAX_REMEMBERED = 2000;

/**
 * Recent deletions in a room. Entries that were read before a deletion and arrive after it are
 * checked against this, so that no deleted text comes back into memory.
 */
export class RecentErasures {
  readonly #offsets = new Set<number>();
  /** By user: the offset up to which every message of the user was deleted. */
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

  /** Whether the message of this frame was deleted. */
  covers({ mid, offset, userId }: EntryFrame): boolean {
    if (mid === undefined) return false;
    return this.#offsets.has(offset) || (userId !== undefined && offset <= (this.#users.get(userId) ?? 0));
  }

  /** A new epoch has withdrawn the entries above `keep`. Other entries may get their offsets. */
  withdrawAbove(keep: number): void {
    for (const offset of this.#offsets) if (offset > keep) this.#offsets.delete(offset);
    for (const [user, upTo] of this.#users) if (upTo > keep) this.#users.set(user, keep);
  }
}
