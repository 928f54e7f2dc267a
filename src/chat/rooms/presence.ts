import { createHash, randomUUID } from 'node:crypto';
import type { Clock } from '../../runtime/clock.js';

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
/** The same while so many rooms change (everybody comes back at once): to keep all others informed would be a twentieth of what that costs. */
const MANY_ROOMS = 200;
const TELL_MANY_MS = 5000;
const TELL_LARGE_MS = 10_000;
/** People here; of more the count is not added up for each that comes in. */
const ADDED_UP_TO = 5;
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
/** Who asks who is in a room waits so long for the others; a process that has died is known to have for longer. */
const ANSWER_MS = 300;
/** What was answered is believed for so long, */
const ANSWERED_MS = 1000;
/** and so many rooms are asked about within that time. Of more it is said who is here. */
const MAX_QUESTIONS = 200;
const MAX_ID_CHARS = 1024;
const MAX_NAME_CHARS = 256;
/** A text of another process may name so many rooms; more is not believed. */
const MAX_OTHER_ROOMS = 200_000;

interface PresentUser {
  readonly name: string;
  /** Names him among processes. */
  readonly tag: string;
  connections: number;
}

interface LocalPresence {
  guests: number;
  readonly users: Map<string, PresentUser>;
  /** Over all processes, as it was added up last. */
  counted: { readonly count: number; readonly atMs: number } | undefined;
}

/** What another process has of a room: how many, and, of few, who, as tags behind each other. */
interface RemotePresence {
  readonly count: number;
  readonly guests: number;
  readonly tags: string | undefined;
}

export interface PresentPerson {
  readonly id: string;
  readonly name: string;
}

/** Who is in a room, asked of the other processes. */
interface PeopleQuery {
  readonly id: number;
  readonly limit: number;
  readonly people: Map<string, string>;
  /** Processes that have not answered. */
  readonly awaited: Set<string>;
  readonly answered: Promise<void>;
  readonly end: () => void;
}

interface RemoteProcess {
  heardAtMs: number;
  readonly rooms: Map<string, RemotePresence>;
}

/** What processes say to each other: what they have, or who is in a room (`who`), or the answer to that (`to`). */
interface PresenceMessage {
  readonly p?: unknown;
  readonly ask?: unknown;
  readonly gone?: unknown;
  readonly rooms?: Record<string, [number, number, string | null]> | null;
  readonly who?: unknown;
  readonly to?: unknown;
  readonly room?: unknown;
  readonly n?: unknown;
  readonly people?: unknown;
}
const TO = '{"to":"';

/** How many are in each room, over all processes. Says counts; who they are is asked for by REST, and then of the others. */
export class Presence {
  readonly #clock: Clock;
  readonly #bus: PresenceBus | undefined;
  readonly #id = randomUUID().slice(0, 8);
  readonly #rooms = new Map<string, LocalPresence>();
  readonly #others = new Map<string, RemoteProcess>();
  /** In order of time. */
  readonly #leaving: { atMs: number; roomId: string; userId: string | undefined }[] = [];
  /** To be told to the members here, and to the other processes. */
  readonly #changed = new Set<string>();
  readonly #unsaid = new Set<string>();
  readonly #told = new Map<string, { count: number; atMs: number }>();
  readonly #listeners = new Set<(roomId: string, count: number, isCostly: boolean) => number>();
  /** Under way, or answered a moment ago, by room. */
  readonly #questions = new Map<string, PeopleQuery>();
  #asked = 0;
  readonly #cancel: () => void;
  #saidAtMs = Number.NEGATIVE_INFINITY;
  #toldAtMs = Number.NEGATIVE_INFINITY;
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

