import type { IncomingMessage, ServerResponse } from 'node:http';
import { addressGroup, plainAddress } from '../../runtime/addresses.js';
import { VezaError } from '../../runtime/errors.js';
import { Places } from '../../runtime/places.js';

/** What a request waits for: live media, an endless stream, or stored media. */
export type PlaceKind = 'live' | 'endless' | 'stored';

/** Most requests for recordings that wait for the database or the object store. */
const MAX_STORED = 10_000;
/**
 * Bytes of stored media in answers that are not sent to the end. Each answer has its own buffer,
 * which a client that reads nothing keeps in memory.
 */
const MAX_UNREAD_BYTES = 512 * 1024 * 1024;

interface RequestPlacesOptions {
  /**
   * Most requests that wait for something to be made, or get it while it is made; the same number
   * applies to listeners of endless streams.
   */
  readonly maxWaiting: number;
  readonly maxUnreadBytes?: number | undefined;
  /** Returns the client's address; behind a trusted proxy, the one that the proxy names. */
  readonly addressOf?: ((req: IncomingMessage) => string) | undefined;
  readonly counters: { refused: number };
}

/** Slots for requests that are not answered at once, shared fairly among addresses and channels. */
export class RequestPlaces {
  readonly #options: RequestPlacesOptions;
  readonly #places: Readonly<Record<PlaceKind, Places>>;
  readonly #unreadBytes: Places;
  readonly #placed = new WeakSet<ServerResponse>();

  constructor(options: RequestPlacesOptions) {
    this.#options = options;
    const { maxWaiting, maxUnreadBytes = MAX_UNREAD_BYTES } = options;
    this.#unreadBytes = new Places(maxUnreadBytes);
    this.#places = { live: new Places(maxWaiting), endless: new Places(maxWaiting), stored: new Places(MAX_STORED) };
  }

  /**
   * Takes a slot until the request is answered or its client has left; a request has at most one.
   * Throws `busy`.
   */
  take(kind: PlaceKind, req: IncomingMessage, res: ServerResponse, channel?: string): void {
    if (this.#placed.has(res)) return;
    const leave = this.#places[kind].take(this.#networkOf(req), channel);
    if (!leave) {
      this.#options.counters.refused++;
      throw new VezaError('busy', 'too many requests are waiting; try again in a second');
    }
    this.#placed.add(res);
    res.once('close', leave);
  }

  /**
   * Takes room for the bytes of an answer until it is sent or its client has left. Throws `busy`.
   */
  takeBytes(req: IncomingMessage, res: ServerResponse, sizeBytes: number): void {
    if (req.method === 'HEAD') return;
    const leave = this.#unreadBytes.take(this.#networkOf(req), undefined, sizeBytes);
    if (!leave) {
      this.#options.counters.refused++;
      throw new VezaError('busy', 'too many bytes of earlier answers are not read yet; try again in a second');
    }
    res.once('close', leave);
  }

  #networkOf(req: IncomingMessage): string {
    const address = plainAddress(this.#options.addressOf?.(req) ?? req.socket.remoteAddress);
    // Each IPv4 address counts by itself; IPv6 addresses count by network.
    return address.includes(':') ? addressGroup(address) : address;
  }
}
