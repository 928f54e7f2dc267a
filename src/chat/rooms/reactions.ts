import type { Database } from '../../backing/database/database.js';
import { Batched } from '../../runtime/batched.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Reactions } from './room.js';

/** The interval at which changed counts are sent to members. */
const TELL_MS = 1000;
const BATCH_MS = 100;
const MAX_BATCH = 500;
/** Reactions that wait for PostgreSQL. Further ones are refused with `busy`. */
const MAX_WAITING = 5000;
/**
 * A change becomes visible when its transaction ends, at most this long after its timestamp. Each
 * poll reads this stretch again.
 */
const OVERLAP = '10 seconds';
const MAX_READ = 5000;
const MAX_EMOJI_BYTES = 64;
const MAX_MIDS = 200;
/**
 * How long counts are served without another read, because many members may read the same page.
 * Later changes reach members in any case.
 */
const FRESH_MS = 5000;
const MAX_KNOWN = 20_000;

type EmojiCounts = Readonly<Record<string, number>>;

interface PendingReaction {
  readonly roomId: string;
  readonly mid: string;
  readonly emoji: string;
  readonly userId: string;
  readonly on: boolean;
  readonly done: (error?: VezaError) => void;
}

export interface RoomReactionsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  /** Sends a frame to the members of a room that is open here. */
  readonly tell: (roomId: string, text: string) => void;
}

/**
 * The reactions, stored only in PostgreSQL. Every process reads once a second which counts have
 * changed, including its own changes, and sends them to members. Counts are absolute, so a late or
 * repeated frame does no harm.
 */
export class RoomReactions {
  readonly #options: RoomReactionsOptions;
  readonly #waiting: PendingReaction[] = [];
  /** The counts that were sent recently, so that a repeated read does not send them again. */
  #told = new Map<string, string>();
  /**
   * Counts by room and `mid`, including messages without reactions. At least as new as the counts
   * that members were sent.
   */
  readonly #known = new Map<string, Map<string, { readonly atMs: number; readonly counts: Promise<EmojiCounts | undefined> }>>();
  #knownCount = 0;
  readonly #reads: Batched<EmojiCounts>;
  #since: Date | undefined;
  #storing: Promise<void> | undefined;
  #cancel: (() => void) | undefined;
  #cancelPoll: (() => void) | undefined;
  #polling: Promise<void> | undefined;

  constructor(options: RoomReactionsOptions) {
    this.#options = options;
    this.#reads = new Batched(options.clock, (ids) => this.#read(ids));
  }

