import type { Queryable } from '../backing/database/database.js';
import type { ObjectStore } from '../backing/object-store/object-store.js';
import { renderVodMpd } from '../media/dash.js';
import { recordedRange, renderMultivariant, renderVod } from '../media/hls.js';
import type { Rendition } from '../media/ladder.js';
import { type MediaTimeline, SAMPLES_TO_MS, wallMsOf } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { Loop } from '../runtime/loop.js';
import { sleep } from '../runtime/waiting.js';
import type { Broadcasts } from './broadcasts.js';

const RETENTION_PERIOD_MS = 3600_000;
const RETRY_MS = 5000;
const MAX_TRIES = 60;
/** Broadcasts that are read at a time. */
const PAGE = 200;

interface RecordedChannel {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
  readonly recording: boolean;
}

export interface FinishedRecording {
  readonly assetId: string;
  readonly channel: RecordedChannel;
  readonly window: MediaTimeline & { readonly renditions: readonly Rendition[] };
  readonly from: number;
  readonly to: number;
}

export interface RecordingsOptions {
  readonly store: ObjectStore;
  readonly broadcasts: Broadcasts;
  readonly clock: Clock;
  readonly log: Log;
  /**
   * Length of the rewind window in seconds. Segments that are older and in no recording are
   * deleted.
   */
  readonly dvrWindowS: number;
  /**
   * Called once for each recording that can be played from now on, in the transaction that stores
   * its end.
   */
  readonly onReady?: (recording: ReadyRecording, connection: Queryable) => Promise<void>;
}

export interface ReadyRecording {
  readonly assetId: string;
  readonly channel: RecordedChannel;
  readonly startedAtMs: number;
  readonly durationMs: number;
}

/**
 * Keeps recordings, and deletes old segments. A recording needs no encoding: its segments are in
 * the object store when the broadcast ends, and only playlists and an MPD are written. The sweep
 * deletes segments that are older than the rewind window and in no recording.
 */
export class Recordings {
  readonly name = 'recordings';
  readonly #options: RecordingsOptions;
  readonly #sweeps: Loop;
  /** The work under way for each asset, one task after the other. */
  readonly #work = new Map<string, Promise<boolean>>();
  /** Broadcasts on air that are to be kept, by asset. The database may not know them yet. */
  readonly #open = new Map<string, { slug: string; from: number }>();
  #stopped = false;

