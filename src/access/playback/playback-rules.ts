import type { Database } from '../../backing/database/database.js';
import { Batched } from '../../runtime/batched.js';
import { BoundedMap, BoundedSet } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Channels } from '../channels.js';
import type { CountryRule } from './countries.js';

/** A recording's channel, segments and privacy. */
export interface RestrictedAsset {
  /** The channel's slug. */
  readonly channel: string;
  readonly isPrivate: boolean;
  /** Segment numbers, inclusive. `to` is infinite while the recording is being made. */
  readonly from: number;
  readonly to: number;
}

export interface PlaybackRulesOptions {
  readonly database: Database;
  readonly channels: Channels;
  readonly clock: Clock;
  readonly log: Log;
  /** Reads other data that depends on the same version number, after a change. */
  readonly alsoReload: () => Promise<void>;
}

/** A change by another process takes effect within this time. */
const POLL_MS = 1000;
const PURGE_MS = 3600_000;
/** At most this many unrestricted recordings are cached. */
const MAX_UNRESTRICTED = 10_000;
/**
 * At most this many ids without a recording are cached. They are separate, so that made-up ids push
 * out only each other.
 */
const MAX_ABSENT = 10_000;
/** Ids of another form have no recording; the database is not asked for them. */
const ID = /^[a-z0-9][a-z0-9_-]{0,63}$/;

const SELECT_ASSETS = `select b.id, c.slug, coalesce(b.visibility, c.visibility) = 'private' as private, c.visibility = 'private' as channel_private,
    b.first_number, b.last_number
  from broadcasts b join channels c on c.id = b.channel_id where b.recording`;

/**
 * Restrictions of playback. They are in memory, because every media request checks them, and are
 * read again within a second of a change by any process. If the database is unavailable, the last
 * known rules apply.
 */
export class PlaybackRules {
  readonly #options: PlaybackRulesOptions;
  #version = 0;
  #countries: ReadonlyMap<string, CountryRule> = new Map();
  #assets: ReadonlyMap<string, RestrictedAsset> = new Map();
  /** Segment numbers of private or deleted recordings, by the channel's slug. */
  #closedRanges: ReadonlyMap<string, readonly NumberRange[]> = new Map();
  #closed: ReadonlySet<string> = new Set();
  /** Unrestricted recordings that were looked up. */
  readonly #unrestricted = new BoundedMap<string, RestrictedAsset>(MAX_UNRESTRICTED);
  /** Ids that were looked up and have no recording. */
  readonly #absent = new BoundedSet<string>(MAX_ABSENT);
  /** Raised when both caches are cleared. A lookup that began before is not cached after it. */
  #generation = 0;
  /**
   * Looks up at most 200 ids per query, one query at a time: however many ids clients ask for,
   * other database work waits for at most one query.
   */
  readonly #lookUps: Batched<RestrictedAsset>;
  #reading: Promise<void> | undefined;
  #nextRead: Promise<void> | undefined;
  #isUnavailable = false;
  #cancels: (() => void)[] = [];

  constructor(options: PlaybackRulesOptions) {
    this.#options = options;
    this.#lookUps = new Batched(options.clock, (ids) => this.#find(ids));
  }

