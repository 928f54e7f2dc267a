import { VezaError } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';
import { isUserId } from '../../runtime/user-id.js';
import { checkTerms, MAX_TERM_LENGTH, MAX_TERMS } from '../automod/terms.js';

/** What a moderator does, by REST or by a `mod` frame. `user`: an id, as messages have it. */
export type ModAction =
  | { readonly action: 'delete'; readonly mid: string }
  /** Everything that the user has said here so far. */
  | { readonly action: 'purge'; readonly user: string }
  | { readonly action: 'timeout'; readonly user: string; readonly seconds: number; readonly reason?: string }
  | { readonly action: 'untimeout'; readonly user: string }
  | {
      readonly action: 'ban';
      readonly user: string;
      /** For good unless given. */
      readonly seconds?: number;
      /** Bans the address that the user wrote from of late as well, for so long. */
      readonly addressSeconds?: number;
      readonly purge?: boolean;
      readonly reason?: string;
    }
  /** The user goes on writing, and nobody else sees it. */
  | { readonly action: 'shadowBan'; readonly user: string; readonly seconds?: number; readonly reason?: string }
  /** Either ban. */
  | { readonly action: 'unban'; readonly user: string }
  | { readonly action: 'warn'; readonly user: string; readonly text: string }
  | { readonly action: 'slow'; readonly seconds: number }
  | { readonly action: 'followers'; readonly minutes: number }
  | { readonly action: 'unique' | 'emoteOnly' | 'shield'; readonly on: boolean }
  /** Null: nothing is pinned any more. */
  | { readonly action: 'pin'; readonly mid: string | null }
  | { readonly action: 'approve'; readonly mid: string }
  | { readonly action: 'deny'; readonly mid: string; readonly reason?: string }
  | { readonly action: 'terms'; readonly blocked: readonly string[]; readonly allowed: readonly string[] };

export const MAX_REASON_CHARS = 300;
export const MAX_WARNING_CHARS = 500;
export const MAX_TIMEOUT_S = 14 * 86_400;
export const MAX_BAN_S = 10 * 365 * 86_400;
/** Addresses change hands. */
export const MAX_ADDRESS_BAN_S = 30 * 86_400;
export { MAX_TERM_LENGTH, MAX_TERMS };

export const MID = /^[\w-]{22}$/;
/** Text that PostgreSQL takes and that stays on its line. */
export const LINE = /^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u;

type ModFrameFields = Readonly<Record<string, unknown>>;

/** Of a `mod` frame, whose members are what the client likes. Rejects with `bad_request` and says which member is wrong. */
export function parseModAction(frame: ModFrameFields): ModAction {
  const { action } = frame;
  switch (action) {
    case 'delete':
    case 'approve':
      return { action, mid: midIn(frame) };
    case 'pin':
      return { action, mid: frame.mid === null ? null : midIn(frame) };
    case 'deny':
      return { action, mid: midIn(frame), ...reasonIn(frame) };
    case 'purge':
    case 'untimeout':
    case 'unban':
      return { action, user: userIn(frame) };
    case 'timeout':
      return { action, user: userIn(frame), seconds: wholeIn(frame, 'seconds', 1, MAX_TIMEOUT_S), ...reasonIn(frame) };
    case 'ban':
      return {
        action,
        user: userIn(frame),
        ...(frame.seconds !== undefined && { seconds: wholeIn(frame, 'seconds', 1, MAX_BAN_S) }),
        ...(frame.addressSeconds !== undefined && { addressSeconds: wholeIn(frame, 'addressSeconds', 1, MAX_ADDRESS_BAN_S) }),
        ...(frame.purge !== undefined && { purge: switchIn(frame, 'purge') }),
        ...reasonIn(frame),
      };
    case 'shadowBan':
      return {
        action,
        user: userIn(frame),
        ...(frame.seconds !== undefined && { seconds: wholeIn(frame, 'seconds', 1, MAX_BAN_S) }),
        ...reasonIn(frame),
      };
    case 'warn':
      return { action, user: userIn(frame), text: textIn(frame, 'text', MAX_WARNING_CHARS) };
    case 'slow':
      return { action, seconds: wholeIn(frame, 'seconds', 0, 3600) };
    case 'followers':
      return { action, minutes: wholeIn(frame, 'minutes', 0, 525_600) };
    case 'unique':
    case 'emoteOnly':
    case 'shield':
      return { action, on: switchIn(frame, 'on') };
    case 'terms':
      return { action, blocked: termsIn(frame, 'blocked'), allowed: frame.allowed === undefined ? [] : termsIn(frame, 'allowed') };
    default:
      throw wrong('action', 'it is none of those that there are');
  }
}

const midIn = ({ mid }: ModFrameFields): string => {
  if (typeof mid !== 'string' || !MID.test(mid)) throw wrong('mid', 'the id of a message');
  return mid;
};

const userIn = ({ user }: ModFrameFields): string => {
  if (!isUserId(user)) throw wrong('user', 'the id of a user, as messages have it');
  return user;
};

const reasonIn = (frame: ModFrameFields): { reason?: string } =>
  frame.reason === undefined ? {} : { reason: textIn(frame, 'reason', MAX_REASON_CHARS) };

function textIn(frame: ModFrameFields, name: string, maxChars: number): string {
  const value = frame[name];
  const text = typeof value === 'string' && value.length <= 4 * maxChars ? value.trim() : '';
  if (text === '' || characterCount(text) > maxChars || !LINE.test(text)) throw wrong(name, `1 to ${maxChars} characters on one line`);
  return text;
}

function wholeIn(frame: ModFrameFields, name: string, least: number, most: number): number {
  const value = frame[name];
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most)
    throw wrong(name, `a whole number from ${least} to ${most}`);
  return value as number;
}

function switchIn(frame: ModFrameFields, name: string): boolean {
  const value = frame[name];
  if (typeof value !== 'boolean') throw wrong(name, 'true or false');
  return value;
}

function termsIn(frame: ModFrameFields, name: string): string[] {
  const value = frame[name];
  if (!Array.isArray(value) || value.length > MAX_TERMS) throw wrong(name, `a list of at most ${MAX_TERMS} terms`);
  const terms = [...new Set(value.map((term) => textIn({ [name]: term }, name, MAX_TERM_LENGTH)))];
  checkTerms(terms, name);
  return terms;
}

const wrong = (at: string, reason: string) => new VezaError('bad_request', `${at}: ${reason}.`, { details: { at } });
