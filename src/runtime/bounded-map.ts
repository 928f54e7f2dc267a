/**
 * A map of at most `maxSize` entries: adding one more removes the entry that was set longest ago.
 * Setting a key again makes its entry the newest.
 */
export class BoundedMap<K, V> extends Map<K, V> {
  readonly #maxSize: number;

  constructor(maxSize: number) {
    super();
    this.#maxSize = maxSize;
  }

  override set(key: K, value: V): this {
    this.delete(key);
    super.set(key, value);
    if (this.size > this.#maxSize) this.delete(this.keys().next().value!);
    return this;
  }

  /**
   * The same as `get`, but also makes the entry the newest, so that unused entries are removed
   * first.
   */
  use(key: K): V | undefined {
    const value = this.get(key);
    if (value !== undefined) this.set(key, value);
    return value;
  }
}

/** A set with the same limit and order as `BoundedMap`. */
export class BoundedSet<T> extends Set<T> {
  readonly #maxSize: number;

  constructor(maxSize: number) {
    super();
    this.#maxSize = maxSize;
  }

  override add(item: T): this {
    this.delete(item);
    super.add(item);
    if (this.size > this.#maxSize) this.delete(this.values().next().value!);
    return this;
  }
}
