/**
 * Rates and channel counts that are taken. A decoder makes 48 kHz of everything: from 1 Hz each sample becomes 48,000, and from 2 GHz the
 * resampler's filter has millions of taps, 0.5 to 1.8 GB for a body of 4 KB. So what a header says is looked at before a decoder is started.
 */
const MIN_RATE_HZ = 8_000;
const MAX_RATE_HZ = 192_000;
const MAX_CHANNELS = 8;

export const BOUNDS_TAKEN = `1 to ${MAX_CHANNELS} channels of ${MIN_RATE_HZ / 1000} to ${MAX_RATE_HZ / 1000} kHz`;

/** Why audio of this kind is not taken; undefined when it is. */
export function boundsRefusal(rateHz: number, channels: number): string | undefined {
  if (!(rateHz >= MIN_RATE_HZ && rateHz <= MAX_RATE_HZ)) return `a sample rate of ${rateHz} Hz`;
  if (!(channels >= 1 && channels <= MAX_CHANNELS)) return `audio of ${channels} channels`;
  return undefined;
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

/** Opus always decodes to 48 kHz; a header of another length than its kind has is left for the decoder to refuse. */
const HEAD_BYTES: Readonly<Record<OggCodec, number>> = { opus: 19, vorbis: 30, flac: 13 + 38 };

/** The same for the identification packet of an Ogg stream: whole, or its first 51 bytes. */
export function oggPacketRefusal(packet: Buffer): string | undefined {
  const codec = oggCodecOf(packet);
  if (!codec) return undefined;
  if (packet.length < HEAD_BYTES[codec]) return `a cut off header of ${codec}`;
  if (codec === 'opus') return boundsRefusal(48_000, packet[9]!);
  if (codec === 'vorbis') return boundsRefusal(packet.readUInt32LE(12), packet[11]!);
  return streamInfoRefusal(packet.subarray(13 + 4));
}

/** The same for FLAC's STREAMINFO (RFC 9639 8.2), 34 bytes. */
export function streamInfoRefusal(streamInfo: Buffer): string | undefined {
  return boundsRefusal(streamInfo.readUIntBE(10, 3) >> 4, ((streamInfo[12]! >> 1) & 7) + 1);
}
