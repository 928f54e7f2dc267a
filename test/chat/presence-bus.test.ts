import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Presence } from '../../src/chat/rooms/presence/presence.js';
import { redisPresenceBus } from '../../src/chat/rooms/presence/presence-bus.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { FaultyLine } from '../support/faulty-line.js';
import { eventually } from '../support/process.js';
import { startRedis, startRedisCluster } from '../support/redis.js';

test('in a cluster presence goes on over another node when the one that is first in the list dies', async (t) => {
  const cluster = await startRedisCluster();
  t.after(() => cluster.stop());
  const clock = new SystemClock();
  const processes = [0, 1].map(() => {
    const bus = redisPresenceBus(cluster.url, clock, silentLog);
    const presence = new Presence({ clock, bus: bus.bus });
    t.after(() => {
      presence.stop();
      bus.stop();
    });
    return presence;
  });
  const [one, two] = processes as [Presence, Presence];
  one.enterRoom('r', { id: 'ann', name: 'Ann' });
  await eventually('the other knows', () => two.count('r') === 1 || undefined);
  await cluster.nodes[0]!.kill9();
  one.enterRoom('r', { id: 'bob', name: 'Bob' });
  await eventually('and learns of who comes after', () => two.count('r') === 2 || undefined);
  assert.deepEqual(
    (await two.people('r')).map(({ name }) => name),
    ['Ann', 'Bob'],
  );
});

test('presence is right again when the connection breaks once more while it subscribes', async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const line = await FaultyLine.to({ port: Number(new URL(redis.url).port) });
  t.after(() => line.stop());
  const clock = new SystemClock();
  const [one, two] = [0, 1].map(() => {
    const bus = redisPresenceBus(`redis://127.0.0.1:${line.port}`, clock, silentLog);
    const presence = new Presence({ clock, bus: bus.bus });
    t.after(() => {
      presence.stop();
      bus.stop();
    });
    return presence;
  }) as [Presence, Presence];
  const listen = () =>
    eventually(
      'both listen',
      async () => (await redis.command('pubsub', 'numsub', 'veza:chat:presence')).split('\n')[1] === '2' || undefined,
    );
  // The command is on its way, its answer is on its way, and the answer has come in part.
  const places = [
    ['client', 'subscribe', 0],
    ['client', 'subscribe', 9],
    ['server', 'subscribe', 0],
    ['server', 'subscribe', 9],
  ] as const;
  let people = 0;
  for (const [from, word, after] of places) {
    await listen();
    let breaks = 2;
    line.fault = (piece) => {
      if (piece.from !== from || !piece.bytes.includes(word) || breaks === 0) return undefined;
      breaks--;
      return { kind: 'cut', after };
    };
    line.cutAll();
    await eventually('it broke again', () => breaks === 0 || undefined);
    await listen();
    one.enterRoom('r', { id: `person-${++people}`, name: 'Ann' });
    await eventually('the other learns of who comes after', () => two.count('r') === people || undefined);
  }
});

test('a subscription that Redis refuses is asked for again', async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const clock = new FakeClock();
  await redis.command('acl', 'setuser', 'default', '-subscribe');
  const bus = redisPresenceBus(redis.url, clock, silentLog);
  t.after(() => bus.stop());
  const told: string[] = [];
  bus.bus.onText((text) => told.push(text));
  await eventually('it was refused', async () => (await redis.command('acl', 'log')).includes('subscribe') || undefined);
  await redis.command('acl', 'setuser', 'default', '+subscribe');
  await eventually('it hears', () => {
    clock.advance(1000);
    bus.bus.publish('text');
    return told.length > 0 || undefined;
  });
});
