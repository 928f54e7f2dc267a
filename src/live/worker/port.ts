import { randomBytes } from 'node:crypto';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { z } from 'zod';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { recent } from '../../runtime/shared-work.js';
import type { LiveEdge } from '../edge.js';
import { WorkerFeed } from './feed.js';
import { COMPLETE_HEADER, END_FRAME, endSchema, FRAMES_HEADER, frameOf, titleUpdateSchema } from './protocol.js';

/** The body of an act is at most this large; a larger one is answered with 413. */
const MAX_BODY_BYTES = 16 * 1024;
/** At most this many apps follow the feed at a time; further ones are answered with 503. */
const MAX_APPS = 64;
/**
 * At most this many unfinished segments are being sent at a time, to all apps together; further
 * requests are answered with 503.
 */
const MAX_STREAMING = 4096;
/** How long an answer about readiness is reused. */
const READY_MS = 1000;

const MEDIA_PATH =
  /^\/v1\/media\/([a-z0-9][a-z0-9_-]{0,127})\/((?:aac|opus|mp3)-\d{1,4})\/([0-9a-z]{1,64}-(?:init\.mp4|\d{1,15}\.(?:m4s|mp3)))$/;
const ACT_PATH = /^\/v1\/channels\/([a-z0-9][a-z0-9_-]{0,127})\/(end|title)$/;

export interface WorkerPortOptions {
  readonly edge: LiveEdge;
  readonly clock: Clock;
  readonly log: Log;
  /** Rejects while the worker cannot do its work. */
  readonly ready: () => Promise<unknown>;
}

/**
 * Answers the requests of apps for the channels of this process (`protocol.ts`). The listener
 * decides by certificates which apps may ask.
 */
export class WorkerPort {
  readonly name = 'apps';
  readonly #options: WorkerPortOptions;
  readonly #feed: WorkerFeed;
  readonly #ready: () => Promise<unknown>;
  #streaming = 0;

  constructor(options: WorkerPortOptions) {
    this.#options = options;
    this.#ready = recent(options.clock, READY_MS, options.ready);
    this.#feed = new WorkerFeed({ ...options, worker: randomBytes(8).toString('hex') });
  }

  start(): void {
    this.#feed.start();
  }

  /** Ends the feed's responses, which would not end by themselves. Twice is harmless. */
  stop(): void {
    this.#feed.stop();
  }

  /**
   * Disconnects the apps from the feed, so that they connect with the certificates that are in use
   * now. They do not count as away for that.
   */
  renew(): void {
    this.#feed.disconnect();
  }

  readonly handle: RequestListener = (req, res) => {
    this.#handle(req, res).catch((error) => {
      const known = error instanceof VezaError ? error : undefined;
      if (!known)
        this.#options.log.error(
          { event: 'worker.request_failed', path: req.url?.slice(0, 200), error: messageOf(error) },
          'a request of an app failed',
        );
      if (res.headersSent) res.destroy();
      else send(res, known?.status ?? 500, { code: known?.code ?? 'internal', detail: known?.message ?? 'internal error' });
    });
  };

  async #handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const path = req.url ?? '/';
    const act = ACT_PATH.exec(path);
    if (act) {
      if (req.method !== 'POST') throw new VezaError('bad_request', 'only POST');
      return this.#act(req, res, act[1]!, act[2] as 'end' | 'title');
    }
    if (req.method !== 'GET') throw new VezaError('bad_request', 'only GET');
    if (path === '/v1/feed') {
      if (this.#feed.apps >= MAX_APPS) throw new VezaError('busy', `${MAX_APPS} apps follow already`);
      this.#feed.add(res);
      return;
    }
    if (path === '/health/live' || path === '/health/ready') {
      if (path === '/health/ready') {
        await this.#ready().catch((error) => {
          throw new VezaError('unavailable', messageOf(error));
        });
      }
      send(res, 200, { status: 'ok' });
      return;
    }
    const media = MEDIA_PATH.exec(path);
    if (!media) throw new VezaError('not_found', 'no such address');
    this.#media(res, media[1]!, media[2]!, media[3]!);
  }

  async #act(req: IncomingMessage, res: ServerResponse, channel: string, act: 'end' | 'title'): Promise<void> {
    const { edge } = this.#options;
    const body = await readBody(req);
    let done: boolean;
    if (act === 'end') {
      done = await edge.end(channel, parsed(endSchema, body).reason);
    } else {
      done = await edge.setTitle(channel, parsed(titleUpdateSchema, body));
    }
    this.#feed.flush();
    send(res, 200, { done, sequence: this.#feed.sequence });
  }

  #media(res: ServerResponse, channel: string, rendition: string, name: string): void {
    const media = this.#options.edge.view(channel)?.media(rendition, name);
    if (!media) throw new VezaError('not_found', 'not in memory');
    if (!media.complete && this.#streaming >= MAX_STREAMING) throw new VezaError('busy', 'too many segments are being sent');
    res.writeHead(200, {
      'Content-Type': media.contentType,
      'Cache-Control': 'no-store',
      [FRAMES_HEADER]: String(media.chunks.length),
      [COMPLETE_HEADER]: media.complete ? '1' : '0',
    });
    const write = (chunk: Uint8Array) => {
      for (const bytes of frameOf(chunk)) res.write(bytes);
    };
    res.cork();
    // Sends the head now: without this it would wait for the first part of the segment.
    res.flushHeaders();
    for (const chunk of media.chunks) write(chunk);
    res.uncork();
    if (media.complete) {
      res.end(END_FRAME);
      return;
    }
    this.#streaming++;
    const unfollow = media.follow((chunk, aborted) => {
      if (chunk) write(chunk);
      // The segment will never be complete. Without the end frame the app knows that.
      else if (aborted) res.destroy();
      else res.end(END_FRAME);
    });
    res.once('close', () => {
      this.#streaming--;
      unfollow();
    });
  }
}

function parsed<T>(schema: z.ZodType<T>, body: unknown): T {
  const found = schema.safeParse(body);
  if (!found.success) throw new VezaError('bad_request', 'the body does not have the fields that this address takes');
  return found.data;
}

async function readBody(req: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of req as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_BODY_BYTES) throw new VezaError('payload_too_large', `more than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    throw new VezaError('bad_request', 'no JSON');
  }
}

function send(res: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body);
  res.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
    ...(status >= 400 && { Connection: 'close' }),
  });
  res.end(text);
}
