import { VezaError } from '../../runtime/errors.js';

/** RFC 5321 4.5.3.1: a path has at most 256 octets, two of them its brackets. */
export const MAX_EMAIL_BYTES = 254;

/**
 * No space, no control or format character, and no character with a meaning in a mail header: an
 * address cannot end a header line.
 */
const ADDRESS = /^[^\s\p{C}@<>()[\]\\,;:"]{1,64}@[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}.-]*[\p{L}\p{M}\p{N}])?$/u;

export interface EmailAddress {
  /** The address that is shown, and that mails go to. */
  readonly shown: string;
  /** The address that is compared: `Ann@Example.org` and `ann@example.org` are one account. */
  readonly key: string;
}

/**
 * Checks an e-mail address. The text is normalised (NFKC) before the check, so that a full-width
 * `＠` or `，` is refused like its ASCII form. Throws `bad_request`.
 */
export function emailAddress(given: string): EmailAddress {
  const shown = given.length > MAX_EMAIL_BYTES ? '' : given.trim().normalize('NFKC');
  const key = shown.toLowerCase().normalize('NFKC');
  if (Buffer.byteLength(shown) > MAX_EMAIL_BYTES || !ADDRESS.test(shown) || !ADDRESS.test(key) || shown.includes('..')) {
    throw new VezaError('bad_request', `This is not an e-mail address of at most ${MAX_EMAIL_BYTES} characters.`, {
      details: { at: 'body.email' },
    });
  }
  return { shown, key };
}
