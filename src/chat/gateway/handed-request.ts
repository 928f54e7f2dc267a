import { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** An upgrade request that the primary has read and hands to a chat process, with its socket. */
export interface HandedRequest {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  /** The bytes that came behind the request, base64. */
  readonly head: string;
}

/** Headers of which a second line is dropped, as Node does. */
const ONCE = new Set(
  `age authorization content-length content-type etag expires from host if-modified-since if-unmodified-since last-modified location
   max-forwards proxy-authorization referer retry-after server user-agent`.split(/\s+/),
);

/**
 * The request as Node would give it had this process read it from the socket, so that it means the same in both processes.
 * Two lines of `X-Forwarded-For` are joined in order: the client wrote the first, the nearest proxy the last.
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
