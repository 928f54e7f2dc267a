import { createHmac } from 'node:crypto';
import { isIP } from 'node:net';

/**
 * What is kept of an address for bans: an HMAC under a key of this service, 16 bytes. Of IPv6 its first 64 bits count, since one client has all
 * addresses below them; an IPv4 address that is written as IPv6 is the same as itself. Undefined: it is no address.
 */
export function addressHash(key: Uint8Array, address: string): string | undefined {
  const network = networkOf(address);
  return network && createHmac('sha256', key).update(network).digest('base64url').slice(0, 22);
}

export function networkOf(address: string): string | undefined {
  const plain = address.split('%', 1)[0]!;
  const family = isIP(plain);
  if (family === 0) return undefined;
  if (family === 4) return plain;
  // The parser of addresses writes each of them in one way alone.
  const written = new URL(`http://[${plain}]`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(written);
  if (mapped) {
    const bits = (Number.parseInt(mapped[1]!, 16) << 16) | Number.parseInt(mapped[2]!, 16);
    return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join('.');
  }
  const [head = '', tail] = written.split('::', 2);
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups = tail === undefined ? left : [...left, ...Array.from({ length: 8 - left.length - right.length }, () => '0'), ...right];
  return `${groups.slice(0, 4).join(':')}::/64`;
}
