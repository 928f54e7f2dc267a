import { ChatProblem, type Entry, entriesOf, type Frame, isOffset } from './frames.js';
import type { RoomEvent } from './room-state.js';
import { Timeline } from './timeline.js';

/** Entries that one `range` or `history` requests at most. */
const PAGE_ENTRIES = 100;
/** Entries beyond a hole that are kept until the hole is filled. */
const MAX_AHEAD = 500;
/**
 * When `heads` names a newer entry than the view has, the entry may still be on its way. It is
 * requested after this.
 */
const GRACE_MS = 1_000;
const RETRY_MS = { first: 500, most: 10_000 } as const;
/** An empty page for a hole is accepted when it comes this often in a row. */
const EMPTY_PAGES = 2;

/** The part of the room that the follower uses. */
export interface FollowerHost {
  readonly isJoined: boolean;
  readonly isJoining: boolean;
  /** Raised when the room is joined again. Answers of an earlier turn are ignored. */
  readonly turn: number;
  /** Raises `turn`, unless a `join` is unanswered. */
  endTurn(): void;
  /** Sends a frame that names this room. */
  request(frame: Frame, answer: (frame: Frame) => void, failed: (problem: ChatProblem) => void): void;
  ask(frame: Frame): Promise<Frame>;
  /** Leaves the room and joins it again, from the view's position. */
  rejoin(): void;
  /** Called after these entries were added to the view. */
  onApplied(entries: readonly Entry[]): void;
  /** Called after a new epoch has withdrawn the entries above `keep`. */
  onWithdrawn(keep: number): void;
  emit(event: RoomEvent): void;
  after(delayMs: number, task: () => void): void;
}

/**
 * Keeps a view equal to the room's log. The next entry is applied, an older one is dropped, a later
 * one is kept, and the hole before it is requested.
 */
export class LogFollower {
  readonly timeline: Timeline;
  readonly #host: FollowerHost;
  readonly #mostItems: number;
  readonly #mostFetched: number;
  readonly #ahead = new Map<number, Entry>();
  #epoch = 0;
  /** The newest offset of the view; undefined: there is no view yet. */
  #last: number | undefined;
  /** The newest offset that the server has named. */
  #known = 0;
  #isFilling = false;
  #isWatchingHeads = false;
  /** Requests that failed in a row. */
  #failures = 0;
  #empties = 0;
  #hasOlder = false;
  #history: Promise<boolean> | undefined;
  /** True: the user reads older entries, so twice as many entries are held. */
  keepsOlder = false;

