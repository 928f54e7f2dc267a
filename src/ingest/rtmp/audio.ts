import { OggOpusWriter, opusHeadPacket, opusPacketSamples } from '../../media/ogg.js';
import { boundsRefusal, oggPacketRefusal, streamInfoRefusal } from '../audio-bounds.js';
import type { SourceFormat } from '../source.js';
import { type AacConfig, adtsFrame, fitsAdts, loasFrame, readAacConfig } from './aac.js';
import { rejected } from './errors.js';

/** Enhanced RTMP's names of what is taken, as `connect` is told. */
export const AUDIO_FOURCCS = ['mp4a', '.mp3', 'Opus', 'fLaC'] as const;
export const TAKEN = 'AAC, MP3, and by Enhanced RTMP Opus and FLAC';

/** Where the bare stream goes. `begin`: what follows is for a decoder of its own. */
export interface AudioSink {
  begin(format: SourceFormat): void;
  write(bytes: Buffer): void;
}

/** Names of FLV's other SoundFormats, for the refusal. */
const REFUSED_FORMATS: Readonly<Record<number, string>> = {
  0: 'PCM',
  1: 'ADPCM',
  3: 'PCM',
  4: 'Nellymoser',
  5: 'Nellymoser',
  6: 'Nellymoser',
  7: 'G.711',
  8: 'G.711',
  11: 'Speex',
  15: 'device-specific audio',
};

const SEQUENCE_START = 0;
const CODED_FRAMES = 1;
const MULTITRACK = 5;
const MOD_EX = 7;
const ONE_TRACK = 0;
const MANY_TRACKS_MANY_CODECS = 2;
const MAX_OPUS_HEAD_BYTES = 19 + 2 + 255;
const STREAMINFO_BYTES = 34;

/** Turns one codec's sequence header and frames into the barest container that the decoder takes. */
interface Wrapper {
  readonly format: SourceFormat;
  /** Of the same codec and configuration: another sequence header that says the same changes nothing. */
  readonly key: string;
  /** What comes before the first frame. */
  head(): Buffer | undefined;
  frame(frame: Buffer): Buffer;
}

/**
 * FLV audio tags, and Enhanced RTMP's, to a bare stream: AAC to ADTS (LOAS where ADTS cannot say it), MP3 as it is, Opus and
 * FLAC to Ogg, one packet a page. (FLAC as a bare stream made ffmpeg's parser hold back 1.1 s more: it looks ten frames ahead.)
 *
 * `push` takes the payload of audio messages and throws RtmpRefusal for what is malformed or not taken.
 */
export class AudioUnwrapper {
  readonly #sink: AudioSink;
  #wrapper: Wrapper | undefined;
  #begun = false;

  constructor(sink: AudioSink) {
    this.#sink = sink;
  }

  push(tag: Buffer): void {
    // Empty ones are sent as keep-alives and before the end.
    if (tag.length === 0) return;
    const soundFormat = tag[0]! >> 4;
    switch (soundFormat) {
      case 10:
        if (tag[1] === 0) this.#sequenceStart('mp4a', tag.subarray(2));
        else if (tag[1] === 1) this.#frame('mp4a', tag.subarray(2));
        else if (tag.length > 1) throw rejected(`an AAC packet of type ${tag[1]}`);
        return;
      case 2:
      case 14:
        this.#frame('.mp3', tag.subarray(1));
        return;
      case 9:
        this.#enhanced(tag);
        return;
      default:
        throw rejected(`${REFUSED_FORMATS[soundFormat] ?? `sound format ${soundFormat}`} is not taken; ${TAKEN} are`);
    }
  }

