import { VezaError } from '../../runtime/errors.js';

/**
 * Reads of old entries at one time in a process. They use two of the connections to PostgreSQL; the
 * API and the archive use the others.
 */
const MAX_READING = 2;
/** Reads that may wait. At a few hundred reads per second the last one waits less than a second. */
const MAX_WAITING = 200;

/** Lets `MAX_READING` reads of old entries run at a time. The others wait in order. */
export class ConcurrencyGate {
  readonly #waiting: (() => void)[] = [];
  #reading = 0;

  /** Rejects with `busy` when `MAX_WAITING` reads are waiting. */
  async run<T>(read: () => Promise<T>): Promise<T> {
    if (this.#reading >= MAX_READING) {
      if (this.#waiting.length >= MAX_WAITING) throw new VezaError('busy', 'Too many people are reading old messages; try again.');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#reading++;
    try {
      return await read();
    } finally {
      // The next waiting read takes over this one's slot. Without one the slot is free.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#reading--;
    }
  }
}
