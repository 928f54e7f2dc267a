import type { ServerResponse } from 'node:http';
import type Koa from 'koa';
import { addressGroup } from '../../runtime/addresses.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { Places } from '../../runtime/places.js';

/**
 * Requests of anonymous clients that are handled at one time. Each has at most one query at the
 * database, which has 40 connections (embedded: one).
 */
const AT_WORK = 8;
/** Requests that wait for their turn; one address has at most a fifth of them. */
const MAX_WAITING = 5000;
/**
 * A request that has waited for this time is refused with `busy`. A browser waits longer, and the
 * page asks again.
 */
const MAX_WAIT_MS = 5000;

type Begin = () => void;

/**
 * One gate for the work of anonymous clients: reads without a credential, and looking up a
 * credential for the first time. However many such requests come, the database has few of their
 * queries at one time, and signed-in people do not wait behind them. Addresses take turns: a client
 * that sends a thousand requests waits for its thousand, another address for one.
 */
export class Strangers {
  readonly #clock: Clock;
  readonly #atWork: number;
  readonly #places: Places;
  /** Waiting requests per network, oldest first; the networks are in the order of their turns. */
  readonly #queues = new Map<string, Set<Begin>>();
  #working = 0;

  constructor(clock: Clock, { atWork = AT_WORK, maxWaiting = MAX_WAITING } = {}) {
    this.#clock = clock;
    this.#atWork = atWork;
    this.#places = new Places(maxWaiting);
  }

  /**
   * Holds a turn around a request whose principal is not known yet, until it is answered or `leave`
   * is called.
   */
  readonly around: Koa.Middleware = async (ctx, next) => {
    const done = await this.enter(ctx.ip, ctx.res);
    ctx.state.leaveStrangers = done;
    try {
      await next();
    } finally {
      done();
    }
  };

  /**
   * Gives the turn back early: the principal is known now, or the next step has limits of its own.
   */
  leave(ctx: Koa.Context): void {
    (ctx.state.leaveStrangers as (() => void) | undefined)?.();
  }

  /**
   * Resolves on the request's turn, with a function that ends the turn; calling it more than once
   * is harmless. Rejects with `busy`.
   */
  enter(address: string, res: ServerResponse): Promise<() => void> {
    if (this.#working < this.#atWork) return Promise.resolve(this.#begun());
    const network = addressGroup(address);
    const leave = this.#places.take(network);
    if (!leave) {
      return Promise.reject(new VezaError('busy', 'Too many requests are waiting. Try again in a second.'));
    }
    return new Promise((resolve, reject) => {
      const queue = this.#queues.get(network) ?? new Set();
      this.#queues.set(network, queue);
      const left = () => {
        cancel();
        res.off('close', giveUp);
        leave();
      };
      const begin = () => {
        left();
        resolve(this.#begun());
      };
      const giveUp = () => {
        left();
        queue.delete(begin);
        if (queue.size === 0 && this.#queues.get(network) === queue) this.#queues.delete(network);
        reject(new VezaError('busy', 'The service is too busy for this request. Try again in a second.'));
      };
      const cancel = this.#clock.after(MAX_WAIT_MS, giveUp);
      // The client may leave while it waits.
      res.once('close', giveUp);
      queue.add(begin);
    });
  }

  #begun(): () => void {
    this.#working++;
    let isAtWork = true;
    return () => {
      if (!isAtWork) return;
      isAtWork = false;
      this.#working--;
      this.#next();
    };
  }

  #next(): void {
    for (const [network, queue] of this.#queues) {
      if (this.#working >= this.#atWork) return;
      const [begin] = queue;
      // The network goes behind the others; an empty queue goes away.
      this.#queues.delete(network);
      if (!begin) continue;
      queue.delete(begin);
      if (queue.size > 0) this.#queues.set(network, queue);
      begin();
    }
  }
}
