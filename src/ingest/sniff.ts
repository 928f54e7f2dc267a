import { BOUNDS_TAKEN, oggCodecOf, oggPacketRefusal, streamInfoRefusal } from './audio-bounds.js';
import { MatroskaJudge } from './sniff-matroska.js';
import { WavJudge } from './sniff-wav.js';
import type { SourceFormat } from './source.js';

/** The formats that `PUT`, `SOURCE` and `POST` accept, in words, for every refusal. */
export const TAKEN = `MP3, AAC as ADTS, Ogg (Opus, Vorbis, FLAC), WebM or Matroska (the same, and PCM), FLAC, WAV (PCM, G.711); ${BOUNDS_TAKEN}`;

const ID3_HEADER_BYTES = 10;
/** At most this many leading ID3v2 tags are accepted. Files have one, rarely two. */
const MAX_ID3_TAGS = 16;
/**
 * At most this much of an Ogg stream's first packet is needed; FLAC's is the longest with 51 bytes.
 */
const OGG_HEAD_BYTES = 51;

export interface SniffLimits {
  /**
   * The format must be recognised within this many bytes after the leading ID3v2 tags; the bytes
   * are held until then.
   */
  sniffBytes: number;
  /**
   * The leading ID3v2 tags (mostly pictures) are together at most this large. They are discarded as
   * they arrive.
   */
  id3Bytes: number;
}

export type Sniffed =
  /** `bytes`: everything that was held; it is decoded first. */
  { kind: 'format'; format: SourceFormat; bytes: Buffer } | { kind: 'refused'; message: string };

type FormatRecognition = SourceFormat | 'more' | 'no' | { refused: string };

/**
 * Formats that people send by mistake. They are refused by name and at once, not after 64 KiB. The
 * magic is Latin-1.
 */
const KNOWN_OTHERS: readonly [at: number, magic: string, name: string][] = [
  [4, 'ftyp', 'MP4'],
  [0, 'FLV\x01', 'FLV'],
  [0, '\xff\xd8\xff', 'a JPEG picture'],
  [0, '\x89PNG\r\n', 'a PNG picture'],
  [0, 'GIF8', 'a GIF picture'],
  [0, '%PDF-', 'a PDF document'],
  [0, 'PK\x03\x04', 'a ZIP archive'],
  [0, '\x1f\x8b\x08', 'gzip'],
  [0, '<?xml', 'XML'],
  [0, '<!DOC', 'HTML'],
  [0, '#EXTM3U', 'a playlist'],
  [0, 'FORM', 'AIFF'],
  [0, '.snd', 'AU'],
  [0, '#!AMR', 'AMR'],
  [0, 'MThd', 'MIDI'],
  [0, '\x30\x26\xb2\x75', 'ASF (WMA)'],
];

/**
 * Recognises the format from the first bytes that a broadcaster sends. The bytes decide. Half of
 * the clients send a wrong Content-Type; it only decides between MP3 and ADTS where a stream begins
 * in the middle of a frame and could be either.
 */
export class Sniffer {
  readonly #limits: SniffLimits;
  readonly #preferAdts: boolean;
  #held = Buffer.alloc(0);
  #size = 0;
  #id3Bytes = 0;
  #id3Tags = 0;
  #inTags = true;
  /** Bytes of an ID3v2 tag that are still to be discarded. */
  #skip = 0;
  readonly #wav = new WavJudge();
  readonly #ogg = new OggJudge();
  readonly #matroska: MatroskaJudge;
  /**
   * No MPEG frame begins before this offset. It keeps the cost linear when bytes arrive one by one.
   */
  #scanFrom = 0;

  constructor(limits: SniffLimits, contentType = '') {
    this.#limits = limits;
    this.#preferAdts = /\baac/i.test(contentType);
    this.#matroska = new MatroskaJudge(limits.sniffBytes);
  }

