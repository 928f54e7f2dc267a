import type { Channel, Channels } from '../../access/channels.js';
import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';

/** How long an answer is good for everybody who is not signed in. A change in this process is known at once. */
const FRESH_MS = 1000;
/** Channels that were read within this time may be read without being counted. */
const KNOWN_MS = 600_000;
/** The first page of public channels; no slug is empty. */
const LIST = '';
const LIST_PATH = '/api/v1/channels';
const MAX_KNOWN = 10_000;
const PATH = /^\/api\/v1\/channels\/([a-z0-9][a-z0-9-]{1,62})$/;

interface Read {
  readonly reading: Promise<unknown>;
  readonly atMs: number;
  readonly changes: number;
}

/**
 * What every open page asks for without a credential: a channel that is not private, or the list of public ones. It is read once a second at most, however many ask, so that it need not
 * be counted: hundreds of pages behind one address open whatever else is asked for from there. Names of no channel are counted.
 */
export class PublicReads {
  readonly #channels: Channels;
  readonly #clock: Clock;
  /** By slug, in the order in which they were read. */
  readonly #reads = new BoundedMap<string, Read>(MAX_KNOWN);

  constructor(channels: Channels, clock: Clock) {
    this.#channels = channels;
    this.#clock = clock;
  }

  /** Whether a read by somebody who is not signed in costs too little to be counted. */
  isFree(method: string, path: string, querystring: string): boolean {
    if (querystring !== '' || (method !== 'GET' && method !== 'HEAD')) return false;
    if (path === LIST_PATH) return true;
    const found = PATH.exec(path);
    if (!found) return false;
    const slug = found[1]!;
    const known = this.#reads.get(slug);
    return known !== undefined && this.#clock.monotonicMs() - known.atMs < KNOWN_MS && !this.#channels.isPrivate(slug);
  }

  /** `read` rejects for a channel that is not there for everybody. */
  channel(slug: string, read: () => Promise<Channel>): Promise<Channel> {
    return this.#channels.isPrivate(slug) ? read() : this.#shared(slug, read);
  }

  /** The first page of the list of public channels, with the number of channels that a page has unless asked otherwise. */
  list(read: () => Promise<Channel[]>): Promise<Channel[]> {
    return this.#shared(LIST, read);
  }

  #shared<T>(slug: string, read: () => Promise<T>): Promise<T> {
    const nowMs = this.#clock.monotonicMs();
    const { changes } = this.#channels;
    const last = this.#reads.get(slug);
    if (last && nowMs - last.atMs < FRESH_MS && last.changes === changes) return last.reading as Promise<T>;
    const made = { reading: read(), atMs: nowMs, changes };
    this.#reads.set(slug, made);
    made.reading.catch(() => {
      if (this.#reads.get(slug) === made) this.#reads.delete(slug);
    });
    return made.reading;
  }
}
