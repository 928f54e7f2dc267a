/**
 * What every ingest protocol needs from the rest of Veza: somebody who checks the key, and somewhere to put bytes. The
 * composition root hands in the live room; the protocols know nothing more of it.
 */
export type Protocol = 'rtmp' | 'rtmps' | 'icecast' | 'post';

/** The barest container the decoder accepts; an FLV or other wrapping costs 100 ms of latency. */
export type SourceFormat = 'adts' | 'loas' | 'mp3' | 'ogg' | 'matroska' | 'flac' | 'wav';

export interface PublishRequest {
  readonly protocol: Protocol;
  /** The slug in the address. RTMP has none: the key names the channel. */
  readonly channel: string | undefined;
  readonly streamKey: string;
  readonly remoteAddress: string;
  /** User agent or flashVer: with the address, what tells one encoder from another. */
  readonly client: string;
}

export interface TitleUpdate {
  readonly title: string;
  readonly artist?: string;
}

/**
 * How a source ended. `finished`: the broadcaster said so (RTMP unpublish, the end of a chunked body): the broadcast ends
 * after 5 s. `closed`: the body had no end but the connection's, which was closed in order: held for RECONNECT_WINDOW_S. `lost`: the connection
 * broke: held as long, and what it has sent gives way to the next source at once.
 */
export type SourceEnd = 'finished' | 'closed' | 'lost';

/** One connection's stream of container bytes. A change of format is a new source on the same admission. */
export interface Source {
  /** False: stop reading from the socket until `onDrain` is called. Bytes are taken in any case. */
  write(bytes: Uint8Array): boolean;
  title(update: TitleUpdate): void;
  /**
   * Idempotent. What was written is still played. When nothing of the show can be seen yet, the promise resolves as soon as it can, or when it is clear that
   * nothing comes.
   */
  end(how: SourceEnd): Promise<void> | undefined;
}

export interface SourceEvents {
  /** The decoder reads again. */
  onDrain(): void;
  /** Veza closes the connection: displaced, undecodable, broadcast ended by an administrator, shutting down. Called at most once. */
  onClose(error: { code: string; message: string }): void;
}

export interface Admission {
  readonly channel: string;
  open(format: SourceFormat, events: SourceEvents): Source;
}

/** Checks the key before a byte is decoded. Rejects with VezaError `unauthorized`, `not_found`, `displaced` or `busy`. */
export interface Gate {
  admit(request: PublishRequest): Promise<Admission>;
  /** A title for a channel by key, outside its media connection (the Icecast metadata call). Rejects as `admit` does. */
  title(request: PublishRequest, update: TitleUpdate): Promise<void>;
}
