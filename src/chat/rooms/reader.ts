import type { Following, LogEntry, LogPage, LogPosition, RoomLog } from '../../backing/room-log/room-log.js';
import { KEPT, KEY_MS } from '../../backing/room-log/room-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { type Deletion, delOf, type EntryFrame, encodeEntry, goneOf } from '../protocol/entry-frame.js';
import { MAX_PAGE, MAX_PAGE_BYTES } from '../protocol/protocol.js';
import { BLOCK_ENTRIES, type HistoryBlocks } from './history-blocks.js';
import { type KnownMessage, KnownMessages } from './known-messages.js';
import { reopenRoom } from './opening.js';
import { RecentErasures } from './recent-erasures.js';
import { RING_FRAMES, Ring, type Rings } from './ring.js';
import type { EntryPage, EntryPageQuery, Resumption, RoomInfo, RoomListener } from './room.js';
import type { RoomHistory, StoredRoom } from './room-history.js';

/** The log is read if it has not delivered an entry of this process after this. */
const EXPECT_MS = 250;
/** The delay before a failed read of the log is repeated. */
const RETRY_MS = 500;
const LOOK_ENTRIES = 500;
/** Entries for a member who joins without a position. */
const JOIN_FRAMES = 50;
/** After this many reads, a hole that neither log nor database fills leads to a new epoch. */
const HOLE_LOOKS = 4;

export interface ReaderOptions {
  readonly roomLog: RoomLog;
  readonly history: RoomHistory;
  readonly rings: Rings;
  readonly blocks: HistoryBlocks;
  readonly onErased: (roomId: string) => void;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Follows a room's log. A delivered entry is used when it is the next one. In every other case (a
 * hole, a lost subscription, a new epoch, a wiped log) `readLog` reads until nothing is missing.
 */
export class RoomReader {
  readonly id: string;
  info: RoomInfo;
  epoch = 0;
  head = 0;
  floor = 0;
  closed: string | undefined;
  readonly #options: ReaderOptions;
  readonly #listeners = new Set<RoomListener>();
  readonly #ring: Ring;
  readonly #known = new KnownMessages();
  readonly #erasures = new RecentErasures();
  #following: Following | undefined;
  #looking: Promise<void> | undefined;
  #isAskedAgain = false;
  /** An epoch that the log reports although it must not be used; see `distrustEpoch`. */
  #distrusted = 0;
  #holeLooks = 0;
  #expected = 0;
  #youngUntilMs = 0;
  #stateAtStart: StoredRoom | undefined;
  readonly #cancels = new Set<() => void>();
  #retrying = false;
  #expecting = false;

  constructor(info: RoomInfo, options: ReaderOptions) {
    this.id = info.id;
    this.info = info;
    this.#options = options;
    this.#ring = new Ring(options.rings);
  }

