import { VezaError } from '../runtime/errors.js';

/** The starts of decoders are counted over this time. */
const WINDOW_MS = 10_000;
/**
 * Starts per window of one connection, at most. Starting a child blocks the event loop for about 5
 * ms: a broadcaster who changed codec with every message blocked it for 0.9 to 2.9 s. An encoder
 * starts one decoder. An Ogg playlist that changes codec starts one per song, and a line that fails
 * every second one per second.
 */
const MAX_OF_CONNECTION = 10;
/** At most this many decoder starts of a channel per window, over all its connections. */
const MAX_OF_CHANNEL = 20;

/** The starts of decoders of one connection, or of one channel, within the window. */
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

/** Counts the starts of decoders of one connection. */
export interface DecoderStarts {
  /**
   * To be called before a decoder is started. Throws `rate_limited` above the limit; a refused
   * start is not counted.
   */
  take(): void;
}

/**
 * Limits the starts of decoders per connection and per channel. A channel is forgotten ten seconds
 * after its last start.
 */
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
