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

/**
 * The longest time from the connection, or from the end of its TLS handshake, to the end of the
 * request's head.
 */
const HEAD_MS = 5000;
const OPTIONS: ServerOptions = {
  // Node enforces these two only in servers that listen. A chat process also gets sockets from the
  // primary, so the deadline below replaces them.
  headersTimeout: 0,
  requestTimeout: 0,
  keepAliveTimeout: 1000,
  maxHeaderSize: 16_384,
  noDelay: true,
  // `guardServer` answers a request without `Host`.
  requireHostHeader: false,
};
const HANDSHAKE_MS = 5000;
/** Connections that may wait in the listen queue of the operating system. */
export const BACKLOG = 4096;

/** RFC 9110 15.5.22: a 426 names the protocol to use. */
const NO_WEBSOCKET: Refusal = {
  code: 'upgrade_required',
  detail: 'the chat is spoken by WebSocket (veza.chat.v1) at /chat',
  headers: ['Upgrade', 'websocket', 'Sec-WebSocket-Version', '13'],
};

/**
 * Creates a server for the chat alone. It does not listen yet, and also accepts sockets by its
 * `connection` event. A client that has not sent its request within 5 s is disconnected.
 */
export function chatServer(clock: Clock, upgrade: UpgradeHandler, tls?: TlsOptions): Server {
  const server: Server = tls
    ? createSecureServer({ ...OPTIONS, ...tls, ALPNProtocols: ['http/1.1'], handshakeTimeout: HANDSHAKE_MS })
    : createServer(OPTIONS);
  // One more than is allowed: Node drops further headers silently, and a request with too many has
  // to be noticed.
  server.maxHeadersCount = MAX_HEADERS + 1;
  const refuse: RequestListener = (_req, res) => sendRefusal(res, NO_WEBSOCKET, ['Connection', 'close, Upgrade']);
  // `refuse` does not throw and logs nothing, so a silent log is enough.
  const onUpgrade = guardServer(server, guarded(refuse, { textual: true, log: silentLog }));
  const deadlines = new WeakMap<Duplex, () => void>();
  const isInTime = (socket: Duplex) => {
    deadlines.get(socket)?.();
    deadlines.delete(socket);
  };
  server.on(tls ? 'secureConnection' : 'connection', (socket: Duplex) => {
    // The guard emits this event again for a socket whose client has offered another protocol
    // (`http-guard`).
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

/** Rejects when the port is in use. */
export function listenAt(server: NetServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog: BACKLOG }, () => {
      server.off('error', reject);
      // accept(2) fails when no descriptor is free, and reports errors of the network. Node calls
      // it again for the next connection, so the error needs no handling.
      server.on('error', () => undefined);
      resolve();
    });
  });
}
