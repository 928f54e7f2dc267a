import { checkInit, checkMedia, type InitFacts, type MediaSpan } from './cmaf.js';
import { applyDelta, listed, type MediaPlaylist, type MultivariantPlaylist, parsePlaylist, positionOf, type Segment } from './playlist.js';
import { checkHeaders, type Observation, pathOf, type Report, textOf } from './report.js';

/**
 * The rules that an HLS presentation must keep, checked on what was observed of it. Nothing here does I/O: `checkHls` takes
 * every request that was made, in the order of their answers, and says what was broken.
 *
 * Media playlist: 1 EXTM3U first, VERSION once and no higher than needed · 2 TARGETDURATION and PART-TARGET constant · 3 no
 * PLAYLIST-TYPE while segments are removed · 4 append-only, served whole · 5 MEDIA-SEQUENCE never falls · 6 six segments ·
 * 7 parts and segments in time · 8 removed segments stay fetchable · 9 DISCONTINUITY with a MAP, at the same number everywhere ·
 * 10 DISCONTINUITY-SEQUENCE written · 11 MAP before what it covers · 12 PROGRAM-DATE-TIME there and true · 13 missing media is
 * GAP, not 404 · 14 ENDLIST is final · 15 DATERANGE unique, constant, everywhere the same.
 *
 * Low latency: 16 part durations · 17 parts add up · 18 INDEPENDENT · 19 parts leave the list in time and stay fetchable ·
 * 20 SERVER-CONTROL · 21 SKIP exact · 22 PRELOAD-HINT · 23 RENDITION-REPORT · 24 a blocked reload has what it waited for ·
 * 25 what is there is answered at once · 26 400 where it is due and only there · 27 503 after three target durations · 28 a
 * client that went away costs nothing: the server still answers.
 *
 * Multivariant: 29 BANDWIDTH · 30 CODECS, no RESOLUTION · 31 groups, names and variants unique. fMP4: 32, 33 in validate-cmaf.
 */

const ROUNDING_S = 0.002;
/** Rule 7 allows a quarter for arrival; a reload adds what one exchange takes. */
const ARRIVAL_FACTOR = 1.25;
const EXCHANGE_MS = 100;
/** Rule 25: an answer that needs no waiting. */
const AT_ONCE_MS = 1000;
/** Rule 28: an answer after clients went away. */
const ALIVE_MS = 2000;
const ADVANCE_PART_LIMIT_S = 3;

/** What one playlist address said over time. */
interface Track {
  readonly url: string;
  /** With deltas laid over what was there before. */
  readonly states: { readonly observation: Observation; readonly playlist: MediaPlaylist }[];
}

interface Listing {
  readonly track: Track;
  readonly segment: Segment;
  /** Undefined for the segment as a whole. */
  readonly part: number | undefined;
  readonly firstListedMs: number;
  lastListedMs: number;
  /** When a playlist no longer listed it. */
  removedMs: number | undefined;
}

export function checkHls(observations: readonly Observation[], report: Report): void {
  const tracks = new Map<string, Track>();
  const masters: { observation: Observation; playlist: MultivariantPlaylist }[] = [];
  const mediaFiles: Observation[] = [];
  for (const observation of observations) {
    if (observation.abandoned) continue;
    if (!/\.m3u8?$/.test(pathOf(observation.url))) {
      mediaFiles.push(observation);
      continue;
    }
    const url = observation.url.split('?', 1)[0]!;
    if (observation.status !== 200) {
      checkHeaders(observation, 'playlist', report);
      continue;
    }
    checkWhole(observation, report);
    const playlist = parsePlaylist(textOf(observation));
    for (const error of playlist.errors) report.breach(/^is cut off/.test(error) ? 4 : 1, pathOf(url), error);
    checkHeaders(observation, playlist.kind === 'multivariant' ? 'multivariant' : 'playlist', report);
    if (playlist.kind === 'multivariant') {
      masters.push({ observation, playlist });
      checkMultivariant(playlist, pathOf(url), report);
      continue;
    }
    const track = tracks.get(url) ?? { url, states: [] };
    tracks.set(url, track);
    addState(track, observation, playlist, report);
  }
  for (const track of tracks.values()) checkTrack(track, report);
  checkTogether([...tracks.values()], masters, report);
  checkReloads(observations, tracks, report);
  checkAbandoned(observations, report);
  checkFiles(mediaFiles, tracks, masters, report);
}

/** Rule 4: served whole. */
function checkWhole(observation: Observation, report: Report): void {
  const length = observation.headers['content-length'];
  if (length === undefined || observation.headers['content-encoding'] !== undefined) return;
  if (Number(length) !== observation.body.byteLength) {
    report.breach(4, pathOf(observation.url), `Content-Length ${length}, but ${observation.body.byteLength} bytes came`);
  }
}

