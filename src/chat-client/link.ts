import { type ChatSocket, Elapsed, type Environment } from './environment.js';
import {
  ChatProblem,
  type ChatUser,
  DEFAULT_LIMITS,
  type Frame,
  isRecord,
  type Limits,
  limitsOf,
  parseFrame,
  problemOf,
  SUBPROTOCOL,
  textOf,
  timeOf,
} from './frames.js';

/**
 * Whether there is a session with the server. One function changes it (`#enter`).
 *
 *   stopped ──start──► connecting ──welcome──► online
 *      ▲                  ▲   │                  │
 *      │              time is up   ◄── closed ───┤
 *      │                  │   ▼                  │
 *      │                waiting                  │
 *      └── stop(), or a close code that says not to come back
 */
export type LinkState =
  | { readonly state: 'connecting' }
  | { readonly state: 'online' }
  /** It connects again by itself. */
  | { readonly state: 'waiting'; readonly retryAtMs: number; readonly code: number | undefined }
  /** `reason` undefined: it was not started, or stopped here. */
  | { readonly state: 'stopped'; readonly reason: StopReason | undefined };

/** `banned`: from the service. `signed_out`: the server takes no token of ours. `protocol`: this client is not what the server understands. */
export type StopReason = 'banned' | 'signed_out' | 'protocol';

/** `fresh`: the one before was refused, or ends soon. Undefined: a guest. */
export type TokenSource = (want: { readonly fresh: boolean }) => string | undefined | Promise<string | undefined>;

export interface LinkOptions extends Environment {
  readonly url: string | (() => string);
  readonly token: TokenSource | undefined;
  /** Says in the server's log what this is. */
  readonly client: string | undefined;
}

export interface LinkEvents {
  onState(state: LinkState): void;
  /** A session begins: the same, or another user. Rooms are to be joined again. */
  onWelcome(user: ChatUser | undefined): void;
  onFrame(frame: Frame): void;
}

interface PendingRequest {
  readonly answer: (frame: Frame) => void;
  readonly failed: (problem: ChatProblem) => void;
  readonly cancel: () => void;
}

/** Full jitter below a ceiling that doubles from the first to the second. */
export const BACK_OFF_MS = { first: 500, most: 30_000 } as const;
/** A session that lasted so long was a good one: the next back-off begins anew. */
const GOOD_AFTER_MS = 10_000;
const CONNECT_WITHIN_MS = 15_000;
const ANSWER_WITHIN_MS = 20_000;
/** Nothing heard for two of the server's ping intervals, and no answer within this after them: the line is dead. */
const PROBE_WITHIN_MS = 5_000;
const DEFAULT_PING_MS = 25_000;
/** A token is renewed so long before its end, or at four fifths of a short life. */
const RENEW_BEFORE_MS = 60_000;
/** Between two renewals at least; it doubles up to the second while there is no other token. The server closes with 4001 in the end. */
const RENEW_AGAIN_MS = { first: 10_000, most: 300_000 } as const;
const RENEW_STEP_MS = 60_000;
/** After 1013 the ceiling begins here. */
const OVERLOADED_ATTEMPT = 4;
/** A server that never takes our token is not asked for ever. */
const TOKENS_REFUSED = 2;

const CLOSED = { restart: 1012, overloaded: 1013, token: 4001, banned: 4003 } as const;
/** 1002, 1007, 1009, 4009: what we say is wrong, and would be wrong again. */
const OUR_FAULT = new Set([1002, 1007, 1009, 4009]);

/** One session after another with the server: hello, renewal of the token, requests and their answers, and coming back. */
export class SessionLink {
  readonly #options: LinkOptions;
  readonly #elapsed: Elapsed;
  readonly #events: LinkEvents;
  #state: LinkState = { state: 'stopped', reason: undefined };
  #socket: ChatSocket | undefined;
  /** Raised with every attempt: what belongs to an earlier one is not listened to. */
  #turn = 0;
  #attempts = 0;
  #tokensRefused = 0;
  #wantsFresh = false;
  #nextId = 1;
  #pingMs = DEFAULT_PING_MS;
  /** These three by `#elapsed`. */
  #onlineSinceMs = 0;
  #heardAtMs = 0;
  #drainUntilMs: number | undefined;
  #timer: (() => void) | undefined;
  #watch: (() => void) | undefined;
  #renewal: (() => void) | undefined;
  readonly #waiting = new Map<string, PendingRequest>();
  user: ChatUser | undefined;
  limits: Limits = DEFAULT_LIMITS;

