/**
 * The frames of `veza.chat.v1` as far as the client reads them; other members are left as they are.
 * The client imports nothing, so a test checks that names, roles and limits here equal the
 * server's.
 */

export const SUBPROTOCOL = 'veza.chat.v1';

/** The roles in a room, from the lowest. */
export const CHAT_ROLES = ['viewer', 'moderator', 'host', 'owner', 'admin'] as const;
export type ChatRole = (typeof CHAT_ROLES)[number];

export interface ChatUser {
  readonly id: string;
  readonly name: string;
  readonly role: string;
}

/** The body of a message. */
export interface ChatBody {
  readonly text: string;
  /** The `mid` of the message that it replies to. */
  readonly reply?: string;
  readonly [field: string]: unknown;
}

/** Any JSON object with a type. */
export interface Frame {
  readonly t: string;
  readonly [field: string]: unknown;
}

/**
 * A frame with an `offset`: it has a place in the room's log, even if the client does not know its
 * type.
 */
export interface Entry extends Frame {
  readonly epoch: number;
  readonly offset: number;
}

export interface Limits {
  /** The longest text of a message, in bytes of UTF-8. */
  readonly textBytes: number;
  /** Unanswered `pub` frames at most. */
  readonly pubsInFlight: number;
  /** The rate of messages in one room for users who do not moderate it; undefined: no limit. */
  readonly pace: Pace | undefined;
}

export interface Pace {
  readonly perS: number;
  readonly burst: number;
}

export const DEFAULT_LIMITS: Limits = { textBytes: 8192, pubsInFlight: 8, pace: undefined };

/**
 * Frames of the server that are not entries although some have an offset. Any other frame with an
 * offset is an entry, even of an unknown type.
 */
export const NO_ENTRIES: ReadonlySet<string> = new Set([
  'welcome',
  'ok',
  'joined',
  'ack',
  'held',
  'refused',
  'page',
  'reset',
  'reacts',
  'members',
  'channel',
  'you',
  'left',
  'heads',
  'lag',
  'drain',
  'err',
]);

/** Parses a frame; undefined: the data is not a frame. Never throws. */
export function parseFrame(data: unknown): Frame | undefined {
  if (typeof data !== 'string') return undefined;
  try {
    const value: unknown = JSON.parse(data);
    return isRecord(value) && typeof value.t === 'string' ? (value as Frame) : undefined;
  } catch {
    return undefined;
  }
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const isOffset = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

export const textOf = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

/**
 * The frame as an entry; undefined: it is not one. `epoch`: the epoch of its page, for a frame
 * without one.
 */
export function entryOf(value: unknown, epoch?: number): Entry | undefined {
  if (!isRecord(value) || typeof value.t !== 'string' || NO_ENTRIES.has(value.t) || !isOffset(value.offset)) return undefined;
  const ownEpoch = value.epoch ?? epoch;
  if (!isOffset(ownEpoch)) return undefined;
  return (value.epoch === undefined ? { ...value, epoch: ownEpoch } : value) as Entry;
}

/** The entries of a page, ascending. */
export function entriesOf(values: unknown, epoch: number): Entry[] {
  if (!Array.isArray(values)) return [];
  const entries = values.map((value) => entryOf(value, epoch)).filter((entry) => entry !== undefined);
  return entries.sort((a, b) => a.offset - b.offset);
}

export function limitsOf(value: unknown): Limits {
  if (!isRecord(value)) return DEFAULT_LIMITS;
  const positive = (found: unknown, other: number) => (isOffset(found) && found > 0 ? found : other);
  return {
    textBytes: positive(value.textBytes, DEFAULT_LIMITS.textBytes),
    pubsInFlight: positive(value.pubsInFlight, DEFAULT_LIMITS.pubsInFlight),
    pace:
      typeof value.pubsPerS === 'number' && value.pubsPerS > 0 && isOffset(value.pubsBurst) && value.pubsBurst > 0
        ? { perS: value.pubsPerS, burst: value.pubsBurst }
        : undefined,
  };
}

/** Reads a time: a number or an ISO 8601 text. Returns milliseconds since 1970. */
export function timeOf(value: unknown): number | undefined {
  const timeMs = typeof value === 'number' ? value : typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isFinite(timeMs) ? timeMs : undefined;
}

/** The reason why a request failed. `retryMs`: it may be sent again after this. */
export class ChatProblem extends Error {
  readonly code: string;
  readonly retryMs: number | undefined;

  constructor(code: string, message: string, retryMs?: number) {
    super(message);
    this.name = 'ChatProblem';
    this.code = code;
    this.retryMs = retryMs;
  }
}

/** The problem that an `err` or `refused` frame reports. */
export function problemOf(frame: Frame): ChatProblem {
  const retryMs = typeof frame.retryMs === 'number' && frame.retryMs >= 0 ? frame.retryMs : undefined;
  const code = textOf(frame.code) ?? 'internal';
  return new ChatProblem(code, textOf(frame.message) ?? textOf(frame.reason) ?? code, retryMs);
}
