/**
 * Immutable objects by key. Makers: files (`files.ts`), later S3. `test/contract/object-store.ts`
 * runs on each.
 *
 * A key is a relative path of `[A-Za-z0-9._-]` names joined by `/`, at most 512 characters long.
 * Other characters and the names `.` and `..` are refused with VezaError `bad_request`. A put is
 * atomic: a reader sees the whole object or none. The last put wins.
 */
export interface ObjectStore {
  /** Rejects when the object is not durably stored (disk full, store unavailable). */
  put(key: string, bytes: Uint8Array, contentType: string): Promise<void>;
  /** The whole object, or a range of it; undefined when there is no such object. */
  get(key: string, range?: ByteRange): Promise<StoredObject | undefined>;
  /** Size in bytes; undefined when there is no such object. */
  head(key: string): Promise<number | undefined>;
  /** A key without an object is not an error. */
  delete(keys: readonly string[]): Promise<void>;
  /**
   * The keys that start with `prefix`, in no particular order. `prefix` ends in `/` or is empty.
   */
  list(prefix: string): AsyncIterable<{ key: string; sizeBytes: number; modifiedMs: number }>;
}

/** Both ends are inclusive, as in RFC 9110 §14.1.2. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export interface StoredObject {
  readonly bytes: Uint8Array;
  /** The size of the whole object, even if a range was asked for. */
  readonly sizeBytes: number;
}
