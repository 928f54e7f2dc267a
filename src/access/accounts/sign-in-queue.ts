import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';

export interface SignInQueueSizes {
  /**
   * At most this many sign-ins run at once from addresses that the account has not signed in from
   * before.
   */
  readonly strangers: number;
  /** At most this many of these run at once from one address. */
  readonly perAddress: number;
  /** Slots reserved for addresses that the account has signed in from before. */
  readonly known: number;
  /** At most this many sign-ins wait. */
  readonly waiting: number;
  readonly maxWaitMs: number;
}

export interface SignInSource {
  readonly address: string;
  readonly isKnown: boolean;
  /**
   * Whether a sign-in from this address failed a short time ago. Such addresses are served after
   * the others.
   */
  readonly hasFailed: boolean;
}

interface WaitingSignIn {
  readonly address: string;
  readonly hasFailed: boolean;
  begin(): void;
  refuse(): void;
}

/**
 * One error object for all refusals. Its stack trace says nothing new, and making one is a good
 * part of the cost of a refusal.
 */
const TOO_MANY_SIGN_INS = new VezaError('busy', 'Too many people are signing in. Try again in a few seconds.', {
  details: { retryAfterS: 2 },
});

/**
 * Limits how many sign-ins run at once, because each costs a password hash. The others wait and are
 * served one address after another, addresses without a failure first. Many people behind one
 * address all get in, and a flood from one address delays only that address. When the queue is
 * full, a sign-in from the address with the most waiting sign-ins is refused.
 */
export class SignInQueue {
  readonly #sizes: SignInQueueSizes;
  readonly #clock: Clock;
  /** Running sign-ins from unknown addresses, by address. */
  readonly #running = new Map<string, number>();
  #unknownRunning = 0;
  #knownRunning = 0;
  /**
   * Waiting sign-ins from addresses without a failure, by address. The addresses are in the order
   * in which they are served.
   */
  readonly #withoutFailure = new Map<string, WaitingSignIn[]>();
  /** Waiting sign-ins from addresses with a recent failure. */
  readonly #withFailure = new Map<string, WaitingSignIn[]>();
  #waiting = 0;

  constructor(clock: Clock, sizes: SignInQueueSizes) {
    this.#clock = clock;
    this.#sizes = sizes;
  }

  /**
   * Runs `task` in its turn. Rejects with `busy` if too many sign-ins wait, or after `maxWaitMs` in
   * the queue.
   */
  async run<T>(source: SignInSource, task: () => Promise<T>): Promise<T> {
    if (source.isKnown && this.#knownRunning < this.#sizes.known) {
      this.#knownRunning++;
      try {
        return await task();
      } finally {
        this.#knownRunning--;
      }
    }
    const { address } = source;
    if (this.#waiting === 0 && this.#hasRoomFor(address)) this.#start(address);
    else await this.#wait(source);
    try {
      return await task();
    } finally {
      this.#unknownRunning--;
      const left = (this.#running.get(address) ?? 1) - 1;
      if (left > 0) this.#running.set(address, left);
      else this.#running.delete(address);
      this.#startWaiting();
    }
  }

  #hasRoomFor(address: string): boolean {
    return this.#unknownRunning < this.#sizes.strangers && (this.#running.get(address) ?? 0) < this.#sizes.perAddress;
  }

  #start(address: string): void {
    this.#unknownRunning++;
    this.#running.set(address, (this.#running.get(address) ?? 0) + 1);
  }

  #wait({ address, hasFailed }: SignInSource): Promise<void> {
    const queue = hasFailed ? this.#withFailure : this.#withoutFailure;
    if (this.#waiting >= this.#sizes.waiting && !this.#makeRoom((queue.get(address)?.length ?? 0) + 1)) throw TOO_MANY_SIGN_INS;
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(this.#sizes.maxWaitMs, () => {
        this.#remove(waiting);
        reject(TOO_MANY_SIGN_INS);
      });
      const waiting: WaitingSignIn = {
        address,
        hasFailed,
        begin: () => {
          cancel();
          resolve();
        },
        refuse: () => {
          cancel();
          reject(TOO_MANY_SIGN_INS);
        },
      };
      const ofAddress = queue.get(address);
      if (ofAddress) ofAddress.push(waiting);
      else queue.set(address, [waiting]);
      this.#waiting++;
      // The sign-ins ahead may all be from addresses that use all their slots.
      this.#startWaiting();
    });
  }

  /**
   * Refuses the newest sign-in of the address with the most waiting, if that address has more than
   * `count` of them. Addresses with a failure are tried first.
   */
  #makeRoom(count: number): boolean {
    for (const queue of [this.#withFailure, this.#withoutFailure]) {
      let longest: WaitingSignIn[] = [];
      for (const ofAddress of queue.values()) if (ofAddress.length > longest.length) longest = ofAddress;
      const last = longest.length > count ? longest.at(-1) : undefined;
      if (!last) continue;
      this.#remove(last);
      last.refuse();
      return true;
    }
    return false;
  }

  #remove(waiting: WaitingSignIn): void {
    const queue = waiting.hasFailed ? this.#withFailure : this.#withoutFailure;
    const left = (queue.get(waiting.address) ?? []).filter((other) => other !== waiting);
    if (left.length > 0) queue.set(waiting.address, left);
    else queue.delete(waiting.address);
    this.#waiting--;
  }

  #startWaiting(): void {
    for (const queue of [this.#withoutFailure, this.#withFailure]) {
      for (let found = this.#dequeue(queue); found; found = this.#dequeue(queue)) {
        this.#start(found.address);
        found.begin();
      }
    }
  }

  #dequeue(queue: Map<string, WaitingSignIn[]>): WaitingSignIn | undefined {
    if (this.#unknownRunning >= this.#sizes.strangers) return undefined;
    for (const [address, ofAddress] of queue) {
      if (!this.#hasRoomFor(address)) continue;
      const first = ofAddress[0]!;
      this.#remove(first);
      // The address goes to the end of the queue.
      const left = queue.get(address);
      if (left) {
        queue.delete(address);
        queue.set(address, left);
      }
      return first;
    }
    return undefined;
  }
}
