import { initSegment } from '../media/cmaf.js';
import type { Codec, Rendition } from '../media/ladder.js';
import {
  type Grid,
  initName,
  type MediaTimeline,
  type Progress,
  partsPerSegment,
  type Run,
  runOf,
  segmentName,
  type Title,
} from '../media/timeline.js';
import { each } from '../runtime/each.js';
import type { ChunkListener, LiveMedia, LiveView } from './edge.js';

/**
 * At most this many of the newest segments stay in memory after they were stored: parts must be
 * available for six target durations.
 */
const MEMORY_SEGMENTS = 8;
/**
 * A segment that could not be stored stays in memory for this many segments. A live playlist lists
 * 30; one that was fetched a moment ago lists a few older ones.
 */
const LISTED_SEGMENTS = 36;
/** At most this many titles are kept. Older ones have left every playlist. */
const MAX_TITLES = 500;
const CONTENT_TYPE: Readonly<Record<Codec, string>> = { aac: 'audio/mp4', opus: 'audio/mp4', mp3: 'audio/mpeg' };

/** A segment of one rendition: the chunks (parts) that are published. */
class SegmentBytes implements LiveMedia {
  readonly contentType: string;
  readonly chunks: Uint8Array[] = [];
  complete = false;
  stored = false;
  readonly #followers = new Set<ChunkListener>();

  constructor(contentType: string) {
    this.contentType = contentType;
  }

  append(chunk: Uint8Array, last: boolean): void {
    this.chunks.push(chunk);
    if (last) this.complete = true;
    each(this.#followers, (follower) => {
      follower(chunk, false);
      if (last) follower(undefined, false);
    });
    if (last) this.#followers.clear();
  }

  abort(): void {
    each(this.#followers, (follower) => follower(undefined, true));
    this.#followers.clear();
  }

  follow(onChunk: ChunkListener): () => void {
    if (!this.complete) this.#followers.add(onChunk);
    return () => this.#followers.delete(onChunk);
  }
}

/**
 * A timeline as JSON, with everything that another process needs to resume it. It is saved at each
 * segment.
 */
export interface TimelineSnapshot {
  readonly broadcastId: string;
  readonly grid: Grid;
  readonly firstNumber: number;
  readonly runs: readonly Run[];
  readonly gaps: readonly number[];
  readonly titles: readonly Title[];
  /** The highest segment number that may have been listed. */
  readonly openNumber: number;
}

/**
 * The live window of one broadcast: its timeline, and the segments that are in memory. The packager
 * appends parts, and the app reads them. Every change of the timeline is made in this class, so
 * that `version` can be relied on.
 */
export class LiveWindow implements LiveView, MediaTimeline {
  readonly channel: string;
  readonly renditions: readonly Rendition[];
  readonly timeline: MediaTimeline = this;
  readonly broadcastId: string;
  readonly grid: Grid;
  readonly firstNumber: number;
  readonly runs: Run[];
  readonly gaps: Set<number>;
  readonly titles: Title[];
  readonly progress: Partial<Record<Codec, Progress>> = {};
  ended = false;
  version = 1;

  readonly #segments = new Map<string, Map<number, SegmentBytes>>();
  readonly #inits = new Map<string, LiveMedia>();
  readonly #listeners = new Set<() => void>();
  /** Numbers of the segments that could not be stored in at least one rendition. */
  readonly #lost = new Set<number>();

  /**
   * The window of a new broadcast, or of one that is resumed from its snapshot. A run must have
   * begun before the window is shown.
   */
  constructor(channel: string, renditions: readonly Rendition[], from: Omit<TimelineSnapshot, 'openNumber'>) {
    this.channel = channel;
    this.renditions = renditions;
    this.broadcastId = from.broadcastId;
    this.grid = from.grid;
    this.firstNumber = from.firstNumber;
    this.runs = [...from.runs];
    this.gaps = new Set(from.gaps);
    this.titles = [...from.titles];
    for (const rendition of renditions) {
      this.#segments.set(rendition.name, new Map());
      if (rendition.codec !== 'mp3') this.#inits.set(rendition.name, finished('audio/mp4', initSegment(rendition)));
    }
  }

  get run(): Run {
    const run = this.runs.at(-1);
    if (!run) throw new Error('no run has begun');
    return run;
  }

  /** The lowest segment number that some codec has not finished. */
  get openNumber(): number {
    return Math.min(...Object.values(this.progress).map((progress) => progress.openNumber));
  }

  /**
   * Begins a run. Unfinished segments below `run.firstNumber` become gaps. A run without a segment
   * is replaced, except the first.
   */
  beginRun(run: Run): void {
    if (this.runs.length > 1 && this.runs.at(-1)?.firstNumber === run.firstNumber) this.runs.pop();
    this.runs.push(run);
    this.giveUpBelow(run.firstNumber);
  }

