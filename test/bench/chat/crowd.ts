// A part of a crowd of chat members, in a process of its own; told what to do by messages of its parent (`CrowdCommand`), and answers each.
//
// Raw sockets with as little of WebSocket as a member needs: a mask of zeros (RFC 6455 5.3 asks for one, not for a secret one), frames that are
// looked at where they lie. So that what is measured is the server.
import { connect, type Socket } from 'node:net';
import { clientFrame } from './client-frame.js';
import { bare, type Dialect, nats, socketIo, type TokenOptions, veza } from './dialects.js';
import { Histogram } from './histogram.js';
import { nowUs, readStamps, stamp } from './stamp.js';

export interface CrowdOptions {
  readonly dialect: 'veza' | 'socketIo' | 'nats' | 'bare';
  readonly tokens?: TokenOptions;
  readonly port: number;
  /** Number of the first member, and how many there are here. */
  readonly first: number;
  readonly count: number;
  /** Connections begun a second, and those that may be under way at once. */
  readonly perS: number;
  readonly pending: number;
  /** Rooms are `{prefix}0` … and a member is in two of them, or in the one there is; or in one of them. */
  readonly prefix: string;
  readonly rooms: number;
  readonly roomsEach?: 1 | 2;
  /** One of so many messages that are received is measured; all are counted. */
  readonly sampleOneOf: number;
}

export type CrowdCommand =
  | { readonly do: 'connect'; readonly options: CrowdOptions }
  /** Messages from members here, in their rooms, evenly spread over time. */
  | {
      readonly do: 'talk';
      readonly perS: number;
      readonly seconds: number;
      readonly textBytes: number;
      readonly speakers: number;
      /** Of the time between two messages, 0 to 1: so that the parts of a crowd do not speak at the same moment. */
      readonly phase: number;
    }
  /** The first so many members stop reading, or read again. */
  | { readonly do: 'stall'; readonly members: number; readonly on: boolean }
  /** What was counted since the last time. */
  | { readonly do: 'count' };

export interface CrowdCount {
  readonly connected: number;
  readonly closed: Readonly<Record<string, number>>;
  readonly published: number;
  readonly acked: number;
  readonly refused: Readonly<Record<string, number>>;
  readonly delivered: number;
  readonly delays: number[];
  readonly ackDelays: number[];
}

const WORDS = 'what a lovely tune this evening who plays the piano here i heard it live last year and the drums were louder then'.split(
  ' ',
);

class Member {
  rest: Buffer | undefined;
  upgraded = false;
  ready = false;
  socket!: Socket;
  constructor(
    readonly index: number,
    readonly rooms: readonly string[],
  ) {}
}

const buffer = Buffer.allocUnsafe(256 * 1024);
const members: Member[] = [];
let options: CrowdOptions;
let dialect: Dialect;
let connected = 0;
let closed: Record<string, number> = {};
let published = 0;
let acked = 0;
let refused: Record<string, number> = {};
let delivered = 0;
let delays = new Histogram();
let ackDelays = new Histogram();
let keys = 0;
const sentUs = new Map<string, number>();
let onProgress = () => {};

function roomsOf(member: number): string[] {
  const { rooms, prefix, roomsEach = 2 } = options;
  const first = member % rooms;
  if (rooms === 1 || roomsEach === 1) return [`${prefix}${first}`];
  // Another neighbour in each turn, so that no two rooms have the same members.
  const second = (first + 1 + (Math.floor(member / rooms) % (rooms - 1))) % rooms;
  return [`${prefix}${first}`, `${prefix}${second}`];
}

/** In one write. */
function send(member: Member, ...texts: readonly string[]): void {
  if (texts.length === 0) return;
  if (!dialect.upgrade) member.socket.write(texts.join(''));
  else if (texts.length === 1) member.socket.write(clientFrame(texts[0]!));
  else member.socket.write(Buffer.concat(texts.map(clientFrame)));
}

