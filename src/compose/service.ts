import type { IncomingMessage, RequestListener } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Access, openAccess } from '../access/access.js';
import { loadCloudFrontKey } from '../access/playback/cloudfront.js';
import type { Webhooks } from '../access/webhooks/webhooks.js';
import type { RoomsApi } from '../app/api/rooms/room-access.js';
import type { ConnectionLimits } from '../app/http/connection-limits.js';
import { countryReader } from '../app/http/country.js';
import type { HealthCheck } from '../app/http/health.js';
import { type HttpListener, useCertificate } from '../app/http/listener.js';
import { startMetricsServer } from '../app/http/metrics-server.js';
import { loadPages } from '../app/http/static.js';
import { Admissions } from '../app/playback/admission.js';
import { Playback } from '../app/playback/playback.js';
import { type AppOptions, createApp } from '../app/server.js';
import { openDatabase } from '../backing/database/database.js';
import { openPrivateFolder } from '../backing/files/private-files.js';
import { openGeoIp } from '../backing/geoip.js';
import { createFileStore } from '../backing/object-store/files.js';
import type { ObjectStore } from '../backing/object-store/object-store.js';
import { accountRecords } from '../chat/moderation/account-records.js';
import type { OnAirState } from '../chat/rooms/on-air.js';
import type { Config } from '../config/config.js';
import { Broadcasts } from '../library/broadcasts.js';
import type { ChannelStatus, LiveEdge } from '../live/edge.js';
import { TitleNotes } from '../live/title-notes.js';
import { RemoteEdge } from '../live/worker/edge-remote.js';
import { clientAddress } from '../runtime/addresses.js';
import type { Clock } from '../runtime/clock.js';
import type { UpgradeHandler } from '../runtime/http-guard.js';
import { type Component, Lifecycle } from '../runtime/lifecycle.js';
import type { Log } from '../runtime/log.js';
import { Metrics } from '../runtime/metrics.js';
import { internalServerTls } from '../runtime/tls/internal-tls.js';
import { TlsFiles } from '../runtime/tls/tls-files.js';
import { composeChat, wssPortOf } from './chat.js';
import { composeLive, composeWorker, prepareEncoding } from './live.js';

/** The listeners that are open to everybody, and what they share. */
export interface PublicListeners {
  readonly connections: ConnectionLimits;
  /** The certificate of `TLS_CERT_FILE` and `TLS_KEY_FILE`. */
  readonly tls: TlsFiles | undefined;
  /**
   * Sets the handler of WebSocket requests on `PORT` or `HTTPS_PORT`. Call it at most once per
   * port.
   */
  onUpgrade(port: 'http' | 'https', handler: UpgradeHandler): void;
  /** Calling it twice is harmless. */
  stop(graceMs: number): Promise<void>;
}

/**
 * The time that current answers may take when the process ends. A playlist request that waits for a
 * part takes up to 6 s.
 */
const HTTP_GRACE_MS = 7000;

export interface Service {
  /**
   * Resolves to true when every component stopped within `SHUTDOWN_TIMEOUT_S`. Calling it twice is
   * harmless.
   */
  stop(): Promise<boolean>;
}

/**
 * Composes and starts the components that `ROLES` asks for. The result stops them in reverse order.
 * `http` has been listening since the process began. `open` is called when the service is ready for
 * the requests that have arrived meanwhile. Rejects when a component cannot start.
 */
