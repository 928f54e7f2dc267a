import type { IncomingMessage, RequestListener } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Access, openAccess } from './access/access.js';
import { loadCloudFrontKey } from './access/playback/cloudfront.js';
import type { Webhooks } from './access/webhooks/webhooks.js';
import { isoOf } from './app/channels.js';
import type { ConnectionLimits } from './app/connection-limits.js';
import { countryReader } from './app/country.js';
import { clientAddress, type HttpListener, useCertificate } from './app/http-listener.js';
import { startMetricsServer } from './app/metrics-server.js';
import { Admissions } from './app/playback/admission.js';
import { Playback } from './app/playback/playback.js';
import { createApp } from './app/server.js';
import { loadPages } from './app/static.js';
import { openDatabase } from './backing/database.js';
import { Ffmpeg } from './backing/ffmpeg.js';
import { openGeoIp } from './backing/geoip.js';
import { createFileStore } from './backing/object-store-files.js';
import { FileRegistry } from './backing/registry-files.js';
import type { Config } from './config.js';
import { IngestHttpServer } from './ingest/http.js';
import { RtmpServer } from './ingest/rtmp/server.js';
import { LiveChannels } from './live/live-channels.js';
import { Uploader } from './live/uploader.js';
import { chooseLadder } from './media/ladder.js';
import type { Clock } from './runtime/clock.js';
import { internalServerTls } from './runtime/internal-tls.js';
import { type Component, Lifecycle } from './runtime/lifecycle.js';
import type { Log } from './runtime/log.js';
import { Metrics } from './runtime/metrics.js';
import { TlsFiles } from './runtime/tls-files.js';
import { Broadcasts } from './vod/broadcasts.js';
import { Recordings } from './vod/recordings.js';

/** What is open to everybody, and what it shares. */
export interface PublicListeners {
  readonly connections: ConnectionLimits;
  /** What `TLS_CERT_FILE` and `TLS_KEY_FILE` hold. */
  readonly tls: TlsFiles | undefined;
  /** Twice is harmless. */
  stop(graceMs: number): Promise<void>;
}

/** How long answers under way may take when the process ends; a playlist that waits for a part takes up to 6 s. */
const HTTP_GRACE_MS = 7000;

export interface Service {
  /** Resolves to true when every part ended within `SHUTDOWN_TIMEOUT_S`. Twice is harmless. */
  stop(): Promise<boolean>;
}

/**
 * Builds what `ROLES` asks for, starts it in order, and hands out what stops it in reverse. `http` has been listening since the process
 * began; `open` is called when the service is ready for what has come in meanwhile. Rejects when a part cannot start.
 */
