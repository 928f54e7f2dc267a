import type { Clock } from './clock.js';
import { reportUnexpected } from './unexpected.js';

export interface LoopOptions {
  readonly clock: Clock;
  readonly periodMs: number;
  readonly task: () => Promise<void>;
  /**
   * Called when a run that the period started rejects. Default: the error is reported as an
   * unexpected error.
   */
  readonly onError?: (error: unknown) => void;
}

/**
 * Runs a task every `periodMs` after `start`, one run at a time. A period that ends during a run
 * starts no second one, and `run` joins the current run. A run that fails does not end the loop.
 */
export class Loop {
  readonly #options: LoopOptions;
  #cancel: (() => void) | undefined;
  #underWay: Promise<void> | undefined;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  /** The first run begins one period after the call. A second `start` changes nothing. */
  start(): void {
    const { clock, periodMs, onError = reportUnexpected } = this.#options;
    this.#cancel ??= clock.every(periodMs, () => {
      if (!this.#underWay) this.run().catch(onError);
    });
  }

  /**
   * Runs the task now, also before `start` and after `stop`, or joins the current run. Rejects when
   * the run rejects.
   */
  run(): Promise<void> {
    this.#underWay ??= this.#options.task().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  /**
   * Resolves when the current run, if there is one, has ended, whether it failed or not. Never
   * rejects.
   */
  async settled(): Promise<void> {
    await Promise.allSettled([this.#underWay]);
  }

  /** Ends the loop and resolves when the current run has ended. Calling it twice is harmless. */
  async stop(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    await this.settled();
  }
}
