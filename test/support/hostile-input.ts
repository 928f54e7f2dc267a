import { encodeAmf0 } from '../../src/ingest/rtmp/amf0.js';
import { encodeMessage, MESSAGE } from '../../src/ingest/rtmp/chunk.js';

export interface Recorded {
  readonly type: string;
  readonly bytes: Buffer;
}

export interface HostileConnection {
  readonly port: 'http' | 'rtmp';
  /** In the pieces in which it is to be written. */
  readonly pieces: readonly Buffer[];
  /** What it is, for the message of a failure. */
  readonly what: string;
}

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'SOURCE', 'OPTIONS', 'TRACE', 'CONNECT', 'BREW', 'get', 'P\u00d6ST', ''];
const TARGETS = [
  '/',
  '*',
  '/radio',
  '/ingest/',
  '/admin/metadata?mode=updinfo&mount=/',
  'http://[%]/',
  'http://xn--/',
  '//x//',
  '/%00',
  '/%zz',
  '\\',
  'a:1',
];
const VERSIONS = ['HTTP/1.1', 'HTTP/1.0', 'ICE/1.0', 'HTTP/0.9', 'HTTP/9.9', 'HTTP/1.1 x', ''];
const FIELDS = [
  'Host: x',
  'Host: [::1',
  'Content-Length: 5',
  'Content-Length: -1',
  'Content-Length: 99999999999999999999',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: gzip, chunked',
  'Expect: 100-continue',
  'Expect: the unexpected',
  ' folded: yes',
  'space : before',
  ': nameless',
  'Authorization: Basic ====',
  'Authorization: Bearer  x',
  'Connection: close, upgrade',
  'Upgrade: websocket',
];
const FORMATS = ['audio/mpeg', 'audio/aac', 'audio/ogg', 'audio/webm', 'audio/flac', 'audio/wav', 'text/plain', ''];

/**
 * Connections of somebody who means no good, or whose program is broken, and who has a good key: bytes, heads, chunked bodies, RTMP handshakes,
 * chunk streams, AMF values, FLV and Enhanced RTMP tags, and real recordings that are cut and changed. All from `random`, so that a seed repeats it.
 */
export class HostileInput {
  readonly #random: () => number;
  readonly #key: string;
  readonly #channel: string;
  readonly #recordings: readonly Recorded[];

  constructor(options: { random: () => number; key: string; channel: string; recordings: readonly Recorded[] }) {
    this.#random = options.random;
    this.#key = options.key;
    this.#channel = options.channel;
    this.#recordings = options.recordings;
  }

