import type { Socket } from 'node:net';
import { addressGroup } from '../../runtime/addresses.js';

export interface ConnectionLimitsOptions {
  /** Most open connections, of all clients together. */
  readonly total: number;
  /**
   * Most open connections of one address. Undefined: no limit, since all peers are the operator's
   * own proxies.
   */
  readonly perAddress: number | undefined;
}

/**
 * Counts open connections over all ports that share this object. A connection above a limit is
 * destroyed without an answer.
 */
export class ConnectionLimits {
  /** Connections that were refused; only rises, read by the metrics. */
  refused = 0;
  /** Connections that were closed because of too many unanswered requests; only rises. */
  overrun = 0;
  /** Answers of HTTP/2 that were ended because the client read nothing of them; only rises. */
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

  /** Counts the connection until it closes. False: it is above a limit, and was destroyed. */
  admit(socket: Socket): boolean {
    const { total, perAddress = Number.POSITIVE_INFINITY } = this.#options;
    // The address is undefined when the connection has closed already.
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
