import { STATUS_CODES } from 'node:http';
import type Koa from 'koa';
import type { LineLog } from '../../runtime/bounded-log.js';
import { ERROR_CODES, type ErrorCode, VezaError } from '../../runtime/errors.js';
import { methodNotAllowed } from './reads.js';

/**
 * Makes a request that nothing answered an error: an unknown path must never become an empty 200.
 */
export const unanswered: Koa.Middleware = async (ctx, next) => {
  await next();
  if (ctx.body !== undefined && ctx.body !== null) return;
  // The router's `allowedMethods` answers 405 or 501 for an unknown path too; then `Allow` is
  // empty.
  const isRefused = ctx.status === 405 || ctx.status === 501;
  if (isRefused && ctx.response.get('Allow') !== '') throw methodNotAllowed(ctx.method);
  if (isRefused) ctx.remove('Allow');
  if (isRefused || ctx.status === 404) throw new VezaError('not_found', 'There is nothing at this address.');
};

const CODE_OF_STATUS: Readonly<Record<number, ErrorCode>> = Object.fromEntries(
  (['unauthorized', 'forbidden', 'not_found', 'method_not_allowed', 'payload_too_large', 'unsupported_media', 'unavailable'] as const).map(
    (code) => [ERROR_CODES[code], code],
  ),
);

/** Turns an error into the answer, an RFC 9457 problem document. No other place of the API does. */
export function answerError(ctx: Koa.Context, error: Error, log: LineLog): void {
  const { res } = ctx;
  const { requestId } = ctx.state as { requestId?: string };
  const { status, code, detail, details } = problemOf(error);
  if (code === 'internal' && !isOfConnection(ctx, error))
    log.error(
      { event: 'http.request_failed', requestId, path: ctx.path.slice(0, 200), error: error.message, stack: error.stack },
      'a request failed',
    );
  else if (code === 'busy') ctx.state.turnedAway = true;
  else if (status >= 500)
    log.warn(
      {
        event: 'http.request_failed',
        requestId,
        path: ctx.path.slice(0, 200),
        code,
        error: error.message,
        cause: String(error.cause ?? ''),
      },
      'a request failed',
    );
  if (res.headersSent || res.writableEnded || res.destroyed) {
    res.destroy();
    return;
  }
  for (const name of ['content-type', 'content-length', 'content-encoding', 'etag', 'last-modified']) res.removeHeader(name);
  // A string goes out with the head in one write, which matters because floods are answered here.
  const body = JSON.stringify({
    type: 'about:blank',
    title: STATUS_CODES[status] ?? 'Error',
    status,
    code,
    detail,
    ...(requestId && { requestId }),
    ...(details && { details }),
  });
  res.statusCode = status;
  res.setHeader('Content-Type', 'application/problem+json');
  res.setHeader('Content-Length', Buffer.byteLength(body));
  res.setHeader('Cache-Control', 'no-store');
  // RFC 6750 3.1: a client that sent no token learns only that one is required.
  const sentToken = code === 'unauthorized' && ctx.get('authorization') !== '';
  if (status === 401) res.setHeader('WWW-Authenticate', `Bearer realm="veza"${sentToken ? ', error="invalid_token"' : ''}`);
  if (status === 503 || status === 429) res.setHeader('Retry-After', String(details?.retryAfterS ?? 1));
  // On HTTP/1.1 the unread rest of the request would be parsed as the next one.
  if (!ctx.req.complete && ctx.req.httpVersionMajor < 2) res.setHeader('Connection', 'close');
  res.end(ctx.method === 'HEAD' ? undefined : body);
}

function problemOf(error: Error): {
  status: number;
  code: ErrorCode;
  detail: string;
  details?: Readonly<Record<string, unknown>> | undefined;
} {
  if (error instanceof VezaError) return { status: error.status, code: error.code, detail: error.message, details: error.details };
  // Errors of Koa and its router carry a status: an undecodable path, an unknown method.
  const { status } = error as { status?: unknown };
  if (typeof status === 'number' && status >= 400 && status < 500) {
    const code = CODE_OF_STATUS[status] ?? 'bad_request';
    return { status: ERROR_CODES[code], code, detail: error.message };
  }
  // The cause of an internal error goes to the log only.
  return { status: 500, code: 'internal', detail: 'The service failed to do this. Its log has the cause under the request id.' };
}

/**
 * Whether the connection failed: its client left, was too slow, or sent bytes that are not HTTP.
 * The test is where the error came from, not its code: a database or store that disconnects has the
 * same codes, and that belongs in the log.
 */
function isOfConnection({ req, res }: Koa.Context, error: Error): boolean {
  const { stream } = req as { stream?: { errored?: Error | null } };
  if ([req.errored, res.errored, req.socket?.errored, stream?.errored].includes(error)) return true;
  // The client left while the body was being sent.
  return (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE' && res.closed;
}
