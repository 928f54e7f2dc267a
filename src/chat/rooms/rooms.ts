import type { Database } from '../../backing/database/database.js';
import { type LogEntry, MAX_PLACES, type RoomLog } from '../../backing/room-log/room-log.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Archive } from './archive.js';
import { HistoryBlocks } from './history-blocks.js';
import { storeLostRows } from './lost-rows.js';
import { PageLimits } from './page-limits.js';
import { RoomReactions } from './reactions.js';
import { RoomReader } from './reader.js';
import { Rings } from './ring.js';
import type { AppendedAt, ContentReviewer, HeldMessages, NewEntry, PublishRules, Room, RoomInfo } from './room.js';
import { type ExportedEntry, RoomHistory, type StoredRoom } from './room-history.js';
import { type Retention, RoomSweeper } from './sweeper.js';
import { RoomWriter } from './writer.js';

/** How long a room stays open after its last `release`, for members who come back. */
const LINGER_MS = 10_000;
/**
 * How long the answer of `find` is cached, including that a room does not exist. Only for rooms
 * that are not open. `rereadRoom` ends it.
 */
const FOUND_MS = 2000;
const MAX_FOUND = 10_000;
/** How often each room is compared with its log: a subscription may be lost without an error. */
const COMPARE_MS = 5000;
/**
 * How often a part of the rooms is compared, in one query. One query per room would be half the
 * work of an idle process.
 */
const COMPARE_STEP_MS = 250;
/** Offsets of archived entries are reported to the log together, once per this time. */
const REPORT_MS = 100;

export interface RoomsOptions {
  readonly database: Database;
  readonly roomLog: RoomLog;
  readonly clock: Clock;
  readonly log: Log;
  readonly rules: PublishRules;
  readonly reviewer: ContentReviewer;
  readonly held: HeldMessages;
  /** `MAX_MESSAGE_SIZE`: bytes of a message's text. */
  readonly maxMessageBytes: number;
  /** Undefined: this process deletes no old messages. */
  readonly retention?: Retention | undefined;
  readonly maxRingBytes?: number;
  readonly maxPendingBytes?: number;
}

interface SharedRoom {
  readonly reader: RoomReader;
  readonly room: Room;
  holders: number;
  cancelLinger: (() => void) | undefined;
}

/**
 * The rooms of one process. All processes of a service use the same log and the same database, and
 * each has one `Rooms`. Call `start`, then `open` rooms. `stop` waits until published messages are
 * stored or PostgreSQL is found to be unavailable.
 */
export class Rooms {
  readonly #options: RoomsOptions;
  readonly #history: RoomHistory;
  readonly #archive: Archive;
  readonly #rings: Rings;
  readonly #blocks: HistoryBlocks;
  /** Used by everything that serves pages of these rooms. */
  readonly pageLimits: PageLimits;
  /** Limits the log lines about messages that cannot be published: any client can cause many. */
  readonly #failureLog: BoundedLog;
  readonly #reactions: RoomReactions;
  readonly #sweeper: RoomSweeper;
  readonly #open = new Map<string, Promise<SharedRoom>>();
  readonly #opened = new Map<string, SharedRoom>();
  /** The ids of open rooms, by slug. */
  readonly #slugs = new Map<string, string>();
  readonly #found = new BoundedMap<string, { atMs: number; state: Promise<StoredRoom | undefined> }>(MAX_FOUND);
  readonly #reports = new Map<string, { roomId: string; epoch: number; offsets: number[] }>();
  #cancelReport: (() => void) | undefined;
  #cancelCompare: (() => void) | undefined;
  #comparing: Iterator<SharedRoom> | undefined;
  /** How many rooms should have been compared by now. */
  #compareDue = 0;
  #stopping: Promise<void> | undefined;

