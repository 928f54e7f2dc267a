import type { Gateway } from '../chat/gateway/gateway.js';
import type { ProcessStats } from '../chat/gateway/process-stats.js';
import { unexpectedCounts } from '../runtime/unexpected.js';
import type { ChatRooms } from './chat-service.js';

export function statsOf(gateway: Gateway, chat: ChatRooms): ProcessStats {
  const { counters, times } = gateway;
  return {
    connections: gateway.connections,
    users: gateway.users,
    delivered: counters.delivered,
    skipped: counters.skipped,
    slowClosed: counters.slowClosed,
    turnedAway: counters.turnedAway,
    badFrames: counters.badFrames,
    entriesRefused: chat.rooms.stats.refused,
    retractionsFailed: chat.retractionsFailed,
    deliveryCounts: times.counts,
    deliverySumS: times.sumS,
    unexpected: unexpectedCounts(),
  };
}
