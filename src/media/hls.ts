import type { Codec, Rendition } from './ladder.js';
import { SAMPLE_RATE_HZ } from './ladder.js';
import {
  initName,
  type MediaTimeline,
  type Progress,
  partDurationSamples,
  partName,
  partsPerSegment,
  type Run,
  runOf,
  segmentName,
  wallMsOf,
} from './timeline.js';

/**
 * HLS playlists (RFC 8216bis) as functions of the timeline: the same state always gives the same
 * text. A rule number in a comment is a rule of `src/validator/hls.ts`, which `npm run validate`
 * checks.
 */

/**
 * Complete segments in a live media playlist. Every reload transfers all of them, so a longer list
 * costs more; rewind has its own playlist.
 */
export const LIVE_WINDOW_SEGMENTS = 30;

/**
 * A player may refuse a list with fewer segments, or start after its beginning (rule 6). The list
 * of a young broadcast therefore starts with gaps. Their numbers belong to the channel's previous
 * broadcast, whose list has ended, so MEDIA-SEQUENCE still rises. A channel's first segment has
 * this number, so that there is room for the gaps.
 */
export const MIN_SEGMENTS = 6;

/** CLASS of a title's DATERANGE. X-TITLE and X-ARTIST carry its texts. */
const TITLE_CLASS = 'veza.now-playing';

/**
 * Skip boundary in target durations (rule 20). A client whose playlist is younger than half of it
 * may ask for a delta update.
 */
const SKIP_TARGET_DURATIONS = 6;
/** Parts are listed only within this many target durations of the end (rule 19). */
const PARTS_TARGET_DURATIONS = 3;
/** RFC 8216bis 6.2.5.2, Advance Part Limit: a request for a part further ahead is refused. */
const ADVANCE_PART_LIMIT_S = 3;
/** Characters of a title or artist in a playlist, at most; the rest is cut. */
const TITLE_MAX_CHARS = 256;

/**
 * The bandwidth that a player has to reserve for a rendition, in bits per second. The container
 * costs 5 kbit/s with parts of 320 ms and 11 with parts of 107 ms (a `moof` of about 120 bytes per
 * part, 4 bytes per frame); titles cost up to 3 more. An encoder holds its bitrate only on average,
 * so one segment may exceed it by a fifth (rule 29).
 */
export function bandwidthOf(rendition: Rendition): { peakBps: number; averageBps: number } {
  return { peakBps: rendition.bitrateKbps * 1200 + 16_000, averageBps: rendition.bitrateKbps * 1000 + 9_000 };
}

/** EXT-X-TARGETDURATION: the segment length, rounded up to whole seconds. */
export function targetDurationS(timeline: MediaTimeline): number {
  return Math.ceil(timeline.grid.segmentSamples / SAMPLE_RATE_HZ);
}

/**
 * The multivariant playlist. Every low-latency rendition is a variant of its own, since audio alone
 * needs no EXT-X-MEDIA groups. `only` restricts it to one codec. `playlist` is the file name in
 * each rendition's folder; the default is `index.m3u8`.
 */
export function renderMultivariant(
  renditions: readonly Rendition[],
  options: { only?: Codec | undefined; playlist?: string | undefined } = {},
): string {
  let text = '#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n';
  for (const rendition of renditions) {
    if (!rendition.lowLatency || (options.only !== undefined && rendition.codec !== options.only)) continue;
    const { peakBps, averageBps } = bandwidthOf(rendition);
    text +=
      `#EXT-X-STREAM-INF:BANDWIDTH=${peakBps},AVERAGE-BANDWIDTH=${averageBps},CODECS="${rendition.codecs}",SCORE=${rendition.score}\n` +
      `${rendition.name}/${options.playlist ?? 'index.m3u8'}\n`;
  }
  return text;
}

/**
 * The live media playlist: the last 30 segments, and the parts of the newest ones. `skip` asks for
 * a delta update; the playlist is one when there are segments to skip. Packed audio (mp3) gets a
 * playlist without low-latency tags.
 */
