import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import type { Server, Socket } from 'node:net';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { HandedRequest } from '../gateway/handed-request.js';
import { addStats, type ProcessStats, withoutPeople } from '../gateway/process-stats.js';
import type { OnAirChanges } from '../rooms/on-air.js';

/** A message from the primary to a chat process. */
export type ToProcess =
  | { readonly do: 'begin'; readonly with: unknown }
  /**
   * Accept connections until `upTo` sockets are open. `port`: one of `of` ports whose handles come
   * with such messages, because the process has closed its own.
   */
  | { readonly do: 'accept'; readonly upTo: number; readonly port?: { readonly name: ChatPort; readonly of: number } }
  /** Take over a request that the primary has read. Its socket comes with the message. */
  | { readonly do: 'take'; readonly request: HandedRequest }
  | { readonly do: 'tell'; readonly channels: OnAirChanges }
  /** Send `count` clients away, to reconnect within `retryMs`. Accept no connection from now on. */
  | { readonly do: 'drain'; readonly count: number; readonly retryMs: number }
  /** Send the remaining clients away and end. */
  | { readonly do: 'end'; readonly retryMs: number };

export type ChatPort = 'plain' | 'secure';

/** A message from a chat process to the primary. */
export type FromProcess =
  | { readonly say: 'ready' }
  | { readonly say: 'failed'; readonly reason: string }
  /** The process is ready but cannot accept connections. */
  | { readonly say: 'deaf'; readonly reason: string }
  /** The process had an uncaught exception. It goes on until it is replaced. */
  | { readonly say: 'unwell' }
  /**
   * Sent regularly, and at once when the process starts or stops accepting. `taken`: requests that
   * it was handed since its start. `open`: its open sockets, handed or accepted.
   */
  | { readonly say: 'state'; readonly open: number; readonly taken: number; readonly accepts: boolean; readonly stats: ProcessStats };

export interface ProcessPoolOptions {
  readonly count: number;
  /** Connections that one process may have. */
  readonly full: number;
  /** Forks a process. It is sent `begin` and answers `ready`. */
  readonly start: () => ChildProcess;
  readonly begin: unknown;
  readonly clock: Clock;
  readonly log: Log;
}

/** A process that is not ready after this is killed. Under load a start takes long. */
const READY_MS = 300_000;
/** Sockets that a process may have more than the emptiest one, as a number … */
const AHEAD = 2;
/** … and as a share of the emptiest one's sockets. Both are added. */
const AHEAD_SHARE = 1 / 64;
/**
 * A process that has sent nothing for this long is left out of balancing: the number of its sockets
 * is unknown.
 */
const SILENT_MS = 1000;
const LOOK_MS = 1000;
/**
 * A process that has sent nothing at this many looks in a row hangs and is killed. Looks are
 * counted instead of time, so that a primary that was itself suspended kills no process.
 */
const HUNG_LOOKS = 30;
/** The delay before a failed start is repeated. A process that died is replaced at once. */
const AGAIN_MS = 1000;
/** Clients per second that are sent away from a process after an uncaught exception. */
const RELIEVED_PER_S = 1000;
/** A process that has not ended this long after its `end` is killed. */
const END_MS = 10_000;

/**
 * While a process is replaced, clients that were sent away and have not come back, at most. A
 * machine that gets more reconnects than it can accept ends with most clients disconnected.
 */
const MOST_AWAY = 500;
const STEP_MS = 100;
/** When no client has come back for this long, draining no longer waits for the missing ones. */
const BACK_MS = 3000;

/** How many sockets more than the emptiest process another one may have. */
export const aheadOf = (fewest: number): number => AHEAD + Math.floor(fewest * AHEAD_SHARE);

type ChatProcessState = 'starting' | 'ready' | 'draining' | 'gone';

class ChatProcess {
  phase: ChatProcessState = 'starting';
  /** True: its replacement was started already, so none is started when it ends. */
  isReplaced = false;
  silentLooks = 0;
  /** Requests that the primary has handed to it. */
  given = 0;
  state: Omit<Extract<FromProcess, { say: 'state' }>, 'say'> = { open: 0, taken: 0, accepts: false, stats: addStats([]) };
  heardAtMs: number;
  /** The limit that it was sent last. */
  upTo = 0;
  readonly exited: Promise<void>;
  readonly ready: Promise<void>;