  start(): void {
    this.#cancelPoll ??= this.#options.clock.every(TELL_MS, () => {
      this.#polling ??= this.#poll().finally(() => {
        this.#polling = undefined;
      });
    });
  }

  async stop(): Promise<void> {
    this.#cancelPoll?.();
    this.#cancel?.();
    await this.#polling;
    await this.#storing;
    while (this.#waiting.length > 0) await this.#store();
  }

  /** Rejects with `bad_request`, `not_found` (no such message), `busy` or `unavailable`. */
  setReaction(roomId: string, userId: string, mid: string, emoji: string, on: boolean): Promise<void> {
    if (!isEmoji(emoji)) return Promise.reject(new VezaError('bad_request', 'A reaction is one emoji.'));
    if (this.#waiting.length >= MAX_WAITING) return Promise.reject(new VezaError('busy', 'Too many reactions at once; try again.'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ roomId, mid, emoji, userId, on, done: (error) => (error ? reject(error) : resolve()) });
      this.#schedule();
    });
  }

  async countsOf(roomId: string, mids: readonly string[]): Promise<Reactions> {
    const asked = [...new Set(mids)].slice(0, MAX_MIDS);
    const found = await Promise.all(asked.map((mid) => this.#countsOf(roomId, mid)));
    return Object.fromEntries(asked.flatMap((mid, index) => (found[index] ? [[mid, found[index]] as const] : [])));
  }

  /** Forgets the counts of a room whose messages were erased. */
  forgetRoom(roomId: string): void {
    this.#knownCount -= this.#known.get(roomId)?.size ?? 0;
    this.#known.delete(roomId);
  }

  #countsOf(roomId: string, mid: string): Promise<EmojiCounts | undefined> {
    const nowMs = this.#options.clock.monotonicMs();
    const known = this.#known.get(roomId)?.get(mid);
    if (known && nowMs - known.atMs < FRESH_MS) return known.counts;
    this.#forgetOne(roomId, mid);
    if (this.#knownCount >= MAX_KNOWN) {
      this.#known.clear();
      this.#knownCount = 0;
    }
    const counts = this.#reads.load(`${roomId} ${mid}`);
    const ofRoom = this.#known.get(roomId) ?? new Map();
    this.#known.set(roomId, ofRoom);
    ofRoom.set(mid, { atMs: nowMs, counts });
    this.#knownCount++;
    counts.catch(() => this.#forgetOne(roomId, mid));
    return counts;
  }

  #forgetOne(roomId: string, mid: string): void {
    const ofRoom = this.#known.get(roomId);
    if (!ofRoom?.delete(mid)) return;
    this.#knownCount--;
    if (ofRoom.size === 0) this.#known.delete(roomId);
  }

  async #read(ids: readonly string[]): Promise<Map<string, EmojiCounts>> {
    const places = ids.map((id) => id.split(' ', 2) as [string, string]);
    const { rows } = await this.#options.database.query<{ room_id: string; mid: string; counts: EmojiCounts }>(
      `select c.room_id, c.mid, c.counts from reaction_counts c join unnest($1::uuid[], $2::text[]) a (room_id, mid)
         on c.room_id = a.room_id and c.mid = a.mid where c.counts <> '{}'`,
      [places.map(([roomId]) => roomId), places.map(([, mid]) => mid)],
    );
    return new Map(rows.map(({ room_id, mid, counts }) => [`${room_id} ${mid}`, counts]));
  }

  #schedule(): void {
    if (this.#cancel || this.#storing || this.#waiting.length === 0) return;
    this.#cancel = this.#options.clock.after(BATCH_MS, () => {
      this.#cancel = undefined;
      this.#storing = this.#store().finally(() => {
        this.#storing = undefined;
        this.#schedule();
      });
    });
  }

  async #store(): Promise<void> {
    const batch = this.#waiting.splice(0, MAX_BATCH);
    try {
      const { rows } = await this.#options.database.query<{ room_id: string; mid: string }>(
        'select room_id, mid from chat_react($1::uuid[], $2::text[], $3::text[], $4::text[], $5::boolean[])',
        [
          batch.map((it) => it.roomId),
          batch.map((it) => it.mid),
          batch.map((it) => it.emoji),
          batch.map((it) => it.userId),
          batch.map((it) => it.on),
        ],
      );
      const found = new Set(rows.map((row) => `${row.room_id} ${row.mid}`));
      for (const row of rows) this.#forgetOne(row.room_id, row.mid);
      const missing = batch.filter((it) => !found.has(`${it.roomId} ${it.mid}`));
      const shadows = missing.length === 0 ? undefined : await this.#shadowsOf(missing);
      for (const it of batch) {
        const isThere = found.has(`${it.roomId} ${it.mid}`) || shadows?.has(`${it.roomId} ${it.mid} ${it.userId}`);
        it.done(isThere ? undefined : new VezaError('not_found', 'There is no such message, or it is not stored yet.'));
      }
    } catch (error) {
      const failure =
        error instanceof VezaError ? error : new VezaError('unavailable', 'The reaction could not be stored.', { cause: error });
      for (const it of batch) it.done(failure);
    }
  }

  /**
   * Finds which of these messages are by an author under a shadow ban. The author's reactions to them
   * succeed, so that the author does not notice the ban.
   */
  async #shadowsOf(asked: readonly { readonly roomId: string; readonly mid: string }[]): Promise<ReadonlySet<string>> {
    const { rows } = await this.#options.database.query<{ room_id: string; mid: string; user_id: string }>(
      `select m.room_id, m.mid, m.user_id from messages m join unnest($1::uuid[], $2::text[]) a (room_id, mid)
         on m.room_id = a.room_id and m.mid = a.mid where m.type = 'shadow'`,
      [asked.map(({ roomId }) => roomId), asked.map(({ mid }) => mid)],
    );
    return new Set(rows.map((row) => `${row.room_id} ${row.mid} ${row.user_id}`));
  }

  async #poll(): Promise<void> {
    const { database, log, tell } = this.#options;
    try {
      const { rows } = await database.query<{ room_id: string; mid: string; counts: Record<string, number>; changed_at: Date }>(
        `select room_id, mid, counts, changed_at from reaction_counts
         where changed_at > coalesce($1::timestamptz, now()) - interval '${OVERLAP}' order by changed_at limit ${MAX_READ}`,
        [this.#since ?? null],
      );
      const told = new Map<string, string>();
      const rooms = new Map<string, Record<string, Record<string, number>>>();
      for (const { room_id, mid, counts } of rows) {
        const id = `${room_id} ${mid}`;
        const text = JSON.stringify(counts);
        told.set(id, text);
        // A cached or running read may be older than the counts that are sent now.
        this.#forgetOne(room_id, mid);
        if (this.#told.get(id) === text) continue;
        const room = rooms.get(room_id) ?? {};
        rooms.set(room_id, room);
        room[mid] = counts;
      }
      this.#told = told;
      const last = rows.at(-1)?.changed_at;
      // A full read may have left rows. The next one starts where this one ended: the 10 s cancel
      // the overlap.
      if (last) this.#since = rows.length === MAX_READ ? new Date(last.getTime() + 10_000) : last;
      for (const [roomId, counts] of rooms) tell(roomId, JSON.stringify({ t: 'reacts', room: roomId, counts }));
    } catch (error) {
      log.debug({ event: 'chat.reactions_unreadable', error: messageOf(error) }, 'could not read reactions');
    }
  }
}

const SEGMENTS = new Intl.Segmenter('en', { granularity: 'grapheme' });

function isEmoji(text: string): boolean {
  if (text.length === 0 || Buffer.byteLength(text) > MAX_EMOJI_BYTES) return false;
  if (!/^[\p{Extended_Pictographic}\p{Emoji_Component}\p{Regional_Indicator}]+$/u.test(text) || /^[0-9#*]+$/.test(text)) return false;
  return [...SEGMENTS.segment(text)].length === 1;
}
