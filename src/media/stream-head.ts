/**
 * What it takes to begin decoding a broadcaster's stream in the middle, after a decoder has died: the headers of the containers
 * that have some, and a place in what follows where a demuxer can begin. ffmpeg finds such a place by itself in MP3, Ogg and
 * LOAS; in ADTS and Matroska its versions of 2018 give up instead.
 */

/** Codec headers are a few hundred bytes; a cover picture in an Ogg comment is the longest seen, and can be done without. */
const MAX_HEAD_BYTES = 256 * 1024;
/** In the search for a place to begin. The longest ADTS frame is 8,191 bytes. */
const MAX_SEARCH_BYTES = 64 * 1024;
const MIN_STEP_BYTES = 2048;

export class StreamHead {
  readonly #format: string;
  #head: Buffer = Buffer.alloc(0);
  #complete: boolean;
  /** What came since the head was last looked at. */
  #pieces: Uint8Array[] = [];
  #pieceBytes = 0;
  #lookAtBytes = 0;
  #bytes = 0;
  #seeking = false;
  /** Bytes seen while seeking that may hold the place. */
  #held: Buffer = Buffer.alloc(0);
  readonly #elements = new MatroskaElements();

  constructor(format: string) {
    this.#format = format;
    this.#complete = !['ogg', 'matroska', 'flac', 'wav'].includes(format);
  }

  /** Each piece of the stream, in order. Returns what the decoder is to have of it: all, unless a place to begin is being sought. */
  push(bytes: Uint8Array): Uint8Array {
    this.#bytes += bytes.length;
    if (!this.#complete) this.#collect(bytes);
    if (this.#format === 'matroska') return this.#elements.push(bytes, this.#seeking, () => this.#found());
    return this.#seeking ? this.#seekAdts(bytes) : bytes;
  }

  /** A new decoder begins: returns what it gets first. What `push` returns from then on goes on from there. */
  resume(): Buffer {
    if (!this.#complete) this.#look();
    this.#seeking = this.#complete && (this.#format === 'adts' || this.#format === 'matroska');
    this.#held = Buffer.alloc(0);
    if (!this.#complete || this.#format !== 'wav' || this.#head.length < 36) return this.#head;
    // Filled up to a whole sample, so that what follows is not noise.
    const into = (this.#bytes - this.#head.length) % Math.max(1, wavBlockAlign(this.#head));
    return Buffer.concat([this.#head, Buffer.alloc(into)]);
  }

  #found(): void {
    this.#seeking = false;
  }

  /** Looked for again only when a quarter more is there, so that a head which comes in small pieces costs no more than one in large ones. */
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

  /** From a header on whose frame is followed by another header. */
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

/** ISO/IEC 14496-3 §1.A.2: the length of the ADTS frame that begins here, or 0 when none does. */
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
 * Follows a Matroska stream from element to element (RFC 9559), so that at any time it is known where the next block begins and
 * what its cluster's timestamp is. A browser's recorder makes clusters of half a minute: waiting for the next one is no answer.
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
        // What follows in this piece is followed too, for the next time.
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

  /** The head of a cluster of unknown size with the timestamp of the one we are in. */
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
  // No such length is valid: step over the byte, and be out of step until something that looks like an element comes.
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

/** RFC 9639 §8: `fLaC`, then metadata blocks, the last with its top bit set. */
function flacHead(data: Buffer): number | undefined {
  let at = 4;
  for (;;) {
    if (data.length < at + 4) return undefined;
    const last = ((data[at] ?? 0) & 0x80) !== 0;
    at += 4 + data.readUIntBE(at + 1, 3);
    if (last) return data.length >= at ? at : undefined;
  }
}

/** RFC 3533: header pages have granule position 0; the first page with another is audio. */
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
    // −1: no packet ends on this page, a long comment that goes on.
    if (granule !== 0n && granule !== -1n) return at;
    at += size;
  }
}
