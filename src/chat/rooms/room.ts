import type { Barred } from '../../backing/room-log/room-log.js';
import type { EntryFrame } from '../protocol/entry-frame.js';
import type { RoomRole } from '../protocol/protocol.js';

/**
 * What a process of the chat has of a room, and what others hand in for it. A room is a log: entries with contiguous offsets that never restart,
 * in an epoch that is raised when the log was lost. Whoever follows a room keeps a cursor (the last offset he has) and asks for what comes after it.
 */

export interface Author {
  /** Of the account; unique among all issuers of tokens. */
  readonly id: string;
  readonly name: string;
  readonly role: RoomRole;
  readonly address?: string;
  /** Since when he follows the channel, ms since 1970. */
  readonly sinceMs?: number;
}

export interface RoomInfo {
  readonly id: string;
  /** Of the channel. Undefined for a room of the service itself, which nobody joins. */
  readonly slug: string | undefined;
  readonly channelId: string | undefined;
  readonly visibility: 'public' | 'unlisted' | 'private' | undefined;
  readonly settings: Readonly<Record<string, unknown>>;
}

export interface RoomListener {
  /** There are frames above your cursor: call `after`. Called synchronously, once for each entry; must not throw. */
  onFrames(): void;
  /**
   * The room has a new epoch. What you hold above `keep` was never acknowledged and is withdrawn: tell the members `reset`, lower every cursor above
   * `keep` to it, and call `after` again. Frames taken before this call have the old epoch in their text and must not go out after it.
   */
  onReset(epoch: number, keep: number): void;
  /** A whole server frame that is no entry (`reacts`), for every member. */
  onEvent(text: string): void;
  /** The room ends here (`deleted`). Nothing is called after this; release it. */
  onClosed(code: string): void;
}

export interface PageQuery {
  /** Exclusive. Default: above the newest, so the newest entries. */
  readonly before?: number;
  /** Inclusive, both: a hole. With `from`, `before` is not looked at. */
  readonly from?: number;
  readonly to?: number;
  /** At most 100 are given, and at most 64 KB. */
  readonly limit: number;
  /** A `before` just above the floor has what is kept below it; else the history ends there, and one goes on with a lower `before`. */
  readonly kept?: boolean;
  /** Called before a block of old entries is read from PostgreSQL, which nobody has asked for lately. What it throws, `page` rejects with. */
  readonly onRead?: () => void;
}

export interface EntryPage {
  /** Of the room when the frames were made; they carry it. */
  readonly epoch: number;
  /** Ascending; contiguous, save below the floor. Of a `before` the newest that fit, of a range the oldest. */
  readonly frames: readonly EntryFrame[];
  /** There are more in the direction that was asked for (older ones; later ones of the range). */
  readonly more: boolean;
}

/** Where a member who comes back goes on. */
export interface Resumption {
  /** `full`: from where he was. `partial`: something between is gone for good, or was withdrawn. `none`: his position says nothing here. */
  readonly recovered: 'none' | 'full' | 'partial';
  /** The cursor to go on from: `after(cursor, …)` is what he lacks. */
  readonly cursor: number;
  /** He comes from an older epoch: tell him `reset` with this before anything else. */
  readonly keep: number | undefined;
}

export interface Publish {
  readonly author: Author;
  /** Made by the client, 1 to 64 characters without control characters; the same of one author within 5 minutes is one message. */
  readonly key: string;
  /** `text` and what goes with it, small. A reply names a `mid` and does not quote: what is quoted would outlive its deletion. */
  readonly body: { readonly text: string; readonly [field: string]: unknown };
}

/**
 * What became of a publication, as soon as it is known. `published` is no acknowledgement yet: that is `committed`.
 * `refused` with `retryMs`: try again under the same key after that time (`busy`: the log or the database is away or behind, the outcome may even be
 * that it was published; `rate_limited`, `slow_mode`). Without `retryMs` it is final (`too_long`, `bad_request`, `not_unique`, `deleted`, and what rules and
 * judge say).
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
  /** It is in PostgreSQL: acknowledge, with this place (of a duplicate: the one of the first). */
  | { readonly kind: 'stored'; readonly epoch: number; readonly offset: number; readonly dup: boolean }
  /** The epoch ended before it was stored: it is withdrawn. Never acknowledge it; tell the author to send the same key again. */
  | { readonly kind: 'resend' };

/** An entry by a process or a moderator. No rules are asked. */
export interface NewEntry {
  /** 'act', 'pin', 'now', … Deletions are made by `erase`, messages by `publish` and `approve`. */
  readonly type: string;
  /** At most 16 KB as JSON. */
  readonly payload: Readonly<Record<string, unknown>>;
  /** The same type under the same key is one entry of the room for good, whichever processes put it in, and however often. */
  readonly key?: string | undefined;
}

/** Resolved when it is in PostgreSQL. */
export interface AppendedAt {
  readonly epoch: number;
  readonly offset: number;
}

/** Written down so that it can be published later by `approve`. */
export interface HeldMessage {
  readonly roomId: string;
  /** What it will be known by when it is approved. */
  readonly mid: string;
  readonly key: string;
  readonly author: Author;
  readonly body: { readonly text: string; readonly [field: string]: unknown };
  /** When it was said, ms since 1970. */
  readonly saidAtMs: number;
  readonly reason: string;
}

