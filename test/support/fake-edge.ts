import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import Koa from 'koa';
import { Playback } from '../../src/app/playback/playback.js';
import type { PlaybackOptions } from '../../src/app/playback/playback-options.js';
import type { ObjectStore, StoredObject } from '../../src/backing/object-store/object-store.js';
import type { Edge, LiveView } from '../../src/live/edge.js';
import { LiveWindow } from '../../src/live/window.js';
import { chunk, packedAudioTag } from '../../src/media/cmaf.js';
import { type Codec, FRAME_SAMPLES, LADDER, type Rendition, SAMPLE_RATE_HZ } from '../../src/media/ladder.js';
import {
  framesPerPart,
  framesPerSegment,
  makeGrid,
  mediaTimeOf,
  partName,
  partsPerSegment,
  segmentName,
  type Title,
} from '../../src/media/timeline.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

/** Frame `index` (from the broadcast's start) of a rendition. */
export type FrameSource = (rendition: Rendition, index: number) => Uint8Array;

/** Not sound, but the right lengths and headers, and every frame different. */
export const plainFrames: FrameSource = (rendition, index) => {
  const bytes = Buffer.alloc(rendition.codec === 'mp3' ? 384 : 40, rendition.bitrateKbps & 0xff);
  if (rendition.codec === 'mp3') bytes.set([0xff, 0xfb, 0x94, 0x44]);
  if (rendition.codec === 'opus') bytes[0] = 0xfc;
  bytes.writeUInt32BE(index, 8);
  return bytes;
};

/** A channel on air whose every part is published by the test. */
export class FakeChannel {
  readonly window: LiveWindow;
  number: number;
  /** Next AAC part; Opus parts of the same number go with it. */
  nextPart = 0;
  #runs = 0;
  readonly #frames: FrameSource;
  readonly #firstWallMs: number;

  constructor(channel: string, clock: FakeClock, options: FakeChannelOptions = {}) {
    this.#frames = options.frames ?? plainFrames;
    this.number = options.firstNumber ?? 10;
    this.window = new LiveWindow(channel, options.renditions ?? LADDER, {
      broadcastId: options.broadcastId ?? `b-${channel}`,
      grid: makeGrid(options.segmentMs ?? 1920, options.partMs ?? 320),
      firstNumber: this.number,
      runs: [],
      gaps: [],
      titles: [],
    });
    this.#firstWallMs = clock.wallMs();
    this.#beginRun();
  }

  get run(): string {
    return this.window.run.id;
  }

  /** Milliseconds since 1970 at the end of what is published. */
  get writtenWallMs(): number {
    const { grid } = this.window;
    const samples =
      (this.number - this.window.firstNumber) * grid.segmentSamples + this.nextPart * framesPerPart(grid, 'aac') * FRAME_SAMPLES.aac;
    return this.#firstWallMs + (samples * 1000) / SAMPLE_RATE_HZ;
  }

  segmentPath(rendition: string, number: number): string {
    return `/live/${this.window.channel}/${rendition}/${segmentName(this.run, number, rendition.split('-')[0] as Codec)}`;
  }

  partPath(rendition: string, number: number, part: number): string {
    return `/live/${this.window.channel}/${rendition}/${partName(this.run, number, part)}`;
  }

