import { VezaError } from '../../runtime/errors.js';

/**
 * The log of every chat room: contiguous offsets, one atomic step an append, and each append told to every process that follows the room.
 * It delivers; what must last is in PostgreSQL. So a log may lose everything at any moment, and then says `reopen` instead of making up
 * offsets that were given before. A room that is archived and in which nobody has spoken for `IDLE_MS` is dropped likewise.
 *
 * Every operation rejects with `unavailable` when the log does not answer within a second; with a `RangeError` when what is given breaks the
 * limits at the end of this file, which is a mistake of the caller.
 */
export interface RoomLog {
  /**
   * Appends in one step: looks for the key, then the rules, then gives the next offset, keeps the entry and tells the followers.
   * Rejects with `unavailable` when there is no answer in time: the outcome is unknown, and the same key is to be sent again.
   */
  append(append: Append): Promise<AppendOutcome>;
  /** Ascending entries with an offset above `after`, at most `limit`, of those that are still held; and where the room stands. */
  read(roomId: string, after: number, limit: number): Promise<LogPage | undefined>;
  /** Where many rooms stand, in one question: at most `MAX_PLACES`. A room that is not held is left out. */
  places(roomIds: readonly string[]): Promise<ReadonlyMap<string, Place>>;
  /**
   * Begins the room under an epoch: `head` is its last offset, all up to it is in PostgreSQL; `entries` (ascending, ending at it, may be fewer
   * than there were) are held as if they had been appended; above a hole only, and at most `KEPT`. Keys that are younger than `KEY_MS` are known
   * again. The followers are not told. Does nothing and returns false when the log knows of this epoch or a higher one.
   */
  open(opening: Opening): Promise<boolean>;
  /**
   * What is in PostgreSQL: everything up to an offset, or exactly the offsets of a list (a process knows of its own only; the log puts together
   * what all of them report, and `archived` stands below the first that is missing). What lies below that and below `head − KEPT` may be
   * dropped. Another epoch is ignored, and so is what is above `head`.
   */
  archived(roomId: string, epoch: number, upTo: number | readonly number[]): Promise<void>;
  /**
   * Rooms where entries wait and `archived` has not moved for `olderThanMs`: a process died between the two. At most `limit`. What to do: read
   * from `archived`, insert what is missing, report it.
   */
  unarchived(olderThanMs: number, limit: number): Promise<readonly { roomId: string; epoch: number; archived: number; head: number }[]>;
  /**
   * Replaces the payload of an entry that is still held (a deleted message becomes `gone`), without a new offset; the followers are not told: the
   * entry that deletes it does that. Another epoch is ignored: there the offset may be another entry's place.
   */
  erase(roomId: string, epoch: number, offset: number, type: string, payload: string): Promise<void>;
  /**
   * Bars an account from the room: once this has resolved, no append under its rules is taken for `forMs`, whichever process asks, also one that has
   * not heard of a ban or timeout yet. 0 lifts it; another replaces it. An append under a key that is known is a duplicate all the same.
   */
  bar(roomId: string, userId: string, forMs: number, why: Barred): Promise<void>;
  /**
   * Calls back with each entry appended from now on by any process, in order but possibly with holes or twice (a link was lost): the caller compares
   * offsets and reads what is missing. `onRestored` is called after each time the subscription had to be made again. Resolves when it follows;
   * what is appended after that is told. Rejects with `unavailable` when that cannot be had in time, and then does not follow.
   */
  follow(roomId: string, follower: Follower): Promise<Following>;
  /** Forgets a room that is deleted. */
  remove(roomId: string): Promise<void>;
  /** Twice is harmless. */
  stop(): Promise<void>;
}

export interface Append {
  readonly roomId: string;
  /** The epoch that the caller believes in. */
  readonly epoch: number;
  readonly type: string;
  /** A JSON object as text, without room, epoch, offset and time. Opaque here. */
  readonly payload: string;
  /** The same within `KEY_MS` is one entry. */
  readonly key?: string;
  /** Of the account, for the rules. Without: no rules (a process speaks). */
  readonly rules?: AppendRules;
}

/** Checked in the same step, so that they hold over all processes. Nothing is counted for an append that is refused or a duplicate. */
export interface AppendRules {
  readonly userId: string;
  /** Token bucket of the account in this room. Above 0. */
  readonly perS: number;
  readonly burst: number;
  /** Token bucket of the room, all accounts together; its burst is one second's worth. Above 0. */
  readonly roomPerS: number;
  /** Slow mode: at least so long between two messages of one account, counted from when it is on; 0: off. */
  readonly slowMs: number;
  /** Unique mode: the hash of the normalised text; refused when it was said in this room within `UNIQUE_MS`. */
  readonly uniqueHash?: string | undefined;
}

export type Barred = 'banned' | 'timed_out';

