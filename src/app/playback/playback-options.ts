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
  /** How far back `dvr.m3u8` and the MPD reach, seconds. */
  readonly dvrWindowS: number;
  /** Where players of the MPD read the clock; `/time` of the same host unless given. */
  readonly utcTimingUrl?: string;
  /** Requests that may wait at one time, all channels together, in the shares of `Places`; one more gets 503. As many listeners of endless streams beside them. */
  readonly maxWaiting?: number;
  /** Listeners of a channel (an estimate) from which a new one gets 503, unless he has a link; unlimited unless given. */
  readonly maxListenersPerStream?: number;
  /** Who may play what; everybody everything, unless given. */
  readonly admissions?: Admissions;
  /** A channel's name for `icy-name`; the slug unless given. */
  readonly titleOf?: (channel: string) => string;
  /** The client's address; behind a trusted proxy the one that it names. */
  readonly addressOf?: (req: IncomingMessage) => string;
}

/** Rising counts, read by the metrics; `waiting` is what is there now. */
export interface PlaybackCounters {
  requests: number;
  /** Manifests made; less than requests by what the cache saves. */
  renders: number;
  waiting: number;
  /** Waited for 3 target durations in vain. */
  timeouts: number;
  /** Refused for `maxWaiting` or `maxListenersPerStream`. */
  refused: number;
  objectReads: number;
  /** Responses destroyed because the run died under them. */
  aborted: number;
  /** Listeners of `/listen` that read too slowly and were disconnected. */
  slowListeners: number;
}
