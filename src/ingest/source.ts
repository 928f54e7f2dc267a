/**
 * What the ingest protocols need from the rest of Veza: a check of the stream key, and a place for
 * the bytes. The composition hands in the live room; the protocols know nothing else of it.
 */

/** The protocol by which a broadcaster sends. */
export type Protocol = 'rtmp' | 'rtmps' | 'icecast' | 'post';

/**
 * The barest container that the decoder accepts. FLV or another wrapping costs 100 ms of latency.
 */
export type SourceFormat = 'adts' | 'loas' | 'mp3' | 'ogg' | 'matroska' | 'flac' | 'wav';

export interface IngestRequest {
  readonly protocol: Protocol;
  /** The slug in the address; undefined with RTMP, where the key names the channel. */
  readonly channel: string | undefined;
  readonly streamKey: string;
  readonly remoteAddress: string;
  /** The User-Agent or flashVer. Together with the address it identifies an encoder. */
  readonly client: string;
}

export interface TitleUpdate {
  readonly title: string;
  readonly artist?: string;
}

/**
 * How a source ended.
 * - `finished`: the broadcaster said so (RTMP unpublish, the end of a chunked body). The broadcast
 *   ends after 5 s.
 * - `closed`: the body ends only with the connection, and that was closed in order. The broadcast
 *   is held for RECONNECT_WINDOW_S.
 * - `lost`: the connection failed. The broadcast is held as for `closed`. The next source replaces
 *   this one as soon as it can be heard, even if sound of this one is left.
 */
export type SourceEnd = 'finished' | 'closed' | 'lost';

/**
 * One connection's stream of container bytes. A change of format opens another source on the same
 * admission.
 */
export interface Source {
  /**
   * False means: read no more from the socket until `onDrain` is called. The bytes are accepted in
   * any case.
   */
  write(bytes: Uint8Array): boolean;
  title(update: TitleUpdate): void;
  /**
   * Ends the source; twice is harmless. The sound that was written is still played. Returns
   * undefined when the broadcast can be played already; otherwise a promise that resolves when it
   * can, or when it has ended before that.
   */
  end(how: SourceEnd): Promise<void> | undefined;
}

export interface SourceEvents {
  /** The decoder takes bytes again. */
  onDrain(): void;
  /**
   * Veza ends the source, and the connection has to be closed: the source was displaced or cannot
   * be decoded, the broadcast was ended, or the server stops. Called at most once.
   */
  onClose(error: { code: string; message: string }): void;
}

export interface IngestAdmission {
  readonly channel: string;
  open(format: SourceFormat, events: SourceEvents): Source;
}

/**
 * Checks the stream key before a byte is decoded. Rejects with VezaError `unauthorized`,
 * `not_found`, `displaced` or `busy`.
 */
export interface Gate {
  admit(request: IngestRequest): Promise<IngestAdmission>;
  /**
   * Sets a title by stream key, outside the connection of the source (the Icecast metadata call).
   * Rejects as `admit` does.
   */
  title(request: IngestRequest, update: TitleUpdate): Promise<void>;
}
