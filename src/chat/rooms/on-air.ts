import type { Clock } from '../../runtime/clock.js';

/** What is on air in a channel, as its room is told. */
export interface OnAirState {
  readonly state: 'offline' | 'live' | 'holding';
  readonly listeners: number;
  /** Of the show, ms since 1970. */
  readonly startedAt: number | null;
  readonly nowPlaying: { readonly title: string; readonly artist?: string; readonly startedAt: number } | null;
}

/** By slug; null: off air. */
export type OnAirChanges = Readonly<Record<string, OnAirState | null>>;

const OFF_AIR: OnAirState = { state: 'offline', listeners: 0, startedAt: null, nowPlaying: null };

/** What this process was told is on air. Until it was told anything it knows of no channel, and says nothing. */
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

  /** The frame for a room; undefined: it belongs to no channel, or nothing is known. */
  frameFor(room: string, slug: string | undefined): string | undefined {
    if (!this.#isKnown || slug === undefined) return undefined;
    return `{"t":"channel","room":"${room}",${this.#texts.get(slug) ?? OFF_AIR_MEMBERS}}`;
  }
}

const membersOf = ({ state, listeners, startedAt, nowPlaying }: OnAirState) =>
  JSON.stringify({ state, listeners, startedAt, nowPlaying }).slice(1, -1);
const OFF_AIR_MEMBERS = membersOf(OFF_AIR);

const LOOK_MS = 1000;
/** A change of the number of listeners alone is told this often at most: it changes with every one of them, and is told to all who are in the room. */
export const LISTENERS_MS = 20_000;

export interface OnAirWatcherOptions {
  /** Slugs of the channels that are on air. */
  readonly channels: () => readonly string[];
  readonly news: (slug: string) => OnAirState;
  readonly tell: (changes: OnAirChanges) => void;
  readonly clock: Clock;
}

/** Looks once a second at what is on air in this process, and tells the chat's processes what has changed. */
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