  /** Rejects with `unavailable` or `not_found` and then stops. `state`: the room as just read. */
  async follow(state: StoredRoom): Promise<void> {
    const { roomLog } = this.#options;
    this.#stateAtStart = state;
    try {
      this.#following = await roomLog.follow(this.id, {
        onEntry: (epoch, entry) => this.#told(epoch, entry),
        onRestored: () => this.readLogSoon(),
      });
      await this.readLog();
      if (this.closed) throw new VezaError('not_found', 'There is no such room.');
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  stop(): void {
    this.closed ??= 'stopped';
    this.#following?.stop();
    for (const cancel of this.#cancels) cancel();
    this.#cancels.clear();
    this.#ring.clear();
    this.#options.blocks.forget(this.id);
    this.#listeners.clear();
  }

  /** The room has ended: calls the listeners and stops. */
  closeRoom(code: string): void {
    if (this.closed) return;
    this.closed = code;
    const listeners = [...this.#listeners];
    this.stop();
    for (const listener of listeners) listener.onClosed(code);
  }

  addListener(listener: RoomListener): void {
    this.#listeners.add(listener);
  }

  removeListener(listener: RoomListener): void {
    this.#listeners.delete(listener);
  }

  broadcastEvent(text: string): void {
    for (const listener of this.#listeners) listener.onEvent(text);
  }

  /** True: the epoch is younger than `KEY_MS`, and the log lacks the keys of the epoch before. */
  get isYoung(): boolean {
    return this.#options.clock.monotonicMs() < this.#youngUntilMs;
  }

  knownMessage(mid: string): KnownMessage | undefined {
    return this.#known.get(mid);
  }

  get knowsAllRecent(): boolean {
    return this.#known.isComplete(this.#options.clock.wallMs());
  }

  /** Expects an entry of this process. If it does not come within `EXPECT_MS`, the log is read. */
  expectEntry(epoch: number, offset: number): void {
    if (epoch !== this.epoch || offset <= this.head) return;
    this.#expected = Math.max(this.#expected, offset);
    if (this.#expecting) return;
    this.#expecting = true;
    this.#later(EXPECT_MS, () => {
      this.#expecting = false;
      if (this.head < this.#expected) this.readLogSoon();
    });
  }

  /** The epoch must not be used: PostgreSQL refuses its entries, or the log accepts none. */
  distrustEpoch(epoch: number): Promise<void> {
    if (epoch >= this.epoch) this.#distrusted = epoch;
    return this.readLog();
  }

  /** Reads until nothing is missing; a call meanwhile adds one read. Rejects with `unavailable`. */
  readLog(): Promise<void> {
    this.#isAskedAgain = true;
    this.#looking ??= this.#lookUntilDone();
    return this.#looking;
  }

  /**
   * Reads the log again if `place`, its position, differs from this room's. `before` is the head that
   * this room had when `place` was read. `place` is undefined when the log does not have the room.
   */
  compareWithLog(place: LogPosition | undefined, before: number): void {
    const isSame = place && place.epoch === this.epoch && place.head >= before && place.head <= this.head;
    if (!isSame) this.readLogSoon();
  }

  readLogSoon(): void {
    this.readLog().catch((error) => {
      if (this.closed || this.#retrying) return;
      this.#options.log.debug(
        { event: 'chat.log_unreadable', room: this.id, error: messageOf(error) },
        'could not read the log of a chat room',
      );
      this.#retrying = true;
      this.#later(RETRY_MS, () => {
        this.#retrying = false;
        this.readLogSoon();
      });
    });
  }

  framesAfter(offset: number, limit: number): readonly EntryFrame[] | Promise<readonly EntryFrame[] | undefined> {
    if (offset >= this.head || limit < 1) return [];
    return this.#ring.framesAfter(offset, limit) ?? this.#load(offset + 1, Math.min(this.head, offset + Math.min(limit, MAX_PAGE)));
  }

  async readPage({ before, from, to, limit, kept, onRead }: EntryPageQuery): Promise<EntryPage> {
    const count = Math.max(1, Math.min(limit, MAX_PAGE));
    const forward = from !== undefined;
    for (;;) {
      const { epoch } = this;
      const end = Math.min(this.head, forward ? (to ?? this.head) : (before ?? this.head + 1) - 1);
      if (!forward && end > 0 && (end < this.floor || (kept && end === this.floor))) return this.#keptPage(end, count, onRead);
      const first = Math.max(this.floor + 1, forward ? from : end - count + 1);
      const last = forward ? Math.min(end, first + count - 1) : end;
      const frames = first > last ? [] : (this.#ring.framesAfter(first - 1, last - first + 1) ?? (await this.#load(first, last, onRead)));
      if (this.epoch !== epoch) continue;
      // Entries were deleted by age during the read. The page is read again above the new floor.
      if (!frames) continue;
      const fitting = fit(frames, !forward);
      const more = fitting.length > 0 && (forward ? fitting.at(-1)!.offset < end : fitting[0]!.offset > this.floor + 1);
      return { epoch, frames: fitting, more };
    }
  }

  async resumeFrom(since: { readonly epoch: number; readonly offset: number } | undefined): Promise<Resumption> {
    if (!since) return { recovered: 'none', cursor: Math.max(this.floor, this.head - JOIN_FRAMES), keep: undefined };
    // The member knows entries that this process does not.
    if (since.epoch > this.epoch || since.offset > this.head) await this.readLog();
    for (;;) {
      const { epoch } = this;
      const isKnown = since.epoch < epoch || (since.epoch === epoch && since.offset <= this.head);
      const keep =
        since.epoch < epoch ? (await this.#options.history.keptSince(this.id, since.epoch, epoch)).keep : isKnown ? undefined : 0;
      if (this.epoch !== epoch) continue;
      // The restored database does not know this epoch, so no entry of the member is certain.
      if (keep === 0 && since.offset > 0) return { recovered: 'none', cursor: this.floor, keep };
      const offset = Math.min(since.offset, keep ?? this.head);
      const cursor = Math.max(this.floor, offset);
      return { recovered: cursor > since.offset || offset < since.offset ? 'partial' : 'full', cursor, keep };
    }
  }

  findFrame(wanted: (frame: EntryFrame) => boolean): EntryFrame | undefined {
    return this.#ring.findFrame(wanted);
  }

  /** Erases in memory the messages of a deletion. Every `del` entry calls it in every process. */
  applyDeletion(deletion: Deletion): void {
    const { user, upTo = 0 } = deletion;
    this.#erasures.add(deletion);
    this.#options.blocks.forget(this.id);
    this.#options.onErased(this.id);
    this.#ring.replaceFrames(
      (frame) => this.#erasures.covers(frame),
      ({ offset, atMs }) => encodeEntry(this.id, this.epoch, goneOf(offset, atMs)),
    );
    this.#known.forgetAuthor((known) => this.#erasures.hasOffset(known.offset) || (known.userId === user && known.offset <= upTo));
  }

  /** The frame, or a `gone` frame if its message was deleted. */
  #visible(frame: EntryFrame, epoch: number): EntryFrame {
    return this.#erasures.covers(frame) ? encodeEntry(this.id, epoch, goneOf(frame.offset, frame.atMs)) : frame;
  }

  #told(epoch: number, entry: LogEntry): void {
    if (this.closed || epoch < this.epoch) return;
    if (epoch === this.epoch && entry.offset <= this.head) return;
    if (epoch === this.epoch && entry.offset === this.head + 1) this.#take(entry);
    else this.readLogSoon();
  }

