import type { Socket } from 'node:net';
import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Publication } from '../publication.js';
import { TAKEN } from '../sniff.js';
import type { Gate, IngestRequest, Protocol, SourceEnd } from '../source.js';
import { checkForm, formTooLarge, icecastKey, icecastRefusal, METADATA_DONE, readMetadataCall } from './icecast.js';
import type { IngestHttpLimits } from './limits.js';
import { POST_DONE, postFraming, postKey, postRefusal } from './post.js';
import { ALLOWED_METHODS, channelOf, KNOWN_METHODS, resourceOf, USAGE } from './resources.js';
import {
  BodyReader,
  checkHost,
  type Framing,
  framingOf,
  HeadParser,
  HttpRefusal,
  type HttpVersion,
  type IngestAnswer,
  type RequestHead,
  refusalFor,
  renderAnswer,
} from './wire.js';

/** At most this many characters of a User-Agent are kept. */
const CLIENT_CHARS = 200;

export interface IngestHttpContext {
  readonly gate: Gate;
  readonly clock: Clock;
  readonly log: Log;
  /** The log for lines about clients whose key has not been accepted; their number is bounded. */
  readonly strangersLog: LineLog;
  readonly limits: IngestHttpLimits;
}

/**
 * The phase of a connection; only `#enter` changes it.
 *
 * head → form (the body of a metadata call by POST) → deciding (the gate checks the key; the socket
 * is not read) → sniffing → streaming → beginning (the body has ended, and its broadcast cannot be
 * played yet) → closing.
 *
 * A refusal leads from every phase to `closing`. In `closing` the client has had its answer, or
 * none can be sent. Bytes that still arrive are discarded.
 */
type IngestHttpPhase = 'head' | 'form' | 'deciding' | 'sniffing' | 'streaming' | 'beginning' | 'closing';

export class IngestHttpConnection {
  readonly #socket: Socket;
  readonly #address: string;
  readonly #context: IngestHttpContext;
  readonly #admitted: () => void;
  readonly #parser: HeadParser;
  #phase: IngestHttpPhase = 'head';
  /** Monotonic time at which the phase ends by force. In `streaming` every read moves it. */
  #deadlineMs: number;
  #head: RequestHead | undefined;
  #protocol: Protocol = 'icecast';
  #channel: string | undefined;
  #body: BodyReader | undefined;
  #form: { readonly pieces: Buffer[]; sizeBytes: number; readonly whole: (fields: string) => void } | undefined;
  #publication: Publication | undefined;
  /** A SOURCE request has been answered with 200; no other status can follow. */
  #answered = false;
  /** The decoder takes no more bytes, and the socket is paused. */
  #isPaused = false;
  #lingerBytes = 0;

