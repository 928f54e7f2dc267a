import type { Clock } from '../../runtime/clock.js';
import { messageOf } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { RedisNode, RedisNodes } from '../redis/nodes.js';
import { type Following, type LogEntry, logUnavailable, type RoomLogFollower } from './room-log.js';

/** `follow` rejects with `unavailable` after this long without a subscription. */
const FOLLOW_MS = 1000;
/** The period at which failed subscriptions are tried again. */
const RETRY_MS = 500;
/** Channels per SSUBSCRIBE command, at most. All of them are in one slot. */
const BATCH = 500;

interface Listener {
  readonly follower: RoomLogFollower;
  /** Resolves `follow`; undefined after the first subscription. */
  begin: (() => void) | undefined;
}

interface FollowedChannel {
  readonly channel: string;
  readonly slot: number;
  readonly listeners: Set<Listener>;
  /** The node with the subscription, or the node that is asked for it. */
  node: RedisNode | undefined;
  /** off → asked (the command was sent) → on. Back to off when the link or the slot is lost. */
  state: 'off' | 'asked' | 'on';
  /** Number of subscribe commands for this channel. The answer to an earlier command is ignored. */
  asked: number;
}

/**
 * Follows sharded channels. Each channel is subscribed once, however many follow it, on one
 * connection per node, and again after every loss.
 */
export class RoomFollowers {
  readonly #nodes: RedisNodes;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #parse: (text: string) => { epoch: number; entry: LogEntry };
  readonly #followed = new Map<string, FollowedChannel>();
  readonly #off = new Set<FollowedChannel>();
  readonly #cancel: () => void;
  #pumping = false;

  constructor(options: {
    nodes: RedisNodes;
    clock: Clock;
    log: Log;
    parse: (text: string) => { epoch: number; entry: LogEntry };
  }) {
    this.#nodes = options.nodes;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#parse = options.parse;
    this.#nodes.on('message', (channel, text) => this.#deliver(channel, text));
    this.#nodes.on('subscriber', (node) => this.#turnOff((followed) => followed.node === node));
    this.#nodes.on('slots', () => this.#turnOff((followed) => followed.node !== this.#nodes.of(followed.slot)));
    this.#cancel = this.#clock.every(RETRY_MS, () => this.#pump());
  }

  follow(channel: string, slot: number, follower: RoomLogFollower): Promise<Following> {
    let followed = this.#followed.get(channel);
    if (!followed) {
      followed = { channel, slot, listeners: new Set(), node: undefined, state: 'off', asked: 0 };
      this.#followed.set(channel, followed);
      this.#off.add(followed);
      this.#pumpSoon();
    }
    const to = followed;
    return new Promise((resolve, reject) => {
      const listener: Listener = { follower, begin: undefined };
      const following = { stop: () => this.#leave(to, listener) };
      to.listeners.add(listener);
      if (to.state === 'on') return resolve(following);
      const cancel = this.#clock.after(FOLLOW_MS, () =>
        // `setImmediate`: an answer that has already arrived is handled first, if this process was
        // too busy to read it.
        setImmediate(() => {
          if (!listener.begin) return;
          following.stop();
          reject(logUnavailable('no subscription'));
        }),
      );
      listener.begin = () => {
        cancel();
        resolve(following);
      };
    });
  }

  stop(): void {
    this.#cancel();
    this.#followed.clear();
    this.#off.clear();
  }

  #leave(followed: FollowedChannel, listener: Listener): void {
    if (!followed.listeners.delete(listener) || followed.listeners.size > 0) return;
    if (this.#followed.get(followed.channel) === followed) this.#followed.delete(followed.channel);
    this.#off.delete(followed);
    if (followed.state !== 'off') followed.node?.subscriber.sunsubscribe(followed.channel).catch(() => undefined);
    followed.state = 'off';
  }

  #turnOff(lost: (followed: FollowedChannel) => boolean): void {
    for (const followed of this.#followed.values()) {
      if (followed.state === 'off' || !lost(followed)) continue;
      // This fails when the link or the node is gone, and then it is not needed.
      followed.node?.subscriber.sunsubscribe(followed.channel).catch(() => undefined);
      followed.state = 'off';
      this.#off.add(followed);
    }
    this.#pumpSoon();
  }

  /** Runs once for all changes of this turn of the event loop. */
  #pumpSoon(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    setImmediate(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  #pump(): void {
    const batches = new Map<number, FollowedChannel[]>();
    for (const followed of this.#off) {
      const node = this.#nodes.of(followed.slot);
      if (node?.subscriber.status !== 'ready') continue;
      followed.node = node;
      followed.state = 'asked';
      followed.asked++;
      this.#off.delete(followed);
      const batch = batches.get(followed.slot) ?? [];
      batches.set(followed.slot, batch);
      batch.push(followed);
    }
    for (const batch of batches.values()) {
      for (let i = 0; i < batch.length; i += BATCH) this.#subscribe(batch[0]!.node!, batch.slice(i, i + BATCH));
    }
  }

  async #subscribe(node: RedisNode, batch: readonly FollowedChannel[]): Promise<void> {
    const asked = new Map(batch.map((followed) => [followed, followed.asked]));
    const still = (followed: FollowedChannel) => followed.state === 'asked' && followed.asked === asked.get(followed);
    try {
      await node.subscriber.ssubscribe(...batch.map(({ channel }) => channel));
    } catch (error) {
      if (/^(MOVED|CLUSTERDOWN)/.test(messageOf(error))) this.#nodes.refresh();
      for (const followed of batch) {
        if (!still(followed) || this.#followed.get(followed.channel) !== followed) continue;
        followed.state = 'off';
        this.#off.add(followed);
      }
      return;
    }
    for (const followed of batch) {
      if (!still(followed)) continue;
      followed.state = 'on';
      for (const listener of followed.listeners) {
        const { begin, follower } = listener;
        listener.begin = undefined;
        if (begin) begin();
        else this.#guard(followed.channel, () => follower.onRestored());
      }
    }
  }

  #deliver(channel: string, text: string): void {
    const followed = this.#followed.get(channel);
    if (!followed) return;
    this.#guard(channel, () => {
      const { epoch, entry } = this.#parse(text);
      for (const { follower } of followed.listeners) this.#guard(channel, () => follower.onEntry(epoch, entry));
    });
  }

  /** A follower's exception must not look like an error of the connection. */
  #guard(channel: string, task: () => void): void {
    try {
      task();
    } catch (error) {
      this.#log.error({ event: 'room_log.follower_failed', channel, error: messageOf(error) }, 'a subscriber of a room log failed');
    }
  }
}