export async function composeService(
  config: Config,
  log: Log,
  clock: Clock,
  http: PublicListeners,
  open: (handler: RequestListener) => void,
): Promise<Service> {
  const metrics = new Metrics({ clock, service: config.serviceName, version: config.version, memoryLimitMb: config.memoryLimitMb });
  const serves = config.roles.includes('app');
  const takesBroadcasts = config.roles.includes('ingest');

  // It runs beside the other slow steps of the start: when a broadcast waits to go on, every moment
  // counts.
  const encoding = takesBroadcasts ? prepareEncoding(config, clock) : undefined;
  await openPrivateFolder(config.dataDir, log);
  const store = await createFileStore(join(config.dataDir, 'objects'), { isShared: !takesBroadcasts });
  let isStarting = true;
  const database = await openDatabase({
    url: config.databaseUrl,
    dataDir: config.dataDir,
    sync: config.databaseSync,
    // The configured size is for all processes together. When app and ingest run apart, each gets
    // half.
    poolSize: serves === takesBroadcasts ? config.databasePoolSize : Math.ceil(config.databasePoolSize / 2),
    timeoutMs: config.databaseTimeoutMs,
    isStarting: () => isStarting,
    clock,
    log,
  });
  const access = await openAccess({ ...config, previousEncryptionKey: config.encryptionKeyPrevious, database, clock, log });
  provideWebhookCounts(metrics, access.webhooks);
  provideAccountCounts(metrics, access);
  const broadcasts = new Broadcasts(database);
  const internalTls = await openInternalTls(config, log, clock);

  const room = encoding && composeLive({ config, log, clock, metrics, store, access, broadcasts, encoding, tls: http.tls });
  const ready = {
    database: () => database.query('select 1'),
    objects: () => Promise.all([store.head('health/none'), room?.uploader.check()]),
  };
  const worker =
    room && !serves
      ? composeWorker({ config, log, clock, live: room.live, internalTls, ready: () => Promise.all([ready.database(), ready.objects()]) })
      : undefined;
  const remote = room || !config.workerUrl ? undefined : new RemoteEdge({ url: config.workerUrl, tls: internalTls, clock, log });
  const live = room?.live ?? remote;
  const geoIp = config.geoipFile === undefined ? undefined : await openGeoIp(config.geoipFile, clock, log);
  const addressOf = (req: IncomingMessage) => clientAddress(req, config.trustProxyHops);
  const { countryHeader: header, trustProxyHops } = config;
  const countryOf = countryReader({ header, trustProxyHops, lookup: geoIp?.countryOf, addressOf });
  // Playback counts the listeners, but it is composed after the chat.
  let listenersOf = (_slug: string) => 0;
  const onAir =
    serves && live ? { channels: () => live.channels(), news: (slug: string) => newsOf(live.status(slug), listenersOf(slug)) } : undefined;
  const chat = config.roles.includes('chat')
    ? await composeChat({
        config,
        log,
        clock,
        metrics,
        database,
        access,
        tls: http.tls,
        onUpgrade: http.onUpgrade,
        addressOf,
        countryOf,
        onAir,
      })
    : undefined;
  const served =
    serves && live
      ? await composeServing({
          config,
          log,
          clock,
          metrics,
          http,
          access,
          broadcasts,
          store,
          live,
          chat: chat?.api,
          chatRecords: (accountId) => accountRecords(database, accountId),
          client: { addressOf, countryOf, lookup: geoIp?.countryOf },
          health: { ...ready, ...(remote && { worker: () => remote.check() }) },
        })
      : undefined;

  if (served) listenersOf = served.listeners;

  const metricsTls = config.metricsTls ? internalTls : undefined;
  const parts: Component[] = [
    { name: 'database', stop: () => database.stop() },
    ...(internalTls ? [{ name: 'internal certificate', stop: () => internalTls.stop() }] : []),
    // This stops after the broadcasts have finished their segments, and after playback has ended
    // all endless streams.
    { name: 'http', stop: () => http.stop(HTTP_GRACE_MS) },
    { name: 'countries', stop: () => geoIp?.stop() },
    ...(served?.parts ?? []),
    // A process that only takes broadcasts has no sign-ins.
    { name: 'access', start: () => (serves ? access.start() : access.webhooks.start()), stop: () => access.stop() },
    ...(worker ? [worker.first] : []),
    ...(remote ? [remote] : []),
    ...(room ? [...room.parts, new TitleNotes({ live: room.live, database, clock, log })] : []),
    ...(chat?.parts ?? []),
    listener('metrics', config.metricsEnabled, async () => {
      const { metricsHost: host, prometheusPort } = config;
      const tls = metricsTls && internalServerTls(metricsTls.current);
      const opened = await startMetricsServer({ host, port: prometheusPort, metrics, clock, log, tls });
      metricsTls?.onChange((certificates) => useCertificate(opened, internalServerTls(certificates)));
      return opened;
    }),
    ...(worker ? [worker.last] : []),
    ...(room?.listeners ?? []),
  ];
  const lifecycle = new Lifecycle(clock, log);
  try {
    await encoding?.works;
    await lifecycle.start(parts);
    isStarting = false;
  } catch (error) {
    await lifecycle.stop(config.shutdownTimeoutS * 1000);
    throw error;
  }
  if (served) open(served.handler);
  const { publicUrl, rtmpPort, ingestPort } = config;
  log.info(
    { event: 'service.ready', roles: config.roles, ...(serves && { publicUrl }), ...(takesBroadcasts && { rtmpPort, ingestPort }) },
    'the service is ready',
  );
  return { stop: () => lifecycle.stop(config.shutdownTimeoutS * 1000) };
}

