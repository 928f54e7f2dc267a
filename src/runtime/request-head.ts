import type { IncomingMessage } from 'node:http';
import { isIPv6 } from 'node:net';
import type { Refusal } from './http-problem.js';

/**
 * Header fields of a request, at most; a request with more is answered with 431. A browser behind
 * two proxies sends about 30.
 */
export const MAX_HEADERS = 100;
/** Characters of a request's target, at most; a longer one is answered with 414. */
export const MAX_URL_CHARS = 8192;

/**
 * RFC 9112 3.2: the path and query of a URI. A fragment is not allowed, since clients never send
 * it.
 */
const ORIGIN_FORM = /^\/[\x21\x22\x24-\x7e]*$/;
const ABSOLUTE_FORM = /^https?:\/\/([^/?]*)(\/?.*)$/i;
/** RFC 3986 3.2.2 and 3.2.3, without user information, which RFC 9110 4.2.4 does not allow here. */
const AUTHORITY = /^(?:\[([0-9A-Fa-f:.]{2,45})\]|((?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*))(?::(\d{0,5}))?$/;

/**
 * Checks the head of a request before any other code reads it. Returns undefined when the request
 * may be answered. `req.url` is then in origin form (or `*`, for `OPTIONS` only). A target in
 * absolute form is changed into origin form, and its authority replaces `Host` (RFC 9112 3.2.2).
 *
 * `textual`: the request is HTTP/1.1 or 1.0. Node's parser also accepts other version numbers
 * there, and they would look like HTTP/2.
 */
export function refusalOf(req: IncomingMessage, textual: boolean): Refusal | undefined {
  const isVersionKnown = !textual || (req.httpVersionMajor === 1 && req.httpVersionMinor <= 1);
  if (!isVersionKnown) return { code: 'version_not_supported', detail: 'use HTTP/1.1' };
  if ((req.url ?? '').length > MAX_URL_CHARS)
    return { code: 'uri_too_long', detail: `the address is longer than ${MAX_URL_CHARS} characters` };
  // Node silently drops fields beyond its own limit. The server therefore sets that limit one
  // higher than this.
  if (req.rawHeaders.length > 2 * MAX_HEADERS)
    return { code: 'head_too_large', detail: `there are more than ${MAX_HEADERS} header fields` };
  return hostRefusal(req, textual) ?? codingRefusal(req) ?? targetRefusal(req);
}

/**
 * RFC 9112 3.2: `Host` is missing, repeated or malformed. A proxy might choose another host than
 * this service does.
 */
function hostRefusal(req: IncomingMessage, textual: boolean): Refusal | undefined {
  const { rawHeaders, headers } = req;
  let count = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!;
    if (name.length === 4 && name.toLowerCase() === 'host') count++;
  }
  const { host } = headers;
  if (count > 1) return bad('send Host only once');
  if (textual && req.httpVersionMinor === 1 && host === undefined) return bad('Host is missing');
  if (host !== undefined && !isAuthority(host)) return bad('Host is malformed');
  // RFC 9113 8.3.1: HTTP/2 sends the host as `:authority`.
  const authority = headers[':authority'];
  if (authority === undefined) return undefined;
  if (!isAuthority(String(authority))) return bad(':authority is malformed');
  if (host !== undefined && host !== authority) return bad(':authority and Host differ');
  return undefined;
}

/**
 * RFC 9112 6.1: with a transfer coding that is not decoded here, the coded bytes would be read as
 * the body. HTTP/1.0 has no transfer codings.
 */
function codingRefusal({ headers, httpVersionMajor, httpVersionMinor }: IncomingMessage): Refusal | undefined {
  const coding = headers['transfer-encoding'];
  if (coding === undefined) return undefined;
  if (httpVersionMajor === 1 && httpVersionMinor === 0) return bad('HTTP/1.0 has no Transfer-Encoding');
  const codings = coding.toLowerCase().split(',');
  if (codings.length > 1 && codings.every((name) => name.trim() === 'chunked')) return bad('send chunked only once');
  if (coding.trim().toLowerCase() !== 'chunked')
    return { code: 'not_implemented', detail: 'chunked is the only supported transfer coding' };
  return undefined;
}

function targetRefusal(req: IncomingMessage): Refusal | undefined {
  const url = req.url ?? '';
  if (ORIGIN_FORM.test(url)) return undefined;
  if (url === '*') return req.method === 'OPTIONS' ? undefined : bad('the address * is for OPTIONS only');
  const absolute = ABSOLUTE_FORM.exec(url);
  if (!absolute) return bad('the address of the request is malformed');
  const [, authority = '', rest = ''] = absolute;
  // RFC 9110 4.2.1: an empty host is invalid.
  if (!isAuthority(authority) || authority === '' || authority.startsWith(':')) return bad('the address of the request names no host');
  // RFC 9112 3.2.4: without a path, `OPTIONS` asks about the server as a whole.
  if (rest === '' && req.method === 'OPTIONS') req.url = '*';
  else {
    const target = rest.startsWith('/') ? rest : `/${rest}`;
    if (!ORIGIN_FORM.test(target)) return bad('the address of the request is malformed');
    req.url = target;
  }
  setHost(req, authority);
  return undefined;
}

function setHost({ headers, rawHeaders }: IncomingMessage, authority: string): void {
  headers.host = authority;
  for (let at = 0; at < rawHeaders.length; at += 2) if (rawHeaders[at]!.toLowerCase() === 'host') rawHeaders[at + 1] = authority;
}

function isAuthority(text: string): boolean {
  const found = AUTHORITY.exec(text);
  if (!found) return false;
  const [, address, , port = ''] = found;
  return (address === undefined || isIPv6(address)) && (port === '' || Number(port) <= 65_535);
}

const bad = (detail: string): Refusal => ({ code: 'bad_request', detail });

/** The path of a target in origin form, as the client wrote it. */
export function pathOf(url: string): string {
  const queryAt = url.indexOf('?');
  return queryAt < 0 ? url : url.slice(0, queryAt);
}

/** The query without its question mark; empty if there is none. */
export function queryOf(url: string): string {
  const queryAt = url.indexOf('?');
  return queryAt < 0 ? '' : url.slice(queryAt + 1);
}
