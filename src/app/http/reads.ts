import type Koa from 'koa';
import { VezaError } from '../../runtime/errors.js';
import { conditionOf } from './conditions.js';

const METHODS = 'GET, HEAD, OPTIONS';

export const methodNotAllowed = (method: string) => new VezaError('method_not_allowed', `This address does not allow ${method}.`);

export const preconditionFailed = () => new VezaError('precondition_failed', 'The condition in If-Match or If-None-Match does not hold.');

/**
 * Checks the method at an address that can only be read. True: the caller answers a GET or HEAD.
 * False: `OPTIONS` has been answered here. Throws `method_not_allowed` for every other method, with
 * `Allow` (RFC 9110 15.5.6), and `precondition_failed`.
 */
export function reads(ctx: Koa.Context, etag?: string): boolean {
  if (ctx.method === 'GET' || ctx.method === 'HEAD') {
    if (conditionOf(ctx.req, etag) === 'failed') throw preconditionFailed();
    return true;
  }
  ctx.set('Allow', METHODS);
  if (ctx.method !== 'OPTIONS') throw methodNotAllowed(ctx.method);
  ctx.status = 204;
  return false;
}
