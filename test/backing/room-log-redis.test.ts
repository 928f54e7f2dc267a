import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc16 } from '../../src/backing/redis-nodes.js';
import { openRedisRoomLog, type RedisRoomLog } from '../../src/backing/room-log-redis.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { roomLogContract } from '../contract/room-log.js';
import { startRedis, startRedisCluster } from '../support/redis.js';

const worldOn = (start: () => Promise<{ url: string; stop(): Promise<void> }>) => async () => {
  const redis = await start();
  const opened: RedisRoomLog[] = [];
  let shiftMs = 0;
  return {
    open: async () => {
      const log = await openRedisRoomLog({ url: redis.url, clock: new SystemClock(), log: silentLog, shiftMs: () => shiftMs });
      opened.push(log);
      return log;
    },
    passTime: (ms: number) => {
      shiftMs += ms;
    },
    stop: async () => {
      for (const log of opened) await log.stop();
      await redis.stop();
    },
  };
};

roomLogContract('Redis', worldOn(startRedis));
roomLogContract('Redis cluster', worldOn(startRedisCluster));

test('slots are counted as a cluster does', () => {
  // The check value of CRC-16/XMODEM.
  assert.equal(crc16('123456789'), 0x31c3);
});
