import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

/**
 * The network that stands for one client when connections, requests or bans are counted by address.
 * For an IPv4 address it is the address; for an IPv6 address it is the first 64 bits, since a
 * client may use every address below them. An IPv4 address that is written as IPv6
 * (`::ffff:192.0.2.1`) counts as the IPv4 address. Every spelling of a network gives the same text.
 * The text is part of stored bans and must not change. Returns undefined when `address` is not an
 * address.
 */
export function networkOf(address: string): string | undefined {
  // `ipaddr.js` also reads `1`, `0x7f.1` and `010.1.1.1`; Node accepts only the dotted form with
  // four decimal numbers.
  if (isIP(address) === 0) return undefined;
  const parsed = ipaddr.process(address);
  if (!(parsed instanceof ipaddr.IPv6)) return parsed.toString();
  const prefix = parsed.parts.slice(0, 4).map((part) => part.toString(16));
  return `${prefix.join(':')}::/64`;
}

/**
 * The same as `networkOf`, but a text that is not an address (an e-mail address, an id, an empty
 * text) is returned unchanged.
 */
export function addressGroup(text: string): string {
  return networkOf(text) ?? text;
}

/**
 * The address of a socket's peer. An IPv4 address has its IPv4 form even if the listener uses IPv6.
 * The result is empty when the socket is closed.
 */
export function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');
}

/**
 * The fields of a request that `clientAddress` reads. The request is Node's own, or one that
 * another process handed over.
 */
export interface AddressedRequest {
  readonly headers: IncomingHttpHeaders;
  readonly socket: { readonly remoteAddress?: string | undefined };
}

/**
 * The client's address. Behind `proxyHops` proxies of the operator it is the entry of
 * `X-Forwarded-For` that the outermost proxy wrote: entry number `proxyHops` from the right. A
 * client may have made up the entries further left. If that entry is not an address, the peer's
 * address is returned: a client may not choose its own name.
 */
export function clientAddress({ headers, socket }: AddressedRequest, proxyHops: number): string {
  const forwarded = proxyHops > 0 ? headers['x-forwarded-for'] : undefined;
  const named = String(forwarded ?? '')
    .split(',')
    .slice(-proxyHops)[0]
    ?.trim()
    // Some proxies also write the port.
    .replace(/^\[(.*)\](?::\d+)?$/, '$1')
    .replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1');
  return named && isIP(named) ? named : (socket.remoteAddress ?? '');
}
