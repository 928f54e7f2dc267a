import { uncleanTextIn } from '../../runtime/text.js';
import { isUserId } from '../../runtime/user-id.js';
import { type ChatErrorCode, MAX_ENTRIES, MAX_MENTIONS, MAX_PAGE } from './protocol.js';
import {
  FieldError,
  type Fields,
  type FieldValues,
  type FrameField,
  type FrameSchema,
  field,
  flag,
  optionalField,
  schemaOf,
  wholeNumber,
} from './schema.js';

/**
 * The frames of clients of `veza.chat.v1`. `CLIENT_FRAME_FIELDS` is their only description: the
 * types, the parser, the JSON Schema and the tables of docs/chat.md are derived from it.
 */

const MID = /^[\w-]{22}$/;
const ROOM = /^[a-z0-9-]{2,64}$/;
const ACTION = /^[A-Za-z]{1,32}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: it finds control characters.
const CONTROL = /[\u0000-\u001f\u007f]/;
const MAX_OFFSET = Number.MAX_SAFE_INTEGER;

const text = (least: number, most: number, description: string): FrameField<string> =>
  field({ type: 'string', ...(least > 0 && { minLength: least }), maxLength: most, description }, (value, name) => {
    if (typeof value !== 'string' || value.length < least || value.length > most)
      throw new FieldError(`${name}: a text of ${least > 0 ? `${least} to ${most}` : `at most ${most}`} characters.`);
    return value;
  });

const isId = (value: unknown): value is string => typeof value === 'string' && value.length > 0 && value.length <= 64;
const id = text(1, 64, 'made by the client; the answer carries it');

const room = field({ type: 'string', description: 'the id from `joined`, or the slug of the channel' }, (value, name) => {
  if (typeof value !== 'string') throw new FieldError(`${name}: the id of a room, or the slug of its channel.`);
  // A name that no room can have is answered like a room that does not exist.
  return ROOM.test(value) ? value : '';
});

export const mid = field({ type: 'string', pattern: '^[A-Za-z0-9_-]{22}$', description: 'id of a message' }, (value, name) => {
  if (typeof value !== 'string' || !MID.test(value)) throw new FieldError(`${name}: the "mid" of a message.`);
  return value;
});

export const userId = field(
  { type: 'string', minLength: 1, maxLength: 1024, description: 'id of a user, as messages carry it; no control characters' },
  (value, name) => {
    if (!isUserId(value)) throw new FieldError(`${name}: the id of a user, as messages have it.`);
    return value;
  },
);

const key = field(text(1, 64, 'new for each message, the same for each attempt; no control characters').schema, (value, name) => {
  if (!isId(value) || CONTROL.test(value)) throw new FieldError(`${name}: a text of 1 to 64 characters without control characters.`);
  return value;
});

