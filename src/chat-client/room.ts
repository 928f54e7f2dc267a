import type { ClientClock } from './environment.js';
import { ChatProblem, type Entry, entryOf, type Frame, isOffset, isRecord, type Pace, problemOf, textOf, timeOf } from './frames.js';
import { type FollowerHost, LogFollower } from './log-follower.js';
import { Outbox, type Outgoing } from './outbox.js';
import { PinnedMessage } from './pinned-message.js';
import type { RoomEvent, RoomState } from './room-state.js';
import type { Timeline } from './timeline.js';

export interface RoomLink {
  readonly isOnline: boolean;
  readonly pubsInFlight: number;
  readonly pace: Pace | undefined;
  readonly textBytes: number;
  readonly isGuest: boolean;
  send(frame: Frame): void;
  request(frame: Frame, answer: (frame: Frame) => void, failed: (problem: ChatProblem) => void, withinMs?: number): void;
}

export interface RoomOptions {
  /** Entries in the view at most. Default: 10,000; twice that while `keepsOlder`. */
  readonly mostItems?: number;
  /** A hole of more entries is not fetched; the view restarts at the newest. Default: 1,000. */
  readonly mostFetched?: number;
  /** The token of a playback link, for a private channel. Called before each join: links end. */
  readonly link?: LinkSource;
}

export type LinkSource = () => string | undefined | Promise<string | undefined>;

/** After `left` with `private` the room is joined again after this, perhaps with a new link. */
const REJOIN_MS = 500;
/** Messages for which the client's own reactions are remembered. */
const MAX_OWN_REACTIONS = 1_000;

/**
 * One room as its client sees it: its state, the view of its log (`LogFollower`) and the client's
 * messages (`Outbox`).
 */
export class ChatRoom {
  /** The channel's slug or the room's id, as passed to `join`. */
  readonly name: string;
  readonly #link: RoomLink;
  readonly #clock: ClientClock;
  readonly #makeKey: () => string;
  readonly #outbox: Outbox;
  readonly #listeners = new Set<(event: RoomEvent) => void>();
  readonly #log: LogFollower;
  readonly #pinned: PinnedMessage;
  readonly #linkSource: LinkSource | undefined;
  readonly #mine = new Map<string, Set<string>>();
  readonly #timers = new Set<() => void>();
  #id: string | undefined;
  #state: RoomState = 'joining';
  #problem: ChatProblem | undefined;
  /** Raised when the room is joined again. Answers of an earlier turn are ignored. */
  #turn = 0;
  #isAsking = false;
  #slowUntilMs = 0;
  #count: number | undefined;
  #settings: Readonly<Record<string, unknown>> = {};
  #you: Readonly<Record<string, unknown>> = {};
  #channel: Readonly<Record<string, unknown>> | undefined;
  #bannedUntilMs: number | undefined;
  #isStopped = false;

