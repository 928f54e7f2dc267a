import { createHash, randomBytes } from 'node:crypto';

/** 5 bits each: neither i, l, o nor u, and all lower case, because keys and recovery codes are typed by hand. */
const LETTERS = '0123456789abcdefghjkmnpqrstvwxyz';

/** So many letters nobody can guess; 26 carry 130 bits, 16 carry 80. */
export function randomLetters(count: number): string {
  let letters = '';
  // 256 is a multiple of 32, so that no letter is more likely than another.
  for (const byte of randomBytes(count)) letters += LETTERS[byte % LETTERS.length];
  return letters;
}

/** All that is kept of a secret with at least 128 random bits: SHA-256, 32 bytes. */
export const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest();
