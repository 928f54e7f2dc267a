import { SAMPLE_RATE_HZ } from './ladder.js';

/**
 * Opus in Ogg (RFC 7845 in RFC 3533): pages with their checksum, for decoders that take a bare
 * stream and for listeners of `/listen/*.opus`. One writer makes one logical stream. To chain
 * streams, make a new writer for each.
 */
export interface OpusHead {
  /** 1 or 2 (channel mapping family 0). */
  readonly channels: number;
  /** Samples at 48 kHz that a decoder discards at the start. */
  readonly preSkip: number;
  /** Sample rate of the original input; for information only. */
  readonly inputRateHz?: number;
  /** `NAME=value` comments of OpusTags. */
  readonly comments?: readonly string[];
}

export interface PageFlags {
  /** First page of the logical stream. */
  readonly begin?: boolean;
  /** Last page of the logical stream. */
  readonly end?: boolean;
}

const PAGE_HEAD_BYTES = 27;
/**
 * Lacing values in a page, at most. They hold 64,770 bytes, more than the longest Opus packet (RFC
 * 6716 §3.2.5: 61,440).
 */
const MAX_LACINGS = 255;
const VENDOR = 'Veza';

const CRC_TABLE = (() => {
  const table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte << 24;
    for (let bit = 0; bit < 8; bit++) value = value & 0x8000_0000 ? (value << 1) ^ 0x04c1_1db7 : value << 1;
    table[byte] = value >>> 0;
  }
  return table;
})();

/**
 * The checksum of RFC 3533 §6: polynomial 0x04c11db7, not reflected, initial value 0. The checksum
 * field of `bytes` must be 0.
 */
export function oggCrc(bytes: Uint8Array): number {
  let crc = 0;
  for (let i = 0; i < bytes.length; i++) crc = (crc << 8) ^ CRC_TABLE[(crc >>> 24) ^ bytes[i]!]!;
  return crc >>> 0;
}

export class OggOpusWriter {
  readonly #serial: number;
  #sequence = 0;

  /** `serial` is any 32-bit number that differs between the logical streams of a chain. */
  constructor(serial: number) {
    this.#serial = serial >>> 0;
  }

  /**
   * The two pages that start the stream: OpusHead and OpusTags. A complete OpusHead packet (at
   * least 19 bytes) is written unchanged.
   */
  head(head: OpusHead | Uint8Array): Uint8Array {
    const comments = head instanceof Uint8Array ? [] : (head.comments ?? []);
    const first = this.page(head instanceof Uint8Array ? head : opusHeadPacket(head), 0, { begin: true });
    const second = this.page(opusTagsPacket(comments), 0);
    return Buffer.concat([first, second]);
  }

  /**
   * One page with whole packets. `granule` is the number of 48 kHz samples, pre-skip included, at
   * the end of the last packet. Throws RangeError when the packets do not fit in a page (255 lacing
   * values).
   */
  page(packets: Uint8Array | readonly Uint8Array[], granule: number, flags: PageFlags = {}): Uint8Array {
    const list = packets instanceof Uint8Array ? [packets] : packets;
    let lacings = 0;
    let bodyBytes = 0;
    for (const packet of list) {
      lacings += Math.floor(packet.length / 255) + 1;
      bodyBytes += packet.length;
    }
    if (lacings > MAX_LACINGS) throw new RangeError(`packets need ${lacings} lacing values; an Ogg page has ${MAX_LACINGS}`);

    const page = Buffer.alloc(PAGE_HEAD_BYTES + lacings + bodyBytes);
    page.write('OggS', 0, 'latin1');
    page[5] = (flags.begin ? 2 : 0) | (flags.end ? 4 : 0);
    page.writeBigInt64LE(BigInt(granule), 6);
    page.writeUInt32LE(this.#serial, 14);
    page.writeUInt32LE(this.#sequence++, 18);
    page[26] = lacings;
    let lacingAt = PAGE_HEAD_BYTES;
    let bodyAt = PAGE_HEAD_BYTES + lacings;
    for (const packet of list) {
      let left = packet.length;
      for (; left >= 255; left -= 255) page[lacingAt++] = 255;
      page[lacingAt++] = left;
      page.set(packet, bodyAt);
      bodyAt += packet.length;
    }
    page.writeUInt32LE(oggCrc(page), 22);
    return page;
  }
}

/** The OpusHead packet (RFC 7845 §5.1). Throws RangeError when `channels` is not 1 or 2. */
export function opusHeadPacket(head: OpusHead): Uint8Array {
  if (head.channels !== 1 && head.channels !== 2) throw new RangeError(`mapping family 0 has 1 or 2 channels, not ${head.channels}`);
  const packet = Buffer.alloc(19);
  packet.write('OpusHead', 0, 'latin1');
  packet[8] = 1;
  packet[9] = head.channels;
  packet.writeUInt16LE(head.preSkip, 10);
  packet.writeUInt32LE(head.inputRateHz ?? SAMPLE_RATE_HZ, 12);
  return packet;
}

/** The OpusTags packet (RFC 7845 §5.2). */
function opusTagsPacket(comments: readonly string[]): Uint8Array {
  const fields = [VENDOR, ...comments].map((text) => Buffer.from(text, 'utf8'));
  const sized = fields.flatMap((field, index) => {
    const size = Buffer.alloc(4);
    size.writeUInt32LE(field.length);
    if (index > 0) return [size, field];
    const count = Buffer.alloc(4);
    count.writeUInt32LE(comments.length);
    return [size, field, count];
  });
  return Buffer.concat([Buffer.from('OpusTags', 'latin1'), ...sized]);
}

/** Samples at 48 kHz in an Opus packet (RFC 6716 §3.1 and §3.2); 0 when the packet is malformed. */
export function opusPacketSamples(packet: Uint8Array): number {
  const toc = packet[0];
  if (toc === undefined) return 0;
  const config = toc >> 3;
  let frameSamples: number;
  if (config < 12) frameSamples = [480, 960, 1920, 2880][config & 3]!;
  else if (config < 16) frameSamples = config & 1 ? 960 : 480;
  else frameSamples = 120 << (config & 3);
  const code = toc & 3;
  const frames = code === 0 ? 1 : code < 3 ? 2 : (packet[1] ?? 0) & 63;
  const samples = frames * frameSamples;
  return samples <= 5760 ? samples : 0;
}
