import { isIPv6 } from 'node:net';
import { ERROR_CODES, type VezaError } from '../../runtime/errors.js';
import { MAX_URL_CHARS } from '../../runtime/request-head.js';

/**
 * This file reads one HTTP request as the encoders of broadcasters really send it: HTTP/1.1,
 * HTTP/1.0 or ICE/1.0, with a body by length, in chunks, or until the connection closes. Node's own
 * server gives the last kind an empty body.
 *
 * A connection carries one request and is closed after the answer, so bytes after a body are never
 * read as another request. Requests that can be read in two ways (RFC 9112 6.1 and 6.3, 5.1, 5.2)
 * are refused with 400 all the same: both Transfer-Encoding and Content-Length, either of them
 * twice, two Hosts, a folded header, a space before the colon. A bare LF ends a line of the head,
 * as RFC 9112 2.2 allows and old source clients need; a bare CR does not. Chunk lines need CRLF.
 */

/** Why a request is refused. Thrown while a request is read, and turned into its answer. */
export class HttpRefusal extends Error {
  /** The HTTP status of the answer. */
  readonly status: number;
  /** A stable word for programs, as in a problem document. */
  readonly code: string;
  /** Headers of the answer beyond those that every refusal has, such as `Allow` of a 405. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.name = 'HttpRefusal';
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

/**
 * `Retry-After` in seconds, by status. A cause of 503 may be over after a second; the rate limits
 * of this port count over ten seconds.
 */
const RETRY_AFTER_S: Readonly<Record<number, number>> = { 429: 10, 503: 1 };

/**
 * Returns the refusal for the code of a VezaError. An unknown code is a defect of the server: 500.
 */
export function refusalFor(error: Pick<VezaError, 'message'> & { code: string; details?: VezaError['details'] }): HttpRefusal {
  const status = (ERROR_CODES as Readonly<Record<string, number>>)[error.code] ?? 500;
  const retryAfterS = RETRY_AFTER_S[status] && (error.details?.retryAfterS ?? RETRY_AFTER_S[status]);
  return new HttpRefusal(status, error.code, error.message, retryAfterS ? { 'Retry-After': String(retryAfterS) } : {});
}

export type HttpVersion = 'HTTP/1.0' | 'HTTP/1.1' | 'ICE/1.0';

export interface RequestHead {
  readonly method: string;
  /**
   * The path, beginning with a slash and without the query. It is percent-encoded, except for
   * characters that need no encoding (RFC 3986 6.2.2.2). `*` only with OPTIONS.
   */
  readonly path: string;
  /** The text after the question mark, percent-encoded; empty when there is none. */
  readonly query: string;
  readonly version: HttpVersion;
  /** Names are in lower case; the values of a repeated name are joined by ", ". */
  readonly headers: ReadonlyMap<string, string>;
}

export interface HeadLimits {
  /** The request line and the headers, with their line ends, are together at most this large. */
  headBytes: number;
  /** A request has at most this many headers. */
  headers: number;
}

const CR = 13;
const LF = 10;
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Headers that may occur only once: with two of them the request would have two meanings. */
const SINGLE = new Set(['content-length', 'transfer-encoding', 'authorization', 'host', 'expect', 'content-type']);

/** Reads the head of a request from pieces of any size. */
export class HeadParser {
  readonly #limits: HeadLimits;
  #bytes = 0;
  /** The beginning of a line whose end has not arrived. */
  #line = '';
  #request: Pick<RequestHead, 'method' | 'path' | 'query' | 'version'> | undefined;
  readonly #headers = new Map<string, string>();
  #headerCount = 0;

  constructor(limits: HeadLimits) {
    this.#limits = limits;
  }

  /** True when at least one byte has arrived. */
  get begun(): boolean {
    return this.#bytes > 0;
  }

