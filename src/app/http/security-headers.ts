import type { TLSSocket } from 'node:tls';
import type Koa from 'koa';

/** Half a year: long enough to matter, short enough to be outlived when TLS is given up. */
const STRICT_TRANSPORT = 'max-age=15552000';

/**
 * What every answer but media says to browsers. Pages add to it (`static.ts`); what the API answers is never to be shown as a document, framed or
 * taken as a script. Media is open to every page on purpose and has none of this.
 */
export function securityHeaders(trustProxyHops: number): Koa.Middleware {
  return (ctx, next) => {
    ctx.set('X-Content-Type-Options', 'nosniff');
    const overTls =
      (ctx.socket as Partial<TLSSocket>).encrypted === true ||
      (trustProxyHops > 0 && /^https\s*(?:,|$)/i.test(ctx.get('x-forwarded-proto')));
    // Over plain HTTP a browser ignores it, and must (RFC 6797 7.2).
    if (overTls) ctx.set('Strict-Transport-Security', STRICT_TRANSPORT);
    if (ctx.path.startsWith('/api/') || ctx.path.startsWith('/health/')) {
      ctx.set('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'");
      ctx.set('Referrer-Policy', 'no-referrer');
      ctx.set('X-Frame-Options', 'DENY');
    }
    return next();
  };
}
