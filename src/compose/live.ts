import type { Socket } from 'node:net';
import { join } from 'node:path';
import { checkServerIdentity, type TLSSocket } from 'node:tls';
import type { Access } from '../access/access.js';
import { isoOf } from '../app/api/openapi.js';
import { ConnectionLimits } from '../app/http/connection-limits.js';
import { type HttpListener, listenHttp, useCertificate } from '../app/http/listener.js';
import { Ffmpeg } from '../backing/ffmpeg.js';
import type { ObjectStore } from '../backing/object-store/object-store.js';
import { FileRegistry } from '../backing/registry/files.js';
import { childEnvironment } from '../config/child-environment.js';
import type { Config } from '../config/config.js';
import { IngestHttpServer } from '../ingest/http.js';
import { RtmpServer } from '../ingest/rtmp/server.js';
import type { Broadcasts } from '../library/broadcasts.js';
import { Recordings } from '../library/recordings.js';
import { LiveChannels } from '../live/live-channels.js';
import { Uploader } from '../live/uploader.js';
import { WorkerPort } from '../live/worker/port.js';
import { chooseLadder, type Rendition } from '../media/ladder.js';
import type { Clock } from '../runtime/clock.js';
import type { Component } from '../runtime/lifecycle.js';
import type { Log } from '../runtime/log.js';
import type { Metrics } from '../runtime/metrics.js';
import { internalServerTls } from '../runtime/tls/internal-tls.js';
import type { TlsFiles } from '../runtime/tls/tls-files.js';

/** The encoder of broadcasts and the renditions that it makes. */
export interface EncodingSetup {
  readonly ffmpeg: Ffmpeg;
  readonly ladder: readonly Rendition[];
  /** Rejects when ffmpeg cannot be used. */
  readonly works: Promise<void>;
}

export function prepareEncoding(config: Config, clock: Clock): EncodingSetup {
  const ladder = chooseLadder({ codecs: config.codecsEnabled, adaptive: config.adaptiveBitrate, defaultKbps: config.defaultBitrateKbps });
  const ffmpeg = new Ffmpeg(config.ffmpegPath, childEnvironment('ffmpeg'));
  const works = ffmpeg.check(ladder, clock);
  works.catch(() => undefined);
  return { ffmpeg, ladder, works };
}

export interface LiveRoomOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly store: ObjectStore;
  readonly access: Access;
  readonly broadcasts: Broadcasts;
  readonly encoding: EncodingSetup;
  /** The certificate of `RTMPS_PORT`. */
  readonly tls: TlsFiles | undefined;
}

/** Ingest and live in this process: they make broadcasts of what broadcasters send. */
export interface LiveRoom {
  readonly live: LiveChannels;
  readonly uploader: Uploader;
  /** Components, in the order in which they start. */
  readonly parts: readonly Component[];
  /** The listeners to which broadcasters connect. */
  readonly listeners: readonly Component[];
}

