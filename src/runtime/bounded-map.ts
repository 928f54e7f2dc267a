/** A map of at most `maxSize` entries: setting one more lets the one go that was set longest ago. Setting a key again renews it. */
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

  /** As `get`, and the entry counts as just set: what is used stays, and what is not goes first. */
  use(key: K): V | undefined {
    const value = this.get(key);
    if (value !== undefined) this.set(key, value);
    return value;
  }
}

/** The same of a set. */
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
