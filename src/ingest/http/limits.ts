import type { SniffLimits } from '../sniff.js';
import type { ChunkLimits, HeadLimits } from './wire.js';

export interface IngestHttpLimits extends HeadLimits, ChunkLimits, SniffLimits {
  /** From accepting a connection to the end of its head. */
  headMs: number;
  /** For the gate's answer about a key. */
  admitMs: number;
  /** Of the body of a metadata call by POST, which is a form. */
  formBytes: number;
  /** From the head of such a call to the end of its body. */
  formMs: number;
  /** From the key to a container that was recognised. */
  sniffMs: number;
  /** Without a byte while we are reading. Time in which back-pressure keeps us from reading does not count. */
  idleMs: number;
  /** From the end of a body to the show that it begins. After this the client is answered all the same. */
  beginMs: number;
  /** Connections whose key was not accepted yet, of one address and of all. The gate limits what is on air. */
  connectionsPerAddress: number;
  connections: number;
  /** After an answer, for the client to close; what it still sends is read and thrown away so that it sees the answer. */
  lingerMs: number;
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
