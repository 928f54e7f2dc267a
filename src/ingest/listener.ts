import { type AddressInfo, createServer, type Server, type ServerOpts, type Socket } from 'node:net';
import { addressGroup, plainAddress } from '../runtime/addresses.js';
import { BoundedLog } from '../runtime/bounded-log.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/**
 * How often all deadlines are checked. One timer serves all connections; a timer per connection
 * would be set again at every read.
 */
const SWEEP_MS = 500;
/**
 * At most this many refused connections of a network get an answer per sweep; a client that does
 * not read its answer keeps its side of the connection open.
 */
const ANSWERED_PER_SWEEP = 20;

interface ListenerLimits {
  /** Connections at most per address (of IPv6 per /64) whose key has not been accepted. */
  readonly connectionsPerAddress: number;
  /** Connections at most, of all addresses together, whose key has not been accepted. */
  readonly connections: number;
}

export interface ListenerOptions {
  readonly protocol: string;
  readonly host: string;
  /** 0: any free port. After `start`, `port` returns the real one. */
  readonly port: number;
  readonly socketOptions: ServerOpts;
  readonly limits: ListenerLimits;
  readonly clock: Clock;
  readonly log: Log;
  /**
   * Called for each accepted connection. The owner calls `admitted` when its key is accepted; from
   * then on the connection no longer counts against the limits.
   */
  readonly onConnection: (socket: Socket, address: string, admitted: () => void) => void;
  /**
   * Called for a connection above a limit. The owner has to destroy the socket. It may send an
   * answer only if `isAnswered`.
   */
  readonly onTurnedAway: (socket: Socket, isAnswered: boolean) => void;
  /** Called twice a second, to check deadlines. */
  readonly onSweep: (nowMs: number) => void;
}

/**
 * A TCP port for broadcasters. Connections whose key has not been accepted are counted and limited,
 * in total and by address.
 */
export class IngestListener {
  readonly #options: ListenerOptions;
  readonly #waiting = new Map<string, number>();
  #waitingTotal = 0;
  #turnedAway = 0;
  /** Answers to refused connections since the last sweep, by network. */
  readonly #answered = new Map<string, number>();
  #server: Server | undefined;
  #cancelSweep: (() => void) | undefined;
  /** The log for lines about clients whose key has not been accepted; their number is bounded. */
  readonly strangersLog: BoundedLog;
  #port = 0;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.strangersLog = new BoundedLog(options.log, options.clock);
  }

  /** The port that the server listens on, after `start`. */
  get port(): number {
    return this.#port;
  }

  /** Rejects when the port is in use. */
  async start(): Promise<void> {
    const { host, port, socketOptions, clock, protocol } = this.#options;
    const server = createServer({ noDelay: true, ...socketOptions }, (socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, () => {
        server.off('error', reject);
        resolve();
      });
    });
    server.on('error', (error) =>
      this.strangersLog.error({ event: 'ingest.listener_failed', protocol, error: messageOf(error) }, 'an ingest port failed'),
    );
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
    this.#cancelSweep = clock.every(SWEEP_MS, () => this.#sweep());
  }

  /**
   * Accepts no more connections. Resolves when the last one is closed; closing them is up to the
   * caller. Twice is harmless.
   */
  stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.#cancelSweep?.();
    if (!server) return Promise.resolve();
    return new Promise((resolve) =>
      server.close(() => {
        this.strangersLog.close();
        resolve();
      }),
    );
  }

  #accept(socket: Socket): void {
    const { limits } = this.#options;
    const address = plainAddress(socket.remoteAddress);
    const network = addressGroup(address);
    const fromAddress = this.#waiting.get(network) ?? 0;
    if (fromAddress >= limits.connectionsPerAddress || this.#waitingTotal >= limits.connections || !this.#server) {
      this.#turnedAway++;
      socket.on('error', () => socket.destroy());
      const answered = (this.#answered.get(network) ?? 0) + 1;
      const isAnswered = answered <= ANSWERED_PER_SWEEP && this.#answered.size < limits.connections;
      if (isAnswered) this.#answered.set(network, answered);
      this.#options.onTurnedAway(socket, isAnswered);
      return;
    }
    this.#waiting.set(network, fromAddress + 1);
    this.#waitingTotal++;
    let waiting = true;
    const admitted = () => {
      if (!waiting) return;
      waiting = false;
      this.#waitingTotal--;
      const left = (this.#waiting.get(network) ?? 1) - 1;
      if (left > 0) this.#waiting.set(network, left);
      else this.#waiting.delete(network);
    };
    socket.once('close', admitted);
    this.#options.onConnection(socket, address, admitted);
  }

  #sweep(): void {
    const { clock, protocol, onSweep } = this.#options;
    onSweep(clock.monotonicMs());
    // One line for all connections that were refused since the last check, so that hundreds of them
    // do not fill the log.
    if (this.#turnedAway > 0)
      this.strangersLog.warn(
        { event: 'ingest.connections_refused', protocol, connections: this.#turnedAway },
        'ingest connections were refused: too many are open',
      );
    this.#turnedAway = 0;
    this.#answered.clear();
  }
}
