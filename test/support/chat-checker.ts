import { isDeepStrictEqual } from 'node:util';
import { WebSocket } from 'ws';
import { type Deletion, midOf } from '../../src/chat/protocol/entry-frame.js';
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
  readonly epoch?: number;
  readonly type: string;
  readonly mid: string | null;
  readonly key: string | null;
  readonly user?: string | null;
  /** Left out: what an entry says is not compared, only which one it is. */
  readonly payload?: string;
}

/** All of them, from the database of the service. */
export const STORED_ENTRIES = `select c.slug, m."offset"::int as "offset", m.epoch, m.type, m.mid, m.key, m.user_id as "user", m.payload from messages m
  join rooms r on r.id = m.room_id join channels c on c.id = r.channel_id order by 1, 2`;

export type ViewItem = Pick<Item, 'offset' | 'epoch' | 'type' | 'mid' | 'body' | 'visible' | 'deleted' | 'entry'>;

/** What a member has of one room at the end. */
export interface View {
  readonly member: string;
  readonly room: string;
  /** As they are shown, from the first to the last. */
  readonly items: readonly ViewItem[];
  /** From here to `to` he is to have everything. */
  readonly from: number;
  /** Of who was put out; undefined: the end of the room. */
  readonly to?: number;
  /** What he was told is missing; both inclusive. */
  readonly told: readonly (readonly [from: number, to: number])[];
}

/** A message that was acknowledged. */
export interface Acked {
  readonly key: string;
  readonly mid: string;
  readonly user: string;
}

/** Beside the store, what is known for certain. */
export interface Known {
  /** By room and `mid`. */
  readonly acked: ReadonlyMap<string, ReadonlyMap<string, Acked>>;
  /** By room, `mid`s whose deletion was answered. */
  readonly deleted: ReadonlyMap<string, ReadonlySet<string>>;
  /** By room, the entries of the log as it has them. */
  readonly log?: ReadonlyMap<string, readonly string[]>;
}

/** Nothing may be in any of these. */
export interface CheckFaults {
  /** Offsets of a room that have no row, though there are later ones. */
  readonly holesInStore: readonly string[];
  /** Offsets that a member does not have and was not told of. */
  readonly undetectedGaps: readonly string[];
  /** Messages that a member shows twice, or that are stored twice. */
  readonly duplicates: readonly string[];
  /** Entries that a member has behind a later one, or got behind it. */
  readonly outOfOrder: readonly string[];
  /** Keys that were acknowledged and are not stored, or not shown by a member. */
  readonly lost: readonly string[];
  /** Offsets where a member has something else than is stored. */
  readonly different: readonly string[];
  /** What a member has kept of an epoch that ended without it. */
  readonly notWithdrawn: readonly string[];
  /** What was deleted, and is in the store, in the log or with a member still. */
  readonly notDeleted: readonly string[];
}

export const NO_FAULTS: CheckFaults = {
  holesInStore: [],
  undetectedGaps: [],
  duplicates: [],
  outOfOrder: [],
  lost: [],
  different: [],
  notWithdrawn: [],
  notDeleted: [],
};

export interface CheckReport extends CheckFaults {
  readonly members: number;
  readonly entries: number;
  readonly acked: number;
  /** Offsets that were compared, of all members. */
  readonly compared: number;
  /** Of these, what the member was told is missing. */
  readonly told: number;
  /** Keys whose fate is not known though all is quiet. */
  readonly unsettled: readonly string[];
}

interface Said {
  readonly author: CheckedMember;
  readonly room: ChatRoom;
  readonly during: Span;
  /** Members that show it now, without its author. */
  readonly shownBy: Set<CheckedMember>;
  wasDelivered: boolean;
}

/** From one moment to the next: messages that were said, that somebody else than the author was shown, and that were acknowledged. */
export interface Span {
  readonly what: string;
  said: number;
  delivered: number;
  acked: number;
  /** Of those said within it, whenever that was. */
  saidAndAcked: number;
  saidAndRefused: number;
}

