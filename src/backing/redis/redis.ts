import { Cluster, Redis, type RedisOptions } from 'ioredis';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/**
 * After this long without an answer Redis counts as unavailable: the connection is closed, and a
 * new one is tried.
 */
const SILENCE_MS = 1000;
const CONNECT_MS = 2000;
/** The time between two attempts to connect, at most. */
const RETRY_MS = 2000;

export interface RedisConnection {
  /**
   * A command fails at once without a connection, and after a second without an answer. Callers can
   * go on without Redis.
   */
  readonly client: Redis | Cluster;
  /** Closes the connection. Calling it twice is harmless. */
  stop(): void;
}

/** The addresses in `REDIS_URL`: one address, or several nodes of a cluster separated by commas. */
export const redisUrls = (value: string): string[] =>
  value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

/** The wait after a subscription that was refused or not answered in time. */
const RESUBSCRIBE_MS = 1000;

/**
 * No command is sent twice, and no command waits for a connection: the caller learns at once that
 * Redis is unavailable. ioredis must not subscribe again by itself: when the connection breaks
 * meanwhile, the rejection is unhandled and ends the process (5.11, `readyHandler`).
 */
export const REDIS_OPTIONS = {
  enableOfflineQueue: false,
  autoResubscribe: false,
  maxRetriesPerRequest: 0,
  autoResendUnfulfilledCommands: false,
  connectTimeout: CONNECT_MS,
  commandTimeout: SILENCE_MS,
  socketTimeout: SILENCE_MS,
  retryStrategy: (tries: number) => Math.min(tries * 100, RETRY_MS),
  connectionName: 'veza',
} satisfies RedisOptions;

/**
 * Connects, and connects again whenever the connection is lost. A loss is logged once, not at every
 * attempt. Never rejects.
 */
export function openRedis({ url, log }: { url: string; log: Log }): RedisConnection {
  const urls = redisUrls(url);
  return connectionOf(urls.length > 1 ? clusterClient(urls) : new Redis(urls[0] ?? url, REDIS_OPTIONS), log);
}

/**
 * Connects to any one of the addresses, for commands that every node of a cluster answers alike
 * (PUBLISH and SUBSCRIBE of plain channels). When the connection is lost, the next address is
 * tried. Never rejects.
 */
export function openAnyRedis({ url, log }: { url: string; log: Log }): RedisConnection & { readonly client: Redis } {
  const urls = redisUrls(url);
  const client: Redis = new Redis(urls[0] ?? url, {
    ...REDIS_OPTIONS,
    retryStrategy(tries) {
      if (urls.length > 1) {
        // ioredis reads the next address from its options. All addresses share user, password and
        // TLS.
        const { hostname, port } = new URL(urls[tries % urls.length]!);
        Object.assign(client.options, { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) });
      }
      return REDIS_OPTIONS.retryStrategy(tries);
    },
  });
  return connectionOf(client, log);
}

/**
 * Subscribes to a channel on every new connection, and repeats until it succeeds. Returns a
 * function that ends this.
 */
export function keepSubscribed(client: Redis, channel: string, clock: Clock): () => void {
  let attempt = 0;
  let cancel = () => {};
  const subscribe = () => {
    cancel();
    const current = ++attempt;
    client.subscribe(channel).catch(() => {
      // After the connection is lost, the next `ready` event subscribes.
      if (current === attempt && client.status === 'ready') cancel = clock.after(RESUBSCRIBE_MS, subscribe);
    });
  };
  client.on('ready', subscribe);
  return () => {
    attempt++;
    cancel();
    client.off('ready', subscribe);
  };
}

function connectionOf<C extends Redis | Cluster>(client: C, log: Log): RedisConnection & { readonly client: C } {
  const stop = tellWhenAway(client, log);
  return {
    client,
    stop() {
      stop();
      client.disconnect();
    },
  };
}

function clusterClient(urls: readonly string[]): Cluster {
  const { username, password, protocol } = new URL(urls[0]!);
  return new Cluster([...urls], {
    enableOfflineQueue: false,
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    clusterRetryStrategy: REDIS_OPTIONS.retryStrategy,
    redisOptions: {
      autoResubscribe: REDIS_OPTIONS.autoResubscribe,
      connectTimeout: CONNECT_MS,
      commandTimeout: SILENCE_MS,
      socketTimeout: SILENCE_MS,
      connectionName: REDIS_OPTIONS.connectionName,
      ...(username === '' ? {} : { username: decodeURIComponent(username) }),
      ...(password === '' ? {} : { password: decodeURIComponent(password) }),
      ...(protocol === 'rediss:' ? { tls: {} } : {}),
    },
  });
}

/**
 * Logs once when the connection is lost and once when it is restored. Returns a function that ends
 * the logging.
 */
export function tellWhenAway(client: Redis | Cluster, log: Log, fields: object = {}): () => void {
  let away = false;
  let reason = '';
  let stopped = false;
  client.on('error', (error: unknown) => {
    reason = messageOf(error);
  });
  client.on('close', () => {
    if (!away && !stopped)
      log.warn({ event: 'redis.lost', ...fields, error: reason || 'the connection was closed' }, 'the connection to Redis is lost');
    away = true;
  });
  client.on('ready', () => {
    if (away) log.info({ event: 'redis.restored', ...fields }, 'the connection to Redis is restored');
    away = false;
    reason = '';
  });
  return () => {
    stopped = true;
  };
}
