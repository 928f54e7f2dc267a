import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { VezaError } from '../runtime/errors.js';

export const MAX_OUTBOUND_URL_CHARS = 2000;

/**
 * The IPv6 addresses that are assigned to networks (RFC 4291 2.4). All others are reserved or
 * special.
 */
const GLOBAL_UNICAST = ipaddr.IPv6.parse('2000::');

/**
 * Where this service may connect when a user has typed the address: to the public internet, and to
 * the entries of `WEBHOOK_ALLOWED_HOSTS`. An entry is a host name (whatever it resolves to), an IP
 * address or a range (`10.1.0.0/16`).
 */
export class OutboundPolicy {
  readonly #names = new Set<string>();
  readonly #ranges: [ipaddr.IPv4 | ipaddr.IPv6, number][] = [];

  /** Throws when an entry is neither a host name nor an address nor a range. */
  constructor(allowed: readonly string[] = []) {
    for (const entry of allowed) {
      const [address = '', bits, ...more] = entry.split('/');
      if (isIP(address) === 0) {
        if (bits !== undefined || !/^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/i.test(entry))
          throw new Error(`"${entry}" is neither a host name nor a range of addresses`);
        this.#names.add(entry.toLowerCase());
        continue;
      }
      const parsed = ipaddr.parse(address);
      const length = bits === undefined ? wholeLength(parsed) : Number(bits);
      if (more.length > 0 || !(bits === undefined || /^\d{1,3}$/.test(bits)) || length > wholeLength(parsed)) {
        throw new Error(`"${entry}" is not a range of addresses`);
      }
      this.#ranges.push([parsed, length]);
    }
  }

  /**
   * Whether the operator allowed this host by name. The system's resolver finds its address, which
   * may be in any network.
   */
  isNamed(hostname: string): boolean {
    return this.#names.has(bareName(hostname));
  }

  /** Whether a connection to this address is allowed when its host is not allowed by name. */
  admits(address: string): boolean {
    if (isIP(address) === 0) return false;
    // An IPv4 address inside IPv6 counts as the IPv4 address.
    const parsed = ipaddr.process(address);
    if (this.#ranges.some(([range, bits]) => range.kind() === parsed.kind() && parsed.match(range as ipaddr.IPv4 & ipaddr.IPv6, bits)))
      return true;
    if (parsed.range() !== 'unicast') return false;
    return parsed.kind() === 'ipv4' || (parsed as ipaddr.IPv6).match(GLOBAL_UNICAST, 3);
  }

  /**
   * Checks everything about a URL that needs no name resolution. Throws `bad_request` for a
   * protocol other than `http` and `https`, a name or password, a port below 1024 other than 80 and
   * 443, `localhost`, and an address that is not public. The notation of an address does not
   * matter: `URL` has already normalised it.
   */
  checkUrl(text: string): URL {
    const refuse = (why: string) => new VezaError('bad_request', `url: ${why}`, { details: { at: 'body.url' } });
    if (text.length > MAX_OUTBOUND_URL_CHARS) throw refuse(`at most ${MAX_OUTBOUND_URL_CHARS} characters.`);
    if (!URL.canParse(text)) throw refuse('not a valid address; write it as https://example.org/path.');
    const url = new URL(text);
    if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('use https:// or http://.');
    if (url.username !== '' || url.password !== '') {
      throw refuse('remove the name and the password. Deliveries are signed: check the signature instead.');
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

/** The IP address of a URL's host; undefined when the host is a name. */
export function literalOf(hostname: string): string | undefined {
  const bare = hostname.startsWith('[') && hostname.endsWith(']') ? hostname.slice(1, -1) : bareName(hostname);
  return isIP(bare) === 0 ? undefined : bare;
}

/** The name in lower case, without trailing dots: `Localhost.` becomes `localhost`. */
const bareName = (hostname: string) => hostname.toLowerCase().replace(/\.+$/, '');

const wholeLength = (address: ipaddr.IPv4 | ipaddr.IPv6) => (address.kind() === 'ipv4' ? 32 : 128);