  constructor(options: LinkOptions, events: LinkEvents) {
    this.#options = options;
    this.#elapsed = new Elapsed(options.clock);
    this.#events = events;
  }

  get state(): LinkState {
    return this.#state;
  }

  get isOnline(): boolean {
    return this.#state.state === 'online';
  }

  /** Again is harmless. */
  start(): void {
    if (this.#state.state !== 'stopped') return;
    this.#attempts = 0;
    this.#tokensRefused = 0;
    this.#connect();
  }

  stop(): void {
    this.#drop();
    this.#enter({ state: 'stopped', reason: undefined });
  }

  /** The network is back, or the page is looked at again: what waits, tries now; what seems to be connected is looked at. */
  wake(): void {
    if (this.#state.state === 'waiting' && this.#drainUntilMs === undefined) this.#connect();
    else if (this.#state.state === 'online') this.#listen();
  }

  /** Ends the session and begins another, with a token that is asked for anew. */
  restart(): void {
    this.#drop();
    this.#attempts = 0;
    this.#tokensRefused = 0;
    this.#connect();
  }

  /** Lost when there is no session. */
  send(frame: Frame): void {
    if (this.isOnline) this.#write(frame);
  }

  /**
   * Sends with an id; exactly one of both is called, synchronously with the frame that answers, so that what follows it finds it done. `failed` has
   * the code `disconnected` when the session ends first, `timeout` when no answer comes.
   */
  request(
    frame: Frame,
    answer: (frame: Frame) => void,
    failed: (problem: ChatProblem) => void,
    withinMs: number | undefined = ANSWER_WITHIN_MS,
  ): void {
    if (!this.isOnline) {
      failed(new ChatProblem('disconnected', 'Not connected.'));
      return;
    }
    const id = String(this.#nextId++);
    const cancel =
      withinMs === Number.POSITIVE_INFINITY
        ? () => {}
        : this.#options.clock.after(withinMs, () => this.#settle(id)?.failed(new ChatProblem('timeout', 'The server has not answered.')));
    this.#waiting.set(id, { answer, failed, cancel });
    this.#write({ ...frame, id });
  }

  #enter(state: LinkState): void {
    this.#state = state;
    this.#events.onState(state);
  }

  #write(frame: object): void {
    try {
      this.#socket?.send(JSON.stringify(frame));
    } catch {
      // It is closing; what is said of that comes by itself.
    }
  }

  #connect(): void {
    this.#drop();
    const turn = ++this.#turn;
    this.#drainUntilMs = undefined;
    this.#enter({ state: 'connecting' });
    this.#timer = this.#options.clock.after(CONNECT_WITHIN_MS, () => this.#lost(undefined));
    // A token before the socket: the server gives it five seconds to say hello.
    this.#askToken(
      this.#wantsFresh,
      (token) => this.#turn === turn && this.#open(token),
      () => this.#turn === turn && this.#lost(undefined),
    );
  }

