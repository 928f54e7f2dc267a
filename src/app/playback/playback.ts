import type { IncomingMessage, ServerResponse } from 'node:http';
import type Koa from 'koa';
import type { ObjectStore } from '../../backing/object-store/object-store.js';
import type { Edge, LiveMedia } from '../../live/edge.js';
import { decideReload, isReached } from '../../media/hls.js';
import { type Codec, type Rendition, SAMPLE_RATE_HZ } from '../../media/ladder.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { type Admissions, NO_CHANNEL, NO_RECORDING, NO_SEGMENT } from './admission.js';
import { Audience } from './audience.js';
import { Listen } from './listen.js';
import { isAhead, isComing, LiveChannel, type MediaName, waitMs } from './live-channel.js';
import {
  acceptsGzip,
  answersCondition,
  CACHE,
  CACHE_PRIVATE,
  CORS,
  mediaHeaders,
  PLAYBACK_METHODS,
  sendError,
  sendMedia,
  sendPreflight,
  sendProblem,
} from './media-response.js';
import { CMCD_SESSION, parseQuery, type Query } from './query.js';
import { RequestPlaces } from './request-places.js';
import { isRefused, type RefusalNow, StoredMedia } from './stored-media.js';
import type { Answer, Waiter } from './waiting.js';

export interface PlaybackOptions {
  readonly edge: Edge;
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly log: Log;
  /** How far back `dvr.m3u8` and the MPD reach, seconds. */
  readonly dvrWindowS: number;
  /** Where players of the MPD read the clock; `/time` of the same host unless given. */
  readonly utcTimingUrl?: string;
  /** Requests that may wait at one time, all channels together, in the shares of `Places`; one more gets 503. As many listeners of endless streams beside them. */
  readonly maxWaiting?: number;
  /** Listeners of a channel (an estimate) from which a new one gets 503, unless he has a link; unlimited unless given. */
  readonly maxListenersPerStream?: number;
  /** Who may play what; everybody everything, unless given. */
  readonly admissions?: Admissions;
  /** A channel's name for `icy-name`; the slug unless given. */
  readonly titleOf?: (channel: string) => string;
  /** The client's address; behind a trusted proxy the one that it names. */
  readonly addressOf?: (req: IncomingMessage) => string;
}

/** Rising counts, read by the metrics; `waiting` is what is there now. */
export interface PlaybackCounters {
  requests: number;
  /** Manifests made; less than requests by what the cache saves. */
  renders: number;
  waiting: number;
  /** Waited for 3 target durations in vain. */
  timeouts: number;
  /** Refused for `maxWaiting` or `maxListenersPerStream`. */
  refused: number;
  objectReads: number;
  /** Responses destroyed because the run died under them. */
  aborted: number;
  /** Listeners of `/listen` that read too slowly and were disconnected. */
  slowListeners: number;
}

const DEFAULT_MAX_WAITING = 100_000;
/** How long a listener is remembered after a manifest request: three segments of the default length. */
const AUDIENCE_WINDOW_MS = 6000;
const SWEEP_MS = 10_000;

/** No capitals: on a file system to which they mean nothing, they would be another name for the same thing. */
const NAME = /^[a-z0-9][a-z0-9_-]{0,127}$/;
const RENDITION = /^(aac|opus|mp3)-\d{1,4}$/;
const MEDIA_NAME = /^([A-Za-z0-9]{1,64})-(?:init\.mp4|(0|[1-9]\d{0,14})(?:\.(0|[1-9]\d{0,5})\.m4s|\.m4s|\.mp3))$/;
/** On what terms a request is answered. */
interface Terms {
  readonly cache: typeof CACHE | typeof CACHE_PRIVATE;
  /** Of a listener with a link. */
  readonly listener: string | undefined;
  /** Of the address. */
  readonly token: string | undefined;
}

const OPEN: Terms = { cache: CACHE, listener: undefined, token: undefined };

/**
 * The playback edge: manifests and media of what is on air from memory, everything else from the object store. It comes before
 * all other middleware and writes to Node's response itself, because a low-latency listener makes six requests a second.
 *
 * A live manifest is rendered and compressed once for each state of the timeline and sent to all who ask. Requests for what is not
 * there yet wait in one group for each thing (`WaitingRoom`).
 */
