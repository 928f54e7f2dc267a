import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { webSocketFrames } from '../protocol/protocol.js';
import type { Room } from '../rooms/room.js';
import type { ChatIdentity } from './doors.js';
import type { Membership } from './hub.js';

/** What a connection asks of its process. */
export interface ConnectionHost {
  /** It has something to say: `flush` it before the process waits again. */
  wantsFlush(connection: ClientConnection): void;
  /** Everything written to it has been taken. */
  drained(connection: ClientConnection): void;
  nowMs(): number;
}

/** Of one account in this process, shared by its connections; a guest has one of his own. */
export class FrameBudget {
  tokens: number;
  filledAtMs: number;

  constructor(
    private readonly perS: number,
    private readonly burst: number,
    nowMs: number,
  ) {
    this.tokens = burst;
    this.filledAtMs = nowMs;
  }

  /** False: he is too fast. */
  take(nowMs: number): boolean {
    this.tokens = Math.min(this.burst, this.tokens + ((nowMs - this.filledAtMs) * this.perS) / 1000);
    this.filledAtMs = nowMs;
    if (this.tokens < 1) return false;
    this.tokens--;
    return true;
  }
}

/** Everybody who is signed in has one in each process that he has a connection to. */
export interface ConnectedAccount {
  readonly connections: ClientConnection[];
  readonly budget: FrameBudget;
  /** Read once, for rooms that ask how old an account is; a promise while it is read. */
  sinceMs: Promise<number | undefined> | undefined;
}

export type ConnectionState = 'hello' | 'greeting' | 'open' | 'closing' | 'closed';

/** Replies that wait for a slow reader before nothing more is read from it. */
const MAX_WAITING = 16;
const EMPTY = Buffer.alloc(0);
const NO_ROOMS: Membership[] = [];

/**
 * One client. A hundred thousand of them are held, so what each has is counted: no timer, no closure, no queue beyond the answers to what it asked.
 * While anything it was written has not been taken, nothing more is written (`isSlow`): what it lacks is kept by the rooms.
 */
export class ClientConnection {
  phase: ConnectionState = 'hello';
  person: ChatIdentity | undefined = undefined;
  account: ConnectedAccount | undefined = undefined;
  memberships: Membership[] = NO_ROOMS;
  /** Messages that are not answered yet; and other requests. */
  inFlight = 0;
  requests = 0;
  /** Something that it was written has not been taken yet. */
  isSlow = false;
  slowSinceMs = 0;
  /** Monotonic: until then it has said hello, or is gone after a close. */
  deadlineMs: number;
  /** When its token ends, ms since 1970. */
  expiresAtMs = Number.POSITIVE_INFINITY;
  /** Where it stands in the wheel. */
  slot = 0;
  slotIndex = 0;
  /** What it had sent when it was last pinged, and how often nothing had come since. */
  bytesSeen = 0;
  silences = 0;
  /** Frames that were too many, in a row. */
  excess = 0;
  /** Whole messages that came; and how many had come when one was first seen unfinished, and when that was (monotonic; 0: none is). */
  messages = 0;
  messagesThen = 0;
  unfinishedSinceMs = 0;
  isPaused = false;
  wantsFlush = false;
  /** Answers that are not written yet. */
  #waiting: string[] | undefined = undefined;
  /** Of the newest ping, for a reader that is slow. */
  #pong: string | undefined = undefined;
  #number = 0;
  readonly #socket: Socket;
  static #numbers = 0;

  constructor(
    readonly host: ConnectionHost,
    readonly ws: WebSocket,
    socket: Socket,
    /** Of the client, as our proxies say. */
    readonly address: string,
    readonly country: string | undefined,
    deadlineMs: number,
  ) {
    this.#socket = socket;
    this.deadlineMs = deadlineMs;
  }

  /** What its requests are counted by: no other connection of this process has it. */
  get serial(): string {
    this.#number ||= ++ClientConnection.#numbers;
    return `connection ${this.#number}`;
  }

  get bytesRead(): number {
    return this.#socket.bytesRead;
  }

  membership(roomId: string): Membership | undefined {
    for (const membership of this.memberships) if (membership.hub.id === roomId) return membership;
    return undefined;
  }

  enter(membership: Membership): void {
    if (this.memberships === NO_ROOMS) this.memberships = [membership];
    else this.memberships.push(membership);
    membership.hub.add(membership);
  }

  leave(membership: Membership): Room {
    membership.hub.remove(membership);
    const at = this.memberships.indexOf(membership);
    if (at >= 0) this.memberships.splice(at, 1);
    return membership.hub.room;
  }

  /** An answer; what is said before the process waits again goes out in one write. */
  send(text: string): void {
    if (this.phase === 'closed' || this.phase === 'closing') return;
    if (this.#waiting) this.#waiting.push(text);
    else this.#waiting = [text];
    if (this.isSlow) {
      if (this.#waiting.length > MAX_WAITING) this.pause();
    } else if (!this.wantsFlush) {
      this.wantsFlush = true;
      this.host.wantsFlush(this);
    }
  }

  flush(): void {
    this.wantsFlush = false;
    if (!this.#waiting || this.isSlow) return;
    const texts = this.#waiting;
    this.#waiting = undefined;
    this.#write(webSocketFrames(texts));
  }

  /** Frames that are ready (a string has a byte in each character), after the answers that wait. Not while it is slow. */
  write(frames: Buffer | string): void {
    if (this.#waiting) this.flush();
    if (this.isSlow) {
      // The answers were too much for it: what is asked here is small and must not be lost.
      this.#socket.write(frames, 'latin1');
      return;
    }
    this.#write(frames);
  }

  /** While it is slow only the newest ping is answered (RFC 6455 5.5.3): a client that pings and reads nothing fills nothing. */
  pong(frame: string): void {
    if (this.isSlow) this.#pong = frame;
    else this.#write(frame);
  }

  #write(frames: Buffer | string): void {
    const socket = this.#socket;
    if (this.phase === 'closed' || this.phase === 'closing' || !socket.writable) return;
    socket.write(frames, 'latin1');
    if (socket.writableLength > 0) {
      this.isSlow = true;
      this.slowSinceMs = this.host.nowMs();
      // 'drain' comes only after a write that the stream had called too much.
      socket.write(EMPTY, () => this.#drained());
    }
  }

  #drained(): void {
    if (this.phase === 'closed' || this.phase === 'closing') return;
    this.isSlow = false;
    const pong = this.#pong;
    this.#pong = undefined;
    if (pong !== undefined) this.#write(pong);
    this.flush();
    if (!this.isSlow) {
      this.resume();
      this.host.drained(this);
    }
  }

  pause(): void {
    if (!this.isPaused) {
      this.isPaused = true;
      this.ws.pause();
    }
  }

  /** Reads on, unless it has asked for as much as it may. */
  resume(): void {
    if (this.isPaused && (this.phase === 'open' || this.phase === 'greeting' || this.phase === 'hello')) {
      this.isPaused = false;
      this.ws.resume();
    }
  }

  /** What waits is written first. A client that does not answer is cut off when `deadlineMs` is over. */
  close(code: number, reason: string, deadlineMs: number): void {
    if (this.phase === 'closing' || this.phase === 'closed') return;
    if (this.isPaused) {
      this.isPaused = false;
      this.ws.resume();
    }
    if (!this.isSlow) this.flush();
    this.phase = 'closing';
    this.deadlineMs = deadlineMs;
    this.ws.close(code, reason);
  }

  cut(): void {
    this.ws.terminate();
  }
}
