import { violation } from './errors.js';

/**
 * A value of AMF 0 (Adobe, 2007), the encoding of commands and metadata. AMF 3 is not supported: no
 * known encoder publishes with it.
 */
export type Amf = number | boolean | string | null | undefined | Amf[] | AmfObject;
/** An object is a map, so that a name such as `__proto__` is a name like any other. */
export type AmfObject = Map<string, Amf>;

export interface AmfLimits {
  /** Objects and arrays are nested at most this deep. */
  amfDepth: number;
  /**
   * A message has at most this many values, those of all depths counted. The size of the message
   * limits their bytes.
   */
  amfValues: number;
}

const NUMBER = 0x00;
const BOOLEAN = 0x01;
const STRING = 0x02;
const OBJECT = 0x03;
const NULL = 0x05;
const UNDEFINED = 0x06;
const ECMA_ARRAY = 0x08;
const OBJECT_END = 0x09;
const STRICT_ARRAY = 0x0a;
const DATE = 0x0b;
const LONG_STRING = 0x0c;
const UNSUPPORTED = 0x0d;
const XML = 0x0f;
const TYPED_OBJECT = 0x10;

/**
 * Reads all values of a message. Throws RtmpRefusal `NetConnection.Call.Failed` for a value that is
 * cut off, unknown or nested too deep, and for too many values.
 */
export function decodeAmf0(bytes: Buffer, limits: AmfLimits): Amf[] {
  const reader = new AmfReader(bytes, limits);
  const values: Amf[] = [];
  while (!reader.done) values.push(reader.value(0));
  return values;
}

class AmfReader {
  readonly #bytes: Buffer;
  readonly #limits: AmfLimits;
  #at = 0;
  #values = 0;

  constructor(bytes: Buffer, limits: AmfLimits) {
    this.#bytes = bytes;
    this.#limits = limits;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  value(depth: number): Amf {
    if (++this.#values > this.#limits.amfValues) throw violation(`AMF: more than ${this.#limits.amfValues} values in a message`);
    if (depth > this.#limits.amfDepth) throw violation(`AMF: nested deeper than ${this.#limits.amfDepth}`);
    const marker = this.#take(1)[0]!;
    switch (marker) {
      case NUMBER:
        return this.#take(8).readDoubleBE();
      case BOOLEAN:
        return this.#take(1)[0] !== 0;
      case STRING:
        return this.#text(this.#take(2).readUInt16BE());
      case LONG_STRING:
      case XML:
        return this.#text(this.#take(4).readUInt32BE());
      case NULL:
        return null;
      case UNDEFINED:
      case UNSUPPORTED:
        return undefined;
      case DATE:
        return this.#take(10).readDoubleBE();
      case TYPED_OBJECT:
        this.#text(this.#take(2).readUInt16BE());
        return this.#members(depth);
      case ECMA_ARRAY:
        // The count is only a hint (AMF 0 2.10) and often wrong: the end marker decides.
        this.#take(4);
        return this.#members(depth);
      case OBJECT:
        return this.#members(depth);
      case STRICT_ARRAY: {
        const count = this.#take(4).readUInt32BE();
        const list: Amf[] = [];
        for (let i = 0; i < count; i++) list.push(this.value(depth + 1));
        return list;
      }
      default:
        throw violation(`AMF: unknown marker 0x${marker.toString(16)}`);
    }
  }

  #members(depth: number): AmfObject {
    const members: AmfObject = new Map();
    for (;;) {
      // Some encoders leave out the end marker of their metadata.
      if (this.done) return members;
      const name = this.#text(this.#take(2).readUInt16BE());
      if (name === '' && this.#bytes[this.#at] === OBJECT_END) {
        this.#at++;
        return members;
      }
      members.set(name, this.value(depth + 1));
    }
  }

  #text(size: number): string {
    return this.#take(size).toString('utf8');
  }

  #take(size: number): Buffer {
    if (size > this.#bytes.length - this.#at) throw violation('AMF: the message ends in the middle of a value');
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }
}

/** A value to be encoded. Plain objects are easier to write than maps. */
export type AmfInput = number | boolean | string | null | undefined | readonly AmfInput[] | { readonly [name: string]: AmfInput };

export function encodeAmf0(...values: readonly AmfInput[]): Buffer {
  return Buffer.concat(values.map(encodeValue));
}

function encodeValue(value: AmfInput): Buffer {
  if (value === null) return Buffer.from([NULL]);
  if (value === undefined) return Buffer.from([UNDEFINED]);
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(9);
    bytes.writeDoubleBE(value, 1);
    return bytes;
  }
  if (typeof value === 'boolean') return Buffer.from([BOOLEAN, value ? 1 : 0]);
  if (typeof value === 'string') {
    const text = Buffer.from(value);
    if (text.length <= 0xffff) return Buffer.concat([Buffer.from([STRING]), name(text)]);
    const head = Buffer.alloc(5);
    head[0] = LONG_STRING;
    head.writeUInt32BE(text.length, 1);
    return Buffer.concat([head, text]);
  }
  if (Array.isArray(value)) {
    const head = Buffer.alloc(5);
    head[0] = STRICT_ARRAY;
    head.writeUInt32BE(value.length, 1);
    return Buffer.concat([head, ...value.map(encodeValue)]);
  }
  const members = Object.entries(value).flatMap(([key, member]) => [name(Buffer.from(key)), encodeValue(member)]);
  return Buffer.concat([Buffer.from([OBJECT]), ...members, Buffer.from([0, 0, OBJECT_END])]);
}

function name(text: Buffer): Buffer {
  const size = Buffer.alloc(2);
  size.writeUInt16BE(text.length);
  return Buffer.concat([size, text]);
}
