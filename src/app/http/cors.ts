import type Koa from 'koa';

/**
 * Request headers that a page of another origin may send: all that the API reads, and the
 * conditions and ranges that it ignores (RFC 9110), which clients send without knowing that. A
 * browser does not send a request with any other header.
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
/** Response headers that a page may read, besides those that the Fetch standard always allows. */
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

/**
 * CORS for pages of other origins. It never refuses a request: without its headers the browser
 * does.
 */
export function cors(allowedOrigins: readonly string[]): Koa.Middleware {
  const everyone = allowedOrigins.includes('*');
  return (ctx, next) => {
    const origin = ctx.get('origin');
    if (!ctx.path.startsWith('/api/') || allowedOrigins.length === 0) return next();
    // `Vary` is set without an Origin too, and when every origin is allowed: a cached answer to a
    // request without one lacks the header that a page needs.
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
