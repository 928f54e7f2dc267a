import type { DecodableFormat, Ffmpeg } from '../backing/ffmpeg.js';
import type { ObjectStore } from '../backing/object-store/object-store.js';
import type { Registry } from '../backing/registry/registry.js';
import { LIVE_WINDOW_SEGMENTS, MIN_SEGMENTS } from '../media/hls.js';
import { LADDER } from '../media/ladder.js';
import { type Run, runOf, SAMPLES_TO_MS, segmentName } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import { withDeadline } from '../runtime/deadline.js';
import { apart, each } from '../runtime/each.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { Loop } from '../runtime/loop.js';
import { reportUnexpected } from '../runtime/unexpected.js';
import { Broadcast } from './broadcast.js';
import type { ChannelInfo, LiveMetrics, MediaSettings, Recording, Show } from './broadcast-options.js';
import type { ChannelDocument, UnwrittenRecording } from './channel-document.js';
import { DecoderStartLimits } from './decoder-starts.js';
import type { ChannelStatus, LiveEdge, LiveView } from './edge.js';
import { RENDER_STEP_MS } from './playout.js';
import type { ConnectionEvents, ConnectionInfo } from './sources.js';
import type { Uploader } from './uploader.js';
import { LiveWindow } from './window.js';

/** A server that was away longer than this does not go on with the show; it ends it where it broke off. */
const RESUME_WITHIN_MS = 10 * 60_000;
/** A clock that is behind by more than this when the process starts would have the show go on before it broke off. */
const MAX_CLOCK_BEHIND_MS = 10_000;
/** After a crash segments are looked for in the store, backwards, until so many in a row are there: what was on its way is newer. */
const STORED_IN_A_ROW = 12;
/** How long the end of the process waits for a store that does not take what is left. */
const DRAIN_DEADLINE_MS = 10_000;
/** How soon a show is ended whose channel was deleted, or whose key was made void, by whatever process; five seconds are promised. */
const STANDING_CHECK_MS = 1000;
/** Recordings of a channel that a database away for days may leave to be written down later. */
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
  /** Streams at one time; undefined: no limit. */
  readonly maxStreams: number | undefined;
  /** Whose key it is, or undefined. An old key is good while `isOnAir`. */
  readonly verifyKey: (streamKey: string, isOnAir: (slug: string) => boolean, address: string) => Promise<ChannelInfo | undefined>;
  readonly channelBySlug: (slug: string) => Promise<ChannelInfo | undefined>;
  /** Of channels that are on air, by slug: which are there still, and how often the key of each was made void. */
  readonly standing: (slugs: readonly string[]) => Promise<ReadonlyMap<string, Pick<ChannelInfo, 'id' | 'keyVoids'>>>;
  readonly onRecordingStarted: (recording: { assetId: string; channel: ChannelInfo; startedMs: number; firstNumber: number }) => void;
  readonly onOnAir?: (show: Show) => void;
  /** The end is told. A broadcaster who is waited for, or a process that stops, is no end. */
  readonly onOffAir?: (show: Show & { readonly endedMs: number }) => void;
  /** Resolves to true when it is written down, false when that was given up; it is brought again at the next start. */
  readonly onRecordingEnded: (recording: Recording) => Promise<boolean>;
}

interface PublishRequest extends ConnectionInfo {
  readonly channel: string | undefined;
  readonly streamKey: string;
}

/**
 * Every channel that is on air in this process. It admits publishers, drives all playouts with one tick, and shows the windows
 * to the app. After a crash it goes on with what the registry says was on air.
 */
export class LiveChannels implements LiveEdge {
  readonly name = 'live';
  readonly #options: LiveChannelsOptions;
  readonly #onAir = new Map<string, Broadcast>();
  /** Windows of broadcasts that have ended, shown for their own duration. */
  readonly #ended = new Map<string, { view: LiveWindow; channelId: string; cancel: () => void }>();
  /** Broadcasts whose channel was deleted: they end, and are shown to nobody meanwhile. */
  readonly #deleted = new WeakSet<Broadcast>();
  /** Where each channel's numbers go on. */
  readonly #numbers = new Map<string, { nextNumber: number; nextDiscontinuity: number }>();
  /** Recordings by slug that are not written down yet. */
  readonly #kept = { sizeBytes: 0 };
  readonly #unwritten = new Map<string, readonly UnwrittenRecording[]>();
  /** Assets that the registry knew at start. */
  readonly #found = new Set<string>();
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

