import { VezaError } from '../runtime/errors.js';

/** The window in which decoders that are started are counted. */
const WINDOW_MS = 10_000;
/**
 * Starting a child holds the event loop for some 5 ms: a broadcaster who changed codec with every message held it for 0.9 to 2.9 s. An encoder
 * starts one decoder; a playlist in Ogg that changes codec one a song; a line that breaks every second one a second.
 */
const MAX_OF_CONNECTION = 10;
const MAX_OF_CHANNEL = 20;

/** Counts the decoders of one connection, or of one channel, in the last ten seconds. */
class RecentStarts {
  #startedMs: number[] = [];

  countAt(nowMs: number): number {
    this.#startedMs = this.#startedMs.filter((startedMs) => nowMs - startedMs < WINDOW_MS);
    return this.#startedMs.length;
  }

  add(nowMs: number): void {
    this.#startedMs.push(nowMs);
  }
}

/** What a connection asks before each decoder that is started for it. */
export interface DecoderStarts {
  /** Throws `rate_limited` above the limit. A refused one is not counted. */
  take(): void;
}

/** The limit of decoders started, by connection and by channel. A channel is forgotten ten seconds after its last one. */
export class DecoderStartLimits {
  readonly #nowMs: () => number;
  readonly #channels = new Map<string, RecentStarts>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  forConnection(channel: string): DecoderStarts {
    const own = new RecentStarts();
    return {
      take: () => {
        const nowMs = this.#nowMs();
        for (const [slug, starts] of this.#channels) if (starts.countAt(nowMs) === 0) this.#channels.delete(slug);
        const ofChannel = this.#channels.get(channel) ?? new RecentStarts();
        if (own.countAt(nowMs) >= MAX_OF_CONNECTION || ofChannel.countAt(nowMs) >= MAX_OF_CHANNEL) {
          throw new VezaError('rate_limited', 'the audio changed its format, or broke off, too often; try again in ten seconds');
        }
        own.add(nowMs);
        ofChannel.add(nowMs);
        this.#channels.set(channel, ofChannel);
      },
    };
  }
}
