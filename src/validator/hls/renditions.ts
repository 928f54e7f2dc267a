import { listed, type MediaPlaylist, type MultivariantPlaylist, positionOf } from '../playlist.js';
import { type Observation, pathOf, type Report } from '../report.js';
import { type PlaylistTrack, resolveUri } from './track.js';

/** Checks that the renditions of one presentation agree: rules 9, 15, 20 and 23. */
export function checkRenditions(
  tracks: readonly PlaylistTrack[],
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
    for (const variant of playlist.variants) addresses.add(resolveUri(variant.uri, observation.url));
  }
  for (const track of lowLatency) checkReports(track, lowLatency, addresses, report);
}

/**
 * Checks rule 15 across renditions: a DATERANGE that one rendition lists both before and after
 * another rendition was read must be in the other one, too.
 */
function checkDateRanges(tracks: readonly PlaylistTrack[], report: Report): void {
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

/**
 * Checks rule 23: a RENDITION-REPORT must lie between the positions that the other rendition had
 * before and after.
 */
function checkReports(track: PlaylistTrack, lowLatency: readonly PlaylistTrack[], addresses: ReadonlySet<string>, report: Report): void {
  const where = pathOf(track.url);
  for (const { observation, playlist } of track.states) {
    if (playlist.ended) continue;
    const reports = new Map(playlist.reports.map((entry) => [resolveUri(entry.uri, track.url), entry]));
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
      // A segment without parts is neither before nor after any of its parts.
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
