import { randomBytes } from 'node:crypto';
import type { DecodableFormat, Ffmpeg } from '../backing/ffmpeg.js';
import type { Registry } from '../backing/registry/registry.js';
import { initSegment } from '../media/cmaf.js';
import { CHANNELS, type Codec, FRAME_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { initName, makeGrid, type Run, segmentName, wallMsOf } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { sleep } from '../runtime/sleep.js';
import { reportUnexpected } from '../runtime/unexpected.js';
import { type KeptPcm, RunEncoder } from './encoder.js';
import { Packager } from './packager.js';
import { BLOCK_SAMPLES, Playout, type PlayoutSource, RENDER_STEP_MS } from './playout.js';
import {
  type ConnectedSource,
  type ConnectionAdmission,
  type ConnectionEvents,
  type ConnectionInfo,
  type SourceEnd,
  Sources,
} from './sources.js';
import type { Uploader } from './uploader.js';
import { LiveWindow, type TimelineSnapshot } from './window.js';

/** After OBS's Stop the broadcast is held this long, in case it was only a change of settings. */
const FINISHED_WINDOW_S = 5;
/** How long listing a segment waits for its number to be durable; beyond, the stream goes on and the fault is named. */
const RESERVE_DEADLINE_MS = 250;
/**
 * At the end of a show nobody listens to what comes late, but the recording has it: an encoder on a busy machine is waited for while it gives
 * frames. One that gives none for this time is replaced once; when the next gives none either, the end is given up.
 */
const FLUSH_STALL_MS = 15_000;
/** A channel cannot begin its next show before its encoder is done: given up after this in any case. */
const FLUSH_DEADLINE_MS = 120_000;
/** The same when the process ends, which is ended by force after SHUTDOWN_TIMEOUT_S. */
const SUSPEND_FLUSH_DEADLINE_MS = 10_000;
/** How often the encoder's progress is looked at. */
const FLUSH_LOOK_MS = 1000;
/** From a source's first sound to its being put on, at most: a source that is followed is looked at for a second, and may fill up to two. */
const FIRST_SOUND_MS = 3000;
/** A process that ends plays what ended sources have left for at most this time. */
const PLAY_OUT_DEADLINE_MS = 10_000;
/** A disk that does not answer must not keep the channel from its next show. */
const SAVE_DEADLINE_MS = 5000;
/** A process that slept longer than this does not make up for it: what it would encode nobody waits for. */
const MAX_CATCH_UP_MS = 10_000;
/** What is missing is waited for this long before fill takes its place, or three quarters of a part where that is less. */
const PATIENCE_MS = 120;

export interface ChannelInfo {
  readonly id: string;
  readonly slug: string;
  readonly title: string;
  readonly recording: boolean;
  /** How often a stream key of it was made void. A show that began with another number is over. */
  readonly keyVoids: number;
}

export interface MediaSettings {
  readonly segmentMs: number;
  readonly partMs: number;
  readonly reconnectWindowS: number;
  readonly recordingMaxH: number;
  readonly ladder: readonly Rendition[];
}

export interface LiveMetrics {
  partPublishDelaySeconds(seconds: number): void;
  ingestBytes(channel: string, bytes: number): void;
  cut(removedMs: number): void;
  decoderRestarted(): void;
  encoderRestarted(): void;
  timelineNotDurable(): void;
  /** The encoder did not deliver the end of a show. */
  endLost(): void;
  /** The encoder is behind real time. */
  encoderLagging(): void;
  /** Sound that no encoder delivered before it was given up. */
  encodedLost(seconds: number): void;
}

/** What is on air, or was until now. */
export interface Show {
  readonly channel: ChannelInfo;
  readonly broadcastId: string;
  readonly startedMs: number;
}

/** One recording: a stretch of a broadcast's segments. */
export interface Recording {
  readonly assetId: string;
  readonly channel: ChannelInfo;
  readonly window: LiveWindow;
  readonly from: number;
  /** Inclusive; below `from` when nothing was heard. */
  readonly to: number;
}

export interface BroadcastDeps {
  readonly ffmpeg: Ffmpeg;
  readonly registry: Registry;
  readonly uploader: Uploader;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: LiveMetrics;
  /** Of all encoders of the process. */
  readonly kept: KeptPcm;
  /** Listeners hear it from now on; not again when another process goes on with it. */
  readonly onOnAir?: ((show: Show) => void) | undefined;
  /** A recording begins: on the first call, the broadcast itself. */
  readonly onRecordingStarted: (recording: { assetId: string; channel: ChannelInfo; startedMs: number; firstNumber: number }) => void;
  /** Every rendition of it is complete. */
  readonly onRecordingEnded: (recording: Recording) => void;
  /** Of this channel, with those that `onRecordingEnded` was just told of. */
  readonly unwritten: () => readonly UnwrittenRecording[];
  /** The last segment is out and the end is told; the window is shown for a while yet. */
  readonly onEnded: (broadcast: Broadcast) => void;
}

/** A recording that is not written down yet: enough to do it in another process, should this one die first. */
export interface UnwrittenRecording {
  readonly assetId: string;
  readonly title: string;
  readonly recording: boolean;
  readonly from: number;
  readonly to: number;
  /** Its `openNumber` is the first that was not finished. */
  readonly timeline: TimelineSnapshot;
  readonly renditions: readonly string[];
}

/** The document in the registry. `numbers` go on for the channel's life, whatever becomes of broadcasts. */
export interface ChannelDocument {
  readonly version: 1;
  readonly channelId: string;
  readonly nextNumber: number;
  readonly nextDiscontinuity: number;
  readonly unwritten?: readonly UnwrittenRecording[];
  readonly onAir?: {
    readonly timeline: TimelineSnapshot;
    readonly renditions: readonly string[];
    readonly assetId: string;
    readonly assetFrom: number;
    readonly lastSound: number;
    /** The process ended in order: every number below `nextNumber` is finished. */
    readonly clean: boolean;
    readonly savedMs: number;
    /** Of the channel, when the show began. Unset: written by an earlier version. */
    readonly keyVoids?: number;
  };
}

/**
 * Modes, changed in `#enter` alone:
 *   waiting   the first source is being decoded; nobody sees anything yet, and if it fails nobody will.
 *   live      a source is on air.
 *   holding   there is none; fill plays until one comes or the time is up.
 *   ending    plays to the end of the segment, then flushes the encoder.
 *   ended     the end is told.
 */
type Mode = 'waiting' | 'live' | 'holding' | 'ending' | 'ended';

/** One broadcast: from the first publisher's first byte to the end that is told to the listeners. */
export class Broadcast {
  readonly channel: ChannelInfo;
  readonly window: LiveWindow;
  readonly #deps: BroadcastDeps;
  readonly #settings: MediaSettings;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #playout = new Playout();
  readonly #sources: Sources;
  #mode: Mode = 'waiting';
  #deadline: (() => void) | undefined;
  #encoder: RunEncoder | undefined;
  #packager: Packager | undefined;
  /** How far the playout may be behind the clock while it waits for sound that is late. */
  readonly #patienceSamples: number;
  /** `playout.rendered` when the run began. */
  #runBase = 0;
  #endAt = Number.POSITIVE_INFINITY;
  #reserved: number;
  #nextDiscontinuity: number;
  #assetId: string;
  #assetFrom: number;
  #lastSound: number;
  #finishing: Promise<void> | undefined;
  #suspended = false;
  #processEnds = false;
  /** Announced before anything was heard; shown with the first sound. */
  /** Of sources that ended before anything could be seen: called when the show begins, or is over without a beginning. */
  readonly #begun: (() => void)[] = [];
  #firstTitle: { title: string; artist?: string } | undefined;
  #tellOver = () => {};
  readonly #over = new Promise<void>((resolve) => {
    this.#tellOver = resolve;
  });

  /** A new broadcast, or with `resume` one whose process is gone. `start` puts it on air. */
  constructor(
    channel: ChannelInfo,
    settings: MediaSettings,
    deps: BroadcastDeps,
    from: { nextNumber: number; nextDiscontinuity: number; resume?: NonNullable<ChannelDocument['onAir']> },
  ) {
    this.channel = channel;
    this.#deps = deps;
    this.#settings = settings;
    this.#patienceSamples = ((RENDER_STEP_MS + Math.min(PATIENCE_MS, settings.partMs * 0.75)) * SAMPLE_RATE_HZ) / 1000;
    this.#clock = deps.clock;
    const { resume } = from;
    const broadcastId = resume?.timeline.broadcastId ?? randomId(12);
    this.#log = deps.log.child({ channel: channel.slug, broadcast: broadcastId });
    this.window = new LiveWindow(
      channel.slug,
      settings.ladder,
      resume?.timeline ?? {
        broadcastId,
        grid: makeGrid(settings.segmentMs, settings.partMs),
        firstNumber: from.nextNumber,
        runs: [],
        gaps: [],
        titles: [],
      },
    );
    this.#sources = new Sources({
      playout: this.#playout,
      ffmpeg: deps.ffmpeg,
      clock: deps.clock,
      log: this.#log,
      metrics: deps.metrics,
      channel: channel.slug,
      onAir: () => this.#enter('live'),
      onGone: (how) => this.#sourceGone(how),
      onTitle: (update, source) => this.title(update, source),
    });
    this.#reserved = from.nextNumber - 1;
    this.#nextDiscontinuity = from.nextDiscontinuity;
    this.#assetId = resume?.assetId ?? broadcastId;
    this.#assetFrom = resume?.assetFrom ?? from.nextNumber;
    this.#lastSound = resume?.lastSound ?? from.nextNumber - 1;
    if (resume) {
      // What was open when the process died was never finished; the window learns of it as a gap when the run begins.
      for (const rendition of settings.ladder) {
        this.window.progress[rendition.codec] = { openNumber: resume.clean ? from.nextNumber : resume.timeline.openNumber, openParts: 0 };
      }
    }
  }

  get state(): 'live' | 'holding' {
    return this.#mode === 'live' ? 'live' : 'holding';
  }

  /** Whether listeners can see it. */
  get visible(): boolean {
    return this.window.runs.length > 0;
  }

  /** Wall-clock milliseconds at which it went on air. */
  get startedMs(): number | undefined {
    return this.window.runs[0]?.startWallMs;
  }

  /** Goes on with a broadcast whose process is gone: fill plays until its broadcaster is back. */
  resume(): void {
    this.#beginRun();
    this.#enter('holding', this.#settings.reconnectWindowS);
    // Harmless when it is known already; the dead process may not have come to it.
    this.#recordingStarted(wallMsOf(this.window, this.#assetFrom));
    this.#log.info({ number: this.window.run.firstNumber }, 'back on air after a restart');
  }

  /** It is too late to go on: ends it where the dead process left it. */
  async abandon(): Promise<void> {
    this.#log.info({}, 'the show broke off when the server died; it ends there');
    this.window.giveUpBelow(this.#reserved + 1);
    await this.#tellEnd();
  }

  /** Where the channel's next broadcast goes on. */
  get nextNumbers(): { nextNumber: number; nextDiscontinuity: number } {
    return { nextNumber: this.#reserved + 1, nextDiscontinuity: this.#nextDiscontinuity };
  }

  #goOnAir(): void {
    this.#beginRun();
    this.#enter('live');
    if (this.#firstTitle) this.window.addTitle({ id: randomId(8), startWallMs: this.window.run.startWallMs, ...this.#firstTitle });
    const startedMs = this.window.run.startWallMs;
    this.#recordingStarted(startedMs);
    this.#deps.onOnAir?.({ channel: this.channel, broadcastId: this.window.broadcastId, startedMs });
    this.#log.info({ number: this.window.run.firstNumber }, 'on air');
  }

  /** Throws `displaced` for one that would throw out the publisher that threw it out. */
  checkPublisher(info: ConnectionInfo): void {
    this.#sources.check(info);
  }

  /** A source that is put on as soon as it can be heard. */
  connect(info: ConnectionInfo, admission: ConnectionAdmission, format: DecodableFormat, events: ConnectionEvents): BroadcastSource {
    if (this.#mode === 'ending' || this.#mode === 'ended') throw new VezaError('unavailable', 'the show is ending; try again');
    const source = this.#sources.connect(info, admission, format, events);
    return {
      write: source.write,
      title: source.title,
      end: (how) => {
        source.end(how);
        if (this.#mode !== 'waiting') return undefined;
        return new Promise((resolve) => this.#begun.push(resolve));
      },
    };
  }

  /** A title is shown when it is heard: it begins behind what is waiting in the source's buffer. */
  title(update: { title: string; artist?: string }, connection?: PlayoutSource): void {
    if (this.#mode === 'waiting') {
      this.#firstTitle = update;
      return;
    }
    const source = connection ?? this.#playout.current;
    const last = this.window.titles.at(-1);
    if (last && last.title === update.title && last.artist === update.artist) return;
    const startWallMs = Math.round(this.#wallMsAt(this.#playout.rendered) + (source?.buffer.levelMs ?? 0));
    this.window.addTitle({ id: randomId(8), startWallMs: Math.max(startWallMs, (last?.startWallMs ?? 0) + 1), ...update });
  }

  /** What is due by the clock is rendered and encoded. Called every RENDER_STEP_MS. */
  tick(): void {
    if (this.#mode === 'ended' || this.#finishing) return;
    const nowMs = this.#clock.monotonicMs();
    if (this.#mode === 'waiting') {
      this.#playout.prune();
      if (!this.#playout.next?.buffer.ready(nowMs)) return;
      this.#goOnAir();
    }
    const wallMs = this.#clock.wallMs();
    const due = this.#runBase + Math.floor(((wallMs - this.window.run.startWallMs) * SAMPLE_RATE_HZ) / 1000);
    if (due - this.#playout.rendered > (MAX_CATCH_UP_MS * SAMPLE_RATE_HZ) / 1000) {
      const lostMs = this.#encoder?.undeliveredMs ?? 0;
      this.#deps.metrics.encodedLost(lostMs / 1000);
      this.#log.error(
        { behindMs: Math.round(((due - this.#playout.rendered) * 1000) / SAMPLE_RATE_HZ), lostMs },
        'the process slept; a new run begins',
      );
      this.#beginRun();
      return;
    }
    const blocks: Int16Array[] = [];
    while (this.#playout.rendered + BLOCK_SAMPLES <= due && this.#playout.rendered < this.#endAt) {
      // A part that comes a little later is not heard by players, which hold three back; a hole is.
      if (due - this.#playout.rendered < this.#patienceSamples && this.#playout.short(nowMs)) break;
      blocks.push(this.#playout.render(nowMs));
    }
    if (blocks.length > 0) this.#encoder?.write(joined(blocks));
    if (this.#playout.soundEnd > this.#runBase) {
      const number =
        this.window.run.firstNumber + Math.floor((this.#playout.soundEnd - 1 - this.#runBase) / this.window.grid.segmentSamples);
      if (number > this.#lastSound) this.#lastSound = number;
    }
    if (this.#playout.rendered >= this.#endAt) this.#finishing = this.#finish().catch((error) => this.#cutOff(error));
  }

  /** Ends the broadcast: to the end of the segment, at most 2 s or so. Resolves when that is told. */
  async end(reason: string): Promise<void> {
    if (this.#mode !== 'ending' && this.#mode !== 'ended') {
      this.#log.info({ reason }, 'the broadcast ends');
      this.#stopAtSegmentEnd();
    }
    await this.#over;
  }

  /** The process ends, the broadcast does not: finishes the segment, so that nothing is missing when another goes on. */
  async suspend(): Promise<void> {
    this.#processEnds = true;
    await this.#playedOut();
    if (this.#mode !== 'ending' && this.#mode !== 'ended') {
      this.#suspended = true;
      this.#stopAtSegmentEnd();
    }
    await this.#over;
  }

  /** What ended sources have left was acknowledged: it is heard before the process ends, if it does not take too long. */
  async #playedOut(): Promise<void> {
    const untilMs = this.#clock.monotonicMs() + PLAY_OUT_DEADLINE_MS;
    while (this.#sources.playingOut && this.#mode !== 'ending' && this.#mode !== 'ended') {
      if (this.#clock.monotonicMs() >= untilMs) {
        this.#log.warn({}, 'the process ends before everything that was sent is played');
        return;
      }
      await sleep(this.#clock, RENDER_STEP_MS);
    }
  }

  #enter(mode: Mode, windowS?: number): void {
    for (const resolve of this.#begun.splice(0)) resolve();
    this.#deadline?.();
    this.#deadline = undefined;
    this.#mode = mode;
    if (mode === 'holding' && windowS !== undefined) {
      this.#endUnlessHeard(windowS * 1000, windowS);
    }
    if (mode === 'ending' || mode === 'ended') {
      const message = this.#suspended ? 'the server restarts; connect again' : 'the broadcast was ended';
      this.#sources.closeAll('unavailable', message);
    }
    if (mode === 'ended') {
      this.#sources.dispose();
      this.#tellOver();
    }
  }

  /** One that has sound, and is about to be put on, is no longer absent. */
  #endUnlessHeard(waitMs: number, windowS: number): void {
    this.#deadline = this.#clock.after(waitMs, () => {
      if ((this.#playout.next?.buffer.levelMs ?? 0) > 0) this.#endUnlessHeard(FIRST_SOUND_MS, windowS);
      else void this.end(`no source for ${windowS} s`);
    });
  }

  #wallMsAt(position: number): number {
    return this.window.run.startWallMs + ((position - this.#runBase) * 1000) / SAMPLE_RATE_HZ;
  }

  #stopAtSegmentEnd(): void {
    if (this.#mode === 'waiting') {
      this.#enter('ended');
      this.#deps.onEnded(this);
      return;
    }
    this.#enter('ending');
    const { segmentSamples } = this.window.grid;
    const inRun = this.#playout.rendered - this.#runBase;
    this.#endAt = this.#runBase + Math.max(1, Math.ceil(inRun / segmentSamples)) * segmentSamples;
  }

  #beginRun(): void {
    this.#encoder?.close();
    this.#packager?.close();
    this.#runBase = this.#playout.rendered;
    const firstNumber = this.#reserved + 1;
    const { runs, openNumber } = this.window;
    // One in which nothing was listed is replaced. The first one stays in any case: it is where the presentation begins.
    const unheard = runs.length > 1 && runs.at(-1)?.firstNumber === firstNumber ? runs.at(-1) : undefined;
    // A clock that was set back a little while no process ran: the runs must not overlap.
    const earliestMs = runs.length > 0 ? wallMsOf(this.window, openNumber) : 0;
    const run: Run = {
      id: randomId(6),
      firstNumber,
      discontinuity: unheard?.discontinuity ?? this.#nextDiscontinuity,
      // Whole milliseconds: what PROGRAM-DATE-TIME and the MPD can say.
      startWallMs: Math.round(Math.max(this.#clock.wallMs(), earliestMs)),
    };
    if (!unheard) this.#nextDiscontinuity += 1;
    this.window.beginRun(run);
    for (const rendition of this.window.renditions) {
      if (rendition.lowLatency) this.#deps.uploader.put(this.#key(rendition, initName(run.id)), initSegment(rendition), 'audio/mp4');
    }
    const packager = new Packager(this.window, run, {
      reserve: (number) => this.#reserve(number),
      onPart: (number, codecs) => this.#published(number, codecs),
      onSegment: (rendition, number) => this.#segmentDone(rendition, run, number),
    });
    this.#packager = packager;
    this.#encoder = new RunEncoder({
      ffmpeg: this.#deps.ffmpeg,
      renditions: this.window.renditions,
      clock: this.#clock,
      log: this.#log,
      kept: this.#deps.kept,
      events: {
        onFrame: (rendition, _index, frame) => packager.frame(rendition, frame),
        onRestart: (reason) => {
          this.#deps.metrics.encoderRestarted();
          this.#log.warn({ reason }, 'the encoder died; another goes on in the same run');
        },
        onLag: () => {
          this.#deps.metrics.encoderLagging();
          this.#log.warn({}, 'the encoder takes longer than real time; what it has not taken is kept');
        },
        onBroken: (reason, lostMs) => {
          this.#deps.metrics.encoderRestarted();
          this.#deps.metrics.encodedLost(lostMs / 1000);
          this.#log.error({ reason, lostMs }, 'the encoder cannot catch up; its run is over');
          this.#beginRun();
        },
      },
    });
  }

  async #reserve(number: number): Promise<void> {
    this.#reserved = Math.max(this.#reserved, number);
    try {
      await this.#withDeadline(RESERVE_DEADLINE_MS, () => this.#save(false));
    } catch (error) {
      this.#deps.metrics.timelineNotDurable();
      this.#log.error({ number, error: messageOf(error) }, 'the place on the timeline is not durable; a crash now would repeat numbers');
    }
  }

  async #withDeadline(ms: number, task: () => Promise<void>): Promise<void> {
    let cancel = () => {};
    const deadline = new Promise<never>((_resolve, reject) => {
      cancel = this.#clock.after(ms, () => reject(new Error(`not done in ${ms} ms`)));
    });
    await Promise.race([task(), deadline]).finally(cancel);
  }

  #save(clean: boolean): Promise<void> {
    const document: ChannelDocument = {
      version: 1,
      channelId: this.channel.id,
      nextNumber: this.#reserved + 1,
      nextDiscontinuity: this.#nextDiscontinuity,
      unwritten: this.#deps.unwritten(),
      onAir: {
        timeline: this.window.snapshot(this.#reserved),
        renditions: this.window.renditions.map((rendition) => rendition.name),
        assetId: this.#assetId,
        assetFrom: this.#assetFrom,
        lastSound: this.#lastSound,
        clean,
        savedMs: this.#clock.wallMs(),
        keyVoids: this.channel.keyVoids,
      },
    };
    return this.#deps.registry.save(this.channel.slug, document);
  }

  #published(number: number, codecs: readonly Codec[]): void {
    const [codec] = codecs;
    if (!codec || codec === 'mp3') return;
    const progress = this.window.progress[codec];
    if (!progress || progress.openNumber !== number) return;
    const partSamples = Math.max(1, Math.floor(this.window.grid.partSamples / FRAME_SAMPLES[codec])) * FRAME_SAMPLES[codec];
    const endedMs = wallMsOf(this.window, number) + (progress.openParts * partSamples * 1000) / SAMPLE_RATE_HZ;
    this.#deps.metrics.partPublishDelaySeconds(Math.max(0, this.#clock.wallMs() - endedMs) / 1000);
  }

  #segmentDone(rendition: Rendition, run: Run, number: number): void {
    const bytes = this.window.segmentBytes(rendition, number);
    const type = rendition.codec === 'mp3' ? 'audio/mpeg' : 'audio/mp4';
    this.#deps.uploader.put(
      this.#key(rendition, segmentName(run.id, number, rendition.codec)),
      bytes,
      type,
      () => this.window.markStored(rendition, number),
      () => this.window.markLost(number),
    );
    const maxSegments = (this.#settings.recordingMaxH * 3600 * SAMPLE_RATE_HZ) / this.window.grid.segmentSamples;
    // Not before every rendition has finished it: one that has not would lack it in the recording.
    const complete = this.window.openNumber - 1;
    if (complete + 1 - this.#assetFrom >= maxSegments) this.#cutRecording(complete);
  }

  /** A station that never stops: the recording ends here and another begins, on the same timeline. */
  #cutRecording(to: number): void {
    this.#deps.onRecordingEnded({ assetId: this.#assetId, channel: this.channel, window: this.window, from: this.#assetFrom, to });
    this.#assetId = randomId(12);
    this.#assetFrom = to + 1;
    this.#recordingStarted(wallMsOf(this.window, to + 1));
  }

  #recordingStarted(startedMs: number): void {
    this.#deps.onRecordingStarted({ assetId: this.#assetId, channel: this.channel, startedMs, firstNumber: this.#assetFrom });
  }

  async #finish(): Promise<void> {
    const lost = await this.#flushed();
    if (lost !== undefined) {
      const lostMs = this.#encoder?.undeliveredMs ?? 0;
      this.#deps.metrics.endLost();
      this.#deps.metrics.encodedLost(lostMs / 1000);
      this.#log.error({ reason: lost, lostMs }, 'the last segments are not finished; the recording lacks its end');
    }
    this.window.giveUpBelow(this.#reserved + 1);
    this.#encoder?.close();
    this.#packager?.close();
    if (!this.#suspended) {
      await this.#tellEnd();
      return;
    }
    await this.#withDeadline(SAVE_DEADLINE_MS, () => this.#save(true)).catch((error) =>
      this.#log.error({ error: messageOf(error) }, 'the place on the timeline is not durable'),
    );
    this.#enter('ended');
    this.window.close();
  }

  /** Its end has failed. It ends all the same: a show that never does keeps its channel from the next one. */
  #cutOff(error: unknown): void {
    reportUnexpected(error);
    if (this.#mode === 'ended') return;
    this.#enter('ended');
    this.window.end();
    this.#deps.onEnded(this);
  }

  /** Resolves when everything that was rendered is published, or to why that is given up. */
  async #flushed(): Promise<string | undefined> {
    const encoder = this.#encoder;
    let isDone = false;
    const done = (async () => {
      await encoder?.flush();
      await this.#packager?.settled();
      isDone = true;
    })();
    const startedMs = this.#clock.monotonicMs();
    let framesOut = 0;
    let progressMs = startedMs;
    let isReplaced = false;
    for (;;) {
      let cancel = () => {};
      const look = new Promise<void>((resolve) => {
        cancel = this.#clock.after(FLUSH_LOOK_MS, resolve);
      });
      await Promise.race([done, look]).finally(() => cancel());
      if (isDone) return undefined;
      const nowMs = this.#clock.monotonicMs();
      if (encoder && encoder.framesOut > framesOut) {
        framesOut = encoder.framesOut;
        progressMs = nowMs;
      }
      if (nowMs - progressMs >= FLUSH_STALL_MS && encoder && !isReplaced) {
        this.#log.error({}, 'the encoder does not end; another makes what is missing');
        isReplaced = true;
        progressMs = nowMs;
        encoder.replace();
      }
      if (nowMs - progressMs >= FLUSH_STALL_MS) return `the encoder has given nothing for ${FLUSH_STALL_MS / 1000} s`;
      const deadlineMs = this.#processEnds ? SUSPEND_FLUSH_DEADLINE_MS : FLUSH_DEADLINE_MS;
      if (nowMs - startedMs >= deadlineMs) return `the encoder is not done after ${deadlineMs / 1000} s`;
    }
  }

  async #tellEnd(): Promise<void> {
    const { channel, window } = this;
    // First, so that the document below has it: the recording may not be written when the process dies.
    this.#deps.onRecordingEnded({ assetId: this.#assetId, channel, window, from: this.#assetFrom, to: this.#lastSound });
    const unwritten = this.#deps.unwritten();
    const document: ChannelDocument = { version: 1, channelId: channel.id, ...this.nextNumbers, unwritten };
    await this.#withDeadline(SAVE_DEADLINE_MS, () => this.#deps.registry.save(this.channel.slug, document)).catch((error) => {
      this.#deps.metrics.timelineNotDurable();
      this.#log.error({ error: messageOf(error) }, 'the end of the broadcast is not durable');
    });
    this.#enter('ended');
    this.window.end();
    this.#log.info({ segments: this.window.openNumber - this.window.firstNumber }, 'off air');
    this.#deps.onEnded(this);
  }

  #sourceGone(how: SourceEnd | undefined): void {
    if (this.#mode === 'ending' || this.#mode === 'ended') return;
    if (this.#mode === 'waiting') {
      this.#enter('ended');
      this.#deps.onEnded(this);
      return;
    }
    // One that was never heard changes nothing: connections that fail one after the other would hold the show for ever.
    if (this.#mode === 'holding') return;
    const windowS = how === 'finished' ? Math.min(FINISHED_WINDOW_S, this.#settings.reconnectWindowS) : this.#settings.reconnectWindowS;
    this.#log.info({ how, windowS }, 'the source is gone; fill plays');
    this.#enter('holding', windowS);
  }

  #key(rendition: Rendition, name: string): string {
    return `live/${this.channel.slug}/${rendition.name}/${name}`;
  }
}

/** `end` returns what resolves when the show begins, or is over without a beginning; undefined when it has begun. */
export interface BroadcastSource extends Omit<ConnectedSource, 'end'> {
  end(how: SourceEnd): Promise<void> | undefined;
}

/** Lower-case letters and digits, so that it can stand in any name. */
export function randomId(length: number): string {
  let id = '';
  while (id.length < length) id += BigInt(`0x${randomBytes(16).toString('hex')}`).toString(36);
  return id.slice(-length);
}

function joined(blocks: readonly Int16Array[]): Int16Array {
  const pcm = new Int16Array(blocks.length * BLOCK_SAMPLES * CHANNELS);
  for (const [index, block] of blocks.entries()) pcm.set(block, index * BLOCK_SAMPLES * CHANNELS);
  return pcm;
}
