import type { Codec, Rendition } from '../../media/ladder.js';
import { type Grid, type MediaTimeline, type Progress, partsPerSegment, type Run, runOf, type Title } from '../../media/timeline.js';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import type { LiveMedia, LiveView } from '../edge.js';
import type { WorkerClient } from './client.js';
import type { FeedBroadcast } from './protocol.js';
import { RemoteMedia } from './remote-media.js';

/**
 * This many segments before the open one are kept here for further requests. Older ones are
 * requested from the worker each time, and otherwise from the object store.
 */
const KEPT_SEGMENTS = 4;
const MEDIA_NAME = /^([0-9a-z]{1,64})-(?:(init)\.mp4|(\d{1,15})(?:\.(\d{1,4}))?\.(m4s|mp3))$/;

/**
 * A live window of a worker. Its timeline comes from the worker's feed. Media is requested from the
 * worker on demand, and shared by all requests for it. An unfinished segment is one answer of the
 * worker, which brings the parts as they are made.
 */
export class RemoteView implements LiveView, MediaTimeline {
  readonly channel: string;
  readonly viewId: string;
  readonly renditions: readonly Rendition[];
  readonly timeline: MediaTimeline = this;
  readonly broadcastId: string;
  readonly grid: Grid;
  readonly firstNumber: number;
  runs: readonly Run[];
  gaps: ReadonlySet<number>;
  titles: readonly Title[];
  progress: Partial<Record<Codec, Progress>>;
  ended: boolean;
  version = 1;
  state: FeedBroadcast['state'];
  title: string | undefined;
  startWallMs: number | undefined;

  readonly #client: WorkerClient;
  readonly #clock: Clock;
  #held: ReadonlySet<number>;
  /** The requested media by rendition and name, oldest request first. */
  readonly #media = new Map<string, { media: RemoteMedia; number: number | undefined }>();
  readonly #listeners = new Set<() => void>();

  /**
   * Makes a view of the first `show` of a channel, which has all fields. Throws when fields are
   * missing.
   */
  constructor(client: WorkerClient, clock: Clock, show: FeedBroadcast) {
    const { view, runs } = show;
    if (!view || !runs) throw new Error('the first that is told of a view is not all of it');
    this.#client = client;
    this.#clock = clock;
    this.channel = show.channel;
    this.viewId = show.viewId;
    this.renditions = view.renditions;
    this.broadcastId = view.broadcastId;
    this.grid = view.grid;
    this.firstNumber = view.firstNumber;
    this.runs = runs;
    this.gaps = new Set(show.gaps);
    this.titles = show.titles ?? [];
    this.progress = show.progress as Partial<Record<Codec, Progress>>;
    this.ended = show.ended;
    this.state = show.state;
    this.title = show.title;
    this.startWallMs = show.startWallMs;
    this.#held = new Set(show.held);
  }

  apply(show: FeedBroadcast): void {
    if (show.runs) this.runs = show.runs;
    if (show.gaps) this.gaps = new Set(show.gaps);
    if (show.titles) this.titles = show.titles;
    this.progress = show.progress as Partial<Record<Codec, Progress>>;
    this.ended = show.ended;
    this.state = show.state;
    this.title = show.title;
    this.startWallMs = show.startWallMs;
    this.#held = new Set(show.held);
    this.#forget(this.#newest() - KEPT_SEGMENTS);
    this.changed();
  }

  /** Wakes everything that waits for a change. */
  changed(): void {
    this.version += 1;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    each(listeners, (listener) => listener());
  }

  /** Ends the view. Responses that are in the middle of a segment are aborted. */
  close(): void {
    for (const { media } of this.#media.values()) media.close();
    this.#media.clear();
    this.#held = new Set();
    this.changed();
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  held(): number[] {
    return [...this.#held];
  }

  media(renditionName: string, name: string): LiveMedia | undefined {
    const rendition = this.renditions.find((candidate) => candidate.name === renditionName);
    const match = rendition && MEDIA_NAME.exec(name);
    if (!match) return undefined;
    const [, run = '', init, digits, partDigits, extension] = match;
    const { codec } = rendition;
    if (init) {
      if (codec === 'mp3' || !this.runs.some(({ id }) => id === run)) return undefined;
      return this.#requested(rendition, run, undefined);
    }
    const number = Number(digits);
    const progress = this.progress[codec];
    if (!this.#held.has(number) || !progress || runOf(this, number).id !== run || (extension === 'mp3') !== (codec === 'mp3'))
      return undefined;
    const isOpen = number === progress.openNumber;
    if (number > progress.openNumber || (isOpen && progress.openParts === 0)) return undefined;
    if (partDigits === undefined) return this.#requested(rendition, run, number);
    const part = Number(partDigits);
    const parts = isOpen ? progress.openParts : partsPerSegment(this.grid, codec);
    if (!rendition.lowLatency || part >= parts) return undefined;
    const segment = this.#requested(rendition, run, number);
    const chunk = segment?.chunks[part];
    if (!segment || (!chunk && segment.complete)) return undefined;
    if (chunk) return { contentType: segment.contentType, chunks: [chunk], complete: true, follow: () => () => undefined };
    const loading = segment.has(part + 1);
    // The caller may not wait for `loading`; then its rejection is not unhandled.
    loading.catch(() => undefined);
    return { contentType: segment.contentType, chunks: [], complete: false, loading, follow: () => () => undefined };
  }

  /**
   * Returns the media, which is requested if need be; undefined when the worker has answered that
   * it is not in memory.
   */
  #requested(rendition: Rendition, run: string, number: number | undefined): RemoteMedia | undefined {
    const extension = rendition.codec === 'mp3' ? 'mp3' : 'm4s';
    const name = number === undefined ? `${run}-init.mp4` : `${run}-${number}.${extension}`;
    const key = `${rendition.name}/${name}`;
    const kept = this.#media.get(key);
    if (kept && !kept.media.hasFailed) return kept.media.isAbsent ? undefined : kept.media;
    const contentType = rendition.codec === 'mp3' ? 'audio/mpeg' : 'audio/mp4';
    const media = new RemoteMedia(this.#client, this.#clock, `/v1/media/${this.channel}/${key}`, contentType);
    this.#media.set(key, { media, number });
    return media;
  }

  #newest(): number {
    return Math.max(...Object.values(this.progress).map(({ openNumber }) => openNumber));
  }

  // Removes old segments. A response that reads one of them still reads it to its end.
  #forget(below: number): void {
    for (const [key, { number, media }] of this.#media) {
      if (number === undefined ? media.hasFailed : number < below && media.loading === undefined) this.#media.delete(key);
    }
  }
}
