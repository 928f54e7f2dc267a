import {
  MAX_ADDRESS_BAN_S,
  MAX_BAN_S,
  MAX_REASON_CHARS,
  MAX_TERM_LENGTH,
  MAX_TERMS,
  MAX_TIMEOUT_S,
  MAX_WARNING_CHARS,
  type ModAction,
} from '../moderation/mod-actions.js';
import type { ClientFrame } from './protocol.js';
import type { FrameSchema } from './server-frames.js';

/** What a client of `veza.chat.v1` sends, as JSON Schema: docs/chat.md shows it, and a test holds it against what is taken. */
const text = (most: number, description: string) => ({ type: 'string', minLength: 1, maxLength: most, description });
const whole = (least: number, most: number, description: string) => ({ type: 'integer', minimum: least, maximum: most, description });
const id = text(64, 'made by you; the answer has it');
const room = { type: 'string', description: 'the id that `joined` gave, or the slug of its channel' };
const mid = { type: 'string', pattern: '^[A-Za-z0-9_-]{22}$', description: 'id of a message' };
const user = text(1024, 'id of a user, as messages have it; no control characters');
const reason = text(MAX_REASON_CHARS, 'one line, for the person and for those who moderate');
const place = (description: string) => whole(1, Number.MAX_SAFE_INTEGER, description);
const on = { type: 'boolean' };

const frame = (t: string, description: string, properties: Record<string, object>, optional: readonly string[] = []): FrameSchema => ({
  description,
  type: 'object',
  properties: { t: { const: t }, ...properties },
  required: ['t', ...Object.keys(properties).filter((name) => !optional.includes(name))],
  additionalProperties: true,
});

export const CLIENT_FRAMES: Readonly<Record<ClientFrame['t'], FrameSchema>> = {
  hello: frame(
    'hello',
    'First, within five seconds. No `id`: `welcome` answers it, or a close.',
    { token: text(8192, 'none: a guest'), client: { type: 'string', maxLength: 100, description: 'what you are' } },
    ['token', 'client'],
  ),
  auth: frame('auth', 'A fresh token of the same person, before the one of now ends. `ok` answers it.', {
    id,
    token: text(8192, 'the fresh one'),
  }),
  join: frame(
    'join',
    '`joined` answers it. Joining a room again begins anew in it.',
    {
      id,
      room,
      since: {
        type: 'object',
        description: 'to resume: the epoch you know and your last offset',
        properties: { epoch: whole(0, Number.MAX_SAFE_INTEGER, ''), offset: whole(0, Number.MAX_SAFE_INTEGER, '') },
        required: ['epoch', 'offset'],
      },
      link: { type: 'string', maxLength: 200, description: 'token of a playback link, for a private channel' },
    },
    ['since', 'link'],
  ),
  leave: frame('leave', '`ok` answers it. Joins that you sent before it are done first.', { id, room }),
  pub: frame('pub', '`ack`, `held`, `refused` or `err` answers it.', {
    id,
    room,
    key: text(64, 'new for each message, the same for each try; no control characters'),
    body: {
      type: 'object',
      properties: {
        text: { type: 'string', description: 'at most `limits.textBytes`, not only spaces' },
        reply: { ...mid, description: '`mid` of what it replies to' },
        mentions: { type: 'array', items: user, maxItems: 20, description: 'ids of users' },
      },
      required: ['text'],
      additionalProperties: false,
    },
  }),
  react: frame('react', '`ok` answers it; the counts come with `reacts`.', { id, room, mid, emoji: text(32, 'one emoji'), on }),
  history: frame(
    'history',
    'Older entries; `page` answers it.',
    { id, room, before: place('an offset, exclusive; none: the newest'), limit: whole(1, 100, 'none: 50') },
    ['before', 'limit'],
  ),
  range: frame('range', 'A hole; `page` answers it.', {
    id,
    room,
    from: place('an offset, inclusive'),
    to: place('inclusive, not below `from`'),
  }),
  mod: frame('mod', 'Of whoever moderates; `ok` answers it. What else is in it goes by `action`, see below.', {
    id,
    room,
    action: { type: 'string', description: 'one of those below' },
  }),
};

/** Members of `mod` by `action`, beside `t`, `id`, `room`. */
export const MOD_FRAMES: Readonly<Record<ModAction['action'], FrameSchema>> = {
  delete: frame('mod', 'Deletes a message.', { mid }),
  purge: frame('mod', 'Deletes everything that somebody has said here so far.', { user }),
  timeout: frame('mod', 'He reads and does not write; in place of one that runs.', { user, seconds: whole(1, MAX_TIMEOUT_S, ''), reason }, [
    'reason',
  ]),
  untimeout: frame('mod', 'Ends a timeout.', { user }),
  ban: frame(
    'mod',
    'Puts him out, in place of a ban that is in force.',
    {
      user,
      seconds: whole(1, MAX_BAN_S, 'none: for good'),
      addressSeconds: whole(1, MAX_ADDRESS_BAN_S, 'bans where he wrote from of late as well'),
      purge: { type: 'boolean', description: 'deletes everything that he has said so far' },
      reason,
    },
    ['seconds', 'addressSeconds', 'purge', 'reason'],
  ),
  shadowBan: frame('mod', 'He writes on, and nobody else sees it.', { user, seconds: whole(1, MAX_BAN_S, 'none: for good'), reason }, [
    'seconds',
    'reason',
  ]),
  unban: frame('mod', 'Lifts either ban.', { user }),
  warn: frame('mod', 'A warning that he alone sees.', { user, text: text(MAX_WARNING_CHARS, 'one line') }),
  slow: frame('mod', 'Slow mode.', { seconds: whole(0, 3600, '0: off') }),
  followers: frame('mod', 'How old an account must be to write.', { minutes: whole(0, 525_600, '0: off') }),
  unique: frame('mod', 'Nothing that was said within the last hour.', { on }),
  emoteOnly: frame('mod', 'Emoji and spaces alone.', { on }),
  shield: frame('mod', 'Stricter in all of it.', { on }),
  pin: frame('mod', 'Shows a message above the others.', { mid: { anyOf: [mid, { type: 'null' }], description: 'null: none' } }),
  approve: frame('mod', 'Publishes a message that was held.', { mid }),
  deny: frame('mod', 'Does not.', { mid, reason }, ['reason']),
  terms: frame(
    'mod',
    'Replaces both lists of terms.',
    {
      blocked: { type: 'array', items: text(MAX_TERM_LENGTH, ''), maxItems: MAX_TERMS, description: 'refused here' },
      allowed: { type: 'array', items: text(MAX_TERM_LENGTH, ''), maxItems: MAX_TERMS, description: 'no fault here; none: none' },
    },
    ['allowed'],
  ),
};
