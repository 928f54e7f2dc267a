import { type ClientOptions, WebSocket } from 'ws';
import { SUBPROTOCOL } from '../../src/chat/protocol/protocol.js';
import { ChatClient, type ChatRoom } from '../../src/chat-client/index.js';
import { eventually } from './process.js';

/** A WebSocket for the library that connects as it is told: from an address, with headers, trusting a test's certificate. */
export function socketsWith(options: ClientOptions): new (url: string, protocols: string[]) => WebSocket {
  return class extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols, options);
    }
  };
}

/** Tries to open the chat. `open` or the status that refused it. */
export function handshake(url: string, options: ClientOptions = {}): Promise<{ status: number | 'open'; socket: WebSocket }> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, [SUBPROTOCOL], options);
    socket.on('open', () => resolve({ status: 'open', socket }));
    socket.on('unexpected-response', (_req, res) => {
      resolve({ status: res.statusCode ?? 0, socket });
      socket.on('error', () => undefined);
      socket.terminate();
    });
    socket.on('error', reject);
  });
}

/** Several clients of the library in one room, each of which says things in turn; `finish` is met when all of it is stored and seen by all, once and in order. */
export class Company {
  readonly clients: ChatClient[];
  readonly rooms: ChatRoom[];
  readonly written: string[] = [];
  readonly #stored: string[] = [];
  /** How often any of them was offline. */
  breaks = 0;

  constructor(room: string, each: readonly ConstructorParameters<typeof ChatClient>[0][]) {
    this.clients = each.map((options) => new ChatClient(options));
    this.rooms = this.clients.map((client) => client.join(room));
    for (const client of this.clients)
      client.listen((event) => {
        if (event.type === 'state' && event.state.state === 'waiting') this.breaks++;
      });
  }

  async start(): Promise<void> {
    for (const client of this.clients) client.start();
    await this.joined();
  }

  joined(): Promise<true> {
    return eventually('all are in the room', () => (this.rooms.every(({ state }) => state === 'joined') ? true : undefined), 60_000);
  }

  say(count: number): void {
    for (let n = 0; n < count; n++) {
      const text = `number ${this.written.length}`;
      const room = this.rooms[this.written.length % this.rooms.length]!;
      this.written.push(text);
      void room.publish(text).settled.then(({ state }) => state === 'sent' && this.#stored.push(text));
    }
  }

  /** Resolves to what each of them shows. */
  async finish(): Promise<string[][]> {
    await eventually('everything is stored', () => (this.#stored.length === this.written.length ? true : undefined), 60_000);
    const head = () => Math.max(...this.rooms.map(({ position }) => position));
    await eventually('all have all of it', () => (this.rooms.every(({ position }) => position === head()) ? true : undefined), 60_000);
    return this.rooms.map(({ timeline }) =>
      timeline.items.flatMap(({ visible, type, body }) => (visible && type === 'msg' ? [body.text] : [])),
    );
  }

  stop(): void {
    for (const client of this.clients) client.stop();
  }
}
