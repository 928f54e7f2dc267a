import type { IncomingMessage, Server } from 'node:http';
import { availableParallelism } from 'node:os';
import type { Access } from '../access/access.js';
import { channelStandingOf, chatAuthorization, provenIdentityOf } from '../access/chat-authorization.js';
import type { Principal } from '../access/roles.js';
import type { RoomsApi } from '../app/api/rooms/room-access.js';
import type { Database } from '../backing/database/database.js';
import { chatServer, listenAt } from '../chat/gateway/listener.js';
import { MAX_PROCESS_CONNECTIONS, mostSockets, type ProcessStats, retrySpreadMs } from '../chat/gateway/process-stats.js';
import { DELIVERY_BUCKETS_S } from '../chat/rooms/delivery-times.js';
import { NowPlaying } from '../chat/rooms/now-playing.js';
import { type OnAirChanges, OnAirWatcher, type OnAirWatcherOptions } from '../chat/rooms/on-air.js';
import type { Presence } from '../chat/rooms/presence/presence.js';
import type { Config } from '../config/config.js';
import type { Clock } from '../runtime/clock.js';
import type { UpgradeHandler } from '../runtime/http-guard.js';
import type { Component } from '../runtime/lifecycle.js';
import type { Log } from '../runtime/log.js';
import type { Metrics } from '../runtime/metrics.js';
import type { TlsFiles } from '../runtime/tls/tls-files.js';
import { type ChatGateway, type ChatRooms, openChatRooms, openGateway } from './chat-service.js';
import { statsOf } from './chat-stats.js';

export interface ComposeChatOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly database: Database;
  readonly access: Access;
  readonly tls: TlsFiles | undefined;
  /** Sets the handler of WebSockets when the chat shares `PORT` or `HTTPS_PORT`. */
  readonly onUpgrade: (port: 'http' | 'https', handler: UpgradeHandler) => void;
  readonly addressOf: (req: IncomingMessage) => string;
  readonly countryOf: (req: IncomingMessage) => string | undefined;
  /**
   * Undefined when this process does not know what is on air; the rooms then get no on-air changes.
   */
  readonly onAir: Pick<OnAirWatcherOptions, 'channels' | 'news'> | undefined;
}

/**
 * The composed chat: its rooms, for the API, and its gateway, in this process or in chat processes.
 */
export interface ComposedChat {
  readonly api: RoomsApi;
  /** Components, in the order in which they start. */
  readonly parts: readonly Component[];
}

const DAY_MS = 86_400_000;

export async function composeChat(options: ComposeChatOptions): Promise<ComposedChat> {
  const { config, database, access, clock, log } = options;
  // Retention runs here and not in the chat processes: one is enough.
  const retention = { entries: config.messageHistoryLimit, ageMs: config.chatRetentionDays * DAY_MS };
  const chat = await openChatRooms({ config, database, vault: access.vault, audit: access.audit, clock, log, retention });
  const rooms: Component = { name: 'chat rooms', start: () => chat.start(), stop: () => chat.stop() };
  const nowPlaying = new NowPlaying({ database, clock, log, act: (roomId, entry) => chat.rooms.appendEntry(roomId, entry) });
  const { identity, ended, signingKeys, playbackLinks } = access;
  const chatAccess = { database, identity, ended, signingKeys, playbackLinks };
  const authorization = chatAuthorization(chatAccess, clock);
  const count = processesOf(config);
  if (count > 1) {
    const { composeProcesses } = await import('./chat-processes.js');
    const processes = composeProcesses(options, count);
    provideChatMetrics(options.metrics, () => processes.stats());
    // With a single process the errors are already in that process's counts.
    options.metrics.provideUnexpected('chat', () => processes.stats().unexpected);
    const onAir = onAirParts(options, (changes) => processes.tellOnAir(changes));
    return { api: apiOf(chat, processes.presence, authorization), parts: [rooms, nowPlaying, processes.part, ...onAir] };
  }
  const maxConnections = Math.min(config.maxConnections, MAX_PROCESS_CONNECTIONS);
  const opened = openGateway({
    config,
    chat,
    access: chatAccess,
    clock,
    log,
    maxConnections,
    maxPerAddress: config.trustProxyHops > 0 ? undefined : config.maxHttpConnectionsPerAddress,
    addressOf: options.addressOf,
    countryOf: options.countryOf,
  });
  provideChatMetrics(options.metrics, () => statsOf(opened.gateway, chat));
  const onAir = onAirParts(options, (changes) => opened.gateway.broadcastOnAir(changes));
  return {
    api: apiOf(chat, opened.presence, authorization),
    parts: [rooms, nowPlaying, gatewayComponent(options, opened, maxConnections), ...onAir],
  };
}

const onAirParts = ({ onAir, clock }: ComposeChatOptions, tell: (changes: OnAirChanges) => void): Component[] =>
  onAir ? [new OnAirWatcher({ ...onAir, tell, clock })] : [];

