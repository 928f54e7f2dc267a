import type { ObjectStore } from '../backing/object-store.js';
import { renderVodMpd } from '../media/dash.js';
import { recordedRange, renderMultivariant, renderVod } from '../media/hls.js';
import type { Rendition } from '../media/ladder.js';
import { SAMPLES_TO_MS, type Timeline, wallMsOf } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import type { Broadcasts } from './broadcasts.js';

const RETENTION_PERIOD_MS = 3600_000;
const RETRY_MS = 5000;
const MAX_TRIES = 60;
/** A page of broadcasts read at a time. */
const PAGE = 200;

interface ChannelInfo {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
  readonly recording: boolean;
}

export interface FinishedRecording {
  readonly assetId: string;
  readonly channel: ChannelInfo;
  readonly window: Timeline & { readonly renditions: readonly Rendition[] };
  readonly from: number;
  readonly to: number;
}

export interface RecordingsOptions {
  readonly store: ObjectStore;
  readonly broadcasts: Broadcasts;
  readonly clock: Clock;
  readonly log: Log;
  /** How far back live rewind reaches, seconds: what is older and in no recording is deleted. */
  readonly dvrWindowS: number;
}

/**
 * Recordings need no work: their segments are in the store when the show ends, and a playlist and an MPD over them are all that
 * is written. And the sweep: segments that are older than the rewind window and in no recording are deleted.
 */
export class Recordings {
  readonly name = 'recordings';
  readonly #options: RecordingsOptions;
  #cancel: (() => void) | undefined;
  /** What is under way, one thing after the other for each asset. */
  readonly #work = new Map<string, Promise<void>>();
  #stopped = false;

