import { createServer, type RequestListener, type Server, type ServerOptions } from 'node:http';
import { createServer as createSecureServer, type Server as SecureServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket, TlsOptions } from 'node:tls';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import { guarded, guardServer, type UpgradeHandler } from '../../runtime/http-guard.js';
import { type Log, silentLog } from '../../runtime/log.js';
import { MAX_HEADERS } from '../../runtime/request-head.js';
import type { ConnectionLimits } from './connection-limits.js';
import { Http2 } from './http2.js';
import { Pipelining } from './pipelining.js';

/** Bytes of a request's head, all fields together; a larger head is answered with 431. */
const MAX_HEAD_BYTES = 16_384;

export interface HttpListener {
  readonly port: number;
  readonly server: Server;
  /**
   * Sets the handler for WebSocket requests; the last one set is used. `Upgrade` is ignored without
   * a handler, and for other protocols.
   */
  onUpgrade(handler: UpgradeHandler): void;
  /**
   * Takes no new connections, closes idle ones and finishes answers that have begun. The remaining
   * connections are cut after `graceMs`. Harmless when called twice.
   */
  stop(graceMs: number): Promise<void>;
}

export interface HttpListenerOptions {
  readonly host: string;
  /** 0 chooses a free port. */
  readonly port: number;
  /** Default: no limits. */
  readonly connections?: ConnectionLimits;
  /**
   * Makes this HTTPS: HTTP/2 where the client speaks it, unless `http2` is false. `useCertificate`
   * sets a new certificate.
   */
  readonly tls?: TlsOptions;
  readonly http2?: boolean;
  /** Logs the errors that a handler throws. Default: no log. */
  readonly log?: Log;
  /** Shorter timeouts, for tests. */
  readonly timeouts?: Partial<ServerOptions>;
  readonly silenceMs?: number;
}

/** Limits of time for clients. */
const TIMEOUTS: ServerOptions = {
  // Longer than the usual idle time of proxies (60 s): a proxy never sends a request on a
  // connection that is just being closed.
  keepAliveTimeout: 75_000,
  // Both from a connection, or the first byte of a later request, to the end of the head and to the
  // end of the body: they cut off clients that send a byte now and then.
  headersTimeout: 15_000,
  requestTimeout: 30_000,
  connectionsCheckingInterval: 5_000,
};
/**
 * A client that neither sends nor reads for this time during an answer is disconnected. Longer than
 * a playlist waits for a part, or a profile takes.
 */
const SILENCE_MS = 180_000;
const HANDSHAKE_MS = 10_000;

/** Listens for HTTP requests. Rejects when the port is taken or the certificate cannot be used. */
export async function listenHttp(handler: RequestListener, options: HttpListenerOptions, clock: Clock): Promise<HttpListener> {
  const { host, port, connections, tls, timeouts, silenceMs = SILENCE_MS } = options;
  const log = new BoundedLog(options.log ?? silentLog, clock);
  const common: ServerOptions = { ...TIMEOUTS, ...timeouts, maxHeaderSize: MAX_HEAD_BYTES, requireHostHeader: false };
  let http2: Http2 | undefined;
  let server: Server;
  if (tls) {
    const unread = () => {
      if (connections) connections.unread++;
    };
    const listener = guarded(handler, { textual: false, log });
    http2 = options.http2 === false ? undefined : new Http2({ listener, clock, silenceMs, unread });
    const ALPNProtocols = http2 ? ['h2', 'http/1.1'] : ['http/1.1'];
    server = createSecureServer({ ...common, ...tls, ALPNProtocols, handshakeTimeout: HANDSHAKE_MS });
    if (http2) divert(server, 'secureConnection', (socket: TLSSocket) => socket.alpnProtocol === 'h2' && http2!.take(socket));
  } else {
    server = createServer(common);
  }
  // One more than is allowed: Node drops fields above this number silently, and the guard must see
  // one.
  server.maxHeadersCount = MAX_HEADERS + 1;
  server.timeout = silenceMs;
  // Node's own list has neither connections in the TLS handshake nor those of HTTP/2. One open
  // connection would delay the stop for ever.
  const open = new Set<Socket>();
  // For TLS this is before the handshake. Node hands a socket over again when its client has
  // offered another protocol (`http-guard`).
  divert(server, 'connection', (socket: Socket) => {
    if (open.has(socket)) return false;
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    return connections !== undefined && !connections.admit(socket);
  });
  const pipelining = new Pipelining({
    handler: guarded(handler, { textual: true, log }),
    clock,
    overrun: () => {
      if (connections) connections.overrun++;
    },
  });
  const onUpgrade = guardServer(server, pipelining.listener);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog: 4096 }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  // accept(2) fails without free descriptors or memory, and passes on errors of the network. Node
  // calls it again for the next connection.
  server.on('error', (error) => log.warn({ event: 'http.accept_failed', port, error: messageOf(error) }, 'a connection was not accepted'));
  let stopping: Promise<void> | undefined;
  return {
    server,
    onUpgrade,
    port: (server.address() as AddressInfo).port,
    stop(graceMs) {
      stopping ??= new Promise((resolve) => {
        const cancel = clock.after(graceMs, () => {
          for (const socket of open) socket.destroy();
        });
        server.close(() => {
          cancel();
          log.close();
          resolve();
        });
        server.closeIdleConnections();
        http2?.close();
      });
      return stopping;
    },
  };
}

/** Gives a TLS listener a new certificate; open connections keep the old one. */
export function useCertificate(listener: HttpListener, tls: TlsOptions): void {
  (listener.server as SecureServer).setSecureContext(tls);
}

/**
 * Offers each socket to `takes` first; the server's own listeners are called only when it returns
 * false.
 */
function divert<S extends Socket>(server: Server, event: string, takes: (socket: S) => boolean): void {
  const listeners = server.listeners(event);
  server.removeAllListeners(event);
  server.on(event, (socket: S) => {
    if (!takes(socket)) for (const listener of listeners) listener.call(server, socket);
  });
}
