import { type ClientClock, Elapsed } from './environment.js';
import { type ChatBody, ChatProblem, type Frame, isOffset, type Pace, problemOf, textOf } from './frames.js';

/**
 * The state of a message that this client has written.
 *
 *   queued ──► sending ──► sent (stored; removed from the list when its entry is seen)
 *     ▲           │ ├────► held (waits for a moderator)
 *     └─ lost ────┘ ├────► refused (`problem` says why)
 *                   └────► unsent (no answer for five minutes; only `retry` sends it again)
 */
export type OutgoingState = 'queued' | 'sending' | 'sent' | 'held' | 'refused' | 'unsent';

export interface Outgoing {
  readonly key: string;
  readonly body: ChatBody;
  /** Wall clock, ms since 1970. */
  readonly createdAtMs: number;
  readonly state: OutgoingState;
  /** Undefined until the server has sent it. */
  readonly mid: string | undefined;
  readonly problem: ChatProblem | undefined;
  /** After `slow_mode`: when `retry` can succeed. */
  readonly retryAtMs: number | undefined;
  /** True: its entry is shown in the room's view, and only the acknowledgement is missing. */
  readonly isShown: boolean;
  /** Resolves when the message is sent, held or refused. Never rejects. */
  readonly settled: Promise<Outgoing>;
}

interface Message extends Outgoing {
  createdAtMs: number;
  /** As `createdAtMs`, but in elapsed time. */
  bornAtMs: number;
  state: OutgoingState;
  mid: string | undefined;
  problem: ChatProblem | undefined;
  retryAtMs: number | undefined;
  isShown: boolean;
  shownAt: number | undefined;
  /** The offset at which the server has stored it. */
  storedAt: number | undefined;
  /** The session in which the message has used a token of the pace. */
  pacedIn: number;
  /** Raised with each sending. Refusals of an earlier one are ignored. */
  sending: number;
  settle(message: Outgoing): void;
}

/** The server remembers a key for this long. An older message is sent again only by `retry`. */
export const KEEP_TRYING_MS = 300_000;
/** Without an answer and an entry after this, the message is sent again under its key. */
const AGAIN_AFTER_MS = 30_000;
const BUSY_MS = 1_000;
/** The share of the allowed pace that is used: messages that are sent evenly arrive unevenly. */
const PACE = 0.9;
export const MOST_OUTGOING = 100;
const RETRIED = new Set(['busy', 'unavailable', 'timeout', 'resend']);

export interface OutboxLink {
  readonly canSend: boolean;
  readonly inFlightMost: number;
  /** The server refuses a faster rate. Undefined: no limit. */
  readonly pace: Pace | undefined;
  publish(key: string, body: ChatBody, answer: (frame: Frame) => void, failed: (problem: ChatProblem) => void): void;
  /** The offset up to which the view has every entry. */
  readonly position: number;
}

/** The messages of this client in one room, from writing to acknowledgement. */
export class Outbox {
  readonly #clock: ClientClock;
  readonly #elapsed: Elapsed;
  readonly #link: OutboxLink;
  readonly #changed: () => void;
  readonly #slowed: (retryMs: number) => void;
  #messages: Message[] = [];
  #pausedUntilMs = 0;
  /**
   * The number of the session. Each server process counts a message that it has not seen, even if
   * another process has counted it.
   */
  #session = 0;
  /** Messages that may be sent now within `pace`; undefined: its whole burst. */
  #tokens: number | undefined;
  #filledAtMs = 0;
  #timer: (() => void) | undefined;

  constructor(clock: ClientClock, link: OutboxLink, changed: () => void, slowed: (retryMs: number) => void) {
    this.#clock = clock;
    this.#elapsed = new Elapsed(clock);
    this.#link = link;
    this.#changed = changed;
    this.#slowed = slowed;
  }

  /** The messages in the order in which they were written. */
  get messages(): readonly Outgoing[] {
    return this.#messages;
  }

