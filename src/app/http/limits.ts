import { createHash } from 'node:crypto';
import type Koa from 'koa';
import type { Hold } from '../../access/limits/attempts.js';
import { RateLimited, type RateLimits, type Standing } from '../../access/limits/rate-limits.js';
import type { Principal } from '../../access/roles.js';
import { BoundedMap } from '../../runtime/bounded-map.js';

/** Credentials whose owner is remembered, so that one who is over his limit is refused before his token is looked at. */
const MAX_REMEMBERED = 10_000;

type ApiRateLimits = Pick<RateLimits, 'take' | 'peek' | 'hold'>;

/** Operations that are proven by their body. */
const AUTH_PREFIX = '/api/v1/auth/';
/** The one of them that may be proven by its header, too. */
const LOGOUT_PATH = `${AUTH_PREFIX}logout`;

/**
 * Counts the requests to the API: of an account, an API key or another known subject wherever it comes from; of an address when nobody is known.
 * That is the first thing done to a request, before a credential is checked, a body read or the database asked.
 *
 * A credential that is not known yet costs its address a point of the bucket `credential`, which it gets back when the credential is
 * good: so guessing is limited, and who has a good one is not kept out by others at his address who do nothing wrong.
 *
 * Signing in, refreshing and the like have a bucket of their own: however many pages are open behind an address, people there can sign in. A request
 * that has proven an account by its body counts for that account from then on, and gives its address the point back.
 */
export class ApiLimits {
  readonly #limits: ApiRateLimits;
  /** Hash of a credential that was good once → what its requests are counted by. The oldest goes first. */
  readonly #remembered = new BoundedMap<string, string>(MAX_REMEMBERED);

  readonly #isFree: (ctx: Koa.Context) => boolean;

  /** `isFree`: whether a request without a credential costs too little to be counted. */
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

  /** Nobody is known by what the request came with, or not yet. */
  isStranger(ctx: Koa.Context): boolean {
    return ctx.state.credential !== undefined || ctx.get('authorization') === '';
  }

  /** It is known whose credential it is that this request came with. Rejects with `RateLimited` when its owner has used up what he may. */
  async identified(ctx: Koa.Context, principal: Principal): Promise<void> {
    const name = ctx.state.credential as string | undefined;
    if (name === undefined) return;
    ctx.state.credential = undefined;
    if (principal.kind === 'anonymous') {
      // It was not good, and did not need to be.
      if (!authHold(ctx)) tell(ctx, await this.#limits.take('api', ctx.ip));
      return;
    }
    await credentialHold(ctx)?.release();
    const client = principal.accountId !== undefined && principal.kind === 'account' ? `account:${principal.accountId}` : principal.id;
    this.#remembered.set(name, client);
    tell(ctx, await this.#limits.take('api', client));
  }

  /** The body has proven this account. One that does nothing but sign in uses up what it may itself, and then what its address may. */
  async proven(ctx: Koa.Context, accountId: string): Promise<void> {
    try {
      await this.#limits.take('api', `account:${accountId}`);
      await authHold(ctx)?.release();
    } catch (error) {
      if (!(error instanceof RateLimited)) throw error;
    }
  }

  /** What this request came with is good no more: whoever goes on sending it must not use up what its owner may. */
  refused(ctx: Koa.Context): void {
    this.#remembered.delete(hashOf(ctx.get('authorization')));
  }
}

const authHold = (ctx: Koa.Context) => ctx.state.authHold as Hold | undefined;
const credentialHold = (ctx: Koa.Context) => ctx.state.credentialHold as Hold | undefined;
const hashOf = (text: string) => createHash('sha256').update(text).digest('base64url');

/** draft-ietf-httpapi-ratelimit-headers-11. Where several limits count for a request, each has its member. */
function tell(ctx: Koa.Context, { bucket, points, windowS, remaining, resetS }: Standing): void {
  ctx.append('RateLimit-Policy', `"${bucket}";q=${points};w=${windowS}`);
  ctx.append('RateLimit', `"${bucket}";r=${remaining};t=${resetS}`);
}
