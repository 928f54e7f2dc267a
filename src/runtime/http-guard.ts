import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { Server as SecureServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { LineLog } from './bounded-log.js';
import { messageOf } from './errors.js';
import { METHODS, NO_CONNECT, type Refusal, refuseSocket, sendRefusal } from './http-problem.js';
import { refusalOf } from './request-head.js';
import { reportUnexpected } from './unexpected.js';

export type UpgradeHandler = (req: IncomingMessage, socket: Duplex, head: Buffer) => void;

const UNEXPECTED: Refusal = { code: 'expectation_failed', detail: '100-continue is the only supported expectation' };
const NO_REQUEST: Refusal = { code: 'bad_request', detail: 'this is not an HTTP/1.1 request' };
const DEFECT: Refusal = { code: 'internal', detail: 'Something went wrong here.' };

/** Node's HTTP server emits one of these events for each request. */
export const REQUEST_EVENTS = ['request', 'checkContinue', 'checkExpectation'] as const;

/**
 * Wraps a request handler; the result is a listener for every event of `REQUEST_EVENTS`. It refuses
 * heads that no handler may see (`refusalOf`), answers `OPTIONS *`, and answers for a handler that
 * throws or rejects. It sends `100 Continue` when the handler begins to read the body and not
 * before (RFC 9110 10.1.1).
 */
export function guarded(handler: RequestListener, { textual, log }: { textual: boolean; log: LineLog }): RequestListener {
  const close = textual ? ['Connection', 'close'] : [];
  return (req, res) => {
    // HTTP/1.0 has no `Expect` field, so it is ignored there.
    const expected = req.httpVersionMajor === 1 && req.httpVersionMinor === 0 ? undefined : req.headers.expect?.trim().toLowerCase();
    const refusal = refusalOf(req, textual) ?? (expected === undefined || expected === '100-continue' ? undefined : UNEXPECTED);
    if (refusal) {
      sendRefusal(res, refusal, close);
      return;
    }
    if (req.url === '*') {
      // RFC 9110 9.3.7: `OPTIONS *` asks about the server as a whole.
      res.writeHead(204, ['Allow', METHODS, 'Cache-Control', 'no-store']);
      res.end();
      return;
    }
    if (expected !== undefined) continueWhenRead(req, res);
    try {
      const answered: unknown = handler(req, res);
      if (answered instanceof Promise) answered.catch((error) => answerDefect(res, error, log));
    } catch (error) {
      answerDefect(res, error, log);
    }
  };
}

/**
 * The last resort when the code that answers errors has failed: sends a fixed answer and writes a
 * log line. Never throws.
 */
export function answerDefect(res: ServerResponse, error: unknown, log: LineLog): void {
  try {
    if (res.headersSent || res.destroyed) res.destroy();
    else {
      for (const name of res.getHeaderNames()) res.removeHeader(name);
      sendRefusal(res, DEFECT);
    }
    log.error(
      { event: 'http.answer_failed', error: messageOf(error), stack: error instanceof Error ? error.stack : undefined },
      'could not answer an error',
    );
  } catch (failure) {
    res.destroy();
    log.error({ event: 'http.answer_failed', error: typeof failure }, 'could not answer an error');
  }
}

/**
 * Sends `100 Continue` at the first read and then removes itself. Node calls `_read` when a
 * consumer wants bytes, and also when it discards a body that nobody has read.
 */
function continueWhenRead(req: IncomingMessage, res: ServerResponse): void {
  const read = req._read;
  req._read = function (this: IncomingMessage, sizeBytes: number) {
    this._read = read;
    if (!res.headersSent && !res.destroyed) res.writeContinue();
    read.call(this, sizeBytes);
  };
}

/**
 * Attaches a guarded listener to an HTTP/1.1 server, and answers bytes that the parser could not
 * turn into a request. Returns a function that sets the handler of WebSockets. Until one is set,
 * `Upgrade` in a request is ignored (RFC 9110 7.8).
 */
export function guardServer(server: Server, listener: RequestListener): (handler: UpgradeHandler) => void {
  /**
   * For each connection the response to its last request. Responses are written in the order of the
   * requests.
   */
  const last = new WeakMap<Duplex, ServerResponse>();
  for (const event of REQUEST_EVENTS)
    server.on(event, (req: IncomingMessage, res: ServerResponse) => {
      last.set(req.socket, res);
      listener(req, res);
    });

  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (!socket.writable || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const response = last.get(socket);
    if (response === undefined || response.writableFinished) refuseSocket(socket, parserRefusal(error));
    // RFC 9112 9.6: bad bytes after a complete request do not affect its answer.
    else if (response.req.complete || response.writableEnded) endWhenAnswered(socket, response);
    // Part of the answer was sent, and the rest may wait for a body that never arrives.
    else if (response.headersSent) socket.destroy();
    // The body of the request is malformed, and every earlier request has been answered.
    else if (response.socket) refuseSocket(socket, parserRefusal(error));
    else {
      // A refusal written straight to the socket would be read as the answer to an earlier request.
      // Node sends responses in order.
      sendRefusal(response, parserRefusal(error), ['Connection', 'close']);
      endWhenAnswered(socket, response);
    }
  });

  const left = new WeakSet<Duplex>();
  /**
   * Runs `takeOver` when every earlier request of the connection is answered. Node removes its
   * error handler from a socket that leaves HTTP, so this function adds one.
   */
  const whenAnswered = (socket: Duplex, takeOver: () => void) => {
    const goOn = () => {
      try {
        takeOver();
      } catch (error) {
        // There is no response that `guarded` could answer with.
        socket.destroy();
        reportUnexpected(error);
      }
    };
    if (!left.has(socket)) socket.on('error', () => undefined);
    left.add(socket);
    const response = last.get(socket);
    if (!response || response.writableFinished) goOn();
    // Earlier requests of the connection are answered first.
    else response.once('close', () => !socket.destroyed && goOn());
  };
  server.on('connect', (_req: IncomingMessage, socket: Duplex) => whenAnswered(socket, () => refuseSocket(socket, NO_CONNECT)));

  let upgrade: UpgradeHandler | undefined;
  return (given) => {
    if (!upgrade)
      server.on('upgrade', (req: IncomingMessage, socket: Duplex, head: Buffer) =>
        whenAnswered(socket, () => {
          const refusal = refusalOf(req, true);
          if (refusal) refuseSocket(socket, refusal);
          else if (!isForWebSocket(req)) asPlainRequest(server, req, socket, head);
          else if (hasBody(req)) refuseSocket(socket, { code: 'bad_request', detail: 'a WebSocket request must not have a body' });
          else upgrade!(req, socket, head);
        }),
      );
    upgrade = given;
  };
}

