import { violation } from './errors.js';

/** The message types (RTMP 1.0 5.4 and 7.1) that are used here. */
export const MESSAGE = {
  setChunkSize: 1,
  abort: 2,
  acknowledgement: 3,
  userControl: 4,
  windowAckSize: 5,
  setPeerBandwidth: 6,
  audio: 8,
  video: 9,
  dataAmf3: 15,
  commandAmf3: 17,
  data: 18,
  command: 20,
  aggregate: 22,
} as const;

export interface RtmpMessage {
  readonly type: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export interface RtmpChunkLimits {
  /** A client may set its chunk size to at most this. No memory is reserved for a chunk. */
  chunkBytes: number;
  /** A connection may use at most this many chunk streams. */
  chunkStreams: number;
  /**
   * An audio message is at most this large. An AAC frame has at most 6 KiB; a FLAC frame of 4,608
   * stereo samples of 24 bits has 27 KiB.
   */
  audioBytes: number;
  /** A command, control or metadata message is at most this large. */
  commandBytes: number;
  /**
   * A video or aggregate message is at most this large; its bytes are not kept. The protocol itself
   * allows 16,777,215.
   */
  skippedBytes: number;
  /** The received bytes of all unfinished messages are together at most this many. */
  pendingBytes: number;
}

const DEFAULT_CHUNK_BYTES = 128;
const HEADER_BYTES = [11, 7, 3, 0] as const;
const EXTENDED = 0xffffff;

interface ChunkStream {
  type: number;
  streamId: number;
  lengthBytes: number;
  /** True when the timestamp field was 0xFFFFFF and `extended` followed. */
  hasExtended: boolean;
  extended: number;
  /** Bytes of the message's payload that have arrived; 0 between messages. */
  haveBytes: number;
  inMessage: boolean;
  /** Undefined while the payload is skipped. */
  payload: Buffer | undefined;
  aggregate: AggregateReader | undefined;
}

/**
 * Puts messages together from chunks (RTMP 1.0 5.3), from pieces of any size. Timestamps are
 * ignored: Veza counts frames. Video is skipped, and aggregates are taken apart, without being kept
 * as a whole.
 *
 * The bytes it keeps are at most `pendingBytes`, and grow only with bytes that have arrived.
 */
export class ChunkReader {
  readonly #limits: RtmpChunkLimits;
  readonly #onMessage: (message: RtmpMessage) => void;
  readonly #streams = new Map<number, ChunkStream>();
  readonly #header = Buffer.alloc(3 + 11 + 4);
  #headerBytes = 0;
  #chunkBytes = DEFAULT_CHUNK_BYTES;
  #pendingBytes = 0;
  /** The chunk stream whose payload is being read. */
  #current: ChunkStream | undefined;
  #currentLeft = 0;
  #paused = false;

  constructor(limits: RtmpChunkLimits, onMessage: (message: RtmpMessage) => void) {
    this.#limits = limits;
    this.#onMessage = onMessage;
  }

  /** Bytes that are kept of unfinished messages. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /**
   * May be called in `onMessage`: then `push` returns after this message. The next `push` reads on.
   */
  pause(): void {
    this.#paused = true;
  }