  constructor(host: FollowerHost, mostItems: number, mostFetched: number) {
    this.#host = host;
    this.#mostItems = mostItems;
    this.#mostFetched = mostFetched;
    this.timeline = new Timeline((event) => host.emit(event));
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** The newest offset of the view; undefined: there is no view yet. */
  get last(): number | undefined {
    return this.#last;
  }

  get hasOlder(): boolean {
    return this.#hasOlder;
  }

  /** Forgets the running requests; their answers will be ignored. */
  interrupt(): void {
    this.#isFilling = false;
    this.#isWatchingHeads = false;
  }

  restartView(): void {
    this.#last = undefined;
    this.#known = 0;
    this.#ahead.clear();
    this.#hasOlder = false;
    this.timeline.clear();
  }

  /** The delay before a failed request is repeated. */
  backOffMs(problem?: ChatProblem): number {
    const waitMs = Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** Math.min(this.#failures++, 8));
    return Math.max(problem?.retryMs ?? 0, waitMs);
  }

  /**
   * The room was joined at this offset. `enter` is called before the entries of `joined` are
   * applied.
   */
  startFrom(frame: Frame, epoch: number, offset: number, enter: () => void): void {
    this.#failures = 0;
    const entries = entriesOf(frame.entries, epoch);
    // A newer epoch is announced by `reset`. Without it, it is not known which entries of the view
    // are still valid. A log that ends below the view is another log.
    const isOther =
      this.#last !== undefined &&
      (epoch !== this.#epoch ||
        frame.recovered === 'none' ||
        (frame.recovered !== 'partial' && offset < this.#last && entries.length === 0));
    if (isOther) this.restartView();
    this.#epoch = epoch;
    this.#last ??= this.#beginAt(entries.length > 0 ? entries[0]!.offset - 1 : offset);
    enter();
    // `partial`: the entries in between were deleted by age, or are more than the server sends with
    // `joined`.
    const begins = entries[0]?.offset ?? offset + 1;
    if (begins - this.#last - 1 > this.#mostFetched) {
      this.#host.emit({ type: 'missing', from: this.#last + 1, to: begins - 1 });
      this.restartView();
      this.#last = this.#beginAt(begins - 1);
    }
    this.#known = Math.max(this.#known, offset);
    this.take(entries);
  }

  #beginAt(offset: number): number {
    this.#hasOlder = offset > 0;
    return offset;
  }

  /** Handles a `reset` frame: a new epoch in which entries up to `keep` are still valid. */
  reset({ epoch, keep }: Frame): void {
    const host = this.#host;
    // A `reset` that answers `join` may name the epoch of the view, when the view's position was
    // beyond the log's end.
    const isOld = epoch === this.#epoch ? !host.isJoining : Number(epoch) < this.#epoch;
    if (!isOffset(epoch) || !isOffset(keep) || isOld || this.#last === undefined) return;
    this.#epoch = epoch;
    this.#ahead.clear();
    host.endTurn();
    this.interrupt();
    this.#known = keep;
    this.#last = Math.min(this.#last, keep);
    const first = this.timeline.items[0]?.offset;
    if (this.timeline.withdraw(keep)) {
      // A deletion was withdrawn. The messages that it had removed from the view come back with a
      // new view.
      this.restartView();
      host.onWithdrawn(keep);
      if (host.isJoined) host.rejoin();
      return;
    }
    if (first !== undefined && first > keep) this.#hasOlder = keep > 0;
    host.onWithdrawn(keep);
    if (host.isJoined) this.#fill();
  }

  /** The server has entries up to this offset. */
  learnHead(offset: unknown): void {
    if (!this.#host.isJoined || this.#last === undefined || !isOffset(offset)) return;
    this.#known = Math.max(this.#known, offset);
    this.#fill();
  }

  /**
   * `heads` has named the newest entry. If it does not arrive within `GRACE_MS`, it is requested.
   */
  watchHead(epoch: unknown, offset: unknown): void {
    if (!this.#host.isJoined || this.#last === undefined || !isOffset(epoch) || !isOffset(offset)) return;
    if (epoch === this.#epoch && offset <= this.#last) return;
    if (epoch < this.#epoch || this.#isWatchingHeads) return;
    this.#isWatchingHeads = true;
    const { turn } = this.#host;
    const before = this.#last;
    this.#host.after(GRACE_MS, () => {
      if (this.#host.turn !== turn) return;
      this.#isWatchingHeads = false;
      if (epoch > this.#epoch) this.#host.rejoin();
      else if (epoch === this.#epoch && this.#last !== undefined && this.#last < offset) {
        if (this.#last > before) this.watchHead(epoch, offset);
        else this.learnHead(offset);
      }
    });
  }

  /** Adds entries that the server has sent. */
  take(entries: readonly Entry[]): void {
    if (this.#last === undefined) return;
    const next: Entry[] = [];
    for (const entry of entries) {
      if (entry.epoch < this.#epoch || entry.offset <= this.#last) continue;
      if (entry.epoch > this.#epoch) {
        this.#apply(next);
        this.#host.rejoin();
        return;
      }
      this.#known = Math.max(this.#known, entry.offset);
      if (entry.offset > this.#last + 1) {
        // With `MAX_AHEAD` entries kept, the entry is requested later.
        if (this.#ahead.size < MAX_AHEAD) this.#ahead.set(entry.offset, entry);
        continue;
      }
      next.push(entry);
      this.#last = entry.offset;
      for (let after = this.#ahead.get(this.#last + 1); after; after = this.#ahead.get(this.#last + 1)) {
        this.#ahead.delete(after.offset);
        next.push(after);
        this.#last = after.offset;
      }
    }
    this.#apply(next);
    this.#fill();
  }

  /**
   * Adds older entries before the view. Resolves to whether there are more. Rejects with
   * `ChatProblem`.
   */
  readOlder(limit: number): Promise<boolean> {
    this.#history ??= this.#readOlder(limit).finally(() => {
      this.#history = undefined;
    });
    return this.#history;
  }

  async #readOlder(limit: number): Promise<boolean> {
    if (this.#last === undefined) throw new ChatProblem('disconnected', 'The room is not joined yet.');
    const before = this.timeline.items[0]?.offset ?? this.#last + 1;
    if (before <= 1) {
      this.#hasOlder = false;
      return false;
    }
    const epoch = this.#epoch;
    const frame = await this.#host.ask({ t: 'history', before, limit: Math.min(PAGE_ENTRIES, limit) });
    // The view was restarted or trimmed in the meantime, so the page does not fit before its first
    // entry.
    const firstNow = this.timeline.items[0]?.offset ?? (this.#last ?? 0) + 1;
    if (this.#epoch !== epoch || frame.epoch !== epoch || firstNow !== before) return this.#hasOlder;
    const entries = entriesOf(frame.entries, epoch).filter(({ offset }) => offset < before);
    this.timeline.prepend(entries);
    this.#hasOlder = frame.more === true && entries.length > 0;
    this.#host.emit({ type: 'state' });
    return this.#hasOlder;
  }

  #apply(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    this.timeline.append(entries);
    this.#host.onApplied(entries);
    const most = this.#mostItems * (this.keepsOlder ? 2 : 1);
    if (this.timeline.items.length > most) {
      // An eighth is removed at once, so that trimming is rare.
      this.timeline.trim(most - Math.floor(this.#mostItems / 8));
      this.#hasOlder = true;
    }
  }

  /** Requests the first hole, page after page, until there is none. */
  #fill(): void {
    const host = this.#host;
    if (this.#last === undefined || !host.isJoined || this.#isFilling || this.#known <= this.#last) return;
    const from = this.#last + 1;
    let end = this.#known;
    for (const offset of this.#ahead.keys()) if (offset - 1 < end) end = offset - 1;
    if (end - from + 1 > this.#mostFetched) {
      host.emit({ type: 'missing', from, to: end });
      this.restartView();
      host.rejoin();
      return;
    }
    const to = Math.min(end, from + PAGE_ENTRIES - 1);
    const { turn } = host;
    this.#isFilling = true;
    host.request(
      { t: 'range', from, to },
      (frame) => {
        if (host.turn !== turn) return;
        this.#isFilling = false;
        this.#takeRange(frame, from, to);
      },
      (problem) => {
        if (host.turn === turn && problem.code !== 'disconnected') this.#fillLater(problem);
      },
    );
  }

  #fillLater(problem?: ChatProblem): void {
    const { turn } = this.#host;
    this.#isFilling = true;
    this.#host.after(this.backOffMs(problem), () => {
      if (this.#host.turn !== turn) return;
      this.#isFilling = false;
      this.#fill();
    });
  }

  #takeRange(frame: Frame, from: number, to: number): void {
    const epoch = isOffset(frame.epoch) ? frame.epoch : this.#epoch;
    if (epoch > this.#epoch) {
      this.#host.rejoin();
      return;
    }
    if (this.#last === undefined || this.#last >= to) {
      this.#fill();
      return;
    }
    const entries = epoch < this.#epoch ? [] : entriesOf(frame.entries, epoch).filter(({ offset }) => offset >= from && offset <= to);
    // `take` drops entries that have arrived in the meantime.
    const next = entries.find(({ offset }) => offset > this.#last!);
    if (!next && (epoch < this.#epoch || ++this.#empties < EMPTY_PAGES)) {
      this.#fillLater();
      return;
    }
    this.#empties = 0;
    this.#failures = 0;
    if (!next) this.#skipTo(to);
    else if (next.offset > this.#last + 1) this.#skipTo(next.offset - 1);
    this.take(entries);
  }

  /** The server has no entry up to this offset. The view reports them as missing and goes on. */
  #skipTo(to: number): void {
    this.#host.emit({ type: 'missing', from: this.#last! + 1, to });
    this.#last = to;
    for (const offset of this.#ahead.keys()) if (offset <= to) this.#ahead.delete(offset);
    const entry = this.#ahead.get(to + 1);
    if (entry) this.take([entry]);
    else this.#fill();
  }
}
