import { Cluster, Redis, type RedisOptions } from 'ioredis';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';

/** A Redis that does not answer for so long is away: the connection is closed, and a new one is tried. */
const SILENCE_MS = 1000;
const CONNECT_MS = 2000;
/** The longest wait between two tries to connect. */
const RETRY_MS = 2000;

export interface RedisConnection {
  /** A command fails at once when there is no connection, and after a second without an answer: callers have something to do without. */
  readonly client: Redis | Cluster;
  /** Twice is harmless. */
  stop(): void;
}

/** `REDIS_URL`: one address, or those of some nodes of a cluster, separated by commas. */
export const redisUrls = (value: string): string[] =>
  value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

/** After a subscription was refused, or not answered in time. */
const RESUBSCRIBE_MS = 1000;

/**
 * Nothing is sent twice and nothing waits for a connection: whoever asks learns at once that Redis is away. ioredis does not subscribe anew by
 * itself: nobody takes the rejection when the connection breaks again meanwhile, and that ends the process (5.11, `readyHandler`).
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

/** Connects, and connects again whenever the connection is lost; that is logged once, not once a try. Never rejects. */
export function openRedis({ url, log }: { url: string; log: Log }): RedisConnection {
  const urls = redisUrls(url);
  return connectionOf(urls.length > 1 ? clusterClient(urls) : new Redis(urls[0] ?? url, REDIS_OPTIONS), log);
}

/**
 * A connection to any one of them, for what every node of a cluster does alike (PUBLISH and SUBSCRIBE of plain channels): when it is lost, the next is
 * tried. Never rejects.
 */
export function openAnyRedis({ url, log }: { url: string; log: Log }): RedisConnection & { readonly client: Redis } {
  const urls = redisUrls(url);
  const client: Redis = new Redis(urls[0] ?? url, {
    ...REDIS_OPTIONS,
    retryStrategy(tries) {
      if (urls.length > 1) {
        // Where it connects to next is read from here. They have user, password and TLS in common.
        const { hostname, port } = new URL(urls[tries % urls.length]!);
        Object.assign(client.options, { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) });
      }
      return REDIS_OPTIONS.retryStrategy(tries);
    },
  });
  return connectionOf(client, log);
}

/** Subscribes to a channel with every new connection, and again until it is answered. Returns what ends that. */
export function keepSubscribed(client: Redis, channel: string, clock: Clock): () => void {
  let attempt = 0;
  let cancel = () => {};
  const subscribe = () => {
    cancel();
    const current = ++attempt;
    client.subscribe(channel).catch(() => {
      // Of a connection that is lost, the next one takes care.
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

/** Once each time, not once a try. Returns what ends it. */
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
