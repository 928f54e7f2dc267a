import { type AddressInfo, createServer, type Server, type ServerOpts, type Socket } from 'node:net';
import { addressGroup, plainAddress } from '../runtime/addresses.js';
import { BoundedLog } from '../runtime/bounded-log.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/** Every deadline is looked at this often: one timer for all connections, not one a connection and a read. */
const SWEEP_MS = 500;

export interface ListenerLimits {
  /** Connections of one address (of IPv6 one /64) whose key is not accepted yet. */
  readonly connectionsPerAddress: number;
  /** The same of all addresses. */
  readonly connections: number;
}

export interface ListenerOptions {
  readonly protocol: string;
  readonly host: string;
  /** 0 takes any free one; `port` tells which. */
  readonly port: number;
  readonly socketOptions: ServerOpts;
  readonly limits: ListenerLimits;
  readonly clock: Clock;
  readonly log: Log;
  /** `admitted` is to be called once its key is accepted: from then on it no longer counts. */
  readonly onConnection: (socket: Socket, address: string, admitted: () => void) => void;
  /** Too many wait: it may be told, and is to be destroyed. */
  readonly onTurnedAway: (socket: Socket) => void;
  /** Twice a second, for deadlines. */
  readonly onSweep: (nowMs: number) => void;
}

/** A TCP port for broadcasters. Whoever has not shown a good key is counted and limited, in all and by address. */
export class IngestListener {
  readonly #options: ListenerOptions;
  readonly #waiting = new Map<string, number>();
  #waitingTotal = 0;
  #turnedAway = 0;
  #server: Server | undefined;
  #cancelSweep: (() => void) | undefined;
  /** For lines about clients whose key is not accepted. */
  readonly strangersLog: BoundedLog;
  #port = 0;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.strangersLog = new BoundedLog(options.log, options.clock);
  }

  /** The port that is listened on, after `start`. */
  get port(): number {
    return this.#port;
  }

  /** Rejects when the port is taken. */
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

  /** No new connection; resolves when the last one is closed, which is for the caller to see to. Twice is harmless. */
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
      this.#options.onTurnedAway(socket);
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
    // One line for all: those who open hundreds of connections do not fill the log.
    if (this.#turnedAway > 0)
      this.strangersLog.warn(
        { event: 'ingest.connections_refused', protocol, connections: this.#turnedAway },
        'ingest connections were refused: too many are open',
      );
    this.#turnedAway = 0;
  }
}