export async function composeService(
  config: Config,
  log: Log,
  clock: Clock,
  http: PublicListeners,
  open: (handler: RequestListener) => void,
): Promise<Service> {
  const metrics = new Metrics({ clock, service: config.serviceName, version: config.version, memoryLimitMb: config.memoryLimitMb });

  const ladder = chooseLadder({ codecs: config.codecsEnabled, adaptive: config.adaptiveBitrate, defaultKbps: config.defaultBitrateKbps });
  const ffmpeg = new Ffmpeg(config.ffmpegPath);
  // Beside what else takes its time at start: every moment counts when a show waits to go on.
  const ffmpegWorks = ffmpeg.check(ladder, clock);
  ffmpegWorks.catch(() => undefined);
  const registry = new FileRegistry(join(config.dataDir, 'timelines'), log);
  const store = await createFileStore(join(config.dataDir, 'objects'));
  const database = await openDatabase({
    url: config.databaseUrl,
    dataDir: config.dataDir,
    poolSize: config.databasePoolSize,
    timeoutMs: config.databaseTimeoutMs,
    log,
  });
  const access = await openAccess({ ...config, previousEncryptionKey: config.encryptionKeyPrevious, database, clock, log });
  const { channels, webhooks } = access;
  provideWebhookCounts(metrics, webhooks);
  provideAccountCounts(metrics, access);
  const broadcasts = new Broadcasts(database);

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
    verifyKey: (streamKey, isOnAir) => channels.verifyKey(streamKey, isOnAir),
    channelBySlug: (slug) => channels.get(slug),
    onOnAir: ({ channel, broadcastId, startedMs }) =>
      void webhooks.emit('channel.on_air', channel, { broadcastId, startedAt: isoOf(startedMs) }),
    onOffAir: ({ channel, broadcastId, startedMs, endedMs }) =>
      void webhooks.emit('channel.off_air', channel, { broadcastId, startedAt: isoOf(startedMs), endedAt: isoOf(endedMs) }),
    onRecordingStarted: (recording) => recordings.started(recording),
    onRecordingEnded: (recording) => recordings.ended(recording),
  });

  const addressOf = (req: IncomingMessage) => clientAddress(req, config.trustProxyHops);
  const geoIp = config.geoipFile === undefined ? undefined : await openGeoIp(config.geoipFile, clock, log);
  const lookup = geoIp?.countryOf;
  const countryOf = countryReader({ header: config.countryHeader, trustProxyHops: config.trustProxyHops, lookup, addressOf });
  const { cloudFrontKeyPairId, cloudFrontPrivateKeyFile } = config;
  const cloudFront =
    cloudFrontKeyPairId && cloudFrontPrivateKeyFile ? await loadCloudFrontKey(cloudFrontKeyPairId, cloudFrontPrivateKeyFile) : undefined;

  const playback = new Playback({
    edge: live,
    store,
    clock,
    log,
    dvrWindowS: config.dvrWindowS,
    admissions: new Admissions({ links: access.playbackLinks, rules: access.playbackRules, addressOf, countryOf }),
    titleOf: (slug) => live.broadcast(slug)?.channel.title ?? slug,
    addressOf,
    ...(config.maxListenersPerStream === undefined ? {} : { maxListenersPerStream: config.maxListenersPerStream }),
  });
  providePlaybackCounts(metrics, playback);
  const { connections, tls } = http;
  metrics.provideCount(
    'http_connections_refused_total',
    'Connections closed at once because there were too many, in all or of one address.',
    () => connections.refused,
  );
  metrics.provide('streams_active', () => live.streams);
  metrics.provide('listeners_active', () => live.channels().reduce((sum, channel) => sum + playback.listeners(channel), 0));
  metrics.provide('ingest_bitrate_bits', () => ingest.bitsPerSecond());

  const { publicUrl, rtmpPort, rtmpsPort, ingestPort } = config;
  const addresses = { publicUrl, mediaUrl, rtmpPort, rtmpsPort, ingestPort };
  const pagesDir = join(dirname(fileURLToPath(import.meta.url)), '..', 'player-demo');
  const app = createApp({
    clock,
    log,
    metrics,
    version: config.version,
    addresses: addresses,
    access,
    broadcasts,
    live: {
      status: (slug) => ({ ...live.status(slug), listeners: playback.listeners(slug) }),
      end: (slug) => live.end(slug, 'asked for by an administrator'),
      nowPlaying: (slug, update) => live.setTitle(slug, update),
    },
    health: {
      database: () => database.query('select 1'),
      objects: () => Promise.all([store.head('health/none'), uploader.check()]),
    },
    allowedOrigins: config.corsEnabled ? config.allowedOrigins : [],
    trustProxyHops: config.trustProxyHops,
    pages: await loadPages({ dir: pagesDir, mediaOrigins: config.cdnBaseUrl ? [new URL(config.cdnBaseUrl).origin] : [] }),
    links: { maxListenersPerStream: config.maxListenersPerStream, cloudFront, countryOfAddress: lookup },
    countryOf,
    playback,
  });

  const { internalCertFile, internalKeyFile, internalCaFile, rtmpsPort: securePort } = config;
  const internalTls =
    config.metricsTls && internalCertFile && internalKeyFile && internalCaFile
      ? await TlsFiles.open({ certFile: internalCertFile, keyFile: internalKeyFile, caFile: internalCaFile, clock, log })
      : undefined;
  const address = { gate: live, clock, log, host: config.host };
  const rtmps =
    config.roles.includes('ingest') && securePort !== undefined && tls
      ? new RtmpServer({ ...address, port: securePort, tls: tls.current })
      : undefined;
  tls?.onChange((certificates) => rtmps?.useCertificate(certificates));
  const parts: Component[] = [
    { name: 'database', stop: () => database.stop() },
    // Stopped after the shows have finished their segments, and after playback has let go of whoever listens to an endless stream.
    { name: 'http', stop: () => http.stop(HTTP_GRACE_MS) },
    { name: 'playback', stop: () => playback.stop() },
    { name: 'countries', stop: () => geoIp?.stop() },
    { name: 'access', start: () => access.start(), stop: () => access.stop() },
    recordings,
    live,
    // What the live room has found after a crash it sees to itself.
    { name: 'broadcasts', start: () => recordings.closeOrphans((assetId) => live.knows(assetId)) },
    ...(internalTls ? [{ name: 'internal certificate', stop: () => internalTls.stop() }] : []),
    listener('metrics', config.metricsEnabled, async () => {
      const { host, prometheusPort } = config;
      const tls = internalTls && internalServerTls(internalTls.current);
      const opened = await startMetricsServer({ host, port: prometheusPort, metrics, clock, log, tls });
      internalTls?.onChange((certificates) => useCertificate(opened, internalServerTls(certificates)));
      return opened;
    }),
    ...(config.roles.includes('ingest')
      ? [new IngestHttpServer({ ...address, port: config.ingestPort }), new RtmpServer({ ...address, port: config.rtmpPort })]
      : []),
    ...(rtmps ? [rtmps] : []),
  ];
  const lifecycle = new Lifecycle(clock, log);
  try {
    await ffmpegWorks;
    await lifecycle.start(parts);
  } catch (error) {
    await lifecycle.stop(config.shutdownTimeoutS * 1000);
    throw error;
  }
  open(app.callback());
  log.info({ publicUrl, rtmpPort, ingestPort }, 'ready');
  return { stop: () => lifecycle.stop(config.shutdownTimeoutS * 1000) };
}

