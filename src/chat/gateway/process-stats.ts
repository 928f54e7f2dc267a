import type { UnexpectedCounts } from '../../runtime/unexpected.js';

/** What one process holds: of 20,000 descriptors some are for other things. */
export const MAX_PROCESS_CONNECTIONS = 19_000;
const SPARE_SOCKETS = 1000;
const MAX_PROCESS_SOCKETS = 19_700;
/** So many handshakes with tokens a second a core does beside its work; half of it is for those who come back. */
const ACCEPTED_PER_S = 2000;
const LEAST_RETRY_MS = 500;
/** Of those who are sent away at once, so long at most. */
const MOST_RETRY_MS = 60_000;

/** Sockets open at once, with those in the midst of their handshake or about to be told that it is full. */
export const mostSockets = (maxConnections: number): number => Math.min(maxConnections + SPARE_SOCKETS, MAX_PROCESS_SOCKETS);

/** Within this time so many come back without more than half of what accepting can take. */
export const retrySpreadMs = (connections: number): number =>
  Math.min(MOST_RETRY_MS, Math.max(LEAST_RETRY_MS, (connections / (ACCEPTED_PER_S / 2)) * 1000));

/** What a process counts; can be sent and added up. */
export interface ProcessStats {
  readonly connections: number;
  readonly users: number;
  /** Rising from here on. */
  readonly delivered: number;
  readonly skipped: number;
  readonly slowClosed: number;
  readonly turnedAway: number;
  readonly badFrames: number;
  /** Entries of a damaged log whose place is stored as erased. */
  readonly entriesRefused: number;
  /** Published messages that could not be judged, or not be taken back, for good. */
  readonly retractionsFailed: number;
  readonly deliveryCounts: readonly number[];
  readonly deliverySumS: number;
  /** Errors that nobody took in it. */
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

/** Of processes that are there; of those that are gone what rises. Users are counted in each process. */
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

/** One that has just begun has none. */
const added = (one: readonly number[], other: readonly number[]) =>
  Array.from({ length: Math.max(one.length, other.length) }, (_, index) => (one[index] ?? 0) + (other[index] ?? 0));

/** A process that is gone: what it has counted stays. */
export const withoutPeople = (stats: ProcessStats): ProcessStats => ({ ...stats, connections: 0, users: 0 });
