import { VezaError } from '../../runtime/errors.js';

/**
 * A point that was consumed for an attempt. The caller calls `release` or `keep`; only the first
 * call counts.
 */
export interface Hold {
  /** Gives the point back: the attempt was right, or was not checked. */
  release(): Promise<void>;
  /** Does not give the point back: the attempt was wrong. */
  keep(): void;
}

/** At most this many attempts per key wait in one process. */
const MAX_WAITING_PER_KEY = 1000;
/** At most this many attempts of all keys wait in one process. */
const MAX_WAITING = 10_000;

interface Outstanding {
  held: number;
  readonly waiting: (() => void)[];
}

/**
 * Points for attempts of which only the wrong ones count. A point is consumed before the attempt is
 * checked, so that concurrent wrong attempts never exceed the limit, and is given back if the
 * attempt was right. If no point is left but running attempts may give some back, an attempt waits:
 * sixty people behind one address can sign in at once although the limit is thirty wrong passwords.
 */
export class Attempts {
  readonly #outstanding = new Map<string, Outstanding>();
  #waiting = 0;

  /**
   * Consumes a point of `name`. `point.take` consumes one, or rejects with an error that
   * `isRefusal` recognises if none is left. Rejects with that error if no running attempt can give
   * a point back, or if too many attempts wait.
   */
  async hold(
    name: string,
    point: { take(): Promise<unknown>; giveBack(): Promise<void>; isRefusal(error: unknown): boolean },
  ): Promise<Hold> {
    for (;;) {
      try {
        await point.take();
        break;
      } catch (error) {
        if (!point.isRefusal(error) || !(await this.#oneSettled(name))) throw error;
      }
    }
    const outstanding = this.#outstanding.get(name) ?? { held: 0, waiting: [] };
    this.#outstanding.set(name, outstanding);
    outstanding.held++;
    let isOpen = true;
    const settle = () => {
      isOpen = false;
      outstanding.held--;
      // Each settled attempt wakes one waiting attempt. The last one wakes them all, so that they
      // learn that no point will come back.
      for (const wake of outstanding.waiting.splice(0, outstanding.held > 0 ? 1 : outstanding.waiting.length)) wake();
      if (outstanding.held === 0) this.#outstanding.delete(name);
    };
    return {
      keep: () => {
        if (isOpen) settle();
      },
      release: async () => {
        if (!isOpen) return;
        isOpen = false;
        await point.giveBack().finally(settle);
      },
    };
  }

  /** Points of `name` that are held: running attempts of this process. */
  held(name: string): number {
    return this.#outstanding.get(name)?.held ?? 0;
  }

  /**
   * Resolves to true after an attempt of `name` has settled, or to false at once if there is none
   * to wait for or too many wait.
   */
  async #oneSettled(name: string): Promise<boolean> {
    const outstanding = this.#outstanding.get(name);
    if (!outstanding || outstanding.waiting.length >= MAX_WAITING_PER_KEY || this.#waiting >= MAX_WAITING) return false;
    this.#waiting++;
    await new Promise<void>((resolve) => outstanding.waiting.push(resolve));
    this.#waiting--;
    return true;
  }
}

/**
 * Whether a limit or an unavailable part of the service refused the attempt, so that nobody learned
 * whether it was right.
 */
export const wasTurnedAway = (error: unknown): boolean =>
  error instanceof VezaError && (error.code === 'rate_limited' || error.code === 'busy' || error.code === 'unavailable');
