const CHANNEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** The end of the message for a client that asked for another address. */
export const USAGE =
  'PUT or SOURCE /{channel} (Icecast), POST /ingest/{channel}, GET or POST /admin/metadata. Listeners and statistics have the web port.';

export type IngestResource =
  /** `server` is the port as a whole (`*`); only OPTIONS can name it. */
  | { readonly kind: 'server' | 'root' | 'status' | 'metadata'; readonly channel?: undefined }
  | { readonly kind: 'post' | 'mount'; readonly channel: string };

export const ALLOWED_METHODS: Readonly<Record<IngestResource['kind'], readonly string[]>> = {
  // libshout asks for `OPTIONS *` before it connects. Where `POST` is listed, it posts metadata
  // calls as a form.
  server: ['PUT', 'SOURCE', 'GET', 'OPTIONS', 'HEAD', 'POST'],
  root: ['GET', 'HEAD', 'OPTIONS'],
  status: ['GET', 'HEAD', 'OPTIONS'],
  metadata: ['GET', 'POST', 'HEAD', 'OPTIONS'],
  post: ['POST', 'OPTIONS'],
  mount: ['PUT', 'SOURCE', 'OPTIONS'],
};

/**
 * The methods that may be answered with 405. Any other method is answered with 501 at every address
 * (RFC 9110 9.1).
 */
export const KNOWN_METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH', 'SOURCE']);

export function resourceOf(path: string): IngestResource | undefined {
  if (path === '*') return { kind: 'server' };
  if (path === '/') return { kind: 'root' };
  if (path === '/status-json.xsl') return { kind: 'status' };
  if (path === '/admin/metadata') return { kind: 'metadata' };
  const posted = path.startsWith('/ingest/') ? channelOf(path.slice('/ingest'.length)) : undefined;
  if (posted !== undefined) return { kind: 'post', channel: posted };
  const mount = channelOf(path);
  return mount === undefined ? undefined : { kind: 'mount', channel: mount };
}

/** Returns the slug of a path `/{channel}`, or undefined when the path has another form. */
export function channelOf(path: string): string | undefined {
  const slug = path.startsWith('/') ? path.slice(1) : '';
  return CHANNEL.test(slug) ? slug : undefined;
}
