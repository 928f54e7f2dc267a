/**
 * The last known place of each channel on its timeline: small JSON documents by channel slug, saved
 * at every segment, that must survive the death of the process. Makers: files; later Redis.
 */
export interface Registry {
  /**
   * Every document by its channel. A document that cannot be read is left out, and the log names
   * its channel.
   */
  load(): Promise<Map<string, unknown>>;
  /**
   * Resolves when the document is durable. Documents of one channel are saved in order, so the last
   * save wins.
   */
  save(channel: string, document: unknown): Promise<void>;
  remove(channel: string): Promise<void>;
}
