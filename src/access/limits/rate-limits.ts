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
  /** At most this many points can be consumed in a window, which begins with the first of them. */
  readonly points: number;
  readonly windowS: number;
}

/**
 * The limits per key. All but those in `UNSCALED` are scaled by `RATE_LIMIT_PER_MINUTE` / 1000.
 * `docs/limits.md` lists them for operators.
 */
export const BUCKETS = {
  /** API requests per account, API key or gateway subject, or per address for anonymous clients. */
  api: { points: 1000, windowS: 60 },
  /**
   * Anonymous requests to sign in, refresh, register, recover and the like, per address. They are
   * separate from `api`, which loading pages uses up.
   */
  auth: { points: 1000, windowS: 60 },
  /** Credentials that were not good, per address. */
  credential: { points: 100, windowS: 60 },
  /** Failed sign-ins per address. */
  'sign-in-address': { points: 30, windowS: 300 },
  /** Failed sign-ins per account and address. They do not affect other addresses. */
  'sign-in-account': { points: 10, windowS: 900 },
  /**
   * Failed sign-ins per account from all addresses that never signed in to it. The window is short,
   * so that it slows attackers and does not lock the owner out.
   */
  'sign-in-unknown': { points: 20, windowS: 60 },
  /** Not a limit: remembers that an address has signed in to an account. */
  'sign-in-known': { points: 1, windowS: 30 * 86_400 },
  /** Tokens that were not good for refreshing, confirming and resetting, per address. */
  token: { points: 60, windowS: 60 },
  /** Requested recovery mails per address. */
  recover: { points: 10, windowS: 3600 },
  /** Registered accounts per address. */
  register: { points: 20, windowS: 3600 },
  /** Wrong codes per account: 5 guesses in a quarter of an hour, of a million possible codes. */
  'second-factor': { points: 5, windowS: 900 },
  /** E-mail addresses that an owner looks up to add members, per account. */
  'member-email': { points: 30, windowS: 3600 },
} as const satisfies Record<string, Size>;

export type Bucket = keyof typeof BUCKETS;
/**
 * Limits that do not scale with the number of allowed requests: they protect against guessing, or
 * do not count requests.
 */
export const UNSCALED: readonly Bucket[] = ['sign-in-address', 'sign-in-account', 'sign-in-unknown', 'sign-in-known', 'second-factor'];

/**
 * An address, an e-mail address or an id, or several of them as one key. IPv6 addresses count by
 * their /64.
 */
export type LimitKey = string | readonly string[];

/** The state of one key in one bucket. */
export interface BucketState extends Size {
  readonly bucket: Bucket;
  readonly remaining: number;
  /** Whole seconds until all points are available again. */
  readonly resetS: number;
}

export class RateLimited extends VezaError {
  readonly standing: BucketState;

  constructor(standing: BucketState) {
    const { bucket, resetS } = standing;
    super('rate_limited', `Too many requests. Try again in ${resetS} s.`, { details: { limit: bucket, retryAfterS: resetS } });
    this.standing = standing;
  }
}

export interface RateLimitsOptions {
  readonly clock: Clock;
  readonly log: Log;
  /**
   * The Redis that shares the counts between processes. Undefined: each process counts for itself.
   */
  readonly redisUrl?: string | undefined;
  /** `RATE_LIMIT_PER_MINUTE`. */
  readonly perMinute?: number | undefined;
  /** At most this many keys per bucket are kept in this process. */
  readonly maxKeys?: number;
}

const DEFAULT_MAX_KEYS = 50_000;
/**
 * Limits of sign-ins in this process. A password takes a thread some 30 ms: the last running
 * sign-in waits about one second, the last one in the queue about nine.
 */
const SIGN_INS = { strangers: 32, perAddress: 16, known: 16, waiting: 256, maxWaitMs: 10_000 };

