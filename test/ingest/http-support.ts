import assert from 'node:assert/strict';
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import ffmpegInstaller from '@ffmpeg-installer/ffmpeg';
import type { IngestHttpLimits } from '../../src/ingest/http/limits.js';
import { IngestHttpServer } from '../../src/ingest/http.js';
import type {
  Gate,
  IngestAdmission,
  IngestRequest,
  Source,
  SourceEnd,
  SourceEvents,
  SourceFormat,
  TitleUpdate,
} from '../../src/ingest/source.js';
import { type Clock, SystemClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type Log, silentLog } from '../../src/runtime/log.js';

export const DEBIAN_FFMPEG = '/usr/bin/ffmpeg';
export const BUNDLED_FFMPEG = ffmpegInstaller.path;

/** What a source was given, and hands to wait for more. */
export class FakeSource implements Source {
  readonly format: SourceFormat;
  readonly events: SourceEvents;
  readonly titles: TitleUpdate[] = [];
  readonly #chunks: Buffer[] = [];
  readonly #waiters = new Set<() => void>();
  readonly #slow: boolean;
  sizeBytes = 0;
  how: SourceEnd | undefined;

  constructor(format: SourceFormat, events: SourceEvents, slow: boolean) {
    this.format = format;
    this.events = events;
    this.#slow = slow;
  }

  write(bytes: Uint8Array): boolean {
    assert.equal(this.how, undefined, 'bytes after the end');
    this.#chunks.push(Buffer.from(bytes));
    this.sizeBytes += bytes.length;
    this.#wake();
    return !this.#slow;
  }

  title(update: TitleUpdate): void {
    this.titles.push(update);
    this.#wake();
  }

  /** What `end` returns. */
  begun: Promise<void> | undefined;

  end(how: SourceEnd): Promise<void> | undefined {
    this.how ??= how;
    this.#wake();
    return this.begun;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.add(resolve));
  }

  async ended(): Promise<SourceEnd> {
    await this.until(() => this.how !== undefined);
    return this.how!;
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
    this.#waiters.clear();
  }
}

/** Knows the channel `radio` with the key `secret`. */
class FakeGate implements Gate {
  readonly requests: IngestRequest[] = [];
  readonly sources: FakeSource[] = [];
  readonly titles: { request: IngestRequest; update: TitleUpdate }[] = [];
  readonly #waiters = new Set<() => void>();
  /** Sources take every write and ask for no more. */
  slow = false;
  /** What the end of each source returns. */
  begun: Promise<void> | undefined;
  error: Error | undefined;
  /** Admissions wait for it. */
  hold: Promise<void> | undefined;

  async admit(request: IngestRequest): Promise<IngestAdmission> {
    this.requests.push(request);
    await this.hold;
    this.#check(request);
    return {
      channel: 'radio',
      open: (format, events) => {
        const source = new FakeSource(format, events, this.slow);
        source.begun = this.begun;
        this.sources.push(source);
        this.#wake();
        return source;
      },
    };
  }

  async title(request: IngestRequest, update: TitleUpdate): Promise<void> {
    this.#check(request);
    this.titles.push({ request, update });
    this.#wake();
  }

  async source(index = 0): Promise<FakeSource> {
    await this.until(() => this.sources.length > index);
    return this.sources[index]!;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.add(resolve));
  }

  #check(request: IngestRequest): void {
    if (this.error) throw this.error;
    if (request.channel !== 'radio') throw new VezaError('not_found', 'no such channel');
    if (request.streamKey !== 'secret') throw new VezaError('unauthorized', 'wrong stream key');
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
    this.#waiters.clear();
  }
}

export interface Setup {
  gate: FakeGate;
  server: IngestHttpServer;
  port: number;
}

export async function setUp(
  t: TestContext,
  options: { clock?: Clock; limits?: Partial<IngestHttpLimits>; log?: Log; host?: string } = {},
): Promise<Setup> {
  const gate = new FakeGate();
  const server = new IngestHttpServer({
    gate,
    clock: options.clock ?? new SystemClock(),
    log: options.log ?? silentLog,
    port: 0,
    host: options.host ?? '127.0.0.1',
    ...(options.limits ? { limits: options.limits } : {}),
  });
  await server.start();
  t.after(() => server.stop());
  return { gate, server, port: server.port };
}

/** A raw client: `text` is everything that the server has answered. */
export class RawClient {
  readonly socket: Socket;
  text = '';
  closed = false;
  readonly #waiters = new Set<() => void>();

