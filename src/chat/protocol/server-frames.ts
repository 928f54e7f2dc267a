import { ERROR_CODES, ROOM_ROLES } from './protocol.js';
import { type FrameSchema, frameSchema } from './schema.js';

/**
 * The frames of a server of `veza.chat.v1` as JSON Schema (2020-12), by `t`. docs/chat-frames.json
 * is made from them (`veza chat frames`), and the tests check every frame against them. A client
 * ignores members and entries that it does not know.
 */

const text = { type: 'string' };
const whole = { type: 'integer', minimum: 0 };
const id = { type: 'string', minLength: 1, maxLength: 64, description: 'from the request' };
const room = { type: 'string', description: 'id of the room', pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' };
const mid = { type: 'string', description: 'id of a message', pattern: '^[A-Za-z0-9_-]{22}$' };
const offset = { ...whole, description: 'offset in the room' };
const epoch = { ...whole, description: 'the present epoch of the room, also for older entries' };
const atMs = { ...whole, description: 'ms since 1970' };
const orNull = (schema: object) => ({ anyOf: [schema, { type: 'null' }] });
const role = { enum: [...ROOM_ROLES] };
const user = {
  type: 'object',
  description: 'the author, with name and role at that time',
  properties: { id: { ...text, description: 'for `mod` and for API paths (percent-encoded)' }, name: text, role },
  required: ['id', 'name', 'role'],
  additionalProperties: false,
};
const counts = {
  type: 'object',
  description: 'absolute counts by mid and emoji; an emoji that is missing has none',
  additionalProperties: { type: 'object', additionalProperties: whole },
};
const you = {
  role,
  write: { type: 'boolean', description: 'false for a guest and for an API key that may only read' },
  moderate: { enum: ['yes', 'no', 'second-factor'], description: '`second-factor`: yes, after signing in with a second factor' },
  timeoutUntil: orNull(atMs),
  warnings: { ...whole, description: 'number of unseen warnings; `GET /rooms/{slug}/me` lists them' },
};
const place = { room, epoch, offset, at: atMs };
const by = {
  type: 'object',
  description: 'the moderator',
  properties: { id: text, name: text },
  required: ['id', 'name'],
  additionalProperties: false,
};
const person = { ...by, description: 'the user it is about' };
const settings = {
  type: 'object',
  description: 'the modes in force, as in `PATCH /rooms/{slug}`; moderators get all settings with `joined`',
  properties: {
    slowS: { ...whole, description: 'seconds between two messages of one user; 0: off' },
    slowExempt: { type: 'array', items: role, description: 'roles that slow mode does not apply to' },
    followersMin: { ...whole, description: 'minutes that an account must be old to write; 0: off' },
    unique: { type: 'boolean', description: 'texts that were published here within the last hour are refused' },
    emoteOnly: { type: 'boolean', description: 'only emoji and spaces are allowed' },
    shield: { type: 'boolean', description: 'all settings are raised against a raid' },
    guests: { enum: ['read', 'none'] },
    perS: { ...whole, description: 'messages per second of one user' },
    burst: { ...whole, description: 'messages at once of one user' },
  },
  required: ['slowS', 'slowExempt', 'followersMin', 'unique', 'emoteOnly', 'shield', 'guests', 'perS', 'burst'],
  additionalProperties: true,
};
const body = {
  type: 'object',
  properties: {
    text,
    reply: { ...mid, description: '`mid` of the message that it replies to' },
    mentions: { type: 'array', items: text, maxItems: 20, description: 'ids of users' },
  },
  required: ['text'],
  additionalProperties: true,
};

/**
 * Frames that are entries of a room's log. Each has an offset; a client counts the offset of an
 * unknown one too.
 */
export const ENTRY_FRAMES: Readonly<Record<string, FrameSchema>> = {
  msg: frameSchema(
    'msg',
    'A message. Only its author gets `key`. `sentAt`: when the author sent it, if it was held and approved.',
    { ...place, mid, user, body, key: text, sentAt: atMs },
    ['key', 'sentAt'],
    true,
  ),
  del: frameSchema(
    'del',
    'Messages were deleted: those in `mids`, at `offsets`, or all messages of `user` up to `upTo`.',
    {
      ...place,
      mids: { type: 'array', items: mid, maxItems: 100 },
      offsets: { type: 'array', items: whole, maxItems: 100 },
      user: { ...text, description: 'id of a user' },
      upTo: { ...offset, description: 'inclusive, never above this entry' },
      by,
    },
    ['mids', 'offsets', 'user', 'upTo'],
    true,
  ),
  act: frameSchema(
    'act',
    'A moderation decision about the room or a user. Reasons, warnings and shadow bans are not sent.',
    {
      ...place,
      action: {
        ...text,
        description:
          '`timeout`, `untimeout`, `ban`, `unban`: of `user`. `slow`, `followers`, `unique`, `emoteOnly`, `shield`, `settings`: `settings` has the new settings',
      },
      user: person,
      until: { ...atMs, description: 'ms since 1970; a ban without it has no end' },
      settings,
      by,
    },
    ['user', 'until', 'settings'],
    true,
  ),
  pin: frameSchema(
    'pin',
    'The pinned message has changed.',
    {
      ...place,
      mid: orNull({ ...mid, description: 'null: no message is pinned' }),
      messageOffset: { ...offset, description: 'offset of the message' },
      by,
    },
    ['messageOffset'],
    true,
  ),
  now: frameSchema('now', 'The title that is playing now.', { ...place, title: text, artist: text }, ['artist'], true),
  gone: frameSchema('gone', 'An erased entry.', place, [], true),
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
    expiresAt: orNull({ ...atMs, description: 'when the token ends, ms since 1970; send `auth` before. Null: it has no end' }),
    expiresInMs: orNull({ ...whole, description: 'how long the token is still valid, for clients whose clock differs' }),
    limits: {
      type: 'object',
      properties: {
        textBytes: { ...whole, description: 'bytes of UTF-8 in one message' },
        rooms: { ...whole, description: 'rooms joined at a time' },
        pubsInFlight: { ...whole, description: 'unanswered `pub` frames' },
        framesPerS: { ...whole, description: 'frames per second of one account to one process' },
        framesBurst: whole,
        pubsPerS: {
          type: 'number',
          exclusiveMinimum: 0,
          description: 'messages per second in one room; above it, and above `pubsBurst` at once, they are `rate_limited`',
        },
        pubsBurst: whole,
      },
      required: ['textBytes', 'rooms', 'pubsInFlight', 'framesPerS', 'framesBurst'],
      additionalProperties: false,
    },
    pingMs: { ...whole, description: 'interval of `heads`' },
  }),
  ok: frameSchema(
    'ok',
    'Answers `auth` (`expiresAt`), `leave`, `react`, `mod` (`result`).',
    {
      id,
      expiresAt: orNull(atMs),
      expiresInMs: orNull(whole),
      result: { type: 'object', description: 'of `mod`: `offset` of the entry that informs the room, if there is one' },
    },
    ['expiresAt', 'expiresInMs', 'result'],
  ),
  joined: frameSchema('joined', 'Answers `join`. After `entries` the client is at `offset`; later entries are sent as they come.', {
    id,
    room,
    channel: orNull({ ...text, description: 'slug of the channel' }),
    epoch,
    offset: { ...offset, description: 'the client’s position after `entries`' },
    recovered: { enum: ['none', 'full', 'partial'], description: 'see "Resuming"' },
    entries: { type: 'array', maxItems: 50, items: { type: 'object', required: ['t', 'room', 'epoch', 'offset'] } },
    members: { ...whole, description: 'members in the room' },
    settings,
    pinned: orNull({
      type: 'object',
      properties: { mid, offset, user, body: { type: 'object' }, at: atMs },
      required: ['mid', 'offset', 'user', 'body', 'at'],
      additionalProperties: false,
    }),
    you: { type: 'object', properties: you, required: Object.keys(you), additionalProperties: false },
  }),
  ack: frameSchema('ack', 'The message is in PostgreSQL, at this offset.', {
    id,
    room,
    mid,
    epoch,
    offset,
    dup: { type: 'boolean', description: 'true: it was stored before' },
  }),
  held: frameSchema('held', 'The message waits for a moderator. It is stored: do not send it again.', { id, mid }),
  refused: frameSchema('refused', 'The message is refused for good.', {
    id,
    mid,
    code: { ...text, description: 'see below' },
    reason: { ...text, description: 'for people' },
  }),
  page: frameSchema('page', 'Answers `history` and `range`. `more`: there are more entries in the requested direction.', {
    id,
    room,
    epoch,
    entries: { type: 'array', maxItems: 100, items: { type: 'object', required: ['t', 'room', 'epoch', 'offset'] } },
    more: { type: 'boolean' },
  }),
  err: frameSchema(
    'err',
    'A request failed. Without `id`: the frame had none, or an invalid one.',
    {
      id,
      code: { enum: Object.keys(ERROR_CODES) },
      message: { ...text, description: 'for people' },
      retryMs: { ...whole, description: 'send it again after this' },
    },
    ['id', 'retryMs'],
  ),
};

