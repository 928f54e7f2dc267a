import { createHmac } from 'node:crypto';
import { isIP } from 'node:net';
import type { LinkMaker } from './ended-links.js';

/**
 * A playback token: `{key id}.{expiry}.{listener}[.{binds}].{signature}`, in letters that are themselves in a path, a cookie and a query.
 * Expiry is in seconds since 1970, base 36. `binds` is `a` (client address), `c` (country) or `ac`. The signature is HMAC-SHA-256, base64url, over
 * the lines of `signedText`; so a token says itself until when it is good and for whom, and not for what: that is in the address.
 *
 * `infra/nginx/playback.js` reads the same.
 */
export interface PlaybackToken {
  readonly keyId: string;
  readonly expiry: string;
  readonly expiresAtMs: number;
  /** Tells one listener from another; random unless who issued it said better. With the maker in it, when an account made the link. */
  readonly listener: string;
  readonly binds: string;
  readonly signature: string;
}

export type PlaybackKind = 'live' | 'vod';

/** What is signed beside the token's own words. Empty: not bound. */
export interface SignedFor {
  readonly kind: PlaybackKind;
  readonly name: string;
  /** As `boundAddress` has it. */
  readonly address: string;
  readonly country: string;
}

/** 101 characters at most. */
const TOKEN = /^([a-z0-9]{4,12})\.([1-9a-z][0-9a-z]{0,7})\.([A-Za-z0-9_-]{1,32})(?:\.(a|c|ac))?\.([A-Za-z0-9_-]{43})$/;

/** Undefined: this is not a token, whatever else it is. */
export function parseToken(text: string): PlaybackToken | undefined {
  const found = TOKEN.exec(text);
  if (!found) return undefined;
  const [, keyId = '', expiry = '', listener = '', binds = '', signature = ''] = found;
  return { keyId, expiry, expiresAtMs: Number.parseInt(expiry, 36) * 1000, listener, binds, signature };
}

/** The listener's own id, the tag of the maker (see `makerTag`), and when it was made: seconds since 1970, base 36. */
const WITH_MAKER = /^([A-Za-z0-9_-]{16})([A-Za-z0-9_-]{8})([0-9a-z]{7})$/;

/** Within the 32 characters that servers which check links by themselves allow; those from before links had makers are shorter. */
export const listenerWithMaker = (listener: string, { tag, madeAtS }: LinkMaker): string =>
  `${listener}${tag}${Math.floor(madeAtS).toString(36).padStart(7, '0')}`;

export function listenerAndMaker(text: string): { listener: string; maker: LinkMaker | undefined } {
  const found = WITH_MAKER.exec(text);
  if (!found) return { listener: text, maker: undefined };
  const [, listener = '', tag = '', madeAt = ''] = found;
  return { listener, maker: { tag, madeAtS: Number.parseInt(madeAt, 36) } };
}

/** None of the parts can hold a line feed, so that no two of them make the same text. */
export function signedText(
  token: Pick<PlaybackToken, 'keyId' | 'expiry' | 'listener'>,
  { kind, name, address, country }: SignedFor,
): string {
  return `veza-playback-1\n${token.keyId}\n${token.expiry}\n${token.listener}\n${kind}/${name}\n${address}\n${country}`;
}

export const sign = (secret: Uint8Array, text: string): string => createHmac('sha256', secret).update(text).digest('base64url');

export const expiryOf = (wallMs: number): string => Math.floor(wallMs / 1000).toString(36);

/**
 * An address as it is bound, hexadecimal: an IPv4 address whole, of an IPv6 address the network (/64), since a device changes the rest by itself.
 * Undefined: this is no address.
 */
export function boundAddress(address: string): string | undefined {
  const version = isIP(address);
  if (version === 4) return hexOf(address.split('.').map(Number));
  if (version === 0 || address.includes('%')) return undefined;
  const words = wordsOf(address);
  const isMapped = words.slice(0, 5).every((word) => word === 0) && words[5] === 0xffff;
  const kept = isMapped ? words.slice(6) : words.slice(0, 4);
  return hexOf(kept.flatMap((word) => [word >> 8, word & 0xff]));
}

const hexOf = (bytes: readonly number[]) => bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');

/** The eight words of a valid IPv6 address. */
function wordsOf(address: string): number[] {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  const [, head = '', a, b, c, d] = dotted ?? [];
  const plain = dotted ? `${head}${((Number(a) << 8) | Number(b)).toString(16)}:${((Number(c) << 8) | Number(d)).toString(16)}` : address;
  const [left = '', right] = plain.split('::');
  const words = (text: string) => (text === '' ? [] : text.split(':').map((word) => Number.parseInt(word, 16)));
  if (right === undefined) return words(left);
  const zeros = 8 - words(left).length - words(right).length;
  return [...words(left), ...Array<number>(zeros).fill(0), ...words(right)];
}