function addState(track: Track, observation: Observation, playlist: MediaPlaylist, report: Report): void {
  const where = pathOf(track.url);
  const previous = track.states.at(-1)?.playlist;
  report.count(playlist.skippedSegments > 0 ? 'delta updates' : 'media playlists');
  let whole: MediaPlaylist | undefined = playlist;
  if (playlist.skippedSegments > 0) {
    if (!observation.url.includes('_HLS_skip=')) report.breach(21, where, 'EXT-X-SKIP that was not asked for');
    checkSkipBoundary(playlist, where, report);
    whole = previous && applyDelta(previous, playlist);
    if (!whole) {
      report.breach(21, where, `skips ${playlist.skippedSegments} segments that the client did not have`);
      return;
    }
  }
  checkPlaylist(whole, where, report, playlist.skippedSegments > 0 ? playlist : undefined);
  if (previous) comparePlaylists(previous, whole, where, report);
  track.states.push({ observation, playlist: whole });
}

/** Segments that end within the skip boundary may not be skipped. */
function checkSkipBoundary(delta: MediaPlaylist, where: string, report: Report): void {
  const until = Number(delta.serverControl?.get('CAN-SKIP-UNTIL') ?? 0);
  const keptS = listed(delta).reduce((sum, segment) => sum + segment.durationS, 0);
  if (keptS < until - ROUNDING_S) report.breach(21, where, `skips up to ${keptS.toFixed(2)} s from the end; CAN-SKIP-UNTIL is ${until}`);
}

/** The rules that one whole playlist keeps or breaks by itself. `delta`: as it was sent, when it was sent as an update. */
export function checkPlaylist(playlist: MediaPlaylist, where: string, report: Report, delta?: MediaPlaylist): void {
  const { segments, partTargetS, targetDurationS } = playlist;
  const written = delta ?? playlist;
  if (written.versions.length !== 1) report.breach(1, where, `EXT-X-VERSION ${written.versions.length} times`);
  else if (written.versions[0] !== written.neededVersion) {
    report.breach(1, where, `EXT-X-VERSION is ${written.versions[0]}, its tags need ${written.neededVersion}`);
  }
  if (playlist.playlistType !== undefined && !playlist.ended && playlist.mediaSequence > 0 && playlist.playlistType !== 'EVENT') {
    report.breach(3, where, `PLAYLIST-TYPE ${playlist.playlistType} on a playlist that is not ended`);
  }
  if (!playlist.ended && segments.length < 6) report.breach(6, where, `${segments.length} segments`);
  if (playlist.discontinuitySequence === undefined) report.breach(10, where, 'no EXT-X-DISCONTINUITY-SEQUENCE');

  const all = listed(playlist);
  for (const [index, segment] of all.entries()) {
    const at = `${where} segment ${segment.number}`;
    if (Math.round(segment.durationS) > targetDurationS) {
      report.breach(2, at, `EXTINF ${segment.durationS} above TARGETDURATION ${targetDurationS}`);
    }
    const packed = /\.(mp3|aac|ts|ac3|ec3)$/.test(segment.uri.split('?', 1)[0]!);
    if (!packed && segment.map === undefined) report.breach(11, at, 'no EXT-X-MAP before it');
    const previous = all[index - 1];
    if (previous && !segment.discontinuity && segment.map !== previous.map) report.breach(9, at, 'EXT-X-MAP changes without DISCONTINUITY');
    if (segment.discontinuity && !packed && !segment.ownMap) report.breach(9, at, 'DISCONTINUITY without EXT-X-MAP');
    if ((index === 0 || segment.discontinuity) && segment.pdtMs === undefined) report.breach(12, at, 'no PROGRAM-DATE-TIME');
    if (previous?.pdtMs !== undefined && segment.pdtMs !== undefined && !segment.discontinuity) {
      const driftMs = segment.pdtMs - (previous.pdtMs + previous.durationS * 1000);
      if (Math.abs(driftMs) > 50) report.breach(12, at, `PROGRAM-DATE-TIME is ${Math.round(driftMs)} ms off the durations`);
    }
  }
  const ids = playlist.dateRanges.map((range) => range.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) report.breach(15, where, `DATERANGE ${id} twice`);
  if (partTargetS !== undefined) checkParts(playlist, partTargetS, where, report);
}

