import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Presence } from '../../src/chat/presence.js';
import { redisBus } from '../../src/chat-service.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { eventually } from '../support/process.js';
import { startRedisCluster } from '../support/redis.js';

test('in a cluster presence goes on over another node when the one that is first in the list dies', async (t) => {
  const cluster = await startRedisCluster();
  t.after(() => cluster.stop());
  const clock = new SystemClock();
  const processes = [0, 1].map(() => {
    const bus = redisBus(cluster.url, silentLog);
    const presence = new Presence({ clock, bus: bus.bus });
    t.after(() => {
      presence.stop();
      bus.stop();
    });
    return presence;
  });
  const [one, two] = processes as [Presence, Presence];
  one.enter('r', { id: 'ann', name: 'Ann' });
  await eventually('the other knows', () => two.count('r') === 1 || undefined);
  await cluster.nodes[0]!.kill9();
  one.enter('r', { id: 'bob', name: 'Bob' });
  await eventually('and learns of who comes after', () => two.count('r') === 2 || undefined);
  assert.deepEqual(
    (await two.people('r')).map(({ name }) => name),
    ['Ann', 'Bob'],
  );
});