  constructor(options: RecordingsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#cancel = this.#options.clock.every(
      RETENTION_PERIOD_MS,
      () => void this.sweep().catch((error) => this.#fault(error, 'the sweep of old segments failed')),
    );
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel?.();
    await Promise.allSettled(this.#work.values());
  }

  started(recording: { assetId: string; channel: ChannelInfo; startedMs: number; firstNumber: number }): void {
    const { assetId, channel, startedMs, firstNumber } = recording;
    this.#enqueue(assetId, () =>
      this.#options.broadcasts.insert({
        id: assetId,
        channelId: channel.id,
        title: channel.title,
        recording: channel.recording,
        startedAtMs: startedMs,
        firstNumber,
      }),
    );
  }

  ended(recording: FinishedRecording): void {
    this.#enqueue(recording.assetId, () => this.#write(recording));
  }

  /** Resolves when everything asked so far is done (or given up). */
  async settled(): Promise<void> {
    while (this.#work.size > 0) await Promise.allSettled(this.#work.values());
  }

  async #write({ assetId, channel, window, from, to }: FinishedRecording): Promise<void> {
    const { store, broadcasts, clock } = this.#options;
    const [reference] = window.renditions;
    const range = reference ? recordedRange(window, reference.codec, { from, to }) : { from, to: from - 1 };
    const segments = range.to - range.from + 1;
    if (channel.recording && segments > 0) {
      const put = (path: string, text: string, type: string) => store.put(`vod/${assetId}/${path}`, Buffer.from(text), type);
      const HLS = 'application/vnd.apple.mpegurl';
      for (const rendition of window.renditions) {
        const prefix = `../../../live/${channel.slug}/${rendition.name}/`;
        await put(`${rendition.name}/index.m3u8`, renderVod(window, rendition, prefix, range), HLS);
      }
      const mpd = renderVodMpd(window, window.renditions, { ...range, uriPrefix: `../../live/${channel.slug}/` });
      await put('manifest.mpd', mpd, 'application/dash+xml');
      // Last: who finds it finds everything.
      await put('master.m3u8', renderMultivariant(window.renditions), HLS);
    }
    const durationMs = Math.max(0, segments) * window.grid.segmentSamples * SAMPLES_TO_MS;
    await broadcasts.end(assetId, {
      endedAtMs: segments > 0 ? wallMsOf(window, range.to) + window.grid.segmentSamples * SAMPLES_TO_MS : clock.wallMs(),
      durationMs,
      lastNumber: Math.max(range.to, from - 1),
    });
    this.#options.log.info({ asset: assetId, channel: channel.slug, durationMs, kept: channel.recording }, 'a recording is ready');
  }

  /** Deletes segments that nobody can ask for any more. Returns how many objects went. */
  async sweep(): Promise<number> {
    const kept = await this.#keptNumbers();
    const oldestMs = this.#options.clock.wallMs() - this.#options.dvrWindowS * 1000;
    const runsInUse = new Set<string>();
    const inits: { key: string; run: string; modifiedMs: number }[] = [];
    let gone: string[] = [];
    let count = 0;
    for await (const { key, modifiedMs } of this.#options.store.list('live/')) {
      const match = /^live\/([^/]+)\/[^/]+\/([0-9a-z]+)-(?:(\d+)\.[a-z0-9]+|init\.mp4)$/.exec(key);
      if (!match) continue;
      const [, slug = '', run = '', number] = match;
      if (number === undefined) {
        inits.push({ key, run: `${slug}/${run}`, modifiedMs });
        continue;
      }
      const ranges = kept.get(slug) ?? [];
      const inRecording = ranges.some((range) => Number(number) >= range.from && Number(number) <= range.to);
      if (inRecording || modifiedMs > oldestMs) {
        runsInUse.add(`${slug}/${run}`);
        continue;
      }
      gone.push(key);
      if (gone.length >= 1000) {
        await this.#options.store.delete(gone);
        count += gone.length;
        gone = [];
      }
    }
    for (const init of inits) if (!runsInUse.has(init.run) && init.modifiedMs < oldestMs) gone.push(init.key);
    await this.#options.store.delete(gone);
    count += gone.length;
    if (count > 0) this.#options.log.info({ objects: count }, 'old segments are deleted');
    return count;
  }

  /** By slug: what belongs to recordings that are kept, or to a show whose end is not known yet. */
  async #keptNumbers(): Promise<Map<string, { from: number; to: number }[]>> {
    const kept = new Map<string, { from: number; to: number }[]>();
    let after: { startedAtMs: number; id: string } | undefined;
    for (;;) {
      const page = await this.#options.broadcasts.list(after ? { after } : {}, PAGE);
      for (const broadcast of page) {
        if (!broadcast.recording) continue;
        const ranges = kept.get(broadcast.channel) ?? [];
        ranges.push({ from: broadcast.firstNumber, to: broadcast.lastNumber ?? Number.POSITIVE_INFINITY });
        kept.set(broadcast.channel, ranges);
      }
      const last = page.at(-1);
      if (!last || page.length < PAGE) return kept;
      after = { startedAtMs: last.startedAtMs, id: last.id };
    }
  }

  /** The database or the store may be away for a while: tried again until it is done, five minutes long. */
  #enqueue(assetId: string, task: () => Promise<void>): void {
    const before = this.#work.get(assetId) ?? Promise.resolve();
    const work = before.then(async () => {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await task();
        } catch (error) {
          if (attempt >= MAX_TRIES || this.#stopped) {
            this.#fault(error, 'a recording could not be written down', assetId);
            return;
          }
          if (attempt === 1) this.#fault(error, 'a recording cannot be written down now; it is tried again', assetId);
          await new Promise<void>((resolve) => this.#options.clock.after(RETRY_MS, resolve));
        }
      }
    });
    this.#work.set(assetId, work);
    void work.then(() => {
      if (this.#work.get(assetId) === work) this.#work.delete(assetId);
    });
  }

  #fault(error: unknown, message: string, asset?: string): void {
    this.#options.log.error({ ...(asset === undefined ? {} : { asset }), error: messageOf(error) }, message);
  }
}
