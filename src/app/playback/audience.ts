import { addressGroup } from '../../runtime/addresses.js';
import type { Clock } from '../../runtime/clock.js';

/** Keys remembered for one channel in one generation; further ones are not counted. */
const MAX_KEYS = 200_000;
const KEY_CHARS = 160;
/**
 * Keys of one address (a /64 of IPv6) in one generation; further ones are not counted. They are whatever the client says, so that one could
 * fill a channel alone (MAX_LISTENERS_PER_STREAM); and few networks have more people behind one address who hear one channel at one time.
 */
export const MAX_KEYS_PER_ADDRESS = 500;

interface Heard {
  /** Keys of the present generation, by address. */
  byAddress: Map<string, number>;
  current: Set<string>;
  previous: Set<string>;
  /** Keys in either. */
  distinct: number;
  turnedMs: number;
  connections: number;
}

/**
 * How many are listening, estimated from who asked for a manifest in the last `windowMs` (half of it at least, since it is kept
 * in two generations of keys), plus connections that are open for as long as they listen. O(1) a request, bounded memory.
 */
export class Audience {
  readonly #channels = new Map<string, Heard>();
  readonly #clock: Clock;
  readonly #halfMs: number;

  constructor(clock: Clock, windowMs: number) {
    this.#clock = clock;
    this.#halfMs = windowMs / 2;
  }

  /**
   * `key` tells one listener from another: a CMCD session, or address and user agent. `address`: whose word it is; it counts for
   * `MAX_KEYS_PER_ADDRESS` at most. Undefined: the key is a link's, and cannot be made up.
   */
  seen(channel: string, key: string, address?: string): void {
    const heard = this.#turned(channel, true)!;
    const short = key.slice(0, KEY_CHARS);
    if (heard.current.has(short) || heard.current.size >= MAX_KEYS) return;
    if (address !== undefined) {
      const group = addressGroup(address);
      const ofAddress = heard.byAddress.get(group) ?? 0;
      if (ofAddress >= MAX_KEYS_PER_ADDRESS) return;
      heard.byAddress.set(group, ofAddress + 1);
    }
    heard.current.add(short);
    if (!heard.previous.has(short)) heard.distinct++;
  }

  /** A connection that listens until the returned function is called (once or more). */
  connect(channel: string): () => void {
    const heard = this.#turned(channel, true)!;
    heard.connections++;
    let open = true;
    return () => {
      if (open) heard.connections--;
      open = false;
    };
  }

  count(channel: string): number {
    const heard = this.#turned(channel, false);
    if (!heard) return 0;
    const total = heard.distinct + heard.connections;
    if (total === 0) this.#channels.delete(channel);
    return total;
  }

  /** Forgets a channel that is off air; connections that are still open keep it. */
  forget(channel: string): void {
    if (this.#channels.get(channel)?.connections === 0) this.#channels.delete(channel);
  }

  #turned(channel: string, create: boolean): Heard | undefined {
    const nowMs = this.#clock.monotonicMs();
    let heard = this.#channels.get(channel);
    if (!heard) {
      if (!create) return undefined;
      heard = { byAddress: new Map(), current: new Set(), previous: new Set(), distinct: 0, turnedMs: nowMs, connections: 0 };
      this.#channels.set(channel, heard);
    }
    const ageMs = nowMs - heard.turnedMs;
    if (ageMs >= this.#halfMs) {
      heard.previous = ageMs >= 2 * this.#halfMs ? new Set() : heard.current;
      heard.current = new Set();
      heard.byAddress = new Map();
      heard.distinct = heard.previous.size;
      heard.turnedMs = nowMs;
    }
    return heard;
  }
}
