import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';

/** As `clientAddress` of the HTTP listeners, which a chat process does without: what the outermost of `proxyHops` proxies of ours wrote down. */
export function clientAddressOf({ headers, socket }: IncomingMessage, proxyHops: number): string {
  const forwarded = proxyHops > 0 ? String(headers['x-forwarded-for'] ?? '') : '';
  const named = forwarded
    .split(',')
    .slice(-proxyHops)[0]
    ?.trim()
    .replace(/^\[(.*)\](?::\d+)?$/, '$1')
    .replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1');
  return named && isIP(named) ? named : (socket.remoteAddress ?? '');
}
