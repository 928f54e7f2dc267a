import type { Ffmpeg, Transform } from '../backing/ffmpeg.js';
import { COMMON_FRAME_SAMPLES, FRAME_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { MatroskaFrames } from '../media/matroska.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/** Frames that a fresh encoder needs before what it puts out equals what the dead one would have: with 2 there is a click. */
const WARM_UP_FRAMES = 4;
const WARM_UP_SAMPLES = WARM_UP_FRAMES * 1152;
/** Samples fed without a frame coming out after which the encoder is taken for stuck: 15 s. On a busy machine a live one can rest for several. */
const STUCK_SAMPLES = 15 * SAMPLE_RATE_HZ;
/** Undelivered samples at which the encoder is said to lag: 10 s. */
const LAG_SAMPLES = 10 * SAMPLE_RATE_HZ;
/** Undelivered samples at which a lag that was logged is over. */
const LAG_OVER_SAMPLES = 2 * SAMPLE_RATE_HZ;
/** Undelivered samples at which the run is given up: 120 s, 23 MB of PCM. The encoder would never catch up, and listeners are that late. */
const MAX_UNDELIVERED_SAMPLES = 120 * SAMPLE_RATE_HZ;
/** PCM kept by all encoders of the process at which one that lags is given up, however little it lags: 512 MB, 22 shows at their bound. */
const MAX_KEPT_BYTES = 512 * 1024 * 1024;
const RESTART_PAUSE_MS = 1000;

/** What all encoders of the process keep for restarts. */
export interface KeptPcm {
  sizeBytes: number;
}

export interface EncoderEvents {
  /** Frame `index` of a rendition, counted from the start of the run, without a gap or repetition. */
  onFrame(rendition: number, index: number, frame: Buffer): void;
  /** It died and was started again within the run. */
  onRestart(reason: string): void;
  /** It is behind real time; not again before it has caught up. */
  onLag(): void;
  /** More is undelivered than is kept: the run is over, and `lostMs` of it are lost. */
  onBroken(reason: string, lostMs: number): void;
}

/**
 * The encoder of one run: PCM in, frames of every rendition out. An ffmpeg that dies is replaced by one that starts at a frame
 * boundary common to all codecs before the first frame that is missing; the frames that were out already are dropped. PCM is kept from
 * that boundary on, so nothing is lost by a restart. One that is slow is let be while frames come out: a fresh one would not be faster.
 */
export class RunEncoder {
  readonly #ffmpeg: Ffmpeg;
  readonly #renditions: readonly Rendition[];
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #events: EncoderEvents;
  readonly #kept: KeptPcm;
  readonly #next: number[];
  readonly #history: { start: number; pcm: Int16Array }[] = [];
  #written = 0;
  #lastFrameAt = 0;
  #transform: Transform | undefined;
  #generation = 0;
  #startedMs = Number.NEGATIVE_INFINITY;
  #cancelRestart: (() => void) | undefined;
  #state: 'running' | 'flushing' | 'closed' = 'running';
  #flushed: (() => void) | undefined;
  #framesOut = 0;
  #isLagging = false;

  constructor(options: {
    ffmpeg: Ffmpeg;
    renditions: readonly Rendition[];
    clock: Clock;
    log: Log;
    kept: KeptPcm;
    events: EncoderEvents;
  }) {
    this.#kept = options.kept;
    this.#ffmpeg = options.ffmpeg;
    this.#renditions = options.renditions;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#events = options.events;
    this.#next = options.renditions.map(() => 0);
    this.#start(0);
  }

  /** Frames of all renditions that have come out: whether it makes progress. */
  get framesOut(): number {
    return this.#framesOut;
  }

  /** Audio that was written and of which some rendition has no frame yet. */
  get undeliveredMs(): number {
    return Math.max(0, Math.round(((this.#written - this.#delivered()) * 1000) / SAMPLE_RATE_HZ));
  }

  write(pcm: Int16Array): void {
    if (this.#state !== 'running') return;
    this.#history.push({ start: this.#written, pcm });
    this.#kept.sizeBytes += pcm.byteLength;
    this.#written += pcm.length / 2;
    this.#trimHistory();
    this.#transform?.write(bytesOf(pcm));
    const undelivered = this.#written - this.#delivered();
    const isCrowded = this.#kept.sizeBytes > MAX_KEPT_BYTES && undelivered > LAG_SAMPLES;
    if (undelivered > MAX_UNDELIVERED_SAMPLES || isCrowded) {
      const { undeliveredMs } = this;
      this.close();
      this.#events.onBroken(isCrowded ? 'all encoders together are too far behind' : 'it is too far behind real time', undeliveredMs);
      return;
    }
    this.#noteLag(undelivered);
    if (this.#transform && this.#written - this.#lastFrameAt > STUCK_SAMPLES) {
      this.#lastFrameAt = this.#written;
      this.#log.error({ event: 'encoder.stalled' }, 'an encoder gives no output; it is restarted');
      this.#transform.kill();
    }
  }

  /** Another one makes what this one has not delivered. */
  replace(): void {
    this.#transform?.kill();
  }

  /** No more PCM: resolves when the last frame is out. */
  async flush(): Promise<void> {
    if (this.#state !== 'running') return;
    this.#state = 'flushing';
    await new Promise<void>((resolve) => {
      this.#flushed = resolve;
      if (this.#transform) this.#transform.end();
    });
  }

  close(): void {
    this.#state = 'closed';
    this.#cancelRestart?.();
    this.#transform?.kill();
    this.#transform = undefined;
    for (const { pcm } of this.#history.splice(0)) this.#kept.sizeBytes -= pcm.byteLength;
    this.#flushed?.();
  }

  /** Every rendition is out up to this sample. */
  #delivered(): number {
    return Math.min(...this.#renditions.map((rendition, index) => (this.#next[index] ?? 0) * FRAME_SAMPLES[rendition.codec]));
  }

  /** Where the next encoder would start. */
  #restartPoint(): number {
    return Math.max(0, Math.floor((this.#delivered() - WARM_UP_SAMPLES) / COMMON_FRAME_SAMPLES) * COMMON_FRAME_SAMPLES);
  }

  #trimHistory(): void {
    const from = this.#restartPoint();
    const isNeeded = ({ start, pcm }: { start: number; pcm: Int16Array }) => start + pcm.length / 2 > from;
    let first = this.#history[0];
    while (first && !isNeeded(first)) {
      this.#history.shift();
      this.#kept.sizeBytes -= first.pcm.byteLength;
      first = this.#history[0];
    }
  }

  #noteLag(undelivered: number): void {
    if (this.#isLagging) {
      this.#isLagging = undelivered > LAG_OVER_SAMPLES;
      if (!this.#isLagging) this.#log.info({ event: 'encoder.caught_up' }, 'an encoder has caught up');
    } else if (undelivered > LAG_SAMPLES) {
      this.#isLagging = true;
      this.#events.onLag();
    }
  }

  #start(from: number): void {
    const generation = ++this.#generation;
    this.#startedMs = this.#clock.monotonicMs();
    this.#lastFrameAt = this.#written;
    const counts = this.#renditions.map((rendition) => from / FRAME_SAMPLES[rendition.codec]);
    const demuxer = new MatroskaFrames((track, frame) => {
      const rendition = track - 1;
      const index = counts[rendition];
      if (index === undefined) return;
      counts[rendition] = index + 1;
      this.#lastFrameAt = this.#written;
      if (index !== this.#next[rendition]) return;
      this.#next[rendition] = index + 1;
      this.#framesOut += 1;
      this.#events.onFrame(rendition, index, frame);
    });
    let broken: string | undefined;
    const transform = this.#ffmpeg.encoder(this.#renditions, {
      onData: (bytes) => {
        if (generation !== this.#generation || broken !== undefined) return;
        try {
          demuxer.push(bytes);
        } catch (error) {
          broken = messageOf(error);
          transform.kill();
        }
      },
      onExit: (error) => {
        if (generation === this.#generation) this.#exited(broken ?? error ?? 'it ended by itself');
      },
    });
    this.#transform = transform;
    for (const block of this.#history) {
      const skip = Math.max(0, from - block.start);
      if (skip < block.pcm.length / 2) transform.write(bytesOf(block.pcm.subarray(skip * 2)));
    }
    if (this.#state === 'flushing') transform.end();
  }

  #exited(reason: string): void {
    this.#transform = undefined;
    if (this.#state === 'closed') return;
    if (this.#state === 'flushing' && this.#delivered() >= this.#written) {
      this.#flushed?.();
      return;
    }
    // One that dies at once again is not started more than once a second.
    const waitMs = this.#clock.monotonicMs() - this.#startedMs < RESTART_PAUSE_MS ? RESTART_PAUSE_MS : 0;
    const restart = () => {
      this.#events.onRestart(reason);
      this.#start(this.#restartPoint());
    };
    if (waitMs === 0) restart();
    else this.#cancelRestart = this.#clock.after(waitMs, restart);
  }
}

function bytesOf(pcm: Int16Array): Uint8Array {
  return new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
}
