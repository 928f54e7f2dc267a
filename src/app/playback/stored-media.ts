import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ObjectStore, StoredObject } from '../../backing/object-store/object-store.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { NO_RECORDING, NO_SEGMENT } from './admission.js';
import { acceptsGzip, type CACHE, type CACHE_PRIVATE, MEDIA_TYPE, sendError, sendMedia, TextResponse } from './media-response.js';
import type { RequestPlaces } from './request-places.js';

interface StoredMediaOptions {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: { objectReads: number };
  readonly places: RequestPlaces;
}

const VOD_PATH = /^vod(?:\/[A-Za-z0-9][A-Za-z0-9_-]{0,127}){1,2}\/[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  m3u8: MEDIA_TYPE.hls,
  mpd: MEDIA_TYPE.dash,
  m4s: 'audio/mp4',
  mp4: 'audio/mp4',
  mp3: 'audio/mpeg',
};

/**
 * Returns the error for a client whose right has ended. Called just before the answer, since the
 * store may have been slow.
 */
export type RefusalNow = () => unknown;

/**
 * Bytes of recordings' manifests in memory. One of 12 h has 1.1 MB: room for a few dozen long ones
 * or thousands of short ones.
 */
const KEPT_MAX_BYTES = 32 * 1024 * 1024;
const KEPT_MS = 60_000;

/**
 * Answers with media and manifests from the object store. Concurrent requests for one object share
 * one read.
 */
export class StoredMedia {
  readonly #options: StoredMediaOptions;
  readonly #failureLog: BoundedLog;
  readonly #reads = new Map<string, Promise<StoredObject | undefined>>();
  /** Manifests in memory, least recently used first. */
  readonly #texts = new Map<string, { text: TextResponse; readMs: number; sizeBytes: number }>();
  #keptBytes = 0;

  constructor(options: StoredMediaOptions) {
    this.#options = options;
    this.#failureLog = new BoundedLog(options.log, options.clock);
  }

  /**
   * Answers a segment or init segment, whose name and content are immutable. `otherwise` is the
   * error when it does not exist.
   */
  media(
    req: IncomingMessage,
    res: ServerResponse,
    key: string,
    cacheControl: string,
    refusalNow: RefusalNow,
    otherwise?: VezaError,
  ): Promise<void> {
    return this.#answer(res, key, () => this.#media(req, res, key, cacheControl, refusalNow, otherwise), otherwise);
  }

  /**
   * Answers anything under `vod/{asset}/`. With `own`, manifests list the segments at the
   * recording's own addresses instead of its channel's.
   */
  vod(
    req: IncomingMessage,
    res: ServerResponse,
    key: string,
    cache: typeof CACHE | typeof CACHE_PRIVATE,
    own: boolean,
    refusalNow: RefusalNow,
  ): Promise<void> {
    const extension = key.slice(key.lastIndexOf('.') + 1);
    const isText = extension === 'm3u8' || extension === 'mpd';
    if (!VOD_PATH.test(key) || !(extension in CONTENT_TYPES)) throw new VezaError('not_found', isText ? NO_RECORDING : NO_SEGMENT);
    return this.#answer(res, key, () =>
      isText ? this.#text(req, res, key, cache.vod, own, refusalNow) : this.#media(req, res, key, cache.immutable, refusalNow),
    );
  }

  async #answer(res: ServerResponse, key: string, work: () => Promise<void>, otherwise?: VezaError): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (error instanceof VezaError && (error.code === 'not_found' || error.code === 'busy' || error === otherwise)) {
        sendError(res, error);
        return;
      }
      this.#failureLog.error(
        { event: 'playback.object_unreadable', key, error: messageOf(error) },
        'could not read an object from the object store',
      );
      sendError(res, new VezaError('unavailable', 'the object store does not answer'));
    }
  }

  async #media(
    req: IncomingMessage,
    res: ServerResponse,
    key: string,
    cacheControl: string,
    refusalNow: RefusalNow,
    otherwise?: VezaError,
  ): Promise<void> {
    const found = await this.#read(key);
    if (!found) throw otherwise ?? new VezaError('not_found', NO_SEGMENT);
    if (res.destroyed || isRefused(res, refusalNow)) return;
    this.#options.places.takeBytes(req, res, found.bytes.length);
    sendMedia(req, res, {
      chunks: [found.bytes],
      contentType: contentTypeOf(key),
      cacheControl,
      tag: key.slice(key.lastIndexOf('/') + 1),
    });
  }

  async #text(
    req: IncomingMessage,
    res: ServerResponse,
    key: string,
    cacheControl: string,
    own: boolean,
    refusalNow: RefusalNow,
  ): Promise<void> {
    const text = this.#kept(nameOf(key, own)) ?? (await this.#readText(key, own));
    if (!text) throw new VezaError('not_found', NO_RECORDING);
    if (acceptsGzip(req)) await text.compress();
    if (!res.destroyed && !isRefused(res, refusalNow)) text.reply(req, res, cacheControl);
  }

  #kept(key: string): TextResponse | undefined {
    const kept = this.#texts.get(key);
    if (!kept) return undefined;
    this.#drop(key);
    if (this.#options.clock.monotonicMs() - kept.readMs > KEPT_MS) return undefined;
    this.#keptBytes += kept.sizeBytes;
    this.#texts.set(key, kept);
    return kept.text;
  }

  #drop(key: string): void {
    const kept = this.#texts.get(key);
    if (kept) this.#keptBytes -= kept.sizeBytes;
    this.#texts.delete(key);
  }

  async #readText(key: string, own: boolean): Promise<TextResponse | undefined> {
    const found = await this.#read(key);
    if (!found) return undefined;
    const name = nameOf(key, own);
    const already = this.#kept(name);
    if (already) return already;
    const text = new TextResponse(own ? ownAddresses(key, Buffer.from(found.bytes).toString()) : found.bytes, contentTypeOf(key));
    const sizeBytes = found.bytes.length;
    this.#texts.set(name, { text, readMs: this.#options.clock.monotonicMs(), sizeBytes });
    this.#keptBytes += sizeBytes;
    for (const oldest of this.#texts.keys()) {
      if (this.#keptBytes <= KEPT_MAX_BYTES) break;
      this.#drop(oldest);
    }
    return text;
  }

  #read(key: string): Promise<StoredObject | undefined> {
    let read = this.#reads.get(key);
    if (!read) {
      this.#options.counters.objectReads++;
      read = this.#options.store.get(key).finally(() => this.#reads.delete(key));
      this.#reads.set(key, read);
    }
    return read;
  }
}

/** Sends the refusal, if there is one, and returns true then. */
export function isRefused(res: ServerResponse, refusalNow: RefusalNow): boolean {
  const refusal = refusalNow();
  if (refusal !== undefined) sendError(res, refusal);
  return refusal !== undefined;
}

const nameOf = (key: string, own: boolean) => (own ? `${key} own` : key);

/**
 * Removes the channel's address from each segment, which is
 * `../../../live/{slug}/{rendition}/{file}`, in an MPD `../../live/{slug}/{rendition}/{file}`.
 */
const ownAddresses = (key: string, text: string) =>
  key.endsWith('.mpd')
    ? text.replaceAll(/\.\.\/\.\.\/live\/[a-z0-9-]+\//g, '')
    : text.replaceAll(/\.\.\/\.\.\/\.\.\/live\/[a-z0-9-]+\/[a-z0-9-]+\//g, '');

const contentTypeOf = (key: string) => CONTENT_TYPES[key.slice(key.lastIndexOf('.') + 1)] ?? 'application/octet-stream';
