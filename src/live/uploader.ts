import type { ObjectStore } from '../backing/object-store/object-store.js';
import type { Clock } from '../runtime/clock.js';
import { apart } from '../runtime/each.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

export interface UploaderMetrics {
  segmentUploadSeconds(seconds: number): void;
  segmentUploadBacklog(count: number): void;
  segmentLost(): void;
}

interface Upload {
  readonly key: string;
  readonly bytes: Uint8Array;
  readonly contentType: string;
  readonly onStored: () => void;
  readonly onLost: (reason: string) => void;
}

const CONCURRENCY = 8;
const MAX_BACKLOG_BYTES = 256 * 1024 * 1024;
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 10_000;
/**
 * A put without an answer after this long counts as failed. An answer that comes later is harmless.
 */
const PUT_DEADLINE_MS = 30_000;

/**
 * Brings finished segments to the object store. While the store is unavailable or slow, they wait
 * in memory, up to 256 MiB for the whole process. Above that the oldest segment is given up; a log
 * line names it and a metric counts it. Publishing live segments never waits for the uploader.
 */
export class Uploader {
  readonly #store: ObjectStore;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #metrics: UploaderMetrics;
  readonly #maxBytes: number;
  #queue: Upload[] = [];
  #backlogBytes = 0;
  #backlog = 0;
  #running = 0;
  #failures = 0;
  #pausedUntil: (() => void) | undefined;
  #failing = false;
  #idle: (() => void)[] = [];

  constructor(options: { store: ObjectStore; clock: Clock; log: Log; metrics: UploaderMetrics; maxBytes?: number }) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#metrics = options.metrics;
    this.#maxBytes = options.maxBytes ?? MAX_BACKLOG_BYTES;
  }

  put(
    key: string,
    bytes: Uint8Array,
    contentType: string,
    onStored: () => void = () => {},
    onLost: (reason: string) => void = () => {},
  ): void {
    this.#queue.push({ key, bytes, contentType, onStored, onLost });
    this.#count(1, bytes.length);
    while (this.#backlogBytes > this.#maxBytes && this.#queue.length > 0) {
      const oldest = this.#queue.shift();
      if (oldest) this.#lose(oldest, 'too much waits for the object store');
    }
    this.#pump();
  }

  /**
   * For readiness: rejects while the object store does not take segments. Nothing is lost at that
   * point, and listeners are not affected.
   */
  async check(): Promise<void> {
    if (this.#failing) throw new Error(`the object store does not take segments; ${this.#backlog} wait in memory`);
  }

  /** Resolves when no segment waits any more. */
  async drained(): Promise<void> {
    if (this.#backlog > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  #pump(): void {
    while (!this.#pausedUntil && this.#running < (this.#failing ? 1 : CONCURRENCY) && this.#queue.length > 0) {
      const upload = this.#queue.shift();
      if (upload) void this.#run(upload);
    }
  }

  async #run(upload: Upload): Promise<void> {
    this.#running += 1;
    const startedMs = this.#clock.monotonicMs();
    try {
      await this.#withDeadline(this.#store.put(upload.key, upload.bytes, upload.contentType));
      this.#metrics.segmentUploadSeconds((this.#clock.monotonicMs() - startedMs) / 1000);
      if (this.#failing) this.#log.info({ event: 'store.upload_restored' }, 'the object store takes segments again');
      this.#failing = false;
      this.#failures = 0;
    } catch (error) {
      this.#running -= 1;
      if (!this.#failing)
        this.#log.error(
          { event: 'store.upload_failed', key: upload.key, error: messageOf(error) },
          'the object store did not take a segment; it waits in memory',
        );
      this.#failing = true;
      this.#failures += 1;
      this.#queue.unshift(upload);
      // All uploads pause together. Then they are tried one at a time until the store takes one.
      this.#pausedUntil ??= this.#clock.after(Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(10, this.#failures - 1)), () => {
        this.#pausedUntil = undefined;
        this.#pump();
      });
      this.#pump();
      return;
    }
    this.#running -= 1;
    this.#count(-1, -upload.bytes.length);
    // An error thrown by `onStored` is not one of the store: handled as such, it would store this
    // segment again and again and block the others.
    apart(() => upload.onStored());
    this.#pump();
  }

  #withDeadline(task: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(PUT_DEADLINE_MS, () => reject(new Error('no answer in 30 s')));
      task.then(resolve, reject).finally(cancel);
    });
  }

  #lose(upload: Upload, reason: string): void {
    this.#log.error({ event: 'store.segment_lost', key: upload.key, reason }, 'a segment is missing from rewind and recording');
    this.#metrics.segmentLost();
    this.#count(-1, -upload.bytes.length);
    apart(() => upload.onLost(reason));
  }

  #count(segments: number, bytes: number): void {
    this.#backlog += segments;
    this.#backlogBytes += bytes;
    this.#metrics.segmentUploadBacklog(this.#backlog);
    if (this.#backlog === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }
}
