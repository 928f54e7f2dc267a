import { addressGroup } from '../runtime/addresses.js';
import { BoundedMap } from '../runtime/bounded-map.js';
import type { Clock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import { Places } from '../runtime/places.js';
import { sleep } from '../runtime/waiting.js';

/** Keys per query. More keys wait for the next query. */
const KEYS_PER_QUERY = 200;
/** The pause between an answer and the next query, in which keys are gathered for one query. */
const GATHER_MS = 50;
/** At most this many lookups wait. One address may have at most a fifth of them. */
const MAX_WAITING = 5000;
/**
 * A lookup that waits longer is rejected. Encoders wait longer than this for an answer, and try
 * again by themselves.
 */
const MAX_WAIT_MS = 5000;
/** How long a key that no channel has is cached as unknown. */
const UNKNOWN_KEPT_MS = 10_000;
/** At most this many unknown keys are cached. */
const MAX_UNKNOWN = 10_000;
/**
 * After this many unknown keys within a minute, only one key of the address is looked up per query.
 */
const MAX_WRONG = 100;
const WRONG_WINDOW_MS = 60_000;
/** At most this many networks have a count of unknown keys. */
const MAX_NETWORKS = 10_000;

interface LookUp<V> {
  readonly name: string;
  readonly network: string;
  readonly settle: (outcome: { value: V | undefined } | { error: unknown }) => void;
}

/** Finds the values of at most 200 different names. Names without a value are left out. */
type ReadKeys<V> = (names: readonly string[]) => Promise<ReadonlyMap<string, V>>;

/**
 * Lookups of stream keys that were not good in this process before. Everybody who reaches an ingest
 * port may try any number of keys, so the database gets one query of them at a time, for at most
 * 200 keys, and addresses take turns. An address with many unknown keys is slowed and not locked
 * out, because encoders with good keys may share the address. Slowing is enough: a key has 130
 * random bits and cannot be guessed.
 */
export class StreamKeyLookups<V> {
  readonly #clock: Clock;
  readonly #read: ReadKeys<V>;
  readonly #places = new Places(MAX_WAITING);
  /** Waiting lookups by network, oldest first. The networks are in the order of their turns. */
  readonly #queues = new Map<string, Set<LookUp<V>>>();
  /**
   * Names that no channel has, with the monotonic time until which this is cached. Oldest first.
   */
  readonly #unknown = new BoundedMap<string, number>(MAX_UNKNOWN);
  /** Unknown names that were looked up per network. The oldest window is first. */
  readonly #wrong = new BoundedMap<string, { count: number; readonly untilMs: number }>(MAX_NETWORKS);
  #changes = 0;
  #isReading = false;

  constructor(clock: Clock, read: ReadKeys<V>) {
    this.#clock = clock;
    this.#read = read;
  }

  /**
   * The value of a name. Undefined: no channel has it. Rejects with `busy` if too many lookups wait
   * or the lookup took too long, and with the error of the query.
   */
  load(name: string, address: string): Promise<V | undefined> {
    const until = this.#unknown.get(name);
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
        lookUp.settle({ error: new VezaError('busy', 'The stream key could not be checked in time. Try again in a second.') });
      });
      const queue = this.#queues.get(network) ?? new Set();
      this.#queues.set(network, queue);
      queue.add(lookUp);
    });
    if (!this.#isReading) void this.#readAll();
    return loaded;
  }

  /** Called when a key was made: cached unknown keys are forgotten. */
  changed(): void {
    this.#changes++;
    this.#unknown.clear();
  }

  #dequeue(lookUp: LookUp<V>): void {
    const queue = this.#queues.get(lookUp.network);
    if (queue?.delete(lookUp) && queue.size === 0) this.#queues.delete(lookUp.network);
  }

  /** Runs queries until no lookup waits. Never rejects. */
  async #readAll(): Promise<void> {
    this.#isReading = true;
    // Lookups of the same tick share the first query.
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

  /**
   * The lookups of the next query: one per network in turn, until the query is full. A slowed
   * network gets only one.
   */
  #next(): LookUp<V>[] {
    const lookUps: LookUp<V>[] = [];
    const slowed: [string, Set<LookUp<V>>][] = [];
    for (const [network, queue] of this.#queues) {
      if (lookUps.length === KEYS_PER_QUERY) break;
      const [lookUp] = queue;
      // A network goes to the end after its turn. It gets another turn in this loop unless it is
      // slowed.
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
      this.#unknown.set(name, nowMs + UNKNOWN_KEPT_MS);
    }
    let wrong = this.#wrong.get(network);
    if (!wrong || nowMs >= wrong.untilMs) {
      wrong = { count: 0, untilMs: nowMs + WRONG_WINDOW_MS };
      this.#wrong.set(network, wrong);
    }
    wrong.count++;
  }
}
