const CHANNEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** What is told to a client that asked for something else. */
export const USAGE =
  'PUT or SOURCE /{channel} (Icecast), POST /ingest/{channel}, GET or POST /admin/metadata. Listeners and statistics have the web port.';

export type IngestResource =
  /** `server`: the port as a whole (`*`), which only OPTIONS can name. */
  | { readonly kind: 'server' | 'root' | 'status' | 'metadata'; readonly channel?: undefined }
  | { readonly kind: 'post' | 'mount'; readonly channel: string };

export const ALLOWED_METHODS: Readonly<Record<IngestResource['kind'], readonly string[]>> = {
  // libshout asks this before it connects, and where `POST` is listed it posts metadata calls as a form.
  server: ['PUT', 'SOURCE', 'GET', 'OPTIONS', 'HEAD', 'POST'],
  root: ['GET', 'HEAD', 'OPTIONS'],
  status: ['GET', 'HEAD', 'OPTIONS'],
  metadata: ['GET', 'POST', 'HEAD', 'OPTIONS'],
  post: ['POST', 'OPTIONS'],
  mount: ['PUT', 'SOURCE', 'OPTIONS'],
};

/** RFC 9110 9.1: any other method is answered 501, whatever the address; one of these may be answered 405. */
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

/** The channel of a path `/{channel}`; undefined when it is not one. */
export function channelOf(path: string): string | undefined {
  const slug = path.startsWith('/') ? path.slice(1) : '';
  return CHANNEL.test(slug) ? slug : undefined;
}
