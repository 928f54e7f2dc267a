import type Koa from 'koa';

/**
 * What a page may send: all that the API reads, and conditions and ranges that it ignores as RFC 9110 has it, which clients send without knowing that. A browser
 * sends those that are not here to nobody.
 */
const ALLOWED_HEADERS = [
  'Authorization',
  'Cache-Control',
  'Content-Encoding',
  'Content-Type',
  'If-Match',
  'If-Modified-Since',
  'If-None-Match',
  'If-Range',
  'If-Unmodified-Since',
  'Range',
  'X-Request-Id',
].join(', ');
/** What a page may read of an answer, beside the few that the Fetch standard lets it read always. */
const EXPOSED_HEADERS = [
  'Allow',
  'Date',
  'ETag',
  'Location',
  'RateLimit',
  'RateLimit-Policy',
  'Retry-After',
  'WWW-Authenticate',
  'X-Request-Id',
].join(', ');

/** For pages of other origins. Refuses nothing: where it says nothing, the browser does. */
export function cors(allowedOrigins: readonly string[]): Koa.Middleware {
  const everyone = allowedOrigins.includes('*');
  return (ctx, next) => {
    const origin = ctx.get('origin');
    if (!ctx.path.startsWith('/api/') || allowedOrigins.length === 0) return next();
    // Also without an Origin, and for everyone: what a cache has kept of such an answer lacks the field that a page needs.
    ctx.vary('Origin');
    if (origin === '' || !(everyone || allowedOrigins.includes(origin))) return next();
    ctx.set('Access-Control-Allow-Origin', everyone ? '*' : origin);
    ctx.set('Access-Control-Expose-Headers', EXPOSED_HEADERS);
    if (ctx.method !== 'OPTIONS' || ctx.get('access-control-request-method') === '') return next();
    ctx.state.route = 'preflight';
    ctx.set('Access-Control-Allow-Methods', 'GET, POST, PUT, PATCH, DELETE');
    ctx.set('Access-Control-Allow-Headers', ALLOWED_HEADERS);
    ctx.set('Access-Control-Max-Age', '600');
    ctx.status = 204;
    return undefined;
  };
}
