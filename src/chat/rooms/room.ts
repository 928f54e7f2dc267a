import type { Barred } from '../../backing/room-log/room-log.js';
import type { EntryFrame } from '../protocol/entry-frame.js';
import type { RoomRole } from '../protocol/protocol.js';

/**
 * A room as a chat process has it, and the interfaces that others implement for it. A room is a
 * log: entries with contiguous offsets that never restart, in an epoch that is raised when the log
 * has lost entries. A member has a cursor (the offset of its last entry) and asks for the entries
 * after it.
 */

export interface Author {
  /** The user's id, unique across all issuers of tokens. */
  readonly id: string;
  readonly name: string;
  readonly role: RoomRole;
  readonly address?: string;
  /** When the author's account was created, ms since 1970. */
  readonly sinceMs?: number;
}

export interface RoomInfo {
  readonly id: string;
  /** The channel's slug; undefined: a room of the service itself, which no client joins. */
  readonly slug: string | undefined;
  readonly channelId: string | undefined;
  readonly visibility: 'public' | 'unlisted' | 'private' | undefined;
  readonly settings: Readonly<Record<string, unknown>>;
}

export interface RoomListener {
  /**
   * There may be frames above your cursor: call `framesAfter`. Called synchronously, once per
   * entry. Must not throw.
   */
  onFrames(): void;
  /**
   * The room has a new epoch. Entries above `keep` were never acknowledged and are withdrawn: send
   * `reset` to the members, lower every cursor above `keep` to it, and call `framesAfter` again.
   * Frames that were read before this call carry the old epoch and must not be sent after it.
   */
  onReset(epoch: number, keep: number): void;
  /** A whole server frame that is not an entry (`reacts`), for every member. */
  onEvent(text: string): void;
  /** The room has ended (`deleted`). No method is called after this; release the room. */
  onClosed(code: string): void;
}

export interface EntryPageQuery {
  /** An offset, exclusive. Default: the newest entries. */
  readonly before?: number;
  /** The bounds of a hole, both inclusive. With `from`, `before` is ignored. */
  readonly from?: number;
  readonly to?: number;
  /** Entries of the page. At most 100 entries and 64 KB are returned. */
  readonly limit: number;
  /**
   * True: a `before` just above the floor returns the entries that are kept below it. False: the
   * history ends at the floor.
   */
  readonly kept?: boolean;
  /**
   * Called before a block of old entries is read from PostgreSQL. When it throws, `readPage`
   * rejects with its error.
   */
  readonly onRead?: () => void;
}

export interface EntryPage {
  /** The room's epoch, as the frames carry it. */
  readonly epoch: number;
  /**
   * Ascending, and contiguous except below the floor. For `before` the newest frames that fit, for
   * a hole the oldest.
   */
  readonly frames: readonly EntryFrame[];
  /**
   * True: there are more entries in the direction of the query, older ones or later ones of the
   * hole.
   */
  readonly more: boolean;
}

/** The point at which a returning member goes on. */
export interface Resumption {
  /**
   * `full`: from its own position. `partial`: entries in between were deleted by age or withdrawn.
   * `none`: the position cannot be used.
   */
  readonly recovered: 'none' | 'full' | 'partial';
  /**
   * The cursor to go on from: `framesAfter(cursor, …)` returns the entries that the member needs.
   */
  readonly cursor: number;
  /**
   * The member knows an older epoch: send it `reset` with this offset first. Undefined: it knows
   * this epoch.
   */
  readonly keep: number | undefined;
}

export interface Publish {
  readonly author: Author;
  /**
   * Made by the client, 1 to 64 characters without control characters. The same key of one author
   * within 5 minutes is the same message.
   */
  readonly key: string;
  /**
   * The text with its small fields. A reply names a `mid` and does not quote: a quotation would
   * outlive the message's deletion.
   */
  readonly body: { readonly text: string; readonly [field: string]: unknown };
}

/**
 * The outcome of a publication, as soon as it is known. `published` is not the acknowledgement;
 * `committed` is. A `refused` message with `retryMs` may be sent again under the same key: `busy`
 * (log or database are unavailable or behind, and the message may even have been published),
 * `rate_limited` or `slow_mode`. Without `retryMs` the refusal is final: `too_long`, `bad_request`,
 * `not_unique`, `deleted`, and the codes of rules and reviewer.
 */