  async start(): Promise<void> {
    await this.#purge();
    await this.#read();
    const { clock, log } = this.#options;
    const quietly = (work: Promise<void>) =>
      void work.then(
        () => this.#reached(),
        (error) => this.#logUnavailable(error),
      );
    this.#cancels = [
      clock.every(POLL_MS, () => quietly(this.#readOnce())),
      clock.every(
        PURGE_MS,
        () =>
          void this.#purge().catch((error) =>
            log.warn(
              { event: 'access.recording_marks_not_deleted', error: messageOf(error) },
              'could not delete the marks of deleted recordings',
            ),
          ),
      ),
    ];
  }

  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    await Promise.allSettled([this.#reading, this.#nextRead]);
  }

  /**
   * Resolves when changes written before the call are in memory. Does not reject: after an error
   * the next poll reads them.
   */
  async refresh(): Promise<void> {
    // A read that is running may have begun before the change, so another one follows it.
    this.#nextRead ??= (this.#reading ?? Promise.resolve())
      .catch(() => undefined)
      .then(() => {
        this.#nextRead = undefined;
        return this.#readOnce();
      });
    await this.#nextRead.catch((error) => this.#logUnavailable(error));
  }

  /** Whether the channel's media needs a right or a playback link. */
  isPrivate(slug: string): boolean {
    return this.#options.channels.isPrivate(slug) || (this.#closed.size > 0 && this.#closed.has(`live/${slug}`));
  }

  countries(slug: string): CountryRule | undefined {
    return this.#countries.get(slug);
  }

  /** Undefined: the recording has no restriction, or does not exist. */
  asset(id: string): RestrictedAsset | undefined {
    return this.#assets.get(id);
  }

  /**
   * The channel and segments of any recording. Undefined: it does not exist, or the database is
   * unavailable.
   */
  async recording(id: string): Promise<RestrictedAsset | undefined> {
    const known = this.#assets.get(id) ?? this.#unrestricted.get(id);
    if (known || this.#absent.has(id) || !ID.test(id)) return known;
    const generation = this.#generation;
    try {
      const found = await this.#lookUps.load(id);
      if (generation === this.#generation) this.#remember(id, found);
      return found;
    } catch (error) {
      this.#logUnavailable(error);
      return undefined;
    }
  }

  #remember(id: string, found: RestrictedAsset | undefined): void {
    if (found) this.#unrestricted.set(id, found);
    else this.#absent.add(id);
  }

  async #find(ids: readonly string[]): Promise<ReadonlyMap<string, RestrictedAsset>> {
    const { rows } = await this.#options.database.query<AssetRow>(`${SELECT_ASSETS} and b.id = any($1)`, [ids]);
    return new Map(rows.map((row) => [row.id, assetOf(row)]));
  }

  /** Whether the recording was deleted. Its files may stay in the store for an hour. */
  isDeleted(assetId: string): boolean {
    return this.#closed.has(`vod/${assetId}`);
  }

  /**
   * Whether a segment in the store belongs to a deleted recording, or to a private recording of a
   * channel that is not private.
   */
  isClosedSegment(slug: string, number: number): boolean {
    return this.#closedRanges.get(slug)?.some(({ from, to }) => number >= from && number <= to) ?? false;
  }

  #readOnce(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<void> {
    const { database, channels, alsoReload } = this.#options;
    const { rows } = await database.query<{ version: number }>('select version from playback_changes');
    const version = rows[0]?.version ?? 0;
    if (version === this.#version) return;
    const { rows: restricted } = await database.query<ChannelRuleRow>(
      `select slug, visibility, countries_allowed, countries_denied from channels
       where visibility = 'private' or countries_allowed is not null or countries_denied is not null`,
    );
    const { rows: recordings } = await database.query<AssetRow>(
      `${SELECT_ASSETS} and (coalesce(b.visibility, c.visibility) = 'private' or c.visibility = 'private'
         or c.countries_allowed is not null or c.countries_denied is not null)`,
    );
    const { rows: closed } = await database.query<ClosedRow>('select scope, slug, first_number, last_number from playback_closed');

    await alsoReload();

    channels.setPrivate(restricted.filter(({ visibility }) => visibility === 'private').map(({ slug }) => slug));
    this.#countries = new Map(
      restricted
        .filter((row) => row.countries_allowed ?? row.countries_denied)
        .map((row) => [row.slug, { allowed: row.countries_allowed ?? undefined, denied: row.countries_denied ?? undefined }]),
    );
    const assets = new Map<string, RestrictedAsset>();
    const ranges = new Map<string, NumberRange[]>();
    const close = (slug: string, range: NumberRange) => {
      const others = ranges.get(slug);
      if (others) others.push(range);
      else ranges.set(slug, [range]);
    };
    for (const row of recordings) {
      const asset = assetOf(row);
      assets.set(row.id, asset);
      if (row.private && !row.channel_private) close(row.slug, asset);
    }
    // Ranges without an end are left out, because they would close the channel's later segments
    // too.
    for (const { slug, first_number, last_number } of closed)
      if (slug !== null && first_number !== null && last_number !== null) close(slug, { from: first_number, to: last_number });
    this.#generation++;
    this.#unrestricted.clear();
    this.#absent.clear();
    this.#assets = assets;
    this.#closedRanges = ranges;
    this.#closed = new Set(closed.map(({ scope }) => scope));
    // The version is set last, so that everything is read again if a step before failed.
    this.#version = version;
  }

  async #purge(): Promise<void> {
    const { database, clock } = this.#options;
    await database.query('delete from playback_closed where closed_until < $1', [new Date(clock.wallMs())]);
    await database.query('delete from ended_playback_links where kept_until < $1', [new Date(clock.wallMs())]);
  }

  #logUnavailable(error: unknown): void {
    if (!this.#isUnavailable)
      this.#options.log.warn(
        { event: 'access.playback_rules_unreadable', error: messageOf(error) },
        'could not read the playback rules; the last known rules stay in force',
      );
    this.#isUnavailable = true;
  }

  #reached(): void {
    this.#isUnavailable = false;
  }
}

interface NumberRange {
  readonly from: number;
  readonly to: number;
}

interface ClosedRow {
  scope: string;
  slug: string | null;
  first_number: number | null;
  last_number: number | null;
}

interface ChannelRuleRow {
  slug: string;
  visibility: string;
  countries_allowed: string[] | null;
  countries_denied: string[] | null;
}

interface AssetRow {
  id: string;
  slug: string;
  private: boolean;
  channel_private: boolean;
  first_number: number;
  last_number: number | null;
}

const assetOf = (row: AssetRow): RestrictedAsset => ({
  channel: row.slug,
  isPrivate: row.private,
  from: row.first_number,
  to: row.last_number ?? Number.POSITIVE_INFINITY,
});
