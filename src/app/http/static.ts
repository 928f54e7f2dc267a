import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import type Koa from 'koa';
import { conditionOf } from './conditions.js';
import { reads } from './reads.js';

const TYPES: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.ico': 'image/x-icon',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.mp3': 'audio/mpeg',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.webmanifest': 'application/manifest+json',
  '.woff2': 'font/woff2',
};
const ENCODINGS = ['br', 'gzip'] as const;
type PageEncoding = (typeof ENCODINGS)[number];
/**
 * Larger files are compressed at their first request: the API reference's script took 1.5 s of CPU,
 * and most processes never send it.
 */
const MAX_COMPRESSED_AT_START_BYTES = 1024 * 1024;
const COMPRESSIBLE = new Set(['.css', '.html', '.js', '.json', '.map', '.svg', '.txt', '.webmanifest']);

const PLAYER_PATH = /^\/(?:c\/[a-z0-9][a-z0-9-]{1,62}|r\/[\w-]{1,64})?$/;
const API_DOCS_PATH = '/docs/api';
const ACCOUNT_PATH = /^\/(?:account|channels(?:\/[a-z0-9][a-z0-9-]{1,62}(?:\/chat)?)?|admin(?:\/audit)?)$/;

interface PageFile {
  readonly type: string;
  readonly etag: string;
  readonly immutable: boolean;
  readonly plain: Buffer;
  /** Undefined: the file is sent uncompressed. */
  readonly compressed: Readonly<Record<PageEncoding, () => Promise<Buffer>>> | undefined;
}

export interface Pages {
  readonly middleware: Koa.Middleware;
}

export interface PagesOptions {
  /** The directory that the build of `player-demo` made. */
  dir: string;
  /** Origins that the player fetches media from, besides our own. */
  mediaOrigins: readonly string[];
  /**
   * The chat's port for each port of ours on which a page is loaded. Pages loaded on another port
   * come through a proxy, which has the chat at `/chat`.
   */
  chatPorts?: readonly (readonly [page: number, chat: number])[];
}

/**
 * Reads the pages at start. Files that listeners load are compressed then, larger ones at their
 * first request. `undefined` when the pages were not built.
 *
 * `/`, `/c/{channel}`, `/r/{recording}`, the pages of an account and `/studio` are one document
 * (`studio.html` for the last when there is one); `/docs/api` is the API's reference. Any other
 * unknown path is not answered here.
 */
export async function loadPages(options: PagesOptions): Promise<Pages | undefined> {
  const files = new Map<string, PageFile>();
  const ports = (options.chatPorts ?? []).map((pair) => pair.join('=')).join(' ');
  for (const path of await filesBelow(options.dir, '')) files.set(`/${path}`, await loadFile(join(options.dir, path), path, ports));
  const index = files.get('/index.html');
  if (!index) return undefined;
  const studio = files.get('/studio.html') ?? index;
  const apiDocs = files.get('/api-docs.html');
  const policies = { player: policy(options.mediaOrigins, '*'), other: policy(options.mediaOrigins, "'none'") };

  const middleware: Koa.Middleware = async (ctx, next) => {
    const { path } = ctx;
    const isStudio = path === '/studio' || path === '/studio.html';
    const isAccount = ACCOUNT_PATH.test(path);
    const isApiDocs = path === API_DOCS_PATH;
    const file = isStudio ? studio : isApiDocs ? apiDocs : isAccount || PLAYER_PATH.test(path) ? index : files.get(path);
    if (!file) return next();
    ctx.state.route = 'page';
    if (!reads(ctx, file.etag)) return undefined;
    ctx.type = file.type;
    ctx.set('ETag', file.etag);
    ctx.set('Cache-Control', file.immutable ? 'public, max-age=31536000, immutable' : 'no-cache');
    ctx.set('Referrer-Policy', 'strict-origin-when-cross-origin');
    if (file.type.startsWith('text/html')) {
      // A player may be embedded anywhere. A page on which people type a key or password must not
      // be framed.
      const isPlayer = file === index && !isStudio && !isAccount;
      ctx.set('Content-Security-Policy', isPlayer ? policies.player : policies.other);
      if (!isPlayer) ctx.set('X-Frame-Options', 'DENY');
      ctx.set('Cross-Origin-Opener-Policy', 'same-origin');
      ctx.set('Permissions-Policy', `camera=(), geolocation=(), microphone=${isStudio ? '(self)' : '()'}, autoplay=*`);
    }
    ctx.vary('Accept-Encoding');
    ctx.status = 200;
    if (conditionOf(ctx.req, file.etag) === 'not-modified') {
      ctx.status = 304;
      return undefined;
    }
    // Each encoding is asked for by itself: browsers name gzip first without preferring it.
    const encoding = file.compressed && ENCODINGS.find((name) => ctx.acceptsEncodings(name) === name);
    if (encoding) ctx.set('Content-Encoding', encoding);
    ctx.body = encoding ? await file.compressed?.[encoding]() : file.plain;
    return undefined;
  };
  return { middleware };
}

/**
 * Builds the policy. `blob:` is for hls.js, which gives its MediaSource and its worker such
 * addresses.
 */
function policy(mediaOrigins: readonly string[], frameAncestors: string): string {
  const media = ["'self'", ...mediaOrigins].join(' ');
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self'",
    "manifest-src 'self'",
    `media-src ${media} blob: data:`,
    `connect-src ${media} ws: wss:`,
    "worker-src 'self' blob:",
    "base-uri 'none'",
    "form-action 'self'",
    `frame-ancestors ${frameAncestors}`,
  ].join('; ');
}

async function filesBelow(dir: string, prefix: string): Promise<string[]> {
  const entries = await readdir(join(dir, prefix), { withFileTypes: true }).catch((error) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const paths = await Promise.all(
    entries.map((entry) =>
      entry.isDirectory() ? filesBelow(dir, `${prefix}${entry.name}/`) : entry.isFile() ? [prefix + entry.name] : [],
    ),
  );
  return paths.flat();
}

async function loadFile(file: string, path: string, chatPorts: string): Promise<PageFile> {
  const read = await readFile(file);
  const plain = path.endsWith('.html')
    ? Buffer.from(read.toString().replace('name="veza-chat-ports" content=""', `name="veza-chat-ports" content="${chatPorts}"`))
    : read;
  const extension = extname(path);
  const compressible = COMPRESSIBLE.has(extension) && plain.length > 512;
  return {
    type: TYPES[extension] ?? 'application/octet-stream',
    etag: `W/"${createHash('sha256').update(plain).digest('base64url').slice(0, 22)}"`,
    // The bundler puts a hash of the content into these names.
    immutable: /^assets\/.+-[\w-]{8,}\.\w+$/.test(path),
    plain,
    compressed: compressible ? await compressions(plain) : undefined,
  };
}

async function compressions(plain: Buffer): Promise<Record<PageEncoding, () => Promise<Buffer>>> {
  const compressed: Record<PageEncoding, () => Promise<Buffer>> = {
    // Quality 9 takes a fifth of the time of 11, for 3 % more bytes.
    br: once(() => promisify(brotliCompress)(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } })),
    gzip: once(() => promisify(gzip)(plain, { level: 9 })),
  };
  if (plain.length <= MAX_COMPRESSED_AT_START_BYTES) await Promise.all(ENCODINGS.map((name) => compressed[name]()));
  return compressed;
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
