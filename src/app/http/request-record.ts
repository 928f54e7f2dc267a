import { randomUUID } from 'node:crypto';
import type Koa from 'koa';
import { clientAddress } from '../../runtime/addresses.js';
import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { Metrics } from '../../runtime/metrics.js';

const REQUEST_ID = /^[\w.-]{1,64}$/;

export interface RequestRecordOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly trustProxyHops: number;
}

/** Gives each request its id, its line in the log and its metrics. */
export function requestRecord({ clock, log, metrics, trustProxyHops }: RequestRecordOptions): Koa.Middleware {
  return (ctx, next) => {
    ctx.request.ip = clientAddress(ctx.req, trustProxyHops);
    const startMs = clock.monotonicMs();
    const given = ctx.get('x-request-id');
    const requestId = REQUEST_ID.test(given) ? given : randomUUID();
    ctx.state.requestId = requestId;
    ctx.set('X-Request-Id', requestId);
    const { res } = ctx;
    // Read now: a closed socket has no address any more.
    const client = ctx.ip;
    res.once('close', () => {
      const durationMs = clock.monotonicMs() - startMs;
      const route = (ctx.state.route as string | undefined) ?? 'none';
      // 499, as in nginx: the client left before the answer.
      const status = res.writableFinished ? res.statusCode : 499;
      metrics.request(route, methodLabel(ctx.method), status, durationMs / 1000);
      const fields = {
        requestId,
        method: ctx.method,
        path: ctx.path.slice(0, 200),
        status,
        durationMs: Math.round(durationMs * 10) / 10,
        client,
      };
      // Health checks and page files would bury the other lines; so would refusals of a flood,
      // which the metrics count.
      const turnedAway = status === 429 || ctx.state.turnedAway === true;
      if (!turnedAway && (route.startsWith('/api') || status >= 500)) log.info({ event: 'http.request', ...fields }, 'request');
      else log.debug({ event: 'http.request', ...fields }, 'request');
    });
    return next();
  };
}

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PATCH', 'PUT', 'DELETE', 'OPTIONS']);
/** Clients choose the method; a metric's label must not take any value that they send. */
export const methodLabel = (method: string) => (METHODS.has(method) ? method : 'other');
