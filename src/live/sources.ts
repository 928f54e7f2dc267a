import type { DecodableFormat, Ffmpeg } from '../backing/ffmpeg.js';
import { addressGroup } from '../runtime/addresses.js';
import type { Clock } from '../runtime/clock.js';
import { apart } from '../runtime/each.js';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import type { DecoderStarts } from './decoder-starts.js';
import type { Playout, PlayoutSource } from './playout.js';
import { SourceDecoder } from './source-decoder.js';

/**
 * A displaced broadcaster is refused while the broadcaster that displaced it has sent bytes within
 * this time.
 */
const SENDING_MS = 3000;
/**
 * The same limit where both have the same address and client name. Then it is one encoder that
 * reconnects while its old connection is dead, or a second encoder beside it. An encoder sends
 * every 20 to 100 ms, so a connection that is silent for this long is dead.
 */
const OWN_SENDING_MS = 1000;
/**
 * At most this many ended sources are played out or wait to be. Further sources are refused with
 * `busy`.
 */
const MAX_PLAYING_OUT = 8;
/**
 * An ended source with an empty buffer is no longer waited for when its decoder has put out nothing
 * for this long.
 */
const DECODER_PATIENCE_MS = 3000;
/**
 * The buffer level of RTMP sources: their sound arrives frame by frame, so the buffer can be short.
 * The level of other sources follows the gaps between arrivals.
 */
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

/**
 * How a source ended. `finished`: the broadcaster said so. `closed`: the connection was closed in
 * order, so the broadcaster may have stopped or the connection may have failed. `lost`: the
 * connection failed.
 */
export type LiveSourceEnd = 'finished' | 'closed' | 'lost';

/** An admitted connection of a broadcaster. It may bring several sources, one after the other. */
export interface ConnectionAdmission {
  readonly starts: DecoderStarts;
}

interface SourceConnection extends PlayoutSource {
  readonly decoder: SourceDecoder;
  readonly identity: string;
  readonly admission: ConnectionAdmission;
  readonly events: ConnectionEvents;
  end: LiveSourceEnd | undefined;
  closed: boolean;
}

/** A source of this broadcast, as its connection writes to it. */
export interface ConnectedSource {
  /**
   * Writes bytes. False means: write no more until `onDrain`. The bytes are accepted in any case.
   */
  write(bytes: Uint8Array): boolean;
  title(update: { title: string; artist?: string }): void;
  /** Ends the source; twice is harmless. The sound that was written is still played. */
  end(how: LiveSourceEnd): void;
}

export interface SourcesOptions {
  readonly playout: Playout;
  readonly ffmpeg: Ffmpeg;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: { ingestBytes(channel: string, bytes: number): void; cut(removedMs: number): void; decoderRestarted(): void };
  readonly channel: string;
  readonly onAir: () => void;
  /** Called when the last source has been played to its end. */
  readonly onGone: (how: LiveSourceEnd | undefined) => void;
  readonly onTitle: (update: { title: string; artist?: string }, source: PlayoutSource) => void;
}

/**
 * The sources of one broadcast: which is on air, which wait, and which broadcasters were displaced.
 *
 * A newer source replaces one that is connected, or whose connection failed, as soon as it can be
 * heard. A source that ended in order is played to its end first, because its sound was
 * acknowledged. Two encoders that reconnect by themselves must not displace each other for ever: a
 * broadcaster that was displaced (same network and client name) is refused while the one that
 * displaced it is sending.
 */
export class Sources {
  readonly #options: SourcesOptions;
  readonly #connections = new Set<SourceConnection>();
  /** Identities of the broadcasters that were displaced by the source that is on air. */
  readonly #displaced = new Set<string>();

  constructor(options: SourcesOptions) {
    this.#options = options;
  }

