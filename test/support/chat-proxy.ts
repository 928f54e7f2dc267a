import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { SUBPROTOCOL } from '../../src/chat-client/index.js';

/** A frame of the server as it passes. */
export interface PassingFrame {
  readonly t: string;
  readonly offset?: number;
  readonly [field: string]: unknown;
}

/** A bad line: it stands between clients and the chat, and swallows what it is told to. Everything else passes as it is, in order. */
export class ChatProxy {
  readonly #server: WebSocketServer;
  readonly #upstream: string;
  /** Asked for each frame of the server, for each connection. */
  swallows: (frame: PassingFrame) => boolean = () => false;
  swallowed = 0;

  private constructor(upstream: string) {
    this.#upstream = upstream;
    this.#server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: () => SUBPROTOCOL });
    this.#server.on('connection', (client) => this.#join(client));
  }

  static async start(upstream: string): Promise<ChatProxy> {
    const proxy = new ChatProxy(upstream);
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/chat`;
  }

  stop(): void {
    for (const client of this.#server.clients) client.terminate();
    this.#server.close();
  }

  #join(client: WebSocket): void {
    const server = new WebSocket(this.#upstream, [SUBPROTOCOL]);
    const early: string[] = [];
    client.on('message', (data) => {
      if (server.readyState === WebSocket.OPEN) server.send(String(data));
      else early.push(String(data));
    });
    server.on('open', () => {
      for (const text of early.splice(0)) server.send(text);
    });
    server.on('message', (data) => {
      if (this.swallows(JSON.parse(String(data)) as PassingFrame)) this.swallowed++;
      else client.send(String(data));
    });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      one.on('error', () => undefined);
      one.on('close', () => other.terminate());
    }
  }
}
