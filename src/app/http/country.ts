import type { IncomingMessage } from 'node:http';
import { countryOf } from '../../access/playback/countries.js';

export interface CountryOptions {
  /**
   * The header in which a proxy or CDN of the operator names the country, in lower case. It is
   * ignored without trusted proxies, because any client could send it.
   */
  readonly header: string | undefined;
  readonly trustProxyHops: number;
  /** Returns the country of an address, from a database. */
  readonly lookup: ((address: string) => string | undefined) | undefined;
  readonly addressOf: (req: IncomingMessage) => string;
}

/**
 * Returns a function that finds the country of a request: by the header, else by the address.
 * Undefined means that the country is unknown, and country rules then refuse the request.
 */
export function countryReader({ header, trustProxyHops, lookup, addressOf }: CountryOptions): (req: IncomingMessage) => string | undefined {
  const believed = trustProxyHops > 0 ? header : undefined;
  return (req) => {
    const named = believed === undefined ? undefined : req.headers[believed];
    // A header without a country in it is an answer too: the proxy does not know the country.
    if (named !== undefined && lookup === undefined) return countryOf(String(named));
    return countryOf(String(named ?? '')) ?? countryOf(lookup?.(addressOf(req)));
  };
}
