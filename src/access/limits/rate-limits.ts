import { createHash } from 'node:crypto';
import { RateLimiterCompatibleAbstract, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import { openRedis, type RedisConnection } from '../../backing/redis/redis.js';
import { addressGroup } from '../../runtime/addresses.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { SignInQueue } from '../accounts/sign-in-queue.js';
import { Attempts, type Hold, wasTurnedAway } from './attempts.js';

interface Size {
  /** Points that may be taken in a window; the window begins with the first. */
  readonly points: number;
  readonly windowS: number;
}

/**
 * What is counted, and how much of it is allowed to one key. With a `RATE_LIMIT_PER_MINUTE` other than 1000 all but `UNSCALED` grow or
 * shrink with it. `docs/limits.md` says the same for operators.
 */
export const BUCKETS = {
  /** Requests to the API of one account, API key or gateway subject; of one address where nobody is known. */
  api: { points: 1000, windowS: 60 },
  /** Requests from one address to sign in, refresh, register, recover and the like, that proved nobody: apart from `api`, which pages use up. */
  auth: { points: 1000, windowS: 60 },
  /** Credentials that were sent from one address and were not good. */
  credential: { points: 100, windowS: 60 },
  /** Failed sign-ins from one address. */
  'sign-in-address': { points: 30, windowS: 300 },
  /** Failed sign-ins to one account from one address: another address is not touched by them. */
  'sign-in-account': { points: 10, windowS: 900 },
  /** Failed sign-ins to one account from all addresses that never signed in to it. Short, so that it slows and does not lock out. */
  'sign-in-unknown': { points: 20, windowS: 60 },
  /** That an address has signed in to an account. */
  'sign-in-known': { points: 1, windowS: 30 * 86_400 },
  /** Tokens that were not good, of refreshing, confirming, resetting. */
  token: { points: 60, windowS: 60 },
  /** Recovery mails asked for, from one address or for one account. */
  recover: { points: 10, windowS: 3600 },
  /** Accounts registered from one address. */
  register: { points: 20, windowS: 3600 },
  /** Wrong codes of an account's second factor: 5 of a million in a quarter of an hour. */
  'second-factor': { points: 5, windowS: 900 },
  /** Accounts that one of a channel's owners looks up by e-mail address. */
  'member-email': { points: 30, windowS: 3600 },
} as const satisfies Record<string, Size>;

export type Bucket = keyof typeof BUCKETS;
/** What keeps from guessing, or is no count of requests, does not follow how many requests are allowed. */
export const UNSCALED: readonly Bucket[] = ['sign-in-address', 'sign-in-account', 'sign-in-unknown', 'sign-in-known', 'second-factor'];

/** An address, an e-mail address, an id; several of them together are one key. Addresses of IPv6 count by their /64. */
export type LimitKey = string | readonly string[];

/** How a key stands with a bucket. */
export interface Standing extends Size {
  readonly bucket: Bucket;
  readonly remaining: number;
  /** Whole seconds until the points are all there again. */
  readonly resetS: number;
}

export class RateLimited extends VezaError {
  readonly standing: Standing;

  constructor(standing: Standing) {
    const { bucket, resetS } = standing;
    super('rate_limited', `Too many requests. Try again in ${resetS} s.`, { details: { limit: bucket, retryAfterS: resetS } });
    this.standing = standing;
  }
}

export interface RateLimitsOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Shares the counts between processes. Undefined: each process counts by itself. */
  readonly redisUrl?: string | undefined;
  /** `RATE_LIMIT_PER_MINUTE`. */
  readonly perMinute?: number | undefined;
  /** Keys of one bucket that are kept in this process. */
  readonly maxKeys?: number;
}

const DEFAULT_MAX_KEYS = 50_000;
/** Sign-ins in this process. A password takes a thread some 30 ms: the last of those under way waits a second, the last in the queue nine. */
const SIGN_INS = { strangers: 32, perAddress: 16, known: 16, waiting: 256, maxWaitMs: 10_000 };

/** As the library's own, but what is refused takes nothing, and giving back never makes more than there was. */
const incrementUpTo = (points: number) => `redis.call('set', KEYS[1], 0, 'EX', ARGV[2], 'NX')
local wanted = tonumber(redis.call('get', KEYS[1])) + tonumber(ARGV[1])
if tonumber(ARGV[1]) > 0 and wanted > ${points} then return {wanted, redis.call('pttl', KEYS[1])} end
local consumed = redis.call('incrby', KEYS[1], ARGV[1])
if consumed < 0 then consumed = redis.call('incrby', KEYS[1], -consumed) end
return {consumed, redis.call('pttl', KEYS[1])}`;

interface Limiter {
  consume(key: string, points: number): Promise<RateLimiterRes>;
  reward(key: string, points: number): Promise<RateLimiterRes>;
  get(key: string): Promise<RateLimiterRes | null>;
}

