import { checkInit, checkMedia, type InitFacts } from './cmaf.js';
import { checkHeaders, type Observation, pathOf, type Report, textOf } from './report.js';
import { childOf, childrenOf, parseXml, type XmlElement } from './xml.js';

/**
 * The rules for a DASH presentation. They are checked on observed requests, without I/O.
 *
 * - D1: the text is well-formed XML, and an MPD with Periods.
 * - D2: a dynamic MPD has availabilityStartTime, which never changes.
 * - D3: a live MPD has a UTCTiming that answers with a date.
 * - D4: SegmentTemplate addresses by $Number$, with duration, timescale and initialization.
 * - D5: live, availabilityTimeOffset lies between 0 and the segment's duration, and
 *   availabilityTimeComplete is false.
 * - D6: live, ServiceDescription has a latency and a playback rate.
 * - D7: live, ProducerReferenceTime agrees with the Period.
 * - D8: live, minimumUpdatePeriod is at most 5 s. Ended or static, there is a
 *   mediaPresentationDuration and no minimumUpdatePeriod.
 * - D9: Periods have an id and an explicit start, and do not overlap.
 * - D10: an update changes no value of a known id, and the end is final.
 * - D11: an AdaptationSet has one codec, each Representation has CODECS, and none is MP3.
 * - D12: there is an InbandEventStream for ID3.
 * - D13: announced media exists, and its tfdt is what its number says.
 *
 * Rules 32 and 33 (fMP4) and H1 to H4 (headers) apply as they do for HLS.
 */

export interface DashSegment {
  readonly url: string;
  readonly initUrl: string;
  readonly number: number;
  readonly representation: string;
  /** Media time of the segment's start, in units of `timescale`. */
  readonly mediaTime: number;
  /** In units of `timescale`. */
  readonly duration: number;
  readonly timescale: number;
}

const number = (element: XmlElement | undefined, name: string): number => Number(element?.attributes.get(name) ?? Number.NaN);
const text = (element: XmlElement | undefined, name: string): string | undefined => element?.attributes.get(name);

/** Returns an xs:duration without years and months in milliseconds, or NaN. */
export function durationMs(value: string | undefined): number {
  const match = /^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$/.exec(value ?? '');
  if (!match || value === 'P') return Number.NaN;
  const [days, hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0));
  return (((days! * 24 + hours!) * 60 + minutes!) * 60 + seconds!) * 1000;
}

/** Returns the MPD, or undefined when the text is not one. */
export function readMpd(body: string): XmlElement | undefined {
  const root = parseXml(body);
  return typeof root === 'string' || root.name !== 'MPD' ? undefined : root;
}

const isLive = (mpd: XmlElement) => text(mpd, 'type') === 'dynamic' && text(mpd, 'mediaPresentationDuration') === undefined;

export function checkDash(observations: readonly Observation[], report: Report): void {
  const manifests: { observation: Observation; mpd: XmlElement }[] = [];
  for (const observation of observations) {
    if (!/\.mpd$/.test(pathOf(observation.url))) continue;
    const where = pathOf(observation.url);
    checkHeaders(observation, 'manifest', report);
    if (observation.status !== 200) continue;
    report.count('MPDs');
    const root = parseXml(textOf(observation));
    if (typeof root === 'string') report.breach('D1', where, root);
    else if (root.name !== 'MPD') report.breach('D1', where, `the root is <${root.name}>`);
    else {
      checkMpd(root, where, report);
      const previous = manifests.at(-1);
      if (previous) compareMpds(previous.mpd, root, where, report);
      manifests.push({ observation, mpd: root });
    }
  }
  checkClock(manifests, observations, report);
  checkSegments(manifests, observations, report);
}

