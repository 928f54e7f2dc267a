import type { Ffmpeg, Transform, TransformEvents } from '../../src/backing/ffmpeg.js';
import { FRAME_SAMPLES, type Rendition } from '../../src/media/ladder.js';

/**
 * Stands in for ffmpeg where only time, order and numbers matter. A decoder takes its input for PCM. An encoder makes a frame of
 * each rendition as soon as the codec's frame is full, one byte of it its position's checksum, without delay and without sound.
 */
export class FakeFfmpeg {
  readonly path = 'fake';
  readonly decoders: FakeTransform[] = [];
  readonly encoders: FakeTransform[] = [];
  /** Samples of silence that encoders were given. */
  silentSamples = 0;
  /** Samples that encoders were given, by the upper byte of the left one. */
  readonly heard = new Map<number, number>();
  /** The longest silence with sound on both sides, in samples. */
  longestSilenceBetweenSound = 0;
  #silence = Number.NEGATIVE_INFINITY;
  /** Encoders give nothing by themselves: they have no processor. */
  encodersAreStarved = false;
  readonly #waiting: (() => void)[] = [];

  /** Starved encoders give this many frames, or exit when there is no other. */
  give(frames: number): void {
    for (const next of this.#waiting.splice(0, frames)) next();
  }

  #listen(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += 4) {
      const upper = bytes[at + 1] ?? 0;
      if (bytes[at] === 0 && upper === 0) {
        this.silentSamples += 1;
        this.#silence += 1;
        continue;
      }
      this.heard.set(upper, (this.heard.get(upper) ?? 0) + 1);
      this.longestSilenceBetweenSound = Math.max(this.longestSilenceBetweenSound, this.#silence);
      this.#silence = 0;
    }
  }

  decoder(_format: string, events: TransformEvents): Transform {
    const transform: FakeTransform = new FakeTransform(events, (bytes) => events.onData(Buffer.from(bytes)));
    this.decoders.push(transform);
    return transform;
  }

  encoder(renditions: readonly Rendition[], events: TransformEvents): Transform {
    let samples = 0;
    const made = renditions.map(() => 0);
    const put = (final: boolean) => {
      for (const [index, rendition] of renditions.entries()) {
        const frame = FRAME_SAMPLES[rendition.codec];
        // A real one gives what is in it at the end, filled up.
        while (((made[index] ?? 0) + (final ? 0 : 1)) * frame <= samples) {
          const block = simpleBlock(index + 1, made[index] ?? 0);
          if (this.encodersAreStarved) this.#waiting.push(() => events.onData(block));
          else events.onData(block);
          made[index] = (made[index] ?? 0) + 1;
        }
      }
    };
    const transform = new FakeTransform(
      events,
      (bytes) => {
        samples += bytes.length / 4;
        this.#listen(bytes);
        put(false);
      },
      () => put(true),
      (exit) => {
        if (this.encodersAreStarved) this.#waiting.push(exit);
        else exit();
      },
    );
    this.encoders.push(transform);
    return transform;
  }

  get asFfmpeg(): Ffmpeg {
    return this as unknown as Ffmpeg;
  }
}

export class FakeTransform implements Transform {
  readonly pid = undefined;
  dead = false;
  /** It does not exit at the end of its input. */
  holdEnd = false;
  readonly #events: TransformEvents;
  readonly #take: (bytes: Uint8Array) => void;
  readonly #flush: () => void;
  readonly #exitAfter: (exit: () => void) => void;

  constructor(
    events: TransformEvents,
    take: (bytes: Uint8Array) => void,
    flush: () => void = () => undefined,
    exitAfter: (exit: () => void) => void = (exit) => exit(),
  ) {
    this.#events = events;
    this.#take = take;
    this.#flush = flush;
    this.#exitAfter = exitAfter;
  }

  write(bytes: Uint8Array): boolean {
    if (!this.dead) this.#take(bytes);
    return true;
  }

  end(): void {
    if (this.dead || this.holdEnd) return;
    this.#flush();
    this.#exitAfter(() => this.#exit(undefined));
  }

  /** What was still in it comes out after the end of its input, and it exits. */
  late(bytes: Uint8Array): void {
    this.#take(bytes);
    this.#exit(undefined);
  }

  kill(): void {
    if (!this.dead) this.#exit('killed');
  }

  /** It dies by itself, as by a bug or the kernel. */
  crash(): void {
    this.#exit('crashed');
  }

  pause(): void {}
  resume(): void {}

  #exit(error: string | undefined): void {
    this.dead = true;
    queueMicrotask(() => this.#events.onExit(error));
  }
}

/** A Matroska SimpleBlock with four bytes of payload: the frame's place in its encoder's output. */
function simpleBlock(track: number, index: number): Buffer {
  const block = Buffer.alloc(10);
  block[0] = 0xa3;
  block[1] = 0x88;
  block[2] = 0x80 | track;
  block.writeUInt32BE(index, 6);
  return block;
}
