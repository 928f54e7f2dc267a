import type { SourceFormat } from './source.js';

/** What `PUT`, `SOURCE` and `POST` take, in words, for every refusal. */
export const TAKEN = 'MP3, AAC as ADTS, Ogg (Opus, Vorbis, FLAC), WebM or Matroska, FLAC, WAV';

export interface SniffLimits {
  /** Bytes, after a leading ID3v2 tag, in which the container has to be recognised; they are held until then. */
  sniffBytes: number;
  /** Leading ID3v2 tags (pictures, mostly); they are dropped as they arrive, not held. */
  id3Bytes: number;
}

export type Sniffed =
  /** `bytes`: everything that was held, to be decoded first. */
  { kind: 'format'; format: SourceFormat; bytes: Buffer } | { kind: 'refused'; message: string };

type Verdict = SourceFormat | 'more' | 'no' | { refused: string };

/** Things that people send by mistake, told by name at once and not after 64 KiB. Latin-1, at the offset. */
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
 * Finds out from its first bytes what a broadcaster sends. The bytes decide; the Content-Type, which half of the clients
 * get wrong, only settles which of MP3 and ADTS is meant where a stream begins in mid-frame and could be both.
 */
export class Sniffer {
  readonly #limits: SniffLimits;
  readonly #preferAdts: boolean;
  #held = Buffer.alloc(0);
  #size = 0;
  #id3Bytes = 0;
  /** Bytes of an ID3v2 tag that are still to be dropped. */
  #skip = 0;
  /** No MPEG frame begins before this offset: keeps a byte-by-byte arrival linear. */
  #scanFrom = 0;

  constructor(limits: SniffLimits, contentType = '') {
    this.#limits = limits;
    this.#preferAdts = /\baac/i.test(contentType);
  }