const NEWS_FRAMES: Readonly<Record<string, FrameSchema>> = {
  reset: frameSchema('reset', 'The room has a new epoch: drop the entries above `keep` and go on at keep + 1.', {
    room,
    epoch,
    keep: offset,
  }),
  reacts: frameSchema('reacts', 'New reaction counts of some messages.', { room, counts }),
  members: frameSchema('members', 'The number of members in the room.', { room, count: whole }),
  channel: frameSchema(
    'channel',
    'The on-air state of the room’s channel: sent after `joined` and when it changes, if the server knows it.',
    {
      room,
      state: {
        enum: ['offline', 'live', 'holding'],
        description: '`holding`: the broadcaster’s connection is lost, and listeners hear the fill',
      },
      listeners: { ...whole, description: 'an estimate; sent every 20 s when nothing else changes' },
      startedAt: orNull({ ...atMs, description: 'start of the broadcast, ms since 1970' }),
      nowPlaying: orNull({
        type: 'object',
        properties: { title: text, artist: text, startedAt: atMs },
        required: ['title', 'startedAt'],
        additionalProperties: false,
      }),
    },
  ),
  you: frameSchema('you', 'The client’s role or rights in the room have changed.', { room, ...you }),
  left: frameSchema(
    'left',
    'The server has removed the client from the room. `until`: when the ban ends.',
    { room, code: { enum: ['banned', 'deleted', 'private'] }, until: atMs },
    ['until'],
  ),
  heads: frameSchema('heads', 'Sent every ping interval: epoch and newest offset of each joined room.', {
    rooms: { type: 'object', additionalProperties: { type: 'array', items: whole, minItems: 2, maxItems: 2 } },
  }),
  lag: frameSchema('lag', 'The client was too slow: these offsets were skipped. Fetch them with `range`.', {
    room,
    from: offset,
    to: offset,
  }),
  drain: frameSchema('drain', 'The server process ends: connect again after `retryMs`.', { retryMs: whole }),
};

export const SERVER_FRAMES: Readonly<Record<string, FrameSchema>> = { ...ANSWER_FRAMES, ...ENTRY_FRAMES, ...NEWS_FRAMES };

/** `docs/chat-frames.json`. */
export const chatFrameReference = () => ({
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'The frames of a server of veza.chat.v1',
  oneOf: Object.keys(SERVER_FRAMES).map((t) => ({ $ref: `#/$defs/${t}` })),
  $defs: SERVER_FRAMES,
});