export function renderMedia(
  timeline: MediaTimeline,
  rendition: Rendition,
  renditions: readonly Rendition[],
  options: { skip: boolean },
): string {
  const progress = progressOf(timeline, rendition.codec);
  const first = firstListed(timeline, progress.openNumber, LIVE_WINDOW_SEGMENTS);
  const titles = titleLines(timeline, liveWindow(timeline, LIVE_WINDOW_SEGMENTS));
  if (!rendition.lowLatency) {
    const header = headerLines(timeline, first, 3) + titles;
    return header + segmentLines(timeline, rendition, first, progress.openNumber - 1, '', first) + endLine(timeline);
  }

  const { grid } = timeline;
  const targetS = targetDurationS(timeline);
  const partTargetS = grid.partSamples / SAMPLE_RATE_HZ;
  const skipped = options.skip && !timeline.ended ? skippable(timeline, rendition.codec, first, progress, targetS) : 0;
  let text =
    // EXT-X-SKIP needs version 9, all other tags need version 6 (RFC 8216bis 8).
    headerLines(timeline, first, skipped > 0 ? 9 : 6) +
    `#EXT-X-PART-INF:PART-TARGET=${seconds(grid.partSamples)}\n` +
    `#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=${targetS * SKIP_TARGET_DURATIONS},` +
    `HOLD-BACK=${targetS * 3},PART-HOLD-BACK=${round(partTargetS * 3)}\n` +
    titles;
  if (skipped > 0) text += `#EXT-X-SKIP:SKIPPED-SEGMENTS=${skipped}\n`;

  const openSamples = samplesOfParts(timeline, rendition.codec, progress.openParts);
  const partsWithinSamples = targetS * PARTS_TARGET_DURATIONS * SAMPLE_RATE_HZ - openSamples;
  // The parts of a segment are all listed or all left out: players number them by counting from the
  // segment's first.
  const firstWithParts = progress.openNumber - Math.floor(partsWithinSamples / grid.segmentSamples);
  const plainUntil = Math.min(progress.openNumber, Math.max(first + skipped, firstWithParts));
  text += segmentLines(timeline, rendition, first + skipped, plainUntil - 1, '', first);
  for (let number = plainUntil; number <= progress.openNumber; number++) {
    const open = number === progress.openNumber;
    if (open && progress.openParts === 0) break;
    const run = runOf(timeline, number);
    text += beginLines(timeline, rendition, run, number, '', first);
    if (!isGap(timeline, number)) {
      text += partLines(timeline, rendition.codec, run, number, open ? progress.openParts : partsPerSegment(grid, rendition.codec));
    }
    if (!open) text += mediaLines(timeline, rendition, run, number, '');
  }
  if (!timeline.ended) {
    const run = runOf(timeline, progress.openNumber);
    text += `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="${partName(run.id, progress.openNumber, progress.openParts)}"\n`;
  }
  for (const other of renditions) {
    if (other.lowLatency && other.name !== rendition.name) text += reportLine(timeline, other);
  }
  return text + endLine(timeline);
}

/**
 * The rewind playlist: complete segments of the last `windowSamples`, without parts and low-latency
 * tags. Old segments leave it, so it has no PLAYLIST-TYPE (rule 3). Two hours are 170 KB, rendered
 * in well under a millisecond, so nothing is cached.
 */
export function renderDvr(timeline: MediaTimeline, rendition: Rendition, windowSamples: number): string {
  const { openNumber } = progressOf(timeline, rendition.codec);
  const segments = Math.max(LIVE_WINDOW_SEGMENTS, Math.floor(windowSamples / timeline.grid.segmentSamples));
  const first = firstListed(timeline, openNumber, segments);
  return (
    headerLines(timeline, first, rendition.lowLatency ? 6 : 3) +
    titleLines(timeline, liveWindow(timeline, segments)) +
    segmentLines(timeline, rendition, first, openNumber - 1, '', first) +
    endLine(timeline)
  );
}

