import { STATUS_CODES } from 'node:http';
import type Koa from 'koa';
import type { LineLog } from '../../runtime/bounded-log.js';
import { ERROR_CODES, type ErrorCode, VezaError } from '../../runtime/errors.js';
import { methodNotAllowed } from './reads.js';

/** A request that nothing answered is an error, too: an unknown path must never become an empty 200. */
export const unanswered: Koa.Middleware = async (ctx, next) => {
  await next();
  if (ctx.body !== undefined && ctx.body !== null) return;
  // The router's `allowedMethods` answers 405 or 501, also where there is no such address: then `Allow` is empty.
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

/** The one place where an error becomes an answer: an RFC 9457 problem document. */
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
  // As a string, which goes out with the head in one write: floods are answered here.
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
  // RFC 6750 3.1: a client that sent no token is told no more than that one is wanted.
  const sentToken = code === 'unauthorized' && ctx.get('authorization') !== '';
  if (status === 401) res.setHeader('WWW-Authenticate', `Bearer realm="veza"${sentToken ? ', error="invalid_token"' : ''}`);
  if (status === 503 || status === 429) res.setHeader('Retry-After', String(details?.retryAfterS ?? 1));
  // What was not read of the request would be taken for the next one; HTTP/2 keeps them apart.
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
  // Koa's and the router's own: a path that cannot be decoded, a method that is not there.
  const { status } = error as { status?: unknown };
  if (typeof status === 'number' && status >= 400 && status < 500) {
    const code = CODE_OF_STATUS[status] ?? 'bad_request';
    return { status: ERROR_CODES[code], code, detail: error.message };
  }
  // What went wrong inside is for the log only.
  return { status: 500, code: 'internal', detail: 'Something went wrong here. The request id finds it in the log.' };
}

/**
 * The client's doing: it went away, was too slow, or sent bytes that are no HTTP. It is known by where the error came from, and not by its code: a
 * database or a store that breaks off has the same ones, and those belong into the log.
 */
function isOfConnection({ req, res }: Koa.Context, error: Error): boolean {
  const { stream } = req as { stream?: { errored?: Error | null } };
  if ([req.errored, res.errored, req.socket?.errored, stream?.errored].includes(error)) return true;
  // Of a body that was being sent when the client left.
  return (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE' && res.closed;
}
