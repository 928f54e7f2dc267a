import { bandwidthOf, recordedRange } from './hls.js';
import { CHANNELS, type Codec, type Rendition, SAMPLE_RATE_HZ } from './ladder.js';
import { initName, mediaTimeOf, type Run, type Timeline, wallMsOf } from './timeline.js';

/**
 * DASH manifests (ISO/IEC 23009-1, DASH-IF low-latency live) as functions of the timeline. Segments are addressed by number,
 * which is arithmetic on the clock, so a live MPD changes only when a run begins, a Period leaves the window, or it ends.
 *
 * `availabilityStartTime` is the start of the broadcast's first segment; so `timeline.runs[0]` must stay for as long as the
 * broadcast does.
 */

/** Parts are out 75–107 ms after their nominal time; a player that trusts the MPD must never ask before. */
const PUBLISH_MARGIN_MS = 200;
/** A player looks for a new Period at least this often. */
const UPDATE_PERIOD_MS = 2000;
/** Latency = 3 parts in the player + what capture, encoder and transfer took in trials: dash.js held 1.5 s at 320 ms parts. */
const LATENCY_BASE_MS = 540;

/**
 * Ticks a second in SegmentTemplate: a power of two, so that a player's arithmetic in binary fractions is exact. 92160/48000 s is not
 * one: eleven of them are 21.119999999999997, and Shaka (5.1–5.2, 4.16), which divides that by 1.92 and rounds down, looks for the
 * segment before, does not find it, and waits for ever. One segment is 1.8 ns longer in ticks than in samples: 30 ms in a year.
 */
const TIMESCALE = 2 ** 26;

const ID3_EVENTS = 'https://aomedia.org/emsg/ID3';
/** Players prefer AAC when they can play both, as SCORE says in HLS. */
const CODEC_PRIORITY: Readonly<Record<Codec, number>> = { aac: 2, opus: 1, mp3: 0 };
/** AdaptationSet@id: never changes on update, whatever the ladder leaves out. */
const CODEC_SET_ID: Readonly<Record<Codec, number>> = { aac: 1, opus: 2, mp3: 3 };

/** Segments of one run, in a row: a Period. */
interface Stretch {
  readonly run: Run;
  readonly from: number;
  /** Inclusive; undefined while it grows. */
  readonly to: number | undefined;
}

/** Milliseconds between microphone and ear that the MPD asks a player for. */
export function targetLatencyMs(timeline: Timeline): number {
  const partMs = (timeline.grid.partSamples * 1000) / SAMPLE_RATE_HZ;
  return Math.round((partMs * 3 + LATENCY_BASE_MS) / 10) * 10;
}

/**
 * The live MPD, `windowSamples` deep. Ended: the same with a fixed duration and no further update, as DASH-IF has it.
 * `utcTimingUrl` answers an xs:dateTime.
 */
export function renderMpd(
  timeline: Timeline,
  renditions: readonly Rendition[],
  options: { utcTimingUrl: string; windowSamples: number },
): string {
  const { grid } = timeline;
  const openNumber = Math.max(timeline.firstNumber, ...Object.values(timeline.progress).map((progress) => progress.openNumber));
  const oldest = openNumber - Math.floor(options.windowSamples / grid.segmentSamples);
  const all = runStretches(timeline, timeline.ended ? openNumber - 1 : undefined);
  const kept = all.filter((stretch) => stretch.to === undefined || stretch.to >= oldest);
  const startMs = Math.round(wallMsOf(timeline, timeline.firstNumber));
  const partMs = (grid.partSamples * 1000) / SAMPLE_RATE_HZ;
  const latencyMs = targetLatencyMs(timeline);
  const last = all.at(-1);
  const endMs =
    last?.to === undefined ? undefined : wallMsOf(timeline, last.from) + samplesMs((last.to - last.from + 1) * grid.segmentSamples);
  // Not deeper than the show is old: ffmpeg's demuxer reckons the oldest segment without a sign, and plays in circles otherwise.
  const shownMs = Math.floor(wallMsOf(timeline, openNumber)) - startMs;
  const publishMs = last === undefined ? startMs : wallMsOf(timeline, last.from);
  return mpd(
    {
      type: 'dynamic',
      availabilityStartTime: isoTime(startMs),
      publishTime: isoTime(endMs ?? publishMs),
      ...(timeline.ended
        ? { mediaPresentationDuration: duration((endMs ?? startMs) - startMs) }
        : { minimumUpdatePeriod: duration(UPDATE_PERIOD_MS) }),
      timeShiftBufferDepth: duration(Math.max(partMs, Math.min((options.windowSamples * 1000) / SAMPLE_RATE_HZ, shownMs))),
      suggestedPresentationDelay: duration(latencyMs),
      minBufferTime: duration(partMs * 3),
      maxSegmentDuration: segmentDuration(timeline),
    },
    `<ServiceDescription id="1"><Latency referenceId="1" target="${latencyMs}" min="${Math.round(latencyMs * 0.6)}" ` +
      `max="${latencyMs + 2500}"/><PlaybackRate min="0.95" max="1.05"/></ServiceDescription>\n` +
      kept
        .map((stretch) =>
          period(timeline, renditions, stretch, {
            startTicks: Math.round(((wallMsOf(timeline, stretch.from) - startMs) / 1000) * TIMESCALE),
            uriPrefix: '',
            live: { partMs, utcTimingUrl: options.utcTimingUrl },
          }),
        )
        .join('') +
      utcTiming('http-xsdate', options.utcTimingUrl) +
      utcTiming('http-iso', options.utcTimingUrl),
  );
}

