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

/** Of a request's head, all its fields together; more is answered 431. */
const MAX_HEAD_BYTES = 16_384;

export interface HttpListener {
  readonly port: number;
  readonly server: Server;
  /** Hands over who asks for a WebSocket; the last handler counts. Until there is one, and for other protocols, the offer means nothing. */
  onUpgrade(handler: UpgradeHandler): void;
  /** No new connection, idle ones closed, answers under way finished; after `graceMs` what is left is cut. Twice is harmless. */
  stop(graceMs: number): Promise<void>;
}

export interface ListenOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** Unlimited unless given. */
  readonly connections?: ConnectionLimits;
  /** With it this is HTTPS: HTTP/2 where the client speaks it, unless `http2` is false. A new certificate: `server.setSecureContext`. */
  readonly tls?: TlsOptions;
  readonly http2?: boolean;
  /** For handlers that throw. Nothing is logged unless given. */
  readonly log?: Log;
  /** For tests, which do not wait so long. */
  readonly timeouts?: Partial<ServerOptions>;
  readonly silenceMs?: number;
}

/** How long clients may take. */
const TIMEOUTS: ServerOptions = {
  // Longer than the idle time of usual proxies (60 s), so that they never meet a connection that is just being closed.
  keepAliveTimeout: 75_000,
  // From a connection, or from the first byte of a later request, to the end of the head; and to the end of the body. Who sends a byte now and then
  // is cut off by them.
  headersTimeout: 15_000,
  requestTimeout: 30_000,
  connectionsCheckingInterval: 5_000,
};
/** A client that neither sends nor reads for so long, while there is an answer for it. Longer than a playlist waits for a part, or a profile takes. */
const SILENCE_MS = 180_000;
const HANDSHAKE_MS = 10_000;

/** Rejects when the port is taken, or the certificate cannot be used. */
export async function listenHttp(handler: RequestListener, options: ListenOptions, clock: Clock): Promise<HttpListener> {
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
  // One more than is allowed, so that it is seen: what is beyond this number Node leaves out silently.
  server.maxHeadersCount = MAX_HEADERS + 1;
  server.timeout = silenceMs;
  // Node's own list has neither those in the midst of a TLS handshake nor HTTP/2; one left open would hold the stop for ever.
  const open = new Set<Socket>();
  // For TLS this is before the handshake. A socket comes again when its client has offered another protocol (`http-guard`).
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
  // accept(2) fails where there is no descriptor or no memory left, and passes on errors of the network: it is called again with the next connection.
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

/** New certificates for a listener that has some; connections that there are keep theirs. */
export function useCertificate(listener: HttpListener, tls: TlsOptions): void {
  (listener.server as SecureServer).setSecureContext(tls);
}

/** Asks `takes` before the server's own listeners are called with a socket, and only calls them when it says no. */
function divert<S extends Socket>(server: Server, event: string, takes: (socket: S) => boolean): void {
  const listeners = server.listeners(event);
  server.removeAllListeners(event);
  server.on(event, (socket: S) => {
    if (!takes(socket)) for (const listener of listeners) listener.call(server, socket);
  });
}
