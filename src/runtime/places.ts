/** Whatever the total, an address and a channel may have this many. */
const FLOOR = 2;
/** Of the places that the channel may still have, the part that one address may have: a sixth of all when nobody else waits. */
const ADDRESS_PART = 4;

/**
 * A bounded number of places, shared so that no crowd takes the places of others. A channel may have as many as are free at that moment (half of all when it is
 * the only one), an address a quarter of what is left of that. The more are taken, the less anybody may have: a newcomer finds something, and whoever has much
 * gets nothing more ("dynamic thresholds", as switches share their buffers: Choudhury and Hahne, 1998). There is no list of holders to keep in order, and
 * nobody is turned out.
 */
export class Places {
  readonly total: number;
  #held = 0;
  readonly #byChannel = new Map<string, number>();
  readonly #byAddress = new Map<string, number>();

  constructor(total: number) {
    this.total = total;
  }

  get held(): number {
    return this.#held;
  }

  /**
   * Takes places, if there are any for the client's network and the channel; without a channel it is the network's share alone that counts. Returns what gives
   * them back: to be called once or more.
   */
  take(network: string, channel?: string, count = 1): (() => void) | undefined {
    const free = this.total - this.#held;
    const ofChannel = channel === undefined ? 0 : (this.#byChannel.get(channel) ?? 0);
    const ofAddress = this.#byAddress.get(network) ?? 0;
    const isShared = isWithin(ofChannel, count, free) && isWithin(ofAddress, count, Math.floor((free - ofChannel) / ADDRESS_PART));
    if (count > free || !isShared) return undefined;
    this.#add(network, channel, count);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#add(network, channel, -count);
    };
  }

  #add(network: string, channel: string | undefined, count: number): void {
    this.#held += count;
    change(this.#byAddress, network, count);
    if (channel !== undefined) change(this.#byChannel, channel, count);
  }
}

const isWithin = (held: number, count: number, share: number) => held + count <= Math.max(FLOOR, share);

function change(counts: Map<string, number>, key: string, by: number): void {
  const count = (counts.get(key) ?? 0) + by;
  if (count > 0) counts.set(key, count);
  else counts.delete(key);
}