const MOST_NAMED = 20;

/**
 * Members of a chat with the client library that everybody uses, and at the end what each of them has for every (room, offset), held against
 * what PostgreSQL has.
 */
export class ChatChecker {
  readonly members: CheckedMember[] = [];
  readonly spans: Span[] = [];
  readonly #url: string;
  readonly #acked = new Map<string, Map<string, Acked>>();
  readonly #deleted = new Map<string, Set<string>>();
  readonly #open = new Map<string, string>();
  readonly #said = new Map<string, Said>();
  /** Member, room, offset, of an entry that came though one with this offset or a later one was there. */
  readonly #outOfOrder: string[] = [];
  /** What was in a page of history though its deletion had been answered. */
  readonly #served: string[] = [];
  readonly #told = new Map<ChatRoom, [number, number][]>();
  readonly #from = new Map<ChatRoom, number>();
  readonly refused: Record<string, number> = {};
  #keys = 0;

  constructor(url: string) {
    this.#url = url;
    this.span('the start');
  }

  /** From here on said, delivered and acknowledged are counted anew. */
  span(what: string): Span {
    const span: Span = { what, said: 0, delivered: 0, acked: 0, saidAndAcked: 0, saidAndRefused: 0 };
    this.spans.push(span);
    return span;
  }

  async join(name: string, token: string, rooms: readonly string[], url = this.#url): Promise<CheckedMember> {
    let socket: WebSocket | undefined;
    class Watched extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols, { perMessageDeflate: false });
        socket = this;
      }
    }
    const client = new ChatClient({
      url,
      token: async () => token,
      webSocket: Watched as unknown as SocketConstructor,
      mostFetched: 1e6,
    });
    const joined = rooms.map((room) => client.join(room));
    const member: CheckedMember = { name, client, rooms: joined, drop: () => socket?.terminate() };
    for (const room of joined) this.#watch(member, room);
    client.start();
    await eventually(`${name} is in`, () => (joined.every(({ state }) => state === 'joined') ? true : undefined), 60_000);
    for (const room of joined) this.#from.set(room, room.timeline.items[0]?.offset ?? room.position + 1);
    this.members.push(member);
    return member;
  }

  #watch(member: CheckedMember, room: ChatRoom): void {
    let last = 0;
    this.#told.set(room, []);
    room.listen((event) => {
      if (event.type === 'missing') this.#told.get(room)!.push([event.from, event.to]);
      if (event.type === 'removed') {
        last = Math.min(last, (event.items[0]?.offset ?? 1) - 1);
        for (const { mid } of event.items) if (mid !== undefined) this.#said.get(mid)?.shownBy.delete(member);
      }
      if (event.type === 'added' && event.where === 'start') {
        for (const { mid, type, body } of event.items)
          if (type === 'msg' && body.text !== '' && this.#deleted.get(room.name)?.has(mid!))
            this.#served.push(`page ${member.name} ${room.name} ${mid}`);
      }
      if (event.type === 'added' && event.where === 'end') {
        for (const { offset, mid, user } of event.items) {
          if (offset <= last) this.#outOfOrder.push(`${member.name} ${room.name} ${offset} after ${last}`);
          last = offset;
          if (mid !== undefined && user?.id !== member.client.user?.id) this.#shown(member, mid);
        }
      }
    });
  }

  #shown(member: CheckedMember, mid: string): void {
    const said = this.#said.get(mid);
    if (!said) return;
    said.shownBy.add(member);
    if (said.wasDelivered) return;
    said.wasDelivered = true;
    this.#now.delivered++;
  }

  get #now(): Span {
    return this.spans.at(-1)!;
  }

  /** One message, followed until its fate is known: `sent`, `held`, or why it was not taken. */
  say(member: CheckedMember, room: ChatRoom, text: string): Promise<string> {
    // What he says waits until he is let in again, and may wait for ever.
    if (isOut(room)) return Promise.resolve('out');
    const key = `${member.name}-${++this.#keys}`;
    this.#open.set(key, room.name);
    let outgoing: ReturnType<ChatRoom['publish']>;
    try {
      outgoing = room.publish(text, { key });
    } catch {
      // Too many wait already: nothing was promised.
      this.#open.delete(key);
      return Promise.resolve('outbox_full');
    }
    const during = this.#now;
    during.said++;
    const user = member.client.user!.id;
    const mid = midOf(room.id!, user, key);
    this.#said.set(mid, { author: member, room, during, shownBy: new Set(), wasDelivered: false });
    return outgoing.settled.then(({ state, problem }) => {
      this.#open.delete(key);
      if (state === 'sent') {
        during.saidAndAcked++;
        this.isAcked(room.name, { key, mid, user });
        return state;
      }
      // Otherwise a hundred of them leave no place for another.
      room.discard(key);
      const why = problem?.code ?? state;
      during.saidAndRefused++;
      this.refused[why] = (this.refused[why] ?? 0) + 1;
      return why;
    });
  }

  /** Also of messages that were not said here. */
  isAcked(room: string, message: Acked): void {
    const acked = this.#acked.get(room) ?? new Map<string, Acked>();
    this.#acked.set(room, acked.set(message.mid, message));
    this.#now.acked++;
  }

  /** A moderator was answered that it is deleted. */
  isDeleted(room: string, mid: string): void {
    const deleted = this.#deleted.get(room) ?? new Set<string>();
    this.#deleted.set(room, deleted.add(mid));
  }

  /** Of what was said within this span: what somebody else has been shown, and how much of that some member of its room is not shown. */
  delivery(span: Span): { delivered: number; incomplete: number } {
    const delivered = [...this.#said.values()].filter(({ during, shownBy }) => during === span && shownBy.size > 0);
    const isMissing = ({ author, room: { name }, shownBy }: Said) =>
      this.members.some((member) => {
        const room = member.rooms.find((one) => one.name === name);
        return room !== undefined && member !== author && !isOut(room) && !shownBy.has(member);
      });
    const incomplete = delivered.filter(isMissing);
    return { delivered: delivered.length, incomplete: incomplete.length };
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
        const isBehind = (room: ChatRoom) => !isOut(room) && room.position !== (heads.get(room.name) ?? 0);
        return this.members.some(({ rooms }) => rooms.some(isBehind)) ? undefined : rows;
      },
      timeoutMs,
    ).catch(() => stored());
  }

  /** Every member reads everything that was before he came, or before his view was begun anew. */
  async readBack(): Promise<void> {
    for (const room of this.members.flatMap(({ rooms }) => rooms)) while (!isOut(room) && (await room.history(100)));
  }

  get known(): Known {
    return { acked: this.#acked, deleted: this.#deleted };
  }

  get views(): View[] {
    return this.members.flatMap(({ name: member, rooms }) =>
      rooms.map((room) => {
        const { items } = room.timeline;
        const first = items[0]?.offset ?? room.position + 1;
        // What is older than a view that was begun anew is there to be read, and the view says so.
        const from = room.hasOlder ? first : Math.min(first, this.#from.get(room)!);
        return { member, room: room.name, items, from, told: this.#told.get(room)!, ...(isOut(room) && { to: room.position }) };
      }),
    );
  }

  check(rows: readonly StoredEntry[], log?: Known['log']): CheckReport {
    const { compared, told, ...found } = compareViews(this.views, rows, { ...this.known, ...(log && { log }) });
    const faults = { ...found, outOfOrder: [...this.#outOfOrder, ...found.outOfOrder], notDeleted: [...this.#served, ...found.notDeleted] };
    const few = (list: readonly string[]) => list.slice(0, MOST_NAMED);
    return {
      members: this.members.length,
      entries: rows.length,
      acked: this.acked,
      compared,
      told,
      ...(Object.fromEntries(Object.entries(faults).map(([name, list]) => [name, few(list)])) as unknown as CheckFaults),
      unsettled: few([...this.#open.keys()]),
    };
  }

  stop(): void {
    for (const { client, rooms } of this.members) {
      client.stop();
      for (const room of rooms) client.leave(room);
    }
  }
}

/** Each view against the store, and the store against what is known. */
export function compareViews(
  views: readonly View[],
  rows: readonly StoredEntry[],
  { acked, deleted, log }: Known,
): CheckFaults & { readonly compared: number; readonly told: number } {
  const holesInStore: string[] = [];
  const undetectedGaps: string[] = [];
  const duplicates: string[] = [];
  const outOfOrder: string[] = [];
  const lost: string[] = [];
  const different: string[] = [];
  const notWithdrawn: string[] = [];
  const notDeleted: string[] = [];
  const byRoom = new Map<string, Map<number, StoredEntry>>();
  for (const slug of [...acked.keys(), ...deleted.keys()]) byRoom.set(slug, new Map());
  for (const row of rows) {
    const entries = byRoom.get(row.slug) ?? new Map<number, StoredEntry>();
    byRoom.set(row.slug, entries);
    if (entries.has(row.offset)) duplicates.push(`store ${row.slug} ${row.offset}`);
    entries.set(row.offset, row);
  }
  const erased = new Map<string, Set<string>>();
  for (const [slug, entries] of byRoom) {
    const offsets = [...entries.keys()].sort((a, b) => a - b);
    const head = offsets.at(-1) ?? 0;
    for (let offset = offsets[0] ?? 1; offset <= head; offset++) if (!entries.has(offset)) holesInStore.push(`${slug} ${offset}`);

    const deletions = deletionsOf([...entries.values()]);
    const [keys, mids] = [new Map<string, number>(), new Map<string, StoredEntry>()];
    for (const row of entries.values()) {
      const { offset, type, mid, key, user } = row;
      if (type === 'gone' && mid !== null) addTo(erased, slug, mid);
      if ((type === 'msg' || type === 'shadow') && deletions.hasTaken(offset, user ?? undefined)) {
        notDeleted.push(`store ${slug} ${offset} ${mid}`);
        if (mid !== null) addTo(erased, slug, mid);
      }
      if (mid !== null && mids.has(mid)) duplicates.push(`store ${slug} ${mid}`);
      if (mid !== null) mids.set(mid, row);
      if (key !== null && type === 'msg') keys.set(`${user ?? ''} ${key}`, (keys.get(`${user ?? ''} ${key}`) ?? 0) + 1);
    }
    for (const [key, times] of keys) if (times > 1) duplicates.push(`store ${slug} ${key.trim()} ${times} times`);
    for (const mid of deleted.get(slug) ?? []) {
      const row = mids.get(mid);
      if (row && row.type !== 'gone' && !deletions.hasTaken(row.offset, row.user ?? undefined))
        notDeleted.push(`store ${slug} ${row.offset} ${mid}`);
      addTo(erased, slug, mid);
    }
    for (const entry of log?.get(slug) ?? []) {
      for (const mid of erased.get(slug) ?? []) if (entry.includes(`"mid":"${mid}"`)) notDeleted.push(`log ${slug} ${mid}`);
    }
    for (const { mid, key, user } of acked.get(slug)?.values() ?? []) {
      const row = mids.get(mid);
      if (!row || (row.type === 'gone' && !deletions.hasTaken(row.offset, user))) lost.push(`store ${slug} ${key}`);
    }
  }
  let [compared, toldCount] = [0, 0];
  for (const { member, room, items, from, to, told } of views) {
    const entries = byRoom.get(room) ?? new Map<number, StoredEntry>();
    const head = to ?? Math.max(0, ...entries.keys());
    const name = `${member} ${room}`;
    const byOffset = new Map<number, ViewItem>();
    const shown = new Set<string>();
    let last = 0;
    for (const item of items) {
      if (item.offset <= last) outOfOrder.push(`${name} ${item.offset} after ${last}`);
      last = item.offset;
      byOffset.set(item.offset, item);
      if (item.offset > head) notWithdrawn.push(`${name} ${item.offset}: ${item.type} ${item.mid}`);
      if (item.type !== 'msg' || item.mid === undefined || !item.visible) continue;
      if (shown.has(item.mid)) duplicates.push(`${name} ${item.mid}`);
      shown.add(item.mid);
      if (erased.get(room)?.has(item.mid) && (!item.deleted || item.body.text !== '')) notDeleted.push(`${name} ${item.mid}`);
    }
    const isTold = (offset: number) => told.some(([first, end]) => first <= offset && offset <= end);
    for (let offset = from; offset <= head; offset++) {
      compared++;
      const item = byOffset.get(offset);
      const row = entries.get(offset);
      if (!item && isTold(offset)) toldCount++;
      else if (!item) undetectedGaps.push(`${name} ${offset}`);
      else if (!isSame(item, row)) {
        const isOld = row?.epoch !== undefined && item.epoch < row.epoch;
        (isOld ? notWithdrawn : different).push(`${name} ${offset}: ${item.type} ${item.mid}, stored ${row?.type} ${row?.mid}`);
      }
    }
    for (const { mid, offset, type } of entries.values()) {
      if (type !== 'msg' || offset < from || offset > head || isTold(offset)) continue;
      const message = mid === null ? undefined : acked.get(room)?.get(mid);
      if (message && !shown.has(message.mid)) lost.push(`${name} ${message.key}`);
    }
  }
  return {
    compared,
    told: toldCount,
    holesInStore,
    undetectedGaps,
    duplicates,
    outOfOrder,
    lost,
    different,
    notWithdrawn,
    notDeleted,
  };
}

const isOut = ({ state }: ChatRoom) => state === 'left' || state === 'refused';

function addTo(sets: Map<string, Set<string>>, name: string, value: string): void {
  const set = sets.get(name) ?? new Set();
  sets.set(name, set.add(value));
}

/** What the deletions of a room say is to be erased. */
function deletionsOf(rows: readonly StoredEntry[]) {
  const offsets = new Set<number>();
  const upTo = new Map<string, number>();
  for (const { offset: place, type, payload } of rows) {
    if (type !== 'del' || payload === undefined) continue;
    const del = JSON.parse(payload) as Deletion;
    for (const offset of del.offsets ?? []) offsets.add(offset);
    // It takes nothing that comes after it.
    if (del.user !== undefined) upTo.set(del.user, Math.max(upTo.get(del.user) ?? 0, Math.min(del.upTo ?? 0, place - 1)));
  }
  return {
    hasTaken: (offset: number, user: string | undefined) => offsets.has(offset) || (user !== undefined && offset <= (upTo.get(user) ?? 0)),
  };
}

/** What was erased after a member had it stays what it was there until its deletion is seen, which has an offset of its own. */
function isSame(item: ViewItem, row: StoredEntry | undefined): boolean {
  if (!row) return false;
  if (row.type === 'gone' || row.type === 'shadow') return !item.visible || item.deleted || item.type === 'gone';
  if (item.type !== row.type) return false;
  if (row.type !== 'msg') return row.payload === undefined || isDeepStrictEqual(saidBy(item), JSON.parse(row.payload));
  if (item.mid !== row.mid || item.deleted) return false;
  return row.payload === undefined || isDeepStrictEqual(item.body, (JSON.parse(row.payload) as { body: unknown }).body);
}

/** An entry without what its place in the log is. */
function saidBy({ entry }: ViewItem): object {
  const { t: _t, room: _room, epoch: _epoch, offset: _offset, at: _at, ...said } = entry;
  return said;
}