/** One emoji may have a dozen characters. The parser does not check which emoji exist. */
const emoji = field(text(1, 32, 'one emoji').schema, (value, name) => {
  if (
    typeof value !== 'string' ||
    value.length === 0 ||
    value.length > 32 ||
    !/\p{Extended_Pictographic}|\p{Regional_Indicator}|[0-9#*]\uFE0F?\u20E3/u.test(value) ||
    /[\p{L}\p{C}\s]/u.test(value.replace(/[\u200d\u{e0020}-\u{e007f}]/gu, ''))
  )
    throw new FieldError(`${name}: one emoji.`);
  return value;
});

const position = { epoch: wholeNumber(0, MAX_OFFSET), offset: wholeNumber(0, MAX_OFFSET) };
const since = field(
  {
    type: 'object',
    description: 'to resume: the epoch that the client knows and its last offset',
    properties: { epoch: position.epoch.schema, offset: position.offset.schema },
    required: ['epoch', 'offset'],
  },
  (value, name, limits) => {
    if (typeof value !== 'object' || value === null) throw new FieldError(`${name}: {"epoch","offset"}.`);
    const { epoch, offset } = value as Readonly<Record<string, unknown>>;
    return { epoch: position.epoch.read(epoch, `${name}.epoch`, limits), offset: position.offset.read(offset, `${name}.offset`, limits) };
  },
);

/** The text of a message with its small fields. */
interface MessageBody {
  readonly text: string;
  /** The `mid` of the message that it replies to. */
  readonly reply?: string;
  /** Ids of users. */
  readonly mentions?: readonly string[];
  readonly [field: string]: unknown;
}

const BODY_FIELDS: readonly string[] = ['text', 'reply', 'mentions'];
const body = field<MessageBody>(
  {
    type: 'object',
    properties: {
      text: { type: 'string', description: 'at most `limits.textBytes` bytes, not only spaces' },
      reply: { ...mid.schema, description: '`mid` of the message that it replies to' },
      mentions: { type: 'array', items: userId.schema, maxItems: MAX_MENTIONS, description: 'ids of users' },
    },
    required: ['text'],
    additionalProperties: false,
  },
  (value, name, limits) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new FieldError(`${name}: an object with a "text".`);
    const given = value as Readonly<Record<string, unknown>>;
    const { text: said } = given;
    if (typeof said !== 'string' || said.trim() === '') throw new FieldError(`${name}.text: a text that is not only spaces.`);
    // A text has at least as many bytes as characters, so a long one is not measured.
    if (said.length > limits.maxTextBytes || Buffer.byteLength(said) > limits.maxTextBytes)
      throw new FieldError(`A message is at most ${limits.maxTextBytes} bytes of text.`, 'too_long');
    for (const member of Object.keys(given))
      if (!BODY_FIELDS.includes(member)) throw new FieldError(`${name}: there is no field "${member.slice(0, 40)}".`);
    const read: { text: string; reply?: string; mentions?: readonly string[] } = { text: said };
    if (given.reply !== undefined && given.reply !== null) read.reply = mid.read(given.reply, `${name}.reply`, limits);
    if (given.mentions !== undefined && given.mentions !== null) {
      const { mentions } = given;
      if (!Array.isArray(mentions) || mentions.length > MAX_MENTIONS || !mentions.every(isUserId))
        throw new FieldError(`${name}.mentions: a list of at most ${MAX_MENTIONS} ids of users.`);
      read.mentions = mentions as string[];
    }
    return read;
  },
);

const action = field({ type: 'string', description: 'one of the actions below' }, (value, name) => {
  if (typeof value !== 'string' || !ACTION.test(value)) throw new FieldError(`${name}: the name of an action.`);
  return value;
});

interface FrameDescription<F extends Fields> {
  readonly description: string;
  readonly fields: F;
}
const describe = <F extends Fields>(description: string, fields: F): FrameDescription<F> => ({ description, fields });

const CLIENT_FRAME_FIELDS = {
  hello: describe('The first frame, within five seconds. It has no `id`; `welcome` or a close answers it.', {
    token: optionalField(text(1, 8192, 'left out: a guest'), undefined),
    client: optionalField(text(0, 100, 'name of the client, for the log'), undefined),
  }),
  auth: describe('A new token of the same user, sent before the present one ends. `ok` answers it.', {
    id,
    token: text(1, 8192, 'the new token'),
  }),
  join: describe('`joined` answers it. Joining a room again starts a new membership.', {
    id,
    room,
    since: optionalField(since, undefined),
    link: optionalField(text(0, 200, 'token of a playback link, for a private channel'), undefined),
  }),
  leave: describe('`ok` answers it. Joins that were sent before it are finished first.', { id, room }),
  pub: describe('`ack`, `held`, `refused` or `err` answers it.', { id, room, key, body }),
  react: describe('`ok` answers it. The counts come with `reacts`.', { id, room, mid, emoji, on: flag() }),
  history: describe('Requests older entries. `page` answers it.', {
    id,
    room,
    before: optionalField(wholeNumber(1, MAX_OFFSET, 'an offset, exclusive; left out: the newest entries'), undefined),
    limit: optionalField(wholeNumber(1, MAX_PAGE, `left out: ${MAX_ENTRIES}`), MAX_ENTRIES),
  }),
  range: describe('Requests the entries of a hole. `page` answers it.', {
    id,
    room,
    from: wholeNumber(1, MAX_OFFSET, 'an offset, inclusive'),
    to: wholeNumber(1, MAX_OFFSET, 'inclusive, not below `from`'),
  }),
  mod: describe('A moderation action. `ok` answers it. The other members depend on `action`, see below.', { id, room, action }),
} as const;

