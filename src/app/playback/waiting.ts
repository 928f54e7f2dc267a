import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import { reportUnexpected } from '../../runtime/unexpected.js';

/** A request that waits for something to be published. */
export interface Waiter {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  /** The token of the link, if it is in the address. */
  readonly token?: string | undefined;
}

export type WaiterAnswer = (waiter: Waiter) => void;

interface WaiterGroup {
  readonly waiters: Map<Waiter, number>;
  /**
   * Returns the answer, or undefined to go on waiting. Called once per change for the whole group.
   */
  readonly settle: () => WaiterAnswer | undefined;
  readonly timeoutMs: number;
  readonly timedOut: WaiterAnswer;
  cancelTimer: () => void;
}

/**
 * Answers written before other work gets its turn. Large on purpose: between slices, clients that
 * were answered ask again and delay those that still wait. The last of 10,000 clients has its bytes
 * after 150 ms of CPU time in one slice, after 320 ms in slices of 256.
 */
const SLICE = 16_384;

/**
 * The waiting requests of one channel, in groups that wait for the same thing. Per change each
 * group is checked once, its answer is made once, and writing it is a tight loop. A waiter leaves
 * when its client does.
 */
export class WaitingRoom {
  readonly #groups = new Map<string, WaiterGroup>();
  readonly #clock: Clock;
  readonly #subscribe: (listener: () => void) => () => void;
  readonly #count: (change: 1 | -1) => void;
  #unsubscribe: (() => void) | undefined;
  #due = false;

  /**
   * `subscribe` calls back once, at the next change. `count` is called for each waiter that comes
   * or leaves.
   */
  constructor(clock: Clock, subscribe: (listener: () => void) => () => void, count: (change: 1 | -1) => void) {
    this.#clock = clock;
    this.#subscribe = subscribe;
    this.#count = count;
  }

  get isEmpty(): boolean {
    return this.#groups.size === 0;
  }

  /**
   * Adds a waiter to the group `key`. The group keeps the `settle` and time limit of its first
   * waiter.
   */
  add(key: string, waiter: Waiter, timeoutMs: number, timedOut: WaiterAnswer, settle: () => WaiterAnswer | undefined): void {
    let group = this.#groups.get(key);
    if (!group) {
      group = { waiters: new Map(), settle, timeoutMs, timedOut, cancelTimer: () => undefined };
      this.#groups.set(key, group);
      this.#arm(key, group, timeoutMs);
    }
    const joined = group;
    joined.waiters.set(waiter, this.#clock.monotonicMs());
    this.#count(1);
    waiter.res.once('close', () => this.#leave(key, joined, waiter));
    this.#unsubscribe ??= this.#subscribe(this.#changed);
  }

  // The answers go out in the next turn of the event loop: the publisher must not wait for them.
  readonly #changed = () => {
    this.#unsubscribe = undefined;
    if (this.#due) return;
    this.#due = true;
    setImmediate(() => {
      this.#due = false;
      each(this.#groups, ([key, group]) => {
        const answer = group.settle();
        if (!answer) return;
        this.#close(key, group);
        this.#release(group, answer);
      });
      if (this.#groups.size > 0) this.#unsubscribe ??= this.#subscribe(this.#changed);
    });
  };

  /** Answers all waiters now. */
  releaseAll(answer: WaiterAnswer): void {
    for (const [key, group] of this.#groups) {
      this.#close(key, group);
      this.#release(group, answer);
    }
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
  }

  #release(group: WaiterGroup, answer: WaiterAnswer): void {
    let left = SLICE;
    for (const waiter of group.waiters.keys()) {
      if (left-- === 0) {
        setImmediate(() => this.#release(group, answer));
        return;
      }
      group.waiters.delete(waiter);
      this.#count(-1);
      this.#give(answer, waiter);
    }
  }

  /**
   * Answers one waiter. When that throws, its connection is destroyed, and the others are still
   * answered.
   */
  #give(answer: WaiterAnswer, waiter: Waiter): void {
    try {
      answer(waiter);
    } catch (error) {
      reportUnexpected(error);
      waiter.res.destroy();
    }
  }

  #leave(key: string, group: WaiterGroup, waiter: Waiter): void {
    if (!group.waiters.delete(waiter)) return;
    this.#count(-1);
    if (group.waiters.size > 0) return;
    if (this.#groups.get(key) === group) this.#close(key, group);
    if (this.#groups.size > 0) return;
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
  }

  #close(key: string, group: WaiterGroup): void {
    group.cancelTimer();
    this.#groups.delete(key);
  }

  // One timer per group, for its oldest waiter: 10,000 timers would cost more than the answers.
  #arm(key: string, group: WaiterGroup, delayMs: number): void {
    group.cancelTimer = this.#clock.after(delayMs, () => {
      const nowMs = this.#clock.monotonicMs();
      for (const [waiter, sinceMs] of group.waiters) {
        const leftMs = sinceMs + group.timeoutMs - nowMs;
        if (leftMs > 0) {
          this.#arm(key, group, leftMs);
          return;
        }
        this.#leave(key, group, waiter);
        this.#give(group.timedOut, waiter);
      }
    });
  }
}