export type PublishOutcome =
  | {
      readonly kind: 'published';
      readonly mid: string;
      readonly epoch: number;
      readonly offset: number;
      readonly dup: boolean;
      /** Never rejects. Waits as long as PostgreSQL is unavailable. */
      readonly committed: Promise<Commit>;
    }
  | { readonly kind: 'held'; readonly mid: string }
  | { readonly kind: 'refused'; readonly mid: string; readonly code: string; readonly reason: string; readonly retryMs?: number };

export type Commit =
  /**
   * The message is in PostgreSQL at this offset (for a duplicate, the offset of the first copy):
   * acknowledge it.
   */
  | { readonly kind: 'stored'; readonly epoch: number; readonly offset: number; readonly dup: boolean }
  /**
   * The epoch ended before the message was stored, so it is withdrawn. Never acknowledge it; the
   * client sends it again under the same key.
   */
  | { readonly kind: 'resend' };

/** An entry of a process or a moderator. The room's rules do not apply to it. */
export interface NewEntry {
  /**
   * 'act', 'pin', 'now' and so on. `eraseMessages` makes deletions; `publishMessage` and
   * `publishHeld` make messages.
   */
  readonly type: string;
  /** At most 16 KB as JSON. */
  readonly payload: Readonly<Record<string, unknown>>;
  /**
   * Entries of one type under one key are a single entry of the room, however often and by
   * whichever process they are appended.
   */
  readonly key?: string | undefined;
}

/** The epoch and offset of an entry that is in PostgreSQL. */
export interface AppendedAt {
  readonly epoch: number;
  readonly offset: number;
}

/** A message that waits for a moderator. `publishHeld` publishes it. */
export interface HeldMessage {
  readonly roomId: string;
  /** The message's `mid` once it is approved. */
  readonly mid: string;
  readonly key: string;
  readonly author: Author;
  readonly body: { readonly text: string; readonly [field: string]: unknown };
  /** When the author sent it, ms since 1970. */
  readonly saidAtMs: number;
  readonly reason: string;
}

export type Erasure =
  | { readonly mids: readonly string[] }
  /** Every message of this user in the room so far. */
  | { readonly userId: string };

/**
 * One room, shared by all who have it open in this process. Its methods reject only with a
 * `VezaError`: `unavailable` (log or database), `busy`, `not_found`, `bad_request` or
 * `payload_too_large`.
 */
export interface Room {
  readonly id: string;
  readonly info: RoomInfo;
  readonly epoch: number;
  /** The newest offset in this process. No entry below it is missing. 0: none. */
  readonly head: number;
  /** Entries up to this offset were deleted by age. */
  readonly floor: number;

  /**
   * At most `limit` frames after `offset` (at most 100 when they are not in memory), ascending and
   * contiguous: an array when the ring has them, otherwise a promise of frames from log and
   * PostgreSQL. Empty: there are none yet, and `onFrames` will be called. Undefined: they were
   * deleted by age; go on from `floor`. Ignore the frames of a promise if the cursor has moved or
   * `onReset` was called.
   */
  framesAfter(offset: number, limit: number): readonly EntryFrame[] | Promise<readonly EntryFrame[] | undefined>;
  /**
   * Reads history from the ring, the log or PostgreSQL. A `before` at or below the floor returns
   * the entries that are kept there; see `kept`.
   */
  readPage(query: EntryPageQuery): Promise<EntryPage>;
  /** Where a `join` with this position goes on. Undefined: 50 entries before the head. */
  resumeFrom(since: { readonly epoch: number; readonly offset: number } | undefined): Promise<Resumption>;

  /**
   * Publishes a message. Never rejects. Rules and reviewer are asked only about a message that is
   * not known already.
   */
  publishMessage(publication: Publish): Promise<PublishOutcome>;
  /**
   * A message of the last minutes, stored or not; undefined: this process does not know it.
   * `userId` undefined: it was erased.
   */
  recentMessage(mid: string): { readonly userId: string | undefined } | undefined;
  /**
   * Publishes a held message under its `mid`, with `sentAt`. A second call publishes nothing and
   * resolves to the same offset.
   */
  publishHeld(held: HeldMessage): Promise<AppendedAt>;
  appendEntry(entry: NewEntry): Promise<AppendedAt>;
  /**
   * Deletes messages everywhere: their text is erased from the log, the database and every ring,
   * and a `del` entry (`{offsets, mids, by}` or `{user, upTo, by}`) makes members drop them.
   * Resolves to undefined when there was no such message.
   */
  eraseMessages(what: Erasure, by: { readonly id: string; readonly name: string }): Promise<AppendedAt | undefined>;

