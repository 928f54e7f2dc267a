import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';

/** Who asks for a page of entries. */
export interface PageReader {
  /** Of the account; of a guest its connection. Undefined: a request that nobody has signed, of which only the address is known. */
  readonly id: string | undefined;
  readonly isGuest: boolean;
  /** What counts as one address; see `addressGroup`. */
  readonly address: string;
}

/**
 * Tokens: one for each page of up to 64 KB, and one of `reads` for each block of old entries that nobody has asked for lately, which PostgreSQL has to
 * read. Five hundred people behind one address who read two pages back take 1,000 tokens of their address, and share the reads. What `join` is answered
 * with is as long as a page, but a connection joins 20 rooms at most and stays: that has a bucket of its own. Each process counts by itself.
 */
export const PAGE_LIMITS = {
  guest: { perS: 2, burst: 30 },
  account: { perS: 5, burst: 60 },
  address: { perS: 100, burst: 2000 },
  reads: { perS: 10, burst: 40 },
  joins: { perS: 2, burst: 60 },
} as const;
type PageLimitName = keyof typeof PAGE_LIMITS;

/** Who has asked for something since. Forgetting the one who has not for longest gives back at most a burst. */
const MAX_COUNTED = 10_000;

/** Too many pages; `retryMs`: when there is one more. */
export class PagesLimited extends VezaError {
  readonly retryMs: number;

  constructor(retryMs: number) {
    super('rate_limited', 'Too many pages of messages at once.', { details: { limit: 'pages', retryAfterS: Math.ceil(retryMs / 1000) } });
    this.retryMs = retryMs;
  }
}

/** What reading entries costs, counted against who reads. */
export class PageLimits {
  readonly #clock: Clock;
  /** The one who asked last is the last. */
  readonly #tokens = new Map<string, { left: number; atMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A page. Throws `PagesLimited`; then nothing is taken. */
  takePage({ id, isGuest, address }: PageReader): void {
    const ofAddress = ['address', address] as const;
    this.#take(id === undefined ? [ofAddress] : [[isGuest ? 'guest' : 'account', id], ofAddress]);
  }

  /** A room is joined. Throws `PagesLimited`. */
  takeJoin(connection: string): void {
    this.#take([['joins', connection]]);
  }

  /** A block that PostgreSQL has to read. Throws `PagesLimited`. */
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
    for (const { name, left } of buckets) {
      this.#tokens.delete(name);
      if (this.#tokens.size >= MAX_COUNTED) this.#tokens.delete(this.#tokens.keys().next().value!);
      this.#tokens.set(name, { left: left - 1, atMs: nowMs });
    }
  }
}
