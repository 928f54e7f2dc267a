import type { IncomingMessage } from 'node:http';
import { countryOf } from '../../access/playback/countries.js';

export interface CountryOptions {
  /** A header that a proxy of ours or a CDN sets, in small letters. Believed only behind proxies of ours: anybody else may write it. */
  readonly header: string | undefined;
  readonly trustProxyHops: number;
  /** Where an address is. */
  readonly lookup: ((address: string) => string | undefined) | undefined;
  readonly addressOf: (req: IncomingMessage) => string;
}

/** Tells where a request comes from: by the header, else by the address. Undefined: nobody knows, and country rules refuse it. */
export function countryReader({ header, trustProxyHops, lookup, addressOf }: CountryOptions): (req: IncomingMessage) => string | undefined {
  const believed = trustProxyHops > 0 ? header : undefined;
  return (req) => {
    const named = believed === undefined ? undefined : req.headers[believed];
    // What is there and is no country is an answer, too: the one before us does not know.
    if (named !== undefined && lookup === undefined) return countryOf(String(named));
    return countryOf(String(named ?? '')) ?? countryOf(lookup?.(addressOf(req)));
  };
}
