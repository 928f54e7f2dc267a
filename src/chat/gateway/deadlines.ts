import type { Clock } from '../../runtime/clock.js';
import { CLOSE, PING_MS } from '../protocol/protocol.js';
import { asciiFrame, PING_FRAME } from '../protocol/websocket-frames.js';
import type { ClientConnection } from './connection.js';
import { TimingWheel } from './timing-wheel.js';

const TICK_MS = 100;
const PING_STEPS = PING_MS / TICK_MS;
/** How often each connection is checked. */
const CHECK_MS = 2000;
const CHECK_STEPS = CHECK_MS / TICK_MS;
/** A client that accepts no byte for this long is disconnected (4008). */
const STALLED_MS = 30_000;
/**
 * A client that sends nothing during this many pings in a row is disconnected. A ping is sent only
 * to clients that sent nothing since the last ping.
 */
const MAX_SILENT_PINGS = 2;

export type SessionEnd = 'banned' | 'ended' | 'expired';

export interface DeadlinesOptions {
  readonly clock: Clock;
  readonly closeConnection: (connection: ClientConnection, code: number, reason: string) => void;
  readonly endSession: (connection: ClientConnection, why: SessionEnd) => void;
  readonly isSessionEnded: (connection: ClientConnection) => boolean;
  /** Called before a slow client is disconnected. */
  readonly onStalled: () => void;
  /** Called every `CHECK_MS` for each open connection that is not slow. */
  readonly checkMemberships: (connection: ClientConnection) => void;
  /** Called every `TICK_MS`, before connections are visited. */
  readonly onTick: () => void;
  /** Called every `CHECK_MS`. */
  readonly onCheck: () => void;
}

/**
 * Holds every connection of the process in one timing wheel. Checks each connection's deadlines
 * every two seconds, and pings it every 25 seconds.
 */
export class Deadlines {
  readonly #options: DeadlinesOptions;
  readonly #wheel = new TimingWheel<ClientConnection>(PING_STEPS);
  readonly #cancel: () => void;
  #ticks = 0;

  constructor(options: DeadlinesOptions) {
    this.#options = options;
    this.#cancel = options.clock.every(TICK_MS, () => this.#tick());
  }

  add(connection: ClientConnection): void {
    this.#wheel.add(connection);
  }

  remove(connection: ClientConnection): void {
    this.#wheel.remove(connection);
  }

  all(): ClientConnection[] {
    return this.#wheel.all();
  }

  /** A second call does nothing. */
  stop(): void {
    this.#cancel();
  }

  #tick(): void {
    const { clock, onTick, onCheck } = this.#options;
    onTick();
    this.#wheel.advance();
    this.#ticks++;
    const nowMs = clock.monotonicMs();
    const wallMs = clock.wallMs();
    this.#wheel.visitDue(CHECK_STEPS, (connection) => this.#checkConnection(connection, nowMs, wallMs));
    this.#wheel.visitDue(PING_STEPS, (connection) => this.#pingConnection(connection));
    if (this.#ticks % CHECK_STEPS === 0) onCheck();
  }

  #checkConnection(connection: ClientConnection, nowMs: number, wallMs: number): void {
    const { closeConnection, endSession, isSessionEnded, onStalled, checkMemberships } = this.#options;
    const { state } = connection;
    if (connection.hasOverdueMessage(nowMs)) closeConnection(connection, CLOSE.policy, 'a message was not finished');
    else if (state === 'open') {
      if (connection.expiresAtMs <= wallMs) endSession(connection, 'expired');
      else if (isSessionEnded(connection)) endSession(connection, 'ended');
      else if (!connection.isSlow) checkMemberships(connection);
      else if (nowMs - connection.slowSinceMs > STALLED_MS) {
        onStalled();
        closeConnection(connection, CLOSE.tooSlow, 'nothing was read for too long');
      }
    } else if (connection.deadlineMs <= nowMs) {
      if (state === 'hello') closeConnection(connection, CLOSE.chatProtocol, 'no hello');
      else if (state === 'greeting') closeConnection(connection, CLOSE.overloaded, 'the token could not be checked; try again');
      else connection.terminate();
    }
  }

  /**
   * Sends `heads` to every client that is not slow, and a WebSocket ping to those that sent nothing
   * since the last one.
   */
  #pingConnection(connection: ClientConnection): void {
    if (connection.state !== 'open') return;
    const silentPings = connection.countSilentPings();
    if (silentPings > MAX_SILENT_PINGS && !connection.isPaused) {
      connection.terminate();
      return;
    }
    if (connection.isSlow) return;
    let heads = '';
    let counts = '';
    for (const membership of connection.memberships) {
      const { localRoom } = membership;
      if (membership.isAtHead) heads += heads === '' ? localRoom.headText : `,${localRoom.headText}`;
      counts += localRoom.unsentCountFrame(membership);
    }
    const frames = asciiFrame(`{"t":"heads","rooms":{${heads}}}`) + counts;
    connection.writeFrames(silentPings > 0 ? frames + PING_FRAME : frames);
  }
}
