import type { Title } from './timeline.js';

/** Formats of an endless stream: ADTS frames, bare MP3 frames, and ICY metadata between them. */

/** The length byte of an ICY metadata block counts units of 16 bytes. */
const ICY_MAX_BYTES = 255 * 16;

/** An empty ICY metadata block: the title has not changed. */
export const NO_ICY_METADATA = Buffer.alloc(1);

/**
 * An ICY metadata block: a length byte, then the text, padded to a multiple of 16 bytes. A player
 * ends the title at `';`, so the title must not contain it. A title that is too long is cut.
 */
export function icyMetadata(title: Pick<Title, 'title' | 'artist'>): Buffer {
  const shown = (title.artist === undefined ? title.title : `${title.artist} - ${title.title}`)
    .replace(/\p{Cc}/gu, ' ')
    .replaceAll("';", '’;');
  const room = ICY_MAX_BYTES - "StreamTitle='';".length;
  let text = Buffer.from(shown, 'utf8');
  if (text.length > room) {
    let end = room;
    while ((text[end]! & 0xc0) === 0x80) end--;
    text = text.subarray(0, end);
  }
  const block = Buffer.concat([Buffer.from("StreamTitle='"), text, Buffer.from("';")]);
  const units = Math.ceil(block.length / 16);
  const out = Buffer.alloc(1 + units * 16);
  out[0] = units;
  block.copy(out, 1);
  return out;
}

/**
 * ADTS frames (ISO/IEC 14496-3 §1.A.2): AAC-LC, 48 kHz, stereo, no CRC. Throws RangeError when a
 * frame is longer than ADTS allows (8,191 bytes with the header).
 */
export function adts(frames: readonly Uint8Array[]): Buffer {
  let size = 0;
  for (const frame of frames) size += 7 + frame.length;
  const out = Buffer.allocUnsafe(size);
  let at = 0;
  for (const frame of frames) {
    const length = 7 + frame.length;
    if (length > 0x1fff) throw new RangeError(`an AAC frame of ${frame.length} bytes does not fit in ADTS`);
    out[at] = 0xff;
    out[at + 1] = 0xf1;
    out[at + 2] = 0x4c; // LC, sampling frequency index 3
    out[at + 3] = 0x80 | (length >> 11);
    out[at + 4] = (length >> 3) & 0xff;
    out[at + 5] = ((length & 7) << 5) | 0x1f;
    out[at + 6] = 0xfc;
    out.set(frame, at + 7);
    at += length;
  }
  return out;
}

/** Removes the ID3v2 tag that starts each segment of packed audio. */
export function withoutId3(bytes: Uint8Array): Buffer {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < 10 || buffer.toString('latin1', 0, 3) !== 'ID3') return buffer;
  const size = (buffer[6]! << 21) | (buffer[7]! << 14) | (buffer[8]! << 7) | buffer[9]!;
  return buffer.subarray(Math.min(buffer.length, 10 + size));
}