  /**
   * Reads on and returns how many bytes were used: all, unless `pause` was called. Throws
   * RtmpRefusal; after that the reader must not be used again.
   */
  push(data: Buffer): number {
    this.#paused = false;
    let at = 0;
    while (at < data.length && !this.#paused) {
      if (this.#current) at += this.#readPayload(data.subarray(at));
      else {
        this.#header[this.#headerBytes++] = data[at++]!;
        this.#readHeader();
      }
    }
    return at;
  }

  #readHeader(): void {
    const header = this.#header;
    const basicBytes = (header[0]! & 0x3f) === 0 ? 2 : (header[0]! & 0x3f) === 1 ? 3 : 1;
    if (this.#headerBytes < basicBytes) return;
    const format = (header[0]! >> 6) as 0 | 1 | 2 | 3;
    const messageAt = basicBytes;
    const extendedAt = messageAt + HEADER_BYTES[format];
    if (this.#headerBytes < extendedAt) return;
    const id = basicBytes === 1 ? header[0]! & 0x3f : 64 + header[1]! + (basicBytes === 3 ? header[2]! * 256 : 0);
    const known = this.#streams.get(id);
    const hasExtended = format === 3 ? known?.hasExtended === true : header.readUIntBE(messageAt, 3) === EXTENDED;
    if (hasExtended && this.#headerBytes < extendedAt + 4) return;
    const extended = hasExtended ? header.readUInt32BE(extendedAt) : 0;
    this.#headerBytes = 0;

    const stream = known ?? this.#newStream(id, format);
    if (format === 3) {
      const begins = !stream.inMessage;
      if (begins) this.#beginMessage(stream);
      this.#beginChunk(stream);
      // Some encoders do not repeat the extended timestamp in continuing chunks. Then these four
      // bytes are payload already.
      if (hasExtended && extended !== stream.extended) {
        const replay = Buffer.from(header.subarray(extendedAt, extendedAt + 4));
        for (let at = 0; at < 4; ) {
          if (this.#current) at += this.#readPayload(replay.subarray(at));
          else {
            header[this.#headerBytes++] = replay[at++]!;
            this.#readHeader();
          }
        }
      }
      return;
    }
    if (stream.inMessage) throw violation('a message began before the former one of its chunk stream had ended');
    stream.hasExtended = hasExtended;
    stream.extended = extended;
    if (format < 2) {
      stream.lengthBytes = header.readUIntBE(messageAt + 3, 3);
      stream.type = header[messageAt + 6]!;
    }
    if (format === 0) stream.streamId = header.readUInt32LE(messageAt + 7);
    this.#beginMessage(stream);
    this.#beginChunk(stream);
  }

  #newStream(id: number, format: number): ChunkStream {
    // RTMP 1.0 5.3.1.2.1 demands a chunk of type 0 first; librtmp begins with type 1.
    if (format > 1) throw violation('a chunk stream began without a full header');
    if (this.#streams.size >= this.#limits.chunkStreams) throw violation(`more than ${this.#limits.chunkStreams} chunk streams`);
    const stream: ChunkStream = {
      type: 0,
      streamId: 0,
      lengthBytes: 0,
      hasExtended: false,
      extended: 0,
      haveBytes: 0,
      inMessage: false,
      payload: undefined,
      aggregate: undefined,
    };
    this.#streams.set(id, stream);
    return stream;
  }

  #beginMessage(stream: ChunkStream): void {
    const { type, lengthBytes } = stream;
    const [kept, limitBytes] = sizeRule(type, this.#limits);
    if (lengthBytes > limitBytes) throw violation(`a message of type ${type} has ${lengthBytes} bytes; ${limitBytes} are taken`);
    stream.inMessage = true;
    stream.haveBytes = 0;
    stream.payload = kept ? Buffer.allocUnsafe(Math.min(lengthBytes, 512)) : undefined;
    stream.aggregate = type === MESSAGE.aggregate ? this.#newAggregate(stream) : undefined;
  }

  #newAggregate(stream: ChunkStream): AggregateReader {
    return new AggregateReader(this.#limits, stream.streamId, this.#onMessage, (bytes) => this.#hold(bytes));
  }

  #hold(bytes: number): void {
    this.#pendingBytes += bytes;
    if (this.#pendingBytes > this.#limits.pendingBytes) {
      throw violation(`more than ${this.#limits.pendingBytes} bytes of unfinished messages`);
    }
  }

  #beginChunk(stream: ChunkStream): void {
    this.#current = stream;
    this.#currentLeft = Math.min(this.#chunkBytes, stream.lengthBytes - stream.haveBytes);
    if (this.#currentLeft === 0) this.#endChunk(stream);
  }

  #readPayload(data: Buffer): number {
    const stream = this.#current!;
    const take = Math.min(this.#currentLeft, data.length);
    if (stream.payload) {
      const haveBytes = stream.haveBytes + take;
      if (haveBytes > stream.payload.length) {
        const grown = Buffer.allocUnsafe(Math.min(stream.lengthBytes, Math.max(haveBytes, stream.payload.length * 2)));
        stream.payload.copy(grown, 0, 0, stream.haveBytes);
        stream.payload = grown;
      }
      data.copy(stream.payload, stream.haveBytes, 0, take);
      this.#hold(take);
    } else {
      stream.aggregate?.push(data.subarray(0, take));
    }
    stream.haveBytes += take;
    this.#currentLeft -= take;
    if (this.#currentLeft === 0) this.#endChunk(stream);
    return take;
  }

  #endChunk(stream: ChunkStream): void {
    this.#current = undefined;
    if (stream.haveBytes < stream.lengthBytes) return;
    const payload = stream.payload?.subarray(0, stream.lengthBytes);
    this.#drop(stream);
    if (!payload) return;
    if (stream.type === MESSAGE.setChunkSize) this.#setChunkSize(payload);
    else if (stream.type === MESSAGE.abort) this.#abort(payload);
    else this.#onMessage({ type: stream.type, streamId: stream.streamId, payload });
  }

  /** RTMP 1.0 5.4.1. The new size applies from the next chunk on. */
  #setChunkSize(payload: Buffer): void {
    if (payload.length < 4) throw violation('a chunk size of less than 4 bytes');
    const sizeBytes = payload.readUInt32BE();
    if (sizeBytes < 1 || sizeBytes > this.#limits.chunkBytes) {
      throw violation(`a chunk size of ${sizeBytes} bytes; 1 to ${this.#limits.chunkBytes} are taken`);
    }
    this.#chunkBytes = sizeBytes;
  }

  /** RTMP 1.0 5.4.2. */
  #abort(payload: Buffer): void {
    if (payload.length < 4) throw violation('an abort message of less than 4 bytes');
    const stream = this.#streams.get(payload.readUInt32BE());
    if (stream?.inMessage) this.#drop(stream);
  }

  #drop(stream: ChunkStream): void {
    if (stream.payload) this.#pendingBytes -= stream.haveBytes;
    stream.aggregate?.drop();
    stream.payload = undefined;
    stream.aggregate = undefined;
    stream.inMessage = false;
    stream.haveBytes = 0;
  }
}

/** Returns whether a message of this type is kept, and its largest size. */
function sizeRule(type: number, limits: RtmpChunkLimits): [kept: boolean, bytes: number] {
  switch (type) {
    case MESSAGE.audio:
      return [true, limits.audioBytes];
    case MESSAGE.setChunkSize:
    case MESSAGE.abort:
    case MESSAGE.acknowledgement:
    case MESSAGE.userControl:
    case MESSAGE.windowAckSize:
    case MESSAGE.setPeerBandwidth:
    case MESSAGE.dataAmf3:
    case MESSAGE.commandAmf3:
    case MESSAGE.data:
    case MESSAGE.command:
      return [true, limits.commandBytes];
    default:
      return [false, limits.skippedBytes];
  }
}

/**
 * Takes an aggregate message (RTMP 1.0 7.1.6) apart: FLV tags, each followed by its size. Only
 * audio and metadata are kept.
 */
class AggregateReader {
  readonly #limits: RtmpChunkLimits;
  readonly #streamId: number;
  readonly #onMessage: (message: RtmpMessage) => void;
  /** Counts bytes that are kept (negative: released). Throws when they are too many. */
  readonly #hold: (bytes: number) => void;
  readonly #header = Buffer.alloc(11);
  #headerBytes = 0;
  #payload: Buffer | undefined;
  #haveBytes = 0;
  #lengthBytes = 0;

