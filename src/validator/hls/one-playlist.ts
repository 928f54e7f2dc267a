import { listed, type MediaPlaylist, type MultivariantPlaylist } from '../playlist.js';
import type { Report } from '../report.js';
import { ROUNDING_S } from './track.js';

/** Checks that a delta update skips no segment within CAN-SKIP-UNTIL of the end (rule 21). */
export function checkSkipBoundary(delta: MediaPlaylist, where: string, report: Report): void {
  const until = Number(delta.serverControl?.get('CAN-SKIP-UNTIL') ?? 0);
  const keptS = listed(delta).reduce((sum, segment) => sum + segment.durationS, 0);
  if (keptS < until - ROUNDING_S) report.breach(21, where, `skips up to ${keptS.toFixed(2)} s from the end; CAN-SKIP-UNTIL is ${until}`);
}

/**
 * Checks the rules that apply to one whole playlist. `delta`: the update as it was sent, when the
 * playlist was made from one.
 */
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

/** Checks one playlist: rules 16 to 20 and 22. */
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

/** Checks a multivariant playlist: rules 29 to 31, and rule 1 as far as it applies. */
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