/**
 * Counts what clients do, in windows of fixed length: with Redis for all processes together, without it (or while it is away) in this
 * process, in bounded memory. So while Redis is away each process allows what all of them do otherwise. Keys are hashed: no address or name
 * is in Redis.
 */
export class RateLimits {
  readonly #limiters: ReadonlyMap<Bucket, Limiter & Size>;
  readonly #redis: RedisConnection | undefined;
  readonly #attempts = new Attempts();
  readonly #signIns: SignInQueue;

  constructor(options: RateLimitsOptions) {
    const { clock, log, redisUrl, maxKeys = DEFAULT_MAX_KEYS } = options;
    const scale = (options.perMinute ?? BUCKETS.api.points) / BUCKETS.api.points;
    this.#signIns = new SignInQueue(clock, SIGN_INS);
    this.#redis = redisUrl === undefined ? undefined : openRedis({ url: redisUrl, log });
    this.#limiters = new Map(
      (Object.entries(BUCKETS) as [Bucket, Size][]).map(([bucket, { points: unscaled, windowS }]): [Bucket, Limiter & Size] => {
        const points = UNSCALED.includes(bucket) ? unscaled : Math.max(1, Math.round(unscaled * scale));
        const here = new Counts(clock, points, windowS, maxKeys);
        if (!this.#redis) return [bucket, here];
        const shared = new RateLimiterRedis({
          storeClient: this.#redis.client,
          keyPrefix: `veza:limit:${bucket}`,
          points,
          duration: windowS,
          rejectIfRedisNotReady: true,
          insuranceLimiter: here,
          customIncrTtlLuaScript: incrementUpTo(points),
        });
        return [bucket, Object.assign(shared, { windowS })];
      }),
    );
  }

  /** Takes points, or rejects with `RateLimited` when there are not so many left, and takes none. */
  async take(bucket: Bucket, key: LimitKey, points = 1): Promise<Standing> {
    try {
      return this.#standing(bucket, await this.#limiter(bucket).consume(nameOf(key), points));
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused;
      throw new RateLimited(this.#standing(bucket, refused));
    }
  }

  /** How it stands, without taking anything. */
  async peek(bucket: Bucket, key: LimitKey): Promise<Standing> {
    return this.#standing(bucket, await this.#limiter(bucket).get(nameOf(key)));
  }

  /** Gives points back: what they were taken for has turned out well. */
  async reward(bucket: Bucket, key: LimitKey, points = 1): Promise<void> {
    await this.#limiter(bucket).reward(nameOf(key), points);
  }

  /** A point for an attempt of which only a wrong one counts; `Attempts` says when it waits. Rejects with `RateLimited`. */
  hold(bucket: Bucket, key: LimitKey): Promise<Hold> {
    return this.#attempts.hold(`${bucket} ${nameOf(key)}`, {
      take: () => this.take(bucket, key),
      giveBack: () => this.reward(bucket, key),
      isRefusal: (error) => error instanceof RateLimited,
    });
  }

  /**
   * Around an attempt. What it rejects with counts, unless it was turned away; so does what it resolves to, when `isRight` says that it is wrong.
   * Rejects with `RateLimited` when too many were wrong.
   */
  async attempt<T>(bucket: Bucket, key: LimitKey, task: () => Promise<T>, isRight: (result: T) => boolean = () => true): Promise<T> {
    const hold = await this.hold(bucket, key);
    try {
      const result = await task();
      if (isRight(result)) await hold.release();
      return result;
    } catch (error) {
      if (wasTurnedAway(error)) await hold.release();
      throw error;
    } finally {
      hold.keep();
    }
  }

  /**
   * Around a sign-in: `SignInQueue` says how many are under way at one time, with places that are kept for addresses which the account is known to
   * sign in from. Rejects with `busy`, before the database or a password is looked at: a flood costs no more than its refusals.
   */
  async inTurn<T>(email: string, address: string, signIn: () => Promise<T>): Promise<T> {
    const { remaining } = await this.peek('sign-in-known', [email.toLowerCase(), address]);
    const failures = await this.peek('sign-in-address', address);
    const group = addressGroup(address);
    const hasFailed = failures.points - failures.remaining > this.#attempts.held(`sign-in-address ${nameOf(address)}`);
    return this.#signIns.run({ address: group, isKnown: remaining === 0, hasFailed }, signIn);
  }

  /**
   * Around looking at a password: only failures count. Resolves and rejects as `signIn` does, or rejects with `RateLimited`. When `signIn` resolves,
   * the address is known to the account from then on; `uncounted` says that the password was right and a code is asked for still. What others try
   * from elsewhere never stands in the way of a known address. `wasHere`: whether the account has a session there, for a process that has forgotten
   * what it counted.
   */
  async signIn<T>(
    email: string,
    address: string,
    signIn: (attempt: { uncounted(): void }) => Promise<T>,
    wasHere: () => Promise<boolean> = async () => false,
  ): Promise<T> {
    const who = email.toLowerCase();
    const both = [who, address];
    const holds: Hold[] = [];
    let isUncounted = false;
    try {
      // Always in this order: who waits for the last of them holds up nobody who holds it.
      holds.push(await this.hold('sign-in-address', address));
      holds.push(await this.hold('sign-in-account', both));
      const isKnown = (await this.peek('sign-in-known', both)).remaining === 0 || (await wasHere());
      if (!isKnown) holds.push(await this.hold('sign-in-unknown', who));
      const result = await signIn({
        uncounted: () => {
          isUncounted = true;
        },
      });
      for (const hold of holds) await hold.release();
      if (!isKnown) await this.#remember(both);
      return result;
    } catch (error) {
      if (isUncounted || wasTurnedAway(error)) for (const hold of holds) await hold.release();
      throw error;
    } finally {
      for (const hold of holds) hold.keep();
    }
  }

  async #remember(both: LimitKey): Promise<void> {
    await this.take('sign-in-known', both).catch((error) => {
      if (!(error instanceof RateLimited)) throw error;
    });
  }

  stop(): void {
    this.#redis?.stop();
  }

  #limiter(bucket: Bucket): Limiter & Size {
    return this.#limiters.get(bucket)!;
  }

  #standing(bucket: Bucket, result: RateLimiterRes | null): Standing {
    const { points, windowS } = this.#limiter(bucket);
    const remaining = result ? Math.max(0, points - result.consumedPoints) : points;
    return { bucket, points, windowS, remaining, resetS: result ? Math.max(1, Math.ceil(result.msBeforeNext / 1000)) : windowS };
  }
}