  #askToken(fresh: boolean, found: (token: string | undefined) => void, failed: () => void): void {
    let asked: ReturnType<TokenSource>;
    try {
      asked = this.#options.token?.({ fresh });
    } catch {
      failed();
      return;
    }
    if (typeof asked === 'object') asked.then(found, failed);
    else found(asked);
  }

  #open(token: string | undefined): void {
    const { webSocket: Socket, url, client } = this.#options;
    const turn = this.#turn;
    let socket: ChatSocket;
    try {
      socket = new Socket(typeof url === 'string' ? url : url(), [SUBPROTOCOL]);
    } catch {
      this.#lost(undefined);
      return;
    }
    this.#socket = socket;
    const isOurs = () => this.#turn === turn && this.#socket === socket;
    socket.addEventListener('open', () => {
      if (isOurs()) this.#write({ t: 'hello', ...(token === undefined ? {} : { token }), ...(client === undefined ? {} : { client }) });
    });
    socket.addEventListener('message', ({ data }) => {
      if (isOurs()) this.#heard(data);
    });
    socket.addEventListener('close', ({ code }) => {
      if (isOurs()) this.#lost(code);
    });
    // A close follows; without a listener `ws` would throw.
    socket.addEventListener('error', () => {});
  }

  #heard(data: unknown): void {
    this.#heardAtMs = this.#elapsed.nowMs();
    const frame = parseFrame(data);
    if (!frame) return;
    if (frame.t === 'welcome') {
      this.#welcomed(frame);
      return;
    }
    if (this.#state.state !== 'online') return;
    if (frame.t === 'drain') {
      this.#drain(frame);
      return;
    }
    const waiting = typeof frame.id === 'string' ? this.#settle(frame.id) : undefined;
    if (!waiting) this.#events.onFrame(frame);
    else if (frame.t === 'err') waiting.failed(problemOf(frame));
    else waiting.answer(frame);
  }

  #welcomed(frame: Frame): void {
    if (this.#state.state !== 'connecting') return;
    this.#timer?.();
    this.#wantsFresh = false;
    this.#tokensRefused = 0;
    this.#onlineSinceMs = this.#elapsed.nowMs();
    this.#pingMs = typeof frame.pingMs === 'number' && frame.pingMs > 0 ? frame.pingMs : DEFAULT_PING_MS;
    this.limits = limitsOf(frame.limits);
    const { user } = frame;
    this.user =
      isRecord(user) && typeof user.id === 'string'
        ? { id: user.id, name: textOf(user.name) ?? '', role: textOf(user.role) ?? 'viewer' }
        : undefined;
    this.#renewBefore(this.#endOf(frame));
    this.#listen();
    this.#enter({ state: 'online' });
    this.#events.onWelcome(this.user);
  }

  /** Is anything still heard? */
  #listen(): void {
    const { clock } = this.#options;
    this.#watch?.();
    const leftMs = this.#heardAtMs + 2 * this.#pingMs - this.#elapsed.nowMs();
    if (leftMs > 0) {
      this.#watch = clock.after(leftMs, () => this.#listen());
      return;
    }
    // Or the wall clock was set forward, or this machine has slept: asked for something that is answered in any case, the line is dead or is not.
    const turn = this.#turn;
    const heard = (problem?: ChatProblem) => {
      if (this.#turn !== turn) return;
      if (problem?.code === 'timeout') this.#lost(undefined);
      else this.#listen();
    };
    this.request({ t: 'leave', room: 'nowhere' }, () => heard(), heard, PROBE_WITHIN_MS);
  }

  /**
   * When the token ends, by `#elapsed`. The server says how long it lasts; the time of day of this machine may be hours from the server's. A server that
   * does not say so has taken the token just now: it is good for a moment at least.
   */
  #endOf({ expiresInMs, expiresAt }: Frame): number | undefined {
    const nowMs = this.#elapsed.nowMs();
    if (typeof expiresInMs === 'number' && Number.isFinite(expiresInMs)) return nowMs + expiresInMs;
    const endsAtMs = timeOf(expiresAt);
    return endsAtMs === undefined ? undefined : nowMs + Math.max(5 * RENEW_BEFORE_MS, endsAtMs - this.#options.clock.wallMs());
  }

  #renewBefore(endsAtMs: number | undefined, tries = 0): void {
    this.#renewal?.();
    if (endsAtMs === undefined || !this.#options.token) return;
    const leftMs = endsAtMs - this.#elapsed.nowMs();
    const leastMs = Math.min(RENEW_AGAIN_MS.most, RENEW_AGAIN_MS.first * 2 ** tries);
    const atMs = this.#elapsed.nowMs() + Math.max(leastMs, leftMs - Math.min(RENEW_BEFORE_MS, leftMs / 5));
    this.#renewAt(atMs, () => this.#renew(endsAtMs, tries));
  }

  /** In steps: timers take 31 bits, and stand still while a laptop sleeps. */
  #renewAt(atMs: number, renew: () => void): void {
    const waitMs = atMs - this.#elapsed.nowMs();
    if (waitMs <= 0) renew();
    else this.#renewal = this.#options.clock.after(Math.min(waitMs, RENEW_STEP_MS), () => this.#renewAt(atMs, renew));
  }

  #renew(endsAtMs: number, tries: number): void {
    const turn = this.#turn;
    const again = () => {
      if (this.#turn === turn) this.#renewBefore(endsAtMs, tries + 1);
    };
    this.#askToken(
      true,
      (token) => {
        if (this.#turn !== turn) return;
        // Without one now: asked for again, until the server says 4001.
        if (token === undefined) again();
        else this.request({ t: 'auth', token }, (answer) => this.#renewed(this.#endOf(answer), endsAtMs, tries), again);
      },
      again,
    );
  }

  /** A token that ends no later than the one before is none that is fresh. */
  #renewed(endsAtMs: number | undefined, beforeMs: number, tries: number): void {
    const isFresh = endsAtMs === undefined || endsAtMs > beforeMs + 1000;
    this.#renewBefore(endsAtMs, isFresh ? 0 : tries + 1);
  }

  /** It restarts soon: each client is given its own time to come back. */
  #drain(frame: Frame): void {
    const retryMs = typeof frame.retryMs === 'number' && frame.retryMs >= 0 ? frame.retryMs : this.#jitter(OVERLOADED_ATTEMPT);
    const turn = this.#turn;
    this.#drainUntilMs = this.#elapsed.nowMs() + retryMs;
    this.#options.clock.after(retryMs, () => {
      if (this.#turn === turn && this.isOnline) this.#lost(CLOSED.restart);
    });
  }

  #lost(code: number | undefined): void {
    const { clock } = this.#options;
    const nowMs = this.#elapsed.nowMs();
    const wasGood = this.#state.state === 'online' && nowMs - this.#onlineSinceMs >= GOOD_AFTER_MS;
    const drainUntilMs = this.#drainUntilMs;
    this.#drop();
    if (code === CLOSED.banned) {
      this.#enter({ state: 'stopped', reason: 'banned' });
      return;
    }
    if (code !== undefined && OUR_FAULT.has(code)) {
      this.#enter({ state: 'stopped', reason: 'protocol' });
      return;
    }
    if (code === CLOSED.token) {
      this.#wantsFresh = true;
      if (++this.#tokensRefused > TOKENS_REFUSED) {
        this.#enter({ state: 'stopped', reason: 'signed_out' });
        return;
      }
    }
    if (wasGood) this.#attempts = 0;
    if (code === CLOSED.overloaded) this.#attempts = Math.max(this.#attempts, OVERLOADED_ATTEMPT);
    const waitMs = drainUntilMs === undefined ? this.#jitter(this.#attempts++) : Math.max(0, drainUntilMs - nowMs);
    this.#drainUntilMs = drainUntilMs;
    this.#enter({ state: 'waiting', retryAtMs: clock.wallMs() + waitMs, code });
    this.#timer = clock.after(waitMs, () => this.#connect());
  }

  #jitter(attempt: number): number {
    return this.#options.random() * Math.min(BACK_OFF_MS.most, BACK_OFF_MS.first * 2 ** Math.min(attempt, 10));
  }

  /** Nothing of the session is left, and nobody waits for an answer from it. */
  #drop(): void {
    this.#turn++;
    this.#drainUntilMs = undefined;
    this.#timer?.();
    this.#watch?.();
    this.#renewal?.();
    const socket = this.#socket;
    this.#socket = undefined;
    try {
      socket?.close(1000);
    } catch {
      // Already.
    }
    if (this.#state.state === 'online') this.#state = { state: 'connecting' };
    for (const id of [...this.#waiting.keys()]) this.#settle(id)?.failed(new ChatProblem('disconnected', 'The connection was lost.'));
  }

  #settle(id: string): PendingRequest | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    waiting?.cancel();
    return waiting;
  }
}
