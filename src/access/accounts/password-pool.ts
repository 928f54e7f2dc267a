import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { VezaError } from '../../runtime/errors.js';
import { startThread } from '../../runtime/thread.js';
import type { PasswordAnswer, PasswordTask } from './password-worker.js';

/** One core stays free for the live path, unless there is only one. */
const THREADS = Math.max(1, Math.min(4, availableParallelism() - 1));
/**
 * About two seconds of work for one thread, at some 30 ms per task. A client that is refused is
 * asked to come back after the same time.
 */
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
 * Threads for password tasks, so that file and DNS calls do not wait for them as they would in
 * Node's own pool. Threads start on demand and run one task at a time. A thread that dies rejects
 * its task and is replaced when the next task needs it.
 */
export class PasswordPool {
  readonly #maxThreads: number;
  readonly #maxWaiting: number;
  readonly #threads = new Set<Thread>();
  #waiting: Job[] = [];
  /** How many tasks were refused with `busy`. */
  refused = 0;
  #stopped = false;

  constructor({ threads = THREADS, maxWaiting = MAX_WAITING }: PasswordPoolOptions = {}) {
    this.#maxThreads = threads;
    this.#maxWaiting = maxWaiting;
  }

  /**
   * Rejects: `busy` (too many tasks wait), `unavailable` (the thread died, or the pool is stopped).
   */
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

  /** Rejects all tasks and ends the threads. A second call does nothing. */
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
      // A thread keeps the process alive only while it has a task.
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

const unavailable = (cause?: unknown) => new VezaError('unavailable', 'Passwords cannot be checked now. Try again.', { cause });
