import assert from 'node:assert/strict';
import type { ObjectStore } from '../../src/backing/object-store/object-store.js';
import type { Registry } from '../../src/backing/registry/registry.js';
import type { Recording } from '../../src/live/broadcast-options.js';
import { LiveChannels } from '../../src/live/live-channels.js';
import { Uploader } from '../../src/live/uploader.js';
import { MIN_SEGMENTS } from '../../src/media/hls.js';
import { LADDER } from '../../src/media/ladder.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { FakeFfmpeg } from '../support/fake-ffmpeg.js';

/** Of a channel that was never on air: a first playlist has room for six segments. */
export const FIRST = MIN_SEGMENTS;
export const CHANNEL = { id: 'c1', slug: 'radio', title: 'Radio', recording: true, keyVoids: 0 };

/** What outlives a process. */
export class Disk {
  readonly documents = new Map<string, unknown>();
  readonly objects = new Set<string>();
  failing = false;

  readonly registry: Registry = {
    load: async () => new Map(this.documents),
    save: async (channel, document) => {
      if (this.failing) throw new Error('no space left');
      this.documents.set(channel, structuredClone(document));
    },
    remove: async (channel) => {
      this.documents.delete(channel);
    },
  };

  readonly store = {
    put: async (key: string) => {
      this.objects.add(key);
    },
    head: async (key: string) => (this.objects.has(key) ? 1 : undefined),
  } as unknown as ObjectStore;
}

export class World {
  readonly ffmpeg = new FakeFfmpeg();
  readonly recordings: Recording[] = [];
  /** `on` and `off` air, with the broadcast, as others are told. */
  readonly told: [state: 'on' | 'off', broadcastId: string, startedMs: number][] = [];
  readonly delaysS: number[] = [];
  readonly counts = { cuts: 0, undurable: 0, encoderRestarts: 0, endsLost: 0, encoderLags: 0, lostS: 0 };
  onRecordingEnded: (recording: Recording) => void = () => undefined;
  /** Called when somebody is told: one who is told may throw. */
  hear: (event: 'on air' | 'off air' | 'recording started' | 'connection closed') => void = () => undefined;
  /** What the recordings answer to each that ends. */
  written: Promise<boolean> = Promise.resolve(true);
  /** As the database has it. */
  channel: typeof CHANNEL | undefined = CHANNEL;
  /** Of each show, what the database says; the other channels differ from `channel` by their ids. */
  standing = async (slugs: readonly string[]) => {
    const { channel } = this;
    if (!channel) return new Map<string, typeof CHANNEL>();
    return new Map(slugs.map((slug) => [slug, slug === channel.slug ? channel : { ...channel, id: slug.slice('radio-'.length) }]));
  };
  readonly clock: FakeClock;
  readonly live: LiveChannels;

  constructor(
    readonly disk = new Disk(),
    clock = new FakeClock(),
    media: { recordingMaxH?: number; partMs?: number } = {},
  ) {
    this.clock = clock;
    const common = { clock, log: silentLog, store: disk.store };
    const nothing = () => undefined;
    const uploader = new Uploader({
      ...common,
      metrics: { segmentUploadSeconds: nothing, segmentUploadBacklog: nothing, segmentLost: nothing },
    });
    this.live = new LiveChannels({
      ...common,
      ffmpeg: this.ffmpeg.asFfmpeg,
      registry: disk.registry,
      uploader,
      metrics: {
        partPublishDelaySeconds: (seconds) => this.delaysS.push(seconds),
        ingestBytes: nothing,
        cut: () => {
          this.counts.cuts += 1;
        },
        decoderRestarted: nothing,
        encoderRestarted: () => {
          this.counts.encoderRestarts += 1;
        },
        endLost: () => {
          this.counts.endsLost += 1;
        },
        encoderLagging: () => {
          this.counts.encoderLags += 1;
        },
        encodedLost: (seconds) => {
          this.counts.lostS += seconds;
        },
        timelineNotDurable: () => {
          this.counts.undurable += 1;
        },
      },
      media: { segmentMs: 1920, partMs: 320, reconnectWindowS: 60, recordingMaxH: 12, ladder: LADDER, ...media },
      maxStreams: 2,
      verifyKey: async (key) => {
        if (key === 'key') return CHANNEL;
        return key.startsWith('key-') ? { ...CHANNEL, id: key, slug: `radio-${key}` } : undefined;
      },
      channelBySlug: async () => this.channel,
      standing: (slugs) => this.standing(slugs),
      onOnAir: ({ broadcastId, startedMs }) => {
        this.told.push(['on', broadcastId, startedMs]);
        this.hear('on air');
      },
      onOffAir: ({ broadcastId, startedMs }) => {
        this.told.push(['off', broadcastId, startedMs]);
        this.hear('off air');
      },
      onRecordingStarted: () => this.hear('recording started'),
      onRecordingEnded: (recording) => {
        this.recordings.push(recording);
        this.onRecordingEnded(recording);
        return this.written;
      },
    });
  }

  /** The next process over the same disk; this one is dead from now on, since its clock stands still. */
  after(ms: number): World {
    return new World(this.disk, new FakeClock(this.clock.wallMs() + ms));
  }

  /** Lets what was started by time passing come to its end. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }

  async pass(ms: number, step = 20): Promise<void> {
    for (let passed = 0; passed < ms; passed += step) {
      this.clock.advance(step);
      if (passed % 320 === 0) await this.settle();
    }
    await this.settle();
  }

  async connect(client = 'obs', channel: string | undefined = undefined) {
    const admission = await this.live.admit({ protocol: 'rtmp', channel, streamKey: 'key', remoteAddress: '127.0.0.1', client });
    const closed: { code: string; message: string }[] = [];
    return {
      source: admission.open('adts', {
        onDrain: () => undefined,
        onClose: (error) => {
          closed.push(error);
          this.hear('connection closed');
        },
      }),
      closed,
    };
  }

  /** A broadcaster whose clock is off by `ppm` sends for `ms`. */
  async send(source: { write(bytes: Uint8Array): boolean }, ms: number, ppm = 0): Promise<void> {
    let sent = 0;
    for (let passed = 20; passed <= ms; passed += 20) {
      this.clock.advance(20);
      const due = Math.floor(passed * 48 * (1 + ppm / 1e6));
      source.write(new Uint8Array((due - sent) * 4).fill(1));
      sent = due;
      // One turn is enough for the promises of a segment's number, which its first part waits for.
      await new Promise((resolve) => setImmediate(resolve));
    }
    await this.settle();
  }

  view() {
    const view = this.live.view('radio');
    assert.ok(view, 'the channel is off air');
    return view;
  }
}
