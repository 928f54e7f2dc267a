import { createHmac } from 'node:crypto';
import { isIP } from 'node:net';
import type { LinkMaker } from './ended-links.js';

/**
 * A playback token: `{key id}.{expiry}.{listener}[.{binds}].{signature}`, in characters that need
 * no escaping in a path, a cookie or a query. The expiry is in seconds since 1970, in base 36.
 * `binds` is `a` (client address), `c` (country) or `ac`. The signature is HMAC-SHA-256 in
 * base64url over the lines of `signedText`. A token names its expiry and its listener, but not the
 * channel or recording: the address does.
 *
 * `infra/nginx/playback.js` reads the same format.
 */
export interface PlaybackToken {
  readonly keyId: string;
  readonly expiry: string;
  readonly expiresAtMs: number;
  /**
   * Identifies one listener: random, or derived from the `listener` of the request. It also holds
   * the maker if an account made the link.
   */
  readonly listener: string;
  readonly binds: string;
  readonly signature: string;
}

export type PlaybackKind = 'live' | 'vod';

/** The signed values that are not in the token. Empty: not bound. */
export interface SignedFor {
  readonly kind: PlaybackKind;
  readonly name: string;
  /** The address in the form of `boundAddress`. */
  readonly address: string;
  readonly country: string;
}

/** A token has at most 101 characters. */
const TOKEN = /^([a-z0-9]{4,12})\.([1-9a-z][0-9a-z]{0,7})\.([A-Za-z0-9_-]{1,32})(?:\.(a|c|ac))?\.([A-Za-z0-9_-]{43})$/;

/** Undefined: the text is not a token. */
export function parseToken(text: string): PlaybackToken | undefined {
  const found = TOKEN.exec(text);
  if (!found) return undefined;
  const [, keyId = '', expiry = '', listener = '', binds = '', signature = ''] = found;
  return { keyId, expiry, expiresAtMs: Number.parseInt(expiry, 36) * 1000, listener, binds, signature };
}

/**
 * The listener's own id, the maker's tag (see `makerTag`), and the time at which the link was made,
 * in seconds since 1970, base 36.
 */
const WITH_MAKER = /^([A-Za-z0-9_-]{16})([A-Za-z0-9_-]{8})([0-9a-z]{7})$/;

/**
 * 31 characters, within the 32 that edge servers allow. Tokens from versions before makers were
 * added have a shorter listener.
 */
export const listenerWithMaker = (listener: string, { tag, madeAtS }: LinkMaker): string =>
  `${listener}${tag}${Math.floor(madeAtS).toString(36).padStart(7, '0')}`;

export function listenerAndMaker(text: string): { listener: string; maker: LinkMaker | undefined } {
  const found = WITH_MAKER.exec(text);
  if (!found) return { listener: text, maker: undefined };
  const [, listener = '', tag = '', madeAt = ''] = found;
  return { listener, maker: { tag, madeAtS: Number.parseInt(madeAt, 36) } };
}

/** No part can contain a line feed, so different parts never make the same text. */
export function signedText(
  token: Pick<PlaybackToken, 'keyId' | 'expiry' | 'listener'>,
  { kind, name, address, country }: SignedFor,
): string {
  return `veza-playback-1\n${token.keyId}\n${token.expiry}\n${token.listener}\n${kind}/${name}\n${address}\n${country}`;
}

export const sign = (secret: Uint8Array, text: string): string => createHmac('sha256', secret).update(text).digest('base64url');

export const expiryOf = (wallMs: number): string => Math.floor(wallMs / 1000).toString(36);

/**
 * The hexadecimal form of an address to which a link is bound: a whole IPv4 address, or the /64
 * network of an IPv6 address, because devices change the rest by themselves. Undefined: the text is
 * not an address.
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
