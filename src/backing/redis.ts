import { Redis } from 'ioredis';
import { messageOf } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';

/** A Redis that does not answer for so long is away: the connection is closed, and a new one is tried. */
const SILENCE_MS = 1000;
const CONNECT_MS = 2000;
/** The longest wait between two tries to connect. */
const RETRY_MS = 2000;

export interface RedisConnection {
  /** A command fails at once when there is no connection, and after a second without an answer: callers have something to do without. */
  readonly client: Redis;
  /** Twice is harmless. */
  stop(): void;
}

/** Connects, and connects again whenever the connection is lost; that is logged once, not once a try. Never rejects. */
export function openRedis({ url, log }: { url: string; log: Log }): RedisConnection {
  const client = new Redis(url, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: CONNECT_MS,
    commandTimeout: SILENCE_MS,
    socketTimeout: SILENCE_MS,
    retryStrategy: (tries) => Math.min(tries * 100, RETRY_MS),
    connectionName: 'veza',
  });
  let away = false;
  let reason = '';
  let stopped = false;
  client.on('error', (error) => {
    reason = messageOf(error);
  });
  client.on('close', () => {
    if (!away && !stopped) log.warn({ error: reason || 'the connection was closed' }, 'Redis is away');
    away = true;
  });
  client.on('ready', () => {
    if (away) log.info({}, 'Redis is back');
    away = false;
    reason = '';
  });
  return {
    client,
    stop() {
      if (stopped) return;
      stopped = true;
      client.disconnect();
    },
  };
}