type ClientFrameType = keyof typeof CLIENT_FRAME_FIELDS;
type FrameOf<T extends ClientFrameType> = { readonly t: T } & FieldValues<(typeof CLIENT_FRAME_FIELDS)[T]['fields']>;
type HelloFrame = FrameOf<'hello'>;
export type AuthFrame = FrameOf<'auth'>;
export type JoinFrame = FrameOf<'join'>;
type LeaveFrame = FrameOf<'leave'>;
export type PubFrame = FrameOf<'pub'>;
export type ReactFrame = FrameOf<'react'>;
export type HistoryFrame = FrameOf<'history'>;
export type RangeFrame = FrameOf<'range'>;
/** `args`: the other members of the frame, which depend on the action. */
export type ModFrame = FrameOf<'mod'> & { readonly args: Readonly<Record<string, unknown>> };
export type ClientFrame = HelloFrame | AuthFrame | JoinFrame | LeaveFrame | PubFrame | ReactFrame | HistoryFrame | RangeFrame | ModFrame;

/** The frames of clients as JSON Schema, by `t`. */
export const CLIENT_FRAMES: Readonly<Record<string, FrameSchema>> = Object.fromEntries(
  Object.entries(CLIENT_FRAME_FIELDS).map(([t, { description, fields }]) => [t, schemaOf(t, description, fields)]),
);

/** `fatal`: the sender is not a chat client, and the connection is closed (4009). */
export interface BadFrame {
  readonly t: 'bad';
  readonly id: string | undefined;
  readonly code: ChatErrorCode;
  readonly message: string;
  readonly fatal: boolean;
}

type FrameMembers = Readonly<Record<string, unknown>>;
const ESCAPED_UNCLEAN = /\\u(?:0000|d[89a-f])/i;

/** Parses and checks a text of at most `MAX_FRAME_BYTES`. Never throws. */
export function parseFrame(frameText: string, maxTextBytes: number): ClientFrame | BadFrame {
  let parsed: unknown;
  try {
    parsed = JSON.parse(frameText);
  } catch {
    return { t: 'bad', id: undefined, code: 'bad_request', message: 'This is not JSON.', fatal: true };
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed) || typeof (parsed as FrameMembers).t !== 'string')
    return { t: 'bad', id: undefined, code: 'bad_request', message: 'A frame is a JSON object with a text "t".', fatal: true };
  const members = parsed as FrameMembers & { readonly t: string };
  const bad = (code: ChatErrorCode, message: string): BadFrame => {
    const requestId = isId(members.id) && uncleanTextIn(members.id) === undefined ? members.id : undefined;
    return { t: 'bad', id: requestId, code, message, fatal: false };
  };
  // ws accepts only valid UTF-8, so lone surrogates and U+0000 can only come from escapes.
  const unclean = ESCAPED_UNCLEAN.test(frameText) ? uncleanTextIn(members) : undefined;
  if (unclean) return bad('bad_request', `${unclean.join('.').slice(0, 100) || 'frame'}: text must be well-formed and without U+0000.`);
  if (!Object.hasOwn(CLIENT_FRAME_FIELDS, members.t)) return bad('unknown_type', `There is no frame "${members.t.slice(0, 40)}".`);
  try {
    return readFrame(members, members.t as ClientFrameType, { maxTextBytes });
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    return bad(error.code, error.message);
  }
}

function readFrame(members: FrameMembers, t: ClientFrameType, limits: { readonly maxTextBytes: number }): ClientFrame {
  const fields: Fields = CLIENT_FRAME_FIELDS[t].fields;
  const frame: Record<string, unknown> = { t };
  for (const name in fields) frame[name] = fields[name]!.read(members[name], name, limits);
  const read = frame as unknown as ClientFrame;
  if (read.t === 'range' && read.to < read.from) throw new FieldError(`to: a whole number from ${read.from} to ${MAX_OFFSET}.`);
  if (t === 'mod') {
    const { t: _t, id: _id, room: _room, action: _action, ...args } = members;
    frame.args = args;
  }
  return read;
}

/** The `id` of a frame that is not parsed further; undefined: it has none. */
export function idOf(frameText: string): string | undefined {
  try {
    const { id: found } = (JSON.parse(frameText) ?? {}) as FrameMembers;
    return isId(found) ? found : undefined;
  } catch {
    return undefined;
  }
}
