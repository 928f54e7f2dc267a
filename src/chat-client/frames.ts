/** What goes over the wire, as far as a client looks at it; members that are not named here pass through unread. */

export const SUBPROTOCOL = 'veza.chat.v1';

/** In a room, from the lowest. */
export const CHAT_ROLES = ['viewer', 'moderator', 'host', 'owner', 'admin'] as const;
export type ChatRole = (typeof CHAT_ROLES)[number];

export interface ChatUser {
  readonly id: string;
  readonly name: string;
  readonly role: string;
}

/** `text`, and what goes with it. */
export interface ChatBody {
  readonly text: string;
  /** The `mid` that this answers. */
  readonly reply?: string;
  readonly [field: string]: unknown;
}

/** Any JSON object with a type. */
export interface Frame {
  readonly t: string;
  readonly [field: string]: unknown;
}

/** An object with an `offset`: it takes a place in its room's log, whether its type is known or not. */
export interface Entry extends Frame {
  readonly epoch: number;
  readonly offset: number;
}

export interface Limits {
  /** Bytes of UTF-8 that a text may have. */
  readonly textBytes: number;
  /** Publications without an answer. */
  readonly pubsInFlight: number;
  /** Messages in one room, of who does not moderate it; undefined: as many. */
  readonly pace: Pace | undefined;
}

export interface Pace {
  readonly perS: number;
  readonly burst: number;
}

export const DEFAULT_LIMITS: Limits = { textBytes: 8192, pubsInFlight: 8, pace: undefined };

/** Answers of the server have an offset, too, and are no entries. */
const ANSWERS = new Set([
  'welcome',
  'joined',
  'ack',
  'held',
  'refused',
  'page',
  'reset',
  'reacts',
  'members',
  'you',
  'left',
  'heads',
  'lag',
  'drain',
  'err',
]);

/** Undefined: not a frame. Nothing that a server sends may throw here. */
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

/** The entry that this frame is. `epoch`: of the page that it is in, when it does not say so itself. */
export function entryOf(value: unknown, epoch?: number): Entry | undefined {
  if (!isRecord(value) || typeof value.t !== 'string' || ANSWERS.has(value.t) || !isOffset(value.offset)) return undefined;
  const ownEpoch = value.epoch ?? epoch;
  if (!isOffset(ownEpoch)) return undefined;
  return (value.epoch === undefined ? { ...value, epoch: ownEpoch } : value) as Entry;
}

/** Those of a page, ascending. What is none is left out. */
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

/** Milliseconds since 1970 of a number or an ISO 8601 text. */
export function timeOf(value: unknown): number | undefined {
  const timeMs = typeof value === 'number' ? value : typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isFinite(timeMs) ? timeMs : undefined;
}

/** Why something did not happen. `retryMs`: it may be tried again after that. */
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

/** Of an `err`, a `refused`. */
export function problemOf(frame: Frame): ChatProblem {
  const retryMs = typeof frame.retryMs === 'number' && frame.retryMs >= 0 ? frame.retryMs : undefined;
  const code = textOf(frame.code) ?? 'internal';
  return new ChatProblem(code, textOf(frame.message) ?? textOf(frame.reason) ?? code, retryMs);
}