  /** Makes gaps of all unfinished segments below `next`, which becomes the open segment. */
  giveUpBelow(next: number): void {
    for (const rendition of this.renditions) {
      const open = this.progress[rendition.codec]?.openNumber ?? next;
      for (let number = open; number < next; number += 1) {
        this.gaps.add(number);
        this.#abort(number);
      }
    }
    for (const rendition of this.renditions) {
      const open = this.progress[rendition.codec]?.openNumber ?? 0;
      if (open < next) this.progress[rendition.codec] = { openNumber: next, openParts: 0 };
    }
    this.#changed();
  }

  markGap(number: number): void {
    this.gaps.add(number);
    this.#changed();
  }

  /** Publishes part `part` of segment `number` in all these renditions, in one step. */
  appendPart(codecs: readonly Codec[], number: number, part: number, chunks: ReadonlyMap<Rendition, Uint8Array>): void {
    for (const [rendition, chunk] of chunks) {
      const segment = this.#segment(rendition, number);
      segment.append(chunk, rendition.codec === 'mp3' || part === partsPerSegment(this.grid, rendition.codec) - 1);
    }
    for (const codec of codecs) {
      const complete = codec === 'mp3' || part === partsPerSegment(this.grid, codec) - 1;
      this.progress[codec] = complete ? { openNumber: number + 1, openParts: 0 } : { openNumber: number, openParts: part + 1 };
    }
    for (const lost of this.#lost) if (lost < number - LISTED_SEGMENTS) this.#release(lost);
    this.#changed();
  }

  /**
   * Notes that a segment will never be in the store. It stays in memory for as long as a live
   * playlist may list it. After that it is a gap, for rewind and for the recording.
   */
  markLost(number: number): void {
    this.#lost.add(number);
  }

  /** Returns the bytes of a finished segment. */
  segmentBytes(rendition: Rendition, number: number): Buffer {
    return Buffer.concat(this.#segment(rendition, number).chunks);
  }

  /** Notes that a segment is in the store, and frees the memory of older ones that are. */
  markStored(rendition: Rendition, number: number): void {
    const segments = this.#segments.get(rendition.name);
    const segment = segments?.get(number);
    if (!segments || !segment) return;
    segment.stored = true;
    for (const [old, bytes] of segments) {
      if (old > number - MEMORY_SEGMENTS) break;
      if (bytes.stored) segments.delete(old);
    }
  }

  addTitle(title: Title): void {
    this.titles.push(title);
    if (this.titles.length > MAX_TITLES) this.titles.shift();
    this.#changed();
  }

  end(): void {
    this.ended = true;
    this.#changed();
  }

  /** Wakes all blocked requests. Responses that are in the middle of a segment are destroyed. */
  close(): void {
    for (const segments of this.#segments.values()) for (const segment of segments.values()) segment.abort();
    this.#changed();
  }

  snapshot(openNumber: number): TimelineSnapshot {
    const { broadcastId, grid, firstNumber, runs, titles } = this;
    return { broadcastId, grid, firstNumber, runs, gaps: [...this.gaps], titles, openNumber };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  media(renditionName: string, name: string): LiveMedia | undefined {
    const rendition = this.renditions.find((candidate) => candidate.name === renditionName);
    if (!rendition) return undefined;
    const match = /^([0-9a-z]+)-(?:(init)\.mp4|(\d{1,15})(?:\.(\d{1,4}))?\.(m4s|mp3))$/.exec(name);
    if (!match) return undefined;
    const [, run = '', init, number, part] = match;
    if (init) return this.runs.some((candidate) => name === initName(candidate.id)) ? this.#inits.get(rendition.name) : undefined;
    const segment = this.#segments.get(rendition.name)?.get(Number(number));
    if (!segment || runOf(this, Number(number)).id !== run) return undefined;
    if (part === undefined) return name === segmentName(run, Number(number), rendition.codec) ? segment : undefined;
    const chunk = rendition.lowLatency ? segment.chunks[Number(part)] : undefined;
    return chunk && finished(segment.contentType, chunk);
  }

  held(): number[] {
    return [...new Set([...this.#segments.values()].flatMap((segments) => [...segments.keys()]))];
  }

  #segment(rendition: Rendition, number: number): SegmentBytes {
    const segments = this.#segments.get(rendition.name);
    if (!segments) throw new Error(`no rendition ${rendition.name}`);
    let segment = segments.get(number);
    if (!segment) {
      segment = new SegmentBytes(CONTENT_TYPE[rendition.codec]);
      segments.set(number, segment);
    }
    return segment;
  }

  #release(lost: number): void {
    this.#lost.delete(lost);
    this.gaps.add(lost);
    for (const segments of this.#segments.values()) segments.delete(lost);
  }

  #abort(number: number): void {
    for (const segments of this.#segments.values()) {
      const segment = segments.get(number);
      if (segment && !segment.complete) {
        segment.abort();
        segments.delete(number);
      }
    }
  }

  #changed(): void {
    this.version += 1;
    if (this.#listeners.size === 0) return;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    each(listeners, (listener) => listener());
  }
}

function finished(contentType: string, bytes: Uint8Array): LiveMedia {
  return { contentType, chunks: [bytes], complete: true, follow: () => () => undefined };
}
