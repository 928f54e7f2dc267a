import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { VezaError } from '../runtime/errors.js';

export const MAX_OUTBOUND_URL_CHARS = 2000;

/** IPv6 that is given out to networks (RFC 4291 2.4); everything else is special in some way, known or not yet. */
const GLOBAL_UNICAST = ipaddr.IPv6.parse('2000::');

/**
 * Where this service may be sent by an address that somebody typed: to the public internet, and to what `WEBHOOK_ALLOWED_HOSTS` names. An entry is
 * a host name (whatever it resolves to), an IP address or a range (`10.1.0.0/16`).
 */
export class OutboundPolicy {
  readonly #names = new Set<string>();
  readonly #ranges: [ipaddr.IPv4 | ipaddr.IPv6, number][] = [];

  /** Throws on an entry that is none of the three. */
  constructor(allowed: readonly string[] = []) {
    for (const entry of allowed) {
      const [address = '', bits, ...more] = entry.split('/');
      if (isIP(address) === 0) {
        if (bits !== undefined || !/^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/i.test(entry))
          throw new Error(`"${entry}" is no host name and no range`);
        this.#names.add(entry.toLowerCase());
        continue;
      }
      const parsed = ipaddr.parse(address);
      const length = bits === undefined ? wholeLength(parsed) : Number(bits);
      if (more.length > 0 || !(bits === undefined || /^\d{1,3}$/.test(bits)) || length > wholeLength(parsed)) {
        throw new Error(`"${entry}" is no range of addresses`);
      }
      this.#ranges.push([parsed, length]);
    }
  }

  /** Named by the operator: found through the system's own resolver, in whatever network. */
  isNamed(hostname: string): boolean {
    return this.#names.has(bareName(hostname));
  }

  /** Whether a connection to this address is allowed for a host that is not named. */
  admits(address: string): boolean {
    if (isIP(address) === 0) return false;
    // An address of IPv4 inside IPv6 is the address of IPv4.
    const parsed = ipaddr.process(address);
    if (this.#ranges.some(([range, bits]) => range.kind() === parsed.kind() && parsed.match(range as ipaddr.IPv4 & ipaddr.IPv6, bits)))
      return true;
    if (parsed.range() !== 'unicast') return false;
    return parsed.kind() === 'ipv4' || (parsed as ipaddr.IPv6).match(GLOBAL_UNICAST, 3);
  }

  /**
   * What can be said of a URL without asking anybody. Rejects with `bad_request`: not `http` or `https`, a name and password in it, a port below 1024
   * that is not the protocol's, `localhost`, an address that is not public (in whatever notation: `URL` has made them all one).
   */
  checkUrl(text: string): URL {
    const refuse = (why: string) => new VezaError('bad_request', `url: ${why}`, { details: { at: 'body.url' } });
    if (text.length > MAX_OUTBOUND_URL_CHARS) throw refuse(`at most ${MAX_OUTBOUND_URL_CHARS} characters.`);
    if (!URL.canParse(text)) throw refuse('this is no address; write it as https://example.org/path.');
    const url = new URL(text);
    if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('only https:// and http:// are possible.');
    if (url.username !== '' || url.password !== '') {
      throw refuse('no name and password in an address, please: deliveries are signed, check the signature.');
    }
    const port = url.port === '' ? 443 : Number(url.port);
    if (port !== 80 && port !== 443 && port < 1024) throw refuse('the port must be 80, 443 or at least 1024.');
    const { hostname } = url;
    if (this.isNamed(hostname)) return url;
    const literal = literalOf(hostname);
    const name = bareName(hostname);
    if (name === '' || name === 'localhost' || name.endsWith('.localhost') || (literal !== undefined && !this.admits(literal))) {
      throw refuse(notPublic(hostname));
    }
    return url;
  }
}

export const notPublic = (hostname: string) =>
  `${hostname} is not in the public internet. An operator of this service may allow it with WEBHOOK_ALLOWED_HOSTS.`;

/** The address that a URL's host is, when it is one and no name. */
export function literalOf(hostname: string): string | undefined {
  const bare = hostname.startsWith('[') && hostname.endsWith(']') ? hostname.slice(1, -1) : bareName(hostname);
  return isIP(bare) === 0 ? undefined : bare;
}

/** `Localhost.` is `localhost`. */
const bareName = (hostname: string) => hostname.toLowerCase().replace(/\.+$/, '');

const wholeLength = (address: ipaddr.IPv4 | ipaddr.IPv6) => (address.kind() === 'ipv4' ? 32 : 128);