  constructor(limits: RtmpChunkLimits, streamId: number, onMessage: (message: RtmpMessage) => void, hold: (bytes: number) => void) {
    this.#hold = hold;
    this.#limits = limits;
    this.#streamId = streamId;
    this.#onMessage = onMessage;
  }

  push(data: Buffer): void {
    let at = 0;
    while (at < data.length) {
      if (this.#headerBytes < 11) {
        this.#header[this.#headerBytes++] = data[at++]!;
        if (this.#headerBytes === 11) this.#beginTag();
        continue;
      }
      // The four bytes of the back pointer follow the body and are skipped.
      const take = Math.min(this.#lengthBytes + 4 - this.#haveBytes, data.length - at);
      const body = Math.min(take, this.#lengthBytes - this.#haveBytes);
      if (body > 0) this.#payload?.set(data.subarray(at, at + body), this.#haveBytes);
      this.#haveBytes += take;
      at += take;
      if (this.#haveBytes < this.#lengthBytes + 4) continue;
      this.#headerBytes = 0;
      const payload = this.#payload;
      this.drop();
      if (payload) this.#onMessage({ type: this.#header[0]!, streamId: this.#streamId, payload });
    }
  }

  /** Discards the tag that is being read. */
  drop(): void {
    if (this.#payload) this.#hold(-this.#payload.length);
    this.#payload = undefined;
  }

  #beginTag(): void {
    const type = this.#header[0]!;
    const kept = type === MESSAGE.audio || type === MESSAGE.data;
    this.#lengthBytes = this.#header.readUIntBE(1, 3);
    this.#haveBytes = 0;
    const limitBytes = type === MESSAGE.audio ? this.#limits.audioBytes : this.#limits.commandBytes;
    if (kept && this.#lengthBytes > limitBytes) {
      throw violation(`a message of type ${type} has ${this.#lengthBytes} bytes; ${limitBytes} are taken`);
    }
    if (!kept) return;
    this.#hold(this.#lengthBytes);
    this.#payload = Buffer.allocUnsafe(this.#lengthBytes);
  }
}

/**
 * Returns the chunks of a message: one with a full header, then chunks of type 3. `chunkStreamId`
 * is 2 to 63, and `timestampMs` is below 0xFFFFFF.
 */
export function encodeMessage(chunkStreamId: number, message: RtmpMessage, chunkBytes: number, timestampMs = 0): Buffer {
  const { payload } = message;
  const header = Buffer.alloc(12);
  header[0] = chunkStreamId;
  header.writeUIntBE(timestampMs, 1, 3);
  header.writeUIntBE(payload.length, 4, 3);
  header[7] = message.type;
  header.writeUInt32LE(message.streamId, 8);
  const pieces: Buffer[] = [header, payload.subarray(0, chunkBytes)];
  for (let at = chunkBytes; at < payload.length; at += chunkBytes) {
    pieces.push(Buffer.from([0xc0 | chunkStreamId]), payload.subarray(at, at + chunkBytes));
  }
  return Buffer.concat(pieces);
}
