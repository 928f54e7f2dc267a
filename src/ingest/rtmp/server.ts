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
  /** 0 takes any free one; `port` tells which. */
  port: number;
  host: string;
  /** PEM. With it this is RTMPS: TLS 1.2 at least, since the encoders in use are years old. `useCertificate` replaces it. */
  tls?: { cert: string | Buffer; key: string | Buffer };
  limits?: Partial<RtmpLimits>;
}

/** `rtmp://host:port/live` with the stream key as the stream name; `rtmps` when it is given a certificate. */
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

  /** The port that is listened on, after `start`. */
  get port(): number {
    return this.#listener.port;
  }

  /** Rejects when the port is taken or the certificate cannot be used. */
  async start(): Promise<void> {
    if (this.#tls) this.useCertificate(this.#tls);
    await this.#listener.start();
  }

  /** For connections from now on; a show that is on air keeps the one that it was begun with. Throws when it cannot be used. */
  useCertificate({ cert, key }: NonNullable<RtmpOptions['tls']>): void {
    this.#secure = createSecureContext({ cert, key, minVersion: 'TLSv1.2' });
  }

  /** Sources end as lost, so that their broadcasters find the next process within the reconnect window. */
  async stop(): Promise<void> {
    const closed = this.#listener.stop();
    for (const session of this.#sessions.values()) session.shutDown();
    // A client that does not read its last word is not waited for.
    const force = this.#clock.after(this.#limits.lingerMs, () => {
      for (const socket of this.#sessions.keys()) socket.destroy();
    });
    await closed;
    force();
  }

  #accept(raw: Socket, address: string, context: SessionContext, admitted: () => void): void {
    // TLS over the accepted socket, and not a TLS server: so the limits and the handshake's deadline hold from the first byte.
    const socket = this.#secure ? new TLSSocket(raw, { isServer: true, secureContext: this.#secure }) : raw;
    this.#sessions.set(socket, new RtmpSession(socket, address, context, admitted));
    raw.once('close', () => {
      this.#sessions.delete(socket);
      socket.destroy();
    });
  }
}
