import type { WebSocket } from 'ws';

/**
 * Frames of one message (RFC 6455 5.4). ws keeps each in memory until the last one arrives, with
 * 100 bytes besides its data. A text of 64 KiB in pieces of 512 bytes is accepted.
 */
export const MAX_FRAGMENTS = 128;
/**
 * Socket reads that make up one frame: 64 KiB in TCP segments of 128 bytes. ws keeps each in
 * memory, with about 300 bytes besides its data.
 */
export const MAX_CHUNKS = 512;
/**
 * The longest time from the first byte of a message to its last, checked every two seconds. 64 KiB
 * take 10 s at 56 kbit/s.
 */
export const MESSAGE_MS = 20_000;

/**
 * The fields in which ws keeps an unfinished message. ws has no public way to read them; a test
 * checks that they exist.
 */
interface Receiver {
  /** The opcode of the message whose last fragment has not arrived; 0: there is none. */
  readonly _fragmented: number;
  /** Bytes of a frame that has not arrived completely. */
  readonly _bufferedBytes: number;
}

export function hasUnfinishedMessage(ws: WebSocket): boolean {
  const { _receiver } = ws as unknown as { readonly _receiver: Receiver | undefined };
  return _receiver !== undefined && (_receiver._fragmented !== 0 || _receiver._bufferedBytes > 0);
}
