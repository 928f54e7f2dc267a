import { rejected } from './errors.js';

/** The fields of AudioSpecificConfig (ISO/IEC 14496-3) that decide how frames are wrapped. */
export interface AacConfig {
  /** The object type of the core: 2 is AAC-LC. The decoder finds SBR and PS by itself. */
  readonly objectType: number;
  /** Index of the sample rate of the AAC core layer (SBR may double it), 0 to 12; undefined: none. */
  readonly rateIndex: number | undefined;
  readonly rateHz: number;
  /** The channel configuration; 0 when a program config element describes the channels. */
  readonly channelConfig: number;
  /** True when a frame has 960 samples instead of 1,024. */
  readonly shortFrames: boolean;
}

const RATES_HZ = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350] as const;
/** The object types that ffmpeg decodes: Main, LC, SSR, LTP, ER LC, ER LD, ER ELD. */
const DECODABLE = new Set([1, 2, 3, 4, 17, 23, 39]);

/**
 * Reads an AudioSpecificConfig. Throws RtmpRefusal `NetStream.Publish.Rejected` when it is cut off,
 * has no sample rate, or has an object type that the decoder does not know.
 */
export function readAacConfig(bytes: Buffer): AacConfig {
  let bit = 0;
  const read = (count: number): number => {
    if (bit + count > bytes.length * 8) throw rejected('the AAC sequence header is cut off');
    let value = 0;
    for (let i = 0; i < count; i++, bit++) value = value * 2 + ((bytes[bit >> 3]! >> (7 - (bit & 7))) & 1);
    return value;
  };
  const readObjectType = () => {
    const type = read(5);
    return type === 31 ? 32 + read(6) : type;
  };
  const readRate = (): [index: number | undefined, hz: number] => {
    const index = read(4);
    if (index !== 15) {
      const hz = RATES_HZ[index];
      if (hz === undefined) throw rejected('the AAC sequence header has a reserved sample rate');
      return [index, hz];
    }
    const hz = read(24);
    const known = (RATES_HZ as readonly number[]).indexOf(hz);
    if (hz === 0) throw rejected('the AAC sequence header has no sample rate');
    return [known < 0 ? undefined : known, hz];
  };
  let objectType = readObjectType();
  const [rateIndex, rateHz] = readRate();
  const channelConfig = read(4);
  if (objectType === 5 || objectType === 29) {
    // Explicit, hierarchical signalling (1.6.5.2): the rate above is the core's.
    readRate();
    objectType = readObjectType();
  }
  if (!DECODABLE.has(objectType)) throw rejected(`AAC of object type ${objectType} is not taken; AAC-LC and HE-AAC are`);
  return { objectType, rateIndex, rateHz, channelConfig, shortFrames: read(1) === 1 };
}

/** Whether an ADTS header can express this configuration: its fixed part has 28 bits. */
export function fitsAdts(config: AacConfig): boolean {
  return (
    config.objectType <= 4 &&
    config.rateIndex !== undefined &&
    config.channelConfig >= 1 &&
    config.channelConfig <= 7 &&
    !config.shortFrames
  );
}

/**
 * Returns a frame with its ADTS header (ISO/IEC 14496-3 1.A.2), without a CRC. Throws RtmpRefusal
 * for a frame above 8,184 bytes.
 */
export function adtsFrame(config: AacConfig, frame: Buffer): Buffer {
  const size = frame.length + 7;
  if (size > 0x1fff) throw rejected(`an AAC frame of ${frame.length} bytes`);
  const bytes = Buffer.allocUnsafe(size);
  bytes[0] = 0xff;
  bytes[1] = 0xf1;
  bytes[2] = ((config.objectType - 1) << 6) | (config.rateIndex! << 2) | (config.channelConfig >> 2);
  bytes[3] = ((config.channelConfig & 3) << 6) | (size >> 11);
  bytes[4] = (size >> 3) & 0xff;
  bytes[5] = ((size & 7) << 5) | 0x1f;
  bytes[6] = 0xfc;
  frame.copy(bytes, 7);
  return bytes;
}

/**
 * Returns a frame as LATM in LOAS (ISO/IEC 14496-3 1.7.2, 1.7.3). Each repeats the sequence header,
 * so a decoder may begin at any of them. Version 1 of the multiplex states the length of the
 * sequence header, which need not be parsed for that. Throws RtmpRefusal for a frame that is too
 * large.
 */
export function loasFrame(sequenceHeader: Buffer, frame: Buffer): Buffer {
  const bits = new BitWriter(sequenceHeader.length + frame.length + Math.floor(frame.length / 255) + 24);
  bits.put(0, 1); // useSameStreamMux: the configuration follows
  bits.put(1, 1); // audioMuxVersion
  bits.put(0, 1); // audioMuxVersionA
  bits.putLatmValue(0xff); // taraBufferFullness
  bits.put(1, 1); // allStreamsSameTimeFraming
  bits.put(0, 6 + 4 + 3); // one sub-frame, one program, one layer
  bits.putLatmValue(sequenceHeader.length * 8);
  for (const byte of sequenceHeader) bits.put(byte, 8);
  bits.put(0, 3); // frameLengthType: variable
  bits.put(0xff, 8); // latmBufferFullness: variable bit rate
  bits.put(0, 1 + 1); // no other data, no CRC
  for (let left = frame.length; ; left -= 255) {
    bits.put(Math.min(left, 255), 8);
    if (left < 255) break;
  }
  for (const byte of frame) bits.put(byte, 8);
  const element = bits.bytes;
  if (element.length > 0x1fff) throw rejected(`an AAC frame of ${frame.length} bytes`);
  return Buffer.concat([Buffer.from([0x56, 0xe0 | (element.length >> 8), element.length & 0xff]), element]);
}

class BitWriter {
  readonly #bytes: Buffer;
  #bit = 0;

  constructor(capacityBytes: number) {
    this.#bytes = Buffer.alloc(capacityBytes);
  }

  put(value: number, count: number): void {
    for (let i = count - 1; i >= 0; i--, this.#bit++) {
      if ((value >> i) & 1) this.#bytes[this.#bit >> 3]! |= 0x80 >> (this.#bit & 7);
    }
  }

  /** LatmGetValue() (ISO/IEC 14496-3 1.7.3.1): a count of bytes, then the bytes. */
  putLatmValue(value: number): void {
    const count = value > 0xff ? 2 : 1;
    this.put(count - 1, 2);
    this.put(value, count * 8);
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, Math.ceil(this.#bit / 8));
  }
}