  push(bytes: Buffer): Sniffed | undefined {
    if (this.#inTags) {
      const refused = this.#skipTags(bytes);
      if (refused !== undefined) return { kind: 'refused', message: refused };
      if (this.#inTags) return undefined;
    } else {
      this.#hold(bytes);
    }
    const held = this.#bytes;
    const verdict = this.#judge(held);
    if (typeof verdict === 'object') return { kind: 'refused', message: `${verdict.refused}; taken are ${TAKEN}` };
    if (verdict !== 'more' && verdict !== 'no') return { kind: 'format', format: verdict, bytes: held };
    if (verdict === 'no' || held.length >= this.#limits.sniffBytes) return this.#unknown();
    return undefined;
  }

  /**
   * Discards leading tags and holds the bytes after them; returns why they are refused, if they
   * are. Each byte is read once, however small the tags are.
   */
  #skipTags(bytes: Buffer): string | undefined {
    let at = 0;
    for (;;) {
      const skipped = Math.min(this.#skip, bytes.length - at);
      this.#skip -= skipped;
      at += skipped;
      if (this.#skip > 0) return undefined;
      // A header may arrive in pieces: its beginning is held.
      const piece = bytes.subarray(at, at + ID3_HEADER_BYTES - this.#size);
      const header = this.#size === 0 ? piece : Buffer.concat([this.#bytes, piece]);
      const tag = id3Size(header);
      if (tag === 'more') {
        this.#hold(piece);
        return undefined;
      }
      if (tag === 0) {
        this.#inTags = false;
        this.#hold(bytes.subarray(at));
        return undefined;
      }
      this.#skip = tag - this.#size;
      this.#size = 0;
      this.#id3Bytes += tag;
      if (this.#id3Bytes > this.#limits.id3Bytes) return `ID3 tags larger than ${this.#limits.id3Bytes} bytes`;
      if (++this.#id3Tags > MAX_ID3_TAGS) return `more than ${MAX_ID3_TAGS} ID3 tags before the audio`;
    }
  }

  /** Returns the refusal for a body that ended before its format was recognised. */
  end(): Sniffed & { kind: 'refused' } {
    return this.#unknown();
  }

  #unknown(): Sniffed & { kind: 'refused' } {
    return { kind: 'refused', message: `this is not a format that is known here; taken are ${TAKEN}` };
  }

  get #bytes(): Buffer {
    return this.#held.subarray(0, this.#size);
  }

  #hold(bytes: Buffer): void {
    const size = this.#size + bytes.length;
    if (size > this.#held.length) {
      const grown = Buffer.allocUnsafe(Math.max(size, this.#held.length * 2, 4096));
      this.#bytes.copy(grown);
      this.#held = grown;
    }
    bytes.copy(this.#held, this.#size);
    this.#size = size;
  }

  #judge(bytes: Buffer): FormatRecognition {
    if (bytes.length < 4) return 'more';
    const start = bytes.toString('latin1', 0, 4);
    if (start === 'OggS') return this.#ogg.judge(bytes);
    if (start === 'fLaC') return judgeFlac(bytes);
    if (start === 'RIFF' || start === 'RF64') return this.#wav.judge(bytes);
    if (start === '\x1aE\xdf\xa3') return this.#matroska.judge(bytes);
    for (const [at, magic, name] of KNOWN_OTHERS) {
      if (bytes.toString('latin1', at, at + magic.length) === magic) return { refused: `this is ${name}` };
    }
    if (bytes.length < 12) return 'more';
    return this.#scan(bytes);
  }

  /**
   * Looks for MP3 or ADTS at the first byte, or, where an encoder was joined in the middle of a
   * frame, at any offset where frames follow each other.
   */
  #scan(bytes: Buffer): FormatRecognition {
    for (let at = this.#scanFrom; at + 1 < bytes.length; at++) {
      if (bytes[at] !== 0xff || (bytes[at + 1]! & 0xe0) !== 0xe0) continue;
      // At the first byte two frames are proof enough. Further in, a pair of headers now and then
      // occurs by chance.
      const frames = at === 0 ? 2 : 4;
      const mp3 = followsFrames(bytes, at, frames, mp3FrameBytes);
      const adts = followsFrames(bytes, at, frames, adtsFrameBytes);
      if (mp3 === 'yes' && adts === 'yes') return this.#preferAdts ? 'adts' : 'mp3';
      if (mp3 === 'yes') return 'mp3';
      if (adts === 'yes') return 'adts';
      if (at === 0 && isLayerTwo(bytes)) return { refused: 'this is MPEG audio, but not layer 3' };
      if (mp3 === 'more' || adts === 'more') {
        this.#scanFrom = at;
        return 'more';
      }
    }
    this.#scanFrom = Math.max(this.#scanFrom, bytes.length - 1);
    return 'more';
  }
}

/**
 * Returns the size of the ID3v2 tag at the start, 0 when there is none. By ID3v2.4 3.1 sizes have 7
 * bits per byte, and a footer adds 10.
 */
function id3Size(bytes: Buffer): number | 'more' {
  const start = bytes.toString('latin1', 0, 3);
  if (!'ID3'.startsWith(start)) return 0;
  if (bytes.length < ID3_HEADER_BYTES) return 'more';
  const size = (bytes[6]! << 21) | (bytes[7]! << 14) | (bytes[8]! << 7) | bytes[9]!;
  return 10 + (size & 0xfffffff) + (bytes[5]! & 0x10 ? 10 : 0);
}

const MP3_KBPS: Readonly<Record<'v1' | 'v2', readonly number[]>> = {
  v1: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  v2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};
const MP3_RATES_HZ = [44100, 48000, 32000] as const;

/**
 * Returns the length of the frame at `at`, and the bits that its successor must repeat; undefined
 * when there is no frame header.
 */
type AudioHeaderReader = (bytes: Buffer, at: number) => { bytes: number; same: number } | undefined;

const mp3FrameBytes: AudioHeaderReader = (bytes, at) => {
  const [first, second, third] = [bytes[at]!, bytes[at + 1]!, bytes[at + 2]!];
  if (first !== 0xff || (second & 0xe6) !== 0xe2) return undefined;
  const version = (second >> 3) & 3;
  const rate = MP3_RATES_HZ[(third >> 2) & 3];
  const kbps = MP3_KBPS[version === 3 ? 'v1' : 'v2'][third >> 4];
  if (version === 1 || !rate || !kbps) return undefined;
  const rateHz = version === 3 ? rate : version === 2 ? rate / 2 : rate / 4;
  const length = Math.floor(((version === 3 ? 144 : 72) * kbps * 1000) / rateHz) + ((third >> 1) & 1);
  return { bytes: length, same: (second << 8) | (third & 0x0c) };
};

const adtsFrameBytes: AudioHeaderReader = (bytes, at) => {
  if (bytes[at] !== 0xff || (bytes[at + 1]! & 0xf6) !== 0xf0 || ((bytes[at + 2]! >> 2) & 15) > 12) return undefined;
  const length = ((bytes[at + 3]! & 3) << 11) | (bytes[at + 4]! << 3) | (bytes[at + 5]! >> 5);
  return length < 8 ? undefined : { bytes: length, same: (bytes[at + 1]! << 8) | (bytes[at + 2]! & 0xfc) };
};

function followsFrames(bytes: Buffer, from: number, frames: number, read: AudioHeaderReader): 'yes' | 'no' | 'more' {
  let at = from;
  let same: number | undefined;
  for (let count = 0; count < frames; count++) {
    if (at + 6 > bytes.length) return 'more';
    const frame = read(bytes, at);
    if (!frame || (same !== undefined && frame.same !== same)) return 'no';
    same = frame.same;
    at += frame.bytes;
  }
  return 'yes';
}

function isLayerTwo(bytes: Buffer): boolean {
  const layer = (bytes[1]! >> 1) & 3;
  return bytes[0] === 0xff && (bytes[1]! & 0xe0) === 0xe0 && (layer === 2 || layer === 3) && bytes[2]! >> 4 !== 15;
}

/**
 * Looks for a supported codec among the first pages (BOS) of an Ogg stream. By RFC 3533 all of them
 * come before any other page of a link. Keeps its offset between calls.
 */
class OggJudge {
  #at = 0;

  judge(bytes: Buffer): FormatRecognition {
    for (;;) {
      const at = this.#at;
      if (bytes.length < at + 27) return 'more';
      if (bytes.toString('latin1', at, at + 4) !== 'OggS') return { refused: 'this is Ogg, but its second page is missing' };
      if ((bytes[at + 5]! & 2) === 0) return { refused: 'this is Ogg without Opus, Vorbis or FLAC' };
      const segments = bytes[at + 26]!;
      if (bytes.length < at + 27 + segments) return 'more';
      let body = 0;
      for (let i = 0; i < segments; i++) body += bytes[at + 27 + i]!;
      const data = at + 27 + segments;
      if (bytes.length < data + Math.min(body, OGG_HEAD_BYTES)) return 'more';
      const packet = bytes.subarray(data, data + body);
      if (oggCodecOf(packet)) {
        const refused = oggPacketRefusal(packet);
        return refused === undefined ? 'ogg' : { refused: `this is Ogg with ${refused}` };
      }
      this.#at = data + body;
    }
  }
}

/** Recognises FLAC (RFC 9639 8): `fLaC`, a block header, and STREAMINFO as the first block. */
function judgeFlac(bytes: Buffer): FormatRecognition {
  if (bytes.length < 8 + 34) return 'more';
  if ((bytes[4]! & 0x7f) !== 0) return { refused: 'this is FLAC without STREAMINFO' };
  const refused = streamInfoRefusal(bytes.subarray(8));
  return refused === undefined ? 'flac' : { refused: `this is FLAC with ${refused}` };
}
