import { CHAT_ROLES_IN_FRAMES, ERROR_CODES } from './protocol.js';

/**
 * What a server of `veza.chat.v1` sends, as JSON Schema (2020-12), by `t`. docs/chat-frames.json is made from it (`veza chat frames`), and the tests hold
 * every frame against it. A client ignores members and entries that it does not know.
 */
export interface FrameSchema {
  readonly description: string;
  readonly type: 'object';
  readonly properties: Readonly<Record<string, object>>;
  readonly required: readonly string[];
  readonly additionalProperties: boolean;
}

const text = { type: 'string' };
const whole = { type: 'integer', minimum: 0 };
const id = { type: 'string', minLength: 1, maxLength: 64, description: 'of the request' };
const room = { type: 'string', pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' };
const mid = { type: 'string', pattern: '^[A-Za-z0-9_-]{22}$' };
const offset = { ...whole };
const epoch = { ...whole };
const atMs = { ...whole, description: 'ms since 1970' };
const orNull = (schema: object) => ({ anyOf: [schema, { type: 'null' }] });
const role = { enum: [...CHAT_ROLES_IN_FRAMES] };
const user = {
  type: 'object',
  properties: { id: text, name: text, role },
  required: ['id', 'name', 'role'],
  additionalProperties: false,
};
const counts = {
  type: 'object',
  description: 'by mid and emoji; absolute, and an emoji that is not there has none',
  additionalProperties: { type: 'object', additionalProperties: whole },
};
const you = {
  role,
  write: { type: 'boolean', description: 'not a guest, not an API key that only reads' },
  moderate: { enum: ['yes', 'no', 'second-factor'] },
  timeoutUntil: orNull(atMs),
  warnings: { ...whole, description: 'that you have not seen: `GET /rooms/{slug}/me` has them' },
};
const frame = (
  t: string,
  description: string,
  properties: Record<string, object>,
  optional: readonly string[] = [],
  additionalProperties = false,
): FrameSchema => ({
  description,
  type: 'object',
  properties: { t: { const: t }, ...properties },
  required: ['t', ...Object.keys(properties).filter((name) => !optional.includes(name))],
  additionalProperties,
});
const place = { room, epoch, offset, at: atMs };
const entry = (t: string, description: string) => frame(t, description, place, [], true);
const body = {
  type: 'object',
  properties: { text, reply: mid, mentions: { type: 'array', items: text, maxItems: 20 } },
  required: ['text'],
  additionalProperties: true,
};

/** Entries of a room's log: each has a place there, and an unknown one takes its place too. */
export const ENTRY_FRAMES: Readonly<Record<string, FrameSchema>> = {
  msg: frame(
    'msg',
    'A message. `key` is in its author’s copy alone. `sentAt`: it was held, and said then.',
    { ...place, mid, user, body, key: text, sentAt: atMs },
    ['key', 'sentAt'],
    true,
  ),
  del: entry('del', 'Messages are deleted: `{offsets, mids}`, or all that `user` has said up to the offset `upTo`.'),
  act: entry('act', 'Something was decided about the room or a person in it.'),
  pin: entry('pin', 'Another message is pinned, `mid` at the offset `messageOffset`, or none.'),
  now: frame('now', 'What is playing.', { ...place, title: text, artist: text }, ['artist'], true),
  gone: entry('gone', 'There was something, and it is erased.'),
};

export const ANSWER_FRAMES: Readonly<Record<string, FrameSchema>> = {
  welcome: frame('welcome', 'Answers `hello`. `user` null: a guest.', {
    session: text,
    user: orNull({ type: 'object', properties: { id: text, name: text }, required: ['id', 'name'], additionalProperties: false }),
    expiresAt: orNull({ ...atMs, description: 'ms since 1970; send `auth` before. Null: it does not end by itself' }),
    expiresInMs: orNull({ ...whole, description: 'how long the token lasts from now on: your clock may be another' }),
    limits: {
      type: 'object',
      properties: {
        textBytes: whole,
        rooms: whole,
        pubsInFlight: whole,
        framesPerS: whole,
        framesBurst: whole,
        pubsPerS: {
          type: 'number',
          exclusiveMinimum: 0,
          description: 'messages in one room; faster, and beyond `pubsBurst` at once, they are `rate_limited`',
        },
        pubsBurst: whole,
      },
      required: ['textBytes', 'rooms', 'pubsInFlight', 'framesPerS', 'framesBurst'],
      additionalProperties: false,
    },
    pingMs: whole,
  }),
  ok: frame(
    'ok',
    'Answers `auth` (`expiresAt`), `leave`, `react`, `mod` (`result`).',
    { id, expiresAt: orNull(atMs), expiresInMs: orNull(whole), result: { type: 'object' } },
    ['expiresAt', 'expiresInMs', 'result'],
  ),
  joined: frame('joined', 'Answers `join`. `offset` is where you stand with `entries`; what comes after it follows by itself.', {
    id,
    room,
    channel: orNull(text),
    epoch,
    offset,
    recovered: { enum: ['none', 'full', 'partial'] },
    entries: { type: 'array', maxItems: 50, items: { type: 'object', required: ['t', 'room', 'epoch', 'offset'] } },
    members: whole,
    settings: { type: 'object' },
    pinned: orNull({ type: 'object' }),
    you: { type: 'object', properties: you, required: Object.keys(you), additionalProperties: false },
  }),
  ack: frame('ack', 'The message is in PostgreSQL, at this place.', { id, room, mid, epoch, offset, dup: { type: 'boolean' } }),
  held: frame('held', 'The message waits for a moderator. It is written down: do not send it again.', { id, mid }),
  refused: frame('refused', 'The message is refused for good.', { id, mid, code: text, reason: text }),
  page: frame('page', 'Answers `history` and `range`. `more`: there is more in the direction that was asked for.', {
    id,
    room,
    epoch,
    entries: { type: 'array', maxItems: 100, items: { type: 'object', required: ['t', 'room', 'epoch', 'offset'] } },
    more: { type: 'boolean' },
  }),
  err: frame(
    'err',
    'A request was not done, and why; without `id`: a frame that had none. `retryMs`: try again after it.',
    { id, code: { enum: Object.keys(ERROR_CODES) }, message: text, retryMs: whole },
    ['id', 'retryMs'],
  ),
};

export const NEWS_FRAMES: Readonly<Record<string, FrameSchema>> = {
  reset: frame('reset', 'A new epoch: drop what you hold above `keep`, go on at keep + 1.', { room, epoch, keep: offset }),
  reacts: frame('reacts', 'Reactions to some messages.', { room, counts }),
  members: frame('members', 'How many are in the room.', { room, count: whole }),
  channel: frame(
    'channel',
    'What is on air in the room’s channel: after `joined`, and when it changes. Not where the server does not know.',
    {
      room,
      state: {
        enum: ['offline', 'live', 'holding'],
        description: '`holding`: the broadcaster’s connection is lost, and listeners hear the fill',
      },
      listeners: { ...whole, description: 'an estimate; told every 20 s when nothing else changes' },
      startedAt: orNull({ ...atMs, description: 'of the show, ms since 1970' }),
      nowPlaying: orNull({
        type: 'object',
        properties: { title: text, artist: text, startedAt: atMs },
        required: ['title', 'startedAt'],
        additionalProperties: false,
      }),
    },
  ),
  you: frame('you', 'What you are in the room is another.', { room, ...you }),
  left: frame(
    'left',
    'You were put out of the room. `until`: of a ban that ends.',
    { room, code: { enum: ['banned', 'deleted', 'private'] }, until: atMs },
    ['until'],
  ),
  heads: frame('heads', 'Each ping interval: where your rooms stand.', {
    rooms: { type: 'object', additionalProperties: { type: 'array', items: whole, minItems: 2, maxItems: 2 } },
  }),
  lag: frame('lag', 'You were too slow: these offsets are skipped, `range` has them.', { room, from: offset, to: offset }),
  drain: frame('drain', 'This process ends: connect again after `retryMs`.', { retryMs: whole }),
};

export const SERVER_FRAMES: Readonly<Record<string, FrameSchema>> = { ...ANSWER_FRAMES, ...ENTRY_FRAMES, ...NEWS_FRAMES };

/** `docs/chat-frames.json`. */
export const chatFrameReference = () => ({
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'What a server of veza.chat.v1 sends',
  oneOf: Object.keys(SERVER_FRAMES).map((t) => ({ $ref: `#/$defs/${t}` })),
  $defs: SERVER_FRAMES,
});
