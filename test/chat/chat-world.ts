import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocket } from 'ws';
import { z } from 'zod';
import type { ChannelAccess, ChannelStanding, ChatAuthorization, ChatIdentity } from '../../src/chat/gateway/authorization.js';
import { Gateway, type GatewayOptions } from '../../src/chat/gateway/gateway.js';
import type { GatewayRules } from '../../src/chat/gateway/moderation.js';
import { DEFAULT_SETTINGS } from '../../src/chat/moderation/settings.js';
import { type EntryFrame, encodeEntry, midOf } from '../../src/chat/protocol/entry-frame.js';
import { SERVER_FRAMES } from '../../src/chat/protocol/server-frames.js';
import { Presence } from '../../src/chat/rooms/presence/presence.js';
import type {
  Commit,
  EntryPage,
  EntryPageQuery,
  Publish,
  PublishOutcome,
  Reactions,
  Resumption,
  Room,
  RoomInfo,
  RoomListener,
} from '../../src/chat/rooms/room.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';

/** A room in memory whose log, commits and failures a test decides. Only the newest `ring` frames are at hand at once. */
export class FakeRoom {
  epoch = 1;
  floor = 0;
  frames: EntryFrame[] = [];
  readonly listeners = new Set<RoomListener>();
  readonly reacted: unknown[] = [];
  ring = 64;
  holders = 0;
  /** Commits wait for it. */
  committing: Promise<Commit['kind']> = Promise.resolve('stored' as const);
  outcome: PublishOutcome | undefined;
  reactionsNow: Reactions = {};
  published: Publish[] = [];
  reads = 0;
  /** What every read that is not of the ring waits for. */
  reading: Promise<void> = Promise.resolve();

  constructor(readonly info: RoomInfo) {}

  get id(): string {
    return this.info.id;
  }
  get head(): number {
    return this.frames.at(-1)?.offset ?? this.floor;
  }

  say(type: string, payload: object, key?: string): EntryFrame {
    const frame = encodeEntry(this.id, this.epoch, {
      offset: this.head + 1,
      atMs: Date.UTC(2030, 0, 1),
      type,
      payload: JSON.stringify(payload),
      key,
    });
    this.frames.push(frame);
    for (const listener of [...this.listeners]) listener.onFrames();
    return frame;
  }
  message(text: string, userId = 'u-other', key = `k${this.head}`): EntryFrame {
    const mid = midOf(this.id, userId, key);
    return this.say('msg', { mid, user: { id: userId, name: userId, role: 'viewer' }, body: { text } }, `${mid}:${key}`);
  }
  reset(keep: number): void {
    this.epoch++;
    this.frames = this.frames.filter(({ offset }) => offset <= keep);
    for (const listener of [...this.listeners]) listener.onReset(this.epoch, keep);
  }