export function composeLive(options: LiveRoomOptions): LiveRoom {
  const { config, log, clock, metrics, store, access, broadcasts, tls } = options;
  const { ffmpeg, ladder } = options.encoding;
  const { channels, webhooks } = access;
  const registry = new FileRegistry(join(config.dataDir, 'timelines'), log);
  const uploader = new Uploader({ store, clock, log, metrics: uploadMetrics(metrics) });
  const mediaUrl = config.cdnBaseUrl ?? config.publicUrl;
  const recordings = new Recordings({
    store,
    broadcasts,
    clock,
    log,
    dvrWindowS: config.dvrWindowS,
    onReady: ({ assetId, channel, startedAtMs, durationMs }, connection) =>
      webhooks.emit(
        'recording.ready',
        channel,
        {
          asset: assetId,
          title: channel.title,
          startedAt: isoOf(startedAtMs),
          durationMs: Math.round(durationMs),
          urls: { hls: `${mediaUrl}/vod/${assetId}/master.m3u8`, dash: `${mediaUrl}/vod/${assetId}/manifest.mpd` },
        },
        connection,
      ),
  });
  const ingest = new IngestMeter(clock);
  const live = new LiveChannels({
    ffmpeg,
    registry,
    store,
    uploader,
    clock,
    log,
    metrics: { ...liveMetrics(metrics), ingestBytes: (_channel, bytes) => ingest.add(bytes) },
    media: {
      segmentMs: config.segmentMs,
      partMs: config.partMs,
      reconnectWindowS: config.reconnectWindowS,
      recordingMaxH: config.recordingMaxH,
      ladder,
    },
    maxStreams: config.maxStreams,
    verifyKey: (streamKey, isOnAir, address) => channels.verifyKey(streamKey, isOnAir, address),
    channelBySlug: (slug) => channels.get(slug),
    standing: (slugs) => channels.standing(slugs),
    onOnAir: ({ channel, broadcastId, startedMs }) =>
      void webhooks.emit('channel.on_air', channel, { broadcastId, startedAt: isoOf(startedMs) }),
    onOffAir: ({ channel, broadcastId, startedMs, endedMs }) =>
      void webhooks.emit('channel.off_air', channel, { broadcastId, startedAt: isoOf(startedMs), endedAt: isoOf(endedMs) }),
    onRecordingStarted: (recording) => recordings.started(recording),
    onRecordingEnded: (recording) => recordings.ended(recording),
  });
  metrics.provide('streams_active', () => live.streams);
  metrics.provide('ingest_bitrate_bits', () => ingest.bitsPerSecond());

  const address = { gate: live, clock, log, host: config.host };
  const rtmps =
    config.rtmpsPort !== undefined && tls ? new RtmpServer({ ...address, port: config.rtmpsPort, tls: tls.current }) : undefined;
  tls?.onChange((certificates) => rtmps?.useCertificate(certificates));
  return {
    live,
    uploader,
    parts: [
      recordings,
      live,
      // `live` ends the broadcasts that it recovers after a crash itself; only the others are
      // closed here.
      { name: 'broadcasts', start: () => recordings.closeOrphans((assetId) => live.knows(assetId)) },
    ],
    listeners: [
      new IngestHttpServer({ ...address, port: config.ingestPort }),
      new RtmpServer({ ...address, port: config.rtmpPort }),
      ...(rtmps ? [rtmps] : []),
    ],
  };
}

/**
 * Connections of apps, at most. An app has one connection for each open segment that somebody
 * listens to.
 */
const MAX_WORKER_CONNECTIONS = 8192;
const WORKER_GRACE_MS = 2000;
/**
 * The time after which old connections are closed. A segment takes less time to make, so none is
 * cut off.
 */
const RENEW_MS = 15_000;

export interface IngestWorkerOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  readonly live: LiveChannels;
  readonly ready: () => Promise<unknown>;
  /** The certificate in the `INTERNAL_…` files. */
  readonly internalTls: TlsFiles | undefined;
}

/**
 * The port on which an ingest worker answers apps. `first` and `last` surround the live parts. The
 * port opens after them, since before that it would answer that nothing is on air. It closes after
 * them, so that apps get the last segment of every broadcast.
 */