/** Rules 16–20 and 22 on one playlist. */
function checkParts(playlist: MediaPlaylist, partTargetS: number, where: string, report: Report): void {
  const { targetDurationS } = playlist;
  const all = listed(playlist);
  let fromEndS = 0;
  for (const segment of [...all].reverse()) {
    const at = `${where} segment ${segment.number}`;
    const { parts } = segment;
    const open = segment === playlist.open;
    let partFromEndS = fromEndS;
    for (const [index, part] of [...parts.entries()].reverse()) {
      const last = index === parts.length - 1;
      if (part.durationS > partTargetS + 0.0005)
        report.breach(16, at, `part ${index} is ${part.durationS} s, above PART-TARGET ${partTargetS}`);
      if (!last && part.durationS < partTargetS * 0.85)
        report.breach(16, at, `part ${index} is ${part.durationS} s, below 85 % of PART-TARGET`);
      if (!part.independent) report.breach(18, at, `part ${index} without INDEPENDENT=YES`);
      if (partFromEndS > targetDurationS * 3 + ROUNDING_S) {
        report.breach(19, at, `part ${index} is listed ${partFromEndS.toFixed(2)} s from the end`);
      }
      partFromEndS += part.durationS;
    }
    const sumS = parts.reduce((sum, part) => sum + part.durationS, 0);
    if (!open && parts.length > 0 && Math.abs(sumS - segment.durationS) > ROUNDING_S) {
      report.breach(17, at, `parts add up to ${sumS.toFixed(5)} s, EXTINF is ${segment.durationS}`);
    }
    fromEndS += segment.durationS;
  }

  const control = playlist.serverControl;
  const number = (name: string) => Number(control?.get(name) ?? Number.NaN);
  if (!control) report.breach(20, where, 'no EXT-X-SERVER-CONTROL');
  else {
    if (control.get('CAN-BLOCK-RELOAD') !== 'YES') report.breach(20, where, 'CAN-BLOCK-RELOAD is not YES');
    if (!(Math.abs(number('PART-HOLD-BACK') - partTargetS * 3) < 0.001)) {
      report.breach(20, where, `PART-HOLD-BACK is ${control.get('PART-HOLD-BACK')}, not 3 × ${partTargetS}`);
    }
    if (!(number('HOLD-BACK') >= targetDurationS * 3)) report.breach(20, where, `HOLD-BACK is ${control.get('HOLD-BACK')}`);
    if (number('CAN-SKIP-UNTIL') !== targetDurationS * 6) report.breach(20, where, `CAN-SKIP-UNTIL is ${control.get('CAN-SKIP-UNTIL')}`);
    if (control.has('CAN-SKIP-DATERANGES')) report.breach(20, where, 'CAN-SKIP-DATERANGES');
  }
  const hints = playlist.hints.filter((hint) => hint.type === 'PART');
  if (hints.length !== (playlist.ended ? 0 : 1)) report.breach(22, where, `${hints.length} PRELOAD-HINT of a part`);
}

/** The rules between a playlist and a later one of the same address. */
export function comparePlaylists(before: MediaPlaylist, after: MediaPlaylist, where: string, report: Report): void {
  if (after.targetDurationS !== before.targetDurationS) {
    report.breach(2, where, `TARGETDURATION ${before.targetDurationS} became ${after.targetDurationS}`);
  }
  if (after.partTargetS !== before.partTargetS) report.breach(2, where, `PART-TARGET ${before.partTargetS} became ${after.partTargetS}`);
  if (after.mediaSequence < before.mediaSequence) {
    report.breach(5, where, `MEDIA-SEQUENCE fell from ${before.mediaSequence} to ${after.mediaSequence}`);
    return;
  }
  if (after.playlistType !== undefined && after.mediaSequence > before.mediaSequence) {
    report.breach(3, where, `PLAYLIST-TYPE ${after.playlistType}, but segments are removed`);
  }
  if (before.ended && (!after.ended || listed(after).length !== listed(before).length)) {
    report.breach(14, where, after.ended ? 'changed after ENDLIST' : 'ENDLIST was taken back');
  }
  const [from, to] = [positionOf(before), positionOf(after)];
  if (to.msn < from.msn) report.breach(4, where, `ends at segment ${to.msn}, ended at ${from.msn} before`);
  const later = new Map(listed(after).map((segment) => [segment.number, segment]));
  for (const old of listed(before)) {
    const now = later.get(old.number);
    if (!now) {
      if (old.number >= after.mediaSequence) report.breach(4, where, `segment ${old.number} is missing`);
      continue;
    }
    compareSegments(before, old, now, `${where} segment ${old.number}`, report);
  }
  compareDropped(before, after, where, report);
  const ranges = new Map(before.dateRanges.map((range) => [range.id, range.attributes]));
  for (const range of after.dateRanges) {
    const known = ranges.get(range.id);
    if (known !== undefined && known !== range.attributes) report.breach(15, where, `DATERANGE ${range.id} changed`);
  }
  const hint = before.hints.find((candidate) => candidate.type === 'PART');
  const next = partAfter(before, after);
  if (hint && next !== undefined && next !== hint.uri) report.breach(22, where, `hinted ${hint.uri}, but ${next} came`);
}

