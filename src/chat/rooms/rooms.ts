import type { Database } from '../../backing/database/database.js';
import { type LogEntry, MAX_PLACES, type RoomLog } from '../../backing/room-log/room-log.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
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

/** A room that nobody has open is followed so long, for whoever comes back. */
const LINGER_MS = 10_000;
/** What `find` has found, or not, of a room that is not open is believed so long; `refresh` ends it. */
const FOUND_MS = 2000;
const MAX_FOUND = 10_000;
/** Each room is compared with the log so often: a subscription can be deaf without knowing. */
const COMPARE_MS = 5000;
/** So often some of them are, together: one question for each room would be half of what a quiet process does. */
const COMPARE_STEP_MS = 250;
/** Offsets are reported to the log as archived together. */
const REPORT_MS = 100;

export interface RoomsOptions {
  readonly database: Database;
  readonly roomLog: RoomLog;
  readonly clock: Clock;
  readonly log: Log;
  readonly rules: PublishRules;
  readonly reviewer: ContentReviewer;
  readonly held: HeldMessages;
  /** `MAX_MESSAGE_SIZE`: bytes of a text. */
  readonly maxMessageBytes: number;
  /** Undefined: nothing is let go here. */
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
 * The rooms of one process. All processes of a service have the same log and the same database, and each has one of these.
 * `start`, then `open` rooms; `stop` waits until what was published is stored, or PostgreSQL is found to be away.
 */
export class Rooms {
  readonly #options: RoomsOptions;
  readonly #history: RoomHistory;
  readonly #archive: Archive;
  readonly #rings: Rings;
  readonly #blocks: HistoryBlocks;
  /** For whoever hands out pages of these rooms. */
  readonly pageLimits: PageLimits;
  /** For messages that cannot be published: anybody can send many. */
  readonly #failureLog: BoundedLog;
  readonly #reactions: RoomReactions;
  readonly #sweeper: RoomSweeper;
  readonly #open = new Map<string, Promise<SharedRoom>>();
  readonly #opened = new Map<string, SharedRoom>();
  /** Of those that are open, by slug. */
  readonly #slugs = new Map<string, string>();
  readonly #found = new Map<string, { atMs: number; state: Promise<StoredRoom | undefined> }>();
  readonly #reports = new Map<string, { roomId: string; epoch: number; offsets: number[] }>();
  #cancelReport: (() => void) | undefined;
  #cancelCompare: (() => void) | undefined;
  #comparing: Iterator<SharedRoom> | undefined;
  /** Rooms that should have been compared by now. */
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

  /** Starts what runs in the background: the sweeper, retention, the telling of reactions. Twice is harmless. */
  start(): void {
    this.#reactions.start();
    this.#sweeper.start();
    this.#cancelCompare ??= this.#options.clock.every(COMPARE_STEP_MS, () => void this.#compareSome());
  }

  /** A channel's room, by its own id or by the channel's slug. Of one that is open, as last read; else believed for two seconds. Rejects with `unavailable`. */
  find(idOrSlug: string): Promise<RoomInfo | undefined> {
    const open = this.#opened.get(idOrSlug) ?? this.#opened.get(this.#slugs.get(idOrSlug) ?? '');
    // What is said of an open room in the control room is read at once: asking at each join would be half the cost of one.
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
    const remember = (name: string) => {
      this.#found.delete(name);
      if (this.#found.size >= MAX_FOUND) this.#found.delete(this.#found.keys().next().value!);
      this.#found.set(name, found);
    };
    remember(idOrSlug);
    state.then(
      (known) => {
        // By its id, too: whoever has found it opens it.
        if (known && this.#found.get(idOrSlug) === found) remember(known.info.id);
      },
      () => this.#found.delete(idOrSlug),
    );
    return state;
  }

  /**
   * Follows the room as long as somebody has it open; `release` it once. By its id. Rejects: `not_found`, `unavailable` (log or database are away).
   */
  async open(roomId: string): Promise<Room> {
    if (this.#stopping) throw new VezaError('unavailable', 'The chat is stopping.');
    for (;;) {
      const opening = this.#open.get(roomId) ?? this.#begin(roomId);
      const open = await opening;
      // It may have been closed while it was awaited.
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

  /** Opens the room for as long as `work` takes. */
  async withRoom<T>(roomId: string, work: (room: Room) => Promise<T>): Promise<T> {
    const room = await this.open(roomId);
    try {
      return await work(room);
    } finally {
      room.release();
    }
  }

  /** An entry by somebody who does not follow the room: now-playing. */
  appendEntry(roomId: string, entry: NewEntry): Promise<AppendedAt> {
    return this.withRoom(roomId, (room) => room.appendEntry(entry));
  }

  /** Rooms in which this account may have said something: where there is a message of its own, and those that are open here. Rejects with `unavailable`. */
  async roomsOf(userId: string): Promise<ReadonlySet<string>> {
    return new Set([...(await this.#history.roomsOf(userId)), ...this.#opened.keys()]);
  }

  /** All reactions of this account, in any room. Twice is harmless. Rejects with `unavailable`. */
  async eraseReactions(userId: string): Promise<void> {
    await this.#options.database.query('select chat_erase_reactions($1)', [userId]);
  }

  /** Everything of a room that is there, in order, read from PostgreSQL as it is asked for. */
  export(roomId: string): AsyncIterable<ExportedEntry> {
    return this.#history.export(roomId);
  }

  /** What was said in a span of time, ascending, from the first after `after`, at most 500: for the replay beside a recording. */
  readBetween(roomId: string, fromMs: number, toMs: number, after: number, limit: number): Promise<LogEntry[]> {
    return this.#history.readBetween(roomId, fromMs, toMs, after, limit);
  }

  /** The room or its channel has changed (settings, visibility, deleted): what is known of it is read again. */
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

  /** For the metrics. */
  get stats(): { rooms: number; ringBytes: number; pending: number; pendingBytes: number; refused: number } {
    return {
      rooms: this.#opened.size,
      ringBytes: this.#rings.bytes,
      pending: this.#archive.pending,
      pendingBytes: this.#archive.pendingBytes,
      refused: this.#archive.refused,
    };
  }

  /** Twice is harmless. */
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
    // Nobody may take it up: he who asked may be gone.
    this.#linger(open);
    return open;
  }

  /** Once for each room that is opened: the database may be an older one than the log has known. */
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

  /** The next ones of all that are open. Never rejects: while the log is away nothing is compared, and what follows it again looks by itself. */
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

  /** One that fails is made up for by a sweeper. */
  async #sendReports(): Promise<void> {
    this.#cancelReport = undefined;
    const reports = [...this.#reports.values()];
    this.#reports.clear();
    await Promise.allSettled(reports.map(({ roomId, epoch, offsets }) => this.#options.roomLog.archived(roomId, epoch, offsets)));
  }
}

/** What a process hands out of a room. */
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