  /**
   * Reads on. Returns the head and how many of these bytes belong to it, or undefined when the head
   * is not complete. Throws HttpRefusal: 431 past a limit, 414 for a long address, 505 for another
   * version of the protocol, otherwise 400.
   */
  push(bytes: Buffer): { head: RequestHead; used: number } | undefined {
    let from = 0;
    while (from < bytes.length) {
      const feed = bytes.indexOf(LF, from);
      const to = feed < 0 ? bytes.length : feed + 1;
      this.#bytes += to - from;
      if (this.#bytes > this.#limits.headBytes) {
        throw new HttpRefusal(431, 'head_too_large', `the request's head is longer than ${this.#limits.headBytes} bytes`);
      }
      for (let at = from; at < to; at++) {
        const byte = bytes[at]!;
        // TLS and random bytes are refused at once, not after the deadline.
        if ((byte < 32 && byte !== 9 && byte !== CR && byte !== LF) || byte === 127) {
          throw new HttpRefusal(
            400,
            'bad_request',
            byte === 22 && this.#bytes === to - from ? 'this port does not speak TLS' : 'this is not HTTP',
          );
        }
      }
      this.#line += bytes.toString('latin1', from, to);
      from = to;
      if (feed < 0) break;
      const line = this.#line.endsWith('\r\n') ? this.#line.slice(0, -2) : this.#line.slice(0, -1);
      this.#line = '';
      if (line.includes('\r')) throw new HttpRefusal(400, 'bad_request', 'a carriage return inside a line of the head');
      const head = this.#takeLine(line);
      if (head) return { head, used: from };
    }
    return undefined;
  }

  #takeLine(line: string): RequestHead | undefined {
    if (!this.#request) {
      // RFC 9112 2.2: an empty line before the request line is ignored.
      if (line !== '') this.#request = parseRequestLine(line);
      return undefined;
    }
    if (line === '') return { ...this.#request, headers: this.#headers };
    if (++this.#headerCount > this.#limits.headers) {
      throw new HttpRefusal(431, 'head_too_large', `more than ${this.#limits.headers} headers`);
    }
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    if (colon < 1 || !TOKEN.test(name)) throw new HttpRefusal(400, 'bad_request', 'a header without a proper name, or folded');
    const value = line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, '');
    const before = this.#headers.get(name);
    if (before !== undefined && SINGLE.has(name)) throw new HttpRefusal(400, 'bad_request', `the header ${name} twice`);
    this.#headers.set(name, before === undefined ? value : `${before}, ${value}`);
    return undefined;
  }
}

/**
 * `uri-host [ ":" port ]` (RFC 9110 7.2): a name, an IPv4 address, or an IPv6 address in brackets.
 */
const HOST = /^(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?::[0-9]{0,5})?$|^\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{0,5})?$/;
/** A path by RFC 3986 3.3. */
const PATH = /^\/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$/;

function isHost(host: string): boolean {
  if (host.startsWith('[')) return HOST.test(host) && isIPv6(host.slice(1, host.indexOf(']')));
  // libshout writes an IPv6 address without brackets.
  return HOST.test(host) || isIPv6(host.replace(/:[0-9]{1,5}$/, ''));
}

/**
 * Throws HttpRefusal 400 for a wrong Host. By RFC 9112 3.2 an HTTP/1.1 request has one Host, which
 * may be empty; HTTP/1.0 and ICE/1.0 need none.
 */
export function checkHost({ version, headers }: Pick<RequestHead, 'version' | 'headers'>): void {
  const host = headers.get('host');
  if (host === undefined && version === 'HTTP/1.1') throw new HttpRefusal(400, 'bad_request', 'HTTP/1.1 needs the header Host');
  if (host !== undefined && !isHost(host)) throw new HttpRefusal(400, 'bad_request', 'the header Host is not a host');
}

function parseRequestLine(line: string): Pick<RequestHead, 'method' | 'path' | 'query' | 'version'> {
  const [method, target, given, ...rest] = line.split(' ');
  if (target !== undefined && target.length > MAX_URL_CHARS)
    throw new HttpRefusal(414, 'uri_too_long', `the address is longer than ${MAX_URL_CHARS} characters`);
  if (!method || !target || !given || rest.length > 0 || !TOKEN.test(method)) {
    throw new HttpRefusal(400, 'bad_request', 'the first line is not an HTTP request');
  }
  // RFC 9110 2.5: a higher minor version is read as the highest known one.
  const version = /^HTTP\/1\.[1-9]$/.test(given) ? 'HTTP/1.1' : given;
  if (version !== 'HTTP/1.1' && version !== 'HTTP/1.0' && version !== 'ICE/1.0') {
    const known = /^(HTTP|ICE)\/[0-9.]{1,7}$/.test(version);
    throw new HttpRefusal(
      known ? 505 : 400,
      known ? 'version_not_supported' : 'bad_request',
      'HTTP/1.1, HTTP/1.0 or ICE/1.0 is spoken here',
    );
  }
  return { method, ...parseTarget(method, target), version };
}

