import type { Socket } from 'node:net';
import { addressGroup } from '../../runtime/addresses.js';

export interface ConnectionLimitsOptions {
  /** Open connections of all clients. */
  readonly total: number;
  /** Of one address. Undefined: the peers are our own proxies. */
  readonly perAddress: number | undefined;
}

/** Open connections, counted over all ports that share this. What is one too many is closed without a word. */
export class ConnectionLimits {
  /** Rising; read by the metrics. */
  refused = 0;
  /** Closed because of too many unanswered requests; rising. */
  overrun = 0;
  /** Answers of HTTP/2 that were ended because their client took nothing of them; rising. */
  unread = 0;
  readonly #options: ConnectionLimitsOptions;
  readonly #perAddress = new Map<string, number>();
  #open = 0;

  constructor(options: ConnectionLimitsOptions) {
    this.#options = options;
  }

  get open(): number {
    return this.#open;
  }

  /** Counts the connection until it closes; false: it is one too many, and is destroyed. */
  admit(socket: Socket): boolean {
    const { total, perAddress = Number.POSITIVE_INFINITY } = this.#options;
    // Undefined when it is gone already.
    const from = socket.remoteAddress === undefined ? undefined : addressGroup(socket.remoteAddress);
    const count = from === undefined ? 0 : (this.#perAddress.get(from) ?? 0);
    if (from === undefined || this.#open >= total || count >= perAddress) {
      this.refused++;
      socket.destroy();
      return false;
    }
    this.#open++;
    this.#perAddress.set(from, count + 1);
    socket.once('close', () => {
      this.#open--;
      const left = this.#perAddress.get(from)! - 1;
      if (left > 0) this.#perAddress.set(from, left);
      else this.#perAddress.delete(from);
    });
    return true;
  }
}
