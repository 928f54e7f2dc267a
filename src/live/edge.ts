import type { Rendition } from '../media/ladder.js';
import type { MediaTimeline, Title } from '../media/timeline.js';

/**
 * The live window of every channel that is on air or has just ended, as the app needs it.
 * `LiveChannels` keeps it in memory beside the packager; `RemoteEdge` gets it from the worker that
 * holds the broadcast.
 */
export interface Edge {
  /**
   * Returns the presentation of a channel. Undefined when the channel is off air and its last
   * playlist need not be served any more. Throws `unavailable` while the worker is away.
   */
  view(channel: string): LiveView | undefined;
  /** Returns the slugs of the channels that have a view. */
  channels(): string[];
}

/** An edge that can also be asked for the state of a channel and can change its broadcast. */
export interface LiveEdge extends Edge {
  /**
   * Returns the state of a channel. While the worker is away, a broadcast that was on air at the
   * last news is `holding`. Never throws.
   */
  status(channel: string): ChannelStatus;
  /**
   * Ends the broadcast of a channel. Resolves with true when the playlists are marked as ended,
   * with false when the channel is off air. Rejects with `unavailable` when the worker is away;
   * then the broadcast may have ended or not.
   */
  end(channel: string, reason: string): Promise<boolean>;
  /**
   * Sets the title that is playing. Returns false when the channel is off air. Rejects with
   * `unavailable` as `end` does.
   */
  setTitle(channel: string, update: { title: string; artist?: string }): Promise<boolean> | boolean;
  /** The number of broadcasts that are on air, held ones included. */
  readonly streams: number;
  /**
   * Calls `listener` at each change of the list that `channels` returns, or of a channel's view.
   * Returns the function that cancels it.
   */
  onChannels(listener: () => void): () => void;
}

export interface ChannelStatus {
  readonly state: 'offline' | 'live' | 'holding';
  /** The title of the channel when the broadcast began. */
  readonly title?: string | undefined;
  readonly startWallMs?: number | undefined;
  readonly broadcastId?: string | undefined;
  /** The title that is heard now, not the last one that was set. */
  readonly nowPlaying: Title | undefined;
}

export interface LiveView {
  readonly channel: string;
  readonly renditions: readonly Rendition[];
  /**
   * Rises with each change of `timeline`. A rendered manifest is valid as long as it stays the
   * same.
   */
  readonly version: number;
  readonly timeline: MediaTimeline;
  /**
   * Calls `listener` once, at the next change: a part, a segment, a title, the end. Returns the
   * function that cancels it.
   */
  onChange(listener: () => void): () => void;
  /**
   * Returns an init segment, a segment or a part, finished or not, by its name of `media/timeline`.
   * Undefined when it is not in memory; the object store may have it.
   */
  media(rendition: string, name: string): LiveMedia | undefined;
  /** Returns the numbers of the segments that are in memory in at least one rendition. */
  held(): number[];
}

/** Receives what `LiveMedia.follow` reports. */
export type ChunkListener = (chunk: Uint8Array | undefined, aborted: boolean) => void;

export interface LiveMedia {
  readonly contentType: string;
  /**
   * Set while existing bytes are still being fetched; `chunks` and `complete` mean nothing yet.
   * When it has resolved, call `media` again. Rejects with `unavailable` when the bytes cannot be
   * fetched.
   */
  readonly loading?: Promise<void> | undefined;
  /** The bytes that exist now; more follow while `complete` is false. */
  readonly chunks: readonly Uint8Array[];
  readonly complete: boolean;
  /**
   * While `complete` is false, calls `onChunk` for each further chunk, and once with undefined at
   * the end. `aborted` means that the media will never be complete: the response must be destroyed,
   * not ended, so that a cache does not keep half of immutable media. Returns the function that
   * cancels it.
   */
  follow(onChunk: ChunkListener): () => void;
}
