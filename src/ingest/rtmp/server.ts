import type { Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import type { Log } from '../../runtime/log.js';
import { IngestListener } from '../listener.js';
import type { Gate } from '../source.js';
import { RTMP_LIMITS, type RtmpLimits } from './limits.js';
import { RtmpSession, type SessionContext } from './session.js';

export interface RtmpOptions {
  gate: Gate;
  clock: Clock;
  log: Log;
  /** 0: any free port. After `start`, `port` returns the real one. */
  port: number;
  host: string;
  /**
   * Certificate and key as PEM; with them the port speaks RTMPS. TLS 1.2 is allowed, because
   * encoders in use are years old. `useCertificate` replaces them.
   */
  tls?: { cert: string | Buffer; key: string | Buffer };
  limits?: Partial<RtmpLimits>;
}

/**
 * The server for `rtmp://host:port/live`, or `rtmps` with a certificate. The stream key is the
 * stream name.
 */
export class RtmpServer {
  readonly name: string;
  readonly #tls: RtmpOptions['tls'];
  readonly #limits: RtmpLimits;
  readonly #clock: Clock;
  readonly #listener: IngestListener;
  readonly #sessions = new Map<Socket, RtmpSession>();
  #secure: SecureContext | undefined;

  constructor(options: RtmpOptions) {
    const { gate, clock, log, host, port, tls } = options;
    const protocol = tls ? 'rtmps' : 'rtmp';
    const limits = { ...RTMP_LIMITS, ...options.limits };
    this.name = protocol;
    this.#tls = tls;
    this.#limits = limits;
    this.#clock = clock;
    this.#listener = new IngestListener({
      protocol,
      host,
      port,
      socketOptions: {},
      limits,
      clock,
      log,
      onConnection: (raw, address, admitted) => this.#accept(raw, address, context, admitted),
      onTurnedAway: (raw) => raw.destroy(),
      onSweep: (nowMs) => each(this.#sessions.values(), (session) => session.checkDeadline(nowMs)),
    });
    const context: SessionContext = { gate, clock, log, strangersLog: this.#listener.strangersLog, limits, protocol };
  }

  /** The port that the server listens on, after `start`. */
  get port(): number {
    return this.#listener.port;
  }

  /** Rejects when the port is in use or the certificate cannot be used. */
  async start(): Promise<void> {
    if (this.#tls) this.useCertificate(this.#tls);
    await this.#listener.start();
  }

  /**
   * Sets the certificate for connections from now on; open connections keep theirs. Throws when it
   * cannot be used.
   */
  useCertificate({ cert, key }: NonNullable<RtmpOptions['tls']>): void {
    this.#secure = createSecureContext({ cert, key, minVersion: 'TLSv1.2' });
  }

  /**
   * Closes the connections and waits for them. Sources end as `lost`: their broadcasts are held for
   * the reconnect window, in which the broadcasters connect to the next process.
   */
  async stop(): Promise<void> {
    const closed = this.#listener.stop();
    for (const session of this.#sessions.values()) session.shutDown();
    // A client that does not read the last status is not waited for.
    const force = this.#clock.after(this.#limits.lingerMs, () => {
      for (const socket of this.#sessions.keys()) socket.destroy();
    });
    await closed;
    force();
  }

  #accept(raw: Socket, address: string, context: SessionContext, admitted: () => void): void {
    // TLS runs over the accepted socket, without a TLS server: so the limits and the deadline of
    // the handshake apply from the first byte.
    const socket = this.#secure ? new TLSSocket(raw, { isServer: true, secureContext: this.#secure }) : raw;
    this.#sessions.set(socket, new RtmpSession(socket, address, context, admitted));
    raw.once('close', () => {
      this.#sessions.delete(socket);
      socket.destroy();
    });
  }
}
