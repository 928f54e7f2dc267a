import type { IncomingMessage } from 'node:http';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import { VezaError } from '../../runtime/errors.js';
import type { ChunkListener, LiveMedia } from '../edge.js';
import type { WorkerClient } from './client.js';
import { COMPLETE_HEADER, EdgeFrameReader, FRAMES_HEADER } from './protocol.js';

/**
 * A worker that sends nothing for this long within a segment counts as away; a part is due at least
 * every second.
 */
const SILENCE_MS = 8000;
/** An answer with media is at most this large. The largest segments have 400 KB. */
const MAX_SEGMENT_BYTES = 16 * 1024 * 1024;

/**
 * A segment or init segment of a worker. It is requested once for all listeners, and read on while
 * it is made.
 */
export class RemoteMedia implements LiveMedia {
  readonly contentType: string;
  readonly chunks: Uint8Array[] = [];
  complete = false;
  /** The worker does not have the segment in memory; the object store may have it. */
  isAbsent = false;
  #loading: Promise<void> | undefined;
  /**
   * The segment could not be fetched, or will never be complete. The next request for it begins
   * anew.
   */
  hasFailed = false;
  readonly #clock: Clock;
  readonly #followers = new Set<ChunkListener>();
  #answer: IncomingMessage | undefined;
  /** Callers of `has`, with the number of chunks that they wait for. */
  #waiting: { count: number; resolve: () => void; reject: (error: Error) => void }[] = [];
  #sizeBytes = 0;
  #closed = false;

  constructor(client: WorkerClient, clock: Clock, path: string, contentType: string) {
    this.#clock = clock;
    this.contentType = contentType;
    this.#loading = this.#load(client, path);
    // Callers that wait for `loading` receive the rejection. There may be none.
    this.#loading.catch(() => undefined);
  }

  get loading(): Promise<void> | undefined {
    return this.#loading;
  }

  follow(onChunk: ChunkListener): () => void {
    if (!this.complete) this.#followers.add(onChunk);
    return () => this.#followers.delete(onChunk);
  }

  /**
   * Resolves when there are at least `count` chunks, or the segment is complete or absent. Rejects
   * with `unavailable` when they will not arrive.
   */
  async has(count: number): Promise<void> {
    await this.#loading;
    if (this.chunks.length >= count || this.complete || this.isAbsent) return;
    if (this.hasFailed) throw lost();
    await new Promise<void>((resolve, reject) => this.#waiting.push({ count, resolve, reject }));
  }

  /** Rejects all that wait, and destroys the request. */
  close(): void {
    this.#closed = true;
    this.#answer?.destroy();
    if (!this.complete) this.#fail();
  }

  async #load(client: WorkerClient, path: string): Promise<void> {
    try {
      const answer = await client.get(path);
      if (!answer) {
        this.isAbsent = true;
        return;
      }
      this.#answer = answer;
      if (this.#closed) answer.destroy();
      const known = Number(answer.headers[FRAMES_HEADER]);
      const isComplete = answer.headers[COMPLETE_HEADER] === '1';
      this.#read(answer);
      // A complete segment is waited for up to its end frame.
      const count = isComplete ? Number.POSITIVE_INFINITY : known;
      if (count > 0) await this.#reached(count);
    } catch (error) {
      this.hasFailed = true;
      throw error instanceof VezaError ? error : lost();
    } finally {
      this.#loading = undefined;
    }
  }

  #reached(count: number): Promise<void> {
    return new Promise((resolve, reject) => this.#waiting.push({ count, resolve, reject }));
  }

  #read(answer: IncomingMessage): void {
    const frames = new EdgeFrameReader((frame) => this.#appendFrame(frame));
    let cancel = this.#clock.after(SILENCE_MS, () => answer.destroy());
    answer.on('data', (bytes: Buffer) => {
      cancel();
      cancel = this.#clock.after(SILENCE_MS, () => answer.destroy());
      this.#sizeBytes += bytes.length;
      try {
        if (this.#sizeBytes > MAX_SEGMENT_BYTES) throw new Error('too long');
        frames.push(bytes);
      } catch {
        answer.destroy();
      }
    });
    answer.on('error', () => undefined);
    answer.once('close', () => {
      cancel();
      if (!this.complete) this.#fail();
    });
  }

  #appendFrame(frame: Buffer | undefined): void {
    if (this.complete || this.hasFailed) return;
    if (frame) this.chunks.push(frame);
    else this.complete = true;
    const waiting = this.#waiting;
    this.#waiting = waiting.filter(({ count }) => !this.complete && this.chunks.length < count);
    for (const waiter of waiting) if (!this.#waiting.includes(waiter)) waiter.resolve();
    each([...this.#followers], (follower) => follower(frame, false));
    if (this.complete) this.#followers.clear();
  }

  #fail(): void {
    if (this.hasFailed) return;
    this.hasFailed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(lost());
    const followers = [...this.#followers];
    this.#followers.clear();
    each(followers, (follower) => follower(undefined, true));
  }
}

const lost = () => new VezaError('unavailable', 'the worker broke off what it was sending');
