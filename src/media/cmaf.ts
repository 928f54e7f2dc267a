import { CHANNELS, type Codec, FRAME_SAMPLES, PRIMING_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from './ladder.js';

/**
 * Writes CMAF (ISO/IEC 23000-19, based on ISO/IEC 14496-12): an init segment for each run and
 * rendition, and chunks (`moof` and `mdat`) of one track. A part is one chunk; a segment is its
 * chunks in a row.
 */

const TRACK_ID = 1;
/** AAC-LC, 48 kHz, stereo (ISO/IEC 14496-3 §1.6.2.1). */
const AUDIO_SPECIFIC_CONFIG = Buffer.from([0x11, 0x90]);

type BoxContent = Uint8Array | number[];

function box(type: string, ...content: BoxContent[]): Buffer {
  let size = 8;
  for (const piece of content) size += piece.length;
  const bytes = Buffer.allocUnsafe(size);
  bytes.writeUInt32BE(size, 0);
  bytes.write(type, 4, 'latin1');
  let at = 8;
  for (const piece of content) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

const fullBox = (type: string, version: number, flags: number, ...content: BoxContent[]) =>
  box(type, [version, (flags >> 16) & 0xff, (flags >> 8) & 0xff, flags & 0xff], ...content);
const u16 = (value: number) => [(value >> 8) & 0xff, value & 0xff];
const u32 = (value: number) => [(value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
const u64 = (value: number) => [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)];
const zeros = (count: number) => Buffer.alloc(count);
const text = (value: string) => Buffer.from(value, 'latin1');
const MATRIX = Buffer.from([...u32(0x10000), ...zeros(12), ...u32(0x10000), ...zeros(12), ...u32(0x40000000)]);

/**
 * An ISO/IEC 14496-1 descriptor with a one-byte length: its content must be shorter than 128 bytes.
 */
const descriptor = (tag: number, ...content: BoxContent[]) => {
  const body = Buffer.concat(content.map((piece) => Buffer.from(piece)));
  return Buffer.from([tag, body.length, ...body]);
};

function sampleEntry(rendition: Rendition): Buffer {
  const audio = [...zeros(6), ...u16(1), ...zeros(8), ...u16(CHANNELS), ...u16(16), ...zeros(4), ...u32(SAMPLE_RATE_HZ * 65536)];
  const bitrate = rendition.bitrateKbps * 1000;
  if (rendition.codec === 'opus') {
    // Opus in ISOBMFF §4.3.2: version, channels, PreSkip, input rate, gain, mapping family 0.
    const dOps = box('dOps', [0, CHANNELS], u16(PRIMING_SAMPLES), u32(SAMPLE_RATE_HZ), u16(0), [0]);
    return box('Opus', audio, dOps);
  }
  const decoderConfig = descriptor(4, [0x40, 0x15, 0, 0, 0], u32(bitrate), u32(bitrate), descriptor(5, AUDIO_SPECIFIC_CONFIG));
  const esds = fullBox('esds', 0, 0, descriptor(3, [...u16(TRACK_ID), 0], decoderConfig, descriptor(6, [2])));
  return box('mp4a', audio, esds);
}

/** The init segment: the same bytes for every run of a rendition. */
export function initSegment(rendition: Rendition): Buffer {
  const ftyp = box('ftyp', text('iso6'), u32(0), text('iso6cmfcmp41'));
  const mvhd = fullBox(
    'mvhd',
    0,
    0,
    zeros(8),
    u32(SAMPLE_RATE_HZ),
    u32(0),
    u32(0x10000),
    u16(0x100),
    zeros(10),
    MATRIX,
    zeros(24),
    u32(TRACK_ID + 1),
  );
  const tkhd = fullBox(
    'tkhd',
    0,
    7,
    zeros(8),
    u32(TRACK_ID),
    zeros(4),
    u32(0),
    zeros(8),
    u16(0),
    u16(1),
    u16(0x100),
    u16(0),
    MATRIX,
    zeros(8),
  );
  // The presentation begins after the encoder's delay. Duration 0 in a fragmented file means "all
  // of it" (14496-12 §8.6.6).
  const elst = fullBox('elst', 0, 0, u32(1), u32(0), u32(PRIMING_SAMPLES), u16(1), u16(0));
  const mdhd = fullBox('mdhd', 0, 0, zeros(8), u32(SAMPLE_RATE_HZ), u32(0), u16(0x55c4), u16(0));
  const hdlr = fullBox('hdlr', 0, 0, zeros(4), text('soun'), zeros(12), text('Veza\0'));
  const dinf = box('dinf', fullBox('dref', 0, 0, u32(1), fullBox('url ', 0, 1)));
  const empty = (type: string) => fullBox(type, 0, 0, u32(0));
  const stbl = box(
    'stbl',
    fullBox('stsd', 0, 0, u32(1), sampleEntry(rendition)),
    empty('stts'),
    empty('stsc'),
    fullBox('stsz', 0, 0, u32(0), u32(0)),
    empty('stco'),
  );
  const minf = box('minf', fullBox('smhd', 0, 0, zeros(4)), dinf, stbl);
  const trak = box('trak', tkhd, box('edts', elst), box('mdia', mdhd, hdlr, minf));
  const mvex = box('mvex', fullBox('trex', 0, 0, u32(TRACK_ID), u32(1), u32(FRAME_SAMPLES[rendition.codec]), u32(0), u32(0)));
  return Buffer.concat([ftyp, box('moov', mvhd, trak, mvex)]);
}

export interface ChunkOptions {
  codec: Codec;
  /** `mfhd` sequence number; rises within a run. */
  sequence: number;
  /** Samples from the broadcast's start to the first frame (`tfdt`). */
  mediaTime: number;
  frames: readonly Uint8Array[];
  /** `emsg` boxes to put before the chunk. */
  events?: readonly Uint8Array[];
}

/** A CMAF chunk. Every audio frame is a sync sample, so each chunk is independent. */
export function chunk(options: ChunkOptions): Buffer {
  const { frames } = options;
  const duration = FRAME_SAMPLES[options.codec];
  let mdatBytes = 8;
  for (const frame of frames) mdatBytes += frame.length;
  let eventBytes = 0;
  for (const event of options.events ?? []) eventBytes += event.length;

  const mfhdBytes = 16;
  const tfhdBytes = 24;
  const tfdtBytes = 20;
  const trunBytes = 20 + 4 * frames.length;
  const trafBytes = 8 + tfhdBytes + tfdtBytes + trunBytes;
  const moofBytes = 8 + mfhdBytes + trafBytes;
  const out = Buffer.allocUnsafe(eventBytes + moofBytes + mdatBytes);

  let at = 0;
  const put = (value: number) => {
    at = out.writeUInt32BE(value >>> 0, at);
  };
  const start = (size: number, type: string) => {
    put(size);
    at += out.write(type, at, 'latin1');
  };
  for (const event of options.events ?? []) {
    out.set(event, at);
    at += event.length;
  }
  start(moofBytes, 'moof');
  start(mfhdBytes, 'mfhd');
  put(0);
  put(options.sequence);
  start(trafBytes, 'traf');
  start(tfhdBytes, 'tfhd');
  put(0x020028); // default-base-is-moof, default duration and flags
  put(TRACK_ID);
  put(duration);
  put(0x02000000); // depends on no other sample: a sync sample
  start(tfdtBytes, 'tfdt');
  put(0x01000000);
  put(Math.floor(options.mediaTime / 2 ** 32));
  put(options.mediaTime % 2 ** 32);
  start(trunBytes, 'trun');
  put(0x000201); // data offset, sample sizes
  put(frames.length);
  put(moofBytes + 8);
  for (const frame of frames) put(frame.length);
  start(mdatBytes, 'mdat');
  for (const frame of frames) {
    out.set(frame, at);
    at += frame.length;
  }
  return out;
}

/**
 * A tag of ID3v2.4 with text frames in UTF-8. Callers limit the text of each frame to 1,000
 * characters.
 */
export function id3(frames: Readonly<Record<string, string | Uint8Array>>): Buffer {
  const syncsafe = (value: number) => [(value >> 21) & 0x7f, (value >> 14) & 0x7f, (value >> 7) & 0x7f, value & 0x7f];
  const bodies = Object.entries(frames).map(([name, value]) => {
    const content = typeof value === 'string' ? Buffer.concat([Buffer.from([3]), Buffer.from(value, 'utf8'), Buffer.from([0])]) : value;
    return Buffer.concat([text(name), Buffer.from([...syncsafe(content.length), 0, 0]), content]);
  });
  const size = bodies.reduce((sum, body) => sum + body.length, 0);
  return Buffer.concat([Buffer.from([0x49, 0x44, 0x33, 4, 0, 0, ...syncsafe(size)]), ...bodies]);
}

/**
 * A title as a timed-metadata event (`emsg` version 1, ID3). Repetitions carry the same id, so that
 * a player shows the title once.
 */
export function titleEvent(options: { id: number; mediaTime: number; title: string; artist?: string | undefined }): Buffer {
  const tag = id3({ TIT2: options.title, ...(options.artist === undefined ? {} : { TPE1: options.artist }) });
  return fullBox(
    'emsg',
    1,
    0,
    u32(SAMPLE_RATE_HZ),
    u64(Math.max(0, options.mediaTime)),
    u32(0xffffffff),
    u32(options.id),
    text('https://aomedia.org/emsg/ID3\0'),
    text('\0'),
    tag,
  );
}

/**
 * The ID3 tag that starts a segment of packed audio (RFC 8216bis 3.1.4): its media time as a 33-bit
 * MPEG-2 timestamp at 90 kHz.
 */
export function packedAudioTag(mediaTime: number): Buffer {
  const ticks = Math.round((mediaTime * 90_000) / SAMPLE_RATE_HZ) % 2 ** 33;
  return id3({ PRIV: Buffer.from([...text('com.apple.streaming.transportStreamTimestamp\0'), ...u64(ticks)]) });
}
