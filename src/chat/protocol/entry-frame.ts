import { createHash } from 'node:crypto';
import type { LogEntry } from '../../backing/room-log/room-log.js';

/** An entry of a room as a server frame, encoded once per room and process. */
export interface EntryFrame {
  readonly offset: number;
  /** The log's time, whole ms since 1970. Never falls within a room. */
  readonly atMs: number;
  /** The type that members see: 'msg', 'del', 'act', 'pin', 'now', 'gone' and so on. */
  readonly type: string;
  /**
   * The whole frame as JSON, with the epoch that the room has in this process. The author gets
   * `textFor` instead.
   */
  readonly text: string;
  /** The UTF-8 length of `text`. */
  readonly bytes: number;
  /** The id of a message. */
  readonly mid: string | undefined;
  /** The key that the author's client made. */
  readonly key: string | undefined;
  /** The author, also of a message under a shadow ban. */
  readonly userId: string | undefined;
  /** The frame that a shadow-banned author gets. `text` is a `gone` frame then. */
  readonly hidden: string | undefined;
}

/**
 * The frame for one user: an author gets it with `key`, and a shadow-banned author gets the
 * message. `userId` undefined: a guest.
 */
export function textFor(frame: EntryFrame, userId: string | undefined): string {
  if (userId === undefined || frame.userId !== userId) return frame.text;
  const text = frame.hidden ?? frame.text;
  return frame.key === undefined ? text : `${text.slice(0, -1)},"key":${JSON.stringify(frame.key)}}`;
}

/** The id of a message: the first 128 bits of SHA-256 over room, user and key, in 22 characters. */
export function midOf(roomId: string, userId: string, key: string): string {
  return createHash('sha256').update(`${roomId}\0${userId}\0${key}`).digest().subarray(0, 16).toString('base64url');
}

/** The key of a message in the log: its `mid`, and the client's key for the author's copy. */
export const logKeyOf = (mid: string, key: string): string => `${mid}:${key}`;

const MID_LENGTH = 22;

/** The contents of an entry without its text. */
export interface EntryFacts {
  /**
   * Also set for another entry that exists once however often it is appended: see `NewEntry.key`.
   */
  readonly mid: string | undefined;
  readonly key: string | undefined;
  readonly userId: string | undefined;
  readonly sentAtMs: number | undefined;
}

const isMessage = ({ type }: LogEntry) => type === 'msg' || type === 'shadow';
const MID_ALONE = /^[\w-]{22}:$/;

function factsOf(entry: LogEntry): EntryFacts {
  if (!isMessage(entry)) {
    const isOnce = entry.type !== 'gone' && entry.key !== undefined && MID_ALONE.test(entry.key);
    return isOnce ? { ...NO_FACTS, mid: entry.key!.slice(0, MID_LENGTH) } : NO_FACTS;
  }
  const { mid, user, sentAt } = JSON.parse(entry.payload) as { mid?: string; user?: { id?: string }; sentAt?: number };
  const key = entry.key?.slice(MID_LENGTH + 1);
  return { mid: entry.key?.slice(0, MID_LENGTH) ?? mid, key: key || undefined, userId: user?.id, sentAtMs: sentAt };
}

const NO_FACTS: EntryFacts = { mid: undefined, key: undefined, userId: undefined, sentAtMs: undefined };

/**
 * The facts of an entry of a log that may be damaged; undefined: its payload or time is invalid.
 */
export function readableFacts(entry: LogEntry): EntryFacts | undefined {
  if (!entry.payload.startsWith('{') || !isTime(entry.atMs)) return undefined;
  try {
    if (!isMessage(entry)) {
      const said = JSON.parse(entry.payload) as Record<keyof Deletion, unknown>;
      return entry.type === 'del' && !isDel(said) ? undefined : factsOf(entry);
    }
    const facts = factsOf(entry);
    const isWhole = typeof facts.mid === 'string' && typeof facts.userId === 'string';
    return isWhole && (facts.sentAtMs === undefined || isTime(facts.sentAtMs)) ? facts : undefined;
  } catch {
    // The payload is not JSON.
    return undefined;
  }
}

const isTime = (ms: unknown) => typeof ms === 'number' && Math.abs(ms) <= 8.64e15;
const isPlace = (offset: unknown) => Number.isSafeInteger(offset);
const isDel = ({ offsets, user, upTo }: Record<keyof Deletion, unknown>) =>
  (offsets === undefined || (Array.isArray(offsets) && offsets.every(isPlace))) &&
  (user === undefined || typeof user === 'string') &&
  (upTo === undefined || isPlace(upTo));

/** The entry that replaces an erased one. */
export const goneOf = (offset: number, atMs: number): LogEntry => ({ offset, atMs, type: 'gone', payload: '{}', key: undefined });

/** The messages that a `del` entry erases. */
export interface Deletion {
  readonly offsets?: readonly number[];
  /** With `upTo`: every message of this user up to that offset. */
  readonly user?: string;
  readonly upTo?: number;
}

export const delOf = (entry: LogEntry): Deletion => delAt(JSON.parse(entry.payload) as Deletion, entry.offset);

/**
 * Limits `upTo` to below the deletion itself, because the log may have lost entries since `upTo`
 * was determined.
 */
export const delAt = (del: Deletion, offset: number): Deletion =>
  del.upTo === undefined ? del : { ...del, upTo: Math.min(del.upTo, offset - 1) };

export function encodeEntry(roomId: string, epoch: number, entry: LogEntry): EntryFrame {
  const read = readableFacts(entry);
  if (!read) return encodeEntry(roomId, epoch, goneOf(entry.offset, isTime(entry.atMs) ? entry.atMs : 0));
  const facts = isMessage(entry) ? read : NO_FACTS;
  const shadow = entry.type === 'shadow';
  const head = (type: string) =>
    `{"t":${JSON.stringify(type)},"room":"${roomId}","epoch":${epoch},"offset":${entry.offset},"at":${Math.trunc(entry.atMs)}`;
  const body = entry.payload.length > 2 ? `,${entry.payload.slice(1)}` : '}';
  const type = shadow ? 'gone' : entry.type;
  const text = shadow ? `${head('gone')}}` : head(entry.type) + body;
  return {
    offset: entry.offset,
    atMs: Math.trunc(entry.atMs),
    type,
    text,
    bytes: Buffer.byteLength(text),
    mid: facts.mid,
    key: facts.key,
    userId: facts.userId,
    hidden: shadow ? head('msg') + body : undefined,
  };
}