  #add(roomId: string, here: LocalPresence | undefined): number {
    let sum = (here?.users.size ?? 0) + (here?.guests ?? 0);
    if (this.#others.size === 0) return sum;
    let users = here?.users.size ?? 0;
    const shares: RemotePresence[] = [];
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

  /**
   * Who is in the room, over all processes: those here first, at most `limit`. The others are asked, and those who ask meanwhile share the answer; of one
   * that does not answer in time, and of all while the bus is away, it is not known who they have.
   */
  async people(roomId: string, limit = EXACT_UP_TO): Promise<PresentPerson[]> {
    const found = new Map(this.#peopleHere(roomId, limit));
    if (found.size < limit) {
      const question = this.#ask(roomId, Math.min(limit, EXACT_UP_TO));
      await question?.answered;
      for (const [id, name] of question?.people ?? []) if (found.size < limit && !found.has(id)) found.set(id, name);
    }
    return [...found].map(([id, name]) => ({ id, name }));
  }

  #peopleHere(roomId: string, limit: number): [id: string, name: string][] {
    const found: [string, string][] = [];
    for (const [id, { name }] of this.#rooms.get(roomId)?.users ?? []) {
      if (found.length >= limit) break;
      found.push([id, name]);
    }
    return found;
  }

  /** Undefined: nobody can be asked. */
  #ask(roomId: string, limit: number): PeopleQuery | undefined {
    const before = this.#questions.get(roomId);
    if (before && before.limit >= limit) return before;
    if (!this.#bus || this.#others.size === 0 || (!before && this.#questions.size >= MAX_QUESTIONS)) return undefined;
    let resolve = () => {};
    const answered = new Promise<void>((done) => {
      resolve = done;
    });
    const cancelWait = this.#clock.after(ANSWER_MS, () => resolve());
    const question: PeopleQuery = {
      id: ++this.#asked,
      limit,
      people: new Map(),
      awaited: new Set(this.#others.keys()),
      answered,
      end: () => {
        cancelWait();
        resolve();
      },
    };
    this.#questions.set(roomId, question);
    this.#clock.after(ANSWERED_MS, () => {
      if (this.#questions.get(roomId) === question) this.#questions.delete(roomId);
    });
    this.#bus.publish(JSON.stringify({ p: this.#id, who: [question.id, roomId, limit] }));
    return question;
  }

  #answer(to: string, who: unknown): void {
    if (!Array.isArray(who)) return;
    const [id, roomId, limit] = who as unknown[];
    if (typeof id !== 'number' || typeof roomId !== 'string' || typeof limit !== 'number') return;
    // The one it is for stands first, so that the others need not read it.
    this.#bus!.publish(
      JSON.stringify({ to, p: this.#id, room: roomId, n: id, people: this.#peopleHere(roomId, Math.min(limit, EXACT_UP_TO)) }),
    );
  }

  #answered(p: string, { room, n, people }: { room?: unknown; n?: unknown; people?: unknown }): void {
    const question = typeof room === 'string' ? this.#questions.get(room) : undefined;
    if (!question || question.id !== n || !question.awaited.delete(p)) return;
    for (const person of Array.isArray(people) ? people.slice(0, question.limit) : []) {
      if (question.people.size >= EXACT_UP_TO) break;
      const [id, name] = Array.isArray(person) ? (person as unknown[]) : [];
      if (typeof id !== 'string' || typeof name !== 'string' || id.length > MAX_ID_CHARS || name.length > MAX_NAME_CHARS) continue;
      question.people.set(id, name);
    }
    if (question.awaited.size === 0) question.end();
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
    for (const question of this.#questions.values()) question.end();
    this.#questions.clear();
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
    if (this.#changed.size > MANY_ROOMS && nowMs - this.#toldAtMs < TELL_MANY_MS) return;
    this.#toldAtMs = nowMs;
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
    if (text.startsWith(TO) && !text.startsWith(this.#id, TO.length)) return;
    let said: PresenceMessage | null;
    try {
      said = JSON.parse(text);
    } catch {
      return;
    }
    const { p, rooms } = said ?? {};
    if (!said || typeof p !== 'string' || p === this.#id) return;
    if (said.to !== undefined) {
      if (said.to === this.#id) this.#answered(p, said);
      return;
    }
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
    if (said.who !== undefined) this.#answer(p, said.who);
    for (const [roomId, share] of Object.entries(rooms ?? {})) {
      if (!Array.isArray(share)) continue;
      const [count, guests, tags] = share;
      // Believed, tags that are no text would stop the tick that adds them up, each time.
      if (!Number.isSafeInteger(count) || !Number.isSafeInteger(guests) || typeof (tags ?? '') !== 'string') continue;
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

  #forget(id: string, other: RemoteProcess): void {
    this.#others.delete(id);
    for (const question of this.#questions.values()) if (question.awaited.delete(id) && question.awaited.size === 0) question.end();
    for (const roomId of other.rooms.keys()) this.#recount(roomId);
  }
}

const tagOf = (userId: string) => createHash('sha256').update(userId).digest('base64url').slice(0, TAG_CHARS);
