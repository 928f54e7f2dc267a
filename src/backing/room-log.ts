/**
 * The log of every chat room: contiguous offsets, one atomic step an append, and each append told to every process that follows the room.
 * It delivers; what must last is in PostgreSQL. So a log may lose everything at any moment, and then says `reopen` instead of making up
 * offsets that were given before.
 */
export interface RoomLog {
  /**
   * Appends in one step: looks for the key, then the rules, then gives the next offset, keeps the entry and tells the followers.
   * Rejects with `unavailable` when there is no answer in time: the outcome is unknown, and the same key is to be sent again.
   */
  append(append: Append): Promise<AppendOutcome>;
  /** Ascending entries with an offset above `after`, at most `limit`, of those that are still held; and where the room stands. */
  read(roomId: string, after: number, limit: number): Promise<LogPage | undefined>;
  /**
   * Begins the room under an epoch: `head` is its last offset, `entries` (ascending, ending at it, may be fewer than there were) are held as if
   * they had been appended. Does nothing and returns false when it is open under this epoch or a higher one.
   */
  open(opening: Opening): Promise<boolean>;
  /** Everything up to `offset` is in PostgreSQL; what lies below that and below `head − KEPT` may be dropped. An older epoch is ignored. */
  archived(roomId: string, epoch: number, offset: number): Promise<void>;
  /** Rooms with entries that nobody has reported as archived for `olderThanMs`: a process died between the two. At most `limit`. */
  unarchived(olderThanMs: number, limit: number): Promise<readonly { roomId: string; epoch: number; archived: number; head: number }[]>;
  /**
   * Replaces the payload of an entry that is still held (a deleted message becomes `gone`), without a new offset; the followers are not told: the
   * entry that deletes it does that.
   */
  erase(roomId: string, offset: number, type: string, payload: string): Promise<void>;
  /**
   * Calls back with each entry appended from now on by any process, in order but possibly with holes or twice (a link was lost): the caller compares
   * offsets and reads what is missing. `onRestored` is called after each time the subscription had to be made again. Resolves when it follows.
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
  /** Token bucket of the account in this room. */
  readonly perS: number;
  readonly burst: number;
  /** Token bucket of the room, all accounts together. */
  readonly roomPerS: number;
  /** Slow mode: at least so long between two messages of one account; 0: off. */
  readonly slowMs: number;
  /** Unique mode: the hash of the normalised text; refused when it was said in this room within `UNIQUE_MS`. */
  readonly uniqueHash?: string | undefined;
}

export type AppendOutcome =
  | { readonly kind: 'appended' | 'duplicate'; readonly epoch: number; readonly offset: number; readonly atMs: number }
  | { readonly kind: 'refused'; readonly code: 'rate_limited' | 'slow_mode' | 'not_unique'; readonly retryMs: number }
  /** The log does not hold the room under this epoch: it has lost it, or another process has opened a newer one. Nothing was written. */
  | { readonly kind: 'reopen' }
  /** `MAX_UNARCHIVED` entries wait to be archived. Nothing was written. */
  | { readonly kind: 'busy' };

export interface LogEntry {
  readonly offset: number;
  /** Of the log's own clock, ms since 1970; never falls within a room. */
  readonly atMs: number;
  readonly type: string;
  readonly payload: string;
  readonly key: string | undefined;
}

export interface LogPage {
  readonly epoch: number;
  /** The newest offset; 0: there was none. */
  readonly head: number;
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
/** Unique mode looks back so far. */
export const UNIQUE_MS = 3_600_000;
/** Entries of a room that are held though they are archived. */
export const KEPT = 1000;
/** Of a room; more are refused as `busy`. */
export const MAX_UNARCHIVED = 20_000;