  framesAfter(offset: number, limit: number): readonly EntryFrame[] | Promise<readonly EntryFrame[] | undefined> {
    const from = this.frames.findIndex((frame) => frame.offset > offset);
    const found = from < 0 ? [] : this.frames.slice(from, from + limit);
    if (offset >= this.head - this.ring && offset >= this.floor) return found;
    this.reads++;
    return this.reading.then(() => (offset < this.floor ? undefined : found.slice(0, 100)));
  }
  async readPage({ before, from, to, limit }: EntryPageQuery): Promise<EntryPage> {
    const all = this.frames.filter(({ offset }) =>
      from !== undefined ? offset >= from && offset <= to! : offset < (before ?? Number.POSITIVE_INFINITY),
    );
    const frames = from !== undefined ? all.slice(0, limit) : all.slice(-limit);
    return { epoch: this.epoch, frames, more: frames.length < all.length };
  }
  async resumeFrom(since: { epoch: number; offset: number } | undefined): Promise<Resumption> {
    if (!since) return { recovered: 'none', cursor: Math.max(this.floor, this.head - 50), keep: undefined };
    if (since.epoch !== this.epoch) return { recovered: 'partial', cursor: 0, keep: 0 };
    if (since.offset > this.head) return { recovered: 'none', cursor: Math.max(this.floor, this.head - 50), keep: undefined };
    if (since.offset < this.floor) return { recovered: 'partial', cursor: this.floor, keep: undefined };
    return { recovered: 'full', cursor: since.offset, keep: undefined };
  }
  async publishMessage(publication: Publish): Promise<PublishOutcome> {
    this.published.push(publication);
    if (this.outcome) return this.outcome;
    const { author, key, body } = publication;
    const mid = midOf(this.id, author.id, key);
    const known = this.frames.find((frame) => frame.mid === mid);
    const { offset } =
      known ?? this.say('msg', { mid, user: { id: author.id, name: author.name, role: author.role }, body }, `${mid}:${key}`);
    const { epoch } = this;
    const dup = known !== undefined;
    const committed = this.committing.then((kind): Commit => (kind === 'resend' ? { kind } : { kind, epoch, offset, dup }));
    return { kind: 'published', mid, epoch, offset, dup, committed };
  }
  async publishHeld() {
    return { epoch: this.epoch, offset: this.head };
  }
  async appendEntry() {
    return { epoch: this.epoch, offset: this.head };
  }
  async eraseMessages() {
    return undefined;
  }
  async setReaction(...args: unknown[]): Promise<void> {
    this.reacted.push(args);
  }
  async reactionCounts(): Promise<Reactions> {
    return this.reactionsNow;
  }
  addListener(listener: RoomListener): void {
    this.listeners.add(listener);
  }
  removeListener(listener: RoomListener): void {
    this.listeners.delete(listener);
  }
  release(): void {
    this.holders--;
  }
}

export const roomId = (n: number) => `0000000${n}-0000-4000-8000-000000000000`;

/** What the gateway is handed, under the test's control. The gateway is real and listens on a port. */
export class ChatWorld implements ChatAuthorization, GatewayRules {
  readonly clock = new FakeClock();
  readonly rooms = new Map<string, FakeRoom>();
  readonly people = new Map<string, ChatIdentity>();
  readonly access = new Map<string, { isPrivate: boolean; roles: Map<string, ChannelStanding>; links: Map<string, number> }>();
  readonly endedSessions = new Set<string>();
  readonly endedPeople = new Map<string, 'banned' | 'ended'>();
  readonly bans = new Map<string, number>();
  readonly timeouts = new Map<string, number>();
  readonly warnings = new Map<string, number>();
  guests: 'read' | 'none' = 'read';
  followersMin = 0;
  /** Of the process's time. */
  busy = 0;
  /** Tokens are looked at when it resolves. */
  looking: Promise<void> = Promise.resolve();
  readonly moderated: unknown[][] = [];
  #listeners = new Set<{ onPeople(roomId: string, userIds: readonly string[]): void; onRoom(roomId: string): void }>();
  presence!: Presence;
  gateway!: Gateway;
  server!: Server;
  readonly clients: Client[] = [];

  static async start(options: Partial<GatewayOptions> = {}): Promise<ChatWorld> {
    const world = new ChatWorld();
    world.presence = new Presence({ clock: world.clock });
    world.gateway = new Gateway({
      rooms: {
        find: async (name) => [...world.rooms.values()].find(({ info }) => info.id === name || info.slug === name)?.info,
        open: async (id) => {
          const room = world.rooms.get(id);
          if (!room) throw new VezaError('not_found', 'There is no such room.');
          room.holders++;
          return room as unknown as Room;
        },
      },
      authorization: world,
      rules: world,
      moderate: async (...args) => {
        world.moderated.push(args);
        return { offset: 7 };
      },
      presence: world.presence,
      clock: world.clock,
      log: silentLog,
      maxConnections: 1000,
      maxTextBytes: 8192,
      pace: { perS: 2, burst: 20 },
      isOriginAllowed: (origin) => origin === 'https://radio.example',
      addressOf: () => '192.0.2.1',
      countryOf: () => undefined,
      busy: () => world.busy,
      ...options,
    });
    world.server = createServer((_req, res) => res.writeHead(426).end());
    world.server.on('upgrade', (req, socket, head) => world.gateway.upgrade(req, socket, head));
    world.server.listen(0, '127.0.0.1');
    await once(world.server, 'listening');
    world.room(1, 'radio');
    world.person('t-ann', 'u-ann');
    world.person('t-bob', 'u-bob');
    return world;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }
  get url(): string {
    return `ws://127.0.0.1:${this.port}/chat`;
  }

