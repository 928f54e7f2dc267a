import { createHash, randomUUID } from 'node:crypto';
import type { Clock } from '../runtime/clock.js';

/** Carries texts to the other processes of the chat; what is lost is said again. */
export interface PresenceBus {
  publish(text: string): void;
  /** Called with what any process, this one too, has published. */
  onText(listener: (text: string) => void): void;
}

export interface PresenceOptions {
  readonly clock: Clock;
  /** Undefined: there is no other process. */
  readonly bus?: PresenceBus | undefined;
}

/** Up to so many people in a room each is counted once, wherever and however often he is connected; above it, once in each process. */
export const EXACT_UP_TO = 500;
/** Who loses his connection is there for so long, so that a reconnect is no event. */
export const LINGER_MS = 10_000;
/** Counts are told so often at most; of a large room, whose count changes all the time, more seldom. */
const TELL_MS = 1000;
const TELL_LARGE_MS = 10_000;
/** People here; of more the count is not added up for each that comes in. */
const ADDED_UP_TO = 20;
/** Writes that telling counts may take in a process a second; the counts of other rooms go with what is written to their members anyway. */
const TELL_WRITES = 500;
const HEARTBEAT_MS = 5000;
/** A process that has not been heard of for so long has nobody. */
const SILENCE_MS = 15_000;
/** Within this time all is said again, in case something was lost: some of it each second, since all at once is a second's work for everybody. */
const REPEAT_MS = 60_000;
/** Rooms that are said to the others in one text, once a second; the rest has its turn in the next. */
const ROOMS_A_TEXT = 500;
/** Rooms whose people are added up for telling, a second. */
const ADDED_A_TICK = 500;
const TAG_CHARS = 8;
/** A text of another process may name so many rooms; more is not believed. */
const MAX_OTHER_ROOMS = 200_000;

interface User {
  readonly name: string;
  /** Names him among processes. */
  readonly tag: string;
  connections: number;
}

interface Here {
  guests: number;
  readonly users: Map<string, User>;
  /** Over all processes, as it was added up last. */
  counted: { readonly count: number; readonly atMs: number } | undefined;
}

/** What another process has of a room: how many, and, of few, who, as tags behind each other. */
interface Share {
  readonly count: number;
  readonly guests: number;
  readonly tags: string | undefined;
}

interface Other {
  heardAtMs: number;
  readonly rooms: Map<string, Share>;
}

/** How many are in each room, over all processes. Says counts; who they are is asked for by REST. */
export class Presence {
  readonly #clock: Clock;
  readonly #bus: PresenceBus | undefined;
  readonly #id = randomUUID().slice(0, 8);
  readonly #rooms = new Map<string, Here>();
  readonly #others = new Map<string, Other>();
  /** In order of time. */
  readonly #leaving: { atMs: number; roomId: string; userId: string | undefined }[] = [];
  /** To be told to the members here, and to the other processes. */
  readonly #changed = new Set<string>();
  readonly #unsaid = new Set<string>();
  readonly #told = new Map<string, { count: number; atMs: number }>();
  readonly #listeners = new Set<(roomId: string, count: number, isCostly: boolean) => number>();
  readonly #cancel: () => void;
  #saidAtMs = Number.NEGATIVE_INFINITY;
  /** Rooms that are still to be said again in this round. */
  #repeating: Iterator<string> | undefined;

