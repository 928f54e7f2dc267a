import type { Socket } from 'node:net';
import type { LineLog } from '../runtime/bounded-log.js';
import type { Clock } from '../runtime/clock.js';
import { each } from '../runtime/each.js';
import { messageOf, VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { checkForm, formTooLarge, icecastKey, icecastRefusal, METADATA_DONE, readMetadataCall } from './http/icecast.js';
import { POST_DONE, postFraming, postKey, postRefusal } from './http/post.js';
import {
  type Answer,
  BodyReader,
  type ChunkLimits,
  checkHost,
  type Framing,
  framingOf,
  type HeadLimits,
  HeadParser,
  HttpRefusal,
  type HttpVersion,
  type RequestHead,
  refusalFor,
  renderAnswer,
} from './http/wire.js';
import { IngestListener } from './listener.js';
import { Publication } from './publication.js';
import { type SniffLimits, TAKEN } from './sniff.js';
import type { Gate, Protocol, PublishRequest, SourceEnd } from './source.js';

export interface IngestHttpLimits extends HeadLimits, ChunkLimits, SniffLimits {
  /** From accepting a connection to the end of its head. */
  headMs: number;
  /** For the gate's answer about a key. */
  admitMs: number;
  /** Of a metadata call that is posted, as a form. */
  formBytes: number;
  /** From its head to its end. */
  formMs: number;
  /** From the key to a container that was recognised. */
  sniffMs: number;
  /** Without a byte while we are reading. Time in which back-pressure keeps us from reading does not count. */
  idleMs: number;
  /** From the end of a body to the show that it begins; after it the answer is given all the same. */
  beginMs: number;
  /** Connections of one address, and of all, whose key was not accepted yet. What is on air is limited by the gate. */
  connectionsPerAddress: number;
  connections: number;
  /** After an answer, for the client to close; what it still sends is read and thrown away so that it sees the answer. */
  lingerMs: number;
  lingerBytes: number;
}

export const INGEST_HTTP_LIMITS: Readonly<IngestHttpLimits> = {
  headBytes: 16 * 1024,
  headers: 100,
  headMs: 5_000,
  admitMs: 10_000,
  formBytes: 8 * 1024,
  formMs: 5_000,
  sniffBytes: 64 * 1024,
  id3Bytes: 16 * 1024 * 1024,
  sniffMs: 10_000,
  chunkBytes: 64 * 1024 * 1024,
  chunkLineBytes: 256,
  chunkExtraBytes: 16 * 1024,
  idleMs: 10_000,
  beginMs: 5_000,
  connectionsPerAddress: 100,
  connections: 1_000,
  lingerMs: 2_000,
  lingerBytes: 1024 * 1024,
};

/** Characters of a User-Agent that are kept. */
const CLIENT_CHARS = 200;
const CHANNEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

export interface IngestHttpOptions {
  gate: Gate;
  clock: Clock;
  log: Log;
  /** 0 takes any free one; `port` tells which. */
  port: number;
  host: string;
  limits?: Partial<IngestHttpLimits>;
}

/** The `INGEST_PORT`: Icecast sources, their metadata calls, and `POST /ingest/{channel}`. */
export class IngestHttpServer {
  readonly name = 'ingest-http';
  readonly #context: Context;
  readonly #listener: IngestListener;
  readonly #connections = new Set<Connection>();

  constructor(options: IngestHttpOptions) {
    const { gate, clock, log, host, port } = options;
    const limits = { ...INGEST_HTTP_LIMITS, ...options.limits };
    this.#listener = new IngestListener({
      protocol: 'http',
      host,
      port,
      // A client that has finished sending still gets its answer.
      socketOptions: { allowHalfOpen: true },
      limits,
      clock,
      log,
      onConnection: (socket, address, admitted) => {
        const connection = new Connection(socket, address, this.#context, clock.monotonicMs(), admitted);
        this.#connections.add(connection);
        socket.once('close', () => this.#connections.delete(connection));
      },
      onTurnedAway: (socket) => {
        const busy = icecastRefusal(refusalFor(new VezaError('busy', 'too many connections')));
        socket.end(renderAnswer(busy, { version: 'HTTP/1.0', wallMs: clock.wallMs() }));
        socket.destroySoon();
      },
      onSweep: (nowMs) => each(this.#connections, (connection) => connection.checkDeadline(nowMs)),
    });
    this.#context = { gate, clock, log, strangersLog: this.#listener.strangersLog, limits };
  }

  /** The port that is listened on, after `start`. */
  get port(): number {
    return this.#listener.port;
  }

  /** Rejects when the port is taken. */
  start(): Promise<void> {
    return this.#listener.start();
  }

  /** Sources end as lost, so that their broadcasters find the next process within the reconnect window. */
  async stop(): Promise<void> {
    const closed = this.#listener.stop();
    for (const connection of this.#connections) connection.shutDown();
    await closed;
  }
}

interface Context {
  readonly gate: Gate;
  readonly clock: Clock;
  readonly log: Log;
  /** For what a client causes whose key is not accepted. */
  readonly strangersLog: LineLog;
  readonly limits: IngestHttpLimits;
}

/**
 * What a connection is waiting for; only `#enter` changes it.
 *
 * head → form (of a metadata call that is posted) → deciding (the gate; the socket is not read) → sniffing → streaming → beginning (the body has ended, and its show cannot
 * be seen yet) → closing. Every one but `closing` may go to `closing` by a refusal; `closing` has been answered, or has nothing to be told, and reads only to throw away.
 */
type Phase = 'head' | 'form' | 'deciding' | 'sniffing' | 'streaming' | 'beginning' | 'closing';

class Connection {
  readonly #socket: Socket;
  readonly #address: string;
  readonly #context: Context;
  readonly #settle: () => void;
  readonly #parser: HeadParser;
  #phase: Phase = 'head';
  /** Monotonic time at which the phase ends by force. While streaming it moves with every byte. */
  #deadlineMs: number;
  #head: RequestHead | undefined;
  #protocol: Protocol = 'icecast';
  #channel: string | undefined;
  #body: BodyReader | undefined;
  #form: { readonly pieces: Buffer[]; sizeBytes: number; readonly whole: (fields: string) => void } | undefined;
  #publication: Publication | undefined;
  /** A SOURCE has had its 200 and can be told nothing more. */
  #answered = false;
  #held = false;
  #lingerBytes = 0;

  constructor(socket: Socket, address: string, context: Context, nowMs: number, settle: () => void) {
    this.#socket = socket;
    this.#address = address;
    this.#context = context;
    this.#settle = settle;
    this.#parser = new HeadParser(context.limits);
    this.#deadlineMs = nowMs + context.limits.headMs;
    socket.on('data', (bytes) => this.#guard(() => this.#onData(bytes)));
    socket.on('end', () => this.#guard(() => this.#onEnd()));
    socket.on('error', (error) => this.#onGone(error.message));
    socket.on('close', () => this.#onGone('closed'));
  }

  checkDeadline(nowMs: number): void {
    if (nowMs < this.#deadlineMs || (this.#held && this.#phase === 'streaming')) return;
    const { limits } = this.#context;
    switch (this.#phase) {
      case 'closing':
        this.#socket.destroy();
        break;
      case 'deciding':
        this.#refuse(refusalFor(new VezaError('unavailable', 'the key could not be checked in time')));
        break;
      case 'head':
        // Says nothing: nobody to answer, nothing to log.
        if (this.#parser.begun)
          this.#refuse(new HttpRefusal(408, 'timeout', `the request's head took longer than ${limits.headMs / 1000} s`));
        else this.#socket.destroy();
        break;
      case 'form':
        this.#refuse(new HttpRefusal(408, 'timeout', `the form took longer than ${limits.formMs / 1000} s`));
        break;
      case 'sniffing':
        this.#refuse(new HttpRefusal(408, 'timeout', `no audio was recognised in ${limits.sniffMs / 1000} s; taken are ${TAKEN}`));
        break;
      case 'beginning':
        this.#finished();
        break;
      case 'streaming':
        this.#refuse(new HttpRefusal(408, 'timeout', `nothing was sent for ${limits.idleMs / 1000} s`));
        break;
    }
  }

  /** The server stops. */
  shutDown(): void {
    if (this.#phase === 'beginning') this.#finished();
    else if (this.#phase !== 'closing' && this.#parser.begun) this.#refuse(refusalFor(new VezaError('unavailable', 'shutting down')));
    this.#socket.destroySoon();
    this.#socket.resume();
  }

  #enter(phase: Phase, timeMs: number): void {
    this.#phase = phase;
    this.#deadlineMs = this.#context.clock.monotonicMs() + timeMs;
  }

  #guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#refuse(error);
    }
  }

  #onData(bytes: Buffer): void {
    const { limits, clock } = this.#context;
    if (this.#phase === 'head') {
      const parsed = this.#parser.push(bytes);
      if (!parsed) return;
      // The body stays in the socket until somebody is there to take it.
      this.#socket.pause();
      if (parsed.used < bytes.length) this.#socket.unshift(bytes.subarray(parsed.used));
      this.#head = parsed.head;
      this.#enter('deciding', limits.admitMs);
      this.#route(parsed.head).catch((error: unknown) => this.#refuse(error));
    } else if (this.#phase === 'form') {
      this.#takeForm(bytes);
    } else if (this.#phase === 'sniffing' || this.#phase === 'streaming') {
      const publication = this.#publication!;
      // All that one read brought at once: in chunks of a byte each, every one would cost what the whole costs.
      const pieces: Buffer[] = [];
      this.#body!.push(bytes, (data) => pieces.push(data));
      if (pieces.length > 0) publication.push(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces));
      // A source that was closed on the way has answered already.
      if ((this.#phase as Phase) === 'closing') return;
      if (this.#body!.done) {
        this.#finish('finished');
        return;
      }
      if (this.#phase === 'sniffing' && publication.format) {
        this.#enter('streaming', limits.idleMs);
        this.#context.log.info({ ...this.#who(), format: publication.format }, 'ingest recognised');
      }
      if (this.#phase === 'streaming') this.#deadlineMs = clock.monotonicMs() + limits.idleMs;
      if (!publication.writable) {
        this.#held = true;
        this.#socket.pause();
      }
    } else {
      this.#lingerBytes += bytes.length;
      if (this.#lingerBytes > limits.lingerBytes) this.#socket.destroy();
    }
  }

  /** The client has closed its side. Only `closing` and a body until close may meet that in peace. */
  #onEnd(): void {
    if (this.#phase === 'sniffing' || this.#phase === 'streaming') {
      if (!this.#body!.untilClose) throw new HttpRefusal(400, 'bad_request', 'the connection was closed before the end of the body');
      // Stopping and a line that broke look the same here: it is held for the broadcaster to come back.
      this.#finish('closed');
    } else if (this.#phase === 'form') {
      throw new HttpRefusal(400, 'bad_request', 'the connection was closed before the end of the body');
    } else if (this.#phase === 'head') {
      if (this.#parser.begun) this.#refuse(new HttpRefusal(400, 'bad_request', 'the request ended before its head'));
      else this.#socket.end();
    }
  }

  #onGone(reason: string): void {
    if (this.#publication && this.#phase !== 'closing') {
      this.#context.log.info({ ...this.#who(), reason }, 'ingest connection lost');
    }
    this.#endPublication('lost');
    this.#phase = 'closing';
    this.#socket.destroy();
  }

  async #route(head: RequestHead): Promise<void> {
    const { method, path } = head;
    const resource = resourceOf(path);
    if (resource?.kind === 'post') this.#protocol = 'post';
    this.#channel = resource?.channel;
    // What makes the request doubtful as a whole comes before what it asks for.
    checkHost(head);
    const framing = framingOf(head);
    checkExpect(head);
    if (!METHODS.has(method)) throw new HttpRefusal(501, 'not_implemented', `the method ${method.slice(0, 20)} is not known here`);
    if (!resource) throw new HttpRefusal(404, 'not_found', `there is nothing at this address. ${USAGE}`);
    const allowed = ALLOWED[resource.kind];
    if (method === 'OPTIONS') return this.#answer({ status: 204, headers: { Allow: allowed.join(', ') } });
    if (!allowed.includes(method)) {
      const useful = allowed.filter((other) => other !== 'HEAD' && other !== 'OPTIONS').join(' and ');
      throw new HttpRefusal(405, 'method_not_allowed', `this address takes ${useful}`, { Allow: allowed.join(', ') });
    }
    switch (resource.kind) {
      case 'post':
        return this.#publish(resource.channel, postKey(head), postFraming(framing, head));
      case 'mount':
        // Encoders send without a length until they stop, which HTTP does not know.
        return this.#publish(resource.channel, icecastKey(head), framing.kind === 'none' ? { kind: 'close' } : framing);
      case 'metadata':
        return this.#metadata(head, framing);
      case 'status':
        // BUTT asks every second how many listen. They are counted elsewhere; without the number it shows none.
        return this.#answer(STATUS);
      case 'root':
      case 'server':
        return this.#answer(text(`Veza takes broadcasters here. ${USAGE}`));
    }
  }

  /** By `GET` as a query, or by `POST` as a form, as libshout does where `OPTIONS` lists it. What the form does not have is taken from the query. */
  async #metadata(head: RequestHead, framing: Framing): Promise<void> {
    const { gate } = this.#context;
    const key = icecastKey(head);
    const fields = head.method === 'POST' ? `${await this.#readForm(head, framing)}&${head.query}` : head.query;
    const { channel, update } = readMetadataCall(fields, channelOf);
    this.#channel = channel;
    const request = this.#publishRequest(channel, key);
    // Without a title the key is still checked: an empty call must not tell more than a full one. HEAD changes nothing (RFC 9110 9.2.1).
    if (update && head.method !== 'HEAD') await gate.title(request, update);
    else await gate.admit(request);
    if (this.#phase === 'deciding') this.#answer(METADATA_DONE);
  }

  /** Resolves when it is whole; what goes wrong with it ends the request. */
  #readForm(head: RequestHead, framing: Framing): Promise<string> {
    const { limits, clock } = this.#context;
    checkForm(head, framing, limits.formBytes);
    const body = new BodyReader(framing, limits);
    if (body.done) return Promise.resolve('');
    this.#body = body;
    this.#enter('form', limits.formMs);
    if (head.headers.has('expect') && head.version === 'HTTP/1.1')
      this.#socket.write(renderAnswer({ status: 100 }, { version: head.version, wallMs: clock.wallMs() }));
    this.#socket.resume();
    return new Promise((whole) => {
      this.#form = { pieces: [], sizeBytes: 0, whole };
    });
  }

  #takeForm(bytes: Buffer): void {
    const { limits } = this.#context;
    const form = this.#form!;
    this.#body!.push(bytes, (data) => {
      form.sizeBytes += data.length;
      if (form.sizeBytes > limits.formBytes) throw formTooLarge(limits.formBytes);
      form.pieces.push(Buffer.from(data));
    });
    if (!this.#body!.done) return;
    this.#socket.pause();
    this.#enter('deciding', limits.admitMs);
    // Bytes, as in a query: what they mean is said by `charset`.
    form.whole(Buffer.concat(form.pieces).toString('latin1'));
  }

  async #publish(channel: string, key: string, framing: Framing): Promise<void> {
    const { gate, limits, log } = this.#context;
    const head = this.#head!;
    const admission = await gate.admit(this.#publishRequest(channel, key));
    if (this.#phase !== 'deciding') return;
    this.#settle();
    log.info(this.#who(), 'ingest accepted');
    this.#body = new BodyReader(framing, limits);
    this.#publication = new Publication({
      admission,
      contentType: head.headers.get('content-type') ?? '',
      limits,
      onDrain: () => this.#release(),
      onClose: (error) => this.#refuse(refusalFor(error)),
    });
    this.#enter('sniffing', limits.sniffMs);
    // RFC 9110 10.1.1: an expectation of an HTTP/1.0 client is ignored. Who sends until close without one waits for a
    // whole answer before its first byte (libshout, darkice, liquidsoap) and cannot be told anything later.
    const waits = head.headers.has('expect') && head.version === 'HTTP/1.1';
    const { version } = head;
    const wallMs = this.#context.clock.wallMs();
    if (waits) this.#socket.write(renderAnswer({ status: 100 }, { version, wallMs }));
    else if (framing.kind === 'close' && this.#protocol === 'icecast') {
      this.#answered = true;
      this.#socket.write(renderAnswer({ status: 200 }, { version, wallMs, open: true }));
    }
    if (this.#body.done) this.#finish('finished');
    else this.#socket.resume();
  }

  #publishRequest(channel: string, streamKey: string): PublishRequest {
    return { protocol: this.#protocol, channel, streamKey, remoteAddress: this.#address, client: this.#client() };
  }

  #client(): string {
    return (this.#head?.headers.get('user-agent') ?? '').slice(0, CLIENT_CHARS);
  }

  #who(): object {
    return { protocol: this.#protocol, channel: this.#channel, remoteAddress: this.#address, client: this.#client() };
  }

  #release(): void {
    if (!this.#held || this.#phase === 'closing') return;
    this.#held = false;
    this.#deadlineMs = this.#context.clock.monotonicMs() + this.#context.limits.idleMs;
    this.#socket.resume();
  }

  #finish(how: SourceEnd): void {
    const refusal = this.#publication!.unrecognised;
    if (refusal) throw refusal;
    const begun = this.#endPublication(how);
    this.#context.log.info({ ...this.#who(), how }, 'ingest ended');
    if (!begun || this.#answered) {
      this.#finished();
      return;
    }
    // Who reads the answer finds the channel on air: a short file is sent before the first of it is decoded.
    this.#enter('beginning', this.#context.limits.beginMs);
    void begun.then(() => this.#finished());
  }

  #finished(): void {
    if (this.#phase !== 'closing') this.#answer(this.#protocol === 'post' ? POST_DONE : text('finished'));
  }

  /** The one place where a failure becomes bytes, a log line and the end of the source. */
  #refuse(error: unknown): void {
    if (this.#phase === 'closing') return;
    const refusal = toRefusal(error);
    const fields = { ...this.#who(), status: refusal.status, code: refusal.code, reason: refusal.message };
    const log = this.#publication ? this.#context.log : this.#context.strangersLog;
    if (refusal.status === 500) log.error({ ...fields, error: messageOf(error) }, 'ingest failed');
    else log.info(fields, 'ingest refused');
    this.#endPublication('lost');
    this.#answer(this.#protocol === 'post' ? postRefusal(refusal) : icecastRefusal(refusal));
  }

  #endPublication(how: SourceEnd): Promise<void> | undefined {
    const publication = this.#publication;
    this.#publication = undefined;
    return publication?.end(how);
  }

  #answer(answer: Answer): void {
    const version: HttpVersion = this.#head?.version ?? 'HTTP/1.0';
    const options = { version, wallMs: this.#context.clock.wallMs(), bodiless: this.#head?.method === 'HEAD' };
    this.#enter('closing', this.#context.limits.lingerMs);
    // Closing with unread bytes would send a reset, and the client might never see the answer.
    this.#socket.end(this.#answered ? '' : renderAnswer(answer, options));
    this.#socket.resume();
  }
}

const USAGE =
  'PUT or SOURCE /{channel} (Icecast), POST /ingest/{channel}, GET or POST /admin/metadata. Listeners and statistics have the web port.';

const STATUS: Answer = { status: 200, headers: { 'Content-Type': 'application/json' }, body: '{"icestats":{"server_id":"Veza"}}\n' };

const text = (body: string): Answer => ({ status: 200, headers: { 'Content-Type': 'text/plain; charset=utf-8' }, body: `${body}\n` });

type Resource =
  /** `*`: the port as a whole, of which only OPTIONS can ask. */
  | { readonly kind: 'server' | 'root' | 'status' | 'metadata'; readonly channel?: undefined }
  | { readonly kind: 'post' | 'mount'; readonly channel: string };

const ALLOWED: Readonly<Record<Resource['kind'], readonly string[]>> = {
  // libshout asks this before it connects, and where `POST` is listed it posts metadata calls as a form.
  server: ['PUT', 'SOURCE', 'GET', 'OPTIONS', 'HEAD', 'POST'],
  root: ['GET', 'HEAD', 'OPTIONS'],
  status: ['GET', 'HEAD', 'OPTIONS'],
  metadata: ['GET', 'POST', 'HEAD', 'OPTIONS'],
  post: ['POST', 'OPTIONS'],
  mount: ['PUT', 'SOURCE', 'OPTIONS'],
};

/** RFC 9110 9.1: another method is not implemented, whatever the address; one of these may just not be allowed there. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH', 'SOURCE']);

function resourceOf(path: string): Resource | undefined {
  if (path === '*') return { kind: 'server' };
  if (path === '/') return { kind: 'root' };
  if (path === '/status-json.xsl') return { kind: 'status' };
  if (path === '/admin/metadata') return { kind: 'metadata' };
  const posted = path.startsWith('/ingest/') ? channelOf(path.slice('/ingest'.length)) : undefined;
  if (posted !== undefined) return { kind: 'post', channel: posted };
  const mount = channelOf(path);
  return mount === undefined ? undefined : { kind: 'mount', channel: mount };
}

/** RFC 9110 10.1.1; an expectation of an HTTP/1.0 client is ignored. */
function checkExpect({ version, headers }: RequestHead): void {
  const expect = headers.get('expect')?.toLowerCase();
  if (version !== 'HTTP/1.1' || expect === undefined || expect === '100-continue') return;
  throw new HttpRefusal(417, 'expectation_failed', 'only 100-continue may be expected');
}

/** The channel of a path `/{channel}`; undefined when it is not one. */
function channelOf(path: string): string | undefined {
  const slug = path.startsWith('/') ? path.slice(1) : '';
  return CHANNEL.test(slug) ? slug : undefined;
}

function toRefusal(error: unknown): HttpRefusal {
  if (error instanceof HttpRefusal) return error;
  if (error instanceof VezaError) return refusalFor(error);
  return new HttpRefusal(500, 'internal', 'an error of the server');
}