  /** Adds a message. Throws `outbox_full`. */
  add(key: string, body: ChatBody): Outgoing {
    if (this.#messages.length >= MOST_OUTGOING) {
      throw new ChatProblem('outbox_full', `${MOST_OUTGOING} messages are already waiting to be sent.`);
    }
    let settle!: (message: Outgoing) => void;
    const settled = new Promise<Outgoing>((resolve) => {
      settle = resolve;
    });
    const message: Message = {
      key,
      body,
      createdAtMs: this.#clock.wallMs(),
      bornAtMs: this.#elapsed.nowMs(),
      state: 'queued',
      mid: undefined,
      problem: undefined,
      retryAtMs: undefined,
      isShown: false,
      shownAt: undefined,
      storedAt: undefined,
      pacedIn: -1,
      sending: 0,
      settled,
      settle,
    };
    this.#messages.push(message);
    this.pump();
    this.#changed();
    return message;
  }

  /**
   * Sends a refused or unsent message again under its key. If it has arrived before, it stays a
   * single message.
   */
  retry(key: string): void {
    const message = this.#find(key);
    if (!message || (message.state !== 'unsent' && message.state !== 'refused')) return;
    Object.assign(message, {
      state: 'queued',
      createdAtMs: this.#clock.wallMs(),
      bornAtMs: this.#elapsed.nowMs(),
      problem: undefined,
      retryAtMs: undefined,
    });
    this.pump();
    this.#changed();
  }

  /** Forgets a message. A message that was sent may still arrive. */
  discard(key: string): void {
    const message = this.#find(key);
    if (!message) return;
    this.#remove(message);
    message.settle(message);
    this.#changed();
  }

  /** An entry of this account has been added to the view. */
  seen(key: string | undefined, mid: string | undefined, offset: number): void {
    const message = this.#messages.find((one) => (key !== undefined && one.key === key) || (mid !== undefined && one.mid === mid));
    if (!message || message.shownAt === offset) return;
    message.mid = mid ?? message.mid;
    message.shownAt = offset;
    message.isShown = true;
    // A refused or unsent message may still appear: its answer was lost, or a moderator has
    // approved it.
    if (message.state === 'sent' || message.state === 'held') this.#remove(message);
    else if (message.state === 'unsent' || message.state === 'refused') {
      this.#remove(message);
      message.state = 'sent';
      message.settle(message);
    }
    this.#changed();
  }

