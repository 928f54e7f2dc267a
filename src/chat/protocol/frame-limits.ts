import type { WebSocket } from 'ws';

/**
 * Frames of one message (RFC 6455 5.4). Each is held by itself until the last one comes, 100 bytes beside what is in it; a text of 64 KiB
 * in pieces of 512 bytes is taken.
 */
export const MAX_FRAGMENTS = 128;
/** Reads from the socket of which one frame is put together: 64 KiB in TCP segments of 128 bytes. Each read is held by itself, about 300 bytes beside its data. */
export const MAX_CHUNKS = 512;
/** From the first byte of a message to its last; checked every two seconds. 64 KiB take 10 s at 56 kbit/s. */
export const MESSAGE_MS = 20_000;

/** What ws keeps of a message that has begun and not ended. ws has no other way to ask for it; a test holds that these fields are there. */
interface Receiver {
  /** The opcode of the message whose last fragment has not come; 0: none. */
  readonly _fragmented: number;
  /** Bytes of a frame that has not come as a whole. */
  readonly _bufferedBytes: number;
}

export function hasUnfinishedMessage(ws: WebSocket): boolean {
  const { _receiver } = ws as unknown as { readonly _receiver: Receiver | undefined };
  return _receiver !== undefined && (_receiver._fragmented !== 0 || _receiver._bufferedBytes > 0);
}
