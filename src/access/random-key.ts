import { createHash, randomBytes } from 'node:crypto';

/**
 * 32 letters of 5 bits each. They are lower case and without i, l, o and u, because people type
 * keys and recovery codes by hand.
 */
const LETTERS = '0123456789abcdefghjkmnpqrstvwxyz';

/** A random text that cannot be guessed: 26 letters have 130 bits, 16 have 80. */
export function randomLetters(count: number): string {
  let letters = '';
  // 256 is a multiple of 32, so every letter is equally likely.
  for (const byte of randomBytes(count)) letters += LETTERS[byte % LETTERS.length];
  return letters;
}

/**
 * The SHA-256 of a secret (32 bytes). A secret with at least 128 random bits needs no slow hash.
 */
export const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest();
