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
/** `unlisted` is in no list; `private` is found by nobody without a right to it. */
export type Visibility = (typeof VISIBILITIES)[number];

export const SLUG = /^[a-z0-9][a-z0-9-]{1,62}$/;
/** Words that stand where a slug stands, in one of our addresses or on the Icecast port. */
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
  /** Shows are kept when they end. */
  readonly recording: boolean;
  /** The account that made it, or was given it; none for one that the admin token made. */
  readonly ownerId: string | undefined;
  /** Where it may be heard. */
  readonly countries: CountryRule;
  readonly createdAtMs: number;
  /** How often a stream key of it was made void. A show that began with another number is over. */
  readonly keyVoids: number;
}

export interface ChannelSettings {
  title: string;
  visibility: Visibility;
  recording: boolean;
}

/** Of the two country rules a channel has one at most: to set one takes the other away. Null takes one away. */
export interface ChannelChanges extends Partial<ChannelSettings> {
  countriesAllowed?: readonly string[] | null | undefined;
  countriesDenied?: readonly string[] | null | undefined;
}

/** Encoders that are remembered in case the database goes away. */
const MAX_KNOWN = 10_000;
/** A database that has not said more about such an encoder after this is away: the encoder's connection is closed after 10 s without an answer. */
const KNOWN_WAIT_MS = 6000;
const KEY = /^vz_[0-9a-hjkmnp-tv-z]{26}$/;

/**
 * Channels and their stream keys. Of a key only its SHA-256 is kept: with 130 random bits there is nothing to guess, so a
 * slow hash would protect nothing and would let strangers spend our CPU; and since the lookup is by the hash, its timing
 * tells about the hash only.
 */
export class Channels {
  readonly #database: Database;
  readonly #maxOwned: number | undefined;
  readonly #clock: Clock;
  /** Slugs of private channels, as last read: asked at every media request, so they are kept here. */
  readonly #private = new Set<string>();
  /** Reads under way, by what they read: a thousand pages that ask for one channel at once cost one query. */
  readonly #reading = new Map<string, Promise<ChannelRow[]>>();
  /** Whose key it was when the database was last there, by the key's hash. */
  readonly #known = new BoundedMap<string, Channel>(MAX_KNOWN);
  /** Keys that were good here have queries of their own, so that a flood of others does not hold them up. */
  readonly #knownLookups: Batched<KeyHolder>;
  readonly #newLookups: StreamKeyLookups<KeyHolder>;

  /** Rises with each write in this process: what was read before is not to be relied on. */
  changes = 0;

  /** An account that is no administrator owns at most `maxOwned`; undefined: no limit. */
  constructor(database: Database, { maxOwned, clock = new SystemClock() }: { maxOwned?: number | undefined; clock?: Clock } = {}) {
    this.#database = database;
    this.#maxOwned = maxOwned;
    this.#clock = clock;
    this.#knownLookups = new Batched(clock, (names) => this.#readKeys(names));
    this.#newLookups = new StreamKeyLookups(clock, (names) => this.#readKeys(names));
  }

