import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/** A listener that was not seen for this long has gone, and its slot is free. */
const GONE_AFTER_MS = 60_000;
/**
 * Listeners are written to the database every 20 s, so that a present listener is written several
 * times before it would count as gone.
 */
const FLUSH_MS = 20_000;
/** At most this many listeners are kept between two writes; listeners above it are not counted. */
const MAX_SEEN = 200_000;
/** Rows per statement. */
const BATCH = 2000;

export interface Grant {
  /** The listener's id. */
  readonly id: string;
  readonly scope: string;
  readonly expiresAtMs: number;
  /** The number of this process' last interval in which the listener was seen. 0 at first. */
  seenIn: number;
}

export interface GrantsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Listener slots of playback links. Issuing a link takes a slot, and playing keeps it. A slot is
 * free a minute after its listener was last seen, or when the link expires. A listener who comes
 * back after that with a link that is still good is accepted even above the limit, because the link
 * was issued to them.
 */
export class PlaybackGrants {
  readonly #options: GrantsOptions;
  #seen = new Map<string, Grant>();
  #interval = 1;
  #flushing: Promise<void> = Promise.resolve();
  #cancel: (() => void) | undefined;

  constructor(options: GrantsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#cancel ??= this.#options.clock.every(FLUSH_MS, () => void this.flush());
  }

  async stop(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    await this.#flushing;
  }

  /**
   * Takes a slot. Resolves to false if `limit` slots are taken. A listener has one slot, however
   * many links are issued to them.
   */
  take(grant: Omit<Grant, 'seenIn'>, limit: number): Promise<boolean> {
    const { database, clock } = this.#options;
    const nowMs = clock.wallMs();
    return database.transaction(async (connection) => {
      // The lock keeps two requests at once from taking the last slot.
      await connection.query('select pg_advisory_xact_lock(hashtext($1))', [grant.scope]);
      const { rowCount } = await connection.query(
        `insert into playback_grants (id, scope, expires_at, last_seen_at)
         select $1, $2, $3, $4 where $6 > (
           select count(*) from playback_grants where scope = $2 and id <> $1 and expires_at > $4 and last_seen_at > $5)
         on conflict (id) do update set expires_at = excluded.expires_at, last_seen_at = excluded.last_seen_at`,
        [grant.id, grant.scope, new Date(grant.expiresAtMs), new Date(nowMs), new Date(nowMs - GONE_AFTER_MS), limit],
      );
      return rowCount > 0;
    });
  }

  /**
   * Marks a listener as present. Called for every playlist request and during endless streams:
   * thousands of times per second.
   */
  seen(grant: Grant): void {
    if (grant.seenIn === this.#interval) return;
    grant.seenIn = this.#interval;
    if (this.#seen.size < MAX_SEEN) this.#seen.set(grant.id, grant);
  }

  /**
   * Writes the listeners seen since the last call to the database, and deletes those that have
   * gone. Never rejects.
   */
  flush(): Promise<void> {
    this.#flushing = this.#flushing.then(() => this.#flush());
    return this.#flushing;
  }

  async #flush(): Promise<void> {
    const { database, clock, log } = this.#options;
    const now = new Date(clock.wallMs());
    const seen = [...this.#seen.values()].filter(({ expiresAtMs }) => expiresAtMs > now.getTime());
    this.#seen = new Map();
    this.#interval++;
    try {
      for (let from = 0; from < seen.length; from += BATCH) {
        const batch = seen.slice(from, from + BATCH);
        await database.query(
          `insert into playback_grants (id, scope, expires_at, last_seen_at)
           select id, scope, expires_at, $4 from unnest($1::text[], $2::text[], $3::timestamptz[]) as seen (id, scope, expires_at)
           on conflict (id) do update set last_seen_at = greatest(playback_grants.last_seen_at, excluded.last_seen_at)`,
          [batch.map(({ id }) => id), batch.map(({ scope }) => scope), batch.map((grant) => new Date(grant.expiresAtMs)), now],
        );
      }
      await database.query('delete from playback_grants where expires_at <= $1 or last_seen_at <= $2', [
        now,
        new Date(now.getTime() - GONE_AFTER_MS),
      ]);
    } catch (error) {
      log.warn({ event: 'access.link_use_not_recorded', error: messageOf(error) }, 'could not record who listens with a playback link');
    }
  }
}