function tally(counts: Record<string, number>, what: string): void {
  counts[what] = (counts[what] ?? 0) + 1;
}

function received(member: Member, chunk: Buffer): void {
  let bytes = chunk;
  if (member.rest) {
    bytes = Buffer.concat([member.rest, chunk]);
    member.rest = undefined;
  }
  let at = 0;
  if (!member.upgraded) {
    const end = bytes.indexOf('\r\n\r\n');
    if (end < 0) {
      member.rest = Buffer.from(bytes);
      return;
    }
    const head = bytes.toString('latin1', 0, end);
    if (!head.startsWith('HTTP/1.1 101')) throw new Error(head);
    member.upgraded = true;
    at = end + 4;
    const hello = dialect.hello(member.index);
    if (hello !== undefined) send(member, hello);
  }
  const now = nowUs();
  while (at < bytes.length) {
    const start = at;
    let length: number;
    let opcode = 1;
    if (dialect.upgrade) {
      if (bytes.length - at < 2) break;
      opcode = bytes[at]! & 15;
      length = bytes[at + 1]! & 127;
      at += 2;
      if (length === 126) {
        if (bytes.length - at < 2) {
          at = start;
          break;
        }
        length = bytes.readUInt16BE(at);
        at += 2;
      } else if (length === 127) {
        if (bytes.length - at < 8) {
          at = start;
          break;
        }
        length = Number(bytes.readBigUInt64BE(at));
        at += 8;
      }
    } else {
      const end = bytes.indexOf(10, at);
      length = end < 0 ? bytes.length : end + 1 - at;
    }
    if (bytes.length - at < length) {
      at = start;
      break;
    }
    text(member, bytes, at, at + length, opcode, now);
    at += length;
  }
  if (at < bytes.length) member.rest = Buffer.from(bytes.subarray(at));
}

function text(member: Member, bytes: Buffer, from: number, to: number, opcode: number, now: number): void {
  if (opcode === 9) {
    const pong = Buffer.alloc(6 + to - from);
    pong[0] = 0x8a;
    pong[1] = 0x80 | (to - from);
    bytes.copy(pong, 6, from, to);
    member.socket.write(pong);
    return;
  }
  if (opcode === 8) {
    tally(closed, `close ${to - from >= 2 ? bytes.readUInt16BE(from) : 0}`);
    return;
  }
  const head = bytes.toString('latin1', from, Math.min(to, from + 16));
  if (dialect.isMessage(head)) {
    // NATS puts several into one frame.
    if (options.dialect !== 'nats' && options.sampleOneOf > 1 && ++delivered % options.sampleOneOf !== 0) return;
    const count = readStamps(bytes, from, to, now, (ageUs) => delays.record(ageUs));
    if (options.dialect === 'nats') delivered += count;
    else if (options.sampleOneOf <= 1) delivered++;
    if (options.dialect !== 'nats') return;
  }
  const content = bytes.toString('utf8', from, to);
  const outcome = dialect.outcome(content);
  if (outcome) {
    const { id } = JSON.parse(content) as { id: string };
    const sent = sentUs.get(id);
    if (sent !== undefined) {
      sentUs.delete(id);
      if (outcome === 'acked') {
        acked++;
        ackDelays.record(now - sent);
      } else tally(refused, /"code":"(\w+)"/.exec(content)?.[1] ?? content.slice(6, 12));
      return;
    }
  }
  send(member, ...dialect.answer(content, member.index, member.rooms, () => nowReady(member)));
}

function nowReady(member: Member): void {
  if (member.ready) return;
  member.ready = true;
  connected++;
  onProgress();
}

