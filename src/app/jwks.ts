import type Koa from 'koa';

/**
 * `/.well-known/jwks.json`: what other systems verify our access tokens with. Of public keys only, so every page may read it. A key is in it
 * ten minutes before it signs: a cache of five is safe.
 */
export function keySetEndpoint(keySet: () => object): Koa.Middleware {
  return async (ctx, next) => {
    if (ctx.path !== '/.well-known/jwks.json') return next();
    if (ctx.method !== 'GET' && ctx.method !== 'HEAD') {
      ctx.set('Allow', 'GET, HEAD');
      throw Object.assign(new Error(`${ctx.method} is not possible here.`), { status: 405 });
    }
    ctx.state.route = ctx.path;
    ctx.set('Cache-Control', 'public, max-age=300');
    ctx.set('Access-Control-Allow-Origin', '*');
    ctx.body = keySet();
  };
}
