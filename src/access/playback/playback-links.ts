import { createHash, randomBytes } from 'node:crypto';
import type { Database } from '../../backing/database/database.js';
import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { type EndedLinks, type LinkMaker, type LinkRight, makerTag } from './ended-links.js';
import type { PlaybackGrants } from './playback-grants.js';
import type { PlaybackKeys } from './playback-keys.js';
import {
  boundAddress,
  expiryOf,
  listenerAndMaker,
  listenerWithMaker,
  type PlaybackKind,
  type PlaybackToken,
  parseToken,
  type SignedFor,
} from './playback-token.js';

export const MIN_LINK_S = 60;
export const DEFAULT_LINK_S = 6 * 3600;
export const MAX_LINK_S = 30 * 86_400;
/**
 * At most this many tokens are cached as verified. Above it the oldest is verified again when it
 * comes back.
 */
const MAX_VERIFIED = 50_000;

export interface LinkRequest {
  readonly kind: PlaybackKind;
  /** A channel's slug or an asset's id. */
  readonly name: string;
  /** `MIN_LINK_S` to `MAX_LINK_S`. */
  readonly expiresInS: number;
  /**
   * Identifies the listener, so that a second link for the same listener takes no second slot.
   * Undefined: a new listener.
   */
  readonly listener?: string | undefined;
  readonly bind?: { readonly address?: string | undefined; readonly country?: string | undefined } | undefined;
  /** At most this many listeners at once. Undefined: no limit. */
  readonly limit?: number | undefined;
  /**
   * The account that makes the link and the right it uses. The link ends with that right.
   * Undefined: the link was not made by an account.
   */
  readonly maker?: { readonly accountId: string; readonly right: LinkRight } | undefined;
}

export interface PlaybackLink {
  readonly token: string;
  readonly expiresAtMs: number;
}

/** The client that plays, as far as a link may be bound to it. */
export interface PlaybackClient {
  address(): string;
  /** The country as `countryOf` returns it. */
  country(): string | undefined;
}

/** A verified token. */
export interface Pass {
  readonly kind: PlaybackKind;
  readonly name: string;
  readonly id: string;
  readonly scope: string;
  readonly keyId: string;
  readonly expiresAtMs: number;
  /** The address that the link is bound to. Empty: not bound. */
  readonly address: string;
  /** The country that the link is bound to. Empty: not bound. */
  readonly country: string;
  readonly maker: LinkMaker | undefined;
  /** See `Grant.seenIn`. */
  seenIn: number;
}

export interface PlaybackLinksOptions {
  readonly database: Database;
  readonly keys: PlaybackKeys;
  readonly endedLinks: Pick<EndedLinks, 'has'>;
  readonly grants: PlaybackGrants;
  readonly clock: Clock;
}

/**
 * Signed playback links. A link is for one channel or recording, expires, and may be bound to an
 * address and a country.
 */
export class PlaybackLinks {
  readonly #database: Database;
  readonly #keys: PlaybackKeys;
  readonly #endedLinks: Pick<EndedLinks, 'has'>;
  readonly #grants: PlaybackGrants;
  readonly #clock: Clock;
  readonly #verified = new BoundedMap<string, Pass>(MAX_VERIFIED);

