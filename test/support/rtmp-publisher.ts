import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { type Amf, type AmfInput, type AmfObject, decodeAmf0, encodeAmf0 } from '../../src/ingest/rtmp/amf0.js';
import { ChunkReader, encodeMessage, MESSAGE } from '../../src/ingest/rtmp/chunk.js';
import { RTMP_LIMITS } from '../../src/ingest/rtmp/limits.js';

export interface PublisherOptions {
  host?: string;
  port: number;
  key: string;
  app?: string;
  /** RTMPS, without looking at the certificate. */
  tls?: boolean;
  flashVer?: string;
  chunkBytes?: number;
}

/** The server's status object, when it is of level `error`. */
export class RtmpStatusError extends Error {
  readonly code: string;

  constructor(code: string, description: string) {
    super(description);
    this.code = code;
  }
}

/** Sound in frames, as an encoder has it. */
export interface Frames {
  codec: 'aac' | 'mp3' | 'opus' | 'flac';
  /** AudioSpecificConfig, OpusHead, STREAMINFO; empty for MP3. */
  config: Buffer;
  frames: Buffer[];
  frameMs: number;
}

/** An encoder like OBS, for what ffmpeg and GStreamer cannot do. Rejects with RtmpStatusError when it is refused. */
export async function publishRtmp(options: PublisherOptions): Promise<RtmpPublisher> {
  const publisher = await RtmpPublisher.open(options);
  try {
    await publisher.publish();
  } catch (error) {
    publisher.drop();
    throw error;
  }
  return publisher;
}

const FOURCC = { aac: 'mp4a', mp3: '.mp3', opus: 'Opus', flac: 'fLaC' } as const;

export class RtmpPublisher {
  readonly socket: Socket;
  readonly options: PublisherOptions;
  /** Names of commands and codes of statuses, in the order in which they came. */
  readonly received: { name: string; args: Amf[] }[] = [];
  /** Acknowledgements that came (RTMP 1.0, 5.4.3). */
  readonly acknowledged: number[] = [];
  closed = false;
  readonly #waiters = new Set<() => void>();
  readonly #reader: ChunkReader;
  #handshakeLeft = 1 + 2 * 1536;
  #chunkBytes = 128;
  #timestampMs = 0;
  #transaction = 0;

