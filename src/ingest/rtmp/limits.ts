import type { AmfLimits } from './amf0.js';
import type { ChunkLimits } from './chunk.js';

export interface RtmpSessionLimits extends ChunkLimits, AmfLimits {
  /** From accepting a connection (TLS included) to the end of the RTMP handshake. */
  handshakeMs: number;
  /** From the handshake, or from the end of a stream, to `publish`. */
  publishMs: number;
  /** For the gate's answer about a key. */
  admitMs: number;
  /** On air without a byte. Time in which back-pressure keeps us from reading does not count. */
  idleMs: number;
  /** On air without audio, whatever else is sent: a video without a sound track. */
  audioMs: number;
  /** After a refusal, for the client to close; what it still sends is thrown away so that it sees the refusal. */
  lingerMs: number;
  lingerBytes: number;
  /** Characters of a stream key. */
  keyChars: number;
  /** What we have sent and the client has not read. */
  unreadBytes: number;
}

export interface RtmpLimits extends RtmpSessionLimits {
  /** Connections whose key was not accepted yet, of one address and of all. The gate limits what is on air. */
  connectionsPerAddress: number;
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
