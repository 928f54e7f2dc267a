import type { IncomingMessage, ServerResponse } from 'node:http';
import type Koa from 'koa';
import type { LiveMedia } from '../../live/edge.js';
import type { Codec } from '../../media/ladder.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import { NO_CHANNEL, NO_RECORDING, NO_SEGMENT } from './admission.js';
import { Audience } from './audience.js';
import { ChannelStates } from './channel-states.js';
import { Listen } from './listen.js';
import { LiveChannel } from './live-channel.js';
import { type AnswerTerms, LiveRequests } from './live-requests.js';
import {
  answersCondition,
  CACHE,
  CACHE_PRIVATE,
  CORS,
  PLAYBACK_METHODS,
  sendError,
  sendMedia,
  sendPreflight,
  sendProblem,
} from './media-response.js';
import type { PlaybackCounters, PlaybackOptions } from './playback-options.js';
import { CMCD_SESSION, parseQuery, type Query } from './query.js';
import { RequestPlaces } from './request-places.js';
import { isRefused, type RefusalNow, StoredMedia } from './stored-media.js';

const DEFAULT_MAX_WAITING = 100_000;
/** How long a listener counts after a manifest request: three segments of the default length. */
const AUDIENCE_WINDOW_MS = 6000;

/**
 * Lower case only: on a file system that ignores case, capitals would be a second name of the same
 * thing.
 */
const NAME = /^[a-z0-9][a-z0-9_-]{0,127}$/;
const RENDITION = /^(aac|opus|mp3)-\d{1,4}$/;
const MEDIA_NAME = /^([A-Za-z0-9]{1,64})-(?:init\.mp4|(0|[1-9]\d{0,14})(?:\.(0|[1-9]\d{0,5})\.m4s|\.m4s|\.mp3))$/;
const OPEN: AnswerTerms = { cache: CACHE, listener: undefined, token: undefined };

