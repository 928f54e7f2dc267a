/**
 * A user's id, wherever one is named: in tokens, in chat frames, in paths of the API
 * (percent-encoded, RFC 3986 2.1) and in the database. An account's id is its UUID. A person whom
 * another system vouches for is `gateway:{sub}` or `issuer:{issuer}:{sub}`. A token whose id would
 * be invalid is refused, so that a moderator can name everybody who can write.
 */

/** Characters (code points) of a subject, at most. OpenID Connect Core 2 allows 255. */
const MAX_SUBJECT_CHARS = 255;
/**
 * UTF-16 code units of an id, at most; the room log accepts no longer one. A subject has at most
 * 1,020 bytes of UTF-8 and its prefix is ASCII, so that an id stays below the 2,704 bytes that a
 * row of a PostgreSQL index can hold.
 */
export const MAX_USER_ID_LENGTH = 1024;

/**
 * PostgreSQL cannot store U+0000, UTF-8 cannot carry half a surrogate pair, and other control
 * characters would break log lines.
 */
const SUBJECT = new RegExp(`^[^\\p{Cc}\\p{Cs}]{1,${MAX_SUBJECT_CHARS}}$`, 'u');
const USER_ID = /^[^\p{Cc}\p{Cs}]+$/u;

export const isUserId = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= MAX_USER_ID_LENGTH && USER_ID.test(value);

/**
 * The id for an issuer's `subject`; `prefix` stands for the issuer. Returns undefined when the id
 * would be invalid.
 */
export function userIdOf(prefix: string, subject: unknown): string | undefined {
  if (typeof subject !== 'string' || !SUBJECT.test(subject)) return undefined;
  const id = `${prefix}:${subject}`;
  return isUserId(id) ? id : undefined;
}
