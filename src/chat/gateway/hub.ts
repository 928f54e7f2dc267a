import { type EntryFrame, textFor } from '../protocol/frame.js';
import { asciiFrame, webSocketFrames } from '../protocol/protocol.js';
import type { Room, RoomListener } from '../rooms/room.js';
import type { ClientConnection } from './connection.js';
import type { ChannelAccess, ChannelStanding } from './doors.js';

/** Frames that are taken from the room at a time: as many as its ring holds. */
const BATCH = 64;
const MAX_RESETS = 20;

/** What the audience of a room asks of its process. */
export interface AudienceHost {
  readonly counters: DeliveryCounters;
  nowMs(): number;
  wallMs(): number;
  /** Calls `flush` at once when there is time, a little later when there is none. */
  flushSoon(hub: RoomAudience): void;
}

export interface DeliveryCounters {
  /** Messages written to connections, and skipped for those that were too slow. */
  delivered: number;
  skipped: number;
  /** From the log to the write, of one entry of a room in this process. */
  observe(seconds: number): void;
}

/** A connection's place in a room. */
export class Membership {
  /** Where it stands in `hub.members`. */
  index = -1;
  /** The offset of the last entry that was written to it. */
  cursor: number;
  /** The epoch that it knows of. */
  epoch: number;
  /** Monotonic; 0: it has all there is. */
  behindSinceMs = 0;
  /** Frames for it are being read. */
  isReading = false;
  standing: ChannelStanding;
  /** How many are in the room, as he was told last. */
  count: number | undefined = undefined;
  /** The playback link that it came in by: when that is no longer good, it has to leave. */
  readonly link: string | undefined;

  constructor(
    readonly connection: ClientConnection,
    readonly hub: RoomAudience,
    place: { cursor: number; epoch: number; standing: ChannelStanding; link: string | undefined },
  ) {
    this.cursor = place.cursor;
    this.epoch = place.epoch;
    this.standing = place.standing;
    this.link = place.link;
  }
}

/**
 * Those of one process who are in a room. Each entry is put into a WebSocket frame once, and the same bytes are written to all who stand where
 * the audience stands; who is elsewhere (he came just now, or reads slowly) goes on from his own cursor.
 */
export class RoomAudience implements RoomListener {
  readonly members: Membership[] = [];
  /** The last offset that was given to the audience. */
  flushed: number;
  epoch: number;
  /** Raised with each reset: what was read before does not go out after. */
  generation = 0;
  isFlushWanted = false;
  /** Ended, and told to nobody yet: the gateway sees to it. */
  closedAs: string | undefined;
  access: ChannelAccess;
  /** The channel has changed, and how could not be read: nobody new is let in by what was known. */
  isStale = false;
  /** Newest last. */
  readonly #resets: { epoch: number; keep: number }[] = [];
  #isReading = false;
  #count: number | undefined = undefined;
  #headText = '';
  #headEpoch = -1;
  #headOffset = -1;

  constructor(
    readonly room: Room,
    access: ChannelAccess,
    private readonly host: AudienceHost,
  ) {
    this.access = access;
    this.flushed = room.head;
    this.epoch = room.epoch;
    room.add(this);
  }

  get id(): string {
    return this.room.id;
  }

  /** Where the audience stands, as a member of the object in `heads`. Made once for all who stand there. */
  get headText(): string {
    if (this.#headEpoch !== this.epoch || this.#headOffset !== this.flushed) {
      this.#headEpoch = this.epoch;
      this.#headOffset = this.flushed;
      this.#headText = `"${this.id}":[${this.epoch},${this.flushed}]`;
    }
    return this.#headText;
  }

  add(membership: Membership): void {
    membership.index = this.members.length;
    this.members.push(membership);
  }

  remove(membership: Membership): void {
    const { index } = membership;
    if (index < 0) return;
    const last = this.members.pop()!;
    if (last !== membership) {
      this.members[index] = last;
      last.index = index;
    }
    membership.index = -1;
  }

  /** How many are here. `isLazy`: each is told when something is written to him anyway. Returns how many were told. */
  tellCount(count: number, isLazy: boolean): number {
    this.#count = count;
    if (isLazy) return 0;
    const frame = this.#countFrame(count);
    for (const membership of this.members) {
      if (membership.connection.isSlow || membership.count === count) continue;
      membership.count = count;
      membership.connection.write(frame);
    }
    return this.members.length;
  }

  /** What he has not been told of the count, as `asciiFrame` gives it; empty: nothing. He counts as told. */
  countFor(membership: Membership): string {
    const count = this.#count;
    if (count === undefined || membership.count === count) return '';
    membership.count = count;
    return this.#countFrame(count);
  }

