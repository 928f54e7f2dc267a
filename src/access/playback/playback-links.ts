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
/** Tokens known to be good; one more, and the one that was verified first is verified again. */
const MAX_VERIFIED = 50_000;

export interface LinkRequest {
  readonly kind: PlaybackKind;
  /** Slug or asset id. */
  readonly name: string;
  /** `MIN_LINK_S` to `MAX_LINK_S`. */
  readonly expiresInS: number;
  /** Whom it is for; who has a link already takes no second place with another. A new listener unless given. */
  readonly listener?: string | undefined;
  readonly bind?: { readonly address?: string | undefined; readonly country?: string | undefined } | undefined;
  /** How many may listen at once. Undefined: as many as like. */
  readonly limit?: number | undefined;
  /** The account that makes it, and by which right: the link ends with that. Undefined: no account does. */
  readonly maker?: { readonly accountId: string; readonly right: LinkRight } | undefined;
}

export interface PlaybackLink {
  readonly token: string;
  readonly expiresAtMs: number;
}

/** Who asks to play, as far as a link may be bound to it. */
export interface PlaybackClient {
  address(): string;
  /** As `countryOf` has it. */
  country(): string | undefined;
}

/** A token that was found good. */
export interface Pass {
  readonly kind: PlaybackKind;
  readonly name: string;
  readonly id: string;
  readonly scope: string;
  readonly keyId: string;
  readonly expiresAtMs: number;
  /** What it is bound to. */
  readonly address: string;
  readonly country: string;
  readonly maker: LinkMaker | undefined;
  /** See `Grant`. */
  seenIn: number;
}

export interface PlaybackLinksOptions {
  readonly database: Database;
  readonly keys: PlaybackKeys;
  readonly endedLinks: Pick<EndedLinks, 'has'>;
  readonly grants: PlaybackGrants;
  readonly clock: Clock;
}

/** Signed playback links: for one channel or recording, until a time, and for one address or country when so bound. */
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

  /** Rejects with `bad_request` (an address that is none) and `busy` (the channel has as many listeners as it may have). */
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
      throw new VezaError('busy', 'The channel has as many listeners as it may have (MAX_LISTENERS_PER_STREAM). Try again in a minute.');
    const listener = maker ? listenerWithMaker(id, { tag: makerTag(maker.right, maker.accountId), madeAtS: await this.#nowS() }) : id;
    const { keyId, signature } = this.#keys.sign({ expiry, listener }, { kind, name, address, country });
    const binds = `${address && 'a'}${country && 'c'}`;
    return { token: [keyId, expiry, listener, ...(binds ? [binds] : []), signature].join('.'), expiresAtMs };
  }

  /** Of the database, which says when a right ended: processes' clocks differ. */
  async #nowS(): Promise<number> {
    const { rows } = await this.#database.query<{ now: Date }>('select clock_timestamp() as now');
    return rows[0]!.now.getTime() / 1000;
  }

  /**
   * Throws `forbidden`, and says why. Remembers what it has found good: a listener comes back with the same token six times a second. `channel`: of
   * a recording; undefined when that is not known.
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

  /** Whether the token opens it: `check` without a reason. */
  admits(kind: PlaybackKind, name: string, token: string, client: PlaybackClient): boolean {
    try {
      this.check(kind, name, token, client);
      return true;
    } catch {
      return false;
    }
  }

  /** He has asked for a playlist or listens on: keeps his place. */
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

  /** Undefined: it is bound to something that is not known of this client. */
  #signedFor(kind: PlaybackKind, name: string, { binds }: PlaybackToken, client: PlaybackClient): SignedFor | undefined {
    const address = binds.includes('a') ? boundAddress(client.address()) : '';
    const country = binds.includes('c') ? client.country() : '';
    return address === undefined || country === undefined ? undefined : { kind, name, address, country };
  }
}
