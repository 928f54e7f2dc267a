import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { refuseSocket } from '../../runtime/http-problem.js';
import type { Log } from '../../runtime/log.js';
import { countUnexpected, describe } from '../../runtime/unexpected.js';
import { type ClientFrame, idOf, parseFrame } from '../protocol/client-frames.js';
import { MAX_CHUNKS, MAX_FRAGMENTS } from '../protocol/frame-limits.js';
import {
  CLOSE,
  errorFrame,
  FRAMES_BURST,
  FRAMES_PER_S,
  HELLO_MS,
  MAX_FRAME_BYTES,
  MAX_REQUESTS,
  SUBPROTOCOL,
} from '../protocol/protocol.js';
import { pongFrame } from '../protocol/websocket-frames.js';
import { DeliveryTimes } from '../rooms/delivery-times.js';
import { type OnAirChanges, OnAirFrames } from '../rooms/on-air.js';
import { PageLimits } from '../rooms/page-limits.js';
import type { Presence } from '../rooms/presence/presence.js';
import type { Room, RoomInfo } from '../rooms/room.js';
import { ConnectedAccounts } from './accounts.js';
import { UpgradeAdmission } from './admission.js';
import type { ChatAuthorization } from './authorization.js';
import { ClientConnection, type ConnectionHost } from './connection.js';
import { Deadlines, type SessionEnd } from './deadlines.js';
import { Draining } from './draining.js';
import { FrameBudget } from './frame-budget.js';
import { Greeting } from './greeting.js';
import { LocalRooms } from './local-rooms.js';
import type { GatewayRules, Moderate } from './moderation.js';
import { Requests } from './requests.js';
import { WriteScheduler } from './write-scheduler.js';

export interface GatewayOptions {
  readonly rooms: RoomSource;
  readonly authorization: ChatAuthorization;
  readonly rules: GatewayRules;
  readonly moderate: Moderate;
  readonly presence: Presence;
  readonly clock: Clock;
  readonly log: Log;
  /** Connections of this process at most. One more is accepted and closed at once (1013). */
  readonly maxConnections: number;
  /** Connections of one address group at most. Default: `maxConnections`. */
  readonly maxPerAddress?: number | undefined;
  /** The group that an address counts towards. Default: the address itself. */
  readonly groupOf?: ((address: string) => string) | undefined;
  readonly maxTextBytes: number;
  /** Default: limits of this gateway alone. */
  readonly pageLimits?: PageLimits;
  /**
   * The rate of messages of one person in one room below which automod never refuses a flood.
   * `welcome` sends it to clients. Undefined: automod is off.
   */
  readonly pace?: { readonly perS: number; readonly burst: number } | undefined;
  /** Whether pages of an origin may connect. Not called for a client without an `Origin`. */
  readonly isOriginAllowed: (origin: string, host: string | undefined) => boolean;
  readonly addressOf: (req: IncomingMessage) => string;
  readonly countryOf: (req: IncomingMessage) => string | undefined;
  /**
   * The share of its time that the process was busy since the last call, 0 to 1. Default: the
   * utilization of the event loop.
   */
  readonly busy?: () => number;
}

interface RoomSource {
  /** Finds a room by its id or by its channel's slug. */
  find(idOrSlug: string): Promise<RoomInfo | undefined>;
  open(roomId: string): Promise<Room>;
}

/** A client that has needed entries for longer than this gets `lag` with their offsets instead. */
const LAG_MS = 10_000;
/** How long a client may take to answer a close frame. */
const CLOSING_MS = 2000;
/**
 * Frames above the rate limit, minus the frames within it since, before the connection is closed.
 * Each of them is answered with `rate_limited`.
 */
const MAX_EXCESS_FRAMES = 200;
/**
 * Connections above the maximum that are being closed with 1013 at one time. The sockets of further
 * ones are destroyed.
 */
const MAX_TURNED_AWAY = 500;

const CONNECTION = Symbol('connection');
const GATEWAY = Symbol('gateway');
type AttachedSocket = WebSocket & { [CONNECTION]: ClientConnection; [GATEWAY]: Gateway };

/**
 * The gateway of one chat process: turns WebSockets into connections, signs clients in, and hands
 * their frames on. Its decisions are made in files of their own: `UpgradeAdmission` (may a client
 * connect), `ConnectedAccounts` (is it signed in), `Deadlines` (timeouts and pings), `Greeting`
 * (the answer to `hello`), `WriteScheduler` (when frames are written), `Draining` (sending clients
 * away).
 */
