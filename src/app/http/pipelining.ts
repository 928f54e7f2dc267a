import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../../runtime/clock.js';

/** Unanswered requests per connection of HTTP/1.1, as many as HTTP/2 allows. */
export const MAX_UNANSWERED = 100;
/**
 * A connection with at least `MAX_UNANSWERED` parked requests is closed when none is answered
 * within this time. Media and pages are answered within a few milliseconds.
 */
export const STALL_MS = 250;
/**
 * After its end a closed connection is read, and the bytes discarded, for this time: otherwise TCP
 * sends a reset, which discards answers that are still on their way.
 */
const LINGER_MS = 1000;
/** Parsed requests that wait for an earlier one, over all connections; each takes about 4 KiB. */
const MAX_PARKED = 20_000;

interface PipelinedConnection {
  /**
   * The response of the request that is being answered. Undefined: the next request begins at once.
   */
  current: ServerResponse | undefined;
  /** Requests that were parsed before an earlier one was answered, oldest first. */
  parked: [IncomingMessage, ServerResponse][];
  cancelStall: (() => void) | undefined;
  isClosed: boolean;
}

export interface PipeliningOptions {
  readonly handler: RequestListener;
  readonly clock: Clock;
  /** Called for each connection that is closed for too many requests. */
  readonly overrun: () => void;
  readonly maxParked?: number;
}

/**
 * Passes the requests of a connection to the handler one at a time, each after the one before it
 * was answered. Answers have the order of the requests (RFC 9112 9.3.2), so an earlier begin gains
 * nothing; and a connection takes one slot of whatever its requests wait for, however many it
 * pipelines.
 *
 * While a request is parked nothing more is read. Node parses what it has read already (64 KiB, or
 * 2,600 of the shortest requests) to the end. So a client is served that pipelines requests with
 * quick answers; one that pipelines requests that wait is disconnected, and may send the unanswered
 * ones again.
 */
export class Pipelining {
  readonly #options: PipeliningOptions;
  readonly #maxParked: number;
  readonly #connections = new WeakMap<Socket, PipelinedConnection>();
  #parked = 0;

  constructor(options: PipeliningOptions) {
    this.#options = options;
    this.#maxParked = options.maxParked ?? MAX_PARKED;
  }

  readonly listener: RequestListener = (req, res) => {
    const { socket } = req;
    if (socket.destroyed) return;
    let connection = this.#connections.get(socket);
    if (!connection) {
      connection = { current: undefined, parked: [], cancelStall: undefined, isClosed: false };
      this.#connections.set(socket, connection);
    }
    if (connection.isClosed) return;
    if (!connection.current) {
      this.#begin(connection, socket, req, res);
      return;
    }
    if (this.#parked >= this.#maxParked) {
      this.#cut(connection, socket);
      return;
    }
    connection.parked.push([req, res]);
    this.#parked++;
    if (connection.parked.length === 1) socket.pause();
    if (connection.parked.length >= MAX_UNANSWERED) this.#watch(connection, socket);
  };

  #begin(connection: PipelinedConnection, socket: Socket, req: IncomingMessage, res: ServerResponse): void {
    connection.current = res;
    res.once('close', () => this.#next(connection, socket));
    // `http-guard` may have refused the request for its body while it was parked.
    if (!res.writableEnded) this.#options.handler(req, res);
  }

  /**
   * Begins the next request after the other connections had their turn: requests with immediate
   * answers would otherwise hold the event loop for one connection.
   */
  #next(connection: PipelinedConnection, socket: Socket): void {
    if (connection.parked.length === 0 || socket.destroyed) {
      connection.current = undefined;
      this.#drop(connection);
      return;
    }
    setImmediate(() => {
      connection.current = undefined;
      const next = connection.parked.shift();
      if (!next) return;
      this.#parked--;
      if (socket.destroyed) {
        this.#drop(connection);
        return;
      }
      // A connection that has left HTTP (`Upgrade`) has no parser: bytes that are read would be
      // lost.
      if (connection.parked.length === 0 && (socket as { parser?: unknown }).parser) socket.resume();
      this.#begin(connection, socket, ...next);
    });
  }

  /** Closes the connection if no request is answered for `STALL_MS` while too many are parked. */
  #watch(connection: PipelinedConnection, socket: Socket): void {
    if (connection.cancelStall) return;
    const { current } = connection;
    connection.cancelStall = this.#options.clock.after(STALL_MS, () => {
      connection.cancelStall = undefined;
      if (connection.parked.length < MAX_UNANSWERED) return;
      if (connection.current === current) this.#cut(connection, socket);
      else this.#watch(connection, socket);
    });
  }

  #cut(connection: PipelinedConnection, socket: Socket): void {
    this.#options.overrun();
    connection.isClosed = true;
    this.#drop(connection);
    socket.end();
    this.#options.clock.after(LINGER_MS, () => socket.destroy());
    // Node's parser may still be inside a read.
    setImmediate(() => {
      socket.removeAllListeners('data');
      socket.on('data', () => undefined);
      socket.resume();
    });
  }

  #drop(connection: PipelinedConnection): void {
    this.#parked -= connection.parked.length;
    connection.parked = [];
    connection.cancelStall?.();
    connection.cancelStall = undefined;
  }
}
