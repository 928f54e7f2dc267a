import { VezaError } from '../../runtime/errors.js';

/**
 * The log of every chat room: contiguous offsets, one atomic step per append, and each append
 * delivered to every process that follows the room. The log only delivers; durable data is in
 * PostgreSQL. It may therefore lose everything at any moment, and then answers `reopen` instead of
 * giving an offset twice. It also drops a room that is archived and in which nobody has written for
 * `IDLE_MS`.
 *
 * Every operation rejects with `unavailable` when the log does not answer within a second. It
 * rejects with a `RangeError` when an argument breaks the limits at the end of this file, which is
 * a mistake of the caller.
 */
export interface RoomLog {
  /**
   * Appends in one atomic step: checks the key, then the rules, gives the next offset, keeps the
   * entry and delivers it to the followers. Rejects with `unavailable` when there is no answer in
   * time. The outcome is then unknown, and the caller sends the same key again.
   */
  append(append: Append): Promise<AppendOutcome>;
  /**
   * The held entries with an offset above `after`, ascending, at most `limit`, and the room's log
   * position. Undefined when the log does not hold the room.
   */
  read(roomId: string, after: number, limit: number): Promise<LogPage | undefined>;
  /**
   * The log positions of many rooms in one question, at most `MAX_PLACES`. A room that is not held
   * is left out.
   */
  places(roomIds: readonly string[]): Promise<ReadonlyMap<string, LogPosition>>;
  /**
   * Begins the room under an epoch. `head` is the room's last offset; everything up to it is in
   * PostgreSQL. `entries` (ascending, ending at `head`, perhaps not all) are held as if they had
   * been appended: only those above the last hole, and at most `KEPT`. Their keys are known again
   * if they are younger than `KEY_MS`. The followers are not called. Returns false, without effect,
   * when the log knows this epoch or a higher one.
   */
  open(opening: Opening): Promise<boolean>;
  /**
   * Reports what is in PostgreSQL: everything up to an offset, or exactly the offsets of a list. A
   * process knows only the offsets that it stored itself; the log combines the reports of all, and
   * `archived` is the last offset before the first that is missing. Entries up to `archived` and
   * below `head − KEPT` may be dropped. A report of another epoch is ignored, and so are offsets
   * above `head`.
   */
  archived(roomId: string, epoch: number, upTo: number | readonly number[]): Promise<void>;
  /**
   * Rooms with unarchived entries whose `archived` has not changed for `olderThanMs`, because a
   * process died between appending and archiving. At most `limit`. The caller reads from
   * `archived`, inserts what is missing, and reports it.
   */
  unarchived(olderThanMs: number, limit: number): Promise<readonly { roomId: string; epoch: number; archived: number; head: number }[]>;
  /**
   * Replaces the payload of an entry that is still held (a deleted message becomes `gone`), without
   * a new offset. The followers are not called: the entry of the deletion tells them. A call with
   * another epoch is ignored, since its offset may belong to another entry.
   */
  erase(roomId: string, epoch: number, offset: number, type: string, payload: string): Promise<void>;
  /**
   * Bars an account from the room. After this resolves, no append under the account's rules is
   * accepted for `forMs`, from any process, also from one that does not know of the ban or timeout
   * yet. 0 lifts the bar; another call replaces it. An append with a known key is still a
   * duplicate.
   */
  bar(roomId: string, userId: string, forMs: number, why: Barred): Promise<void>;
  /**
   * Calls back for each entry that any process appends from now on. The order is right, but entries
   * may be missing or repeated after a lost link: the caller compares offsets and reads what is
   * missing. `onRestored` is called each time the subscription was made again. Resolves when the
   * subscription is active; later appends are delivered. Rejects with `unavailable` when that takes
   * too long, and then does not follow.
   */
  follow(roomId: string, follower: RoomLogFollower): Promise<Following>;
  /** Removes a room that was deleted. */
  remove(roomId: string): Promise<void>;
  /** Stops the log. Calling it twice is harmless. */
  stop(): Promise<void>;
}

export interface Append {
  readonly roomId: string;
  /** The epoch that the caller knows. */
  readonly epoch: number;
  readonly type: string;
  /** A JSON object as text, without room, epoch, offset and time. The log does not read it. */
  readonly payload: string;
  /** An append with the same key within `KEY_MS` is the same entry. */
  readonly key?: string;
  /** The rules of the account that writes. Without them no rules apply: a process writes. */
  readonly rules?: AppendRules;
}

/**
 * Rules that are checked in the same step, so that they hold across all processes. A refused append
 * and a duplicate do not count.
 */
