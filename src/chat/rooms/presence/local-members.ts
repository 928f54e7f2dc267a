import { createHash } from 'node:crypto';

/**
 * Users of one room that are counted exactly and named. With more of them, users are counted per
 * process.
 */
export const EXACT_UP_TO = 500;

export interface PresentPerson {
  readonly id: string;
  readonly name: string;
}

interface PresentUser {
  readonly name: string;
  /** Identifies the user in messages between processes. Empty when there is a single process. */
  readonly tag: string;
  connections: number;
}

/** The members of one room that are connected to this process. */
export interface RoomMembers {
  guests: number;
  readonly users: Map<string, PresentUser>;
  /** The latest count over all processes, and when it was added up. */
  counted: { readonly count: number; readonly atMs: number } | undefined;
}

export const TAG_CHARS = 8;
const tagOf = (userId: string) => createHash('sha256').update(userId).digest('base64url').slice(0, TAG_CHARS);

/**
 * The members of each room in this process. A user with several connections counts once; each guest
 * counts.
 */
export class LocalMembers {
  readonly #rooms = new Map<string, RoomMembers>();
  readonly #hasTags: boolean;

  /** `hasTags`: there are other processes, and users are identified to them by tags. */
  constructor(hasTags: boolean) {
    this.#hasTags = hasTags;
  }

  get roomCount(): number {
    return this.#rooms.size;
  }

  roomIds(): IterableIterator<string> {
    return this.#rooms.keys();
  }

  room(roomId: string): RoomMembers | undefined {
    return this.#rooms.get(roomId);
  }

  /** At most `limit` users of the room. */
  people(roomId: string, limit: number): [id: string, name: string][] {
    const found: [string, string][] = [];
    for (const [id, { name }] of this.#rooms.get(roomId)?.users ?? []) {
      if (found.length >= limit) break;
      found.push([id, name]);
    }
    return found;
  }

  /** Adds a member. `person` undefined: a guest. Returns whether the room's count has changed. */
  add(roomId: string, person: PresentPerson | undefined): boolean {
    let room = this.#rooms.get(roomId);
    if (!room) {
      room = { guests: 0, users: new Map(), counted: undefined };
      this.#rooms.set(roomId, room);
    }
    if (!person) {
      room.guests++;
      return true;
    }
    const user = room.users.get(person.id);
    if (user) {
      user.connections++;
      return false;
    }
    room.users.set(person.id, { name: person.name, tag: this.#hasTags ? tagOf(person.id) : '', connections: 1 });
    return true;
  }

  /**
   * Removes a member. `userId` undefined: a guest. Returns whether the room's count has changed.
   */
  remove(roomId: string, userId: string | undefined): boolean {
    const room = this.#rooms.get(roomId);
    if (!room) return false;
    if (userId === undefined) room.guests = Math.max(0, room.guests - 1);
    else {
      const user = room.users.get(userId);
      if (!user || --user.connections > 0) return false;
      room.users.delete(userId);
    }
    if (room.guests === 0 && room.users.size === 0) this.#rooms.delete(roomId);
    return true;
  }

  clear(): void {
    this.#rooms.clear();
  }
}