function compareSegments(before: MediaPlaylist, old: Segment, now: Segment, at: string, report: Report): void {
  const open = old === before.open;
  // An open segment may end as a gap: the process that made it died.
  if (!open && (now.uri !== old.uri || now.gap !== old.gap || Math.abs(now.durationS - old.durationS) > 1e-6)) {
    report.breach(4, at, 'was changed');
  }
  if (now.map !== old.map) report.breach(4, at, `its EXT-X-MAP became ${now.map}`);
  if (now.discontinuitySequence !== old.discontinuitySequence) {
    report.breach(9, at, `discontinuity ${old.discontinuitySequence} became ${now.discontinuitySequence}`);
  }
  if (old.pdtMs !== undefined && now.pdtMs !== undefined && Math.abs(now.pdtMs - old.pdtMs) > 5) {
    report.breach(12, at, `PROGRAM-DATE-TIME moved by ${now.pdtMs - old.pdtMs} ms`);
  }
  if (now.gap || now.parts.length === 0) return;
  for (const [index, part] of old.parts.entries()) {
    const same = now.parts[index];
    if (!same || same.uri !== part.uri || same.durationS !== part.durationS) report.breach(4, at, `part ${index} was changed or removed`);
  }
}

/** Rule 19: parts of a segment leave the list no earlier than a segment short of three target durations from the end. */
function compareDropped(before: MediaPlaylist, after: MediaPlaylist, where: string, report: Report): void {
  let fromEndS = 0;
  const had = new Map(listed(before).map((segment) => [segment.number, segment.parts.length]));
  for (const segment of [...listed(after)].reverse()) {
    fromEndS += segment.durationS;
    if (segment.gap || segment.parts.length > 0 || (had.get(segment.number) ?? 0) === 0) continue;
    if (fromEndS < after.targetDurationS * 3) {
      report.breach(19, `${where} segment ${segment.number}`, `its parts left the list ${fromEndS.toFixed(2)} s from the end`);
    }
  }
}

/** URI of the part right after the end of `before`, when `after` lists it. */
function partAfter(before: MediaPlaylist, after: MediaPlaylist): string | undefined {
  const { msn, part } = before.open ? positionOf(before) : { msn: positionOf(before).msn + 1, part: -1 };
  const segment = listed(after).find((candidate) => candidate.number === msn);
  if (!segment || segment.gap) return undefined;
  if (segment.parts.length > part + 1) return segment.parts[part + 1]?.uri;
  return listed(after).find((candidate) => candidate.number === msn + 1 && segment.parts.length > 0)?.parts[0]?.uri;
}

/** Rule 7. Only a reload that waited for the very next part shows when it came. */
function checkTrack(track: Track, report: Report): void {
  const where = pathOf(track.url);
  let newest: { playlist: MediaPlaylist; atMs: number } | undefined;
  let newestSegment: { msn: number; atMs: number } | undefined;
  for (const { observation, playlist } of track.states) {
    const complete = playlist.segments.at(-1)?.number ?? -1;
    const gapped = playlist.segments.at(-1)?.gap === true;
    if (playlist.ended || playlist.partTargetS === undefined || gapped || !waitedForNext(observation, newest?.playlist)) {
      newestSegment = undefined;
    } else {
      const lateMs = observation.atMs - Math.max(newest?.atMs ?? 0, observation.sentMs);
      if (lateMs > playlist.partTargetS * 1000 * ARRIVAL_FACTOR + EXCHANGE_MS) {
        const end = positionOf(playlist);
        report.breach(7, where, `${Math.round(lateMs)} ms without a new part before ${end.msn}.${end.part}`);
      }
      if (newestSegment && complete > newestSegment.msn) {
        const waitedMs = observation.atMs - newestSegment.atMs;
        if (waitedMs > playlist.targetDurationS * 1500 * ARRIVAL_FACTOR) {
          report.breach(7, where, `${Math.round(waitedMs)} ms without segment ${complete}`);
        }
      }
      if (!newestSegment || complete > newestSegment.msn) newestSegment = { msn: complete, atMs: observation.atMs };
    }
    const [before, now] = [newest && positionOf(newest.playlist), positionOf(playlist)];
    if (!before || before.msn !== now.msn || before.part !== now.part) newest = { playlist, atMs: observation.atMs };
  }
}