export interface AppendRules {
  readonly userId: string;
  /** Points per second and burst of the account in this room. `perS` is above 0. */
  readonly perS: number;
  readonly burst: number;
  /** Points per second of the whole room, above 0. The burst is one second's worth. */
  readonly roomPerS: number;
  /**
   * Slow mode: the time between two messages of one account, at least; it counts from when the mode
   * is on. 0: off.
   */
  readonly slowMs: number;
  /**
   * Unique mode: the hash of the folded text. The append is refused when this room has had the text
   * within `UNIQUE_MS`.
   */
  readonly uniqueHash?: string | undefined;
}

export type Barred = 'banned' | 'timed_out';

export type AppendOutcome =
  | { readonly kind: 'appended' | 'duplicate'; readonly epoch: number; readonly offset: number; readonly atMs: number }
  | { readonly kind: 'refused'; readonly code: 'rate_limited' | 'slow_mode' | 'not_unique'; readonly retryMs: number }
  /** The account is barred (see `bar`). Nothing was written. */
  | { readonly kind: 'barred'; readonly why: Barred }
  /**
   * The log does not hold the room under this epoch: it has lost the room, or another process has
   * opened a newer epoch. Nothing was written.
   */
  | { readonly kind: 'reopen' }
  /**
   * `MAX_UNARCHIVED` entries are not archived yet, or the log's memory is full. Nothing was
   * written.
   */
  | { readonly kind: 'busy' };

export interface LogEntry {
  readonly offset: number;
  /** Milliseconds since 1970 by the log's own clock; never decreases within a room. */
  readonly atMs: number;
  readonly type: string;
  readonly payload: string;
  readonly key: string | undefined;
}

/** The log position of a room. */
export interface LogPosition {
  readonly epoch: number;
  /** The newest offset; 0 when there is no entry. */
  readonly head: number;
}

export interface LogPage extends LogPosition {
  readonly archived: number;
  readonly entries: readonly LogEntry[];
}

export interface Opening {
  readonly roomId: string;
  readonly epoch: number;
  readonly head: number;
  /** The time of the newest entry, so that the next one is not earlier. */
  readonly atMs: number;
  readonly entries: readonly LogEntry[];
}

export interface RoomLogFollower {
  onEntry(epoch: number, entry: LogEntry): void;
  onRestored(): void;
}

export interface Following {
  stop(): void;
}

/** How long a key is remembered: the same key within this time is the same message. */
export const KEY_MS = 300_000;
/** Unique mode compares with the messages of this long. */
export const UNIQUE_MS = 3_600_000;
/** Unique mode compares with at least this many messages, and at most twice as many. */
export const UNIQUE_HASHES = 50_000;
/** Archived entries of a room that are still held. */
export const KEPT = 1000;
/** Unarchived entries of a room, at most; an append above it is answered with `busy`. */
export const MAX_UNARCHIVED = 20_000;
/** A room in which nobody has written for this long is dropped from the log; PostgreSQL has it. */
export const IDLE_MS = 86_400_000;

/**
 * These limits are far above the callers' own. They keep a programming mistake from filling the
 * memory or breaking the format of an entry.
 */
const ROOM_ID = /^[\w-]{1,64}$/;
const TYPE = /^[a-zA-Z]{1,16}$/;
const MAX_PAYLOAD_CHARS = 65_536;
/** OpenID Connect allows 255 characters for a subject; the issuer comes before it. */
const MAX_NAME_CHARS = 1024;
/** Entries of one `read`, at most. */
export const MAX_READ = 1000;
/** Rooms of one `places`, at most. */
export const MAX_PLACES = 1000;

export function checkRoomId(roomId: string): void {
  if (!ROOM_ID.test(roomId)) throw new RangeError(`not a room's id: ${JSON.stringify(roomId.slice(0, 80))}`);
}

export function checkPlaces(roomIds: readonly string[]): void {
  if (roomIds.length > MAX_PLACES) throw new RangeError(`${roomIds.length} rooms are asked for; at most ${MAX_PLACES}`);
  for (const roomId of roomIds) checkRoomId(roomId);
}

export function checkEntry(type: string, payload: string): void {
  if (!TYPE.test(type)) throw new RangeError(`not an entry type: ${JSON.stringify(type.slice(0, 80))}`);
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
  if (!(rules.perS > 0 && rules.roomPerS > 0 && rules.burst >= 1 && rules.slowMs >= 0))
    throw new RangeError('the rules of the append are not valid');
}

export function checkWhole(name: string, value: number): void {
  if (!(Number.isSafeInteger(value) && value >= 0)) throw new RangeError(`${name} is ${value}; it must be a whole number of at least 0`);
}

/**
 * The entries of an opening that are held: only those above the last hole, and the newest `KEPT`.
 */
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

export const logUnavailable = (why: string) => new VezaError('unavailable', `The chat's room log does not answer (${why}); try again.`);
