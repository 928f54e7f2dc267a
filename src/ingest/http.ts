import type { Clock } from '../runtime/clock.js';
import { each } from '../runtime/each.js';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { IngestHttpConnection, type IngestHttpContext } from './http/connection.js';
import { icecastRefusal } from './http/icecast.js';
import { INGEST_HTTP_LIMITS, type IngestHttpLimits } from './http/limits.js';
import { refusalFor, renderAnswer } from './http/wire.js';
import { IngestListener } from './listener.js';
import type { Gate } from './source.js';

export interface IngestHttpOptions {
  gate: Gate;
  clock: Clock;
  log: Log;
  /** 0: any free port. After `start`, `port` returns the real one. */
  port: number;
  host: string;
  limits?: Partial<IngestHttpLimits>;
}

/**
 * The server on `INGEST_PORT`: Icecast sources, their metadata calls, and `POST /ingest/{channel}`.
 */
export class IngestHttpServer {
  readonly name = 'ingest-http';
  readonly #context: IngestHttpContext;
  readonly #listener: IngestListener;
  readonly #connections = new Set<IngestHttpConnection>();

  constructor(options: IngestHttpOptions) {
    const { gate, clock, log, host, port } = options;
    const limits = { ...INGEST_HTTP_LIMITS, ...options.limits };
    this.#listener = new IngestListener({
      protocol: 'http',
      host,
      port,
      // A client may close its sending side after the request; the answer is still sent to it.
      socketOptions: { allowHalfOpen: true },
      limits,
      clock,
      log,
      onConnection: (socket, address, admitted) => {
        const connection = new IngestHttpConnection(socket, address, this.#context, clock.monotonicMs(), admitted);
        this.#connections.add(connection);
        socket.once('close', () => this.#connections.delete(connection));
      },
      onTurnedAway: (socket, isAnswered) => {
        if (!isAnswered) {
          socket.resetAndDestroy();
          return;
        }
        const busy = icecastRefusal(refusalFor(new VezaError('busy', 'too many connections')));
        socket.end(renderAnswer(busy, { version: 'HTTP/1.0', wallMs: clock.wallMs() }));
        socket.destroySoon();
      },
      onSweep: (nowMs) => each(this.#connections, (connection) => connection.checkDeadline(nowMs)),
    });
    this.#context = { gate, clock, log, strangersLog: this.#listener.strangersLog, limits };
  }

  /** The port that the server listens on, after `start`. */
  get port(): number {
    return this.#listener.port;
  }

  /** Rejects when the port is in use. */
  start(): Promise<void> {
    return this.#listener.start();
  }

  /**
   * Closes the connections and waits for them. Sources end as `lost`: their broadcasts are held for
   * the reconnect window, in which the broadcasters connect to the next process.
   */
  async stop(): Promise<void> {
    const closed = this.#listener.stop();
    for (const connection of this.#connections) connection.shutDown();
    await closed;
  }
}
