import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** A piece of a conversation as it passes: what one side wrote and the other has not got yet. */
export interface Piece {
  /** Which connection, counted from 0 since the line was laid. */
  readonly connection: number;
  readonly from: 'client' | 'server';
  /** Counted from 0 in this connection, both directions together. */
  readonly index: number;
  readonly bytes: Buffer;
}

/**
 * What becomes of a piece. `cut`: the connection is reset when `after` bytes of it have passed. `half-close`: the receiver gets `after` bytes and the end of
 * the stream; the other direction stays. `stall`: nothing passes any more in either direction, and nobody is told. `delay`: it comes late, in order.
 * `garble`: its bytes from `at` on are other ones.
 */
export type Fault =
  | { readonly kind: 'cut'; readonly after: number }
  | { readonly kind: 'half-close'; readonly after: number }
  | { readonly kind: 'stall' }
  | { readonly kind: 'delay'; readonly ms: number }
  | { readonly kind: 'garble'; readonly at: number; readonly count: number };

type Upstream = { readonly host: string; readonly port: number } | { readonly path: string };

interface Conversation {
  readonly client: Socket;
  readonly server: Socket;
  pieces: number;
  stalled: boolean;
  /** What is on its way, one after the other. */
  passing: Promise<void>;
}

/** A TCP line to a service, which does to each piece of each conversation what it is told. Without a word everything passes as it is. */
export class FaultyLine {
  readonly #server: Server;
  readonly #to: Upstream;
  readonly #open = new Set<Conversation>();
  /** Connections since the line was laid. */
  connections = 0;
  /** Pieces that came to the line, of all connections. */
  pieces = 0;
  /** Faults that were done. */
  faults = 0;
  /** Asked for each piece. */
  fault: (piece: Piece) => Fault | undefined = () => undefined;
  /** New connections are reset at once. */
  refuses = false;

  private constructor(to: Upstream) {
    this.#to = to;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#join(client));
  }

  /** Laid to a port, or to a Unix socket. */
  static async to(to: { readonly host?: string; readonly port: number } | { readonly path: string }): Promise<FaultyLine> {
    const line = new FaultyLine('path' in to ? to : { host: to.host ?? '127.0.0.1', port: to.port });
    line.#server.listen(0, '127.0.0.1');
    await once(line.#server, 'listening');
    return line;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Everything passes again, also new connections; those that stalled are reset. */
  heal(): void {
    this.fault = () => undefined;
    this.refuses = false;
    for (const conversation of this.#open) if (conversation.stalled) this.#cut(conversation);
  }

  /** Resets every connection there is. */
  cutAll(): void {
    for (const conversation of this.#open) this.#cut(conversation);
  }

  async stop(): Promise<void> {
    this.cutAll();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #join(client: Socket): void {
    const number = this.connections++;
    client.on('error', () => undefined);
    if (this.refuses) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ ...this.#to, allowHalfOpen: true, noDelay: true });
    const conversation: Conversation = { client, server, pieces: 0, stalled: false, passing: Promise.resolve() };
    this.#open.add(conversation);
    for (const [from, input, output] of [
      ['client', client, server],
      ['server', server, client],
    ] as const) {
      input.on('error', () => undefined);
      input.on('data', (bytes: Buffer) => {
        this.pieces++;
        const piece = { connection: number, from, index: conversation.pieces++, bytes };
        conversation.passing = conversation.passing.then(() => this.#pass(conversation, piece, output));
      });
      input.on('end', () => {
        conversation.passing = conversation.passing.then(() => {
          if (!conversation.stalled) output.end();
        });
      });
      input.on('close', () => {
        conversation.passing = conversation.passing.then(() => {
          if (!conversation.stalled) this.#cut(conversation);
        });
      });
    }
  }

  async #pass(conversation: Conversation, piece: Piece, output: Socket): Promise<void> {
    if (conversation.stalled || output.destroyed) return;
    const fault = this.fault(piece);
    if (!fault) {
      output.write(piece.bytes);
      return;
    }
    this.faults++;
    switch (fault.kind) {
      case 'cut':
        if (fault.after > 0) await new Promise((resolve) => output.write(piece.bytes.subarray(0, fault.after), resolve));
        this.#cut(conversation);
        return;
      case 'half-close':
        output.end(piece.bytes.subarray(0, fault.after));
        return;
      case 'stall':
        conversation.stalled = true;
        return;
      case 'delay':
        await new Promise((resolve) => setTimeout(resolve, fault.ms));
        output.write(piece.bytes);
        return;
      case 'garble': {
        const bytes = Buffer.from(piece.bytes);
        for (let at = fault.at; at < Math.min(bytes.length, fault.at + fault.count); at++) bytes[at]! ^= 0x5a;
        output.write(bytes);
      }
    }
  }

  #cut(conversation: Conversation): void {
    this.#open.delete(conversation);
    for (const socket of [conversation.client, conversation.server]) {
      // A Unix socket cannot be reset.
      if ('path' in this.#to && socket === conversation.server) socket.destroy();
      else if (!socket.destroyed) socket.resetAndDestroy();
    }
  }
}
