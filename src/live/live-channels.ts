import type { DecodableFormat, Ffmpeg } from '../backing/ffmpeg.js';
import type { ObjectStore } from '../backing/object-store/object-store.js';
import type { Registry } from '../backing/registry/registry.js';
import { LIVE_WINDOW_SEGMENTS, MIN_SEGMENTS } from '../media/hls.js';
import { LADDER } from '../media/ladder.js';
import { type Run, runOf, SAMPLES_TO_MS, segmentName } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import { apart, each } from '../runtime/each.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { Loop } from '../runtime/loop.js';
import { reportUnexpected } from '../runtime/unexpected.js';
import { withDeadline } from '../runtime/waiting.js';
import { Broadcast } from './broadcast.js';
import type { BroadcastInfo, LiveChannelInfo, LiveMetrics, MediaSettings, Recording } from './broadcast-options.js';
import type { ChannelDocument, UnwrittenRecording } from './channel-document.js';
import { DecoderStartLimits } from './decoder-starts.js';
import type { ChannelStatus, LiveEdge, LiveView } from './edge.js';
import { RENDER_STEP_MS } from './playout.js';
import type { ConnectionEvents, ConnectionInfo } from './sources.js';
import type { Uploader } from './uploader.js';
import { LiveWindow } from './window.js';

/**
 * A broadcast is resumed at most this long after its process stopped. Later it is ended at the
 * point where it broke off.
 */
const RESUME_WITHIN_MS = 10 * 60_000;
/**
 * A broadcast is not resumed when the clock at start is behind its last save by more than this: it
 * would go on before the point where it broke off.
 */
const MAX_CLOCK_BEHIND_MS = 10_000;
/**
 * After a crash, stored segments are looked for backwards until this many in a row are found: only
 * the newest segments can have been on their way to the store.
 */
const STORED_IN_A_ROW = 12;
/** When the process stops, the object store has this long to take the remaining segments. */
const DRAIN_DEADLINE_MS = 10_000;
/**
 * How often the channels of all broadcasts are checked: whether one was deleted, or its stream key
 * made void, by any process. Such a broadcast is promised to end within five seconds.
 */
const STANDING_CHECK_MS = 1000;
/**
 * At most this many recordings per channel wait to be written to a database that is unavailable for
 * days; older ones are dropped.
 */
const MAX_UNWRITTEN = 50;

export interface LiveChannelsOptions {
  readonly ffmpeg: Ffmpeg;
  readonly registry: Registry;
  readonly store: ObjectStore;
  readonly uploader: Uploader;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: LiveMetrics;
  readonly media: MediaSettings;
  /** At most this many broadcasts are on air at a time; undefined: no limit. */
  readonly maxStreams: number | undefined;
  /**
   * Resolves with the channel of a stream key, or undefined. A key that was replaced is accepted
   * while its channel is on air.
   */
  readonly verifyKey: (streamKey: string, isOnAir: (slug: string) => boolean, address: string) => Promise<LiveChannelInfo | undefined>;
  readonly channelBySlug: (slug: string) => Promise<LiveChannelInfo | undefined>;
  /**
   * Resolves with those of the given channels that still exist, by slug, and how often the key of
   * each was made void.
   */
  readonly standing: (slugs: readonly string[]) => Promise<ReadonlyMap<string, Pick<LiveChannelInfo, 'id' | 'keyVoids'>>>;
  readonly onRecordingStarted: (recording: { assetId: string; channel: LiveChannelInfo; startedMs: number; firstNumber: number }) => void;
  readonly onOnAir?: (show: BroadcastInfo) => void;
  /** Called when a broadcast has ended: not when it is held, and not when the process stops. */
  readonly onOffAir?: (show: BroadcastInfo & { readonly endedMs: number }) => void;
  /**
   * Resolves with true when the recording is in the database, with false when writing it was given
   * up. It is then passed again at the next start.
   */
  readonly onRecordingEnded: (recording: Recording) => Promise<boolean>;
}

interface ConnectionRequest extends ConnectionInfo {
  readonly channel: string | undefined;
  readonly streamKey: string;
}

/**
 * All channels that are on air in this process. It admits broadcasters, drives all playouts with
 * one timer, and gives the app the live windows. After a crash it resumes the broadcasts that the
 * registry has.
 */
