import type Koa from 'koa';
import { reads } from '../http/reads.js';

/**
 * `/.well-known/jwks.json`: what other systems verify our access tokens with. Of public keys only, so every page may read it. A key is in it
 * ten minutes before it signs: a cache of five is safe.
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
