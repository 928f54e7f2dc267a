import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { SUBPROTOCOL } from '../../src/chat-client/index.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { SimChat, type SimOptions } from './chat-sim.js';

/** `SimChat` on real sockets: give `upgrade` to an HTTP server. */
export class FakeChat extends SimChat {
  readonly #server = new WebSocketServer({ noServer: true, handleProtocols: () => SUBPROTOCOL });
  readonly #sockets = new Set<WebSocket>();
  /** New connections are refused. */
  isDown = false;

  constructor(options: Partial<SimOptions> = {}) {
    super({ clock: new SystemClock(), ...options });
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (this.isDown || request.url !== '/chat') {
      socket.destroy();
      return;
    }
    this.#server.handleUpgrade(request, socket, head, (ws) => {
      this.#sockets.add(ws);
      const session = this.connect(
        (text) => ws.send(text),
        (code) => (code === 1006 ? ws.terminate() : ws.close(code)),
      );
      ws.on('message', (data) => session.receive(String(data)));
      ws.on('error', () => undefined);
      ws.on('close', () => {
        this.#sockets.delete(ws);
        session.gone();
      });
    });
  }

  override stop(): void {
    super.stop();
    for (const ws of this.#sockets) ws.terminate();
    this.#server.close();
  }
}
