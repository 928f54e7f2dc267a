import { EventEmitter } from 'node:events';
import { Redis, type RedisOptions } from 'ioredis';
import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { singleFlight } from '../../runtime/shared-work.js';
import { REDIS_OPTIONS, tellWhenAway } from './redis.js';

const SLOTS = 16_384;
/** The period at which the slots of each master are read again. */
const REFRESH_MS = 10_000;
/** The same while a node is unavailable. */
const REFRESH_UNAVAILABLE_MS = 500;
/** The period of pings: a dead link without traffic would not be noticed otherwise. */
const PING_MS = 5000;
/**
 * Subscribers may be silent for longer than other connections, because a lost connection costs all
 * its subscriptions.
 */
const SUBSCRIBER_SILENCE_MS = 3000;
const OLDEST_VERSION = 7;

/**
 * One Redis server that takes commands. It has one connection for commands and one for
 * subscriptions; both reconnect by themselves.
 */
export interface RedisNode {
  readonly address: string;
  readonly client: Redis;
  readonly subscriber: Redis;
}

/**
 * The masters of a cluster, or the single Redis server; it finds out which by asking. A caller only
 * needs to know which node has a slot at the moment. A node that does not have the slot refuses the
 * command with `MOVED`; the slots are then read again.
 *
 * Events: `slots` when slots have moved; `subscriber` (node) when a node's subscriber connection is
 * lost, and when it is restored without subscriptions; `message` of a sharded channel.
 */
export class RedisNodes extends EventEmitter<{ slots: []; subscriber: [RedisNode]; message: [channel: string, text: string] }> {
  readonly #urls: readonly string[];
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #nodes = new Map<string, RedisNode & { stop(): void }>();
  #slots: (RedisNode | undefined)[] = [];
  #cluster: boolean | undefined;
  #refreshedMs = Number.NEGATIVE_INFINITY;
  readonly #cancel: (() => void)[] = [];
  readonly #logged = new Set<string>();
  #stopped = false;

  constructor({ urls, clock, log }: { urls: readonly string[]; clock: Clock; log: Log }) {
    super();
    this.#urls = urls;
    this.#clock = clock;
    this.#log = log;
    this.#cancel.push(
      clock.every(REFRESH_UNAVAILABLE_MS, () => {
        if (this.#cluster === false) return;
        const whole = this.#slots.length === SLOTS && [...this.#nodes.values()].every((node) => node.client.status === 'ready');
        if (!whole || clock.monotonicMs() - this.#refreshedMs >= REFRESH_MS) this.refresh();
      }),
      clock.every(PING_MS, () => {
        for (const { client, subscriber } of this.#nodes.values()) {
          for (const link of [client, subscriber]) if (link.status === 'ready') link.ping().catch(() => undefined);
        }
      }),
    );
    this.refresh();
  }

  /** The node that has a slot, as far as it is known. */
  of(slot: number): RedisNode | undefined {
    return this.#cluster === false ? this.#slots[0] : this.#slots[slot];
  }

  /**
   * Whether slots may be on several masters, so that keys of one command must share a slot. True
   * until it is known.
   */
  get isCluster(): boolean {
    return this.#cluster !== false;
  }

  /** Whether every node takes commands. */
  get ready(): boolean {
    return this.#slots.length > 0 && [...this.#nodes.values()].every(({ client }) => client.status === 'ready');
  }

  /** Reads which node has which slot. Concurrent callers share one read. Never rejects. */
  refresh(): Promise<void> {
    if (this.#cluster === false || this.#stopped) return Promise.resolve();
    return this.#askOnce();
  }

  readonly #askOnce = singleFlight(async () => {
    await this.#ask();
    this.#refreshedMs = this.#clock.monotonicMs();
  });

