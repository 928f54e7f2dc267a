/**
 * Lets a new decoder begin in the middle of a broadcaster's stream, after the previous decoder has
 * died. For that it needs the headers of the container, if the format has any, and a point in the
 * stream where a demuxer can begin. ffmpeg finds such a point by itself in MP3, Ogg and LOAS. In
 * ADTS and Matroska, ffmpeg versions of 2018 give up instead.
 */

/**
 * Codec headers take a few hundred bytes. The longest seen is a cover picture in an Ogg comment,
 * and a decoder works without that.
 */
const MAX_HEAD_BYTES = 256 * 1024;
/** Bytes that are searched for an ADTS frame, at most. The longest ADTS frame is 8,191 bytes. */
const MAX_SEARCH_BYTES = 64 * 1024;
const MIN_STEP_BYTES = 2048;

export class StreamHead {
  readonly #format: string;
  #head: Buffer = Buffer.alloc(0);
  #complete: boolean;
  /** Bytes that arrived after the last search for the end of the head. */
  #pieces: Uint8Array[] = [];
  #pieceBytes = 0;
  #lookAtBytes = 0;
  #bytes = 0;
  #seeking = false;
  /** Bytes at the end of the searched stream that may belong to a frame header. */
  #held: Buffer = Buffer.alloc(0);
  readonly #elements = new MatroskaElements();

  constructor(format: string) {
    this.#format = format;
    this.#complete = !['ogg', 'matroska', 'flac', 'wav'].includes(format);
  }