function waitedForNext(observation: Observation, before: MediaPlaylist | undefined): boolean {
  if (!before || !observation.url.includes('_HLS_part=')) return false;
  const query = new URL(observation.url).searchParams;
  const end = positionOf(before);
  const [msn, part] = before.open ? [end.msn, end.part + 1] : [end.msn + 1, 0];
  const asked = [Number(query.get('_HLS_msn')), Number(query.get('_HLS_part'))];
  return (asked[0] === msn && asked[1] === part) || (asked[0] === end.msn && asked[1] === end.part + 1);
}

/** Rules 9, 15, 20, 23: what the renditions of one presentation say of the same thing. */
function checkTogether(
  tracks: readonly Track[],
  masters: readonly { observation: Observation; playlist: MultivariantPlaylist }[],
  report: Report,
): void {
  const lowLatency = tracks.filter((track) => track.states[0]?.playlist.partTargetS !== undefined);
  const discontinuities = new Map<number, { value: number; where: string }>();
  const control = lowLatency[0]?.states[0]?.playlist.serverControl;
  const written = (attributes: ReadonlyMap<string, string> | undefined) => JSON.stringify([...(attributes ?? [])].sort());
  for (const track of tracks) {
    const where = pathOf(track.url);
    for (const { playlist } of track.states) {
      for (const segment of listed(playlist)) {
        const known = discontinuities.get(segment.number);
        if (!known) discontinuities.set(segment.number, { value: segment.discontinuitySequence, where });
        else if (known.value !== segment.discontinuitySequence) {
          report.breach(
            9,
            where,
            `segment ${segment.number} has discontinuity ${segment.discontinuitySequence}, in ${known.where} ${known.value}`,
          );
        }
      }
      if (lowLatency.includes(track) && written(playlist.serverControl) !== written(control)) {
        report.breach(20, where, 'SERVER-CONTROL differs between renditions');
      }
    }
  }
  checkDateRanges(tracks, report);
  const addresses = new Set<string>();
  for (const { observation, playlist } of masters) {
    for (const variant of playlist.variants) addresses.add(resolve(variant.uri, observation.url));
  }
  for (const track of lowLatency) checkReports(track, lowLatency, addresses, report);
}

/** A range that a rendition lists before and after another one was read must be in that one too. */
function checkDateRanges(tracks: readonly Track[], report: Report): void {
  for (const track of tracks) {
    for (const other of tracks) {
      if (other === track) continue;
      for (const { observation, playlist } of other.states) {
        const earlier = track.states.findLast((state) => state.observation.atMs <= observation.sentMs)?.playlist;
        const later = track.states.find((state) => state.observation.sentMs >= observation.atMs)?.playlist;
        if (!earlier || !later) continue;
        const has = new Set(playlist.dateRanges.map((range) => range.attributes));
        const still = new Set(later.dateRanges.map((range) => range.attributes));
        for (const range of earlier.dateRanges) {
          if (still.has(range.attributes) && !has.has(range.attributes)) {
            report.breach(15, pathOf(other.url), `DATERANGE ${range.id} of ${pathOf(track.url)} is missing or different`);
          }
        }
      }
    }
  }
}

/** Rule 23. A report is right when it lies between what the other rendition had before and after. */
function checkReports(track: Track, lowLatency: readonly Track[], addresses: ReadonlySet<string>, report: Report): void {
  const where = pathOf(track.url);
  for (const { observation, playlist } of track.states) {
    if (playlist.ended) continue;
    const reports = new Map(playlist.reports.map((entry) => [resolve(entry.uri, track.url), entry]));
    for (const address of addresses) {
      if (address !== track.url && addresses.has(track.url) && !reports.has(address)) {
        report.breach(23, where, `no RENDITION-REPORT for ${pathOf(address)}`);
      }
    }
    for (const other of lowLatency) {
      const entry = reports.get(other.url);
      if (!entry || other === track) continue;
      if (entry.part === undefined) report.breach(23, where, `RENDITION-REPORT for ${pathOf(other.url)} without LAST-PART`);
      const before = other.states.findLast((state) => state.observation.atMs <= observation.sentMs)?.playlist;
      const after = other.states.find((state) => state.observation.sentMs >= observation.atMs)?.playlist;
      const part = entry.part ?? 0;
      // A segment without parts counts as before any of its parts and after the last of them.
      if (observation.url.includes('_HLS_msn=') && before && compare(entry.msn, part, positionOf(before), before) < 0) {
        report.breach(23, where, `RENDITION-REPORT says ${entry.msn}.${part} of ${pathOf(other.url)}, which was further already`);
      }
      if (after && compare(entry.msn, part, positionOf(after), after) > 0) {
        report.breach(23, where, `RENDITION-REPORT says ${entry.msn}.${part} of ${pathOf(other.url)}, which does not have it`);
      }
    }
  }
}

