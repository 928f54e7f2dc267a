import { createHash } from 'node:crypto';
import type Koa from 'koa';
import { RateLimited, type RateLimits, type Standing } from '../access/rate-limits.js';
import type { Principal } from '../access/roles.js';

/** Credentials whose owner is remembered, so that one who is over his limit is refused before his token is looked at. */
const MAX_REMEMBERED = 10_000;

type ApiRateLimits = Pick<RateLimits, 'take' | 'reward'>;

/**
 * Counts the requests to the API: of an account, an API key or another known subject wherever it comes from; of an address when nobody is known.
 * That is the first thing done to a request, before a credential is checked, a body read or the database asked.
 *
 * A credential that is not known yet costs its address a point of the bucket `credential`, which it gets back when the credential is
 * good: so guessing is limited, and who has a good one is not kept out by others at his address who do nothing wrong.
 */
export class ApiLimits {
  readonly #limits: ApiRateLimits;
  /** Hash of a credential that was good once → what its requests are counted by. The oldest goes first. */
  readonly #remembered = new Map<string, string>();

  constructor(limits: ApiRateLimits) {
    this.#limits = limits;
  }

  readonly middleware: Koa.Middleware = async (ctx, next) => {
    if (!ctx.path.startsWith('/api/')) return next();
    try {
      const authorization = ctx.get('authorization');
      if (authorization === '') tell(ctx, await this.#limits.take('api', ctx.ip));
      else {
        const name = hashOf(authorization);
        const client = this.#remembered.get(name);
        if (client === undefined) {
          await this.#limits.take('credential', ctx.ip);
          ctx.state.credential = name;
        } else tell(ctx, await this.#limits.take('api', client));
      }
      await next();
    } catch (error) {
      if (error instanceof RateLimited) tell(ctx, error.standing);
      throw error;
    }
  };

  /** It is known whose credential it is that this request came with. Rejects with `RateLimited` when its owner has used up what he may. */
  async identified(ctx: Koa.Context, principal: Principal): Promise<void> {
    const name = ctx.state.credential as string | undefined;
    if (name === undefined) return;
    ctx.state.credential = undefined;
    if (principal.kind === 'anonymous') {
      // It was not good, and did not need to be.
      tell(ctx, await this.#limits.take('api', ctx.ip));
      return;
    }
    await this.#limits.reward('credential', ctx.ip);
    const client = principal.accountId !== undefined && principal.kind === 'account' ? `account:${principal.accountId}` : principal.id;
    if (this.#remembered.size >= MAX_REMEMBERED) this.#remembered.delete(this.#remembered.keys().next().value!);
    this.#remembered.set(name, client);
    tell(ctx, await this.#limits.take('api', client));
  }

  /** What this request came with is good no more: whoever goes on sending it must not use up what its owner may. */
  refused(ctx: Koa.Context): void {
    this.#remembered.delete(hashOf(ctx.get('authorization')));
  }
}

const hashOf = (text: string) => createHash('sha256').update(text).digest('base64url');

/** draft-ietf-httpapi-ratelimit-headers-11. Where several limits count for a request, each has its member. */
function tell(ctx: Koa.Context, { bucket, points, windowS, remaining, resetS }: Standing): void {
  ctx.append('RateLimit-Policy', `"${bucket}";q=${points};w=${windowS}`);
  ctx.append('RateLimit', `"${bucket}";r=${remaining};t=${resetS}`);
}
