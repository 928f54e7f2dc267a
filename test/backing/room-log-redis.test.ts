import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { crc16 } from '../../src/backing/redis/nodes.js';
import { openRedisRoomLog, type RedisRoomLog } from '../../src/backing/room-log/redis.js';
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

test('user and password of the address are for every connection; a wrong one is named in the log, and not shown', async () => {
  const redis = await startRedis();
  after(() => redis.stop());
  await redis.command('acl', 'setuser', 've:za', 'on', '>p@ss/w%rd', '~*', '&*', '+@all');
  await redis.command('acl', 'setuser', 'default', 'off');
  const lines: string[] = [];
  const note = (fields: object, message: string) => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const open = async (credentials: string) => {
    const url = redis.url.replace('//', `//${credentials}@`);
    const log = await openRedisRoomLog({ url, clock: new SystemClock(), log: { ...silentLog, warn: note, error: note } });
    after(() => log.stop());
    return log;
  };
  const log = await open('ve%3Aza:p%40ss%2Fw%25rd');
  const roomId = randomUUID();
  await log.follow(roomId, { onEntry: () => {}, onRestored: () => {} });
  assert.equal(await log.open({ roomId, epoch: 1, head: 0, atMs: 0, entries: [] }), true);
  assert.equal(lines.length, 0, lines.join());

  const refused = await open('ve%3Aza:wr0ng');
  await assert.rejects(refused.read(roomId, 0, 1), { code: 'unavailable' });
  assert.match(lines.join(), /Redis is not available yet.*WRONGPASS/);
  assert.doesNotMatch(lines.join(), /wr0ng/);
});