/** The on-air state that a channel's room gets. */
const newsOf = ({ state, startWallMs, nowPlaying }: ChannelStatus, listeners: number): OnAirState => ({
  state,
  listeners,
  startedAt: startWallMs === undefined ? null : Math.round(startWallMs),
  nowPlaying: nowPlaying
    ? {
        title: nowPlaying.title,
        ...(nowPlaying.artist !== undefined && { artist: nowPlaying.artist }),
        startedAt: Math.round(nowPlaying.startWallMs),
      }
    : null,
});

/**
 * The certificate for mutual TLS between the service's own processes, and with monitoring systems.
 */
async function openInternalTls(config: Config, log: Log, clock: Clock): Promise<TlsFiles | undefined> {
  const { internalCertFile, internalKeyFile, internalCaFile } = config;
  const isWanted = config.metricsTls || config.roles.includes('app') !== config.roles.includes('ingest');
  if (!isWanted || !internalCertFile || !internalKeyFile || !internalCaFile) return undefined;
  return TlsFiles.open({ certFile: internalCertFile, keyFile: internalKeyFile, caFile: internalCaFile, clock, log });
}

interface ServingOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly http: PublicListeners;
  readonly access: Access;
  readonly broadcasts: Broadcasts;
  readonly store: ObjectStore;
  readonly live: LiveEdge;
  readonly chat: RoomsApi | undefined;
  readonly chatRecords: AppOptions['chatRecords'];
  /** Functions that read a client's address and country from its request. */
  readonly client: {
    readonly addressOf: (req: IncomingMessage) => string;
    readonly countryOf: (req: IncomingMessage) => string | undefined;
    readonly lookup: ((address: string) => string | undefined) | undefined;
  };
  readonly health: Readonly<Record<string, HealthCheck>>;
}

/** Composes playback, API and pages, for broadcasts on air in this process or at a worker. */
async function composeServing(
  options: ServingOptions,
): Promise<{ handler: RequestListener; listeners: (slug: string) => number; parts: Component[] }> {
  const { config, log, clock, metrics, http, access, broadcasts, store, live, chat, health } = options;
  const { addressOf, countryOf, lookup } = options.client;
  const mediaUrl = config.cdnBaseUrl ?? config.publicUrl;
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
    titleOf: (slug) => live.status(slug).title ?? slug,
    addressOf,
    // A single channel gets half of this when no other has waiting requests. Each HTTP/1.1
    // connection may have one.
    maxWaiting: Math.max(100_000, 2 * config.maxHttpConnections),
    ...(config.maxListenersPerStream === undefined ? {} : { maxListenersPerStream: config.maxListenersPerStream }),
  });
  providePlaybackCounts(metrics, playback);
  const { connections } = http;
  metrics.provideCount(
    'http_connections_refused_total',
    'Connections closed at once because there were too many, in all or of one address.',
    () => connections.refused,
  );
  metrics.provideCount(
    'http_pipelines_closed_total',
    'Connections closed because more than 100 of their requests waited for an answer.',
    () => connections.overrun,
  );
  metrics.provideCount(
    'http2_answers_unread_total',
    'Answers of HTTP/2 that were ended because their client took nothing of them for 180 s.',
    () => connections.unread,
  );
  metrics.provide('listeners_active', () => live.channels().reduce((sum, channel) => sum + playback.listeners(channel), 0));

  const { publicUrl, rtmpPort, rtmpsPort, ingestPort } = config;
  const addresses = { publicUrl, mediaUrl, rtmpPort, rtmpsPort, ingestPort };
  const wssPort = wssPortOf(config);
  const pagesDir = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'player-demo');
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
    chat,
    chatRecords: options.chatRecords,
    maxMessageBytes: config.maxMessageBytes,
    health,
    allowedOrigins: config.corsEnabled ? config.allowedOrigins : [],
    trustProxyHops: config.trustProxyHops,
    pages: await loadPages({
      dir: pagesDir,
      mediaOrigins: config.cdnBaseUrl ? [new URL(config.cdnBaseUrl).origin] : [],
      chatPorts: [[config.port, config.wsPort] as const, ...(config.httpsPort && wssPort ? [[config.httpsPort, wssPort] as const] : [])],
    }),
    links: { maxListenersPerStream: config.maxListenersPerStream, cloudFront, countryOfAddress: lookup },
    countryOf,
    playback,
  });

  return {
    handler: app.callback(),
    listeners: (slug) => playback.listeners(slug),
    parts: [{ name: 'playback', stop: () => playback.stop() }],
  };
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
