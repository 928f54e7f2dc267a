import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Edge, LiveMedia } from '../../live/edge.js';
import { decideReload, isReached } from '../../media/hls.js';
import { type Rendition, SAMPLE_RATE_HZ } from '../../media/ladder.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { type Admissions, NO_SEGMENT } from './admission.js';
import type { ChannelStates } from './channel-states.js';
import { isAhead, isComing, type LiveChannel, type MediaName, waitMs } from './live-channel.js';
import {
  acceptsGzip,
  answersCondition,
  type CACHE,
  type CACHE_PRIVATE,
  mediaHeaders,
  sendError,
  sendMedia,
  sendProblem,
} from './media-response.js';
import type { Query } from './query.js';
import type { RequestPlaces } from './request-places.js';
import { isRefused, type RefusalNow, type StoredMedia } from './stored-media.js';
import type { Waiter, WaiterAnswer } from './waiting.js';

/** How an answer may be cached, and the right that admits its request. */
export interface AnswerTerms {
  readonly cache: typeof CACHE | typeof CACHE_PRIVATE;
  /** The link's listener id, when the request came with a link. */
  readonly listener: string | undefined;
  /** The token in the address. */
  readonly token: string | undefined;
}

export interface LiveRequestsOptions {
  readonly edge: Edge;
  readonly clock: Clock;
  readonly channels: ChannelStates;
  readonly stored: StoredMedia;
  readonly places: RequestPlaces;
  readonly admissions?: Admissions | undefined;
  readonly dvrWindowS: number;
  readonly counters: { timeouts: number; aborted: number };
}

/**
 * Answers requests for media playlists and media of a channel that is on air: at once when it
 * exists (as a stream while it is being made), or after a wait in one group with all requests for
 * the same thing.
 */
export class LiveRequests {
  readonly #options: LiveRequestsOptions;
  #stopped = false;

  constructor(options: LiveRequestsOptions) {
    this.#options = options;
  }

  /** Answers waiting requests with 503. Requests that need no wait are still answered. */
  stop(): void {
    this.#stopped = true;
    for (const channel of this.#options.channels.values())
      channel.waiting.releaseAll(({ res }) => sendProblem(res, 'unavailable', 'stopping'));
  }

  answerPlaylist(
    req: IncomingMessage,
    res: ServerResponse,
    channel: LiveChannel,
    rendition: Rendition,
    query: Query,
    terms: AnswerTerms,
  ): void {
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

  answerMedia(
    req: IncomingMessage,
    res: ServerResponse,
    channel: LiveChannel | undefined,
    channelName: string,
    rendition: string,
    wanted: MediaName,
    terms: AnswerTerms,
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
      this.#options.places.take('live', req, res, channelName);
      void this.#whenLoaded(media.loading, res, refusalNow, () =>
        this.answerMedia(req, res, this.#options.channels.find(channelName), channelName, rendition, wanted, terms),
      );
    } else if (channel && media) {
      this.#sendLive({ req, res, token: terms.token }, channel, wanted.name, media, cacheControl);
    } else if (channel && isComing(channel.view, rendition, wanted)) {
      this.#wait(req, res, channel, `${rendition}/${wanted.name} ${cacheControl}`, terms, () => {
        const now = channel.view.media(rendition, wanted.name);
        if (now?.loading) {
          const { loading } = now;
          const again = ({ req, res }: Waiter) =>
            this.answerMedia(req, res, this.#options.channels.find(channelName), channelName, rendition, wanted, terms);
          // Each waiter of the group has its own right.
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
        return (waiter) => sendProblem(waiter.res, 'not_found', 'this media will not be made');
      });
    } else if (wanted.part !== undefined || (channel && isAhead(channel.view, rendition, wanted))) {
      // Parts are only in memory, and no store has what is not made yet.
      throw away ?? new VezaError('not_found', NO_SEGMENT);
    } else {
      this.#options.places.take('stored', req, res);
      void this.#options.stored.media(req, res, `live/${channelName}/${rendition}/${wanted.name}`, cacheControl, refusalNow, away);
    }
  }

  /** Goes on when the bytes are loaded and the request is still admitted. */
  async #whenLoaded(loading: Promise<void>, res: ServerResponse, refusalNow: RefusalNow, goOn: () => void): Promise<void> {
    try {
      await loading;
      if (!res.destroyed && !isRefused(res, refusalNow)) goOn();
    } catch (error) {
      sendError(res, error);
    }
  }

  /** Whether listeners of the current broadcast may rewind to this segment. */
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
    { token }: AnswerTerms,
    settle: () => WaiterAnswer | undefined,
  ): void {
    if (this.#stopped) throw new VezaError('unavailable', 'stopping');
    this.#options.places.take('live', req, res, channel.view.channel);
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

  /**
   * Answers a waiter if it is still admitted: during the wait the channel may have become private,
   * or the link may have ended.
   */
  #answerAdmitted(channel: string, waiter: Waiter, answer: WaiterAnswer): void {
    const refusal = this.#options.admissions?.refusal(waiter.req, channel, waiter.token);
    if (refusal === undefined) answer(waiter);
    else sendError(waiter.res, refusal);
  }

  readonly #timedOut: WaiterAnswer = ({ res }) => {
    this.#options.counters.timeouts++;
    sendProblem(res, 'unavailable', 'nothing was published for 3 target durations');
  };

  #sendLive(waiter: Waiter, channel: LiveChannel, name: string, media: LiveMedia, cacheControl: string): void {
    const { req, res, token } = waiter;
    const { contentType } = media;
    const meta = { contentType, cacheControl, tag: name };
    if (media.complete) sendMedia(req, res, { ...meta, chunks: media.chunks });
    else if (!answersCondition(req, res, `"${name}"`, ['Cache-Control', cacheControl])) {
      this.#options.places.take('live', req, res, channel.view.channel);
      const isAdmitted = () => this.#options.admissions?.staysAdmitted(req, channel.view.channel, token) ?? true;
      this.#stream(req, res, media, mediaHeaders(meta), waitMs(channel.view.timeline), isAdmitted);
    }
  }

  /**
   * Sends media while it is being made: the chunks that exist, then each new one. The queue to a
   * slow client is at most one segment. When the media is never finished, the socket is destroyed,
   * so that no cache takes half of it for the whole.
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
        // A segment may be in the making for longer than a client may go on after its right has
        // ended.
        if (isAdmitted()) write(chunk);
        else res.destroy();
        return;
      }
      unfollow();
      cancelTimer();
      if (aborted) this.#options.counters.aborted++;
      if (!res.headersSent) sendProblem(res, 'not_found', 'this media will not be made');
      else if (aborted) res.destroy();
      else res.end();
    });
    res.once('close', () => {
      unfollow();
      cancelTimer();
    });
  }
}