export class Playback {
  readonly counters: PlaybackCounters = {
    requests: 0,
    renders: 0,
    waiting: 0,
    timeouts: 0,
    refused: 0,
    objectReads: 0,
    aborted: 0,
    slowListeners: 0,
  };

  readonly #options: PlaybackOptions;
  readonly #channels = new Map<string, LiveChannel>();
  readonly #failureLog: BoundedLog;
  readonly #audience: Audience;
  readonly #stored: StoredMedia;
  readonly #listen: Listen;
  readonly #places: RequestPlaces;
  #sweptMs = 0;
  #stopped = false;

  constructor(options: PlaybackOptions) {
    this.#options = options;
    const { maxWaiting = DEFAULT_MAX_WAITING, addressOf } = options;
    this.#places = new RequestPlaces({ maxWaiting, addressOf, counters: this.counters });
    this.#failureLog = new BoundedLog(options.log, options.clock);
    this.#audience = new Audience(options.clock, AUDIENCE_WINDOW_MS);
    this.#stored = new StoredMedia({ ...options, counters: this.counters, places: this.#places });
    this.#listen = new Listen({ ...options, counters: this.counters, audience: this.#audience, places: this.#places });
  }

  /** Koa's form of `handle`. Other paths go on to the next. */
  readonly middleware: Koa.Middleware = (ctx, next) => {
    if (!this.handle(ctx.req, ctx.res)) return next();
    ctx.respond = false;
  };

