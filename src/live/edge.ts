import type { Rendition } from '../media/ladder.js';
import type { Timeline } from '../media/timeline.js';

/**
 * The live window of every channel that is on air here (or ended a moment ago), as the app needs it. One maker keeps it in
 * memory beside the packager; another will ask the worker that holds the broadcast.
 */
export interface Edge {
  /** The channel's presentation, or undefined when it is off air (and its last playlist has had its time). */
  view(channel: string): LiveView | undefined;
  /** Channels that have a view. */
  channels(): string[];
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
}

export interface LiveMedia {
  readonly contentType: string;
  /** Bytes there are now; grows while `complete` is false. */
  readonly chunks: readonly Uint8Array[];
  readonly complete: boolean;
  /**
   * Set while incomplete: called for each further chunk, then once with undefined at the end. `aborted` says that it will never
   * be finished: the response must be destroyed, not ended, lest an immutable cache keep half of it.
   */
  follow(onChunk: (chunk: Uint8Array | undefined, aborted: boolean) => void): () => void;
}
