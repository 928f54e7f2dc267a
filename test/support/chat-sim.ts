import { createHash } from 'node:crypto';
import type { ChatSocket, SocketConstructor, SocketEvent } from '../../src/chat-client/index.js';
import type { FakeClock } from '../../src/runtime/clock.js';

/**
 * A stand-in for the service's chat that speaks `veza.chat.v1`, with everything that can go wrong at hand: it forgets what it has not stored, leaves
 * out what it should send, restarts. Knows nothing of sockets: `simSockets` joins it to clients under a fake clock, `FakeChat` to real ones.
 */
export interface SimUser {
  readonly id: string;
  readonly name: string;
  readonly role: string;
}

export interface SimEntry {
  readonly t: string;
  readonly offset: number;
  readonly at: number;
  readonly [field: string]: unknown;
}

interface Waiting {
  readonly session: SimSession;
  readonly id: string;
  readonly mid: string;
  readonly offset: number;
  readonly dup: boolean;
}

export class SimRoom {
  /** What is on air in its channel; undefined: the server does not say. */
  channel: object | undefined;
  epoch = 1;
  /** The offset of an entry is its place + 1. */
  entries: SimEntry[] = [];
  /** Up to here it is stored. */
  stored = 0;
  /** Up to here it was let go by age. */
  floor = 0;
  /** Epochs that ended, and what they kept. */
  readonly keeps: { epoch: number; keep: number }[] = [];
  /** Of a time that was lost when the database was restored from a backup. */
  readonly unknownEpochs = new Set<number>();
  readonly reactions = new Map<string, Map<string, Set<string>>>();
  readonly held = new Map<string, { user: SimUser; key: string; body: unknown }>();
  waiting: Waiting[] = [];
  /** Entries that the database has under another offset already. */
  seconds: number[] = [];
  settings: Record<string, unknown> = { slowS: 0, guests: 'read' };
  pinned: unknown = null;
  /** Of a private channel: the playback link that opens it. */
  link: string | undefined;

  constructor(
    readonly id: string,
    readonly slug: string,
  ) {}

  get head(): number {
    return this.entries.length;
  }

  keysOf(): Map<string, number> {
    return new Map(this.entries.filter(({ mid }) => mid !== undefined).map(({ mid, offset }) => [mid as string, offset]));
  }
}

export interface SimOptions {
  readonly clock: { wallMs(): number; after(delayMs: number, task: () => void): () => void };
  /** Whom a token stands for; undefined: nobody. */
  readonly whoIs?: (token: string) => SimUser | undefined;
  readonly tokenLastsMs?: number;
  /** Says when a token ends, and not how long it lasts. */
  readonly isOlder?: boolean;
  /** From saying to having stored. */
  readonly storeMs?: number;
  readonly pingMs?: number;
  /** After that a key is known to the database alone: the same again is an entry until it is stored. Default: for ever. */
  readonly keyLastsMs?: number;
  /** Said by `welcome`; a session that says more is refused for good. */
  readonly pace?: { readonly perS: number; readonly burst: number };
}

export class SimChat {
  readonly options: SimOptions;
  readonly rooms = new Map<string, SimRoom>();
  readonly sessions = new Set<SimSession>();
  /** The database is away: nothing is acknowledged. */
  isStoring = true;
  /** What is to be done with a publication instead. */
  judge: (
    room: SimRoom,
    user: SimUser,
    body: { text: string },
  ) => { t: 'held' } | { t: 'refused' | 'err'; code: string; retryMs?: number } | undefined = () => undefined;
  /** May `user` moderate? */
  mayModerate = (user: SimUser | undefined) => user !== undefined && user.role !== 'viewer';
  /** Frames received, oldest first. */
  readonly received: Record<string, unknown>[] = [];
  /** Messages that were refused since they came too fast. */
  floods = 0;
  readonly #said = new Map<string, { tokens: number; atMs: number }>();
  #stop: (() => void) | undefined;