/**
 * The playback edge: answers with manifests and media of live channels from memory, with everything
 * else from the object store. It comes before all other middleware and writes to Node's response
 * itself, because a low-latency listener makes six requests per second.
 *
 * A live manifest is rendered and compressed once per state of the timeline and sent to all who
 * ask. Requests for something that does not exist yet wait in one group per thing (`WaitingRoom`).
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
  readonly #channels: ChannelStates;
  readonly #live: LiveRequests;
  readonly #audience: Audience;
  readonly #stored: StoredMedia;
  readonly #listen: Listen;
  readonly #failureLog: BoundedLog;
  readonly #places: RequestPlaces;
  #stopped = false;

  constructor(options: PlaybackOptions) {
    this.#options = options;
    this.#failureLog = new BoundedLog(options.log, options.clock);
    const { maxWaiting = DEFAULT_MAX_WAITING, addressOf } = options;
    this.#places = new RequestPlaces({ maxWaiting, addressOf, counters: this.counters });
    this.#audience = new Audience(options.clock, AUDIENCE_WINDOW_MS);
    this.#stored = new StoredMedia({ ...options, counters: this.counters, places: this.#places });
    this.#channels = new ChannelStates({
      edge: options.edge,
      clock: options.clock,
      make: (view) => new LiveChannel(view, options, this.counters),
      onForgotten: (name) => this.#audience.forget(name),
    });
    this.#live = new LiveRequests({
      ...options,
      channels: this.#channels,
      stored: this.#stored,
      places: this.#places,
      counters: this.counters,
    });
    this.#listen = new Listen({ ...options, counters: this.counters, audience: this.#audience, places: this.#places });
  }

  /** `handle` as Koa middleware; other paths go on to the next one. */
  readonly middleware: Koa.Middleware = (ctx, next) => {
    if (!this.handle(ctx.req, ctx.res)) return next();
    ctx.respond = false;
  };

  /**
   * Answers the request (at once or later) and returns true; returns false for a path that is not
   * one of playback's.
   */
  handle(req: IncomingMessage, res: ServerResponse): boolean {
    const url = req.url ?? '/';
    const queryAt = url.indexOf('?');
    let path = queryAt < 0 ? url : url.slice(0, queryAt);
    let token: string | undefined;
    // Every address that begins with a token is answered here: nothing else may see the token,
    // above all not the log.
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
        this.#answerLive(req, res, path, queryAt < 0 ? {} : parseQuery(url, queryAt + 1), token);
      } else if (kind === 'vod') {
        this.#vod(req, res, path, token);
      } else if (kind === 'listen') {
        if (this.#stopped) throw new VezaError('unavailable', 'stopping');
        const named = token ?? (queryAt < 0 ? undefined : parseQuery(url, queryAt + 1).token);
        this.#listen.handle(req, res, path.slice('/listen/'.length), named);
      } else if (kind === 'time') {
        this.#time(req, res);
      } else {
        throw new VezaError('not_found', 'there is nothing at this address');
      }
    } catch (error) {
      if (!(error instanceof VezaError))
        this.#failureLog.error({ event: 'playback.request_failed', path, error: messageOf(error) }, 'a playback request failed');
      sendError(res, error);
    }
    return true;
  }

  /**
   * Current listeners of a channel: an estimate from manifest requests, plus open `/listen`
   * connections.
   */
  listeners(channel: string): number {
    return this.#audience.count(channel);
  }

  /**
   * Ends endless streams and answers waiting requests with 503, for a graceful stop. Requests that
   * need no wait are still answered.
   */
  stop(): void {
    this.#stopped = true;
    this.#listen.stop();
    this.#live.stop();
  }

  // xs:dateTime with milliseconds (DASH UTCTiming `http-iso`).
  #time(req: IncomingMessage, res: ServerResponse): void {
    if (answersCondition(req, res, undefined)) return;
    const body = new Date(this.#options.clock.wallMs()).toISOString();
    res.writeHead(200, ['Content-Type', 'text/plain', 'Content-Length', String(body.length), 'Cache-Control', CACHE.none, ...CORS]);
    res.end(body);
  }

  #answerLive(req: IncomingMessage, res: ServerResponse, path: string, query: Query, token: string | undefined): void {
    const [, , name = '', second = '', third, more] = path.split('/', 6);
    if (!NAME.test(name) || more !== undefined) throw new VezaError('not_found', 'there is nothing at this address');
    const isPlaylist = third === 'index.m3u8';
    const isManifest = third === undefined || isPlaylist || third === 'dvr.m3u8';
    const admission = this.#options.admissions?.live(req, name, token, isManifest ? 'manifest' : 'media');
    const terms: AnswerTerms = admission
      ? { cache: admission.isPrivate ? CACHE_PRIVATE : CACHE, listener: admission.pass?.id, token }
      : OPEN;
    let channel: LiveChannel | undefined;
    let away: VezaError | undefined;
    try {
      channel = this.#channels.find(name);
    } catch (error) {
      // Media may be in the store, which needs no worker.
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
      if (isPlaylist) this.#live.answerPlaylist(req, res, channel, rendition, query, terms);
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
    this.#live.answerMedia(req, res, channel, name, second, wanted, terms, away);
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
    // A recording that a link opens, or that its channel's addresses do not serve, lists its
    // segments at addresses of its own.
    else void this.#stored.vod(req, res, path.slice(1), cache, token !== undefined || admission?.restricted !== undefined, refusalNow);
  }

  /** Answers a segment at its recording's address; the store has it under its channel's. */
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
    // The channel may just have gone off air, and the store may not have the segment yet.
    const media = await this.#inMemory(recording.channel, rendition, file);
    if (media?.complete) {
      if (isRefused(res, refusalNow)) return;
      sendMedia(req, res, { chunks: media.chunks, contentType: media.contentType, cacheControl, tag: file });
      return;
    }
    return this.#stored.media(req, res, `live/${recording.channel}/${rendition}/${file}`, cacheControl, refusalNow);
  }

  /**
   * Finds media of a broadcast that is over, or nearly over. When its worker is unavailable the
   * media is in the store, or cannot be had now.
   */
  async #inMemory(channel: string, rendition: string, file: string): Promise<LiveMedia | undefined> {
    try {
      const find = () => this.#options.edge.view(channel)?.media(rendition, file);
      await find()?.loading;
      return find();
    } catch {
      return undefined;
    }
  }

  #seen(req: IncomingMessage, channel: string, query: Query, terms: AnswerTerms): void {
    // A HEAD request has no body: nobody listens.
    if (req.method === 'HEAD') return;
    if (terms.listener !== undefined) {
      this.#audience.seen(channel, terms.listener);
      return;
    }
    const session = query.session ?? CMCD_SESSION.exec(String(req.headers['cmcd-session'] ?? ''))?.[1];
    const address = this.#options.addressOf?.(req) ?? req.socket.remoteAddress ?? '';
    this.#audience.seen(channel, session ?? `${address} ${req.headers['user-agent'] ?? ''}`, address);
  }

  #presentation(req: IncomingMessage, res: ServerResponse, channel: LiveChannel, file: string, query: Query, terms: AnswerTerms): void {
    if (file === 'manifest.mpd') {
      this.#seen(req, channel.view.channel, query, terms);
      channel.mpd().reply(req, res, terms.cache.live);
      return;
    }
    const only: Codec | undefined = file === 'opus.m3u8' ? 'opus' : undefined;
    const known = file === 'master.m3u8' || file === 'dvr.m3u8' || only !== undefined;
    const offered = channel.view.renditions.some((rendition) => rendition.lowLatency && (only === undefined || rendition.codec === only));
    if (!known || !offered) throw new VezaError('not_found', 'there is nothing at this address');
    // For a link, the limit was applied when the link was issued.
    const limit = terms.listener === undefined ? this.#options.maxListenersPerStream : undefined;
    if (limit !== undefined && this.#audience.count(channel.view.channel) >= limit) {
      this.counters.refused++;
      throw new VezaError('busy', 'the channel has reached its limit of listeners; try again later');
    }
    channel.multivariant(file, only).reply(req, res, terms.cache.multivariant);
  }
}
