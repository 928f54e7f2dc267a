import type { Clock } from '../../../runtime/clock.js';
import { EXACT_UP_TO, LocalMembers, type PresentPerson, type RoomMembers, TAG_CHARS } from './local-members.js';
import type { PresenceBus } from './presence-bus.js';
import { PresenceExchange } from './presence-exchange.js';

export interface PresenceOptions {
  readonly clock: Clock;
  /** Undefined: there is no other process. */
  readonly bus?: PresenceBus | undefined;
}

/**
 * Called with a room's new count. Returns how many members were sent it at once. `isCostly`: they
 * get it with the next `heads` instead.
 */
export type CountListener = (roomId: string, count: number, isCostly: boolean) => number;

/**
 * A member whose connection broke is still counted for this long, so that a reconnect changes no
 * count.
 */
export const LINGER_MS = 10_000;
/** A room's count is announced at most once per this time. */
const TELL_MS = 1000;
/**
 * While more rooms than this change, counts are announced every `TELL_MANY_MS`: announcing each
 * second takes 5 % of the cost of a mass reconnect.
 */
const MANY_ROOMS = 200;
const TELL_MANY_MS = 5000;
/**
 * The count of a room above `EXACT_UP_TO` changes all the time and is announced at most once per
 * this time.
 */
const TELL_LARGE_MS = 10_000;
/**
 * With at most this many local users, the count is added up for every request; with more, once per
 * `TELL_MS`.
 */
const RECOUNT_UP_TO = 5;
/** Writes per second for counts. Further counts go out with the next `heads`. */
const MAX_TELL_WRITES = 500;
/** Rooms whose count is added up per tick. */
const MAX_COUNTED_PER_TICK = 500;

/**
 * The number of members of each room over all processes. In a room of up to `EXACT_UP_TO` users, a
 * user counts once in total; in a larger one, once per process.
 */
export class Presence {
  readonly #clock: Clock;
  readonly #local: LocalMembers;
  readonly #exchange: PresenceExchange | undefined;
  /** Members whose connection broke, in order of time. */
  readonly #lingering: { untilMs: number; roomId: string; userId: string | undefined }[] = [];
  /** Rooms whose members have not been sent a new count yet. */
  readonly #changed = new Set<string>();
  readonly #told = new Map<string, { count: number; atMs: number }>();
  readonly #listeners = new Set<CountListener>();
  readonly #cancel: () => void;
  #toldAtMs = Number.NEGATIVE_INFINITY;

  constructor({ clock, bus }: PresenceOptions) {
    this.#clock = clock;
    this.#local = new LocalMembers(bus !== undefined);
    this.#cancel = clock.every(TELL_MS, () => this.#tick());
    const onRemoteChange = (roomId: string) => this.#recount(roomId);
    this.#exchange = bus && new PresenceExchange({ clock, bus, local: this.#local, onRemoteChange, periodMs: TELL_MS });
  }

  /** Adds a member. `person` undefined: a guest. */
  enterRoom(roomId: string, person: PresentPerson | undefined): void {
    if (this.#local.add(roomId, person)) this.#noteChange(roomId);
  }

  /**
   * Removes a member. `lost`: the connection broke, and the member is counted for another
   * `LINGER_MS`.
   */
  leaveRoom(roomId: string, person: { readonly id: string } | undefined, lost: boolean): void {
    if (lost) this.#lingering.push({ untilMs: this.#clock.monotonicMs() + LINGER_MS, roomId, userId: person?.id });
    else this.#remove(roomId, person?.id);
  }

  /**
   * The members of a room over all processes, as far as this one knows. In a large room up to one
   * second old.
   */
  count(roomId: string): number {
    const room = this.#local.room(roomId);
    const nowMs = this.#clock.monotonicMs();
    if (room?.counted && room.users.size > RECOUNT_UP_TO && nowMs - room.counted.atMs < TELL_MS) return room.counted.count;
    const count = this.#add(roomId, room);
    if (room) room.counted = { count, atMs: nowMs };
    return count;
  }

  /**
   * At most `limit` people of the room over all processes, local ones first. People in a process
   * that does not answer are missing.
   */
  async people(roomId: string, limit = EXACT_UP_TO): Promise<PresentPerson[]> {
    const found = new Map(this.#local.people(roomId, limit));
    if (found.size < limit && this.#exchange)
      for (const [id, name] of await this.#exchange.findPeople(roomId, limit))
        if (found.size < limit && !found.has(id)) found.set(id, name);
    return [...found].map(([id, name]) => ({ id, name }));
  }

  /**
   * Calls the listener when a room's count has changed, at most once a second per room. Returns a
   * function that removes it.
   */
  onCounts(listener: CountListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A second call does no harm. */
  stop(): void {
    this.#cancel();
    this.#exchange?.stop();
    this.#local.clear();
  }

  #remove(roomId: string, userId: string | undefined): void {
    if (this.#local.remove(roomId, userId)) this.#noteChange(roomId);
  }

  #noteChange(roomId: string): void {
    this.#changed.add(roomId);
    this.#exchange?.noteLocalChange(roomId);
  }

  #recount(roomId: string): void {
    const room = this.#local.room(roomId);
    if (!room) return;
    room.counted = undefined;
    this.#changed.add(roomId);
  }

  /**
   * The members in all processes. A user in several processes counts once if every process reports
   * the tags of its users.
   */
  #add(roomId: string, room: RoomMembers | undefined): number {
    let users = room?.users.size ?? 0;
    let sum = users + (room?.guests ?? 0);
    const presences = this.#exchange?.presencesOf(roomId) ?? [];
    for (const { count, guests } of presences) {
      sum += count;
      users += count - guests;
    }
    if (presences.length === 0 || users > EXACT_UP_TO || presences.some(({ tags }) => tags === undefined)) return sum;
    const distinct = new Set<string>();
    if (room) for (const { tag } of room.users.values()) distinct.add(tag);
    for (const { tags } of presences) for (let at = 0; at < tags!.length; at += TAG_CHARS) distinct.add(tags!.slice(at, at + TAG_CHARS));
    return sum - users + distinct.size;
  }

  #tick(): void {
    const nowMs = this.#clock.monotonicMs();
    let ended = 0;
    while (ended < this.#lingering.length && this.#lingering[ended]!.untilMs <= nowMs) {
      const { roomId, userId } = this.#lingering[ended++]!;
      this.#remove(roomId, userId);
    }
    this.#lingering.splice(0, ended);
    this.#exchange?.forgetSilent(nowMs);
    this.#exchange?.publishDue(nowMs);
    if (this.#changed.size <= MANY_ROOMS || nowMs - this.#toldAtMs >= TELL_MANY_MS) this.#tellChanged(nowMs);
  }

  #tellChanged(nowMs: number): void {
    this.#toldAtMs = nowMs;
    let writes = 0;
    let counted = 0;
    for (const roomId of this.#changed) {
      if (counted++ >= MAX_COUNTED_PER_TICK) break;
      const told = this.#told.get(roomId);
      const room = this.#local.room(roomId);
      const count = this.#add(roomId, room);
      if (room) room.counted = { count, atMs: nowMs };
      if (told && told.count > EXACT_UP_TO && nowMs - told.atMs < TELL_LARGE_MS) continue;
      this.#changed.delete(roomId);
      if (count === told?.count) continue;
      if (room) this.#told.set(roomId, { count, atMs: nowMs });
      else this.#told.delete(roomId);
      for (const listener of this.#listeners) writes += listener(roomId, count, writes >= MAX_TELL_WRITES);
    }
  }
}
