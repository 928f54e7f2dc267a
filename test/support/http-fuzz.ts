import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { randomOf } from './long.js';

/** A port that speaks HTTP. */
export interface HttpPort {
  readonly name: string;
  readonly port: number;
  readonly isSecure: boolean;
  /** Takes WebSockets at `/chat`. */
  readonly hasChat: boolean;
}

const METHODS = 'GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PROPFIND PRI GETS get'.split(' ');
const PATHS = [
  '/',
  '/c/radio',
  '/chat',
  '/time',
  '/health/live',
  '/health/ready',
  '/metrics',
  '/debug/pprof/profile?seconds=',
  '/.well-known/jwks.json',
  '/api/v1/openapi.json',
  '/api/v1/channels',
  '/api/v1/channels/radio',
  '/api/v1/auth/login',
  '/api/v1/me',
  '/api/v1/rooms/radio/messages?limit=',
  '/live/radio/master.m3u8',
  '/live/radio/aac-128/index.m3u8?_HLS_msn=1&_HLS_part=',
  '/live/radio/aac-128/x-init.mp4',
  '/vod/x/master.m3u8',
  '/t/x/live/radio/master.m3u8',
  '/listen/radio.mp3',
];
const PREFIXES = [
  '',
  '',
  '',
  'http://[%]',
  'http://xn--',
  'https://radio.example',
  'HTTP://a@b',
  '//[%]',
  '//a@[%]',
  'http:',
  'ftp://x',
  '*',
  '#',
  '?',
  '\\',
];
const SUFFIXES = ['', '', '', '%', '%ff', '%00', '#', '?', '?%', ';a', '/../..', '\u00e4', '\u00a0', '\0', ' ', '"<>', 'x'.repeat(9000)];
const HOSTS = ['x', 'x', 'x', '', '[%', '[::1]', 'xn--', 'a b', ':', 'a:99999', '\u00e4', 'a@b'];
const FIELDS: Readonly<Record<string, readonly string[]>> = {
  Connection: ['Upgrade', 'close', 'keep-alive', 'Upgrade, HTTP2-Settings', 'Upgrade, close', ','],
  Upgrade: ['websocket', 'foo', 'h2c', 'websocket, foo', ''],
  'HTTP2-Settings': ['AAMAAABkAAQAAP__', '%'],
  'Sec-WebSocket-Key': ['dGhlIHNhbXBsZSBub25jZQ==', 'x'],
  'Sec-WebSocket-Version': ['13', '8', '99', 'x'],
  'Sec-WebSocket-Protocol': ['veza.chat.v1', 'x', ',', 'veza.chat.v1, veza.chat.v1'],
  'Sec-WebSocket-Extensions': ['permessage-deflate', ';', 'x; y="'],
  Expect: ['100-continue', 'x', '100-continue, x'],
  'Transfer-Encoding': ['chunked', 'gzip, chunked', 'chunked, chunked', 'identity', 'x'],
  'Content-Length': ['0', '2', '10', '65537', '-1', '99999999999999999999'],
  'Content-Type': ['application/json', 'application/json; charset=utf-16', 'text/plain', ';'],
  'Content-Encoding': ['gzip', 'identity'],
  Authorization: ['Bearer x', 'bearer  x', 'Basic %', 'Bearer ', `Bearer ${'x'.repeat(9000)}`, 'Bearer eyJhbGciOiJub25lIn0.e30.'],
  Range: ['bytes=0-1', 'bytes=-0', 'bytes=9-1', 'bytes=0-0,1-1', `bytes=${'9'.repeat(40)}-`, '\u00ff'],
  'If-Match': ['*', '"x"', 'W/"x"', ',', '"'],
  'If-None-Match': ['*', '"x"', ',,,'],
  'If-Range': ['"x"', 'Thu, 01 Jan 1970 00:00:00 GMT'],
  'X-Forwarded-For': ['1.2.3.4', '[%', ',,', '::1%lo'],
  'X-Request-Id': ['x', '\u0001', 'x'.repeat(100)],
  Origin: ['null', 'http://[%]', 'https://radio.example', '%'],
  Cookie: ['veza_play_live_radio=x', ';;=', '='],
  'Accept-Encoding': ['gzip', 'br;q=x', '*;q=0', ','],
  'CMCD-Session': ['sid="x"', 'sid="', '%'],
  'Access-Control-Request-Method': ['POST'],
};
const BODIES = [
  '',
  '{}',
  '{',
  'null',
  '[[[[[[[[[[[[[[[[[[[[',
  '0\r\n\r\n',
  '2\r\n{}\r\n0\r\n\r\n',
  'zz\r\n',
  '2;a="\r\n{}\r\n',
  '\0\u00ff',
  '{"email":"a@b.example","password":"\\ud800"}',
];
const FRAMES = [
  '{"t":"hello"}',
  '{"t":"hello","token":"x"}',
  '{"t":"join","id":"1","room":"radio"}',
  '{"t":"join","id":"1","room":"radio","since":{"epoch":1,"offset":-1}}',
  '{"t":"pub","id":"1","room":"radio","key":"k","body":{"text":"\\ud800"}}',
  '{"t":"history","id":"1","room":"radio","before":1e308}',
  '{"t":"range","id":"1","room":"radio","from":1,"to":9007199254740991}',
  '{"t":"mod","id":"1","room":"radio","action":"ban","user":{}}',
  '{"t":"__proto__","id":"1"}',
  '{"t":"constructor"}',
  '{{{',
  'null',
  '[]',
  '',
];

