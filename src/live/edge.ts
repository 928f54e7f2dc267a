import type { Rendition } from '../media/ladder.js';
import type { Timeline, Title } from '../media/timeline.js';

/**
 * The live window of every channel that is on air (or ended a moment ago), as the app needs it. One maker keeps it in
 * memory beside the packager (`LiveChannels`); the other asks the worker that holds the broadcast (`RemoteEdge`).
 */
export interface Edge {
  /**
   * The channel's presentation, or undefined when it is off air (and its last playlist has had its time). Throws `unavailable` while the
   * worker that would know is away.
   */
  view(channel: string): LiveView | undefined;
  /** Channels that have a view. */
  channels(): string[];
}

/** What can be asked and done beside listening. */
export interface LiveEdge extends Edge {
  /** While the worker is away: what was on air when it was last heard of is `holding`. Never throws. */
  status(channel: string): ChannelStatus;
  /**
   * Ends a channel's broadcast; resolves when that is told to the listeners. False when it is off air. Rejects with `unavailable` when the worker
   * is away, and the end may be or not be.
   */
  end(channel: string, reason: string): Promise<boolean>;
  /** False when the channel is off air. Rejects with `unavailable` as `end` does. */
  setTitle(channel: string, update: { title: string; artist?: string }): Promise<boolean> | boolean;
  /** Broadcasts that are on air (or held) now. */
  readonly streams: number;
  /** Calls back at each change of what `channels` lists, or of which view one of them has. Returns what cancels it. */
  onChannels(listener: () => void): () => void;
}

export interface ChannelStatus {
  readonly state: 'offline' | 'live' | 'holding';
  /** Of the channel, as it was when the show began. */
  readonly title?: string | undefined;
  readonly startWallMs?: number | undefined;
  readonly broadcastId?: string | undefined;
  /** What is heard now, not what was announced last. */
  readonly nowPlaying: Title | undefined;
}

export interface LiveView {
  readonly channel: string;
  readonly renditions: readonly Rendition[];
  /** Rises with each change of `timeline`: a rendered manifest is good as long as it stands. */
  readonly version: number;
  readonly timeline: Timeline;
  /** Calls back once at the next change (a part, a segment, a title, the end). Returns what cancels it. */
  onChange(listener: () => void): () => void;
  /**
   * The init segment, a segment or a part that is finished or in the making. `undefined`: not in memory; ask the object store.
   * Names are those of `media/timeline`.
   */
  media(rendition: string, name: string): LiveMedia | undefined;
  /** Segments that are in memory, in some rendition at least. */
  held(): number[];
}

export interface LiveMedia {
  readonly contentType: string;
  /**
   * Set while bytes that exist are still on their way here: `chunks` and `complete` mean nothing yet. Ask `media` again when it has resolved;
   * it rejects with `unavailable` when they could not be had.
   */
  readonly loading?: Promise<void> | undefined;
  /** Bytes there are now; grows while `complete` is false. */
  readonly chunks: readonly Uint8Array[];
  readonly complete: boolean;
  /**
   * Set while incomplete: called for each further chunk, then once with undefined at the end. `aborted` says that it will never
   * be finished: the response must be destroyed, not ended, lest an immutable cache keep half of it.
   */
  follow(onChunk: (chunk: Uint8Array | undefined, aborted: boolean) => void): () => void;
}
