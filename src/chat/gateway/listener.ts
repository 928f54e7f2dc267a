import { createServer, type RequestListener, type Server, type ServerOptions } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { Server as NetServer } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TlsOptions } from 'node:tls';
import type { Clock } from '../../runtime/clock.js';
import { guarded, guardServer, type UpgradeHandler } from '../../runtime/http-guard.js';
import { type Refusal, sendRefusal } from '../../runtime/http-problem.js';
import { silentLog } from '../../runtime/log.js';
import { MAX_HEADERS } from '../../runtime/request-head.js';

/** From the connection, or the end of its TLS handshake, to the end of the request's head. */
const HEAD_MS = 5000;
const OPTIONS: ServerOptions = {
  // Node looks at these in servers that listen only; ours may be handed its sockets.
  headersTimeout: 0,
  requestTimeout: 0,
  keepAliveTimeout: 1000,
  maxHeaderSize: 16_384,
  noDelay: true,
  // Answered by the guard.
  requireHostHeader: false,
};
const HANDSHAKE_MS = 5000;
/** So many wait to be accepted. */
export const BACKLOG = 4096;

/** RFC 9110 15.5.22: with what to speak instead. */
const NO_WEBSOCKET: Refusal = {
  code: 'upgrade_required',
  detail: 'the chat is spoken by WebSocket (veza.chat.v1) at /chat',
  headers: ['Upgrade', 'websocket', 'Sec-WebSocket-Version', '13'],
};

/** A server for the chat alone: it listens nowhere yet, and takes sockets by its `connection` event as well. Who has not asked within 5 s is cut. */
export function chatServer(clock: Clock, upgrade: UpgradeHandler, tls?: TlsOptions): Server {
  const server: Server = tls
    ? createSecureServer({ ...OPTIONS, ...tls, ALPNProtocols: ['http/1.1'], handshakeTimeout: HANDSHAKE_MS })
    : createServer(OPTIONS);
  // One more than is allowed, so that it is seen: what is beyond this number Node leaves out silently.
  server.maxHeadersCount = MAX_HEADERS + 1;
  const refuse: RequestListener = (_req, res) => sendRefusal(res, NO_WEBSOCKET, ['Connection', 'close, Upgrade']);
  // It does not throw, and has nothing to log.
  const onUpgrade = guardServer(server, guarded(refuse, { textual: true, log: silentLog }));
  const deadlines = new WeakMap<Duplex, () => void>();
  const isInTime = (socket: Duplex) => {
    deadlines.get(socket)?.();
    deadlines.delete(socket);
  };
  server.on(tls ? 'secureConnection' : 'connection', (socket: Duplex) => {
    // It comes again when its client has offered another protocol (`http-guard`).
    isInTime(socket);
    deadlines.set(
      socket,
      clock.after(HEAD_MS, () => socket.destroy()),
    );
    socket.once('close', () => isInTime(socket));
  });
  onUpgrade((req, socket, head) => {
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
      // accept(2) fails where there is no descriptor left, and passes on errors of the network: it is called again with the next connection.
      server.on('error', () => undefined);
      resolve();
    });
  });
}