  room(n: number, slug: string, isPrivate = false): FakeRoom {
    const channelId = `c-${n}`;
    const room = new FakeRoom({ id: roomId(n), slug, channelId, visibility: isPrivate ? 'private' : 'public', settings: {} });
    this.rooms.set(room.id, room);
    this.access.set(channelId, { isPrivate, roles: new Map(), links: new Map() });
    return room;
  }
  person(token: string, id: string, more: Partial<ChatIdentity> = {}): void {
    this.people.set(token, {
      id,
      name: id,
      expiresAtMs: undefined,
      sessionId: `s-${token}`,
      keyId: undefined,
      mayWrite: true,
      actor: `account:${id}`,
      proof: undefined,
      ...more,
    });
  }

  // ChatAuthorization.
  async identify(credential: string): Promise<ChatIdentity> {
    await this.looking;
    if (credential === 't-banned') throw new VezaError('forbidden', 'banned');
    if (credential === 't-away') throw new VezaError('unavailable', 'The database does not answer.');
    const person = this.people.get(credential);
    if (!person) throw new VezaError('unauthorized', 'The token is not valid.');
    return { ...person };
  }
  isSessionEnded({ sessionId }: ChatIdentity): boolean {
    return sessionId !== undefined && this.endedSessions.has(sessionId);
  }
  async findEnded(people: readonly ChatIdentity[]) {
    return new Map(
      people.flatMap((person) => (this.endedPeople.has(person.id) ? [[person, this.endedPeople.get(person.id)!] as const] : [])),
    );
  }
  async readAccess(channelId: string): Promise<ChannelAccess | undefined> {
    const found = this.access.get(channelId);
    if (!found) return undefined;
    const isPrivate = found.isPrivate;
    const roles = new Map(found.roles);
    return {
      isPrivate,
      standingOf: (person) => roles.get(person?.id ?? '') ?? (isPrivate ? undefined : { role: 'viewer', moderates: 'no' }),
      linkValidUntilMs: (token) => found.links.get(token),
    };
  }
  async accountCreatedAtMs(): Promise<number | undefined> {
    return 1234;
  }

