/**
 * WebSocket frames as this server writes them (RFC 6455 5.2): unmasked, not fragmented, and text
 * unless they are pings or pongs.
 */

/** The length of the header of an unmasked frame with this payload. */
const headerBytes = (payloadBytes: number) => (payloadBytes < 126 ? 2 : payloadBytes < 65_536 ? 4 : 10);

/**
 * Several texts as WebSocket frames in one buffer, for one write. `bytes`: the UTF-8 length of each
 * text, if known.
 */
export function webSocketFrames(texts: readonly string[], bytes?: readonly number[]): Buffer {
  let total = 0;
  const lengths = bytes ?? texts.map((text) => Buffer.byteLength(text));
  for (const length of lengths) total += headerBytes(length) + length;
  // Not from the shared pool: a slow socket would keep the whole slab of the pool in memory.
  const buffer = Buffer.allocUnsafeSlow(total);
  let at = 0;
  for (let index = 0; index < texts.length; index++) {
    const length = lengths[index]!;
    buffer[at] = 0x81;
    if (length < 126) buffer[at + 1] = length;
    else if (length < 65_536) {
      buffer[at + 1] = 126;
      buffer.writeUInt16BE(length, at + 2);
    } else {
      buffer[at + 1] = 127;
      buffer.writeUInt32BE(0, at + 2);
      buffer.writeUInt32BE(length, at + 6);
    }
    at += headerBytes(length);
    buffer.write(texts[index]!, at, length, 'utf8');
    at += length;
  }
  return buffer;
}

/**
 * An ASCII text of at most 65,535 characters as a frame in a latin1 string. A socket writes it
 * without a buffer.
 */
export function asciiFrame(text: string): string {
  const { length } = text;
  const head = length < 126 ? String.fromCharCode(0x81, length) : String.fromCharCode(0x81, 126, length >> 8, length & 0xff);
  return head + text;
}

/** An empty ping, in the form of `asciiFrame`. */
export const PING_FRAME = String.fromCharCode(0x89, 0);

/**
 * The answer to a ping: the same bytes (RFC 6455 5.5.3), at most 125. A string, so that it does not
 * keep the read buffer in memory.
 */
export const pongFrame = (data: Buffer): string => String.fromCharCode(0x8a, data.length) + data.toString('latin1');
