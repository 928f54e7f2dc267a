import type { TLSSocket } from 'node:tls';
import type Koa from 'koa';

/** Half a year: long enough to protect, short enough to wait out when an operator gives up TLS. */
const STRICT_TRANSPORT = 'max-age=15552000';

/**
 * Sets the security headers of every answer but media. Pages add more (`static.ts`); answers of the
 * API are never shown as a document, framed or run as a script. Media is open to every page on
 * purpose and has none of these headers.
 */
export function securityHeaders(trustProxyHops: number): Koa.Middleware {
  return (ctx, next) => {
    ctx.set('X-Content-Type-Options', 'nosniff');
    const overTls =
      (ctx.socket as Partial<TLSSocket>).encrypted === true ||
      (trustProxyHops > 0 && /^https\s*(?:,|$)/i.test(ctx.get('x-forwarded-proto')));
    // A browser must ignore the header over plain HTTP (RFC 6797 7.2).
    if (overTls) ctx.set('Strict-Transport-Security', STRICT_TRANSPORT);
    if (ctx.path.startsWith('/api/') || ctx.path.startsWith('/health/')) {
      ctx.set('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'");
      ctx.set('Referrer-Policy', 'no-referrer');
      ctx.set('X-Frame-Options', 'DENY');
    }
    return next();
  };
}
