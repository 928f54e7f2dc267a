import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import {
  type Append,
  type AppendOutcome,
  type AppendRules,
  type Barred,
  checkAppend,
  checkBar,
  checkEntry,
  checkPlaces,
  checkRoomId,
  checkWhole,
  entriesToHold,
  type Following,
  IDLE_MS,
  KEPT,
  KEY_MS,
  type LogEntry,
  type LogPage,
  type LogPosition,
  logUnavailable,
  MAX_READ,
  MAX_UNARCHIVED,
  type Opening,
  type RoomLog,
  type RoomLogFollower,
  UNIQUE_HASHES,
  UNIQUE_MS,
} from './room-log.js';

/**
 * Memory for all rooms together, at most. Above it archived entries are dropped; if there are none,
 * an append is answered with `busy`.
 */
const DEFAULT_MAX_BYTES = 64 * 2 ** 20;
/** Entries that are dropped at once, at least: dropping moves all remaining entries in memory. */
const TRIM_STEP = 64;
// Memory that V8 takes for each of these, measured and rounded up. A character counts as two bytes.
const ROOM_BYTES = 1500;
const ENTRY_BYTES = 150;
const RECORD_BYTES = 150;

export interface MemoryRoomLogOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly maxBytes?: number;
}

/**
 * The room log of a single process: it gives the same guarantees as with Redis, lives as long as
 * the process, and has bounded memory.
 */
export class MemoryRoomLog implements RoomLog {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #maxBytes: number;
  /** Rooms by id. The room with the newest message is the last. */
  readonly #rooms = new Map<string, MemoryRoom>();
  readonly #waiting = new Set<MemoryRoom>();
  readonly #followers = new Map<string, Set<RoomLogFollower>>();
  /** The bars by room and account. They stay when the room is dropped or opened again. */
  readonly #bars = new Map<string, { readonly untilMs: number; readonly why: Barred }>();
  readonly #undelivered: { roomId: string; epoch: number; entry: LogEntry }[] = [];
  #isDelivering = false;
  #bytes = 0;
  /** True when no entry can be dropped until more is archived. */
  #full = false;
  #stopped = false;

  constructor({ clock, log, maxBytes = DEFAULT_MAX_BYTES }: MemoryRoomLogOptions) {
    this.#clock = clock;
    this.#log = log;
    this.#maxBytes = maxBytes;
  }

  /** The size by the estimates above. */
  get sizeBytes(): number {
    return this.#bytes;
  }

