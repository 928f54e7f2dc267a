import type { Clock } from './clock.js';
import { reportUnexpected } from './unexpected.js';

export interface LoopOptions {
  readonly clock: Clock;
  readonly periodMs: number;
  readonly task: () => Promise<void>;
  /** For a run that the period began and that rejected. Default: it is reported as an error that nobody took. */
  readonly onError?: (error: unknown) => void;
}

/**
 * Runs a task every `periodMs` from `start` on, one run at a time: a turn that comes while a run is under way is left out, and
 * `run` shares it. A run that fails does not end the loop.
 */
export class Loop {
  readonly #options: LoopOptions;
  #cancel: (() => void) | undefined;
  #underWay: Promise<void> | undefined;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  /** The first run is one period later. A second `start` changes nothing. */
  start(): void {
    const { clock, periodMs, onError = reportUnexpected } = this.#options;
    this.#cancel ??= clock.every(periodMs, () => {
      if (!this.#underWay) this.run().catch(onError);
    });
  }

  /** Runs the task now, also before `start` and after `stop`, or joins the run that is under way. Rejects when that run rejects. */
  run(): Promise<void> {
    this.#underWay ??= this.#options.task().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  /** Resolves when the run that is under way, if there is one, has ended either way. */
  async settled(): Promise<void> {
    await Promise.allSettled([this.#underWay]);
  }

  /** Ends the loop and resolves when the run that is under way has ended. Twice is harmless. */
  async stop(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    await this.settled();
  }
}
