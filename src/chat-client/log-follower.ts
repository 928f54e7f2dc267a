import { ChatProblem, type Entry, entriesOf, type Frame, isOffset } from './frames.js';
import type { RoomEvent } from './room-state.js';
import { Timeline } from './timeline.js';

/** Entries of one `range` or `history`. */
const PAGE_ENTRIES = 100;
/** Entries beyond a hole that wait for it. */
const MAX_AHEAD = 500;
/** `heads` is ahead of the view: entries may still be on their way, and are asked for after this long. */
const GRACE_MS = 1_000;
const RETRY_MS = { first: 500, most: 10_000 } as const;
/** A page without an entry is believed when it comes this often in a row. */
const EMPTY_PAGES = 2;

/** What the follower asks of its room. */
export interface FollowerHost {
  readonly isJoined: boolean;
  readonly isJoining: boolean;
  /** Raised whenever the room is joined anew: answers that belong to an earlier turn do not count. */
  readonly turn: number;
  /** Raises `turn`, unless a `join` is under way. */
  endTurn(): void;
  /** Sends a frame that names this room. */
  request(frame: Frame, answer: (frame: Frame) => void, failed: (problem: ChatProblem) => void): void;
  ask(frame: Frame): Promise<Frame>;
  /** Leaves and joins again, from the view's position. */
  rejoin(): void;
  /** These entries are in the view now. */
  onApplied(entries: readonly Entry[]): void;
  /** Entries above `keep` were withdrawn by a new epoch. */
  onWithdrawn(keep: number): void;
  emit(event: RoomEvent): void;
  after(delayMs: number, task: () => void): void;
}

/**
 * Keeps a view equal to the room's log: the next entry is applied, an older one is dropped, a later one waits, and the hole before
 * it is asked for.
 */
export class LogFollower {
  readonly timeline: Timeline;
  readonly #host: FollowerHost;
  readonly #mostItems: number;
  readonly #mostFetched: number;
  readonly #ahead = new Map<number, Entry>();
  #epoch = 0;
  /** Undefined: there is no view yet. */
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
  /** Somebody reads further up, so that twice as many entries are held. */
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

  /** Forgets what is under way: its answers will not count. */
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

  /** How long to wait after a failure. */
  backOffMs(problem?: ChatProblem): number {
    const waitMs = Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** Math.min(this.#failures++, 8));
    return Math.max(problem?.retryMs ?? 0, waitMs);
  }

  /** The room was joined at this place; `enter` is called before the entries of `joined` are applied. */
  startFrom(frame: Frame, epoch: number, offset: number, enter: () => void): void {
    this.#failures = 0;
    const entries = entriesOf(frame.entries, epoch);
    // `reset` precedes a newer epoch; without it nothing says which entries of the view are still true. A log shorter than the view is another log.
    const isOther =
      this.#last !== undefined &&
      (epoch !== this.#epoch ||
        frame.recovered === 'none' ||
        (frame.recovered !== 'partial' && offset < this.#last && entries.length === 0));
    if (isOther) this.restartView();
    this.#epoch = epoch;
    this.#last ??= this.#beginAt(entries.length > 0 ? entries[0]!.offset - 1 : offset);
    enter();
    // `partial`: the entries between were let go by age, or are too many to be sent unasked.
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

  /** A `reset` frame: a new epoch has begun, in which entries up to `keep` are still true. */
  reset({ epoch, keep }: Frame): void {
    const host = this.#host;
    // A `reset` that answers `join` may name the epoch that the view has: the view's position was beyond the log's end.
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
      // A withdrawn deletion had taken messages from the view: they come with a new view.
      this.restartView();
      host.onWithdrawn(keep);
      if (host.isJoined) host.rejoin();
      return;
    }
    if (first !== undefined && first > keep) this.#hasOlder = keep > 0;
    host.onWithdrawn(keep);
    if (host.isJoined) this.#fill();
  }

  /** The server has entries up to here. */
  learnHead(offset: unknown): void {
    if (!this.#host.isJoined || this.#last === undefined || !isOffset(offset)) return;
    this.#known = Math.max(this.#known, offset);
    this.#fill();
  }

  /** `heads` says that this is the newest entry. Entries that do not come within `GRACE_MS` are asked for. */
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

  /** Entries that the server has sent. */
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
        // Above `MAX_AHEAD` the entry is fetched later.
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

  /** Puts older entries before the view. Resolves to whether there are more. Rejects with `ChatProblem`. */
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
    // The view was begun anew or trimmed meanwhile: the page belongs before another entry.
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
      // An eighth at once, so that trimming is rare.
      this.timeline.trim(most - Math.floor(this.#mostItems / 8));
      this.#hasOlder = true;
    }
  }

  /** Asks for the first hole, page after page, until there is none. */
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
    // `take` drops entries that came by themselves meanwhile.
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

  /** The server has no entry up to here: the view says so and goes on. */
  #skipTo(to: number): void {
    this.#host.emit({ type: 'missing', from: this.#last! + 1, to });
    this.#last = to;
    for (const offset of this.#ahead.keys()) if (offset <= to) this.#ahead.delete(offset);
    const entry = this.#ahead.get(to + 1);
    if (entry) this.take([entry]);
    else this.#fill();
  }
}