export class LiveChannels implements LiveEdge {
  readonly name = 'live';
  readonly #options: LiveChannelsOptions;
  readonly #onAir = new Map<string, Broadcast>();
  /**
   * The live windows of broadcasts that have ended. Each is served for as long as its last live
   * playlist lasts.
   */
  readonly #ended = new Map<string, { view: LiveWindow; channelId: string; cancel: () => void }>();
  /** Broadcasts whose channel was deleted. They are ending, and no longer shown. */
  readonly #deleted = new WeakSet<Broadcast>();
  /** The numbers with which each channel's next broadcast begins, by slug. */
  readonly #numbers = new Map<string, { nextNumber: number; nextDiscontinuity: number }>();
  /** The PCM that all encoders of the process keep. */
  readonly #kept = { sizeBytes: 0 };
  /** Recordings that are not in the database yet, by slug. */
  readonly #unwritten = new Map<string, readonly UnwrittenRecording[]>();
  /** Ids of the recordings that the registry had at start. */
  readonly #foundAtStart = new Set<string>();
  readonly #listeners = new Set<() => void>();
  readonly #decoderStarts: DecoderStartLimits;
  #cancelTicks = () => {};
  readonly #standingChecks: Loop;
  #stopping = false;

  constructor(options: LiveChannelsOptions) {
    this.#options = options;
    this.#decoderStarts = new DecoderStartLimits(() => options.clock.monotonicMs());
    this.#standingChecks = new Loop({ clock: options.clock, periodMs: STANDING_CHECK_MS, task: () => this.#endOver() });
  }

  /** Resolves when the broadcasts of the registry are resumed or ended. */
  async start(): Promise<void> {
    for (const [slug, loaded] of await this.#options.registry.load()) {
      const document = loaded as ChannelDocument;
      for (const { assetId } of [...(document.unwritten ?? []), ...(document.onAir ? [document.onAir] : [])])
        this.#foundAtStart.add(assetId);
      try {
        await this.#restore(slug, document);
      } catch (error) {
        this.#options.log.error({ event: 'show.resume_failed', channel: slug, error: messageOf(error) }, 'could not resume a broadcast');
      }
    }
    const { clock } = this.#options;
    this.#cancelTicks = clock.every(RENDER_STEP_MS, () => each(this.#onAir.values(), (broadcast) => broadcast.tick()));
    this.#standingChecks.start();
  }