  constructor(socket: Socket, address: string, context: IngestHttpContext, nowMs: number, admitted: () => void) {
    this.#socket = socket;
    this.#address = address;
    this.#context = context;
    this.#admitted = admitted;
    this.#parser = new HeadParser(context.limits);
    this.#deadlineMs = nowMs + context.limits.headMs;
    socket.on('data', (bytes) => this.#guard(() => this.#onData(bytes)));
    socket.on('end', () => this.#guard(() => this.#onEnd()));
    socket.on('error', (error) => this.#onGone(error.message));
    socket.on('close', () => this.#onGone('closed'));
  }

  checkDeadline(nowMs: number): void {
    if (nowMs < this.#deadlineMs || (this.#isPaused && this.#phase === 'streaming')) return;
    const { limits } = this.#context;
    switch (this.#phase) {
      case 'closing':
        this.#socket.destroy();
        break;
      case 'deciding':
        this.#refuse(refusalFor(new VezaError('unavailable', 'the key could not be checked in time')));
        break;
      case 'head':
        // A client that has sent nothing gets neither an answer nor a log line.
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
        this.#answerFinished();
        break;
      case 'streaming':
        this.#refuse(new HttpRefusal(408, 'timeout', `nothing was sent for ${limits.idleMs / 1000} s`));
        break;
    }
  }

  /** Ends the connection because the server stops. */
  shutDown(): void {
    if (this.#phase === 'beginning') this.#answerFinished();
    else if (this.#phase !== 'closing' && this.#parser.begun) this.#refuse(refusalFor(new VezaError('unavailable', 'shutting down')));
    this.#socket.destroySoon();
    this.#socket.resume();
  }

  #enter(phase: IngestHttpPhase, timeMs: number): void {
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
      // The body stays in the socket until the gate has decided.
      this.#socket.pause();
      if (parsed.used < bytes.length) this.#socket.unshift(bytes.subarray(parsed.used));
      this.#head = parsed.head;
      this.#enter('deciding', limits.admitMs);
      this.#route(parsed.head).catch((error: unknown) => this.#refuse(error));
    } else if (this.#phase === 'form') {
      this.#takeForm(bytes);
    } else if (this.#phase === 'sniffing' || this.#phase === 'streaming') {
      const publication = this.#publication!;
      // All pieces of one read are passed on together: a piece costs about the same whatever its
      // size, and a client may send chunks of one byte each.
      const pieces: Buffer[] = [];
      this.#body!.push(bytes, (data) => pieces.push(data));
      if (pieces.length > 0) publication.push(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces));
      // `publication.push` may have closed the source; then the answer has been sent already.
      if ((this.#phase as IngestHttpPhase) === 'closing') return;
      if (this.#body!.done) {
        this.#finish('finished');
        return;
      }
      if (this.#phase === 'sniffing' && publication.format) {
        this.#enter('streaming', limits.idleMs);
        this.#context.log.info(
          { event: 'ingest.recognised', ...this.#logFields(), format: publication.format },
          'the format of a source was recognised',
        );
      }
      if (this.#phase === 'streaming') this.#deadlineMs = clock.monotonicMs() + limits.idleMs;
      if (!publication.writable) {
        this.#isPaused = true;
        this.#socket.pause();
      }
    } else {
      this.#lingerBytes += bytes.length;
      if (this.#lingerBytes > limits.lingerBytes) this.#socket.destroy();
    }
  }

  /**
   * The client has closed its sending side. That is an error, except in `closing` and where the
   * body ends with the connection.
   */
  #onEnd(): void {
    if (this.#phase === 'sniffing' || this.#phase === 'streaming') {
      if (!this.#body!.untilClose) throw new HttpRefusal(400, 'bad_request', 'the connection was closed before the end of the body');
      // The broadcaster may have stopped, or the connection may have failed: both look the same
      // here. The broadcast is held for the reconnect window.
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
      this.#context.log.info({ event: 'ingest.connection_lost', ...this.#logFields(), reason }, 'the connection to a source was lost');
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
    // Defects of the whole request are refused before its resource and method are checked.
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
        // Icecast encoders send without a length until they stop, which HTTP does not provide for.
        return this.#publish(resource.channel, icecastKey(head), framing.kind === 'none' ? { kind: 'close' } : framing);
      case 'metadata':
        return this.#metadata(head, framing);
      case 'status':
        // BUTT asks every second for the number of listeners. The web port counts them; with an
        // answer that lacks the number BUTT shows none.
        return this.#answer(STATUS);
      case 'root':
      case 'server':
        return this.#answer(text(`Veza takes broadcasters here. ${USAGE}`));
    }
  }

  /**
   * Answers a metadata call. Its fields are in the query, or, with POST, in a form (libshout posts
   * one). A field of the form takes precedence over the same field of the query.
   */
  async #metadata(head: RequestHead, framing: Framing): Promise<void> {
    const { gate } = this.#context;
    const key = icecastKey(head);
    const fields = head.method === 'POST' ? `${await this.#readForm(head, framing)}&${head.query}` : head.query;
    const { channel, update } = readMetadataCall(fields, channelOf);
    this.#channel = channel;
    const request = this.#publishRequest(channel, key);
    // A call without a title checks the key, too, so that its answer reveals no more than that of a
    // call with one. HEAD changes nothing (RFC 9110 9.2.1).
    if (update && head.method !== 'HEAD') await gate.title(request, update);
    else await gate.admit(request);
    if (this.#phase === 'deciding') this.#answer(METADATA_DONE);
  }

  /**
   * Resolves with the form when all of it has arrived. An error in the form ends the request, and
   * the promise stays pending.
   */
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
    // One character per byte, as in a query: the field `charset` names the encoding.
    form.whole(Buffer.concat(form.pieces).toString('latin1'));
  }

  async #publish(channel: string, key: string, framing: Framing): Promise<void> {
    const { gate, limits, log } = this.#context;
    const head = this.#head!;
    const admission = await gate.admit(this.#publishRequest(channel, key));
    if (this.#phase !== 'deciding') return;
    this.#admitted();
    log.info({ event: 'ingest.accepted', ...this.#logFields() }, 'a source was accepted');
    this.#body = new BodyReader(framing, limits);
    this.#publication = new Publication({
      admission,
      contentType: head.headers.get('content-type') ?? '',
      limits,
      onDrain: () => this.#resumeReading(),
      onClose: (error) => this.#refuse(refusalFor(error)),
    });
    this.#enter('sniffing', limits.sniffMs);
    // RFC 9110 10.1.1: an expectation of an HTTP/1.0 client is ignored. A client that sends until
    // close without an expectation waits for a whole answer before its first byte (libshout,
    // darkice, liquidsoap) and can be sent no other answer later.
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

  #publishRequest(channel: string, streamKey: string): IngestRequest {
    return { protocol: this.#protocol, channel, streamKey, remoteAddress: this.#address, client: this.#client() };
  }

  #client(): string {
    return (this.#head?.headers.get('user-agent') ?? '').slice(0, CLIENT_CHARS);
  }

  #logFields(): object {
    return { protocol: this.#protocol, channel: this.#channel, remoteAddress: this.#address, client: this.#client() };
  }

  #resumeReading(): void {
    if (!this.#isPaused || this.#phase === 'closing') return;
    this.#isPaused = false;
    this.#deadlineMs = this.#context.clock.monotonicMs() + this.#context.limits.idleMs;
    this.#socket.resume();
  }

  #finish(how: SourceEnd): void {
    const refusal = this.#publication!.unrecognised;
    if (refusal) throw refusal;
    const begun = this.#endPublication(how);
    this.#context.log.info({ event: 'ingest.ended', ...this.#logFields(), how }, 'a source ended');
    if (!begun || this.#answered) {
      this.#answerFinished();
      return;
    }
    // The answer waits until the channel is on air, so that a client that has it finds the
    // broadcast. The body of a short file has arrived before its first second is decoded.
    this.#enter('beginning', this.#context.limits.beginMs);
    void begun.then(() => this.#answerFinished());
  }

  #answerFinished(): void {
    if (this.#phase !== 'closing') this.#answer(this.#protocol === 'post' ? POST_DONE : text('finished'));
  }

  /** The one place that turns an error into an answer, a log line and the end of the source. */
  #refuse(error: unknown): void {
    if (this.#phase === 'closing') return;
    const refusal = toRefusal(error);
    const fields = { ...this.#logFields(), status: refusal.status, code: refusal.code, reason: refusal.message };
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

  #answer(answer: IngestAnswer): void {
    const version: HttpVersion = this.#head?.version ?? 'HTTP/1.0';
    const options = { version, wallMs: this.#context.clock.wallMs(), bodiless: this.#head?.method === 'HEAD' };
    this.#enter('closing', this.#context.limits.lingerMs);
    // The rest of the request is read: closing with unread bytes sends a reset, and the client
    // might never see the answer.
    this.#socket.end(this.#answered ? '' : renderAnswer(answer, options));
    this.#socket.resume();
  }
}

const STATUS: IngestAnswer = { status: 200, headers: { 'Content-Type': 'application/json' }, body: '{"icestats":{"server_id":"Veza"}}\n' };

const text = (body: string): IngestAnswer => ({ status: 200, headers: { 'Content-Type': 'text/plain; charset=utf-8' }, body: `${body}\n` });

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