interface Count {
  consumed: number;
  readonly endMs: number;
}

/** Keys that are looked at for their end with each new one. */
const SWEPT_AT_A_TIME = 8;

/**
 * The same in this process. All windows of a bucket are of one length, so the order of insertion is the order in which they end: no timer,
 * and the one that gives way when there are too many is the one that has the least time left. Whoever has so many addresses that his own counts
 * are pushed out had that many times the limit anyway.
 */
class Counts extends RateLimiterCompatibleAbstract implements Limiter {
  readonly points: number;
  readonly windowS: number;
  // Set by the library on what it falls back on, and of no use here.
  override blockDuration = 0;
  override execEvenly = false;
  override readonly keyPrefix = '';
  readonly #clock: Clock;
  readonly #maxKeys: number;
  readonly #counts = new Map<string, Count>();

  constructor(clock: Clock, points: number, windowS: number, maxKeys: number) {
    super();
    this.#clock = clock;
    this.points = points;
    this.windowS = windowS;
    this.#maxKeys = maxKeys;
  }

  override async consume(key: string, points = 1): Promise<RateLimiterRes> {
    const nowMs = this.#clock.monotonicMs();
    const count = this.#counts.get(key);
    const consumed = count && count.endMs > nowMs ? count.consumed : 0;
    // What is refused takes nothing, or the refused would keep out those who come after them.
    if (consumed + points > this.points) {
      const endMs = consumed > 0 ? count!.endMs : nowMs + this.windowS * 1000;
      throw new RateLimiterRes(0, endMs - nowMs, consumed + points, false);
    }
    return this.#add(key, points);
  }

  override async penalty(key: string, points = 1): Promise<RateLimiterRes> {
    return this.#add(key, points);
  }

  override async reward(key: string, points = 1): Promise<RateLimiterRes> {
    return this.#add(key, -points);
  }

  override async get(key: string): Promise<RateLimiterRes | null> {
    const count = this.#counts.get(key);
    return count && count.endMs > this.#clock.monotonicMs() ? this.#result(count, 0) : null;
  }

  override async delete(key: string): Promise<boolean> {
    return this.#counts.delete(key);
  }

  #add(key: string, points: number): RateLimiterRes {
    const nowMs = this.#clock.monotonicMs();
    let count = this.#counts.get(key);
    if (!count || count.endMs <= nowMs) {
      this.#counts.delete(key);
      this.#makeRoom(nowMs);
      count = { consumed: 0, endMs: nowMs + this.windowS * 1000 };
      this.#counts.set(key, count);
    }
    count.consumed = Math.max(0, count.consumed + points);
    return this.#result(count, points);
  }

  #makeRoom(nowMs: number): void {
    let looked = 0;
    for (const [key, { endMs }] of this.#counts) {
      const isOver = endMs <= nowMs && looked++ < SWEPT_AT_A_TIME;
      if (!isOver && this.#counts.size < this.#maxKeys) return;
      this.#counts.delete(key);
    }
  }

  #result({ consumed, endMs }: Count, points: number): RateLimiterRes {
    return new RateLimiterRes(Math.max(0, this.points - consumed), endMs - this.#clock.monotonicMs(), consumed, consumed === points);
  }
}

/** Short whatever was sent, and nothing that names somebody. */
const nameOf = (key: LimitKey): string =>
  createHash('sha256')
    .update((typeof key === 'string' ? [key] : key).map(addressGroup).join('\n'))
    .digest('base64url')
    .slice(0, 22);