  /** Answers the request (at once or later) and returns true, or returns false when the path is not one of playback's. */
  handle(req: IncomingMessage, res: ServerResponse): boolean {
    const url = req.url ?? '/';
    const queryAt = url.indexOf('?');
    let path = queryAt < 0 ? url : url.slice(0, queryAt);
    let token: string | undefined;
    // What begins with a token is answered here in any case: nobody else is to see it, the log least of all.
    const isSigned = path.startsWith('/t/');
    if (isSigned) {
      const end = path.indexOf('/', 3);
      token = path.slice(3, end < 0 ? undefined : end);
      path = end < 0 ? '' : path.slice(end);
    }
    const kind = path.startsWith('/live/')
      ? 'live'
      : path.startsWith('/vod/')
        ? 'vod'
        : path.startsWith('/listen/')
          ? 'listen'
          : isSigned
            ? 'none'
            : path === '/time'
              ? 'time'
              : undefined;
    if (kind === undefined) return false;

    this.counters.requests++;
    try {
      if (req.method !== 'GET' && req.method !== 'HEAD') {
        if (req.method === 'OPTIONS') sendPreflight(res);
        else sendProblem(res, 'method_not_allowed', `only ${PLAYBACK_METHODS}`, ['Allow', PLAYBACK_METHODS]);
      } else if (kind === 'live') {
        this.#live(req, res, path, queryAt < 0 ? {} : parseQuery(url, queryAt + 1), token);
      } else if (kind === 'vod') {
        this.#vod(req, res, path, token);
      } else if (kind === 'listen') {
        if (this.#stopped) throw new VezaError('unavailable', 'stopping');
        const named = token ?? (queryAt < 0 ? undefined : parseQuery(url, queryAt + 1).token);
        this.#listen.handle(req, res, path.slice('/listen/'.length), named);
      } else if (kind === 'time') {
        this.#time(req, res);
      } else {
        throw new VezaError('not_found', 'no such address');
      }
    } catch (error) {
      if (!(error instanceof VezaError))
        this.#failureLog.error({ event: 'playback.request_failed', path, error: messageOf(error) }, 'a playback request failed');
      sendError(res, error);
    }
    return true;
  }

  /** Listeners of a channel now: an estimate from manifest requests, plus open `/listen` connections. */
  listeners(channel: string): number {
    return this.#audience.count(channel);
  }

  /** Ends what is endless (`/listen`) and releases what waits with 503, for a graceful stop; what needs no waiting is answered on. */
  stop(): void {
    this.#stopped = true;
    this.#listen.stop();
    for (const channel of this.#channels.values()) channel.waiting.releaseAll(({ res }) => sendProblem(res, 'unavailable', 'stopping'));
  }

  // xs:dateTime with milliseconds (DASH UTCTiming `http-iso`).
  #time(req: IncomingMessage, res: ServerResponse): void {
    if (answersCondition(req, res, undefined)) return;
    const body = new Date(this.#options.clock.wallMs()).toISOString();
    res.writeHead(200, ['Content-Type', 'text/plain', 'Content-Length', String(body.length), 'Cache-Control', CACHE.none, ...CORS]);
    res.end(body);
  }

  #live(req: IncomingMessage, res: ServerResponse, path: string, query: Query, token: string | undefined): void {
    const [, , name = '', second = '', third, more] = path.split('/', 6);
    if (!NAME.test(name) || more !== undefined) throw new VezaError('not_found', 'no such address');
    const isPlaylist = third === 'index.m3u8';
    const isManifest = third === undefined || isPlaylist || third === 'dvr.m3u8';
    const admission = this.#options.admissions?.live(req, name, token, isManifest ? 'manifest' : 'media');
    const terms: Terms = admission ? { cache: admission.isPrivate ? CACHE_PRIVATE : CACHE, listener: admission.pass?.id, token } : OPEN;
    let channel: LiveChannel | undefined;
    let away: VezaError | undefined;
    try {
      channel = this.#channel(name);
    } catch (error) {
      // What is in the store needs nobody else.
      if (isManifest || !(error instanceof VezaError)) throw error;
      away = error;
    }

    if (third === undefined) {
      if (!channel) throw new VezaError('not_found', NO_CHANNEL);
      this.#presentation(req, res, channel, second, query, terms);
      return;
    }
    if (isManifest) {
      if (!channel) throw new VezaError('not_found', NO_CHANNEL);
      const rendition = channel.view.renditions.find((candidate) => candidate.name === second);
      if (!rendition || !channel.view.timeline.progress[rendition.codec]) throw new VezaError('not_found', 'no such rendition');
      this.#seen(req, name, query, terms);
      if (isPlaylist) this.#playlist(req, res, channel, rendition, query, terms);
      else channel.dvr(rendition).reply(req, res, terms.cache.live);
      return;
    }
    const found = MEDIA_NAME.exec(third);
    if (!found || !RENDITION.test(second)) throw new VezaError('not_found', NO_SEGMENT);
    const [, run = '', number, part] = found;
    const wanted = {
      name: third ?? '',
      run,
      number: number === undefined ? undefined : Number(number),
      part: part === undefined ? undefined : Number(part),
    };
    this.#media(req, res, channel, name, second, wanted, terms, away);
  }

  #vod(req: IncomingMessage, res: ServerResponse, path: string, token: string | undefined): void {
    const [, , id = '', second = '', third, more] = path.split('/', 6);
    if (!NAME.test(id) || more !== undefined) throw new VezaError('not_found', NO_RECORDING);
    const isManifest = /\.(?:m3u8|mpd)$/.test(third ?? second);
    const admission = this.#options.admissions?.vod(req, id, token, isManifest ? 'manifest' : 'media');
    const cache = admission?.isPrivate ? CACHE_PRIVATE : CACHE;
    const refusalNow = () => this.#options.admissions?.vodRefusal(req, id, token, isManifest ? 'manifest' : 'media');
    const isMedia = third !== undefined && RENDITION.test(second) && MEDIA_NAME.test(third);
    this.#places.take('stored', req, res);
    if (isMedia && this.#options.admissions)
      this.#recorded(req, res, id, second, third, cache.immutable, refusalNow).catch((error: unknown) => sendError(res, error));
    // What a link opens, or what is not open at its channel's addresses, is listed at addresses of its own.
    else void this.#stored.vod(req, res, path.slice(1), cache, token !== undefined || admission?.restricted !== undefined, refusalNow);
  }

  /** A segment by the address of its recording: it is kept under that of its channel. */
  async #recorded(
    req: IncomingMessage,
    res: ServerResponse,
    id: string,
    rendition: string,
    file: string,
    cacheControl: string,
    refusalNow: RefusalNow,
  ): Promise<void> {
    const recording = await this.#options.admissions?.recording(id);
    if (!recording) return this.#stored.media(req, res, `vod/${id}/${rendition}/${file}`, cacheControl, refusalNow);
    const number = MEDIA_NAME.exec(file)?.[2];
    const isPart = MEDIA_NAME.exec(file)?.[3] !== undefined;
    if (isPart || (number !== undefined && !(Number(number) >= recording.from && Number(number) <= recording.to))) {
      sendProblem(res, 'not_found', NO_SEGMENT);
      return;
    }
    // Just now it was on air, and the store may not have it yet.
    const media = await this.#inMemory(recording.channel, rendition, file);
    if (media?.complete) {
      if (isRefused(res, refusalNow)) return;
      sendMedia(req, res, { chunks: media.chunks, contentType: media.contentType, cacheControl, tag: file });
      return;
    }
    return this.#stored.media(req, res, `live/${recording.channel}/${rendition}/${file}`, cacheControl, refusalNow);
  }

