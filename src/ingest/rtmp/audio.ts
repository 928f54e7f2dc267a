import { OggOpusWriter, opusHeadPacket, opusPacketSamples } from '../../media/ogg.js';
import { boundsRefusal, oggPacketRefusal, streamInfoRefusal } from '../audio-bounds.js';
import type { SourceFormat } from '../source.js';
import { type AacConfig, adtsFrame, fitsAdts, loasFrame, readAacConfig } from './aac.js';
import { rejected } from './errors.js';

/**
 * The codecs that are accepted, by the names of Enhanced RTMP. The answer to `connect` lists them.
 */
export const AUDIO_FOURCCS = ['mp4a', '.mp3', 'Opus', 'fLaC'] as const;
export const TAKEN = 'AAC, MP3, and by Enhanced RTMP Opus and FLAC';

/** Receives the bare stream. `begin` announces bytes that need a decoder of their own. */
export interface AudioSink {
  begin(format: SourceFormat): void;
  write(bytes: Buffer): void;
}

/** Names of the SoundFormats of FLV that are refused, for the message. */
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

/**
 * Turns the sequence header and the frames of one codec into the barest container that the decoder
 * accepts.
 */
interface Wrapper {
  readonly format: SourceFormat;
  /** Names the codec and its configuration. A sequence header with the same key changes nothing. */
  readonly key: string;
  /** The bytes before the first frame. */
  head(): Buffer | undefined;
  frame(frame: Buffer): Buffer;
}

/**
 * Turns the audio tags of FLV and Enhanced RTMP into a bare stream. AAC becomes ADTS (LOAS where
 * ADTS cannot express it), MP3 stays as it is, Opus and FLAC become Ogg with one packet per page.
 * (With FLAC as a bare stream ffmpeg's parser held back 1.1 s more: it reads ten frames ahead.)
 *
 * `push` takes the payload of one audio message. It throws RtmpRefusal for audio that is malformed
 * or not accepted.
 */
export class AudioUnwrapper {
  readonly #sink: AudioSink;
  #wrapper: Wrapper | undefined;
  #begun = false;

  constructor(sink: AudioSink) {
    this.#sink = sink;
  }

  push(tag: Buffer): void {
    // Encoders send empty messages as keep-alives and before the end.
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

  /**
   * Reads "ExAudioTagHeader" and "ExAudioTagBody" of Enhanced RTMP v2. Version 1 is the same
   * without ModEx and Multitrack.
   */
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
      // The specification advises that track 0 has the highest priority.
      if (track === 0) this.#packet(packetType, codec, body);
    } while (!reader.done);
  }

  #packet(packetType: number, codec: string, body: Buffer): void {
    if (packetType === SEQUENCE_START) this.#sequenceStart(codec, body);
    else if (packetType === CODED_FRAMES) this.#frame(codec, body);
    // The end of a sequence and the layout of the channels change nothing here. Packets of an
    // unknown type are ignored.
  }

  #sequenceStart(codec: string, header: Buffer): void {
    // After the identification header a comment header may follow, in a packet of the same type.
    if (codec === 'Opus' && header.toString('latin1', 0, 8) === 'OpusTags') return;
    const wrapper = makeWrapper(codec, header);
    if (this.#wrapper?.key === wrapper.key) return;
    this.#wrapper = wrapper;
    this.#begun = false;
  }

  #frame(codec: string, frame: Buffer): void {
    if (frame.length === 0) return;
    if (this.#wrapper?.key.startsWith(codec) !== true) {
      // MP3 has no sequence header, and Opus with one or two channels needs none.
      if (codec === 'mp4a' || codec === 'fLaC') {
        if (this.#wrapper) throw rejected(`${codec} frames without a sequence header`);
        return;
      }
      this.#sequenceStart(codec, codec === 'Opus' ? Buffer.from(opusHeadPacket({ channels: frame[0]! & 4 ? 2 : 1, preSkip: 0 })) : frame);
    }
    const wrapper = this.#wrapper!;
    const head = this.#begun ? undefined : wrapper.head();
    // The frame is wrapped before `begin` is called: a malformed first frame must not begin a
    // source.
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
  // 7,350 Hz is a rate of MPEG-4's own table. It is below the bounds of the other codecs, and
  // harmless.
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

/** Wraps Opus (RFC 7845). The sequence header is the OpusHead packet. */
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

/**
 * Wraps FLAC as Ogg (RFC 9639 10.1). The sequence header is STREAMINFO: bare, as a metadata block,
 * or after `fLaC`.
 */
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
  // The last metadata block: comments with the vendor "Veza" and no others.
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

/**
 * Returns the number of samples in a FLAC frame (RFC 9639 9.1). Throws RtmpRefusal for a malformed
 * frame.
 */
export function flacFrameSamples(frame: Buffer): number {
  if (frame.length < 10 || frame.readUInt16BE(0) >> 1 !== 0xfff8 >> 1) throw rejected('a malformed FLAC frame');
  const code = frame[2]! >> 4;
  if (code === 1) return 192;
  if (code >= 2 && code <= 5) return 576 << (code - 2);
  if (code >= 8) return 256 << (code - 8);
  if (code === 0) throw rejected('a malformed FLAC frame');
  // Before the number of samples stands a coded number of 1 to 7 bytes, written like UTF-8.
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