  #take(entry: LogEntry): void {
    this.head = entry.offset;
    let frame = encodeEntry(this.id, this.epoch, entry);
    if (frame.mid !== undefined) this.#known.add(frame.mid, { offset: frame.offset, atMs: frame.atMs, userId: frame.userId });
    frame = this.#visible(frame, this.epoch);
    this.#ring.pushFrame(frame);
    if (frame.type === 'del') this.applyDeletion(delOf(entry));
    for (const listener of this.#listeners) listener.onFrames();
  }

  async #lookUntilDone(): Promise<void> {
    try {
      while (this.#isAskedAgain && !this.closed) {
        this.#isAskedAgain = false;
        await this.#lookOnce();
      }
    } finally {
      // In the same step as the last check of the loop, so that a later call starts a new read.
      this.#looking = undefined;
    }
  }

  async #lookOnce(): Promise<void> {
    while (!this.closed) {
      const before = this.head;
      const page = await this.#options.roomLog.read(this.id, this.epoch === 0 ? Number.MAX_SAFE_INTEGER : this.head, LOOK_ENTRIES);
      if (this.closed) return;
      // The log's head is below an entry that was delivered: the log has lost entries.
      const isLost =
        !page || page.epoch < this.epoch || page.epoch === this.#distrusted || (page.epoch === this.epoch && page.head < before);
      if (isLost) {
        const distrusted = page?.epoch === this.epoch ? this.epoch : this.#distrusted;
        const state = await reopenRoom(this.id, {
          ...this.#options,
          distrusted,
          known: this.epoch,
          isStopped: () => this.closed !== undefined,
        });
        if (!state) {
          this.closeRoom('deleted');
          return;
        }
        this.info = state.info;
        this.floor = Math.max(this.floor, state.floor);
        if (this.epoch === 0) this.#stateAtStart = state;
        continue;
      }
      if (page.epoch > this.epoch) {
        await this.#adopt(page);
        continue;
      }
      await this.#catchUp(page);
      if (this.head >= page.head) return;
    }
  }

  async #adopt({ epoch, head, archived }: LogPage): Promise<void> {
    const { history, clock } = this.#options;
    const isFirst = this.epoch === 0;
    // The room was read just before. Using that row saves two queries per opened room.
    const known = isFirst && this.#stateAtStart?.epoch === epoch ? this.#stateAtStart : undefined;
    this.#stateAtStart = undefined;
    const kept = known
      ? { keep: 0, ageMs: known.raisedAgoMs, isFirst: known.isFirstEpoch }
      : await history.keptSince(this.id, isFirst ? epoch : this.epoch, epoch);
    if (this.closed) return;
    // The first epoch has no earlier one whose keys could be lost.
    this.#youngUntilMs = kept.isFirst ? 0 : clock.monotonicMs() + KEY_MS - kept.ageMs;
    this.#holeLooks = 0;
    this.#expected = 0;
    if (isFirst) {
      const state = known ?? (await history.readRoom(this.id));
      this.floor = Math.max(this.floor, state?.floor ?? 0);
      // `head` starts below entries that PostgreSQL may lack, so that repeated messages are known.
      this.head = Math.max(this.floor, Math.min(archived, head - RING_FRAMES));
      if (this.head === 0) this.#known.startAfter(Number.NEGATIVE_INFINITY);
      else this.#known.startAfter(clock.wallMs());
      this.epoch = epoch;
      return;
    }
    const { keep } = kept;
    this.epoch = epoch;
    this.head = Math.min(this.head, keep);
    this.#ring.clear();
    this.#options.blocks.forget(this.id);
    this.#known.dropAbove(keep);
    this.#erasures.withdrawAbove(keep);
    this.#options.log.info({ event: 'chat.epoch_changed', room: this.id, epoch, keep }, 'a room has a new epoch');
    for (const listener of this.#listeners) listener.onReset(epoch, keep);
  }

  async #catchUp(page: LogPage): Promise<void> {
    const next = () => this.head + 1;
    const first = page.entries[0]?.offset ?? page.head + 1;
    if (first > next()) {
      // The log has trimmed these entries, so PostgreSQL has them.
      const { history, clock } = this.#options;
      const rows = await history.readRange(this.id, next(), first - 1);
      if (this.closed) return;
      for (const row of rows) if (row.offset === next()) this.#take(row);
      if (first > next() && (rows.length === 0 || rows[0]!.offset > next())) {
        const state = await history.readRoom(this.id);
        if (state && state.floor >= next()) {
          this.floor = Math.max(this.floor, state.floor);
          this.head = Math.max(this.head, Math.min(state.floor, page.head));
          for (const listener of this.#listeners) listener.onFrames();
        } else if (++this.#holeLooks >= HOLE_LOOKS) {
          this.#options.log.error(
            { event: 'chat.entry_missing', room: this.id, offset: next() },
            'an entry is neither in the log nor in the database; the room gets a new epoch',
          );
          this.#holeLooks = 0;
          this.#distrusted = this.epoch;
        } else await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
        return;
      }
    }
    for (const entry of page.entries) if (entry.offset === next()) this.#take(entry);
    this.#holeLooks = 0;
  }

  /** Contiguous entries from `from` on, read in blocks. Undefined: they were deleted by age. */
  async #load(from: number, to: number, onRead?: () => void): Promise<readonly EntryFrame[] | undefined> {
    for (;;) {
      const { epoch } = this;
      const frames: EntryFrame[] = [];
      let next = from;
      while (next <= Math.min(to, this.head)) {
        const block = next - ((next - 1) % BLOCK_ENTRIES);
        const first = Math.max(block, Math.min(next, this.floor + 1));
        const found = await this.#block(epoch, first, Math.min(block + BLOCK_ENTRIES - 1, this.head), onRead);
        if (this.epoch !== epoch) break;
        if (!found) return frames.length > 0 ? frames : undefined;
        const before = next;
        for (const frame of found) {
          if (frame.offset !== next || next > to) continue;
          frames.push(this.#visible(frame, epoch));
          next++;
        }
        if (next === before) break;
      }
      if (this.epoch === epoch) return frames;
    }
  }

  /** Reads one block. Members share the read: hundreds ask for it when a broadcast starts. */
  #block(epoch: number, first: number, last: number, onRead?: () => void): Promise<readonly EntryFrame[] | undefined> {
    const { blocks } = this.#options;
    const name = `${epoch} ${first}-${last}`;
    const known = blocks.get(this.id, name);
    if (known) return known;
    // Entries that the log still has need no read of PostgreSQL.
    if (last <= this.head - KEPT) onRead?.();
    const frames = this.#read(first, last);
    blocks.set(this.id, name, last - first + 1, frames);
    return frames;
  }

  async #read(from: number, to: number): Promise<readonly EntryFrame[] | undefined> {
    for (;;) {
      const { epoch } = this;
      const last = Math.min(to, this.head);
      if (from > last) return [];
      const entries = await this.#entries(from, last, epoch);
      if (this.epoch !== epoch) continue;
      // Entries that are kept below the floor do not fill a hole.
      if (entries.length < last - from + 1) {
        if (this.floor >= from) return undefined;
        const state = await this.#options.history.readRoom(this.id);
        if (!state) throw new VezaError('not_found', 'There is no such room.');
        this.floor = Math.max(this.floor, state.floor);
        if (this.floor >= from) return undefined;
        if (entries.length === 0) throw new VezaError('unavailable', 'Older messages cannot be read now; try again.');
      }
      return entries.map((entry) => this.#visible(encodeEntry(this.id, epoch, entry), epoch));
    }
  }

  /** Entries that are kept below the floor with a recording: ascending, with holes. */
  async #keptPage(end: number, count: number, onRead?: () => void): Promise<EntryPage> {
    const { history } = this.#options;
    onRead?.();
    for (;;) {
      const { epoch } = this;
      const entries = await history.reads.run(() => history.readKept(this.id, end, count + 1));
      if (this.epoch !== epoch) continue;
      const newest = entries.slice(-count).map((entry) => this.#visible(encodeEntry(this.id, epoch, entry), epoch));
      const fitting = fit(newest, true);
      return { epoch, frames: fitting, more: fitting.length < entries.length };
    }
  }

  /** Contiguous entries from `from` on, as many as exist, from log and database. */
  async #entries(from: number, to: number, epoch: number): Promise<LogEntry[]> {
    const { roomLog, history } = this.#options;
    const found = new Map<number, LogEntry>();
    const add = (entries: readonly LogEntry[]) => {
      for (const entry of entries)
        if (entry.offset >= from && entry.offset <= to && !found.has(entry.offset)) found.set(entry.offset, entry);
    };
    let firstMissing = from;
    const count = () => {
      while (found.has(firstMissing)) firstMissing++;
      return firstMissing > to;
    };
    const fromLog = async () => {
      const page = await roomLog.read(this.id, firstMissing - 1, to - firstMissing + 1);
      if (page?.epoch === epoch) add(page.entries);
    };
    const fromDatabase = async () => {
      let end = to;
      while (found.has(end)) end--;
      add(await history.reads.run(() => history.readRange(this.id, firstMissing, end, MAX_PAGE)));
    };
    // Older entries than the log keeps are read from the log only if the database lacks them.
    const ways = to > this.head - KEPT ? [fromLog, fromDatabase] : [fromDatabase, fromLog];
    let failure: unknown;
    for (const way of ways) {
      if (count()) break;
      await way().catch((error) => {
        failure = error;
      });
    }
    count();
    if (firstMissing === from && failure !== undefined) throw failure;
    return Array.from({ length: firstMissing - from }, (_, index) => found.get(from + index)!);
  }

  #later(delayMs: number, task: () => void): void {
    const cancel = this.#options.clock.after(delayMs, () => {
      this.#cancels.delete(cancel);
      task();
    });
    this.#cancels.add(cancel);
  }
}

/** As many frames as fit into a page, at least one. With `fromEnd` the last ones. */
function fit(frames: readonly EntryFrame[], fromEnd: boolean): readonly EntryFrame[] {
  let bytes = 0;
  let count = 0;
  while (count < frames.length) {
    bytes += (fromEnd ? frames[frames.length - 1 - count]! : frames[count]!).bytes + 1;
    if (bytes > MAX_PAGE_BYTES && count > 0) break;
    count++;
  }
  return fromEnd ? frames.slice(frames.length - count) : frames.slice(0, count);
}
