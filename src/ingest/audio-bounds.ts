/**
 * The sample rates and channel counts that are accepted. A decoder makes 48 kHz of everything: from
 * 1 Hz each sample becomes 48,000, and from 2 GHz the resampler's filter has millions of taps,
 * which takes 0.5 to 1.8 GB for a body of 4 KB. So the rate and the channel count in a header are
 * checked before a decoder is started.
 */
const MIN_RATE_HZ = 8_000;
const MAX_RATE_HZ = 192_000;
const MAX_CHANNELS = 8;

export const BOUNDS_TAKEN = `1 to ${MAX_CHANNELS} channels of ${MIN_RATE_HZ / 1000} to ${MAX_RATE_HZ / 1000} kHz`;

/**
 * Returns why audio of this rate and channel count is refused, or undefined when it is accepted.
 */
export function boundsRefusal(rateHz: number, channels: number): string | undefined {
  if (!(rateHz >= MIN_RATE_HZ && rateHz <= MAX_RATE_HZ)) return `a sample rate of ${rateHz} Hz`;
  if (!(channels >= 1 && channels <= MAX_CHANNELS)) return `audio of ${channels} channels`;
  return undefined;
}

export type OggCodec = 'opus' | 'vorbis' | 'flac';

/**
 * Returns the codec that the first packet of a logical stream names (RFC 7845 5.1, Vorbis I 4.2.2,
 * FLAC-to-Ogg mapping).
 */
export function oggCodecOf(packet: Buffer): OggCodec | undefined {
  const start = packet.toString('latin1', 0, 8);
  if (start === 'OpusHead') return 'opus';
  if (start.startsWith('\x01vorbis')) return 'vorbis';
  if (start.startsWith('\x7fFLAC')) return 'flac';
  return undefined;
}

/**
 * Bytes that the identification header of each codec has at least. A longer one is passed on, and
 * the decoder refuses it when it is wrong.
 */
const HEAD_BYTES: Readonly<Record<OggCodec, number>> = { opus: 19, vorbis: 30, flac: 13 + 38 };

/**
 * Returns why the stream of this identification packet is refused, or undefined when it is accepted
 * or its codec is unknown. `packet`: the whole packet of an Ogg stream, or at least its first 51
 * bytes. Opus always decodes to 48 kHz.
 */
export function oggPacketRefusal(packet: Buffer): string | undefined {
  const codec = oggCodecOf(packet);
  if (!codec) return undefined;
  if (packet.length < HEAD_BYTES[codec]) return `a cut off header of ${codec}`;
  if (codec === 'opus') return boundsRefusal(48_000, packet[9]!);
  if (codec === 'vorbis') return boundsRefusal(packet.readUInt32LE(12), packet[11]!);
  return streamInfoRefusal(packet.subarray(13 + 4));
}

/**
 * Returns why a FLAC stream is refused, or undefined when it is accepted. `streamInfo`: the 34
 * bytes of STREAMINFO (RFC 9639 8.2).
 */
export function streamInfoRefusal(streamInfo: Buffer): string | undefined {
  return boundsRefusal(streamInfo.readUIntBE(10, 3) >> 4, ((streamInfo[12]! >> 1) & 7) + 1);
}
