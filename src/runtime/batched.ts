import type { Clock } from './clock.js';
import { sleep } from './sleep.js';

/** Keys of one question; more go into the next. */
const MOST_KEYS = 200;

/** Between an answer and the next question. */
const GATHER_MS = 50;

interface Asked<V> {
  readonly resolve: (value: V | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Reads things by key, many in one question: what is asked for while an answer is awaited, and for a moment after it, goes together into the next. Who asks
 * alone waits for nobody, and a value was always read after it was asked for.
 */
export class Batched<V> {
  readonly #read: (keys: readonly string[]) => Promise<ReadonlyMap<string, V>>;
  readonly #clock: Clock;
  #waiting = new Map<string, Asked<V>[]>();
  #isReading = false;

  /** `read`: at most 200 keys, each once; what is not there is left out. What it rejects with, all of them reject with. */
  constructor(clock: Clock, read: (keys: readonly string[]) => Promise<ReadonlyMap<string, V>>) {
    this.#clock = clock;
    this.#read = read;
  }

  /** Undefined: there is no such thing. */
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
    // What is asked for in the same step goes along.
    await undefined;
    for (let isFirst = true; this.#waiting.size > 0; isFirst = false) {
      // A question with two keys costs hardly more than one with one: where they come in a stream, the database has more to do the less is gathered.
      if (!isFirst && this.#waiting.size < MOST_KEYS) await sleep(this.#clock, GATHER_MS);
      const batch = new Map([...this.#waiting].slice(0, MOST_KEYS));
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
