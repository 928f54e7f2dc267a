import type { Database } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

const LOOK_MS = 30_000;
/** From the deletion until every process has ended the connections of the account, and what it said last is stored. */
const SETTLE_MS = 5_000;
/** So long after that it is done once more: a process that was held up may have taken something in a room in which the account had never been. */
const LAST_MS = 60_000;
const BATCH = 20;

export interface ErasuresOptions {
  readonly database: Database;
  /** Erases all that an account has said; twice is harmless. Rejects when a log or the database is away. */
  readonly eraseAccount: (userId: string, by: { readonly id: string; readonly name: string }) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * What deleted accounts have said goes with them. A trigger writes the account down in the transaction that deletes it, so it is not forgotten
 * when a process dies or the log is away; whichever process looks first does it, and two at once do no harm.
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

  /** Waits for what is under way. Twice is harmless. */
  async stop(): Promise<void> {
    this.#cancel();
    await this.#looking;
  }

  /** Erases what is due. Never rejects: what fails is tried again at the next look. */
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
