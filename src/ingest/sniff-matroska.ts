import { boundsRefusal, oggPacketRefusal, streamInfoRefusal } from './audio-bounds.js';

const SEGMENT = 0x18538067;
const TRACKS = 0x1654ae6b;
const CLUSTER = 0x1f43b675;
const TRACK_ENTRY = 0xae;
const TRACK_TYPE = 0x83;
const CODEC_ID = 0x86;
const CODEC_PRIVATE = 0x63a2;
const AUDIO = 0xe1;
const SAMPLING_FREQUENCY = 0xb5;
const CHANNELS = 0x9f;

const AUDIO_TYPE = 2;
/** The codecs that are accepted, by Matroska's names (RFC 9559 12). */
const CODEC = /^A_(OPUS|VORBIS|FLAC|AAC(\/.*)?|MPEG\/L3|PCM\/INT\/LIT|PCM\/FLOAT\/IEEE)$/;

/**
 * Finds the track list (RFC 9559 5.1.4) and requires audio of an accepted codec in it. A file whose
 * track list lies beyond the window is accepted, and the decoder decides about it. Keeps its offset
 * between calls.
 */
export class MatroskaJudge {
  readonly #windowBytes: number;
  #at = 0;

  constructor(windowBytes: number) {
    this.#windowBytes = windowBytes;
  }

  /**
   * Returns `matroska`, why the stream is refused, or `more` when more bytes are needed. `bytes`:
   * everything that has arrived, from the first byte on.
   */
  judge(bytes: Buffer): 'matroska' | 'more' | { refused: string } {
    while (this.#at < this.#windowBytes) {
      const element = readEbml(bytes, this.#at);
      if (element === 'more') return bytes.length >= this.#windowBytes ? 'matroska' : 'more';
      if (element === 'bad') return { refused: 'this is broken WebM or Matroska' };
      if (element.id === CLUSTER) return { refused: 'this is WebM or Matroska without a track list' };
      if (element.id === TRACKS) {
        const end = element.data + element.size;
        if (end > this.#windowBytes) return 'matroska';
        if (bytes.length < end) return 'more';
        const refused = tracksRefusal(bytes.subarray(element.data, end));
        return refused === undefined ? 'matroska' : { refused };
      }
      this.#at = element.id === SEGMENT ? element.data : element.data + element.size;
    }
    return 'matroska';
  }
}

/** Returns why the first audio track is refused, which is the one that the decoder uses. */
function tracksRefusal(tracks: Buffer): string | undefined {
  for (const entry of children(tracks)) {
    if (entry.id !== TRACK_ENTRY) continue;
    const track = tracks.subarray(entry.data, entry.data + entry.size);
    const fields = new Map<number, Buffer>();
    for (const field of children(track)) fields.set(field.id, track.subarray(field.data, field.data + field.size));
    if (fields.get(TRACK_TYPE)?.[0] === AUDIO_TYPE) return trackRefusal(fields);
  }
  return 'there is no audio in it';
}

function trackRefusal(fields: ReadonlyMap<number, Buffer>): string | undefined {
  const codec = (fields.get(CODEC_ID) ?? Buffer.alloc(0)).toString('latin1', 0, 40).replace(/\0+$/, '');
  if (!CODEC.test(codec)) return `this is WebM or Matroska with the codec ${JSON.stringify(codec)}`;
  const audio = fields.get(AUDIO) ?? Buffer.alloc(0);
  // RFC 9559 5.1.4.1.29: the sample rate and the channel count have these defaults.
  let [rateHz, channels] = [8000, 1];
  for (const field of children(audio)) {
    const value = audio.subarray(field.data, field.data + field.size);
    if (field.id === SAMPLING_FREQUENCY) rateHz = readFloat(value);
    if (field.id === CHANNELS && value.length > 0)
      channels = value.length > 4 ? Number.POSITIVE_INFINITY : value.readUIntBE(0, value.length);
  }
  const refused = boundsRefusal(rateHz, channels) ?? privateRefusal(codec, fields.get(CODEC_PRIVATE) ?? Buffer.alloc(0));
  return refused === undefined ? undefined : `this is WebM or Matroska with ${refused}`;
}

/** Checks the header of the codec itself, which the decoder goes by. */
function privateRefusal(codec: string, header: Buffer): string | undefined {
  if (codec === 'A_OPUS' && header.length > 0) return oggPacketRefusal(header);
  if (codec === 'A_VORBIS') {
    const at = header.indexOf('\x01vorbis', 0, 'latin1');
    return at < 0 ? 'a cut off header of vorbis' : oggPacketRefusal(header.subarray(at));
  }
  if (codec === 'A_FLAC') {
    const at = header.toString('latin1', 0, 4) === 'fLaC' ? 8 : 0;
    return header.length < at + 34 ? 'a cut off header of flac' : streamInfoRefusal(header.subarray(at));
  }
  return undefined;
}

function readFloat(bytes: Buffer): number {
  if (bytes.length === 4) return bytes.readFloatBE();
  return bytes.length === 8 ? bytes.readDoubleBE() : 0;
}

interface EbmlElement {
  id: number;
  /** The offset of the content. */
  data: number;
  /** The size of the content in bytes; Infinity when it is unknown (live). */
  size: number;
}

function* children(bytes: Buffer): Generator<EbmlElement> {
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