  constructor(
    readonly child: ChildProcess,
    begin: unknown,
    clock: Clock,
    told: (said: FromProcess | undefined) => void,
  ) {
    this.heardAtMs = clock.monotonicMs();
    this.exited = new Promise((resolve) => {
      child.once('exit', () => resolve());
      // When the fork itself fails, there is no `exit` event. Any other error means that a message
      // did not arrive.
      child.on('error', () => {
        if (child.pid === undefined) resolve();
      });
    });
    this.ready = new Promise((resolve, reject) => {
      const cancel = clock.after(READY_MS, () => reject(new VezaError('unavailable', 'A chat process did not start in time.')));
      child.on('message', (said: FromProcess) => {
        this.heardAtMs = clock.monotonicMs();
        this.silentLooks = 0;
        if (said.say === 'state') this.state = said;
        else if (said.say === 'ready') {
          cancel();
          if (this.phase === 'starting') this.phase = 'ready';
          resolve();
        } else if (said.say === 'failed') {
          cancel();
          reject(new VezaError('unavailable', said.reason));
        }
        told(said);
      });
      void this.exited.then(() => {
        cancel();
        this.phase = 'gone';
        reject(new VezaError('unavailable', 'A chat process ended while it started.'));
        for (const handle of this.#underWay) handle?.close();
        told(undefined);
      });
    });
    this.ready.catch(() => undefined);
    this.send({ do: 'begin', with: begin });
  }

  /** Handles of sockets that are being sent to the process. Node leaks them if the process dies. */
  readonly #underWay = new Set<{ close(): void } | undefined>();

  get open(): number {
    return this.state.open + this.given - this.state.taken;
  }

  get isThere(): boolean {
    return this.phase !== 'gone';
  }

  send(message: ToProcess): void {
    if (this.child.connected) this.child.send(message, () => undefined);
  }

  handOver(socket: Socket, request: HandedRequest): void {
    this.given++;
    const { _handle: handle } = socket as unknown as { _handle?: { close(): void } };
    this.#underWay.add(handle);
    // The socket now belongs to the other process, so the object in this one is closed.
    const done = () => {
      this.#underWay.delete(handle);
      socket.destroy();
    };
    if (this.child.connected) this.child.send({ do: 'take', request } satisfies ToProcess, socket, { keepOpen: false }, done);
    else done();
  }

  allowAccepting(upTo: number, ports: ReadonlyMap<ChatPort, PortHandle>): void {
    this.upTo = upTo;
    if (this.state.accepts) {
      this.send({ do: 'accept', upTo });
      return;
    }
    if (!this.child.connected) return;
    this.state = { ...this.state, accepts: true };
    const of = ports.size;
    for (const [name, handle] of ports)
      this.child.send({ do: 'accept', upTo, port: { name, of } } satisfies ToProcess, handle, {}, () => undefined);
  }
}

/** A bound port, in the form in which Node sends it to another process: see `SharedPort`. */
export type PortHandle = Server;

/**
 * The pool of chat processes. All accept from shared ports, and none gets far ahead of the
 * emptiest. A request that the primary has read is handed to the emptiest. A process that dies is
 * replaced. A process that is to be replaced ends after its replacement is ready.
 */
export class ProcessPool {
  readonly #options: ProcessPoolOptions;
  #workers: ChatProcess[] = [];
  #ports: ReadonlyMap<ChatPort, PortHandle> = new Map();
  /** The counters of processes that have ended. */
  #past: ProcessStats = addStats([]);
  /**
   * The channels on air, for processes that start later; undefined: no on-air change has come yet.
   */
  #onAir: Record<string, NonNullable<OnAirChanges[string]>> | undefined;
  readonly #accepted: Promise<void>;
  #accepts!: () => void;
  #acceptsNot!: (error: Error) => void;
  #isDeafnessKnown = false;
  readonly #cancelLooks: () => void;
  #stopping: Promise<void> | undefined;
  #restarting: Promise<void> | undefined;

