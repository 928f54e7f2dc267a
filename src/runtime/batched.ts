/** Keys of one question; more go into the next. */
const MOST_KEYS = 200;

interface Asked<V> {
  readonly resolve: (value: V | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Reads things by key, many in one question: what is asked for while an answer is awaited goes together into the next. Who asks alone waits for nobody, and
 * a value was always read after it was asked for.
 */
export class Batched<V> {
  readonly #read: (keys: readonly string[]) => Promise<ReadonlyMap<string, V>>;
  #waiting = new Map<string, Asked<V>[]>();
  #isReading = false;

  /** `read`: at most 200 keys, each once; what is not there is left out. What it rejects with, all of them reject with. */
  constructor(read: (keys: readonly string[]) => Promise<ReadonlyMap<string, V>>) {
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
    while (this.#waiting.size > 0) {
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