  constructor({ database, keys, endedLinks, grants, clock }: PlaybackLinksOptions) {
    this.#database = database;
    this.#keys = keys;
    this.#endedLinks = endedLinks;
    this.#grants = grants;
    this.#clock = clock;
    keys.onChange(() => this.#verified.clear());
  }

  /**
   * Makes a link. Rejects: `bad_request` (the duration, or an address that is none), `busy`
   * (`limit` listeners have a slot).
   */
  async issue(request: LinkRequest): Promise<PlaybackLink> {
    const { kind, name, expiresInS, bind, limit, maker } = request;
    if (!(expiresInS >= MIN_LINK_S && expiresInS <= MAX_LINK_S))
      throw new VezaError('bad_request', `A link is good for ${MIN_LINK_S} to ${MAX_LINK_S} seconds.`);
    const address = bind?.address === undefined ? '' : boundAddress(bind.address);
    if (address === undefined) throw new VezaError('bad_request', 'bind.address: this is not an IP address');
    const country = bind?.country ?? '';
    const scope = `${kind}/${name}`;
    const id =
      request.listener === undefined
        ? randomBytes(12).toString('base64url')
        : createHash('sha256').update(`${scope}\n${request.listener}`).digest('base64url').slice(0, 16);
    const expiry = expiryOf(this.#clock.wallMs() + expiresInS * 1000);
    const expiresAtMs = Number.parseInt(expiry, 36) * 1000;
    if (limit !== undefined && !(await this.#grants.take({ id, scope, expiresAtMs }, limit)))
      throw new VezaError('busy', 'The channel has reached its limit of listeners (MAX_LISTENERS_PER_STREAM). Try again in a minute.');
    const listener = maker ? listenerWithMaker(id, { tag: makerTag(maker.right, maker.accountId), madeAtS: await this.#nowS() }) : id;
    const { keyId, signature } = this.#keys.sign({ expiry, listener }, { kind, name, address, country });
    const binds = `${address && 'a'}${country && 'c'}`;
    return { token: [keyId, expiry, listener, ...(binds ? [binds] : []), signature].join('.'), expiresAtMs };
  }

  /**
   * The time of the database, in seconds since 1970. The database also records when rights end, and
   * the clocks of processes differ.
   */
  async #nowS(): Promise<number> {
    const { rows } = await this.#database.query<{ now: Date }>('select clock_timestamp() as now');
    return rows[0]!.now.getTime() / 1000;
  }

  /**
   * The verified token, if the link opens `kind/name` for `client`. Throws `forbidden` with the
   * reason. Verified tokens are cached, because a player sends the same token about six times per
   * second. `channel`: the channel of a recording; undefined if it is unknown.
   */
  check(kind: PlaybackKind, name: string, text: string, client: PlaybackClient, channel = kind === 'live' ? name : undefined): Pass {
    let pass = this.#verified.get(text);
    if (pass === undefined || pass.name !== name || pass.kind !== kind) pass = this.#verify(kind, name, text, client);
    if (pass.expiresAtMs <= this.#clock.wallMs())
      throw new VezaError('forbidden', 'this link has expired; ask for a new one where you got it');
    if (pass.address !== '' && pass.address !== boundAddress(client.address()))
      throw new VezaError('forbidden', 'this link is for another address; ask for a new one where you got it');
    if (pass.country !== '' && pass.country !== client.country())
      throw new VezaError('forbidden', 'this link is for another country; ask for a new one where you got it');
    if (pass.maker && this.#endedLinks.has(pass.maker, channel))
      throw new VezaError('forbidden', 'this link has ended, because its maker may no longer give it; ask for a new one');
    return pass;
  }

  /** Whether `check` accepts the token. */
  admits(kind: PlaybackKind, name: string, token: string, client: PlaybackClient): boolean {
    try {
      this.check(kind, name, token, client);
      return true;
    } catch {
      return false;
    }
  }

  /** Keeps the listener's slot. Called for playlist requests and during endless streams. */
  seen(pass: Pass): void {
    if (pass.kind === 'live') this.#grants.seen(pass);
  }

  #verify(kind: PlaybackKind, name: string, text: string, client: PlaybackClient): Pass {
    const token = parseToken(text);
    const forWhat = token && this.#signedFor(kind, name, token, client);
    if (!token || !forWhat || !this.#keys.verify(token, forWhat))
      throw new VezaError('forbidden', 'this link is not good for this address; ask for a new one where you got it');
    const { listener, maker } = listenerAndMaker(token.listener);
    const pass: Pass = {
      kind,
      name,
      id: listener,
      scope: `${kind}/${name}`,
      keyId: token.keyId,
      expiresAtMs: token.expiresAtMs,
      address: forWhat.address,
      country: forWhat.country,
      maker,
      seenIn: 0,
    };
    this.#verified.set(text, pass);
    return pass;
  }

  /**
   * What the signature must cover. Undefined: the token is bound to an address or country that is
   * unknown for this client.
   */
  #signedFor(kind: PlaybackKind, name: string, { binds }: PlaybackToken, client: PlaybackClient): SignedFor | undefined {
    const address = binds.includes('a') ? boundAddress(client.address()) : '';
    const country = binds.includes('c') ? client.country() : '';
    return address === undefined || country === undefined ? undefined : { kind, name, address, country };
  }
}
