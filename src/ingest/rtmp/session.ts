import type { Socket } from 'node:net';
import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Gate, IngestAdmission, Protocol, Source, SourceEnd, SourceFormat, TitleUpdate } from '../source.js';
import { type Amf, decodeAmf0 } from './amf0.js';
import { AudioUnwrapper, TAKEN } from './audio.js';
import { ChunkReader, MESSAGE, type RtmpMessage } from './chunk.js';
import { RtmpRefusal, refusalOf, statusCodeOf, violation } from './errors.js';
import { Handshake } from './handshake.js';
import type { RtmpSessionLimits } from './limits.js';
import { nameOf, textOf, titlesOf } from './metadata.js';
import { RtmpOutput, status, WINDOW_BYTES } from './output.js';

export interface SessionContext {
  readonly gate: Gate;
  readonly clock: Clock;
  readonly log: Log;
  /** The log for lines about clients whose key has not been accepted; their number is bounded. */
  readonly strangersLog: LineLog;
  readonly limits: RtmpSessionLimits;
  readonly protocol: Protocol;
}

const APP = 'live';
const FIRST_STREAM_ID = 1;
const CLIENT_CHARS = 200;
const PING_REQUEST = 6;
/**
 * The phase of a connection; only `#enter` changes it.
 *
 * handshake → connect → idle → deciding (the gate checks the key; the socket is not read) → onAir →
 * idle …
 *
 * Every phase may lead to `closing`. In `closing` the last status has been sent, and bytes that
 * still arrive are discarded.
 */
type RtmpPhase = 'handshake' | 'connect' | 'idle' | 'deciding' | 'onAir' | 'closing';

/**
 * One RTMP connection. Every error in it ends it, with a status for the client and one log line.
 */
export class RtmpSession {
  readonly #socket: Socket;
  readonly #address: string;
  readonly #context: SessionContext;
  readonly #admitted: () => void;
  readonly #reader: ChunkReader;
  readonly #output: RtmpOutput;
  #phase: RtmpPhase = 'handshake';
  /** Monotonic time at which the phase ends by force. On air every read moves it. */
  #deadlineMs: number;
  /** Monotonic time at which a connection on air is refused for sending no audio. */
  #audioDeadlineMs = 0;
  #handshake = new Handshake();
  /** Bytes that were read while the gate decides; they are parsed afterwards. */
  #rest: Buffer = Buffer.alloc(0);
  #client = '';
  /** The id in the answer to the next `createStream`. */
  #nextStreamId = FIRST_STREAM_ID;
  /** The id of the stream that is published on now, or was last. */
  #streamId = FIRST_STREAM_ID;
  #streamKey = '';
  #channel: string | undefined;
  #admission: IngestAdmission | undefined;
  #audio: AudioUnwrapper | undefined;
  #source: Source | undefined;
  /** Raised with each source, so that events of an earlier one are ignored. */
  #sourceNumber = 0;
  /** The decoder takes no more bytes, and the socket is paused. */
  #isPaused = false;
  #title: TitleUpdate | undefined;
  #receivedBytes = 0;
  #acknowledgedBytes = 0;
  #ackWindowBytes = WINDOW_BYTES;
  #lingerBytes = 0;