  push(bytes: Buffer): Sniffed | undefined {
    let rest = bytes;
    for (;;) {
      const skipped = Math.min(this.#skip, rest.length);
      this.#skip -= skipped;
      rest = rest.subarray(skipped);
      if (this.#skip > 0) return undefined;
      this.#hold(rest);
      const tag = id3Size(this.#bytes);
      if (tag === 'more') return undefined;
      if (tag === 0) break;
      this.#id3Bytes += tag;
      if (this.#id3Bytes > this.#limits.id3Bytes) {
        return { kind: 'refused', message: `an ID3 tag larger than ${this.#limits.id3Bytes} bytes` };
      }
      this.#skip = tag;
      rest = this.#bytes;
      this.#size = 0;
    }
    const held = this.#bytes;
    const verdict = this.#judge(held);
    if (typeof verdict === 'object') return { kind: 'refused', message: `${verdict.refused}; taken are ${TAKEN}` };
    if (verdict !== 'more' && verdict !== 'no') return { kind: 'format', format: verdict, bytes: held };
    if (verdict === 'no' || held.length >= this.#limits.sniffBytes) return this.#unknown();
    return undefined;
  }

  /** The body ended before it was recognised. */
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

  #judge(bytes: Buffer): Verdict {
    if (bytes.length < 4) return 'more';
    const start = bytes.toString('latin1', 0, 4);
    if (start === 'OggS') return judgeOgg(bytes);
    if (start === 'fLaC') return 'flac';
    if (start === 'RIFF' || start === 'RF64') {
      if (bytes.length < 12) return 'more';
      return bytes.toString('latin1', 8, 12) === 'WAVE' ? 'wav' : { refused: 'this is RIFF, but not WAV' };
    }
    if (start === '\x1aE\xdf\xa3') return judgeMatroska(bytes, this.#limits.sniffBytes);
    for (const [at, magic, name] of KNOWN_OTHERS) {
      if (bytes.toString('latin1', at, at + magic.length) === magic) return { refused: `this is ${name}` };
    }
    if (bytes.length < 12) return 'more';
    return this.#scan(bytes);
  }

  /** MP3 or ADTS, from the first byte or (an encoder that was joined in mid-frame) from wherever frames follow each other. */
  #scan(bytes: Buffer): Verdict {
    for (let at = this.#scanFrom; at + 1 < bytes.length; at++) {
      if (bytes[at] !== 0xff || (bytes[at + 1]! & 0xe0) !== 0xe0) continue;
      // At the very start two frames are proof enough; further in, chance makes a pair of headers now and then.
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

/** Size of the ID3v2 tag at the start, 0 when there is none (ID3v2.4 3.1: sizes have 7 bits a byte; a footer adds 10). */
function id3Size(bytes: Buffer): number | 'more' {
  const start = bytes.toString('latin1', 0, 3);
  if (!'ID3'.startsWith(start)) return 0;
  if (bytes.length < 10) return 'more';
  const size = (bytes[6]! << 21) | (bytes[7]! << 14) | (bytes[8]! << 7) | bytes[9]!;
  return 10 + (size & 0xfffffff) + (bytes[5]! & 0x10 ? 10 : 0);
}

const MP3_KBPS: Readonly<Record<'v1' | 'v2', readonly number[]>> = {
  v1: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  v2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};
const MP3_RATES_HZ = [44100, 48000, 32000] as const;

/** Frame length of the header at `at` and what has to be the same in the next one; undefined when it is no header. */
type FrameReader = (bytes: Buffer, at: number) => { bytes: number; same: number } | undefined;

const mp3FrameBytes: FrameReader = (bytes, at) => {
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

const adtsFrameBytes: FrameReader = (bytes, at) => {
  if (bytes[at] !== 0xff || (bytes[at + 1]! & 0xf6) !== 0xf0 || ((bytes[at + 2]! >> 2) & 15) > 12) return undefined;
  const length = ((bytes[at + 3]! & 3) << 11) | (bytes[at + 4]! << 3) | (bytes[at + 5]! >> 5);
  return length < 8 ? undefined : { bytes: length, same: (bytes[at + 1]! << 8) | (bytes[at + 2]! & 0xfc) };
};

function followsFrames(bytes: Buffer, from: number, frames: number, read: FrameReader): 'yes' | 'no' | 'more' {
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

export type OggCodec = 'opus' | 'vorbis' | 'flac';

/** The codec that the first packet of a logical stream names (RFC 7845 5.1, Vorbis I 4.2.2, FLAC-to-Ogg mapping). */
export function oggCodecOf(packet: Buffer): OggCodec | undefined {
  const start = packet.toString('latin1', 0, 8);
  if (start === 'OpusHead') return 'opus';
  if (start.startsWith('\x01vorbis')) return 'vorbis';
  if (start.startsWith('\x7fFLAC')) return 'flac';
  return undefined;
}

/** RFC 3533: all first pages (BOS) of a link come before anything else, so after them it is known what there is. */
function judgeOgg(bytes: Buffer): Verdict {
  let at = 0;
  for (;;) {
    if (bytes.length < at + 27) return 'more';
    if (bytes.toString('latin1', at, at + 4) !== 'OggS') return { refused: 'this is Ogg, but its second page is missing' };
    if ((bytes[at + 5]! & 2) === 0) return { refused: 'this is Ogg without Opus, Vorbis or FLAC' };
    const segments = bytes[at + 26]!;
    if (bytes.length < at + 27 + segments) return 'more';
    let body = 0;
    for (let i = 0; i < segments; i++) body += bytes[at + 27 + i]!;
    const data = at + 27 + segments;
    if (bytes.length < data + Math.min(body, 8)) return 'more';
    if (oggCodecOf(bytes.subarray(data, data + body))) return 'ogg';
    at = data + body;
  }
}

const EBML_SEGMENT = 0x18538067;
const EBML_TRACKS = 0x1654ae6b;
const EBML_CLUSTER = 0x1f43b675;
const EBML_TRACK_ENTRY = 0xae;
const EBML_TRACK_TYPE = 0x83;

/**
 * Walks to the track list (RFC 9559 5.1.4) and wants an audio track in it. A file that has its tracks further in than
 * the window is let through: the decoder tells.
 */
function judgeMatroska(bytes: Buffer, windowBytes: number): Verdict {
  let at = 0;
  while (at < windowBytes) {
    const element = readEbml(bytes, at);
    if (element === 'more') return bytes.length >= windowBytes ? 'matroska' : 'more';
    if (element === 'bad') return { refused: 'this is broken WebM or Matroska' };
    if (element.id === EBML_CLUSTER) return { refused: 'this is WebM or Matroska without a track list' };
    if (element.id === EBML_TRACKS) {
      const end = element.data + element.size;
      if (end > windowBytes) return 'matroska';
      if (bytes.length < end) return 'more';
      return hasAudioTrack(bytes.subarray(element.data, end)) ? 'matroska' : { refused: 'there is no audio in it' };
    }
    at = element.id === EBML_SEGMENT ? element.data : element.data + element.size;
  }
  return 'matroska';
}

function hasAudioTrack(tracks: Buffer): boolean {
  for (const entry of ebmlChildren(tracks)) {
    if (entry.id !== EBML_TRACK_ENTRY) continue;
    for (const field of ebmlChildren(tracks.subarray(entry.data, entry.data + entry.size))) {
      if (field.id === EBML_TRACK_TYPE && tracks[entry.data + field.data] === 2) return true;
    }
  }
  return false;
}

interface EbmlElement {
  id: number;
  /** Offset of its content. */
  data: number;
  /** Bytes of content; Infinity when it is not known (live). */
  size: number;
}

function* ebmlChildren(bytes: Buffer): Generator<EbmlElement> {
  let at = 0;
  while (at < bytes.length) {
    const element = readEbml(bytes, at);
    if (typeof element === 'string') return;
    yield element;
    at = element.data + element.size;
  }
}

function readEbml(bytes: Buffer, at: number): EbmlElement | 'more' | 'bad' {
  const first = bytes[at];
  if (first === undefined) return 'more';
  const idBytes = Math.clz32(first) - 23;
  if (idBytes > 4) return 'bad';
  const sizeFirst = bytes[at + idBytes];
  if (sizeFirst === undefined) return 'more';
  const sizeBytes = Math.clz32(sizeFirst) - 23;
  if (sizeBytes > 8) return 'bad';
  if (bytes.length < at + idBytes + sizeBytes) return 'more';
  let id = 0;
  for (let i = 0; i < idBytes; i++) id = id * 256 + bytes[at + i]!;
  let size = sizeFirst & (0xff >> sizeBytes);
  let unknown = size === 0xff >> sizeBytes;
  for (let i = 1; i < sizeBytes; i++) {
    const byte = bytes[at + idBytes + i]!;
    size = size * 256 + byte;
    if (byte !== 0xff) unknown = false;
  }
  return { id, data: at + idBytes + sizeBytes, size: unknown ? Number.POSITIVE_INFINITY : size };
}
