import type { Socket } from 'node:net';
import type { LineLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { Admission, Gate, Protocol, Source, SourceEnd, SourceFormat, TitleUpdate } from '../source.js';
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
  /** For lines about clients whose key is not accepted. */
  readonly strangersLog: LineLog;
  readonly limits: RtmpSessionLimits;
  readonly protocol: Protocol;
}

const APP = 'live';
const FIRST_STREAM_ID = 1;
const CLIENT_CHARS = 200;
const PING_REQUEST = 6;
/**
 * What a connection is waiting for; only `#enter` changes it.
 *
 * handshake → connect → idle → deciding (the gate; nothing is read) → onAir → idle …
 * Every one may go to `closing`, which has said what there was to say and reads only to throw away.
 */
type Phase = 'handshake' | 'connect' | 'idle' | 'deciding' | 'onAir' | 'closing';

/** One RTMP connection. Everything that goes wrong inside ends it, with a status for the client and one line in the log. */
export class RtmpSession {
  readonly #socket: Socket;
  readonly #address: string;
  readonly #context: SessionContext;
  readonly #admitted: () => void;
  readonly #reader: ChunkReader;
  readonly #output: RtmpOutput;
  #phase: Phase = 'handshake';
  /** Monotonic time at which the phase ends by force. On air it moves with every byte. */
  #deadlineMs: number;
  #audioDeadlineMs = 0;
  #handshake = new Handshake();
  /** Read from the socket and not yet parsed, while the gate decides. */
  #rest: Buffer = Buffer.alloc(0);
  #client = '';
  /** What the next `createStream` is answered. */
  #nextStreamId = FIRST_STREAM_ID;
  /** The stream that is, or was last, published on, and its name. */
  #streamId = FIRST_STREAM_ID;
  #streamKey = '';
  #channel: string | undefined;
  #admission: Admission | undefined;
  #audio: AudioUnwrapper | undefined;
  #source: Source | undefined;
  /** Rises with each source: events of a former one are nobody's. */
  #sourceNumber = 0;
  /** The decoder does not take more; the socket is not read. */
  #held = false;
  #title: TitleUpdate | undefined;
  #receivedBytes = 0;
  #acknowledgedBytes = 0;
  #ackWindowBytes = WINDOW_BYTES;
  #lingerBytes = 0;

  /** `admitted` is called at most once, when a key was accepted. */
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

