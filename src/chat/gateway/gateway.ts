import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import { type Refusal, refuseSocket } from '../../runtime/http-problem.js';
import type { Log } from '../../runtime/log.js';
import { pathOf } from '../../runtime/request-head.js';
import { countUnexpected, describe } from '../../runtime/unexpected.js';
import { hasUnfinishedMessage, MAX_CHUNKS, MAX_FRAGMENTS, MESSAGE_MS } from '../protocol/frame-limits.js';
import {
  asciiFrame,
  CHAT_PATH,
  CLOSE,
  type ClientFrame,
  errorFrame,
  FRAMES_BURST,
  FRAMES_PER_S,
  HELLO_MS,
  idOf,
  lastsMs,
  MAX_FRAME_BYTES,
  MAX_IN_FLIGHT,
  MAX_REQUESTS,
  MAX_ROOMS,
  PING_FRAME,
  PING_MS,
  parseFrame,
  pongFrame,
  SUBPROTOCOL,
} from '../protocol/protocol.js';
import { DeliveryTimes } from '../rooms/delivery-times.js';
import { type OnAirChanges, OnAirFrames } from '../rooms/on-air.js';
import { PageLimits } from '../rooms/page-limits.js';
import type { Presence } from '../rooms/presence.js';
import type { Room, RoomInfo } from '../rooms/room.js';
import { Audiences } from './audiences.js';
import { ClientConnection, type ConnectedAccount, type ConnectionHost, FrameBudget } from './connection.js';
import type { ChatAuthorization, ChatIdentity, GatewayRules, Moderate } from './doors.js';
import type { RoomAudience } from './hub.js';
import { Requests } from './requests.js';
import { TimingWheel } from './wheel.js';

export interface GatewayOptions {
  readonly rooms: RoomSource;
  readonly doors: ChatAuthorization;
  readonly rules: GatewayRules;
  readonly moderate: Moderate;
  readonly presence: Presence;
  readonly clock: Clock;
  readonly log: Log;
  /** Connections of this process; more are accepted and closed at once (1013). */
  readonly maxConnections: number;
  /** Of one address, or of what counts as one. Default: as many. */
  readonly maxPerAddress?: number | undefined;
  readonly groupOf?: ((address: string) => string) | undefined;
  readonly maxTextBytes: number;
  /** Default: its own. */
  readonly pageLimits?: PageLimits;
  /** Messages of one person in one room that automatic moderation takes for no flood; clients keep to it. Undefined: it is off. */
  readonly pace?: { readonly perS: number; readonly burst: number } | undefined;
  /** Whether pages of an origin may connect. Not asked for a client that names none. */
  readonly isOriginAllowed: (origin: string, host: string | undefined) => boolean;
  readonly addressOf: (req: IncomingMessage) => string;
  readonly countryOf: (req: IncomingMessage) => string | undefined;
  /** How much of its time the process was busy since it was asked last, 0 to 1. Default: as Node measures it. */
  readonly busy?: () => number;
}

export interface RoomSource {
  /** By id, or by the slug of its channel. */
  find(idOrSlug: string): Promise<RoomInfo | undefined>;
  open(roomId: string): Promise<Room>;
}

const TICK_MS = 100;
const SLOTS = PING_MS / TICK_MS;
/** Each connection is looked at so often. */
const CHECK_MS = 2000;
const CHECK_SLOTS = CHECK_MS / TICK_MS;
/** Who is behind for longer is told what he missed. */
export const LAG_MS = 10_000;
/** Who takes nothing at all for so long is put out (4008). */
export const STALLED_MS = 30_000;
/** A close that is not answered. */
const CLOSING_MS = 2000;
/** Of all of them, when the process ends. */
const LEAVING_MS = 2500;
const LEAVING_STEP_MS = 20;
/** Two pings that nothing came after: each goes when nothing has come since the turn before. */
const MAX_SILENCES = 2;
/** Frames too many in a row, each answered `rate_limited`; then it is closed. */
const MAX_EXCESS = 200;
/** Connections of one account to one process. */
export const MAX_ACCOUNT_CONNECTIONS = 200;
/** Beyond the cap so many are told so at a time; more are cut. */
const MAX_TURNED_AWAY = 500;
/** Above so much of its time the process gathers what it sends. */
const BUSY = 0.7;
const MAX_GATHER_MS = 50;

