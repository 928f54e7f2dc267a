import { keepSubscribed, openAnyRedis } from '../../../backing/redis/redis.js';
import type { Clock } from '../../../runtime/clock.js';
import type { Log } from '../../../runtime/log.js';

/** Carries texts between chat processes. A text may be lost; its contents are published again. */
export interface PresenceBus {
  publish(text: string): void;
  /** Calls the listener with every text that is published by any process, including this one. */
  onText(listener: (text: string) => void): void;
}

/**
 * A message between processes: the members of rooms (`rooms`), the question who they are (`who`),
 * its answer (`to`), the request of a new process for all counts (`ask`), and the end of a process
 * (`gone`). `p` is the sender.
 */
export interface PresenceMessage {
  readonly to?: unknown;
  readonly p?: unknown;
  readonly ask?: unknown;
  readonly gone?: unknown;
  /**
   * By room: the number of members, the number of guests among them, and the joined tags of up to
   * `EXACT_UP_TO` users (null: more).
   */
  readonly rooms?: Record<string, [number, number, string | null]> | null;
  readonly who?: unknown;
  readonly room?: unknown;
  readonly n?: unknown;
  readonly people?: unknown;
}

const CHANNEL = 'veza:chat:presence';

/**
 * The subscribing connection is pinged after every this many published texts. Without pings a
 * silent node would not be noticed.
 */
const TEXTS_PER_PING = 5;

/** A bus over Redis. In a cluster it uses any node, and another one when that is lost. */
export function redisPresenceBus(url: string, clock: Clock, log: Log): { bus: PresenceBus; stop(): void } {
  const publisher = openAnyRedis({ url, log });
  const subscriber = openAnyRedis({ url, log });
  let texts = 0;
  const unsubscribe = keepSubscribed(subscriber.client, CHANNEL, clock);
  return {
    bus: {
      publish(text) {
        publisher.client.publish(CHANNEL, text).catch(() => undefined);
        if (++texts % TEXTS_PER_PING === 0) subscriber.client.ping().catch(() => undefined);
      },
      onText: (listener) => void subscriber.client.on('message', (_channel: string, text: string) => listener(text)),
    },
    stop() {
      unsubscribe();
      publisher.stop();
      subscriber.stop();
    },
  };
}
