/**
 * The limits, error codes and close codes of `veza.chat.v1`. docs/chat.md is the reference.
 * `client-frames.ts` and `server-frames.ts` describe the frames.
 */
export const SUBPROTOCOL = 'veza.chat.v1';
export const CHAT_PATH = '/chat';

/** A longer WebSocket message closes the connection (1009). */
export const MAX_FRAME_BYTES = 65_536;
/** A client must send `hello` within this time after its handshake. */
export const HELLO_MS = 5000;
export const PING_MS = 25_000;
/** Rooms that one connection may have joined at a time. */
export const MAX_ROOMS = 20;
/** Unanswered `pub` frames of one connection at most. */
export const MAX_IN_FLIGHT = 8;
/** Other unanswered requests of one connection at most. */
export const MAX_REQUESTS = 16;
/** Entries in `joined` at most, and `MAX_PAGE_BYTES` in all. */
export const MAX_ENTRIES = 50;
/** Entries in `page` at most, and `MAX_PAGE_BYTES` in all. */
export const MAX_PAGE = 100;
export const MAX_PAGE_BYTES = 65_536;
/** Frames per second of one account (over all its connections to a process) or of one guest. */
export const FRAMES_PER_S = 120;
/** Frames that an account or guest may send at once. */
export const FRAMES_BURST = 300;
export const MAX_MENTIONS = 20;

/**
 * The roles in a room, from the lowest. `admin`, and `moderator` for some people, are roles on the
 * whole service.
 */
export const ROOM_ROLES = ['viewer', 'moderator', 'host', 'owner', 'admin'] as const;
export type RoomRole = (typeof ROOM_ROLES)[number];

/**
 * The codes of `err`. A message that is refused for good is answered with `refused` and a code of
 * the room's rules. docs/chat.md lists both.
 */
export const ERROR_CODES = {
  bad_request: 'a field is missing or wrong; the message names it',
  unknown_type: 'there is no frame of this type',
  unauthorized: 'the token is invalid, or a token is needed',
  forbidden: 'the role does not allow it',
  second_factor_missing: 'the role needs a second factor; sign in with it',
  not_found: 'there is no such room for this client, or no such message',
  not_joined: 'join the room first',
  too_many_rooms: 'leave a room first',
  too_long: 'the text is longer than `limits.textBytes`',
  banned: 'you are banned from this room',
  busy: 'try again after `retryMs`; a message under the same key, because it may have been published',
  rate_limited: 'too fast; try again after `retryMs`',
  slow_mode: 'slow mode; try again after `retryMs`',
  resend: 'a new epoch has withdrawn the message; send it again under the same key',
  conflict: 'the state is already so, or contradicts the request',
  unavailable: 'the room log or the database is unavailable; try again after `retryMs`',
  internal: 'a defect of the service, which its log describes',
} as const;
export type ChatErrorCode = keyof typeof ERROR_CODES;

/** WebSocket close codes. docs/chat.md says for each whether a client reconnects. */
export const CLOSE = {
  /** The client violated the WebSocket protocol. */
  protocolError: 1002,
  badText: 1007,
  /** A message had too many fragments or was never finished. */
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

/**
 * How long a token is still valid, as JSON: whole ms, or null when it does not end. Clients use it
 * because their clock may differ.
 */
export const lastsMs = (expiresAtMs: number | undefined, nowMs: number): string =>
  expiresAtMs === undefined || !Number.isFinite(expiresAtMs) ? 'null' : String(Math.max(0, Math.trunc(expiresAtMs - nowMs)));

export function errorFrame(id: string | undefined, code: ChatErrorCode, message: string, retryMs?: number): string {
  const forWhat = id === undefined ? '' : `"id":${JSON.stringify(id)},`;
  return `{"t":"err",${forWhat}"code":"${code}","message":${JSON.stringify(message)}${retryMs === undefined ? '' : `,"retryMs":${Math.ceil(retryMs)}`}}`;
}