  /** Enhanced RTMP v2, "ExAudioTagHeader" and "ExAudioTagBody". v1 is the same without ModEx and Multitrack. */
  #enhanced(tag: Buffer): void {
    const reader = new TagReader(tag);
    let packetType = reader.byte() & 0x0f;
    while (packetType === MOD_EX) {
      let size = reader.byte() + 1;
      if (size === 256) size = reader.number(2) + 1;
      reader.take(size);
      packetType = reader.byte() & 0x0f;
    }
    if (packetType !== MULTITRACK) {
      const codec = reader.fourCc();
      this.#packet(packetType, codec, reader.rest());
      return;
    }
    const types = reader.byte();
    const multitrackType = types >> 4;
    packetType = types & 0x0f;
    if (multitrackType > MANY_TRACKS_MANY_CODECS) throw rejected(`multitrack audio of type ${multitrackType}`);
    let codec = multitrackType === MANY_TRACKS_MANY_CODECS ? '' : reader.fourCc();
    do {
      if (multitrackType === MANY_TRACKS_MANY_CODECS) codec = reader.fourCc();
      const track = reader.byte();
      const body = multitrackType === ONE_TRACK ? reader.rest() : reader.take(reader.number(3));
      // Track 0 is the one of the highest priority, by the specification's advice.
      if (track === 0) this.#packet(packetType, codec, body);
    } while (!reader.done);
  }

  #packet(packetType: number, codec: string, body: Buffer): void {
    if (packetType === SEQUENCE_START) this.#sequenceStart(codec, body);
    else if (packetType === CODED_FRAMES) this.#frame(codec, body);
    // The end of a sequence and the layout of channels change nothing here; what is unknown is no audio.
  }

  #sequenceStart(codec: string, header: Buffer): void {
    // A comment header may follow the identification header, in a packet of the same kind.
    if (codec === 'Opus' && header.toString('latin1', 0, 8) === 'OpusTags') return;
    const wrapper = makeWrapper(codec, header);
    if (this.#wrapper?.key === wrapper.key) return;
    this.#wrapper = wrapper;
    this.#begun = false;
  }

  #frame(codec: string, frame: Buffer): void {
    if (frame.length === 0) return;
    if (this.#wrapper?.key.startsWith(codec) !== true) {
      // MP3 has no sequence header; Opus in one or two channels can do without.
      if (codec === 'mp4a' || codec === 'fLaC') {
        if (this.#wrapper) throw rejected(`${codec} frames without a sequence header`);
        return;
      }
      this.#sequenceStart(codec, codec === 'Opus' ? Buffer.from(opusHeadPacket({ channels: frame[0]! & 4 ? 2 : 1, preSkip: 0 })) : frame);
    }
    const wrapper = this.#wrapper!;
    const head = this.#begun ? undefined : wrapper.head();
    // Before `begin`: a first frame that is malformed puts nobody on air.
    const bytes = wrapper.frame(frame);
    if (!this.#begun) this.#sink.begin(wrapper.format);
    this.#begun = true;
    if (head) this.#sink.write(head);
    this.#sink.write(bytes);
  }
}

function checkBounds(refused: string | undefined): void {
  if (refused !== undefined) throw rejected(`${refused} is not taken`);
}

function makeWrapper(codec: string, header: Buffer): Wrapper {
  switch (codec) {
    case 'mp4a':
      return aac(header);
    case '.mp3':
      return { format: 'mp3', key: '.mp3', head: () => undefined, frame: (frame) => frame };
    case 'Opus':
      return opus(header);
    case 'fLaC':
      return flac(header);
    default:
      throw rejected(`audio of the kind ${JSON.stringify(codec)} is not taken; ${TAKEN} are`);
  }
}

function aac(header: Buffer): Wrapper {
  const config: AacConfig = readAacConfig(header);
  // 7,350 Hz, of MPEG-4's own table, is below what is taken of other codecs, and harmless.
  if (config.rateIndex === undefined) checkBounds(boundsRefusal(config.rateHz, 1));
  const sequenceHeader = Buffer.from(header);
  const adts = fitsAdts(config);
  if (!adts && sequenceHeader.length > 256) throw rejected(`an AAC sequence header of ${sequenceHeader.length} bytes`);
  return {
    format: adts ? 'adts' : 'loas',
    key: `mp4a ${adts ? JSON.stringify(config) : sequenceHeader.toString('hex')}`,
    head: () => undefined,
    frame: (frame) => (adts ? adtsFrame(config, frame) : loasFrame(sequenceHeader, frame)),
  };
}