  /** Throws `displaced` when this broadcaster was displaced by one that is still sending. */
  check(info: ConnectionInfo): void {
    const identity = identityOf(info);
    if (!this.#displaced.has(identity)) return;
    for (const connection of this.#connections) {
      if (connection.end !== undefined) continue;
      const isOwn = connection.identity === identity;
      const silentMs = this.#options.clock.monotonicMs() - connection.decoder.lastBytesMs;
      if (silentMs >= (isOwn ? OWN_SENDING_MS : SENDING_MS)) continue;
      throw new VezaError(
        'displaced',
        isOwn
          ? 'an earlier connection of this encoder (same address, same name) is still sending; this one is accepted when the earlier one has been silent for a second'
          : 'another encoder is on air on this channel; stop it first',
      );
    }
  }

  /** Whether ended sources have sound that is still to be played. */
  get playingOut(): boolean {
    return this.#playingOut > 0;
  }

  get #playingOut(): number {
    let count = 0;
    for (const connection of this.#connections) if (connection.playsOut) count += 1;
    return count;
  }

  /**
   * Connects a source. It is put on air as soon as it can be heard. Throws `busy` above
   * MAX_PLAYING_OUT.
   */
  connect(info: ConnectionInfo, admission: ConnectionAdmission, format: DecodableFormat, events: ConnectionEvents): ConnectedSource {
    if (this.#playingOut >= MAX_PLAYING_OUT) {
      throw new VezaError('busy', `${MAX_PLAYING_OUT} earlier streams of this channel are not played yet; try again in a moment`);
    }
    const { clock } = this.#options;
    const decoder = new SourceDecoder({
      ffmpeg: this.#options.ffmpeg,
      format,
      targetMs: info.protocol.startsWith('rtmp') ? RTMP_TARGET_MS : undefined,
      mayRestart: () => admission.starts.take(),
      clock: this.#options.clock,
      log: this.#options.log,
      events: {
        onDrain: () => {
          if (!connection.closed) apart(() => events.onDrain());
        },
        onFailed: (reason) => this.#failed(connection, reason),
        onCut: (removedMs) => {
          this.#options.metrics.cut(removedMs);
          this.#options.log.info(
            { event: 'source.surplus_cut', removedMs: Math.round(removedMs) },
            'a source caught up after a stall; the surplus was cut',
          );
        },
        onRestart: () => this.#options.metrics.decoderRestarted(),
      },
    });
    const connection: SourceConnection = {
      decoder,
      buffer: decoder.buffer,
      identity: identityOf(info),
      admission,
      events,
      end: undefined,
      closed: false,
      get playsOut() {
        if (connection.end === undefined || connection.end === 'lost' || decoder.buffer.drained) return false;
        return decoder.buffer.levelMs > 0 || clock.monotonicMs() - decoder.lastProgressMs < DECODER_PATIENCE_MS;
      },
      onAir: (displaced) => {
        if (displaced) this.#displace(displaced as SourceConnection, connection);
        this.#options.onAir();
        this.#options.log.info(
          { event: 'source.on_air', protocol: info.protocol, format, client: info.client, from: info.remoteAddress },
          'a source is on air',
        );
      },
      onDrained: () => this.#drained(connection),
    };
    this.#connections.add(connection);
    for (const given of this.#options.playout.put(connection)) this.#displace(given as SourceConnection, connection);
    return {
      write: (bytes: Uint8Array) => {
        this.#options.metrics.ingestBytes(this.#options.channel, bytes.length);
        return connection.closed || decoder.write(bytes);
      },
      title: (update: { title: string; artist?: string }) => this.#options.onTitle(update, connection),
      end: (how: LiveSourceEnd) => {
        if (connection.end !== undefined) return;
        connection.end = how;
        decoder.end();
      },
    };
  }

  /**
   * Closes all connections with this error. No more bytes are accepted; the sound that arrived is
   * still played.
   */
  closeAll(code: string, message: string): void {
    for (const connection of this.#connections) this.#close(connection, code, message);
  }

  /** Closes all decoders, because the broadcast has ended and nothing is played any more. */
  dispose(): void {
    for (const connection of this.#connections) connection.decoder.close();
    this.#connections.clear();
  }

  #displace(loser: SourceConnection, winner: SourceConnection): void {
    // A newer source of the same connection (a change of format) displaces no broadcaster.
    if (loser.admission !== winner.admission && loser.end === undefined) {
      const isOwn = loser.identity === winner.identity;
      // A connection that was silent before was dead. Its encoder may reconnect as often as its
      // line fails.
      const wasSending = this.#options.clock.monotonicMs() - loser.decoder.lastBytesMs < OWN_SENDING_MS;
      if (!isOwn) this.#displaced.delete(winner.identity);
      if (!isOwn || wasSending) this.#displaced.add(loser.identity);
      const who = isOwn ? 'a newer connection of this encoder (same address, same name)' : 'another encoder';
      this.#close(loser, 'displaced', `${who} took over this broadcast`);
    }
    loser.decoder.close();
    this.#connections.delete(loser);
  }

  #failed(connection: SourceConnection, reason: string): void {
    this.#options.log.warn({ event: 'source.undecodable', reason }, 'a source cannot be decoded');
    connection.end ??= 'lost';
    this.#close(connection, 'unsupported_media', `this audio cannot be decoded: ${reason}`);
    if (connection.buffer.drained) {
      this.#options.playout.remove(connection);
      this.#drained(connection);
    }
  }

  #drained(connection: SourceConnection): void {
    if (!this.#connections.delete(connection)) return;
    connection.decoder.close();
    if (this.#connections.size > 0) return;
    this.#displaced.clear();
    this.#options.onGone(connection.end);
  }

  #close(connection: SourceConnection, code: string, message: string): void {
    if (connection.closed) return;
    connection.closed = true;
    // An error thrown for one connection must not keep the others open, nor the broadcast on air.
    apart(() => connection.events.onClose({ code, message }));
  }
}

/** Returns what identifies an encoder. It may come back from another IPv6 address of its /64. */
const identityOf = (info: ConnectionInfo) => `${addressGroup(info.remoteAddress)}|${info.client}`;
