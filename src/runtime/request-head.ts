import type { IncomingMessage } from 'node:http';
import { isIPv6 } from 'node:net';
import type { Refusal } from './http-problem.js';

/** More is answered 431. A browser behind two proxies sends about 30. */
export const MAX_HEADERS = 100;
/** Characters of a request's target; more is answered 414. */
export const MAX_URL_CHARS = 8192;

/** Without a fragment, which never goes to a server, and without what is no URI at all (RFC 9112 3.2). */
const ORIGIN_FORM = /^\/[\x21\x22\x24-\x7e]*$/;
const ABSOLUTE_FORM = /^https?:\/\/([^/?]*)(\/?.*)$/i;
/** RFC 3986 3.2.2 and 3.2.3, without the user information that RFC 9110 4.2.4 has refused. */
const AUTHORITY = /^(?:\[([0-9A-Fa-f:.]{2,45})\]|((?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*))(?::(\d{0,5}))?$/;

/**
 * Reads the head of a request before anything else does. Undefined: the request may be answered, and `req.url` is in origin form
 * (or `*`, for `OPTIONS` alone); a target in absolute form is brought into it, and its authority takes the place of `Host` (RFC 9112 3.2.2).
 *
 * `textual`: HTTP/1.1 or 1.0. Node's parser takes other versions for the same, and they would pass for HTTP/2 here.
 */
export function refusalOf(req: IncomingMessage, textual: boolean): Refusal | undefined {
  const isVersionKnown = !textual || (req.httpVersionMajor === 1 && req.httpVersionMinor <= 1);
  if (!isVersionKnown) return { code: 'version_not_supported', detail: 'HTTP/1.1 is spoken here' };
  if ((req.url ?? '').length > MAX_URL_CHARS)
    return { code: 'uri_too_long', detail: `the address is longer than ${MAX_URL_CHARS} characters` };
  // Node leaves out further fields without a word, so that the listener lets through one more than this.
  if (req.rawHeaders.length > 2 * MAX_HEADERS)
    return { code: 'head_too_large', detail: `there are more than ${MAX_HEADERS} header fields` };
  return hostRefusal(req, textual) ?? codingRefusal(req) ?? targetRefusal(req);
}

/** RFC 9112 3.2: none, two or one that cannot be: a proxy may go by another than we do. */
function hostRefusal(req: IncomingMessage, textual: boolean): Refusal | undefined {
  const { rawHeaders, headers } = req;
  let count = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!;
    if (name.length === 4 && name.toLowerCase() === 'host') count++;
  }
  const { host } = headers;
  if (count > 1) return bad('there is more than one Host');
  if (textual && req.httpVersionMinor === 1 && host === undefined) return bad('there is no Host');
  if (host !== undefined && !isAuthority(host)) return bad('Host is no name of a host');
  // RFC 9113 8.3.1.
  const authority = headers[':authority'];
  if (authority === undefined) return undefined;
  if (!isAuthority(String(authority))) return bad(':authority is no name of a host');
  if (host !== undefined && host !== authority) return bad(':authority and Host differ');
  return undefined;
}

/** RFC 9112 6.1: a coding that is not undone here would be taken for the body. HTTP/1.0 knows none. */
function codingRefusal({ headers, httpVersionMajor, httpVersionMinor }: IncomingMessage): Refusal | undefined {
  const coding = headers['transfer-encoding'];
  if (coding === undefined) return undefined;
  if (httpVersionMajor === 1 && httpVersionMinor === 0) return bad('HTTP/1.0 has no Transfer-Encoding');
  const codings = coding.toLowerCase().split(',');
  if (codings.length > 1 && codings.every((name) => name.trim() === 'chunked')) return bad('chunked is there more than once');
  if (coding.trim().toLowerCase() !== 'chunked') return { code: 'not_implemented', detail: 'chunked is the only transfer coding here' };
  return undefined;
}

function targetRefusal(req: IncomingMessage): Refusal | undefined {
  const url = req.url ?? '';
  if (ORIGIN_FORM.test(url)) return undefined;
  if (url === '*') return req.method === 'OPTIONS' ? undefined : bad('* is for OPTIONS');
  const absolute = ABSOLUTE_FORM.exec(url);
  if (!absolute) return bad('the address of the request is none');
  const [, authority = '', rest = ''] = absolute;
  // RFC 9110 4.2.1: an empty host is invalid.
  if (!isAuthority(authority) || authority === '' || authority.startsWith(':')) return bad('the address of the request names no host');
  // RFC 9112 3.2.4.
  if (rest === '' && req.method === 'OPTIONS') req.url = '*';
  else {
    const target = rest.startsWith('/') ? rest : `/${rest}`;
    if (!ORIGIN_FORM.test(target)) return bad('the address of the request is none');
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

/** The path of a target in origin form, as it is written. */
export function pathOf(url: string): string {
  const queryAt = url.indexOf('?');
  return queryAt < 0 ? url : url.slice(0, queryAt);
}

/** What follows the question mark; empty without one. */
export function queryOf(url: string): string {
  const queryAt = url.indexOf('?');
  return queryAt < 0 ? '' : url.slice(queryAt + 1);
}