  /**
   * Reads the next bytes of the stream. Returns the bytes that the decoder gets: all of them, or
   * fewer while a point where it can begin is being searched.
   */
  push(bytes: Uint8Array): Uint8Array {
    this.#bytes += bytes.length;
    if (!this.#complete) this.#collect(bytes);
    if (this.#format === 'matroska') return this.#elements.push(bytes, this.#seeking, () => this.#found());
    return this.#seeking ? this.#seekAdts(bytes) : bytes;
  }

  /**
   * Call this when a new decoder begins. Returns the bytes that the decoder gets first; it then
   * gets what `push` returns.
   */
  resume(): Buffer {
    if (!this.#complete) this.#look();
    this.#seeking = this.#complete && (this.#format === 'adts' || this.#format === 'matroska');
    this.#held = Buffer.alloc(0);
    if (!this.#complete || this.#format !== 'wav' || this.#head.length < 36) return this.#head;
    // Zeros up to a whole sample, so that the audio after them is not noise.
    const into = (this.#bytes - this.#head.length) % Math.max(1, wavBlockAlign(this.#head));
    return Buffer.concat([this.#head, Buffer.alloc(into)]);
  }

  #found(): void {
    this.#seeking = false;
  }

  /**
   * Searches for the end of the head only after it has grown by a quarter, so that a head in small
   * pieces costs no more than one in large pieces.
   */
  #collect(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.#pieceBytes += bytes.length;
    if (this.#head.length + this.#pieceBytes >= this.#lookAtBytes) this.#look();
  }

  #look(): void {
    this.#head = Buffer.concat([this.#head, ...this.#pieces]);
    this.#pieces = [];
    this.#pieceBytes = 0;
    this.#lookAtBytes = this.#head.length + Math.max(MIN_STEP_BYTES, this.#head.length / 4);
    const length = headLength(this.#format, this.#head);
    if (length !== undefined) {
      this.#head = Buffer.from(this.#head.subarray(0, length));
      this.#complete = true;
    } else if (this.#head.length > MAX_HEAD_BYTES) {
      this.#head = Buffer.alloc(0);
      this.#complete = true;
    }
  }

  /** Returns the bytes from the first frame header that is followed by another one. */
  #seekAdts(bytes: Uint8Array): Uint8Array {
    const data = Buffer.concat([this.#held, bytes]);
    for (let at = 0; at + 9 < data.length; at += 1) {
      const next = at + adtsFrameBytes(data, at);
      if (next === at) continue;
      if (next + 9 < data.length ? adtsFrameBytes(data, next) === 0 : data.length - at < MAX_SEARCH_BYTES) {
        if (next + 9 < data.length) continue;
        this.#held = data.subarray(at);
        return Buffer.alloc(0);
      }
      this.#found();
      this.#held = Buffer.alloc(0);
      return data.subarray(at);
    }
    this.#held = data.subarray(Math.max(0, data.length - 9));
    return Buffer.alloc(0);
  }
}

/**
 * ISO/IEC 14496-3 §1.A.2: the length of the ADTS frame that begins at `at`, or 0 when there is
 * none.
 */
function adtsFrameBytes(data: Buffer, at: number): number {
  if (data[at] !== 0xff || ((data[at + 1] ?? 0) & 0xf6) !== 0xf0) return 0;
  const bytes = (((data[at + 3] ?? 0) & 0x03) << 11) | ((data[at + 4] ?? 0) << 3) | ((data[at + 5] ?? 0) >> 5);
  return bytes > 7 ? bytes : 0;
}

const SEGMENT = 0x18538067;
const CLUSTER = 0x1f43b675;
const TIMESTAMP = 0xe7;
const SIMPLE_BLOCK = 0xa3;
const BLOCK_GROUP = 0xa0;

/**
 * Follows a Matroska stream from element to element (RFC 9559), so that it always knows where the
 * next block begins and which timestamp its cluster has. A browser's recorder makes clusters of
 * half a minute, so waiting for the next cluster would take too long.
 */
class MatroskaElements {
  #header: Buffer = Buffer.alloc(0);
  #skip = 0;
  #timestamp: Buffer = Buffer.from([0]);
  #capture = false;

  push(bytes: Uint8Array, seeking: boolean, found: () => void): Uint8Array {
    const data = this.#header.length > 0 ? Buffer.concat([this.#header, bytes]) : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#header = Buffer.alloc(0);
    let at = 0;
    while (at < data.length) {
      if (this.#skip > 0) {
        const now = Math.min(this.#skip, data.length - at);
        if (this.#capture) this.#timestamp = Buffer.concat([this.#timestamp, data.subarray(at, at + now)]);
        this.#skip -= now;
        at += now;
        continue;
      }
      this.#capture = false;
      const element = elementHeader(data, at);
      if (!element) {
        this.#header = Buffer.from(data.subarray(at));
        break;
      }
      if (seeking && (element.id === CLUSTER || element.id === SIMPLE_BLOCK || element.id === BLOCK_GROUP)) {
        const rest = data.subarray(at);
        const opened = element.id === CLUSTER ? Buffer.alloc(0) : this.#cluster();
        found();
        this.#follow(element);
        // The rest of these bytes is followed too, so that the position stays right for the next
        // search.
        this.push(data.subarray(at + element.length), false, found);
        return Buffer.concat([opened, rest]);
      }
      this.#follow(element);
      at += element.length;
    }
    return seeking ? Buffer.alloc(0) : bytes;
  }

  #follow(element: { id: number; size: number }): void {
    const master = element.id === SEGMENT || element.id === CLUSTER;
    this.#skip = master ? 0 : element.size;
    if (element.id === TIMESTAMP && element.size <= 8) {
      this.#capture = true;
      this.#timestamp = Buffer.alloc(0);
    }
  }

  /** The head of a cluster of unknown size, with the timestamp of the current cluster. */
  #cluster(): Buffer {
    const timestamp = this.#timestamp.subarray(-8);
    return Buffer.concat([
      Buffer.from([0x1f, 0x43, 0xb6, 0x75, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0xe7, 0x80 | timestamp.length]),
      timestamp,
    ]);
  }
}

function elementHeader(data: Buffer, at: number): { id: number; size: number; length: number } | undefined {
  const idLength = Math.clz32(data[at] ?? 0) - 23;
  const sizeAt = at + idLength;
  if (sizeAt >= data.length) return undefined;
  const sizeLength = Math.clz32(data[sizeAt] ?? 0) - 23;
  if (sizeAt + sizeLength > data.length) return undefined;
  // An invalid length: skip one byte, and go on until the bytes look like an element again.
  if (idLength > 4 || sizeLength > 8) return { id: 0, size: 0, length: 1 };
  let size = (data[sizeAt] ?? 0) & (0xff >> sizeLength);
  for (let index = 1; index < sizeLength; index += 1) size = size * 256 + (data[sizeAt + index] ?? 0);
  return { id: data.readUIntBE(at, idLength), size, length: idLength + sizeLength };
}

function headLength(format: string, data: Buffer): number | undefined {
  switch (format) {
    case 'matroska':
      return before(data, Buffer.from([0x1f, 0x43, 0xb6, 0x75]));
    case 'wav': {
      const at = data.indexOf('data', 12, 'latin1');
      return at >= 0 && data.length >= at + 8 ? at + 8 : undefined;
    }
    case 'flac':
      return flacHead(data);
    default:
      return oggHead(data);
  }
}

function before(data: Buffer, mark: Buffer): number | undefined {
  const at = data.indexOf(mark);
  return at >= 0 ? at : undefined;
}

function wavBlockAlign(head: Buffer): number {
  const at = head.indexOf('fmt ', 12, 'latin1');
  return at >= 0 && at + 22 <= head.length ? head.readUInt16LE(at + 20) : 1;
}

/** RFC 9639 §8: `fLaC`, then metadata blocks. The top bit of the last one is set. */
function flacHead(data: Buffer): number | undefined {
  let at = 4;
  for (;;) {
    if (data.length < at + 4) return undefined;
    const last = ((data[at] ?? 0) & 0x80) !== 0;
    at += 4 + data.readUIntBE(at + 1, 3);
    if (last) return data.length >= at ? at : undefined;
  }
}

/**
 * RFC 3533: header pages have granule position 0. The first page with another position is audio.
 */
function oggHead(data: Buffer): number | undefined {
  let at = 0;
  for (;;) {
    if (data.length < at + 27) return undefined;
    if (data.toString('latin1', at, at + 4) !== 'OggS') return at;
    const segments = data[at + 26] ?? 0;
    if (data.length < at + 27 + segments) return undefined;
    let size = 27 + segments;
    for (let index = 0; index < segments; index += 1) size += data[at + 27 + index] ?? 0;
    const granule = data.readBigInt64LE(at + 6);
    // −1: no packet ends on this page, because a long comment continues on the next.
    if (granule !== 0n && granule !== -1n) return at;
    at += size;
  }
}
