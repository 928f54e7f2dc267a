import type { ServerResponse } from 'node:http';
import type { Edge, LiveView } from '../../live/edge.js';
import { samplesOf } from '../../media/cmaf-read.js';
import { CHANNELS, FRAME_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../../media/ladder.js';
import { OggOpusWriter } from '../../media/ogg.js';
import { adts, icyMetadata, NO_ICY_METADATA, withoutId3 } from '../../media/progressive.js';
import { type MediaTimeline, runOf, segmentName, type Title, wallMsOf } from '../../media/timeline.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { reportUnexpected } from '../../runtime/unexpected.js';

/** Length of sound that a new listener is sent at once: a player's buffer fills, and it starts. */
const BURST_MS = 2000;
/**
 * A listener with more unsent bytes than this length of its stream, or than `MAX_QUEUE_BYTES`, is
 * disconnected.
 */
const MAX_QUEUE_S = 15;
const MAX_QUEUE_BYTES = 512 * 1024;
/** Bytes of sound between two titles. */
export const ICY_INTERVAL_BYTES = 16_000;
/** RFC 7845 4.6: a listener that joins in the middle discards 80 ms while the decoder converges. */
const OPUS_PRE_SKIP = 3840;
/** Listeners that are written to before other work gets its turn. */
const SLICE = 256;

/** How long streams stay open without sound while their worker is unavailable. */
const MAX_AWAY_MS = 30_000;
const AWAY_RETRY_MS = 250;

export interface EndlessStreamOptions {
  readonly edge: Edge;
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: { slowListeners: number };
}

/** Whole frames that were published together, encoded for the stream. */
interface StreamPiece {
  readonly bytes: Buffer;
  readonly startWallMs: number;
  readonly durationMs: number;
}

/**
 * Follows one rendition through its segments, keeps the last two seconds and writes the same bytes
 * to every listener.
 */
export class EndlessStream {
  readonly broadcastId: string;
  readonly #edge: Edge;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #counters: { slowListeners: number };
  readonly #channel: string;
  readonly #rendition: Rendition;
  readonly #stopped: () => void;
  readonly #listeners = new Set<StreamListener>();
  readonly #ogg: OggOpusWriter | undefined;
  readonly #head: Buffer | undefined;
  /** The newest pieces, oldest first; `#nextPiece` is the number of the next new one. */
  #pieces: StreamPiece[] = [];
  #nextPiece = 0;
  #granule = 0;
  #timeline: MediaTimeline;
  /** The segment that is being read, and the chunks and samples of it that were read. */
  #number = 0;
  #chunks = 0;
  #samples = 0;
  #unfollow: (() => void) | undefined;
  /** Time at which the worker of this stream became unavailable. */
  #awaySinceMs: number | undefined;
  #writing = false;
  #live = true;

  constructor(options: EndlessStreamOptions, view: LiveView, rendition: Rendition, stopped: () => void) {
    this.broadcastId = view.timeline.broadcastId;
    this.#edge = options.edge;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#counters = options.counters;
    this.#channel = view.channel;
    this.#rendition = rendition;
    this.#timeline = view.timeline;
    this.#stopped = stopped;
    if (rendition.codec === 'opus') {
      this.#ogg = new OggOpusWriter(Math.floor(Math.random() * 2 ** 32));
      this.#head = Buffer.from(this.#ogg.head({ channels: CHANNELS, preSkip: OPUS_PRE_SKIP }));
    }
  }

  /** Starts reading early enough for the start burst. */
  start(): void {
    const { grid, firstNumber, progress } = this.#timeline;
    const back = Math.ceil((BURST_MS * SAMPLE_RATE_HZ) / 1000 / grid.segmentSamples);
    this.#number = Math.max(firstNumber, (progress[this.#rendition.codec]?.openNumber ?? firstNumber) - back);
    this.#read();
  }

  add(listener: StreamListener): void {
    listener.nextPiece = this.#nextPiece - this.#burstPieces();
    this.#listeners.add(listener);
    listener.res.once('close', () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.stop();
    });
    if (this.#head) listener.res.write(this.#head);
    this.#feed(listener);
    if (!this.#live) listener.res.end();
  }

  /** Ends the stream of every listener; harmless when called twice. */
  stop(): void {
    if (!this.#live) return;
    this.#live = false;
    this.#unfollow?.();
    this.#stopped();
    for (const listener of this.#listeners) {
      this.#feed(listener);
      listener.res.end();
    }
  }

  /** Reads all that is published, then waits for the next change. */
  readonly #read = () => {
    this.#unfollow = undefined;
    while (this.#live) {
      const view = this.#view();
      if (view === 'away') {
        this.#unfollow = this.#clock.after(AWAY_RETRY_MS, this.#read);
        return;
      }
      if (!view || view.timeline.broadcastId !== this.broadcastId) {
        this.stop();
        return;
      }
      this.#timeline = view.timeline;
      const { codec } = this.#rendition;
      const openNumber = view.timeline.progress[codec]?.openNumber ?? view.timeline.firstNumber;
      const name = segmentName(runOf(view.timeline, this.#number).id, this.#number, codec);
      const media = view.timeline.gaps.has(this.#number) ? undefined : view.media(this.#rendition.name, name);
      if (!media && this.#number < openNumber) {
        this.#next();
        continue;
      }
      if (media?.loading) {
        let isWanted = true;
        this.#unfollow = () => {
          isWanted = false;
        };
        media.loading.then(
          () => isWanted && this.#read(),
          // The segment could not be loaded: try again at the next change.
          () => {
            if (isWanted) this.#unfollow = view.onChange(this.#read);
          },
        );
        return;
      }
      if (!media) {
        if (view.timeline.ended) this.stop();
        else this.#unfollow = view.onChange(this.#read);
        return;
      }
      for (const chunk of media.chunks.slice(this.#chunks)) this.#take(chunk);
      if (media.complete) {
        this.#next();
        continue;
      }
      this.#unfollow = media.follow((chunk, aborted) => {
        // The title of a chunk may have arrived together with it.
        const now = this.#view();
        if (now && now !== 'away') this.#timeline = now.timeline;
        if (chunk) {
          this.#take(chunk);
          return;
        }
        this.#unfollow?.();
        if (aborted)
          this.#log.info(
            { event: 'playback.stream_continued', channel: this.#channel, rendition: this.#rendition.name },
            'an endless stream continues with the next run',
          );
        this.#next();
        this.#read();
      });
      return;
    }
  };

  /**
   * `away`: the worker may come back. Undefined: the broadcast is over, or the worker was
   * unavailable for too long.
   */
  #view(): LiveView | 'away' | undefined {
    try {
      const view = this.#edge.view(this.#channel);
      this.#awaySinceMs = undefined;
      return view;
    } catch (error) {
      if (!(error instanceof VezaError)) throw error;
      const nowMs = this.#clock.monotonicMs();
      this.#awaySinceMs ??= nowMs;
      return nowMs - this.#awaySinceMs < MAX_AWAY_MS ? 'away' : undefined;
    }
  }

  #next(): void {
    this.#number++;
    this.#chunks = 0;
    this.#samples = 0;
  }

  #take(chunk: Uint8Array): void {
    this.#chunks++;
    let made: { bytes: Buffer; samples: number };
    try {
      made = this.#encode(chunk);
    } catch (error) {
      this.#log.error(
        { event: 'playback.stream_chunk_skipped', channel: this.#channel, rendition: this.#rendition.name, error: messageOf(error) },
        'a chunk of an endless stream was skipped',
      );
      return;
    }
    if (made.samples === 0) return;
    const startWallMs = wallMsOf(this.#timeline, this.#number) + (this.#samples * 1000) / SAMPLE_RATE_HZ;
    this.#samples += made.samples;
    const durationMs = (made.samples * 1000) / SAMPLE_RATE_HZ;
    this.#pieces.push({ bytes: made.bytes, startWallMs, durationMs });
    this.#nextPiece++;
    if (this.#writing) return;
    this.#writing = true;
    // The packager calls this and must not wait for the writing.
    setImmediate(() => this.#write([...this.#listeners], 0));
  }

  #encode(chunk: Uint8Array): { bytes: Buffer; samples: number } {
    const { codec, bitrateKbps } = this.#rendition;
    if (codec === 'mp3') {
      const bytes = withoutId3(chunk);
      // The bitrate is constant, so the number of bytes gives the duration.
      return { bytes, samples: Math.round((bytes.length * 8 * SAMPLE_RATE_HZ) / (bitrateKbps * 1000)) };
    }
    const frames = samplesOf(chunk);
    const samples = frames.length * FRAME_SAMPLES[codec];
    if (!this.#ogg) return { bytes: adts(frames), samples };
    if (samples > 0) this.#granule += samples;
    return { bytes: Buffer.from(samples > 0 ? this.#ogg.page(frames, this.#granule) : []), samples };
  }

  #write(listeners: StreamListener[], from: number): void {
    for (let i = from; i < listeners.length; i++) {
      if (i === from + SLICE) {
        setImmediate(() => this.#write(listeners, i));
        return;
      }
      const listener = listeners[i]!;
      try {
        this.#feed(listener);
      } catch (error) {
        reportUnexpected(error);
        listener.res.destroy();
      }
    }
    this.#writing = false;
    // Older pieces are discarded only after every listener got them.
    this.#pieces.splice(0, this.#pieces.length - this.#burstPieces());
  }

  /** Number of the newest pieces that hold at least `BURST_MS`. */
  #burstPieces(): number {
    let count = 0;
    for (let ms = 0; ms < BURST_MS && count < this.#pieces.length; count++) ms += this.#pieces.at(-1 - count)!.durationMs;
    return count;
  }

  #feed(listener: StreamListener): void {
    if (listener.res.destroyed || listener.res.writableEnded) return;
    const oldest = this.#nextPiece - this.#pieces.length;
    if (listener.nextPiece < oldest) listener.nextPiece = oldest;
    while (listener.nextPiece < this.#nextPiece) {
      if (!listener.write(this.#pieces[listener.nextPiece++ - oldest]!, this.#timeline.titles)) {
        this.#counters.slowListeners++;
        listener.res.destroy();
        return;
      }
    }
  }
}

export class StreamListener {
  readonly res: ServerResponse;
  nextPiece = 0;
  readonly #icy: boolean;
  readonly #maxQueueBytes: number;
  #untilMetadata = ICY_INTERVAL_BYTES;
  #shownTitle: string | undefined;

  constructor(res: ServerResponse, icy: boolean, bitrateKbps: number) {
    this.res = res;
    this.#icy = icy;
    this.#maxQueueBytes = Math.min(MAX_QUEUE_BYTES, MAX_QUEUE_S * bitrateKbps * 125);
  }

  /** False when the listener reads too slowly and must be disconnected. */
  write(piece: StreamPiece, titles: readonly Title[]): boolean {
    let at = 0;
    if (this.#icy) {
      while (piece.bytes.length - at >= this.#untilMetadata) {
        const end = at + this.#untilMetadata;
        this.res.write(piece.bytes.subarray(at, end));
        const heardMs = piece.startWallMs + (piece.durationMs * end) / piece.bytes.length;
        this.res.write(this.#metadata(titles, heardMs));
        this.#untilMetadata = ICY_INTERVAL_BYTES;
        at = end;
      }
      this.#untilMetadata -= piece.bytes.length - at;
    }
    if (at < piece.bytes.length) this.res.write(at === 0 ? piece.bytes : piece.bytes.subarray(at));
    return this.res.writableLength <= this.#maxQueueBytes;
  }

  #metadata(titles: readonly Title[], heardMs: number): Buffer {
    const title = titles.findLast((candidate) => candidate.startWallMs <= heardMs);
    if (!title || title.id === this.#shownTitle) return NO_ICY_METADATA;
    this.#shownTitle = title.id;
    return icyMetadata(title);
  }
}
