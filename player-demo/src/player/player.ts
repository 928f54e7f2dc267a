import Hls, { type ErrorData, ErrorDetails, ErrorTypes, Events, type LevelDetails } from 'hls.js';
import { followLiveEdge, liveConfig, rewindConfig } from './hls-config';
import { TitleLog } from './titles';

/**
 * What the player is doing. One function changes it (`#enter`).
 *
 *   stopped ──play──► connecting ──sound──► playing ◄──► reconnecting
 *      ▲                  │                    │              │
 *      ├──── pause ───────┴────────────────────┴──────────────┤
 *      └ blocked (the browser wants a click first)            │
 *   offAir ◄── nothing to play; goes to connecting by itself ─┘
 *
 * `offAir` remembers whether the listener wants sound; if so it starts with the broadcast.
 */
export type PlayerState = 'stopped' | 'blocked' | 'connecting' | 'playing' | 'reconnecting' | 'offAir';

export type Quality = 'auto' | 'aac-64' | 'aac-128' | 'aac-256' | 'opus-96';

/**
 * A playback position nearer to the newest sound than this counts as live: a listener cannot tell so
 * short a rewind from the normal delay.
 */
const LIVE_WITHIN_S = 6;
/**
 * Without progress for this long while the server answers, the media pipeline is stuck and is made
 * anew.
 */
const STUCK_AFTER_MS = 12_000;
/** For this long after a seek the element may still report the place before it. */
const AIM_STANDS_MS = 1_500;
/** An interruption shorter than this is not shown. */
const TROUBLE_SHOWN_AFTER_MS = 700;
const RESTART_WAITS_MS = [500, 1_000, 2_000, 4_000, 5_000];

export class Player {
  readonly audio = new Audio();
  readonly titles = new TitleLog();
  /** Called at each change of `state`. */
  onState: (state: PlayerState) => void = () => {};
  /** Server clock minus the page's clock, ms. */
  clockOffsetMs = 0;

  #base: string;
  #state: PlayerState = 'stopped';
  #wanted = false;
  #onAir = false;
  #quality: Quality = 'auto';
  /** The wall-clock moment of a rewind. Undefined: live. */
  #rewindToMs: number | undefined;
  #aimedAtMs = 0;
  #hls: Hls | undefined;
  #native = false;
  #details: LevelDetails | undefined;
  #troubleSinceMs: number | undefined;
  #mediaRecovered = false;
  #restarts = 0;
  #restartTimer: ReturnType<typeof setTimeout> | undefined;
  #lastMove = { atMs: 0, position: 0 };
  readonly #watch: ReturnType<typeof setInterval>;

