import { addressGroup } from '../runtime/addresses.js';
import { BoundedMap } from '../runtime/bounded-map.js';
import type { Clock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import { Places } from '../runtime/places.js';
import { sleep } from '../runtime/waiting.js';

/** Keys of one query; more go into the next. */
const KEYS_PER_QUERY = 200;
/** Between an answer and the next query: what comes in that time is asked for together. */
const GATHER_MS = 50;
/** Look-ups that wait; an address has a fifth of them at most. */
const MAX_WAITING = 5000;
/** An encoder waits longer than this for an answer, and tries again by itself. */
const MAX_WAIT_MS = 5000;
/** How long it is remembered that nobody has a key. */
const NOBODYS_MS = 10_000;
const MAX_NOBODYS = 10_000;
/** Keys of one address that were nobody's, looked up within a minute; after that, one of its keys is looked up a query. */
const MAX_WRONG = 100;
const WRONG_WINDOW_MS = 60_000;
const MAX_NETWORKS = 10_000;

interface LookUp<V> {
  readonly name: string;
  readonly network: string;
  readonly settle: (outcome: { value: V | undefined } | { error: unknown }) => void;
}

/** Finds the values of at most 200 names, each given once; names that nobody has are left out. */
type ReadKeys<V> = (names: readonly string[]) => Promise<ReadonlyMap<string, V>>;

/**
 * Look-ups of stream keys that this process has not seen to be good. Whoever reaches a port for broadcasters may try any number of keys, so that the
 * database has one query of theirs at a time, for up to 200 keys. Addresses have their turn one after the other. Nothing is to be guessed (a key has 130
 * random bits), so that an address with many wrong keys is not locked out, which would also refuse the encoders behind it: it is slowed.
 */
export class StreamKeyLookups<V> {
  readonly #clock: Clock;
  readonly #read: ReadKeys<V>;
  readonly #places = new Places(MAX_WAITING);
  /** Oldest first, by network; the networks in the order of their turns. */
  readonly #queues = new Map<string, Set<LookUp<V>>>();
  /** Names that nobody has, with the time until which that is believed; oldest first. */
  readonly #nobodys = new BoundedMap<string, number>(MAX_NOBODYS);
  /** Names looked up that nobody has, by network; oldest window first. */
  readonly #wrong = new BoundedMap<string, { count: number; readonly untilMs: number }>(MAX_NETWORKS);
  #changes = 0;
  #isReading = false;

  constructor(clock: Clock, read: ReadKeys<V>) {
    this.#clock = clock;
    this.#read = read;
  }

  /** Undefined: nobody has it. Rejects with `busy` when too many wait or it took too long, and with what the query rejects with. */
  load(name: string, address: string): Promise<V | undefined> {
    const until = this.#nobodys.get(name);
    if (until !== undefined && this.#clock.monotonicMs() < until) return Promise.resolve(undefined);
    const network = addressGroup(address);
    const leave = this.#places.take(network);
    if (!leave) return Promise.reject(new VezaError('busy', 'Too many stream keys are being checked. Try again in a second.'));
    const loaded = new Promise<V | undefined>((resolve, reject) => {
      const lookUp: LookUp<V> = {
        name,
        network,
        settle: (outcome) => {
          cancel();
          leave();
          if ('error' in outcome) reject(outcome.error);
          else resolve(outcome.value);
        },
      };
      const cancel = this.#clock.after(MAX_WAIT_MS, () => {
        this.#dequeue(lookUp);
        lookUp.settle({ error: new VezaError('busy', 'There was no time to check the stream key. Try again in a second.') });
      });
      const queue = this.#queues.get(network) ?? new Set();
      this.#queues.set(network, queue);
      queue.add(lookUp);
    });
    if (!this.#isReading) void this.#readAll();
    return loaded;
  }

  /** A key was made: what was found before is not to be relied on. */
  changed(): void {
    this.#changes++;
    this.#nobodys.clear();
  }

  #dequeue(lookUp: LookUp<V>): void {
    const queue = this.#queues.get(lookUp.network);
    if (queue?.delete(lookUp) && queue.size === 0) this.#queues.delete(lookUp.network);
  }

  /** Never rejects. */
  async #readAll(): Promise<void> {
    this.#isReading = true;
    // What comes in the same step goes along.
    await undefined;
    for (let isFirst = true; this.#queues.size > 0; isFirst = false) {
      if (!isFirst) await sleep(this.#clock, GATHER_MS);
      const lookUps = this.#next();
      if (lookUps.length === 0) continue;
      const changes = this.#changes;
      try {
        const found = await this.#read([...new Set(lookUps.map(({ name }) => name))]);
        const wrong = new Map(lookUps.filter(({ name }) => !found.has(name)).map(({ name, network }) => [name, network]));
        for (const [name, network] of wrong) this.#countWrong(name, network, changes);
        for (const { name, settle } of lookUps) settle({ value: found.get(name) });
      } catch (error) {
        for (const { settle } of lookUps) settle({ error });
      }
    }
    this.#isReading = false;
  }

  /** Look-ups for the next query, one of each network in turn; of a network with many wrong keys one in all. */
  #next(): LookUp<V>[] {
    const lookUps: LookUp<V>[] = [];
    const slowed: [string, Set<LookUp<V>>][] = [];
    for (const [network, queue] of this.#queues) {
      if (lookUps.length === KEYS_PER_QUERY) break;
      const [lookUp] = queue;
      // A network is last after its turn, and comes again in this loop unless it is slowed.
      this.#queues.delete(network);
      if (!lookUp) continue;
      lookUps.push(lookUp);
      queue.delete(lookUp);
      if (queue.size === 0) continue;
      if (this.#isSlowed(network)) slowed.push([network, queue]);
      else this.#queues.set(network, queue);
    }
    for (const [network, queue] of slowed) this.#queues.set(network, queue);
    return lookUps;
  }

  #isSlowed(network: string): boolean {
    const wrong = this.#wrong.get(network);
    return wrong !== undefined && wrong.count >= MAX_WRONG && this.#clock.monotonicMs() < wrong.untilMs;
  }

  #countWrong(name: string, network: string, changes: number): void {
    const nowMs = this.#clock.monotonicMs();
    if (changes === this.#changes) {
      this.#nobodys.set(name, nowMs + NOBODYS_MS);
    }
    let wrong = this.#wrong.get(network);
    if (!wrong || nowMs >= wrong.untilMs) {
      wrong = { count: 0, untilMs: nowMs + WRONG_WINDOW_MS };
      this.#wrong.set(network, wrong);
    }
    wrong.count++;
  }
}
