import { createHash } from 'node:crypto';
import type { LogEntry } from '../../backing/room-log/room-log.js';

/** An entry of a room, ready to be sent: encoded once for each room and process. */
export interface EntryFrame {
  readonly offset: number;
  /** Of the log's clock, whole ms since 1970; never falls within a room. */
  readonly atMs: number;
  /** As members see it: 'msg', 'del', 'act', 'pin', 'now', 'gone', … */
  readonly type: string;
  /** A whole server frame as JSON, with the epoch that the room has in this process. Who wrote it gets `textFor` instead. */
  readonly text: string;
  /** Of `text` in UTF-8. */
  readonly bytes: number;
  /** Of a message. */
  readonly mid: string | undefined;
  /** The key its author made. */
  readonly key: string | undefined;
  /** Its author; also of a message that others do not see. */
  readonly userId: string | undefined;
  /** The message of somebody whom others do not see; `text` is `gone` then. */
  readonly hidden: string | undefined;
}

/** The frame as `userId` is to get it: an author gets his `key` with it, and sees what others do not. Undefined: a guest. */
export function textFor(frame: EntryFrame, userId: string | undefined): string {
  if (userId === undefined || frame.userId !== userId) return frame.text;
  const text = frame.hidden ?? frame.text;
  return frame.key === undefined ? text : `${text.slice(0, -1)},"key":${JSON.stringify(frame.key)}}`;
}

/** The first 128 bits of SHA-256 over room, user and key: 22 characters. */
export function midOf(roomId: string, userId: string, key: string): string {
  return createHash('sha256').update(`${roomId}\0${userId}\0${key}`).digest().subarray(0, 16).toString('base64url');
}

/** What the log knows a message by: its mid, which says room, user and key, and behind it the key for its author's copy. */
export const logKeyOf = (mid: string, key: string): string => `${mid}:${key}`;

const MID_LENGTH = 22;

/** What an entry says beside its text. */
export interface EntryFacts {
  /** Also of another entry that is there once, however often it is put in: see `NewEntry.key`. */
  readonly mid: string | undefined;
  readonly key: string | undefined;
  readonly userId: string | undefined;
  readonly sentAtMs: number | undefined;
}

const isMessage = ({ type }: LogEntry) => type === 'msg' || type === 'shadow';
const MID_ALONE = /^[\w-]{22}:$/;

export function factsOf(entry: LogEntry): EntryFacts {
  if (!isMessage(entry)) {
    const isOnce = entry.type !== 'gone' && entry.key !== undefined && MID_ALONE.test(entry.key);
    return isOnce ? { ...NO_FACTS, mid: entry.key!.slice(0, MID_LENGTH) } : NO_FACTS;
  }
  const { mid, user, sentAt } = JSON.parse(entry.payload) as { mid?: string; user?: { id?: string }; sentAt?: number };
  const key = entry.key?.slice(MID_LENGTH + 1);
  return { mid: entry.key?.slice(0, MID_LENGTH) ?? mid, key: key || undefined, userId: user?.id, sentAtMs: sentAt };
}

const NO_FACTS: EntryFacts = { mid: undefined, key: undefined, userId: undefined, sentAtMs: undefined };

/** The same of an entry out of a log that may have been damaged: undefined where its payload or its time is none. */
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
    // It is no JSON.
    return undefined;
  }
}

const isTime = (ms: unknown) => typeof ms === 'number' && Math.abs(ms) <= 8.64e15;
const isPlace = (offset: unknown) => Number.isSafeInteger(offset);
const isDel = ({ offsets, user, upTo }: Record<keyof Deletion, unknown>) =>
  (offsets === undefined || (Array.isArray(offsets) && offsets.every(isPlace))) &&
  (user === undefined || typeof user === 'string') &&
  (upTo === undefined || isPlace(upTo));

/** What takes the place of an entry that is erased. */
export const goneOf = (offset: number, atMs: number): LogEntry => ({ offset, atMs, type: 'gone', payload: '{}', key: undefined });

/** What a `del` entry says is to be erased. */
export interface Deletion {
  readonly offsets?: readonly number[];
  /** All of this account up to `upTo`. */
  readonly user?: string;
  readonly upTo?: number;
}

export const delOf = (entry: LogEntry): Deletion => delAt(JSON.parse(entry.payload) as Deletion, entry.offset);

/** A deletion takes what is before it, also where its log has lost entries since it was decided up to where. */
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
