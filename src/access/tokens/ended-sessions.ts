import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Loop } from '../../runtime/loop.js';
import { ACCESS_TOKEN_MS } from './signing-keys.js';

const POLL_MS = 2000;
/** After this time the last access token of an ended session has expired by itself. */
export const ENDED_KEPT_MS = ACCESS_TOKEN_MS + 60_000;
/**
 * Each poll reads this much of the time before the newest row again: rows may come late from
 * processes whose clock is behind, and from long transactions.
 */
const OVERLAP_MS = 2 * 60_000;

/**
 * Ended sessions whose access tokens may not have expired yet. They are in memory, because every
 * request checks them. A session that another process ended is known 2 seconds later, or when the
 * database is available again.
 */
export class EndedSessions {
  readonly #database: Database;
  readonly #clock: Clock;
  /** The wall clock time at which a session ended, by session id. */
  readonly #ended = new Map<string, number>();
  #newestMs = 0;
  #isUnavailable = false;
  readonly #polls: Loop;

  constructor({ database, clock, log }: { database: Database; clock: Clock; log: Log }) {
    this.#database = database;
    this.#clock = clock;
    this.#polls = new Loop({
      clock,
      periodMs: POLL_MS,
      task: () => this.#poll(),
      onError: (error) => {
        if (!this.#isUnavailable)
          log.warn(
            { event: 'access.ended_sessions_unreadable', error: messageOf(error) },
            'could not read ended sessions; the known ones stay ended',
          );
        this.#isUnavailable = true;
      },
    });
  }

  get size(): number {
    return this.#ended.size;
  }

  has(sessionId: string): boolean {
    return this.#ended.has(sessionId);
  }

  /** Sessions that this process ended. They count at once. */
  add(sessionIds: readonly string[]): void {
    const nowMs = this.#clock.wallMs();
    for (const id of sessionIds) this.#ended.set(id, nowMs);
  }

  /**
   * Removes a session that the database says has not ended: the transaction that ended it was
   * rolled back.
   */
  delete(sessionId: string): void {
    this.#ended.delete(sessionId);
  }

  async start(): Promise<void> {
    await this.poll();
    this.#polls.start();
  }

  /** Waits for the running poll. A second call does nothing. */
  async stop(): Promise<void> {
    await this.#polls.stop();
  }

  poll(): Promise<void> {
    return this.#polls.run();
  }

  async #poll(): Promise<void> {
    const { rows } = await this.#database.query<{ session_id: string; ended_at: Date }>(
      'select session_id, ended_at from ended_sessions where ended_at > $1',
      [new Date(this.#newestMs - OVERLAP_MS)],
    );
    for (const { session_id, ended_at } of rows) {
      this.#ended.set(session_id, ended_at.getTime());
      this.#newestMs = Math.max(this.#newestMs, ended_at.getTime());
    }
    this.#isUnavailable = false;
    const overMs = this.#clock.wallMs() - ENDED_KEPT_MS;
    for (const [id, endedAtMs] of this.#ended) if (endedAtMs <= overMs) this.#ended.delete(id);
  }
}
