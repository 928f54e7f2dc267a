import type { Channel, Channels } from '../../access/channels.js';
import type { BroadcastRecord, Broadcasts } from '../../library/broadcasts.js';
import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';

/** How long guests share one answer. A write in this process ends the sharing at once. */
const FRESH_MS = 1000;
/**
 * A read is not counted for guests when the same thing was read, or its cursor given out, within
 * this time.
 */
const KNOWN_MS = 600_000;
const MAX_READS = 10_000;
const MAX_KNOWN = 10_000;

/** Paths of the API that a guest's page reads. */
const LIST_PATH = '/api/v1/channels';
const SLUG = '([a-z0-9][a-z0-9-]{1,62})';
const CHANNEL_PATH = new RegExp(`^/api/v1/channels/${SLUG}$`);
const BROADCASTS_PATH = new RegExp(`^/api/v1/channels/${SLUG}/broadcasts$`);
const ROOM_PATH = new RegExp(`^/api/v1/rooms/${SLUG}$`);
const MESSAGES_PATH = new RegExp(`^/api/v1/rooms/${SLUG}/messages$`);
const ASSET_PATH = /^\/api\/v1\/assets\/([A-Za-z0-9_-]{1,64})$/;
const PAGE_QUERY = /^(?:limit=(\d{1,3}))?(?:(?:^|&)cursor=([A-Za-z0-9_-]+))?$/;
const MESSAGES_QUERY = /^before=\d{1,16}&limit=\d{1,3}$/;

interface Read {
  readonly reading: Promise<unknown>;
  readonly atMs: number;
  readonly changes: number;
}

export interface PublicPage {
  /** The cursor of the page after this one. */
  readonly next: string | null;
}

export interface PublicReadsOptions {
  readonly channels: Pick<Channels, 'changes' | 'isPrivate'>;
  readonly broadcasts: Pick<Broadcasts, 'changes'>;
  readonly clock: Clock;
  /** Items per page when the client has not chosen a number. */
  readonly pageSize: number;
}

/**
 * The reads of a page that is open without a sign-in: channels, their broadcasts, recordings and
 * rooms, unless private. Each read is made at most once per second for all guests, and does not
 * count against their address: hundreds of pages behind one address can open, whatever else is
 * requested from there. Names of things that do not exist, and cursors that no page gave, are
 * counted.
 */
export class PublicReads {
  readonly #channels: PublicReadsOptions['channels'];
  readonly #broadcasts: PublicReadsOptions['broadcasts'];
  readonly #clock: Clock;
  readonly #pageSize: number;
  readonly #reads = new BoundedMap<string, Read>(MAX_READS);
  /** Keys of reads that are not counted → when each was last read, or its cursor given out. */
  readonly #known = new BoundedMap<string, number>(MAX_KNOWN);

  constructor({ channels, broadcasts, clock, pageSize }: PublicReadsOptions) {
    this.#channels = channels;
    this.#broadcasts = broadcasts;
    this.#clock = clock;
    this.#pageSize = pageSize;
  }

  /** Whether a guest's read costs too little to be counted. */
  isFree(method: string, path: string, querystring: string): boolean {
    if (method !== 'GET' && method !== 'HEAD') return false;
    if (path === LIST_PATH) return this.#isPageFree(LIST_PATH, querystring);
    const slug = (CHANNEL_PATH.exec(path) ?? ROOM_PATH.exec(path))?.[1];
    if (slug !== undefined) return querystring === '' && this.#isChannelFree(slug);
    const ofShows = BROADCASTS_PATH.exec(path)?.[1];
    if (ofShows !== undefined) return this.#isChannelFree(ofShows) && this.#isPageFree(path, querystring);
    // `PageLimits` counts pages of messages; they need no second limit.
    const ofMessages = MESSAGES_PATH.exec(path)?.[1];
    if (ofMessages !== undefined) return MESSAGES_QUERY.test(querystring) && this.#isChannelFree(ofMessages);
    const asset = ASSET_PATH.exec(path)?.[1];
    return asset !== undefined && querystring === '' && this.#isKnown(assetKey(asset));
  }

  /**
   * Reads a channel for a guest, also on the way to its broadcasts and its room. `read` must reject
   * for a channel that guests may not see.
   */
  channel(slug: string, read: () => Promise<Channel>): Promise<Channel> {
    return this.#channels.isPrivate(slug) ? read() : this.#shared(channelKey(slug), read);
  }

  /** Reads a recording for a guest. `read` must reject for one that guests may not see. */
  asset(id: string, read: () => Promise<BroadcastRecord>): Promise<BroadcastRecord> {
    return this.#shared(assetKey(id), read);
  }

  /** Reads a page of the public channels for a guest. */
  channelPage<T extends PublicPage>(query: PublicPageQuery, read: () => Promise<T>): Promise<T> {
    return this.#page(LIST_PATH, query, read);
  }

  /** Reads a page of a channel's broadcasts for a guest. */
  broadcastPage<T extends PublicPage>(slug: string, query: PublicPageQuery, read: () => Promise<T>): Promise<T> {
    return this.#channels.isPrivate(slug) ? read() : this.#page(`${LIST_PATH}/${slug}/broadcasts`, query, read);
  }

  async #page<T extends PublicPage>(path: string, { cursor, limit }: PublicPageQuery, read: () => Promise<T>): Promise<T> {
    // A guest can make up any number of cursors: an unknown one is neither kept nor free.
    if (limit !== this.#pageSize || (cursor !== undefined && !this.#isKnown(pageKey(path, cursor)))) return read();
    const found = await this.#shared(pageKey(path, cursor), read);
    if (found.next !== null) this.#known.set(pageKey(path, found.next), this.#clock.monotonicMs());
    return found;
  }

  #isChannelFree(slug: string): boolean {
    return !this.#channels.isPrivate(slug) && this.#isKnown(channelKey(slug));
  }

  #isPageFree(path: string, querystring: string): boolean {
    const [isPage, limit, cursor] = PAGE_QUERY.exec(querystring) ?? [];
    if (isPage === undefined || (limit !== undefined && Number(limit) !== this.#pageSize)) return false;
    return cursor === undefined || this.#isKnown(pageKey(path, cursor));
  }

  #isKnown(key: string): boolean {
    const atMs = this.#known.get(key);
    return atMs !== undefined && this.#clock.monotonicMs() - atMs < KNOWN_MS;
  }

  #shared<T>(key: string, read: () => Promise<T>): Promise<T> {
    const nowMs = this.#clock.monotonicMs();
    // Both counts only rise, so their sum changes with each.
    const changes = this.#channels.changes + this.#broadcasts.changes;
    const last = this.#reads.get(key);
    if (last && nowMs - last.atMs < FRESH_MS && last.changes === changes) return last.reading as Promise<T>;
    const wasKnown = this.#isKnown(key);
    const made = { reading: read(), atMs: nowMs, changes };
    this.#reads.set(key, made);
    this.#known.set(key, nowMs);
    made.reading.catch((error) => {
      if (this.#reads.get(key) !== made) return;
      this.#reads.delete(key);
      // After another failure, such as an unavailable database, the key still names something that
      // exists.
      if (!wasKnown || (error instanceof VezaError && error.code === 'not_found')) this.#known.delete(key);
    });
    return made.reading;
  }
}

interface PublicPageQuery {
  readonly cursor?: string | undefined;
  readonly limit: number;
}

const channelKey = (slug: string) => `channel ${slug}`;
const assetKey = (id: string) => `asset ${id}`;
const pageKey = (path: string, cursor = '') => `${path} ${cursor}`;