  /** Of a show that is over, or nearly. Whoever would know may be away: then it is in the store, or not to be had now. */
  async #inMemory(channel: string, rendition: string, file: string): Promise<LiveMedia | undefined> {
    try {
      const find = () => this.#options.edge.view(channel)?.media(rendition, file);
      await find()?.loading;
      return find();
    } catch {
      return undefined;
    }
  }

  /** The state kept for a channel that has a view, made or refreshed; undefined when it has none. */
  #channel(name: string): LiveChannel | undefined {
    const view = this.#options.edge.view(name);
    let channel = this.#channels.get(name);
    if (!view) {
      if (channel?.waiting.isEmpty) {
        this.#channels.delete(name);
        this.#audience.forget(name);
      }
      return undefined;
    }
    if (channel) {
      channel.refresh(view);
      return channel;
    }
    this.#sweep();
    channel = new LiveChannel(view, this.#options, this.counters);
    this.#channels.set(name, channel);
    return channel;
  }

  /** Forgets channels that went off air without a further request. */
  #sweep(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#sweptMs < SWEEP_MS) return;
    this.#sweptMs = nowMs;
    for (const [name, channel] of this.#channels) {
      if (!channel.waiting.isEmpty || this.#options.edge.view(name)) continue;
      this.#channels.delete(name);
      this.#audience.forget(name);
    }
  }

  #seen(req: IncomingMessage, channel: string, query: Query, terms: Terms): void {
    // Who asks for no body listens to nothing.
    if (req.method === 'HEAD') return;
    if (terms.listener !== undefined) {
      this.#audience.seen(channel, terms.listener);
      return;
    }
    const session = query.session ?? CMCD_SESSION.exec(String(req.headers['cmcd-session'] ?? ''))?.[1];
    const address = this.#options.addressOf?.(req) ?? req.socket.remoteAddress ?? '';
    this.#audience.seen(channel, session ?? `${address} ${req.headers['user-agent'] ?? ''}`, address);
  }

  #presentation(req: IncomingMessage, res: ServerResponse, channel: LiveChannel, file: string, query: Query, terms: Terms): void {
    if (file === 'manifest.mpd') {
      this.#seen(req, channel.view.channel, query, terms);
      channel.mpd().reply(req, res, terms.cache.live);
      return;
    }
    const only: Codec | undefined = file === 'opus.m3u8' ? 'opus' : undefined;
    const known = file === 'master.m3u8' || file === 'dvr.m3u8' || only !== undefined;
    const offered = channel.view.renditions.some((rendition) => rendition.lowLatency && (only === undefined || rendition.codec === only));
    if (!known || !offered) throw new VezaError('not_found', 'no such address');
    // Of a link it was decided when it was issued.
    const limit = terms.listener === undefined ? this.#options.maxListenersPerStream : undefined;
    if (limit !== undefined && this.#audience.count(channel.view.channel) >= limit) {
      this.counters.refused++;
      throw new VezaError('busy', 'the channel has as many listeners as it may have');
    }
    channel.multivariant(file, only).reply(req, res, terms.cache.multivariant);
  }

  #playlist(req: IncomingMessage, res: ServerResponse, channel: LiveChannel, rendition: Rendition, query: Query, terms: Terms): void {
    const { cache } = terms;
    const { codec } = rendition;
    const { timeline } = channel.view;
    const reload = decideReload(timeline, codec, query);
    const skip = query.skip === 'YES' || query.skip === 'v2';
    if (reload.kind === 'now') {
      const cacheControl = query.msn !== undefined && rendition.lowLatency ? cache.blocked : cache.live;
      channel.playlist(rendition, skip).reply(req, res, cacheControl);
      return;
    }
    if (reload.kind === 'bad') throw new VezaError('bad_request', reload.message);

    const { msn, part } = reload;
    const gzip = acceptsGzip(req);
    this.#wait(req, res, channel, `${rendition.name} ${msn} ${part} ${skip} ${gzip} ${cache.blocked}`, terms, () => {
      if (!isReached(channel.view.timeline, codec, msn, part)) return undefined;
      const text = channel.playlist(rendition, skip);
      return (waiter) => text.sendAwaited(waiter.req, waiter.res, cache.blocked, gzip);
    });
  }

  #media(
    req: IncomingMessage,
    res: ServerResponse,
    channel: LiveChannel | undefined,
    channelName: string,
    rendition: string,
    wanted: MediaName,
    terms: Terms,
    away?: VezaError,
  ): void {
    const { cache } = terms;
    const cacheControl = cache.immutable;
    const { run, number } = wanted;
    const closure = () => {
      const isClosed = number !== undefined && this.#options.admissions?.isClosedSegment(channelName, number);
      return isClosed && !(channel && this.#isInWindow(channel, run, number)) ? new VezaError('not_found', NO_SEGMENT) : undefined;
    };
    const closed = closure();
    if (closed) throw closed;
    const refusalNow = () => this.#options.admissions?.refusal(req, channelName, terms.token, 'media') ?? closure();
    const media = channel?.view.media(rendition, wanted.name);
    if (media?.loading) {
      this.#places.take('live', req, res, channelName);
      void this.#whenLoaded(media.loading, res, refusalNow, () =>
        this.#media(req, res, this.#channel(channelName), channelName, rendition, wanted, terms),
      );
    } else if (channel && media) {
      this.#sendLive({ req, res, token: terms.token }, channel, wanted.name, media, cacheControl);
    } else if (channel && isComing(channel.view, rendition, wanted)) {
      this.#wait(req, res, channel, `${rendition}/${wanted.name} ${cacheControl}`, terms, () => {
        const now = channel.view.media(rendition, wanted.name);
        if (now?.loading) {
          const { loading } = now;
          const again = ({ req, res }: Waiter) => this.#media(req, res, this.#channel(channelName), channelName, rendition, wanted, terms);
          // Others wait in the same group, each with a right of its own.
          const refusalOf = ({ req, token }: Waiter) => this.#options.admissions?.refusal(req, channelName, token, 'media');
          return (waiter) =>
            void this.#whenLoaded(
              loading,
              waiter.res,
              () => refusalOf(waiter),
              () => again(waiter),
            );
        }
        if (now) return (waiter) => this.#sendLive(waiter, channel, wanted.name, now, cacheControl);
        if (isComing(channel.view, rendition, wanted)) return undefined;
        return (waiter) => sendProblem(waiter.res, 'not_found', 'this will not be made');
      });
    } else if (wanted.part !== undefined || (channel && isAhead(channel.view, rendition, wanted))) {
      // Parts live in memory only, and what is not made yet is in no store.
      throw away ?? new VezaError('not_found', NO_SEGMENT);
    } else {
      this.#places.take('stored', req, res);
      void this.#stored.media(req, res, `live/${channelName}/${rendition}/${wanted.name}`, cacheControl, refusalNow, away);
    }
  }

  /** Goes on when the bytes are here. */
  async #whenLoaded(loading: Promise<void>, res: ServerResponse, refusalNow: RefusalNow, goOn: () => void): Promise<void> {
    try {
      await loading;
      if (!res.destroyed && !isRefused(res, refusalNow)) goOn();
    } catch (error) {
      sendError(res, error);
    }
  }

  /** Whether listeners of a show that is on air may rewind to it. */
  #isInWindow({ view: { timeline } }: LiveChannel, run: string, number: number): boolean {
    const { grid, firstNumber, progress, runs, ended } = timeline;
    const newest = Math.max(...Object.values(progress).map(({ openNumber }) => openNumber));
    const segments = Math.ceil((this.#options.dvrWindowS * SAMPLE_RATE_HZ) / grid.segmentSamples);
    return !ended && number >= firstNumber && number >= newest - segments && runs.some(({ id }) => id === run);
  }

  #wait(
    req: IncomingMessage,
    res: ServerResponse,
    channel: LiveChannel,
    key: string,
    { token }: Terms,
    settle: () => Answer | undefined,
  ): void {
    if (this.#stopped) throw new VezaError('unavailable', 'stopping');
    this.#places.take('live', req, res, channel.view.channel);
    channel.waiting.add(key, { req, res, token }, waitMs(channel.view.timeline), this.#timedOut, () => {
      try {
        const view = this.#options.edge.view(channel.view.channel);
        if (!view) return ({ res }) => sendProblem(res, 'not_found', 'the channel is off air');
        channel.refresh(view);
      } catch (error) {
        return ({ res }) => sendError(res, error);
      }
      const answer = settle();
      return answer && ((waiter) => this.#answerAdmitted(channel.view.channel, waiter, answer));
    });
  }

  /** While it waited, the channel may have become private or the link may have ended. */
  #answerAdmitted(channel: string, waiter: Waiter, answer: Answer): void {
    const refusal = this.#options.admissions?.refusal(waiter.req, channel, waiter.token);
    if (refusal === undefined) answer(waiter);
    else sendError(waiter.res, refusal);
  }

  readonly #timedOut: Answer = ({ res }) => {
    this.counters.timeouts++;
    sendProblem(res, 'unavailable', 'nothing was published for 3 target durations');
  };

  #sendLive(waiter: Waiter, channel: LiveChannel, name: string, media: LiveMedia, cacheControl: string): void {
    const { req, res, token } = waiter;
    const { contentType } = media;
    const meta = { contentType, cacheControl, tag: name };
    if (media.complete) sendMedia(req, res, { ...meta, chunks: media.chunks });
    else if (!answersCondition(req, res, `"${name}"`, ['Cache-Control', cacheControl])) {
      this.#places.take('live', req, res, channel.view.channel);
      const isAdmitted = () => this.#options.admissions?.staysAdmitted(req, channel.view.channel, token) ?? true;
      this.#stream(req, res, media, mediaHeaders(meta), waitMs(channel.view.timeline), isAdmitted);
    }
  }

  /**
   * Media in the making: what there is and each further chunk as it comes. The queue to a slow client is at most one segment. When
   * it is never finished, the socket is destroyed, so that no cache takes half of it for the whole.
   */
  #stream(
    req: IncomingMessage,
    res: ServerResponse,
    media: LiveMedia,
    headers: string[],
    firstByteMs: number,
    isAdmitted: () => boolean,
  ): void {
    const write = (chunk: Uint8Array) => {
      if (!res.headersSent) {
        cancelTimer();
        res.writeHead(200, headers);
        if (req.method === 'HEAD') {
          unfollow();
          res.end();
          return;
        }
      }
      res.write(chunk);
    };
    let unfollow = () => {};
    const cancelTimer =
      media.chunks.length > 0
        ? () => {}
        : this.#options.clock.after(firstByteMs, () => {
            unfollow();
            this.#timedOut({ req, res });
          });
    for (const chunk of media.chunks) if (!res.writableEnded) write(chunk);
    if (res.writableEnded) return;
    unfollow = media.follow((chunk, aborted) => {
      if (chunk) {
        // A segment may be in the making for longer than a right may outlive its end.
        if (isAdmitted()) write(chunk);
        else res.destroy();
        return;
      }
      unfollow();
      cancelTimer();
      if (aborted) this.counters.aborted++;
      if (!res.headersSent) sendProblem(res, 'not_found', 'this will not be made');
      else if (aborted) res.destroy();
      else res.end();
    });
    res.once('close', () => {
      unfollow();
      cancelTimer();
    });
  }
}
