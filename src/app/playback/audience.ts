import { addressGroup } from '../../runtime/addresses.js';
import type { Clock } from '../../runtime/clock.js';

/** Most keys per channel and generation; further ones are not counted. */
const MAX_KEYS = 200_000;
const KEY_CHARS = 160;
/**
 * Most listener keys per address (a /64 of IPv6) and counting period; further keys are not counted.
 * A client chooses its own key, so that one client could otherwise fill a channel
 * (MAX_LISTENERS_PER_STREAM). Few networks have more people behind one address who hear the same
 * channel.
 */
export const MAX_KEYS_PER_ADDRESS = 500;

interface Heard {
  /** Number of keys of the current generation, by address. */
  byAddress: Map<string, number>;
  current: Set<string>;
  previous: Set<string>;
  /** Number of keys that are in `current` or `previous`. */
  distinct: number;
  turnedMs: number;
  connections: number;
}

/**
 * Estimates the listeners of each channel: the clients that asked for a manifest in the last
 * `windowMs` (or half of it, since keys are kept in two generations), plus open connections of
 * endless streams. O(1) per request, bounded memory.
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
   * Counts a listener. `key` tells listeners apart: a CMCD session, or address and user agent.
   * `address` is the client that sent the key; at most `MAX_KEYS_PER_ADDRESS` keys count for it.
   * Undefined: the key is a link's, and cannot be made up.
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

  /**
   * Counts an open connection as a listener until the returned function is called; calling it again
   * is harmless.
   */
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

  /** Forgets a channel that is off air, unless it still has open connections. */
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
