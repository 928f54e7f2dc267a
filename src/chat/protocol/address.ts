import { createHmac } from 'node:crypto';
import { networkOf } from '../../runtime/addresses.js';

/**
 * What is kept of an address for bans: an HMAC under a key of this service, 16 bytes. Of IPv6 its first 64 bits count, since one client has all
 * addresses below them; an IPv4 address that is written as IPv6 is the same as itself. Undefined: it is no address.
 */
export function addressHash(key: Uint8Array, address: string): string | undefined {
  const network = networkOf(address);
  return network && createHmac('sha256', key).update(network).digest('base64url').slice(0, 22);
}
