import type { Socket } from 'node:net';
import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Publication } from '../publication.js';
import { TAKEN } from '../sniff.js';
import type { Gate, Protocol, PublishRequest, SourceEnd } from '../source.js';
import { checkForm, formTooLarge, icecastKey, icecastRefusal, METADATA_DONE, readMetadataCall } from './icecast.js';
import type { IngestHttpLimits } from './limits.js';
import { POST_DONE, postFraming, postKey, postRefusal } from './post.js';
import { ALLOWED_METHODS, channelOf, KNOWN_METHODS, resourceOf, USAGE } from './resources.js';
import {
  type Answer,
  BodyReader,
  checkHost,
  type Framing,
  framingOf,
  HeadParser,
  HttpRefusal,
  type HttpVersion,
  type RequestHead,
  refusalFor,
  renderAnswer,
} from './wire.js';

/** Characters of a User-Agent that are kept. */
const CLIENT_CHARS = 200;

export interface IngestHttpContext {
  readonly gate: Gate;
  readonly clock: Clock;
  readonly log: Log;
  /** For lines about clients whose key is not accepted. */
  readonly strangersLog: LineLog;
  readonly limits: IngestHttpLimits;
}

/**
 * What a connection is waiting for; only `#enter` changes it.
 *
 * head → form (the body of a metadata call by POST) → deciding (the gate; the socket is not read) → sniffing → streaming →
 * beginning (the body has ended, and its show cannot be seen yet) → closing. Every phase may go to `closing` by a refusal. In `closing` the client was answered, or there is nothing to
 * tell it; what it still sends is thrown away.
 */
type Phase = 'head' | 'form' | 'deciding' | 'sniffing' | 'streaming' | 'beginning' | 'closing';

export class IngestHttpConnection {
  readonly #socket: Socket;
  readonly #address: string;
  readonly #context: IngestHttpContext;
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

  constructor(socket: Socket, address: string, context: IngestHttpContext, nowMs: number, settle: () => void) {
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
        this.#context.log.info(
          { event: 'ingest.recognised', ...this.#who(), format: publication.format },
          'the format of a source was recognised',
        );
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
      this.#context.log.info({ event: 'ingest.connection_lost', ...this.#who(), reason }, 'the connection to a source was lost');
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
    if (!KNOWN_METHODS.has(method)) throw new HttpRefusal(501, 'not_implemented', `the method ${method.slice(0, 20)} is not known here`);
    if (!resource) throw new HttpRefusal(404, 'not_found', `there is nothing at this address. ${USAGE}`);
    const allowed = ALLOWED_METHODS[resource.kind];
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

  /** The fields come in the query, or by POST in a form (libshout posts one); the query gives what the form lacks. */
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

  /** Resolves with the form when it has arrived whole; an error in it ends the request. */
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
    // Bytes, as in a query: the field `charset` says how to read them.
    form.whole(Buffer.concat(form.pieces).toString('latin1'));
  }

  async #publish(channel: string, key: string, framing: Framing): Promise<void> {
    const { gate, limits, log } = this.#context;
    const head = this.#head!;
    const admission = await gate.admit(this.#publishRequest(channel, key));
    if (this.#phase !== 'deciding') return;
    this.#settle();
    log.info({ event: 'ingest.accepted', ...this.#who() }, 'a source was accepted');
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
    this.#context.log.info({ event: 'ingest.ended', ...this.#who(), how }, 'a source ended');
    if (!begun || this.#answered) {
      this.#finished();
      return;
    }
    // A client that has its answer finds the channel on air: a short file is sent before the first of it is decoded.
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
    if (refusal.status === 500)
      log.error({ event: 'ingest.failed', ...fields, error: messageOf(error) }, 'a source failed by an internal error');
    else log.info({ event: 'ingest.refused', ...fields }, 'a source was refused');
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

const STATUS: Answer = { status: 200, headers: { 'Content-Type': 'application/json' }, body: '{"icestats":{"server_id":"Veza"}}\n' };

const text = (body: string): Answer => ({ status: 200, headers: { 'Content-Type': 'text/plain; charset=utf-8' }, body: `${body}\n` });

/** RFC 9110 10.1.1; an expectation of an HTTP/1.0 client is ignored. */
function checkExpect({ version, headers }: RequestHead): void {
  const expect = headers.get('expect')?.toLowerCase();
  if (version !== 'HTTP/1.1' || expect === undefined || expect === '100-continue') return;
  throw new HttpRefusal(417, 'expectation_failed', 'only 100-continue may be expected');
}

function toRefusal(error: unknown): HttpRefusal {
  if (error instanceof HttpRefusal) return error;
  if (error instanceof VezaError) return refusalFor(error);
  return new HttpRefusal(500, 'internal', 'an error of the server');
}
