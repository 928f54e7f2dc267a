import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Clock } from '../runtime/clock.js';

export interface HttpListener {
  readonly port: number;
  readonly server: Server;
  /** No new connection, idle ones closed, answers under way finished; after `graceMs` what is left is cut. Twice is harmless. */
  stop(graceMs: number): Promise<void>;
}

/** Rejects when the port is taken. Port 0: any free one. */
export async function listenHttp(handler: RequestListener, address: { host: string; port: number }, clock: Clock): Promise<HttpListener> {
  const server = createServer({
    // Longer than the idle time of usual proxies (60 s), so that they never meet a connection that is just being closed.
    keepAliveTimeout: 75_000,
    headersTimeout: 15_000,
    requestTimeout: 30_000,
    maxHeaderSize: 16_384,
  });
  server.on('request', handler);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...address, backlog: 4096 }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  let stopping: Promise<void> | undefined;
  return {
    server,
    port: (server.address() as AddressInfo).port,
    stop(graceMs) {
      stopping ??= new Promise((resolve) => {
        const cancel = clock.after(graceMs, () => server.closeAllConnections());
        server.close(() => {
          cancel();
          resolve();
        });
        server.closeIdleConnections();
      });
      return stopping;
    },
  };
}

/**
 * The client's address. Behind `proxyHops` proxies of ours it is what the outermost of them wrote down: that entry from the right of
 * `X-Forwarded-For` (what stands left of it, anybody may have made up). Koa's `ctx.ip` says the same.
 */
export function clientAddress(req: IncomingMessage, proxyHops: number): string {
  const forwarded = proxyHops > 0 ? req.headers['x-forwarded-for'] : undefined;
  const named = String(forwarded ?? '')
    .split(',')
    .slice(-proxyHops)[0]
    ?.trim();
  return named || (req.socket.remoteAddress ?? '');
}