/** Checks one MPD: rules D1, D2, D4 to D9, D11 and D12. */
function checkMpd(mpd: XmlElement, where: string, report: Report): void {
  const breach = (rule: string, message: string) => report.breach(rule, where, message);
  const dynamic = text(mpd, 'type') === 'dynamic';
  const live = isLive(mpd);
  const periods = childrenOf(mpd, 'Period');
  if (periods.length === 0) breach('D1', 'no Period');
  const startMs = Date.parse(text(mpd, 'availabilityStartTime') ?? '');
  if (dynamic && Number.isNaN(startMs)) breach('D2', 'no availabilityStartTime');
  const updateMs = durationMs(text(mpd, 'minimumUpdatePeriod'));
  if (live && !(updateMs <= 5000)) breach('D8', `minimumUpdatePeriod is ${text(mpd, 'minimumUpdatePeriod')}`);
  if (!live && text(mpd, 'minimumUpdatePeriod') !== undefined) breach('D8', 'minimumUpdatePeriod, though nothing will be updated');
  if (!live && !(durationMs(text(mpd, 'mediaPresentationDuration')) > 0)) breach('D8', 'no mediaPresentationDuration');
  if (live) {
    const service = childOf(mpd, 'ServiceDescription');
    if (!(number(childOf(service, 'Latency'), 'target') > 0)) breach('D6', 'no ServiceDescription with a Latency target');
    if (!(number(childOf(service, 'PlaybackRate'), 'max') > 1)) breach('D6', 'no PlaybackRate above 1');
  }
  let previousEndMs = 0;
  const ids = new Set<string>();
  for (const period of periods) {
    const id = text(period, 'id');
    if (id === undefined || ids.has(id)) breach('D9', `Period id ${id} is missing or there twice`);
    ids.add(id ?? '');
    const periodMs = durationMs(text(period, 'start'));
    if (Number.isNaN(periodMs)) breach('D9', `Period ${id} without an explicit start`);
    // Tolerance: the values are written to 10 µs.
    if (periodMs < previousEndMs - 0.02) breach('D9', `Period ${id} begins before the one before it ends`);
    previousEndMs = periodMs + (durationMs(text(period, 'duration')) || 0);
    for (const set of childrenOf(period, 'AdaptationSet'))
      checkAdaptationSet(set, { live, startMs: startMs + periodMs }, `${where} Period ${id}`, report);
  }
}

function checkAdaptationSet(set: XmlElement, context: { live: boolean; startMs: number }, where: string, report: Report): void {
  const breach = (rule: string, message: string) => report.breach(rule, `${where} AdaptationSet ${text(set, 'id')}`, message);
  const representations = childrenOf(set, 'Representation');
  const families = new Set<string>();
  for (const representation of representations) {
    const codecs = text(representation, 'codecs') ?? text(set, 'codecs');
    if (codecs === undefined) breach('D11', `Representation ${text(representation, 'id')} without codecs`);
    else families.add(codecs.split('.', 1)[0]!);
    if (codecs === 'mp4a.40.34' || codecs === 'mp4a.6B') breach('D11', 'MP3 in fragmented MP4');
  }
  if (families.size > 1) breach('D11', `codecs ${[...families].join(' and ')} together`);
  if (childrenOf(set, 'InbandEventStream').every((stream) => text(stream, 'schemeIdUri') !== 'https://aomedia.org/emsg/ID3')) {
    breach('D12', 'no InbandEventStream for ID3');
  }
  const template = childOf(set, 'SegmentTemplate') ?? childOf(representations[0], 'SegmentTemplate');
  const [timescale, duration] = [number(template, 'timescale'), number(template, 'duration')];
  if (!text(template, 'media')?.includes('$Number$') || !text(template, 'initialization') || !(timescale > 0) || !(duration > 0)) {
    breach('D4', 'no SegmentTemplate by $Number$ with timescale, duration and initialization');
    return;
  }
  if (Number.isNaN(number(template, 'startNumber'))) breach('D4', 'no startNumber');
  if (!context.live) return;
  const offsetS = number(template, 'availabilityTimeOffset');
  // Tolerance of one millisecond: a duration in binary ticks is slightly longer than intended.
  if (!(offsetS > 0 && offsetS < duration / timescale - 0.001))
    breach('D5', `availabilityTimeOffset is ${text(template, 'availabilityTimeOffset')}`);
  if (text(template, 'availabilityTimeComplete') !== 'false') breach('D5', 'availabilityTimeComplete is not false');
  const reference = childOf(set, 'ProducerReferenceTime') ?? childOf(representations[0], 'ProducerReferenceTime');
  const wallMs = Date.parse(text(reference, 'wallClockTime') ?? '');
  const offset = number(template, 'presentationTimeOffset') || 0;
  const expectedMs = context.startMs + ((number(reference, 'presentationTime') - offset) * 1000) / timescale;
  if (!reference) breach('D7', 'no ProducerReferenceTime');
  else if (!(Math.abs(wallMs - expectedMs) <= 50))
    breach('D7', `ProducerReferenceTime is ${Math.round(wallMs - expectedMs)} ms off the Period`);
}

/**
 * Checks an update of the MPD, rules D2 and D10: it may add Periods, end the last one and drop old
 * ones. Nothing else may change.
 */
function compareMpds(before: XmlElement, after: XmlElement, where: string, report: Report): void {
  if (text(before, 'type') === 'dynamic' && text(after, 'availabilityStartTime') !== text(before, 'availabilityStartTime')) {
    report.breach('D2', where, 'availabilityStartTime changed');
  }
  if (!isLive(before) && isLive(after)) report.breach('D10', where, 'it was ended, and goes on');
  const later = new Map(childrenOf(after, 'Period').map((period) => [text(period, 'id'), period]));
  let seen = false;
  for (const old of childrenOf(before, 'Period')) {
    const id = text(old, 'id');
    const now = later.get(id);
    if (!now) {
      if (seen) report.breach('D10', where, `Period ${id} vanished from the middle`);
      continue;
    }
    seen = true;
    const said = fixedOf(old);
    const says = new Map(fixedOf(now));
    for (const [what, value] of said)
      if (says.get(what) !== value) report.breach('D10', where, `Period ${id}: ${what} was ${value}, is ${says.get(what)}`);
  }
  if (!seen && later.size > 0) report.breach('D10', where, 'no Period is the same as before');
}

