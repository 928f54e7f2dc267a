import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { hasUnfinishedMessage, MESSAGE_MS } from '../protocol/frame-limits.js';
import { MAX_IN_FLIGHT, MAX_REQUESTS } from '../protocol/protocol.js';
import { webSocketFrames } from '../protocol/websocket-frames.js';
import type { Room } from '../rooms/room.js';
import type { ConnectedAccount } from './accounts.js';
import type { ChatIdentity } from './authorization.js';
import type { Membership } from './membership.js';

/** The part of the gateway that a connection uses. */
export interface ConnectionHost {
  /**
   * The connection has queued replies. The host calls `flush` in the same turn of the event loop or
   * after the gather delay.
   */
  scheduleConnection(connection: ClientConnection): void;
  /** The socket has accepted every byte that was written to it. */
  onDrained(connection: ClientConnection): void;
  nowMs(): number;
}

/**
 * The states of a connection. `#enter` alone changes the state, and only along these lines:
 *
 * | state      | meaning                               | reads          | writes | may become                |
 * |------------|---------------------------------------|----------------|--------|---------------------------|
 * | `hello`    | open WebSocket, no frame received     | only `hello`   | yes    | greeting, closing, closed |
 * | `greeting` | the token of `hello` is being checked | kept for later | yes    | open, closing, closed     |
 * | `open`     | `welcome` was sent                    | every frame    | yes    | closing, closed           |
 * | `closing`  | the close frame was sent              | nothing        | no     | closed                    |
 * | `closed`   | the socket has closed                 | nothing        | no     | –                         |
 */
export type ConnectionState = 'hello' | 'greeting' | 'open' | 'closing' | 'closed';

const NEXT_STATES: Readonly<Record<ConnectionState, readonly ConnectionState[]>> = {
  hello: ['greeting', 'closing', 'closed'],
  greeting: ['open', 'closing', 'closed'],
  open: ['closing', 'closed'],
  closing: ['closed'],
  closed: [],
};

/** Replies that may wait for a slow client. With more of them the connection is not read from. */
const MAX_WAITING_REPLIES = 16;
const EMPTY = Buffer.alloc(0);
const NO_ROOMS: Membership[] = [];

/**
 * The connection of one client. A process holds up to 19,000 of them, so the class has no timer, no
 * closure and no queue except replies to the client's own requests. While the socket has not
 * accepted what was written (`isSlow`), no entry is written: the rooms keep the entries that the
 * connection still needs.
 */
export class ClientConnection {
  #state: ConnectionState = 'hello';
  #identity: ChatIdentity | undefined = undefined;
  #account: ConnectedAccount | undefined = undefined;
  #memberships: Membership[] = NO_ROOMS;
  #publishes = 0;
  #requests = 0;
  #isSlow = false;
  #slowSinceMs = 0;
  #isPaused = false;
  /**
   * Monotonic: when an unfinished `hello`, token check or close handshake closes the connection.
   */
  #deadlineMs: number;
  #expiresAtMs = Number.POSITIVE_INFINITY;
  #wheelSlot = 0;
  #wheelIndex = 0;
  /** Received bytes at the last ping, and pings in a row without a received byte. */
  #bytesAtPing = 0;
  #silentPings = 0;
  #excessFrames = 0;
  /**
   * The number of complete messages received. The next two fields say how many there were when a
   * message was first seen unfinished, and when that was (0: no message is unfinished).
   */
  #messages = 0;
  #messagesAtUnfinished = 0;
  #unfinishedSinceMs = 0;
  #isFlushScheduled = false;
  /** Replies that are not written yet. */
  #waiting: string[] | undefined = undefined;
  /** The answer to the newest ping of a slow client. */
  #pong: string | undefined = undefined;
  #number = 0;
  readonly #socket: Socket;
  static #numbers = 0;