  stop(): void {
    this.#stopped = true;
    for (const cancel of this.#cancel) cancel();
    for (const node of this.#nodes.values()) node.stop();
    this.removeAllListeners();
  }

  async #ask(): Promise<void> {
    for (const { client } of this.#nodes.values()) {
      if (client.status === 'ready' && (await this.#askOne(client))) return;
    }
    for (const url of this.#urls) {
      if (this.#stopped) return;
      const seed = new Redis(url, { ...REDIS_OPTIONS, retryStrategy: () => null, lazyConnect: true });
      let reason: string | undefined;
      seed.on('error', (error: unknown) => {
        reason = messageOf(error);
      });
      try {
        await seed.connect();
        if (await this.#askOne(seed)) return;
      } catch (error) {
        this.#logOnce(`away ${new URL(url).host}`, () =>
          this.#log.warn(
            { event: 'redis.not_available', redis: new URL(url).host, error: reason ?? messageOf(error) },
            'Redis is not available yet',
          ),
        );
      } finally {
        seed.disconnect();
      }
    }
  }

  async #askOne(client: Redis): Promise<boolean> {
    try {
      const answer = (await client.cluster('SLOTS')) as unknown as [number, number, [string | null, number, ...unknown[]], ...unknown[]][];
      if (this.#stopped) return true;
      this.#cluster = true;
      const slots = new Array<RedisNode | undefined>(SLOTS).fill(undefined);
      const used = new Set<string>();
      for (const [first, last, [host, port]] of answer) {
        // Without a name the address is that of the node that was asked.
        const address = `${!host || host === '?' ? client.options.host : host}:${port}`;
        used.add(address);
        slots.fill(this.#node(address), first, last + 1);
      }
      const moved = slots.some((node, slot) => node !== this.#slots[slot]);
      this.#slots = slots;
      for (const [address, node] of this.#nodes) {
        if (used.has(address)) continue;
        this.#nodes.delete(address);
        node.stop();
      }
      if (moved) this.emit('slots');
      return true;
    } catch (error) {
      if (!/cluster support disabled/i.test(messageOf(error))) return false;
      if (this.#stopped) return true;
      this.#cluster = false;
      if (this.#urls.length > 1) {
        this.#log.error(
          { event: 'redis.not_a_cluster' },
          'REDIS_URL lists several addresses, but the Redis that answered is not a cluster: only it is used',
        );
      }
      this.#slots = [this.#node(`${client.options.host}:${client.options.port}`, client.options)];
      this.emit('slots');
      return true;
    }
  }

  #node(address: string, { path, db }: RedisOptions = {}): RedisNode {
    const known = this.#nodes.get(address);
    if (known) return known;
    const url = new URL(this.#urls[0]!);
    const split = address.lastIndexOf(':');
    const options: RedisOptions = {
      ...REDIS_OPTIONS,
      host: address.slice(0, split),
      port: Number(address.slice(split + 1)),
      ...(path === undefined ? {} : { path }),
      ...(db === undefined ? {} : { db }),
      ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
      ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) }),
      ...(url.protocol === 'rediss:' ? { tls: {} } : {}),
    };
    const client = new Redis(options);
    // The followers subscribe again after a reconnection, and so know which subscriptions were
    // lost.
    const subscriber = new Redis({ ...options, commandTimeout: SUBSCRIBER_SILENCE_MS, socketTimeout: SUBSCRIBER_SILENCE_MS });
    const stopLogging = tellWhenAway(client, this.#log, { redis: address });
    const node = {
      address,
      client,
      subscriber,
      stop: () => {
        stopLogging();
        client.disconnect();
        subscriber.disconnect();
      },
    };
    client.on('ready', () => this.#check(node));
    client.on('close', () => this.refresh());
    subscriber.on('smessage', (channel: string, text: string) => this.emit('message', channel, text));
    for (const change of ['close', 'ready']) subscriber.on(change, () => this.emit('subscriber', node));
    // ioredis reports an answer without a command: the server has told the subscriber that it lost
    // a slot. Which subscriptions remain is unknown then, so the connection is made again.
    subscriber.on('error', (error: Error) => {
      if (!error.message.startsWith('Command queue state error')) return;
      this.refresh();
      subscriber.disconnect(true);
    });
    this.#nodes.set(address, node);
    return node;
  }

  /** Checks the settings that the chat rooms depend on: Redis 7.0 or newer, and no eviction. */
  async #check({ client, address }: RedisNode): Promise<void> {
    const info = await client.info().catch(() => '');
    const version = /redis_version:(\d+)\S*/.exec(info);
    if (version && Number(version[1]) < OLDEST_VERSION) {
      this.#logOnce(`version ${address}`, () =>
        this.#log.error(
          { event: 'redis.too_old', redis: address, version: version[0] },
          'this Redis is too old for the chat, which needs 7.0 or newer',
        ),
      );
    }
    const policy = /maxmemory_policy:(\S+)/.exec(info)?.[1];
    if (policy !== undefined && policy !== 'noeviction') {
      this.#logOnce(`policy ${address}`, () =>
        this.#log.warn(
          { event: 'redis.may_evict', redis: address, policy },
          'Redis may evict unarchived chat messages when its memory is full: set maxmemory-policy noeviction',
        ),
      );
    }
  }

  #logOnce(what: string, tell: () => void): void {
    if (this.#logged.has(what)) return;
    this.#logged.add(what);
    tell();
  }
}

const CRC16 = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc;
});

/**
 * CRC-16/XMODEM of an ASCII text, by which a cluster distributes keys (Redis cluster specification,
 * "Key distribution model").
 */
export function crc16(text: string): number {
  let crc = 0;
  for (let i = 0; i < text.length; i++) crc = ((crc << 8) ^ CRC16[((crc >> 8) ^ text.charCodeAt(i)) & 0xff]!) & 0xffff;
  return crc;
}
