import { VezaError } from '../../runtime/errors.js';

/** A point that was taken for an attempt. Exactly one of both is called, once; later calls do nothing. */
export interface Hold {
  /** The attempt was right, or was never looked at: the point is given back. */
  release(): Promise<void>;
  /** It was wrong. */
  keep(): void;
}

/** Attempts that wait, in one process: of one key, and of all. */
const MAX_WAITING_PER_KEY = 1000;
const MAX_WAITING = 10_000;

interface Outstanding {
  held: number;
  readonly waiting: (() => void)[];
}

/**
 * Points for attempts of which only the wrong ones count. A point is taken before an attempt is looked at, so that wrong ones that run at the same
 * time never get more tries than the limit allows, and given back when it was right. An attempt that finds none left waits while some are out and may
 * come back: sixty people behind one address sign in at once, though thirty wrong passwords would be the limit.
 */
export class Attempts {
  readonly #outstanding = new Map<string, Outstanding>();
  #waiting = 0;

  /**
   * `take` takes a point of `name`, or rejects; with what `isRefusal` knows when there is none. Rejects with that when none is left and none may come
   * back, or too many wait.
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
      // One for one; the last lets all of them find out that nothing comes back any more.
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

  /** Points of `name` that are out: attempts that this process is looking at. */
  held(name: string): number {
    return this.#outstanding.get(name)?.held ?? 0;
  }

  /** Resolves to false at once when there is nothing to wait for. */
  async #oneSettled(name: string): Promise<boolean> {
    const outstanding = this.#outstanding.get(name);
    if (!outstanding || outstanding.waiting.length >= MAX_WAITING_PER_KEY || this.#waiting >= MAX_WAITING) return false;
    this.#waiting++;
    await new Promise<void>((resolve) => outstanding.waiting.push(resolve));
    this.#waiting--;
    return true;
  }
}

/** The limits or a part of the service turned it away, so that nothing was learned from it. */
export const wasTurnedAway = (error: unknown): boolean =>
  error instanceof VezaError && (error.code === 'rate_limited' || error.code === 'busy' || error.code === 'unavailable');
