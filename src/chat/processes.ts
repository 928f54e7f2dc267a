import type { ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Clock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { addStats, type ProcessStats, withoutPeople } from './process-stats.js';

/** What the primary tells a chat process. A socket comes with `take`. */
export type ToProcess =
  | { readonly do: 'begin'; readonly with: unknown }
  /** `request`: it was read already; with what came behind it, base64. */
  | { readonly do: 'take'; readonly secure: boolean; readonly request?: HandedRequest }
  /** Send everybody away within this time, each back within `retryMs`, and end. */
  | { readonly do: 'drain'; readonly withinMs: number; readonly retryMs: number };

export interface HandedRequest {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  readonly head: string;
}

/** What a chat process says. */
export type FromProcess =
  | { readonly say: 'ready' }
  | { readonly say: 'failed'; readonly reason: string }
  /** `closed`: sockets of those it was given, since it began. */
  | { readonly say: 'state'; readonly closed: number; readonly stats: ProcessStats };

export interface ProcessesOptions {
  readonly count: number;
  /** Starts one; it is sent `begin` and says `ready`. */
  readonly start: () => ChildProcess;
  readonly begin: unknown;
  readonly clock: Clock;
  readonly log: Log;
}

const READY_MS = 60_000;
/** A process that died is replaced at once, and after this time when that fails. */
const AGAIN_MS = 1000;
/** After it was told to drain, beyond the time it was given for that. */
const END_MS = 10_000;

type Phase = 'starting' | 'ready' | 'draining' | 'gone';

class Worker {
  phase: Phase = 'starting';
  /** To end. */
  wasTold = false;
  given = 0;
  closed = 0;
  stats: ProcessStats = addStats([]);
  readonly exited: Promise<void>;
  readonly ready: Promise<void>;

  constructor(
    readonly child: ChildProcess,
    begin: unknown,
    clock: Clock,
  ) {
    this.exited = new Promise((resolve) => child.once('exit', () => resolve()));
    this.ready = new Promise((resolve, reject) => {
      const cancel = clock.after(READY_MS, () => reject(new VezaError('unavailable', 'A chat process did not start in time.')));
      child.on('message', (said: FromProcess) => {
        if (said.say === 'state') {
          this.closed = said.closed;
          this.stats = said.stats;
        } else if (said.say === 'ready') {
          cancel();
          if (this.phase === 'starting') this.phase = 'ready';
          resolve();
        } else if (said.say === 'failed') {
          cancel();
          reject(new VezaError('unavailable', said.reason));
        }
      });
      void this.exited.then(() => {
        cancel();
        this.phase = 'gone';
        reject(new VezaError('unavailable', 'A chat process ended while it started.'));
      });
    });
    this.ready.catch(() => undefined);
    child.on('error', () => undefined);
    this.tell({ do: 'begin', with: begin });
  }

  get open(): number {
    return this.given - this.closed;
  }

  tell(message: ToProcess, socket?: Socket): void {
    if (!this.child.connected) {
      socket?.destroy();
      return;
    }
    this.child.send(message, socket, { keepOpen: false }, () => {
      // It is the other process's now; what is left here of it is told that it is over.
      socket?.destroy();
    });
  }
}

/**
 * The chat's processes. The primary accepts and gives each socket to the one that has the fewest; a process that dies is replaced, and one that is to
 * go goes when its replacement is ready.
 */
export class Processes {
  readonly #options: ProcessesOptions;
  #workers: Worker[] = [];
  /** What those counted that are gone. */
  #past: ProcessStats = addStats([]);
  #stopping: Promise<void> | undefined;
  #restarting: Promise<void> | undefined;

  constructor(options: ProcessesOptions) {
    this.#options = options;
  }

  /** Resolves when all are ready; rejects when one does not start. */
  async start(): Promise<void> {
    const starting = Array.from({ length: this.#options.count }, () => this.#fork());
    try {
      await Promise.all(starting.map(({ ready }) => ready));
    } catch (error) {
      await this.stop(0);
      throw error;
    }
  }

  /** Process ids, for tests and for whoever looks. */
  get pids(): number[] {
    return this.#workers.flatMap(({ child, phase }) => (phase === 'ready' ? [child.pid!] : []));
  }

  get stats(): ProcessStats {
    return addStats([this.#past, ...this.#workers.map(({ stats }) => stats)]);
  }

  /** Gives the socket away; paused, with nothing read from it but `request`. */
  give(socket: Socket, secure: boolean, request?: HandedRequest): void {
    let fewest: Worker | undefined;
    for (const worker of this.#workers) if (worker.phase === 'ready' && (!fewest || worker.open < fewest.open)) fewest = worker;
    if (!fewest) {
      socket.destroy();
      return;
    }
    fewest.given++;
    fewest.tell({ do: 'take', secure, ...(request && { request }) }, socket);
  }

  /** One after the other: the replacement is ready before the one it replaces sends its people away, so many a second. Twice is once. */
  restart(perS: number): Promise<void> {
    this.#restarting ??= this.#restart(perS).finally(() => {
      this.#restarting = undefined;
    });
    return this.#restarting;
  }

  async #restart(perS: number): Promise<void> {
    for (const worker of [...this.#workers]) {
      if (this.#stopping) return;
      if (worker.phase !== 'ready') continue;
      const replacement = this.#fork();
      try {
        await replacement.ready;
      } catch (error) {
        this.#options.log.error({ error: (error as Error).message }, 'a chat process is not replaced: the new one does not start');
        return;
      }
      await this.#drain(worker, (worker.open / perS) * 1000, AGAIN_MS);
    }
  }

  async #drain(worker: Worker, withinMs: number, retryMs: number): Promise<void> {
    if (worker.phase === 'gone') return;
    worker.phase = 'draining';
    worker.wasTold = true;
    worker.tell({ do: 'drain', withinMs, retryMs });
    const cancel = this.#options.clock.after(withinMs + END_MS, () => worker.child.kill('SIGKILL'));
    await worker.exited;
    cancel();
  }

  /** Everybody is sent away at once, and comes back within `retryMs`. Twice is harmless. */
  stop(retryMs: number): Promise<void> {
    this.#stopping ??= Promise.all(this.#workers.map((worker) => this.#drain(worker, 0, retryMs))).then(() => undefined);
    return this.#stopping;
  }

  #fork(): Worker {
    const { start, begin, clock, log } = this.#options;
    const worker = new Worker(start(), begin, clock);
    this.#workers.push(worker);
    let wasReady = false;
    worker.ready.then(
      () => {
        wasReady = true;
        log.info({ pid: worker.child.pid }, 'a chat process is ready');
      },
      () => worker.child.kill('SIGKILL'),
    );
    void worker.exited.then(() => {
      this.#workers = this.#workers.filter((one) => one !== worker);
      this.#past = addStats([this.#past, withoutPeople(worker.stats)]);
      if (this.#stopping || worker.wasTold || !wasReady) return;
      log.error(
        { pid: worker.child.pid, signal: worker.child.signalCode, code: worker.child.exitCode },
        'a chat process died; starting another',
      );
      this.#replace();
    });
    return worker;
  }

  #replace(): void {
    if (this.#stopping) return;
    this.#fork().ready.catch((error: Error) => {
      this.#options.log.error({ error: error.message }, 'a chat process does not start; trying again');
      this.#options.clock.after(AGAIN_MS, () => this.#replace());
    });
  }
}
