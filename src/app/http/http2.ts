import type { RequestListener } from 'node:http';
import {
  constants,
  createServer,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from 'node:http2';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../../runtime/clock.js';
import { REQUEST_EVENTS } from '../../runtime/http-guard.js';
import { NO_CONNECT, sendRefusal } from '../../runtime/http-problem.js';
import { endWhenUnread } from './unread-streams.js';

/** Concurrent requests per connection. A player has two or three. */
const MAX_STREAMS = 100;
const MAX_HEAD_BYTES = 16_384;
const MAX_HEAD_FIELDS = 100;
/** Time for a request's body, the same as on HTTP/1.1. */
const BODY_MS = 30_000;

export interface Http2Options {
  readonly listener: RequestListener;
  readonly clock: Clock;
  /** A client that reads nothing of an answer is disconnected after this time, as on HTTP/1.1. */
  readonly silenceMs: number;
  /** Called for each answer that was ended because its client read nothing. */
  readonly unread: () => void;
}

/**
 * HTTP/2, for connections that chose it in the TLS handshake. Each counts as one connection for the
 * limits and has a bounded number of requests.
 */
export class Http2 {
  readonly #server: Http2Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  #closing = false;

  constructor({ listener, clock, silenceMs, unread }: Http2Options) {
    this.#server = createServer({
      settings: { maxConcurrentStreams: MAX_STREAMS, maxHeaderListSize: MAX_HEAD_BYTES, enablePush: false },
      maxHeaderListPairs: MAX_HEAD_FIELDS + 4,
      maxSendHeaderBlockLength: 65_536,
      // Megabytes of memory per session: limits a client that resets its requests, or reads no
      // answers.
      maxSessionMemory: 10,
      maxSessionInvalidFrames: 100,
      maxSessionRejectedStreams: 100,
    });
    this.#server.on('session', (session) => {
      if (this.#closing) {
        session.close();
        return;
      }
      this.#sessions.add(session);
      session.setTimeout(silenceMs, () => session.destroy());
      session.once('close', () => this.#sessions.delete(session));
      // Node disconnects a client that breaks the protocol; nothing else has to be done.
      session.on('error', () => undefined);
    });
    const prepare = (req: Http2ServerRequest) => {
      // The client has reset the stream or left; nothing else has to be done.
      req.stream.on('error', () => undefined);
      endWhenUnread(req.stream, clock, silenceMs, unread);
      if (req.stream.endAfterHeaders) return;
      const cancel = clock.after(BODY_MS, () => req.stream.close(constants.NGHTTP2_CANCEL));
      req.once('end', cancel);
      req.stream.once('close', cancel);
    };
    for (const event of REQUEST_EVENTS)
      this.#server.on(event, (req: Http2ServerRequest, res: Http2ServerResponse) => {
        prepare(req);
        // Http2ServerRequest and -Response have all members of HTTP/1.1's that are used here.
        listener(req as never, res as never);
      });
    this.#server.on('connect', (req: Http2ServerRequest, res: Http2ServerResponse) => {
      prepare(req);
      sendRefusal(res as never, NO_CONNECT);
    });
  }

  /** Takes the connection over from the TLS server. */
  take(socket: TLSSocket): boolean {
    this.#server.emit('connection', socket);
    return true;
  }

  /** Answers requests that have begun, and takes no new ones. */
  close(): void {
    this.#closing = true;
    for (const session of this.#sessions) session.close();
  }
}