  #countFrame(count: number): string {
    return asciiFrame(`{"t":"members","room":"${this.id}","count":${count}}`);
  }

  onFrames(): void {
    if (!this.isFlushWanted) {
      this.isFlushWanted = true;
      this.host.flushSoon(this);
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
      membership.connection.write(bytes);
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

  /** Something that is no entry: who cannot take it now goes without. */
  broadcast(text: string): void {
    const bytes = webSocketFrames([text]);
    for (const { connection } of this.members) if (!connection.isSlow) connection.write(bytes);
  }

  /** Gives the audience what is new. */
  flush(): void {
    this.isFlushWanted = false;
    if (this.#isReading) return;
    while (this.flushed < this.room.head) {
      const frames = this.room.after(this.flushed, BATCH);
      if (!isArray(frames)) {
        void this.#readAndFlush(frames);
        return;
      }
      if (frames.length === 0) return;
      this.#give(frames);
    }
  }

  /** More came at once than the room has at hand. */
  async #readAndFlush(reading: Promise<readonly EntryFrame[] | undefined>): Promise<void> {
    this.#isReading = true;
    const { generation, flushed } = this;
    try {
      const frames = await reading;
      if (generation === this.generation && flushed === this.flushed) {
        if (frames === undefined) this.#skipTo(Math.max(this.room.floor, this.flushed));
        else if (frames.length > 0) this.#give(frames);
      }
    } catch {
      // Log and database are away: the members stay where they are, and `retry` asks again.
      return;
    } finally {
      this.#isReading = false;
    }
    this.flush();
  }

  /** Asks again for what could not be read. */
  retry(): void {
    if (this.flushed < this.room.head && !this.isFlushWanted) this.flush();
  }

  #skipTo(offset: number): void {
    // Each member is told what he has not got when he goes on by himself.
    this.flushed = offset;
    for (const membership of this.members) this.advance(membership);
  }

  #give(frames: readonly EntryFrame[]): void {
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
      const userId = connection.person?.id;
      if (userId !== undefined && authors.has(userId)) connection.write(webSocketFrames(frames.map((frame) => textFor(frame, userId))));
      else connection.write(bytes);
    }
    host.counters.delivered += delivered * frames.length;
    const wallMs = host.wallMs();
    for (const frame of frames) host.counters.observe(Math.max(0, wallMs - atOf(frame)) / 1000);
  }

  /**
   * Writes what the member lacks, as far as his connection takes it. Who has been behind for longer than `lagMs` is told what he has missed instead.
   */
  advance(membership: Membership, lagMs = Number.POSITIVE_INFINITY): void {
    const { connection } = membership;
    while (!connection.isSlow && !membership.isReading && membership.index >= 0) {
      if (membership.epoch !== this.epoch) {
        const keep = this.#keepSince(membership.epoch);
        membership.epoch = this.epoch;
        membership.cursor = Math.min(membership.cursor, keep);
        connection.write(webSocketFrames([this.#resetText(keep)]));
        continue;
      }
      if (membership.cursor >= this.flushed) {
        membership.behindSinceMs = 0;
        return;
      }
      const nowMs = this.host.nowMs();
      membership.behindSinceMs ||= nowMs;
      if (nowMs - membership.behindSinceMs > lagMs) {
        this.#lag(membership, this.flushed);
        continue;
      }
      const frames = this.room.after(membership.cursor, Math.min(BATCH, this.flushed - membership.cursor));
      if (isArray(frames)) {
        if (frames.length === 0) return;
        this.#giveOne(membership, frames);
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
        if (frames === undefined) this.#lag(membership, Math.max(this.room.floor, cursor));
        else if (frames.length > 0) this.#giveOne(membership, frames);
        else return;
      }
    } catch {
      // The wheel asks again.
      return;
    } finally {
      membership.isReading = false;
    }
    this.advance(membership);
  }

  #giveOne(membership: Membership, frames: readonly EntryFrame[]): void {
    const { connection } = membership;
    const userId = connection.person?.id;
    membership.cursor = frames.at(-1)!.offset;
    this.host.counters.delivered += frames.length;
    connection.write(webSocketFrames(frames.map((frame) => textFor(frame, userId))));
  }

  /** `to` is where he goes on from; `range` fetches what is left out. */
  #lag(membership: Membership, to: number): void {
    const from = membership.cursor + 1;
    membership.cursor = to;
    membership.behindSinceMs = 0;
    this.host.counters.skipped += Math.max(0, to - from + 1);
    if (to >= from) membership.connection.write(webSocketFrames([`{"t":"lag","room":"${this.id}","from":${from},"to":${to}}`]));
  }

  #resetText(keep: number): string {
    return `{"t":"reset","room":"${this.id}","epoch":${this.epoch},"keep":${keep}}`;
  }

  /** What a member who knows `epoch` may keep. */
  #keepSince(epoch: number): number {
    let keep = Number.POSITIVE_INFINITY;
    for (const reset of this.#resets) if (reset.epoch > epoch) keep = Math.min(keep, reset.keep);
    return keep === Number.POSITIVE_INFINITY ? this.flushed : keep;
  }
}

/** The log's time of an entry, out of its text. */
function atOf({ text }: EntryFrame): number {
  const at = text.indexOf('"at":') + 5;
  return at < 5 ? Number.POSITIVE_INFINITY : Number.parseInt(text.slice(at, at + 16), 10);
}

const isArray = (frames: readonly EntryFrame[] | Promise<unknown>): frames is readonly EntryFrame[] => Array.isArray(frames);
