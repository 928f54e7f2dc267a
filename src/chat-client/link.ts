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
 * The state of the link. Only `#enter` changes it. `online`: there is a session with the server.
 *
 *   stopped ──start──► connecting ──welcome──► online
 *      ▲                  ▲   │                  │
 *      │              time is up   ◄── closed ───┤
 *      │                  │   ▼                  │
 *      │                waiting                  │
 *      └── stop(), or a close code after which a client must not reconnect
 */
export type LinkState =
  | { readonly state: 'connecting' }
  | { readonly state: 'online' }
  /** The link connects again at `retryAtMs`. `code`: the close code of the last connection. */
  | { readonly state: 'waiting'; readonly retryAtMs: number; readonly code: number | undefined }
  /** `reason` undefined: the link was not started yet, or `stop` was called. */
  | { readonly state: 'stopped'; readonly reason: StopReason | undefined };

/**
 * `banned`: the account is banned from the service. `signed_out`: the server has refused the
 * tokens. `protocol`: the server does not understand this client.
 */
export type StopReason = 'banned' | 'signed_out' | 'protocol';

/**
 * Returns the user's token. `fresh`: a new one is needed because the last was refused or ends soon.
 * Undefined: a guest.
 */
export type TokenSource = (want: { readonly fresh: boolean }) => string | undefined | Promise<string | undefined>;

export interface LinkOptions extends Environment {
  readonly url: string | (() => string);
  readonly token: TokenSource | undefined;
  /** The name of this program in the server's log. */
  readonly client: string | undefined;
}

export interface LinkEvents {
  onState(state: LinkState): void;
  /** A session has begun, for the same or another user. Rooms have to be joined again. */
  onWelcome(user: ChatUser | undefined): void;
  onFrame(frame: Frame): void;
}

interface PendingRequest {
  readonly answer: (frame: Frame) => void;
  readonly failed: (problem: ChatProblem) => void;
  readonly cancel: () => void;
}

/**
 * The back-off before a reconnect: a random time below a ceiling that doubles from `first` to
 * `most`.
 */
export const BACK_OFF_MS = { first: 500, most: 30_000 } as const;
/** After a session that lasted this long the back-off starts again from `first`. */
const GOOD_AFTER_MS = 10_000;
const CONNECT_WITHIN_MS = 15_000;
const ANSWER_WITHIN_MS = 20_000;
/**
 * When no frame has arrived for two of the server's ping intervals, a request is sent. Without an
 * answer within this time the connection counts as lost.
 */
const PROBE_WITHIN_MS = 5_000;
const DEFAULT_PING_MS = 25_000;
/**
 * A token is renewed this long before its end, or after four fifths of its life if that is later.
 */
const RENEW_BEFORE_MS = 60_000;
/**
 * The shortest time between two renewals. It doubles from `first` to `most` while the token source
 * has no new token. When the token has ended, the server closes with 4001.
 */
const RENEW_AGAIN_MS = { first: 10_000, most: 300_000 } as const;
const RENEW_STEP_MS = 60_000;
/** The number of attempts from which the back-off ceiling starts after 1013. */
const OVERLOADED_ATTEMPT = 4;
/** Refused tokens in a row that lead to another attempt. One more stops the link. */
const TOKENS_REFUSED = 2;

const CLOSED = { restart: 1012, overloaded: 1013, token: 4001, banned: 4003 } as const;
/**
 * The close codes 1002, 1007, 1009 and 4009: this client's frames are wrong, and would be wrong
 * again.
 */
const OUR_FAULT = new Set([1002, 1007, 1009, 4009]);

/**
 * The sessions with the server, one after another: `hello`, renewal of the token, requests with
 * their answers, and reconnecting.
 */
export class SessionLink {
  readonly #options: LinkOptions;
  readonly #elapsed: Elapsed;
  readonly #events: LinkEvents;
  #state: LinkState = { state: 'stopped', reason: undefined };
  #socket: ChatSocket | undefined;
  /** Raised with every attempt. Events of an earlier attempt are ignored. */
  #turn = 0;
  #attempts = 0;
  #tokensRefused = 0;
  #wantsFresh = false;
  #nextId = 1;
  #pingMs = DEFAULT_PING_MS;
  /** This and the next two are times of `#elapsed`. */
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

  /** Connects. Does nothing unless the link is stopped. */
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

  /**
   * Ends a back-off at once, or checks whether the present connection still works. Called when the
   * network is back or the page becomes visible.
   */
  wake(): void {
    if (this.#state.state === 'waiting' && this.#drainUntilMs === undefined) this.#connect();
    else if (this.#state.state === 'online') this.#listen();
  }

  /** Ends the session and begins another with a new token. */
  restart(): void {
    this.#drop();
    this.#attempts = 0;
    this.#tokensRefused = 0;
    this.#connect();
  }

  /** Sends a frame. Without a session the frame is lost. */
  send(frame: Frame): void {
    if (this.isOnline) this.#write(frame);
  }

  /**
   * Sends a request with a new id. Exactly one of the two callbacks is called, in the same step as
   * the answer is received, so that the next frame finds its effects. `failed` gets the code
   * `disconnected` when the session ends first, and `timeout` when no answer comes within
   * `withinMs`.
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
      // The socket is closing. Its `close` event follows.
    }
  }

  #connect(): void {
    this.#drop();
    const turn = ++this.#turn;
    this.#drainUntilMs = undefined;
    this.#enter({ state: 'connecting' });
    this.#timer = this.#options.clock.after(CONNECT_WITHIN_MS, () => this.#lost(undefined));
    // The token is requested before the socket is opened, because the server waits only five
    // seconds for `hello`.
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
    // A `close` event follows. Without a listener for `error`, `ws` would throw.
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

  /** Checks whether frames still arrive. */
  #listen(): void {
    const { clock } = this.#options;
    this.#watch?.();
    const leftMs = this.#heardAtMs + 2 * this.#pingMs - this.#elapsed.nowMs();
    if (leftMs > 0) {
      this.#watch = clock.after(leftMs, () => this.#listen());
      return;
    }
    // No frame has arrived for two ping intervals. The wall clock may have been set forward, or
    // this machine has slept. A request that the server always answers shows whether the connection
    // works.
    const turn = this.#turn;
    const heard = (problem?: ChatProblem) => {
      if (this.#turn !== turn) return;
      if (problem?.code === 'timeout') this.#lost(undefined);
      else this.#listen();
    };
    this.request({ t: 'leave', room: 'nowhere' }, () => heard(), heard, PROBE_WITHIN_MS);
  }

  /**
   * When the token ends, by `#elapsed`. The server sends how long the token lasts, because this
   * machine's clock may be hours off. A server that does not send it has just accepted the token,
   * so the token lasts at least a few minutes.
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

  /** Waits in steps, because timers have 31 bits and stop while a laptop sleeps. */
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
        // The source has no token now. It is asked again until the server closes with 4001.
        if (token === undefined) again();
        else this.request({ t: 'auth', token }, (answer) => this.#renewed(this.#endOf(answer), endsAtMs, tries), again);
      },
      again,
    );
  }

  /** Plans the next renewal. A token that ends no later than the last one is not new. */
  #renewed(endsAtMs: number | undefined, beforeMs: number, tries: number): void {
    const isFresh = endsAtMs === undefined || endsAtMs > beforeMs + 1000;
    this.#renewBefore(endsAtMs, isFresh ? 0 : tries + 1);
  }

  /** The server process ends soon and gives each client its own time to reconnect. */
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

  /** Ends the session. Unanswered requests fail with `disconnected`. */
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
      // The socket is already closed.
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
