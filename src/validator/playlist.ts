/**
 * Reads HLS playlists for the validator, as a strict client does: it reads everything that a rule
 * needs, and reports everything that is malformed. Limits bound the cost of a hostile text.
 */

/** A playlist is read up to this length. The playlist of 12 h of rewind has 1.1 MB. */
export const PLAYLIST_MAX_CHARS = 4 * 1024 * 1024;
export const PLAYLIST_MAX_LINES = 100_000;

interface Part {
  readonly uri: string;
  readonly durationS: number;
  readonly independent: boolean;
}

export interface Segment {
  readonly number: number;
  readonly uri: string;
  readonly durationS: number;
  readonly gap: boolean;
  /** EXT-X-DISCONTINUITY stands before this segment. */
  readonly discontinuity: boolean;
  /** The discontinuity sequence number of this segment. */
  readonly discontinuitySequence: number;
  /** The URI of the EXT-X-MAP that applies to this segment. */
  readonly map: string | undefined;
  /** An EXT-X-MAP stands before this segment. */
  readonly ownMap: boolean;
  /** The EXT-X-PROGRAM-DATE-TIME before this segment. */
  readonly writtenPdtMs: number | undefined;
  /** The date and time of this segment: as written, or calculated from the last one written. */
  readonly pdtMs: number | undefined;
  readonly parts: readonly Part[];
}

interface DateRange {
  readonly id: string;
  /** The whole attribute list. It must never change. */
  readonly attributes: string;
}

export interface MediaPlaylist {
  readonly kind: 'media';
  readonly versions: readonly number[];
  readonly targetDurationS: number;
  readonly partTargetS: number | undefined;
  readonly mediaSequence: number;
  /** Undefined when the tag is missing. */
  readonly discontinuitySequence: number | undefined;
  readonly playlistType: string | undefined;
  readonly ended: boolean;
  readonly serverControl: ReadonlyMap<string, string> | undefined;
  readonly skippedSegments: number;
  /** The segments that are listed. Skipped segments count for `number`. */
  readonly segments: readonly Segment[];
  /** The open segment as a segment without URI: its parts, and the tags before them. */
  readonly open: Segment | undefined;
  readonly hints: readonly { readonly type: string; readonly uri: string }[];
  readonly reports: readonly { readonly uri: string; readonly msn: number; readonly part: number | undefined }[];
  readonly dateRanges: readonly DateRange[];
  /** The highest protocol version that the tags need (RFC 8216bis 8). */
  readonly neededVersion: number;
  /** Errors of the syntax. */
  readonly errors: readonly string[];
}

interface Variant {
  readonly uri: string;
  readonly attributes: ReadonlyMap<string, string>;
}

export interface MultivariantPlaylist {
  readonly kind: 'multivariant';
  readonly versions: readonly number[];
  readonly variants: readonly Variant[];
  readonly media: readonly ReadonlyMap<string, string>[];
  readonly errors: readonly string[];
}

/** Reads `NAME=value` and `NAME="value"` pairs (RFC 8216bis 4.2), and removes the quotes. */
function parseAttributes(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const match of text.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^",]*))(?:,|$)/g)) found.set(match[1]!, match[2] ?? match[3] ?? '');
  return found;
}

export function parsePlaylist(text: string): MediaPlaylist | MultivariantPlaylist {
  const errors: string[] = [];
  if (text.length > PLAYLIST_MAX_CHARS) errors.push(`longer than ${PLAYLIST_MAX_CHARS} characters`);
  const lines = text.slice(0, PLAYLIST_MAX_CHARS).split(/\r?\n/, PLAYLIST_MAX_LINES + 1);
  if (lines.length > PLAYLIST_MAX_LINES) errors.push(`more than ${PLAYLIST_MAX_LINES} lines`);
  if (lines[0] !== '#EXTM3U') errors.push('does not begin with #EXTM3U');
  if (!/\n$/.test(text)) errors.push('is cut off: the last line has no end');
  return lines.some((line) => line.startsWith('#EXT-X-STREAM-INF:')) ? multivariant(lines, errors) : media(lines, errors);
}

/** Returns the name and the value of a tag; undefined for any other line. */
function tagOf(line: string): [name: string, value: string] | undefined {
  if (!line.startsWith('#EXT')) return undefined;
  const colon = line.indexOf(':');
  return colon < 0 ? [line.slice(1), ''] : [line.slice(1, colon), line.slice(colon + 1)];
}

