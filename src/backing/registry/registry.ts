/**
 * Which channel is (or was last) at which place of its timeline: small JSON documents by channel slug that must survive the
 * death of the process, written at every segment. Makers: files; later Redis.
 */
export interface Registry {
  /** Every document, by channel. One that cannot be read is left out and named in the log. */
  load(): Promise<Map<string, unknown>>;
  /** Resolves when it is durable. The last save wins; saves of one channel are made in order. */
  save(channel: string, document: unknown): Promise<void>;
  remove(channel: string): Promise<void>;
}