  /**
   * Makes the log refuse this user's messages for `forMs` from now on, including those on their way
   * from any process: processes learn of a ban or timeout a moment later. 0 ends the refusal.
   */
  barUser(userId: string, forMs: number, why: Barred): Promise<void>;
  /**
   * Resolves when PostgreSQL has the message, if there is one; without `mid`, when it has every
   * entry so far. Rejects with `unavailable`.
   */
  untilStored(mid?: string): Promise<void>;
  /**
   * Resolves when the reaction is stored. Members are sent absolute counts, at most once a second.
   */
  setReaction(userId: string, mid: string, emoji: string, on: boolean): Promise<void>;
  /**
   * The counts of these messages (at most 200); messages without reactions are left out. Used for
   * `reacts` after `joined` and `page`.
   */
  reactionCounts(mids: readonly string[]): Promise<Reactions>;

  addListener(listener: RoomListener): void;
  removeListener(listener: RoomListener): void;
  /** Call it once for each `Rooms.open`. */
  release(): void;
}

export type Reactions = Readonly<Record<string, Readonly<Record<string, number>>>>;

export const BANNED_REASON = 'You are banned from this chat. You may appeal once.';
export const TIMED_OUT_REASON = 'A moderator has given you a timeout.';

export interface RoomRefusal {
  readonly code: string;
  readonly reason: string;
  readonly retryMs?: number;
}

/** The limits of an author in a room. The log checks them in the step that appends. */
export interface PublishLimits {
  readonly perS: number;
  readonly burst: number;
  readonly roomPerS: number;
  /** The shortest time between two messages. 0: off. */
  readonly slowMs: number;
  readonly unique: boolean;
}

/** The rules of a room for authors: settings, bans, timeouts. Called for every message. */
export interface PublishRules {
  /** Why the message is refused; undefined: it is allowed. `text`: as it was sent. */
  refusalOf(room: RoomInfo, author: Author, nowMs: number, text: string): RoomRefusal | undefined;
  /** The author's limits; undefined: none. */
  limitsOf(room: RoomInfo, author: Author): PublishLimits | undefined;
  /** Whether the author is shadow-banned: only the author sees the messages. */
  isShadowed(room: RoomInfo, author: Author, nowMs: number): boolean;
}

/** Decides whether the content of a message is allowed. */
export interface ContentReviewer {
  review(message: {
    readonly room: RoomInfo;
    readonly author: Author;
    readonly mid: string;
    readonly body: { readonly text: string; readonly [field: string]: unknown };
  }): ReviewOutcome | Promise<ReviewOutcome>;
}

export type ReviewOutcome =
  /**
   * `text`: publish this text instead. `normal`: the text that unique mode compares; default: the
   * text in NFKC, lower case, with single spaces. `published`: called when members see the message;
   * returns at once and does not throw.
   */
  | { readonly kind: 'allow'; readonly text?: string; readonly normal?: string; readonly published?: () => void }
  | { readonly kind: 'hold'; readonly reason: string }
  /** With `retryMs` the same message may be sent again after it. */
  | { readonly kind: 'refuse'; readonly code: string; readonly reason: string; readonly retryMs?: number };

/** The outcome of holding a message. */
export type HoldOutcome =
  | { readonly kind: 'waiting' }
  /** A moderator denied the message before. */
  | { readonly kind: 'denied'; readonly reason: string | undefined }
  /** A moderator approved the message before. `offset` undefined: it is not in the room yet. */
  | { readonly kind: 'approved'; readonly offset: number | undefined }
  /** The author is banned. */
  | { readonly kind: 'banned' }
  /** The author has a timeout. */
  | { readonly kind: 'timed_out' };

/** The store of held messages. */
export interface HeldMessages {
  /**
   * Resolves when the message is in PostgreSQL. A second call with the same `mid` stores nothing.
   * Rejects with `busy` (too many messages wait) or `unavailable`.
   */
  holdMessage(message: HeldMessage): Promise<HoldOutcome>;
}
