import { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { HandedRequest } from '../processes/processes.js';

/** Of two lines with one of these names the second is dropped. */
const ONCE = new Set(
  `age authorization content-length content-type etag expires from host if-modified-since if-unmodified-since last-modified location
   max-forwards proxy-authorization referer retry-after server user-agent`.split(/\s+/),
);

/**
 * A request as Node would have it that read it from this socket: what another process has read must mean the same here. Of two lines of `X-Forwarded-For` the
 * first is what the client wrote, and the last what a proxy of ours has added.
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
