import type { ClientClock } from './environment.js';
import {
  ChatProblem,
  type Entry,
  entriesOf,
  entryOf,
  type Frame,
  isOffset,
  isRecord,
  type Pace,
  problemOf,
  textOf,
  timeOf,
} from './frames.js';
import { Outbox, type Outgoing } from './outbox.js';
import { type Item, Timeline, type TimelineEvent } from './timeline.js';

/**
 *   joining ◄──► joined      by itself, whenever there is a session
 *      │           │
 *   refused      left        for good: not there, not allowed, banned, deleted, private; `ChatRoom.join()` tries once more
 */
export type RoomState = 'joining' | 'joined' | 'refused' | 'left';

export type RoomEvent =
  | TimelineEvent
  /** State, settings, people, pin, countdown: look at the room. */
  | { readonly type: 'state' }
  /** `outgoing` is another. */
  | { readonly type: 'outgoing' }
  /** These entries are not shown, and will not be: too many to fetch (`history` has them), or let go by the server. */
  | { readonly type: 'missing'; readonly from: number; readonly to: number };

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
  /** Entries that are held; the oldest go first. Default 10,000; twice that while `keepsOlder`. */
  readonly mostItems?: number;
  /** A hole of more entries is not fetched: the view begins anew with the newest. Default 1,000. */
  readonly mostFetched?: number;
  /** The token of a playback link, which lets a listener into the room of a private channel. Asked for before each join: links end. */
  readonly link?: LinkSource;
}

export type LinkSource = () => string | undefined | Promise<string | undefined>;

const PAGE = 100;
/** Entries beyond a hole that wait for it. */
const MOST_AHEAD = 500;
/** `heads` is ahead of us: what is missing may still be on its way. */
const GRACE_MS = 1_000;
const RETRY_MS = { first: 500, most: 10_000 } as const;
/** After that an emptied page is believed. */
const EMPTY_PAGES = 2;

/** One room: a view that equals its log, from wherever it was joined, and the way to say something in it. */
export class ChatRoom {
  /** As it was asked for: the channel's slug, or the room's id. */
  readonly name: string;
  readonly timeline: Timeline;
  readonly #link: RoomLink;
  readonly #clock: ClientClock;
  readonly #makeKey: () => string;
  readonly #outbox: Outbox;
  readonly #listeners = new Set<(event: RoomEvent) => void>();
  readonly #mostItems: number;
  readonly #mostFetched: number;
  readonly #linkSource: LinkSource | undefined;
  readonly #ahead = new Map<number, Entry>();
  readonly #mine = new Map<string, Set<string>>();
  readonly #timers = new Set<() => void>();
  #id: string | undefined;
  #state: RoomState = 'joining';
  #problem: ChatProblem | undefined;
  /** Raised whenever the room is joined anew: answers from before do not count. */
  #turn = 0;
  #isAsking = false;
  #epoch = 0;
  /** Undefined: there is no view yet. */
  #last: number | undefined;
  /** There are entries up to here. */
  #known = 0;
  #isFilling = false;
  #failures = 0;
  #empties = 0;
  #isWatchingHeads = false;
  #hasOlder = false;
  #history: Promise<boolean> | undefined;
  #slowUntilMs = 0;
  #count: number | undefined;
  #settings: Readonly<Record<string, unknown>> = {};
  #you: Readonly<Record<string, unknown>> = {};
  #pinned: Readonly<Record<string, unknown>> | undefined;
  #channel: Readonly<Record<string, unknown>> | undefined;
  #bannedUntilMs: number | undefined;
  #isStopped = false;
  /** Somebody reads further up: more is held than otherwise. */
  keepsOlder = false;

