import { VezaError } from '../runtime/errors.js';

/** RFC 9559 ids of the elements that are needed to read frames from a live stream. */
const SEGMENT = 0x18538067;
const CLUSTER = 0x1f43b675;
const BLOCK_GROUP = 0xa0;
const SIMPLE_BLOCK = 0xa3;
const BLOCK = 0xa1;

/**
 * Far above any frame of the ladder: the largest frame that AAC at 256 kbit/s may have is 1,536
 * bytes.
 */
const MAX_ELEMENT_BYTES = 1 << 20;

/**
 * Reads the encoder's output: one Matroska stream with one track per rendition, in chunks of any
 * size. Timestamps of the container are ignored; frames are counted instead.
 *
 * It descends into master elements without waiting for their end, so a frame is available as soon
 * as its last byte has arrived.
 */
export class MatroskaFrames {
  #pending: Buffer = Buffer.alloc(0);
  readonly #onFrame: (track: number, frame: Buffer) => void;

  /**
   * `onFrame` gets the track number (from 1, in the order of the encoder's outputs) and a frame. It
   * may keep the frame.
   */
  constructor(onFrame: (track: number, frame: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /**
   * Reads the next bytes of the stream. Throws VezaError `unsupported_media` when they are not
   * Matroska; the reader cannot be used after that.
   */
  push(bytes: Buffer): void {
    let data = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    for (;;) {
      const header = readHeader(data);
      if (!header) break;
      if (header.id === SEGMENT || header.id === CLUSTER || header.id === BLOCK_GROUP) {
        data = data.subarray(header.length);
        continue;
      }
      if (header.size > MAX_ELEMENT_BYTES) throw new VezaError('unsupported_media', `Matroska element of ${header.size} bytes`);
      const end = header.length + header.size;
      if (data.length < end) break;
      if (header.id === SIMPLE_BLOCK || header.id === BLOCK) this.#block(data.subarray(header.length, end));
      data = data.subarray(end);
    }
    this.#pending = data;
  }

  #block(body: Buffer): void {
    const track = readVint(body, 0, true);
    // A block starts with the track number, a 16-bit timestamp and a byte of flags. The encoder
    // does not lace frames (flags 0x06).
    if (!track || body.length < track.length + 3) throw new VezaError('unsupported_media', 'truncated Matroska block');
    if (((body[track.length + 2] ?? 0) & 0x06) !== 0) throw new VezaError('unsupported_media', 'laced Matroska block');
    this.#onFrame(track.value, body.subarray(track.length + 3));
  }
}

function readHeader(data: Buffer): { id: number; size: number; length: number } | undefined {
  const id = readVint(data, 0, false);
  if (!id) return undefined;
  const size = readVint(data, id.length, true);
  if (!size) return undefined;
  return { id: id.value, size: size.value, length: id.length + size.length };
}

/**
 * RFC 8794 §4: the number of leading zeros says how long the value is. Returns undefined when bytes
 * are missing.
 */
function readVint(data: Buffer, at: number, stripMarker: boolean): { value: number; length: number } | undefined {
  const first = data[at];
  if (first === undefined) return undefined;
  const length = Math.clz32(first) - 23;
  if (length > 8) throw new VezaError('unsupported_media', 'not a Matroska stream');
  if (data.length < at + length) return undefined;
  let value = stripMarker ? first & (0xff >> length) : first;
  for (let index = 1; index < length; index += 1) value = value * 256 + (data[at + index] ?? 0);
  return { value, length };
}
