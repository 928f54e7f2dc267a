import type { Clock } from '../../../runtime/clock.js';
import { EXACT_UP_TO, type LocalMembers } from './local-members.js';
import type { PresenceMessage } from './presence-bus.js';

/** How long other processes may take to answer. */
const ANSWER_MS = 300;
/** How long an answer is cached. */
const ANSWERED_MS = 1000;
/**
 * Rooms that are asked about per cache period at most. Above it only local members are returned.
 */
const MAX_QUERIES = 200;
const MAX_ID_CHARS = 1024;
const MAX_NAME_CHARS = 256;

/** One question to the other processes: who is in a room. */
interface PeopleQuery {
  readonly id: number;
  readonly limit: number;
  readonly people: Map<string, string>;
  /** Processes that have not answered. */
  readonly awaited: Set<string>;
  readonly answered: Promise<void>;
  readonly end: () => void;
}

export interface PeopleQueriesOptions {
  readonly clock: Clock;
  readonly processId: string;
  readonly local: LocalMembers;
  readonly publish: (message: PresenceMessage) => void;
}

/** Asks the other processes who is in a room, and answers their questions. */
export class PeopleQueries {
  readonly #options: PeopleQueriesOptions;
  /** Questions that are running or were answered within `ANSWERED_MS`, by room. */
  readonly #queries = new Map<string, PeopleQuery>();
  #lastId = 0;

  constructor(options: PeopleQueriesOptions) {
    this.#options = options;
  }

  /** People of the room in `processes`, by id. Calls at the same time share one question. */
  async findPeople(roomId: string, limit: number, processes: Iterable<string>): Promise<ReadonlyMap<string, string>> {
    const query = this.#ask(roomId, Math.min(limit, EXACT_UP_TO), new Set(processes));
    await query?.answered;
    return query?.people ?? new Map();
  }

  /** Returns undefined when no process can be asked. */
  #ask(roomId: string, limit: number, awaited: Set<string>): PeopleQuery | undefined {
    const before = this.#queries.get(roomId);
    if (before && before.limit >= limit) return before;
    if (awaited.size === 0 || (!before && this.#queries.size >= MAX_QUERIES)) return undefined;
    const { clock, processId, publish } = this.#options;
    let resolve = () => {};
    const answered = new Promise<void>((done) => {
      resolve = done;
    });
    const cancelWait = clock.after(ANSWER_MS, () => resolve());
    const query: PeopleQuery = {
      id: ++this.#lastId,
      limit,
      people: new Map(),
      awaited,
      answered,
      end: () => {
        cancelWait();
        resolve();
      },
    };
    this.#queries.set(roomId, query);
    clock.after(ANSWERED_MS, () => {
      if (this.#queries.get(roomId) === query) this.#queries.delete(roomId);
    });
    publish({ p: processId, who: [query.id, roomId, limit] });
    return query;
  }

  /** Answers the question of another process. */
  answer(to: string, who: unknown): void {
    if (!Array.isArray(who)) return;
    const [id, roomId, limit] = who as unknown[];
    if (typeof id !== 'number' || typeof roomId !== 'string' || typeof limit !== 'number') return;
    const { processId, local, publish } = this.#options;
    // `to` comes first in the text, so that other processes can ignore it without parsing.
    publish({ to, p: processId, room: roomId, n: id, people: local.people(roomId, Math.min(limit, EXACT_UP_TO)) });
  }

  /** Adds the answer of process `from`. */
  takeAnswer(from: string, { room, n, people }: PresenceMessage): void {
    const query = typeof room === 'string' ? this.#queries.get(room) : undefined;
    if (!query || query.id !== n || !query.awaited.delete(from)) return;
    for (const person of Array.isArray(people) ? people.slice(0, query.limit) : []) {
      if (query.people.size >= EXACT_UP_TO) break;
      const [id, name] = Array.isArray(person) ? (person as unknown[]) : [];
      if (typeof id !== 'string' || typeof name !== 'string' || id.length > MAX_ID_CHARS || name.length > MAX_NAME_CHARS) continue;
      query.people.set(id, name);
    }
    if (query.awaited.size === 0) query.end();
  }

  /** The process has ended, so its answer is no longer awaited. */
  forgetProcess(processId: string): void {
    for (const query of this.#queries.values()) if (query.awaited.delete(processId) && query.awaited.size === 0) query.end();
  }

  stop(): void {
    for (const query of this.#queries.values()) query.end();
    this.#queries.clear();
  }
}
