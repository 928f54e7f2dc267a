import { openRedisRoomLog, type RedisRoomLog } from '../../src/backing/room-log-redis.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { roomLogContract } from '../contract/room-log.js';
import { startRedis } from '../support/redis.js';

roomLogContract('Redis', async () => {
  const redis = await startRedis();
  const opened: RedisRoomLog[] = [];
  let shiftMs = 0;
  return {
    open: async () => {
      const log = await openRedisRoomLog({ url: redis.url, clock: new SystemClock(), log: silentLog, shiftMs: () => shiftMs });
      opened.push(log);
      return log;
    },
    passTime: (ms) => {
      shiftMs += ms;
    },
    stop: async () => {
      for (const log of opened) await log.stop();
      await redis.stop();
    },
  };
});