/**
 * The playlist of a recording: complete segments `from`…`to` (inclusive; default: all), without the
 * gaps at the start and the end. `uriPrefix` goes before each media name.
 */
export function renderVod(
  timeline: MediaTimeline,
  rendition: Rendition,
  uriPrefix: string,
  range: { from?: number | undefined; to?: number | undefined } = {},
): string {
  const { from, to } = recordedRange(timeline, rendition.codec, range);
  const window = { fromMs: wallMsOf(timeline, from), toMs: endMsOf(timeline, to) };
  return (
    headerLines(timeline, from, rendition.lowLatency ? 6 : 3) +
    '#EXT-X-PLAYLIST-TYPE:VOD\n' +
    titleLines(timeline, window) +
    segmentLines(timeline, rendition, from, to, uriPrefix, from) +
    '#EXT-X-ENDLIST\n'
  );
}

/**
 * The segment numbers (inclusive) that a recording of the codec lists. When the range has no media,
 * `to` is lower than `from`.
 */
export function recordedRange(
  timeline: MediaTimeline,
  codec: Codec,
  range: { from?: number | undefined; to?: number | undefined } = {},
): { from: number; to: number } {
  let from = Math.max(timeline.firstNumber, range.from ?? timeline.firstNumber);
  let to = Math.min(progressOf(timeline, codec).openNumber - 1, range.to ?? Number.POSITIVE_INFINITY);
  while (from <= to && timeline.gaps.has(from)) from++;
  while (to >= from && timeline.gaps.has(to)) to--;
  return { from, to };
}

/** How to answer a reload: now, as soon as `isReached` is true, or with 400. */
export type Reload =
  | { readonly kind: 'now' }
  | { readonly kind: 'wait'; readonly msn: number; readonly part: number | undefined }
  | { readonly kind: 'bad'; readonly message: string };

/**
 * Delivery directives of a request: `_HLS_msn`, `_HLS_part` and `_HLS_skip` (a value other than YES
 * or v2 has no effect).
 */
export interface ReloadQuery {
  readonly msn?: string | undefined;
  readonly part?: string | undefined;
  readonly skip?: string | undefined;
}

/**
 * Decides how a reload is answered (rules 24–26). Directives are ignored after the end of the
 * playlist, and for packed audio, which does not offer them.
 */
export function decideReload(timeline: MediaTimeline, codec: Codec, query: ReloadQuery): Reload {
  if (timeline.ended || codec === 'mp3') return { kind: 'now' };
  if (query.msn === undefined) {
    return query.part === undefined ? { kind: 'now' } : { kind: 'bad', message: '_HLS_part needs _HLS_msn' };
  }
  const msn = integerOf(query.msn);
  if (msn === undefined) return { kind: 'bad', message: '_HLS_msn is not a non-negative integer' };
  const part = query.part === undefined ? undefined : integerOf(query.part);
  if (query.part !== undefined && part === undefined) return { kind: 'bad', message: '_HLS_part is not a non-negative integer' };

  const { openNumber, openParts } = progressOf(timeline, codec);
  if (msn > openNumber + 1) return { kind: 'bad', message: `_HLS_msn is more than 2 past the last segment, ${openNumber - 1}` };
  if (part !== undefined) {
    const parts = partsPerSegment(timeline.grid, codec);
    const ahead = (msn - openNumber) * parts + part - (openParts - 1);
    if (ahead > (ADVANCE_PART_LIMIT_S * SAMPLE_RATE_HZ) / timeline.grid.partSamples) {
      return { kind: 'bad', message: `_HLS_part is ${ahead} parts past the last one` };
    }
    if (part >= parts) return reached(openNumber, openParts, msn + 1, 0);
  }
  return reached(openNumber, openParts, msn, part);
}

/**
 * Whether segment `msn` is complete; with `part`, whether that part or a later one is published.
 * Always true after the end.
 */
