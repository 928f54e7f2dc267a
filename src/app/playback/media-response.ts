import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { constants, gzip, gzipSync } from 'node:zlib';
import { type ErrorCode, VezaError } from '../../runtime/errors.js';
import { sendRefusal } from '../../runtime/http-problem.js';
import { conditionOf } from '../http/conditions.js';

/**
 * Responses of the media paths, written straight to Node's response. Header lists are prepared once
 * and shared, texts are compressed once. Nothing here waits.
 */

export const CACHE = {
  immutable: 'public, max-age=31536000, immutable',
  /** For a blocking reload, whose address always has the same answer. */
  blocked: 'public, max-age=6',
  live: 'public, max-age=1',
  multivariant: 'public, max-age=30',
  vod: 'public, max-age=3600',
  none: 'no-store',
} as const;

/**
 * For media that not everybody may have: only the listener's own player caches it, unless an edge
 * server that checks links knows better.
 */
export const CACHE_PRIVATE = {
  immutable: 'private, max-age=31536000, immutable',
  blocked: 'private, max-age=6',
  live: 'private, max-age=1',
  multivariant: 'private, max-age=30',
  vod: 'private, max-age=60',
  none: 'no-store',
} as const;

export const MEDIA_TYPE = {
  hls: 'application/vnd.apple.mpegurl',
  dash: 'application/dash+xml',
} as const;

/**
 * CORS headers of every media path: `*`, because a reflected origin would poison a shared cache.
 */
export const CORS: readonly string[] = corsExposing('Content-Length, Content-Range, Date, ETag, Retry-After');

export function corsExposing(headers: string): string[] {
  return ['Access-Control-Allow-Origin', '*', 'Access-Control-Expose-Headers', headers];
}

export const PLAYBACK_METHODS = 'GET, HEAD, OPTIONS';

const PREFLIGHT = [
  'Access-Control-Allow-Origin',
  '*',
  'Access-Control-Allow-Methods',
  PLAYBACK_METHODS,
  'Access-Control-Allow-Headers',
  'Range, If-Range, If-Match, If-None-Match, Icy-MetaData, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status',
  'Access-Control-Max-Age',
  '86400',
  'Cache-Control',
  CACHE.none,
  'Allow',
  PLAYBACK_METHODS,
];

/** A 204 has no Content-Length (RFC 9110 8.6). */
export function sendPreflight(res: ServerResponse): void {
  res.writeHead(204, PREFLIGHT);
  res.end();
}

/** Sends an RFC 9457 problem document that every page may read. */
export function sendProblem(res: ServerResponse, code: ErrorCode, detail: string, headers: readonly string[] = []): void {
  sendRefusal(res, { code, detail, headers }, CORS);
}

/** Answers with an error that was thrown; a response that has begun is destroyed. */
export function sendError(res: ServerResponse, error: unknown): void {
  if (res.headersSent) res.destroy();
  else if (error instanceof VezaError) sendProblem(res, error.code, error.message);
  else sendProblem(res, 'internal', 'internal error');
}

/** Whether the client takes gzip (RFC 9110 12.5.3); `gzip;q=0` is a refusal. */
export function acceptsGzip(req: IncomingMessage): boolean {
  const accepted = req.headers['accept-encoding'];
  if (accepted === undefined) return false;
  return accepted.startsWith('gzip,') || /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/i.test(accepted);
}

/**
 * Answers a request whose condition fails (412) or says that the client has the current form (304).
 * True: the request was answered.
 */
export function answersCondition(
  req: IncomingMessage,
  res: ServerResponse,
  etag: string | undefined,
  headers: readonly string[] = [],
): boolean {
  const condition = conditionOf(req, etag);
  if (condition === 'failed') sendProblem(res, 'precondition_failed', 'the condition in If-Match does not hold');
  if (condition !== 'not-modified' || etag === undefined) return condition === 'failed';
  res.writeHead(304, ['ETag', etag, ...headers, ...CORS]);
  res.end();
  return true;
}

const gzipAsync = promisify(gzip);

/**
 * A manifest: rendered once, compressed once (at the first request that takes gzip), sent many
 * times.
 */
export class TextResponse {
  readonly #plain: Buffer;
  readonly #contentType: string;
  readonly #etag: string;
  #gzip: Buffer | undefined;
  readonly #headers = new Map<string, string[]>();
  readonly #gzipHeaders = new Map<string, string[]>();

  constructor(text: string | Uint8Array, contentType: string) {
    this.#plain = typeof text === 'string' ? Buffer.from(text) : Buffer.from(text.buffer, text.byteOffset, text.byteLength);
    this.#contentType = contentType;
    this.#etag = `W/"${createHash('sha1').update(this.#plain).digest('base64url')}"`;
  }

  /**
   * Compresses the text outside the event loop, where `reply` would block it: for texts of up to a
   * megabyte.
   */
  async compress(): Promise<void> {
    this.#gzip ??= await gzipAsync(this.#plain, { level: constants.Z_BEST_SPEED });
  }