function open(index: number): void {
  const number = options.first + index;
  const member = new Member(number, roomsOf(number));
  members[index] = member;
  member.socket = connect({
    host: '127.0.0.1',
    port: options.port,
    // A source address has 28,000 ports at most.
    localAddress: `127.0.${1 + Math.floor(number / 2_000)}.1`,
    onread: {
      buffer,
      callback: (length) => {
        received(member, buffer.subarray(0, length));
        return true;
      },
    },
  });
  member.socket.setNoDelay(true);
  member.socket.once('connect', () => {
    if (!dialect.upgrade) {
      member.upgraded = true;
      for (const room of member.rooms) member.socket.write(`J ${room}\n`);
      nowReady(member);
      return;
    }
    const { path, protocol } = dialect.upgrade;
    member.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${options.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n${protocol ? `Sec-WebSocket-Protocol: ${protocol}\r\n` : ''}\r\n`,
    );
  });
  member.socket.on('error', (error) => tally(closed, (error as NodeJS.ErrnoException).code ?? error.message));
  member.socket.once('close', () => {
    if (member.ready) connected--;
    else tally(closed, 'before it was ready');
    onProgress();
  });
}

async function connectAll(): Promise<void> {
  const startMs = performance.now();
  let begun = 0;
  while (begun < options.count) {
    const due = Math.min(options.count, ((performance.now() - startMs) / 1000) * options.perS);
    while (begun < due && begun - connected < options.pending) open(begun++);
    await new Promise((resolve) => setTimeout(resolve, 10));
    const failed = Object.values(closed).reduce((sum, count) => sum + count, 0);
    if (failed > 0 && connected + failed >= begun && failed > options.count / 10) break;
  }
  // All are in, or something was closed.
  await new Promise<void>((resolve) => {
    onProgress = () => {
      if (connected >= options.count || Object.keys(closed).length > 0) resolve();
    };
    onProgress();
  });
  onProgress = () => {};
}

async function talk({ perS, seconds, textBytes, speakers, phase }: Extract<CrowdCommand, { do: 'talk' }>): Promise<void> {
  const startMs = performance.now();
  let said = 0;
  while (true) {
    const passedS = (performance.now() - startMs) / 1000;
    const due = Math.floor(Math.min(passedS, seconds) * perS + phase);
    for (; said < due; said++) {
      const member = members[Math.floor((said % speakers) * (members.length / speakers))]!;
      const room = member.rooms[Math.floor(said / speakers) % member.rooms.length]!;
      const key = `${process.pid}-${++keys}`;
      let words = '';
      for (let word = said; words.length < textBytes; word++) words += ` ${WORDS[(word * 7 + said) % WORDS.length]}`;
      if (options.dialect === 'veza') sentUs.set(key, nowUs());
      send(member, dialect.publish(room, `${words.slice(1, textBytes)} ${stamp()}`, key));
      published++;
    }
    if (passedS >= seconds) return;
    // Until the next is due; to look more often would take from the server.
    const dueS = Math.min(seconds, (said + 1 - phase) / perS);
    await new Promise((resolve) => setTimeout(resolve, Math.max(1, (dueS - passedS) * 1000)));
  }
}

function count(): CrowdCount {
  const counted = { connected, closed, published, acked, refused, delivered, delays: delays.toJSON(), ackDelays: ackDelays.toJSON() };
  [closed, published, acked, refused, delivered] = [{}, 0, 0, {}, 0];
  [delays, ackDelays] = [new Histogram(), new Histogram()];
  return counted;
}

process.on('message', async (command: CrowdCommand) => {
  switch (command.do) {
    case 'connect':
      options = command.options;
      dialect = options.dialect === 'veza' ? veza(options.tokens!) : { socketIo, nats, bare }[options.dialect];
      await connectAll();
      break;
    case 'talk':
      await talk(command);
      break;
    case 'stall':
      for (const { socket } of members.slice(0, command.members)) {
        if (command.on) socket.pause();
        else socket.resume();
      }
      break;
    case 'count':
      break;
  }
  process.send!(count());
});
process.on('disconnect', () => process.exit(0));
