import type { Clock } from '../../runtime/clock.js';

/** The on-air state of a channel as members of its room see it. */
export interface OnAirState {
  readonly state: 'offline' | 'live' | 'holding';
  readonly listeners: number;
  /** The start of the broadcast, ms since 1970. */
  readonly startedAt: number | null;
  readonly nowPlaying: { readonly title: string; readonly artist?: string; readonly startedAt: number } | null;
}

/** The changed channels by slug. Null: off air. */
export type OnAirChanges = Readonly<Record<string, OnAirState | null>>;

const OFF_AIR: OnAirState = { state: 'offline', listeners: 0, startedAt: null, nowPlaying: null };

/**
 * The on-air frames of the channels. Before the first `applyChanges` the state of every channel is
 * unknown.
 */
export class OnAirFrames {
  #isKnown = false;
  readonly #texts = new Map<string, string>();

  applyChanges(changes: OnAirChanges): void {
    this.#isKnown = true;
    for (const [slug, news] of Object.entries(changes)) {
      if (news) this.#texts.set(slug, membersOf(news));
      else this.#texts.delete(slug);
    }
  }

  /**
   * The `channel` frame for a room; undefined: the room belongs to no channel, or the state is
   * unknown.
   */
  frameFor(room: string, slug: string | undefined): string | undefined {
    if (!this.#isKnown || slug === undefined) return undefined;
    return `{"t":"channel","room":"${room}",${this.#texts.get(slug) ?? OFF_AIR_MEMBERS}}`;
  }
}

const membersOf = ({ state, listeners, startedAt, nowPlaying }: OnAirState) =>
  JSON.stringify({ state, listeners, startedAt, nowPlaying }).slice(1, -1);
const OFF_AIR_MEMBERS = membersOf(OFF_AIR);

const LOOK_MS = 1000;
/**
 * The interval between two frames that differ only in the number of listeners. That number changes
 * often, and each frame is sent to all members.
 */
export const LISTENERS_MS = 20_000;

export interface OnAirWatcherOptions {
  /** The slugs of the channels on air. */
  readonly channels: () => readonly string[];
  readonly news: (slug: string) => OnAirState;
  readonly tell: (changes: OnAirChanges) => void;
  readonly clock: Clock;
}

/**
 * Reads once a second what is on air in this process, and sends the changes to the chat processes.
 */
export class OnAirWatcher {
  readonly name = 'on air';
  readonly #options: OnAirWatcherOptions;
  readonly #told = new Map<string, { news: OnAirState; listenersMs: number }>();
  #cancel = () => {};

  constructor(options: OnAirWatcherOptions) {
    this.#options = options;
  }

  start(): void {
    this.#options.tell({});
    this.#cancel = this.#options.clock.every(LOOK_MS, () => this.#look());
  }

  stop(): void {
    this.#cancel();
  }

  #look(): void {
    const { channels, news, tell, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const changes: Record<string, OnAirState | null> = {};
    const seen = new Set<string>();
    for (const slug of channels()) {
      const latest = news(slug);
      if (latest.state === 'offline') continue;
      seen.add(slug);
      const told = this.#told.get(slug);
      const isOther = !told || JSON.stringify({ ...latest, listeners: 0 }) !== JSON.stringify({ ...told.news, listeners: 0 });
      if (!isOther && (latest.listeners === told.news.listeners || nowMs - told.listenersMs < LISTENERS_MS)) continue;
      this.#told.set(slug, { news: latest, listenersMs: nowMs });
      changes[slug] = latest;
    }
    for (const slug of this.#told.keys()) {
      if (seen.has(slug)) continue;
      this.#told.delete(slug);
      changes[slug] = null;
    }
    if (Object.keys(changes).length > 0) tell(changes);
  }
}