  reply(req: IncomingMessage, res: ServerResponse, cacheControl: string): void {
    const headers = ['Cache-Control', cacheControl, 'Vary', 'Accept-Encoding'];
    if (!answersCondition(req, res, this.#etag, headers)) this.#send(res, cacheControl, acceptsGzip(req));
  }

  /** Answers a request that waited, never with 304: what the client has is older. */
  sendAwaited(req: IncomingMessage, res: ServerResponse, cacheControl: string, compressed: boolean): void {
    if (req.headers['if-match'] === undefined) this.#send(res, cacheControl, compressed);
    else this.reply(req, res, cacheControl);
  }

  #send(res: ServerResponse, cacheControl: string, compressed: boolean): void {
    // Level 1: a playlist of 30 segments takes 60 µs and is 10 % larger than at level 6.
    if (compressed) this.#gzip ??= gzipSync(this.#plain, { level: constants.Z_BEST_SPEED });
    const body = (compressed && this.#gzip) || this.#plain;
    const prepared = compressed ? this.#gzipHeaders : this.#headers;
    let headers = prepared.get(cacheControl);
    if (!headers) {
      headers = [
        'Content-Type',
        this.#contentType,
        'Content-Length',
        String(body.length),
        'Cache-Control',
        cacheControl,
        'ETag',
        this.#etag,
        'Vary',
        'Accept-Encoding',
        ...CORS,
        ...(compressed ? ['Content-Encoding', 'gzip'] : []),
      ];
      prepared.set(cacheControl, headers);
    }
    res.writeHead(200, headers);
    res.end(body);
  }
}

export interface Media {
  readonly chunks: readonly Uint8Array[];
  readonly contentType: string;
  readonly cacheControl: string;
  /** Strong validator without quotes: the name of the media, which is immutable. */
  readonly tag: string;
}

/**
 * Sends finished media: whole, or the one range asked for (RFC 9110 14; a request for several
 * ranges gets the whole).
 */
export function sendMedia(req: IncomingMessage, res: ServerResponse, media: Media): void {
  const etag = `"${media.tag}"`;
  if (answersCondition(req, res, etag, ['Cache-Control', media.cacheControl])) return;
  let sizeBytes = 0;
  for (const chunk of media.chunks) sizeBytes += chunk.length;

  const range = wantedRange(req, etag, sizeBytes);
  if (range === 'unsatisfiable') {
    sendProblem(res, 'range_not_satisfiable', 'the range begins after the end', ['Content-Range', `bytes */${sizeBytes}`]);
    return;
  }
  const headers = [...mediaHeaders(media), 'Accept-Ranges', 'bytes'];
  if (range) {
    headers.push('Content-Length', String(range.end - range.start + 1), 'Content-Range', `bytes ${range.start}-${range.end}/${sizeBytes}`);
    res.writeHead(206, headers);
    endWith(req, res, sliceOf(media.chunks, range.start, range.end + 1));
    return;
  }
  headers.push('Content-Length', String(sizeBytes));
  res.writeHead(200, headers);
  endWith(req, res, media.chunks);
}

/**
 * Writes the chunks as they are, since all readers share them. Joined, each slow reader would hold
 * a copy.
 */
function endWith(req: IncomingMessage, res: ServerResponse, chunks: readonly Uint8Array[]): void {
  if (req.method === 'HEAD') {
    res.end();
    return;
  }
  for (const chunk of chunks.slice(0, -1)) res.write(chunk);
  res.end(chunks.at(-1));
}

/** The bytes from `start` up to, not including, `end`, as views of the chunks. */
function sliceOf(chunks: readonly Uint8Array[], start: number, end: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const chunk of chunks) {
    const piece = chunk.subarray(Math.max(0, start - at), Math.max(0, end - at));
    if (piece.length > 0) pieces.push(piece);
    at += chunk.length;
  }
  return pieces;
}

export function mediaHeaders(media: Omit<Media, 'chunks'>): string[] {
  return ['Content-Type', media.contentType, 'Cache-Control', media.cacheControl, 'ETag', `"${media.tag}"`, ...CORS];
}

function wantedRange(req: IncomingMessage, etag: string, sizeBytes: number): { start: number; end: number } | 'unsatisfiable' | undefined {
  const header = req.headers.range;
  // RFC 9110 14.2: ranges are defined for GET only.
  if (header === undefined || req.method !== 'GET') return undefined;
  const condition = req.headers['if-range'];
  if (condition !== undefined && condition !== etag) return undefined;
  const found = /^bytes=\s*(\d*)-(\d*)$/i.exec(header.trim());
  if (!found || (found[1] === '' && found[2] === '')) return undefined;
  if (found[1] === '') {
    const suffix = Number(found[2]);
    if (suffix === 0 || sizeBytes === 0) return 'unsatisfiable';
    return { start: Math.max(0, sizeBytes - suffix), end: sizeBytes - 1 };
  }
  const start = Number(found[1]);
  const end = found[2] === '' ? sizeBytes - 1 : Math.min(Number(found[2]), sizeBytes - 1);
  if (found[2] !== '' && Number(found[2]) < start) return undefined;
  return start >= sizeBytes ? 'unsatisfiable' : { start, end };
}
