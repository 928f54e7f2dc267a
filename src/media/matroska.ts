import { VezaError } from '../runtime/errors.js';

/** Element ids of RFC 9559 that matter for reading frames from a live Matroska stream. */
const SEGMENT = 0x18538067;
const CLUSTER = 0x1f43b675;
const BLOCK_GROUP = 0xa0;
const SIMPLE_BLOCK = 0xa3;
const BLOCK = 0xa1;

/** Far above any frame of the ladder (the largest, AAC at 256 kbit/s, is 1,536 bytes by its standard). */
const MAX_ELEMENT_BYTES = 1 << 20;

/**
 * Reads the encoder's output: one Matroska stream with a track a rendition, without seeking, in whatever pieces the pipe
 * gives. Container timestamps are not looked at: frames are counted.
 *
 * Masters are descended into, never awaited, so a frame is out as soon as its last byte is in.
 */
export class MatroskaFrames {
  #pending: Buffer = Buffer.alloc(0);
  readonly #onFrame: (track: number, frame: Buffer) => void;

  /** `onFrame` gets the track number (from 1, in the order of the encoder's outputs) and a frame that it may keep. */
  constructor(onFrame: (track: number, frame: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** Throws VezaError `unsupported_media` on what is not Matroska; the stream is then of no more use. */
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
    // Track number, a 16-bit timestamp, a byte of flags; frames are not laced by the encoder (flags 0x06).
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

/** RFC 8794 §4: a length by leading zeros, then the value, with or without the marker bit. */
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
