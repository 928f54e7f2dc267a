import type { IncomingMessage } from 'node:http';
import { admitsCountry, type CountryRule } from '../../access/playback/countries.js';
import type { Pass, PlaybackClient, PlaybackLinks } from '../../access/playback/playback-links.js';
import type { PlaybackRules, RestrictedAsset } from '../../access/playback/playback-rules.js';
import type { PlaybackKind } from '../../access/playback/playback-token.js';
import { VezaError } from '../../runtime/errors.js';

/** The conditions under which a request is answered. */
export interface PlaybackAdmission {
  /** The answer is not for everybody who knows the address, so shared caches must not keep it. */
  readonly isPrivate: boolean;
  /** The verified playback link of the request. */
  readonly pass: Pass | undefined;
}

export interface AdmissionOptions {
  readonly links: Pick<PlaybackLinks, 'check' | 'seen'>;
  readonly rules: Pick<PlaybackRules, 'isPrivate' | 'countries' | 'asset' | 'recording' | 'isDeleted' | 'isClosedSegment'>;
  readonly addressOf: (req: IncomingMessage) => string;
  /** Returns the country of a request, as `AppOptions.countryOf`; undefined when it is unknown. */
  readonly countryOf: (req: IncomingMessage) => string | undefined;
}

const OPEN: PlaybackAdmission = { isPrivate: false, pass: undefined };
const OPEN_HERE: PlaybackAdmission = { isPrivate: true, pass: undefined };

/** Name of the cookie that may hold a link. */
export const cookieName = (kind: PlaybackKind, name: string) => `veza_play_${kind}_${name}`;

/** Decides who may play what, for every media request. Refusals have texts for listeners. */
export class Admissions {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * Admits a request for a channel's live media. A `token` in the address must be good even where
   * none is required. Throws `forbidden`, `country_blocked` and, for a private channel without a
   * link, `not_found` with the same text as for a channel that does not exist.
   */
  live(req: IncomingMessage, slug: string, token: string | undefined, asked: 'manifest' | 'media'): PlaybackAdmission {
    const { rules } = this.#options;
    const isPrivate = rules.isPrivate(slug);
    const countries = rules.countries(slug);
    if (!isPrivate && !countries && token === undefined) return OPEN;
    return this.#admit(req, 'live', slug, token, { isPrivate, countries, isListed: asked === 'manifest', channel: slug });
  }

  /**
   * Admits a request for a recording; throws the same errors as `live`. `restricted` in the result is
   * where the recording's media lies when fewer people may hear it than its channel, else undefined.
   */
  vod(
    req: IncomingMessage,
    id: string,
    token: string | undefined,
    asked: 'manifest' | 'media',
  ): PlaybackAdmission & { restricted: RestrictedAsset | undefined } {
    const { rules } = this.#options;
    if (rules.isDeleted(id)) throw new VezaError('not_found', asked === 'manifest' ? NO_RECORDING : NO_SEGMENT);
    const restricted = rules.asset(id);
    const isPrivate = restricted?.isPrivate ?? false;
    const countries = restricted && rules.countries(restricted.channel);
    const channel = restricted?.channel;
    const admission = this.#admit(req, 'vod', id, token, { isPrivate, countries, isListed: asked === 'manifest', channel });
    return { ...admission, restricted };
  }

  /**
   * Finds the media of a recording. Undefined: there is no such recording, or the database cannot
   * tell now.
   */
  recording(id: string): Promise<RestrictedAsset | undefined> {
    return this.#options.rules.recording(id);
  }

  /**
   * Whether a segment, requested at its live address, belongs to a private or deleted recording of
   * an open channel.
   */
  isClosedSegment(slug: string, number: number): boolean {
    return this.#options.rules.isClosedSegment(slug, number);
  }

  /**
   * Whether a client that was admitted to a channel with this request and token may go on
   * listening.
   */
  staysAdmitted(req: IncomingMessage, slug: string, token: string | undefined): boolean {
    return this.refusal(req, slug, token) === undefined;
  }

  /** The error for a client that may not play a channel any more; undefined when it may. */
  refusal(req: IncomingMessage, slug: string, token: string | undefined, asked: 'manifest' | 'media' = 'manifest'): unknown {
    return thrownBy(() => this.live(req, slug, token, asked));
  }

  /** The error for a client that may not play a recording any more; undefined when it may. */
  vodRefusal(req: IncomingMessage, id: string, token: string | undefined, asked: 'manifest' | 'media'): unknown {
    return thrownBy(() => this.vod(req, id, token, asked));
  }

  #admit(
    req: IncomingMessage,
    kind: PlaybackKind,
    name: string,
    token: string | undefined,
    closed: { isPrivate: boolean; countries: CountryRule | undefined; isListed: boolean; channel: string | undefined },
  ): PlaybackAdmission {
    const { links, countryOf } = this.#options;
    const given = token ?? (closed.isPrivate ? cookieOf(req, cookieName(kind, name)) : undefined);
    let pass: Pass | undefined;
    if (given !== undefined) pass = links.check(kind, name, given, new RequestPlaybackClient(this.#options, req), closed.channel);
    else if (closed.isPrivate) throw new VezaError('not_found', closed.isListed ? NOT_THERE[kind] : NO_SEGMENT);
    if (closed.countries && !admitsCountry(closed.countries, countryOf(req)))
      throw new VezaError('country_blocked', 'this is restricted by country, and your country is not allowed or unknown');
    if (pass && closed.isListed) links.seen(pass);
    if (pass) return { isPrivate: closed.isPrivate || closed.countries !== undefined, pass };
    return closed.countries ? OPEN_HERE : OPEN;
  }
}

function thrownBy(work: () => unknown): unknown {
  try {
    work();
    return undefined;
  } catch (error) {
    return error;
  }
}

/**
 * The client of a request. Its address and country are found only for a link that is bound to one.
 */
class RequestPlaybackClient implements PlaybackClient {
  readonly #options: AdmissionOptions;
  readonly #req: IncomingMessage;

  constructor(options: AdmissionOptions, req: IncomingMessage) {
    this.#options = options;
    this.#req = req;
  }

  address(): string {
    return this.#options.addressOf(this.#req);
  }

  country(): string | undefined {
    return this.#options.countryOf(this.#req);
  }
}

/**
 * One text both for what does not exist and for what is private, so that nobody learns which; it is
 * used whatever else is wrong with the address.
 */
export const NO_CHANNEL = 'the channel is off air or does not exist; a private one is played by a link';
export const NO_RECORDING = 'there is no such recording; a private one is played by a link';
export const NO_SEGMENT = 'no such segment';
const NOT_THERE: Readonly<Record<PlaybackKind, string>> = { live: NO_CHANNEL, vod: NO_RECORDING };

function cookieOf(req: IncomingMessage, name: string): string | undefined {
  const header = req.headers.cookie;
  if (header === undefined) return undefined;
  for (const part of header.split(';')) {
    const at = part.indexOf('=');
    if (at > 0 && part.slice(0, at).trim() === name) return part.slice(at + 1).trim();
  }
  return undefined;
}