function compare(msn: number, part: number, position: { msn: number; part: number }, playlist: MediaPlaylist): number {
  if (msn !== position.msn) return msn - position.msn;
  return position.part < 0 && !playlist.open ? 0 : part - position.part;
}

/** Rules 24–27: what blocking reloads were answered. */
function checkReloads(observations: readonly Observation[], tracks: ReadonlyMap<string, Track>, report: Report): void {
  for (const observation of observations) {
    if (observation.abandoned || !observation.url.includes('_HLS_')) continue;
    const query = new URL(observation.url).searchParams;
    const track = tracks.get(observation.url.split('?', 1)[0]!);
    const known = track?.states.findLast((state) => state.observation.atMs <= observation.sentMs)?.playlist;
    if (!known || known.ended || known.partTargetS === undefined) continue;
    report.count('blocking reloads');
    const own = track?.states.find((state) => state.observation === observation)?.playlist;
    const after = own ?? track?.states.find((state) => state.observation.atMs >= observation.atMs)?.playlist;
    checkReload(observation, query, known, own, after, report);
  }
}

function checkReload(
  observation: Observation,
  query: URLSearchParams,
  known: MediaPlaylist,
  own: MediaPlaylist | undefined,
  after: MediaPlaylist | undefined,
  report: Report,
): void {
  const where = `${pathOf(observation.url)} ${new URL(observation.url).search}`;
  const [msnText, partText] = [query.get('_HLS_msn'), query.get('_HLS_part')];
  const waitedMs = observation.atMs - observation.sentMs;
  const { status } = observation;
  const malformed =
    (msnText === null && partText !== null) ||
    (msnText !== null && !/^\d+$/.test(msnText)) ||
    (partText !== null && !/^\d+$/.test(partText));
  if (malformed) {
    if (status !== 400) report.breach(26, where, `answered ${status}, not 400`);
    return;
  }
  if (msnText === null) return;
  const msn = Number(msnText);
  const part = partText === null ? undefined : Number(partText);
  const partTargetS = known.partTargetS ?? 1;
  const partLimit = ADVANCE_PART_LIMIT_S / partTargetS;
  const [tooFarForSure, mayBeRefused] = [beyond(after ?? known, msn, part, partLimit), beyond(known, msn, part, partLimit)];
  if (tooFarForSure && status === 200) report.breach(26, where, 'answered 200 though it is too far ahead');
  if (!mayBeRefused && status === 400) report.breach(26, where, 'answered 400 though it is in reach');
  const limitMs = known.targetDurationS * 3000;
  if (waitedMs > limitMs * ARRIVAL_FACTOR) report.breach(27, where, `held for ${Math.round(waitedMs)} ms`);
  if (status === 503 && waitedMs < limitMs * 0.75) report.breach(27, where, `503 after ${Math.round(waitedMs)} ms`);
  if (has(known, msn, part) && (status !== 200 || waitedMs > AT_ONCE_MS)) {
    report.breach(25, where, `it was there, but answered ${status} after ${Math.round(waitedMs)} ms`);
  }
  if (own && !own.ended && !has(own, msn, part)) {
    const end = positionOf(own);
    report.breach(24, where, `answered when the playlist ended at ${end.msn}.${end.part}`);
  }
}

/** Rule 26 on what was asked, before a part past the end of its segment becomes part 0 of the next. */
function beyond(playlist: MediaPlaylist, msn: number, part: number | undefined, partLimit: number): boolean {
  const complete = playlist.segments.at(-1)?.number ?? playlist.mediaSequence - 1;
  if (msn > complete + 2) return true;
  if (part === undefined) return false;
  const seen = Math.max(...playlist.segments.map((segment) => segment.parts.length), 0);
  const perSegment = seen || Math.ceil((playlist.segments.at(-1)?.durationS ?? 0) / (playlist.partTargetS ?? 1)) || 1;
  const openParts = playlist.open?.parts.length ?? 0;
  return (msn - complete - 1) * perSegment + part - (openParts - 1) > partLimit;
}

function has(playlist: MediaPlaylist, msn: number, part: number | undefined): boolean {
  const complete = playlist.segments.at(-1)?.number ?? playlist.mediaSequence - 1;
  if (part === undefined || msn < complete) return complete >= msn;
  const segment = listed(playlist).find((candidate) => candidate.number === msn);
  if (msn === complete) {
    // Past the segment's last part it is part 0 of the next.
    const parts = segment?.parts.length ?? 0;
    return parts === 0 || part < parts || (playlist.open?.parts.length ?? 0) > 0;
  }
  return (segment?.parts.length ?? 0) > part;
}