/**
 * Bytes after the last request of a connection that are read and discarded, at most; the connection
 * is closed after more.
 */
const MAX_IGNORED_BYTES = 1024 * 1024;
/** Connections on which no further request is read, while the last answers are finished. */
const ending = new WeakSet<Duplex>();

/**
 * Reads no further request from the connection, and closes it after `response`, its last answer.
 * The time limits of that answer apply to the connection. Bytes that the client still sends are
 * read and discarded: if the socket closed with unread bytes, TCP would send a reset, and the
 * answer on its way would be lost.
 */
function endWhenAnswered(socket: Socket, response: ServerResponse): void {
  if (ending.has(socket)) return;
  ending.add(socket);
  // Node then sends `Connection: close` and closes after the answer, unless the head was already
  // sent.
  response.shouldKeepAlive = false;
  response.once('close', () => socket.destroySoon());
  let ignoredBytes = 0;
  // Deferred, because Node's parser is still inside a read.
  setImmediate(() => {
    socket.removeAllListeners('data');
    socket.on('data', (bytes: Buffer) => {
      ignoredBytes += bytes.length;
      if (ignoredBytes > MAX_IGNORED_BYTES) socket.destroy();
    });
    socket.resume();
  });
}

const isForWebSocket = ({ headers, httpVersionMinor }: IncomingMessage) =>
  httpVersionMinor === 1 && headers.upgrade?.toLowerCase() === 'websocket';

/** Node does not read the body of an upgrade request, and the WebSocket would read it as frames. */
const hasBody = ({ headers }: IncomingMessage) => headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';

/**
 * Handles a client that offers another protocol as if it had not (RFC 9110 7.8); some libraries
 * send `Upgrade: h2c` with every request. As soon as there is an upgrade handler, Node hands it
 * every request with an offer. This function puts the request back into the socket without the
 * offer, and gives the connection to the server once more.
 */
function asPlainRequest(server: Server, { method, url, httpVersion, rawHeaders }: IncomingMessage, socket: Duplex, head: Buffer): void {
  const lines = [`${method} ${url} HTTP/${httpVersion}`];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!;
    const value = rawHeaders[at + 1]!;
    if (/^connection$/i.test(name)) {
      const options = value.split(',').filter((option) => !/^\s*(?:upgrade|http2-settings)?\s*$/i.test(option));
      if (options.length > 0) lines.push(`${name}: ${options.join(',')}`);
    } else if (!/^(?:upgrade|http2-settings)$/i.test(name)) lines.push(`${name}: ${value}`);
  }
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]));
  server.emit(server instanceof SecureServer ? 'secureConnection' : 'connection', socket);
}

/**
 * The refusal for an error of Node's parser. It has its own texts, because the parser's texts
 * describe single bytes, and a proxy may have written those instead of the client.
 */
function parserRefusal({ code, reason }: NodeJS.ErrnoException & { reason?: string }): Refusal {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return { code: 'head_too_large', detail: 'the head of the request is too large' };
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return { code: 'payload_too_large', detail: 'the chunk extensions are too large' };
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { code: 'request_timeout', detail: 'the request did not arrive in time' };
    case 'HPE_INVALID_VERSION':
      // Node uses this code also for a request line that is malformed at the version or after it,
      // for example one that ends with a line feed alone.
      return reason === 'Invalid HTTP version' ? { code: 'version_not_supported', detail: 'use HTTP/1.1' } : NO_REQUEST;
    default:
      return NO_REQUEST;
  }
}
