import { randomBytes } from 'node:crypto';
import type { DecodableFormat } from '../backing/ffmpeg.js';
import { CHANNELS, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { makeGrid, type Run, wallMsOf } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { reportUnexpected } from '../runtime/unexpected.js';
import { sleep } from '../runtime/waiting.js';
import type { BroadcastDeps, LiveChannelInfo, MediaSettings } from './broadcast-options.js';
import { ChannelPlace, type OnAirDocument } from './channel-document.js';
import { BLOCK_SAMPLES, Playout, type PlayoutSource, RENDER_STEP_MS } from './playout.js';
import { RunPipeline } from './run-pipeline.js';
import {
  type ConnectedSource,
  type ConnectionAdmission,
  type ConnectionEvents,
  type ConnectionInfo,
  type LiveSourceEnd,
  Sources,
} from './sources.js';
import { LiveWindow } from './window.js';

/**
 * After the broadcaster ends a stream, the broadcast is held this long: OBS also ends it when its
 * settings are changed.
 */
const FINISHED_WINDOW_S = 5;
/**
 * A source is on air at most this long after its first sound: a source whose buffer follows the
 * arrivals is observed for one second, and its buffer may take two to fill.
 */
const FIRST_SOUND_MS = 3000;
/** A process that stops plays the sound of ended sources for at most this long. */
const PLAY_OUT_DEADLINE_MS = 10_000;
/**
 * After the process has stalled for longer than this, the missed time is not encoded and a new run
 * begins: no listener waits for sound that old.
 */
const MAX_CATCH_UP_MS = 10_000;
/**
 * Late sound is waited for at most this long before fill replaces it, or three quarters of a part
 * when that is less.
 */
const PATIENCE_MS = 120;

/**
 * The mode of a broadcast; only `#enter` changes it.
 * - `waiting`: the first source is being decoded. Listeners see nothing yet, and if the source
 *   fails they never do.
 * - `live`: a source is on air.
 * - `holding`: no source is on air; fill plays until one is, or until the reconnect window ends.
 * - `ending`: the playout goes on to the end of the segment, then the encoder is flushed.
 * - `ended`: the playlists are marked as ended.
 */
type BroadcastMode = 'waiting' | 'live' | 'holding' | 'ending' | 'ended';

/**
 * One broadcast, from the first byte of its first source until its playlists are marked as ended.
 */
export class Broadcast {
  readonly channel: LiveChannelInfo;
  readonly window: LiveWindow;
  readonly #deps: BroadcastDeps;
  readonly #settings: MediaSettings;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #playout = new Playout();
  readonly #sources: Sources;
  #mode: BroadcastMode = 'waiting';
  #deadline: (() => void) | undefined;
  readonly #place: ChannelPlace;
  #pipeline: RunPipeline | undefined;
  /** How far the playout may be behind the clock while it waits for late sound, in samples. */
  readonly #patienceSamples: number;
  /** The value of `playout.rendered` when the run began. */
  #runBase = 0;
  #endAt = Number.POSITIVE_INFINITY;
  #finishing: Promise<void> | undefined;
  #suspended = false;
  #processEnds = false;
  /**
   * Resolves the promises of sources that ended before the broadcast was on air. Called when it
   * goes on air, or ends without having been.
   */
  readonly #airWaiters: (() => void)[] = [];
  /** A title that was set before the broadcast was on air; it is shown with the first sound. */
  #firstTitle: { title: string; artist?: string } | undefined;
  #resolveOver = () => {};
  readonly #over = new Promise<void>((resolve) => {
    this.#resolveOver = resolve;
  });

  /**
   * A new broadcast, or with `resume` one whose process has ended. A new one goes on air with the
   * first sound of a source; a resumed one by `resume()`.
   */
  constructor(
    channel: LiveChannelInfo,
    settings: MediaSettings,
    deps: BroadcastDeps,
    from: { nextNumber: number; nextDiscontinuity: number; resume?: OnAirDocument },
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
      onGone: (how) => this.#onSourceGone(how),
      onTitle: (update, source) => this.title(update, source),
    });
    const { registry, clock, metrics, unwritten } = deps;
    this.#place = new ChannelPlace({ channel, window: this.window, registry, clock, log: this.#log, metrics, unwritten, from });
    if (resume) {
      // The segment that was open when the process died is not finished any more. It becomes a gap
      // when the next run begins.
      for (const rendition of settings.ladder) {
        this.window.progress[rendition.codec] = { openNumber: resume.clean ? from.nextNumber : resume.timeline.openNumber, openParts: 0 };
      }
    }
  }

  get state(): 'live' | 'holding' {
    return this.#mode === 'live' ? 'live' : 'holding';
  }

  /** Whether listeners can see the broadcast. */
  get visible(): boolean {
    return this.window.runs.length > 0;
  }

  /** Wall-clock milliseconds at which the broadcast went on air. */
  get startedMs(): number | undefined {
    return this.window.runs[0]?.startWallMs;
  }

  /** Resumes a broadcast whose process has ended: fill plays until the broadcaster is back. */
  resume(): void {
    this.#beginRun();
    this.#enter('holding', this.#settings.reconnectWindowS);
    // The dead process may have died before this call. A second call for the same recording is
    // harmless.
    this.#recordingStarted(wallMsOf(this.window, this.#place.recording.from));
    this.#log.info({ event: 'show.resumed', number: this.window.run.firstNumber }, 'a broadcast was resumed after a restart');
  }

  /** Ends a broadcast that is too old to be resumed, at the point where its process stopped. */
  async abandon(): Promise<void> {
    this.#log.info({ event: 'show.not_resumed' }, 'a broadcast that stopped with its process was ended, not resumed');
    this.window.giveUpBelow(this.#place.next.nextNumber);
    await this.#markEnded();
  }

  /** The numbers with which the channel's next broadcast begins. */
  get nextNumbers(): { nextNumber: number; nextDiscontinuity: number } {
    return this.#place.next;
  }

  #goOnAir(): void {
    this.#beginRun();
    this.#enter('live');
    if (this.#firstTitle) this.window.addTitle({ id: randomId(8), startWallMs: this.window.run.startWallMs, ...this.#firstTitle });
    const startedMs = this.window.run.startWallMs;
    this.#recordingStarted(startedMs);
    this.#deps.onOnAir?.({ channel: this.channel, broadcastId: this.window.broadcastId, startedMs });
    this.#log.info({ event: 'show.started', number: this.window.run.firstNumber }, 'a broadcast is on air');
  }

  /** Throws `displaced` when this broadcaster was displaced by one that is still sending. */
  checkPublisher(info: ConnectionInfo): void {
    this.#sources.check(info);
  }

  /**
   * Connects a source. It is put on air as soon as it can be heard. Throws `unavailable` while the
   * broadcast ends, `busy` when too much sound of ended sources waits.
   */
  connect(info: ConnectionInfo, admission: ConnectionAdmission, format: DecodableFormat, events: ConnectionEvents): BroadcastSource {
    if (this.#mode === 'ending' || this.#mode === 'ended') throw new VezaError('unavailable', 'the broadcast is ending; try again');
    const source = this.#sources.connect(info, admission, format, events);
    return {
      write: source.write,
      title: source.title,
      end: (how) => {
        source.end(how);
        if (this.#mode !== 'waiting') return undefined;
        return new Promise((resolve) => this.#airWaiters.push(resolve));
      },
    };
  }

  /**
   * Adds a title. It begins when its sound is heard: after the sound that waits in the source's
   * buffer.
   */
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

  /** Renders and encodes the samples that are due by the clock. Called every RENDER_STEP_MS. */
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
      const lostMs = this.#pipeline?.undeliveredMs ?? 0;
      this.#deps.metrics.encodedLost(lostMs / 1000);
      this.#log.error(
        { event: 'show.process_stalled', behindMs: Math.round(((due - this.#playout.rendered) * 1000) / SAMPLE_RATE_HZ), lostMs },
        'the process stalled; a new run begins',
      );
      this.#beginRun();
      return;
    }
    const blocks: Int16Array[] = [];
    while (this.#playout.rendered + BLOCK_SAMPLES <= due && this.#playout.rendered < this.#endAt) {
      // Players do not hear a part that is a little late, because they hold three parts back; they
      // do hear fill.
      if (due - this.#playout.rendered < this.#patienceSamples && this.#playout.short(nowMs)) break;
      blocks.push(this.#playout.render(nowMs));
    }
    if (blocks.length > 0) this.#pipeline?.write(joined(blocks));
    if (this.#playout.soundEnd > this.#runBase) {
      const number =
        this.window.run.firstNumber + Math.floor((this.#playout.soundEnd - 1 - this.#runBase) / this.window.grid.segmentSamples);
      this.#place.noteSound(number);
    }
    if (this.#playout.rendered >= this.#endAt) this.#finishing = this.#finish().catch((error) => this.#endAfterFailure(error));
  }

  /**
   * Ends the broadcast at the end of the segment, after about 2 s at most. Resolves when the
   * playlists are marked as ended.
   */
  async end(reason: string): Promise<void> {
    if (this.#mode !== 'ending' && this.#mode !== 'ended') {
      this.#log.info({ event: 'show.ending', reason }, 'a broadcast is ending');
      this.#stopAtSegmentEnd();
    }
    await this.#over;
  }

  /**
   * Suspends the broadcast because the process stops: its segment is finished, so that the next
   * process resumes it without a missing number.
   */
  async suspend(): Promise<void> {
    this.#processEnds = true;
    await this.#waitUntilPlayedOut();
    if (this.#mode !== 'ending' && this.#mode !== 'ended') {
      this.#suspended = true;
      this.#stopAtSegmentEnd();
    }
    await this.#over;
  }

  /**
   * Waits until the sound of ended sources is played, because it was acknowledged; at most
   * PLAY_OUT_DEADLINE_MS.
   */
  async #waitUntilPlayedOut(): Promise<void> {
    const untilMs = this.#clock.monotonicMs() + PLAY_OUT_DEADLINE_MS;
    while (this.#sources.playingOut && this.#mode !== 'ending' && this.#mode !== 'ended') {
      if (this.#clock.monotonicMs() >= untilMs) {
        this.#log.warn({ event: 'show.cut_by_stop' }, 'the process stops before all received sound is played');
        return;
      }
      await sleep(this.#clock, RENDER_STEP_MS);
    }
  }

  #enter(mode: BroadcastMode, windowS?: number): void {
    for (const resolve of this.#airWaiters.splice(0)) resolve();
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
      this.#resolveOver();
    }
  }

  /** A source that has sound and is about to be put on air counts as connected. */
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
    this.#pipeline?.close();
    this.#runBase = this.#playout.rendered;
    const firstNumber = this.#place.next.nextNumber;
    const { runs, openNumber } = this.window;
    // A run in which nothing was listed is replaced. The first run is never replaced, because the
    // presentation begins there.
    const unheard = runs.length > 1 && runs.at(-1)?.firstNumber === firstNumber ? runs.at(-1) : undefined;
    // The clock may have been set back while no process ran: the runs must not overlap.
    const earliestMs = runs.length > 0 ? wallMsOf(this.window, openNumber) : 0;
    const run: Run = {
      id: randomId(6),
      firstNumber,
      discontinuity: unheard?.discontinuity ?? this.#place.takeDiscontinuity(),
      // Whole milliseconds, because PROGRAM-DATE-TIME and the MPD have no finer unit.
      startWallMs: Math.round(Math.max(this.#clock.wallMs(), earliestMs)),
    };
    this.window.beginRun(run);
    const { ffmpeg, uploader, metrics, kept } = this.#deps;
    this.#pipeline = new RunPipeline({
      slug: this.channel.slug,
      window: this.window,
      run,
      ffmpeg,
      uploader,
      clock: this.#clock,
      log: this.#log,
      metrics,
      kept,
      reserveNumber: (number) => this.#place.reserveNumber(number),
      onSegment: () => this.#cutLongRecording(),
      onBroken: () => this.#beginRun(),
    });
  }

  #cutLongRecording(): void {
    const maxSegments = (this.#settings.recordingMaxH * 3600 * SAMPLE_RATE_HZ) / this.window.grid.segmentSamples;
    // The recording ends only where every rendition has finished the segment; otherwise it would
    // lack one.
    const complete = this.window.openNumber - 1;
    if (complete + 1 - this.#place.recording.from >= maxSegments) this.#cutRecording(complete);
  }

  /**
   * Ends the recording and begins another on the same timeline. A broadcast that never ends is
   * recorded in pieces of RECORDING_MAX_H.
   */
  #cutRecording(to: number): void {
    this.#deps.onRecordingEnded({ ...this.#place.recording, channel: this.channel, window: this.window, to });
    this.#place.beginRecording(randomId(12), to + 1);
    this.#recordingStarted(wallMsOf(this.window, to + 1));
  }

  #recordingStarted(startedMs: number): void {
    const { assetId, from } = this.#place.recording;
    this.#deps.onRecordingStarted({ assetId, channel: this.channel, startedMs, firstNumber: from });
  }

  async #finish(): Promise<void> {
    const lost = await this.#pipeline?.flush(() => this.#processEnds);
    if (lost !== undefined) {
      const lostMs = this.#pipeline?.undeliveredMs ?? 0;
      this.#deps.metrics.endLost();
      this.#deps.metrics.encodedLost(lostMs / 1000);
      this.#log.error(
        { event: 'show.end_lost', reason: lost, lostMs },
        'the last segments of a broadcast were not finished; the recording lacks its end',
      );
    }
    this.window.giveUpBelow(this.#place.next.nextNumber);
    this.#pipeline?.close();
    if (!this.#suspended) {
      await this.#markEnded();
      return;
    }
    await this.#place.saveSuspended();
    this.#enter('ended');
    this.window.close();
  }

  /**
   * Ends the broadcast although ending it in order has failed: otherwise the channel could never
   * begin another one.
   */
  #endAfterFailure(error: unknown): void {
    reportUnexpected(error);
    if (this.#mode === 'ended') return;
    this.#enter('ended');
    this.window.end();
    this.#deps.onEnded(this);
  }

  async #markEnded(): Promise<void> {
    const { channel, window } = this;
    // Called first, so that the document saved below contains the recording. The process may die
    // before the recording is in the database.
    this.#deps.onRecordingEnded({ ...this.#place.recording, channel, window, to: this.#place.lastSound });
    await this.#place.saveEnded();
    this.#enter('ended');
    this.window.end();
    this.#log.info({ event: 'show.ended', segments: this.window.openNumber - this.window.firstNumber }, 'a broadcast has ended');
    this.#deps.onEnded(this);
  }

  #onSourceGone(how: LiveSourceEnd | undefined): void {
    if (this.#mode === 'ending' || this.#mode === 'ended') return;
    if (this.#mode === 'waiting') {
      this.#enter('ended');
      this.#deps.onEnded(this);
      return;
    }
    // A source that was never heard does not extend the reconnect window: otherwise connections
    // that fail one after the other would hold the broadcast for ever.
    if (this.#mode === 'holding') return;
    const windowS = how === 'finished' ? Math.min(FINISHED_WINDOW_S, this.#settings.reconnectWindowS) : this.#settings.reconnectWindowS;
    this.#log.info({ event: 'show.holding', how, windowS }, 'a broadcast lost its source; fill is playing');
    this.#enter('holding', windowS);
  }
}

/**
 * `end` returns a promise that resolves when the broadcast goes on air, or ends without having
 * been; undefined when it is on air already.
 */
export interface BroadcastSource extends Omit<ConnectedSource, 'end'> {
  end(how: LiveSourceEnd): Promise<void> | undefined;
}

/** Returns lower-case letters and digits, which are allowed in every kind of name. */
function randomId(length: number): string {
  let id = '';
  while (id.length < length) id += BigInt(`0x${randomBytes(16).toString('hex')}`).toString(36);
  return id.slice(-length);
}

function joined(blocks: readonly Int16Array[]): Int16Array {
  const pcm = new Int16Array(blocks.length * BLOCK_SAMPLES * CHANNELS);
  for (const [index, block] of blocks.entries()) pcm.set(block, index * BLOCK_SAMPLES * CHANNELS);
  return pcm;
}
