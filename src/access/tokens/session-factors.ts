import type { Database, Queryable } from '../../backing/database/database.js';
import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Principal } from '../roles.js';
import { SECOND_FACTORS } from './access-tokens.js';

/** A removed second factor counts in any process for at most this time. */
const CACHE_MS = 2000;
const MAX_CACHED = 10_000;

/**
 * Checks whether the second factor in an access token still counts. A token states it for 15
 * minutes; if the factor is removed, the session's row changes at once, and the row is read here.
 */
export class SessionFactors {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #log: Log;
  /**
   * Sessions with a second factor and the monotonic time until which that is cached, oldest first.
   * Sessions without one are not cached, because they may show one at any time.
   */
  readonly #proven = new BoundedMap<string, number>(MAX_CACHED);
  #isUnavailable = false;

  constructor({ database, clock, log }: { database: Database; clock: Clock; log: Log }) {
    this.#database = database;
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * The principal with its current second factor. If the database is unavailable, the token counts
   * as it is, as for every other check.
   */
  async asShownNow(principal: Principal): Promise<Principal> {
    const { kind, secondFactor, sessionId } = principal;
    if (kind !== 'account' || !secondFactor || sessionId === undefined) return principal;
    const nowMs = this.#clock.monotonicMs();
    if ((this.#proven.get(sessionId) ?? 0) > nowMs) return principal;
    this.#proven.delete(sessionId);
    let isProven = true;
    try {
      const { rowCount } = await this.#database.query('select 1 from sessions where id = $1 and amr && $2', [sessionId, SECOND_FACTORS]);
      isProven = rowCount > 0;
      this.#isUnavailable = false;
    } catch (error) {
      if (!this.#isUnavailable)
        this.#log.warn(
          { event: 'access.session_factors_unreadable', error: messageOf(error) },
          'could not read the second factors of sessions; access tokens count as they are',
        );
      this.#isUnavailable = true;
      return principal;
    }
    if (!isProven) return { ...principal, secondFactor: false };
    this.#proven.set(sessionId, nowMs + CACHE_MS);
    return principal;
  }
}

/** Those of the sessions that have shown a second factor that still exists. */
export async function sessionsWithFactor(database: Queryable, ids: readonly string[]): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set();
  const { rows } = await database.query<{ id: string }>('select id from sessions where id = any($1::uuid[]) and amr && $2', [
    ids,
    SECOND_FACTORS,
  ]);
  return new Set(rows.map(({ id }) => id));
}
