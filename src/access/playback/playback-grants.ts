import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/** A listener that is not seen for so long has gone, and his place is free. */
export const GONE_AFTER_MS = 60_000;
/** How often the database is told who was seen: several times before somebody who is there counts as gone. */
const FLUSH_MS = 20_000;
/** Listeners remembered between two of these; more are not counted. */
const MAX_SEEN = 200_000;
const BATCH = 2000;

export interface Grant {
  /** Of the listener. */
  readonly id: string;
  readonly scope: string;
  readonly expiresAtMs: number;
  /** In which of the intervals of this process it was last seen: 0 at first. */
  seenIn: number;
}

export interface GrantsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Who has a link to a channel and is there: a place is taken when a link is issued, held by listening, and free again a minute after the
 * listener was last seen, or when the link expires. Who comes back later than that with a link that is still good is let in all the same: it was
 * promised to him.
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

  /** False: `limit` places are taken. One listener takes one, however often a link is issued for him. */
  take(grant: Omit<Grant, 'seenIn'>, limit: number): Promise<boolean> {
    const { database, clock } = this.#options;
    const nowMs = clock.wallMs();
    return database.transaction(async (connection) => {
      // Two that ask for the last place at once are two.
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

  /** He has asked for a playlist, or listens on. Asked thousands of times a second. */
  seen(grant: Grant): void {
    if (grant.seenIn === this.#interval) return;
    grant.seenIn = this.#interval;
    if (this.#seen.size < MAX_SEEN) this.#seen.set(grant.id, grant);
  }

  /** Tells the database who was seen, and forgets who was not. Never rejects. */
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