  constructor(
    readonly host: ConnectionHost,
    readonly ws: WebSocket,
    socket: Socket,
    /** The client's address, as trusted proxies report it. */
    readonly address: string,
    readonly country: string | undefined,
    helloDeadlineMs: number,
  ) {
    this.#socket = socket;
    this.#deadlineMs = helloDeadlineMs;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Whether frames may still be received from it and sent to it. */
  get isAlive(): boolean {
    return this.#state !== 'closing' && this.#state !== 'closed';
  }

  /** Undefined: a guest. */
  get identity(): ChatIdentity | undefined {
    return this.#identity;
  }

  get account(): ConnectedAccount | undefined {
    return this.#account;
  }

  get memberships(): readonly Membership[] {
    return this.#memberships;
  }

  get isSlow(): boolean {
    return this.#isSlow;
  }

  /** Monotonic: since when the connection is slow. Valid only while `isSlow`. */
  get slowSinceMs(): number {
    return this.#slowSinceMs;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get deadlineMs(): number {
    return this.#deadlineMs;
  }

  /** When the token ends, ms since 1970. */
  get expiresAtMs(): number {
    return this.#expiresAtMs;
  }

  /**
   * An id that is unique within the process. Rate limits count the connection's requests under it.
   */
  get serial(): string {
    this.#number ||= ++ClientConnection.#numbers;
    return `connection ${this.#number}`;
  }

  // The state.

  #enter(state: ConnectionState): void {
    if (!NEXT_STATES[this.#state].includes(state)) throw new Error(`a connection cannot go from ${this.#state} to ${state}`);
    this.#state = state;
  }

  /** The client has sent `hello`, and its token is being checked. */
  beginGreeting(): void {
    this.#enter('greeting');
  }

  /** The connection's token belongs to this identity. Never called for a guest. */
  signIn(identity: ChatIdentity, account: ConnectedAccount): void {
    if (this.#state !== 'greeting') throw new Error(`a connection cannot sign in while it is ${this.#state}`);
    this.#account = account;
    this.#setIdentity(identity);
  }

  /** The client has sent a new token of the same identity. */
  renewIdentity(identity: ChatIdentity): void {
    if (this.#state !== 'open' || this.#identity?.id !== identity.id) throw new Error('only an open connection renews its own identity');
    this.#setIdentity(identity);
  }

  #setIdentity(identity: ChatIdentity): void {
    this.#identity = identity;
    this.#expiresAtMs = identity.expiresAtMs ?? Number.POSITIVE_INFINITY;
  }

  /** The client may use the chat from now on. */
  open(): void {
    this.#enter('open');
  }

  /**
   * Writes the waiting replies and then the close frame. A second call does nothing. `deadlineMs`:
   * when a connection whose client has not answered is terminated.
   */
  close(code: number, reason: string, deadlineMs: number): void {
    if (!this.isAlive) return;
    if (this.#isPaused) {
      this.#isPaused = false;
      this.ws.resume();
    }
    if (!this.#isSlow) this.flush();
    this.#enter('closing');
    this.#deadlineMs = deadlineMs;
    this.ws.close(code, reason);
  }

  /** The socket has closed. Returns false if this was known. */
  markClosed(): boolean {
    if (this.#state === 'closed') return false;
    this.#enter('closed');
    return true;
  }

  /** Destroys the socket; the WebSocket then emits `close`. */
  terminate(): void {
    this.ws.terminate();
  }

  // Rooms.

  membershipIn(roomId: string): Membership | undefined {
    for (const membership of this.#memberships) if (membership.localRoom.id === roomId) return membership;
    return undefined;
  }

  addMembership(membership: Membership): void {
    if (this.#memberships === NO_ROOMS) this.#memberships = [membership];
    else this.#memberships.push(membership);
    membership.localRoom.addMember(membership);
  }

  removeMembership(membership: Membership): Room {
    membership.localRoom.removeMember(membership);
    const at = this.#memberships.indexOf(membership);
    if (at >= 0) this.#memberships.splice(at, 1);
    return membership.localRoom.room;
  }

  // Limits.

  /**
   * Returns false when `MAX_IN_FLIGHT` publications are unanswered. Call `endPublish` once for each
   * true.
   */
  beginPublish(): boolean {
    if (this.#publishes >= MAX_IN_FLIGHT) return false;
    this.#publishes++;
    return true;
  }

  endPublish(): void {
    this.#publishes--;
  }

  /**
   * Returns false when `MAX_REQUESTS` requests are unanswered. Call `endRequest` once for each
   * true.
   */
  beginRequest(): boolean {
    if (this.#requests >= MAX_REQUESTS) return false;
    this.#requests++;
    return true;
  }

  endRequest(): void {
    this.#requests--;
  }

  /**
   * Counts a frame above the rate limit. Returns how many there were, minus the frames within the
   * limit since.
   */
  countExcessFrame(): number {
    return ++this.#excessFrames;
  }

  forgiveExcessFrame(): void {
    if (this.#excessFrames > 0) this.#excessFrames--;
  }

  countMessage(): void {
    this.#messages++;
  }

  /**
   * Whether a message has been unfinished for more than `MESSAGE_MS`. A connection that is not read
   * from has none: its client cannot finish a message.
   */
  hasOverdueMessage(nowMs: number): boolean {
    if (this.#isPaused || (this.#state !== 'open' && this.#state !== 'greeting') || !hasUnfinishedMessage(this.ws)) {
      this.#unfinishedSinceMs = 0;
      return false;
    }
    if (this.#unfinishedSinceMs === 0 || this.#messagesAtUnfinished !== this.#messages) {
      this.#unfinishedSinceMs = nowMs;
      this.#messagesAtUnfinished = this.#messages;
    }
    return nowMs - this.#unfinishedSinceMs > MESSAGE_MS;
  }

  /**
   * Called once per ping interval. Returns for how many intervals in a row the client has sent
   * nothing.
   */
  countSilentPings(): number {
    const { bytesRead } = this.#socket;
    this.#silentPings = bytesRead === this.#bytesAtPing ? this.#silentPings + 1 : 0;
    this.#bytesAtPing = bytesRead;
    return this.#silentPings;
  }

  // The place in the timing wheel.

  get wheelSlot(): number {
    return this.#wheelSlot;
  }

  get wheelIndex(): number {
    return this.#wheelIndex;
  }

  setWheelPlace(slot: number, index: number): void {
    this.#wheelSlot = slot;
    this.#wheelIndex = index;
  }

  // Writing and reading.

  /**
   * Queues a reply. All replies that are queued in one turn of the event loop go out in one write.
   */
  sendReply(text: string): void {
    if (!this.isAlive) return;
    if (this.#waiting) this.#waiting.push(text);
    else this.#waiting = [text];
    if (this.#isSlow) {
      if (this.#waiting.length > MAX_WAITING_REPLIES) this.#pauseReading();
    } else if (!this.#isFlushScheduled) {
      this.#isFlushScheduled = true;
      this.host.scheduleConnection(this);
    }
  }

  /** Writes the waiting replies, unless the client is slow. */
  flush(): void {
    this.#isFlushScheduled = false;
    if (!this.#waiting || this.#isSlow) return;
    const texts = this.#waiting;
    this.#waiting = undefined;
    this.#write(webSocketFrames(texts));
  }

  /**
   * Writes encoded WebSocket frames (a string has one byte per character) after the waiting
   * replies. Callers check `isSlow` first.
   */
  writeFrames(frames: Buffer | string): void {
    if (this.#waiting) this.flush();
    if (this.#isSlow) {
      // Writing the replies has made the connection slow. The caller's frames are few and must not
      // be lost, so they are written too.
      this.#socket.write(frames, 'latin1');
      return;
    }
    this.#write(frames);
  }

  /**
   * Answers a ping. While the client is slow only the newest ping is answered (RFC 6455 5.5.3), so
   * that pings cannot fill a buffer.
   */
  writePong(frame: string): void {
    if (this.#isSlow) this.#pong = frame;
    else this.#write(frame);
  }

  #write(frames: Buffer | string): void {
    const socket = this.#socket;
    if (!this.isAlive || !socket.writable) return;
    socket.write(frames, 'latin1');
    if (socket.writableLength > 0) {
      this.#isSlow = true;
      this.#slowSinceMs = this.host.nowMs();
      // The stream emits `drain` only above its high-water mark. The callback of an empty write
      // comes in any case.
      socket.write(EMPTY, () => this.#onDrained());
    }
  }

  #onDrained(): void {
    if (!this.isAlive) return;
    this.#isSlow = false;
    const pong = this.#pong;
    this.#pong = undefined;
    if (pong !== undefined) this.#write(pong);
    this.flush();
    if (!this.#isSlow) {
      this.#resumeReading();
      this.host.onDrained(this);
    }
  }

  #pauseReading(): void {
    if (!this.#isPaused) {
      this.#isPaused = true;
      this.ws.pause();
    }
  }

  #resumeReading(): void {
    if (this.#isPaused && this.isAlive) {
      this.#isPaused = false;
      this.ws.resume();
    }
  }
}
