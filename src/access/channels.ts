import { randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../backing/database/database.js';
import { Batched } from '../runtime/batched.js';
import { BoundedMap } from '../runtime/bounded-map.js';
import { type Clock, SystemClock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import { characterCount } from '../runtime/text.js';
import { type CountryRule, countryOf } from './playback/countries.js';
import { hashOf, randomLetters } from './random-key.js';
import { isSeen, PLAIN_LINE } from './shown-text.js';
import { StreamKeyLookups } from './stream-key-lookups.js';

export const VISIBILITIES = ['public', 'unlisted', 'private'] as const;
/**
 * `public` channels are listed; `unlisted` ones are in no list; `private` ones exist only for
 * people with a right to them.
 */
export type Visibility = (typeof VISIBILITIES)[number];

export const SLUG = /^[a-z0-9][a-z0-9-]{1,62}$/;
/** Words that stand in the place of a slug in Veza's own addresses or on the Icecast port. */
export const RESERVED_SLUGS: readonly string[] = [
  'admin',
  'api',
  'assets',
  'health',
  'ingest',
  'listen',
  'live',
  'metrics',
  'status',
  'studio',
  'time',
  'vod',
];
export const MAX_TITLE_CHARS = 200;

export interface Channel {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
  readonly visibility: Visibility;
  /** Whether broadcasts are kept as recordings. */
  readonly recording: boolean;
  /**
   * The account that made the channel, or was given it. Undefined for a channel that the admin
   * token made.
   */
  readonly ownerId: string | undefined;
  /** The countries in which the channel may be heard. */
  readonly countries: CountryRule;
  readonly createdAtMs: number;
  /**
   * How many stream keys of the channel were made void. A broadcast that began with another number
   * ends.
   */
  readonly keyVoids: number;
}

export interface ChannelSettings {
  title: string;
  visibility: Visibility;
  recording: boolean;
}

/**
 * A channel has at most one of the two country rules: setting one removes the other. Null removes
 * the rule.
 */
export interface ChannelChanges extends Partial<ChannelSettings> {
  countriesAllowed?: readonly string[] | null | undefined;
  countriesDenied?: readonly string[] | null | undefined;
}

/** At most this many encoders stay verified while the database is unavailable. */
const MAX_KNOWN = 10_000;
/**
 * After this time without an answer, an encoder that was verified before is accepted without the
 * database. It must be shorter than the 10 s after which the encoder's connection is closed.
 */
const KNOWN_WAIT_MS = 6000;
const KEY = /^vz_[0-9a-hjkmnp-tv-z]{26}$/;

/**
 * Channels and their stream keys. Only the SHA-256 of a key is stored: a key has 130 random bits
 * and cannot be guessed, so a slow hash would protect nothing and would let anybody spend the
 * service's CPU. Keys are looked up by their hash, so the time of a lookup says nothing about the
 * key.
 */
export class Channels {
  readonly #database: Database;
  readonly #maxOwned: number | undefined;
  readonly #clock: Clock;
  /**
   * Slugs of private channels at the last read. They are in memory because every media request
   * checks them.
   */
  readonly #private = new Set<string>();
  /**
   * Running queries by their text and values: many requests for one channel at once cost one query.
   */
  readonly #reading = new Map<string, Promise<ChannelRow[]>>();
  /** The channel of each stream key that was good at its last check, by the key's hash. */
  readonly #known = new BoundedMap<string, Channel>(MAX_KNOWN);
  /**
   * Keys that were good before are looked up in queries of their own, so that a flood of unknown
   * keys does not delay them.
   */
  readonly #knownLookups: Batched<KeyHolder>;
  readonly #newLookups: StreamKeyLookups<KeyHolder>;

  /**
   * Raised by every write in this process. A result that was read at a lower number may be
   * outdated.
   */
  changes = 0;

  /**
   * `maxOwned`: at most this many channels per account; administrators have no limit. Undefined: no
   * limit.
   */
  constructor(database: Database, { maxOwned, clock = new SystemClock() }: { maxOwned?: number | undefined; clock?: Clock } = {}) {
    this.#database = database;
    this.#maxOwned = maxOwned;
    this.#clock = clock;
    this.#knownLookups = new Batched(clock, (names) => this.#readKeys(names));
    this.#newLookups = new StreamKeyLookups(clock, (names) => this.#readKeys(names));
  }

  /**
   * Makes a channel. Its stream key is returned once and cannot be read again. Rejects:
   * `bad_request` (slug or title), `conflict` (the slug is taken or reserved, or belonged to a
   * deleted channel whose playback links may still be good), `unauthorized` (the owner's account
   * does not exist), `quota_exceeded`.
   */
  async create(slug: string, settings: ChannelSettings, ownerId?: string): Promise<{ channel: Channel; streamKey: string }> {
    if (!SLUG.test(slug))
      throw new VezaError('bad_request', 'A slug has 2 to 63 lower-case letters, digits and hyphens, and does not begin with a hyphen.');
    if (RESERVED_SLUGS.includes(slug)) throw new VezaError('conflict', `The slug "${slug}" is reserved.`);
    checkTitle(settings.title);
    const streamKey = makeStreamKey();
    try {
      const { rows } = await this.#database
        .transaction(async (connection) => {
          if (ownerId !== undefined) await this.checkQuota(connection, ownerId);
          return connection.query<ChannelRow>(
            `insert into channels (id, slug, title, visibility, recording, stream_key_hash, owner_id, stream_key_by)
             values ($1, $2, $3, $4, $5, $6, $7, $7) returning *`,
            [randomUUID(), slug, settings.title, settings.visibility, settings.recording, hashOf(streamKey), ownerId ?? null],
          );
        })
        .finally(() => {
          this.changed();
          this.#newLookups.changed();
        });
      return { channel: this.#written(channelOf(rows[0]!)), streamKey };
    } catch (error) {
      if (error instanceof VezaError && error.code === 'conflict') {
        if (error.details?.constraint === 'channels_slug_closed')
          throw new VezaError(
            'conflict',
            `A channel "${slug}" was deleted, and playback links to it may be good still: they would open your channel. Take another slug, or try again 30 days after the deletion.`,
            { cause: error },
          );
        throw new VezaError('conflict', `There is a channel "${slug}" already.`, { cause: error });
      }
      // 23503 is a foreign key violation. Another process has deleted the owner's account while
      // this process still accepted its key or session.
      if ((error as { code?: unknown }).code === '23503') throw new VezaError('unauthorized', 'This account is deleted.', { cause: error });
      throw error;
    }
  }

  /**
   * Checks that the account may own one more channel. The account's row stays locked until the
   * transaction ends, so that two transactions at once cannot both use the last place. Rejects with
   * `quota_exceeded`.
   */
  async checkQuota(connection: Queryable, accountId: string): Promise<void> {
    if (this.#maxOwned === undefined) return;
    const { rows } = await connection.query<{ role: string }>('select role from accounts where id = $1 for no key update', [accountId]);
    if (!rows[0] || rows[0].role === 'admin') return;
    const { rows: owned } = await connection.query<{ count: number }>('select count(*)::int as count from channels where owner_id = $1', [
      accountId,
    ]);
    if ((owned[0]?.count ?? 0) >= this.#maxOwned)
      throw new VezaError(
        'quota_exceeded',
        `An account owns at most ${this.#maxOwned} channels (MAX_CHANNELS_PER_ACCOUNT); delete one first.`,
        {
          details: { limit: this.#maxOwned },
        },
      );
  }

  async get(slug: string): Promise<Channel | undefined> {
    const [row] = await this.#read('select * from channels where slug = $1', [slug]);
    return row && channelOf(row);
  }

  /** Channels with one of `visibilities`, ordered by slug, after the slug `after`. */
  async list(visibilities: readonly Visibility[], after: string, limit: number): Promise<Channel[]> {
    // Byte order does not depend on the collation of the database.
    const rows = await this.#read(
      'select * from channels where visibility = any($1) and slug collate "C" > $2 order by slug collate "C" limit $3',
      [visibilities, after, limit],
    );
    return rows.map(channelOf);
  }

  /** Changes a channel. Rejects: `not_found`, `bad_request`. */
  async update(slug: string, changes: ChannelChanges): Promise<Channel> {
    if (changes.title !== undefined) checkTitle(changes.title);
    const { countriesAllowed, countriesDenied } = changes;
    if (countriesAllowed && countriesDenied)
      throw new VezaError('bad_request', 'Set either countriesAllowed or countriesDenied, not both.');
    const allowed = checkCountries(countriesAllowed);
    const denied = checkCountries(countriesDenied);
    const { rows } = await this.#write<ChannelRow>(
      `update channels set title = coalesce($2, title), visibility = coalesce($3, visibility), recording = coalesce($4, recording),
         countries_allowed = case when $5 then $6::text[] else countries_allowed end,
         countries_denied = case when $7 then $8::text[] else countries_denied end
       where slug = $1 returning *`,
      [
        slug,
        changes.title ?? null,
        changes.visibility ?? null,
        changes.recording ?? null,
        allowed !== undefined || Boolean(denied),
        allowed ?? null,
        denied !== undefined || Boolean(allowed),
        denied ?? null,
      ],
    );
    if (!rows[0]) throw noChannel(slug);
    return this.#written(channelOf(rows[0]));
  }

  /**
   * Called before a playback link to the channel is made. The database keeps until when links may
   * be good, so that nobody gets the slug of a deleted channel before that time. A private channel
   * needs no record, because its slug is always kept back for 30 days. The time is rounded up by a
   * day, so that a channel is written at most once a day.
   */
  async willBeLinked({ id, visibility }: Channel, expiresInS: number): Promise<void> {
    if (visibility === 'private') return;
    await this.#database.query(
      `update channels set links_until = now() + make_interval(days => 1, secs => $2)
       where id = $1 and (links_until is null or links_until < now() + make_interval(secs => $2))`,
      [id, expiresInS],
    );
  }

  /**
   * Deletes the channel with its broadcasts. The slug can be used again at once unless links to it
   * may still be good. Rejects with `not_found`.
   */
  async delete(slug: string): Promise<void> {
    const { rowCount } = await this.#write('delete from channels where slug = $1', [slug]);
    if (rowCount === 0) throw noChannel(slug);
  }

  /**
   * Makes a new stream key and returns it. `by`: the account that makes it (undefined: the admin
   * token); the key becomes void when that account may make none any more. `onAir`: the key with
   * which the current broadcast began stays good until the broadcast ends, however often the key is
   * rotated; a void key stays void. Rejects with `not_found`.
   */
  async rotateKey(slug: string, onAir: boolean, by?: string): Promise<string> {
    const streamKey = makeStreamKey();
    const { rowCount } = await this.#database.query(
      `update channels set stream_key_hash = $2, stream_key_by = $4,
         previous_key_hash = case when $3 then coalesce(previous_key_hash, stream_key_hash) end
       where slug = $1`,
      [slug, hashOf(streamKey), onAir, by ?? null],
    );
    this.#newLookups.changed();
    if (rowCount === 0) throw noChannel(slug);
    return streamKey;
  }

  /**
   * The channel of a stream key, or undefined. A key that was replaced is good only while `isOnAir`
   * says that its broadcast goes on. If the database is unavailable, only a key that was good
   * before is accepted, and only for its broadcast on air; for other keys it rejects with
   * `unavailable`. `address`: the client's. Rejects with `busy` if too many clients try unknown
   * keys.
   */
  async verifyKey(streamKey: string, isOnAir: (slug: string) => boolean, address = ''): Promise<Channel | undefined> {
    if (!KEY.test(streamKey)) return undefined;
    const name = hashOf(streamKey).toString('hex');
    try {
      const holder = await (this.#known.has(name) ? this.#loadKnown(name) : this.#newLookups.load(name, address));
      const channel = holder && (await this.#goodFor(holder, isOnAir));
      if (channel) this.#known.set(name, channel);
      else this.#known.delete(name);
      return channel;
    } catch (error) {
      const known = this.#known.get(name);
      if (known && isOnAir(known.slug) && error instanceof VezaError && error.code === 'unavailable') return known;
      throw error;
    }
  }

  #loadKnown(name: string): Promise<KeyHolder | undefined> {
    return new Promise((resolve, reject) => {
      const late = () => reject(new VezaError('unavailable', 'The database does not answer.'));
      const cancel = this.#clock.after(KNOWN_WAIT_MS, late);
      this.#knownLookups.load(name).then(resolve, reject).finally(cancel);
    });
  }

  async #readKeys(names: readonly string[]): Promise<ReadonlyMap<string, KeyHolder>> {
    const { rows } = await this.#database.query<ChannelRow & StreamKeyRow>(
      // The query checks the key's maker as well. If the maker loses the right while a new key is
      // being written, no trigger sees that key.
      `select * from channels
       where (stream_key_hash = any($1::text[]::bytea[]) or previous_key_hash = any($1::text[]::bytea[]))
         and (stream_key_by is null or runs_channel(id, stream_key_by))`,
      [names.map((name) => `\\x${name}`)],
    );
    const holders = new Map<string, KeyHolder>();
    const asked = new Set(names);
    for (const row of rows) {
      const [current, previous] = [row.stream_key_hash.toString('hex'), row.previous_key_hash?.toString('hex')];
      const channel = channelOf(row);
      if (asked.has(current)) holders.set(current, { channel, isCurrent: true, hasPrevious: previous !== undefined });
      if (previous !== undefined && asked.has(previous)) holders.set(previous, { channel, isCurrent: false, hasPrevious: true });
    }
    return holders;
  }

  async #goodFor({ channel, isCurrent, hasPrevious }: KeyHolder, isOnAir: (slug: string) => boolean): Promise<Channel | undefined> {
    const onAir = isOnAir(channel.slug);
    // The broadcast that the previous key belongs to has ended. If the key stayed, it would open
    // the next broadcast as well.
    if (hasPrevious && !onAir) {
      await this.#database.query('update channels set previous_key_hash = null where id = $1', [channel.id]);
    }
    return isCurrent || onAir ? channel : undefined;
  }

  /**
   * For channels on air: those that still exist, by slug, with the number of void keys. The keys
   * that are kept for a database outage are checked at the same time.
   */
  async standing(slugs: readonly string[]): Promise<ReadonlyMap<string, { readonly id: string; readonly keyVoids: number }>> {
    const { rows } = await this.#database.query<StreamKeyRow>(
      `select id, slug, stream_key_hash, previous_key_hash,
         key_voids + case when stream_key_by is null or runs_channel(id, stream_key_by) then 0 else 1 end as key_voids
       from channels where slug = any($1)`,
      [slugs],
    );
    const bySlug = new Map(rows.map((row) => [row.slug, row]));
    const asked = new Set(slugs);
    for (const [name, { slug }] of this.#known) {
      const row = bySlug.get(slug);
      const isGood = [row?.stream_key_hash, row?.previous_key_hash].some((hash) => hash?.toString('hex') === name);
      if (asked.has(slug) && !isGood) this.#known.delete(name);
    }
    return new Map(rows.map((row) => [row.slug, { id: row.id, keyVoids: row.key_voids }]));
  }

  #read(sql: string, values: readonly unknown[]): Promise<ChannelRow[]> {
    const name = JSON.stringify([sql, values]);
    let reading = this.#reading.get(name);
    if (!reading) {
      const begun = this.#database
        .query<ChannelRow>(sql, values)
        .then(({ rows }) => rows)
        .finally(() => {
          if (this.#reading.get(name) === begun) this.#reading.delete(name);
        });
      reading = begun;
      this.#reading.set(name, begun);
    }
    return reading;
  }

  /** A read after a write must not share the result of a query that began before the write. */
  async #write<Row extends object>(sql: string, values: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number }> {
    try {
      return await this.#database.query<Row>(sql, values);
    } finally {
      this.changed();
    }
  }

  /**
   * Called after a change of the table of channels elsewhere, in this process or another: later
   * reads do not share running queries.
   */
  changed(): void {
    this.changes++;
    this.#reading.clear();
  }

  /** Reads which channels are private. Called before the first media request. */
  async start(): Promise<void> {
    const { rows } = await this.#database.query<{ slug: string }>(`select slug from channels where visibility = 'private'`);
    for (const { slug } of rows) this.#private.add(slug);
  }

  /** Replaces the set of private channels with a new result from the database. */
  setPrivate(slugs: Iterable<string>): void {
    this.#private.clear();
    for (const slug of slugs) this.#private.add(slug);
  }

  /** Whether the channel's media needs a right or a playback link. */
  isPrivate(slug: string): boolean {
    return this.#private.has(slug);
  }

  /**
   * Keeps the visibility that was just written. A read that began before the write must not undo
   * it.
   */
  #written(channel: Channel): Channel {
    if (channel.visibility === 'private') this.#private.add(channel.slug);
    else this.#private.delete(channel.slug);
    return channel;
  }
}

