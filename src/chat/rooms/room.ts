import type { Barred } from '../../backing/room-log/room-log.js';
import type { EntryFrame } from '../protocol/entry-frame.js';
import type { RoomRole } from '../protocol/protocol.js';

/**
 * A room as a process of the chat has it, and the interfaces that others implement for it. A room is a log: entries with contiguous
 * offsets that never restart, in an epoch that is raised when the log was lost. A member has a cursor (the offset of its last
 * entry) and asks for the entries after it.
 */

export interface Author {
  /** The user's id, unique among all issuers of tokens. */
  readonly id: string;
  readonly name: string;
  readonly role: RoomRole;
  readonly address?: string;
  /** When the author's account was made, ms since 1970. */
  readonly sinceMs?: number;
}

export interface RoomInfo {
  readonly id: string;
  /** The channel's slug. Undefined for a room of the service itself, which nobody joins. */
  readonly slug: string | undefined;
  readonly channelId: string | undefined;
  readonly visibility: 'public' | 'unlisted' | 'private' | undefined;
  readonly settings: Readonly<Record<string, unknown>>;
}

export interface RoomListener {
  /** There are frames above your cursor: call `framesAfter`. Called synchronously, once for each entry; must not throw. */
  onFrames(): void;
  /**
   * The room has a new epoch. Entries above `keep` were never acknowledged and are withdrawn: send `reset` to the members, lower
   * every cursor above `keep` to it, and call `framesAfter` again. Frames that were taken before this call carry the old epoch and
   * must not be sent after it.
   */
  onReset(epoch: number, keep: number): void;
  /** A whole server frame that is no entry (`reacts`), for every member. */
  onEvent(text: string): void;
  /** The room ends here (`deleted`). Nothing is called after this; release it. */
  onClosed(code: string): void;
}

export interface EntryPageQuery {
  /** Exclusive. Default: the newest entries. */
  readonly before?: number;
  /** A hole, both ends inclusive. With `from`, `before` is ignored. */
  readonly from?: number;
  readonly to?: number;
  /** At most 100 are given, and at most 64 KB. */
  readonly limit: number;
  /** True: a `before` just above the floor gives the entries that are kept below it. False: the history ends at the floor. */
  readonly kept?: boolean;
  /** Called before a block of old entries is read from PostgreSQL. `readPage` rejects with what it throws. */
  readonly onRead?: () => void;
}

export interface EntryPage {
  /** The room's epoch, as the frames carry it. */
  readonly epoch: number;
  /** Ascending, and contiguous except below the floor. For `before` the newest frames that fit, for a hole the oldest. */
  readonly frames: readonly EntryFrame[];
  /** There are more in the direction of the query: older ones, or later ones of the hole. */
  readonly more: boolean;
}

/** Where a member that comes back goes on. */
export interface Resumption {
  /** `full`: from its position. `partial`: entries in between are gone for good, or were withdrawn. `none`: the position is of no use here. */
  readonly recovered: 'none' | 'full' | 'partial';
  /** The cursor to go on from: `framesAfter(cursor, …)` has the entries that the member lacks. */
  readonly cursor: number;
  /** The member knows an older epoch: send it `reset` with this first. Undefined: it knows this epoch. */
  readonly keep: number | undefined;
}

export interface Publish {
  readonly author: Author;
  /** Made by the client, 1 to 64 characters without control characters. The same key of one author within 5 minutes is the same message. */
  readonly key: string;
  /** The text, and small fields beside it. A reply names a `mid` and quotes nothing: a quotation would outlive the message's deletion. */
  readonly body: { readonly text: string; readonly [field: string]: unknown };
}

/**
 * The outcome of a publication, as soon as it is known. `published` is not the acknowledgement; `committed` is. A `refused` message
 * with `retryMs` may be sent again under the same key (`busy`: log or database are away or behind, and the message may even have
 * been published; `rate_limited`, `slow_mode`). Without `retryMs` the refusal is final (`too_long`, `bad_request`, `not_unique`,
 * `deleted`, and the codes of rules and reviewer).
 */
export type PublishOutcome =
  | {
      readonly kind: 'published';
      readonly mid: string;
      readonly epoch: number;
      readonly offset: number;
      readonly dup: boolean;
      /** Never rejects. Waits for as long as PostgreSQL is away. */
      readonly committed: Promise<Commit>;
    }
  | { readonly kind: 'held'; readonly mid: string }
  | { readonly kind: 'refused'; readonly mid: string; readonly code: string; readonly reason: string; readonly retryMs?: number };

export type Commit =
  /** The message is in PostgreSQL at this place (for a duplicate, the place of the first): acknowledge it. */
  | { readonly kind: 'stored'; readonly epoch: number; readonly offset: number; readonly dup: boolean }
  /** The epoch ended before the message was stored: it is withdrawn. Never acknowledge it; the client sends it again under the same key. */
  | { readonly kind: 'resend' };

/** An entry by a process or a moderator. No rules apply to it. */
export interface NewEntry {
  /** 'act', 'pin', 'now', … Deletions are made by `eraseMessages`, messages by `publishMessage` and `publishHeld`. */
  readonly type: string;
  /** At most 16 KB as JSON. */
  readonly payload: Readonly<Record<string, unknown>>;
  /** Entries of one type under one key are one entry of the room, whichever processes append them and however often. */
  readonly key?: string | undefined;
}

/** The place of an entry that is in PostgreSQL. */
export interface AppendedAt {
  readonly epoch: number;
  readonly offset: number;
}

