import type { Gateway } from '../chat/gateway/gateway.js';
import type { ProcessStats } from '../chat/gateway/process-stats.js';
import { unexpectedCounts } from '../runtime/unexpected.js';

export function statsOf(gateway: Gateway): ProcessStats {
  const { counters, times } = gateway;
  return {
    connections: gateway.connections,
    users: gateway.users,
    delivered: counters.delivered,
    skipped: counters.skipped,
    slowClosed: counters.slowClosed,
    turnedAway: counters.turnedAway,
    badFrames: counters.badFrames,
    deliveryCounts: times.counts,
    deliverySumS: times.sumS,
    unexpected: unexpectedCounts(),
  };
}