interface ChannelRow {
  id: string;
  slug: string;
  title: string;
  visibility: Visibility;
  recording: boolean;
  owner_id: string | null;
  countries_allowed: string[] | null;
  countries_denied: string[] | null;
  created_at: Date;
  key_voids: number;
}

interface StreamKeyRow {
  id: string;
  slug: string;
  key_voids: number;
  stream_key_hash: Buffer;
  previous_key_hash: Buffer | null;
}

/** A channel found by one of its stream keys. */
interface KeyHolder {
  readonly channel: Channel;
  /**
   * True: the key is the channel's current key. False: it is the key with which the broadcast on
   * air began.
   */
  readonly isCurrent: boolean;
  readonly hasPrevious: boolean;
}

const channelOf = (row: ChannelRow): Channel => ({
  id: row.id,
  slug: row.slug,
  title: row.title,
  visibility: row.visibility,
  recording: row.recording,
  ownerId: row.owner_id ?? undefined,
  countries: { allowed: row.countries_allowed ?? undefined, denied: row.countries_denied ?? undefined },
  createdAtMs: row.created_at.getTime(),
  keyVoids: row.key_voids,
});

const noChannel = (slug: string) => new VezaError('not_found', `There is no channel "${slug}".`);

function checkTitle(title: string): void {
  if (characterCount(title) > MAX_TITLE_CHARS || !PLAIN_LINE.test(title) || !isSeen(title)) {
    throw new VezaError('bad_request', `A title has 1 to ${MAX_TITLE_CHARS} characters on one line, of which at least one is visible.`);
  }
}

function checkCountries(codes: readonly string[] | null | undefined): string[] | null | undefined {
  if (!codes) return codes as null | undefined;
  if (codes.length === 0) throw new VezaError('bad_request', 'A list of countries must not be empty. Send null to remove the rule.');
  const wrong = codes.find((code) => countryOf(code) !== code);
  if (wrong !== undefined)
    throw new VezaError('bad_request', `"${wrong}" is not a country (two capital letters of ISO 3166-1, such as DE).`);
  return [...new Set(codes)].sort();
}

const makeStreamKey = () => `vz_${randomLetters(26)}`;
