import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { VezaError } from '../../runtime/errors.js';
import { startThread } from '../../runtime/thread.js';
import type { PasswordAnswer, PasswordTask } from './password-worker.js';

/** One core is left for the live path. */
const THREADS = Math.max(1, Math.min(4, availableParallelism() - 1));
/** Two seconds of work for one thread, at some 30 ms each: who is told to come back later waits no longer than that. */
const MAX_WAITING = 64;

interface Job {
  readonly task: PasswordTask;
  resolve(done: string | boolean): void;
  reject(error: Error): void;
}

interface Thread {
  readonly worker: Worker;
  job: Job | undefined;
}

export interface PasswordPoolOptions {
  readonly threads?: number;
  readonly maxWaiting?: number;
}

/**
 * Threads for passwords alone, so that neither files nor DNS wait for them as they would in Node's own pool. They are begun when they are
 * needed, one task at a time each; a thread that dies fails its task and is replaced by the next.
 */
export class PasswordPool {
  readonly #maxThreads: number;
  readonly #maxWaiting: number;
  readonly #threads = new Set<Thread>();
  #waiting: Job[] = [];
  /** How many were told to come back later. */
  refused = 0;
  #stopped = false;

  constructor({ threads = THREADS, maxWaiting = MAX_WAITING }: PasswordPoolOptions = {}) {
    this.#maxThreads = threads;
    this.#maxWaiting = maxWaiting;
  }

  /** Rejects: `busy` (too many wait already), `unavailable` (its thread died, or the pool is stopped). */
  run(task: PasswordTask): Promise<string | boolean> {
    return new Promise((resolve, reject) => {
      if (this.#stopped) throw unavailable();
      if (this.#waiting.length >= this.#maxWaiting) {
        this.refused++;
        throw new VezaError('busy', 'Too many people sign in at once. Try again in a few seconds.', { details: { retryAfterS: 2 } });
      }
      this.#waiting.push({ task, resolve, reject });
      this.#next();
    });
  }

  /** Fails what is under way. Twice is harmless. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const job of this.#waiting.splice(0)) job.reject(unavailable());
    await Promise.all([...this.#threads].map((thread) => thread.worker.terminate()));
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const thread = [...this.#threads].find(({ job }) => !job) ?? this.#begin();
      if (!thread) return;
      thread.job = this.#waiting.shift()!;
      // What nobody else holds open must not be held open by an idle thread.
      thread.worker.ref();
      thread.worker.postMessage(thread.job.task);
    }
  }

  #begin(): Thread | undefined {
    if (this.#stopped || this.#threads.size >= this.#maxThreads) return undefined;
    const thread: Thread = { worker: startThread(import.meta.url, 'password-worker'), job: undefined };
    this.#threads.add(thread);
    const { worker } = thread;
    const ended = (cause?: unknown) => {
      if (!this.#threads.delete(thread)) return;
      thread.job?.reject(unavailable(cause));
      this.#next();
    };
    worker.on('error', ended);
    worker.on('exit', () => ended());
    worker.on('message', (answer: PasswordAnswer) => {
      const { job } = thread;
      thread.job = undefined;
      worker.unref();
      if ('failed' in answer) job?.reject(new Error(`a password task failed: ${answer.failed}`));
      else job?.resolve(answer.done);
      this.#next();
    });
    return thread;
  }
}

const unavailable = (cause?: unknown) => new VezaError('unavailable', 'Passwords cannot be checked right now. Try again.', { cause });