  private constructor(socket: Socket, options: PublisherOptions) {
    this.socket = socket;
    this.options = options;
    this.#reader = new ChunkReader(RTMP_LIMITS, (message) => {
      if (message.type === MESSAGE.acknowledgement) this.acknowledged.push(message.payload.readUInt32BE());
      if (message.type !== MESSAGE.command) return;
      const [name, , ...args] = decodeAmf0(message.payload, RTMP_LIMITS);
      this.received.push({ name: String(name), args });
    });
    socket.on('data', (bytes: Buffer) => {
      const skip = Math.min(this.#handshakeLeft, bytes.length);
      this.#handshakeLeft -= skip;
      this.#reader.push(bytes.subarray(skip));
      this.#wake();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
  }

  /** Connected, and nothing sent. */
  static async open(options: PublisherOptions): Promise<RtmpPublisher> {
    const { host = '127.0.0.1', port, tls } = options;
    const socket = tls ? connectTls({ host, port, rejectUnauthorized: false }) : connectTcp({ host, port });
    socket.setNoDelay(true);
    await once(socket, tls ? 'secureConnect' : 'connect');
    return new RtmpPublisher(socket, options);
  }

  /** Handshake and all commands to the start of the broadcast. */
  async publish(): Promise<void> {
    await this.handshake();
    await this.connect();
    this.command('releaseStream', null, this.options.key);
    this.command('FCPublish', null, this.options.key);
    this.command('createStream', null);
    await this.until(() => this.received.some((reply) => reply.name === '_result' && typeof reply.args[1] === 'number'));
    await this.startStream();
  }

  async startStream(): Promise<void> {
    const seen = this.received.length;
    this.command('publish', null, this.options.key, 'live');
    await this.until(() => this.received.slice(seen).some((reply) => reply.name === 'onStatus'));
  }

  async handshake(): Promise<void> {
    this.raw(Buffer.concat([Buffer.from([3]), Buffer.alloc(8), randomBytes(1528)]));
    await this.until(() => this.#handshakeLeft === 0);
    this.raw(randomBytes(1536));
  }

  async connect(): Promise<void> {
    const { host = '127.0.0.1', port, app = 'live', flashVer = 'FMLE/3.0 (compatible; FMSc/1.0)', chunkBytes = 4096 } = this.options;
    this.control(MESSAGE.setChunkSize, chunkBytes);
    this.#chunkBytes = chunkBytes;
    const tcUrl = `rtmp://${host}:${port}/${app}`;
    this.command('connect', { app, type: 'nonprivate', flashVer, tcUrl, fourCcList: ['*'] });
    await this.until(() => this.received.some((reply) => reply.name === '_result' || reply.name === '_error'));
  }

  command(name: string, ...args: AmfInput[]): void {
    const payload = encodeAmf0(name, ++this.#transaction, ...args);
    this.message(MESSAGE.command, payload, 3, name === 'publish' || name === 'deleteStream' ? 1 : 0);
  }

  control(type: number, value: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(value);
    this.message(type, payload, 2, 0);
  }

  message(type: number, payload: Buffer, chunkStreamId = 4, streamId = 1): boolean {
    return this.raw(encodeMessage(chunkStreamId, { type, streamId, payload }, this.#chunkBytes, this.#timestampMs & 0x7fffff));
  }

  raw(bytes: Uint8Array): boolean {
    // The other end may have said that it ends, and its 'close' is still to come.
    return !this.closed && this.socket.writable && this.socket.write(bytes);
  }

  /** `onMetaData` with these fields. */
  metadata(fields: { [name: string]: AmfInput }): void {
    this.message(MESSAGE.data, encodeAmf0('@setDataFrame', 'onMetaData', fields));
  }

  /** The sequence header: by the old tag for AAC, by Enhanced RTMP for Opus and FLAC; none for MP3. */
  begin(sound: Frames, enhanced = sound.codec === 'opus' || sound.codec === 'flac'): void {
    if (sound.codec === 'mp3' && !enhanced) return;
    const header = enhanced ? Buffer.from(`\x90${FOURCC[sound.codec]}`, 'latin1') : Buffer.from([0xaf, 0]);
    this.message(MESSAGE.audio, Buffer.concat([header, sound.config]));
  }

  frame(sound: Frames, frame: Buffer, enhanced = sound.codec === 'opus' || sound.codec === 'flac'): boolean {
    let header = Buffer.from(sound.codec === 'mp3' ? [0x2f] : [0xaf, 1]);
    if (enhanced) header = Buffer.from(`\x91${FOURCC[sound.codec]}`, 'latin1');
    const more = this.message(MESSAGE.audio, Buffer.concat([header, frame]));
    this.#timestampMs += sound.frameMs;
    return more;
  }

  /** Header and all frames: at their own speed, or as fast as they are taken. Ends early when the connection is closed. */
  async play(sound: Frames, options: { realTime?: boolean; enhanced?: boolean } = {}): Promise<void> {
    const enhanced = options.enhanced ?? (sound.codec === 'opus' || sound.codec === 'flac');
    this.begin(sound, enhanced);
    const startMs = performance.now();
    for (const [index, frame] of sound.frames.entries()) {
      if (this.closed) return;
      if (!this.frame(sound, frame, enhanced) && !this.closed) await Promise.race([once(this.socket, 'drain'), once(this.socket, 'close')]);
      if (options.realTime) await sleep(Math.max(0, startMs + (index + 1) * sound.frameMs - performance.now()));
    }
  }

  /** What is sent from now on stays here for that long, and then goes out in one burst: an uplink that stalls. */
  async stall(ms: number): Promise<void> {
    this.socket.cork();
    await sleep(ms);
    this.socket.uncork();
  }

  /** One byte at a time. */
  async trickle(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length && !this.closed; at++) {
      await new Promise((resolve) => this.socket.write(bytes.subarray(at, at + 1), resolve));
    }
  }

  /** OBS's Stop. */
  unpublish(): void {
    this.command('FCUnpublish', null, this.options.key);
    this.command('deleteStream', null, 1);
    this.socket.end();
  }

  /** Gone without a word, as after kill −9 or with a broken line. */
  drop(): void {
    this.socket.resetAndDestroy();
  }

  /** The status of level `error` that was last received. */
  get refusal(): RtmpStatusError | undefined {
    for (const { name, args } of [...this.received].reverse()) {
      const info = args[1];
      if ((name !== 'onStatus' && name !== '_error') || !(info instanceof Map) || info.get('level') !== 'error') continue;
      return new RtmpStatusError(String(info.get('code')), String(info.get('description')));
    }
    return undefined;
  }

  /** The information object of the answer to `connect`. */
  get connectInfo(): AmfObject {
    const info = this.received.find((reply) => reply.name === '_result')?.args[1];
    if (!(info instanceof Map)) throw new Error('not connected');
    return info;
  }

  /** Rejects when the server refuses or closes before that. */
  async until(condition: () => boolean): Promise<void> {
    for (;;) {
      if (this.refusal) throw this.refusal;
      if (condition()) return;
      if (this.closed) throw new Error('closed by the server');
      await new Promise<void>((resolve) => this.#waiters.add(resolve));
    }
  }

  /** What the server said before it closed the connection. */
  async ended(): Promise<RtmpStatusError | undefined> {
    while (!this.closed) await new Promise<void>((resolve) => this.#waiters.add(resolve));
    return this.refusal;
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
    this.#waiters.clear();
  }
}

export interface ToneFramesOptions {
  seconds?: number;
  hz?: number;
  rateHz?: number;
  channels?: number;
  ffmpeg?: string;
}

/** A 1 kHz tone (or another) of ffmpeg's usual level, encoded and taken apart. */
export async function toneFrames(codec: Frames['codec'], options: ToneFramesOptions = {}): Promise<Frames> {
  const { seconds = 3, hz = 1000, rateHz = 48_000, channels = 2, ffmpeg = '/usr/bin/ffmpeg' } = options;
  const encoder = {
    aac: ['-c:a', 'aac', '-b:a', '128k', '-f', 'adts'],
    mp3: ['-c:a', 'libmp3lame', '-b:a', '128k', '-write_xing', '0', '-id3v2_version', '0', '-f', 'mp3'],
    opus: ['-c:a', 'libopus', '-b:a', '96k', '-f', 'ogg'],
    flac: ['-c:a', 'flac', '-f', 'ogg'],
  }[codec];
  const input = ['-v', 'error', '-f', 'lavfi', '-i', `sine=frequency=${hz}:sample_rate=48000:duration=${seconds}`];
  const child = spawn(ffmpeg, [...input, '-ac', `${channels}`, '-ar', `${rateHz}`, ...encoder, 'pipe:1'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const chunks: Buffer[] = [];
  child.stdout.on('data', (bytes) => chunks.push(bytes));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${ffmpeg} ended with ${code}`);
  const bytes = Buffer.concat(chunks);
  if (codec === 'aac') return adtsFrames(bytes);
  if (codec === 'mp3') return mp3Frames(bytes);
  const packets = oggPackets(bytes);
  if (codec === 'opus') return { codec, config: packets[0]!, frames: packets.slice(2), frameMs: 20 };
  const streamInfo = packets[0]!.subarray(17, 17 + 34);
  const firstAudio = packets.findIndex((packet) => packet[0] === 0xff);
  return { codec, config: streamInfo, frames: packets.slice(firstAudio), frameMs: (streamInfo.readUInt16BE(0) * 1000) / rateHz };
}

function adtsFrames(bytes: Buffer): Frames {
  const frames: Buffer[] = [];
  for (let at = 0; at + 7 <= bytes.length; ) {
    const size = (bytes.readUIntBE(at + 3, 3) >> 5) & 0x1fff;
    frames.push(bytes.subarray(at + 7, at + size));
    at += size;
  }
  const objectType = (bytes[2]! >> 6) + 1;
  const rateIndex = (bytes[2]! >> 2) & 15;
  const channels = ((bytes[2]! & 1) << 2) | (bytes[3]! >> 6);
  const config = Buffer.from([(objectType << 3) | (rateIndex >> 1), ((rateIndex & 1) << 7) | (channels << 3)]);
  const rateHz = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000][rateIndex]!;
  return { codec: 'aac', config, frames, frameMs: 1_024_000 / rateHz };
}

function mp3Frames(bytes: Buffer): Frames {
  const frames: Buffer[] = [];
  const kbps = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
  let frameMs = 24;
  for (let at = 0; at + 4 <= bytes.length; ) {
    const rateHz = [44_100, 48_000, 32_000][(bytes[at + 2]! >> 2) & 3]!;
    const size = Math.floor((144_000 * kbps[bytes[at + 2]! >> 4]!) / rateHz) + ((bytes[at + 2]! >> 1) & 1);
    frameMs = 1_152_000 / rateHz;
    frames.push(bytes.subarray(at, at + size));
    at += size;
  }
  return { codec: 'mp3', config: Buffer.alloc(0), frames, frameMs };
}

function oggPackets(bytes: Buffer): Buffer[] {
  const packets: Buffer[] = [];
  let parts: Buffer[] = [];
  for (let at = 0; at + 27 <= bytes.length; ) {
    const lacing = bytes.subarray(at + 27, at + 27 + bytes[at + 26]!);
    at += 27 + lacing.length;
    for (const size of lacing) {
      parts.push(bytes.subarray(at, at + size));
      at += size;
      if (size === 255) continue;
      packets.push(Buffer.concat(parts));
      parts = [];
    }
  }
  return packets;
}