export type AppendOutcome =
  | { readonly kind: 'appended' | 'duplicate'; readonly epoch: number; readonly offset: number; readonly atMs: number }
  | { readonly kind: 'refused'; readonly code: 'rate_limited' | 'slow_mode' | 'not_unique'; readonly retryMs: number }
  /** See `bar`. Nothing was written. */
  | { readonly kind: 'barred'; readonly why: Barred }
  /** The log does not hold the room under this epoch: it has lost it, or another process has opened a newer one. Nothing was written. */
  | { readonly kind: 'reopen' }
  /** `MAX_UNARCHIVED` entries wait to be archived, or the log's memory is full. Nothing was written. */
  | { readonly kind: 'busy' };

export interface LogEntry {
  readonly offset: number;
  /** Of the log's own clock, ms since 1970; never falls within a room. */
  readonly atMs: number;
  readonly type: string;
  readonly payload: string;
  readonly key: string | undefined;
}

/** Where a room stands. */
export interface Place {
  readonly epoch: number;
  /** The newest offset; 0: there was none. */
  readonly head: number;
}

export interface LogPage extends Place {
  readonly archived: number;
  readonly entries: readonly LogEntry[];
}

export interface Opening {
  readonly roomId: string;
  readonly epoch: number;
  readonly head: number;
  /** Time of the newest one, so that the next is not before it. */
  readonly atMs: number;
  readonly entries: readonly LogEntry[];
}

export interface Follower {
  onEntry(epoch: number, entry: LogEntry): void;
  onRestored(): void;
}

export interface Following {
  stop(): void;
}

/** The same key within this time is the same message. */
export const KEY_MS = 300_000;
/** Unique mode looks back so far, */
export const UNIQUE_MS = 3_600_000;
/** and at least over so many messages, at most over twice as many. */
export const UNIQUE_HASHES = 50_000;
/** Entries of a room that are held though they are archived. */
export const KEPT = 1000;
/** Of a room; more are refused as `busy`. */
export const MAX_UNARCHIVED = 20_000;
/** A room in which nobody has spoken for so long is dropped; PostgreSQL has it. */
export const IDLE_MS = 86_400_000;

/** What the callers' own limits stay far below: here it only keeps a mistake from filling the memory or breaking the form of an entry. */
const ROOM_ID = /^[\w-]{1,64}$/;
const TYPE = /^[a-zA-Z]{1,16}$/;
const MAX_PAYLOAD_CHARS = 65_536;
/** OpenID Connect allows 255 characters for a subject, and its issuer stands before it. */
const MAX_NAME_CHARS = 1024;
/** Entries of one `read`. */
export const MAX_READ = 1000;
/** Rooms of one `places`. */
export const MAX_PLACES = 1000;

export function checkRoomId(roomId: string): void {
  if (!ROOM_ID.test(roomId)) throw new RangeError(`not the id of a room: ${JSON.stringify(roomId.slice(0, 80))}`);
}

export function checkPlaces(roomIds: readonly string[]): void {
  if (roomIds.length > MAX_PLACES) throw new RangeError(`${roomIds.length} rooms are asked for; at most ${MAX_PLACES}`);
  for (const roomId of roomIds) checkRoomId(roomId);
}

export function checkEntry(type: string, payload: string): void {
  if (!TYPE.test(type)) throw new RangeError(`not a type of an entry: ${JSON.stringify(type.slice(0, 80))}`);
  if (payload.length > MAX_PAYLOAD_CHARS) throw new RangeError(`a payload has ${payload.length} characters; at most ${MAX_PAYLOAD_CHARS}`);
}

export function checkAppend({ roomId, epoch, type, payload, key, rules }: Append): void {
  checkRoomId(roomId);
  checkEntry(type, payload);
  checkWhole('epoch', epoch);
  if (key !== undefined) checkName('key', key);
  if (!rules) return;
  checkName('userId', rules.userId);
  if (rules.uniqueHash !== undefined) checkName('uniqueHash', rules.uniqueHash);
  if (!(rules.perS > 0 && rules.roomPerS > 0 && rules.burst >= 1 && rules.slowMs >= 0)) throw new RangeError('not the rules of a room');
}

export function checkWhole(name: string, value: number): void {
  if (!(Number.isSafeInteger(value) && value >= 0)) throw new RangeError(`${name} is ${value}; a whole number from 0 on`);
}

/** What of `opening.entries` can be held: nothing below a hole, and the newest `KEPT`. */
export function entriesToHold({ roomId, epoch, head, entries }: Opening): readonly LogEntry[] {
  checkRoomId(roomId);
  checkWhole('epoch', epoch);
  checkWhole('head', head);
  let first = entries.length;
  while (first > 0 && entries.length - first < KEPT && entries[first - 1]!.offset === head - (entries.length - first)) first--;
  const held = entries.slice(first);
  for (const { type, payload } of held) checkEntry(type, payload);
  return held;
}

export function checkBar(roomId: string, userId: string, forMs: number): void {
  checkRoomId(roomId);
  checkName('userId', userId);
  checkWhole('forMs', forMs);
}

function checkName(name: string, value: string): void {
  if (value.length === 0 || value.length > MAX_NAME_CHARS)
    throw new RangeError(`${name} has ${value.length} characters; 1 to ${MAX_NAME_CHARS}`);
}

export const logUnavailable = (why: string) =>
  new VezaError('unavailable', `The log of the rooms does not answer (${why}); send it again.`);