  /**
   * Suspends every broadcast at the end of its segment, so that the next process goes on without a
   * gap in the numbers.
   */
  async stop(): Promise<void> {
    this.#stopping = true;
    const checked = this.#standingChecks.stop();
    await Promise.all([...this.#onAir.values()].map((broadcast) => broadcast.suspend()));
    this.#cancelTicks();
    for (const { cancel } of this.#ended.values()) cancel();
    await withDeadline(this.#options.clock, DRAIN_DEADLINE_MS, this.#options.uploader.drained(), () =>
      this.#options.log.error(
        { event: 'store.upload_abandoned' },
        'the object store did not take the last segments; the next start marks them as missing',
      ),
    );
    await checked;
  }

  /**
   * Whether the registry had this recording at start, on air or not yet in the database. Then this
   * class takes care of its end.
   */
  knows(assetId: string): boolean {
    return this.#foundAtStart.has(assetId);
  }

  view(channel: string): LiveView | undefined {
    const broadcast = this.#onAir.get(channel);
    if (broadcast && this.#isShown(broadcast)) return broadcast.window;
    return this.#ended.get(channel)?.view;
  }

  channels(): string[] {
    return [...new Set([...this.#onAir].filter(([, broadcast]) => this.#isShown(broadcast)).map(([slug]) => slug)), ...this.#ended.keys()];
  }

  #isShown(broadcast: Broadcast): boolean {
    return broadcast.visible && !this.#deleted.has(broadcast);
  }

  /** The number of broadcasts that are on air, held ones included. */
  get streams(): number {
    return this.#onAir.size;
  }

  status(slug: string): ChannelStatus {
    const broadcast = this.#onAir.get(slug);
    if (!broadcast?.visible) return { state: 'offline', nowPlaying: undefined };
    const nowMs = this.#options.clock.wallMs();
    const nowPlaying = broadcast.window.titles.findLast((title) => title.startWallMs <= nowMs);
    const { state, channel, startedMs: startWallMs, window } = broadcast;
    return { state, title: channel.title, startWallMs, broadcastId: window.broadcastId, nowPlaying };
  }

  /**
   * Ends the broadcast of a channel. Resolves with true when the playlists are marked as ended,
   * with false when the channel is off air.
   */
  async end(slug: string, reason: string): Promise<boolean> {
    const broadcast = this.#onAir.get(slug);
    if (!broadcast) return false;
    await broadcast.end(reason);
    return true;
  }

  /**
   * Ends the broadcasts that are no longer allowed: their channel was deleted, or the stream key
   * that they began with was made void, by this process or another. A deleted channel is not shown
   * any more. Never rejects.
   */
  endOver(): Promise<void> {
    return this.#standingChecks.run();
  }

  async #endOver(): Promise<void> {
    if (this.#onAir.size === 0 && this.#ended.size === 0) return;
    const shows = [...this.#onAir];
    const ended = [...this.#ended];
    try {
      const standing = await this.#options.standing([...new Set([...shows, ...ended].map(([slug]) => slug))]);
      for (const [slug, broadcast] of shows) {
        const now = standing.get(slug);
        const reason = reasonToEnd(broadcast.channel, now);
        if (now?.id !== broadcast.channel.id && !this.#deleted.has(broadcast)) {
          this.#deleted.add(broadcast);
          this.#changed();
        }
        // Not awaited, so that a broadcast that takes long to end does not delay the others.
        if (reason !== undefined) void broadcast.end(reason);
      }
      for (const [slug, one] of ended)
        if (standing.get(slug)?.id !== one.channelId && this.#ended.get(slug) === one) {
          one.cancel();
          this.#hide(slug, one.view);
        }
    } catch (error) {
      // The database is unavailable; the next check asks again.
      this.#options.log.debug(
        { event: 'live.standing_check_failed', error: messageOf(error) },
        'could not check whether the broadcasts on air may go on',
      );
    }
  }

  /** Sets the title that is playing. Returns false when the channel is off air. */
  setTitle(slug: string, update: { title: string; artist?: string }): boolean {
    const broadcast = this.#onAir.get(slug);
    if (!broadcast?.visible) return false;
    broadcast.title(update);
    return true;
  }

  onChannels(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #changed(): void {
    each(this.#listeners, (listener) => listener());
  }

  /**
   * Admits a broadcaster by stream key, before anything is decoded. Rejects with `unauthorized`,
   * `not_found`, `displaced`, `busy` or `unavailable`. `open` begins a source; it throws `busy`,
   * `rate_limited` or `unavailable`.
   */
  async admit(request: ConnectionRequest) {
    const channel = await this.#check(request);
    const existing = this.#onAir.get(channel.slug);
    existing?.checkPublisher(request);
    this.#checkStreamLimit(existing);
    const admission = { starts: this.#decoderStarts.forConnection(channel.slug) };
    return {
      channel: channel.slug,
      open: (format: DecodableFormat, events: ConnectionEvents) => {
        // Another broadcaster may have been admitted since this one was.
        this.#checkStreamLimit(this.#onAir.get(channel.slug));
        admission.starts.take();
        const broadcast = this.#onAir.get(channel.slug) ?? this.#create(channel);
        return broadcast.connect(request, admission, format, events);
      },
    };
  }

  /** Sets a title by stream key. Rejects as `admit` does. */
  async title(request: ConnectionRequest, update: { title: string; artist?: string }): Promise<void> {
    const channel = await this.#check(request);
    if (!this.setTitle(channel.slug, update)) throw new VezaError('not_found', 'the channel is off air');
  }

  async #check(request: ConnectionRequest): Promise<LiveChannelInfo> {
    if (this.#stopping) throw new VezaError('unavailable', 'the server is stopping; try again');
    const channel = await this.#options.verifyKey(request.streamKey, (slug) => this.#onAir.has(slug), request.remoteAddress);
    // The error is the same for a valid key of another channel, so that it reveals nothing about
    // this channel.
    if (!channel || (request.channel !== undefined && request.channel !== channel.slug)) {
      throw new VezaError('unauthorized', 'the stream key is not valid for this channel');
    }
    return channel;
  }

  #checkStreamLimit(existing: Broadcast | undefined): void {
    const { maxStreams } = this.#options;
    if (!existing && maxStreams !== undefined && this.#onAir.size >= maxStreams) {
      throw new VezaError('busy', `${maxStreams} broadcasts are on air, which is the limit; try again later`);
    }
  }

  #create(channel: LiveChannelInfo, resume?: NonNullable<ChannelDocument['onAir']>): Broadcast {
    if (this.#stopping) throw new VezaError('unavailable', 'the server is stopping; try again');
    const numbers = this.#numbers.get(channel.slug) ?? { nextNumber: MIN_SEGMENTS, nextDiscontinuity: 0 };
    const ladder = resume ? LADDER.filter((rendition) => resume.renditions.includes(rendition.name)) : this.#options.media.ladder;
    const broadcast = new Broadcast(
      channel,
      { ...this.#options.media, ladder },
      {
        ...this.#options,
        kept: this.#kept,
        // An error thrown by these callbacks does not affect the broadcast.
        onOnAir: (show) => apart(() => this.#options.onOnAir?.(show)),
        onRecordingStarted: (recording) => apart(() => this.#options.onRecordingStarted(recording)),
        onRecordingEnded: (recording) => this.#recordingEnded(recording),
        unwritten: () => this.#unwritten.get(channel.slug) ?? [],
        onEnded: (ended) => this.#retire(ended),
      },
      resume ? { ...numbers, resume } : numbers,
    );
    this.#onAir.set(channel.slug, broadcast);
    // The first change of a live window is the beginning of its first run; from then on it is
    // shown.
    broadcast.window.onChange(() => this.#changed());
    return broadcast;
  }

  #retire(broadcast: Broadcast): void {
    const { slug } = broadcast.channel;
    if (this.#onAir.get(slug) === broadcast) this.#onAir.delete(slug);
    this.#numbers.set(slug, broadcast.nextNumbers);
    if (!broadcast.visible) return;
    const { window, channel } = broadcast;
    const endedMs = this.#options.clock.wallMs();
    const show = { channel, broadcastId: window.broadcastId, startedMs: broadcast.startedMs ?? endedMs };
    apart(() => this.#options.onOffAir?.({ ...show, endedMs }));
    // Saves the channel's document once more, without the recordings that were written to the
    // database meanwhile: the next process must not write them again.
    this.#saveOffAir(broadcast.channel);
    this.#ended.get(slug)?.cancel();
    this.#ended.delete(slug);
    if (this.#deleted.has(broadcast)) {
      window.close();
    } else {
      const listed = Math.min(LIVE_WINDOW_SEGMENTS, window.openNumber - window.firstNumber);
      const cancel = this.#options.clock.after(listed * window.grid.segmentSamples * SAMPLES_TO_MS, () => this.#hide(slug, window));
      this.#ended.set(slug, { view: window, channelId: channel.id, cancel });
    }
    this.#changed();
  }

  #hide(slug: string, view: LiveWindow): void {
    this.#ended.delete(slug);
    view.close();
    this.#changed();
  }

  #recordingEnded(recording: Recording): void {
    const { assetId, channel, window, from, to } = recording;
    const unwritten: UnwrittenRecording = {
      assetId,
      title: channel.title,
      recording: channel.recording,
      from,
      to,
      timeline: window.snapshot(window.openNumber),
      renditions: window.renditions.map((rendition) => rendition.name),
    };
    const before = (this.#unwritten.get(channel.slug) ?? []).filter((other) => other.assetId !== assetId);
    this.#unwritten.set(channel.slug, [...before, unwritten].slice(-MAX_UNWRITTEN));
    void this.#writeRecording(recording).then((written) => {
      if (!written) return;
      const left = (this.#unwritten.get(channel.slug) ?? []).filter((other) => other !== unwritten);
      if (left.length > 0) this.#unwritten.set(channel.slug, left);
      else this.#unwritten.delete(channel.slug);
      this.#saveOffAir(channel);
    });
  }

  /**
   * Resolves with whether the recording is in the database. After a defect it is passed again at
   * the next start, as one that was given up.
   */
  async #writeRecording(recording: Recording): Promise<boolean> {
    try {
      return await this.#options.onRecordingEnded(recording);
    } catch (error) {
      reportUnexpected(error);
      return false;
    }
  }

  /** Saves the document of a channel that is off air. On air the next segment saves it. */
  #saveOffAir(channel: LiveChannelInfo): void {
    const numbers = this.#numbers.get(channel.slug);
    if (!numbers || this.#onAir.has(channel.slug)) return;
    const unwritten = this.#unwritten.get(channel.slug) ?? [];
    const document: ChannelDocument = { version: 1, channelId: channel.id, ...numbers, unwritten };
    this.#options.registry.save(channel.slug, document).catch((error) => {
      this.#options.metrics.timelineNotDurable();
      this.#options.log.error(
        { event: 'show.numbers_not_saved', channel: channel.slug, error: messageOf(error) },
        'could not save the next segment number of a channel',
      );
    });
  }

  async #restore(slug: string, document: ChannelDocument): Promise<void> {
    if (document.version !== 1) throw new Error(`written by another version (${String(document.version)})`);
    const { nextNumber, nextDiscontinuity, onAir, unwritten = [] } = document;
    this.#numbers.set(slug, { nextNumber, nextDiscontinuity });
    if (!onAir && unwritten.length === 0) return;
    const channel = await this.#options.channelBySlug(slug);
    if (!channel || channel.id !== document.channelId) {
      await this.#options.registry.remove(slug);
      this.#numbers.delete(slug);
      return;
    }
    // All of them before the first is written, so that its success does not save the channel
    // without the others.
    this.#unwritten.set(slug, unwritten);
    if (onAir) await this.#resumeOrEnd(channel, onAir);
    for (const recording of unwritten) await this.#writeAgain(channel, recording);
  }

  /** Passes a recording again that the dead process had not written to the database. */
  async #writeAgain(channel: LiveChannelInfo, unwritten: UnwrittenRecording): Promise<void> {
    const { assetId, title, recording, from, to, timeline } = unwritten;
    const renditions = LADDER.filter((rendition) => unwritten.renditions.includes(rendition.name));
    const window = new LiveWindow(channel.slug, renditions, timeline);
    for (const { codec } of renditions) window.progress[codec] = { openNumber: timeline.openNumber, openParts: 0 };
    await this.#findMissing(window, timeline.openNumber);
    this.#recordingEnded({ assetId, channel: { ...channel, title, recording }, window, from, to });
  }

  async #resumeOrEnd(channel: LiveChannelInfo, onAir: NonNullable<ChannelDocument['onAir']>): Promise<void> {
    const { slug } = channel;
    // The process may have died between the last part of a segment and the first part of the next;
    // then the segment is stored.
    const { openNumber, runs } = onAir.timeline;
    const run = runs.at(-1);
    const finished = run !== undefined && (await this.#isStored(slug, onAir.renditions, run, openNumber));
    const broadcast = this.#create(channel, { ...onAir, clean: onAir.clean || finished });
    await this.#findMissing(broadcast.window, openNumber);
    const awayMs = this.#options.clock.wallMs() - onAir.savedMs;
    const isOver = onAir.keyVoids !== undefined && onAir.keyVoids !== channel.keyVoids;
    if (!isOver && awayMs > -MAX_CLOCK_BEHIND_MS && awayMs < RESUME_WITHIN_MS) broadcast.resume();
    else await broadcast.abandon();
  }

  /** Marks segments as gaps that were finished and not stored when the process died. */
  async #findMissing(window: LiveWindow, openNumber: number): Promise<void> {
    const names = window.renditions.map((rendition) => rendition.name);
    let inARow = 0;
    for (let number = openNumber - 1; number >= window.firstNumber && inARow < STORED_IN_A_ROW; number -= 1) {
      if (window.gaps.has(number)) continue;
      inARow += 1;
      if (await this.#isStored(window.channel, names, runOf(window, number), number)) continue;
      window.markGap(number);
      inARow = 0;
    }
  }

  async #isStored(slug: string, renditions: readonly string[], run: Run, number: number): Promise<boolean> {
    const sizes = await Promise.all(
      LADDER.filter((rendition) => renditions.includes(rendition.name)).map((rendition) =>
        this.#options.store.head(`live/${slug}/${rendition.name}/${segmentName(run.id, number, rendition.codec)}`),
      ),
    );
    return !sizes.includes(undefined);
  }
}

function reasonToEnd(began: LiveChannelInfo, now: Pick<LiveChannelInfo, 'id' | 'keyVoids'> | undefined): string | undefined {
  if (now?.id !== began.id) return 'its channel was deleted';
  return now.keyVoids === began.keyVoids ? undefined : 'its stream key was made void';
}