  constructor(port: number, host = '127.0.0.1') {
    this.socket = connect({ port, host, allowHalfOpen: true, noDelay: true });
    this.socket.on('data', (bytes) => {
      this.text += bytes.toString('latin1');
      this.#wake();
    });
    this.socket.on('end', () => this.#finish());
    this.socket.on('close', () => this.#finish());
    this.socket.on('error', () => undefined);
  }

  send(data: string | Uint8Array): this {
    this.socket.write(data);
    return this;
  }

  async until(part: string): Promise<void> {
    while (!this.text.includes(part)) {
      assert.ok(!this.closed, `closed before ${JSON.stringify(part)}: ${this.text}`);
      await new Promise<void>((resolve) => this.#waiters.add(resolve));
    }
  }

  /** Everything up to the server's closing its side. */
  async answer(): Promise<string> {
    while (!this.closed) await new Promise<void>((resolve) => this.#waiters.add(resolve));
    this.socket.destroy();
    return this.text;
  }

  #finish(): void {
    this.closed = true;
    this.#wake();
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
    this.#waiters.clear();
  }
}

export const BASIC = `Authorization: Basic ${Buffer.from('source:secret').toString('base64')}\r\n`;
export const BEARER = 'Authorization: Bearer secret\r\n';

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'veza-ingest-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export interface Client {
  process: ChildProcess;
  /** Standard output and error so far. */
  output(): string;
  ended: Promise<number | null>;
}

/** A real client; it is killed when the test ends. */
export function runClient(t: TestContext, command: string, args: readonly string[], options: SpawnOptions = {}): Client {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout?.on('data', (bytes) => {
    output += bytes;
  });
  child.stderr?.on('data', (bytes) => {
    output += bytes;
  });
  const ended = once(child, 'close').then(([code]) => code as number | null);
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await ended;
  });
  return { process: child, output: () => output, ended };
}

export async function collect(command: string, args: readonly string[], input?: Uint8Array): Promise<Buffer> {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const chunks: Buffer[] = [];
  let errors = '';
  child.stdout.on('data', (bytes) => chunks.push(bytes));
  child.stderr.on('data', (bytes) => {
    errors += bytes;
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input ?? new Uint8Array());
  const [code] = await once(child, 'close');
  assert.equal(code, 0, `${command} ${args.join(' ')}: ${errors}`);
  return Buffer.concat(chunks);
}

export interface ToneOptions {
  seconds?: number;
  hz?: number;
  channels?: number;
  rateHz?: number;
  /** Further output options, such as `-metadata`. */
  more?: readonly string[];
}

/** A sine in any container that ffmpeg can write to a pipe. */
export function makeTone(codec: string, container: string, options: ToneOptions = {}): Promise<Buffer> {
  const { seconds = 3, hz = 1000, channels = 2, rateHz = 48_000, more = [] } = options;
  const input = ['-f', 'lavfi', '-i', `sine=frequency=${hz}:sample_rate=48000:duration=${seconds}`];
  const output = ['-ac', `${channels}`, '-ar', `${rateHz}`, '-c:a', codec, ...more, '-f', container, 'pipe:1'];
  return collect(DEBIAN_FFMPEG, ['-v', 'error', ...input, ...output]);
}

const INPUT_FORMATS: Readonly<Record<SourceFormat, string>> = {
  adts: 'aac',
  loas: 'loas',
  mp3: 'mp3',
  ogg: 'ogg',
  matroska: 'matroska',
  flac: 'flac',
  wav: 'wav',
};

export interface Heard {
  seconds: number;
  /** Level of a tone in a stretch of the sound, 1 = full scale; ffmpeg's `sine` is 0.125 of it, on one channel's scale. */
  level(hz: number, fromSeconds: number, toSeconds: number): number;
}

/** Decodes what a source was given, as the decoder of Veza would. */
export async function hear(bytes: Uint8Array, format: SourceFormat, ffmpeg = BUNDLED_FFMPEG): Promise<Heard> {
  const args = ['-v', 'quiet', '-f', INPUT_FORMATS[format], '-i', 'pipe:0', '-vn', '-ac', '2', '-ar', '48000', '-f', 's16le', 'pipe:1'];
  const pcm = await collect(ffmpeg, args, bytes);
  const samples = Math.floor(pcm.length / 4);
  return {
    seconds: samples / 48_000,
    level(hz, fromSeconds, toSeconds) {
      const from = Math.round(fromSeconds * 48_000);
      const count = Math.min(Math.round(toSeconds * 48_000), samples) - from;
      assert.ok(count > 0, `nothing to hear from ${fromSeconds} s: it lasts ${samples / 48_000} s`);
      const turn = 2 * Math.cos((2 * Math.PI * hz) / 48_000);
      let [one, two] = [0, 0];
      for (let i = 0; i < count; i++) [one, two] = [pcm.readInt16LE((from + i) * 4) / 32768 + turn * one - two, one];
      return (Math.sqrt(one * one + two * two - turn * one * two) * 2) / count;
    },
  };
}

/** Asserts a 1 kHz tone of ffmpeg's usual level all through, and how long it is. */
export async function assertTone(source: FakeSource, format: SourceFormat, seconds: { atLeast: number; atMost: number }): Promise<void> {
  assert.equal(source.format, format);
  const heard = await hear(source.bytes, format);
  assert.ok(heard.seconds >= seconds.atLeast && heard.seconds <= seconds.atMost, `${heard.seconds} s of sound`);
  const level = heard.level(1000, 0.2, heard.seconds - 0.2);
  assert.ok(level > 0.06 && level < 0.14, `the tone's level is ${level}`);
}
