import { createServer, type IncomingMessage, type Server, type ServerOptions } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { Server as NetServer } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TlsOptions } from 'node:tls';
import type { Clock } from '../runtime/clock.js';

/** From the connection, or the end of its TLS handshake, to the end of the request's head. */
const HEAD_MS = 5000;
const OPTIONS: ServerOptions = {
  // Node looks at these in servers that listen only; ours may be handed its sockets.
  headersTimeout: 0,
  requestTimeout: 0,
  keepAliveTimeout: 1000,
  maxHeaderSize: 16_384,
  noDelay: true,
};
const HANDSHAKE_MS = 5000;
/** So many wait to be accepted. */
export const BACKLOG = 4096;
const MAX_HEADERS = 100;

/** A server for the chat alone: it listens nowhere yet, and takes sockets by its `connection` event as well. Who has not asked within 5 s is cut. */
export function chatServer(clock: Clock, upgrade: (req: IncomingMessage, socket: Duplex, head: Buffer) => void, tls?: TlsOptions): Server {
  const server: Server = tls
    ? createSecureServer({ ...OPTIONS, ...tls, ALPNProtocols: ['http/1.1'], handshakeTimeout: HANDSHAKE_MS })
    : createServer(OPTIONS);
  server.maxHeadersCount = MAX_HEADERS;
  server.on('request', (_req, res) => {
    const text = 'The chat is spoken by WebSocket (veza.chat.v1) at /chat.\n';
    res.writeHead(426, { Connection: 'close', Upgrade: 'websocket', 'Content-Type': 'text/plain', 'Content-Length': text.length });
    res.end(text);
  });
  const deadlines = new WeakMap<Duplex, () => void>();
  const isInTime = (socket: Duplex) => {
    deadlines.get(socket)?.();
    deadlines.delete(socket);
  };
  server.on(tls ? 'secureConnection' : 'connection', (socket: Duplex) => {
    deadlines.set(
      socket,
      clock.after(HEAD_MS, () => socket.destroy()),
    );
    socket.once('close', () => isInTime(socket));
  });
  server.on('upgrade', (req, socket, head) => {
    isInTime(socket);
    upgrade(req, socket, head);
  });
  return server;
}

/** Rejects when the port is taken. */
export function listenAt(server: NetServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog: BACKLOG }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
