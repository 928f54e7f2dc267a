import type { MediaPlaylist } from '../playlist.js';
import type { Observation } from '../report.js';

/** A difference of durations below this is rounding. */
export const ROUNDING_S = 0.002;
/** Rule 7 allows a quarter more for arrival. */
export const ARRIVAL_FACTOR = 1.25;

/** The media playlists that were read at one address, in order. */
export interface PlaylistTrack {
  readonly url: string;
  /** Delta updates are applied to the playlist before. */
  readonly states: { readonly observation: Observation; readonly playlist: MediaPlaylist }[];
}

export function resolveUri(uri: string, base: string): string {
  try {
    return new URL(uri, base).href;
  } catch {
    return uri;
  }
}