  constructor(options: RecordingsOptions) {
    this.#options = options;
    this.#sweeps = new Loop({
      clock: options.clock,
      periodMs: RETENTION_PERIOD_MS,
      task: async () => void (await this.sweep()),
      onError: (error) => this.#fault({ event: 'recordings.sweep_failed', error }, 'could not delete old segments'),
    });
  }

  start(): void {
    this.#sweeps.start();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#sweeps.stop();
    await Promise.allSettled(this.#work.values());
  }

  started(recording: { assetId: string; channel: RecordedChannel; startedMs: number; firstNumber: number }): void {
    const { assetId, channel, startedMs, firstNumber } = recording;
    if (channel.recording) this.#open.set(assetId, { slug: channel.slug, from: firstNumber });
    void this.#enqueue(assetId, () => this.#insert(assetId, channel, startedMs, firstNumber));
  }

  /**
   * Records the end of a broadcast. Resolves to true when it is stored (or its channel is gone), to
   * false when that was given up. Calling it twice for the same recording is harmless.
   */
  async ended(recording: FinishedRecording): Promise<boolean> {
    const { assetId, channel, from } = recording;
    if (channel.recording) this.#open.set(assetId, { slug: channel.slug, from });
    const written = await this.#enqueue(assetId, () => this.#writeOrClose(recording));
    // A recording that could not be saved keeps its segments: the deletion of old segments skips them.
    if (written) this.#open.delete(assetId);
    return written;
  }

  /**
   * Deletes broadcasts that have no end and that no process looks after: their timeline was lost
   * with a process or its disk. Without a timeline they cannot be played, and they would protect
   * every later segment of their channel from the sweep.
   */
  async closeOrphans(isLookedAfter: (assetId: string) => boolean): Promise<void> {
    for (const { id, channel } of await this.#options.broadcasts.unfinished()) {
      if (isLookedAfter(id) || this.#open.has(id) || this.#work.has(id)) continue;
      this.#options.log.warn(
        { event: 'recordings.broadcast_removed', asset: id, channel },
        'a broadcast without an end and without a timeline was removed',
      );
      await this.#options.broadcasts.delete(id);
    }
  }

  #insert(id: string, channel: RecordedChannel, startedAtMs: number, firstNumber: number): Promise<void> {
    const { title, recording } = channel;
    return this.#options.broadcasts.insert({ id, channelId: channel.id, title, recording, startedAtMs, firstNumber });
  }

  /** Resolves when all work so far is done or given up. */
  async settled(): Promise<void> {
    while (this.#work.size > 0) await Promise.allSettled(this.#work.values());
  }

  /**
   * Rejects with `not_found` when the channel is gone. The segments are then closed to listeners.
   */
  async #writeOrClose(recording: FinishedRecording): Promise<void> {
    try {
      await this.#write(recording);
    } catch (error) {
      const { assetId, channel, window, from } = recording;
      // Segments after the last sound are in the object store too.
      const to = Math.max(recording.to, ...Object.values(window.progress).map(({ openNumber }) => openNumber));
      if (error instanceof VezaError && error.code === 'not_found')
        await this.#options.broadcasts.closeDeleted(assetId, { slug: channel.slug, from, to });
      throw error;
    }
  }

  async #write({ assetId, channel, window, from, to }: FinishedRecording): Promise<void> {
    const { store, broadcasts } = this.#options;
    const [reference] = window.renditions;
    const range = reference ? recordedRange(window, reference.codec, { from, to }) : { from, to: from - 1 };
    const segments = range.to - range.from + 1;
    // Inserted again, in case the database was unavailable for too long at the start.
    await this.#insert(assetId, channel, wallMsOf(window, from), from);
    if (segments <= 0) {
      // A broadcast without any sound has nothing to play, so it is not kept.
      await broadcasts.delete(assetId);
      this.#options.log.info(
        { event: 'recordings.empty', asset: assetId, channel: channel.slug },
        'the broadcast had no sound; no recording is kept',
      );
      return;
    }
    if (channel.recording) {
      const put = (path: string, text: string, type: string) => store.put(`vod/${assetId}/${path}`, Buffer.from(text), type);
      const HLS = 'application/vnd.apple.mpegurl';
      for (const rendition of window.renditions) {
        const prefix = `../../../live/${channel.slug}/${rendition.name}/`;
        await put(`${rendition.name}/index.m3u8`, renderVod(window, rendition, prefix, range), HLS);
      }
      const mpd = renderVodMpd(window, window.renditions, { ...range, uriPrefix: `../../live/${channel.slug}/` });
      await put('manifest.mpd', mpd, 'application/dash+xml');
      // Written last, so that a player that finds it finds all files that it names.
      await put('master.m3u8', renderMultivariant(window.renditions), HLS);
    }
    const durationMs = segments * window.grid.segmentSamples * SAMPLES_TO_MS;
    const end = {
      endedAtMs: wallMsOf(window, range.to) + window.grid.segmentSamples * SAMPLES_TO_MS,
      durationMs,
      lastNumber: range.to,
    };
    const ready = { assetId, channel, startedAtMs: wallMsOf(window, range.from), durationMs };
    await broadcasts.end(assetId, end, async (connection) => {
      if (channel.recording) await this.#options.onReady?.(ready, connection);
    });
    this.#options.log.info(
      { event: 'recordings.ready', asset: assetId, channel: channel.slug, durationMs, kept: channel.recording },
      'a recording is ready',
    );
  }

  /**
   * Deletes segments that no listener can ask for any more. Resolves to the number of deleted
   * objects.
   */
  async sweep(): Promise<number> {
    const { kept, assets } = await this.#keptNumbers();
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
    for await (const { key, modifiedMs } of this.#options.store.list('vod/')) {
      const asset = key.split('/')[1] ?? '';
      // Files of a recording that is being written may have no row yet, but they are younger than
      // this.
      if (!assets.has(asset) && !this.#open.has(asset) && modifiedMs < this.#options.clock.wallMs() - RETENTION_PERIOD_MS) gone.push(key);
    }
    await this.#options.store.delete(gone);
    count += gone.length;
    if (count > 0) this.#options.log.info({ event: 'recordings.segments_deleted', objects: count }, 'old segments were deleted');
    return count;
  }

  /**
   * The ranges of segment numbers, by slug, that belong to kept recordings or to broadcasts without
   * a known end.
   */
  async #keptNumbers(): Promise<{ kept: Map<string, { from: number; to: number }[]>; assets: Set<string> }> {
    const kept = new Map<string, { from: number; to: number }[]>();
    const assets = new Set<string>();
    for (const { slug, from } of this.#open.values()) kept.set(slug, [...(kept.get(slug) ?? []), { from, to: Number.POSITIVE_INFINITY }]);
    let after: { startedAtMs: number; id: string } | undefined;
    for (;;) {
      const page = await this.#options.broadcasts.list(after ? { after } : {}, PAGE);
      for (const broadcast of page) {
        if (!broadcast.recording) continue;
        assets.add(broadcast.id);
        const ranges = kept.get(broadcast.channel) ?? [];
        ranges.push({ from: broadcast.firstNumber, to: broadcast.lastNumber ?? Number.POSITIVE_INFINITY });
        kept.set(broadcast.channel, ranges);
      }
      const last = page.at(-1);
      if (!last || page.length < PAGE) return { kept, assets };
      after = { startedAtMs: last.startedAtMs, id: last.id };
    }
  }

  /**
   * Runs a task after the asset's earlier tasks. The database or the store may be unavailable for
   * some time, so a task that fails is repeated for five minutes. Resolves to false when the task
   * was given up. Never rejects.
   */
  #enqueue(assetId: string, task: () => Promise<void>): Promise<boolean> {
    const before = this.#work.get(assetId) ?? Promise.resolve(true);
    const work = before.then(async () => {
      for (let attempt = 1; ; attempt += 1) {
        try {
          await task();
          return true;
        } catch (error) {
          if (error instanceof VezaError && error.code === 'not_found') {
            this.#options.log.info({ event: 'recordings.channel_gone', asset: assetId }, 'a recording was deleted with its channel');
            this.#open.delete(assetId);
            return true;
          }
          if (attempt >= MAX_TRIES || this.#stopped) {
            this.#fault({ event: 'recordings.given_up', error, assetId }, 'could not save a recording');
            return false;
          }
          if (attempt === 1) this.#fault({ event: 'recordings.save_failed', error, assetId }, 'could not save a recording; will try again');
          await sleep(this.#options.clock, RETRY_MS);
        }
      }
    });
    this.#work.set(assetId, work);
    void work.then(() => {
      if (this.#work.get(assetId) === work) this.#work.delete(assetId);
    });
    return work;
  }

  #fault({ event, error, assetId }: { event: string; error: unknown; assetId?: string }, message: string): void {
    this.#options.log.error({ event, ...(assetId === undefined ? {} : { asset: assetId }), error: messageOf(error) }, message);
  }
}
