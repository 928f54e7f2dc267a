import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Edge, LiveView } from '../../live/edge.js';
import { samplesOf } from '../../media/cmaf-read.js';
import { CHANNELS, type Codec, FRAME_SAMPLES, type Rendition, SAMPLE_RATE_HZ } from '../../media/ladder.js';
import { OggOpusWriter } from '../../media/ogg.js';
import { adts, icyMetadata, NO_ICY_METADATA, withoutId3 } from '../../media/progressive.js';
import { runOf, segmentName, type Timeline, type Title, wallMsOf } from '../../media/timeline.js';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { reportUnexpected } from '../../runtime/unexpected.js';
import { type Admissions, NO_CHANNEL } from './admission.js';
import type { Audience } from './audience.js';
import { answersCondition, corsExposing } from './media-response.js';
import type { RequestPlaces } from './request-places.js';

interface ListenOptions {
  readonly edge: Edge;
  readonly clock: Clock;
  readonly log: Log;
  readonly audience: Audience;
  readonly counters: { slowListeners: number; refused: number };
  readonly titleOf?: (channel: string) => string;
  readonly admissions?: Pick<Admissions, 'live' | 'staysAdmitted'>;
  readonly maxListenersPerStream?: number;
  readonly places: RequestPlaces;
}

type Format = 'mp3' | 'aac' | 'opus';

const CONTENT_TYPE: Readonly<Record<Format, string>> = { mp3: 'audio/mpeg', aac: 'audio/aac', opus: 'audio/ogg' };
/** Of several rungs of a codec, the nearest to this. */
const PREFERRED_KBPS = 128;
/** Sent at once to a new listener, so that a player's buffer fills and it starts. */
const BURST_MS = 2000;
/** Unsent bytes at which a listener is disconnected: this long of its stream, and never more than `MAX_QUEUE_BYTES`. */
const MAX_QUEUE_S = 15;
const MAX_QUEUE_BYTES = 512 * 1024;
const ICY_INTERVAL_BYTES = 16_000;
/** A page that asks for titles within the stream finds them by `icy-metaint`. */
const ICY_CORS = corsExposing('Date, icy-br, icy-metaint, icy-name, ice-audio-info');
/** RFC 7845 §4.6: who joins in the middle discards 80 ms while the decoder converges. */
const OPUS_PRE_SKIP = 3840;
/** Listeners written before other work gets its turn. */
const SLICE = 256;

/** How often it is asked whether who listens may listen on: the link may have expired, or the channel have become private. */
const RECHECK_MS = 500;

/** Streams are left open for so long without a sound while the worker that makes them is away. */
const MAX_AWAY_MS = 30_000;
const AWAY_RETRY_MS = 250;

const PATH = /^([a-z0-9][a-z0-9_-]{0,127})\.(mp3|aac|opus)$/;

/**
 * `/listen/{channel}.mp3|.aac|.opus`: endless streams for players that know nothing of manifests. Each (channel, format) that has
 * listeners has one `Broadcaster`, which makes the bytes once for all of them.
 */
export class Listen {
  readonly #options: ListenOptions;
  readonly #broadcasters = new Map<string, Broadcaster>();
  readonly #open = new Set<{ req: IncomingMessage; res: ServerResponse; channel: string; token: string | undefined }>();
  #cancelRecheck: (() => void) | undefined;

  constructor(options: ListenOptions) {
    this.#options = options;
  }

  /** `path` is what follows `/listen/`; `token` that of the link. Throws VezaError when there is nothing to hear. */
  handle(req: IncomingMessage, res: ServerResponse, path: string, token?: string): void {
    const found = PATH.exec(path);
    if (!found) throw new VezaError('not_found', 'no such address');
    const channel = found[1]!;
    const format = found[2] as Format;
    const { edge, audience, counters, maxListenersPerStream, admissions } = this.#options;
    const pass = admissions?.live(req, channel, token, 'manifest').pass;
    const view = edge.view(channel);
    if (!view || view.timeline.ended) throw new VezaError('not_found', NO_CHANNEL);
    const rendition = pick(view, format);
    if (!rendition) throw new VezaError('not_found', `the channel has no ${format}`);
    if (!pass && maxListenersPerStream !== undefined && audience.count(channel) >= maxListenersPerStream) {
      counters.refused++;
      throw new VezaError('busy', 'the channel has as many listeners as it may have');
    }

    // HTTP/2 has many streams on one connection, so that the limits of connections are none here.
    this.#options.places.take('endless', req, res, channel);
    if (answersCondition(req, res, undefined)) return;
    const icy = format !== 'opus' && req.headers['icy-metadata'] === '1';
    // Without length and without chunks, as every player of such streams has known it: the end of the connection is the end.
    res.useChunkedEncodingByDefault = false;
    res.writeHead(200, [
      'Content-Type',
      CONTENT_TYPE[format],
      'Cache-Control',
      'no-store',
      'Connection',
      'close',
      'icy-name',
      headerText(this.#options.titleOf?.(channel) ?? channel),
      'icy-br',
      String(rendition.bitrateKbps),
      'ice-audio-info',
      `ice-samplerate=${SAMPLE_RATE_HZ};ice-bitrate=${rendition.bitrateKbps};ice-channels=${CHANNELS}`,
      ...(icy ? ['icy-metaint', String(ICY_INTERVAL_BYTES)] : []),
      ...ICY_CORS,
    ]);
    if (req.method === 'HEAD') {
      res.end();
      return;
    }
    const key = `${channel}.${format}`;
    let broadcaster = this.#broadcasters.get(key);
    if (!broadcaster || broadcaster.broadcastId !== view.timeline.broadcastId) {
      broadcaster?.stop();
      const made: Broadcaster = new Broadcaster(this.#options, view, rendition, () => {
        if (this.#broadcasters.get(key) === made) this.#broadcasters.delete(key);
      });
      broadcaster = made;
      this.#broadcasters.set(key, made);
      made.start();
    }
    res.once('close', audience.connect(channel));
    this.#watch(req, res, channel, token);
    broadcaster.add(new Listener(res, icy, rendition.bitrateKbps));
  }

  /** An endless stream asks for nothing that could be refused: what would be refused is ended. */
  #watch(req: IncomingMessage, res: ServerResponse, channel: string, token: string | undefined): void {
    const { admissions, clock } = this.#options;
    if (!admissions) return;
    const open = { req, res, channel, token };
    this.#open.add(open);
    res.once('close', () => {
      this.#open.delete(open);
      if (this.#open.size > 0) return;
      this.#cancelRecheck?.();
      this.#cancelRecheck = undefined;
    });
    this.#cancelRecheck ??= clock.every(RECHECK_MS, () => {
      each(this.#open, (listener) => {
        if (!admissions.staysAdmitted(listener.req, listener.channel, listener.token)) listener.res.end();
      });
    });
  }

  /** Ends all streams. */
  stop(): void {
    for (const broadcaster of this.#broadcasters.values()) broadcaster.stop();
  }
}

