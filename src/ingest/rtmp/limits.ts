import type { AmfLimits } from './amf0.js';
import type { RtmpChunkLimits } from './chunk.js';

export interface RtmpSessionLimits extends RtmpChunkLimits, AmfLimits {
  /**
   * The RTMP handshake must be complete this long after its connection is accepted, TLS included.
   */
  handshakeMs: number;
  /** `publish` must arrive this long after the handshake, or after the end of a stream. */
  publishMs: number;
  /** The gate must decide about a stream key within this time. */
  admitMs: number;
  /**
   * On air a connection is refused after this long without a byte. Time in which back-pressure
   * pauses the socket does not count.
   */
  idleMs: number;
  /**
   * On air a connection is refused after this long without audio, whatever else arrives, such as
   * video without a sound track.
   */
  audioMs: number;
  /**
   * After a refusal the client has this long to close; until then its bytes are discarded, so that
   * it sees the refusal.
   */
  lingerMs: number;
  /** After a refusal the connection is destroyed when more than this arrives. */
  lingerBytes: number;
  /** A stream key has at most this many characters. */
  keyChars: number;
  /**
   * A connection is closed when the client has left more than this unread of what was sent to it.
   */
  unreadBytes: number;
}

export interface RtmpLimits extends RtmpSessionLimits {
  /**
   * Connections at most per address (of IPv6 per /64) whose key has not been accepted. Connections
   * with an accepted key are limited by the gate.
   */
  connectionsPerAddress: number;
  /** Connections at most, of all addresses together, whose key has not been accepted. */
  connections: number;
}

export const RTMP_LIMITS: Readonly<RtmpLimits> = {
  handshakeMs: 5_000,
  publishMs: 30_000,
  admitMs: 10_000,
  idleMs: 10_000,
  audioMs: 15_000,
  lingerMs: 2_000,
  lingerBytes: 1024 * 1024,
  keyChars: 256,
  unreadBytes: 64 * 1024,
  chunkBytes: 1024 * 1024,
  chunkStreams: 64,
  audioBytes: 64 * 1024,
  commandBytes: 64 * 1024,
  skippedBytes: 0xffffff,
  pendingBytes: 256 * 1024,
  amfDepth: 8,
  amfValues: 1_000,
  connectionsPerAddress: 100,
  connections: 1_000,
};
