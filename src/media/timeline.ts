import { type Codec, FRAME_SAMPLES, SAMPLE_RATE_HZ } from './ladder.js';

/**
 * The timeline of one broadcast: which segments exist, where runs begin, and which parts of the
 * open segment are published.
 *
 * A timeline is arithmetic on numbers. A segment is `segmentSamples` long in every rendition, a
 * codec's parts are a function of the grid, and the media time of segment n is (n − firstNumber) ×
 * segmentSamples. Manifests therefore need very little state, which can be stored durably at every
 * segment.
 */
export interface Grid {
  /**
   * Samples in a segment: a multiple of 46,080 (960 ms), so a whole number of frames of every
   * codec.
   */
  readonly segmentSamples: number;
  /** The part target (`PART_MS`), in samples. */
  readonly partSamples: number;
}

export function makeGrid(segmentMs: number, partMs: number): Grid {
  return { segmentSamples: (segmentMs * SAMPLE_RATE_HZ) / 1000, partSamples: (partMs * SAMPLE_RATE_HZ) / 1000 };
}

/** Factor from samples to milliseconds. */
export const SAMPLES_TO_MS = 1000 / SAMPLE_RATE_HZ;

/**
 * Frames of the codec in a full part: as many whole frames as fit in the part target, at least one.
 */
export function framesPerPart(grid: Grid, codec: Codec): number {
  return Math.max(1, Math.floor(grid.partSamples / FRAME_SAMPLES[codec]));
}

export function framesPerSegment(grid: Grid, codec: Codec): number {
  return grid.segmentSamples / FRAME_SAMPLES[codec];
}

export function partsPerSegment(grid: Grid, codec: Codec): number {
  return Math.ceil(framesPerSegment(grid, codec) / framesPerPart(grid, codec));
}

/** Samples in part `part` (counted from 0) of any segment. The last part may be shorter. */
export function partDurationSamples(grid: Grid, codec: Codec, part: number): number {
  const perPart = framesPerPart(grid, codec);
  return Math.min(perPart, framesPerSegment(grid, codec) - part * perPart) * FRAME_SAMPLES[codec];
}

/**
 * A stretch of a broadcast made by one encoder timeline without interruption. A later run is a
 * discontinuity.
 */
export interface Run {
  /**
   * Random. It is part of every media name, so that no cache can serve the bytes of another run.
   */
  readonly id: string;
  /** Number of its first segment. */
  readonly firstNumber: number;
  /**
   * EXT-X-DISCONTINUITY-SEQUENCE of its first segment; never decreases during the channel's life.
   */
  readonly discontinuity: number;
  /** Wall-clock milliseconds since 1970 at the start of its first segment. */
  readonly startWallMs: number;
}

/**
 * A title at the time when it is heard. DATERANGE (HLS), `emsg` and ICY metadata are made from it.
 */
export interface Title {
  /** Unique in the channel's life. */
  readonly id: string;
  /** Wall-clock milliseconds at which the listener hears it begin. */
  readonly startWallMs: number;
  readonly title: string;
  readonly artist?: string;
}

/** How far one codec is published. Codecs may differ, since their parts do not align. */
export interface Progress {
  /**
   * Number of the open segment. Every lower number (from `firstNumber`) is a complete segment or a
   * gap.
   */
  readonly openNumber: number;
  /** Published parts of the open segment. */
  readonly openParts: number;
}

/**
 * Everything that a manifest is rendered from. Plain data; the same state always gives the same
 * text.
 */
export interface MediaTimeline {
  readonly broadcastId: string;
  readonly grid: Grid;
  /** Number of the broadcast's first segment. Numbers never decrease during the channel's life. */
  readonly firstNumber: number;
  /** Ascending by `firstNumber`; never empty. */
  readonly runs: readonly Run[];
  /**
   * Segments that do not exist, because the process died or they could not be stored; listed as
   * EXT-X-GAP.
   */
  readonly gaps: ReadonlySet<number>;
  /** Ascending by `startWallMs`. */
  readonly titles: readonly Title[];
  readonly progress: Readonly<Partial<Record<Codec, Progress>>>;
  /** The broadcast is over: no segment will be added. */
  readonly ended: boolean;
}

/** The run that segment `number` belongs to. */
export function runOf(timeline: MediaTimeline, number: number): Run {
  let found = timeline.runs[0];
  for (const run of timeline.runs) {
    if (run.firstNumber > number) break;
    found = run;
  }
  if (!found) throw new RangeError('a timeline has at least one run');
  return found;
}

/** Wall-clock milliseconds of the start of segment `number` (PROGRAM-DATE-TIME). */
export function wallMsOf(timeline: MediaTimeline, number: number): number {
  const run = runOf(timeline, number);
  return run.startWallMs + ((number - run.firstNumber) * timeline.grid.segmentSamples * 1000) / SAMPLE_RATE_HZ;
}

/**
 * Media time (`tfdt`, DASH `t`) of the start of segment `number`, in samples. Runs do not interrupt
 * it.
 */
export function mediaTimeOf(timeline: MediaTimeline, number: number): number {
  return (number - timeline.firstNumber) * timeline.grid.segmentSamples;
}

/**
 * File names of init segments, segments and parts. The object-store key is
 * `live/{channel}/{rendition}/` and this name.
 */
export const initName = (run: string) => `${run}-init.mp4`;
export const segmentName = (run: string, number: number, codec: Codec) => `${run}-${number}.${codec === 'mp3' ? 'mp3' : 'm4s'}`;
export const partName = (run: string, number: number, part: number) => `${run}-${number}.${part}.m4s`;