  /**
   * Rejects: `bad_request` (slug or title), `conflict` (the slug is taken, reserved, or that of a deleted channel to which links may be good),
   * `unauthorized` (no such owner), `quota_exceeded`. The key is never shown again.
   */
  async create(slug: string, settings: ChannelSettings, ownerId?: string): Promise<{ channel: Channel; streamKey: string }> {
    if (!SLUG.test(slug))
      throw new VezaError('bad_request', 'A slug is 2 to 63 lower-case letters, digits and hyphens and does not begin with a hyphen.');
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
            `A channel "${slug}" was deleted, and playback links to it may be good still: they would open yours. Take another slug, or come back 30 days after that.`,
            { cause: error },
          );
        throw new VezaError('conflict', `There is a channel "${slug}" already.`, { cause: error });
      }
      // Of the owner: another process has deleted the account, and this one still knew its key or its session.
      if ((error as { code?: unknown }).code === '23503') throw new VezaError('unauthorized', 'This account is deleted.', { cause: error });
      throw error;
    }
  }

  /** Before an account owns one more: its row is held until the transaction ends, so that two at once do not both own the last. Rejects with `quota_exceeded`. */
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

  /** By slug, from the first after `after`; those of the given visibilities. */
  async list(visibilities: readonly Visibility[], after: string, limit: number): Promise<Channel[]> {
    // Byte order, so that the order does not hang on how the database was set up.
    const rows = await this.#read(
      'select * from channels where visibility = any($1) and slug collate "C" > $2 order by slug collate "C" limit $3',
      [visibilities, after, limit],
    );
    return rows.map(channelOf);
  }

  /** Rejects with `not_found`, `bad_request`. */
  async update(slug: string, changes: ChannelChanges): Promise<Channel> {
    if (changes.title !== undefined) checkTitle(changes.title);
    const { countriesAllowed, countriesDenied } = changes;
    if (countriesAllowed && countriesDenied)
      throw new VezaError('bad_request', 'Say either where the channel may be heard (countriesAllowed) or where not (countriesDenied).');
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
   * A playback link to it is about to be issued. Of a private channel that is no news; of another it is written down, so that nobody has its slug
   * after it while the link is good: rounded up by a day, which makes it one write a day.
   */
  async willBeLinked({ id, visibility }: Channel, expiresInS: number): Promise<void> {
    if (visibility === 'private') return;
    await this.#database.query(
      `update channels set links_until = now() + make_interval(days => 1, secs => $2)
       where id = $1 and (links_until is null or links_until < now() + make_interval(secs => $2))`,
      [id, expiresInS],
    );
  }

  /** With its broadcasts. Its slug is free at once unless links to it may be good. Rejects with `not_found`. */
  async delete(slug: string): Promise<void> {
    const { rowCount } = await this.#write('delete from channels where slug = $1', [slug]);
    if (rowCount === 0) throw noChannel(slug);
  }

  /**
   * A new key, made by the account `by` (undefined: the admin token), and good for as long as that account may make one. `onAir`: the key that
   * the show was begun with stays good until the show ends, however often it is rotated meanwhile; one that was made void stays void. Rejects
   * with `not_found`.
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
   * The channel whose key this is. A key that was replaced is good only while `isOnAir` says that its show goes on. While the
   * database is away, only an encoder that is known already may come back to its show; for others it rejects with `unavailable`.
   * `address`: the client's. Rejects with `busy` when too many clients try keys that were not seen before.
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
    const { rows } = await this.#database.query<ChannelRow & KeyRow>(
      // Its maker is asked for as well: a key that was on its way to the table while they lost the right was seen by no trigger.
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
    // The show it belonged to is over: were it left, it would open the next show as well.
    if (hasPrevious && !onAir) {
      await this.#database.query('update channels set previous_key_hash = null where id = $1', [channel.id]);
    }
    return isCurrent || onAir ? channel : undefined;
  }

  /**
   * Of channels that are on air, by slug: which are there still, and how often the key of each was made void. What is remembered for the time
   * that the database is away is brought in line with it.
   */
  async standing(slugs: readonly string[]): Promise<ReadonlyMap<string, { readonly id: string; readonly keyVoids: number }>> {
    const { rows } = await this.#database.query<KeyRow>(
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

  /** Who reads after a write must not be given the answer to an earlier reader. */
  async #write<Row extends object>(sql: string, values: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number }> {
    try {
      return await this.#database.query<Row>(sql, values);
    } finally {
      this.changed();
    }
  }

  /** Somebody else has written to the table of channels. */
  changed(): void {
    this.changes++;
    this.#reading.clear();
  }

  /** Reads which channels are private; before the first media request. */
  async start(): Promise<void> {
    const { rows } = await this.#database.query<{ slug: string }>(`select slug from channels where visibility = 'private'`);
    for (const { slug } of rows) this.#private.add(slug);
  }

  /** Which channels are private, as it was just read. */
  setPrivate(slugs: Iterable<string>): void {
    this.#private.clear();
    for (const slug of slugs) this.#private.add(slug);
  }

  /** Whether the channel's media is closed to everybody without a right to it. */
  isPrivate(slug: string): boolean {
    return this.#private.has(slug);
  }

  /** As it was just written. What was read may be late: it would open again what was closed meanwhile. */
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

interface KeyRow {
  id: string;
  slug: string;
  key_voids: number;
  stream_key_hash: Buffer;
  previous_key_hash: Buffer | null;
}

/** The channel that has a stream key. */
interface KeyHolder {
  readonly channel: Channel;
  /** It is the channel's key now; else it is the one that the show on air began with. */
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
    throw new VezaError('bad_request', `A title is 1 to ${MAX_TITLE_CHARS} characters on one line, and something is to be seen of it.`);
  }
}

function checkCountries(codes: readonly string[] | null | undefined): string[] | null | undefined {
  if (!codes) return codes as null | undefined;
  if (codes.length === 0) throw new VezaError('bad_request', 'A list of countries is not empty; null takes the rule away.');
  const wrong = codes.find((code) => countryOf(code) !== code);
  if (wrong !== undefined)
    throw new VezaError('bad_request', `"${wrong}" is not a country (two capital letters of ISO 3166-1, such as DE).`);
  return [...new Set(codes)].sort();
}

const makeStreamKey = () => `vz_${randomLetters(26)}`;
