import { checkFiles } from './hls/files.js';
import { checkMultivariant, checkPlaylist, checkSkipBoundary } from './hls/one-playlist.js';
import { checkAbandoned, checkReloads } from './hls/reloads.js';
import { checkRenditions } from './hls/renditions.js';
import { checkArrival, comparePlaylists } from './hls/succession.js';
import type { PlaylistTrack } from './hls/track.js';
import { applyDelta, type MediaPlaylist, type MultivariantPlaylist, parsePlaylist } from './playlist.js';
import { checkHeaders, type Observation, pathOf, type Report, textOf } from './report.js';

/**
 * The rules for an HLS presentation. They are checked on observed requests, without I/O.
 *
 * Media playlists:
 * - 1: EXTM3U comes first. VERSION is written once, and no higher than needed.
 * - 2: TARGETDURATION and PART-TARGET are constant, and no segment is longer.
 * - 3: there is no PLAYLIST-TYPE while segments are removed.
 * - 4: segments are only appended and never changed, and a playlist is served whole.
 * - 5: MEDIA-SEQUENCE never falls.
 * - 6: a live playlist lists at least six segments.
 * - 7: parts and segments are published in time.
 * - 8: segments stay available for a while after they were removed.
 * - 9: a DISCONTINUITY has a MAP, and every rendition has it at the same segment.
 * - 10: DISCONTINUITY-SEQUENCE is written.
 * - 11: a MAP stands before the segments that it applies to.
 * - 12: PROGRAM-DATE-TIME is written, and agrees with the durations.
 * - 13: missing media is a GAP, never a 404.
 * - 14: after ENDLIST nothing changes.
 * - 15: a DATERANGE is unique, constant, and the same in every rendition.
 *
 * Low latency:
 * - 16: a part lasts 85 to 100 % of PART-TARGET; the last part of a segment may be shorter.
 * - 17: the parts of a segment add up to its duration.
 * - 18: every part is INDEPENDENT.
 * - 19: parts are listed until they are three target durations from the end, and no longer. They
 *   stay available for as long again.
 * - 20: SERVER-CONTROL has the right values, the same in every rendition.
 * - 21: SKIP was asked for, and skips only what the client has and what may be skipped.
 * - 22: one part is hinted, and it is the next part.
 * - 23: every other rendition has a RENDITION-REPORT, which is right.
 * - 24: the answer to a blocking reload has what the reload waited for.
 * - 25: a reload for something that is there already is answered at once.
 * - 26: a reload that is malformed or too far ahead is answered with 400, and no other.
 * - 27: a blocking reload is answered with 503 after three target durations.
 * - 28: the server still answers after clients have gone away.
 *
 * Multivariant playlists:
 * - 29: BANDWIDTH and AVERAGE-BANDWIDTH are written, constant and true.
 * - 30: CODECS is written, RESOLUTION is not.
 * - 31: names, defaults and variants are unique.
 *
 * Rules 32 and 33 (fMP4) are in `cmaf.ts`, H1 to H4 (headers) in `report.ts`.
 */

/** Checks all requests of a visit, in the order of their answers, and reports every breach. */
export function checkHls(observations: readonly Observation[], report: Report): void {
  const tracks = new Map<string, PlaylistTrack>();
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
  for (const track of tracks.values()) checkArrival(track, report);
  checkRenditions([...tracks.values()], masters, report);
  checkReloads(observations, tracks, report);
  checkAbandoned(observations, report);
  checkFiles(mediaFiles, tracks, masters, report);
}

/** Checks rule 4: the playlist is as long as its Content-Length. */
function checkWhole(observation: Observation, report: Report): void {
  const length = observation.headers['content-length'];
  if (length === undefined || observation.headers['content-encoding'] !== undefined) return;
  if (Number(length) !== observation.body.byteLength) {
    report.breach(4, pathOf(observation.url), `Content-Length ${length}, but ${observation.body.byteLength} bytes came`);
  }
}

function addState(track: PlaylistTrack, observation: Observation, playlist: MediaPlaylist, report: Report): void {
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
