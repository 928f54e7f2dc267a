import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Loop } from '../../runtime/loop.js';
import { ACCESS_TOKEN_MS } from './signing-keys.js';

const POLL_MS = 2000;
/** After that the last access token of the session has expired by itself. */
export const ENDED_KEPT_MS = ACCESS_TOKEN_MS + 60_000;
/** What is read again each time: rows of processes whose clock is behind, and of transactions that took their time. */
const OVERLAP_MS = 2 * 60_000;

/**
 * Sessions that were ended and may have access tokens that are not expired: asked at every request, so they are kept here. Another
 * process knows of it 2 seconds later; while the database is away, not before it is back.
 */
export class EndedSessions {
  readonly #database: Database;
  readonly #clock: Clock;
  /** When it was ended, by id. */
  readonly #ended = new Map<string, number>();
  #newestMs = 0;
  #isAway = false;
  readonly #polls: Loop;

  constructor({ database, clock, log }: { database: Database; clock: Clock; log: Log }) {
    this.#database = database;
    this.#clock = clock;
    this.#polls = new Loop({
      clock,
      periodMs: POLL_MS,
      task: () => this.#poll(),
      onError: (error) => {
        if (!this.#isAway)
          log.warn(
            { event: 'access.ended_sessions_unreadable', error: messageOf(error) },
            'could not read ended sessions; the known ones stay ended',
          );
        this.#isAway = true;
      },
    });
  }

  get size(): number {
    return this.#ended.size;
  }

  has(sessionId: string): boolean {
    return this.#ended.has(sessionId);
  }

  /** By this process: counts at once. */
  add(sessionIds: readonly string[]): void {
    const nowMs = this.#clock.wallMs();
    for (const id of sessionIds) this.#ended.set(id, nowMs);
  }

  /** The table says that it goes on: what ended it was rolled back. */
  delete(sessionId: string): void {
    this.#ended.delete(sessionId);
  }

  async start(): Promise<void> {
    await this.poll();
    this.#polls.start();
  }

  /** Waits for what is under way. Twice is harmless. */
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
    this.#isAway = false;
    const overMs = this.#clock.wallMs() - ENDED_KEPT_MS;
    for (const [id, endedAtMs] of this.#ended) if (endedAtMs <= overMs) this.#ended.delete(id);
  }
}