function multivariant(lines: readonly string[], errors: string[]): MultivariantPlaylist {
  const versions: number[] = [];
  const variants: Variant[] = [];
  const renditions: ReadonlyMap<string, string>[] = [];
  let pending: ReadonlyMap<string, string> | undefined;
  for (const line of lines) {
    const tag = tagOf(line);
    if (tag?.[0] === 'EXT-X-VERSION') versions.push(Number(tag[1]));
    else if (tag?.[0] === 'EXT-X-MEDIA') renditions.push(parseAttributes(tag[1]));
    else if (tag?.[0] === 'EXT-X-STREAM-INF') {
      if (pending) errors.push('EXT-X-STREAM-INF without a URI');
      pending = parseAttributes(tag[1]);
    } else if (line !== '' && !line.startsWith('#')) {
      if (pending) variants.push({ uri: line, attributes: pending });
      else errors.push(`a URI without EXT-X-STREAM-INF: ${line.slice(0, 80)}`);
      pending = undefined;
    }
  }
  if (pending) errors.push('EXT-X-STREAM-INF without a URI');
  return { kind: 'multivariant', versions, variants, media: renditions, errors };
}

function media(lines: readonly string[], errors: string[]): MediaPlaylist {
  const versions: number[] = [];
  const segments: Segment[] = [];
  const hints: { type: string; uri: string }[] = [];
  const reports: { uri: string; msn: number; part: number | undefined }[] = [];
  const dateRanges: DateRange[] = [];
  let [targetDurationS, mediaSequence, skippedSegments, neededVersion] = [Number.NaN, 0, 0, 1];
  let partTargetS: number | undefined;
  let discontinuitySequence: number | undefined;
  let playlistType: string | undefined;
  let serverControl: ReadonlyMap<string, string> | undefined;
  let ended = false;

  let parts: Part[] = [];
  let durationS: number | undefined;
  let [gap, discontinuity, ownMap] = [false, false, false];
  let map: string | undefined;
  let writtenPdtMs: number | undefined;
  let nextPdtMs: number | undefined;
  let discontinuities = 0;

  const needs = (version: number) => {
    neededVersion = Math.max(neededVersion, version);
  };
  const finish = (uri: string): Segment => {
    const pdtMs = writtenPdtMs ?? (discontinuity ? undefined : nextPdtMs);
    const segment: Segment = {
      number: mediaSequence + skippedSegments + segments.length,
      uri,
      durationS: durationS ?? parts.reduce((sum, part) => sum + part.durationS, 0),
      gap,
      discontinuity,
      discontinuitySequence: (discontinuitySequence ?? 0) + discontinuities,
      map,
      ownMap,
      writtenPdtMs,
      pdtMs,
      parts,
    };
    nextPdtMs = pdtMs === undefined ? undefined : pdtMs + segment.durationS * 1000;
    parts = [];
    durationS = undefined;
    writtenPdtMs = undefined;
    [gap, discontinuity, ownMap] = [false, false, false];
    return segment;
  };
  const numberIn = (value: string, tag: string): number => {
    if (!/^\d+(\.\d+)?$/.test(value)) errors.push(`${tag} is not a number: ${value.slice(0, 40)}`);
    return Number(value);
  };

  for (const line of lines) {
    const tag = tagOf(line);
    if (!tag) {
      if (line === '' || line.startsWith('#')) continue;
      if (durationS === undefined) errors.push(`a URI without EXTINF: ${line.slice(0, 80)}`);
      segments.push(finish(line));
      continue;
    }
    const [name, value] = tag;
    switch (name) {
      case 'EXT-X-VERSION':
        versions.push(Number(value));
        break;
      case 'EXT-X-TARGETDURATION':
        targetDurationS = numberIn(value, name);
        break;
      case 'EXT-X-MEDIA-SEQUENCE':
        if (segments.length > 0) errors.push('EXT-X-MEDIA-SEQUENCE after a segment');
        mediaSequence = numberIn(value, name);
        break;
      case 'EXT-X-DISCONTINUITY-SEQUENCE':
        if (segments.length > 0 || discontinuities > 0) errors.push('EXT-X-DISCONTINUITY-SEQUENCE after a segment or discontinuity');
        discontinuitySequence = numberIn(value, name);
        break;
      case 'EXT-X-PLAYLIST-TYPE':
        playlistType = value;
        break;
      case 'EXT-X-PART-INF':
        partTargetS = numberIn(parseAttributes(value).get('PART-TARGET') ?? '', 'PART-TARGET');
        break;
      case 'EXT-X-SERVER-CONTROL':
        if (serverControl) errors.push('EXT-X-SERVER-CONTROL twice');
        serverControl = parseAttributes(value);
        break;
      case 'EXT-X-SKIP':
        skippedSegments = numberIn(parseAttributes(value).get('SKIPPED-SEGMENTS') ?? '', 'SKIPPED-SEGMENTS');
        needs(9);
        break;
      case 'EXT-X-MAP':
        map = parseAttributes(value).get('URI');
        ownMap = true;
        needs(6);
        break;
      case 'EXT-X-DISCONTINUITY':
        discontinuity = true;
        discontinuities += 1;
        break;
      case 'EXT-X-PROGRAM-DATE-TIME':
        writtenPdtMs = Date.parse(value);
        if (Number.isNaN(writtenPdtMs)) errors.push(`EXT-X-PROGRAM-DATE-TIME is not a date: ${value.slice(0, 40)}`);
        break;
      case 'EXT-X-GAP':
        gap = true;
        break;
      case 'EXTINF':
        durationS = numberIn(value.split(',', 1)[0] ?? '', name);
        if (value.split(',', 1)[0]?.includes('.')) needs(3);
        break;
      case 'EXT-X-PART': {
        const attributes = parseAttributes(value);
        parts.push({
          uri: attributes.get('URI') ?? '',
          durationS: numberIn(attributes.get('DURATION') ?? '', 'DURATION'),
          independent: attributes.get('INDEPENDENT') === 'YES',
        });
        break;
      }
      case 'EXT-X-PRELOAD-HINT': {
        const attributes = parseAttributes(value);
        hints.push({ type: attributes.get('TYPE') ?? '', uri: attributes.get('URI') ?? '' });
        break;
      }
      case 'EXT-X-RENDITION-REPORT': {
        const attributes = parseAttributes(value);
        const part = attributes.get('LAST-PART');
        reports.push({
          uri: attributes.get('URI') ?? '',
          msn: numberIn(attributes.get('LAST-MSN') ?? '', 'LAST-MSN'),
          part: part === undefined ? undefined : numberIn(part, 'LAST-PART'),
        });
        break;
      }
      case 'EXT-X-DATERANGE':
        dateRanges.push({ id: parseAttributes(value).get('ID') ?? '', attributes: value });
        break;
      case 'EXT-X-ENDLIST':
        ended = true;
        break;
    }
  }
  if (!(targetDurationS > 0)) errors.push('no EXT-X-TARGETDURATION');
  const open = parts.length > 0 ? finish('') : undefined;
  return {
    kind: 'media',
    versions,
    targetDurationS,
    partTargetS,
    mediaSequence,
    discontinuitySequence,
    playlistType,
    ended,
    serverControl,
    skippedSegments,
    segments,
    open,
    hints,
    reports,
    dateRanges,
    neededVersion,
    errors,
  };
}

