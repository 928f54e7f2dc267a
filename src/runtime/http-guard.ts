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

const UNEXPECTED: Refusal = { code: 'expectation_failed', detail: '100-continue is the only expectation here' };
const NO_REQUEST: Refusal = { code: 'bad_request', detail: 'this is no request of HTTP/1.1' };
const DEFECT: Refusal = { code: 'internal', detail: 'Something went wrong here.' };

/** A server of HTTP calls one of these for each request. */
export const REQUEST_EVENTS = ['request', 'checkContinue', 'checkExpectation'] as const;

/**
 * Stands before a handler, for each of `REQUEST_EVENTS`: refuses heads that no handler has to read (`refusalOf`), answers `OPTIONS *`, sends
 * `100 Continue` when the handler begins to read the body and not before (RFC 9110 10.1.1), and answers for a handler that throws or rejects.
 */
export function guarded(handler: RequestListener, { textual, log }: { textual: boolean; log: LineLog }): RequestListener {
  const close = textual ? ['Connection', 'close'] : [];
  return (req, res) => {
    // HTTP/1.0 has no expectations.
    const expected = req.httpVersionMajor === 1 && req.httpVersionMinor === 0 ? undefined : req.headers.expect?.trim().toLowerCase();
    const refusal = refusalOf(req, textual) ?? (expected === undefined || expected === '100-continue' ? undefined : UNEXPECTED);
    if (refusal) {
      sendRefusal(res, refusal, close);
      return;
    }
    if (req.url === '*') {
      // RFC 9110 9.3.7: about the server as a whole.
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

/** The last resort when what answers errors has failed itself: a fixed answer and a log line. Never throws. */
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

/** Undone by itself at the first read: Node calls `_read` when a consumer wants bytes, and when it throws away what nobody read. */
function continueWhenRead(req: IncomingMessage, res: ServerResponse): void {
  const read = req._read;
  req._read = function (this: IncomingMessage, sizeBytes: number) {
    this._read = read;
    if (!res.headersSent && !res.destroyed) res.writeContinue();
    read.call(this, sizeBytes);
  };
}

/**
 * Connects a server of HTTP/1.1 with a guarded listener, and answers what comes without a request that could be listened to. Returns what sets the
 * handler of WebSockets; without one an offer to change the protocol means nothing (RFC 9110 7.8).
 */
export function guardServer(server: Server, listener: RequestListener): (handler: UpgradeHandler) => void {
  /** Of each connection the response to the last request: they are written in the order of the requests. */
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
    // RFC 9112 9.6: the bytes behind a request that came whole take nothing from its answer.
    else if (response.req.complete || response.writableEnded) endWhenAnswered(socket, response);
    // Part of an answer has been sent, and the rest may wait for a body that never comes.
    else if (response.headersSent) socket.destroy();
    // The body is wrong, of a request whose turn to be answered it is.
    else if (response.socket) refuseSocket(socket, parserRefusal(error));
    else {
      // Written to the socket, the refusal would be taken for the answer to an earlier request; Node sends responses in order.
      sendRefusal(response, parserRefusal(error), ['Connection', 'close']);
      endWhenAnswered(socket, response);
    }
  });

  const left = new WeakSet<Duplex>();
  /** Node lets go of a connection that leaves HTTP: an error of it would be nobody's. */
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
    // The requests before this one are answered first.
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
          else if (hasBody(req)) refuseSocket(socket, { code: 'bad_request', detail: 'a WebSocket is asked for without a body' });
          else upgrade!(req, socket, head);
        }),
      );
    upgrade = given;
  };
}

/** Bytes behind the last request of a connection that are read and thrown away; with more the connection is closed. */
const MAX_IGNORED_BYTES = 1024 * 1024;
/** Connections whose answers are finished and of which nothing more is read as a request. */
const ending = new WeakSet<Duplex>();

/**
 * Nothing more is read as a request; the answers under way are finished, `response` as the last. The limits of time of that answer are those of the connection.
 * What the client goes on sending is read: with bytes that nobody has read TCP makes a reset of the end, which discards the answer on its way.
 */
function endWhenAnswered(socket: Socket, response: ServerResponse): void {
  if (ending.has(socket)) return;
  ending.add(socket);
  // Node says `Connection: close` then, and closes behind the answer, unless its head has been sent.
  response.shouldKeepAlive = false;
  response.once('close', () => socket.destroySoon());
  let ignoredBytes = 0;
  // Node's parser is in the midst of a read.
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

/** Node has not read it, and it would be taken for frames. */
const hasBody = ({ headers }: IncomingMessage) => headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';

/**
 * A client that offers another protocol (`Upgrade: h2c` comes with every request of some libraries) goes on in this one (RFC 9110 7.8): the request is
 * put back without the offer, since Node hands over each that has one when anybody wants to have them. The server is told of the connection once more.
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

/** In words of its own: what Node's parser says is about bytes that the client may not have written. */
function parserRefusal({ code, reason }: NodeJS.ErrnoException & { reason?: string }): Refusal {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return { code: 'head_too_large', detail: 'the head of the request is too large' };
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return { code: 'payload_too_large', detail: 'the chunk extensions are too large' };
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { code: 'request_timeout', detail: 'the request did not come in time' };
    case 'HPE_INVALID_VERSION':
      // The same code has other reasons for a line that is malformed at its version or behind it, such as one that a line feed alone ends.
      return reason === 'Invalid HTTP version' ? { code: 'version_not_supported', detail: 'HTTP/1.1 is spoken here' } : NO_REQUEST;
    default:
      return NO_REQUEST;
  }
}
