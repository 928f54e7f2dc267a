import { listed, type MediaPlaylist, positionOf } from '../playlist.js';
import { type Observation, pathOf, type Report } from '../report.js';
import { ARRIVAL_FACTOR, type PlaylistTrack } from './track.js';

/**
 * Rule 25: an answer takes at most this long when the requested part or segment is there already.
 */
const AT_ONCE_MS = 1000;
/** Rule 28: after clients have gone away, an answer takes at most this long. */
const ALIVE_MS = 2000;
/** Rule 26: a reload may request a part at most this far past the last one. */
const ADVANCE_PART_LIMIT_S = 3;

/** Checks the answers to blocking reloads: rules 24 to 27. */
export function checkReloads(observations: readonly Observation[], tracks: ReadonlyMap<string, PlaylistTrack>, report: Report): void {
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

/**
 * Returns whether a reload requests more than rule 26 allows. The request is taken as it is: a part
 * past the end of its segment is not yet part 0 of the next.
 */
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
    // A part past the end of its segment is part 0 of the next one.
    const parts = segment?.parts.length ?? 0;
    return parts === 0 || part < parts || (playlist.open?.parts.length ?? 0) > 0;
  }
  return (segment?.parts.length ?? 0) > part;
}

/** Checks rule 28: the server still answers after clients have gone away. */
export function checkAbandoned(observations: readonly Observation[], report: Report): void {
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
