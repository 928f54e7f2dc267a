/**
 * Immutable objects by key. Makers: files (`object-store-files`), later S3. `test/contract/object-store.ts` runs on each.
 *
 * Keys are relative paths of `[A-Za-z0-9._-]` names joined by `/`, at most 512 characters; anything else, `.` and `..`
 * are refused with VezaError `bad_request`. A put is atomic: a reader sees the whole object or none. The last put wins.
 */
export interface ObjectStore {
  /** Rejects when the object is not safely kept (disk full, store away). */
  put(key: string, bytes: Uint8Array, contentType: string): Promise<void>;
  /** The whole object or the range, or undefined when there is none. */
  get(key: string, range?: ByteRange): Promise<StoredObject | undefined>;
  /** Size in bytes, or undefined. */
  head(key: string): Promise<number | undefined>;
  /** Keys that are not there are no error. */
  delete(keys: readonly string[]): Promise<void>;
  /** Keys that start with `prefix` (which ends in `/` or is empty), in no order. */
  list(prefix: string): AsyncIterable<{ key: string; sizeBytes: number; modifiedMs: number }>;
}

/** Inclusive, as in RFC 9110 §14.1.2. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export interface StoredObject {
  readonly bytes: Uint8Array;
  /** Of the whole object, whatever range was asked. */
  readonly sizeBytes: number;
}
