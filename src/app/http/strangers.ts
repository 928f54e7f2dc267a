import type { ServerResponse } from 'node:http';
import type Koa from 'koa';
import { addressGroup } from '../../runtime/addresses.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { Places } from '../../runtime/places.js';

/** Requests of clients nobody knows that are worked on at one time: each has one query at the database at most, which has 40 connections (embedded: one). */
const AT_WORK = 8;
/** Requests that wait for their turn; an address has a fifth of them at most. */
const MAX_WAITING = 5000;
/** A browser waits longer than this for an answer, and the page asks again. */
const MAX_WAIT_MS = 5000;

type Begin = () => void;

/**
 * One gate for the work that clients nobody knows cause: reads without a credential, and the look-up of a credential that was not seen before. However many of
 * them ask, the database has few of their queries at one time, so that who is signed in does not wait behind them. Addresses have their turn one after the
 * other: who sends a thousand requests waits for the thousand, and another address for one.
 */
export class Strangers {
  readonly #clock: Clock;
  readonly #atWork: number;
  readonly #places: Places;
  /** Oldest first, by network; the networks in the order of their turns. */
  readonly #queues = new Map<string, Set<Begin>>();
  #working = 0;

  constructor(clock: Clock, { atWork = AT_WORK, maxWaiting = MAX_WAITING } = {}) {
    this.#clock = clock;
    this.#atWork = atWork;
    this.#places = new Places(maxWaiting);
  }

  /** Around a request of which nobody is known yet, until it is answered or `leave` is called. */
  readonly around: Koa.Middleware = async (ctx, next) => {
    const done = await this.enter(ctx.ip, ctx.res);
    ctx.state.leaveStrangers = done;
    try {
      await next();
    } finally {
      done();
    }
  };

  /** It is known now whose request it is, or what comes next has limits of its own. */
  leave(ctx: Koa.Context): void {
    (ctx.state.leaveStrangers as (() => void) | undefined)?.();
  }

  /** Resolves when it is the request's turn, with what ends it: to be called once or more. Rejects with `busy`. */
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
        reject(new VezaError('busy', 'There was no time for this request. Try again in a second.'));
      };
      const cancel = this.#clock.after(MAX_WAIT_MS, giveUp);
      // Its client may have gone.
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
      // Behind the others, unless it was the last.
      this.#queues.delete(network);
      if (!begin) continue;
      queue.delete(begin);
      if (queue.size > 0) this.#queues.set(network, queue);
      begin();
    }
  }
}
