import { checkFiles } from './hls/files.js';
import { checkMultivariant, checkPlaylist, checkSkipBoundary } from './hls/one-playlist.js';
import { checkAbandoned, checkReloads } from './hls/reloads.js';
import { checkRenditions } from './hls/renditions.js';
import { checkArrival, comparePlaylists } from './hls/succession.js';
import type { PlaylistTrack } from './hls/track.js';
import { applyDelta, type MediaPlaylist, type MultivariantPlaylist, parsePlaylist } from './playlist.js';
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

/** Rule 4: served whole. */
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