/**
 * What strangers may send to a port that speaks HTTP: targets, heads, bodies, frames of HTTP/2 and of WebSockets, some of them spoilt at random bytes.
 * The same seed gives the same bytes in the same order.
 */
export class HttpFuzz {
  readonly #ports: readonly HttpPort[];
  readonly #random: () => number;
  /** Connections that were opened. */
  sent = 0;

  constructor(ports: readonly HttpPort[], seed: number) {
    this.#ports = ports;
    this.#random = randomOf(seed);
  }

  /** Sends from `count` connections at one time; resolves when all of them are closed. */
  async round(count: number): Promise<void> {
    await Promise.all(
      Array.from({ length: count }, () => {
        this.sent++;
        const port = this.#of(this.#ports);
        if (port.isSecure && this.#chance(0.5)) return this.#play(port, this.#http2(), 'h2');
        return this.#play(port, port.hasChat && this.#chance(0.4) ? this.#webSocket() : this.#requests(), 'http/1.1');
      }),
    );
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }

  #of<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }

  #bytes(length: number): Buffer<ArrayBuffer> {
    return Buffer.from(Array.from({ length }, () => this.#below(256)));
  }

  #target(): string {
    return `${this.#of(PREFIXES)}${this.#of(PATHS)}${this.#of(SUFFIXES)}`;
  }

  #requests(): Buffer[] {
    return Array.from({ length: 1 + this.#below(4) }, () => this.#spoilt(this.#request()));
  }

  #request(): Buffer<ArrayBuffer> {
    const lines = [`${this.#of(METHODS)} ${this.#target()} HTTP/${this.#of(['1.1', '1.1', '1.1', '1.1', '1.0', '2.0', '1.2', ''])}`];
    if (this.#chance(0.9)) lines.push(`Host: ${this.#of(HOSTS)}`);
    const names = Object.keys(FIELDS);
    for (let left = this.#below(7); left > 0; left--) {
      const name = this.#of(names);
      lines.push(`${name}: ${this.#of(FIELDS[name]!)}`);
    }
    if (this.#chance(0.03)) for (let count = 0; count < 110; count++) lines.push(`X-${count}: y`);
    return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${this.#of(BODIES)}`, 'latin1');
  }

  /** One time in four some bytes are others, are missing, or are there twice. */
  #spoilt(bytes: Buffer<ArrayBuffer>): Buffer<ArrayBuffer> {
    if (!this.#chance(0.25) || bytes.length === 0) return bytes;
    let spoilt = Buffer.from(bytes);
    for (let left = 1 + this.#below(4); left > 0; left--) {
      const at = this.#below(spoilt.length);
      const kind = this.#below(3);
      if (kind === 0) spoilt[at] = this.#below(256);
      else if (kind === 1) spoilt = Buffer.concat([spoilt.subarray(0, at), spoilt.subarray(at + 1 + this.#below(4))]);
      else spoilt = Buffer.concat([spoilt.subarray(0, at), this.#bytes(this.#below(8)), spoilt.subarray(at)]);
      if (spoilt.length === 0) break;
    }
    return spoilt;
  }

  #http2(): Buffer[] {
    const pieces = [Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0, Buffer.alloc(0))];
    let stream = 1;
    for (let left = 1 + this.#below(8); left > 0; left--) {
      if (this.#chance(0.7)) {
        pieces.push(frame(1, this.#chance(0.6) ? 0x5 : 0x4, stream, this.#spoilt(this.#block())));
        if (this.#chance(0.4)) pieces.push(frame(0, this.#below(2), stream, Buffer.from(this.#of(BODIES), 'latin1')));
        stream += 2;
      } else pieces.push(frame(this.#below(12), this.#below(256), this.#below(stream + 2), this.#bytes(this.#below(40))));
    }
    return pieces;
  }

  /** Header fields as HPACK literals (RFC 7541 6.2.2). */
  #block(): Buffer<ArrayBuffer> {
    const fields: [string, string][] = [
      [':method', this.#of(METHODS)],
      [':scheme', this.#of(['https', 'https', 'http', 'x', ''])],
      [':path', this.#target().slice(0, 120)],
      [':authority', this.#of(HOSTS)],
    ];
    for (let at = fields.length - 1; at >= 0; at--) if (this.#chance(0.05)) fields.splice(at, 1);
    const names = Object.keys(FIELDS);
    for (let left = this.#below(5); left > 0; left--) {
      const name = this.#of(names);
      fields.push([name.toLowerCase(), this.#of(FIELDS[name]!).slice(0, 120)]);
    }
    if (this.#chance(0.1)) fields.push(['host', this.#of(HOSTS)], [':protocol', 'websocket']);
    return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.of(0), literal(name), literal(value)]));
  }

  #webSocket(): Buffer[] {
    const head = `GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: veza.chat.v1\r\n\r\n`;
    const pieces = [Buffer.from(head)];
    if (this.#chance(0.7)) pieces.push(this.#socketFrame(1, Buffer.from('{"t":"hello"}'), true));
    for (let left = 1 + this.#below(10); left > 0; left--) {
      const payload = this.#chance(0.7) ? this.#spoilt(Buffer.from(this.#of(FRAMES))) : this.#bytes(this.#below(200));
      pieces.push(this.#spoilt(this.#socketFrame(this.#chance(0.8) ? 1 : this.#below(16), payload, this.#chance(0.9))));
    }
    return pieces;
  }

  #socketFrame(opcode: number, payload: Buffer, isFinal: boolean): Buffer<ArrayBuffer> {
    const mask = this.#bytes(4);
    const masked = Buffer.from(payload.map((byte, at) => byte ^ mask[at % 4]!));
    const length = payload.length < 126 ? Buffer.of(0x80 | payload.length) : Buffer.of(0xfe, payload.length >> 8, payload.length & 255);
    return Buffer.concat([Buffer.of((isFinal ? 0x80 : 0) | opcode), length, mask, masked]);
  }

  /** Writes piece by piece, reads what comes, and leaves in one of the ways in which clients do. */
  #play(port: HttpPort, pieces: readonly Buffer[], protocol: string): Promise<void> {
    const inOne = this.#chance(0.5);
    const leaves = this.#of(['reset', 'end', 'destroy', 'half'] as const);
    return new Promise((resolve) => {
      const socket: Socket = port.isSecure
        ? connectTls({ port: port.port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: [protocol] })
        : connect(port.port, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.on('close', () => resolve());
      socket.resume();
      // Long enough for an answer, where there is one; a request that waits is left.
      socket.setTimeout(150, () => {
        if (leaves === 'end' && !socket.writableEnded) {
          socket.end();
          // The server may have something to finish first.
          setTimeout(() => socket.destroy(), 150);
        } else if (leaves === 'reset' && !port.isSecure) socket.resetAndDestroy();
        else socket.destroy();
      });
      socket.once(port.isSecure ? 'secureConnect' : 'connect', () => {
        for (const piece of inOne ? [Buffer.concat(pieces)] : pieces) socket.write(piece);
        if (leaves === 'half') socket.end();
      });
    });
  }
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer<ArrayBuffer> {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

function literal(text: string): Buffer<ArrayBuffer> {
  const bytes = Buffer.from(text, 'latin1').subarray(0, 126);
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}
