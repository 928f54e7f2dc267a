import type { DecodableFormat, Ffmpeg } from '../backing/ffmpeg.js';
import { addressGroup } from '../runtime/addresses.js';
import type { Clock } from '../runtime/clock.js';
import { apart } from '../runtime/each.js';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import type { DecoderStarts } from './decoder-starts.js';
import type { Playout, PlayoutSource } from './playout.js';
import { SourceDecoder } from './source-decoder.js';

/** A displaced publisher is refused while the winner has sent something within this time. */
const SENDING_MS = 3000;
/**
 * The same where both have one address and one name, as an encoder that reconnects over the dead connection it had before, or its twin beside
 * it. An encoder sends every 20 to 100 ms, so this silence tells which.
 */
const OWN_SENDING_MS = 1000;
/** Sources that have ended, and wait to be played out or are being played out. */
const MAX_PLAYING_OUT = 8;
/** An ended source whose decoder has given nothing for this time, with nothing in its buffer, is not waited for. */
const DECODER_PATIENCE_MS = 3000;
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

/** `finished`: the broadcaster said so. `closed`: the connection was closed in order, which does not tell. `lost`: it broke. */
export type SourceEnd = 'finished' | 'closed' | 'lost';

/** One connection of a broadcaster that was let in; it may bring several sources, one after the other. */
export interface ConnectionAdmission {
  readonly starts: DecoderStarts;
}

interface Connection extends PlayoutSource {
  readonly decoder: SourceDecoder;
  readonly identity: string;
  readonly admission: ConnectionAdmission;
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
 * The publishers of one broadcast: who is on air, who waits to be, and who lost the place to whom. A newer one takes over from one that is
 * connected, or whose connection broke, as soon as it can be heard. One that has ended in order was told that its sound was taken: it is played
 * to its end first. Two encoders that reconnect by themselves must not take over from each other for ever: the one that was displaced (same
 * network and client) is refused for as long as the winner is sending.
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
          ? 'an earlier connection of this encoder (same address, same name) is still sending; it is replaced once that one is silent for a second'
          : 'another encoder took over this show and is sending; stop that one first',
      );
    }
  }

  /** Whether sound is left of sources that have ended. */
  get playingOut(): boolean {
    return this.#playingOut > 0;
  }

  get #playingOut(): number {
    let count = 0;
    for (const connection of this.#connections) if (connection.playsOut) count += 1;
    return count;
  }

  /** A source that is put on as soon as it can be heard. */
  connect(info: ConnectionInfo, admission: ConnectionAdmission, format: DecodableFormat, events: ConnectionEvents): ConnectedSource {
    if (this.#playingOut >= MAX_PLAYING_OUT) {
      throw new VezaError('busy', `${MAX_PLAYING_OUT} recordings that were sent before this one are not played yet; try again in a moment`);
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
    const connection: Connection = {
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
        if (displaced) this.#displace(displaced as Connection, connection);
        this.#options.onAir();
        this.#options.log.info(
          { event: 'source.on_air', protocol: info.protocol, format, client: info.client, from: info.remoteAddress },
          'a source is on air',
        );
      },
      onDrained: () => this.#drained(connection),
    };
    this.#connections.add(connection);
    for (const given of this.#options.playout.put(connection)) this.#displace(given as Connection, connection);
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
      const isOwn = loser.identity === winner.identity;
      // A connection that was silent already was dead; its encoder may reconnect as often as its line breaks.
      const wasSending = this.#options.clock.monotonicMs() - loser.decoder.lastBytesMs < OWN_SENDING_MS;
      if (!isOwn) this.#displaced.delete(winner.identity);
      if (!isOwn || wasSending) this.#displaced.add(loser.identity);
      const who = isOwn ? 'a newer connection of this encoder (same address, same name)' : 'another encoder';
      this.#close(loser, 'displaced', `${who} took over this show`);
    }
    loser.decoder.close();
    this.#connections.delete(loser);
  }

  #failed(connection: Connection, reason: string): void {
    this.#options.log.warn({ event: 'source.undecodable', reason }, 'a source cannot be decoded');
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
    // One whose connection cannot be told must not keep the others from being told, nor the show from its end.
    apart(() => connection.events.onClose({ code, message }));
  }
}

/** An encoder may come back from another address of its /64. */
const identityOf = (info: ConnectionInfo) => `${addressGroup(info.remoteAddress)}|${info.client}`;
