import { type ClientRequest, Agent as HttpAgent, type IncomingMessage, request as requestHttp } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import { internalClientTls } from '../../runtime/tls/internal-tls.js';
import type { Certificates, TlsFiles } from '../../runtime/tls/tls-files.js';

export interface WorkerClientOptions {
  /**
   * `https:` with `tls`, or `http:`, which the configuration allows only for an address of this
   * machine.
   */
  readonly url: string;
  /**
   * The certificate that this process shows, and the authority that signs the worker's certificate.
   */
  readonly tls?: Pick<TlsFiles, 'current' | 'onChange'> | undefined;
  readonly clock: Clock;
}

/** The head of an answer must arrive within this time. The worker answers from memory. */
const HEAD_DEADLINE_MS = 5000;
/**
 * The head of an answer to an act must arrive within this time. The end of a broadcast waits for
 * the end of its segment and for the encoder.
 */
const ACT_DEADLINE_MS = 20_000;
/**
 * At most this many connections are open at a time; further requests wait for a free one. It is
 * enough for five renditions of a hundred channels, and the feed.
 */
const MAX_SOCKETS = 512;
const MAX_FREE_SOCKETS = 64;
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * Sends requests to one worker over connections that are kept open. Errors reject with
 * `unavailable`.
 */
export class WorkerClient {
  readonly #url: URL;
  readonly #clock: Clock;
  #agent: HttpAgent;

  constructor({ url, tls, clock }: WorkerClientOptions) {
    this.#url = new URL(url);
    this.#clock = clock;
    this.#agent = this.#makeAgent(tls?.current);
    tls?.onChange((certificates) => {
      // Requests that have begun keep their connection. Free connections with the old certificate
      // are not used again.
      const old = this.#agent;
      this.#agent = this.#makeAgent(certificates);
      for (const sockets of Object.values(old.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
    });
  }

  /**
   * Resolves with the answer, whose body the caller must read or destroy; with undefined when it is
   * 404. Rejects with `unavailable`.
   */
  async get(path: string): Promise<IncomingMessage | undefined> {
    const answer = await this.#ask('GET', path, undefined, HEAD_DEADLINE_MS);
    if (answer.statusCode === 200) return answer;
    answer.resume();
    if (answer.statusCode === 404) return undefined;
    throw new VezaError('unavailable', `the worker answered ${answer.statusCode}`);
  }

  async post(path: string, body: unknown): Promise<unknown> {
    const answer = await this.#ask('POST', path, JSON.stringify(body), ACT_DEADLINE_MS);
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    try {
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        sizeBytes += chunk.length;
        if (sizeBytes > MAX_ANSWER_BYTES) throw new Error('its answer is too long');
        chunks.push(chunk);
      }
      if (answer.statusCode !== 200) throw new Error(`it answered ${answer.statusCode}`);
      return JSON.parse(Buffer.concat(chunks).toString());
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** Destroys every connection. */
  close(): void {
    this.#agent.destroy();
  }

  async #ask(method: string, path: string, body: string | undefined, deadlineMs: number): Promise<IncomingMessage> {
    for (;;) {
      const { request, answer } = this.#send(method, path, body);
      const cancel = this.#clock.after(deadlineMs, () => request.destroy(new Error(`no answer within ${deadlineMs} ms`)));
      try {
        return await answer;
      } catch (error) {
        // The worker closed the kept connection before it received this request: it is sent again.
        if (request.reusedSocket && (error as NodeJS.ErrnoException).code === 'ECONNRESET') continue;
        throw unavailable(error);
      } finally {
        cancel();
      }
    }
  }

  #send(method: string, path: string, body: string | undefined): { request: ClientRequest; answer: Promise<IncomingMessage> } {
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) };
    const open = this.#url.protocol === 'https:' ? requestHttps : requestHttp;
    const request = open(new URL(path, this.#url), { method, agent: this.#agent, headers });
    const answer = new Promise<IncomingMessage>((resolve, reject) => {
      request.once('response', resolve);
      request.on('error', reject);
    });
    request.end(body);
    return { request, answer };
  }

  #makeAgent(certificates: Certificates | undefined): HttpAgent {
    const common = { keepAlive: true, maxSockets: MAX_SOCKETS, maxFreeSockets: MAX_FREE_SOCKETS };
    if (this.#url.protocol !== 'https:') return new HttpAgent(common);
    if (!certificates) throw new Error('a worker at https: wants certificates');
    // A resumed session would not check certificates that have changed since it began.
    return new HttpsAgent({ ...common, ...internalClientTls(certificates), maxCachedSessions: 0 });
  }
}

const unavailable = (error: unknown) =>
  error instanceof VezaError ? error : new VezaError('unavailable', `the worker does not answer: ${messageOf(error)}`, { cause: error });
