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

/** Requests at one time on a connection. A player has two or three. */
const MAX_STREAMS = 100;
const MAX_HEAD_BYTES = 16_384;
const MAX_HEAD_FIELDS = 100;
/** As a listener of HTTP/1.1 has it. */
const BODY_MS = 30_000;

export interface Http2Options {
  readonly listener: RequestListener;
  readonly clock: Clock;
  /** As of HTTP/1.1: after which a client that takes nothing of an answer is not waited for any longer. */
  readonly silenceMs: number;
  /** Called for each answer that was ended for that. */
  readonly unread: () => void;
}

/** HTTP/2 for connections whose TLS handshake chose it. Each is one connection for the limits, with a bounded number of requests. */
export class Http2 {
  readonly #server: Http2Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  #closing = false;

  constructor({ listener, clock, silenceMs, unread }: Http2Options) {
    this.#server = createServer({
      settings: { maxConcurrentStreams: MAX_STREAMS, maxHeaderListSize: MAX_HEAD_BYTES, enablePush: false },
      maxHeaderListPairs: MAX_HEAD_FIELDS + 4,
      maxSendHeaderBlockLength: 65_536,
      // Of a client that resets what it asks for, or asks for what it does not read (megabytes).
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
      // A client that breaks the protocol is disconnected by Node; it is no event for us.
      session.on('error', () => undefined);
    });
    const prepare = (req: Http2ServerRequest) => {
      // The same for one stream: it went away.
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
        // The members of HTTP/1.1's that are used here are there.
        listener(req as never, res as never);
      });
    this.#server.on('connect', (req: Http2ServerRequest, res: Http2ServerResponse) => {
      prepare(req);
      sendRefusal(res as never, NO_CONNECT);
    });
  }

  /** Takes over the connection. */
  take(socket: TLSSocket): boolean {
    this.#server.emit('connection', socket);
    return true;
  }

  /** What is under way is answered, nothing new is taken. */
  close(): void {
    this.#closing = true;
    for (const session of this.#sessions) session.close();
  }
}