/** Returns the values of a Period that must never change. */
function fixedOf(period: XmlElement): [what: string, value: string][] {
  const fixed: [string, string][] = [['start', text(period, 'start') ?? '']];
  const length = text(period, 'duration');
  if (length !== undefined) fixed.push(['duration', length]);
  for (const set of childrenOf(period, 'AdaptationSet')) {
    const representations = childrenOf(set, 'Representation');
    const name = `AdaptationSet ${text(set, 'id')}`;
    fixed.push([name, representations.map((one) => `${text(one, 'id')} ${text(one, 'codecs')} ${text(one, 'bandwidth')}`).join(', ')]);
    const template = childOf(set, 'SegmentTemplate');
    for (const attribute of ['media', 'initialization', 'startNumber', 'presentationTimeOffset', 'timescale', 'duration']) {
      fixed.push([`${name} ${attribute}`, text(template, attribute) ?? '']);
    }
  }
  return fixed;
}

/** Returns the address of the clock, resolved against that of the MPD. */
export function clockUrl(mpd: XmlElement, base: string): string | undefined {
  const timing = childrenOf(mpd, 'UTCTiming').find((one) => /^urn:mpeg:dash:utc:http-(xsdate|iso):/.test(text(one, 'schemeIdUri') ?? ''));
  const value = text(timing, 'value')?.split(/\s+/, 1)[0];
  return value === undefined ? undefined : resolve(value, base);
}

/** Checks the clock: rule D3. */
function checkClock(
  manifests: readonly { observation: Observation; mpd: XmlElement }[],
  observations: readonly Observation[],
  report: Report,
): void {
  for (const { observation, mpd } of manifests) {
    if (!isLive(mpd)) continue;
    const where = pathOf(observation.url);
    const url = clockUrl(mpd, observation.url);
    if (url === undefined) {
      report.breach('D3', where, 'no UTCTiming over HTTP');
      continue;
    }
    for (const answer of observations.filter((candidate) => candidate.url === url)) {
      report.count('clock readings');
      if (answer.status !== 200) report.breach('D3', pathOf(url), `UTCTiming answered ${answer.status}`);
      else if (Number.isNaN(Date.parse(textOf(answer).trim()))) report.breach('D3', pathOf(url), 'UTCTiming is not a date');
    }
  }
}

/** How the segments of one Representation in one Period are addressed. */
interface Addressing {
  readonly representation: string;
  readonly initUrl: string;
  /** The address of a segment before its number. */
  readonly prefix: string;
  /** The address of a segment after its number. */
  readonly suffix: string;
  readonly startNumber: number;
  readonly mediaTime: number;
  readonly duration: number;
  readonly timescale: number;
  readonly availabilityOffsetMs: number;
  readonly periodMs: number;
  readonly lengthMs: number;
}

/** An MPD is checked up to this many pairs of Period and Representation. */
const MAX_ADDRESSINGS = 2000;

function addressings(mpd: XmlElement, base: string): Addressing[] {
  const found: Addressing[] = [];
  const totalMs = durationMs(text(mpd, 'mediaPresentationDuration'));
  const periods = childrenOf(mpd, 'Period');
  for (const [index, period] of periods.entries()) {
    const periodMs = durationMs(text(period, 'start')) || 0;
    const nextMs = durationMs(text(periods[index + 1], 'start'));
    const lengths = [durationMs(text(period, 'duration')), nextMs - periodMs, totalMs - periodMs];
    for (const set of childrenOf(period, 'AdaptationSet')) {
      const template = childOf(set, 'SegmentTemplate');
      const [timescale, duration] = [number(template, 'timescale'), number(template, 'duration')];
      if (!template || !(timescale > 0) || !(duration > 0)) continue;
      for (const representation of childrenOf(set, 'Representation')) {
        if (found.length >= MAX_ADDRESSINGS) return found;
        const id = text(representation, 'id') ?? '';
        const fill = (pattern: string) =>
          pattern.replaceAll('$RepresentationID$', id).replaceAll('$Bandwidth$', text(representation, 'bandwidth') ?? '');
        const [before = '', after = ''] = fill(text(template, 'media') ?? '').split('$Number$');
        found.push({
          representation: id,
          initUrl: resolve(fill(text(template, 'initialization') ?? ''), base),
          prefix: resolve(before, base),
          suffix: after,
          startNumber: number(template, 'startNumber') || 1,
          mediaTime: number(template, 'presentationTimeOffset') || 0,
          duration,
          timescale,
          availabilityOffsetMs: (number(template, 'availabilityTimeOffset') || 0) * 1000,
          periodMs,
          lengthMs: lengths.find((value) => !Number.isNaN(value)) ?? Number.POSITIVE_INFINITY,
        });
      }
    }
  }
  return found;
}

