import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';

const LOG_PERIOD_MS = 5000;

/** The step that a starting database is at. A long start logs its step every few seconds. */
export class StartSteps {
  readonly #clock: Clock;
  readonly #beganMs: number;
  readonly #cancel: () => void;
  #step = '';
  #stepBeganMs: number;
  isUnderWay = true;

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#beganMs = clock.monotonicMs();
    this.#stepBeganMs = this.#beganMs;
    this.#cancel = clock.every(LOG_PERIOD_MS, () => {
      const nowMs = clock.monotonicMs();
      const [stepMs, startMs] = [nowMs - this.#stepBeganMs, nowMs - this.#beganMs].map(Math.round);
      log.warn({ event: 'database.starting', step: this.#step, stepMs, startMs }, 'the database is not ready yet');
    });
  }

  get step(): string {
    return this.#step;
  }

  begin(step: string): void {
    this.#step = step;
    this.#stepBeganMs = this.#clock.monotonicMs();
  }

  /** Ends the log lines. Calling it twice is harmless. */
  end(): void {
    this.isUnderWay = false;
    this.#cancel();
  }
}
