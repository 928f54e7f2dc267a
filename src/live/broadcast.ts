import { randomBytes } from 'node:crypto';
import type { DecodableFormat } from '../backing/ffmpeg.js';
import { CHANNELS, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { makeGrid, type Run, wallMsOf } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { sleep } from '../runtime/sleep.js';
import { reportUnexpected } from '../runtime/unexpected.js';
import type { BroadcastDeps, ChannelInfo, MediaSettings } from './broadcast-options.js';
import { ChannelPlace, type OnAirDocument } from './channel-document.js';
import { BLOCK_SAMPLES, Playout, type PlayoutSource, RENDER_STEP_MS } from './playout.js';
import { RunPipeline } from './run-pipeline.js';
import {
  type ConnectedSource,
  type ConnectionAdmission,
  type ConnectionEvents,
  type ConnectionInfo,
  type SourceEnd,
  Sources,
} from './sources.js';
import { LiveWindow } from './window.js';

/** After OBS's Stop the broadcast is held this long, in case it was only a change of settings. */
const FINISHED_WINDOW_S = 5;
/** From a source's first sound to its being put on, at most: a source that is followed is looked at for a second, and may fill up to two. */
const FIRST_SOUND_MS = 3000;
/** A process that ends plays what ended sources have left for at most this time. */
const PLAY_OUT_DEADLINE_MS = 10_000;
/** A process that slept longer than this does not make up for it: what it would encode nobody waits for. */
const MAX_CATCH_UP_MS = 10_000;
/** What is missing is waited for this long before fill takes its place, or three quarters of a part where that is less. */
const PATIENCE_MS = 120;

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
  readonly #place: ChannelPlace;
  #pipeline: RunPipeline | undefined;
  /** How far the playout may be behind the clock while it waits for sound that is late. */
  readonly #patienceSamples: number;
  /** `playout.rendered` when the run began. */
  #runBase = 0;
  #endAt = Number.POSITIVE_INFINITY;
  #finishing: Promise<void> | undefined;
  #suspended = false;
  #processEnds = false;
  /** Of sources that ended before anything could be seen: called when the show begins, or is over without a beginning. */
  readonly #begun: (() => void)[] = [];
  /** Announced before anything was heard; shown with the first sound. */
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
      onGone: (how) => this.#sourceGone(how),
      onTitle: (update, source) => this.title(update, source),
    });
    const { registry, clock, metrics, unwritten } = deps;
    this.#place = new ChannelPlace({ channel, window: this.window, registry, clock, log: this.#log, metrics, unwritten, from });
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
    this.#recordingStarted(wallMsOf(this.window, this.#place.recording.from));
    this.#log.info({ event: 'show.resumed', number: this.window.run.firstNumber }, 'a show is back on air after a restart');
  }

  /** It is too late to go on: ends it where the dead process left it. */
  async abandon(): Promise<void> {
    this.#log.info({ event: 'show.not_resumed' }, 'a show that was cut off by the end of the server was closed');
    this.window.giveUpBelow(this.#place.next.nextNumber);
    await this.#tellEnd();
  }

  /** Where the channel's next broadcast goes on. */
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
    this.#log.info({ event: 'show.started', number: this.window.run.firstNumber }, 'a show is on air');
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
      // A part that comes a little later is not heard by players, which hold three back; a hole is.
      if (due - this.#playout.rendered < this.#patienceSamples && this.#playout.short(nowMs)) break;
      blocks.push(this.#playout.render(nowMs));
    }
    if (blocks.length > 0) this.#pipeline?.write(joined(blocks));
    if (this.#playout.soundEnd > this.#runBase) {
      const number =
        this.window.run.firstNumber + Math.floor((this.#playout.soundEnd - 1 - this.#runBase) / this.window.grid.segmentSamples);
      this.#place.noteSound(number);
    }
    if (this.#playout.rendered >= this.#endAt) this.#finishing = this.#finish().catch((error) => this.#cutOff(error));
  }

  /** Ends the broadcast: to the end of the segment, at most 2 s or so. Resolves when that is told. */
  async end(reason: string): Promise<void> {
    if (this.#mode !== 'ending' && this.#mode !== 'ended') {
      this.#log.info({ event: 'show.ending', reason }, 'a show is ending');
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
        this.#log.warn({ event: 'show.cut_by_stop' }, 'the process stops before all received sound is played');
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
    this.#pipeline?.close();
    this.#runBase = this.#playout.rendered;
    const firstNumber = this.#place.next.nextNumber;
    const { runs, openNumber } = this.window;
    // One in which nothing was listed is replaced. The first one stays in any case: it is where the presentation begins.
    const unheard = runs.length > 1 && runs.at(-1)?.firstNumber === firstNumber ? runs.at(-1) : undefined;
    // A clock that was set back a little while no process ran: the runs must not overlap.
    const earliestMs = runs.length > 0 ? wallMsOf(this.window, openNumber) : 0;
    const run: Run = {
      id: randomId(6),
      firstNumber,
      discontinuity: unheard?.discontinuity ?? this.#place.takeDiscontinuity(),
      // Whole milliseconds: what PROGRAM-DATE-TIME and the MPD can say.
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
    // Not before every rendition has finished the segment: one that has not would lack it in the recording.
    const complete = this.window.openNumber - 1;
    if (complete + 1 - this.#place.recording.from >= maxSegments) this.#cutRecording(complete);
  }

  /** A station that never stops: the recording ends here and another begins, on the same timeline. */
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
        'the last segments of a show were not finished; the recording lacks its end',
      );
    }
    this.window.giveUpBelow(this.#place.next.nextNumber);
    this.#pipeline?.close();
    if (!this.#suspended) {
      await this.#tellEnd();
      return;
    }
    await this.#place.saveSuspended();
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

  async #tellEnd(): Promise<void> {
    const { channel, window } = this;
    // First, so that the document below has the recording: the process may die before it is written down.
    this.#deps.onRecordingEnded({ ...this.#place.recording, channel, window, to: this.#place.lastSound });
    await this.#place.saveEnded();
    this.#enter('ended');
    this.window.end();
    this.#log.info({ event: 'show.ended', segments: this.window.openNumber - this.window.firstNumber }, 'a show is off air');
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
    this.#log.info({ event: 'show.holding', how, windowS }, 'a show lost its source; fill is playing');
    this.#enter('holding', windowS);
  }
}

/** `end` returns what resolves when the show begins, or is over without a beginning; undefined when it has begun. */
export interface BroadcastSource extends Omit<ConnectedSource, 'end'> {
  end(how: SourceEnd): Promise<void> | undefined;
}

/** Lower-case letters and digits, so that it can stand in any name. */
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
