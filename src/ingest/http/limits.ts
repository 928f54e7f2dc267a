import type { SniffLimits } from '../sniff.js';
import type { HeadLimits, HttpChunkLimits } from './wire.js';

export interface IngestHttpLimits extends HeadLimits, HttpChunkLimits, SniffLimits {
  /** The head of a request must be complete this long after its connection is accepted. */
  headMs: number;
  /** The gate must decide about a key within this time. */
  admitMs: number;
  /** The body of a metadata call by POST is at most this large. */
  formBytes: number;
  /** The body of a metadata call must be complete this long after its head. */
  formMs: number;
  /** The format must be recognised this long after the key was accepted. */
  sniffMs: number;
  /**
   * A source is refused after this long without a byte. Time in which back-pressure pauses the
   * socket does not count.
   */
  idleMs: number;
  /**
   * After the end of a body its answer waits at most this long until the broadcast can be played.
   */
  beginMs: number;
  /**
   * Connections at most per address (of IPv6 per /64) whose key has not been accepted. Connections
   * with an accepted key are limited by the gate.
   */
  connectionsPerAddress: number;
  /** Connections at most, of all addresses together, whose key has not been accepted. */
  connections: number;
  /**
   * After an answer the client has this long to close; until then its bytes are read and discarded,
   * so that it sees the answer.
   */
  lingerMs: number;
  /** After an answer the connection is destroyed when more than this arrives. */
  lingerBytes: number;
}

export const INGEST_HTTP_LIMITS: Readonly<IngestHttpLimits> = {
  headBytes: 16 * 1024,
  headers: 100,
  headMs: 5_000,
  admitMs: 10_000,
  formBytes: 8 * 1024,
  formMs: 5_000,
  sniffBytes: 64 * 1024,
  id3Bytes: 16 * 1024 * 1024,
  sniffMs: 10_000,
  chunkBytes: 64 * 1024 * 1024,
  chunkLineBytes: 256,
  chunkExtraBytes: 16 * 1024,
  idleMs: 10_000,
  beginMs: 5_000,
  connectionsPerAddress: 100,
  connections: 1_000,
  lingerMs: 2_000,
  lingerBytes: 1024 * 1024,
};
