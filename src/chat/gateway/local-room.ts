import { type EntryFrame, textFor } from '../protocol/entry-frame.js';
import { asciiFrame, webSocketFrames } from '../protocol/websocket-frames.js';
import type { Room, RoomListener } from '../rooms/room.js';
import type { ChannelAccess } from './authorization.js';
import type { Membership } from './membership.js';

/** Entries that are taken from the room at a time: as many as its ring holds. */
const BATCH_ENTRIES = 64;
/**
 * Epochs that are remembered for members who were not sent their `reset` yet. Older ones are
 * merged.
 */
const MAX_RESETS = 20;

/** The part of the gateway that a local room uses. */
export interface LocalRoomHost {
  readonly counters: DeliveryCounters;
  nowMs(): number;
  wallMs(): number;
  /** Calls `flushEntries` soon; while the process is busy, after the gather delay. */
  scheduleRoom(localRoom: LocalRoom): void;
}

export interface DeliveryCounters {
  /**
   * Entries that were written to connections, and entries that were skipped for slow connections.
   */
  delivered: number;
  skipped: number;
  /** The delay of one entry from the log to the write in this process. */
  observe(seconds: number): void;
}

/**
 * The members of one room in one process. Each entry is encoded once as a WebSocket frame, and the
 * same bytes are written to every member whose cursor is at the local room's own offset. A member
 * with another cursor (just joined, or slow) goes on from its cursor.
 */
export class LocalRoom implements RoomListener {
  readonly members: Membership[] = [];
  /** The offset of the last entry that was written to the members. */
  flushed: number;
  epoch: number;
  /**
   * Raised with each new epoch. Entries that were read in an earlier generation must not be
   * written.
   */
  generation = 0;
  isFlushScheduled = false;
  /**
   * The reason why the room has ended; the gateway then removes the members. Undefined: the room is
   * open.
   */
  closedAs: string | undefined;
  access: ChannelAccess;
  /**
   * The channel has changed and could not be read again. Until then `access` admits no new member.
   */
  isStale = false;
  /**
   * The new epochs of this room, newest last. `keep`: the offset up to which members keep their
   * entries.
   */
  readonly #resets: { epoch: number; keep: number }[] = [];
  #isReading = false;
  #count: number | undefined = undefined;
  #headText = '';
  #headEpoch = -1;
  #headOffset = -1;

  constructor(
    readonly room: Room,
    access: ChannelAccess,
    private readonly host: LocalRoomHost,
  ) {
    this.access = access;
    this.flushed = room.head;
    this.epoch = room.epoch;
    room.addListener(this);
  }

  get id(): string {
    return this.room.id;
  }

  /** The room's part of a `heads` frame. Encoded once for all members. */
  get headText(): string {
    if (this.#headEpoch !== this.epoch || this.#headOffset !== this.flushed) {
      this.#headEpoch = this.epoch;
      this.#headOffset = this.flushed;
      this.#headText = `"${this.id}":[${this.epoch},${this.flushed}]`;
    }
    return this.#headText;
  }

  addMember(membership: Membership): void {
    membership.index = this.members.length;
    this.members.push(membership);
  }

  removeMember(membership: Membership): void {
    const { index } = membership;
    if (index < 0) return;
    const last = this.members.pop()!;
    if (last !== membership) {
      this.members[index] = last;
      last.index = index;
    }
    membership.index = -1;
  }

  /**
   * Sends the member count to the members. `isLazy`: they get it with the next `heads`. Returns the
   * number of members that were sent it now.
   */
  broadcastCount(count: number, isLazy: boolean): number {
    this.#count = count;
    if (isLazy) return 0;
    const frame = this.#countFrame(count);
    for (const membership of this.members) {
      if (membership.connection.isSlow || membership.count === count) continue;
      membership.count = count;
      membership.connection.writeFrames(frame);
    }
    return this.members.length;
  }

  /**
   * The frame with the member count if the member has an older one; otherwise empty. The count is
   * then noted as sent.
   */
  unsentCountFrame(membership: Membership): string {
    const count = this.#count;
    if (count === undefined || membership.count === count) return '';
    membership.count = count;
    return this.#countFrame(count);
  }