/**
 * The library's own script with two changes: a refused request consumes nothing, and giving back
 * never raises the points above the maximum.
 */
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
 * Rate limits in windows of fixed length. With Redis all processes share the counts. Without Redis,
 * or while it is unavailable, each process counts for itself in bounded memory, so that each allows
 * as much as all of them together do otherwise. Keys are hashed: Redis holds no addresses or names.
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

  /**
   * Consumes points. Rejects with `RateLimited` if fewer than `points` are left, and then consumes
   * none.
   */
  async take(bucket: Bucket, key: LimitKey, points = 1): Promise<BucketState> {
    try {
      return this.#standing(bucket, await this.#limiter(bucket).consume(nameOf(key), points));
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused;
      throw new RateLimited(this.#standing(bucket, refused));
    }
  }

  /** The standing of a key, without consuming anything. */
  async peek(bucket: Bucket, key: LimitKey): Promise<BucketState> {
    return this.#standing(bucket, await this.#limiter(bucket).get(nameOf(key)));
  }

  /** Gives points back. */
  async reward(bucket: Bucket, key: LimitKey, points = 1): Promise<void> {
    await this.#limiter(bucket).reward(nameOf(key), points);
  }

  /**
   * Consumes a point for an attempt, such as a password; the point comes back when the attempt was
   * right. It may wait: see `Attempts`. Rejects with `RateLimited`.
   */
  hold(bucket: Bucket, key: LimitKey): Promise<Hold> {
    return this.#attempts.hold(`${bucket} ${nameOf(key)}`, {
      take: () => this.take(bucket, key),
      giveBack: () => this.reward(bucket, key),
      isRefusal: (error) => error instanceof RateLimited,
    });
  }

  /**
   * Runs an attempt. An attempt counts if `task` rejects, unless a limit refused it, or if
   * `isRight` says that its result is wrong. Rejects with `RateLimited` after too many wrong
   * attempts.
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
   * Runs a sign-in in its turn. `SignInQueue` limits how many run at once, and keeps slots for
   * addresses that have signed in to the account before. Rejects with `busy` before any database
   * query or password check, so that a flood costs no more than its refusals.
   */
  async inTurn<T>(email: string, address: string, signIn: () => Promise<T>): Promise<T> {
    const { remaining } = await this.peek('sign-in-known', [email.toLowerCase(), address]);
    const failures = await this.peek('sign-in-address', address);
    const group = addressGroup(address);
    const hasFailed = failures.points - failures.remaining > this.#attempts.held(`sign-in-address ${nameOf(address)}`);
    return this.#signIns.run({ address: group, isKnown: remaining === 0, hasFailed }, signIn);
  }

  /**
   * Runs a password check of which only failures count. Resolves and rejects as `signIn` does, or
   * rejects with `RateLimited`. After a success the address is known to the account. `signIn` calls
   * `uncounted` if the password was right and only the code is missing. Failures from other
   * addresses never count against a known address. `wasHere`: whether the account has a session
   * from the address; it is asked if the counts do not know the address.
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
      // All callers take the points in this order, so that a caller that waits for the last point
      // does not block one that holds it.
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

  #standing(bucket: Bucket, result: RateLimiterRes | null): BucketState {
    const { points, windowS } = this.#limiter(bucket);
    const remaining = result ? Math.max(0, points - result.consumedPoints) : points;
    return { bucket, points, windowS, remaining, resetS: result ? Math.max(1, Math.ceil(result.msBeforeNext / 1000)) : windowS };
  }
}

interface Count {
  consumed: number;
  readonly endMs: number;
}

/** At most this many ended windows are deleted with each new key. */
const SWEPT_AT_A_TIME = 8;

/**
 * The counts of one bucket in this process. All windows of a bucket have the same length, so the
 * order of insertion is the order in which they end: no timer is needed, and the key that is
 * dropped when there are too many is the one with the least time left. A client with enough
 * addresses to push out its own counts has the limit of all those addresses anyway.
 */
class Counts extends RateLimiterCompatibleAbstract implements Limiter {
  readonly points: number;
  readonly windowS: number;
  // The library sets these on a fallback limiter. They have no effect here.
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
    // A refused request consumes nothing, otherwise refused clients would keep out later ones.
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

/** A hash of fixed length, so that long keys cost no memory and names nobody. */
const nameOf = (key: LimitKey): string =>
  createHash('sha256')
    .update((typeof key === 'string' ? [key] : key).map(addressGroup).join('\n'))
    .digest('base64url')
    .slice(0, 22);
