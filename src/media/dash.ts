import { bandwidthOf, recordedRange } from './hls.js';
import { CHANNELS, type Codec, type Rendition, SAMPLE_RATE_HZ } from './ladder.js';
import { initName, type MediaTimeline, mediaTimeOf, type Run, wallMsOf } from './timeline.js';

/**
 * DASH manifests (ISO/IEC 23009-1, DASH-IF low-latency live) as functions of the timeline. Players
 * compute segment numbers from the clock. A live MPD therefore changes only when a run begins, a
 * Period leaves the window, or the broadcast ends.
 *
 * `availabilityStartTime` is the start of the broadcast's first segment, so `timeline.runs[0]` must
 * be kept while the broadcast lasts.
 */

/**
 * Parts are published 75–107 ms after their nominal time. A player that follows the MPD must never
 * ask before that.
 */
const PUBLISH_MARGIN_MS = 200;
/** A player asks for new Periods at least this often. */
const UPDATE_PERIOD_MS = 2000;
/**
 * The latency beside three parts in the player: capture, encoder and transfer, as measured in
 * trials. dash.js held 1.5 s at parts of 320 ms.
 */
const LATENCY_BASE_MS = 540;

/**
 * Ticks per second in SegmentTemplate: a power of two, so that a player's arithmetic in binary
 * fractions is exact. 92160/48000 s is not: eleven of them are 21.119999999999997. Shaka (5.1–5.2,
 * 4.16) divides that by 1.92, rounds down, looks for the segment before, does not find it, and
 * waits for ever. A segment is 1.8 ns longer in ticks than in samples: 30 ms in a year.
 */
const TIMESCALE = 2 ** 26;

const ID3_EVENTS = 'https://aomedia.org/emsg/ID3';
/** A player that supports both prefers AAC, as with SCORE in HLS. */
const CODEC_PRIORITY: Readonly<Record<Codec, number>> = { aac: 2, opus: 1, mp3: 0 };
/** AdaptationSet@id. An update never changes it, even if the ladder leaves out a codec. */
const CODEC_SET_ID: Readonly<Record<Codec, number>> = { aac: 1, opus: 2, mp3: 3 };

/** Consecutive segments of one run: a Period. */
interface Stretch {
  readonly run: Run;
  readonly from: number;
  /** Inclusive; undefined while the run is on air. */
  readonly to: number | undefined;
}

/** The latency from microphone to listener that the MPD asks a player for, in milliseconds. */
export function targetLatencyMs(timeline: MediaTimeline): number {
  const partMs = (timeline.grid.partSamples * 1000) / SAMPLE_RATE_HZ;
  return Math.round((partMs * 3 + LATENCY_BASE_MS) / 10) * 10;
}

/**
 * The live MPD, `windowSamples` deep. After the end of the broadcast it has a fixed duration and
 * asks for no further update, as DASH-IF specifies. `utcTimingUrl` answers with an xs:dateTime.
 */
export function renderMpd(
  timeline: MediaTimeline,
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
  // The depth is at most the age of the broadcast. Otherwise ffmpeg's demuxer computes a negative
  // oldest segment as an unsigned number and plays in circles.
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
 * The MPD of a recording: segments `from`…`to` (inclusive) without gaps, so that its Periods follow
 * each other directly. `uriPrefix` goes before the folder of the rendition.
 */
export function renderVodMpd(
  timeline: MediaTimeline,
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
 * The runs up to segment `last`, each without the gaps at its start and end. Without `last` the
 * newest run is still growing. A gap inside a run does not split its Period: a gap can be found
 * later (a segment that could not be stored), and a split would change Periods that are being
 * played.
 */
function runStretches(timeline: MediaTimeline, last: number | undefined): Stretch[] {
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

/** The same for a recording, which no longer changes: every gap splits the Period. */
function wholeStretches(timeline: MediaTimeline, last: number): Stretch[] {
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

function period(timeline: MediaTimeline, renditions: readonly Rendition[], stretch: Stretch, options: PeriodOptions): string {
  const segmentTicks = ticks(timeline.grid.segmentSamples);
  const length = stretch.to === undefined ? undefined : exactDuration((stretch.to - stretch.from + 1) * segmentTicks);
  // One AdaptationSet per codec: players do not switch codec inside an AdaptationSet.
  const codecs = [...new Set(renditions.filter((rendition) => rendition.lowLatency).map((rendition) => rendition.codec))];
  const sets = codecs.map((codec) => adaptationSet(timeline, renditions, codec, stretch, options)).join('');
  const attributes = { id: `${stretch.run.id}-${stretch.from}`, start: exactDuration(options.startTicks), duration: length };
  return `<Period${attributesOf(attributes)}>\n${sets}</Period>\n`;
}

function adaptationSet(
  timeline: MediaTimeline,
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
      // A player may ask for a segment as soon as its first part is published. The answer then goes
      // on as parts are made.
      availabilityTimeOffset: decimal(samplesMs(timeline.grid.segmentSamples) / 1000 - (live.partMs + PUBLISH_MARGIN_MS) / 1000),
      availabilityTimeComplete: 'false',
    }),
  });
  const producerReference =
    live === undefined
      ? ''
      : // Shaka reads wallClockTime as NTP unless the element names the scheme; dash.js needs a
        // numeric id.
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
/**
 * Escapes an attribute value. XML 1.0 §2.2 cannot express control characters, so they become
 * spaces.
 */
function escapeXml(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ').replace(/[&<>"]/g, (char) => ESCAPES[char] ?? '');
}

const segmentDuration = (timeline: MediaTimeline) => duration(samplesMs(timeline.grid.segmentSamples));
const samplesMs = (samples: number) => (samples * 1000) / SAMPLE_RATE_HZ;
const ticks = (samples: number) => Math.round((samples * TIMESCALE) / SAMPLE_RATE_HZ);
/** A duration with enough digits that it is parsed as exactly the same number. */
const exactDuration = (count: number) => `PT${count / TIMESCALE}S`;
const decimal = (value: number) => String(Math.round(value * 1e5) / 1e5);
const duration = (ms: number) => `PT${decimal(ms / 1000)}S`;
const isoTime = (wallMs: number) => new Date(Math.round(wallMs)).toISOString();