export function composeWorker({ config, log, clock, live, ready, internalTls }: IngestWorkerOptions): {
  first: Component;
  last: Component;
} {
  const port = new WorkerPort({ edge: live, clock, log, ready });
  const open = new Set<Socket>();
  let listener: HttpListener | undefined;
  let cancelRenewal = () => {};
  return {
    first: {
      name: 'worker port',
      async stop() {
        cancelRenewal();
        port.stop();
        await listener?.stop(WORKER_GRACE_MS);
      },
    },
    last: {
      name: 'worker port',
      async start() {
        port.start();
        const host = config.workerHost ?? (internalTls ? config.host : '127.0.0.1');
        const connections = new ConnectionLimits({ total: MAX_WORKER_CONNECTIONS, perAddress: undefined });
        const tls = internalTls && internalServerTls(internalTls.current);
        listener = await listenHttp(
          port.handle,
          { host, port: config.workerPort, connections, log, http2: false, ...(tls && { tls }) },
          clock,
        );
        const opened = listener;
        opened.server.on('connection', (socket: Socket) => {
          open.add(socket);
          socket.once('close', () => open.delete(socket));
        });
        if (config.workerClientNames) onlyNamed(opened, config.workerClientNames);
        internalTls?.onChange((certificates) => {
          useCertificate(opened, internalServerTls(certificates));
          port.renew();
          // Connections that were made with the old certificates are closed after `RENEW_MS`, and
          // apps connect again. Every segment that is being sent is complete by then.
          const before = [...open];
          cancelRenewal();
          cancelRenewal = clock.after(RENEW_MS, () => {
            for (const socket of before) socket.destroy();
          });
        });
        log.info(
          { event: 'worker.listening', host, workerPort: opened.port, tls: internalTls !== undefined },
          'the worker port is listening',
        );
      },
    },
  };
}

/**
 * Closes connections whose certificate has none of the names, before anything is read from them.
 */
function onlyNamed({ server }: HttpListener, names: readonly string[]): void {
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    let isNamed = false;
    try {
      // The certificate is null once the connection is gone; malformed names make this throw.
      const certificate = socket.getPeerCertificate();
      isNamed = names.some((name) => checkServerIdentity(name, certificate) === undefined);
    } finally {
      if (!isNamed) socket.destroy();
    }
  });
}

/** Measures the bits per second from broadcasters, over at least one second. */
class IngestMeter {
  readonly #clock: Clock;
  #bytes = 0;
  #sinceMs: number;
  #bitsPerSecond = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#sinceMs = clock.monotonicMs();
  }

  add(bytes: number): void {
    this.#bytes += bytes;
  }

  bitsPerSecond(): number {
    const passedMs = this.#clock.monotonicMs() - this.#sinceMs;
    if (passedMs >= 1000) {
      this.#bitsPerSecond = (this.#bytes * 8000) / passedMs;
      this.#bytes = 0;
      this.#sinceMs += passedMs;
    }
    return this.#bitsPerSecond;
  }
}

function uploadMetrics(metrics: Metrics) {
  const lost = metrics.counter('segments_lost_total', 'Segments that the object store could not be given; gaps in rewind and recording.');
  let backlog = 0;
  metrics.provide('segment_upload_backlog', () => backlog);
  return {
    segmentUploadSeconds: (seconds: number) => metrics.duration('segment_upload_seconds', seconds),
    segmentUploadBacklog: (count: number) => {
      backlog = count;
    },
    segmentLost: () => lost.add(),
  };
}

function liveMetrics(metrics: Metrics) {
  const cuts = metrics.counter('source_cuts_total', 'Surpluses cut out after a broadcaster stalled and caught up.');
  const decoders = metrics.counter('decoder_restarts_total', 'Decoders that died and were replaced.');
  const encoders = metrics.counter('encoder_restarts_total', 'Encoders that died and were replaced.');
  const undurable = metrics.counter('timeline_not_durable_total', 'Segments listed though their number could not be written down.');
  const endsLost = metrics.counter('show_ends_lost_total', 'Shows whose last sound the encoder did not deliver; the recording lacks it.');
  const lags = metrics.counter('encoder_lags_total', 'Times that an encoder fell behind real time by more than 10 s.');
  const lostSeconds = metrics.counter(
    'encoder_lost_seconds_total',
    'Seconds of sound that no encoder delivered; the recordings lack them.',
  );
  return {
    partPublishDelaySeconds: (seconds: number) => metrics.duration('part_publish_delay_seconds', seconds),
    cut: () => cuts.add(),
    decoderRestarted: () => decoders.add(),
    encoderRestarted: () => encoders.add(),
    timelineNotDurable: () => undurable.add(),
    endLost: () => endsLost.add(),
    encoderLagging: () => lags.add(),
    encodedLost: (seconds: number) => lostSeconds.add(seconds),
  };
}
