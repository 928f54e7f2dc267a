import { listed, type MediaPlaylist, positionOf, type Segment } from '../playlist.js';
import { type Observation, pathOf, type Report } from '../report.js';
import { ARRIVAL_FACTOR, type PlaylistTrack } from './track.js';

/** Rule 7: the time of one exchange, in addition to what ARRIVAL_FACTOR allows. */
const EXCHANGE_MS = 100;

/** Checks the rules between a playlist and a later one of the same address. */
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
  // An open segment may become a gap, when the process that made it died.
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

/**
 * Checks rule 19: the parts of a segment stay listed while the segment begins less than three
 * target durations before the end.
 */
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

/** Returns the URI of the part right after the end of `before`, when `after` lists it. */
function partAfter(before: MediaPlaylist, after: MediaPlaylist): string | undefined {
  const { msn, part } = before.open ? positionOf(before) : { msn: positionOf(before).msn + 1, part: -1 };
  const segment = listed(after).find((candidate) => candidate.number === msn);
  if (!segment || segment.gap) return undefined;
  if (segment.parts.length > part + 1) return segment.parts[part + 1]?.uri;
  return listed(after).find((candidate) => candidate.number === msn + 1 && segment.parts.length > 0)?.parts[0]?.uri;
}

/**
 * Checks rule 7. Only a reload that waited for the very next part shows when the part was
 * published.
 */
export function checkArrival(track: PlaylistTrack, report: Report): void {
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