/**
 * Reads origin form, absolute form (RFC 9112 3.2.2: accepted from any client) and, for OPTIONS, the
 * asterisk.
 */
function parseTarget(method: string, target: string): { path: string; query: string } {
  if (target === '*' && method === 'OPTIONS') return { path: '*', query: '' };
  const absolute = /^http:\/\/([^/?#]*)(.*)$/is.exec(target);
  if (absolute && (absolute[1] === '' || !isHost(absolute[1]!))) {
    throw new HttpRefusal(400, 'bad_request', 'the address names no host');
  }
  const local = absolute ? absolute[2]!.replace(/^(?!\/)/, '/') : target;
  const mark = local.indexOf('?');
  const path = mark < 0 ? local : local.slice(0, mark);
  // The query is not checked: encoders put song titles there with bytes above ASCII and bare
  // percent signs.
  if (!PATH.test(path)) throw new HttpRefusal(400, 'bad_request', 'the address is not a path');
  return { path: path.replace(/%[0-9A-Fa-f]{2}/g, unreserved), query: mark < 0 ? '' : local.slice(mark + 1) };
}

function unreserved(encoded: string): string {
  const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16));
  return /[A-Za-z0-9._~-]/.test(character) ? character : encoded;
}

/**
 * How a body ends: after a length, with its last chunk, or with the connection; `none` is no body.
 */
export type Framing = { kind: 'length'; bytes: number } | { kind: 'chunked' } | { kind: 'close' } | { kind: 'none' };

/**
 * Returns how the body ends. Throws HttpRefusal 400 where the headers have two meanings, and 501
 * for a transfer coding other than chunked.
 */
export function framingOf(head: RequestHead): Framing {
  const coding = head.headers.get('transfer-encoding');
  const length = head.headers.get('content-length');
  if (coding !== undefined) {
    if (length !== undefined) throw new HttpRefusal(400, 'bad_request', 'both Transfer-Encoding and Content-Length');
    if (head.version !== 'HTTP/1.1') throw new HttpRefusal(400, 'bad_request', 'Transfer-Encoding needs HTTP/1.1');
    if (coding.toLowerCase() !== 'chunked') throw new HttpRefusal(501, 'not_implemented', 'the only transfer coding taken is chunked');
    return { kind: 'chunked' };
  }
  if (length === undefined) return { kind: 'none' };
  if (!/^[0-9]{1,15}$/.test(length)) throw new HttpRefusal(400, 'bad_request', 'Content-Length is not a number');
  return { kind: 'length', bytes: Number(length) };
}

export interface HttpChunkLimits {
  /**
   * A chunk is at most this large. It is not held in memory; the limit refuses garbage that reads
   * like a size.
   */
  chunkBytes: number;
  /**
   * The line with a chunk's size and extensions, or one line of the trailer, is at most this long
   * with its line end.
   */
  chunkLineBytes: number;
  /** All chunk extensions and trailers of a body are together at most this large. */
  chunkExtraBytes: number;
}

/** Reads a body from pieces of any size and passes on its content without copying it. */
export class BodyReader {
  readonly #framing: Framing['kind'];
  readonly #limits: HttpChunkLimits;
  #left = 0;
  #extraBytes = 0;
  #line = '';
  #state: 'size' | 'data' | 'data-end' | 'trailer' | 'done' = 'data';

  constructor(framing: Framing, limits: HttpChunkLimits) {
    this.#framing = framing.kind;
    this.#limits = limits;
    if (framing.kind === 'length') this.#left = framing.bytes;
    if (framing.kind === 'chunked') this.#state = 'size';
    if (framing.kind === 'none' || (framing.kind === 'length' && framing.bytes === 0)) this.#state = 'done';
  }

  /** True when the body is complete; never true of a body that ends with the connection. */
  get done(): boolean {
    return this.#state === 'done';
  }

  /** True when the body ends only with the connection. */
  get untilClose(): boolean {
    return this.#framing === 'close';
  }