  // GatewayRules.
  async openRoom(): Promise<void> {}
  releaseRoom(): void {}
  readRefusalOf(_room: string, author: { id: string } | undefined) {
    if (!author) return this.guests === 'none' ? { code: 'unauthorized', reason: 'Sign in to read this chat.' } : undefined;
    const untilMs = this.bans.get(author.id);
    return untilMs === undefined ? undefined : { code: 'banned', reason: 'You are banned.', untilMs };
  }
  timeoutUntilMs(_room: string, userId: string): number | undefined {
    return this.timeouts.get(userId);
  }
  unseenWarnings(_room: string, userId: string): number {
    return this.warnings.get(userId) ?? 0;
  }
  settingsInForce() {
    return { ...DEFAULT_SETTINGS, followersMin: this.followersMin };
  }
  pinnedMessage(): unknown {
    return undefined;
  }
  listen(listener: { onPeople(roomId: string, userIds: readonly string[]): void; onRoom(roomId: string): void }): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  tellPeople(id: string, userIds: readonly string[]): void {
    for (const listener of this.#listeners) listener.onPeople(id, userIds);
  }
  tellRoom(id: string): void {
    for (const listener of this.#listeners) listener.onRoom(id);
  }

  async client(options: { protocols?: string[]; headers?: Record<string, string> } = {}): Promise<Client> {
    const client = new Client(this.url, options);
    this.clients.push(client);
    await client.opened;
    return client;
  }
  /** Welcomed. */
  async signedIn(token?: string): Promise<Client> {
    const client = await this.client();
    client.send({ t: 'hello', ...(token === undefined ? {} : { token }) });
    await client.next('welcome');
    return client;
  }
  async joined(token: string | undefined, room = 'radio'): Promise<Client> {
    const client = await this.signedIn(token);
    client.send({ t: 'join', id: 'j', room });
    await client.next('joined');
    return client;
  }
  /** The wheel turns step by step, so that what is asked on the way is answered. */
  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 100) {
      this.clock.advance(Math.min(100, left));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async stop(): Promise<void> {
    for (const client of this.clients) client.socket.terminate();
    await this.gateway.stop();
    this.presence.stop();
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}

// biome-ignore lint/suspicious/noExplicitAny: what a frame holds, the test says.
export type AnyFrame = any;

const validators = new Map(Object.entries(SERVER_FRAMES).map(([t, schema]) => [t, z.fromJSONSchema(schema as never)]));

/** Throws unless the frame is as docs/chat-frames.json says. */
export function checkFrame(frame: AnyFrame): void {
  const validator = validators.get(frame.t);
  if (!validator) throw new Error(`there is no frame "${frame.t}" in the reference: ${JSON.stringify(frame)}`);
  const result = validator.safeParse(frame);
  if (!result.success) throw new Error(`${JSON.stringify(frame)} is not as the reference says: ${z.prettifyError(result.error)}`);
  for (const entry of frame.entries ?? []) checkFrame(entry);
}

/** A client without rules of its own, which holds every frame against the reference. */
export class Client {
  readonly socket: WebSocket;
  readonly opened: Promise<void>;
  readonly closed: Promise<{ code: number; reason: string }>;
  readonly frames: AnyFrame[] = [];
  pings = 0;
  #at = 0;
  readonly #waiting = new Set<() => void>();
  #failure: Error | undefined;

  constructor(
    url: string,
    { protocols = ['veza.chat.v1'], headers = {}, ca }: { protocols?: string[]; headers?: Record<string, string>; ca?: Buffer } = {},
  ) {
    this.socket = new WebSocket(url, protocols, { headers, ...(ca && { ca }) });
    this.opened = new Promise((resolve, reject) => {
      this.socket.once('open', () => resolve());
      this.socket.once('error', reject);
    });
    this.opened.catch(() => undefined);
    this.closed = new Promise((resolve) => {
      this.socket.once('close', (code, reason) => {
        resolve({ code, reason: reason.toString() });
        this.#wake();
      });
    });
    this.socket.on('error', () => undefined);
    this.socket.on('ping', () => this.pings++);
    this.socket.on('message', (data: Buffer) => {
      const frame = JSON.parse(data.toString());
      try {
        checkFrame(frame);
      } catch (error) {
        this.#failure ??= error as Error;
      }
      this.frames.push(frame);
      this.#wake();
    });
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  send(frame: object | string): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** The next frame of this type; those before it are skipped. */
  async next(t: string, matches: (frame: AnyFrame) => boolean = () => true): Promise<AnyFrame> {
    for (;;) {
      if (this.#failure) throw this.#failure;
      while (this.#at < this.frames.length) {
        const frame = this.frames[this.#at++];
        if (frame.t === t && matches(frame)) return frame;
      }
      if (this.socket.readyState === WebSocket.CLOSED)
        throw new Error(`closed before "${t}"; got ${JSON.stringify(this.frames.slice(-3))}`);
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
      });
    }
  }

  /** The answer to a request. */
  async ask(frame: AnyFrame): Promise<AnyFrame> {
    this.send(frame);
    for (;;) {
      const found = this.frames.find((answer) => answer.id === frame.id && answer.t !== 'joined.seen' && !answer.wasAsked);
      if (found) {
        Object.defineProperty(found, 'wasAsked', { value: true });
        if (this.#failure) throw this.#failure;
        return found;
      }
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error(`closed before an answer to ${JSON.stringify(frame)}`);
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
      });
    }
  }

  /** What was received up to now of this type. */
  all(t: string): AnyFrame[] {
    if (this.#failure) throw this.#failure;
    return this.frames.filter((frame) => frame.t === t);
  }

  /** Everything that the server had for it when it was called is here. */
  async settled(): Promise<void> {
    const id = `settle-${Math.random()}`;
    await this.ask({ t: 'leave', id, room: 'none-such' });
  }

  close(): Promise<unknown> {
    this.socket.close();
    return this.closed;
  }
}
