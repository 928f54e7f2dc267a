import { type Entry, entriesOf, type Frame, isOffset, isRecord, textOf } from './frames.js';
import type { Timeline } from './timeline.js';

type PinnedFields = Readonly<Record<string, unknown>>;

export interface PinnedMessageHost {
  readonly timeline: Timeline;
  readonly epoch: number;
  ask(frame: Frame): Promise<Frame>;
  onChanged(): void;
}

/**
 * The pinned message of a room: from `joined`, from `pin` entries, or fetched when it is older than
 * the view.
 */
export class PinnedMessage {
  readonly #host: PinnedMessageHost;
  #pinned: PinnedFields | undefined;

  constructor(host: PinnedMessageHost) {
    this.#host = host;
  }

  /** `mid`, and for a known message `user`, `body` and `at`. Undefined: no message is pinned. */
  get current(): PinnedFields | undefined {
    return this.#pinned;
  }

  /** Sets the pin that `joined` carries. */
  set(pinned: unknown): void {
    this.#pinned = isRecord(pinned) ? pinned : undefined;
  }

  /** Applies a `pin` entry. */
  apply(entry: Entry): void {
    const mid = textOf(entry.mid);
    const item = mid === undefined ? undefined : this.#host.timeline.get(mid);
    if (mid === undefined) this.#pinned = undefined;
    else if (item) this.#pinned = { mid, user: item.user, body: item.body, at: item.at, offset: item.offset };
    // `joined` may have sent the message already.
    else if (this.#pinned?.mid !== mid || this.#pinned.body === undefined) {
      this.#pinned = { mid, offset: entry.messageOffset };
      if (isOffset(entry.messageOffset)) void this.#fetch(mid, entry.messageOffset);
    }
  }

  /** Removes the pin of a message that was deleted, alone or with all messages of its author. */
  dropIfDeleted(): void {
    if (this.#pinned === undefined) return;
    const { mid, user, offset } = this.#pinned;
    const userId = isRecord(user) ? textOf(user.id) : undefined;
    if (this.#host.timeline.isDeleted({ mid: String(mid), userId, offset: isOffset(offset) ? offset : undefined }))
      this.#pinned = undefined;
  }

  /** Fetches a message that is older than the view. */
  async #fetch(mid: string, offset: number): Promise<void> {
    const { epoch } = this.#host;
    try {
      const frame = await this.#host.ask({ t: 'history', before: offset + 1, limit: 1 });
      const found = entriesOf(frame.entries, epoch).find((entry) => entry.mid === mid);
      if (this.#pinned?.mid !== mid) return;
      // Undefined: the message was erased.
      this.#pinned = found && { mid, user: found.user, body: found.body, at: found.at, offset };
      // The message may have been deleted during the request.
      this.dropIfDeleted();
      this.#host.onChanged();
    } catch {
      // The next `joined` carries the pin again.
    }
  }
}