/** RFC 6455 4.2.2. */
const VERSION = ['Upgrade', 'websocket', 'Sec-WebSocket-Version', '13'];

const CONNECTION = Symbol('connection');
type AttachedSocket = WebSocket & { [CONNECTION]: ClientConnection; [GATEWAY]: Gateway };
const GATEWAY = Symbol('gateway');

/** A chat process's door: takes WebSockets, keeps their deadlines on one wheel, and writes what rooms and answers have for them. */
export class Gateway implements ConnectionHost {
  /** Rising; read by the metrics. */
  readonly counters = {
    delivered: 0,
    skipped: 0,
    slowClosed: 0,
    turnedAway: 0,
    badFrames: 0,
    observe: (seconds: number) => this.times.observe(seconds),
  };
  readonly times = new DeliveryTimes();
  readonly audiences: Audiences;
  /** For what one client causes, as often as it likes. */
  readonly #failureLog: BoundedLog;
  readonly #onAir = new OnAirFrames();
  readonly #options: GatewayOptions;
  readonly #requests: Requests;
  readonly #server: WebSocketServer;
  readonly #wheel = new TimingWheel<ClientConnection>(SLOTS);
  #open = 0;
  #turningAway = 0;
  readonly #accounts = new Map<string, ConnectedAccount>();
  readonly #perAddress = new Map<string, number>();
  readonly #groupOf: (address: string) => string;
  /** Frames that came before the token was looked at. */
  readonly #early = new Map<ClientConnection, string[]>();
  #dirtyHubs: RoomAudience[] = [];
  #dirty: ClientConnection[] = [];
  #isFlushComing = false;
  #gatherMs = 0;
  readonly #busy: () => number;
  /** Their accounts have changed, and what they are now could not be read. */
  readonly #unanswered = new Set<ClientConnection>();
  /** Came with an API key: no session ends it, so that it is good is asked again and again. */
  readonly #withKeys = new Set<ClientConnection>();
  /** Once it drains: who was here when that began, and was not sent away yet. */
  #leaving: ClientConnection[] | undefined;
  #checking: Promise<void> | undefined;
  #ticks = 0;
  readonly #cancels: (() => void)[] = [];

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#busy = options.busy ?? measured();
    this.#groupOf = options.groupOf ?? ((address) => address);
    const { clock, rules, presence } = options;
    this.#failureLog = new BoundedLog(options.log, clock);
    this.audiences = new Audiences(options, this, this.counters);
    this.#requests = new Requests({
      ...options,
      failureLog: this.#failureLog,
      audiences: this.audiences,
      pageLimits: options.pageLimits ?? new PageLimits(clock),
      groupOf: this.#groupOf,
      onAir: this.#onAir,
      sessionEnded: (connection, banned) => this.#end(connection, banned),
      renewed: (connection) => this.#noteKey(connection),
    });
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      maxFragments: MAX_FRAGMENTS,
      maxBufferedChunks: MAX_CHUNKS,
      // ws would queue an answer to each ping, whether the client reads or not.
      autoPong: false,
      handleProtocols: () => SUBPROTOCOL,
    });
    this.#server.on('wsClientError', ({ message }: Error, socket: Duplex) =>
      refuseSocket(socket, { code: 'bad_request', detail: message }),
    );
    this.#cancels.push(
      clock.every(TICK_MS, () => this.#tick()),
      rules.listen({
        onPeople: (roomId, userIds) => {
          for (const userId of userIds)
            for (const connection of [...(this.#accounts.get(userId)?.connections ?? [])]) this.audiences.reviewIn(connection, roomId);
        },
        onRoom: (roomId) => this.audiences.review(roomId),
      }),
      presence.onCounts(
        // A process that has no time writes it with the heads.
        (roomId, count, isCostly) => this.audiences.hub(roomId)?.tellCount(count, isCostly || this.#gatherMs > 0) ?? 0,
      ),
    );
  }

  /** What is on air is another in these channels: their rooms are told. */
  tellOnAir(changes: OnAirChanges): void {
    this.#onAir.tell(changes);
    this.audiences.tellChannels(new Set(Object.keys(changes)), (roomId, slug) => this.#onAir.frame(roomId, slug));
  }

  get connections(): number {
    return this.#open;
  }

  /** People who are signed in. */
  get users(): number {
    return this.#accounts.size;
  }

  get gatherMs(): number {
    return this.#gatherMs;
  }

  nowMs(): number {
    return this.#options.clock.monotonicMs();
  }

  wallMs(): number {
    return this.#options.clock.wallMs();
  }

  /** For the `upgrade` event of an HTTP server. Answers in any case. */
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    const refusal = this.#refusal(req);
    if (refusal) {
      socket.on('error', () => undefined);
      refuseSocket(socket, refusal);
      return;
    }
    const address = this.#options.addressOf(req);
    const { maxConnections, maxPerAddress = Number.POSITIVE_INFINITY } = this.#options;
    const isFull = this.#open >= maxConnections || (this.#perAddress.get(this.#groupOf(address)) ?? 0) >= maxPerAddress;
    if (isFull && this.#turningAway >= MAX_TURNED_AWAY) {
      this.counters.turnedAway++;
      socket.destroy();
      return;
    }
    const country = this.#options.countryOf(req);
    this.#server.handleUpgrade(req, socket, head, (ws) => this.#take(ws, socket as Socket, address, country, isFull));
  }

  /** Undefined: it may come in. */
  #refusal({ method, url = '', headers }: IncomingMessage): Refusal | undefined {
    const { origin, host } = headers;
    if (pathOf(url) !== CHAT_PATH) return { code: 'not_found', detail: `The chat is at ${CHAT_PATH}.` };
    if (method !== 'GET') return { code: 'method_not_allowed', detail: 'A WebSocket is asked for by GET.', headers: ['Allow', 'GET'] };
    if (headers['sec-websocket-version'] !== '13')
      return { code: 'upgrade_required', detail: 'Version 13 of WebSocket is spoken here.', headers: VERSION };
    if (this.#leaving) return { code: 'unavailable', detail: 'This process is ending; connect again.' };
    if (origin !== undefined && !this.#options.isOriginAllowed(origin, host))
      return { code: 'forbidden', detail: 'Pages of this origin may not connect (ALLOWED_ORIGINS).' };
    const protocols = headers['sec-websocket-protocol']?.split(',').map((name) => name.trim());
    if (!protocols?.includes(SUBPROTOCOL))
      return { code: 'bad_request', detail: `Sec-WebSocket-Protocol: ${SUBPROTOCOL} is what is spoken here.` };
    return undefined;
  }

  #take(ws: WebSocket, socket: Socket, address: string, country: string | undefined, isFull: boolean): void {
    const nowMs = this.nowMs();
    const connection = new ClientConnection(this, ws, socket, address, country, nowMs + HELLO_MS);
    const held = ws as AttachedSocket;
    held[CONNECTION] = connection;
    held[GATEWAY] = this;
    ws.on('message', onMessage);
    ws.on('ping', onPing);
    ws.on('pong', onPong);
    ws.on('close', onClose);
    ws.on('error', onError);
    if (isFull) {
      this.counters.turnedAway++;
      this.#turningAway++;
      ws.once('close', () => this.#turningAway--);
      ws.removeListener('close', onClose);
      connection.close(CLOSE.overloaded, 'This server is full; try again.', nowMs + CLOSING_MS);
      this.#options.clock.after(CLOSING_MS, () => connection.cut());
      return;
    }
    this.#open++;
    if (this.#options.maxPerAddress !== undefined) {
      const group = this.#groupOf(address);
      this.#perAddress.set(group, (this.#perAddress.get(group) ?? 0) + 1);
    }
    this.#wheel.add(connection);
  }

  /** False: it is one too many, and the connection may be closed for it. */
  #takeFrame(connection: ClientConnection): boolean {
    const { phase, account } = connection;
    if (phase === 'closing' || phase === 'closed') return false;
    if ((account?.budget ?? this.#guestBudget(connection)).take(this.nowMs())) {
      connection.excess = Math.max(0, connection.excess - 1);
      return true;
    }
    connection.excess++;
    if (connection.excess > MAX_EXCESS) this.#close(connection, CLOSE.chatProtocol, 'too many frames');
    return false;
  }

  /** `data`: of a ping; a pong has nothing to be answered. Both count as frames. */
  control(connection: ClientConnection, data?: Buffer): void {
    if (this.#takeFrame(connection) && data) connection.pong(pongFrame(data));
  }

  received(connection: ClientConnection, text: string): void {
    const { phase } = connection;
    if (phase === 'closing' || phase === 'closed') return;
    connection.messages++;
    if (phase !== 'hello' && !this.#takeFrame(connection)) {
      connection.send(errorFrame(idOf(text), 'rate_limited', `More than ${FRAMES_PER_S} frames a second.`, 1000));
      return;
    }
    if (phase === 'greeting') {
      const early = this.#early.get(connection) ?? [];
      this.#early.set(connection, early);
      const chars = early.reduce((sum, { length }) => sum + length, text.length);
      if (early.length < MAX_REQUESTS && chars <= MAX_FRAME_BYTES) early.push(text);
      else this.#close(connection, CLOSE.chatProtocol, 'too much before the welcome');
      return;
    }
    const frame = parseFrame(text, this.#options.maxTextBytes);
    if (frame.t === 'bad') {
      this.counters.badFrames++;
      if (frame.fatal || phase === 'hello') this.#close(connection, CLOSE.chatProtocol, frame.fatal ? frame.message : 'hello comes first');
      else connection.send(errorFrame(frame.id, frame.code, frame.message));
    } else if (phase === 'hello') {
      if (frame.t === 'hello') this.#greet(connection, frame.token).catch((error) => this.broke(connection, error));
      else this.#close(connection, CLOSE.chatProtocol, 'hello comes first');
    } else this.#answer(connection, frame);
  }

  readonly #guestBudgets = new WeakMap<ClientConnection, FrameBudget>();
  #guestBudget(connection: ClientConnection): FrameBudget {
    let budget = this.#guestBudgets.get(connection);
    if (!budget) {
      budget = new FrameBudget(FRAMES_PER_S, FRAMES_BURST, this.nowMs());
      this.#guestBudgets.set(connection, budget);
    }
    return budget;
  }

  async #greet(connection: ClientConnection, token: string | undefined): Promise<void> {
    connection.phase = 'greeting';
    try {
      const person = token === undefined ? undefined : await this.#options.doors.who(token);
      if (connection.phase !== 'greeting') return;
      if (person && !this.#admit(connection, person)) return;
      connection.phase = 'open';
      connection.send(this.#welcome(connection));
    } catch (error) {
      if (connection.phase === 'greeting') this.#refuse(connection, error);
      return;
    } finally {
      if (connection.phase !== 'open') this.#early.delete(connection);
    }
    const early = this.#early.get(connection);
    this.#early.delete(connection);
    for (const text of early ?? []) this.received(connection, text);
  }

  /** False: his account has too many already. */
  #admit(connection: ClientConnection, person: ChatIdentity): boolean {
    let account = this.#accounts.get(person.id);
    if (!account) {
      account = { connections: [], budget: new FrameBudget(FRAMES_PER_S, FRAMES_BURST, this.nowMs()), sinceMs: undefined };
      this.#accounts.set(person.id, account);
    }
    if (account.connections.length >= MAX_ACCOUNT_CONNECTIONS) {
      this.counters.turnedAway++;
      this.#close(connection, CLOSE.overloaded, 'this account has too many connections');
      return false;
    }
    account.connections.push(connection);
    connection.account = account;
    connection.person = person;
    connection.expiresAtMs = person.expiresAtMs ?? Number.POSITIVE_INFINITY;
    this.#noteKey(connection);
    return true;
  }

  #noteKey(connection: ClientConnection): void {
    if (connection.person?.keyId !== undefined) this.#withKeys.add(connection);
    else this.#withKeys.delete(connection);
  }

  #refuse(connection: ClientConnection, error: unknown): void {
    const code = error instanceof VezaError ? error.code : 'internal';
    if (code === 'unauthorized') {
      connection.send(errorFrame(undefined, 'unauthorized', messageOf(error)));
      this.#close(connection, CLOSE.token, 'the token is not good');
    } else if (code === 'forbidden') this.#close(connection, CLOSE.banned, 'banned');
    else {
      if (code === 'internal') this.#failureLog.error({ error: messageOf(error) }, 'a token could not be looked at');
      this.#close(connection, CLOSE.overloaded, 'tokens cannot be looked at; try again');
    }
  }

  #welcome({ person, expiresAtMs }: ClientConnection): string {
    const user = person ? `{"id":${JSON.stringify(person.id)},"name":${JSON.stringify(person.name)}}` : 'null';
    const expiresAt = Number.isFinite(expiresAtMs) ? Math.trunc(expiresAtMs) : 'null';
    const { maxTextBytes, pace } = this.#options;
    const pubs = pace ? `,"pubsPerS":${pace.perS},"pubsBurst":${pace.burst}` : '';
    const limits = `{"textBytes":${maxTextBytes},"rooms":${MAX_ROOMS},"pubsInFlight":${MAX_IN_FLIGHT},"framesPerS":${FRAMES_PER_S},"framesBurst":${FRAMES_BURST}${pubs}}`;
    return `{"t":"welcome","session":"${randomUUID()}","user":${user},"expiresAt":${expiresAt},"expiresInMs":${lastsMs(expiresAtMs, this.wallMs())},"limits":${limits},"pingMs":${PING_MS}}`;
  }

  #answer(connection: ClientConnection, frame: ClientFrame): void {
    if (frame.t === 'hello') {
      connection.send(errorFrame(undefined, 'bad_request', 'hello was said already; a fresh token goes with "auth".'));
    } else if (frame.t === 'pub') {
      void this.#requests.publish(connection, frame);
    } else if (connection.requests >= MAX_REQUESTS) {
      connection.send(errorFrame(frame.id, 'busy', `More than ${MAX_REQUESTS} requests at once.`, 200));
    } else {
      connection.requests++;
      void this.#requests.answer(connection, frame).finally(() => {
        connection.requests--;
      });
    }
  }

  #close(connection: ClientConnection, code: number, reason: string): void {
    connection.close(code, reason, this.nowMs() + CLOSING_MS);
  }

  #end(connection: ClientConnection, why: 'banned' | 'ended' | 'expired'): void {
    if (why === 'banned') this.#close(connection, CLOSE.banned, 'banned from this service');
    else this.#close(connection, CLOSE.token, why === 'expired' ? 'the token has expired' : 'the session has ended');
  }

  closed(connection: ClientConnection): void {
    if (connection.phase === 'closed') return;
    connection.phase = 'closed';
    this.#open--;
    if (this.#options.maxPerAddress !== undefined) {
      const group = this.#groupOf(connection.address);
      const left = (this.#perAddress.get(group) ?? 1) - 1;
      if (left > 0) this.#perAddress.set(group, left);
      else this.#perAddress.delete(group);
    }
    this.#wheel.remove(connection);
    this.#early.delete(connection);
    this.#unanswered.delete(connection);
    this.#withKeys.delete(connection);
    for (const membership of [...connection.memberships]) this.audiences.leave(connection, membership, true);
    const { account, person } = connection;
    if (account && person) {
      const at = account.connections.indexOf(connection);
      if (at >= 0) account.connections.splice(at, 1);
      if (account.connections.length === 0) this.#accounts.delete(person.id);
    }
  }

  /** A defect that what it sent has met is its own: others, and the process, go on. */
  broke(connection: ClientConnection, error: unknown): void {
    countUnexpected('exception');
    this.#failureLog.error({ event: 'chat.connection_failed', ...describe(error) }, 'a chat connection met a defect; it is cut');
    connection.cut();
  }

  failed(connection: ClientConnection, error: Error): void {
    // ws has chosen the code and closes; what is left is to count.
    this.counters.badFrames++;
    this.#options.log.debug({ error: error.message, client: connection.address }, 'a chat connection broke');
  }

  // What is to be written.

  flushSoon(hub: RoomAudience): void {
    this.#dirtyHubs.push(hub);
    this.#flushComes();
  }

  wantsFlush(connection: ClientConnection): void {
    this.#dirty.push(connection);
    this.#flushComes();
  }

  drained(connection: ClientConnection): void {
    for (const membership of connection.memberships) membership.hub.advance(membership, LAG_MS);
  }

  #flushComes(): void {
    if (this.#isFlushComing) return;
    this.#isFlushComing = true;
    // What else has come in meanwhile shares the write.
    if (this.#gatherMs < 1) setImmediate(this.#flush);
    else this.#options.clock.after(this.#gatherMs, this.#flush);
  }

  readonly #flush = (): void => {
    this.#isFlushComing = false;
    const hubs = this.#dirtyHubs;
    const connections = this.#dirty;
    this.#dirtyHubs = [];
    this.#dirty = [];
    // One that failed before it could be marked as written would never be asked again.
    each(hubs, (hub) => {
      if (hub.closedAs !== undefined) this.audiences.ended(hub, hub.closedAs);
      else hub.flush();
    });
    each(connections, (connection) => connection.flush());
  };

  // The turn of each.

  #tick(): void {
    const used = this.#busy();
    this.#gatherMs = used <= BUSY ? 0 : Math.min(MAX_GATHER_MS, ((used - BUSY) / (1 - BUSY)) * MAX_GATHER_MS);
    this.#wheel.step();
    this.#ticks++;
    const nowMs = this.nowMs();
    const wallMs = this.wallMs();
    this.#wheel.turn(CHECK_SLOTS, (connection) => this.#check(connection, nowMs, wallMs));
    this.#wheel.turn(SLOTS, (connection) => this.#ping(connection));
    if (this.#ticks % CHECK_SLOTS === 0) {
      this.audiences.tidy();
      this.#checking ??= this.#checkKeys().finally(() => {
        this.#checking = undefined;
      });
    }
  }

  #check(connection: ClientConnection, nowMs: number, wallMs: number): void {
    const { phase } = connection;
    if (this.#isStuck(connection, nowMs)) this.#close(connection, CLOSE.policy, 'a message was not finished');
    else if (phase === 'open') {
      if (connection.expiresAtMs <= wallMs) this.#end(connection, 'expired');
      else if (connection.person && this.#options.doors.isEnded(connection.person)) this.#end(connection, 'ended');
      else if (connection.isSlow) {
        if (nowMs - connection.slowSinceMs > STALLED_MS) {
          this.counters.slowClosed++;
          this.#close(connection, CLOSE.tooSlow, 'nothing was read for too long');
        }
      } else this.audiences.check(connection);
    } else if (connection.deadlineMs <= nowMs) {
      if (phase === 'hello') this.#close(connection, CLOSE.chatProtocol, 'no hello');
      else if (phase === 'greeting') this.#close(connection, CLOSE.overloaded, 'tokens cannot be looked at; try again');
      else connection.cut();
    }
  }

  /** It has begun a message and has not finished it in time. A connection that is not read from cannot finish one. */
  #isStuck(connection: ClientConnection, nowMs: number): boolean {
    const { phase, ws, messages } = connection;
    if (connection.isPaused || (phase !== 'open' && phase !== 'greeting') || !hasUnfinishedMessage(ws)) {
      connection.unfinishedSinceMs = 0;
      return false;
    }
    if (connection.unfinishedSinceMs === 0 || connection.messagesThen !== messages) {
      connection.unfinishedSinceMs = nowMs;
      connection.messagesThen = messages;
    }
    return nowMs - connection.unfinishedSinceMs > MESSAGE_MS;
  }

  /** Everybody is told the heads; a ping goes with them to whoever has sent nothing since the last time, which a pong would have been. */
  #ping(connection: ClientConnection): void {
    if (connection.phase !== 'open') return;
    const { bytesRead } = connection;
    connection.silences = bytesRead === connection.bytesSeen ? connection.silences + 1 : 0;
    connection.bytesSeen = bytesRead;
    if (connection.silences > MAX_SILENCES && !connection.isPaused) {
      connection.cut();
      return;
    }
    if (connection.isSlow) return;
    let heads = '';
    let counts = '';
    for (const membership of connection.memberships) {
      const { hub, cursor, epoch } = membership;
      if (epoch === hub.epoch && cursor === hub.flushed) heads += heads === '' ? hub.headText : `,${hub.headText}`;
      counts += hub.countFor(membership);
    }
    const frames = asciiFrame(`{"t":"heads","rooms":{${heads}}}`) + counts;
    connection.write(connection.silences > 0 ? frames + PING_FRAME : frames);
  }

  /** API keys have no session that could be ended; of others it is asked again what could not be answered. */
  async #checkKeys(): Promise<void> {
    await this.#endThose([...new Set([...this.#withKeys, ...this.#unanswered])]);
  }

  async #endThose(connections: readonly ClientConnection[]): Promise<void> {
    if (connections.length === 0) return;
    const people = connections.flatMap(({ person }) => person ?? []);
    try {
      const ended = await this.#options.doors.ended(people);
      for (const connection of connections) {
        const why = connection.person && ended.get(connection.person);
        if (why && connection.phase === 'open') this.#end(connection, why);
        this.#unanswered.delete(connection);
      }
    } catch (error) {
      // What is known counts on while the database is away, and is asked again.
      for (const connection of connections) if (connection.phase !== 'closed') this.#unanswered.add(connection);
      this.#options.log.debug({ error: messageOf(error) }, 'who is no longer good could not be asked');
    }
  }

  // What others have decided.

  sessionEnded(sessionId: string): void {
    for (const account of this.#accounts.values())
      for (const connection of [...account.connections]) if (connection.person?.sessionId === sessionId) this.#end(connection, 'ended');
  }

  /** Banned, deleted, or of another role. */
  async accountChanged(userId: string): Promise<void> {
    await this.#endThose([...(this.#accounts.get(userId)?.connections ?? [])]);
  }

  /** Of a channel: visibility, roles, or that there is one. */
  channelChanged(channelId: string): Promise<void> {
    return this.audiences.channelChanged(channelId);
  }

  /** What was decided meanwhile was missed: everybody is looked at. */
  async everythingChanged(): Promise<void> {
    const all = [...this.#accounts.values()].flatMap(({ connections }) => connections);
    await this.#endThose(all);
    await this.audiences.everythingChanged();
  }

  // The end.

  /** Sends so many away; each comes back at a moment of his own up to `retryMs` later. No new connection is taken from now on. */
  drain(count: number, retryMs: number): void {
    this.#leaving ??= this.#wheel.all();
    for (let left = count; left > 0; ) {
      const connection = this.#leaving.pop();
      if (!connection) return;
      if (connection.phase === 'closing' || connection.phase === 'closed') continue;
      left--;
      if (connection.phase === 'open') connection.send(`{"t":"drain","retryMs":${Math.ceil(Math.random() * retryMs)}}`);
      this.#close(connection, CLOSE.restart, 'restart');
    }
  }

  /** Sends everybody away. Resolves when all have closed, or have had the time for it. */
  async drainAll(retryMs: number): Promise<void> {
    this.drain(Number.POSITIVE_INFINITY, retryMs);
    const untilMs = this.nowMs() + LEAVING_MS;
    while (this.#open > 0 && this.nowMs() < untilMs)
      await new Promise<void>((resolve) => {
        this.#options.clock.after(LEAVING_STEP_MS, resolve);
      });
  }

  /** Cuts what is left. Twice is harmless. */
  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    for (const connection of this.#wheel.all()) connection.cut();
    await this.#checking;
    this.#server.close();
    this.audiences.stop();
    this.#failureLog.close();
  }
}

function measured(): () => number {
  let last = performance.eventLoopUtilization();
  return () => {
    const { utilization } = performance.eventLoopUtilization(last);
    last = performance.eventLoopUtilization();
    return utilization;
  };
}

function onMessage(this: WebSocket, data: Buffer | ArrayBuffer | Buffer[], isBinary: boolean): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  try {
    if (isBinary) connection.close(CLOSE.chatProtocol, 'frames are text', gateway.nowMs() + CLOSING_MS);
    else gateway.received(connection, (data as Buffer).toString());
  } catch (error) {
    gateway.broke(connection, error);
  }
}

function onPing(this: WebSocket, data: Buffer): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.control(connection, data);
}

function onPong(this: WebSocket): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.control(connection);
}

function onClose(this: WebSocket): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.closed(connection);
}

function onError(this: WebSocket, error: Error): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.failed(connection, error);
}
