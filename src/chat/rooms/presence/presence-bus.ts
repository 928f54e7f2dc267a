import { keepSubscribed, openAnyRedis } from '../../../backing/redis/redis.js';
import type { Clock } from '../../../runtime/clock.js';
import type { Log } from '../../../runtime/log.js';

/** Carries texts between the processes of the chat. Texts may be lost: what they say is published again. */
export interface PresenceBus {
  publish(text: string): void;
  /** Calls the listener with every text that any process, this one included, has published. */
  onText(listener: (text: string) => void): void;
}

/**
 * What processes tell each other: how many members each room has (`rooms`), the question who they are (`who`), its answer (`to`),
 * that a process has begun (`ask`), and that it ends (`gone`). `p` is the sender.
 */
export interface PresenceMessage {
  readonly to?: unknown;
  readonly p?: unknown;
  readonly ask?: unknown;
  readonly gone?: unknown;
  /** By room: members, guests among them, and the tags of up to `EXACT_UP_TO` users, joined. */
  readonly rooms?: Record<string, [number, number, string | null]> | null;
  readonly who?: unknown;
  readonly room?: unknown;
  readonly n?: unknown;
  readonly people?: unknown;
}

const CHANNEL = 'veza:chat:presence';

/** The subscribing connection is pinged once per this many published texts: nothing else would show that its node has gone silent. */
const TEXTS_PER_PING = 5;

/** A bus over Redis. In a cluster it goes over any node, and over another when that one is lost. */
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
