import type Koa from 'koa';
import { reads } from '../http/reads.js';

/**
 * Serves `/.well-known/jwks.json`, the keys with which other systems verify our access tokens. They
 * are public keys, so every page may read them. A key is published ten minutes before it signs, so
 * caching for five minutes is safe.
 */
export function keySetEndpoint(keySet: () => object): Koa.Middleware {
  return async (ctx, next) => {
    if (ctx.path !== '/.well-known/jwks.json') return next();
    ctx.state.route = ctx.path;
    if (!reads(ctx)) return;
    ctx.set('Cache-Control', 'public, max-age=300');
    ctx.set('Access-Control-Allow-Origin', '*');
    ctx.body = keySet();
  };
}