  constructor(options: RoomsOptions) {
    const { database, roomLog, clock, log } = options;
    this.#options = options;
    this.#history = new RoomHistory(database, clock);
    this.#archive = new Archive({
      ...options,
      onStored: (roomId, epoch, offsets) => this.#report(roomId, epoch, offsets),
    });
    this.#rings = new Rings(options.maxRingBytes);
    this.#blocks = new HistoryBlocks(clock);
    this.#failureLog = new BoundedLog(log, clock);
    this.pageLimits = new PageLimits(clock);
    this.#reactions = new RoomReactions({
      database,
      clock,
      log,
      tell: (roomId, text) => this.#opened.get(roomId)?.reader.broadcastEvent(text),
    });
    this.#sweeper = new RoomSweeper({
      database,
      roomLog,
      clock,
      log,
      archive: this.#archive,
      history: this.#history,
      retention: options.retention,
      openRooms: () => [...this.#opened.values()].map(({ reader }) => reader),
    });
  }

  /**
   * Starts the background work: sweeper, retention and the sending of reactions. A second call does
   * nothing.
   */
  start(): void {
    this.#reactions.start();
    this.#sweeper.start();
    this.#cancelCompare ??= this.#options.clock.every(COMPARE_STEP_MS, () => void this.#compareSome());
  }

  /**
   * Finds a channel's room by the room's id or the channel's slug. An open room is returned as last
   * read; another answer is cached for `FOUND_MS`. Rejects with `unavailable`.
   */
  find(idOrSlug: string): Promise<RoomInfo | undefined> {
    const open = this.#opened.get(idOrSlug) ?? this.#opened.get(this.#slugs.get(idOrSlug) ?? '');
    // The control room reports changes of an open room at once. A query per join would be half the
    // cost of a join.
    if (open && !open.reader.closed && open.reader.info.channelId !== undefined) return Promise.resolve(open.reader.info);
    return (this.#foundLately(idOrSlug) ?? this.#find(idOrSlug)).then((state) => state?.info);
  }

  #foundLately(idOrSlug: string): Promise<StoredRoom | undefined> | undefined {
    const found = this.#found.get(idOrSlug);
    return found && this.#options.clock.monotonicMs() - found.atMs < FOUND_MS ? found.state : undefined;
  }

  #find(idOrSlug: string): Promise<StoredRoom | undefined> {
    const state = this.#history.findRoom(idOrSlug);
    const found = { atMs: this.#options.clock.monotonicMs(), state };
    this.#found.set(idOrSlug, found);
    state.then(
      (known) => {
        // Cached by id too, because a caller that has found a room opens it by its id.
        if (known && this.#found.get(idOrSlug) === found) this.#found.set(known.info.id, found);
      },
      () => this.#found.delete(idOrSlug),
    );
    return state;
  }

  /**
   * Opens the room with this id and follows it until every holder has released it. Call `release`
   * once. Rejects with `not_found` or `unavailable` (log or database).
   */
  async open(roomId: string): Promise<Room> {
    if (this.#stopping) throw new VezaError('unavailable', 'The chat is stopping.');
    for (;;) {
      const opening = this.#open.get(roomId) ?? this.#begin(roomId);
      const open = await opening;
      // The room may have been closed while it was being opened.
      if (open.reader.closed) {
        if (this.#open.get(roomId) === opening) this.#open.delete(roomId);
        if (this.#stopping) throw new VezaError('unavailable', 'The chat is stopping.');
        continue;
      }
      open.holders++;
      open.cancelLinger?.();
      open.cancelLinger = undefined;
      return open.room;
    }
  }

  /** Opens the room while `work` runs. */
  async withRoom<T>(roomId: string, work: (room: Room) => Promise<T>): Promise<T> {
    const room = await this.open(roomId);
    try {
      return await work(room);
    } finally {
      room.release();
    }
  }

  /** Appends an entry without opening the room first. Used for titles. */
  appendEntry(roomId: string, entry: NewEntry): Promise<AppendedAt> {
    return this.withRoom(roomId, (room) => room.appendEntry(entry));
  }

  /**
   * Rooms in which this account may have published: rooms with a message of the account, and all
   * rooms that are open here. Rejects with `unavailable`.
   */
  async roomsOf(userId: string): Promise<ReadonlySet<string>> {
    return new Set([...(await this.#history.roomsOf(userId)), ...this.#opened.keys()]);
  }

  /**
   * Erases all reactions of this account in every room. A second call does no harm. Rejects with
   * `unavailable`.
   */
  async eraseReactions(userId: string): Promise<void> {
    await this.#options.database.query('select chat_erase_reactions($1)', [userId]);
  }

  /** Yields every entry of a room in order, read from PostgreSQL page by page. */
  export(roomId: string): AsyncIterable<ExportedEntry> {
    return this.#history.export(roomId);
  }

  /**
   * Messages in a span of time with an offset above `after`, ascending, at most 500. Used for the
   * replay beside a recording.
   */
  readBetween(roomId: string, fromMs: number, toMs: number, after: number, limit: number): Promise<LogEntry[]> {
    return this.#history.readBetween(roomId, fromMs, toMs, after, limit);
  }

  /**
   * Reads the room again after its settings or its channel's visibility have changed, or after it
   * was deleted.
   */
  async rereadRoom(roomId: string): Promise<void> {
    this.#found.clear();
    const open = this.#opened.get(roomId);
    if (!open) return;
    const state = await this.#history.readRoom(roomId);
    if (state) {
      this.#forgetSlug(open);
      open.reader.info = state.info;
      this.#rememberSlug(open);
    } else {
      open.reader.closeRoom('deleted');
      await this.#options.roomLog.remove(roomId);
    }
  }

  /** Read by the metrics. */
  get stats(): { rooms: number; ringBytes: number; pending: number; pendingBytes: number; refused: number } {
    return {
      rooms: this.#opened.size,
      ringBytes: this.#rings.bytes,
      pending: this.#archive.pending,
      pendingBytes: this.#archive.pendingBytes,
      refused: this.#archive.refused,
    };
  }

  /** A second call does no harm. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    this.#cancelCompare?.();
    await this.#sweeper.stop();
    await this.#reactions.stop();
    await Promise.allSettled(this.#open.values());
    await this.#archive.stop();
    this.#failureLog.close();
    this.#cancelReport?.();
    await this.#sendReports();
    for (const { reader, cancelLinger } of this.#opened.values()) {
      cancelLinger?.();
      reader.stop();
    }
    this.#opened.clear();
    this.#open.clear();
  }

  #begin(roomId: string): Promise<SharedRoom> {
    const opening = this.#follow(roomId);
    this.#open.set(roomId, opening);
    opening.catch(() => {
      if (this.#open.get(roomId) === opening) this.#open.delete(roomId);
    });
    return opening;
  }

  async #follow(roomId: string): Promise<SharedRoom> {
    const { roomLog, clock, log } = this.#options;
    const state = (await this.#foundLately(roomId)) ?? (await this.#history.readRoom(roomId));
    if (!state) throw new VezaError('not_found', 'There is no such room.');
    const reader = new RoomReader(state.info, {
      roomLog,
      history: this.#history,
      rings: this.#rings,
      blocks: this.#blocks,
      onErased: (id) => this.#reactions.forgetRoom(id),
      clock,
      log,
    });
    await reader.follow(state);
    await this.#compareRows(reader);
    const writer = new RoomWriter(reader, { ...this.#options, log: this.#failureLog, archive: this.#archive, history: this.#history });
    const open: SharedRoom = {
      reader,
      room: new OpenRoom(reader, writer, this.#reactions, () => this.#release(open)),
      holders: 0,
      cancelLinger: undefined,
    };
    this.#opened.set(roomId, open);
    this.#rememberSlug(open);
    // The caller may be gone by now. Then no `release` follows, and lingering closes the room.
    this.#linger(open);
    return open;
  }

  /** Runs once per opened room: the database may be in an older state than the log. */
  async #compareRows(reader: RoomReader): Promise<void> {
    const { roomLog, log } = this.#options;
    try {
      const lost = await storeLostRows(reader.id, { roomLog, archive: this.#archive, history: this.#history, log });
      if (lost !== undefined) await reader.distrustEpoch(lost);
    } catch (error) {
      if (!(error instanceof VezaError)) throw error;
      log.debug(
        { event: 'chat.rows_check_failed', room: reader.id, error: error.message },
        'could not compare the rows of a room with its log',
      );
    }
  }

  #release(open: SharedRoom): void {
    open.holders--;
    if (open.holders < 0) throw new Error(`room ${open.reader.id} was released more often than it was opened`);
    if (open.holders === 0) this.#linger(open);
  }

  #linger(open: SharedRoom): void {
    open.cancelLinger?.();
    open.cancelLinger = this.#options.clock.after(open.reader.closed ? 0 : LINGER_MS, () => {
      const { id } = open.reader;
      if (open.holders > 0) return;
      open.reader.stop();
      if (this.#opened.get(id) !== open) return;
      this.#forgetSlug(open);
      this.#opened.delete(id);
      this.#open.delete(id);
    });
  }

  #rememberSlug({ reader: { info } }: SharedRoom): void {
    if (info.slug !== undefined) this.#slugs.set(info.slug, info.id);
  }

  #forgetSlug({ reader: { info } }: SharedRoom): void {
    if (info.slug !== undefined && this.#slugs.get(info.slug) === info.id) this.#slugs.delete(info.slug);
  }

  /**
   * Compares the next part of the open rooms with the log. Never rejects: while the log is
   * unavailable nothing is compared, and the reader of each room reads the log again by itself.
   */
  async #compareSome(): Promise<void> {
    const { size } = this.#opened;
    this.#compareDue = Math.min(size, MAX_PLACES, this.#compareDue + (size * COMPARE_STEP_MS) / COMPARE_MS);
    const readers: RoomReader[] = [];
    const heads: number[] = [];
    while (this.#compareDue >= 1) {
      this.#comparing ??= this.#opened.values();
      const { value, done } = this.#comparing.next();
      if (done) {
        this.#comparing = undefined;
        continue;
      }
      this.#compareDue--;
      readers.push(value.reader);
      heads.push(value.reader.head);
    }
    if (readers.length === 0) return;
    try {
      const places = await this.#options.roomLog.places(readers.map(({ id }) => id));
      for (const [index, reader] of readers.entries()) if (!reader.closed) reader.compareWithLog(places.get(reader.id), heads[index]!);
    } catch (error) {
      this.#options.log.debug({ event: 'chat.rooms_check_failed', error: messageOf(error) }, 'could not compare rooms with their logs');
    }
  }

  #report(roomId: string, epoch: number, offsets: readonly number[]): void {
    const id = `${roomId} ${epoch}`;
    const report = this.#reports.get(id) ?? { roomId, epoch, offsets: [] };
    this.#reports.set(id, report);
    for (const offset of offsets) report.offsets.push(offset);
    this.#cancelReport ??= this.#options.clock.after(REPORT_MS, () => void this.#sendReports());
  }

  /** A failed report is repaired by a sweeper. */
  async #sendReports(): Promise<void> {
    this.#cancelReport = undefined;
    const reports = [...this.#reports.values()];
    this.#reports.clear();
    await Promise.allSettled(reports.map(({ roomId, epoch, offsets }) => this.#options.roomLog.archived(roomId, epoch, offsets)));
  }
}

/** One holder's view of an open room. */
class OpenRoom implements Room {
  readonly #reader: RoomReader;
  readonly #writer: RoomWriter;
  readonly #reactions: RoomReactions;
  readonly release: () => void;

  constructor(reader: RoomReader, writer: RoomWriter, reactions: RoomReactions, release: () => void) {
    this.#reader = reader;
    this.#writer = writer;
    this.#reactions = reactions;
    this.release = release;
  }

  get id() {
    return this.#reader.id;
  }
  get info() {
    return this.#reader.info;
  }
  get epoch() {
    return this.#reader.epoch;
  }
  get head() {
    return this.#reader.head;
  }
  get floor() {
    return this.#reader.floor;
  }

  framesAfter: Room['framesAfter'] = (offset, limit) => this.#reader.framesAfter(offset, limit);
  readPage: Room['readPage'] = (query) => this.#reader.readPage(query);
  resumeFrom: Room['resumeFrom'] = (since) => this.#reader.resumeFrom(since);
  publishMessage: Room['publishMessage'] = (publication) => this.#writer.publishMessage(publication);
  publishHeld: Room['publishHeld'] = (held) => this.#writer.publishHeld(held);
  appendEntry: Room['appendEntry'] = (entry) => this.#writer.appendEntry(entry);
  eraseMessages: Room['eraseMessages'] = (what, by) => this.#writer.eraseMessages(what, by);
  barUser: Room['barUser'] = (userId, forMs, why) => this.#writer.barUser(userId, forMs, why);
  untilStored: Room['untilStored'] = (mid) => this.#writer.untilStored(mid);
  setReaction: Room['setReaction'] = (userId, mid, emoji, on) => this.#reactions.setReaction(this.id, userId, mid, emoji, on);
  reactionCounts: Room['reactionCounts'] = (mids) => this.#reactions.countsOf(this.id, mids);
  addListener: Room['addListener'] = (listener) => this.#reader.addListener(listener);
  removeListener: Room['removeListener'] = (listener) => this.#reader.removeListener(listener);

  recentMessage(mid: string) {
    const known = this.#reader.knownMessage(mid);
    return known && { userId: known.userId };
  }
}
