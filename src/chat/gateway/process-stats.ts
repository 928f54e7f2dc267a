import type { UnexpectedCounts } from '../../runtime/unexpected.js';

/**
 * Connections of one process. The rest of its 20,000 file descriptors is for sockets without a
 * connection, for files and for databases.
 */
export const MAX_PROCESS_CONNECTIONS = 19_000;
const SPARE_SOCKETS = 1000;
const MAX_PROCESS_SOCKETS = 19_700;
/**
 * Handshakes with tokens that one core handles per second beside its other work. Reconnects after a
 * drain may take half of it.
 */
const ACCEPTED_PER_S = 2000;
const LEAST_RETRY_MS = 500;
/** The longest time after which clients reconnect when all are sent away at once. */
const MOST_RETRY_MS = 60_000;

/**
 * Sockets open at one time: connections, sockets in their handshake, and sockets that are about to
 * be refused.
 */
export const mostSockets = (maxConnections: number): number => Math.min(maxConnections + SPARE_SOCKETS, MAX_PROCESS_SOCKETS);

/**
 * The time over which this many reconnects are spread, so that they take half of a core's
 * handshakes.
 */
export const retrySpreadMs = (connections: number): number =>
  Math.min(MOST_RETRY_MS, Math.max(LEAST_RETRY_MS, (connections / (ACCEPTED_PER_S / 2)) * 1000));

/** The counts of one process. The primary adds them up. */
export interface ProcessStats {
  readonly connections: number;
  readonly users: number;
  /** This and the following fields only rise. */
  readonly delivered: number;
  readonly skipped: number;
  readonly slowClosed: number;
  readonly turnedAway: number;
  readonly badFrames: number;
  /** Unreadable entries of a damaged log, which were stored as erased. */
  readonly entriesRefused: number;
  /** Published messages that could not be classified or retracted in any attempt. */
  readonly retractionsFailed: number;
  readonly deliveryCounts: readonly number[];
  readonly deliverySumS: number;
  /** Uncaught errors of the process. */
  readonly unexpected: UnexpectedCounts;
}

const NOTHING: ProcessStats = {
  connections: 0,
  users: 0,
  delivered: 0,
  skipped: 0,
  slowClosed: 0,
  turnedAway: 0,
  badFrames: 0,
  entriesRefused: 0,
  retractionsFailed: 0,
  deliveryCounts: [],
  deliverySumS: 0,
  unexpected: { exception: 0, rejection: 0 },
};

/** The sum over processes. A user counts once in each process. */
export function addStats(stats: readonly ProcessStats[]): ProcessStats {
  let sum = NOTHING;
  for (const one of stats) {
    sum = {
      connections: sum.connections + one.connections,
      users: sum.users + one.users,
      delivered: sum.delivered + one.delivered,
      skipped: sum.skipped + one.skipped,
      slowClosed: sum.slowClosed + one.slowClosed,
      turnedAway: sum.turnedAway + one.turnedAway,
      badFrames: sum.badFrames + one.badFrames,
      entriesRefused: sum.entriesRefused + one.entriesRefused,
      retractionsFailed: sum.retractionsFailed + one.retractionsFailed,
      deliveryCounts: added(sum.deliveryCounts, one.deliveryCounts),
      deliverySumS: sum.deliverySumS + one.deliverySumS,
      unexpected: {
        exception: sum.unexpected.exception + one.unexpected.exception,
        rejection: sum.unexpected.rejection + one.unexpected.rejection,
      },
    };
  }
  return sum;
}

/** A process that has just started has no counts yet. */
const added = (one: readonly number[], other: readonly number[]) =>
  Array.from({ length: Math.max(one.length, other.length) }, (_, index) => (one[index] ?? 0) + (other[index] ?? 0));

/** The counts of a process that has ended. Only the counters that rise are kept. */
export const withoutPeople = (stats: ProcessStats): ProcessStats => ({ ...stats, connections: 0, users: 0 });