  constructor({ clock, bus }: PresenceOptions) {
    this.#clock = clock;
    this.#bus = bus;
    this.#cancel = clock.every(TELL_MS, () => this.#tick());
    bus?.onText((text) => this.#heard(text));
    bus?.publish(JSON.stringify({ p: this.#id, ask: true }));
  }

  enter(roomId: string, person: { readonly id: string; readonly name: string } | undefined): void {
    let here = this.#rooms.get(roomId);
    if (!here) {
      here = { guests: 0, users: new Map(), counted: undefined };
      this.#rooms.set(roomId, here);
    }
    if (person) {
      const user = here.users.get(person.id);
      if (user) {
        user.connections++;
        return;
      }
      here.users.set(person.id, { name: person.name, tag: this.#bus ? tagOf(person.id) : '', connections: 1 });
    } else here.guests++;
    this.#note(roomId);
  }

  /** `lost`: he may come back in a moment. */
  leave(roomId: string, person: { readonly id: string } | undefined, lost: boolean): void {
    if (lost) this.#leaving.push({ atMs: this.#clock.monotonicMs() + LINGER_MS, roomId, userId: person?.id });
    else this.#left(roomId, person?.id);
  }

  /** Over all processes, as far as is known here; of a room with many, up to a second old. */
  count(roomId: string): number {
    const here = this.#rooms.get(roomId);
    const nowMs = this.#clock.monotonicMs();
    if (here?.counted && here.users.size > ADDED_UP_TO && nowMs - here.counted.atMs < TELL_MS) return here.counted.count;
    const count = this.#add(roomId, here);
    if (here) here.counted = { count, atMs: nowMs };
    return count;
  }

  #add(roomId: string, here: Here | undefined): number {
    let sum = (here?.users.size ?? 0) + (here?.guests ?? 0);
    if (this.#others.size === 0) return sum;
    let users = here?.users.size ?? 0;
    const shares: Share[] = [];
    for (const { rooms } of this.#others.values()) {
      const share = rooms.get(roomId);
      if (!share) continue;
      shares.push(share);
      sum += share.count;
      users += share.count - share.guests;
    }
    if (shares.length === 0 || users > EXACT_UP_TO || shares.some(({ tags }) => tags === undefined)) return sum;
    const tags = new Set<string>();
    if (here) for (const { tag } of here.users.values()) tags.add(tag);
    for (const { tags: theirs } of shares)
      for (let at = 0; at < theirs!.length; at += TAG_CHARS) tags.add(theirs!.slice(at, at + TAG_CHARS));
    return sum - users + tags.size;
  }

  /** Who is in the room in this process. */
  people(roomId: string, limit = EXACT_UP_TO): { readonly id: string; readonly name: string }[] {
    const found: { id: string; name: string }[] = [];
    for (const [id, { name }] of this.#rooms.get(roomId)?.users ?? []) {
      if (found.length >= limit) break;
      found.push({ id, name });
    }
    return found;
  }

  /**
   * Called when a room's count has changed, once a second at most; returns how many it has told. With `isCostly` too many were told in this second: it
   * may wait for something else to go with. Returns what ends it.
   */
  onCounts(listener: (roomId: string, count: number, isCostly: boolean) => number): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The others are told that nobody is here. Twice is harmless. */
  stop(): void {
    this.#cancel();
    this.#bus?.publish(JSON.stringify({ p: this.#id, gone: true }));
    this.#rooms.clear();
    this.#others.clear();
  }

  #left(roomId: string, userId: string | undefined): void {
    const here = this.#rooms.get(roomId);
    if (!here) return;
    if (userId === undefined) here.guests = Math.max(0, here.guests - 1);
    else {
      const user = here.users.get(userId);
      if (!user || --user.connections > 0) return;
      here.users.delete(userId);
    }
    if (here.guests === 0 && here.users.size === 0) this.#rooms.delete(roomId);
    this.#note(roomId);
  }

  #note(roomId: string): void {
    this.#changed.add(roomId);
    if (this.#bus) this.#unsaid.add(roomId);
  }

  #tick(): void {
    const nowMs = this.#clock.monotonicMs();
    let gone = 0;
    while (gone < this.#leaving.length && this.#leaving[gone]!.atMs <= nowMs) {
      const { roomId, userId } = this.#leaving[gone++]!;
      this.#left(roomId, userId);
    }
    this.#leaving.splice(0, gone);
    for (const [id, other] of this.#others) if (nowMs - other.heardAtMs > SILENCE_MS) this.#forget(id, other);
    if (this.#bus) this.#say(nowMs);
    let writes = 0;
    let added = 0;
    for (const roomId of this.#changed) {
      if (added >= ADDED_A_TICK) break;
      added++;
      const told = this.#told.get(roomId);
      const here = this.#rooms.get(roomId);
      const count = this.#add(roomId, here);
      if (here) here.counted = { count, atMs: nowMs };
      if (told && told.count > EXACT_UP_TO && nowMs - told.atMs < TELL_LARGE_MS) continue;
      this.#changed.delete(roomId);
      if (count === told?.count) continue;
      if (here) this.#told.set(roomId, { count, atMs: nowMs });
      else this.#told.delete(roomId);
      for (const listener of this.#listeners) writes += listener(roomId, count, writes >= TELL_WRITES);
    }
  }

  #say(nowMs: number): void {
    this.#repeatSome();
    if (this.#unsaid.size === 0 && nowMs - this.#saidAtMs < HEARTBEAT_MS) return;
    this.#saidAtMs = nowMs;
    const rooms: Record<string, [number, number, string | null]> = {};
    let said = 0;
    for (const roomId of this.#unsaid) {
      if (said++ >= ROOMS_A_TEXT) break;
      this.#unsaid.delete(roomId);
      const here = this.#rooms.get(roomId);
      const users = here?.users.size ?? 0;
      const guests = here?.guests ?? 0;
      const tags = users > EXACT_UP_TO ? null : [...(here?.users.values() ?? [])].map(({ tag }) => tag).join('');
      rooms[roomId] = [users + guests, guests, tags];
    }
    this.#bus!.publish(JSON.stringify({ p: this.#id, rooms }));
  }

  #repeatSome(): void {
    for (let left = Math.ceil((this.#rooms.size * TELL_MS) / REPEAT_MS); left > 0; left--) {
      this.#repeating ??= this.#rooms.keys();
      const { value, done } = this.#repeating.next();
      if (done) {
        this.#repeating = undefined;
        return;
      }
      this.#unsaid.add(value);
    }
  }

  #heard(text: string): void {
    let said: { p?: unknown; ask?: unknown; gone?: unknown; rooms?: Record<string, [number, number, string | null]> };
    try {
      said = JSON.parse(text);
    } catch {
      return;
    }
    const { p, rooms } = said;
    if (typeof p !== 'string' || p === this.#id) return;
    let other = this.#others.get(p);
    if (said.gone === true) {
      if (other) this.#forget(p, other);
      return;
    }
    if (!other) {
      other = { heardAtMs: 0, rooms: new Map() };
      this.#others.set(p, other);
    }
    other.heardAtMs = this.#clock.monotonicMs();
    // It is new, and knows nothing of what was said before.
    if (said.ask === true) for (const roomId of this.#rooms.keys()) this.#unsaid.add(roomId);
    for (const [roomId, share] of Object.entries(rooms ?? {})) {
      if (!Array.isArray(share)) continue;
      const [count, guests, tags] = share;
      const before = other.rooms.get(roomId);
      // Most of what is said has been said before.
      if (before && before.count === count && before.guests === guests && before.tags === (tags ?? undefined)) continue;
      if (count > 0 && other.rooms.size < MAX_OTHER_ROOMS) other.rooms.set(roomId, { count, guests, tags: tags ?? undefined });
      else other.rooms.delete(roomId);
      this.#recount(roomId);
    }
  }

  #recount(roomId: string): void {
    const here = this.#rooms.get(roomId);
    if (!here) return;
    here.counted = undefined;
    this.#changed.add(roomId);
  }

  #forget(id: string, other: Other): void {
    this.#others.delete(id);
    for (const roomId of other.rooms.keys()) this.#recount(roomId);
  }
}

const tagOf = (userId: string) => createHash('sha256').update(userId).digest('base64url').slice(0, TAG_CHARS);