  constructor(options: ProcessPoolOptions) {
    this.#options = options;
    this.#accepted = new Promise((resolve, reject) => {
      this.#accepts = resolve;
      this.#acceptsNot = reject;
    });
    this.#accepted.catch(() => undefined);
    this.#cancelLooks = options.clock.every(LOOK_MS, () => this.#look());
  }

  /** Resolves when all processes are ready. Rejects when one does not start. */
  async start(): Promise<void> {
    const starting = Array.from({ length: this.#options.count }, () => this.#fork());
    try {
      await Promise.all(starting.map(({ ready }) => ready));
    } catch (error) {
      await this.stop(0);
      throw error;
    }
  }

  /** The ids of the processes that are ready. */
  get pids(): number[] {
    return this.#workers.flatMap(({ child, phase }) => (phase === 'ready' ? [child.pid!] : []));
  }

  get stats(): ProcessStats {
    return addStats([this.#past, ...this.#workers.map(({ state }) => state.stats)]);
  }

  /**
   * Lets the processes accept from these ports. Call it once. Resolves when the first process
   * accepts; rejects when it cannot. The caller closes the handles before `stop`.
   */
  sharePorts(ports: ReadonlyMap<ChatPort, PortHandle>): Promise<void> {
    this.#ports = ports;
    this.#balance();
    return this.#accepted;
  }

  /** Hands a socket and the request that was read from it to the emptiest process. */
  handOver(socket: Socket, request: HandedRequest): void {
    const ready = this.#workers.filter(({ phase }) => phase === 'ready');
    const awake = this.#awake;
    let fewest: ChatProcess | undefined;
    for (const worker of awake.length > 0 ? awake : ready) if (!fewest || worker.open < fewest.open) fewest = worker;
    if (fewest) fewest.handOver(socket, request);
    else socket.destroy();
  }

  /** Sends these on-air changes to every process. */
  broadcastOnAir(changes: OnAirChanges): void {
    const onAir = { ...this.#onAir };
    for (const [slug, news] of Object.entries(changes)) {
      if (news) onAir[slug] = news;
      else delete onAir[slug];
    }
    this.#onAir = onAir;
    for (const worker of this.#workers) if (worker.phase === 'ready') worker.send({ do: 'tell', channels: changes });
  }

  /**
   * Sends each process its limit. When all are full they go on accepting, to close further
   * connections with 1013.
   */
  #balance(): void {
    if (this.#stopping || this.#ports.size === 0) return;
    const workers = this.#awake;
    const fewest = Math.min(...workers.map(({ open }) => open));
    const ahead = aheadOf(fewest);
    const upTo = fewest < this.#options.full ? Math.min(fewest + ahead, this.#options.full) : fewest + ahead;
    for (const worker of workers) {
      const { open, state } = worker;
      const room = upTo - open;
      // Handles are not sent to accept a single socket, except to the emptiest process.
      const isDue = state.accepts ? Math.abs(worker.upTo - upTo) >= ahead / 2 : room >= ahead / 4 || (room > 0 && open === fewest);
      if (isDue) worker.allowAccepting(upTo, this.#ports);
    }
  }

  get #awake(): ChatProcess[] {
    const nowMs = this.#options.clock.monotonicMs();
    return this.#workers.filter(({ phase, heardAtMs }) => phase === 'ready' && nowMs - heardAtMs <= SILENT_MS);
  }

  #look(): void {
    for (const worker of this.#workers) {
      if (worker.phase !== 'ready' || ++worker.silentLooks < HUNG_LOOKS) continue;
      this.#options.log.error(
        { event: 'chat.process_unresponsive', pid: worker.child.pid },
        'a chat process does not respond and was killed',
      );
      worker.child.kill('SIGKILL');
    }
  }

  #heard(said: FromProcess | undefined): void {
    if (said?.say === 'state' && said.accepts) {
      this.#isDeafnessKnown = false;
      this.#accepts();
    }
    if (said?.say === 'deaf') {
      this.#acceptsNot(new Error(said.reason));
      if (!this.#isDeafnessKnown)
        this.#options.log.error(
          { event: 'chat.process_cannot_accept', error: said.reason },
          'a chat process cannot accept connections; will try again',
        );
      this.#isDeafnessKnown = true;
    }
    this.#balance();
  }

  /**
   * Replaces the processes one by one. Each replacement is ready before the old process sends away
   * `perS` clients per second. A call during a replacement returns the same promise.
   */
  replaceAll(perS: number): Promise<void> {
    this.#restarting ??= this.#restart(perS).finally(() => {
      this.#restarting = undefined;
    });
    return this.#restarting;
  }

  async #restart(perS: number): Promise<void> {
    for (const worker of [...this.#workers]) {
      if (this.#stopping) return;
      if (worker.phase !== 'ready' || worker.isReplaced) continue;
      if (!(await this.#exchange(worker, perS))) return;
    }
  }

  /** Resolves to false when the replacement does not start; the old process then stays. */
  async #exchange(worker: ChatProcess, perS: number): Promise<boolean> {
    worker.isReplaced = true;
    try {
      await this.#fork().ready;
    } catch (error) {
      this.#options.log.error(
        { event: 'chat.process_not_replaced', error: (error as Error).message },
        'a chat process was not replaced: the new one does not start',
      );
      worker.isReplaced = false;
      if (!worker.isThere) this.#replace();
      return false;
    }
    await this.#drain(worker, perS);
    await this.#end(worker, AGAIN_MS);
    return true;
  }

  /** Replaces a process that had an uncaught exception: its state may be inconsistent. */
  async #relieve(worker: ChatProcess): Promise<void> {
    if (this.#stopping || worker.phase !== 'ready' || worker.isReplaced) return;
    this.#options.log.error(
      { event: 'chat.process_exception', pid: worker.child.pid },
      'a chat process had an uncaught exception and will be replaced',
    );
    await this.#exchange(worker, RELIEVED_PER_S);
  }

  /** Sends the clients of a process away as fast as the other processes accept them. */
  async #drain(worker: ChatProcess, perS: number): Promise<void> {
    if (worker.phase !== 'ready') return;
    worker.phase = 'draining';
    const { clock } = this.#options;
    const others = () => this.#workers.reduce((sum, { phase, open }) => sum + (phase === 'ready' ? open : 0), 0);
    let before = others();
    let most = before;
    let grewAtMs = clock.monotonicMs();
    const all = worker.open;
    const isAlive = () => worker.isThere && worker.open > 0 && clock.monotonicMs() - worker.heardAtMs < BACK_MS;
    for (let sent = 0; sent < all && isAlive() && !this.#stopping; ) {
      const now = others();
      if (now > most) {
        most = now;
        grewAtMs = clock.monotonicMs();
      } else if (clock.monotonicMs() - grewAtMs >= BACK_MS) {
        // The missing clients are counted as if they had come back.
        before = now - sent;
        most = now;
        grewAtMs = clock.monotonicMs();
      }
      // New clients do not count as clients that have come back.
      before = Math.max(before, now - sent);
      const away = sent - (now - before);
      const count = Math.min(Math.ceil((perS * STEP_MS) / 1000), MOST_AWAY - away, all - sent);
      if (count > 0) {
        worker.send({ do: 'drain', count, retryMs: AGAIN_MS });
        sent += count;
      }
      await new Promise<void>((resolve) => void clock.after(STEP_MS, resolve));
    }
  }

  async #end(worker: ChatProcess, retryMs: number): Promise<void> {
    if (worker.phase === 'gone') return;
    const hasBegun = worker.phase !== 'starting';
    worker.phase = 'draining';
    if (hasBegun) worker.send({ do: 'end', retryMs });
    else worker.child.kill('SIGKILL');
    const cancel = this.#options.clock.after(END_MS, () => worker.child.kill('SIGKILL'));
    await worker.exited;
    cancel();
  }

  /**
   * Sends all clients away at once, to reconnect within `retryMs`, and ends the processes. A second
   * call returns the same promise.
   */
  stop(retryMs: number): Promise<void> {
    this.#cancelLooks();
    this.#stopping ??= Promise.all(this.#workers.map((worker) => this.#end(worker, retryMs))).then(() => undefined);
    return this.#stopping;
  }

  #fork(): ChatProcess {
    const { start, begin, clock, log } = this.#options;
    const worker: ChatProcess = new ChatProcess(started(start), begin, clock, (said) => {
      if (said?.say === 'unwell') void this.#relieve(worker);
      this.#heard(said);
    });
    this.#workers.push(worker);
    let wasReady = false;
    worker.ready.then(
      () => {
        wasReady = true;
        if (this.#onAir) worker.send({ do: 'tell', channels: this.#onAir });
        log.info({ event: 'chat.process_ready', pid: worker.child.pid }, 'a chat process is ready');
      },
      () => worker.child.kill('SIGKILL'),
    );
    void worker.exited.then(() => {
      this.#workers = this.#workers.filter((one) => one !== worker);
      this.#past = addStats([this.#past, withoutPeople(worker.state.stats)]);
      if (this.#stopping || worker.isReplaced || !wasReady) return;
      log.error(
        { event: 'chat.process_died', pid: worker.child.pid, signal: worker.child.signalCode, code: worker.child.exitCode },
        'a chat process died; starting another',
      );
      this.#replace();
    });
    return worker;
  }

  #replace(): void {
    if (this.#stopping) return;
    this.#fork().ready.catch((error: Error) => {
      this.#options.log.error({ event: 'chat.process_not_started', error: error.message }, 'a chat process does not start; will try again');
      this.#options.clock.after(AGAIN_MS, () => this.#replace());
    });
  }
}

/**
 * Turns a fork that throws into a child that has ended, as when the system refuses the fork a
 * little later.
 */
function started(start: () => ChildProcess): ChildProcess {
  try {
    return start();
  } catch (error) {
    const child = Object.assign(new EventEmitter(), { connected: false, exitCode: null, signalCode: null, kill: () => false });
    process.nextTick(() => child.emit('error', error));
    return child as unknown as ChildProcess;
  }
}
