import type { IncomingMessage } from 'node:http';
import type { ObjectStore } from '../../backing/object-store/object-store.js';
import type { Edge } from '../../live/edge.js';
import type { Clock } from '../../runtime/clock.js';
import type { Log } from '../../runtime/log.js';
import type { Admissions } from './admission.js';

export interface PlaybackOptions {
  readonly edge: Edge;
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Seconds that `dvr.m3u8` and the MPD reach back. */
  readonly dvrWindowS: number;
  /** Where players of the MPD read the clock. Default: `/time` of the same host. */
  readonly utcTimingUrl?: string;
  /**
   * Most requests that wait at one time, over all channels and shared fairly by `Places`; a further
   * one gets 503. The same number applies to listeners of endless streams.
   */
  readonly maxWaiting?: number;
  /**
   * Estimated listeners of a channel at which a new listener without a link gets 503. Default: no
   * limit.
   */
  readonly maxListenersPerStream?: number;
  /** Decides who may play what. Default: everybody may play everything. */
  readonly admissions?: Admissions;
  /** Returns a channel's name for `icy-name`. Default: the slug. */
  readonly titleOf?: (channel: string) => string;
  /** Returns the client's address; behind a trusted proxy, the one that the proxy names. */
  readonly addressOf?: (req: IncomingMessage) => string;
}

/** Counts that only rise, read by the metrics; only `waiting` is a current number. */
export interface PlaybackCounters {
  requests: number;
  /** Manifests that were rendered; requests that shared one are not in it. */
  renders: number;
  waiting: number;
  /** Requests that waited 3 target durations in vain. */
  timeouts: number;
  /** Requests refused because of `maxWaiting`, `maxListenersPerStream` or too many unread bytes. */
  refused: number;
  objectReads: number;
  /** Responses destroyed because their run ended before the media was finished. */
  aborted: number;
  /** Listeners of `/listen` that were disconnected because they read too slowly. */
  slowListeners: number;
}
