import type { Ffmpeg } from '../backing/ffmpeg.js';
import { initSegment } from '../media/cmaf.js';
import { type Codec, FRAME_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../media/ladder.js';
import { initName, type Run, segmentName, wallMsOf } from '../media/timeline.js';
import type { Clock } from '../runtime/clock.js';
import type { Log } from '../runtime/log.js';
import { withDeadline } from '../runtime/waiting.js';
import { type KeptPcm, RunEncoder } from './encoder.js';
import { Packager } from './packager.js';
import type { Uploader } from './uploader.js';
import type { LiveWindow } from './window.js';

/**
 * At the end of a broadcast an encoder that puts out nothing for this long is replaced once. When
 * the new one puts out nothing for this long, the end is given up. An encoder that makes progress
 * may take its time on a busy machine: no listener hears the late segments, but the recording has
 * them.
 */
const FLUSH_STALL_MS = 15_000;
/**
 * The end is given up after this long in any case, because the channel's next broadcast cannot
 * begin before.
 */
const FLUSH_DEADLINE_MS = 120_000;
/** The same deadline while the process stops: after SHUTDOWN_TIMEOUT_S it is ended by force. */
const SUSPEND_FLUSH_DEADLINE_MS = 10_000;
/** How often the progress of the encoder is checked. */
const FLUSH_LOOK_MS = 1000;

export interface RunPipelineOptions {
  readonly slug: string;
  readonly window: LiveWindow;
  /** The run; it has begun in the live window. */
  readonly run: Run;
  readonly ffmpeg: Ffmpeg;
  readonly uploader: Uploader;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: {
    partPublishDelaySeconds(seconds: number): void;
    encoderRestarted(): void;
    encoderLagging(): void;
    encodedLost(seconds: number): void;
  };
  /** The PCM that all encoders of the process keep. */
  readonly kept: KeptPcm;
  /** Resolves when the number of the segment is durable. */
  readonly reserveNumber: (number: number) => Promise<void>;
  /** Called when one rendition has finished a segment. */
  readonly onSegment: () => void;
  /** Called when the run is given up because its encoder cannot catch up. */
  readonly onBroken: () => void;
}

/**
 * One run of a broadcast: PCM goes into the encoder, and its frames become parts in the live window
 * and segments in the object store.
 */
export class RunPipeline {
  readonly #options: RunPipelineOptions;
  readonly #packager: Packager;
  readonly #encoder: RunEncoder;

  constructor(options: RunPipelineOptions) {
    this.#options = options;
    const { window, run, uploader, log, metrics } = options;
    for (const rendition of window.renditions) {
      if (rendition.lowLatency) uploader.put(this.#key(rendition, initName(run.id)), initSegment(rendition), 'audio/mp4');
    }
    this.#packager = new Packager(window, run, {
      reserve: options.reserveNumber,
      onPart: (number, codecs) => this.#notePublished(number, codecs),
      onSegment: (rendition, number) => this.#storeSegment(rendition, number),
    });
    this.#encoder = new RunEncoder({
      ffmpeg: options.ffmpeg,
      renditions: window.renditions,
      clock: options.clock,
      log,
      kept: options.kept,
      events: {
        onFrame: (rendition, _index, frame) => this.#packager.frame(rendition, frame),
        onRestart: (reason) => {
          metrics.encoderRestarted();
          log.warn({ event: 'encoder.died', reason }, 'an encoder died; another continues the run');
        },
        onLag: () => {
          metrics.encoderLagging();
          log.warn({ event: 'encoder.behind' }, 'an encoder is slower than real time; its input is kept');
        },
        onBroken: (reason, lostMs) => {
          metrics.encoderRestarted();
          metrics.encodedLost(lostMs / 1000);
          log.error({ event: 'encoder.given_up', reason, lostMs }, 'an encoder could not catch up; its run ends');
          options.onBroken();
        },
      },
    });
  }

  /** Milliseconds of sound that were written and that some rendition has not put out. */
  get undeliveredMs(): number {
    return this.#encoder.undeliveredMs;
  }

  write(pcm: Int16Array): void {
    this.#encoder.write(pcm);
  }

  close(): void {
    this.#encoder.close();
    this.#packager.close();
  }

  /**
   * Resolves with undefined when everything that was written is published, or with the reason why
   * the end is given up.
   */
  async flush(isProcessEnding: () => boolean): Promise<string | undefined> {
    const { clock, log } = this.#options;
    const encoder = this.#encoder;
    let isDone = false;
    const done = (async () => {
      await encoder.flush();
      await this.#packager.settled();
      isDone = true;
    })();
    const startedMs = clock.monotonicMs();
    let framesOut = 0;
    let progressMs = startedMs;
    let isReplaced = false;
    for (;;) {
      await withDeadline(clock, FLUSH_LOOK_MS, done, () => undefined);
      if (isDone) return undefined;
      const nowMs = clock.monotonicMs();
      if (encoder.framesOut > framesOut) {
        framesOut = encoder.framesOut;
        progressMs = nowMs;
      }
      if (nowMs - progressMs >= FLUSH_STALL_MS && !isReplaced) {
        log.error({ event: 'encoder.not_ending' }, 'an encoder does not end; another encodes the rest');
        isReplaced = true;
        progressMs = nowMs;
        encoder.replace();
      }
      if (nowMs - progressMs >= FLUSH_STALL_MS) return `the encoder has given nothing for ${FLUSH_STALL_MS / 1000} s`;
      const deadlineMs = isProcessEnding() ? SUSPEND_FLUSH_DEADLINE_MS : FLUSH_DEADLINE_MS;
      if (nowMs - startedMs >= deadlineMs) return `the encoder is not done after ${deadlineMs / 1000} s`;
    }
  }

  #notePublished(number: number, codecs: readonly Codec[]): void {
    const { window, metrics, clock } = this.#options;
    const [codec] = codecs;
    if (!codec || codec === 'mp3') return;
    const progress = window.progress[codec];
    if (!progress || progress.openNumber !== number) return;
    const partSamples = Math.max(1, Math.floor(window.grid.partSamples / FRAME_SAMPLES[codec])) * FRAME_SAMPLES[codec];
    const endedMs = wallMsOf(window, number) + (progress.openParts * partSamples * 1000) / SAMPLE_RATE_HZ;
    metrics.partPublishDelaySeconds(Math.max(0, clock.wallMs() - endedMs) / 1000);
  }

  #storeSegment(rendition: Rendition, number: number): void {
    const { window, uploader, run } = this.#options;
    const bytes = window.segmentBytes(rendition, number);
    const type = rendition.codec === 'mp3' ? 'audio/mpeg' : 'audio/mp4';
    uploader.put(
      this.#key(rendition, segmentName(run.id, number, rendition.codec)),
      bytes,
      type,
      () => window.markStored(rendition, number),
      () => window.markLost(number),
    );
    this.#options.onSegment();
  }

  #key(rendition: Rendition, name: string): string {
    return `live/${this.#options.slug}/${rendition.name}/${name}`;
  }
}