export type Erasure =
  | { readonly mids: readonly string[] }
  /** All that this account has said here so far. */
  | { readonly userId: string };

/**
 * One room, shared by all who have it open in this process. Everything that rejects does so with a `VezaError`: `unavailable` (log or database are
 * away), `busy`, `not_found`, `bad_request`, `payload_too_large`.
 */
export interface Room {
  readonly id: string;
  readonly info: RoomInfo;
  readonly epoch: number;
  /** The newest offset this process has; nothing is missing below it. 0: none. */
  readonly head: number;
  /** Everything up to here was let go by age. */
  readonly floor: number;

  /**
   * Frames after `offset`, ascending and contiguous, at most `limit` (≤ 100 when they are not in memory): from the ring of the newest 64 at once
   * (an array), else from the log and PostgreSQL (a promise). Empty: there is nothing yet, `onFrames` will be called. Undefined: it was let go by
   * age; go on from `floor`. Drop the answer of a promise when the cursor has moved or `onReset` was called meanwhile, and ask again.
   */
  framesAfter(offset: number, limit: number): readonly EntryFrame[] | Promise<readonly EntryFrame[] | undefined>;
  /** History. Ring → log → PostgreSQL, as `after`. A `before` at the floor or below it has what is kept there, see `kept`. */
  readPage(query: PageQuery): Promise<EntryPage>;
  /** For `join` with `since`, and without (undefined): then the cursor is 50 before the head. */
  resumeFrom(since: { readonly epoch: number; readonly offset: number } | undefined): Promise<Resumption>;

  /** Never rejects. Rules and judge are asked only for a message that is not known already. */
  publishMessage(publication: Publish): Promise<PublishOutcome>;
  /** Who wrote a message of the last minutes, also one that is not in PostgreSQL yet. Undefined: not known here. */
  recentMessage(mid: string): { readonly userId: string | undefined } | undefined;
  /** Publishes a message that was held, under its `mid`, with `sentAt`. Twice is once. */
  publishHeld(held: HeldMessage): Promise<AppendedAt>;
  appendEntry(entry: NewEntry): Promise<AppendedAt>;
  /**
   * Deletes messages everywhere: in the log, the database and every ring their text is gone, and a `del` entry
   * (`{offsets, mids, by}` or `{user, upTo, by}`) tells members to drop them. What is not there is left out; undefined: there was nothing.
   */
  eraseMessages(what: Erasure, by: { readonly id: string; readonly name: string }): Promise<AppendedAt | undefined>;

  /**
   * From then on nothing of this account is taken here for `forMs`, whichever process it is said in, and whatever is on its way to the log: a ban or a
   * timeout is known to all processes only a moment later. 0 lifts it.
   */
  barUser(userId: string, forMs: number, why: Barred): Promise<void>;
  /** Resolves when PostgreSQL has the message, if there is one, or all that was said so far: what is in the log alone is stored now. Rejects with `unavailable`. */
  untilStored(mid?: string): Promise<void>;
  /** Resolves when it is stored. Told to members as absolute counts, at most once a second. */
  setReaction(userId: string, mid: string, emoji: string, on: boolean): Promise<void>;
  /** Counts of those messages (≤ 200) that have any: to be sent as `reacts` after `joined` and `page`. */
  reactionCounts(mids: readonly string[]): Promise<Reactions>;

  addListener(listener: RoomListener): void;
  removeListener(listener: RoomListener): void;
  /** Once for each `open`. */
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

/** Rules of a room: settings, bans, timeouts. Handed in. Called for every message. */
export interface PublishRules {
  /** Undefined: he may. `text` as he wrote it. */
  refusalOf(room: RoomInfo, author: Author, nowMs: number, text: string): RoomRefusal | undefined;
  /** Undefined: none (somebody who moderates). */
  limitsOf(room: RoomInfo, author: Author): PublishLimits | undefined;
  /** Nobody but he himself sees what he says. */
  isShadowed(room: RoomInfo, author: Author, nowMs: number): boolean;
}

/** Judges what is said. Handed in. */
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
   * `text`: masked. `normal`: what unique mode compares; default: the text in NFKC, lower case, spaces as one. `published`: called once the room has
   * it and others see it; returns at once, does not throw.
   */
  | { readonly kind: 'allow'; readonly text?: string; readonly normal?: string; readonly published?: () => void }
  | { readonly kind: 'hold'; readonly reason: string }
  /** `retryMs`: too fast; the same may be said after it. */
  | { readonly kind: 'refuse'; readonly code: string; readonly reason: string; readonly retryMs?: number };

/** What became of a message that was to be held. */
export type HoldOutcome =
  | { readonly kind: 'waiting' }
  /** It was denied before. */
  | { readonly kind: 'denied'; readonly reason: string | undefined }
  /** It was approved before, and is in the room at this place; undefined: it is on its way there. */
  | { readonly kind: 'approved'; readonly offset: number | undefined }
  /** Its author is banned. */
  | { readonly kind: 'banned' }
  /** He has a timeout. */
  | { readonly kind: 'timed_out' };

/** Messages that wait for a moderator. Handed in. */
export interface HeldMessages {
  /** Resolves when it is in PostgreSQL. The same `mid` twice is one. Rejects with `busy` (too many wait), `unavailable`. */
  holdMessage(message: HeldMessage): Promise<HoldOutcome>;
}