  /**
   * Reads on and calls `take` for each piece of content. Bytes after the body are ignored. Throws
   * HttpRefusal: 413 past a limit, 400 for malformed chunks.
   */
  push(bytes: Buffer, take: (data: Buffer) => void): void {
    if (this.#framing === 'close') {
      take(bytes);
      return;
    }
    let at = 0;
    while (at < bytes.length && this.#state !== 'done') {
      if (this.#state === 'data') {
        const data = bytes.subarray(at, at + Math.min(this.#left, bytes.length - at));
        at += data.length;
        this.#left -= data.length;
        if (this.#left === 0) this.#state = this.#framing === 'length' ? 'done' : 'data-end';
        take(data);
      } else {
        const feed = bytes.indexOf(LF, at);
        const to = feed < 0 ? bytes.length : feed + 1;
        const limit = this.#limits.chunkLineBytes;
        if (this.#line.length + to - at > limit)
          throw new HttpRefusal(413, 'chunk_too_large', `a chunk's line is longer than ${limit} bytes`);
        this.#line += bytes.toString('latin1', at, to);
        at = to;
        if (feed >= 0) this.#takeLine();
      }
    }
  }

  #takeLine(): void {
    if (!this.#line.endsWith('\r\n')) throw new HttpRefusal(400, 'bad_request', 'a chunk line that does not end in CRLF');
    const line = this.#line.slice(0, -2);
    this.#line = '';
    if (this.#state === 'data-end') {
      if (line !== '') throw new HttpRefusal(400, 'bad_request', 'a chunk is longer than its size');
      this.#state = 'size';
      return;
    }
    if (this.#state === 'trailer') {
      if (line === '') this.#state = 'done';
      else if (!TOKEN.test(line.slice(0, Math.max(0, line.indexOf(':')))))
        throw new HttpRefusal(400, 'bad_request', 'a trailer without a proper name');
      else this.#countExtra(line.length);
      return;
    }
    const match = /^([0-9A-Fa-f]{1,12})[ \t]*(;[^\r]*)?$/.exec(line);
    if (!match) throw new HttpRefusal(400, 'bad_request', 'a chunk without a size');
    this.#countExtra(line.length - match[1]!.length);
    this.#left = Number.parseInt(match[1]!, 16);
    if (this.#left > this.#limits.chunkBytes) {
      throw new HttpRefusal(413, 'chunk_too_large', `a chunk is larger than ${this.#limits.chunkBytes} bytes`);
    }
    this.#state = this.#left === 0 ? 'trailer' : 'data';
  }

  #countExtra(bytes: number): void {
    this.#extraBytes += bytes;
    const limit = this.#limits.chunkExtraBytes;
    if (this.#extraBytes > limit)
      throw new HttpRefusal(413, 'chunk_too_large', `more than ${limit} bytes of chunk extensions and trailers`);
  }
}

/**
 * The reason phrase of each status, which is also the title of its problem document (RFC 9457
 * 4.2.1).
 */
export const REASONS: Readonly<Record<number, string>> = {
  100: 'Continue',
  200: 'OK',
  204: 'No Content',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  409: 'Conflict',
  411: 'Length Required',
  413: 'Content Too Large',
  414: 'URI Too Long',
  415: 'Unsupported Media Type',
  417: 'Expectation Failed',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  503: 'Service Unavailable',
  505: 'HTTP Version Not Supported',
};

export interface IngestAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** The text of the answer, sent as UTF-8. */
  readonly body?: string;
}

export interface AnswerOptions {
  readonly version: HttpVersion;
  /** The wall-clock time for the header `Date` (RFC 9110 6.6.1). */
  readonly wallMs: number;
  /** True when the client goes on sending after this answer, which then has no body. */
  readonly open?: boolean;
  /**
   * True for HEAD: the answer has the headers of the answer to GET, and no body (RFC 9110 9.3.2).
   */
  readonly bodiless?: boolean;
}

/**
 * Returns the bytes of an answer. A request of ICE/1.0 or HTTP/1.0 is answered as HTTP/1.0:
 * libshout and darkice look for that line.
 */
export function renderAnswer(answer: IngestAnswer, { version, wallMs, open = false, bodiless = false }: AnswerOptions): Buffer {
  const body = Buffer.from(answer.body ?? '');
  const lines = [`${version === 'HTTP/1.1' ? version : 'HTTP/1.0'} ${answer.status} ${REASONS[answer.status] ?? 'Error'}`];
  for (const [name, value] of Object.entries(answer.headers ?? {})) lines.push(`${name}: ${value}`);
  if (answer.status >= 200) {
    if (answer.status !== 204 && !open) lines.push(`Content-Length: ${body.length}`);
    lines.push(`Date: ${new Date(wallMs).toUTCString()}`, 'Cache-Control: no-store', 'Connection: close');
  }
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
  return bodiless ? head : Buffer.concat([head, body]);
}
