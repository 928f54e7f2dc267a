import type { DecodableFormat, Ffmpeg } from '../backing/ffmpeg.js';
import type { Clock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import type { Playout, PlayoutSource } from './playout.js';
import { SourceDecoder } from './source-decoder.js';

/** A displaced publisher is refused while the winner has sent something within this time. */
const SENDING_MS = 3000;
/** RTMP arrives frame by frame; its buffer can be short. Other sources are followed. */
const RTMP_TARGET_MS = 100;

export interface ConnectionInfo {
  readonly protocol: string;
  readonly remoteAddress: string;
  readonly client: string;
}

export interface ConnectionEvents {
  onDrain(): void;
  onClose(error: { code: string; message: string }): void;
}

/** `finished`: the broadcaster said so. `lost`: the connection broke. */
export type SourceEnd = 'finished' | 'lost';

interface Connection extends PlayoutSource {
  readonly decoder: SourceDecoder;
  readonly identity: string;
  /** One connection of a broadcaster; it may bring several sources, one after the other. */
  readonly admission: object;
  readonly events: ConnectionEvents;
  end: SourceEnd | undefined;
  closed: boolean;
}

/** What a connection writes to. */
export interface ConnectedSource {
  /** Bytes are taken in any case; false asks to wait for `onDrain`. */
  write(bytes: Uint8Array): boolean;
  title(update: { title: string; artist?: string }): void;
  /** Idempotent. What was written is still played. */
  end(how: SourceEnd): void;
}

export interface SourcesOptions {
  readonly playout: Playout;
  readonly ffmpeg: Ffmpeg;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: { ingestBytes(channel: string, bytes: number): void; cut(removedMs: number): void; decoderRestarted(): void };
  readonly channel: string;
  readonly onAir: () => void;
  /** The last source there was has been played to its end. */
  readonly onGone: (how: SourceEnd | undefined) => void;
  readonly onTitle: (update: { title: string; artist?: string }, source: PlayoutSource) => void;
}

/**
 * The publishers of one broadcast: who is on air, who waits to be, and who lost the place to whom. A newer one takes over as soon
 * as it can be heard. Two encoders that reconnect by themselves must not take over from each other for ever: the one that was
 * displaced (same address and client) is refused for as long as the winner is sending.
 */
export class Sources {
  readonly #options: SourcesOptions;
  readonly #connections = new Set<Connection>();
  /** Identities that lost their place to the one that is on air. */
  readonly #displaced = new Set<string>();

  constructor(options: SourcesOptions) {
    this.#options = options;
  }

  /** Throws `displaced` for one that would throw out the publisher that threw it out. */
  check(info: ConnectionInfo): void {
    if (!this.#displaced.has(identityOf(info))) return;
    const nowMs = this.#options.clock.monotonicMs();
    const sending = [...this.#connections].some((connection) => nowMs - connection.decoder.lastBytesMs < SENDING_MS);
    if (sending) throw new VezaError('displaced', 'another encoder took over this show and is sending; stop that one first');
  }

  /** A source that is put on as soon as it can be heard. */
  connect(info: ConnectionInfo, admission: object, format: DecodableFormat, events: ConnectionEvents): ConnectedSource {
    const decoder = new SourceDecoder({
      ffmpeg: this.#options.ffmpeg,
      format,
      targetMs: info.protocol.startsWith('rtmp') ? RTMP_TARGET_MS : undefined,
      clock: this.#options.clock,
      log: this.#options.log,
      events: {
        onDrain: () => {
          if (!connection.closed) events.onDrain();
        },
        onFailed: (reason) => this.#failed(connection, reason),
        onCut: (removedMs) => {
          this.#options.metrics.cut(removedMs);
          this.#options.log.info({ removedMs: Math.round(removedMs) }, 'the broadcaster caught up after a stall; the surplus was cut');
        },
        onRestart: () => this.#options.metrics.decoderRestarted(),
      },
    });
    const connection: Connection = {
      decoder,
      buffer: decoder.buffer,
      identity: identityOf(info),
      admission,
      events,
      end: undefined,
      closed: false,
      onAir: (displaced) => {
        if (displaced) this.#displace(displaced as Connection, connection);
        this.#options.onAir();
        this.#options.log.info({ protocol: info.protocol, format, client: info.client, from: info.remoteAddress }, 'a source is on air');
      },
      onDrained: () => this.#drained(connection),
    };
    this.#connections.add(connection);
    const given = this.#options.playout.put(connection) as Connection | undefined;
    if (given) this.#displace(given, connection);
    return {
      write: (bytes: Uint8Array) => {
        this.#options.metrics.ingestBytes(this.#options.channel, bytes.length);
        return connection.closed || decoder.write(bytes);
      },
      title: (update: { title: string; artist?: string }) => this.#options.onTitle(update, connection),
      end: (how: SourceEnd) => {
        if (connection.end !== undefined) return;
        connection.end = how;
        decoder.end();
      },
    };
  }

  /** Tells every broadcaster, and takes nothing more from them; what came is still played. */
  closeAll(code: string, message: string): void {
    for (const connection of this.#connections) this.#close(connection, code, message);
  }

  /** The show is over: nothing is played any more, and no decoder stays. */
  dispose(): void {
    for (const connection of this.#connections) connection.decoder.close();
    this.#connections.clear();
  }

  #displace(loser: Connection, winner: Connection): void {
    // A new source of the same connection (a change of format) displaces nobody.
    if (loser.admission !== winner.admission && loser.end === undefined) {
      this.#displaced.add(loser.identity);
      if (loser.identity !== winner.identity) this.#displaced.delete(winner.identity);
      this.#close(loser, 'displaced', 'another encoder took over this show');
    }
    loser.decoder.close();
    this.#connections.delete(loser);
  }

  #failed(connection: Connection, reason: string): void {
    this.#options.log.warn({ reason }, 'a source cannot be decoded');
    connection.end ??= 'lost';
    this.#close(connection, 'unsupported_media', `this audio cannot be decoded: ${reason}`);
    if (connection.buffer.drained) {
      this.#options.playout.remove(connection);
      this.#drained(connection);
    }
  }

  #drained(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    connection.decoder.close();
    if (this.#connections.size > 0) return;
    this.#displaced.clear();
    this.#options.onGone(connection.end);
  }

  #close(connection: Connection, code: string, message: string): void {
    if (connection.closed) return;
    connection.closed = true;
    connection.events.onClose({ code, message });
  }
}

const identityOf = (info: ConnectionInfo) => `${info.remoteAddress}|${info.client}`;
