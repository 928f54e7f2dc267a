import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../runtime/clock.js';
import { EXACT_UP_TO, type LocalMembers } from './local-members.js';
import type { PresenceBus, PresenceMessage } from './presence-bus.js';
import { PeopleQueries } from './presence-queries.js';

const HEARTBEAT_MS = 5000;
/** A process that has sent nothing for this long counts as having no members. */
const SILENCE_MS = 15_000;
/**
 * Every room is published again within this time, a few every second, in case a message was lost.
 */
const REPEAT_MS = 60_000;
/** Rooms per message. One message is sent every second; further rooms follow in the next. */
const MAX_ROOMS_PER_MESSAGE = 500;
/** Rooms that another process may report at most. Further ones are ignored. */
const MAX_REMOTE_ROOMS = 200_000;

/** The beginning of an answer's text. */
const TO = '{"to":"';

/** The members of a room in another process. */
export interface RemotePresence {
  readonly count: number;
  readonly guests: number;
  /** The joined tags of its users; undefined: there are more than `EXACT_UP_TO`. */
  readonly tags: string | undefined;
}

interface RemoteProcess {
  heardAtMs: number;
  readonly rooms: Map<string, RemotePresence>;
}

export interface PresenceExchangeOptions {
  readonly clock: Clock;
  readonly bus: PresenceBus;
  readonly local: LocalMembers;
  /** Called when another process reports a new count of the room. */
  readonly onRemoteChange: (roomId: string) => void;
  /** The interval between two calls of `publishDue`. */
  readonly periodMs: number;
}

/**
 * Publishes to the other processes how many members each room has in this one, and keeps the counts
 * that they publish. A lost message is repaired by a later one.
 */
export class PresenceExchange {
  readonly #options: PresenceExchangeOptions;
  readonly #id = randomUUID().slice(0, 8);
  readonly #processes = new Map<string, RemoteProcess>();
  readonly #queries: PeopleQueries;
  /** Rooms whose local members have changed since the last publication. */
  readonly #unpublished = new Set<string>();
  #publishedAtMs = Number.NEGATIVE_INFINITY;
  /** Rooms that are still to be published again in this round. */
  #repeating: Iterator<string> | undefined;

  constructor(options: PresenceExchangeOptions) {
    this.#options = options;
    const { clock, bus, local } = options;
    this.#queries = new PeopleQueries({ clock, processId: this.#id, local, publish: (message) => this.#publish(message) });
    bus.onText((text) => this.#receive(text));
    this.#publish({ p: this.#id, ask: true });
  }

  /** The members of the room in each other process. */
  presencesOf(roomId: string): RemotePresence[] {
    const found: RemotePresence[] = [];
    for (const { rooms } of this.#processes.values()) {
      const presence = rooms.get(roomId);
      if (presence) found.push(presence);
    }
    return found;
  }

  /**
   * People of the room in the other processes, by id. People in a process that does not answer in
   * time are missing.
   */
  findPeople(roomId: string, limit: number): Promise<ReadonlyMap<string, string>> {
    return this.#queries.findPeople(roomId, limit, this.#processes.keys());
  }

  /** Notes that the room's local members have changed. The next `publishDue` publishes them. */
  noteLocalChange(roomId: string): void {
    this.#unpublished.add(roomId);
  }

  /** Forgets processes that have been silent for too long. */
  forgetSilent(nowMs: number): void {
    for (const [id, process] of this.#processes) if (nowMs - process.heardAtMs > SILENCE_MS) this.#forget(id, process);
  }

  /** Publishes changed rooms, a share of the unchanged ones, and a heartbeat. */
  publishDue(nowMs: number): void {
    this.#repeatSome();
    if (this.#unpublished.size === 0 && nowMs - this.#publishedAtMs < HEARTBEAT_MS) return;
    this.#publishedAtMs = nowMs;
    const rooms: Record<string, [number, number, string | null]> = {};
    let count = 0;
    for (const roomId of this.#unpublished) {
      if (count++ >= MAX_ROOMS_PER_MESSAGE) break;
      this.#unpublished.delete(roomId);
      const room = this.#options.local.room(roomId);
      const users = room?.users.size ?? 0;
      const guests = room?.guests ?? 0;
      const tags = users > EXACT_UP_TO ? null : [...(room?.users.values() ?? [])].map(({ tag }) => tag).join('');
      rooms[roomId] = [users + guests, guests, tags];
    }
    this.#publish({ p: this.#id, rooms });
  }

  /** Publishes that this process has no members any more. */
  stop(): void {
    this.#publish({ p: this.#id, gone: true });
    this.#queries.stop();
    this.#processes.clear();
  }

  #publish(message: PresenceMessage): void {
    this.#options.bus.publish(JSON.stringify(message));
  }

  #repeatSome(): void {
    const { local, periodMs } = this.#options;
    for (let left = Math.ceil((local.roomCount * periodMs) / REPEAT_MS); left > 0; left--) {
      this.#repeating ??= local.roomIds();
      const { value, done } = this.#repeating.next();
      if (done) {
        this.#repeating = undefined;
        return;
      }
      this.#unpublished.add(value);
    }
  }

  #receive(text: string): void {
    // The text is an answer for another process.
    if (text.startsWith(TO) && !text.startsWith(this.#id, TO.length)) return;
    let message: PresenceMessage | null;
    try {
      message = JSON.parse(text);
    } catch {
      // The text is not a message of a chat process.
      return;
    }
    const { p } = message ?? {};
    if (!message || typeof p !== 'string' || p === this.#id) return;
    if (message.to !== undefined) {
      if (message.to === this.#id) this.#queries.takeAnswer(p, message);
      return;
    }
    let process = this.#processes.get(p);
    if (message.gone === true) {
      if (process) this.#forget(p, process);
      return;
    }
    if (!process) {
      process = { heardAtMs: 0, rooms: new Map() };
      this.#processes.set(p, process);
    }
    process.heardAtMs = this.#options.clock.monotonicMs();
    // The sender is new and has missed earlier messages.
    if (message.ask === true) for (const roomId of this.#options.local.roomIds()) this.#unpublished.add(roomId);
    if (message.who !== undefined) this.#queries.answer(p, message.who);
    for (const [roomId, reported] of Object.entries(message.rooms ?? {})) this.#takeReport(process, roomId, reported);
  }

  #takeReport({ rooms }: RemoteProcess, roomId: string, reported: unknown): void {
    if (!Array.isArray(reported)) return;
    const [count, guests, tags] = reported as [number, number, string | null | undefined];
    // Tags that are not text would make every later count of the room fail.
    if (!Number.isSafeInteger(count) || !Number.isSafeInteger(guests) || typeof (tags ?? '') !== 'string') return;
    const before = rooms.get(roomId);
    // Most reports repeat known counts.
    if (before && before.count === count && before.guests === guests && before.tags === (tags ?? undefined)) return;
    if (count > 0 && rooms.size < MAX_REMOTE_ROOMS) rooms.set(roomId, { count, guests, tags: tags ?? undefined });
    else rooms.delete(roomId);
    this.#options.onRemoteChange(roomId);
  }

  #forget(id: string, { rooms }: RemoteProcess): void {
    this.#processes.delete(id);
    this.#queries.forgetProcess(id);
    for (const roomId of rooms.keys()) this.#options.onRemoteChange(roomId);
  }
}