  #countFrame(count: number): string {
    return asciiFrame(`{"t":"members","room":"${this.id}","count":${count}}`);
  }

  onFrames(): void {
    if (!this.isFlushScheduled) {
      this.isFlushScheduled = true;
      this.host.scheduleRoom(this);
    }
  }

  onReset(epoch: number, keep: number): void {
    const before = this.epoch;
    this.epoch = epoch;
    this.generation++;
    this.flushed = Math.min(this.flushed, keep);
    this.#resets.push({ epoch, keep });
    if (this.#resets.length > MAX_RESETS) {
      const oldest = this.#resets.shift()!;
      this.#resets[0]!.keep = Math.min(this.#resets[0]!.keep, oldest.keep);
    }
    const bytes = webSocketFrames([this.#resetText(keep)]);
    for (const membership of this.members) {
      if (membership.connection.isSlow || membership.epoch !== before) continue;
      membership.epoch = epoch;
      membership.cursor = Math.min(membership.cursor, keep);
      membership.connection.writeFrames(bytes);
    }
    this.onFrames();
  }

  onEvent(text: string): void {
    this.broadcast(text);
  }

  onClosed(code: string): void {
    this.closedAs = code;
    this.onFrames();
  }

  /** Writes a frame that is not an entry to every member except slow ones. */
  broadcast(text: string): void {
    const bytes = webSocketFrames([text]);
    for (const { connection } of this.members) if (!connection.isSlow) connection.writeFrames(bytes);
  }

  /** Writes the new entries to the members. */
  flushEntries(): void {
    this.isFlushScheduled = false;
    if (this.#isReading) return;
    while (this.flushed < this.room.head) {
      const frames = this.room.framesAfter(this.flushed, BATCH_ENTRIES);
      if (!isArray(frames)) {
        void this.#readAndFlush(frames);
        return;
      }
      if (frames.length === 0) return;
      this.#writeToMembers(frames);
    }
  }

  /** Reads entries that the room no longer has in memory, and writes them. */
  async #readAndFlush(reading: Promise<readonly EntryFrame[] | undefined>): Promise<void> {
    this.#isReading = true;
    const { generation, flushed } = this;
    try {
      const frames = await reading;
      if (generation === this.generation && flushed === this.flushed) {
        if (frames === undefined) this.#skipTo(Math.max(this.room.floor, this.flushed));
        else if (frames.length > 0) this.#writeToMembers(frames);
      }
    } catch {
      // Log and database are unavailable. The members stay at their cursors until `retryReading`.
      return;
    } finally {
      this.#isReading = false;
    }
    this.flushEntries();
  }

  /** Repeats a read that failed. */
  retryReading(): void {
    if (this.flushed < this.room.head && !this.isFlushScheduled) this.flushEntries();
  }

  #skipTo(offset: number): void {
    // `advanceMember` sends each member the entries it has missed.
    this.flushed = offset;
    for (const membership of this.members) this.advanceMember(membership);
  }

  #writeToMembers(frames: readonly EntryFrame[]): void {
    const { host, flushed } = this;
    const last = frames.at(-1)!.offset;
    const bytes = webSocketFrames(
      frames.map(({ text }) => text),
      frames.map((frame) => frame.bytes),
    );
    const authors = new Set<string>();
    for (const { userId } of frames) if (userId !== undefined) authors.add(userId);
    this.flushed = last;
    const nowMs = host.nowMs();
    let delivered = 0;
    for (const membership of this.members) {
      const { connection } = membership;
      if (membership.cursor !== flushed || membership.epoch !== this.epoch) continue;
      if (connection.isSlow) {
        membership.behindSinceMs ||= nowMs;
        continue;
      }
      membership.cursor = last;
      delivered++;
      const userId = connection.identity?.id;
      if (userId !== undefined && authors.has(userId))
        connection.writeFrames(webSocketFrames(frames.map((frame) => textFor(frame, userId))));
      else connection.writeFrames(bytes);
    }
    host.counters.delivered += delivered * frames.length;
    const wallMs = host.wallMs();
    for (const frame of frames) host.counters.observe(Math.max(0, wallMs - atOf(frame)) / 1000);
  }

  /**
   * Writes the entries that the member needs, until its connection is slow. A member that has been
   * behind for longer than `lagMs` is sent `lag` instead.
   */
  advanceMember(membership: Membership, lagMs = Number.POSITIVE_INFINITY): void {
    const { connection } = membership;
    while (!connection.isSlow && !membership.isReading && membership.index >= 0) {
      if (membership.epoch !== this.epoch) {
        const keep = this.#keepSince(membership.epoch);
        membership.epoch = this.epoch;
        membership.cursor = Math.min(membership.cursor, keep);
        connection.writeFrames(webSocketFrames([this.#resetText(keep)]));
        continue;
      }
      if (membership.cursor >= this.flushed) {
        membership.behindSinceMs = 0;
        return;
      }
      const nowMs = this.host.nowMs();
      membership.behindSinceMs ||= nowMs;
      if (nowMs - membership.behindSinceMs > lagMs) {
        this.#sendLag(membership, this.flushed);
        continue;
      }
      const frames = this.room.framesAfter(membership.cursor, Math.min(BATCH_ENTRIES, this.flushed - membership.cursor));
      if (isArray(frames)) {
        if (frames.length === 0) return;
        this.#writeToMember(membership, frames);
      } else void this.#readAndAdvance(membership, frames);
    }
  }

  async #readAndAdvance(membership: Membership, reading: Promise<readonly EntryFrame[] | undefined>): Promise<void> {
    membership.isReading = true;
    const { generation } = this;
    const { cursor } = membership;
    try {
      const frames = await reading;
      if (membership.index < 0 || membership.connection.isSlow) return;
      if (generation === this.generation && membership.cursor === cursor) {
        if (frames === undefined) this.#sendLag(membership, Math.max(this.room.floor, cursor));
        else if (frames.length > 0) this.#writeToMember(membership, frames);
        else return;
      }
    } catch {
      // The next check of the connection tries again.
      return;
    } finally {
      membership.isReading = false;
    }
    this.advanceMember(membership);
  }

  #writeToMember(membership: Membership, frames: readonly EntryFrame[]): void {
    const { connection } = membership;
    const userId = connection.identity?.id;
    membership.cursor = frames.at(-1)!.offset;
    this.host.counters.delivered += frames.length;
    connection.writeFrames(webSocketFrames(frames.map((frame) => textFor(frame, userId))));
  }

  /**
   * Sends `lag`: the member has missed the entries up to `to` and goes on from there. Its client
   * can fetch them with `range`.
   */
  #sendLag(membership: Membership, to: number): void {
    const from = membership.cursor + 1;
    membership.cursor = to;
    membership.behindSinceMs = 0;
    this.host.counters.skipped += Math.max(0, to - from + 1);
    if (to >= from) membership.connection.writeFrames(webSocketFrames([`{"t":"lag","room":"${this.id}","from":${from},"to":${to}}`]));
  }

  #resetText(keep: number): string {
    return `{"t":"reset","room":"${this.id}","epoch":${this.epoch},"keep":${keep}}`;
  }

  /** The offset up to which a member that knows `epoch` keeps its entries. */
  #keepSince(epoch: number): number {
    let keep = Number.POSITIVE_INFINITY;
    for (const reset of this.#resets) if (reset.epoch > epoch) keep = Math.min(keep, reset.keep);
    return keep === Number.POSITIVE_INFINITY ? this.flushed : keep;
  }
}

/** The log's time of an entry, read from its text. */
function atOf({ text }: EntryFrame): number {
  const at = text.indexOf('"at":') + 5;
  return at < 5 ? Number.POSITIVE_INFINITY : Number.parseInt(text.slice(at, at + 16), 10);
}

const isArray = (frames: readonly EntryFrame[] | Promise<unknown>): frames is readonly EntryFrame[] => Array.isArray(frames);
