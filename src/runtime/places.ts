/** Slots that an address or a channel may always have while any are free. */
const FLOOR = 2;
/**
 * An address may have a quarter of the slots that its channel leaves free. When no other address is
 * waiting, that is about a sixth of all slots.
 */
const ADDRESS_PART = 4;

/**
 * A bounded number of slots, shared fairly: no crowd takes the slots of others. A channel may have
 * as many slots as are free at that moment (half of all when it is the only channel). An address
 * may have a quarter of what the channel then leaves free. The more slots are taken, the fewer
 * anybody may have, so that a new client finds one and a client with many gets no more. Network
 * switches share their buffers in the same way ("dynamic thresholds", Choudhury and Hahne, 1998).
 * No list of holders has to be ordered, and a slot is never taken back from its holder.
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
   * Takes `count` slots, or returns undefined when the share of the client's network or of the
   * channel is used up. Without a channel only the network's share counts. Returns a function that
   * gives the slots back; calling it again is harmless.
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
