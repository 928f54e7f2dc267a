import { lookup } from 'node:dns/promises';
import * as net from 'node:net';
import { isIP, isIPv6, type Server, type Socket } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { BACKLOG } from '../gateway/listener.js';
import type { ChatPort, PortHandle } from './process-pool.js';

/** What `cluster` binds ports with that its workers share: nothing public binds one without accepting from it as well. */
interface BoundHandle {
  getsockname(out: object): number;
  close(): void;
}
const { _createServerHandle: createServerHandle } = net as unknown as {
  _createServerHandle(address: string, port: number, addressType: 4 | 6, fd: number, flags: number): BoundHandle | number;
};

/** A port that this process has bound for others to accept from. Who comes while none of them does waits for the next that does, also over one's death. */
export class SharedPort {
  readonly #bound: BoundHandle;

  private constructor(bound: BoundHandle) {
    this.#bound = bound;
  }

  /** Rejects with the system's error (`EADDRINUSE`) when the port is not to be had. */
  static async bind(host: string, port: number): Promise<SharedPort> {
    const address = isIP(host) ? host : (await lookup(host)).address;
    const bound = createServerHandle(address, port, isIPv6(address) ? 6 : 4, -1, 0);
    // That it is taken is known of a bound handle only when it is asked where it is.
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

  /** Twice is harmless. */
  close(): void {
    this.#bound.close();
  }
}

export interface AcceptorOptions {
  /** What was accepted. */
  readonly take: (socket: Socket, port: ChatPort) => void;
  /** It accepts now, or does so no more because it is full. */
  readonly changed: () => void;
  /** It cannot listen. */
  readonly failed: (error: Error) => void;
  /** Sockets beyond so many are closed at once. */
  readonly most: number;
}

/** Accepts from shared ports until so many sockets are open, and lets go of them then, so that others get who comes. From all of them or from none. */
export class Acceptor {
  readonly #options: AcceptorOptions;
  /** Those that have come, until all are there. */
  readonly #coming = new Map<ChatPort, PortHandle>();
  #servers: Server[] = [];
  #upTo = 0;
  #open = 0;
  #isStopped = false;

  constructor(options: AcceptorOptions) {
    this.#options = options;
  }

  /** Sockets: those accepted, and those that were added. */
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

  /** One of so many ports. */
  addPort(port: ChatPort, handle: PortHandle, of: number): void {
    this.#coming.get(port)?.close();
    this.#coming.set(port, handle);
    if (this.#coming.size === of) this.#listen();
  }

  /** It came by another way. */
  addSocket(socket: Socket): void {
    this.#open++;
    socket.on('close', this.#closed);
    if (this.#open >= this.#upTo) this.#cease();
  }

  /** Accepts no more. */
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
