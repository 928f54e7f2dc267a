import type { IncomingMessage } from 'node:http';
import { admitsCountry, type CountryRule } from '../../access/playback/countries.js';
import type { Pass, PlaybackClient, PlaybackLinks } from '../../access/playback/playback-links.js';
import type { PlaybackRules, RestrictedAsset } from '../../access/playback/playback-rules.js';
import type { PlaybackKind } from '../../access/playback/playback-token.js';
import { VezaError } from '../../runtime/errors.js';

/** On what terms a request is answered. */
export interface Admission {
  /** No shared cache may keep the answer: it is not for everybody who knows the address. */
  readonly isPrivate: boolean;
  /** He came by a link. */
  readonly pass: Pass | undefined;
}

export interface AdmissionOptions {
  readonly links: Pick<PlaybackLinks, 'check' | 'seen'>;
  readonly rules: Pick<PlaybackRules, 'isPrivate' | 'countries' | 'asset' | 'recording' | 'isDeleted' | 'isClosedSegment'>;
  readonly addressOf: (req: IncomingMessage) => string;
  /** Where a request comes from, as `countryOf` has it; undefined when that is not known. */
  readonly countryOf: (req: IncomingMessage) => string | undefined;
}

const OPEN: Admission = { isPrivate: false, pass: undefined };
const OPEN_HERE: Admission = { isPrivate: true, pass: undefined };

/** The name of the cookie that a link can be kept in. */
export const cookieName = (kind: PlaybackKind, name: string) => `veza_play_${kind}_${name}`;

/** Who may play what: asked at every media request. What it throws is for the listener to read. */
export class Admissions {
  readonly #options: AdmissionOptions;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * A channel's live media. `token`: of the address; it has to be good even where none is needed. Throws `forbidden`, `country_blocked`, and
   * `not_found` for a private channel without a link, in the words for one that does not exist.
   */
  live(req: IncomingMessage, slug: string, token: string | undefined, asked: 'manifest' | 'media'): Admission {
    const { rules } = this.#options;
    const isPrivate = rules.isPrivate(slug);
    const countries = rules.countries(slug);
    if (!isPrivate && !countries && token === undefined) return OPEN;
    return this.#admit(req, 'live', slug, token, { isPrivate, countries, isListed: asked === 'manifest', channel: slug });
  }

  /** A recording. `restricted` says where its media is; undefined when it is as open as its channel. */
  vod(
    req: IncomingMessage,
    id: string,
    token: string | undefined,
    asked: 'manifest' | 'media',
  ): Admission & { restricted: RestrictedAsset | undefined } {
    const { rules } = this.#options;
    if (rules.isDeleted(id)) throw new VezaError('not_found', asked === 'manifest' ? NO_RECORDING : NO_SEGMENT);
    const restricted = rules.asset(id);
    const isPrivate = restricted?.isPrivate ?? false;
    const countries = restricted && rules.countries(restricted.channel);
    const channel = restricted?.channel;
    const admission = this.#admit(req, 'vod', id, token, { isPrivate, countries, isListed: asked === 'manifest', channel });
    return { ...admission, restricted };
  }

  /** Where a recording's media is. Undefined: it is no recording, or that cannot be found out now. */
  recording(id: string): Promise<RestrictedAsset | undefined> {
    return this.#options.rules.recording(id);
  }

  /** Whether a segment, asked for by the address that it had live, is part of a recording that is private or deleted, though its channel is open. */
  isClosedSegment(slug: string, number: number): boolean {
    return this.#options.rules.isClosedSegment(slug, number);
  }

  /** Whether a client that was admitted to a channel with these may listen on. */
  staysAdmitted(req: IncomingMessage, slug: string, token: string | undefined): boolean {
    return this.refusal(req, slug, token) === undefined;
  }

  /** Why it may not. */
  refusal(req: IncomingMessage, slug: string, token: string | undefined, asked: 'manifest' | 'media' = 'manifest'): unknown {
    return thrownBy(() => this.live(req, slug, token, asked));
  }

  /** Why a client that was admitted to a recording may not have it any more. */
  vodRefusal(req: IncomingMessage, id: string, token: string | undefined, asked: 'manifest' | 'media'): unknown {
    return thrownBy(() => this.vod(req, id, token, asked));
  }

  #admit(
    req: IncomingMessage,
    kind: PlaybackKind,
    name: string,
    token: string | undefined,
    closed: { isPrivate: boolean; countries: CountryRule | undefined; isListed: boolean; channel: string | undefined },
  ): Admission {
    const { links, countryOf } = this.#options;
    const given = token ?? (closed.isPrivate ? cookieOf(req, cookieName(kind, name)) : undefined);
    let pass: Pass | undefined;
    if (given !== undefined) pass = links.check(kind, name, given, new Client(this.#options, req), closed.channel);
    else if (closed.isPrivate) throw new VezaError('not_found', closed.isListed ? NOT_THERE[kind] : NO_SEGMENT);
    if (closed.countries && !admitsCountry(closed.countries, countryOf(req)))
      throw new VezaError('country_blocked', 'this cannot be heard where you are, or where you are is not known');
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

/** Who asks; looked at only when a link is bound to it. */
class Client implements PlaybackClient {
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

/** One text for what is not there and what is not to be known of, so that nobody finds out which; whatever else is wrong with the address. */
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
