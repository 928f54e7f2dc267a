/**
 * The parts of its surroundings that a client uses. Every part can be passed in; a browser has them
 * all.
 */
export interface Environment {
  readonly webSocket: SocketConstructor;
  readonly clock: ClientClock;
  /** Returns a number from 0 to below 1. */
  readonly random: () => number;
}

/** The part of the WebSocket interface that the client uses. */
export interface ChatSocket {
  readonly readyState: number;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: 'open' | 'message' | 'close' | 'error', listener: (event: SocketEvent) => void): void;
}

export interface SocketEvent {
  readonly type: string;
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

export type SocketConstructor = new (url: string, protocols: string[]) => ChatSocket;

export interface ClientClock {
  /** Milliseconds since 1970. */
  wallMs(): number;
  /** Milliseconds that never go back. Without it the client uses `wallMs`. */
  monotonicMs?(): number;
  /** Runs `task` once after `delayMs`. Returns a function that cancels it. */
  after(delayMs: number, task: () => void): () => void;
}

/** The longest delay of a browser's timer: 31 bits. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const systemClock: ClientClock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, Math.min(LONGEST_TIMER_MS, Math.max(0, delayMs)));
    return () => clearTimeout(timer);
  },
};

/**
 * Measures elapsed time, whatever happens to the wall clock. A wall clock that is set back does not
 * stop it. Browsers stop their monotonic clock while a laptop sleeps, and the wall clock goes on;
 * so the clock that has advanced further counts. After a wall clock was set forward, the result is
 * too high. A token is then renewed early, which does no harm.
 */
export class Elapsed {
  readonly #clock: ClientClock;
  #nowMs = 0;
  #wallMs: number;
  #monotonicMs: number;

  constructor(clock: ClientClock) {
    this.#clock = clock;
    this.#wallMs = clock.wallMs();
    this.#monotonicMs = this.#monotonic();
  }

  /** Milliseconds since this object was made. */
  nowMs(): number {
    const wallMs = this.#clock.wallMs();
    const monotonicMs = this.#monotonic();
    this.#nowMs += Math.max(0, wallMs - this.#wallMs, monotonicMs - this.#monotonicMs);
    this.#wallMs = wallMs;
    this.#monotonicMs = monotonicMs;
    return this.#nowMs;
  }

  #monotonic(): number {
    return this.#clock.monotonicMs?.() ?? this.#clock.wallMs();
  }
}

/**
 * Fills in the missing parts. Throws when there is no WebSocket: Node has one from version 22 on;
 * before that pass one in (`import { WebSocket } from 'ws'`).
 */
export function environmentOf(given: Partial<Environment>): Environment {
  const webSocket = given.webSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
  if (!webSocket) throw new TypeError('There is no WebSocket here. Hand one in: new ChatClient({ webSocket, … }).');
  return { webSocket, clock: given.clock ?? systemClock, random: given.random ?? Math.random };
}

/** 128 random bits as text: the key by which the server recognises a message that is sent again. */
export function randomKey(random: () => number): string {
  const { crypto } = globalThis as { crypto?: { getRandomValues(bytes: Uint8Array): Uint8Array } };
  const bytes = new Uint8Array(16);
  if (random === Math.random && crypto) crypto.getRandomValues(bytes);
  else for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(random() * 256);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