export function isReached(timeline: MediaTimeline, codec: Codec, msn: number, part: number | undefined): boolean {
  if (timeline.ended) return true;
  const { openNumber, openParts } = progressOf(timeline, codec);
  return reached(openNumber, openParts, msn, part).kind === 'now';
}

function reached(openNumber: number, openParts: number, msn: number, part: number | undefined): Reload {
  const there = openNumber > msn || (part !== undefined && openNumber === msn && openParts > part);
  return there ? { kind: 'now' } : { kind: 'wait', msn, part };
}

function integerOf(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Number of the first segment in a live or rewind playlist of at most `segments` segments. */
function firstListed(timeline: MediaTimeline, openNumber: number, segments: number): number {
  return Math.max(0, openNumber - segments, Math.min(timeline.firstNumber, openNumber - MIN_SEGMENTS));
}

const isGap = (timeline: MediaTimeline, number: number) => number < timeline.firstNumber || timeline.gaps.has(number);

function progressOf(timeline: MediaTimeline, codec: Codec): Progress {
  return timeline.progress[codec] ?? { openNumber: timeline.firstNumber, openParts: 0 };
}

/**
 * The number of segments, counted from `first`, that end before the skip boundary (RFC 8216bis
 * 6.2.5.1).
 */
function skippable(timeline: MediaTimeline, codec: Codec, first: number, progress: Progress, targetS: number): number {
  const keepSamples = targetS * SKIP_TARGET_DURATIONS * SAMPLE_RATE_HZ - samplesOfParts(timeline, codec, progress.openParts);
  return Math.max(0, progress.openNumber - Math.ceil(keepSamples / timeline.grid.segmentSamples) - first);
}

function samplesOfParts(timeline: MediaTimeline, codec: Codec, parts: number): number {
  let samples = 0;
  for (let part = 0; part < parts; part++) samples += partDurationSamples(timeline.grid, codec, part);
  return samples;
}

function headerLines(timeline: MediaTimeline, first: number, version: number): string {
  const run = runOf(timeline, first);
  // An EXT-X-DISCONTINUITY that is still listed before the first segment is not counted here (RFC
  // 8216bis 6.2.2).
  const discontinuity = run.discontinuity - (beginsRun(timeline, run, first) ? 1 : 0);
  return (
    `#EXTM3U\n#EXT-X-VERSION:${version}\n#EXT-X-TARGETDURATION:${targetDurationS(timeline)}\n` +
    `#EXT-X-MEDIA-SEQUENCE:${first}\n#EXT-X-DISCONTINUITY-SEQUENCE:${discontinuity}\n`
  );
}

const endLine = (timeline: MediaTimeline) => (timeline.ended ? '#EXT-X-ENDLIST\n' : '');

/** The first run of a broadcast follows no other, so it begins without a discontinuity. */
const beginsRun = (timeline: MediaTimeline, run: Run, number: number) => number === run.firstNumber && run !== timeline.runs[0];

/**
 * Segments `from`…`to` without parts. `first` is the first segment of the whole playlist; it
 * carries MAP and PROGRAM-DATE-TIME.
 */
function segmentLines(timeline: MediaTimeline, rendition: Rendition, from: number, to: number, uriPrefix: string, first: number): string {
  let text = '';
  for (let number = from; number <= to; number++) {
    const run = runOf(timeline, number);
    text += beginLines(timeline, rendition, run, number, uriPrefix, first) + mediaLines(timeline, rendition, run, number, uriPrefix);
  }
  return text;
}

/** Rules 9, 11, 12: the tags before the first segment of a playlist and of a run. */
function beginLines(timeline: MediaTimeline, rendition: Rendition, run: Run, number: number, uriPrefix: string, first: number): string {
  const begins = beginsRun(timeline, run, number);
  if (!begins && number !== first) return '';
  return (
    (begins ? '#EXT-X-DISCONTINUITY\n' : '') +
    (rendition.codec === 'mp3' ? '' : `#EXT-X-MAP:URI="${uriPrefix}${initName(run.id)}"\n`) +
    `#EXT-X-PROGRAM-DATE-TIME:${isoTime(wallMsOf(timeline, number))}\n`
  );
}

function mediaLines(timeline: MediaTimeline, rendition: Rendition, run: Run, number: number, uriPrefix: string): string {
  const gap = isGap(timeline, number) ? '#EXT-X-GAP\n' : '';
  return `${gap}#EXTINF:${seconds(timeline.grid.segmentSamples)},\n${uriPrefix}${segmentName(run.id, number, rendition.codec)}\n`;
}

function partLines(timeline: MediaTimeline, codec: Codec, run: Run, number: number, parts: number): string {
  let text = '';
  for (let part = 0; part < parts; part++) {
    const duration = seconds(partDurationSamples(timeline.grid, codec, part));
    text += `#EXT-X-PART:DURATION=${duration},INDEPENDENT=YES,URI="${partName(run.id, number, part)}"\n`;
  }
  return text;
}

function reportLine(timeline: MediaTimeline, other: Rendition): string {
  const { openNumber, openParts } = progressOf(timeline, other.codec);
  const [msn, part] = openParts > 0 ? [openNumber, openParts - 1] : [openNumber - 1, partsPerSegment(timeline.grid, other.codec) - 1];
  if (msn < 0) return '';
  return `#EXT-X-RENDITION-REPORT:URI="../${other.name}/index.m3u8",LAST-MSN=${msn},LAST-PART=${part}\n`;
}

interface WallWindow {
  readonly fromMs: number;
  readonly toMs: number;
}

/**
 * The time that the live playlists of all codecs cover together. It makes the titles the same in
 * each (rule 15).
 */
function liveWindow(timeline: MediaTimeline, segments: number): WallWindow {
  const all = Object.values(timeline.progress);
  const numbers = all.length > 0 ? all.map((progress) => progress.openNumber) : [timeline.firstNumber];
  return {
    fromMs: wallMsOf(timeline, Math.max(timeline.firstNumber, Math.min(...numbers) - segments)),
    // Up to the end of the open segment, even if few of its parts are published.
    toMs: endMsOf(timeline, Math.max(...numbers)),
  };
}

function endMsOf(timeline: MediaTimeline, number: number): number {
  return wallMsOf(timeline, number) + (timeline.grid.segmentSamples * 1000) / SAMPLE_RATE_HZ;
}

/**
 * The DATERANGE tags of the titles that are heard within the window. Each title lasts until the
 * next begins. A tag never changes while it is listed.
 */
function titleLines(timeline: MediaTimeline, window: WallWindow): string {
  let text = '';
  const { titles } = timeline;
  for (const [index, title] of titles.entries()) {
    const endMs = titles[index + 1]?.startWallMs ?? Number.POSITIVE_INFINITY;
    if (endMs <= window.fromMs || title.startWallMs >= window.toMs) continue;
    text +=
      `#EXT-X-DATERANGE:ID="${quotable(title.id)}",CLASS="${TITLE_CLASS}",START-DATE="${isoTime(title.startWallMs)}",` +
      `END-ON-NEXT=YES,X-TITLE="${quotable(title.title)}"` +
      `${title.artist === undefined ? '' : `,X-ARTIST="${quotable(title.artist)}"`}\n`;
  }
  return text;
}

/**
 * A quoted-string may contain neither quotes nor line breaks, and there is no way to escape them
 * (RFC 8216bis 4.2).
 */
function quotable(text: string): string {
  const cut = text.length > TITLE_MAX_CHARS ? text.slice(0, TITLE_MAX_CHARS) : text;
  return cut
    .normalize('NFC')
    .replaceAll('"', "'")
    .replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]+/gu, ' ');
}

const isoTime = (wallMs: number) => new Date(Math.round(wallMs)).toISOString();
const round = (value: number) => String(Math.round(value * 1e5) / 1e5);
const seconds = (samples: number) => round(samples / SAMPLE_RATE_HZ);
