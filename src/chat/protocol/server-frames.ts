import { ERROR_CODES, ROOM_ROLES } from './protocol.js';
import { type FrameSchema, frameSchema } from './schema.js';

/**
 * What a server of `veza.chat.v1` sends, as JSON Schema (2020-12), by `t`. docs/chat-frames.json is made from it
 * (`veza chat frames`), and the tests hold every frame against it. A client ignores members and entries that it does not know.
 */

const text = { type: 'string' };
const whole = { type: 'integer', minimum: 0 };
const id = { type: 'string', minLength: 1, maxLength: 64, description: 'yours, of the request' };
const room = { type: 'string', description: 'its id', pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' };
const mid = { type: 'string', description: 'id of a message', pattern: '^[A-Za-z0-9_-]{22}$' };
const offset = { ...whole, description: 'place in the room' };
const epoch = { ...whole, description: 'that the room has now, also of what is older' };
const atMs = { ...whole, description: 'ms since 1970' };
const orNull = (schema: object) => ({ anyOf: [schema, { type: 'null' }] });
const role = { enum: [...ROOM_ROLES] };
const user = {
  type: 'object',
  description: 'who wrote it, as he was then',
  properties: { id: { ...text, description: 'for `mod`, and for paths of the API (percent-encoded)' }, name: text, role },
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
  moderate: { enum: ['yes', 'no', 'second-factor'], description: '`second-factor`: yes, once you have signed in with one' },
  timeoutUntil: orNull(atMs),
  warnings: { ...whole, description: 'that you have not seen: `GET /rooms/{slug}/me` has them' },
};
const place = { room, epoch, offset, at: atMs };
const by = {
  type: 'object',
  description: 'who did it',
  properties: { id: text, name: text },
  required: ['id', 'name'],
  additionalProperties: false,
};
const person = { ...by, description: 'about whom' };
const settings = {
  type: 'object',
  description: 'modes that are in force, as `PATCH /rooms/{slug}` has them; whoever moderates is told all settings by `joined`',
  properties: {
    slowS: { ...whole, description: 'seconds between two messages of one person; 0: off' },
    slowExempt: { type: 'array', items: role, description: 'roles that slow mode does not hold up' },
    followersMin: { ...whole, description: 'minutes that an account must be old to write; 0: off' },
    unique: { type: 'boolean', description: 'nothing that was said here within the last hour' },
    emoteOnly: { type: 'boolean', description: 'emoji and spaces alone' },
    shield: { type: 'boolean', description: 'stricter in all of it' },
    guests: { enum: ['read', 'none'] },
    perS: { ...whole, description: 'messages a second of one person' },
    burst: { ...whole, description: 'messages at once of one person' },
  },
  required: ['slowS', 'slowExempt', 'followersMin', 'unique', 'emoteOnly', 'shield', 'guests', 'perS', 'burst'],
  additionalProperties: true,
};
const body = {
  type: 'object',
  properties: {
    text,
    reply: { ...mid, description: 'what it replies to' },
    mentions: { type: 'array', items: text, maxItems: 20, description: 'ids of users' },
  },
  required: ['text'],
  additionalProperties: true,
};

/** Entries of a room's log: each has a place there, and an unknown one takes its place too. */
export const ENTRY_FRAMES: Readonly<Record<string, FrameSchema>> = {
  msg: frameSchema(
    'msg',
    'A message. `key` is in its author’s copy alone. `sentAt`: it was held, and said then.',
    { ...place, mid, user, body, key: text, sentAt: atMs },
    ['key', 'sentAt'],
    true,
  ),
  del: frameSchema(
    'del',
    'Messages are deleted: those of `mids`, which stand at `offsets`, or all that `user` has said up to `upTo`.',
    {
      ...place,
      mids: { type: 'array', items: mid, maxItems: 100 },
      offsets: { type: 'array', items: whole, maxItems: 100 },
      user: { ...text, description: 'id of a user' },
      upTo: { ...offset, description: 'inclusive, and never above this entry' },
      by,
    },
    ['mids', 'offsets', 'user', 'upTo'],
    true,
  ),
  act: frameSchema(
    'act',
    'Something was decided about the room or a person in it. Reasons, warnings and shadow bans are not told.',
    {
      ...place,
      action: {
        ...text,
        description:
          '`timeout`, `untimeout`, `ban`, `unban`: of `user`. `slow`, `followers`, `unique`, `emoteOnly`, `shield`, `settings`: `settings` are others',
      },
      user: person,
      until: { ...atMs, description: 'ms since 1970; a ban without it is for good' },
      settings,
      by,
    },
    ['user', 'until', 'settings'],
    true,
  ),
  pin: frameSchema(
    'pin',
    'What is pinned from now on.',
    {
      ...place,
      mid: orNull({ ...mid, description: 'null: nothing' }),
      messageOffset: { ...offset, description: 'where the message stands' },
      by,
    },
    ['messageOffset'],
    true,
  ),
  now: frameSchema('now', 'What is playing.', { ...place, title: text, artist: text }, ['artist'], true),
  gone: frameSchema('gone', 'There was something, and it is erased.', place, [], true),
};

const ANSWER_FRAMES: Readonly<Record<string, FrameSchema>> = {
  welcome: frameSchema('welcome', 'Answers `hello`. `user` null: a guest.', {
    session: text,
    user: orNull({
      type: 'object',
      description: 'null: a guest',
      properties: { id: text, name: text },
      required: ['id', 'name'],
      additionalProperties: false,
    }),
    expiresAt: orNull({ ...atMs, description: 'ms since 1970; send `auth` before. Null: it does not end by itself' }),
    expiresInMs: orNull({ ...whole, description: 'how long the token lasts from now on: your clock may be another' }),
    limits: {
      type: 'object',
      properties: {
        textBytes: { ...whole, description: 'of UTF-8, of one message' },
        rooms: { ...whole, description: 'joined at a time' },
        pubsInFlight: { ...whole, description: '`pub` without an answer' },
        framesPerS: { ...whole, description: 'of an account to a process' },
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
    pingMs: { ...whole, description: 'between two `heads`' },
  }),
  ok: frameSchema(
    'ok',
    'Answers `auth` (`expiresAt`), `leave`, `react`, `mod` (`result`).',
    {
      id,
      expiresAt: orNull(atMs),
      expiresInMs: orNull(whole),
      result: { type: 'object', description: 'of `mod`: `offset` of the entry that tells the room, where there is one' },
    },
    ['expiresAt', 'expiresInMs', 'result'],
  ),
  joined: frameSchema('joined', 'Answers `join`. `offset` is where you stand with `entries`; what comes after it follows by itself.', {
    id,
    room,
    channel: orNull({ ...text, description: 'its slug' }),
    epoch,
    offset: { ...offset, description: 'where you stand with `entries`' },
    recovered: { enum: ['none', 'full', 'partial'], description: 'see "Resuming"' },
    entries: { type: 'array', maxItems: 50, items: { type: 'object', required: ['t', 'room', 'epoch', 'offset'] } },
    members: { ...whole, description: 'how many are here' },
    settings,
    pinned: orNull({
      type: 'object',
      properties: { mid, offset, user, body: { type: 'object' }, at: atMs },
      required: ['mid', 'offset', 'user', 'body', 'at'],
      additionalProperties: false,
    }),
    you: { type: 'object', properties: you, required: Object.keys(you), additionalProperties: false },
  }),
  ack: frameSchema('ack', 'The message is in PostgreSQL, at this place.', {
    id,
    room,
    mid,
    epoch,
    offset,
    dup: { type: 'boolean', description: 'it was there already' },
  }),
  held: frameSchema('held', 'The message waits for a moderator. It is written down: do not send it again.', { id, mid }),
  refused: frameSchema('refused', 'The message is refused for good.', {
    id,
    mid,
    code: { ...text, description: 'see below' },
    reason: { ...text, description: 'for people' },
  }),
  page: frameSchema('page', 'Answers `history` and `range`. `more`: there is more in the direction that was asked for.', {
    id,
    room,
    epoch,
    entries: { type: 'array', maxItems: 100, items: { type: 'object', required: ['t', 'room', 'epoch', 'offset'] } },
    more: { type: 'boolean' },
  }),
  err: frameSchema(
    'err',
    'A request was not done, and why. Without `id`: of a frame that had none, or had one that is not good.',
    {
      id,
      code: { enum: Object.keys(ERROR_CODES) },
      message: { ...text, description: 'for people' },
      retryMs: { ...whole, description: 'try again after it' },
    },
    ['id', 'retryMs'],
  ),
};

const NEWS_FRAMES: Readonly<Record<string, FrameSchema>> = {
  reset: frameSchema('reset', 'A new epoch: drop what you hold above `keep`, go on at keep + 1.', { room, epoch, keep: offset }),
  reacts: frameSchema('reacts', 'Reactions to some messages.', { room, counts }),
  members: frameSchema('members', 'How many are in the room.', { room, count: whole }),
  channel: frameSchema(
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
  you: frameSchema('you', 'What you are in the room is another.', { room, ...you }),
  left: frameSchema(
    'left',
    'You were put out of the room. `until`: of a ban that ends.',
    { room, code: { enum: ['banned', 'deleted', 'private'] }, until: atMs },
    ['until'],
  ),
  heads: frameSchema('heads', 'Each ping interval: where your rooms stand.', {
    rooms: { type: 'object', additionalProperties: { type: 'array', items: whole, minItems: 2, maxItems: 2 } },
  }),
  lag: frameSchema('lag', 'You were too slow: these offsets are skipped, `range` has them.', { room, from: offset, to: offset }),
  drain: frameSchema('drain', 'This process ends: connect again after `retryMs`.', { retryMs: whole }),
};

export const SERVER_FRAMES: Readonly<Record<string, FrameSchema>> = { ...ANSWER_FRAMES, ...ENTRY_FRAMES, ...NEWS_FRAMES };

/** `docs/chat-frames.json`. */
export const chatFrameReference = () => ({
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'What a server of veza.chat.v1 sends',
  oneOf: Object.keys(SERVER_FRAMES).map((t) => ({ $ref: `#/$defs/${t}` })),
  $defs: SERVER_FRAMES,
});
