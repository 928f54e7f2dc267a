import type { DecodableFormat, Ffmpeg, Transform } from '../backing/ffmpeg.js';
import { CHANNELS } from '../media/ladder.js';
import { StreamHead } from '../media/stream-head.js';
import type { Clock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { PcmBuffer } from './pcm-buffer.js';

const BYTES_PER_SAMPLE = CHANNELS * 2;
/** A decoder that dies again and again is restarted at most this many times in a row. */
const MAX_RESTARTS_IN_A_ROW = 3;
/** After it has put out this much sound, a decoder's earlier restarts no longer count. */
const PROVEN_SAMPLES = 48_000;

/**
 * Bytes that arrive within this time are written to the decoder together. Each write wakes Node and
 * the decoder, and an encoder sends a message every 21 ms.
 */
const DECODER_BATCH_MS = 60;
/** A batch of this size is written at once. */
const BATCH_BYTES = 8192;

export interface SourceDecoderEvents {
  /** Called when the decoder takes bytes again, after `write` has returned false. */
  onDrain(): void;
  /**
   * Called when the source cannot be decoded, or not any further. The reason is for the
   * broadcaster. The sound in the buffer is still played.
   */
  onFailed(reason: string): void;
  onCut(removedMs: number): void;
  onRestart(reason: string): void;
}

/**
 * Decodes one source: container bytes in, PCM in its buffer. A decoder that dies is replaced, and
 * goes on with the same buffer.
 */
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
  /** Monotonic time at which bytes last arrived. */
  lastBytesMs: number;
  /** Monotonic time at which the input last ended or the decoder last put out sound. */
  lastProgressMs: number;

  constructor(options: {
    ffmpeg: Ffmpeg;
    format: DecodableFormat;
    targetMs: number | undefined;
    /** Called before a decoder that died is replaced. Throws when it must not be. */
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

  /** Ends the input. The bytes that arrived are decoded and stay in the buffer. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.lastProgressMs = this.#clock.monotonicMs();
    this.#flush();
    this.#transform.end();
  }

  /** Kills the decoder; no more sound is put into the buffer. */
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
    // A typed array needs an even offset; a buffer of Node's pool may have an odd one.
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
      // The bytes that the dead decoder had are lost. Those that wait are discarded, because they
      // begin in the middle of a frame.
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
