import { createHmac } from 'node:crypto';
import { networkOf } from '../../runtime/addresses.js';

/**
 * The hash of an address that bans store: an HMAC under a key of this service, 16 bytes. Of an IPv6
 * address only the first 64 bits count, because one client has all addresses below them. An IPv4
 * address in IPv6 form has the hash of the IPv4 address. Returns undefined when the text is no
 * address.
 */
export function addressHash(key: Uint8Array, address: string): string | undefined {
  const network = networkOf(address);
  return network && createHmac('sha256', key).update(network).digest('base64url').slice(0, 22);
}
