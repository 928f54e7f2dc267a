import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Gate } from '../source.js';
import { RtmpSession, type SessionContext, type SessionLimits } from './session.js';

export interface RtmpLimits extends SessionLimits {
  /** Connections of one address, and of all, whose key was not accepted yet. What is on air is limited by the gate. */
  connectionsPerAddress: number;
  connections: number;
}

export const RTMP_LIMITS: Readonly<RtmpLimits> = {
  handshakeMs: 5_000,
  publishMs: 30_000,
  admitMs: 10_000,
  idleMs: 10_000,
  audioMs: 15_000,
  lingerMs: 2_000,
  lingerBytes: 1024 * 1024,
  keyChars: 256,
  unreadBytes: 64 * 1024,
  chunkBytes: 1024 * 1024,
  chunkStreams: 64,
  audioBytes: 64 * 1024,
  commandBytes: 64 * 1024,
  skippedBytes: 0xffffff,
  pendingBytes: 256 * 1024,
  amfDepth: 8,
  amfValues: 1_000,
  connectionsPerAddress: 100,
  connections: 1_000,
};

/** Every deadline is looked at this often: one timer for all connections. */
const SWEEP_MS = 500;

export interface RtmpOptions {
  gate: Gate;
  clock: Clock;
  log: Log;
  /** 0 takes any free one; `port` tells which. */
  port: number;
  host: string;
  /** PEM. With it this is RTMPS: TLS 1.2 at least, since the encoders in use are years old. */
  tls?: { cert: string | Buffer; key: string | Buffer };
  limits?: Partial<RtmpLimits>;
}

/** `rtmp://host:port/live` with the stream key as the stream name; `rtmps` when it is given a certificate. */
export class RtmpServer {
  readonly name: string;
  readonly #options: RtmpOptions;
  readonly #limits: RtmpLimits;
  readonly #context: SessionContext;
  readonly #sessions = new Map<Socket, RtmpSession>();
  /** Connections without an accepted key, by address. */
  readonly #waiting = new Map<string, number>();
  #waitingTotal = 0;
  #turnedAway = 0;
  #server: Server | undefined;
  #secure: SecureContext | undefined;
  #cancelSweep: (() => void) | undefined;
  #port = 0;

  constructor(options: RtmpOptions) {
    const protocol = options.tls ? 'rtmps' : 'rtmp';
    this.name = protocol;
    this.#options = options;
    this.#limits = { ...RTMP_LIMITS, ...options.limits };
    this.#context = { gate: options.gate, clock: options.clock, log: options.log, limits: this.#limits, protocol };
  }

  /** The port that is listened on, after `start`. */
  get port(): number {
    return this.#port;
  }

  /** Rejects when the port is taken or the certificate cannot be used. */
  async start(): Promise<void> {
    if (this.#options.tls) this.#secure = createSecureContext({ ...this.#options.tls, minVersion: 'TLSv1.2' });
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#options.port, this.#options.host, () => {
        server.off('error', reject);
        resolve();
      });
    });
    server.on('error', (error) => this.#context.log.error({ error: messageOf(error) }, 'ingest listener'));
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
    this.#cancelSweep = this.#context.clock.every(SWEEP_MS, () => this.#sweep());
  }

  /** Sources end as lost, so that their broadcasters find the next process within the reconnect window. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    this.#cancelSweep?.();
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const session of this.#sessions.values()) session.shutDown();
    // A client that does not read its last word is not waited for.
    const force = this.#context.clock.after(this.#limits.lingerMs, () => {
      for (const socket of this.#sessions.keys()) socket.destroy();
    });
    await closed;
    force();
  }

  #accept(raw: Socket): void {
    const address = (raw.remoteAddress ?? '').replace(/^::ffff:/, '');
    const fromAddress = this.#waiting.get(address) ?? 0;
    if (fromAddress >= this.#limits.connectionsPerAddress || this.#waitingTotal >= this.#limits.connections || !this.#server) {
      this.#turnedAway++;
      raw.on('error', () => undefined);
      raw.destroy();
      return;
    }
    this.#waiting.set(address, fromAddress + 1);
    this.#waitingTotal++;
    let waiting = true;
    const settle = () => {
      if (!waiting) return;
      waiting = false;
      this.#waitingTotal--;
      const left = (this.#waiting.get(address) ?? 1) - 1;
      if (left > 0) this.#waiting.set(address, left);
      else this.#waiting.delete(address);
    };
    // TLS over the accepted socket, and not a TLS server: so the limits and the handshake's deadline hold from the first byte.
    const socket = this.#secure ? new TLSSocket(raw, { isServer: true, secureContext: this.#secure }) : raw;
    this.#sessions.set(socket, new RtmpSession(socket, address, this.#context, settle));
    raw.once('close', () => {
      settle();
      this.#sessions.delete(socket);
      socket.destroy();
    });
  }

  #sweep(): void {
    const nowMs = this.#context.clock.monotonicMs();
    for (const session of this.#sessions.values()) session.checkDeadline(nowMs);
    // One line for all: those who open hundreds of connections do not fill the log.
    if (this.#turnedAway > 0) {
      this.#context.log.warn({ protocol: this.name, connections: this.#turnedAway }, 'ingest connections turned away: too many');
    }
    this.#turnedAway = 0;
  }
}
