import { createHash } from 'node:crypto';
import type Koa from 'koa';
import type { Hold } from '../../access/limits/attempts.js';
import { type BucketState, RateLimited, type RateLimits } from '../../access/limits/rate-limits.js';
import type { Principal } from '../../access/roles.js';
import { BoundedMap } from '../../runtime/bounded-map.js';

/**
 * Credentials whose owner is remembered, so that an owner above their limit is refused before the
 * token is verified.
 */
const MAX_REMEMBERED = 10_000;

type ApiRateLimits = Pick<RateLimits, 'take' | 'peek' | 'hold'>;

/** Operations whose credential is in the request's body. */
const AUTH_PREFIX = '/api/v1/auth/';
/** The one operation below it that takes its credential from the header, too. */
const LOGOUT_PATH = `${AUTH_PREFIX}logout`;

/**
 * Counts the requests to the API: per account, API key or other known principal, whatever its
 * address; per address when the principal is unknown. Counting comes first, before a credential is
 * checked, a body read or the database asked.
 *
 * A credential that is not known yet costs its address one point of the bucket `credential`. The
 * point is given back when the credential is good: guessing is limited, and people with a good
 * credential are not kept out by others at their address who do nothing wrong.
 *
 * Signing in and refreshing have a bucket of their own, so that people can sign in however many
 * pages are open behind their address. A request that has proven an account by its body counts for
 * that account from then on, and its address gets the point back.
 */
export class ApiLimits {
  readonly #limits: ApiRateLimits;
  /**
   * Hash of a credential that was good once → the principal that its requests count for. The oldest
   * is discarded first.
   */
  readonly #remembered = new BoundedMap<string, string>(MAX_REMEMBERED);

  readonly #isFree: (ctx: Koa.Context) => boolean;

  /** `isFree` says whether a request without a credential costs too little to be counted. */
  constructor(limits: ApiRateLimits, isFree: (ctx: Koa.Context) => boolean = () => false) {
    this.#limits = limits;
    this.#isFree = isFree;
  }

  readonly middleware: Koa.Middleware = async (ctx, next) => {
    if (!ctx.path.startsWith('/api/')) return next();
    try {
      const authorization = ctx.get('authorization');
      if (ctx.path.startsWith(AUTH_PREFIX)) {
        ctx.state.authHold = await this.#limits.hold('auth', ctx.ip);
        tell(ctx, await this.#limits.peek('auth', ctx.ip));
        if (ctx.path === LOGOUT_PATH && authorization !== '') await this.#begin(ctx, authorization);
      } else if (authorization === '') {
        tell(ctx, await (this.#isFree(ctx) ? this.#limits.peek('api', ctx.ip) : this.#limits.take('api', ctx.ip)));
      } else await this.#begin(ctx, authorization);
      await next();
    } catch (error) {
      if (error instanceof RateLimited) tell(ctx, error.standing);
      throw error;
    } finally {
      authHold(ctx)?.keep();
      credentialHold(ctx)?.keep();
    }
  };

  async #begin(ctx: Koa.Context, authorization: string): Promise<void> {
    const name = hashOf(authorization);
    const client = this.#remembered.get(name);
    if (client === undefined) {
      ctx.state.credentialHold = await this.#limits.hold('credential', ctx.ip);
      ctx.state.credential = name;
    } else tell(ctx, await this.#limits.take('api', client));
  }

  /** Whether the principal of the request is anonymous, or not known yet. */
  isStranger(ctx: Koa.Context): boolean {
    return ctx.state.credential !== undefined || ctx.get('authorization') === '';
  }

  /**
   * Counts the request for the owner of its credential, now that it is known. Rejects with
   * `RateLimited` when the owner is above their limit.
   */
  async identified(ctx: Koa.Context, principal: Principal): Promise<void> {
    const name = ctx.state.credential as string | undefined;
    if (name === undefined) return;
    ctx.state.credential = undefined;
    if (principal.kind === 'anonymous') {
      // The credential was not good, and the operation needs none.
      if (!authHold(ctx)) tell(ctx, await this.#limits.take('api', ctx.ip));
      return;
    }
    await credentialHold(ctx)?.release();
    const client = principal.accountId !== undefined && principal.kind === 'account' ? `account:${principal.accountId}` : principal.id;
    this.#remembered.set(name, client);
    tell(ctx, await this.#limits.take('api', client));
  }

  /**
   * Counts the request for the account that its body has proven. When the account has used up its
   * own points, the point of the address is kept: an account that only signs in uses up its own
   * limit first, then that of its address.
   */
  async proven(ctx: Koa.Context, accountId: string): Promise<void> {
    try {
      await this.#limits.take('api', `account:${accountId}`);
      await authHold(ctx)?.release();
    } catch (error) {
      if (!(error instanceof RateLimited)) throw error;
    }
  }

  /**
   * The request's credential is not good any more: further requests with it must not use up its
   * owner's points.
   */
  refused(ctx: Koa.Context): void {
    this.#remembered.delete(hashOf(ctx.get('authorization')));
  }
}

const authHold = (ctx: Koa.Context) => ctx.state.authHold as Hold | undefined;
const credentialHold = (ctx: Koa.Context) => ctx.state.credentialHold as Hold | undefined;
const hashOf = (text: string) => createHash('sha256').update(text).digest('base64url');

/**
 * draft-ietf-httpapi-ratelimit-headers-11. When several limits count for a request, each has its
 * member.
 */
function tell(ctx: Koa.Context, { bucket, points, windowS, remaining, resetS }: BucketState): void {
  ctx.append('RateLimit-Policy', `"${bucket}";q=${points};w=${windowS}`);
  ctx.append('RateLimit', `"${bucket}";r=${remaining};t=${resetS}`);
}