  constructor(options: SimOptions) {
    this.options = options;
    const beat = () => {
      for (const session of this.sessions) session.heads();
      this.#stop = options.clock.after(options.pingMs ?? 25_000, beat);
    };
    this.#stop = options.clock.after(options.pingMs ?? 25_000, beat);
  }

  stop(): void {
    this.#stop?.();
  }

  room(slug: string): SimRoom {
    const known = [...this.rooms.values()].find((room) => room.slug === slug || room.id === slug);
    if (known) return known;
    const hex = createHash('sha256').update(slug).digest('hex');
    const id = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
    const room = new SimRoom(id, slug);
    this.rooms.set(id, room);
    return room;
  }

  connect(send: (text: string) => void, close: (code: number) => void): SimSession {
    const session = new SimSession(this, send, close);
    this.sessions.add(session);
    return session;
  }

  /** What is on air: told to who is in the room, and to who comes. */
  onAir(room: SimRoom, channel: object | undefined): void {
    room.channel = channel;
    for (const session of this.sessions) session.tellChannel(room);
  }

  append(room: SimRoom, entry: Record<string, unknown> & { t: string }): SimEntry {
    const last = room.entries.at(-1)?.at ?? 0;
    const made: SimEntry = { at: Math.max(last, this.options.clock.wallMs()), ...entry, offset: room.head + 1 };
    room.entries.push(made);
    for (const session of this.sessions) session.tell(room, made);
    this.#storeLater(room);
    return made;
  }

  say(room: SimRoom, user: SimUser, text: string, more: Record<string, unknown> = {}, key = `k${room.head}-${Math.random()}`): SimEntry {
    return this.append(room, { t: 'msg', mid: midOf(room, user, key), user, body: { text }, key, ...more });
  }

  erase(room: SimRoom, mids: readonly string[], by: { id: string; name: string }): void {
    const offsets: number[] = [];
    room.entries = room.entries.map((entry) => {
      if (entry.t !== 'msg' || !mids.includes(String(entry.mid))) return entry;
      offsets.push(entry.offset);
      return { t: 'gone', offset: entry.offset, at: entry.at, mid: entry.mid };
    });
    this.append(room, { t: 'del', offsets, mids, by });
  }

  approve(room: SimRoom, mid: string): void {
    const held = room.held.get(mid);
    if (!held) return;
    room.held.delete(mid);
    if (room.keysOf().has(mid)) return;
    this.append(room, { t: 'msg', mid, user: held.user, body: held.body, key: held.key, sentAt: this.options.clock.wallMs() });
  }

  #storeLater(room: SimRoom): void {
    const { epoch } = room;
    this.options.clock.after(this.options.storeMs ?? 3, () => {
      if (room.epoch === epoch) this.store(room);
    });
  }

  /** False: this person says too much in this room. */
  mayStillSay(room: SimRoom, user: SimUser): boolean {
    const { pace, clock } = this.options;
    if (!pace) return true;
    const key = `${room.id} ${user.id}`;
    const nowMs = clock.wallMs();
    const { tokens, atMs } = this.#said.get(key) ?? { tokens: pace.burst, atMs: nowMs };
    const had = Math.min(pace.burst, tokens + ((nowMs - atMs) / 1000) * pace.perS);
    this.#said.set(key, { tokens: had >= 1 ? had - 1 : had, atMs: nowMs });
    if (had < 1) this.floods++;
    return had >= 1;
  }

  /** What was said so far is stored, and acknowledged. */
  store(room: SimRoom): void {
    if (!this.isStoring) return;
    room.stored = room.head;
    for (const offset of room.seconds.splice(0)) room.entries[offset - 1] = { t: 'gone', offset, at: room.entries[offset - 1]!.at };
    for (const { session, id, mid, offset, dup } of room.waiting.splice(0)) {
      session.say({ t: 'ack', id, room: room.id, mid, epoch: room.epoch, offset, dup });
    }
  }

  /** The log is wiped: what was not stored is withdrawn. */
  loseLog(room: SimRoom): void {
    const keep = room.stored;
    room.keeps.push({ epoch: room.epoch, keep });
    room.epoch++;
    room.entries = room.entries.slice(0, keep);
    room.waiting = [];
    for (const session of this.sessions) session.reset(room, keep);
  }

  /** The service is stopped, its database is put back to `stored` entries, and it begins again: everything after them was acknowledged and is lost. */
  restoreBackup(room: SimRoom, stored: number): void {
    for (const session of [...this.sessions]) session.end(1006);
    room.unknownEpochs.add(room.epoch);
    room.epoch += 1000;
    room.entries = room.entries.slice(0, stored);
    room.stored = stored;
    room.waiting = [];
  }

  /** Every connection ends at once; what waits for its answer never gets one. */
  crash(code: number): void {
    this.#said.clear();
    for (const session of [...this.sessions]) session.end(code);
    for (const room of this.rooms.values()) room.waiting = [];
  }

  drain(retryMs: number): void {
    for (const session of this.sessions) session.say({ t: 'drain', retryMs });
  }
}

