import { uncleanTextIn } from '../../runtime/text.js';
import { isUserId } from '../../runtime/user-id.js';

/**
 * `veza.chat.v1`: what clients may send, how it is checked, and how frames are made. docs/chat.md is the reference; `server-frames.ts` has the schemas
 * of what is sent.
 */
export const SUBPROTOCOL = 'veza.chat.v1';
export const CHAT_PATH = '/chat';

/** A WebSocket message above this closes the connection (1009). */
export const MAX_FRAME_BYTES = 65_536;
/** A client has said hello by then, counted from its handshake. */
export const HELLO_MS = 5000;
export const PING_MS = 25_000;
/** Rooms of one connection. */
export const MAX_ROOMS = 20;
/** Messages of one connection that are not answered yet. */
export const MAX_IN_FLIGHT = 8;
/** Other requests of one connection that are not answered yet; more are not read before one is. */
export const MAX_REQUESTS = 16;
/** Of `joined`; and at most `MAX_PAGE_BYTES`. */
export const MAX_ENTRIES = 50;
/** Of `page`. */
export const MAX_PAGE = 100;
export const MAX_PAGE_BYTES = 65_536;
/** Frames of one account (all its connections to a process) or of one guest: so many a second, and so many at once. */
export const FRAMES_PER_S = 120;
export const FRAMES_BURST = 300;
export const MAX_MENTIONS = 20;

/** In a room, from the lowest. */
export const CHAT_ROLES_IN_FRAMES = ['viewer', 'moderator', 'host', 'owner', 'admin'] as const;

/** Codes of `err`. What refuses a message for good is told by `refused`, with codes of the room's rules. docs/chat.md lists both. */
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