  /** `admitted` is called at most once, when a key is accepted. */
  constructor(socket: Socket, address: string, context: SessionContext, admitted: () => void) {
    this.#socket = socket;
    this.#address = address;
    this.#context = context;
    this.#admitted = admitted;
    this.#output = new RtmpOutput(socket, context.limits.unreadBytes, () => this.#onUnread());
    this.#reader = new ChunkReader(context.limits, (message) => this.#onMessage(message));
    this.#deadlineMs = context.clock.monotonicMs() + context.limits.handshakeMs;
    socket.on('data', (bytes: Buffer) => this.#guard(() => this.#onData(bytes)));
    socket.on('end', () => this.#onGone('closed by the client'));
    socket.on('error', (error) => this.#onGone(error.message));
    socket.on('close', () => this.#onGone('closed'));
  }

  /** Ends the phase when its deadline has passed. The server calls this regularly. */
  checkDeadline(nowMs: number): void {
    if (this.#phase === 'onAir' && this.#isPaused) return;
    const { limits } = this.#context;
    const audioLate = this.#phase === 'onAir' && nowMs >= this.#audioDeadlineMs;
    if (nowMs < this.#deadlineMs && !audioLate) return;
    switch (this.#phase) {
      case 'closing':
        this.#socket.destroy();
        break;
      case 'handshake':
        // A client that has sent nothing gets no log line.
        if (this.#handshake.step === 'version') this.#socket.destroy();
        else this.#refuse(violation(`the handshake took longer than ${limits.handshakeMs / 1000} s`));
        break;
      case 'connect':
      case 'idle':
        this.#refuse(violation(`no publish in ${limits.publishMs / 1000} s`));
        break;
      case 'deciding':
        this.#refuse(new RtmpRefusal('NetStream.Failed', 'the key could not be checked in time'));
        break;
      case 'onAir':
        if (audioLate) this.#refuse(new RtmpRefusal('NetStream.Publish.Rejected', `no audio in ${limits.audioMs / 1000} s`));
        else this.#refuse(violation(`nothing was sent for ${limits.idleMs / 1000} s`));
        break;
    }
  }

  /**
   * Ends the connection because the server stops. A source ends as `lost`, so that its broadcast is
   * held until the broadcaster connects to the next process.
   */
  shutDown(): void {
    if (this.#phase === 'onAir' || this.#phase === 'deciding') {
      this.#refuse(new RtmpRefusal('NetConnection.Connect.AppShutdown', 'the server is shutting down'));
    }
    this.#phase = 'closing';
    this.#socket.resume();
    this.#socket.destroySoon();
  }

  #enter(phase: RtmpPhase, timeMs: number): void {
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
    if (this.#phase === 'closing') {
      this.#lingerBytes += bytes.length;
      if (this.#lingerBytes > limits.lingerBytes) this.#socket.destroy();
      return;
    }
    this.#receivedBytes += bytes.length;
    if (this.#phase === 'onAir') this.#deadlineMs = clock.monotonicMs() + limits.idleMs;
    if (this.#phase === 'deciding') this.#rest = Buffer.concat([this.#rest, bytes]);
    else this.#parse(this.#phase === 'handshake' ? this.#shakeHands(bytes) : bytes);
    this.#acknowledge();
  }

  /** Returns the bytes that follow the handshake. */
  #shakeHands(bytes: Buffer): Buffer {
    const rest = this.#handshake.read(bytes, (reply) => this.#output.sendBytes(reply));
    if (this.#handshake.step === 'done' && this.#phase === 'handshake') this.#enter('connect', this.#context.limits.publishMs);
    return rest;
  }

  #parse(bytes: Buffer): void {
    const used = this.#reader.push(bytes);
    if (used < bytes.length) this.#rest = Buffer.from(bytes.subarray(used));
  }

  /**
   * Sends at most one acknowledgement per read, however small a window the client asks for (RTMP
   * 1.0 5.4.3).
   */
  #acknowledge(): void {
    if (this.#phase === 'closing' || this.#receivedBytes - this.#acknowledgedBytes < this.#ackWindowBytes) return;
    this.#acknowledgedBytes = this.#receivedBytes;
    this.#output.sendAcknowledgement(this.#receivedBytes);
  }

  #onMessage(message: RtmpMessage): void {
    // An earlier message of the same read has closed the connection.
    if (this.#phase === 'closing') return;
    const { payload } = message;
    switch (message.type) {
      case MESSAGE.audio:
        if (this.#phase !== 'onAir') return;
        if (payload.length > 0) this.#audioDeadlineMs = this.#context.clock.monotonicMs() + this.#context.limits.audioMs;
        this.#audio!.push(payload);
        return;
      case MESSAGE.data:
        this.#onMetadata(payload);
        return;
      case MESSAGE.dataAmf3:
        this.#onMetadata(payload.subarray(1));
        return;
      case MESSAGE.command:
        this.#onCommand(message.streamId, payload);
        return;
      case MESSAGE.commandAmf3:
        // One byte, then AMF 0: clients that were offered AMF 3 send commands this way.
        this.#onCommand(message.streamId, payload.subarray(1));
        return;
      case MESSAGE.windowAckSize:
        if (payload.length >= 4) this.#ackWindowBytes = Math.max(1, payload.readUInt32BE());
        return;
      case MESSAGE.userControl:
        if (payload.length >= 6 && payload.readUInt16BE() === PING_REQUEST) {
          this.#output.sendPingResponse(payload.subarray(2, 6));
        }
        return;
    }
  }

  #onCommand(streamId: number, payload: Buffer): void {
    const [name, transaction, ...args] = decodeAmf0(payload, this.#context.limits);
    if (typeof name !== 'string' || typeof transaction !== 'number') throw violation('a command without a name or a number');
    if (name === 'connect') {
      this.#onConnect(transaction, args[0]);
      return;
    }
    if (this.#phase === 'connect') throw violation(`${name.slice(0, 40)} before connect`);
    switch (name) {
      case 'publish':
        this.#onPublish(streamId, args[1]);
        break;
      case 'play':
      case 'play2':
        throw new RtmpRefusal('NetStream.Play.Failed', 'this address takes broadcasts; listeners use HLS, DASH or /listen');
      case 'createStream':
        this.#output.sendCommand('_result', transaction, null, this.#nextStreamId++);
        break;
      // OBS, librtmp and ffmpeg send FCUnpublish and then deleteStream; the first to arrive ends
      // the stream. Each may name another stream than the published one.
      case 'FCUnpublish':
        if (nameOf(args[1]) === '' || nameOf(args[1]) === this.#streamKey) this.#finish();
        break;
      case 'deleteStream':
        if (typeof args[1] !== 'number' || this.#isPublished(args[1])) this.#finish();
        break;
      case 'closeStream':
        if (streamId === 0 || this.#isPublished(streamId)) this.#finish();
        break;
      case '_result':
      case '_error':
        // These answer commands that were never sent.
        return;
    }
    if (transaction === 0 || name === 'publish' || name === 'createStream') return;
    const known = ['releaseStream', 'FCPublish', 'FCUnpublish', 'deleteStream', 'closeStream', '_checkbw'].includes(name);
    if (known) this.#output.sendCommand('_result', transaction, null, undefined);
    else this.#output.sendCommand('_error', transaction, null, status('error', 'NetConnection.Call.Failed', 'no such command'));
  }

  #onConnect(transaction: number, object: Amf): void {
    if (this.#phase !== 'connect') throw violation('connect twice');
    const fields: ReadonlyMap<string, Amf> = object instanceof Map ? object : new Map();
    const app = textOf(fields.get('app'));
    const flashVersion = textOf(fields.get('flashVer'));
    this.#client = flashVersion.slice(0, CLIENT_CHARS);
    if (app.replace(/\?.*$/s, '').replace(/\/+$/, '') !== APP) {
      const refusal = new RtmpRefusal(
        'NetConnection.Connect.InvalidApp',
        `the address ends in /${APP}, and the stream key is the stream name`,
      );
      this.#output.sendCommand('_error', transaction, null, status('error', refusal.code, refusal.message));
      this.#close(refusal);
      return;
    }
    this.#enter('idle', this.#deadlineMs - this.#context.clock.monotonicMs());
    this.#output.sendSettings();
    this.#output.sendConnected(transaction);
  }

  #onPublish(streamId: number, name: Amf): void {
    const { limits, gate, protocol } = this.#context;
    if (this.#phase !== 'idle') throw violation('publish while on air');
    const streamKey = nameOf(name);
    if (streamKey === '') throw new RtmpRefusal('NetStream.Publish.Denied', 'no stream key: it is the stream name');
    if (streamKey.length > limits.keyChars) throw new RtmpRefusal('NetStream.Publish.Denied', 'no such stream key');
    this.#streamId = streamId;
    this.#streamKey = streamKey;
    this.#enter('deciding', limits.admitMs);
    // Further messages wait for the gate: some encoders send their sequence header without waiting
    // for an answer.
    this.#reader.pause();
    this.#socket.pause();
    gate
      .admit({ protocol, channel: undefined, streamKey, remoteAddress: this.#address, client: this.#client })
      .then((admission) => this.#onAdmitted(streamId, admission))
      .catch((error: unknown) => this.#refuse(error));
  }

  /**
   * Whether this stream is the published one. A client that publishes on stream 0 means the stream
   * that it has created.
   */
  #isPublished(streamId: number): boolean {
    return streamId === this.#streamId || (this.#streamId === 0 && streamId < this.#nextStreamId);
  }

  #onAdmitted(streamId: number, admission: IngestAdmission): void {
    const { limits, clock, log } = this.#context;
    if (this.#phase !== 'deciding') return;
    this.#admission = admission;
    this.#channel = admission.channel;
    this.#admitted();
    this.#enter('onAir', limits.idleMs);
    this.#audioDeadlineMs = clock.monotonicMs() + limits.audioMs;
    this.#audio = new AudioUnwrapper({ begin: (format) => this.#beginSource(format), write: (bytes) => this.#write(bytes) });
    this.#output.sendStreamBegin(streamId);
    this.#output.sendCommand('onStatus', 0, null, status('status', 'NetStream.Publish.Start', `${admission.channel} is on air`), streamId);
    log.info({ event: 'ingest.accepted', ...this.#logFields() }, 'a source was accepted');
    const rest = this.#rest;
    this.#rest = Buffer.alloc(0);
    this.#guard(() => this.#parse(rest));
    // Parsing may have ended the connection, or the decoder may take no more bytes.
    if (!this.#isPaused && (this.#phase as RtmpPhase) !== 'deciding') this.#socket.resume();
  }

  #beginSource(format: SourceFormat): void {
    if (this.#phase !== 'onAir') return;
    this.#source?.end('finished');
    const number = ++this.#sourceNumber;
    const source = this.#admission!.open(format, {
      onDrain: () => {
        if (number !== this.#sourceNumber || !this.#isPaused) return;
        this.#resumeReading();
      },
      onClose: (error) => {
        if (number !== this.#sourceNumber || this.#phase !== 'onAir') return;
        const list = error.code === 'unsupported_media' ? `; ${TAKEN} are taken` : '';
        this.#refuse(new RtmpRefusal(statusCodeOf(error.code), `${error.message}${list}`));
      },
    });
    if ((this.#phase as RtmpPhase) !== 'onAir') {
      // The source was closed while it was being opened.
      source.end('lost');
      return;
    }
    this.#source = source;
    this.#context.log.info({ event: 'ingest.recognised', ...this.#logFields(), format }, 'the format of a source was recognised');
    if (this.#title) source.title(this.#title);
    this.#title = undefined;
  }

  #write(bytes: Buffer): void {
    if (this.#phase !== 'onAir' || this.#source!.write(bytes) || this.#isPaused) return;
    this.#isPaused = true;
    this.#socket.pause();
  }

  #resumeReading(): void {
    const { clock, limits } = this.#context;
    this.#isPaused = false;
    if (this.#phase === 'onAir') {
      const nowMs = clock.monotonicMs();
      this.#deadlineMs = nowMs + limits.idleMs;
      this.#audioDeadlineMs = nowMs + limits.audioMs;
    }
    if (this.#phase !== 'deciding') this.#socket.resume();
  }

  #onMetadata(payload: Buffer): void {
    if (this.#phase !== 'onAir') return;
    const titles = titlesOf(payload, this.#context.limits, (error) =>
      this.#context.log.debug(
        { event: 'ingest.metadata_malformed', ...this.#logFields(), error: messageOf(error) },
        'the metadata of a source is malformed',
      ),
    );
    for (const title of titles) {
      if (this.#source) this.#source.title(title);
      else this.#title = title;
    }
  }

  /** Ends the source because the broadcaster said so. The connection may be used again. */
  #finish(): void {
    if (this.#phase !== 'onAir') return;
    this.#context.log.info({ event: 'ingest.ended', ...this.#logFields() }, 'a source ended');
    this.#endSource('finished');
    this.#enter('idle', this.#context.limits.publishMs);
    if (this.#isPaused) this.#resumeReading();
  }

  #endSource(how: SourceEnd): void {
    this.#sourceNumber++;
    this.#source?.end(how);
    this.#source = undefined;
    this.#admission = undefined;
    this.#audio = undefined;
    this.#title = undefined;
  }

  /** Ends the source because the connection ended without a command; it may have failed. */
  #onGone(reason: string): void {
    if (this.#phase !== 'closing') {
      if (this.#phase === 'onAir')
        this.#context.log.info({ event: 'ingest.connection_lost', ...this.#logFields(), reason }, 'the connection to a source was lost');
      this.#endSource('lost');
      this.#phase = 'closing';
    }
    this.#socket.destroy();
  }

  #refuse(error: unknown): void {
    if (this.#phase === 'closing') return;
    const refusal = refusalOf(error);
    const spoken = this.#phase !== 'handshake';
    if (!(error instanceof RtmpRefusal) && !(error instanceof VezaError)) {
      this.#logOfFailure.error(
        { event: 'ingest.failed', ...this.#logFields(), error: messageOf(error) },
        'a source failed by an internal error',
      );
    }
    if (spoken) this.#output.sendCommand('onStatus', 0, null, status('error', refusal.code, refusal.message), this.#streamId);
    this.#close(refusal);
    if (!spoken) this.#socket.destroy();
  }

  get #logOfFailure(): LineLog {
    return this.#admission ? this.#context.log : this.#context.strangersLog;
  }

  #close(refusal: RtmpRefusal): void {
    this.#logOfFailure.warn(
      { event: 'ingest.refused', ...this.#logFields(), code: refusal.code, reason: refusal.message },
      'a source was refused',
    );
    this.#endSource('lost');
    this.#enter('closing', this.#context.limits.lingerMs);
    this.#isPaused = false;
    this.#rest = Buffer.alloc(0);
    this.#socket.end();
    this.#socket.resume();
  }

  #onUnread(): void {
    if (this.#phase === 'closing') return;
    this.#close(violation(`more than ${this.#context.limits.unreadBytes} bytes of answers were not read`));
    this.#socket.destroy();
  }

  #logFields(): Record<string, unknown> {
    return {
      protocol: this.#context.protocol,
      remoteAddress: this.#address,
      ...(this.#client ? { client: this.#client } : {}),
      ...(this.#channel ? { channel: this.#channel } : {}),
    };
  }
}
