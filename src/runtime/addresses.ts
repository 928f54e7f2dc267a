import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

/**
 * The network that stands for one client when connections, requests or bans are counted by address: an IPv4 address itself, of an IPv6 address
 * the first 64 bits, since a client may use every address below them. An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is the IPv4
 * address. Every spelling of a network gives the same text, which is part of stored bans and must not change. Undefined: it is not an address.
 */
export function networkOf(address: string): string | undefined {
  // `ipaddr.js` also reads `1`, `0x7f.1` and `010.1.1.1`; Node accepts only the dotted form with four decimal numbers.
  if (isIP(address) === 0) return undefined;
  const parsed = ipaddr.process(address);
  if (!(parsed instanceof ipaddr.IPv6)) return parsed.toString();
  const prefix = parsed.parts.slice(0, 4).map((part) => part.toString(16));
  return `${prefix.join(':')}::/64`;
}

/** As `networkOf`; a text that is not an address (an e-mail address, an id, nothing at all) stays as it is. */
export function addressGroup(text: string): string {
  return networkOf(text) ?? text;
}

/** The peer of a socket: an IPv4 address as such, also where the listener speaks IPv6. Empty: the socket is closed. */
export function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
}

/** What `clientAddress` reads of a request: Node's own, or one that another process has handed over. */
export interface AddressedRequest {
  readonly headers: IncomingHttpHeaders;
  readonly socket: { readonly remoteAddress?: string | undefined };
}

/**
 * The client's address. Behind `proxyHops` proxies of the operator it is the entry that the outermost of them wrote: that many from the right of
 * `X-Forwarded-For` (entries further left may have been made up by anybody). An entry that is not an address is ignored, and the peer's address is
 * taken: no client may choose a name of its own.
 */
export function clientAddress({ headers, socket }: AddressedRequest, proxyHops: number): string {
  const forwarded = proxyHops > 0 ? headers['x-forwarded-for'] : undefined;
  const named = String(forwarded ?? '')
    .split(',')
    .slice(-proxyHops)[0]
    ?.trim()
    // Some proxies write the port, too.
    .replace(/^\[(.*)\](?::\d+)?$/, '$1')
    .replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1');
  return named && isIP(named) ? named : (socket.remoteAddress ?? '');
}
