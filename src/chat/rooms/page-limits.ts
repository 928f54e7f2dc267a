import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';

/** The reader that requests a page of entries. */
export interface PageReader {
  /**
   * The id of the account, or for a guest of the connection. Undefined: an unsigned request, of
   * which only the address is known.
   */
  readonly id: string | undefined;
  readonly isGuest: boolean;
  /** The address group that the reader counts towards; see `addressGroup`. */
  readonly address: string;
}

/**
 * Points per second and per burst. A page of up to 64 KB costs one point of the reader and one of
 * its address. Each block of old entries that PostgreSQL has to read costs one point of `reads`;
 * blocks that were read recently cost none. Five hundred people behind one address who read two
 * pages each use 1,000 points of their address, and share the reads. A `join` has a bucket of its
 * own: its answer is as long as a page, but a connection joins at most 20 rooms and stays. Each
 * process counts for itself.
 */
export const PAGE_LIMITS = {
  guest: { perS: 2, burst: 30 },
  account: { perS: 5, burst: 60 },
  address: { perS: 100, burst: 2000 },
  reads: { perS: 10, burst: 40 },
  joins: { perS: 2, burst: 60 },
} as const;
type PageLimitName = keyof typeof PAGE_LIMITS;

/**
 * Buckets that are kept. A new one replaces the least recently used, which returns at most one
 * burst to its reader.
 */
const MAX_COUNTED = 10_000;

/** The limit of pages is reached. `retryMs`: when the next page is allowed. */
export class PagesLimited extends VezaError {
  readonly retryMs: number;

  constructor(retryMs: number) {
    super('rate_limited', 'Too many pages of messages at once.', { details: { limit: 'pages', retryAfterS: Math.ceil(retryMs / 1000) } });
    this.retryMs = retryMs;
  }
}

/** Limits how many pages each reader and each address may read. */
export class PageLimits {
  readonly #clock: Clock;
  /** The most recently used comes last. */
  readonly #tokens = new BoundedMap<string, { left: number; atMs: number }>(MAX_COUNTED);

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Consumes the points of a page. Throws `PagesLimited` and then consumes none. */
  takePage({ id, isGuest, address }: PageReader): void {
    const ofAddress = ['address', address] as const;
    this.#take(id === undefined ? [ofAddress] : [[isGuest ? 'guest' : 'account', id], ofAddress]);
  }

  /** Consumes the point of a join. Throws `PagesLimited`. */
  takeJoin(connection: string): void {
    this.#take([['joins', connection]]);
  }

  /** Consumes the point of a block that PostgreSQL has to read. Throws `PagesLimited`. */
  takeRead({ address }: PageReader): void {
    this.#take([['reads', address]]);
  }

  #take(wanted: readonly (readonly [PageLimitName, string])[]): void {
    const nowMs = this.#clock.monotonicMs();
    const buckets = wanted.map(([kind, id]) => {
      const { perS, burst } = PAGE_LIMITS[kind];
      const name = `${kind} ${id}`;
      const known = this.#tokens.get(name);
      const left = known ? Math.min(burst, known.left + ((nowMs - known.atMs) * perS) / 1000) : burst;
      return { name, left, perS };
    });
    const waitMs = Math.max(...buckets.map(({ left, perS }) => (left >= 1 ? 0 : Math.ceil(((1 - left) / perS) * 1000))));
    if (waitMs > 0) throw new PagesLimited(waitMs);
    for (const { name, left } of buckets) this.#tokens.set(name, { left: left - 1, atMs: nowMs });
  }
}
