import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import { reportUnexpected } from '../../runtime/unexpected.js';

/** A request that waits for something to be published. */
export interface Waiter {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  /** Of the link that it came by, if that is in its address. */
  readonly token?: string | undefined;
}

export type Answer = (waiter: Waiter) => void;

interface Group {
  readonly waiters: Map<Waiter, number>;
  /** What to answer now, or undefined to go on waiting. Called once a change, for all waiters of the group. */
  readonly settle: () => Answer | undefined;
  readonly timeoutMs: number;
  readonly timedOut: Answer;
  cancelTimer: () => void;
}

/**
 * Answers written before other work gets its turn. Large on purpose: between slices the clients that were answered ask again, at the
 * expense of those that still wait. The last of 10,000 has its bytes after 150 ms of CPU time in one go, after 320 ms in slices of 256.
 */
const SLICE = 16_384;

/**
 * Requests of one channel that wait, in groups of those that wait for the same thing: the question whether it is there is asked
 * once a group and change, the answer is made once, and writing it is a tight loop. A waiter leaves when its client does.
 */
export class WaitingRoom {
  readonly #groups = new Map<string, Group>();
  readonly #clock: Clock;
  readonly #subscribe: (listener: () => void) => () => void;
  readonly #count: (change: 1 | -1) => void;
  #unsubscribe: (() => void) | undefined;
  #due = false;

  /** `subscribe` calls back once at the next change of what is waited for; `count` is told of each arrival and departure. */
  constructor(clock: Clock, subscribe: (listener: () => void) => () => void, count: (change: 1 | -1) => void) {
    this.#clock = clock;
    this.#subscribe = subscribe;
    this.#count = count;
  }

  get isEmpty(): boolean {
    return this.#groups.size === 0;
  }

  /** Adds to the group `key`; `settle` and the time limit are those of its first waiter. */
  add(key: string, waiter: Waiter, timeoutMs: number, timedOut: Answer, settle: () => Answer | undefined): void {
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

  // Publishing must not wait for the writing: the answers go out in the next turn, after the publisher has returned.
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

  /** Answers everybody now. */
  releaseAll(answer: Answer): void {
    for (const [key, group] of this.#groups) {
      this.#close(key, group);
      this.#release(group, answer);
    }
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
  }

  #release(group: Group, answer: Answer): void {
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

  /** One that cannot be answered is cut off, and keeps no other waiting. */
  #give(answer: Answer, waiter: Waiter): void {
    try {
      answer(waiter);
    } catch (error) {
      reportUnexpected(error);
      waiter.res.destroy();
    }
  }

  #leave(key: string, group: Group, waiter: Waiter): void {
    if (!group.waiters.delete(waiter)) return;
    this.#count(-1);
    if (group.waiters.size > 0) return;
    if (this.#groups.get(key) === group) this.#close(key, group);
    if (this.#groups.size > 0) return;
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
  }

  #close(key: string, group: Group): void {
    group.cancelTimer();
    this.#groups.delete(key);
  }

  // One timer a group, for its oldest waiter: 10,000 timers would cost more than the answers.
  #arm(key: string, group: Group, delayMs: number): void {
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