  constructor(name: string, link: RoomLink, clock: ClientClock, makeKey: () => string, options: RoomOptions) {
    this.name = name;
    this.#link = link;
    this.#clock = clock;
    this.#makeKey = makeKey;
    this.#mostItems = options.mostItems ?? 10_000;
    this.#mostFetched = options.mostFetched ?? 1_000;
    this.#linkSource = options.link;
    this.timeline = new Timeline((event) => this.#emit(event));
    const room = this;
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

  /** The immutable one, once joined. */
  get id(): string | undefined {
    return this.#id;
  }
  get state(): RoomState {
    return this.#state;
  }
  /** Of `refused` and `left`: `not_found`, `banned`, `deleted`, `private`, … */
  get problem(): ChatProblem | undefined {
    return this.#problem;
  }
  get bannedUntilMs(): number | undefined {
    return this.#bannedUntilMs;
  }
  get epoch(): number {
    return this.#epoch;
  }
  /** The newest offset of the view; nothing is missing below it, down to the view's first. */
  get position(): number {
    return this.#last ?? 0;
  }
  /** There are older entries on the server. */
  get hasOlder(): boolean {
    return this.#hasOlder;
  }
  /** Members at present. */
  get members(): number | undefined {
    return this.#count;
  }
  /** Modes of the room, as the server says them. */
  get settings(): Readonly<Record<string, unknown>> {
    return this.#settings;
  }
  /** Role and timeout of who is signed in. */
  get you(): Readonly<Record<string, unknown>> {
    return this.#you;
  }
  /** `mid`, and of a message that is known `user`, `body`, `at`. */
  get pinned(): Readonly<Record<string, unknown>> | undefined {
    return this.#pinned;
  }
  /** What is on air: `state`, `listeners`, `startedAt`, `nowPlaying`. Undefined: the server has not said it since the room was joined, or does not know. */
  get channel(): Readonly<Record<string, unknown>> | undefined {
    return this.#channel;
  }
  /** Slow mode: the server takes the next message from then on; wall clock. */
  get slowUntilMs(): number {
    return this.#slowUntilMs;
  }
  /** Messages that are not acknowledged yet, or will not be. */
  get outgoing(): readonly Outgoing[] {
    return this.#outbox.messages;
  }

  /** Returns what ends it. */
  listen(listener: (event: RoomEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Queues a message; it goes out as soon as it can, under one key however often. Throws `too_long` (UTF-8 bytes), `empty`, `outbox_full`,
   * `guest`.
   */
  publish(text: string, more: { readonly reply?: string; readonly key?: string; readonly [field: string]: unknown } = {}): Outgoing {
    const { key = this.#makeKey(), ...fields } = more;
    if (text.trim() === '') throw new ChatProblem('empty', 'There is nothing to send.');
    // Half an emoji that was cut, say: no UTF-8 can carry it, and the server refuses it.
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

  /** What of this client's own reactions is on. */
  hasReacted(mid: string, emoji: string): boolean {
    return this.#mine.get(mid)?.has(emoji) ?? false;
  }

  /** Rejects with `ChatProblem`. */
  async react(mid: string, emoji: string, on: boolean): Promise<void> {
    const set = (is: boolean) => {
      const mine = this.#mine.get(mid) ?? new Set();
      if (is) mine.add(emoji);
      else mine.delete(emoji);
      this.#mine.set(mid, mine);
      if (this.#mine.size > 1_000) this.#mine.delete(this.#mine.keys().next().value!);
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

  /** `delete`, `timeout`, `ban`, `slow`, `pin`, … with what belongs to it. Resolves with the answer; rejects with `ChatProblem`. */
  moderate(action: string, more: Readonly<Record<string, unknown>> = {}): Promise<Frame> {
    return this.#ask({ ...more, t: 'mod', room: this.#id ?? this.name, action });
  }

  /** Puts older entries before the view. Resolves with whether there are more. Rejects with `ChatProblem`. */
  history(limit = 50): Promise<boolean> {
    this.#history ??= this.#older(limit).finally(() => {
      this.#history = undefined;
    });
    return this.#history;
  }

  /** After `refused` or `left`: once more. */
  join(): void {
    if (this.#state === 'refused' || this.#state === 'left') this.#enter('joining');
    this.#join();
  }

  // What the client calls.

  /** A session begins. */
  online(): void {
    if (this.#state === 'left' || this.#state === 'refused') return;
    this.#isAsking = false;
    if (this.#state === 'joined') this.#state = 'joining';
    this.#join();
  }

  /** The session is over; the view stays. */
  offline(): void {
    this.#turn++;
    this.#channel = undefined;
    this.#isAsking = false;
    this.#isFilling = false;
    this.#isWatchingHeads = false;
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

  /** Another user, or none: what was shown for one is not shown to the other, and what he has not sent is not sent by the other. */
  forget(): void {
    for (const { key } of this.#outbox.messages) this.#outbox.discard(key);
    this.#mine.clear();
    this.#you = {};
    this.#slowUntilMs = 0;
    this.#restartView();
    if (this.#state !== 'joined') this.#enter('joining');
  }

  /** A frame that names this room. */
  receive(frame: Frame): void {
    switch (frame.t) {
      case 'reset':
        this.#reset(frame);
        return;
      case 'lag':
        this.#learnHead(frame.to);
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
        if (entry && this.#state === 'joined') this.#take([entry]);
      }
    }
  }

  /** What the server says is the newest. */
  head(epoch: unknown, offset: unknown): void {
    if (this.#state !== 'joined' || this.#last === undefined || !isOffset(epoch) || !isOffset(offset)) return;
    if (epoch === this.#epoch && offset <= this.#last) return;
    if (epoch < this.#epoch || this.#isWatchingHeads) return;
    // It may be on its way, behind this; only what does not come is asked for.
    this.#isWatchingHeads = true;
    const turn = this.#turn;
    const before = this.#last;
    this.#after(GRACE_MS, () => {
      if (this.#turn !== turn) return;
      this.#isWatchingHeads = false;
      if (epoch > this.#epoch) this.#rejoin();
      else if (epoch === this.#epoch && this.#last !== undefined && this.#last < offset) {
        if (this.#last > before) this.head(epoch, offset);
        else this.#learnHead(offset);
      }
    });
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
    this.#isFilling = false;
    this.#isWatchingHeads = false;
    if (!this.#linkSource) {
      this.#sendJoin(turn, {});
      return;
    }
    Promise.resolve()
      .then(this.#linkSource)
      .then(
        (link) => this.#turn === turn && this.#sendJoin(turn, link === undefined ? {} : { link }),
        // Whoever hands out links is away: the room may be open without one.
        () => this.#turn === turn && this.#sendJoin(turn, {}),
      );
  }

  #sendJoin(turn: number, link: { readonly link?: string }): void {
    const since = this.#last === undefined ? {} : { since: { epoch: this.#epoch, offset: this.#last } };
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
        this.#after(this.#backOff(problem), () => {
          if (this.#turn === turn) this.#join();
        });
      },
    );
  }

  /** On the same session, from where we are: the server knows better. */
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
      this.#enter('refused', new ChatProblem('protocol', 'The server has said something else.'));
      return;
    }
    this.#failures = 0;
    this.#id = textOf(frame.room) ?? this.#id;
    this.#settings = isRecord(frame.settings) ? frame.settings : {};
    this.#you = isRecord(frame.you) ? frame.you : {};
    this.#count = isOffset(frame.members) ? frame.members : this.#count;
    if ('pinned' in frame) this.#pinned = isRecord(frame.pinned) ? frame.pinned : undefined;
    this.#unpinDeleted();
    const entries = entriesOf(frame.entries, epoch);
    // A newer epoch is preceded by `reset`; without it nothing says what of ours is still true. And a log that is shorter than we know is another.
    const isOther =
      this.#last !== undefined &&
      (epoch !== this.#epoch ||
        frame.recovered === 'none' ||
        (frame.recovered !== 'partial' && offset < this.#last && entries.length === 0));
    if (isOther) this.#restartView();
    // The server does not know where we were: it has lost what was acknowledged since.
    if (hadPosition && frame.recovered === 'none') this.#outbox.withdrawn(0, true);
    this.#epoch = epoch;
    if (this.#last === undefined) {
      this.#last = entries.length > 0 ? entries[0]!.offset - 1 : offset;
      this.#hasOlder = this.#last > 0;
    }
    this.#enter('joined');
    // `partial`: what lies between was let go by age, or is too much to be sent unasked.
    const begins = entries[0]?.offset ?? offset + 1;
    if (begins - this.#last - 1 > this.#mostFetched) {
      this.#emit({ type: 'missing', from: this.#last + 1, to: begins - 1 });
      this.#restartView();
      this.#last = begins - 1;
      this.#hasOlder = this.#last > 0;
    }
    this.#known = Math.max(this.#known, offset);
    this.#take(entries);
    this.#outbox.pump();
  }

  #restartView(): void {
    this.#last = undefined;
    this.#known = 0;
    this.#ahead.clear();
    this.#hasOlder = false;
    this.timeline.clear();
  }

  #reset(frame: Frame): void {
    const { epoch, keep } = frame;
    // What answers a `join` counts also under the epoch that we know: our position was beyond its end.
    const isOld = epoch === this.#epoch ? this.#state !== 'joining' : Number(epoch) < this.#epoch;
    if (!isOffset(epoch) || !isOffset(keep) || isOld || this.#last === undefined) return;
    this.#epoch = epoch;
    this.#ahead.clear();
    this.#isFilling = false;
    this.#turn += this.#isAsking ? 0 : 1;
    this.#isWatchingHeads = false;
    this.#known = keep;
    this.#last = Math.min(this.#last, keep);
    const first = this.timeline.items[0]?.offset;
    if (this.timeline.withdraw(keep)) {
      // What a deletion that is withdrawn has taken from us is not here any more.
      this.#restartView();
      this.#outbox.withdrawn(keep);
      if (this.#state === 'joined') this.#rejoin();
      return;
    }
    if (first !== undefined && first > keep) this.#hasOlder = keep > 0;
    this.#outbox.withdrawn(keep);
    if (this.#state === 'joined') this.#fill();
  }

  #putOut(frame: Frame): void {
    const code = textOf(frame.code);
    // The answer to our own leaving.
    if (code === undefined) return;
    this.#turn++;
    this.#isAsking = false;
    this.#bannedUntilMs = timeOf(frame.until);
    const problem = new ChatProblem(code, textOf(frame.reason) ?? code);
    // The link has ended, and there may be a fresh one.
    if (code === 'private' && this.#linkSource) {
      this.#enter('joining', problem);
      const turn = this.#turn;
      this.#after(RETRY_MS.first, () => {
        if (this.#turn === turn) this.#join();
      });
      return;
    }
    this.#outbox.refuseAll(problem);
    this.#enter('left', problem);
  }

  #learnHead(offset: unknown): void {
    if (this.#state !== 'joined' || this.#last === undefined || !isOffset(offset)) return;
    this.#known = Math.max(this.#known, offset);
    this.#fill();
  }

  /** The rule of the log: the next is applied, what was is dropped, what is further waits and the hole is asked for. */
  #take(entries: readonly Entry[]): void {
    if (this.#last === undefined) return;
    const next: Entry[] = [];
    for (const entry of entries) {
      if (entry.epoch < this.#epoch || entry.offset <= this.#last) continue;
      if (entry.epoch > this.#epoch) {
        this.#apply(next);
        this.#rejoin();
        return;
      }
      this.#known = Math.max(this.#known, entry.offset);
      if (entry.offset > this.#last + 1) {
        // Too many wait: the farthest are fetched later.
        if (this.#ahead.size < MOST_AHEAD) this.#ahead.set(entry.offset, entry);
        continue;
      }
      next.push(entry);
      this.#last = entry.offset;
      for (let after = this.#ahead.get(this.#last + 1); after; after = this.#ahead.get(this.#last + 1)) {
        this.#ahead.delete(after.offset);
        next.push(after);
        this.#last = after.offset;
      }
    }
    this.#apply(next);
    this.#fill();
  }

  #apply(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    this.timeline.append(entries);
    for (const entry of entries) {
      if (entry.t === 'msg') this.#outbox.seen(textOf(entry.key), textOf(entry.mid), entry.offset);
      else this.#applyOther(entry);
    }
    this.#outbox.passed();
    const most = this.#mostItems * (this.keepsOlder ? 2 : 1);
    if (this.timeline.items.length > most) {
      // An eighth at once, so that this is rare.
      this.timeline.trim(most - Math.floor(this.#mostItems / 8));
      this.#hasOlder = true;
    }
  }

  #applyOther(entry: Entry): void {
    if (entry.t === 'pin') {
      const mid = textOf(entry.mid);
      const item = mid === undefined ? undefined : this.timeline.get(mid);
      if (mid === undefined) this.#pinned = undefined;
      else if (item) this.#pinned = { mid, user: item.user, body: item.body, at: item.at, offset: item.offset };
      // `joined` may have said it already.
      else if (this.#pinned?.mid !== mid || this.#pinned.body === undefined) {
        this.#pinned = { mid, offset: entry.messageOffset };
        if (isOffset(entry.messageOffset)) void this.#fetchPinned(mid, entry.messageOffset);
      }
    }
    // Its message may have been deleted before it was pinned here, or is deleted now: by name, or with all that its author has said.
    if (entry.t === 'pin' || entry.t === 'del') this.#unpinDeleted();
    if (entry.t === 'act' && isRecord(entry.settings)) this.#settings = { ...this.#settings, ...entry.settings };
    if (entry.t !== 'gone') this.#emit({ type: 'state' });
  }

  #unpinDeleted(): void {
    if (this.#pinned === undefined) return;
    const { mid, user, offset } = this.#pinned;
    const userId = isRecord(user) ? textOf(user.id) : undefined;
    if (this.timeline.isDeleted({ mid: String(mid), userId, offset: isOffset(offset) ? offset : undefined })) this.#pinned = undefined;
  }

  /** It lies before what is shown. */
  async #fetchPinned(mid: string, offset: number): Promise<void> {
    const epoch = this.#epoch;
    try {
      const frame = await this.#ask({ t: 'history', room: this.#id ?? this.name, before: offset + 1, limit: 1 });
      const found = entriesOf(frame.entries, epoch).find((entry) => entry.mid === mid);
      if (this.#pinned?.mid !== mid) return;
      // It is erased: there is nothing to show.
      this.#pinned = found && { mid, user: found.user, body: found.body, at: found.at, offset };
      // What was on its way here may have been deleted meanwhile.
      this.#unpinDeleted();
      this.#emit({ type: 'state' });
    } catch {
      // The next `joined` says it.
    }
  }

  /** Asks for the first hole, page after page, until there is none. */
  #fill(): void {
    if (this.#last === undefined || this.#state !== 'joined' || this.#isFilling || this.#known <= this.#last) return;
    const from = this.#last + 1;
    let end = this.#known;
    for (const offset of this.#ahead.keys()) if (offset - 1 < end) end = offset - 1;
    if (end - from + 1 > this.#mostFetched) {
      this.#emit({ type: 'missing', from, to: end });
      this.#restartView();
      this.#rejoin();
      return;
    }
    const to = Math.min(end, from + PAGE - 1);
    const turn = this.#turn;
    this.#isFilling = true;
    this.#link.request(
      { t: 'range', room: this.#id ?? this.name, from, to },
      (frame) => {
        if (this.#turn !== turn) return;
        this.#isFilling = false;
        this.#filled(frame, from, to);
      },
      (problem) => {
        if (this.#turn !== turn || problem.code === 'disconnected') return;
        this.#fillLater(turn, problem);
      },
    );
  }

  #fillLater(turn: number, problem?: ChatProblem): void {
    this.#isFilling = true;
    this.#after(this.#backOff(problem), () => {
      if (this.#turn !== turn) return;
      this.#isFilling = false;
      this.#fill();
    });
  }

  #filled(frame: Frame, from: number, to: number): void {
    const epoch = isOffset(frame.epoch) ? frame.epoch : this.#epoch;
    if (epoch > this.#epoch) {
      this.#rejoin();
      return;
    }
    if (this.#last === undefined || this.#last >= to) {
      this.#fill();
      return;
    }
    const entries = epoch < this.#epoch ? [] : entriesOf(frame.entries, epoch).filter(({ offset }) => offset >= from && offset <= to);
    // What came meanwhile by itself is dropped by `take`.
    const next = entries.find(({ offset }) => offset > this.#last!);
    if (!next && (epoch < this.#epoch || ++this.#empties < EMPTY_PAGES)) {
      this.#fillLater(this.#turn);
      return;
    }
    this.#empties = 0;
    this.#failures = 0;
    if (!next) this.#skip(to);
    else if (next.offset > this.#last + 1) this.#skip(next.offset - 1);
    this.#take(entries);
  }

  /** The server has nothing up to here: said, and gone on. */
  #skip(to: number): void {
    this.#emit({ type: 'missing', from: this.#last! + 1, to });
    this.#last = to;
    for (const offset of this.#ahead.keys()) if (offset <= to) this.#ahead.delete(offset);
    const entry = this.#ahead.get(to + 1);
    if (entry) this.#take([entry]);
    else this.#fill();
  }

  #backOff(problem?: ChatProblem): number {
    const waitMs = Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** Math.min(this.#failures++, 8));
    return Math.max(problem?.retryMs ?? 0, waitMs);
  }

  async #older(limit: number): Promise<boolean> {
    if (this.#last === undefined) throw new ChatProblem('disconnected', 'The room is not joined yet.');
    const before = this.timeline.items[0]?.offset ?? this.#last + 1;
    if (before <= 1) {
      this.#hasOlder = false;
      return false;
    }
    const epoch = this.#epoch;
    const frame = await this.#ask({ t: 'history', room: this.#id ?? this.name, before, limit: Math.min(PAGE, limit) });
    // The view was begun anew, or cut: this belongs to another one.
    const firstNow: Item | undefined = this.timeline.items[0];
    if (this.#epoch !== epoch || frame.epoch !== epoch || (firstNow ? firstNow.offset !== before : before !== this.position + 1))
      return this.#hasOlder;
    const entries = entriesOf(frame.entries, epoch).filter(({ offset }) => offset < before);
    this.timeline.prepend(entries);
    this.#hasOlder = frame.more === true && entries.length > 0;
    this.#emit({ type: 'state' });
    return this.#hasOlder;
  }
}
