import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';

export interface SignInQueueSizes {
  /** Sign-ins under way from addresses that the account is not known to sign in from. */
  readonly strangers: number;
  /** The most of these sign-ins that one address may have under way. */
  readonly perAddress: number;
  /** Places for addresses that the account is known to sign in from; nobody else takes them. */
  readonly known: number;
  /** Sign-ins that wait. */
  readonly waiting: number;
  readonly maxWaitMs: number;
}

export interface SignInSource {
  readonly address: string;
  readonly isKnown: boolean;
  /** Sign-ins from this address failed a short time ago: it waits behind the others. */
  readonly hasFailed: boolean;
}

interface Waiting {
  readonly address: string;
  readonly hasFailed: boolean;
  begin(): void;
  refuse(): void;
}

/** One for all: where it was thrown is known, and finding that out anew is a good part of what a refusal costs. */
const FULL = new VezaError('busy', 'Too many people sign in at once. Try again in a few seconds.', { details: { retryAfterS: 2 } });

/**
 * How many sign-ins are under way at one time, because each costs a password hash. The others wait, and are served address by address in turn,
 * those without a failure first: many people behind one address all get in, and a flood from one address delays that address alone. When too
 * many wait, the address with the most waiting gives way.
 */
export class SignInQueue {
  readonly #sizes: SignInQueueSizes;
  readonly #clock: Clock;
  /** Under way, by address; strangers only. */
  readonly #running = new Map<string, number>();
  #strangers = 0;
  #known = 0;
  /** By address, in the order of their turn. */
  readonly #clean = new Map<string, Waiting[]>();
  readonly #failed = new Map<string, Waiting[]>();
  #waiting = 0;

  constructor(clock: Clock, sizes: SignInQueueSizes) {
    this.#clock = clock;
    this.#sizes = sizes;
  }

  /** Rejects with `busy`: too many wait, or it has waited too long. */
  async run<T>(source: SignInSource, task: () => Promise<T>): Promise<T> {
    if (source.isKnown && this.#known < this.#sizes.known) {
      this.#known++;
      try {
        return await task();
      } finally {
        this.#known--;
      }
    }
    const { address } = source;
    if (this.#waiting === 0 && this.#hasRoomFor(address)) this.#take(address);
    else await this.#wait(source);
    try {
      return await task();
    } finally {
      this.#strangers--;
      const left = (this.#running.get(address) ?? 1) - 1;
      if (left > 0) this.#running.set(address, left);
      else this.#running.delete(address);
      this.#next();
    }
  }

  #hasRoomFor(address: string): boolean {
    return this.#strangers < this.#sizes.strangers && (this.#running.get(address) ?? 0) < this.#sizes.perAddress;
  }

  #take(address: string): void {
    this.#strangers++;
    this.#running.set(address, (this.#running.get(address) ?? 0) + 1);
  }

  #wait({ address, hasFailed }: SignInSource): Promise<void> {
    const queue = hasFailed ? this.#failed : this.#clean;
    if (this.#waiting >= this.#sizes.waiting && !this.#makeRoom((queue.get(address)?.length ?? 0) + 1)) throw FULL;
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(this.#sizes.maxWaitMs, () => {
        this.#remove(waiting);
        reject(FULL);
      });
      const waiting: Waiting = {
        address,
        hasFailed,
        begin: () => {
          cancel();
          resolve();
        },
        refuse: () => {
          cancel();
          reject(FULL);
        },
      };
      const ofAddress = queue.get(address);
      if (ofAddress) ofAddress.push(waiting);
      else queue.set(address, [waiting]);
      this.#waiting++;
      // The queue may hold only addresses that have all their places.
      this.#next();
    });
  }

  /** Refuses the last of the address that has the most waiting, if that is more than `count`: first of those that failed. */
  #makeRoom(count: number): boolean {
    for (const queue of [this.#failed, this.#clean]) {
      let longest: Waiting[] = [];
      for (const ofAddress of queue.values()) if (ofAddress.length > longest.length) longest = ofAddress;
      const last = longest.length > count ? longest.at(-1) : undefined;
      if (!last) continue;
      this.#remove(last);
      last.refuse();
      return true;
    }
    return false;
  }

  #remove(waiting: Waiting): void {
    const queue = waiting.hasFailed ? this.#failed : this.#clean;
    const left = (queue.get(waiting.address) ?? []).filter((other) => other !== waiting);
    if (left.length > 0) queue.set(waiting.address, left);
    else queue.delete(waiting.address);
    this.#waiting--;
  }

  #next(): void {
    for (const queue of [this.#clean, this.#failed]) {
      for (let found = this.#nextOf(queue); found; found = this.#nextOf(queue)) {
        this.#take(found.address);
        found.begin();
      }
    }
  }

  #nextOf(queue: Map<string, Waiting[]>): Waiting | undefined {
    if (this.#strangers >= this.#sizes.strangers) return undefined;
    for (const [address, ofAddress] of queue) {
      if (!this.#hasRoomFor(address)) continue;
      const first = ofAddress[0]!;
      this.#remove(first);
      // Its next one comes after everybody else's.
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