  /** Ready once resumed shows are back on air. */
  async start(): Promise<void> {
    for (const [slug, loaded] of await this.#options.registry.load()) {
      const document = loaded as ChannelDocument;
      for (const { assetId } of [...(document.unwritten ?? []), ...(document.onAir ? [document.onAir] : [])]) this.#found.add(assetId);
      try {
        await this.#restore(slug, document);
      } catch (error) {
        this.#options.log.error({ event: 'show.resume_failed', channel: slug, error: messageOf(error) }, 'could not resume a show');
      }
    }
    const { clock } = this.#options;
    this.#cancelTicks = clock.every(RENDER_STEP_MS, () => each(this.#onAir.values(), (broadcast) => broadcast.tick()));
    this.#standingChecks.start();
  }

  /** Every show finishes its segment, so that the next process goes on without a gap in the numbers. */
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

  /** Whether a recording was on air here, or not written down yet, when the process began: its end is seen to. */
  knows(assetId: string): boolean {
    return this.#found.has(assetId);
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

  /** Broadcasts that are on air (or held) now. */
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

  /** Ends a channel's broadcast; resolves when that is told to the listeners. False when it is off air. */
  async end(slug: string, reason: string): Promise<boolean> {
    const broadcast = this.#onAir.get(slug);
    if (!broadcast) return false;
    await broadcast.end(reason);
    return true;
  }

  /**
   * Ends the shows whose right to be on air is over: the channel was deleted, or the key that they began with was made void, by this process or
   * another. Of a deleted channel nothing is shown any more. Never rejects.
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
        const reason = whyOver(broadcast.channel, now);
        if (now?.id !== broadcast.channel.id && !this.#deleted.has(broadcast)) {
          this.#deleted.add(broadcast);
          this.#changed();
        }
        // Not awaited: one that takes its time to end does not keep the others on air.
        if (reason !== undefined) void broadcast.end(reason);
      }
      for (const [slug, one] of ended)
        if (standing.get(slug)?.id !== one.channelId && this.#ended.get(slug) === one) {
          one.cancel();
          this.#hide(slug, one.view);
        }
    } catch (error) {
      // The database is away; it is asked again.
      this.#options.log.debug({ event: 'live.standing_check_failed', error: messageOf(error) }, 'could not check the shows on air');
    }
  }

  /** False when the channel is off air. */
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

  /** Checks the key; nothing is decoded before. Rejects with `unauthorized`, `not_found`, `displaced`, `busy`, `unavailable`. */
  async admit(request: PublishRequest) {
    const channel = await this.#check(request);
    const existing = this.#onAir.get(channel.slug);
    existing?.checkPublisher(request);
    this.#checkRoom(existing);
    const admission = { starts: this.#decoderStarts.forConnection(channel.slug) };
    return {
      channel: channel.slug,
      open: (format: DecodableFormat, events: ConnectionEvents) => {
        // Others may have been let in since.
        this.#checkRoom(this.#onAir.get(channel.slug));
        admission.starts.take();
        const broadcast = this.#onAir.get(channel.slug) ?? this.#create(channel);
        return broadcast.connect(request, admission, format, events);
      },
    };
  }

  /** A title by key. Rejects as `admit` does. */
  async title(request: PublishRequest, update: { title: string; artist?: string }): Promise<void> {
    const channel = await this.#check(request);
    if (!this.setTitle(channel.slug, update)) throw new VezaError('not_found', 'the channel is off air');
  }

  async #check(request: PublishRequest): Promise<ChannelInfo> {
    if (this.#stopping) throw new VezaError('unavailable', 'the server is stopping; try again');
    const channel = await this.#options.verifyKey(request.streamKey, (slug) => this.#onAir.has(slug), request.remoteAddress);
    // A good key at another channel's address tells nothing about that channel.
    if (!channel || (request.channel !== undefined && request.channel !== channel.slug)) {
      throw new VezaError('unauthorized', 'the stream key is not right for this channel');
    }
    return channel;
  }

  #checkRoom(existing: Broadcast | undefined): void {
    const { maxStreams } = this.#options;
    if (!existing && maxStreams !== undefined && this.#onAir.size >= maxStreams) {
      throw new VezaError('busy', `${maxStreams} streams are on air, which is the limit here`);
    }
  }

  #create(channel: ChannelInfo, resume?: NonNullable<ChannelDocument['onAir']>): Broadcast {
    if (this.#stopping) throw new VezaError('unavailable', 'the server is stopping; try again');
    const numbers = this.#numbers.get(channel.slug) ?? { nextNumber: MIN_SEGMENTS, nextDiscontinuity: 0 };
    const ladder = resume ? LADDER.filter((rendition) => resume.renditions.includes(rendition.name)) : this.#options.media.ladder;
    const broadcast = new Broadcast(
      channel,
      { ...this.#options.media, ladder },
      {
        ...this.#options,
        kept: this.#kept,
        // What those who are told throw is theirs: the show goes on, and ends, without them.
        onOnAir: (show) => apart(() => this.#options.onOnAir?.(show)),
        onRecordingStarted: (recording) => apart(() => this.#options.onRecordingStarted(recording)),
        onRecordingEnded: (recording) => this.#recordingEnded(recording),
        unwritten: () => this.#unwritten.get(channel.slug) ?? [],
        onEnded: (ended) => this.#retire(ended),
      },
      resume ? { ...numbers, resume } : numbers,
    );
    this.#onAir.set(channel.slug, broadcast);
    // The first change of a window is that its first run begins, and it can be seen.
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
    // What was written down in the meantime must not be brought again.
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
    void this.#bring(recording).then((written) => {
      if (!written) return;
      const left = (this.#unwritten.get(channel.slug) ?? []).filter((other) => other !== unwritten);
      if (left.length > 0) this.#unwritten.set(channel.slug, left);
      else this.#unwritten.delete(channel.slug);
      this.#saveOffAir(channel);
    });
  }

  /** Whether it is written down. One whose writing met a defect is brought again at the next start, as one that was given up. */
  async #bring(recording: Recording): Promise<boolean> {
    try {
      return await this.#options.onRecordingEnded(recording);
    } catch (error) {
      reportUnexpected(error);
      return false;
    }
  }

  /** On air the next segment does it. */
  #saveOffAir(channel: ChannelInfo): void {
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
    // All at once, so that one that is written down does not save the channel without the others.
    this.#unwritten.set(slug, unwritten);
    if (onAir) await this.#goOn(channel, onAir);
    for (const recording of unwritten) await this.#bringAgain(channel, recording);
  }

  /** A recording that the dead process had not written down. */
  async #bringAgain(channel: ChannelInfo, unwritten: UnwrittenRecording): Promise<void> {
    const { assetId, title, recording, from, to, timeline } = unwritten;
    const renditions = LADDER.filter((rendition) => unwritten.renditions.includes(rendition.name));
    const window = new LiveWindow(channel.slug, renditions, timeline);
    for (const { codec } of renditions) window.progress[codec] = { openNumber: timeline.openNumber, openParts: 0 };
    await this.#findMissing(window, timeline.openNumber);
    this.#recordingEnded({ assetId, channel: { ...channel, title, recording }, window, from, to });
  }

  async #goOn(channel: ChannelInfo, onAir: NonNullable<ChannelDocument['onAir']>): Promise<void> {
    const { slug } = channel;
    // It may have died between the last part of a segment and the first of the next.
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

  /** What was finished but not stored when the process died is missing now. */
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

function whyOver(began: ChannelInfo, now: Pick<ChannelInfo, 'id' | 'keyVoids'> | undefined): string | undefined {
  if (now?.id !== began.id) return 'its channel was deleted';
  return now.keyVoids === began.keyVoids ? undefined : 'its stream key was made void';
}