  constructor(name: string, link: RoomLink, clock: ClientClock, makeKey: () => string, options: RoomOptions) {
    this.name = name;
    this.#link = link;
    this.#clock = clock;
    this.#makeKey = makeKey;
    this.#linkSource = options.link;
    const room = this;
    this.#log = new LogFollower(this.#followerHost(), options.mostItems ?? 10_000, options.mostFetched ?? 1_000);
    this.#pinned = new PinnedMessage({
      timeline: this.#log.timeline,
      get epoch() {
        return room.#log.epoch;
      },
      ask: (frame) => this.#ask({ ...frame, room: this.#id ?? name }),
      onChanged: () => this.#emit({ type: 'state' }),
    });
    this.#outbox = new Outbox(
      clock,
      {
        get canSend() {
          return room.#state === 'joined' && link.isOnline && !link.isGuest;
        },
        get inFlightMost() {
          return link.pubsInFlight;
        },
        get pace() {
          return room.#you.moderate === 'yes' ? undefined : link.pace;
        },
        get position() {
          return room.position;
        },
        publish: (key, body, answer, failed) =>
          link.request({ t: 'pub', room: this.#id ?? name, key, body }, answer, failed, Number.POSITIVE_INFINITY),
      },
      () => this.#emit({ type: 'outgoing' }),
      (retryMs) => {
        this.#slowUntilMs = clock.wallMs() + retryMs;
        this.#emit({ type: 'state' });
      },
    );
  }

  /** The room's id, which never changes; undefined: the room was never joined. */
  get id(): string | undefined {
    return this.#id;
  }
  get state(): RoomState {
    return this.#state;
  }
  /** Why the room is `refused` or `left`: `not_found`, `banned`, `deleted`, `private` and so on. */
  get problem(): ChatProblem | undefined {
    return this.#problem;
  }
  get bannedUntilMs(): number | undefined {
    return this.#bannedUntilMs;
  }
  get timeline(): Timeline {
    return this.#log.timeline;
  }
  /** True: the user reads older entries, so more entries are held. */
  get keepsOlder(): boolean {
    return this.#log.keepsOlder;
  }
  set keepsOlder(keeps: boolean) {
    this.#log.keepsOlder = keeps;
  }
  get epoch(): number {
    return this.#log.epoch;
  }
  /** The newest offset of the view. No entry is missing between it and the view's first entry. */
  get position(): number {
    return this.#log.last ?? 0;
  }
  /** Whether the server has older entries. */
  get hasOlder(): boolean {
    return this.#log.hasOlder;
  }
  /** The number of members now; undefined: not known yet. */
  get members(): number | undefined {
    return this.#count;
  }
  /** The room's settings as the server sent them. */
  get settings(): Readonly<Record<string, unknown>> {
    return this.#settings;
  }
  /** The role and timeout of the signed-in user. */
  get you(): Readonly<Record<string, unknown>> {
    return this.#you;
  }
  /** `mid`, and for a known message `user`, `body` and `at`. Undefined: no message is pinned. */
  get pinned(): Readonly<Record<string, unknown>> | undefined {
    return this.#pinned.current;
  }
  /**
   * The on-air state: `state`, `listeners`, `startedAt`, `nowPlaying`. Undefined: the server does
   * not know it or has not sent it since the join.
   */
  get channel(): Readonly<Record<string, unknown>> | undefined {
    return this.#channel;
  }
  /** Slow mode: when the server accepts the next message, in ms since 1970. */
  get slowUntilMs(): number {
    return this.#slowUntilMs;
  }
  /** Messages without an acknowledgement, including refused and unsent ones. */
  get outgoing(): readonly Outgoing[] {
    return this.#outbox.messages;
  }

  /** Adds a listener. Returns a function that removes it. */
  listen(listener: (event: RoomEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Queues a message. It is sent as soon as possible, and always under the same key. Throws
   * `too_long` (UTF-8 bytes), `empty`, `outbox_full` or `guest`.
   */
  publish(text: string, more: { readonly reply?: string; readonly key?: string; readonly [field: string]: unknown } = {}): Outgoing {
    const { key = this.#makeKey(), ...fields } = more;
    if (text.trim() === '') throw new ChatProblem('empty', 'Write a message first.');
    // UTF-8 cannot carry half of a surrogate pair (a cut emoji), and the server refuses it.
    const body = { ...fields, text: text.replace(/\p{Surrogate}/gu, '\ufffd') };
    if (new TextEncoder().encode(text).length > this.#link.textBytes) {
      throw new ChatProblem('too_long', `A message has at most ${this.#link.textBytes} bytes.`);
    }
    if (this.#link.isOnline && this.#link.isGuest) throw new ChatProblem('guest', 'Sign in to write.');
    return this.#outbox.add(key, body);
  }

  retry(key: string): void {
    this.#outbox.retry(key);
  }

  discard(key: string): void {
    this.#outbox.discard(key);
  }

  /** Whether this client has set this reaction. */
  hasReacted(mid: string, emoji: string): boolean {
    return this.#mine.get(mid)?.has(emoji) ?? false;
  }

  /** Sets or removes a reaction. Rejects with `ChatProblem`. */
  async react(mid: string, emoji: string, on: boolean): Promise<void> {
    const set = (is: boolean) => {
      const mine = this.#mine.get(mid) ?? new Set();
      if (is) mine.add(emoji);
      else mine.delete(emoji);
      this.#mine.set(mid, mine);
      if (this.#mine.size > MAX_OWN_REACTIONS) this.#mine.delete(this.#mine.keys().next().value!);
      const item = this.timeline.get(mid);
      if (item) this.#emit({ type: 'changed', items: [item] });
    };
    const before = this.hasReacted(mid, emoji);
    set(on);
    try {
      await this.#ask({ t: 'react', room: this.#id ?? this.name, mid, emoji, on });
    } catch (error) {
      set(before);
      throw error;
    }
  }

  /**
   * Sends a moderation action (`delete`, `timeout`, `ban`, `slow`, `pin` …); `more` holds its fields.
   * Resolves to the answer. Rejects with `ChatProblem`.
   */
  moderate(action: string, more: Readonly<Record<string, unknown>> = {}): Promise<Frame> {
    return this.#ask({ ...more, t: 'mod', room: this.#id ?? this.name, action });
  }

  /** Adds older entries. Resolves to whether there are more. Rejects with `ChatProblem`. */
  history(limit = 50): Promise<boolean> {
    return this.#log.readOlder(limit);
  }

  /** Joins again after `refused` or `left`. */
  join(): void {
    if (this.#state === 'refused' || this.#state === 'left') this.#enter('joining');
    this.#join();
  }

  // Methods for the client.

  /** A session has begun. */
  online(): void {
    if (this.#state === 'left' || this.#state === 'refused') return;
    this.#isAsking = false;
    if (this.#state === 'joined') this.#state = 'joining';
    this.#join();
  }

  /** The session has ended. The view is kept. */
  offline(): void {
    this.#turn++;
    this.#channel = undefined;
    this.#isAsking = false;
    this.#log.interrupt();
    if (this.#state === 'joined') this.#enter('joining');
    this.#outbox.lost();
  }

  stop(): void {
    this.#turn++;
    this.#isStopped = true;
    if (this.#state === 'joined') this.#link.send({ t: 'leave', id: 'leave', room: this.#id ?? this.name });
    this.#outbox.stop();
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.#listeners.clear();
  }

  /**
   * Another user or a guest is signed in now. Drops the view, and the former user's unsent messages
   * and reactions.
   */
  forget(): void {
    for (const { key } of this.#outbox.messages) this.#outbox.discard(key);
    this.#mine.clear();
    this.#you = {};
    this.#slowUntilMs = 0;
    this.#log.restartView();
    if (this.#state !== 'joined') this.#enter('joining');
  }

  /** Handles a frame that names this room. */
  receive(frame: Frame): void {
    switch (frame.t) {
      case 'reset':
        this.#log.reset(frame);
        return;
      case 'lag':
        this.#log.learnHead(frame.to);
        return;
      case 'reacts':
        if (isRecord(frame.counts)) this.timeline.react(frame.counts);
        return;
      case 'members':
        this.#count = isOffset(frame.count) ? frame.count : this.#count;
        this.#emit({ type: 'state' });
        return;
      case 'you': {
        const { t: _t, room: _room, ...you } = frame;
        this.#you = { ...this.#you, ...you };
        this.#emit({ type: 'state' });
        return;
      }
      case 'channel': {
        const { t: _t, room: _room, ...channel } = frame;
        this.#channel = channel;
        this.#emit({ type: 'state' });
        return;
      }
      case 'left':
        this.#putOut(frame);
        return;
      default: {
        const entry = entryOf(frame);
        if (entry && this.#state === 'joined') this.#log.take([entry]);
      }
    }
  }

  /** `heads` names the room's newest entry. */
  head(epoch: unknown, offset: unknown): void {
    this.#log.watchHead(epoch, offset);
  }

  #emit(event: RoomEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #enter(state: RoomState, problem?: ChatProblem): void {
    this.#state = state;
    this.#problem = problem;
    this.#emit({ type: 'state' });
  }

  #after(delayMs: number, task: () => void): void {
    const cancel = this.#clock.after(delayMs, () => {
      this.#timers.delete(cancel);
      task();
    });
    this.#timers.add(cancel);
  }

  #ask(frame: Frame): Promise<Frame> {
    return new Promise((resolve, reject) =>
      this.#link.request(frame, (answer) => (answer.t === 'refused' ? reject(problemOf(answer)) : resolve(answer)), reject),
    );
  }

  #join(): void {
    if (!this.#link.isOnline || this.#isAsking || this.#isStopped) return;
    this.#isAsking = true;
    const turn = ++this.#turn;
    this.#log.interrupt();
    if (!this.#linkSource) {
      this.#sendJoin(turn, {});
      return;
    }
    Promise.resolve()
      .then(this.#linkSource)
      .then(
        (link) => this.#turn === turn && this.#sendJoin(turn, link === undefined ? {} : { link }),
        // The source of links has failed. The room may be open without one.
        () => this.#turn === turn && this.#sendJoin(turn, {}),
      );
  }

  #sendJoin(turn: number, link: { readonly link?: string }): void {
    const { epoch, last: offset } = this.#log;
    const since = offset === undefined ? {} : { since: { epoch, offset } };
    this.#link.request(
      { t: 'join', room: this.#id ?? this.name, ...since, ...link },
      (frame) => {
        if (this.#turn !== turn) return;
        this.#isAsking = false;
        if (frame.t === 'joined') this.#joined(frame, 'since' in since);
      },
      (problem) => {
        if (this.#turn !== turn) return;
        this.#isAsking = false;
        if (problem.code === 'disconnected') return;
        if (problem.retryMs === undefined && !['busy', 'rate_limited', 'unavailable', 'timeout', 'internal'].includes(problem.code)) {
          this.#outbox.refuseAll(problem);
          return this.#enter('refused', problem);
        }
        this.#after(this.#log.backOffMs(problem), () => {
          if (this.#turn === turn) this.#join();
        });
      },
    );
  }

  /** Leaves and joins again in the same session, from the view's position. */
  #rejoin(): void {
    if (this.#isAsking) return;
    this.#link.request(
      { t: 'leave', room: this.#id ?? this.name },
      () => {},
      () => {},
    );
    this.#enter('joining');
    this.#join();
  }

  #joined(frame: Frame, hadPosition: boolean): void {
    const { epoch, offset } = frame;
    if (!isOffset(epoch) || !isOffset(offset)) {
      this.#enter('refused', new ChatProblem('protocol', 'The server has sent an invalid answer.'));
      return;
    }
    this.#id = textOf(frame.room) ?? this.#id;
    this.#settings = isRecord(frame.settings) ? frame.settings : {};
    this.#you = isRecord(frame.you) ? frame.you : {};
    this.#count = isOffset(frame.members) ? frame.members : this.#count;
    if ('pinned' in frame) this.#pinned.set(frame.pinned);
    this.#pinned.dropIfDeleted();
    this.#log.startFrom(frame, epoch, offset, () => {
      // The server does not know the position: it has lost entries that it had acknowledged.
      if (hadPosition && frame.recovered === 'none') this.#outbox.withdrawn(0, true);
      this.#enter('joined');
    });
    this.#outbox.pump();
  }

  #putOut(frame: Frame): void {
    const code = textOf(frame.code);
    // The answer to this client's own `leave` has no code.
    if (code === undefined) return;
    this.#turn++;
    this.#isAsking = false;
    this.#bannedUntilMs = timeOf(frame.until);
    const problem = new ChatProblem(code, textOf(frame.reason) ?? code);
    // The playback link has ended, and the source may have a new one.
    if (code === 'private' && this.#linkSource) {
      this.#enter('joining', problem);
      const turn = this.#turn;
      this.#after(REJOIN_MS, () => {
        if (this.#turn === turn) this.#join();
      });
      return;
    }
    this.#outbox.refuseAll(problem);
    this.#enter('left', problem);
  }

  #onApplied(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.t === 'msg') this.#outbox.seen(textOf(entry.key), textOf(entry.mid), entry.offset);
      else this.#applyOther(entry);
    }
    this.#outbox.passed();
  }

  #applyOther(entry: Entry): void {
    if (entry.t === 'pin') this.#pinned.apply(entry);
    if (entry.t === 'pin' || entry.t === 'del') this.#pinned.dropIfDeleted();
    if (entry.t === 'act' && isRecord(entry.settings)) this.#settings = { ...this.#settings, ...entry.settings };
    if (entry.t !== 'gone') this.#emit({ type: 'state' });
  }

  #followerHost(): FollowerHost {
    const room = this;
    return {
      get isJoined() {
        return room.#state === 'joined';
      },
      get isJoining() {
        return room.#state === 'joining';
      },
      get turn() {
        return room.#turn;
      },
      endTurn: () => {
        this.#turn += this.#isAsking ? 0 : 1;
      },
      request: (frame, answer, failed) => this.#link.request({ ...frame, room: this.#id ?? this.name }, answer, failed),
      ask: (frame) => this.#ask({ ...frame, room: this.#id ?? this.name }),
      rejoin: () => this.#rejoin(),
      onApplied: (entries) => this.#onApplied(entries),
      onWithdrawn: (keep) => this.#outbox.withdrawn(keep),
      emit: (event) => this.#emit(event),
      after: (delayMs, task) => this.#after(delayMs, task),
    };
  }
}
