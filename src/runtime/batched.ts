import type { Clock } from './clock.js';
import { sleep } from './waiting.js';

/** Keys per read, at most; further keys wait for the next read. */
const MAX_KEYS = 200;

/** The pause between the end of one read and the start of the next. */
const PAUSE_MS = 50;

interface Asked<V> {
  readonly resolve: (value: V | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Reads values by key, with many keys per read. Keys that are requested during a read, and in the
 * short pause after it, go together into the next read. A single request starts its read at once. A
 * value is always read after it was requested.
 */
export class Batched<V> {
  readonly #read: (keys: readonly string[]) => Promise<ReadonlyMap<string, V>>;
  readonly #clock: Clock;
  #waiting = new Map<string, Asked<V>[]>();
  #isReading = false;

  /**
   * `read` gets at most 200 different keys and leaves out the ones that it does not find. When it
   * rejects, every `load` of that batch rejects with the same error.
   */
  constructor(clock: Clock, read: (keys: readonly string[]) => Promise<ReadonlyMap<string, V>>) {
    this.#clock = clock;
    this.#read = read;
  }

  /** Resolves to undefined when `read` does not find the key. Rejects with the error of `read`. */
  load(key: string): Promise<V | undefined> {
    const loaded = new Promise<V | undefined>((resolve, reject) => {
      const asked = this.#waiting.get(key);
      if (asked) asked.push({ resolve, reject });
      else this.#waiting.set(key, [{ resolve, reject }]);
    });
    if (!this.#isReading) void this.#readAll();
    return loaded;
  }

  /** Never rejects. */
  async #readAll(): Promise<void> {
    this.#isReading = true;
    // Requests of the same synchronous step join the first batch.
    await undefined;
    for (let isFirst = true; this.#waiting.size > 0; isFirst = false) {
      // A read of two keys costs hardly more than a read of one. When requests arrive in a steady
      // stream, small batches mean more work for the database.
      if (!isFirst && this.#waiting.size < MAX_KEYS) await sleep(this.#clock, PAUSE_MS);
      const batch = new Map([...this.#waiting].slice(0, MAX_KEYS));
      for (const key of batch.keys()) this.#waiting.delete(key);
      try {
        const found = await this.#read([...batch.keys()]);
        for (const [key, asked] of batch) for (const { resolve } of asked) resolve(found.get(key));
      } catch (error) {
        for (const asked of batch.values()) for (const { reject } of asked) reject(error);
      }
    }
    this.#isReading = false;
  }
}
