import { VezaError } from '../../runtime/errors.js';

/** RFC 5321 4.5.3.1: a path is 256 octets, two of them its brackets. */
export const MAX_EMAIL_BYTES = 254;

/** No space, control or format character, and none that has a meaning in a header: nothing that is put into a mail can end a line of it. */
const ADDRESS = /^[^\s\p{C}@<>()[\]\\,;:"]{1,64}@[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}.-]*[\p{L}\p{M}\p{N}])?$/u;

export interface EmailAddress {
  /** As it is shown, and written to. */
  readonly shown: string;
  /** As it is compared: `Ann@Example.org` and `ann@example.org` are one account. */
  readonly key: string;
}

/**
 * An e-mail address. It is brought to its compatibility form before it is looked at, so that no full-width `＠` or `，` slips through.
 * Rejects with `bad_request`.
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
