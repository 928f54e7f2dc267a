import { VezaError } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';
import { checkTerms, MAX_TERM_LENGTH, MAX_TERMS } from '../automod/terms.js';
import { mid, userId } from '../protocol/client-frames.js';
import {
  FieldError,
  type Fields,
  type FrameField,
  type FrameSchema,
  field,
  flag,
  optionalField,
  schemaOf,
  wholeNumber,
} from '../protocol/schema.js';

/**
 * The actions of a moderator, over REST or in a `mod` frame. `ACTIONS` is their only description:
 * the type `ModAction`, the parser, the JSON Schema and the tables of docs/chat.md are derived from
 * it.
 */

export const MAX_REASON_CHARS = 300;
export const MAX_WARNING_CHARS = 500;
export const MAX_TIMEOUT_S = 14 * 86_400;
export const MAX_BAN_S = 10 * 365 * 86_400;
/** Shorter than the longest ban of an account, because addresses change hands. */
export const MAX_ADDRESS_BAN_S = 30 * 86_400;
export { MAX_TERM_LENGTH, MAX_TERMS };

/** One line of text that PostgreSQL can store. */
const LINE = /^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u;

const line = (maxChars: number, description: string): FrameField<string> =>
  field({ type: 'string', minLength: 1, maxLength: maxChars, description }, (value, name) => {
    const text = typeof value === 'string' && value.length <= 4 * maxChars ? value.trim() : '';
    if (text === '' || characterCount(text) > maxChars || !LINE.test(text))
      throw new FieldError(`${name}: 1 to ${maxChars} characters on one line.`);
    return text;
  });

const terms = (description: string): FrameField<readonly string[]> => {
  const term = line(MAX_TERM_LENGTH, '');
  return field({ type: 'array', items: term.schema, maxItems: MAX_TERMS, description }, (value, name, limits) => {
    if (!Array.isArray(value) || value.length > MAX_TERMS) throw new FieldError(`${name}: a list of at most ${MAX_TERMS} terms.`);
    const read = [...new Set(value.map((one) => term.read(one, name, limits)))];
    checkTerms(read, name);
    return read;
  });
};

const pinnedMid = field<string | null>({ anyOf: [mid.schema, { type: 'null' }], description: 'null: unpins' }, (value, name, limits) =>
  value === null ? null : mid.read(value, name, limits),
);

/** A field that the action does not contain when the frame does not. */
interface Omittable<T> extends FrameField<T | undefined> {
  readonly isOmitted: true;
}
const omittable = <T>(of: FrameField<T>): Omittable<T> => ({
  ...of,
  isOptional: true,
  isOmitted: true,
  read: (value, name, limits) => (value === undefined ? undefined : of.read(value, name, limits)),
});

const reason = omittable(line(MAX_REASON_CHARS, 'one line, for the user and the moderators'));
const banSeconds = omittable(wholeNumber(1, MAX_BAN_S, 'left out: the ban has no end'));
const user = userId;
const on = flag();
const describe = <F extends Fields>(description: string, fields: F) => ({ description, fields });

const ACTIONS = {
  delete: describe('Deletes a message.', { mid }),
  purge: describe('Deletes all messages of a user in the room so far.', { user }),
  timeout: describe('The user may read but not write. Replaces a timeout in force.', {
    user,
    seconds: wholeNumber(1, MAX_TIMEOUT_S),
    reason,
  }),
  untimeout: describe('Ends a timeout.', { user }),
  ban: describe('Removes the user from the room. Replaces a ban in force.', {
    user,
    seconds: banSeconds,
    addressSeconds: omittable(wholeNumber(1, MAX_ADDRESS_BAN_S, 'also bans the address that the user wrote from lately, for this long')),
    purge: omittable(flag('also deletes all messages of the user so far')),
    reason,
  }),
  shadowBan: describe('The user may go on writing, but nobody else sees the messages.', { user, seconds: banSeconds, reason }),
  unban: describe('Lifts a ban or shadow ban.', { user }),
  warn: describe('Warns the user. Only the user and the moderators see the warning.', { user, text: line(MAX_WARNING_CHARS, 'one line') }),
  slow: describe('Sets slow mode: the time between two messages of one user.', { seconds: wholeNumber(0, 3600, '0: off') }),
  followers: describe('Sets how old an account must be to write.', { minutes: wholeNumber(0, 525_600, '0: off') }),
  unique: describe('Refuses texts that were published in the room within the last hour.', { on }),
  emoteOnly: describe('Allows only emoji and spaces.', { on }),
  shield: describe('Raises all of these settings at once, against a raid.', { on }),
  pin: describe('Pins a message above the others.', { mid: pinnedMid }),
  approve: describe('Publishes a held message.', { mid }),
  deny: describe('Denies a held message.', { mid, reason }),
  terms: describe('Replaces both term lists.', {
    blocked: terms('refused in this room'),
    allowed: optionalField(terms('always allowed in this room; left out: none'), [] as readonly string[]),
  }),
} as const;

type OmittableNames<F extends Fields> = { [name in keyof F]: F[name] extends Omittable<unknown> ? name : never }[keyof F];
type ActionOf<A extends keyof typeof ACTIONS, F extends Fields = (typeof ACTIONS)[A]['fields']> = { readonly action: A } & {
  readonly [name in Exclude<keyof F, OmittableNames<F>>]: ReturnType<F[name]['read']>;
} & { readonly [name in OmittableNames<F>]?: Exclude<ReturnType<F[name]['read']>, undefined> };
export type ModAction = { [A in keyof typeof ACTIONS]: ActionOf<A> }[keyof typeof ACTIONS];

/** The members of `mod` by `action` as JSON Schema, without `t`, `id` and `room`. */
export const MOD_FRAMES: Readonly<Record<string, FrameSchema>> = Object.fromEntries(
  Object.entries(ACTIONS).map(([action, { description, fields }]) => [action, schemaOf('mod', description, fields)]),
);

/**
 * Parses the members of a `mod` frame. Throws `bad_request`; the message names the wrong member.
 */
export function parseModAction(frame: Readonly<Record<string, unknown>>): ModAction {
  const { action } = frame;
  if (typeof action !== 'string' || !Object.hasOwn(ACTIONS, action)) throw badMember('action', 'action: there is no such action.');
  const fields: Fields = ACTIONS[action as keyof typeof ACTIONS].fields;
  const parsed: Record<string, unknown> = { action };
  for (const [name, { read }] of Object.entries(fields)) {
    try {
      const value = read(frame[name], name, { maxTextBytes: Number.POSITIVE_INFINITY });
      if (value !== undefined) parsed[name] = value;
    } catch (error) {
      throw error instanceof FieldError ? badMember(name, error.message) : error;
    }
  }
  return parsed as unknown as ModAction;
}

const badMember = (at: string, message: string) => new VezaError('bad_request', message, { details: { at } });
