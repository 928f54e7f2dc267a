import type { IncomingMessage, ServerResponse } from 'node:http';
import { Session } from 'node:inspector/promises';
import type { TlsOptions } from 'node:tls';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import { sendRefusal } from '../../runtime/http-problem.js';
import type { Log } from '../../runtime/log.js';
import type { Metrics } from '../../runtime/metrics.js';
import { pathOf, queryOf } from '../../runtime/request-head.js';
import { type HttpListener, listenHttp } from './listener.js';

const MAX_PROFILE_S = 120;

export interface MetricsServerOptions {
  host: string;
  port: number;
  metrics: Metrics;
  clock: Clock;
  log: Log;
  /** TLS settings; without them the port speaks plain HTTP. */
  tls?: TlsOptions | undefined;
}

/**
 * Serves the operators' port: `/metrics`; `/debug/pprof/profile?seconds=N` (CPU, opens in
 * Chromium's developer tools as .cpuprofile) and `/debug/pprof/heap?seconds=N` (allocations of that
 * time that are still held, .heapprofile). Both sample, so that the process goes on answering. One
 * profile at a time.
 */
export function startMetricsServer(options: MetricsServerOptions): Promise<HttpListener> {
  const { host, port, metrics, clock, log, tls } = options;
  let profiling = false;

  const pause = (seconds: number, req: IncomingMessage) =>
    new Promise<void>((resolve) => {
      const cancel = clock.after(seconds * 1000, resolve);
      req.once('close', () => {
        cancel();
        resolve();
      });
    });

  const profile = async (kind: 'cpu' | 'heap', seconds: number, req: IncomingMessage): Promise<unknown> => {
    const session = new Session();
    session.connect();
    try {
      if (kind === 'cpu') {
        await session.post('Profiler.enable');
        await session.post('Profiler.start');
        await pause(seconds, req);
        return (await session.post('Profiler.stop')).profile;
      }
      await session.post('HeapProfiler.enable');
      await session.post('HeapProfiler.startSampling', { samplingInterval: 32_768 });
      await pause(seconds, req);
      return (await session.post('HeapProfiler.stopSampling')).profile;
    } finally {
      session.disconnect();
    }
  };

  const handle = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const url = req.url ?? '/';
    const path = pathOf(url);
    const kind = path === '/debug/pprof/profile' ? 'cpu' : path === '/debug/pprof/heap' ? 'heap' : undefined;
    // HEAD is not allowed for a profile: it would be taken for nothing.
    const isAsked = req.method === 'GET' || (req.method === 'HEAD' && !kind);
    const allowed = kind ? 'GET' : 'GET, HEAD';
    if (!isAsked) return sendRefusal(res, { code: 'method_not_allowed', detail: `only ${allowed}`, headers: ['Allow', allowed] });
    if (path !== '/metrics' && !kind)
      return sendRefusal(res, { code: 'not_found', detail: '/metrics, /debug/pprof/profile?seconds=N, /debug/pprof/heap?seconds=N' });
    if (!kind) return send(res, 200, metrics.contentType, await metrics.text());
    const given = new URLSearchParams(queryOf(url)).get('seconds') ?? '10';
    const seconds = Number(given);
    if (!/^\d{1,3}$/.test(given) || seconds < 1 || seconds > MAX_PROFILE_S) {
      return sendRefusal(res, { code: 'bad_request', detail: `seconds must be a whole number from 1 to ${MAX_PROFILE_S}` });
    }
    if (profiling) return sendRefusal(res, { code: 'conflict', detail: 'another profile is being taken; try again when it is done' });
    profiling = true;
    try {
      const taken = await profile(kind, seconds, req);
      res.setHeader('Content-Disposition', `attachment; filename="veza.${kind}profile"`);
      return send(res, 200, 'application/json', JSON.stringify(taken));
    } finally {
      profiling = false;
    }
  };

  return listenHttp(
    (req, res) => {
      handle(req, res).catch((error) => {
        log.error({ event: 'http.metrics_port_failed', error: messageOf(error) }, 'the metrics port failed');
        if (!res.headersSent) sendRefusal(res, { code: 'internal', detail: 'the request failed; see the log' });
      });
    },
    { host, port, http2: false, log, ...(tls && { tls }) },
    clock,
  );
}

function send(res: ServerResponse, status: number, type: string, body: string): void {
  res.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body), 'Cache-Control': 'no-store' });
  res.end(body);
}
