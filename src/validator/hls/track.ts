import type { MediaPlaylist } from '../playlist.js';
import type { Observation } from '../report.js';

/** Durations that differ by less than this are equal but for rounding. */
export const ROUNDING_S = 0.002;
/** Rule 7 allows parts and segments to arrive a quarter later than they are due. */
export const ARRIVAL_FACTOR = 1.25;

/** The media playlists that were read at one address, in order. */
export interface PlaylistTrack {
  readonly url: string;
  /** Delta updates are applied: each state is a whole playlist. */
  readonly states: { readonly observation: Observation; readonly playlist: MediaPlaylist }[];
}

export function resolveUri(uri: string, base: string): string {
  try {
    return new URL(uri, base).href;
  } catch {
    return uri;
  }
}