  async append(append: Append): Promise<AppendOutcome> {
    checkAppend(append);
    this.#assertRunning();
    const { roomId, epoch, type, payload, key, rules } = append;
    this.#dropIdleRoom();
    const room = this.#rooms.get(roomId);
    if (!room || room.epoch !== epoch) return { kind: 'reopen' };
    const nowMs = this.#nowMs();
    room.forget(nowMs);
    const known = key === undefined ? undefined : room.keys.get(key);
    if (known) return { kind: 'duplicate', epoch, ...known };
    const bar = rules && this.#bars.get(barOf(roomId, rules.userId));
    if (bar && bar.untilMs > nowMs) return { kind: 'barred', why: bar.why };
    if (room.head - room.archived >= MAX_UNARCHIVED) return { kind: 'busy' };
    const refused = rules && room.refuses(rules, nowMs);
    if (refused) return refused;
    if (!this.#freeMemory(room)) return { kind: 'busy' };

    if (rules) room.count(rules, nowMs);
    const entry: LogEntry = { offset: room.head + 1, atMs: Math.max(nowMs, room.atMs), type, payload, key };
    if (room.archived === room.head) {
      room.waitingSinceMs = nowMs;
      this.#waiting.add(room);
    }
    room.push(entry);
    room.spokenMs = nowMs;
    // The room becomes the last in the order, and its size is counted again.
    this.#rooms.delete(roomId);
    this.#rooms.set(roomId, room);
    this.#count(room);
    this.#deliver(roomId, epoch, entry);
    return { kind: 'appended', epoch, offset: entry.offset, atMs: entry.atMs };
  }

  async read(roomId: string, after: number, limit: number): Promise<LogPage | undefined> {
    checkRoomId(roomId);
    this.#assertRunning();
    const room = this.#rooms.get(roomId);
    if (!room) return undefined;
    const { epoch, head, archived } = room;
    const from = Math.max(0, after + 1 - room.first);
    return { epoch, head, archived, entries: room.entries.slice(from, from + Math.max(0, Math.min(limit, MAX_READ))) };
  }

  async places(roomIds: readonly string[]): Promise<ReadonlyMap<string, LogPosition>> {
    checkPlaces(roomIds);
    this.#assertRunning();
    const found = new Map<string, LogPosition>();
    for (const roomId of roomIds) {
      const room = this.#rooms.get(roomId);
      if (room) found.set(roomId, { epoch: room.epoch, head: room.head });
    }
    return found;
  }

  async open(opening: Opening): Promise<boolean> {
    const entries = entriesToHold(opening);
    this.#assertRunning();
    const { roomId, epoch, head, atMs } = opening;
    const before = this.#rooms.get(roomId);
    if (before && before.epoch >= epoch) return false;
    this.#forget(roomId);
    const nowMs = this.#nowMs();
    const room = new MemoryRoom(roomId, epoch, head - entries.length, atMs);
    for (const entry of entries) room.push(entry, nowMs - KEY_MS);
    room.archived = head;
    room.spokenMs = nowMs;
    this.#rooms.set(roomId, room);
    this.#count(room);
    this.#freeMemory(room);
    return true;
  }

  async archived(roomId: string, epoch: number, upTo: number | readonly number[]): Promise<void> {
    checkRoomId(roomId);
    this.#assertRunning();
    const room = this.#rooms.get(roomId);
    if (room?.epoch !== epoch || !room.archive(upTo)) return;
    room.waitingSinceMs = this.#nowMs();
    if (room.archived === room.head) this.#waiting.delete(room);
    room.trim(KEPT, TRIM_STEP);
    this.#count(room);
    this.#full = false;
  }

  async unarchived(olderThanMs: number, limit: number) {
    this.#assertRunning();
    const found: { roomId: string; epoch: number; archived: number; head: number }[] = [];
    const beforeMs = this.#nowMs() - olderThanMs;
    for (const { roomId, epoch, archived, head, waitingSinceMs } of this.#waiting) {
      if (found.length >= limit) break;
      if (waitingSinceMs <= beforeMs) found.push({ roomId, epoch, archived, head });
    }
    return found;
  }

  async erase(roomId: string, epoch: number, offset: number, type: string, payload: string): Promise<void> {
    checkRoomId(roomId);
    checkEntry(type, payload);
    this.#assertRunning();
    const room = this.#rooms.get(roomId);
    const entry = room?.entries[offset - room.first];
    if (room?.epoch !== epoch || !entry) return;
    room.entries[offset - room.first] = { ...entry, type, payload };
    room.bytes += sizeOf(payload) - sizeOf(entry.payload);
    this.#count(room);
  }

  async bar(roomId: string, userId: string, forMs: number, why: Barred): Promise<void> {
    checkBar(roomId, userId, forMs);
    this.#assertRunning();
    const nowMs = this.#nowMs();
    for (const [bar, { untilMs }] of this.#bars) if (untilMs <= nowMs) this.#bars.delete(bar);
    if (forMs > 0) this.#bars.set(barOf(roomId, userId), { untilMs: nowMs + forMs, why });
    else this.#bars.delete(barOf(roomId, userId));
  }

  async follow(roomId: string, follower: RoomLogFollower): Promise<Following> {
    checkRoomId(roomId);
    this.#assertRunning();
    // Each call has its own object, so that a follower may follow twice and stop once.
    const own: RoomLogFollower = { onEntry: (epoch, entry) => follower.onEntry(epoch, entry), onRestored: () => follower.onRestored() };
    const followers = this.#followers.get(roomId) ?? new Set();
    this.#followers.set(roomId, followers.add(own));
    return {
      stop: () => {
        followers.delete(own);
        if (followers.size === 0 && this.#followers.get(roomId) === followers) this.#followers.delete(roomId);
      },
    };
  }

  async remove(roomId: string): Promise<void> {
    checkRoomId(roomId);
    this.#assertRunning();
    this.#forget(roomId);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#followers.clear();
    this.#rooms.clear();
    this.#waiting.clear();
    this.#bars.clear();
    this.#bytes = 0;
  }

  #nowMs(): number {
    return Math.floor(this.#clock.wallMs());
  }

  #assertRunning(): void {
    if (this.#stopped) throw logUnavailable('it was stopped');
  }

  #count(room: MemoryRoom): void {
    this.#bytes += room.bytes - room.counted;
    room.counted = room.bytes;
  }

  #forget(roomId: string): void {
    const room = this.#rooms.get(roomId);
    if (!room) return;
    this.#rooms.delete(roomId);
    this.#waiting.delete(room);
    this.#bytes -= room.counted;
    this.#full = false;
  }

  /**
   * Drops at most one idle room per message. That is enough, since every room in memory has cost a
   * message.
   */
  #dropIdleRoom(): void {
    for (const [roomId, room] of this.#rooms) {
      if (room.archived === room.head && this.#nowMs() - room.spokenMs >= IDLE_MS) this.#forget(roomId);
      return;
    }
  }

  /**
   * Returns whether there is memory for one more entry. If there is none, drops archived entries,
   * and starts with the rooms that have been silent longest.
   */
  #freeMemory(forRoom: MemoryRoom): boolean {
    if (this.#bytes < this.#maxBytes) return true;
    if (this.#full) return false;
    const nowMs = this.#nowMs();
    for (const [roomId, room] of this.#rooms) {
      // The keys of the room are still needed if somebody wrote in it less than `KEY_MS` ago.
      if (room !== forRoom && room.archived === room.head && nowMs - room.spokenMs >= KEY_MS) {
        this.#forget(roomId);
      } else {
        room.forget(nowMs);
        room.trim(0, 1);
        this.#count(room);
      }
      // Memory is freed down to a tenth below the limit, so that this does not run at every
      // message.
      if (this.#bytes < this.#maxBytes * 0.9) return true;
    }
    this.#full = this.#bytes >= this.#maxBytes;
    return !this.#full;
  }

  /** Every follower gets the entries in order, even if one of them appends in its callback. */
  #deliver(roomId: string, epoch: number, entry: LogEntry): void {
    if (!this.#followers.has(roomId)) return;
    this.#undelivered.push({ roomId, epoch, entry });
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    for (let next = this.#undelivered.shift(); next; next = this.#undelivered.shift()) {
      for (const follower of this.#followers.get(next.roomId) ?? []) {
        try {
          follower.onEntry(next.epoch, next.entry);
        } catch (error) {
          this.#log.error(
            { event: 'room_log.follower_failed', room: next.roomId, error: messageOf(error) },
            'a subscriber of a room log failed',
          );
        }
      }
    }
    this.#isDelivering = false;
  }
}

const barOf = (roomId: string, userId: string) => `${roomId} ${userId}`;
const sizeOf = (text: string) => 2 * text.length;

interface AuthorBudget {
  tokens: number;
  atMs: number;
  /** The record matters until this time. */
  untilMs: number;
}

class MemoryRoom {
  readonly roomId: string;
  readonly epoch: number;
  head: number;
  archived: number;
  atMs: number;
  spokenMs = 0;
  /** The time at which `archived` last changed or the first unarchived entry was appended. */
  waitingSinceMs = 0;
  /** Contiguous; the last entry is at `head`. */
  readonly entries: LogEntry[] = [];
  /** Archived offsets above one that is not archived. */
  readonly #ahead = new Set<number>();
  /** Ordered by time, like the two maps below. */
  readonly keys = new Map<string, { offset: number; atMs: number }>();
  readonly #texts = new Map<string, number>();
  readonly #accounts = new Map<string, AuthorBudget>();
  #tokens: number | undefined;
  #tokensMs = 0;
  bytes = ROOM_BYTES;
  /** The part of `bytes` that is in the sum of all rooms. */
  counted = 0;

  constructor(roomId: string, epoch: number, head: number, atMs: number) {
    this.roomId = roomId;
    this.epoch = epoch;
    this.head = head;
    this.archived = head;
    this.atMs = atMs;
  }

  /** The offset of the first held entry, or of the next one if none is held. */
  get first(): number {
    return this.head - this.entries.length + 1;
  }

  /** `keysSinceMs`: keys of entries that are not newer are not remembered. */
  push(entry: LogEntry, keysSinceMs = 0): void {
    this.entries.push(entry);
    this.head = entry.offset;
    this.atMs = Math.max(this.atMs, entry.atMs);
    this.bytes += ENTRY_BYTES + sizeOf(entry.payload);
    if (entry.key === undefined || entry.atMs <= keysSinceMs) return;
    this.keys.set(entry.key, { offset: entry.offset, atMs: entry.atMs });
    this.bytes += RECORD_BYTES + sizeOf(entry.key);
  }

  /** Marks offsets as archived. Returns whether `archived` has changed. */
  archive(upTo: number | readonly number[]): boolean {
    const before = this.archived;
    if (typeof upTo === 'number') {
      checkWhole('offset', upTo);
      this.archived = Math.max(before, Math.min(upTo, this.head));
    } else {
      for (const offset of upTo) if (offset > this.archived && offset <= this.head) this.#ahead.add(offset);
    }
    while (this.#ahead.delete(this.archived + 1)) this.archived++;
    if (typeof upTo === 'number') for (const offset of this.#ahead) if (offset <= this.archived) this.#ahead.delete(offset);
    return this.archived > before;
  }

  /** Drops archived entries except the newest `kept`. Fewer than `step` are left for later. */
  trim(kept: number, step: number): void {
    const count = Math.min(this.archived, this.head - kept) - this.first + 1;
    if (count < step) return;
    for (const { payload } of this.entries.splice(0, count)) this.bytes -= ENTRY_BYTES + sizeOf(payload);
  }

  /** Drops records that are too old to matter. */
  forget(nowMs: number): void {
    for (const [key, { atMs }] of this.keys) {
      if (nowMs - atMs < KEY_MS) break;
      this.keys.delete(key);
      this.bytes -= RECORD_BYTES + sizeOf(key);
    }
    for (const [hash, atMs] of this.#texts) {
      if (nowMs - atMs < UNIQUE_MS && this.#texts.size <= 2 * UNIQUE_HASHES) break;
      this.#texts.delete(hash);
      this.bytes -= RECORD_BYTES + sizeOf(hash);
    }
    for (const [userId, { untilMs }] of this.#accounts) {
      if (nowMs < untilMs) break;
      this.#accounts.delete(userId);
      this.bytes -= RECORD_BYTES + sizeOf(userId);
    }
  }

  refuses(rules: AppendRules, nowMs: number): (AppendOutcome & { kind: 'refused' }) | undefined {
    const account = this.#account(rules.userId, nowMs);
    const slowMs = account ? account.atMs + rules.slowMs - nowMs : 0;
    if (slowMs > 0) return { kind: 'refused', code: 'slow_mode', retryMs: slowMs };
    const saidMs = rules.uniqueHash === undefined ? undefined : this.#texts.get(rules.uniqueHash);
    if (saidMs !== undefined) return { kind: 'refused', code: 'not_unique', retryMs: Math.max(1, saidMs + UNIQUE_MS - nowMs) };
    const retryMs = Math.max(
      msToToken(this.#accountTokens(rules, nowMs), rules.perS),
      msToToken(this.#roomTokens(rules.roomPerS, nowMs), rules.roomPerS),
    );
    return retryMs > 0 ? { kind: 'refused', code: 'rate_limited', retryMs } : undefined;
  }

  count(rules: AppendRules, nowMs: number): void {
    const { userId, perS, burst, roomPerS, slowMs, uniqueHash } = rules;
    const tokens = this.#accountTokens(rules, nowMs) - 1;
    this.#tokens = this.#roomTokens(roomPerS, nowMs) - 1;
    this.#tokensMs = nowMs;
    if (!this.#accounts.delete(userId)) this.bytes += RECORD_BYTES + sizeOf(userId);
    this.#accounts.set(userId, { tokens, atMs: nowMs, untilMs: nowMs + Math.max(slowMs, Math.ceil((burst / perS) * 1000)) });
    if (uniqueHash === undefined) return;
    if (!this.#texts.delete(uniqueHash)) this.bytes += RECORD_BYTES + sizeOf(uniqueHash);
    this.#texts.set(uniqueHash, nowMs);
  }

  #account(userId: string, nowMs: number): AuthorBudget | undefined {
    const account = this.#accounts.get(userId);
    if (account && account.atMs > nowMs) {
      // The wall clock was set back, so the account's times are moved back too.
      account.untilMs -= account.atMs - nowMs;
      account.atMs = nowMs;
    }
    return account && nowMs < account.untilMs ? account : undefined;
  }

  #accountTokens({ userId, perS, burst }: AppendRules, nowMs: number): number {
    const account = this.#account(userId, nowMs);
    return account ? refilled(account.tokens, nowMs - account.atMs, perS, burst) : burst;
  }

  #roomTokens(perS: number, nowMs: number): number {
    const burst = Math.max(1, perS);
    this.#tokensMs = Math.min(this.#tokensMs, nowMs);
    return this.#tokens === undefined ? burst : refilled(this.#tokens, nowMs - this.#tokensMs, perS, burst);
  }
}

const refilled = (tokens: number, elapsedMs: number, perS: number, burst: number) => Math.min(burst, tokens + (elapsedMs / 1000) * perS);

/**
 * The time until a point is available; 0 when there is one. The tolerance is for sums of fractions
 * that stay just below 1.
 */
const msToToken = (tokens: number, perS: number) => (tokens >= 1 - 1e-9 ? 0 : Math.ceil(((1 - tokens) / perS) * 1000));
