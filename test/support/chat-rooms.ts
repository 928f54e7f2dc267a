import { randomBytes, randomUUID } from 'node:crypto';
import type { Database } from '../../src/backing/database/database.js';
import type { RoomLog } from '../../src/backing/room-log/room-log.js';
import { type EntryFrame, textFor } from '../../src/chat/protocol/entry-frame.js';
import type { Author, ContentReviewer, HeldMessage, PublishOutcome, PublishRules, Room, RoomListener } from '../../src/chat/rooms/room.js';
import { Rooms, type RoomsOptions } from '../../src/chat/rooms/rooms.js';
import { type Clock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

export const author = (id: string): Author => ({ id, name: id.toUpperCase(), role: 'viewer' });

/** Everybody may say everything at any rate. */
export const anything: PublishRules = { refusalOf: () => undefined, limitsOf: () => undefined, isShadowed: () => false };
const anyway: ContentReviewer = { review: () => ({ kind: 'allow' }) };

/** A channel with its room. Returns the room's id. */
export async function makeRoom(database: Database, slug = `c${randomUUID().slice(0, 8)}`): Promise<string> {
  const channelId = randomUUID();
  await database.query("insert into channels (id, slug, title, visibility, stream_key_hash) values ($1, $2, $2, 'public', $3)", [
    channelId,
    slug,
    randomBytes(32),
  ]);
  const { rows } = await database.query<{ id: string }>('select id from rooms where channel_id = $1', [channelId]);
  return rows[0]!.id;
}

/** What a process of the chat has, with whatever a test puts in. */
export function makeRooms(
  database: Database,
  roomLog: RoomLog,
  options: Partial<RoomsOptions> & { clock?: Clock } = {},
): { rooms: Rooms; held: HeldMessage[] } {
  const held: HeldMessage[] = [];
  const rooms = new Rooms({
    database,
    roomLog,
    clock: new SystemClock(),
    log: silentLog,
    rules: anything,
    reviewer: anyway,
    held: {
      async holdMessage(message) {
        held.push(message);
        return { kind: 'waiting' };
      },
    },
    maxMessageBytes: 8192,
    ...options,
  });
  return { rooms, held };
}

export interface Entry {
  readonly t: string;
  readonly epoch: number;
  readonly offset: number;
  readonly at: number;
  readonly mid?: string;
  readonly user?: { readonly id: string };
  readonly body?: { readonly text: string };
  readonly key?: string;
  readonly [field: string]: unknown;
}

export const entryOf = (frame: EntryFrame, userId?: string): Entry => JSON.parse(textFor(frame, userId)) as Entry;

/**
 * A member as the protocol has him: applies what is the next offset, drops what he has, withdraws what a `reset` says, erases what a `del` names. Any
 * frame out of order is a defect and is kept in `faults`.
 */
export class Member implements RoomListener {
  readonly room: Room;
  readonly entries = new Map<number, Entry>();
  readonly events: Record<string, unknown>[] = [];
  readonly faults: string[] = [];
  readonly resets: { epoch: number; keep: number }[] = [];
  readonly userId: string | undefined;
  /** Where it came in: it has what follows. */
  readonly joinedAt: number;
  cursor: number;
  epoch: number;
  closed: string | undefined;
  #flushing = false;
  #again = false;
  #waiting: (() => void)[] = [];

  constructor(room: Room, cursor = room.head, userId?: string) {
    this.room = room;
    this.joinedAt = cursor;
    this.cursor = cursor;
    this.epoch = room.epoch;
    this.userId = userId;
    room.addListener(this);
    this.onFrames();
  }

  onFrames(): void {
    this.#again = true;
    if (!this.#flushing) void this.#flush();
  }

  onReset(epoch: number, keep: number): void {
    if (epoch <= this.epoch) this.faults.push(`reset to epoch ${epoch} in epoch ${this.epoch}`);
    this.epoch = epoch;
    this.resets.push({ epoch, keep });
    for (const offset of this.entries.keys()) if (offset > keep) this.entries.delete(offset);
    this.cursor = Math.min(this.cursor, keep);
    this.onFrames();
  }

  onEvent(text: string): void {
    this.events.push(JSON.parse(text));
    this.#wake();
  }

  onClosed(code: string): void {
    this.closed = code;
    this.#wake();
  }

  /** Texts in order of those messages that are there. */
  get texts(): string[] {
    return [...this.entries.values()].flatMap((entry) => (entry.t === 'msg' ? [entry.body!.text] : []));
  }

  /** Resolves when `is` holds; awaited are frames, resets and events. */
  async until(is: () => boolean): Promise<void> {
    while (!is()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  leave(): void {
    this.room.removeListener(this);
    this.room.release();
  }

  async #flush(): Promise<void> {
    this.#flushing = true;
    while (this.#again) {
      this.#again = false;
      while (this.cursor < this.room.head) {
        const { cursor, epoch } = this;
        const answer = this.room.framesAfter(cursor, 32);
        let frames: readonly EntryFrame[] | undefined;
        try {
          frames = Array.isArray(answer) ? answer : await answer;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 20));
          continue;
        }
        if (this.cursor !== cursor || this.epoch !== epoch) continue;
        if (frames === undefined) this.cursor = this.room.floor;
        else for (const frame of frames) this.#apply(entryOf(frame, this.userId));
      }
    }
    this.#flushing = false;
    this.#wake();
  }

  #apply(entry: Entry): void {
    if (entry.offset !== this.cursor + 1) this.faults.push(`offset ${entry.offset} after ${this.cursor}`);
    if (entry.epoch !== this.epoch) this.faults.push(`offset ${entry.offset} of epoch ${entry.epoch} in epoch ${this.epoch}`);
    const before = this.entries.get(entry.offset - 1);
    if (before && before.at > entry.at) this.faults.push(`the time fell at ${entry.offset}`);
    this.cursor = entry.offset;
    this.entries.set(entry.offset, entry);
    if (entry.t !== 'del') return;
    const { offsets = [], user, upTo = 0 } = entry as unknown as { offsets?: number[]; user?: string; upTo?: number };
    for (const [offset, old] of this.entries) {
      if (old.t === 'msg' && (offsets.includes(offset) || (user === old.user?.id && offset <= upTo)))
        this.entries.set(offset, { t: 'gone', epoch: old.epoch, offset, at: old.at });
    }
  }

  #wake(): void {
    for (const waiting of this.#waiting.splice(0)) waiting();
  }
}

/** As a client does: the same key again until it is acknowledged. Returns the place. */
export async function say(room: Room, who: string, key: string, text: string): Promise<{ mid: string; offset: number; dup: boolean }> {
  for (;;) {
    const outcome = await publish(room, who, key, text);
    if (outcome.kind === 'refused' && outcome.retryMs !== undefined) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(50, outcome.retryMs!)));
      continue;
    }
    if (outcome.kind !== 'published') throw new Error(JSON.stringify(outcome));
    const commit = await outcome.committed;
    if (commit.kind === 'stored') return { mid: outcome.mid, offset: commit.offset, dup: commit.dup };
  }
}

export const publish = (room: Room, who: string, key: string, text: string): Promise<PublishOutcome> =>
  room.publishMessage({ author: author(who), key, body: { text } });
