import type { Ffmpeg, Transform } from '../backing/ffmpeg.js';
import { COMMON_FRAME_SAMPLES, FRAME_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { MatroskaFrames } from '../media/matroska.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/**
 * A new encoder is fed this many frames before the first missing one; only then its output equals
 * that of the encoder that died. With 2 frames there is a click.
 */
const WARM_UP_FRAMES = 4;
const WARM_UP_SAMPLES = WARM_UP_FRAMES * 1152;
/**
 * An encoder is restarted after it was fed this much without putting out a frame: 15 s. On a busy
 * machine a working encoder may pause for several seconds.
 */
const STUCK_SAMPLES = 15 * SAMPLE_RATE_HZ;
/** An encoder lags when more than this is undelivered: 10 s. */
const LAG_SAMPLES = 10 * SAMPLE_RATE_HZ;
/** A lagging encoder has caught up when no more than this is undelivered: 2 s. */
const LAG_OVER_SAMPLES = 2 * SAMPLE_RATE_HZ;
/**
 * A run is given up when more than this is undelivered: 120 s, which is 23 MB of PCM. Its encoder
 * would never catch up, and its listeners hear everything that late.
 */
const MAX_UNDELIVERED_SAMPLES = 120 * SAMPLE_RATE_HZ;
/**
 * While all encoders of the process together keep more PCM than this, the run of an encoder that
 * lags is given up: 512 MB, as much as 22 runs at their limit.
 */
const MAX_KEPT_BYTES = 512 * 1024 * 1024;
const RESTART_PAUSE_MS = 1000;

/** The PCM that all encoders of the process keep for restarts. */
export interface KeptPcm {
  sizeBytes: number;
}

export interface EncoderEvents {
  /**
   * A frame of the ladder's rendition `rendition`. `index` counts from the start of the run,
   * without a gap or a repetition.
   */
  onFrame(rendition: number, index: number, frame: Buffer): void;
  /** The encoder died and was started again within the run. */
  onRestart(reason: string): void;
  /** The encoder is behind real time. Not called again before it has caught up. */
  onLag(): void;
  /** The run is given up because too much is undelivered; `lostMs` of sound are lost. */
  onBroken(reason: string, lostMs: number): void;
}

/**
 * The encoder of one run: it takes PCM and puts out the frames of every rendition.
 *
 * An ffmpeg that dies is replaced. The new one starts at a frame boundary common to all codecs,
 * before the first missing frame; frames that were put out already are discarded. PCM is kept from
 * that boundary on, so a restart loses nothing. An encoder that is slow is not replaced while it
 * puts out frames: a new one would not be faster.
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

  /**
   * The number of frames put out, of all renditions; it shows whether the encoder makes progress.
   */
  get framesOut(): number {
    return this.#framesOut;
  }

  /** Milliseconds of sound that were written and that some rendition has not put out. */
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

  /** Kills the ffmpeg; a new one encodes everything that is undelivered. */
  replace(): void {
    this.#transform?.kill();
  }

  /** Ends the input. Resolves when the last frame is put out, or when the encoder is closed. */
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

  /** The sample up to which every rendition has been put out. */
  #delivered(): number {
    return Math.min(...this.#renditions.map((rendition, index) => (this.#next[index] ?? 0) * FRAME_SAMPLES[rendition.codec]));
  }

  /** The sample at which the next ffmpeg would start. */
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
    // An ffmpeg that dies at once is restarted at most once per RESTART_PAUSE_MS.
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
