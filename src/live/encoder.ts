import type { Ffmpeg, Transform } from '../backing/ffmpeg.js';
import { COMMON_FRAME_SAMPLES, FRAME_SAMPLES, type Rendition } from '../media/ladder.js';
import { MatroskaFrames } from '../media/matroska.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/** Frames that a fresh encoder needs before what it puts out equals what the dead one would have: with 2 there is a click. */
const WARM_UP_FRAMES = 4;
const WARM_UP_SAMPLES = WARM_UP_FRAMES * 1152;
/** Samples fed without a frame coming out after which the encoder is taken for stuck: four seconds. */
const STUCK_SAMPLES = 192_000;
/** PCM kept for a restart: two segments of the default length and the grid. */
const HISTORY_SAMPLES = 2 * 92_160 + COMMON_FRAME_SAMPLES;
const RESTART_PAUSE_MS = 1000;
/** PCM that the encoder has not taken yet at which it is given up: ten seconds. It would never catch up, and listeners are that late. */
const MAX_BACKLOG_BYTES = 10 * 48_000 * 4;

export interface EncoderEvents {
  /** Frame `index` of a rendition, counted from the start of the run, without a gap or repetition. */
  onFrame(rendition: number, index: number, frame: Buffer): void;
  /** It died and was started again within the run. */
  onRestart(reason: string): void;
  /** What was lost cannot be made again from the PCM that is kept: the run is over. */
  onBroken(reason: string): void;
}

/**
 * The encoder of one run: PCM in, frames of every rendition out. An ffmpeg that dies is replaced by one that starts at a frame
 * boundary common to all codecs before the first frame that is missing; the frames that were out already are dropped.
 */
export class RunEncoder {
  readonly #ffmpeg: Ffmpeg;
  readonly #renditions: readonly Rendition[];
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #events: EncoderEvents;
  readonly #next: number[];
  #history: { start: number; pcm: Int16Array }[] = [];
  #written = 0;
  #lastFrameAt = 0;
  #transform: Transform | undefined;
  #generation = 0;
  #startedMs = Number.NEGATIVE_INFINITY;
  #cancelRestart: (() => void) | undefined;
  #state: 'running' | 'flushing' | 'closed' = 'running';
  #flushed: (() => void) | undefined;
  #framesOut = 0;

  constructor(options: { ffmpeg: Ffmpeg; renditions: readonly Rendition[]; clock: Clock; log: Log; events: EncoderEvents }) {
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

  write(pcm: Int16Array): void {
    if (this.#state !== 'running') return;
    this.#history.push({ start: this.#written, pcm });
    this.#written += pcm.length / 2;
    let first = this.#history[0];
    while (first && first.start + first.pcm.length / 2 < this.#written - HISTORY_SAMPLES) {
      this.#history.shift();
      first = this.#history[0];
    }
    this.#transform?.write(bytesOf(pcm));
    if (this.#transform && this.#written - this.#lastFrameAt > STUCK_SAMPLES) {
      this.#lastFrameAt = this.#written;
      this.#log.error({}, 'the encoder takes audio but gives none; it is started again');
      this.#transform.kill();
    } else if ((this.#transform?.backlogBytes ?? 0) > MAX_BACKLOG_BYTES) {
      this.#log.error({}, 'the encoder takes longer than real time; it is started again');
      this.#transform?.kill();
    }
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
    this.#history = [];
    this.#flushed?.();
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
    const missing = Math.min(...this.#renditions.map((rendition, index) => (this.#next[index] ?? 0) * FRAME_SAMPLES[rendition.codec]));
    if (this.#state === 'flushing' && missing >= this.#written) {
      this.#flushed?.();
      return;
    }
    const from = Math.max(0, Math.floor((missing - WARM_UP_SAMPLES) / COMMON_FRAME_SAMPLES) * COMMON_FRAME_SAMPLES);
    // One that dies at once again is not started more than once a second.
    const waitMs = this.#clock.monotonicMs() - this.#startedMs < RESTART_PAUSE_MS ? RESTART_PAUSE_MS : 0;
    const restart = () => {
      const oldest = this.#history[0]?.start ?? this.#written;
      if (from < oldest) {
        this.#events.onBroken(reason);
        return;
      }
      this.#events.onRestart(reason);
      this.#start(from);
    };
    if (waitMs === 0) restart();
    else this.#cancelRestart = this.#clock.after(waitMs, restart);
  }
}

function bytesOf(pcm: Int16Array): Uint8Array {
  return new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
}