/** Whether to come back is part of each. */
export const CLOSE = {
  /** The WebSocket itself was broken. */
  protocolError: 1002,
  badText: 1007,
  /** Against limits of the transport: a message in too many pieces, or never finished. */
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

export interface HelloFrame {
  readonly t: 'hello';
  readonly token: string | undefined;
  readonly client: string | undefined;
}
export interface AuthFrame {
  readonly t: 'auth';
  readonly id: string;
  readonly token: string;
}
export interface JoinFrame {
  readonly t: 'join';
  readonly id: string;
  readonly room: string;
  readonly since: { readonly epoch: number; readonly offset: number } | undefined;
  /** A playback link's token, for a private channel. */
  readonly link: string | undefined;
}
export interface LeaveFrame {
  readonly t: 'leave';
  readonly id: string;
  readonly room: string;
}
export interface PubFrame {
  readonly t: 'pub';
  readonly id: string;
  readonly room: string;
  readonly key: string;
  readonly body: MessageBody;
}
export interface MessageBody {
  readonly text: string;
  /** The `mid` of what it replies to. */
  readonly reply?: string;
  /** Ids of users. */
  readonly mentions?: readonly string[];
  readonly [field: string]: unknown;
}
export interface ReactFrame {
  readonly t: 'react';
  readonly id: string;
  readonly room: string;
  readonly mid: string;
  readonly emoji: string;
  readonly on: boolean;
}
export interface HistoryFrame {
  readonly t: 'history';
  readonly id: string;
  readonly room: string;
  readonly before: number | undefined;
  readonly limit: number;
}
export interface RangeFrame {
  readonly t: 'range';
  readonly id: string;
  readonly room: string;
  readonly from: number;
  readonly to: number;
}
export interface ModFrame {
  readonly t: 'mod';
  readonly id: string;
  readonly room: string;
  readonly action: string;
  /** The rest of the frame: what it holds is the action's own. */
  readonly args: Readonly<Record<string, unknown>>;
}
export type ClientFrame = HelloFrame | AuthFrame | JoinFrame | LeaveFrame | PubFrame | ReactFrame | HistoryFrame | RangeFrame | ModFrame;

/** `fatal`: this is no client of ours; the connection is closed (4009). */
export interface BadFrame {
  readonly t: 'bad';
  readonly id: string | undefined;
  readonly code: ChatErrorCode;
  readonly message: string;
  readonly fatal: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

class Bad extends Error {
  constructor(
    readonly code: ChatErrorCode,
    message: string,
  ) {
    super(message);
  }
}

const MID = /^[\w-]{22}$/;
const ROOM = /^[a-z0-9-]{2,64}$/;
const ACTION = /^[A-Za-z]{1,32}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused.
const CONTROL = /[\u0000-\u001f\u007f]/;
/** What `body` may hold beside `text`. */
const BODY_FIELDS: readonly string[] = ['text', 'reply', 'mentions'];
const MAX_OFFSET = Number.MAX_SAFE_INTEGER;
const ESCAPED_UNCLEAN = /\\u(?:0000|d[89a-f])/i;

/** Checks every field of a text that is at most `MAX_FRAME_BYTES` long. Never throws. */
export function parseFrame(text: string, maxTextBytes: number): ClientFrame | BadFrame {
  let fields: unknown;
  try {
    fields = JSON.parse(text);
  } catch {
    return { t: 'bad', id: undefined, code: 'bad_request', message: 'This is not JSON.', fatal: true };
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields) || typeof (fields as Fields).t !== 'string')
    return { t: 'bad', id: undefined, code: 'bad_request', message: 'A frame is a JSON object with a text "t".', fatal: true };
  const given = fields as Fields;
  try {
    // Bytes that are UTF-8 (ws refuses others) hold such text by an escape alone.
    const unclean = ESCAPED_UNCLEAN.test(text) ? uncleanTextIn(given) : undefined;
    if (unclean)
      throw new Bad('bad_request', `${unclean.join('.').slice(0, 100) || 'frame'}: text must be well-formed and without U+0000.`);
    return read(given, maxTextBytes);
  } catch (error) {
    if (!(error instanceof Bad)) throw error;
    const id = isId(given.id) && uncleanTextIn(given.id) === undefined ? given.id : undefined;
    return { t: 'bad', id, code: error.code, message: error.message, fatal: false };
  }
}

/** Of a frame that is not answered otherwise; undefined: it has none, or is no frame. */
export function idOf(text: string): string | undefined {
  try {
    const { id } = (JSON.parse(text) ?? {}) as Fields;
    return isId(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

function read(fields: Fields, maxTextBytes: number): ClientFrame {
  const t = fields.t as string;
  switch (t) {
    case 'hello':
      return { t, token: token(fields.token), client: optional(fields.client, 'client', 100) };
    case 'auth': {
      const fresh = token(fields.token);
      if (fresh === undefined) throw new Bad('bad_request', 'token: an access token.');
      return { t, id: id(fields), token: fresh };
    }
    case 'join':
      return { t, id: id(fields), room: room(fields), since: since(fields.since), link: optional(fields.link, 'link', 200) };
    case 'leave':
      return { t, id: id(fields), room: room(fields) };
    case 'pub':
      return { t, id: id(fields), room: room(fields), key: key(fields.key), body: body(fields.body, maxTextBytes) };
    case 'react':
      return { t, id: id(fields), room: room(fields), mid: mid(fields.mid, 'mid'), emoji: emoji(fields.emoji), on: flag(fields.on) };
    case 'history':
      return { t, id: id(fields), room: room(fields), before: before(fields.before), limit: limit(fields.limit) };
    case 'range': {
      const from = whole(fields.from, 'from', 1, MAX_OFFSET);
      return { t, id: id(fields), room: room(fields), from, to: whole(fields.to, 'to', from, MAX_OFFSET) };
    }
    case 'mod': {
      if (typeof fields.action !== 'string' || !ACTION.test(fields.action)) throw new Bad('bad_request', 'action: the name of an action.');
      const { t: _t, id: _id, room: _room, action: _action, ...args } = fields;
      return { t, id: id(fields), room: room(fields), action: fields.action, args };
    }
    default:
      throw new Bad('unknown_type', `There is no frame "${t.slice(0, 40)}".`);
  }
}

const isId = (value: unknown): value is string => typeof value === 'string' && value.length > 0 && value.length <= 64;

function id(fields: Fields): string {
  if (!isId(fields.id)) throw new Bad('bad_request', 'id: a text of 1 to 64 characters.');
  return fields.id;
}

function room(fields: Fields): string {
  if (typeof fields.room !== 'string') throw new Bad('bad_request', 'room: the id of a room, or the slug of its channel.');
  // Whatever cannot be one is not there, as what may not be seen is not there.
  return ROOM.test(fields.room) ? fields.room : '';
}

function token(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string' || value.length === 0 || value.length > 8192)
    throw new Bad('bad_request', 'token: a text of 1 to 8192 characters.');
  return value;
}

function optional(value: unknown, name: string, maxLength: number): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string' || value.length > maxLength)
    throw new Bad('bad_request', `${name}: a text of at most ${maxLength} characters.`);
  return value;
}

function whole(value: unknown, name: string, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most)
    throw new Bad('bad_request', `${name}: a whole number from ${least} to ${most}.`);
  return value;
}

const before = (value: unknown) => (value === undefined || value === null ? undefined : whole(value, 'before', 1, MAX_OFFSET));
const limit = (value: unknown) => (value === undefined || value === null ? MAX_ENTRIES : whole(value, 'limit', 1, MAX_PAGE));

function since(value: unknown): JoinFrame['since'] {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'object') throw new Bad('bad_request', 'since: {"epoch","offset"}.');
  const { epoch, offset } = value as Fields;
  return { epoch: whole(epoch, 'since.epoch', 0, MAX_OFFSET), offset: whole(offset, 'since.offset', 0, MAX_OFFSET) };
}

function key(value: unknown): string {
  if (typeof value !== 'string' || value.length === 0 || value.length > 64 || CONTROL.test(value))
    throw new Bad('bad_request', 'key: a text of 1 to 64 characters without control characters.');
  return value;
}

function mid(value: unknown, name: string): string {
  if (typeof value !== 'string' || !MID.test(value)) throw new Bad('bad_request', `${name}: the "mid" of a message.`);
  return value;
}

/** One that people see as one may be a dozen characters; which there are is not looked at. */
function emoji(value: unknown): string {
  if (
    typeof value !== 'string' ||
    value.length === 0 ||
    value.length > 32 ||
    !/\p{Extended_Pictographic}|\p{Regional_Indicator}|[0-9#*]\uFE0F?\u20E3/u.test(value) ||
    /[\p{L}\p{C}\s]/u.test(value.replace(/[\u200d\u{e0020}-\u{e007f}]/gu, ''))
  )
    throw new Bad('bad_request', 'emoji: one emoji.');
  return value;
}

function flag(value: unknown): boolean {
  if (typeof value !== 'boolean') throw new Bad('bad_request', 'on: true or false.');
  return value;
}

function body(value: unknown, maxTextBytes: number): MessageBody {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Bad('bad_request', 'body: an object with a "text".');
  const given = value as Fields;
  const { text } = given;
  if (typeof text !== 'string' || text.trim() === '') throw new Bad('bad_request', 'body.text: a text in which something stands.');
  // Longer in characters is longer in bytes as well.
  if (text.length > maxTextBytes || Buffer.byteLength(text) > maxTextBytes)
    throw new Bad('too_long', `A message is at most ${maxTextBytes} bytes of text.`);
  for (const name of Object.keys(given)) {
    if (!BODY_FIELDS.includes(name)) throw new Bad('bad_request', `body: there is no field "${name.slice(0, 40)}".`);
  }
  const made: { text: string; reply?: string; mentions?: readonly string[] } = { text };
  if (given.reply !== undefined && given.reply !== null) made.reply = mid(given.reply, 'body.reply');
  if (given.mentions !== undefined && given.mentions !== null) {
    const { mentions } = given;
    const isGood = Array.isArray(mentions) && mentions.length <= MAX_MENTIONS && mentions.every(isUserId);
    if (!isGood) throw new Bad('bad_request', `body.mentions: a list of at most ${MAX_MENTIONS} ids of users.`);
    made.mentions = mentions as string[];
  }
  return made;
}

/** Bytes of the header (RFC 6455 5.2) of an unmasked frame with so many bytes. */
const headerBytes = (payloadBytes: number) => (payloadBytes < 126 ? 2 : payloadBytes < 65_536 ? 4 : 10);

/** Some texts as WebSocket frames in one buffer, so that they go out in one write. `bytes`: of each in UTF-8, where it is known. */
export function webSocketFrames(texts: readonly string[], bytes?: readonly number[]): Buffer {
  let total = 0;
  const lengths = bytes ?? texts.map((text) => Buffer.byteLength(text));
  for (const length of lengths) total += headerBytes(length) + length;
  // Of its own: a socket that does not take it would hold on to what others share.
  const buffer = Buffer.allocUnsafeSlow(total);
  let at = 0;
  for (let index = 0; index < texts.length; index++) {
    const length = lengths[index]!;
    buffer[at] = 0x81;
    if (length < 126) buffer[at + 1] = length;
    else if (length < 65_536) {
      buffer[at + 1] = 126;
      buffer.writeUInt16BE(length, at + 2);
    } else {
      buffer[at + 1] = 127;
      buffer.writeUInt32BE(0, at + 2);
      buffer.writeUInt32BE(length, at + 6);
    }
    at += headerBytes(length);
    buffer.write(texts[index]!, at, length, 'utf8');
    at += length;
  }
  return buffer;
}

/**
 * A frame of ASCII alone as a latin1 string of its bytes, which a socket takes without a buffer being made. At most 65,535 characters.
 */
export function asciiFrame(text: string): string {
  const { length } = text;
  const head = length < 126 ? String.fromCharCode(0x81, length) : String.fromCharCode(0x81, 126, length >> 8, length & 0xff);
  return head + text;
}

/** As `asciiFrame` gives it. */
export const PING_FRAME = String.fromCharCode(0x89, 0);

/** The answer to a ping: the same bytes (RFC 6455 5.5.3), at most 125. A string of its own, so that it does not hold on to what was read. */
export const pongFrame = (data: Buffer): string => String.fromCharCode(0x8a, data.length) + data.toString('latin1');

/** How long a token lasts from now on, for clients whose clock is another: whole ms, or null when it does not end. */
export const lastsMs = (expiresAtMs: number | undefined, nowMs: number): string =>
  expiresAtMs === undefined || !Number.isFinite(expiresAtMs) ? 'null' : String(Math.max(0, Math.trunc(expiresAtMs - nowMs)));

export function errorFrame(id: string | undefined, code: ChatErrorCode, message: string, retryMs?: number): string {
  const forWhat = id === undefined ? '' : `"id":${JSON.stringify(id)},`;
  return `{"t":"err",${forWhat}"code":"${code}","message":${JSON.stringify(message)}${retryMs === undefined ? '' : `,"retryMs":${Math.ceil(retryMs)}`}}`;
}
