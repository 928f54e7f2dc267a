import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Edge, LiveView } from '../../live/edge.js';
import { CHANNELS, type Codec, type Rendition, SAMPLE_RATE_HZ } from '../../media/ladder.js';
import type { Clock } from '../../runtime/clock.js';
import { each } from '../../runtime/each.js';
import { VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { type Admissions, NO_CHANNEL } from './admission.js';
import type { Audience } from './audience.js';
import { EndlessStream, ICY_INTERVAL_BYTES, StreamListener } from './endless-stream.js';
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
/** The rendition of a codec whose bitrate is nearest to this is used. */
const PREFERRED_KBPS = 128;
/**
 * How often the right of open streams is checked: a link may expire, a channel may become private.
 */
const RECHECK_MS = 500;

/** A page needs `icy-metaint` to find the titles within the stream. */
const ICY_CORS = corsExposing('Date, icy-br, icy-metaint, icy-name, ice-audio-info');

const PATH = /^([a-z0-9][a-z0-9_-]{0,127})\.(mp3|aac|opus)$/;

/**
 * Serves `/listen/{channel}.mp3|.aac|.opus`: endless streams for players that cannot read
 * manifests. All listeners of one channel and format share one `EndlessStream`, which makes the
 * bytes once.
 */
export class Listen {
  readonly #options: ListenOptions;
  readonly #streams = new Map<string, EndlessStream>();
  readonly #open = new Set<{ req: IncomingMessage; res: ServerResponse; channel: string; token: string | undefined }>();
  #cancelRecheck: (() => void) | undefined;

  constructor(options: ListenOptions) {
    this.#options = options;
  }

  /**
   * Answers a request; `path` is what follows `/listen/`, `token` the link's. Throws `not_found`,
   * `busy` and the errors of `Admissions.live`.
   */
  handle(req: IncomingMessage, res: ServerResponse, path: string, token?: string): void {
    const found = PATH.exec(path);
    if (!found) throw new VezaError('not_found', 'there is nothing at this address');
    const channel = found[1]!;
    const format = found[2] as Format;
    const { edge, audience, counters, maxListenersPerStream, admissions } = this.#options;
    const pass = admissions?.live(req, channel, token, 'manifest').pass;
    const view = edge.view(channel);
    if (!view || view.timeline.ended) throw new VezaError('not_found', NO_CHANNEL);
    const rendition = pick(view, format);
    if (!rendition) throw new VezaError('not_found', `the channel has no rendition in ${format}`);
    if (!pass && maxListenersPerStream !== undefined && audience.count(channel) >= maxListenersPerStream) {
      counters.refused++;
      throw new VezaError('busy', 'the channel has reached its limit of listeners; try again later');
    }

    // HTTP/2 has many streams on one connection, so limits of connections do not bound these.
    this.#options.places.take('endless', req, res, channel);
    if (answersCondition(req, res, undefined)) return;
    const icy = format !== 'opus' && req.headers['icy-metadata'] === '1';
    // No length and no chunked coding: players of such streams expect the end of the connection as
    // the end.
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
    let stream = this.#streams.get(key);
    if (!stream || stream.broadcastId !== view.timeline.broadcastId) {
      stream?.stop();
      const made: EndlessStream = new EndlessStream(this.#options, view, rendition, () => {
        if (this.#streams.get(key) === made) this.#streams.delete(key);
      });
      stream = made;
      this.#streams.set(key, made);
      made.start();
    }
    res.once('close', audience.connect(channel));
    this.#watch(req, res, channel, token);
    stream.add(new StreamListener(res, icy, rendition.bitrateKbps));
  }

  /**
   * Ends the stream when its right ends: the client sends no further request that could be refused.
   */
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
    for (const stream of this.#streams.values()) stream.stop();
  }
}

function pick(view: LiveView, codec: Codec): Rendition | undefined {
  const away = (rendition: Rendition) => Math.abs(rendition.bitrateKbps - PREFERRED_KBPS);
  return view.renditions.filter((rendition) => rendition.codec === codec).sort((a, b) => away(a) - away(b))[0];
}

/** A header's value as UTF-8 bytes, which Icecast clients expect, without control characters. */
const headerText = (text: string) => Buffer.from(text.replace(/\p{Cc}/gu, ' '), 'utf8').toString('latin1');
