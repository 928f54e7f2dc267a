/**
 * Remembers what a decoder must be told before it can begin in the middle of a stream: the headers of the containers that have
 * some. ADTS, LOAS and MP3 are found again by their sync words.
 */

/** Codec headers are a few hundred bytes; a cover picture in an Ogg comment is the longest seen, and can be done without. */
const MAX_HEAD_BYTES = 256 * 1024;

export class StreamHead {
  readonly #format: string;
  #head: Buffer = Buffer.alloc(0);
  #complete: boolean;
  #bytes = 0;

  constructor(format: string) {
    this.#format = format;
    this.#complete = !['ogg', 'matroska', 'flac', 'wav'].includes(format);
  }

  push(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    if (this.#complete) return;
    this.#head = Buffer.concat([this.#head, bytes]);
    const length = headLength(this.#format, this.#head);
    if (length !== undefined) {
      this.#head = Buffer.from(this.#head.subarray(0, length));
      this.#complete = true;
    } else if (this.#head.length > MAX_HEAD_BYTES) {
      this.#head = Buffer.alloc(0);
      this.#complete = true;
    }
  }

  /** What a new decoder gets first. For WAV it is filled up to a whole sample, so that what follows is not noise. */
  resume(): Buffer {
    if (!this.#complete) return this.#head;
    if (this.#format !== 'wav' || this.#head.length < 36) return this.#head;
    const blockAlign = Math.max(1, wavBlockAlign(this.#head));
    const into = (this.#bytes - this.#head.length) % blockAlign;
    return Buffer.concat([this.#head, Buffer.alloc(into)]);
  }
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