/** Rule 28. */
function checkAbandoned(observations: readonly Observation[], report: Report): void {
  for (const [index, observation] of observations.entries()) {
    if (!observation.abandoned) continue;
    report.count('abandoned reloads');
    const next = observations.slice(index + 1).find((candidate) => !candidate.abandoned && candidate.sentMs >= observation.atMs);
    if (!next || next.url.includes('_HLS_msn=') || !/\.m3u8?$/.test(pathOf(next.url))) continue;
    const waitedMs = next.atMs - next.sentMs;
    if (next.status >= 500 || next.status === 0 || waitedMs > ALIVE_MS) {
      report.breach(28, pathOf(next.url), `answered ${next.status} after ${Math.round(waitedMs)} ms, clients having gone away`);
    }
  }
}

/** Rules 30 and 31, and 1's on the multivariant playlist. */
export function checkMultivariant(playlist: MultivariantPlaylist, where: string, report: Report): void {
  report.count('multivariant playlists');
  if (playlist.versions.length > 1) report.breach(1, where, `EXT-X-VERSION ${playlist.versions.length} times`);
  const uris = new Set<string>();
  for (const variant of playlist.variants) {
    if (!variant.attributes.get('CODECS')) report.breach(30, where, `${variant.uri} without CODECS`);
    if (variant.attributes.has('RESOLUTION')) report.breach(30, where, `${variant.uri} is audio with RESOLUTION`);
    for (const name of ['BANDWIDTH', 'AVERAGE-BANDWIDTH']) {
      if (!(Number(variant.attributes.get(name)) > 0)) report.breach(29, where, `${variant.uri} without ${name}`);
    }
    if (uris.has(variant.uri)) report.breach(31, where, `${variant.uri} twice`);
    uris.add(variant.uri);
  }
  const names = new Set<string>();
  const defaults = new Map<string, number>();
  for (const media of playlist.media) {
    const group = `${media.get('TYPE')} ${media.get('GROUP-ID')}`;
    const name = `${group} ${media.get('NAME')}`;
    if (names.has(name)) report.breach(31, where, `NAME ${media.get('NAME')} twice in group ${media.get('GROUP-ID')}`);
    names.add(name);
    defaults.set(group, (defaults.get(group) ?? 0) + (media.get('DEFAULT') === 'YES' ? 1 : 0));
  }
  for (const [group, count] of defaults) if (count !== 1) report.breach(31, where, `${count} DEFAULT=YES in ${group}`);
}

/** Rules 8, 13, 19, 22 on whether media came, 29 on how large it was, 32 and 33 on what was in it. */
function checkFiles(
  files: readonly Observation[],
  tracks: ReadonlyMap<string, Track>,
  masters: readonly { observation: Observation; playlist: MultivariantPlaylist }[],
  report: Report,
): void {
  const listings = new Map<string, Listing>();
  const inits = new Set<string>();
  const hinted = new Map<string, number>();
  for (const track of tracks.values()) {
    let previous = new Set<string>();
    for (const { observation, playlist } of track.states) {
      const present = new Set<string>();
      const add = (uri: string, segment: Segment, part: number | undefined) => {
        const url = resolve(uri, track.url);
        present.add(url);
        const known = listings.get(url);
        if (known) known.lastListedMs = observation.atMs;
        else
          listings.set(url, {
            track,
            segment,
            part,
            firstListedMs: observation.atMs,
            lastListedMs: observation.atMs,
            removedMs: undefined,
          });
      };
      for (const segment of listed(playlist)) {
        if (segment.map !== undefined) inits.add(resolve(segment.map, track.url));
        for (const [index, part] of segment.parts.entries()) add(part.uri, segment, index);
        if (segment.uri !== '' && !segment.gap) add(segment.uri, segment, undefined);
      }
      for (const url of previous) {
        const listing = listings.get(url);
        if (listing && !present.has(url)) listing.removedMs ??= observation.atMs;
      }
      for (const hint of playlist.hints) hinted.set(resolve(hint.uri, track.url), observation.atMs);
      previous = present;
    }
  }

  const facts = new Map<string, InitFacts | undefined>();
  for (const file of files)
    if (file.status === 200 && inits.has(file.url)) facts.set(file.url, checkInit(file.body, pathOf(file.url), report));
  const spans = new Map<Track, Map<string, MediaSpan & { listing: Listing }>>();
  const sizes = new Map<Track, { bytes: number; durationS: number }[]>();
  for (const file of files) {
    const listing = listings.get(file.url);
    checkHeaders(file, 'media', report);
    if (file.status !== 200 && file.status !== 206) {
      checkMissing(file, listing, inits.has(file.url), hinted.has(file.url), tracks, report);
      continue;
    }
    if (!listing || file.status === 206) continue;
    const map = listing.segment.map;
    if (listing.part === undefined) {
      const all = sizes.get(listing.track) ?? [];
      all.push({ bytes: file.body.byteLength, durationS: listing.segment.durationS });
      sizes.set(listing.track, all);
    }
    if (map === undefined) continue;
    const span = checkMedia(file.body, facts.get(resolve(map, listing.track.url)), pathOf(file.url), report);
    if (!span) continue;
    const all = spans.get(listing.track) ?? new Map<string, MediaSpan & { listing: Listing }>();
    all.set(`${listing.segment.number}.${listing.part ?? ''}`, { ...span, listing });
    spans.set(listing.track, all);
  }
  for (const all of spans.values()) checkContiguous(all, report);
  checkBandwidth(tracks, masters, sizes, report);
}