/** RFC 7845. The header is the OpusHead packet. */
function opus(header: Buffer): Wrapper {
  if (header.length < 19 || header.length > MAX_OPUS_HEAD_BYTES || header.toString('latin1', 0, 8) !== 'OpusHead') {
    throw rejected('the Opus sequence header is not an OpusHead');
  }
  if (header[8]! >> 4 !== 0 || header[9] === 0) throw rejected('an OpusHead of an unknown version, or without channels');
  checkBounds(oggPacketRefusal(header));
  const head = Buffer.from(header);
  const writer = new OggOpusWriter(1);
  let granule = 0;
  return {
    format: 'ogg',
    key: `Opus ${head.toString('hex')}`,
    head: () => Buffer.from(writer.head(head)),
    frame: (frame) => {
      const samples = opusPacketSamples(frame);
      if (samples === 0) throw rejected('a malformed Opus packet');
      granule += samples;
      return page(writer, frame, granule);
    },
  };
}

/** The mapping of FLAC to Ogg (RFC 9639 10.1). The header is STREAMINFO: bare, as a block, or behind `fLaC`. */
function flac(header: Buffer): Wrapper {
  let at = header.toString('latin1', 0, 4) === 'fLaC' ? 4 : 0;
  if (header.length - at >= 4 + STREAMINFO_BYTES && (header[at]! & 0x7f) === 0 && header.readUIntBE(at + 1, 3) === STREAMINFO_BYTES)
    at += 4;
  const streamInfo = Buffer.from(header.subarray(at, at + STREAMINFO_BYTES));
  if (streamInfo.length < STREAMINFO_BYTES) throw rejected('the FLAC sequence header has no STREAMINFO');
  if (streamInfo.readUIntBE(10, 3) >> 4 === 0) throw rejected('the FLAC sequence header has no sample rate');
  checkBounds(streamInfoRefusal(streamInfo));
  const writer = new OggOpusWriter(1);
  let granule = 0;
  const mapping = Buffer.from([0x7f, 0x46, 0x4c, 0x41, 0x43, 1, 0, 0, 1, 0x66, 0x4c, 0x61, 0x43, 0, 0, 0, STREAMINFO_BYTES]);
  // The last metadata block: comments, of the vendor "Veza" and no more.
  const comments = Buffer.from('8400000c0400000056657a6100000000', 'hex');
  return {
    format: 'ogg',
    key: `fLaC ${streamInfo.toString('hex')}`,
    head: () => Buffer.concat([writer.page(Buffer.concat([mapping, streamInfo]), 0, { begin: true }), writer.page(comments, 0)]),
    frame: (frame) => {
      granule += flacFrameSamples(frame);
      return page(writer, frame, granule);
    },
  };
}

/** Samples in a FLAC frame (RFC 9639 9.1). */
export function flacFrameSamples(frame: Buffer): number {
  if (frame.length < 10 || frame.readUInt16BE(0) >> 1 !== 0xfff8 >> 1) throw rejected('a malformed FLAC frame');
  const code = frame[2]! >> 4;
  if (code === 1) return 192;
  if (code >= 2 && code <= 5) return 576 << (code - 2);
  if (code >= 8) return 256 << (code - 8);
  if (code === 0) throw rejected('a malformed FLAC frame');
  // The coded number before it is written like UTF-8, of 1 to 7 bytes.
  const leading = Math.clz32(~(frame[4]! << 24));
  const at = 4 + Math.max(1, leading);
  if (at + 2 > frame.length) throw rejected('a malformed FLAC frame');
  return code === 6 ? frame[at]! + 1 : frame.readUInt16BE(at) + 1;
}

function page(writer: OggOpusWriter, packet: Buffer, granule: number): Buffer {
  try {
    return Buffer.from(writer.page(packet, granule));
  } catch {
    throw rejected(`an audio packet of ${packet.length} bytes`);
  }
}

class TagReader {
  readonly #tag: Buffer;
  #at = 0;

  constructor(tag: Buffer) {
    this.#tag = tag;
  }

  get done(): boolean {
    return this.#at >= this.#tag.length;
  }

  take(size: number): Buffer {
    if (size > this.#tag.length - this.#at) throw rejected('an audio message that is cut off');
    this.#at += size;
    return this.#tag.subarray(this.#at - size, this.#at);
  }

  rest(): Buffer {
    return this.take(this.#tag.length - this.#at);
  }

  byte(): number {
    return this.take(1)[0]!;
  }

  number(bytes: number): number {
    return this.take(bytes).readUIntBE(0, bytes);
  }

  fourCc(): string {
    return this.take(4).toString('latin1');
  }
}