function listener(name: string, wanted: boolean, open: () => Promise<HttpListener>): Component {
  let opened: HttpListener | undefined;
  return {
    name,
    start: async () => {
      if (wanted) opened = await open();
    },
    stop: () => opened?.stop(HTTP_GRACE_MS),
  };
}

/** Bytes from broadcasters over the last whole seconds. */
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

function providePlaybackCounts(metrics: Metrics, { counters }: Playback): void {
  metrics.provideCount('playback_requests_total', 'Requests for media and manifests.', () => counters.requests);
  metrics.provideCount(
    'manifests_rendered_total',
    'Manifests made; the other requests for one were answered from memory.',
    () => counters.renders,
  );
  metrics.provideCount(
    'playback_timeouts_total',
    'Requests that waited three target durations for a part in vain.',
    () => counters.timeouts,
  );
  metrics.provideCount('playback_refused_total', 'Requests refused because too many waited or listened.', () => counters.refused);
  metrics.provideCount('playback_aborted_total', 'Responses destroyed because the run ended under them.', () => counters.aborted);
  metrics.provideCount('object_reads_total', 'Objects read from the store for listeners.', () => counters.objectReads);
  metrics.provideCount(
    'slow_listeners_total',
    'Listeners of endless streams disconnected for reading too slowly.',
    () => counters.slowListeners,
  );
}

function provideAccountCounts(metrics: Metrics, { passwords, mail }: Access): void {
  metrics.provideCount('password_hashes_total', 'Passwords that were checked or set.', () => passwords.worked);
  metrics.provideCount('password_hashes_refused_total', 'Passwords not looked at because too many waited.', () => passwords.refused);
  metrics.provideCount('mails_sent_total', 'Mails that the mail server took.', () => mail.counts.sent);
  metrics.provideCount('mails_retried_total', 'Tries to send a mail that failed and are made again.', () => mail.counts.retried);
  metrics.provideCount('mails_dropped_total', 'Mails that were given up.', () => mail.counts.dropped);
}

function provideWebhookCounts(metrics: Metrics, webhooks: Webhooks): void {
  const count = (name: string, help: string, read: () => number) => metrics.provideCount(`webhook_${name}_total`, help, read);
  count('deliveries_taken', 'Deliveries that a receiver answered with 2xx.', () => webhooks.counts.taken);
  count('deliveries_failed', 'Tries that failed and are made again.', () => webhooks.counts.failed);
  count('deliveries_given_up', 'Deliveries that were given up.', () => webhooks.counts['given-up']);
  count('events_dropped', 'Events not told: too many were waiting, or the database was away for too long.', () => webhooks.counts.dropped);
  metrics.provide('webhook_backlog', () => webhooks.counts.waiting);
  metrics.provide('webhook_oldest_due_seconds', () => webhooks.counts.oldestDueS);
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
  return {
    partPublishDelaySeconds: (seconds: number) => metrics.duration('part_publish_delay_seconds', seconds),
    cut: () => cuts.add(),
    decoderRestarted: () => decoders.add(),
    encoderRestarted: () => encoders.add(),
    timelineNotDurable: () => undurable.add(),
  };
}