function checkMissing(
  file: Observation,
  listing: Listing | undefined,
  isInit: boolean,
  isHinted: boolean,
  tracks: ReadonlyMap<string, Track>,
  report: Report,
): void {
  const where = pathOf(file.url);
  if (isInit) report.breach(13, where, `EXT-X-MAP answered ${file.status}`);
  else if (!listing) {
    if (isHinted) report.breach(22, where, `the hinted part answered ${file.status}`);
  } else if (listing.removedMs === undefined || listing.removedMs > file.atMs) {
    report.breach(13, where, `listed, but answered ${file.status}`);
  } else {
    const goneMs = file.sentMs - listing.removedMs;
    const track = tracks.get(listing.track.url);
    const targetS = track?.states[0]?.playlist.targetDurationS ?? 0;
    const longestS = Math.max(0, ...(track?.states.map(({ playlist }) => listed(playlist).reduce((sum, s) => sum + s.durationS, 0)) ?? []));
    if (listing.part !== undefined) {
      if (goneMs <= targetS * 3000) report.breach(19, where, `${Math.round(goneMs)} ms after it left the list it answered ${file.status}`);
    } else if (goneMs <= (listing.segment.durationS + longestS) * 1000) {
      report.breach(8, where, `${Math.round(goneMs)} ms after it left the list it answered ${file.status}`);
    }
  }
}

/** Rule 33 over neighbours: a segment follows the one before, a part its neighbour, and both agree. */
function checkContiguous(spans: ReadonlyMap<string, MediaSpan & { listing: Listing }>, report: Report): void {
  for (const span of spans.values()) {
    const { segment, part, track } = span.listing;
    const next = part === undefined ? spans.get(`${segment.number + 1}.`) : spans.get(`${segment.number}.${part + 1}`);
    const where = `${pathOf(track.url)} segment ${segment.number}${part === undefined ? '' : ` part ${part}`}`;
    if (next && next.start !== span.end && next.listing.segment.map === segment.map) {
      report.breach(33, where, `ends at ${span.end}, the next begins at ${next.start}`);
    }
    const whole = part === 0 ? spans.get(`${segment.number}.`) : undefined;
    if (whole && whole.start !== span.start) report.breach(33, where, `begins at ${span.start}, its segment at ${whole.start}`);
  }
}

/** Rule 29. */
function checkBandwidth(
  tracks: ReadonlyMap<string, Track>,
  masters: readonly { observation: Observation; playlist: MultivariantPlaylist }[],
  sizes: ReadonlyMap<Track, readonly { bytes: number; durationS: number }[]>,
  report: Report,
): void {
  const said = new Map<string, string>();
  for (const { observation, playlist } of masters) {
    for (const variant of playlist.variants) {
      const url = resolve(variant.uri, observation.url);
      const [peak, average] = [variant.attributes.get('BANDWIDTH') ?? '', variant.attributes.get('AVERAGE-BANDWIDTH') ?? ''];
      if (said.has(url) && said.get(url) !== `${peak} ${average}`) report.breach(29, pathOf(url), 'BANDWIDTH changed');
      if (said.has(url)) continue;
      said.set(url, `${peak} ${average}`);
      const track = tracks.get(url);
      const measured = (track && sizes.get(track)) ?? [];
      const rates = measured.map(({ bytes, durationS }) => (bytes * 8) / durationS);
      const highest = Math.max(0, ...rates);
      if (highest > Number(peak)) report.breach(29, pathOf(url), `a segment has ${Math.round(highest)} bit/s, BANDWIDTH is ${peak}`);
      const mean = rates.reduce((sum, rate) => sum + rate, 0) / Math.max(1, rates.length);
      if (mean > Number(average) * 1.1)
        report.breach(29, pathOf(url), `the mean is ${Math.round(mean)} bit/s, AVERAGE-BANDWIDTH is ${average}`);
    }
  }
}

function resolve(uri: string, base: string): string {
  try {
    return new URL(uri, base).href;
  } catch {
    return uri;
  }
}
