import { WebSocket } from 'ws';
import { ChatClient, type ChatRoom, type Item, type SocketConstructor } from '../../src/chat-client/index.js';
import { eventually } from './process.js';

export interface CheckedMember {
  readonly name: string;
  readonly client: ChatClient;
  readonly rooms: readonly ChatRoom[];
  /** Cuts the line, as a train in a tunnel does. */
  drop(): void;
}

/** A row of `messages`. */
export interface StoredEntry {
  readonly slug: string;
  readonly offset: number;
  readonly type: string;
  readonly mid: string | null;
  readonly key: string | null;
}

/** What was found; all but the first four must be empty. */
export interface CheckReport {
  readonly members: number;
  readonly entries: number;
  readonly acked: number;
  /** Offsets that were compared, of all members. */
  readonly compared: number;
  /** Offsets of a room that have no row, though there are later ones. */
  readonly holesInStore: readonly string[];
  /** Offsets that a member does not have, between the first and the last it has, and was not told of. */
  readonly undetectedGaps: readonly string[];
  /** Messages that a member shows twice, or that are stored twice. */
  readonly duplicates: readonly string[];
  /** Keys that were acknowledged and are not stored, or not shown by a member. */
  readonly lost: readonly string[];
  /** Offsets where a member shows something else than is stored. */
  readonly different: readonly string[];
  /** Keys whose fate is not known though all is quiet. */
  readonly unsettled: readonly string[];
}

const MOST_NAMED = 20;

/**
 * Members of a chat with the client library that everybody uses, and at the end what each of them has for every (room, offset), held against
 * what PostgreSQL has.
 */
export class ChatChecker {
  readonly members: CheckedMember[] = [];
  readonly #url: string;
  /** By room; acknowledged as stored. */
  readonly #acked = new Map<string, Set<string>>();
  readonly #open = new Map<string, string>();
  /** Member, room, offset, of an entry that came though one with this offset or a later one was there. */
  readonly #outOfOrder: string[] = [];
  /** What was told as missing, by member and room. */
  readonly #told = new Map<ChatRoom, [number, number][]>();
  readonly refused: Record<string, number> = {};
  #keys = 0;

  constructor(url: string) {
    this.#url = url;
  }

