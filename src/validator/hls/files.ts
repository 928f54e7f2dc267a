import { checkInit, checkMedia, type InitFacts, type MediaSpan } from '../cmaf.js';
import { listed, type MultivariantPlaylist, type Segment } from '../playlist.js';
import { checkHeaders, type Observation, pathOf, type Report } from '../report.js';
import { type PlaylistTrack, resolveUri } from './track.js';

/** An address of media that a playlist listed. */
interface MediaListing {
  readonly track: PlaylistTrack;
  readonly segment: Segment;
  /** The index of the part; undefined for a whole segment. */
  readonly part: number | undefined;
  readonly firstListedMs: number;
  lastListedMs: number;
  /** When a playlist first no longer listed the address. */
  removedMs: number | undefined;
}

/**
 * Checks the media files. Rules 8, 13, 19 and 22: they are served. Rule 29: their size. Rules 32
 * and 33: their content.
 */
export function checkFiles(
  files: readonly Observation[],
  tracks: ReadonlyMap<string, PlaylistTrack>,
  masters: readonly { observation: Observation; playlist: MultivariantPlaylist }[],
  report: Report,
): void {
  const listings = new Map<string, MediaListing>();
  const inits = new Set<string>();
  const hinted = new Map<string, number>();
  for (const track of tracks.values()) {
    let previous = new Set<string>();
    for (const { observation, playlist } of track.states) {
      const present = new Set<string>();
      const add = (uri: string, segment: Segment, part: number | undefined) => {
        const url = resolveUri(uri, track.url);
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
        if (segment.map !== undefined) inits.add(resolveUri(segment.map, track.url));
        for (const [index, part] of segment.parts.entries()) add(part.uri, segment, index);
        if (segment.uri !== '' && !segment.gap) add(segment.uri, segment, undefined);
      }
      for (const url of previous) {
        const listing = listings.get(url);
        if (listing && !present.has(url)) listing.removedMs ??= observation.atMs;
      }
      for (const hint of playlist.hints) hinted.set(resolveUri(hint.uri, track.url), observation.atMs);
      previous = present;
    }
  }

  const facts = new Map<string, InitFacts | undefined>();
  for (const file of files)
    if (file.status === 200 && inits.has(file.url)) facts.set(file.url, checkInit(file.body, pathOf(file.url), report));
  const spans = new Map<PlaylistTrack, Map<string, MediaSpan & { listing: MediaListing }>>();
  const sizes = new Map<PlaylistTrack, { bytes: number; durationS: number }[]>();
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
    const span = checkMedia(file.body, facts.get(resolveUri(map, listing.track.url)), pathOf(file.url), report);
    if (!span) continue;
    const all = spans.get(listing.track) ?? new Map<string, MediaSpan & { listing: MediaListing }>();
    all.set(`${listing.segment.number}.${listing.part ?? ''}`, { ...span, listing });
    spans.set(listing.track, all);
  }
  for (const all of spans.values()) checkContiguous(all, report);
  checkBandwidth(tracks, masters, sizes, report);
}

function checkMissing(
  file: Observation,
  listing: MediaListing | undefined,
  isInit: boolean,
  isHinted: boolean,
  tracks: ReadonlyMap<string, PlaylistTrack>,
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

/**
 * Checks rule 33 between neighbours: a segment or part begins where the one before ends, and a
 * segment begins where its first part does.
 */
function checkContiguous(spans: ReadonlyMap<string, MediaSpan & { listing: MediaListing }>, report: Report): void {
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

/**
 * Checks rule 29: BANDWIDTH is constant, no segment exceeds it, and AVERAGE-BANDWIDTH is near the
 * mean.
 */
function checkBandwidth(
  tracks: ReadonlyMap<string, PlaylistTrack>,
  masters: readonly { observation: Observation; playlist: MultivariantPlaylist }[],
  sizes: ReadonlyMap<PlaylistTrack, readonly { bytes: number; durationS: number }[]>,
  report: Report,
): void {
  const said = new Map<string, string>();
  for (const { observation, playlist } of masters) {
    for (const variant of playlist.variants) {
      const url = resolveUri(variant.uri, observation.url);
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