/** A message that waits for a moderator. `publishHeld` publishes it. */
export interface HeldMessage {
  readonly roomId: string;
  /** Its `mid` once it is approved. */
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
  /** Every message of this user here so far. */
  | { readonly userId: string };

/**
 * One room, shared by all who have it open in this process. Its methods reject with a `VezaError` alone: `unavailable` (log or
 * database are away), `busy`, `not_found`, `bad_request`, `payload_too_large`.
 */
export interface Room {
  readonly id: string;
  readonly info: RoomInfo;
  readonly epoch: number;
  /** The newest offset this process has; nothing is missing below it. 0: none. */
  readonly head: number;
  /** Entries up to here were let go by age. */
  readonly floor: number;

  /**
   * At most `limit` frames after `offset` (≤ 100 when they are not in memory), ascending and contiguous: an array when the ring has
   * them, else a promise of frames from log and PostgreSQL. Empty: there are none yet, and `onFrames` will be called. Undefined:
   * they were let go by age; go on from `floor`. Ignore a promise's frames if the cursor has moved or `onReset` was called.
   */
  framesAfter(offset: number, limit: number): readonly EntryFrame[] | Promise<readonly EntryFrame[] | undefined>;
  /** Reads history from ring, log or PostgreSQL. A `before` at the floor or below it gives the entries that are kept there, see `kept`. */
  readPage(query: EntryPageQuery): Promise<EntryPage>;
  /** Where a `join` with this position goes on. Undefined: from 50 entries before the head. */
  resumeFrom(since: { readonly epoch: number; readonly offset: number } | undefined): Promise<Resumption>;

  /** Never rejects. Rules and reviewer are asked only about a message that is not known already. */
  publishMessage(publication: Publish): Promise<PublishOutcome>;
  /** A message of the last minutes, in PostgreSQL or not; undefined: this process does not know it. `userId` undefined: it was erased. */
  recentMessage(mid: string): { readonly userId: string | undefined } | undefined;
  /** Publishes a held message under its `mid`, with `sentAt`. Twice is once. */
  publishHeld(held: HeldMessage): Promise<AppendedAt>;
  appendEntry(entry: NewEntry): Promise<AppendedAt>;
  /**
   * Deletes messages everywhere: their text is gone from the log, the database and every ring, and a `del` entry
   * (`{offsets, mids, by}` or `{user, upTo, by}`) tells members to drop them. Undefined: there was no such message.
   */
  eraseMessages(what: Erasure, by: { readonly id: string; readonly name: string }): Promise<AppendedAt | undefined>;

  /**
   * The log refuses this user's messages for `forMs` from now on, also those that are on their way from any process: the processes
   * learn of a ban or timeout only a moment later. 0 lifts it.
   */
  barUser(userId: string, forMs: number, why: Barred): Promise<void>;
  /** Resolves when PostgreSQL has the message, if there is one; without `mid`, when it has every entry so far. Rejects with `unavailable`. */
  untilStored(mid?: string): Promise<void>;
  /** Resolves when the reaction is stored. Members are sent absolute counts, at most once a second. */
  setReaction(userId: string, mid: string, emoji: string, on: boolean): Promise<void>;
  /** The counts of those of these messages (≤ 200) that have any, for `reacts` after `joined` and `page`. */
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

/** The rates of an author in a room, checked by the log in the step that appends. */
export interface PublishLimits {
  readonly perS: number;
  readonly burst: number;
  readonly roomPerS: number;
  /** 0: off. */
  readonly slowMs: number;
  readonly unique: boolean;
}

/** The rules of a room for authors: settings, bans, timeouts. Called for every message. */
export interface PublishRules {
  /** Why the message is refused; undefined: it is not. `text` as it was sent. */
  refusalOf(room: RoomInfo, author: Author, nowMs: number, text: string): RoomRefusal | undefined;
  /** The author's limits; undefined: none. */
  limitsOf(room: RoomInfo, author: Author): PublishLimits | undefined;
  /** Whether the author is shadow-banned: nobody else sees the messages. */
  isShadowed(room: RoomInfo, author: Author, nowMs: number): boolean;
}

/** Decides on the content of messages. */
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
   * `text`: publish this text instead. `normal`: what unique mode compares; default: the text in NFKC, in lower case, with single
   * spaces. `published`: called when members see the message; returns at once and does not throw.
   */
  | { readonly kind: 'allow'; readonly text?: string; readonly normal?: string; readonly published?: () => void }
  | { readonly kind: 'hold'; readonly reason: string }
  /** With `retryMs` the same message may be sent again after it. */
  | { readonly kind: 'refuse'; readonly code: string; readonly reason: string; readonly retryMs?: number };

/** The outcome of holding a message. */
export type HoldOutcome =
  | { readonly kind: 'waiting' }
  /** A moderator has denied it before. */
  | { readonly kind: 'denied'; readonly reason: string | undefined }
  /** A moderator has approved it before; `offset` undefined: it is not in the room yet. */
  | { readonly kind: 'approved'; readonly offset: number | undefined }
  /** The author is banned. */
  | { readonly kind: 'banned' }
  /** The author has a timeout. */
  | { readonly kind: 'timed_out' };

/** The store of messages that wait for a moderator. */
export interface HeldMessages {
  /** Resolves when the message is in PostgreSQL. The same `mid` twice is one message. Rejects with `busy` (too many wait) or `unavailable`. */
  holdMessage(message: HeldMessage): Promise<HoldOutcome>;
}