  async join(name: string, token: string, rooms: readonly string[]): Promise<CheckedMember> {
    let socket: WebSocket | undefined;
    class Watched extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols, { perMessageDeflate: false });
        socket = this;
      }
    }
    const client = new ChatClient({
      url: this.#url,
      token: async () => token,
      webSocket: Watched as unknown as SocketConstructor,
      mostFetched: 1e6,
    });
    const joined = rooms.map((room) => client.join(room));
    const member: CheckedMember = { name, client, rooms: joined, drop: () => socket?.terminate() };
    for (const room of joined) this.#watch(member, room);
    client.start();
    await eventually(`${name} is in`, () => (joined.every(({ state }) => state === 'joined') ? true : undefined), 60_000);
    this.members.push(member);
    return member;
  }

  #watch(member: CheckedMember, room: ChatRoom): void {
    let last = 0;
    this.#told.set(room, []);
    room.listen((event) => {
      if (event.type === 'missing') this.#told.get(room)!.push([event.from, event.to]);
      if (event.type === 'removed') last = Math.min(last, (event.items[0]?.offset ?? 1) - 1);
      if (event.type === 'added' && event.where === 'end') {
        for (const { offset } of event.items) {
          if (offset <= last) this.#outOfOrder.push(`${member.name} ${room.name} ${offset} after ${last}`);
          last = offset;
        }
      }
    });
  }

  /** One message, followed until its fate is known. */
  say(member: CheckedMember, room: ChatRoom, text: string): void {
    const key = `${member.name}-${++this.#keys}`;
    this.#open.set(key, room.name);
    let outgoing: ReturnType<ChatRoom['publish']>;
    try {
      outgoing = room.publish(text, { key });
    } catch {
      // Too many wait already: nothing was promised.
      this.#open.delete(key);
      return;
    }
    void outgoing.settled.then(({ state, problem }) => {
      this.#open.delete(key);
      if (state === 'sent') {
        let acked = this.#acked.get(room.name);
        if (!acked) {
          acked = new Set();
          this.#acked.set(room.name, acked);
        }
        acked.add(key);
      } else {
        const why = problem?.code ?? state;
        this.refused[why] = (this.refused[why] ?? 0) + 1;
      }
    });
  }

  /** For messages of failed tests. */
  state(): string {
    const counts: Record<string, number> = {};
    const count = (what: string) => {
      counts[what] = (counts[what] ?? 0) + 1;
    };
    for (const { client, rooms } of this.members) {
      count(`link ${client.state.state}`);
      for (const room of rooms) {
        count(`room ${room.state}`);
        for (const { state, problem } of room.outgoing) count(`message ${state} ${problem?.code ?? ''}`);
      }
    }
    return JSON.stringify({ ...counts, acked: this.acked, refused: this.refused });
  }

  get acked(): number {
    return [...this.#acked.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** Waits until nothing is under way and every member is where the store is. */
  async settle(stored: () => Promise<readonly StoredEntry[]>, timeoutMs: number): Promise<readonly StoredEntry[]> {
    return eventually(
      'everything is acknowledged and every member has caught up',
      async () => {
        if (this.#open.size > 0) return undefined;
        const rows = await stored();
        const heads = new Map<string, number>();
        for (const { slug, offset } of rows) heads.set(slug, Math.max(heads.get(slug) ?? 0, offset));
        const behind = this.members.some(({ rooms }) => rooms.some(({ name, position }) => position !== (heads.get(name) ?? 0)));
        return behind ? undefined : rows;
      },
      timeoutMs,
    ).catch(() => stored());
  }

  check(rows: readonly StoredEntry[]): CheckReport {
    const [holesInStore, undetectedGaps, duplicates, lost, different]: string[][] = [[], [], [...this.#outOfOrder], [], []];
    const byRoom = new Map<string, Map<number, StoredEntry>>();
    for (const row of rows) {
      let entries = byRoom.get(row.slug);
      if (!entries) {
        entries = new Map();
        byRoom.set(row.slug, entries);
      }
      if (entries.has(row.offset)) duplicates!.push(`store ${row.slug} ${row.offset}`);
      entries.set(row.offset, row);
    }
    for (const [slug, entries] of byRoom) {
      const head = Math.max(...entries.keys());
      for (let offset = Math.min(...entries.keys()); offset <= head; offset++) {
        if (!entries.has(offset)) holesInStore!.push(`${slug} ${offset}`);
      }
      const keys = new Map<string, number>();
      for (const { key, type } of entries.values()) if (key !== null && type === 'msg') keys.set(key, (keys.get(key) ?? 0) + 1);
      for (const [key, times] of keys) if (times > 1) duplicates!.push(`store ${slug} ${key} ${times} times`);
      for (const key of this.#acked.get(slug) ?? []) if (!keys.has(key)) lost!.push(`store ${slug} ${key}`);
    }
    let compared = 0;
    for (const { name, rooms } of this.members) {
      for (const room of rooms) {
        const entries = byRoom.get(room.name) ?? new Map<number, StoredEntry>();
        const head = Math.max(0, ...entries.keys());
        const items = new Map(room.timeline.items.map((item) => [item.offset, item]));
        const first = Math.min(...items.keys());
        const shown = new Set<string>();
        for (let offset = first; offset <= head; offset++) {
          compared++;
          const item = items.get(offset);
          const row = entries.get(offset);
          if (!item) {
            if (!this.#told.get(room)!.some(([from, to]) => from <= offset && offset <= to))
              undetectedGaps!.push(`${name} ${room.name} ${offset}`);
            continue;
          }
          if (!isSame(item, row))
            different!.push(`${name} ${room.name} ${offset}: ${item.type} ${item.mid}, stored ${row?.type} ${row?.mid}`);
          if (item.type === 'msg' && item.visible && item.mid !== undefined) {
            if (shown.has(item.mid)) duplicates!.push(`${name} ${room.name} ${item.mid}`);
            shown.add(item.mid);
          }
        }
        for (const { mid, key, offset, type } of entries.values()) {
          if (type === 'msg' && offset >= first && this.#acked.get(room.name)?.has(key!) && !shown.has(mid!))
            lost!.push(`${name} ${room.name} ${key}`);
        }
      }
    }
    const few = (list: string[] | undefined) => list!.slice(0, MOST_NAMED);
    return {
      members: this.members.length,
      entries: rows.length,
      acked: this.acked,
      compared,
      holesInStore: few(holesInStore),
      undetectedGaps: few(undetectedGaps),
      duplicates: few(duplicates),
      lost: few(lost),
      different: few(different),
      unsettled: few([...this.#open.keys()]),
    };
  }

  stop(): void {
    for (const { client } of this.members) client.stop();
  }
}

/** An entry that was erased after a member had it stays what it was there until its deletion is seen, which has an offset of its own. */
function isSame(item: Item, row: StoredEntry | undefined): boolean {
  if (!row) return false;
  if (row.type === 'gone' || row.type === 'shadow') return !item.visible || item.deleted || item.type === 'gone';
  return item.type === row.type && (item.mid ?? null) === row.mid;
}