  next(): HostileConnection {
    const [port, what, bytes] = this.#pick<() => [HostileConnection['port'], string, Buffer]>([
      () => [this.#pick(['http', 'rtmp'] as const), 'random bytes', this.#bytes(this.#upTo(20_000))],
      () => ['http', 'a head', this.#head()],
      () => ['http', 'a changed recording', this.#body(this.#changed(this.#pick(this.#recordings).bytes))],
      () => ['http', 'a broken chunked body', this.#chunked(this.#pick(this.#recordings).bytes)],
      () => ['http', 'recordings in one another', this.#body(this.#spliced())],
      () => ['rtmp', 'a handshake and random bytes', Buffer.concat([this.#handshake(), this.#bytes(this.#upTo(5000))])],
      () => ['rtmp', 'random commands', Buffer.concat([this.#handshake(), ...this.#some(20, () => this.#command())])],
      () => ['rtmp', 'random messages on air', Buffer.concat([this.#published(), ...this.#some(60, () => this.#message())])],
      () => ['rtmp', 'audio tags on air', Buffer.concat([this.#published(), ...this.#some(200, () => this.#audio())])],
      () => ['rtmp', 'a changed chunk stream', this.#changed(Buffer.concat([this.#published(), ...this.#some(50, () => this.#audio())]))],
    ])();
    return { port, what, pieces: this.#cut(bytes) };
  }

  #upTo(most: number): number {
    return Math.floor(this.#random() * (most + 1));
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)]!;
  }

  #some<T>(most: number, make: () => T): T[] {
    return Array.from({ length: this.#upTo(most) }, make);
  }

  #bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at++) bytes[at] = this.#upTo(255);
    return bytes;
  }

  #cut(bytes: Buffer): Buffer[] {
    const cuts = [0, ...this.#some(6, () => this.#upTo(bytes.length)), bytes.length].sort((a, b) => a - b);
    return cuts.slice(1).map((to, index) => bytes.subarray(cuts[index]!, to));
  }

  /** Some bytes other, some gone, some twice; often cut off. */
  #changed(whole: Buffer): Buffer {
    let bytes = Buffer.from(whole);
    for (let count = this.#upTo(20); count > 0 && bytes.length > 8; count--) {
      // What decides is at the start.
      const at = this.#random() < 0.5 ? this.#upTo(Math.min(200, bytes.length - 1)) : this.#upTo(bytes.length - 1);
      const length = Math.min(this.#upTo(40), bytes.length - at);
      const act = this.#upTo(3);
      if (act === 0) bytes[at] = this.#pick([0, 0xff, 0x7f, 0x80, this.#upTo(255)]);
      else if (act === 1) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
      else if (act === 2) bytes = Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
      else bytes = Buffer.concat([bytes.subarray(0, at), this.#bytes(length), bytes.subarray(at)]);
    }
    return this.#random() < 0.3 ? bytes.subarray(0, this.#upTo(bytes.length)) : bytes;
  }

  #spliced(): Buffer {
    return Buffer.concat(
      this.#some(5, () => {
        const { bytes } = this.#pick(this.#recordings);
        const from = this.#random() < 0.5 ? 0 : this.#upTo(bytes.length);
        return bytes.subarray(from, from + this.#upTo(bytes.length));
      }),
    );
  }

  #head(): Buffer {
    const fields = this.#some(6, () => this.#pick(FIELDS));
    const end = this.#pick(['\r\n', '\r\n', '\r\n', '\n', '\r', '\0\r\n']);
    const target = `${this.#pick(TARGETS)}${this.#random() < 0.3 ? this.#channel : ''}`;
    const line = [this.#pick(METHODS), target, this.#pick(VERSIONS)].join(this.#pick([' ', ' ', ' ', '  ', '\t']));
    return Buffer.concat([Buffer.from([line, ...fields, '', ''].join(end), 'latin1'), this.#bytes(this.#upTo(50))]);
  }

  #publishHead(more: string): Buffer {
    const type = this.#pick(FORMATS);
    if (this.#random() < 0.5) {
      const head = `POST /ingest/${this.#channel} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${this.#key}\r\nContent-Type: ${type}\r\n${more}\r\n`;
      return Buffer.from(head);
    }
    const basic = Buffer.from(`source:${this.#key}`).toString('base64');
    return Buffer.from(
      `PUT /${this.#channel} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic ${basic}\r\nContent-Type: ${type}\r\n${more}\r\n`,
    );
  }

  #body(bytes: Buffer): Buffer {
    const length = Math.max(0, bytes.length + this.#pick([0, 0, 0, 1000, -10]));
    return Buffer.concat([this.#publishHead(`Content-Length: ${length}\r\n`), bytes]);
  }

  #chunked(bytes: Buffer): Buffer {
    const pieces: Buffer[] = [this.#publishHead('Transfer-Encoding: chunked\r\n')];
    for (let at = 0; at < bytes.length; ) {
      const size = 1 + this.#upTo(this.#pick([1, 100, 5000]));
      const chunk = bytes.subarray(at, at + size);
      const line = this.#random() < 0.02 ? this.#pick(['x', '-1', '', 'ffffffffffffff', '5;a="\r"', ' 5']) : chunk.length.toString(16);
      pieces.push(Buffer.from(`${line}\r\n`, 'latin1'), chunk, Buffer.from(this.#random() < 0.02 ? '\n' : '\r\n'));
      at += size;
      // Single bytes of a whole recording would be all that this run does.
      if (pieces.length > 3000) break;
    }
    return Buffer.concat([...pieces, Buffer.from(this.#pick(['0\r\n\r\n', '0\r\nA: b\r\n\r\n', '0\r\nnone\r\n\r\n', '']))]);
  }

  #handshake(): Buffer {
    const version = this.#random() < 0.95 ? 3 : this.#upTo(255);
    return Buffer.concat([Buffer.from([version]), this.#bytes(1536), this.#bytes(1536)]);
  }

  #published(): Buffer {
    return Buffer.concat([
      Buffer.from([3]),
      Buffer.alloc(3072),
      this.#sent(MESSAGE.command, encodeAmf0('connect', 1, { app: 'live', flashVer: 'fuzz' }), 0),
      this.#sent(MESSAGE.command, encodeAmf0('createStream', 2, null), 0),
      this.#sent(MESSAGE.command, encodeAmf0('publish', 3, null, this.#key, 'live'), 1),
    ]);
  }

  #sent(type: number, payload: Buffer, streamId: number): Buffer {
    return encodeMessage(3 + this.#upTo(4), { type, streamId, payload }, 128, this.#upTo(0xfffffe));
  }

  #command(): Buffer {
    const name = this.#pick([
      'connect',
      'publish',
      'createStream',
      'deleteStream',
      'FCUnpublish',
      'closeStream',
      'play',
      '_result',
      'x',
      '__proto__',
    ]);
    const values = Buffer.concat([encodeAmf0(name, this.#upTo(5)), ...this.#some(4, () => this.#amf(0))]);
    return this.#sent(
      this.#pick([MESSAGE.command, MESSAGE.commandAmf3]),
      this.#random() < 0.2 ? this.#changed(values) : values,
      this.#upTo(2),
    );
  }

  /** A value with its marker: nested, counted too high, cut off. */
  #amf(depth: number): Buffer {
    const uint32 = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value]);
    const deep = depth > 30;
    switch (this.#upTo(deep ? 5 : 9)) {
      case 0:
        return encodeAmf0(this.#pick([0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1e308]));
      case 1:
        return encodeAmf0(this.#pick(['', this.#key, 'a'.repeat(this.#upTo(2000)), '\0', '__proto__']));
      case 2:
        return encodeAmf0(this.#pick([null, undefined, true]));
      case 3:
        return Buffer.from([this.#upTo(255)]);
      case 4:
        return Buffer.concat([Buffer.from([0x0c]), uint32(this.#upTo(0xffffffff)), this.#bytes(this.#upTo(20))]);
      case 5:
        return this.#bytes(this.#upTo(30));
      case 6:
        return Buffer.concat([Buffer.from([0x0a]), uint32(this.#pick([1, 1000, 0xffffffff])), this.#amf(depth + 1)]);
      default: {
        const member = Buffer.concat([Buffer.from([0, 1, 97]), this.#amf(depth + 1)]);
        const start = this.#random() < 0.5 ? Buffer.from([3]) : Buffer.concat([Buffer.from([8]), uint32(this.#upTo(0xffffffff))]);
        return Buffer.concat([start, member, Buffer.from(this.#random() < 0.8 ? [0, 0, 9] : [])]);
      }
    }
  }

  #message(): Buffer {
    switch (this.#upTo(5)) {
      case 0:
        return this.#command();
      case 1:
        return this.#sent(MESSAGE.data, Buffer.concat([encodeAmf0('@setDataFrame', 'onMetaData'), this.#amf(0)]), 1);
      case 2:
        // Protocol control: sizes, aborts, windows, pings.
        return this.#sent(1 + this.#upTo(5), this.#bytes(this.#upTo(12)), 0);
      case 3:
        return this.#sent(MESSAGE.aggregate, this.#bytes(this.#upTo(300)), 1);
      case 4:
        return this.#sent(this.#upTo(255), this.#bytes(this.#upTo(300)), this.#upTo(3));
      default:
        return this.#audio();
    }
  }

  /** FLV's tags and Enhanced RTMP's, with good beginnings so that a decoder is started now and then. */
  #audio(): Buffer {
    const body = this.#bytes(this.#upTo(400));
    const start = this.#pick([
      [0xaf, 0, 0x11, 0x90],
      [0xaf, 1],
      [0xaf, 1, 0x21, 0x10, 4, 0x60, 0x8c, 0x1c],
      [0x2f, 0xff, 0xfb, 0x90, 0x64],
      [0x90, ...Buffer.from('Opus'), ...Buffer.from('OpusHead'), 1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0],
      [0x91, ...Buffer.from('Opus'), 0xfc],
      [0x90, ...Buffer.from('fLaC')],
      [0x91, ...Buffer.from('.mp3'), 0xff, 0xfb, 0x90, 0x64],
      [0x95, this.#upTo(255)],
      [0x97, this.#upTo(255)],
      [this.#upTo(255)],
    ]);
    return this.#sent(MESSAGE.audio, Buffer.concat([Buffer.from(start), this.#random() < 0.5 ? Buffer.alloc(0) : body]), 1);
  }
}