function apiOf({ rooms, desk, moderation }: ChatRooms, presence: Presence, authorization: ReturnType<typeof chatAuthorization>): RoomsApi {
  return {
    rooms,
    desk,
    history: rooms,
    pageLimits: rooms.pageLimits,
    presence,
    tryText: (roomId, text) =>
      moderation?.classify({
        roomId,
        authorId: '',
        privileged: false,
        text,
        settings: desk.rules.classifierSettingsOf(roomId),
        isTrial: true,
      }),
    who: (principal, channelRole) => ({ ...provenIdentityOf(principal), ...channelStandingOf(principal, channelRole) }),
    sinceMs: (accountId) =>
      authorization.accountCreatedAtMs({
        proof: {
          kind: 'account',
          id: `account:${accountId}`,
          accountId,
          name: '',
          role: 'listener',
          secondFactor: false,
        } satisfies Principal,
      }),
  };
}

/**
 * The number of chat processes: `WORKER_THREADS`, or by default one per core when Redis and
 * PostgreSQL let them share the rooms.
 */
function processesOf({ workerThreads, redisUrl, databaseUrl }: Config): number {
  return workerThreads ?? (redisUrl === undefined || databaseUrl === undefined ? 1 : availableParallelism());
}

/**
 * The port of the chat over TLS; undefined when there is none. The default is the port of the
 * pages, if one process has both. Several chat processes need their own port: a connection can be
 * handed to a process only before its TLS handshake.
 */
export function wssPortOf(config: Config): number | undefined {
  const { wssPort, httpsPort, roles } = config;
  return wssPort ?? (roles.includes('app') && roles.includes('chat') && processesOf(config) === 1 ? httpsPort : undefined);
}

/** The gateway in this process. */
function gatewayComponent(
  { config, clock, log, tls, onUpgrade }: ComposeChatOptions,
  opened: ChatGateway,
  maxConnections: number,
): Component {
  const { gateway } = opened;
  const upgrade: UpgradeHandler = (req, socket, head) => gateway.upgrade(req, socket, head);
  const servers: Server[] = [];
  return {
    name: 'chat',
    async start() {
      const { host, wsPort, port, httpsPort, roles } = config;
      const wssPort = wssPortOf(config);
      const isShared = (own: number, others: number | undefined) => roles.includes('app') && own === others && own !== 0;
      if (isShared(wsPort, port)) onUpgrade('http', upgrade);
      else servers.push(chatServer(clock, upgrade));
      if (servers[0]) await listenAt(servers[0], host, wsPort);
      if (wssPort !== undefined && tls) {
        if (isShared(wssPort, httpsPort)) onUpgrade('https', upgrade);
        else {
          const minVersion = `TLSv${config.tlsMinVersion}` as const;
          const secure = chatServer(clock, upgrade, { ...tls.current, minVersion });
          tls.onChange((certificates) => (secure as import('node:https').Server).setSecureContext({ ...certificates, minVersion }));
          servers.push(secure);
          await listenAt(secure, host, wssPort);
        }
      }
      for (const server of servers) server.maxConnections = mostSockets(maxConnections);
      log.info({ event: 'chat.listening', wsPort, wssPort, connections: maxConnections }, 'the chat is listening');
      if (config.maxConnections > maxConnections)
        log.info(
          { event: 'chat.too_few_processes', maxConnections: config.maxConnections, holds: maxConnections },
          `MAX_CONNECTIONS is more than one process holds; WORKER_THREADS=${Math.ceil(config.maxConnections / MAX_PROCESS_CONNECTIONS)} with REDIS_URL and DATABASE_URL holds them`,
        );
    },
    async stop() {
      for (const server of servers) server.close();
      await gateway.drainAll(retrySpreadMs(gateway.connections));
      await opened.stop();
      for (const server of servers) server.closeAllConnections();
    },
  };
}

function provideChatMetrics(metrics: Metrics, read: () => ProcessStats): void {
  metrics.provide('websocket_connections_active', () => read().connections);
  metrics.provide('active_users_total', () => read().users);
  metrics.provide('message_delivery_success_rate', () => {
    const { delivered, skipped } = read();
    return delivered + skipped === 0 ? 1 : delivered / (delivered + skipped);
  });
  metrics.provideHistogram(
    'chat_delivery_seconds',
    'From the log of a room to the write to its members, once for each entry and process.',
    DELIVERY_BUCKETS_S,
    () => {
      const { deliveryCounts, deliverySumS } = read();
      return { counts: deliveryCounts, sum: deliverySumS };
    },
  );
  metrics.provideCount('chat_messages_delivered_total', 'Entries written to members.', () => read().delivered);
  metrics.provideCount('chat_messages_skipped_total', 'Entries left out for members who were too slow.', () => read().skipped);
  metrics.provideCount('chat_slow_closed_total', 'Connections closed because they took nothing for too long.', () => read().slowClosed);
  metrics.provideCount('chat_turned_away_total', 'Connections turned away: too many, in all or of one.', () => read().turnedAway);
  metrics.provideCount('chat_bad_frames_total', 'Frames and connections that broke the protocol.', () => read().badFrames);
  metrics.provideCount(
    'chat_entries_refused_total',
    'Entries of a damaged log that could not be read; their places are stored as erased.',
    () => read().entriesRefused,
  );
  metrics.provideCount(
    'chat_retractions_failed_total',
    'Published messages that could not be judged afterwards, or not be taken back.',
    () => read().retractionsFailed,
  );
}