  /** Publishes the next part in every low-latency rendition, and the MP3 segment with the last one. */
  part(): void {
    const { grid, renditions } = this.window;
    const last = this.nextPart === partsPerSegment(grid, 'aac') - 1;
    const chunks = new Map<Rendition, Uint8Array>();
    for (const rendition of renditions) {
      const { codec } = rendition;
      const perSegment = framesPerSegment(grid, codec);
      const perPart = codec === 'mp3' ? perSegment : framesPerPart(grid, codec);
      const from = codec === 'mp3' ? 0 : this.nextPart * perPart;
      if (codec === 'mp3' && !last) continue;
      const first = (this.number - this.window.firstNumber) * perSegment + from;
      const count = Math.min(perPart, perSegment - from);
      const frames = Array.from({ length: count }, (_, index) => this.#frames(rendition, first + index));
      const mediaTime = mediaTimeOf(this.window, this.number) + from * FRAME_SAMPLES[codec];
      chunks.set(
        rendition,
        codec === 'mp3' ? Buffer.concat([packedAudioTag(mediaTime), ...frames]) : chunk({ codec, sequence: first, mediaTime, frames }),
      );
    }
    const { number, nextPart } = this;
    if (last) this.number += 1;
    this.nextPart = last ? 0 : this.nextPart + 1;
    this.window.appendPart([...new Set([...chunks.keys()].map((rendition) => rendition.codec))], number, nextPart, chunks);
  }

  parts(count: number): void {
    for (let i = 0; i < count; i += 1) this.part();
  }

  /** Publishes to the end of the open segment, and `count - 1` whole ones. */
  segments(count: number): void {
    for (const until = this.number + count; this.number < until; ) this.part();
  }

  title(title: Title): void {
    this.window.addTitle(title);
  }

  /** The open segment is lost; the next one begins a new run. */
  restart(): void {
    this.number += 1;
    this.nextPart = 0;
    this.#beginRun();
  }

  end(): void {
    this.window.end();
  }

  #beginRun(): void {
    this.#runs += 1;
    const { grid, firstNumber } = this.window;
    this.window.beginRun({
      id: `r${this.#runs}x`,
      firstNumber: this.number,
      discontinuity: this.#runs - 1,
      startWallMs: this.#firstWallMs + ((this.number - firstNumber) * grid.segmentSamples * 1000) / SAMPLE_RATE_HZ,
    });
  }
}

export interface FakeChannelOptions {
  renditions?: readonly Rendition[];
  segmentMs?: number;
  partMs?: number;
  firstNumber?: number;
  broadcastId?: string;
  frames?: FrameSource;
}

export class FakeEdge implements Edge {
  readonly #channels = new Map<string, FakeChannel>();
  readonly #clock: FakeClock;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  start(channel: string, options: FakeChannelOptions = {}): FakeChannel {
    const made = new FakeChannel(channel, this.#clock, options);
    this.#channels.set(channel, made);
    return made;
  }

  /** The channel has no view any more. */
  remove(channel: string): void {
    const removed = this.#channels.get(channel);
    this.#channels.delete(channel);
    removed?.window.close();
  }

  view(channel: string): LiveView | undefined {
    return this.#channels.get(channel)?.window;
  }

  channels(): string[] {
    return [...this.#channels.keys()];
  }
}

/** Objects in memory; `gate` holds reads back until it is resolved. */
export class FakeStore implements ObjectStore {
  readonly objects = new Map<string, Uint8Array>();
  gate: Promise<void> = Promise.resolve();
  reads = 0;

  async put(key: string, bytes: Uint8Array): Promise<void> {
    this.objects.set(key, bytes);
  }

  async get(key: string): Promise<StoredObject | undefined> {
    this.reads += 1;
    await this.gate;
    const bytes = this.objects.get(key);
    return bytes && { bytes, sizeBytes: bytes.length };
  }

  async head(key: string): Promise<number | undefined> {
    return this.objects.get(key)?.length;
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) this.objects.delete(key);
  }

  async *list(prefix: string) {
    for (const [key, bytes] of this.objects) if (key.startsWith(prefix)) yield { key, sizeBytes: bytes.length, modifiedMs: 0 };
  }
}

export interface FakeService {
  readonly clock: FakeClock;
  readonly edge: FakeEdge;
  readonly store: FakeStore;
  readonly playback: Playback;
  readonly server: Server;
  readonly port: number;
  readonly url: string;
  close(): Promise<void>;
}

/** A real HTTP server with the playback edge as the first middleware of a Koa app, over fakes. */
export async function startPlayback(options: Partial<PlaybackOptions> = {}): Promise<FakeService> {
  const clock = new FakeClock();
  const edge = new FakeEdge(clock);
  const store = new FakeStore();
  const playback = new Playback({ edge, store, clock, log: silentLog, dvrWindowS: 7200, ...options });
  const app = new Koa();
  app.use(playback.middleware);
  app.use((ctx) => {
    ctx.body = 'next';
  });
  const server = createServer(app.callback());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    clock,
    edge,
    store,
    playback,
    server,
    port,
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        playback.stop();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
