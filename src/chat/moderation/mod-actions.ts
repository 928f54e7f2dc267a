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
 * What a moderator can do, over REST or by a `mod` frame. `ACTIONS` is the only description of it: the type `ModAction`, the
 * parser, the JSON Schema and the tables of docs/chat.md are derived.
 */

export const MAX_REASON_CHARS = 300;
export const MAX_WARNING_CHARS = 500;
export const MAX_TIMEOUT_S = 14 * 86_400;
export const MAX_BAN_S = 10 * 365 * 86_400;
/** Shorter than a ban of an account, because addresses change hands. */
export const MAX_ADDRESS_BAN_S = 30 * 86_400;
export { MAX_TERM_LENGTH, MAX_TERMS };

/** Text that PostgreSQL stores and that stays on its line. */
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

const pinnedMid = field<string | null>({ anyOf: [mid.schema, { type: 'null' }], description: 'null: none' }, (value, name, limits) =>
  value === null ? null : mid.read(value, name, limits),
);

/** A field that is left out of the action when it is missing. */
interface Omittable<T> extends FrameField<T | undefined> {
  readonly isOmitted: true;
}
const omittable = <T>(of: FrameField<T>): Omittable<T> => ({
  ...of,
  isOptional: true,
  isOmitted: true,
  read: (value, name, limits) => (value === undefined ? undefined : of.read(value, name, limits)),
});

const reason = omittable(line(MAX_REASON_CHARS, 'one line, for the person and for those who moderate'));
const banSeconds = omittable(wholeNumber(1, MAX_BAN_S, 'none: for good'));
const user = userId;
const on = flag();
const describe = <F extends Fields>(description: string, fields: F) => ({ description, fields });

const ACTIONS = {
  delete: describe('Deletes a message.', { mid }),
  purge: describe('Deletes everything that somebody has said here so far.', { user }),
  timeout: describe('He reads and does not write; in place of one that runs.', { user, seconds: wholeNumber(1, MAX_TIMEOUT_S), reason }),
  untimeout: describe('Ends a timeout.', { user }),
  ban: describe('Puts him out, in place of a ban that is in force.', {
    user,
    seconds: banSeconds,
    addressSeconds: omittable(wholeNumber(1, MAX_ADDRESS_BAN_S, 'bans where he wrote from of late as well')),
    purge: omittable(flag('deletes everything that he has said so far')),
    reason,
  }),
  shadowBan: describe('He writes on, and nobody else sees it.', { user, seconds: banSeconds, reason }),
  unban: describe('Lifts either ban.', { user }),
  warn: describe('A warning that he alone sees.', { user, text: line(MAX_WARNING_CHARS, 'one line') }),
  slow: describe('Slow mode.', { seconds: wholeNumber(0, 3600, '0: off') }),
  followers: describe('How old an account must be to write.', { minutes: wholeNumber(0, 525_600, '0: off') }),
  unique: describe('Nothing that was said within the last hour.', { on }),
  emoteOnly: describe('Emoji and spaces alone.', { on }),
  shield: describe('Stricter in all of it.', { on }),
  pin: describe('Shows a message above the others.', { mid: pinnedMid }),
  approve: describe('Publishes a message that was held.', { mid }),
  deny: describe('Does not.', { mid, reason }),
  terms: describe('Replaces both lists of terms.', {
    blocked: terms('refused here'),
    allowed: optionalField(terms('no fault here; none: none'), [] as readonly string[]),
  }),
} as const;

type OmittableNames<F extends Fields> = { [name in keyof F]: F[name] extends Omittable<unknown> ? name : never }[keyof F];
type ActionOf<A extends keyof typeof ACTIONS, F extends Fields = (typeof ACTIONS)[A]['fields']> = { readonly action: A } & {
  readonly [name in Exclude<keyof F, OmittableNames<F>>]: ReturnType<F[name]['read']>;
} & { readonly [name in OmittableNames<F>]?: Exclude<ReturnType<F[name]['read']>, undefined> };
export type ModAction = { [A in keyof typeof ACTIONS]: ActionOf<A> }[keyof typeof ACTIONS];

/** The members of `mod` by `action` as JSON Schema, beside `t`, `id` and `room`. */
export const MOD_FRAMES: Readonly<Record<string, FrameSchema>> = Object.fromEntries(
  Object.entries(ACTIONS).map(([action, { description, fields }]) => [action, schemaOf('mod', description, fields)]),
);

/** Parses the members of a `mod` frame. Throws `bad_request`, which names the wrong member. */
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