  /**
   * The view has advanced. A message that is stored at or below its end is in the view or was
   * deleted, so it is forgotten here.
   */
  passed(): void {
    const { position } = this.#link;
    const isOver = ({ state, isShown, storedAt }: Message) => state === 'sent' && (isShown || (storedAt ?? 0) <= position);
    if (!this.#messages.some(isOver)) return;
    this.#messages = this.#messages.filter((message) => !isOver(message));
    this.#changed();
  }

  /**
   * A new epoch has begun. Unacknowledged messages are sent again; messages above `keep` are no
   * longer shown. Acknowledged messages come again as entries. Only if the server's database was
   * restored from a backup (`isLost`) they become `unsent`, until their entry appears after all.
   */
  withdrawn(keep: number, isLost = false): void {
    for (const message of this.#messages) {
      if (message.shownAt !== undefined && message.shownAt > keep) Object.assign(message, { shownAt: undefined, isShown: false });
      if (message.state === 'sending') message.state = 'queued';
      if (isLost && message.state === 'sent' && (message.storedAt ?? 0) > keep)
        Object.assign(message, { state: 'unsent', storedAt: undefined });
    }
    this.#pausedUntilMs = 0;
    this.pump();
    this.#changed();
  }

  /** The session has ended, so no answer will come. */
  lost(): void {
    this.#session++;
    for (const message of this.#messages) if (message.state === 'sending') message.state = 'queued';
    this.pump();
    this.#changed();
  }

  /** Refuses all unanswered messages, because the room is not open to this user. */
  refuseAll(problem: ChatProblem): void {
    for (const message of this.#messages) if (message.state === 'queued' || message.state === 'sending') this.#refuse(message, problem);
    this.#changed();
  }

  /** Sends the messages that may be sent, and gives up those that are too old. */
  pump(): void {
    const nowMs = this.#elapsed.nowMs();
    let inFlight = this.#messages.filter(({ state }) => state === 'sending').length;
    let wakeAtMs = Number.POSITIVE_INFINITY;
    let hasChanged = false;
    // When one message waits for the pace, those after it wait as well, so that the order is kept.
    let isPaced = false;
    for (const message of this.#messages) {
      if (message.state !== 'queued') continue;
      const endsAtMs = message.bornAtMs + KEEP_TRYING_MS;
      if (nowMs >= endsAtMs) {
        message.state = 'unsent';
        hasChanged = true;
        continue;
      }
      wakeAtMs = Math.min(wakeAtMs, endsAtMs);
      if (!this.#link.canSend) continue;
      if (nowMs < this.#pausedUntilMs) wakeAtMs = Math.min(wakeAtMs, this.#pausedUntilMs);
      else if (!isPaced && inFlight < this.#link.inFlightMost) {
        const waitMs = message.pacedIn === this.#session ? 0 : this.#takeToken(nowMs);
        if (waitMs > 0) {
          isPaced = true;
          wakeAtMs = Math.min(wakeAtMs, nowMs + waitMs);
          continue;
        }
        message.pacedIn = this.#session;
        inFlight++;
        hasChanged = true;
        this.#send(message);
      }
    }
    this.#timer?.();
    this.#timer = undefined;
    if (Number.isFinite(wakeAtMs)) this.#timer = this.#clock.after(Math.max(0, wakeAtMs - nowMs), () => this.pump());
    if (hasChanged) this.#changed();
  }

  /** Takes a token of the pace and returns 0, or returns how many milliseconds to wait for one. */
  #takeToken(nowMs: number): number {
    const { pace } = this.#link;
    if (!pace) return 0;
    const { burst, perS } = pace;
    const had = this.#tokens ?? burst;
    const tokens = Math.min(burst, had + (Math.max(0, nowMs - this.#filledAtMs) / 1000) * perS * PACE);
    this.#filledAtMs = nowMs;
    this.#tokens = tokens >= 1 ? tokens - 1 : tokens;
    return tokens >= 1 ? 0 : Math.ceil(((1 - tokens) / (perS * PACE)) * 1000);
  }

  stop(): void {
    this.#timer?.();
    for (const message of this.#messages) message.sending++;
  }

  #send(message: Message): void {
    message.state = 'sending';
    const sending = ++message.sending;
    const isCurrent = () => message.sending === sending && message.state === 'sending';
    const cancel = this.#clock.after(AGAIN_AFTER_MS, () => {
      // The entry is shown but not acknowledged: the server is still storing it.
      if (!isCurrent() || message.isShown) return;
      message.state = 'queued';
      this.pump();
    });
    this.#link.publish(
      message.key,
      message.body,
      (frame) => {
        cancel();
        if (frame.t === 'ack') this.#acked(message, frame);
        else if (!isCurrent()) return;
        else if (frame.t === 'held') this.#settle(message, 'held', textOf(frame.mid));
        else if (frame.t === 'refused') this.#problem(message, problemOf(frame));
        this.pump();
      },
      (problem) => {
        cancel();
        // `lost` handles the messages of a session that has ended.
        if (!isCurrent() || problem.code === 'disconnected') return;
        this.#problem(message, problem);
        this.pump();
      },
    );
  }

  #acked(message: Message, frame: Frame): void {
    if (!this.#messages.includes(message)) return;
    message.storedAt = isOffset(frame.offset) ? frame.offset : 0;
    this.#settle(message, 'sent', textOf(frame.mid));
    this.passed();
  }

  #problem(message: Message, problem: ChatProblem): void {
    if (problem.code === 'slow_mode') {
      const retryMs = problem.retryMs ?? 0;
      message.retryAtMs = this.#clock.wallMs() + retryMs;
      this.#refuse(message, problem);
      this.#slowed(retryMs);
    } else if (problem.retryMs !== undefined || RETRIED.has(problem.code)) {
      message.state = 'queued';
      this.#pausedUntilMs = this.#elapsed.nowMs() + (problem.retryMs ?? BUSY_MS);
    } else this.#refuse(message, problem);
    this.#changed();
  }

  #refuse(message: Message, problem: ChatProblem): void {
    message.problem = problem;
    this.#settle(message, 'refused', undefined);
  }

  #settle(message: Message, state: OutgoingState, mid: string | undefined): void {
    message.state = state;
    message.mid = mid ?? message.mid;
    message.settle(message);
    this.#changed();
  }

  #find(key: string): Message | undefined {
    return this.#messages.find((message) => message.key === key);
  }

  #remove(message: Message): void {
    this.#messages = this.#messages.filter((one) => one !== message);
  }
}
