/**
 * `veza.chat.v1`: its limits, error codes and close codes. docs/chat.md is the reference; `client-frames.ts` and
 * `server-frames.ts` describe the frames.
 */
export const SUBPROTOCOL = 'veza.chat.v1';
export const CHAT_PATH = '/chat';

/** A WebSocket message above this closes the connection (1009). */
export const MAX_FRAME_BYTES = 65_536;
/** A client has this long from its handshake to send `hello`. */
export const HELLO_MS = 5000;
export const PING_MS = 25_000;
/** Rooms that one connection may be in. */
export const MAX_ROOMS = 20;
/** Unanswered `pub` frames of one connection. */
export const MAX_IN_FLIGHT = 8;
/** Other unanswered requests of one connection. */
export const MAX_REQUESTS = 16;
/** Entries in `joined`, of at most `MAX_PAGE_BYTES` in all. */
export const MAX_ENTRIES = 50;
/** Entries in `page`, of at most `MAX_PAGE_BYTES` in all. */
export const MAX_PAGE = 100;
export const MAX_PAGE_BYTES = 65_536;
/** Frames per second of one account (over all its connections to a process) or of one guest. */
export const FRAMES_PER_S = 120;
/** Frames that it may send at once. */
export const FRAMES_BURST = 300;
export const MAX_MENTIONS = 20;

/** The roles in a room, from the lowest. `admin` and some of `moderator` are roles on the whole service. */
export const ROOM_ROLES = ['viewer', 'moderator', 'host', 'owner', 'admin'] as const;
export type RoomRole = (typeof ROOM_ROLES)[number];

/** Codes of `err`. A message that is refused for good is answered by `refused`, with codes of the room's rules. docs/chat.md lists both. */
export const ERROR_CODES = {
  bad_request: 'a field is missing or wrong; the message names it',
  unknown_type: 'there is no such frame',
  unauthorized: 'a token that is not good, or one is needed',
  forbidden: 'not with this role',
  second_factor_missing: 'the role asks for a second factor; sign in with it',
  not_found: 'no such room, or not for you; no such message',
  not_joined: 'join the room first',
  too_many_rooms: 'leave one first',
  too_long: 'more text than `limits.textBytes`',
  banned: 'you are banned from this room',
  busy: 'try again after `retryMs`, a message under the same key: it may have been published',
  rate_limited: 'too fast; try again after `retryMs`',
  slow_mode: 'slow mode; try again after `retryMs`',
  resend: 'a new epoch has withdrawn it; send it again under the same key',
  conflict: 'it is so already, or something else stands against it',
  unavailable: 'something the answer needs is away; try again after `retryMs`',
  internal: 'a defect of the service; it is in its log',
} as const;
export type ChatErrorCode = keyof typeof ERROR_CODES;

/** WebSocket close codes. docs/chat.md says for each whether a client comes back. */
export const CLOSE = {
  /** The WebSocket itself was broken. */
  protocolError: 1002,
  badText: 1007,
  /** A message was sent in too many pieces, or never finished. */
  policy: 1008,
  tooBig: 1009,
  internal: 1011,
  restart: 1012,
  overloaded: 1013,
  token: 4001,
  banned: 4003,
  tooSlow: 4008,
  chatProtocol: 4009,
} as const;

/** How long a token still lasts, for clients whose clock differs: whole ms as JSON, or null when it does not end. */
export const lastsMs = (expiresAtMs: number | undefined, nowMs: number): string =>
  expiresAtMs === undefined || !Number.isFinite(expiresAtMs) ? 'null' : String(Math.max(0, Math.trunc(expiresAtMs - nowMs)));

export function errorFrame(id: string | undefined, code: ChatErrorCode, message: string, retryMs?: number): string {
  const forWhat = id === undefined ? '' : `"id":${JSON.stringify(id)},`;
  return `{"t":"err",${forWhat}"code":"${code}","message":${JSON.stringify(message)}${retryMs === undefined ? '' : `,"retryMs":${Math.ceil(retryMs)}`}}`;
}