  /** To be called every now and then. */
  checkDeadline(nowMs: number): void {
    if (this.#phase === 'onAir' && this.#held) return;
    const { limits } = this.#context;
    const audioLate = this.#phase === 'onAir' && nowMs >= this.#audioDeadlineMs;
    if (nowMs < this.#deadlineMs && !audioLate) return;
    switch (this.#phase) {
      case 'closing':
        this.#socket.destroy();
        break;
      case 'handshake':
        // A client that has sent nothing gets no line in the log.
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

  /** The server stops. What is on air is lost, not finished: the broadcaster finds the next process. */
  shutDown(): void {
    if (this.#phase === 'onAir' || this.#phase === 'deciding') {
      this.#refuse(new RtmpRefusal('NetConnection.Connect.AppShutdown', 'the server is shutting down'));
    }
    this.#phase = 'closing';
    this.#socket.resume();
    this.#socket.destroySoon();
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

  /** Returns what follows the handshake. */
  #shakeHands(bytes: Buffer): Buffer {
    const rest = this.#handshake.read(bytes, (reply) => this.#output.sendBytes(reply));
    if (this.#handshake.step === 'done' && this.#phase === 'handshake') this.#enter('connect', this.#context.limits.publishMs);
    return rest;
  }

  #parse(bytes: Buffer): void {
    const used = this.#reader.push(bytes);
    if (used < bytes.length) this.#rest = Buffer.from(bytes.subarray(used));
  }

  /** At most once a read, however small a window the client asks for (5.4.3). */
  #acknowledge(): void {
    if (this.#phase === 'closing' || this.#receivedBytes - this.#acknowledgedBytes < this.#ackWindowBytes) return;
    this.#acknowledgedBytes = this.#receivedBytes;
    this.#output.sendAcknowledgement(this.#receivedBytes);
  }

  #onMessage(message: RtmpMessage): void {
    // The rest of a read after the one that closed the connection.
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
        // AMF 0 behind one byte, as those send it who were offered AMF 3.
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
      // OBS and librtmp send the first two, ffmpeg too; whichever comes first ends it. Each may be of another stream than the published one.
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
        // Answers to what we have never asked.
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
    // What follows waits for the gate: some encoders send their sequence header without waiting for an answer.
    this.#reader.pause();
    this.#socket.pause();
    gate
      .admit({ protocol, channel: undefined, streamKey, remoteAddress: this.#address, client: this.#client })
      .then((admission) => this.#onAdmitted(streamId, admission))
      .catch((error: unknown) => this.#refuse(error));
  }

  /** Clients that publish on stream 0 mean the one that they have created. */
  #isPublished(streamId: number): boolean {
    return streamId === this.#streamId || (this.#streamId === 0 && streamId < this.#nextStreamId);
  }

  #onAdmitted(streamId: number, admission: Admission): void {
    const { limits, clock, log } = this.#context;
    if (this.#phase !== 'deciding') return;
    this.#admission = admission;
    this.#channel = admission.channel;
    this.#admitted();
    this.#enter('onAir', limits.idleMs);
    this.#audioDeadlineMs = clock.monotonicMs() + limits.audioMs;
    this.#audio = new AudioUnwrapper({ begin: (format) => this.#begin(format), write: (bytes) => this.#write(bytes) });
    this.#output.sendStreamBegin(streamId);
    this.#output.sendCommand('onStatus', 0, null, status('status', 'NetStream.Publish.Start', `${admission.channel} is on air`), streamId);
    log.info({ event: 'ingest.accepted', ...this.#who() }, 'a source was accepted');
    const rest = this.#rest;
    this.#rest = Buffer.alloc(0);
    this.#guard(() => this.#parse(rest));
    // Parsing may have ended the connection, or met a decoder that is full.
    if (!this.#held && (this.#phase as Phase) !== 'deciding') this.#socket.resume();
  }

  #begin(format: SourceFormat): void {
    if (this.#phase !== 'onAir') return;
    this.#source?.end('finished');
    const number = ++this.#sourceNumber;
    const source = this.#admission!.open(format, {
      onDrain: () => {
        if (number !== this.#sourceNumber || !this.#held) return;
        this.#release();
      },
      onClose: (error) => {
        if (number !== this.#sourceNumber || this.#phase !== 'onAir') return;
        const list = error.code === 'unsupported_media' ? `; ${TAKEN} are taken` : '';
        this.#refuse(new RtmpRefusal(statusCodeOf(error.code), `${error.message}${list}`));
      },
    });
    if ((this.#phase as Phase) !== 'onAir') {
      // It was closed while it was opened.
      source.end('lost');
      return;
    }
    this.#source = source;
    this.#context.log.info({ event: 'ingest.recognised', ...this.#who(), format }, 'the format of a source was recognised');
    if (this.#title) source.title(this.#title);
    this.#title = undefined;
  }

  #write(bytes: Buffer): void {
    if (this.#phase !== 'onAir' || this.#source!.write(bytes) || this.#held) return;
    this.#held = true;
    this.#socket.pause();
  }

  #release(): void {
    const { clock, limits } = this.#context;
    this.#held = false;
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
        { event: 'ingest.metadata_malformed', ...this.#who(), error: messageOf(error) },
        'the metadata of a source is malformed',
      ),
    );
    for (const title of titles) {
      if (this.#source) this.#source.title(title);
      else this.#title = title;
    }
  }

  /** The broadcaster says that it is over. The connection may be used again. */
  #finish(): void {
    if (this.#phase !== 'onAir') return;
    this.#context.log.info({ event: 'ingest.ended', ...this.#who() }, 'a source ended');
    this.#endSource('finished');
    this.#enter('idle', this.#context.limits.publishMs);
    if (this.#held) this.#release();
  }

  #endSource(how: SourceEnd): void {
    this.#sourceNumber++;
    this.#source?.end(how);
    this.#source = undefined;
    this.#admission = undefined;
    this.#audio = undefined;
    this.#title = undefined;
  }

  /** The connection ended without a word: it may be a broken line. */
  #onGone(reason: string): void {
    if (this.#phase !== 'closing') {
      if (this.#phase === 'onAir')
        this.#context.log.info({ event: 'ingest.connection_lost', ...this.#who(), reason }, 'the connection to a source was lost');
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
      this.#logOfFailure.error({ ...this.#who(), error: messageOf(error) }, 'ingest failed');
    }
    if (spoken) this.#output.sendCommand('onStatus', 0, null, status('error', refusal.code, refusal.message), this.#streamId);
    this.#close(refusal);
    if (!spoken) this.#socket.destroy();
  }

  get #logOfFailure(): LineLog {
    return this.#admission ? this.#context.log : this.#context.strangersLog;
  }

  #close(refusal: RtmpRefusal): void {
    this.#logOfFailure.warn({ ...this.#who(), code: refusal.code, reason: refusal.message }, 'ingest refused');
    this.#endSource('lost');
    this.#enter('closing', this.#context.limits.lingerMs);
    this.#held = false;
    this.#rest = Buffer.alloc(0);
    this.#socket.end();
    this.#socket.resume();
  }

  #onUnread(): void {
    if (this.#phase === 'closing') return;
    this.#close(violation(`more than ${this.#context.limits.unreadBytes} bytes of answers were not read`));
    this.#socket.destroy();
  }

  #who(): Record<string, unknown> {
    return {
      protocol: this.#context.protocol,
      remoteAddress: this.#address,
      ...(this.#client ? { client: this.#client } : {}),
      ...(this.#channel ? { channel: this.#channel } : {}),
    };
  }
}
