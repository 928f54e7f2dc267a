import { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/**
 * An upgrade request that the primary has read. It is handed to a chat process together with its
 * socket.
 */
export interface HandedRequest {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  /** The bytes that followed the request, base64. */
  readonly head: string;
}

/** Headers of which Node keeps only the first line. */
const ONCE = new Set(
  `age authorization content-length content-type etag expires from host if-modified-since if-unmodified-since last-modified location
   max-forwards proxy-authorization referer retry-after server user-agent`.split(/\s+/),
);

/**
 * Builds the request that Node would have built if this process had read it from the socket, so
 * that both processes read the same. Two lines of `X-Forwarded-For` are joined in order: the client
 * may have written the first, the nearest proxy wrote the last.
 */
export function requestOf({ method, url, rawHeaders }: Omit<HandedRequest, 'head'>, socket: Socket): IncomingMessage {
  const req = new IncomingMessage(socket);
  req.method = method;
  req.url = url;
  req.rawHeaders = [...rawHeaders];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase();
    const value = rawHeaders[at + 1]!;
    const before = req.headers[name];
    if (name === 'set-cookie') req.headers[name] = [...(req.headers[name] ?? []), value];
    else if (before === undefined) req.headers[name] = value;
    else if (!ONCE.has(name)) req.headers[name] = `${before}${name === 'cookie' ? '; ' : ', '}${value}`;
  }
  return req;
}