function segmentAt(addressing: Addressing, position: number): DashSegment {
  const { startNumber, duration } = addressing;
  return {
    url: `${addressing.prefix}${startNumber + position}${addressing.suffix}`,
    initUrl: addressing.initUrl,
    number: startNumber + position,
    representation: addressing.representation,
    mediaTime: addressing.mediaTime + position * duration,
    duration,
    timescale: addressing.timescale,
  };
}

/**
 * Returns the segments that an MPD announces at a moment of its clock, newest last: of each
 * Representation and Period at most `limit`. The last segment may be unfinished.
 */
export function announced(mpd: XmlElement, base: string, nowMs: number, limit: number): DashSegment[] {
  const dynamic = text(mpd, 'type') === 'dynamic';
  const startMs = dynamic ? Date.parse(text(mpd, 'availabilityStartTime') ?? '') : 0;
  const depthMs = durationMs(text(mpd, 'timeShiftBufferDepth'));
  const found: DashSegment[] = [];
  for (const addressing of addressings(mpd, base)) {
    const { periodMs, lengthMs, availabilityOffsetMs } = addressing;
    const segmentMs = (addressing.duration * 1000) / addressing.timescale;
    const inPeriodMs = nowMs - startMs - periodMs;
    const byClock = dynamic ? Math.floor((inPeriodMs - segmentMs + availabilityOffsetMs) / segmentMs) : Number.POSITIVE_INFINITY;
    const last = Math.min(byClock, Math.ceil(lengthMs / segmentMs - 0.001) - 1);
    const oldest = dynamic && !Number.isNaN(depthMs) ? Math.ceil((inPeriodMs - depthMs) / segmentMs) : 0;
    if (!Number.isFinite(last)) continue;
    for (let position = Math.max(0, oldest, last - limit + 1); position <= last; position++) found.push(segmentAt(addressing, position));
  }
  return found;
}

/** Checks the media files: rules D13, 32 and 33. */
function checkSegments(
  manifests: readonly { observation: Observation; mpd: XmlElement }[],
  observations: readonly Observation[],
  report: Report,
): void {
  const known = new Map<string, Addressing>();
  for (const { observation, mpd } of manifests) {
    for (const one of addressings(mpd, observation.url)) if (known.size < MAX_ADDRESSINGS) known.set(one.prefix, one);
  }
  const inits = new Map<string, InitFacts | undefined>([...known.values()].map((one) => [one.initUrl, undefined]));
  for (const file of observations) {
    if (!inits.has(file.url)) continue;
    checkHeaders(file, 'media', report);
    if (file.status === 200) inits.set(file.url, checkInit(file.body, pathOf(file.url), report));
    else report.breach('D13', pathOf(file.url), `the init segment answered ${file.status}`);
  }
  for (const file of observations) {
    const segment = segmentOf(file.url, known);
    if (!segment) continue;
    const where = pathOf(file.url);
    checkHeaders(file, 'media', report);
    if (file.status !== 200) {
      report.breach('D13', where, `announced, but answered ${file.status}`);
      continue;
    }
    const init = inits.get(segment.initUrl);
    const span = checkMedia(file.body, init, where, report);
    if (!span || !init) continue;
    // The MPD may count in ticks of another length. Both must agree to the nearest sample.
    const samples = (mpdTicks: number) => Math.round((mpdTicks * init.timescale) / segment.timescale);
    const [start, duration] = [samples(segment.mediaTime), samples(segment.duration)];
    if (span.start !== start) report.breach('D13', where, `tfdt is ${span.start}, its number says ${start}`);
    if (span.end - span.start !== duration) report.breach(33, where, `lasts ${span.end - span.start}, not ${duration}`);
  }
}

function segmentOf(url: string, known: ReadonlyMap<string, Addressing>): DashSegment | undefined {
  for (const one of known.values()) {
    if (!url.startsWith(one.prefix) || !url.endsWith(one.suffix)) continue;
    const middle = url.slice(one.prefix.length, url.length - one.suffix.length);
    if (/^\d{1,15}$/.test(middle)) return segmentAt(one, Number(middle) - one.startNumber);
  }
  return undefined;
}

function resolve(uri: string, base: string): string {
  try {
    return new URL(uri, base).href;
  } catch {
    return uri;
  }
}
