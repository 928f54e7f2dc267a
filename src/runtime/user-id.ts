/**
 * What a user's id is, wherever one is named: in tokens, in chat frames, in paths of the API (percent-encoded, RFC 3986 2.1) and in the database.
 * An account's id is its UUID; somebody whom another system vouches for is `gateway:{sub}` or `issuer:{issuer}:{sub}`. A token whose id would not be one
 * is refused, so that everybody who can write can be named by a moderator.
 */

/** Of a subject, in characters (code points). OpenID Connect Core 2 allows 255. */
const MAX_SUBJECT_CHARS = 255;
/**
 * Of an id, in UTF-16 code units: what the log of a room takes. A subject has at most 1,020 bytes of UTF-8 and what stands before it is ASCII, so that
 * an id stays below the 2,704 bytes that a row of a PostgreSQL index holds.
 */
export const MAX_USER_ID_LENGTH = 1024;

/** PostgreSQL takes no U+0000, UTF-8 no half of a surrogate pair, and other control characters break lines of a log. */
const SUBJECT = new RegExp(`^[^\\p{Cc}\\p{Cs}]{1,${MAX_SUBJECT_CHARS}}$`, 'u');
const USER_ID = /^[^\p{Cc}\p{Cs}]+$/u;

export const isUserId = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= MAX_USER_ID_LENGTH && USER_ID.test(value);

/** The id of whom an issuer calls `subject`; `prefix` stands for the issuer. Undefined: it is not one. */
export function userIdOf(prefix: string, subject: unknown): string | undefined {
  if (typeof subject !== 'string' || !SUBJECT.test(subject)) return undefined;
  const id = `${prefix}:${subject}`;
  return isUserId(id) ? id : undefined;
}
