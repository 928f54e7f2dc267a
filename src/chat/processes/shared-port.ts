import { lookup } from 'node:dns/promises';
import * as net from 'node:net';
import { isIP, isIPv6, type Server, type Socket } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { BACKLOG } from '../gateway/listener.js';
import type { ChatPort, PortHandle } from './process-pool.js';

/**
 * The handle that `cluster` uses for ports shared by its workers. Node has no public way to bind a
 * port without also accepting from it.
 */
interface BoundHandle {
  getsockname(out: object): number;
  close(): void;
}
const { _createServerHandle: createServerHandle } = net as unknown as {
  _createServerHandle(address: string, port: number, addressType: 4 | 6, fd: number, flags: number): BoundHandle | number;
};

/**
 * A port that this process has bound for other processes to accept from. A client that connects
 * while no process accepts waits for the next one that does, even if a process dies in between.
 */
export class SharedPort {
  readonly #bound: BoundHandle;

  private constructor(bound: BoundHandle) {
    this.#bound = bound;
  }

  /** Rejects with the system's error (`EADDRINUSE`) when the port cannot be bound. */
  static async bind(host: string, port: number): Promise<SharedPort> {
    const address = isIP(host) ? host : (await lookup(host)).address;
    const bound = createServerHandle(address, port, isIPv6(address) ? 6 : 4, -1, 0);
    // Only `getsockname` shows whether a bound handle has an error.
    const failed = typeof bound === 'number' ? bound : bound.getsockname({});
    if (failed !== 0) {
      if (typeof bound !== 'number') bound.close();
      const code = getSystemErrorName(failed);
      throw Object.assign(new Error(`listen ${code} ${host}:${port}`), { code, syscall: 'listen', address: host, port });
    }
    return new SharedPort(bound as BoundHandle);
  }

  get handle(): PortHandle {
    return this.#bound as unknown as PortHandle;
  }

  /** A second call does no harm. */
  close(): void {
    this.#bound.close();
  }
}

export interface AcceptorOptions {
  /** Called for each accepted socket. */
  readonly take: (socket: Socket, port: ChatPort) => void;
  /** Called when the process starts accepting, and when it stops because it is full. */
  readonly changed: () => void;
  /** Called when the process cannot listen. */
  readonly failed: (error: Error) => void;
  /** With more open sockets than this, an accepted socket is closed at once. */
  readonly most: number;
}

/**
 * Accepts from shared ports until the limit of open sockets is reached. Then it closes the ports,
 * so that other processes get the next clients. It accepts from all ports or from none.
 */
export class Acceptor {
  readonly #options: AcceptorOptions;
  /** Handles that have arrived, until there is one for each port. */
  readonly #coming = new Map<ChatPort, PortHandle>();
  #servers: Server[] = [];
  #upTo = 0;
  #open = 0;
  #isStopped = false;

  constructor(options: AcceptorOptions) {
    this.#options = options;
  }

  /** The number of open sockets: accepted and added ones. */
  get open(): number {
    return this.#open;
  }

  get accepts(): boolean {
    return this.#servers.length > 0;
  }

  acceptUpTo(upTo: number): void {
    this.#upTo = upTo;
    if (this.#isStopped || this.#open >= upTo) this.#cease();
  }

  /** Adds the handle of one port. Accepting starts when all `of` ports have one. */
  addPort(port: ChatPort, handle: PortHandle, of: number): void {
    this.#coming.get(port)?.close();
    this.#coming.set(port, handle);
    if (this.#coming.size === of) this.#listen();
  }

  /** Counts a socket that was not accepted here. */
  addSocket(socket: Socket): void {
    this.#open++;
    socket.on('close', this.#closed);
    if (this.#open >= this.#upTo) this.#cease();
  }

  /** Stops accepting for good. */
  stop(): void {
    this.#isStopped = true;
    this.#cease();
  }

  #listen(): void {
    this.#letGo();
    const ports = [...this.#coming];
    this.#coming.clear();
    if (this.#isStopped || this.#open >= this.#upTo) {
      for (const [, handle] of ports) handle.close();
      this.#options.changed();
      return;
    }
    let waiting = ports.length;
    for (const [port, handle] of ports) {
      const server = net.createServer({ noDelay: true }, (socket) => {
        if (this.#open >= this.#options.most) {
          socket.destroy();
          return;
        }
        this.addSocket(socket);
        this.#options.take(socket, port);
      });
      server.on('error', (error) => {
        if (!this.#servers.includes(server)) return;
        this.#letGo();
        this.#options.failed(error);
      });
      this.#servers.push(server);
      server.listen(handle, BACKLOG, () => {
        if (--waiting === 0) this.#options.changed();
      });
    }
  }

  #letGo(): void {
    for (const server of this.#servers.splice(0)) server.close();
  }

  #cease(): void {
    if (!this.accepts) return;
    this.#letGo();
    this.#options.changed();
  }

  readonly #closed = (): void => {
    this.#open--;
  };
}