/** Returns the listed segments in order, the open one last. */
export function listed(playlist: MediaPlaylist): readonly Segment[] {
  return playlist.open ? [...playlist.segments, playlist.open] : playlist.segments;
}

/** Returns the last listed segment and part; part −1 when the segment has no parts. */
export function positionOf(playlist: MediaPlaylist): { msn: number; part: number } {
  const last = playlist.open ?? playlist.segments.at(-1);
  if (!last) return { msn: playlist.mediaSequence + playlist.skippedSegments - 1, part: -1 };
  return { msn: last.number, part: last.parts.length - 1 };
}

/**
 * Applies a delta update to the playlist that the client had (RFC 8216bis 6.2.5.1). Returns the
 * whole playlist, or undefined when the update skips a segment that the client does not have.
 */
export function applyDelta(had: MediaPlaylist, delta: MediaPlaylist): MediaPlaylist | undefined {
  if (delta.skippedSegments === 0) return delta;
  const until = delta.mediaSequence + delta.skippedSegments;
  const kept = had.segments.filter((segment) => segment.number >= delta.mediaSequence && segment.number < until);
  const last = kept.at(-1);
  if (kept.length !== delta.skippedSegments || !last) return undefined;
  // MAP, date and discontinuity of the last skipped segment continue to apply.
  let previous = last;
  const follow = (segment: Segment): Segment => {
    const expectedPdtMs = previous.pdtMs === undefined ? undefined : previous.pdtMs + previous.durationS * 1000;
    previous = {
      ...segment,
      map: segment.map ?? previous.map,
      pdtMs: segment.pdtMs ?? (segment.discontinuity ? undefined : expectedPdtMs),
      discontinuitySequence: previous.discontinuitySequence + (segment.discontinuity ? 1 : 0),
    };
    return previous;
  };
  const rest = delta.segments.map(follow);
  const open = delta.open && follow(delta.open);
  // Parts that are still listed belong to segments that were not skipped.
  const withoutParts = kept.map((segment) => ({ ...segment, parts: [] }));
  return { ...delta, skippedSegments: 0, segments: [...withoutParts, ...rest], open };
}
