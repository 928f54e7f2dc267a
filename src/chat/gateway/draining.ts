import type { Clock } from '../../runtime/clock.js';
import { CLOSE } from '../protocol/protocol.js';
import type { ClientConnection } from './connection.js';

/** The longest time that `drainAll` waits for clients to close. */
const MAX_DRAIN_MS = 2500;
const DRAIN_STEP_MS = 20;

export interface DrainingOptions {
  readonly clock: Clock;
  readonly allConnections: () => ClientConnection[];
  readonly openCount: () => number;
  readonly closeConnection: (connection: ClientConnection, code: number, reason: string) => void;
}

/** Sends clients away before the process ends, and gives each its own time to reconnect. */
export class Draining {
  readonly #options: DrainingOptions;
  /** Connections that are still to be sent away; undefined: draining has not begun. */
  #remaining: ClientConnection[] | undefined;

  constructor(options: DrainingOptions) {
    this.#options = options;
  }

  /** True from the first drain on. The process then admits no new connection. */
  get hasBegun(): boolean {
    return this.#remaining !== undefined;
  }

  /**
   * Closes `count` connections. Each client is told to reconnect after a random time of at most
   * `retryMs`.
   */
  drainConnections(count: number, retryMs: number): void {
    this.#remaining ??= this.#options.allConnections();
    for (let left = count; left > 0; ) {
      const connection = this.#remaining.pop();
      if (!connection) return;
      if (!connection.isAlive) continue;
      left--;
      if (connection.state === 'open') connection.sendReply(`{"t":"drain","retryMs":${Math.ceil(Math.random() * retryMs)}}`);
      this.#options.closeConnection(connection, CLOSE.restart, 'restart');
    }
  }

  /**
   * Sends every client away. Resolves when all connections have closed, or after `MAX_DRAIN_MS`.
   */
  async drainAll(retryMs: number): Promise<void> {
    const { clock, openCount } = this.#options;
    this.drainConnections(Number.POSITIVE_INFINITY, retryMs);
    const untilMs = clock.monotonicMs() + MAX_DRAIN_MS;
    while (openCount() > 0 && clock.monotonicMs() < untilMs)
      await new Promise<void>((resolve) => {
        clock.after(DRAIN_STEP_MS, resolve);
      });
  }
}