const midOf = (room: SimRoom, user: SimUser, key: string): string =>
  createHash('sha256').update(`${room.id}\0${user.id}\0${key}`).digest().subarray(0, 16).toString('base64url');

type Fields = Record<string, unknown>;

export class SimSession {
  user: SimUser | undefined;
  isOpen = false;
  readonly joined = new Set<SimRoom>();
  readonly #chat: SimChat;
  readonly #send: (text: string) => void;
  readonly #close: (code: number) => void;
  /** Every entry frame passes here: leave it out, send it twice, … */
  mangle: (entry: object, send: (entry: object) => void) => void = (entry, send) => send(entry);

  constructor(chat: SimChat, send: (text: string) => void, close: (code: number) => void) {
    this.#chat = chat;
    this.#send = send;
    this.#close = close;
  }

  tellChannel(room: SimRoom): void {
    if (room.channel && this.joined.has(room)) this.say({ t: 'channel', room: room.id, ...room.channel });
  }

  say(frame: object): void {
    if (this.#chat.sessions.has(this)) this.#send(JSON.stringify(frame));
  }

  end(code: number): void {
    if (this.gone()) this.#close(code);
  }

  /** The other side has closed. */
  gone(): boolean {
    this.joined.clear();
    return this.#chat.sessions.delete(this);
  }

  heads(): void {
    if (!this.isOpen) return;
    this.say({ t: 'heads', rooms: Object.fromEntries([...this.joined].map((room) => [room.id, [room.epoch, room.head]])) });
  }

  tell(room: SimRoom, entry: SimEntry): void {
    if (this.joined.has(room)) this.mangle(this.frame(room, entry), (frame) => this.say(frame));
  }

  reset(room: SimRoom, keep: number): void {
    if (this.joined.has(room)) this.say({ t: 'reset', room: room.id, epoch: room.epoch, keep });
  }

  frame(room: SimRoom, { t, offset, at, key, ...payload }: SimEntry): object {
    const isOwn = key !== undefined && (payload.user as SimUser | undefined)?.id === this.user?.id;
    return { t, room: room.id, epoch: room.epoch, offset, at, ...payload, ...(isOwn ? { key } : {}) };
  }

  receive(text: string): unknown {
    const frame = JSON.parse(text) as Fields;
    this.#chat.received.push(frame);
    if (frame.t === 'hello') return this.#hello(frame);
    if (!this.isOpen) return this.end(4009);
    const fail = (code: string, more: object = {}) => this.say({ t: 'err', id: frame.id, code, message: `Refused: ${code}.`, ...more });
    if (frame.t === 'auth') {
      const user = this.#chat.options.whoIs?.(String(frame.token));
      return user?.id === this.user?.id && user ? this.say({ t: 'ok', id: frame.id, ...this.#expires() }) : this.end(4001);
    }
    const room = [...this.#chat.rooms.values()].find(({ id, slug }) => id === frame.room || slug === frame.room);
    if (!room) return fail('not_found');
    if (frame.t === 'join') return room.link === undefined || frame.link === room.link ? this.#join(room, frame) : fail('not_found');
    if (frame.t === 'leave') {
      this.joined.delete(room);
      return this.say({ t: 'ok', id: frame.id });
    }
    if (!this.joined.has(room)) return fail('not_joined');
    switch (frame.t) {
      case 'pub':
        return this.#publish(room, frame, fail);
      case 'range':
        return this.#page(room, frame, Math.max(Number(frame.from), room.floor + 1), Math.min(Number(frame.to), Number(frame.from) + 99));
      case 'history': {
        const before = frame.before === undefined ? room.head + 1 : Number(frame.before);
        const from = Math.max(before - Number(frame.limit ?? 50), room.floor + 1);
        return this.#page(room, frame, from, Math.min(before - 1, room.head), from > room.floor + 1);
      }
      case 'react':
        return this.#react(room, frame);
      case 'mod':
        return this.#moderate(room, frame, fail);
      default:
        return fail('unknown_type');
    }
  }

  #welcome(): object {
    const { pace } = this.#chat.options;
    const pubs = pace ? { pubsPerS: pace.perS, pubsBurst: pace.burst } : {};
    const limits = { textBytes: 8192, rooms: 20, pubsInFlight: 8, framesPerS: 120, framesBurst: 300, ...pubs };
    const user = this.user ? { id: this.user.id, name: this.user.name } : null;
    return { session: 's', user, ...this.#expires(), limits, pingMs: this.#chat.options.pingMs ?? 25_000 };
  }

  #expires(): { expiresAt: number | null; expiresInMs?: number | null } {
    const { clock, tokenLastsMs, isOlder } = this.#chat.options;
    const lastsMs = this.user && tokenLastsMs !== undefined ? tokenLastsMs : null;
    return { expiresAt: lastsMs === null ? null : clock.wallMs() + lastsMs, ...(!isOlder && { expiresInMs: lastsMs }) };
  }

  #hello(frame: Fields): unknown {
    if (frame.token !== undefined) {
      this.user = this.#chat.options.whoIs?.(String(frame.token));
      if (!this.user) return this.end(4001);
    }
    this.isOpen = true;
    return this.say({ t: 'welcome', ...this.#welcome() });
  }

  #join(room: SimRoom, frame: Fields): void {
    const since = frame.since as { epoch: number; offset: number } | undefined;
    let recovered = 'none';
    let cursor = Math.max(room.floor, room.head - 50);
    if (since && room.unknownEpochs.has(since.epoch)) {
      this.say({ t: 'reset', room: room.id, epoch: room.epoch, keep: 0 });
      cursor = room.floor;
    } else if (since && since.epoch <= room.epoch) {
      const keep = Math.min(...room.keeps.filter(({ epoch }) => epoch >= since.epoch).map(({ keep }) => keep), Number.POSITIVE_INFINITY);
      if (since.epoch < room.epoch) this.say({ t: 'reset', room: room.id, epoch: room.epoch, keep });
      cursor = Math.max(Math.min(since.offset, keep, room.head), room.floor);
      recovered = cursor === since.offset ? 'full' : 'partial';
      if (room.head - cursor > 1_000) {
        cursor = room.head - 50;
        recovered = 'partial';
      }
    }
    this.joined.add(room);
    const entries = room.entries.slice(cursor, cursor + 50);
    const may = this.#chat.mayModerate(this.user) ? 'yes' : 'no';
    const you = { role: this.user?.role ?? 'viewer', write: this.user !== undefined, moderate: may, timeoutUntil: null };
    this.say({
      t: 'joined',
      id: frame.id,
      room: room.id,
      channel: room.slug,
      epoch: room.epoch,
      offset: entries.at(-1)?.offset ?? cursor,
      recovered,
      entries: entries.map((entry) => this.frame(room, entry)),
      members: this.#chat.sessions.size,
      settings: room.settings,
      pinned: room.pinned,
      you,
    });
    this.tellChannel(room);
    this.#reacts(room, entries);
    for (const entry of room.entries.slice(cursor + 50)) this.tell(room, entry);
  }

  #reacts(room: SimRoom, entries: readonly SimEntry[]): void {
    const counts: Record<string, object> = {};
    for (const { mid } of entries) {
      const found = typeof mid === 'string' ? room.reactions.get(mid) : undefined;
      if (found) counts[String(mid)] = Object.fromEntries([...found].map(([emoji, who]) => [emoji, who.size]));
    }
    if (Object.keys(counts).length > 0) this.say({ t: 'reacts', room: room.id, counts });
  }

  #page(room: SimRoom, frame: Fields, from: number, to: number, more = false): void {
    const entries = room.entries.slice(Math.max(0, from - 1), Math.max(0, to));
    this.say({
      t: 'page',
      id: frame.id,
      room: room.id,
      epoch: room.epoch,
      entries: entries.map((entry) => this.frame(room, entry)),
      more: more || (frame.t === 'range' && to < Number(frame.to)),
    });
    this.#reacts(room, entries);
  }

  #publish(room: SimRoom, frame: Fields, fail: (code: string, more?: object) => void): unknown {
    const { user } = this;
    if (!user) return fail('unauthorized');
    const { key, body, id } = frame as unknown as { key: string; body: { text: string }; id: string };
    const mid = midOf(room, user, key);
    const first = room.entries.find((entry) => entry.mid === mid);
    const known = first?.offset;
    const { clock, keyLastsMs = Number.POSITIVE_INFINITY } = this.#chat.options;
    if (first && clock.wallMs() - first.at > keyLastsMs) {
      // The log has forgotten it: everybody is told it once more, and the database says that it is the first that counts.
      room.seconds.push(this.#chat.append(room, { t: 'msg', mid, user, body, key }).offset);
      room.waiting.push({ session: this, id, mid, offset: first.offset, dup: true });
      return;
    }
    if (known === undefined) {
      if (!this.#chat.mayStillSay(room, user)) return this.say({ t: 'refused', id, mid, code: 'moderated', reason: 'Not so fast.' });
      if (room.held.has(mid)) return this.say({ t: 'held', id, mid });
      const verdict = this.#chat.judge(room, user, body);
      if (verdict?.t === 'held') {
        room.held.set(mid, { user, key, body });
        return this.say({ t: 'held', id, mid });
      }
      if (verdict?.t === 'err') return fail(verdict.code, verdict.retryMs === undefined ? {} : { retryMs: verdict.retryMs });
      if (verdict) return this.say({ ...verdict, id, mid, reason: `Refused: ${verdict.code}.` });
    }
    const offset = known ?? this.#chat.append(room, { t: 'msg', mid, user, body, key }).offset;
    room.waiting.push({ session: this, id, mid, offset, dup: known !== undefined });
    if (known !== undefined && known <= room.stored) this.#chat.store(room);
  }

  #react(room: SimRoom, frame: Fields): void {
    const mid = String(frame.mid);
    const byEmoji = room.reactions.get(mid) ?? new Map<string, Set<string>>();
    const who = byEmoji.get(String(frame.emoji)) ?? new Set();
    if (frame.on) who.add(this.user!.id);
    else who.delete(this.user!.id);
    byEmoji.set(String(frame.emoji), who);
    room.reactions.set(mid, byEmoji);
    this.say({ t: 'ok', id: frame.id });
    const counts = { [mid]: Object.fromEntries([...byEmoji].map(([emoji, set]) => [emoji, set.size])) };
    for (const session of this.#chat.sessions) if (session.joined.has(room)) session.say({ t: 'reacts', room: room.id, counts });
  }

  #moderate(room: SimRoom, frame: Fields, fail: (code: string, more?: object) => void): unknown {
    if (!this.#chat.mayModerate(this.user)) return fail('forbidden');
    const by = { id: this.user!.id, name: this.user!.name };
    if (frame.action === 'delete') this.#chat.erase(room, [String(frame.mid)], by);
    else if (frame.action === 'pin') {
      const pinned = room.entries.find(({ mid }) => mid === frame.mid && frame.mid !== undefined && frame.mid !== null);
      room.pinned = pinned ? { mid: pinned.mid, user: pinned.user, body: pinned.body, at: pinned.at } : null;
      this.#chat.append(room, { t: 'pin', mid: pinned ? pinned.mid : null, ...(pinned && { messageOffset: pinned.offset }), by });
    } else {
      if (frame.action === 'slow') room.settings = { ...room.settings, slowS: Number(frame.seconds ?? 0) };
      this.#chat.append(room, { t: 'act', action: frame.action, by, user: frame.user, settings: room.settings });
    }
    this.say({ t: 'ok', id: frame.id, result: {} });
  }
}

export interface SimNet {
  /** From 0 to below 1. */
  random(): number;
  /** Refuses every new connection. */
  isDown: boolean;
  /** Called with each connection's server side. */
  onSession?: (session: SimSession) => void;
  readonly sockets: Set<SimSocket>;
}

const LATENCY_MS = 120;

/** What one client's connections are made of: each with a latency of its own, in order within, and what is under way is lost with it. */
class SimSocket implements ChatSocket {
  readyState = 0;
  readonly #clock: FakeClock;
  readonly #net: SimNet;
  readonly #latencyMs: number;
  readonly #listeners = new Map<string, ((event: SocketEvent) => void)[]>();
  session: SimSession | undefined;

  constructor(chat: SimChat, clock: FakeClock, net: SimNet) {
    this.#clock = clock;
    this.#net = net;
    this.#latencyMs = Math.floor(net.random() * LATENCY_MS);
    net.sockets.add(this);
    clock.after(this.#latencyMs, () => {
      if (this.readyState !== 0) return;
      if (net.isDown) {
        this.cut(1006);
        return;
      }
      this.readyState = 1;
      this.session = chat.connect(
        (text) =>
          clock.after(this.#latencyMs, () => {
            if (this.readyState === 1) this.#fire({ type: 'message', data: text });
          }),
        (code) => this.cut(code),
      );
      net.onSession?.(this.session);
      this.#fire({ type: 'open' });
    });
  }

  addEventListener(type: string, listener: (event: SocketEvent) => void): void {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
  }

  send(data: string): void {
    if (this.readyState !== 1) throw new Error('not open');
    const { session } = this;
    this.#clock.after(this.#latencyMs, () => {
      // What was under way when the client closed still arrives; what was when the line broke does not.
      if (this.readyState !== 3 && session?.joined) session.receive(data);
    });
  }

  close(): void {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    this.#net.sockets.delete(this);
    this.#clock.after(this.#latencyMs, () => {
      this.readyState = 3;
      this.session?.gone();
    });
  }

  /** The line breaks. */
  cut(code: number): void {
    if (this.readyState === 3) return;
    const wasOurs = this.readyState < 2;
    this.readyState = 3;
    this.session?.gone();
    this.#net.sockets.delete(this);
    if (wasOurs) this.#fire({ type: 'close', code });
  }

  #fire(event: SocketEvent): void {
    for (const listener of this.#listeners.get(event.type) ?? []) listener(event);
  }
}

export function simSockets(chat: SimChat, clock: FakeClock, net: SimNet): SocketConstructor {
  return class extends SimSocket {
    constructor() {
      super(chat, clock, net);
    }
  };
}

/** The same numbers from the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
