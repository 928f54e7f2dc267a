import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/** Messages that were published and are not classified yet, at most. */
export const MAX_WAITING = 1000;
/**
 * Requests at one time. Half of the remote classifier's limit is left to rooms that wait for a
 * verdict before they publish.
 */
const AT_ONCE = 32;
const ATTEMPTS = 10;
const AGAIN_MS = 1000;

export interface RetractionsOptions<Message> {
  /**
   * Resolves to the reason for retracting the message; undefined: the message stays. Never rejects.
   */
  readonly objection: (message: Message) => Promise<string | undefined>;
  /** Retracts the message. A second call for the same message does no harm. */
  readonly takeBack: (message: Message, reason: string) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Classifies messages after they were published, and retracts the rejected ones. When the process
 * ends unexpectedly, the messages that were not classified yet stay published.
 */
export class Retractions<Message> {
  readonly #options: RetractionsOptions<Message>;
  readonly #failureLog: BoundedLog;
  readonly #waiting: Message[] = [];
  #under = 0;
  #stopping = false;
  #failed = 0;
  /** Functions that end a pause early. */
  readonly #sleepers = new Set<() => void>();
  readonly #enders = new Set<() => void>();

  constructor(options: RetractionsOptions<Message>) {
    this.#options = options;
    this.#failureLog = new BoundedLog(options.log, options.clock);
  }

  /** The number of messages that could not be classified or retracted in any attempt. */
  get failed(): number {
    return this.#failed;
  }

  /** True: no more messages can wait, so a message has to be classified before it is published. */
  get isFull(): boolean {
    return this.#stopping || this.#waiting.length >= MAX_WAITING;
  }

  /** Adds a message to the queue. Does not wait for its classification. */
  judgeLater(message: Message): void {
    this.#waiting.push(message);
    this.#next();
  }

  /**
   * Waits until every message is classified. Failed retractions are not tried again. A second call
   * does no harm.
   */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const wake of [...this.#sleepers]) wake();
    if (this.#under > 0) await new Promise<void>((resolve) => this.#enders.add(resolve));
    this.#failureLog.close();
  }

  #next(): void {
    while (this.#under < AT_ONCE) {
      const message = this.#waiting.shift();
      if (message === undefined) break;
      this.#under++;
      void this.#judge(message).finally(() => {
        this.#under--;
        this.#next();
        if (this.#under === 0) for (const ended of this.#enders) ended();
      });
    }
  }

  async #judge(message: Message): Promise<void> {
    const { objection, takeBack } = this.#options;
    let reason: string | undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        reason ??= await objection(message);
        if (reason === undefined) return;
        await takeBack(message, reason);
        return;
      } catch (error) {
        if (attempt < ATTEMPTS && !this.#stopping) {
          await this.#pause();
          continue;
        }
        this.#failed++;
        if (reason === undefined)
          this.#failureLog.error(
            { event: 'chat.judgement_failed', error: messageOf(error) },
            'the remote classifier did not judge a published message',
          );
        else
          this.#failureLog.error(
            { event: 'chat.retraction_failed', reason, error: messageOf(error) },
            'could not delete a published message that the remote classifier rejected',
          );
        return;
      }
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        cancel();
        this.#sleepers.delete(wake);
        resolve();
      };
      const cancel = this.#options.clock.after(AGAIN_MS, wake);
      this.#sleepers.add(wake);
    });
  }
}