/**
 * A recording: segments `from`…`to` (inclusive) without what lies between runs, so its Periods follow each other without a
 * hole. `uriPrefix` goes before the rendition's folder.
 */
export function renderVodMpd(
  timeline: Timeline,
  renditions: readonly Rendition[],
  options: { from?: number | undefined; to?: number | undefined; uriPrefix: string },
): string {
  const shown = renditions.filter((rendition) => rendition.lowLatency);
  const ranges = shown.map((rendition) => recordedRange(timeline, rendition.codec, options));
  const from = Math.max(timeline.firstNumber, ...ranges.map((range) => range.from));
  const to = ranges.length === 0 ? from - 1 : Math.min(...ranges.map((range) => range.to));
  let startTicks = 0;
  let periods = '';
  for (const stretch of wholeStretches(timeline, to)) {
    const cut = { run: stretch.run, from: Math.max(from, stretch.from), to: Math.min(to, stretch.to ?? to) };
    if (cut.to < cut.from) continue;
    periods += period(timeline, renditions, cut, { startTicks, uriPrefix: options.uriPrefix, live: undefined });
    startTicks += (cut.to - cut.from + 1) * ticks(timeline.grid.segmentSamples);
  }
  return mpd(
    {
      type: 'static',
      mediaPresentationDuration: exactDuration(startTicks),
      minBufferTime: segmentDuration(timeline),
      maxSegmentDuration: segmentDuration(timeline),
    },
    periods,
  );
}

/**
 * The runs up to `last` without the gaps at their ends; without `last` the newest is still growing. Nothing is cut at a gap
 * within a run: one that is found later (a segment that could not be stored) would change Periods that players are in.
 */
function runStretches(timeline: Timeline, last: number | undefined): Stretch[] {
  const found: Stretch[] = [];
  for (const [index, run] of timeline.runs.entries()) {
    const next = timeline.runs[index + 1];
    let to = next === undefined ? last : Math.min(next.firstNumber - 1, last ?? Number.POSITIVE_INFINITY);
    let from = index === 0 ? timeline.firstNumber : run.firstNumber;
    while (timeline.gaps.has(from)) from++;
    while (to !== undefined && to >= from && timeline.gaps.has(to)) to--;
    if (to === undefined || from <= to) found.push({ run, from, to });
  }
  return found;
}

/** For a recording, to which nothing happens any more: cut at every gap. */
function wholeStretches(timeline: Timeline, last: number): Stretch[] {
  const found: Stretch[] = [];
  for (const { run, from, to = last } of runStretches(timeline, last)) {
    let start = from;
    for (let number = from; number <= to; number++) {
      if (!timeline.gaps.has(number)) continue;
      if (number > start) found.push({ run, from: start, to: number - 1 });
      start = number + 1;
    }
    found.push({ run, from: start, to });
  }
  return found;
}

interface PeriodOptions {
  readonly startTicks: number;
  readonly uriPrefix: string;
  readonly live: { readonly partMs: number; readonly utcTimingUrl: string } | undefined;
}

function period(timeline: Timeline, renditions: readonly Rendition[], stretch: Stretch, options: PeriodOptions): string {
  const segmentTicks = ticks(timeline.grid.segmentSamples);
  const length = stretch.to === undefined ? undefined : exactDuration((stretch.to - stretch.from + 1) * segmentTicks);
  // One AdaptationSet a codec: a player does not switch between codecs within one.
  const codecs = [...new Set(renditions.filter((rendition) => rendition.lowLatency).map((rendition) => rendition.codec))];
  const sets = codecs.map((codec) => adaptationSet(timeline, renditions, codec, stretch, options)).join('');
  const attributes = { id: `${stretch.run.id}-${stretch.from}`, start: exactDuration(options.startTicks), duration: length };
  return `<Period${attributesOf(attributes)}>\n${sets}</Period>\n`;
}

