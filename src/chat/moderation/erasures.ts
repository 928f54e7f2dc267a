import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

const LOOK_MS = 30_000;
/**
 * The delay from the deletion of an account to the first erasure. In this time every process ends
 * the account's connections, and its last messages are stored.
 */
const SETTLE_MS = 5_000;
/**
 * The second erasure follows after this. A delayed process may have accepted a message in a room
 * that the first one did not include.
 */
const LAST_MS = 60_000;
const BATCH = 20;

export interface ErasuresOptions {
  readonly database: Database;
  /**
   * Erases all messages and reactions of an account. A second call does no harm. Rejects when a log
   * or the database is unavailable.
   */
  readonly eraseAccount: (userId: string, by: { readonly id: string; readonly name: string }) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Erases the messages of deleted accounts. A trigger notes the account in the transaction that
 * deletes it, so the erasure is not lost when a process ends or the log is unavailable. Any process
 * may erase; two at the same time do no harm.
 */
export class Erasures {
  readonly #options: ErasuresOptions;
  #cancel = () => {};
  #looking: Promise<void> | undefined;

  constructor(options: ErasuresOptions) {
    this.#options = options;
  }

  start(): void {
    this.#cancel = this.#options.clock.every(LOOK_MS, () => void this.eraseDue());
  }

  /** Waits for a running erasure. A second call does no harm. */
  async stop(): Promise<void> {
    this.#cancel();
    await this.#looking;
  }

  /** Runs the erasures that are due. Never rejects: a failed one is repeated after `LOOK_MS`. */
  eraseDue(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { database, eraseAccount, clock, log } = this.#options;
    try {
      const nowMs = clock.wallMs();
      const { rows } = await database.query<{ account_id: string; is_last: boolean }>(
        `select account_id, erased_at is not null as is_last from chat_erasures
         where (erased_at is null and at < $1) or erased_at < $2 order by at limit ${BATCH}`,
        [new Date(nowMs - SETTLE_MS), new Date(nowMs - LAST_MS)],
      );
      for (const { account_id: accountId, is_last } of rows) {
        await eraseAccount(accountId, { id: 'service', name: 'Veza' });
        if (is_last) await database.query('delete from chat_erasures where account_id = $1', [accountId]);
        else await database.query('update chat_erasures set erased_at = $2 where account_id = $1', [accountId, new Date(nowMs)]);
      }
    } catch (error) {
      log.warn(
        { event: 'chat.erasure_failed', error: messageOf(error) },
        'could not erase the messages of a deleted account; will try again',
      );
    }
  }
}