export class Gateway implements ConnectionHost {
  /** Counters that only rise. The metrics read them. */
  readonly counters = {
    delivered: 0,
    skipped: 0,
    slowClosed: 0,
    turnedAway: 0,
    badFrames: 0,
    observe: (seconds: number) => this.times.observe(seconds),
  };
  readonly times = new DeliveryTimes();
  readonly localRooms: LocalRooms;
  readonly #options: GatewayOptions;
  /** For log lines that a single client could cause at any rate. */
  readonly #failureLog: BoundedLog;
  readonly #server: WebSocketServer;
  readonly #admission: UpgradeAdmission;
  readonly #accounts: ConnectedAccounts;
  readonly #deadlines: Deadlines;
  readonly #writes: WriteScheduler;
  readonly #draining: Draining;
  readonly #greeting: Greeting;
  readonly #requests: Requests;
  readonly #onAir = new OnAirFrames();
  readonly #guestBudgets = new WeakMap<ClientConnection, FrameBudget>();
  #turningAway = 0;
  readonly #cancels: (() => void)[] = [];

  constructor(options: GatewayOptions) {
    this.#options = options;
    const { clock, log, rules, presence, authorization } = options;
    const groupOf = options.groupOf ?? ((address: string) => address);
    const closeConnection = (connection: ClientConnection, code: number, reason: string) => this.#close(connection, code, reason);
    const endSession = (connection: ClientConnection, why: SessionEnd) => this.#endSessionOf(connection, why);
    this.#failureLog = new BoundedLog(log, clock);
    this.localRooms = new LocalRooms(options, this, this.counters);
    this.#admission = new UpgradeAdmission({ ...options, groupOf });
    this.#accounts = new ConnectedAccounts({ authorization, log, endSession });
    this.#writes = new WriteScheduler({
      clock,
      busy: options.busy,
      flushRoom: (localRoom) => {
        if (localRoom.closedAs !== undefined) this.localRooms.closeRoom(localRoom, localRoom.closedAs);
        else localRoom.flushEntries();
      },
    });
    this.#deadlines = new Deadlines({
      clock,
      closeConnection,
      endSession,
      isSessionEnded: ({ identity }) => identity !== undefined && authorization.isSessionEnded(identity),
      onStalled: () => this.counters.slowClosed++,
      checkMemberships: (connection) => this.localRooms.checkMemberships(connection),
      onTick: () => this.#writes.measureLoad(),
      onCheck: () => {
        this.localRooms.releaseIdle();
        this.#accounts.checkDue();
      },
    });
    this.#draining = new Draining({
      clock,
      closeConnection,
      allConnections: () => this.#deadlines.all(),
      openCount: () => this.#admission.open,
    });
    this.#greeting = new Greeting({
      ...options,
      failureLog: this.#failureLog,
      accounts: this.#accounts,
      closeConnection,
      receiveText: (connection, text) => this.receiveText(connection, text),
      onTurnedAway: () => this.counters.turnedAway++,
    });
    this.#requests = new Requests({
      ...options,
      failureLog: this.#failureLog,
      localRooms: this.localRooms,
      pageLimits: options.pageLimits ?? new PageLimits(clock),
      groupOf,
      onAir: this.#onAir,
      endSession,
      onRenewed: (connection) => this.#accounts.noteKey(connection),
    });
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      maxFragments: MAX_FRAGMENTS,
      maxBufferedChunks: MAX_CHUNKS,
      // ws would queue one pong per ping even for a client that does not read.
      autoPong: false,
      handleProtocols: () => SUBPROTOCOL,
    });
    this.#server.on('wsClientError', ({ message }: Error, socket: Duplex) =>
      refuseSocket(socket, { code: 'bad_request', detail: message }),
    );
    this.#cancels.push(
      rules.listen({
        onPeople: (roomId, userIds) => {
          for (const userId of userIds)
            for (const connection of this.#accounts.connectionsOf(userId)) this.localRooms.reviewMember(connection, roomId);
        },
        onRoom: (roomId) => this.localRooms.reviewRoom(roomId),
      }),
      presence.onCounts(
        // A busy process writes the count with the next `heads`.
        (roomId, count, isCostly) => this.localRooms.roomOf(roomId)?.broadcastCount(count, isCostly || this.gatherMs > 0) ?? 0,
      ),
    );
  }

  /** Sends these on-air changes to the members of the channels' rooms. */
  broadcastOnAir(changes: OnAirChanges): void {
    this.#onAir.applyChanges(changes);
    this.localRooms.broadcastToChannels(new Set(Object.keys(changes)), (roomId, slug) => this.#onAir.frameFor(roomId, slug));
  }

  get connections(): number {
    return this.#admission.open;
  }

  /** The number of accounts that are signed in. */
  get users(): number {
    return this.#accounts.size;
  }

  get gatherMs(): number {
    return this.#writes.gatherMs;
  }

  nowMs(): number {
    return this.#options.clock.monotonicMs();
  }

  wallMs(): number {
    return this.#options.clock.wallMs();
  }

  // New connections.

  /**
   * Handles the `upgrade` event of an HTTP server. Each request is answered, or its socket is
   * destroyed.
   */
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    const refusal = this.#admission.refusalOf(req, this.#draining.hasBegun);
    if (refusal) {
      socket.on('error', () => undefined);
      refuseSocket(socket, refusal);
      return;
    }
    const address = this.#options.addressOf(req);
    const isFull = this.#admission.isFull(address);
    if (isFull && this.#turningAway >= MAX_TURNED_AWAY) {
      this.counters.turnedAway++;
      socket.destroy();
      return;
    }
    const country = this.#options.countryOf(req);
    this.#server.handleUpgrade(req, socket, head, (ws) => {
      const connection = this.#attach(ws, socket as Socket, address, country);
      if (isFull) this.#turnAway(connection);
      else {
        ws.on('close', onClose);
        this.#admission.admit(address);
        this.#deadlines.add(connection);
      }
    });
  }

  #attach(ws: WebSocket, socket: Socket, address: string, country: string | undefined): ClientConnection {
    const connection = new ClientConnection(this, ws, socket, address, country, this.nowMs() + HELLO_MS);
    const attached = ws as AttachedSocket;
    attached[CONNECTION] = connection;
    attached[GATEWAY] = this;
    ws.on('message', onMessage);
    ws.on('ping', onPing);
    ws.on('pong', onPong);
    ws.on('error', onError);
    return connection;
  }

  /**
   * A browser's script cannot see a 503, so the WebSocket is accepted and then closed with 1013.
   */
  #turnAway(connection: ClientConnection): void {
    this.counters.turnedAway++;
    this.#turningAway++;
    connection.ws.once('close', () => this.#turningAway--);
    this.#close(connection, CLOSE.overloaded, 'This server is full; try again.');
    this.#options.clock.after(CLOSING_MS, () => connection.terminate());
  }

  // Frames from clients.

  /** Handles one text message. */
  receiveText(connection: ClientConnection, text: string): void {
    if (!connection.isAlive) return;
    const { state } = connection;
    connection.countMessage();
    if (state !== 'hello' && !this.#countFrame(connection)) {
      connection.sendReply(errorFrame(idOf(text), 'rate_limited', `More than ${FRAMES_PER_S} frames a second.`, 1000));
      return;
    }
    if (state === 'greeting') {
      this.#greeting.keepEarly(connection, text);
      return;
    }
    const frame = parseFrame(text, this.#options.maxTextBytes);
    if (frame.t === 'bad') {
      this.counters.badFrames++;
      if (frame.fatal || state === 'hello') this.#close(connection, CLOSE.chatProtocol, frame.fatal ? frame.message : 'hello comes first');
      else connection.sendReply(errorFrame(frame.id, frame.code, frame.message));
    } else if (state === 'hello') {
      if (frame.t === 'hello') this.#greeting.greet(connection, frame.token).catch((error) => this.onDefect(connection, error));
      else this.#close(connection, CLOSE.chatProtocol, 'hello comes first');
    } else this.#answer(connection, frame);
  }

  /**
   * Handles a WebSocket ping (`pingData` set) or pong (`pingData` undefined). Both count as frames.
   */
  receiveControl(connection: ClientConnection, pingData?: Buffer): void {
    if (this.#countFrame(connection) && pingData) connection.writePong(pongFrame(pingData));
  }

  /**
   * Returns false when the frame is above the rate limit. The connection may have been closed for
   * it.
   */
  #countFrame(connection: ClientConnection): boolean {
    if (!connection.isAlive) return false;
    if ((connection.account?.budget ?? this.#guestBudget(connection)).takeFrame(this.nowMs())) {
      connection.forgiveExcessFrame();
      return true;
    }
    if (connection.countExcessFrame() > MAX_EXCESS_FRAMES) this.#close(connection, CLOSE.chatProtocol, 'too many frames');
    return false;
  }

  #guestBudget(connection: ClientConnection): FrameBudget {
    let budget = this.#guestBudgets.get(connection);
    if (!budget) {
      budget = new FrameBudget(FRAMES_PER_S, FRAMES_BURST, this.nowMs());
      this.#guestBudgets.set(connection, budget);
    }
    return budget;
  }

  #answer(connection: ClientConnection, frame: ClientFrame): void {
    if (frame.t === 'hello')
      connection.sendReply(errorFrame(undefined, 'bad_request', 'hello was said already; a fresh token goes with "auth".'));
    else if (frame.t === 'pub') void this.#requests.publishMessage(connection, frame);
    else if (!connection.beginRequest())
      connection.sendReply(errorFrame(frame.id, 'busy', `More than ${MAX_REQUESTS} requests at once.`, 200));
    else void this.#requests.answer(connection, frame).finally(() => connection.endRequest());
  }

  // Connections that end.

  #close(connection: ClientConnection, code: number, reason: string): void {
    connection.close(code, reason, this.nowMs() + CLOSING_MS);
  }

  #endSessionOf(connection: ClientConnection, why: SessionEnd): void {
    if (why === 'banned') this.#close(connection, CLOSE.banned, 'banned from this service');
    else this.#close(connection, CLOSE.token, why === 'expired' ? 'the token has expired' : 'the session has ended');
  }

  closeBinary(connection: ClientConnection): void {
    this.#close(connection, CLOSE.chatProtocol, 'frames are text');
  }

  /** The WebSocket of an admitted connection has closed. */
  onClosed(connection: ClientConnection): void {
    if (!connection.markClosed()) return;
    this.#admission.release(connection.address);
    this.#deadlines.remove(connection);
    this.#greeting.forget(connection);
    for (const membership of [...connection.memberships]) this.localRooms.removeMember(connection, membership, true);
    this.#accounts.remove(connection);
  }

  /**
   * Handling one of the connection's frames threw. This connection is closed; the process and the
   * others go on.
   */
  onDefect(connection: ClientConnection, error: unknown): void {
    countUnexpected('exception');
    this.#failureLog.error(
      { event: 'chat.connection_failed', ...describe(error) },
      'a chat connection failed by an internal error and was closed',
    );
    connection.terminate();
  }

  /** The client violated the WebSocket protocol. ws chooses the close code and closes. */
  onProtocolError(connection: ClientConnection, error: Error): void {
    this.counters.badFrames++;
    this.#options.log.debug(
      { event: 'chat.protocol_error', error: error.message, client: connection.address },
      'a chat client broke the WebSocket protocol',
    );
  }

  // Writing.

  scheduleRoom: WriteScheduler['scheduleRoom'] = (localRoom) => this.#writes.scheduleRoom(localRoom);
  scheduleConnection: ConnectionHost['scheduleConnection'] = (connection) => this.#writes.scheduleConnection(connection);

  onDrained(connection: ClientConnection): void {
    for (const membership of connection.memberships) membership.localRoom.advanceMember(membership, LAG_MS);
  }

  // Rights that were changed elsewhere.

  endSession(sessionId: string): void {
    for (const connection of this.#accounts.all())
      if (connection.identity?.sessionId === sessionId) this.#endSessionOf(connection, 'ended');
  }

  /** The account was banned or deleted, or its role has changed. */
  async recheckAccount(userId: string): Promise<void> {
    await this.#accounts.endInvalid(this.#accounts.connectionsOf(userId));
  }

  /** The channel's visibility or roles have changed, or it was deleted. */
  recheckChannel(channelId: string): Promise<void> {
    return this.localRooms.rereadChannel(channelId);
  }

  /** Changes were missed, so every connection and every room is checked. */
  async recheckEverything(): Promise<void> {
    await this.#accounts.endInvalid(this.#accounts.all());
    await this.localRooms.rereadEverything();
  }

  // Stopping.

  /**
   * Sends `count` clients away; each reconnects after at most `retryMs`. From now on no connection
   * is admitted.
   */
  drainConnections(count: number, retryMs: number): void {
    this.#draining.drainConnections(count, retryMs);
  }

  /** Sends every client away. Resolves when all have closed or their time to close is over. */
  drainAll(retryMs: number): Promise<void> {
    return this.#draining.drainAll(retryMs);
  }

  /** Destroys the remaining connections. A second call does no harm. */
  async stop(): Promise<void> {
    for (const cancel of this.#cancels.splice(0)) cancel();
    this.#deadlines.stop();
    for (const connection of this.#deadlines.all()) connection.terminate();
    await this.#accounts.stop();
    this.#server.close();
    this.localRooms.stop();
    this.#failureLog.close();
  }
}

function onMessage(this: WebSocket, data: Buffer | ArrayBuffer | Buffer[], isBinary: boolean): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  try {
    if (isBinary) gateway.closeBinary(connection);
    else gateway.receiveText(connection, (data as Buffer).toString());
  } catch (error) {
    gateway.onDefect(connection, error);
  }
}

function onPing(this: WebSocket, data: Buffer): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.receiveControl(connection, data);
}

function onPong(this: WebSocket): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.receiveControl(connection);
}

function onClose(this: WebSocket): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.onClosed(connection);
}

function onError(this: WebSocket, error: Error): void {
  const { [CONNECTION]: connection, [GATEWAY]: gateway } = this as AttachedSocket;
  gateway.onProtocolError(connection, error);
}