function adaptationSet(
  timeline: Timeline,
  renditions: readonly Rendition[],
  codec: Codec,
  stretch: Stretch,
  { uriPrefix, live }: PeriodOptions,
): string {
  const mediaTime = ticks(mediaTimeOf(timeline, stretch.from));
  const template = attributesOf({
    timescale: TIMESCALE,
    duration: ticks(timeline.grid.segmentSamples),
    startNumber: stretch.from,
    presentationTimeOffset: mediaTime,
    initialization: `${uriPrefix}$RepresentationID$/${initName(stretch.run.id)}`,
    media: `${uriPrefix}$RepresentationID$/${stretch.run.id}-$Number$.m4s`,
    ...(live && {
      // The segment may be asked for when its first part is out; the rest follows as it is made.
      availabilityTimeOffset: decimal(samplesMs(timeline.grid.segmentSamples) / 1000 - (live.partMs + PUBLISH_MARGIN_MS) / 1000),
      availabilityTimeComplete: 'false',
    }),
  });
  const producerReference =
    live === undefined
      ? ''
      : // Shaka reads wallClockTime as NTP unless the scheme is named inside; dash.js wants a numeric id.
        `<ProducerReferenceTime${attributesOf({
          id: 1,
          type: 'encoder',
          wallClockTime: isoTime(wallMsOf(timeline, stretch.from)),
          presentationTime: mediaTime,
        })}>${utcTiming('http-xsdate', live.utcTimingUrl).trimEnd()}</ProducerReferenceTime>\n`;
  const representations = renditions
    .filter((rendition) => rendition.codec === codec && rendition.lowLatency)
    .map(
      (rendition) =>
        `<Representation${attributesOf({ id: rendition.name, bandwidth: bandwidthOf(rendition).peakBps, codecs: rendition.codecs })}/>\n`,
    )
    .join('');
  const attributes = attributesOf({
    id: CODEC_SET_ID[codec],
    contentType: 'audio',
    mimeType: 'audio/mp4',
    audioSamplingRate: SAMPLE_RATE_HZ,
    segmentAlignment: 'true',
    startWithSAP: 1,
    selectionPriority: CODEC_PRIORITY[codec],
  });
  return (
    `<AdaptationSet${attributes}>\n` +
    `<AudioChannelConfiguration schemeIdUri="urn:mpeg:mpegB:cicp:ChannelConfiguration" value="${CHANNELS}"/>\n` +
    `<InbandEventStream schemeIdUri="${ID3_EVENTS}" value=""/>\n` +
    producerReference +
    '<Role schemeIdUri="urn:mpeg:dash:role:2011" value="main"/>\n' +
    `<SegmentTemplate${template}/>\n${representations}</AdaptationSet>\n`
  );
}

type Attributes = Readonly<Record<string, string | number | undefined>>;

function mpd(attributes: Attributes, content: string): string {
  const all = { xmlns: 'urn:mpeg:dash:schema:mpd:2011', profiles: 'urn:mpeg:dash:profile:isoff-live:2011', ...attributes };
  return `<?xml version="1.0" encoding="UTF-8"?>\n<MPD${attributesOf(all)}>\n${content}</MPD>\n`;
}

const utcTiming = (scheme: string, url: string) =>
  `<UTCTiming${attributesOf({ schemeIdUri: `urn:mpeg:dash:utc:${scheme}:2014`, value: url })}/>\n`;

function attributesOf(attributes: Attributes): string {
  let text = '';
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) text += ` ${name}="${escapeXml(String(value))}"`;
  return text;
}

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
/** For attribute values; XML 1.0 §2.2 has no way to write a control character. */
function escapeXml(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ').replace(/[&<>"]/g, (char) => ESCAPES[char] ?? '');
}

const segmentDuration = (timeline: Timeline) => duration(samplesMs(timeline.grid.segmentSamples));
const samplesMs = (samples: number) => (samples * 1000) / SAMPLE_RATE_HZ;
const ticks = (samples: number) => Math.round((samples * TIMESCALE) / SAMPLE_RATE_HZ);
/** As many digits as it takes to be read as the same number again. */
const exactDuration = (count: number) => `PT${count / TIMESCALE}S`;
const decimal = (value: number) => String(Math.round(value * 1e5) / 1e5);
const duration = (ms: number) => `PT${decimal(ms / 1000)}S`;
const isoTime = (wallMs: number) => new Date(Math.round(wallMs)).toISOString();