function pick(view: LiveView, codec: Codec): Rendition | undefined {
  const away = (rendition: Rendition) => Math.abs(rendition.bitrateKbps - PREFERRED_KBPS);
  return view.renditions.filter((rendition) => rendition.codec === codec).sort((a, b) => away(a) - away(b))[0];
}

/** A header's value in the bytes that Icecast's clients expect, UTF-8, without what a header may not hold. */
const headerText = (text: string) => Buffer.from(text.replace(/\p{Cc}/gu, ' '), 'utf8').toString('latin1');

/** Whole frames that were published together, in the form of the stream. */
interface Piece {
  readonly bytes: Buffer;
  readonly startWallMs: number;
  readonly durationMs: number;
}

/** Follows one rendition through its segments, keeps the last two seconds, and writes the same bytes to every listener. */
class Broadcaster {
  readonly broadcastId: string;
  readonly #edge: Edge;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #counters: { slowListeners: number };
  readonly #channel: string;
  readonly #rendition: Rendition;
  readonly #stopped: () => void;
  readonly #listeners = new Set<Listener>();
  readonly #ogg: OggOpusWriter | undefined;
  readonly #head: Buffer | undefined;
  /** Oldest first; `#nextPiece` is the number of the one that comes next. */
  #pieces: Piece[] = [];
  #nextPiece = 0;
  #granule = 0;
  #timeline: Timeline;
  /** Segment that is read, chunks of it that were, and samples in those. */
  #number = 0;
  #chunks = 0;
  #samples = 0;
  #unfollow: (() => void) | undefined;
  /** Since when the worker that makes the stream has been away. */
  #awaySinceMs: number | undefined;
  #writing = false;
  #live = true;

  constructor(options: ListenOptions, view: LiveView, rendition: Rendition, stopped: () => void) {
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

  /** Begins far enough back that the start burst is there. */
  start(): void {
    const { grid, firstNumber, progress } = this.#timeline;
    const back = Math.ceil((BURST_MS * SAMPLE_RATE_HZ) / 1000 / grid.segmentSamples);
    this.#number = Math.max(firstNumber, (progress[this.#rendition.codec]?.openNumber ?? firstNumber) - back);
    this.#read();
  }

  add(listener: Listener): void {
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

  /** Ends every listener's stream; harmless when called twice. */
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

  /** Reads what there is and arranges to be called for what comes. */
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
          // Looked for again when something else has happened.
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
        // The title that goes with a chunk may have come with it.
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

  /** `away`: whoever makes the stream may come back; undefined: it has an end, or that has lasted too long. */
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
    // The packager, which calls this, does not wait for the writing.
    setImmediate(() => this.#write([...this.#listeners], 0));
  }

  #encode(chunk: Uint8Array): { bytes: Buffer; samples: number } {
    const { codec, bitrateKbps } = this.#rendition;
    if (codec === 'mp3') {
      const bytes = withoutId3(chunk);
      // Constant bitrate: bytes are time.
      return { bytes, samples: Math.round((bytes.length * 8 * SAMPLE_RATE_HZ) / (bitrateKbps * 1000)) };
    }
    const frames = samplesOf(chunk);
    const samples = frames.length * FRAME_SAMPLES[codec];
    if (!this.#ogg) return { bytes: adts(frames), samples };
    if (samples > 0) this.#granule += samples;
    return { bytes: Buffer.from(samples > 0 ? this.#ogg.page(frames, this.#granule) : []), samples };
  }

  #write(listeners: Listener[], from: number): void {
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
    // Only now, when everybody has been given them, are the older pieces let go.
    this.#pieces.splice(0, this.#pieces.length - this.#burstPieces());
  }

  /** How many of the newest pieces hold two seconds. */
  #burstPieces(): number {
    let count = 0;
    for (let ms = 0; ms < BURST_MS && count < this.#pieces.length; count++) ms += this.#pieces.at(-1 - count)!.durationMs;
    return count;
  }

  #feed(listener: Listener): void {
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

class Listener {
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

  /** False when the listener reads too slowly to be kept. */
  write(piece: Piece, titles: readonly Title[]): boolean {
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
