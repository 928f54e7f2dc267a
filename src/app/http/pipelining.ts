import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../../runtime/clock.js';

/** Requests of one connection of HTTP/1.1 that may be unanswered, as many as HTTP/2 allows. */
export const MAX_UNANSWERED = 100;
/** A connection that has more is closed when none of them is answered within this time. Media and pages are answered within a few milliseconds. */
export const STALL_MS = 250;
/** How long what such a client goes on sending is read, and thrown away: TCP would turn the end into a reset, which discards answers that are on their way. */
const LINGER_MS = 1000;
/** Requests that were parsed and wait for an earlier one of their connection, of all connections together; each takes about 4 KiB. */
const MAX_PARKED = 20_000;

interface Connection {
  /** Undefined: the next request is begun at once. */
  current: ServerResponse | undefined;
  /** Parsed while an earlier request was not answered, oldest first. */
  parked: [IncomingMessage, ServerResponse][];
  cancelStall: (() => void) | undefined;
  isClosed: boolean;
}

export interface PipeliningOptions {
  readonly handler: RequestListener;
  readonly clock: Clock;
  /** Called for each connection that is closed. */
  readonly overrun: () => void;
  readonly maxParked?: number;
}

/**
 * Hands over the requests of a connection one at a time, each when the one before it is answered. RFC 9112 9.3.2: answers have the order of the requests, so
 * that nothing is won by beginning earlier; and one connection holds one place of whatever its requests wait for, however many it pipelines.
 *
 * While a request is parked nothing more is read. What Node had read already (64 KiB, or 2,600 of the shortest requests) it parses to its end: a client that
 * pipelines what is answered quickly is served, and one that pipelines what waits is disconnected. It may send again what was not answered.
 */
export class Pipelining {
  readonly #options: PipeliningOptions;
  readonly #maxParked: number;
  readonly #connections = new WeakMap<Socket, Connection>();
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

  #begin(connection: Connection, socket: Socket, req: IncomingMessage, res: ServerResponse): void {
    connection.current = res;
    res.once('close', () => this.#next(connection, socket));
    // It has been refused for its body while it was parked (`http-guard`).
    if (!res.writableEnded) this.#options.handler(req, res);
  }

  /** The next one has its turn after the other connections have had theirs: what is answered at once would otherwise hold the event loop for all of them. */
  #next(connection: Connection, socket: Socket): void {
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
      // A connection that has left HTTP (`Upgrade`) has no parser any more: nobody would take what is read.
      if (connection.parked.length === 0 && (socket as { parser?: unknown }).parser) socket.resume();
      this.#begin(connection, socket, ...next);
    });
  }

  /** Until fewer are unanswered. */
  #watch(connection: Connection, socket: Socket): void {
    if (connection.cancelStall) return;
    const { current } = connection;
    connection.cancelStall = this.#options.clock.after(STALL_MS, () => {
      connection.cancelStall = undefined;
      if (connection.parked.length < MAX_UNANSWERED) return;
      if (connection.current === current) this.#cut(connection, socket);
      else this.#watch(connection, socket);
    });
  }

  #cut(connection: Connection, socket: Socket): void {
    this.#options.overrun();
    connection.isClosed = true;
    this.#drop(connection);
    socket.end();
    this.#options.clock.after(LINGER_MS, () => socket.destroy());
    // Node's parser may be in the midst of a read.
    setImmediate(() => {
      socket.removeAllListeners('data');
      socket.on('data', () => undefined);
      socket.resume();
    });
  }

  #drop(connection: Connection): void {
    this.#parked -= connection.parked.length;
    connection.parked = [];
    connection.cancelStall?.();
    connection.cancelStall = undefined;
  }
}
