import { VezaError } from '../../runtime/errors.js';

/** Reads of old entries at one time in a process: two of the connections to PostgreSQL, so that the API and what is being said have the others. */
const MAX_READING = 2;
/** Reads that wait; at some hundred a second the last one waits less than a second. */
const MAX_WAITING = 200;

/** Lets a few reads of old entries through at a time; the others wait in their order. */
export class ConcurrencyGate {
  readonly #waiting: (() => void)[] = [];
  #reading = 0;

  /** Rejects with `busy` when too many wait. */
  async run<T>(read: () => Promise<T>): Promise<T> {
    if (this.#reading >= MAX_READING) {
      if (this.#waiting.length >= MAX_WAITING) throw new VezaError('busy', 'Too many people read old messages at this moment; try again.');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#reading++;
    try {
      return await read();
    } finally {
      // The place goes to the next, or is free.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#reading--;
    }
  }
}
