import type { DecodableFormat, Ffmpeg, Transform } from '../backing/ffmpeg.js';
import { CHANNELS } from '../media/ladder.js';
import { StreamHead } from '../media/stream-head.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { PcmBuffer } from './pcm-buffer.js';

const BYTES_PER_SAMPLE = CHANNELS * 2;
/** A decoder that dies again and again on what it is fed is not started more often than this in a row. */
const MAX_RESTARTS_IN_A_ROW = 3;
/** After this much sound a decoder has proven that it can. */
const PROVEN_SAMPLES = 48_000;

/**
 * What comes within this time is handed to the decoder at once: a write to a child costs Node and the child a wake-up each, and an
 * encoder sends a message every 21 ms.
 */
const DECODER_BATCH_MS = 60;
/** As much is handed on without waiting. */
const BATCH_BYTES = 8192;

export interface SourceDecoderEvents {
  /** The decoder takes bytes again after `write` returned false. */
  onDrain(): void;
  /** It cannot be decoded (any further); the reason is for the broadcaster. Nothing is played beyond what is in the buffer. */
  onFailed(reason: string): void;
  onCut(removedMs: number): void;
  onRestart(reason: string): void;
}

/** One source: container bytes in, PCM in its buffer. A decoder that is killed is replaced and goes on in the same buffer. */
export class SourceDecoder {
  readonly buffer: PcmBuffer;
  readonly #ffmpeg: Ffmpeg;
  readonly #format: DecodableFormat;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #events: SourceDecoderEvents;
  readonly #head: StreamHead;
  readonly #mayRestart: () => void;
  #transform: Transform;
  #carry: Buffer = Buffer.alloc(0);
  #batch: Uint8Array[] = [];
  #batchBytes = 0;
  #cancelBatch: (() => void) | undefined;
  #full = false;
  #decoded = 0;
  #restarts = 0;
  #bytes = 0;
  #ended = false;
  #closed = false;
  #paused = false;
  /** Monotonic time of the last byte. */
  lastBytesMs: number;
  /** Monotonic time at which the decoder was last fed, ended or heard from. */
  lastProgressMs: number;

  constructor(options: {
    ffmpeg: Ffmpeg;
    format: DecodableFormat;
    targetMs: number | undefined;
    /** Asked before a decoder that died is replaced; throws when it is not to be. */
    mayRestart: () => void;
    clock: Clock;
    log: Log;
    events: SourceDecoderEvents;
  }) {
    this.#ffmpeg = options.ffmpeg;
    this.#format = options.format;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#events = options.events;
    this.#head = new StreamHead(options.format);
    this.#mayRestart = options.mayRestart;
    this.lastBytesMs = options.clock.monotonicMs();
    this.lastProgressMs = this.lastBytesMs;
    this.buffer = new PcmBuffer({
      targetMs: options.targetMs,
      arrivalMs: DECODER_BATCH_MS,
      onPressure: (pause) => {
        this.#paused = pause;
        if (pause) this.#transform.pause();
        else this.#transform.resume();
      },
      onCut: options.events.onCut,
    });
    this.#transform = this.#start();
  }

  write(bytes: Uint8Array): boolean {
    if (this.#ended || this.#closed) return true;
    this.lastBytesMs = this.#clock.monotonicMs();
    this.#bytes += bytes.length;
    const rest = this.#head.push(bytes);
    if (rest.length === 0) return !this.#full;
    this.#batch.push(rest);
    this.#batchBytes += rest.length;
    if (this.#batchBytes >= BATCH_BYTES) this.#flush();
    else this.#cancelBatch ??= this.#clock.after(DECODER_BATCH_MS, () => this.#flush());
    return !this.#full;
  }

  #flush(): void {
    this.#cancelBatch?.();
    this.#cancelBatch = undefined;
    if (this.#batchBytes === 0) return;
    const bytes = this.#batch.length === 1 ? this.#batch[0]! : Buffer.concat(this.#batch);
    this.#batch = [];
    this.#batchBytes = 0;
    this.#full = !this.#transform.write(bytes);
  }

  /** No more bytes; what came is decoded and stays in the buffer. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.lastProgressMs = this.#clock.monotonicMs();
    this.#flush();
    this.#transform.end();
  }

  /** Away with it and with what it holds. */
  close(): void {
    this.#closed = true;
    this.#cancelBatch?.();
    this.#transform.kill();
    this.buffer.end();
  }

  #start(): Transform {
    this.#carry = Buffer.alloc(0);
    const transform = this.#ffmpeg.decoder(this.#format, {
      onData: (bytes) => this.#pcm(bytes),
      onDrain: () => this.#drained(),
      onExit: (error) => this.#exited(error),
    });
    if (this.#paused) transform.pause();
    return transform;
  }

  #drained(): void {
    this.#full = false;
    this.#events.onDrain();
  }

  #pcm(bytes: Buffer): void {
    if (this.#closed) return;
    const data = this.#carry.length === 0 ? bytes : Buffer.concat([this.#carry, bytes]);
    const whole = data.length - (data.length % BYTES_PER_SAMPLE);
    this.#carry = data.subarray(whole);
    if (whole === 0) return;
    // A typed array wants an even offset; the pool gives any.
    const aligned = data.byteOffset % 2 === 0 ? data : Buffer.from(data);
    const pcm = new Int16Array(aligned.buffer, aligned.byteOffset, whole / 2);
    this.lastProgressMs = this.#clock.monotonicMs();
    this.#decoded += pcm.length / CHANNELS;
    if (this.#decoded > PROVEN_SAMPLES) this.#restarts = 0;
    this.buffer.push(pcm, this.#clock.monotonicMs());
  }

  #restartAllowed(): boolean {
    try {
      this.#mayRestart();
      return true;
    } catch (error) {
      this.#log.warn({ event: 'decoder.not_replaced', reason: messageOf(error) }, 'a decoder died and was not replaced');
      return false;
    }
  }

  #exited(error: string | undefined): void {
    if (this.#closed) return;
    if (this.#ended) {
      this.buffer.end();
      if (this.#decoded === 0 && this.#bytes > 0) this.#events.onFailed(error ?? 'there is no audio in it');
      return;
    }
    const reason = error ?? 'the decoder ended by itself';
    if (this.#decoded > 0 && this.#restarts < MAX_RESTARTS_IN_A_ROW && this.#restartAllowed()) {
      this.#restarts += 1;
      this.#decoded = 0;
      this.#log.warn({ event: 'decoder.died', reason }, 'a decoder died; another continues');
      this.#events.onRestart(reason);
      // What the dead one had taken is lost, and what waited for it: it would begin in the middle of a frame.
      this.#batch = [];
      this.#batchBytes = 0;
      this.buffer.seam();
      this.#transform = this.#start();
      const head = this.#head.resume();
      if (head.length > 0) this.#transform.write(head);
      this.#drained();
      return;
    }
    this.#closed = true;
    this.buffer.end();
    this.#events.onFailed(reason);
  }
}