  /** `base` is the address of the playlists. Default: the public one. */
  constructor(channel: string, base = `/live/${encodeURIComponent(channel)}`) {
    this.#base = base;
    this.audio.preload = 'none';
    this.audio.addEventListener('playing', () => this.#heard());
    this.audio.addEventListener('ended', () => this.#ended());
    this.audio.addEventListener('error', () => {
      if (this.#native && this.#wanted) this.#restart();
    });
    this.audio.addEventListener('pause', () => {
      // The browser paused: a headset was unplugged, or another app took the sound.
      if (this.#wanted && this.#state === 'playing' && !this.audio.ended) this.pause();
    });
    this.#watch = setInterval(() => this.#inspect(), 500);
  }

  get state(): PlayerState {
    return this.#state;
  }

  /**
   * Changes the signed address of the same playlists. Later requests use it, and nothing is heard
   * of the change.
   */
  set base(base: string) {
    this.#base = base;
  }

  get wanted(): boolean {
    return this.#wanted;
  }

  get quality(): Quality {
    return this.#quality;
  }

  /** The rendition that is heard, if hls.js knows it: `aac-128`. */
  get rendition(): string | undefined {
    const hls = this.#hls;
    return hls ? renditionOf(hls.levels[hls.currentLevel]?.url[0]) : undefined;
  }

  get isLive(): boolean {
    return this.#rewindToMs === undefined;
  }

  /** Wall clock of the sample that is heard. */
  get playingDateMs(): number | undefined {
    if (this.#hls) return this.#hls.playingDate?.getTime();
    const start = (this.audio as HTMLAudioElement & { getStartDate?: () => Date }).getStartDate?.().getTime();
    return start === undefined || Number.isNaN(start) ? undefined : start + this.audio.currentTime * 1000;
  }

  get serverNowMs(): number {
    return Date.now() + this.clockOffsetMs;
  }

  /** Seconds from the broadcaster to the ear: the server's clock minus the stream's date. */
  get delayS(): number | undefined {
    const heard = this.playingDateMs;
    return heard === undefined ? undefined : (this.serverNowMs - heard) / 1000;
  }

  /**
   * Seconds behind now, from which the next rewind step counts. While a step is under way it is
   * that step's aim, so that quick steps add up.
   */
  get placeS(): number {
    const aimed = this.#rewindToMs;
    const onItsWay = this.#state !== 'playing' || performance.now() - this.#aimedAtMs < AIM_STANDS_MS;
    if (aimed !== undefined && onItsWay) return (this.serverNowMs - aimed) / 1000;
    return this.delayS ?? 0;
  }

  get bufferS(): number {
    const { buffered, currentTime } = this.audio;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= currentTime + 0.2 && buffered.end(i) > currentTime) return buffered.end(i) - currentTime;
    }
    return 0;
  }

  get canOpus(): boolean {
    const opus = 'audio/mp4; codecs="opus"';
    return Hls.isSupported() ? (Hls.getMediaSource()?.isTypeSupported(opus) ?? false) : this.audio.canPlayType(opus) !== '';
  }

  play(): void {
    if (this.#wanted && (this.#state === 'playing' || this.#state === 'connecting' || this.#state === 'reconnecting')) return;
    this.#wanted = true;
    this.#restarts = 0;
    if (!this.#onAir) {
      this.#enter('offAir');
      return;
    }
    if (!this.isLive && this.#hls && this.#state === 'stopped') {
      this.#hls.startLoad(this.audio.currentTime);
      this.#enter('connecting');
      this.#sound();
      return;
    }
    this.#load();
  }

  /** Pauses. In rewind `play` goes on at the same place; live it starts at the live edge. */
  pause(): void {
    this.#keepPlace();
    this.#wanted = false;
    clearTimeout(this.#restartTimer);
    this.#troubleSinceMs = undefined;
    this.#enter(this.#onAir ? 'stopped' : 'offAir');
    this.audio.pause();
    this.#hls?.stopLoad();
  }

  toggle(): void {
    if (this.#wanted && this.#state !== 'blocked') this.pause();
    else this.play();
  }

  /**
   * Takes what the API says. When the channel is on air again, a listener who wants sound gets it.
   */
  setOnAir(onAir: boolean): void {
    const before = this.#onAir;
    this.#onAir = onAir;
    if (onAir && (!before || this.#state === 'offAir')) {
      if (this.#wanted) {
        this.#rewindToMs = undefined;
        this.#load();
      } else if (this.#state === 'offAir') this.#enter('stopped');
    }
    // While the player plays, the end of the playlist ends it, not the API: buffered sound is
    // played to its end.
    if (!onAir && this.#state !== 'playing') this.#goOffAir();
  }

  setQuality(quality: Quality): void {
    if (quality === this.#quality) return;
    const otherPlaylist = quality === 'opus-96' || this.#quality === 'opus-96';
    this.#quality = quality;
    if (!this.#wanted || this.#state === 'offAir') return;
    const hls = this.#hls;
    if (hls && hls.levels.length > 0 && !otherPlaylist) {
      // hls.js changes at the next part, and nothing is heard of it.
      hls.nextLevel = levelOf(hls, quality);
      return;
    }
    this.#keepPlace();
    this.#load();
  }

  /** Plays what was on air `seconds` ago; less than `LIVE_WITHIN_S` is live. */
  rewindTo(seconds: number): void {
    if (!this.#onAir) return;
    const toLive = seconds < LIVE_WITHIN_S;
    if (toLive && this.isLive && this.#wanted) return;
    const wasRewound = !this.isLive;
    this.#rewindToMs = toLive ? undefined : this.serverNowMs - seconds * 1000;
    this.#aimedAtMs = performance.now();
    this.#wanted = true;
    if (!toLive && wasRewound && this.#hls && this.#details) {
      if (this.#state === 'stopped') this.#hls.startLoad(-1);
      this.audio.currentTime = positionOf(this.#details, this.#rewindToMs!) ?? this.audio.currentTime;
      if (this.#state === 'stopped') this.#enter('connecting');
      this.#sound();
      return;
    }
    this.#load();
  }

  goLive(): void {
    this.rewindTo(0);
  }

  /** Wall clock of the oldest sample that rewind reaches; undefined when it cannot be found out. */
  async rewindStartMs(): Promise<number | undefined> {
    try {
      const master = await text(`${this.#base}/dvr.m3u8`);
      const variant = master.split('\n').find((line) => line.trim() !== '' && !line.startsWith('#'));
      if (!variant) return undefined;
      const media = await text(new URL(variant.trim(), new URL(`${this.#base}/dvr.m3u8`, location.href)).href);
      const first = /#EXT-X-PROGRAM-DATE-TIME:(.+)/.exec(media)?.[1];
      return first === undefined ? undefined : Date.parse(first);
    } catch {
      return undefined;
    }
  }

  destroy(): void {
    clearInterval(this.#watch);
    this.#wanted = false;
    this.#unload();
    this.audio.pause();
  }

  #enter(state: PlayerState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.onState(state);
  }

  #path(): string {
    const opus = this.#quality === 'opus-96';
    if (!this.isLive) return opus ? `${this.#base}/opus-96/dvr.m3u8` : `${this.#base}/dvr.m3u8`;
    return opus ? `${this.#base}/opus.m3u8` : `${this.#base}/master.m3u8`;
  }

  #load(): void {
    this.#unload();
    this.#enter(this.#state === 'reconnecting' ? 'reconnecting' : 'connecting');
    this.#lastMove = { atMs: performance.now(), position: -1 };
    if (Hls.isSupported()) this.#loadHls();
    else this.#loadNative();
    this.#sound();
  }

  #loadHls(): void {
    const config = this.isLive ? liveConfig() : rewindConfig();
    if (isSigned(this.#base)) config.xhrSetup = (xhr, url) => xhr.open('GET', resigned(url, this.#base), true);
    const hls = new Hls(config);
    if (this.isLive) followLiveEdge(hls);
    this.#hls = hls;
    this.#native = false;
    hls.on(Events.MANIFEST_PARSED, () => this.#applyLevel(hls));
    hls.on(Events.LEVEL_LOADED, (_event, { details }) => {
      if (details.live || !this.isLive || this.#details) return;
      // This is the final playlist of an ended broadcast; the next broadcast is another
      // presentation.
      this.#onAir = false;
      this.#goOffAir();
    });
    hls.on(Events.LEVEL_UPDATED, (_event, { details }) => {
      const first = this.#details === undefined;
      this.#details = details;
      this.#troubleSinceMs = undefined;
      this.#collectTitles(details);
      if (first && this.#rewindToMs !== undefined) {
        this.audio.currentTime = positionOf(details, this.#rewindToMs) ?? details.fragmentStart;
      }
    });
    hls.on(Events.FRAG_BUFFERED, () => {
      this.#troubleSinceMs = undefined;
    });
    hls.on(Events.ERROR, (_event, error) => this.#failed(hls, error));
    hls.loadSource(this.#path());
    hls.attachMedia(this.audio);
  }

  /** Without MediaSource, such as iPhone before 17.1, the system plays the same playlists. */
  #loadNative(): void {
    this.#native = true;
    const manual = this.#quality !== 'auto' && this.#quality !== 'opus-96' && this.isLive;
    this.audio.src = manual ? `${this.#base}/${this.#quality}/index.m3u8` : this.#path();
    if (this.#rewindToMs === undefined) return;
    const behindS = (this.serverNowMs - this.#rewindToMs) / 1000;
    this.audio.addEventListener(
      'loadedmetadata',
      () => {
        const { seekable } = this.audio;
        if (seekable.length > 0) this.audio.currentTime = Math.max(seekable.start(0), seekable.end(seekable.length - 1) - behindS);
      },
      { once: true },
    );
  }

  /** In rewind, makes the next load begin at the heard sample, not where the rewind began. */
  #keepPlace(): void {
    if (!this.isLive && this.#state === 'playing') this.#rewindToMs = this.playingDateMs ?? this.#rewindToMs;
  }

  #unload(): void {
    clearTimeout(this.#restartTimer);
    this.#details = undefined;
    this.#troubleSinceMs = undefined;
    this.#hls?.destroy();
    this.#hls = undefined;
    if (this.#native) this.audio.removeAttribute('src');
  }

  #applyLevel(hls: Hls): void {
    hls.loadLevel = this.#quality === 'opus-96' ? -1 : levelOf(hls, this.#quality);
  }

  #sound(): void {
    const hls = this.#hls;
    this.audio.play().catch((error: unknown) => {
      // A later load aborts this promise too; that is not a refusal.
      if (!(error instanceof DOMException) || error.name !== 'NotAllowedError' || hls !== this.#hls) return;
      this.#wanted = false;
      this.#unload();
      this.#enter('blocked');
    });
  }

  #heard(): void {
    if (!this.#wanted) return;
    this.#restarts = 0;
    this.#enter('playing');
  }

  #ended(): void {
    if (this.isLive) this.#onAir = false;
    this.#goOffAir();
  }

  #goOffAir(): void {
    this.#unload();
    this.audio.pause();
    this.#rewindToMs = undefined;
    this.#enter('offAir');
  }

  #failed(hls: Hls, error: ErrorData): void {
    if (hls !== this.#hls) return;
    if (error.type === ErrorTypes.NETWORK_ERROR) this.#troubleSinceMs ??= performance.now();
    if (!error.fatal) return;
    if (error.details === ErrorDetails.MANIFEST_LOAD_ERROR && error.response?.code === 404) {
      this.#onAir = false;
      this.#goOffAir();
      return;
    }
    if (error.type === ErrorTypes.MEDIA_ERROR && !this.#mediaRecovered) {
      this.#mediaRecovered = true;
      hls.recoverMediaError();
      this.#sound();
      return;
    }
    this.#restart();
  }

  /**
   * Starts again with a new hls.js, after ever longer waits: for errors that hls.js could not
   * repair.
   */
  #restart(): void {
    this.#keepPlace();
    this.#unload();
    this.#mediaRecovered = false;
    this.#enter('reconnecting');
    const waitMs = RESTART_WAITS_MS[Math.min(this.#restarts++, RESTART_WAITS_MS.length - 1)]!;
    this.#restartTimer = setTimeout(() => this.#load(), waitMs);
  }

  /** Runs twice per second: finds out whether there is sound, and changes the state if not. */
  #inspect(): void {
    if (!this.#wanted || this.#state === 'offAir' || this.#state === 'blocked') return;
    const nowMs = performance.now();
    const position = this.audio.currentTime;
    const moved = Math.abs(position - this.#lastMove.position) > 0.01;
    if (moved) this.#lastMove = { atMs: nowMs, position };
    const stillMs = nowMs - this.#lastMove.atMs;
    const troubleMs = this.#troubleSinceMs === undefined ? 0 : nowMs - this.#troubleSinceMs;
    if (troubleMs > TROUBLE_SHOWN_AFTER_MS || (this.#state === 'playing' && stillMs > 2_000)) this.#enter('reconnecting');
    else if (this.#state === 'reconnecting' && moved && troubleMs === 0) this.#enter('playing');
    if (stillMs > STUCK_AFTER_MS && troubleMs === 0 && (this.#hls || this.#native)) this.#restart();
  }

  #collectTitles(details: LevelDetails): void {
    for (const [id, range] of Object.entries(details.dateRanges)) {
      const title = range?.attr['X-TITLE'];
      if (!range || title === undefined) continue;
      this.titles.add({ id, startMs: range.startDate.getTime(), title, artist: range.attr['X-ARTIST'] ?? '' });
    }
  }
}

async function text(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(8_000) });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return response.text();
}

/** `…/aac-128/index.m3u8` → `aac-128`. */
function renditionOf(url: string | undefined): string | undefined {
  return url === undefined ? undefined : /\/([a-z0-9]+-\d+)\/[^/]+$/.exec(url)?.[1];
}

/**
 * hls.js's index of a rendition; −1, hls.js's own choice, for `auto` and for one that is not on
 * air.
 */
function levelOf(hls: Hls, quality: Quality): number {
  return hls.levels.findIndex((level) => renditionOf(level.url[0]) === quality);
}

/** Media position of a wall-clock moment, or of the nearest one that is listed. */
function positionOf(details: LevelDetails, dateMs: number): number | undefined {
  const dated = details.fragments.filter((fragment) => fragment.programDateTime !== null);
  const found = dated.findLast((fragment) => fragment.programDateTime! <= dateMs) ?? dated[0];
  if (!found) return undefined;
  return found.start + Math.min(found.duration, Math.max(0, (dateMs - found.programDateTime!) / 1000));
}

const isSigned = (base: string): boolean => /\/t\/[^/]+\/live\//.test(base);

/**
 * Puts the current token into an address: a playlist that was fetched with an older token lists its
 * parts with that one.
 */
const resigned = (url: string, base: string): string => url.replace(/\/t\/[^/]+\//, /\/t\/[^/]+\//.exec(base)![0]);
