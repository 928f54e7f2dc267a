import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:net';
import { after, describe, test } from 'node:test';
import { openRedisRoomLog } from '../../src/backing/room-log/redis.js';
import type { RoomLog } from '../../src/backing/room-log/room-log.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { EASY, listener, offsetOf, upTo } from '../contract/room-log.js';
import { eventually } from '../support/process.js';
import { startRedis, startRedisCluster } from '../support/redis.js';

const unavailable = { name: 'VezaError', code: 'unavailable' };

async function open(url: string, log: Log = silentLog) {
  const opened = await openRedisRoomLog({ url, clock: new SystemClock(), log });
  after(() => opened.stop());
  return opened;
}

async function begin(log: RoomLog, epoch = 1, head = 0) {
  const roomId = randomUUID();
  assert.equal(await log.open({ roomId, epoch, head, atMs: 0, entries: [] }), true);
  return roomId;
}

const say = (log: RoomLog, roomId: string, key?: string, epoch = 1) =>
  log.append({ roomId, epoch, type: 'msg', payload: '{}', ...(key === undefined ? {} : { key }) });

/** Until the log answers again. */
const answers = <T>(ask: () => Promise<T>) =>
  eventually('the log answers', async () => ({ value: await ask() })).then(({ value }) => value);

describe('the log in a Redis that fails', { timeout: 120_000 }, () => {
  test('killed and started with an old snapshot: head and keys are not taken for true', async () => {
    const redis = await startRedis();
    after(() => redis.stop());
    const log = await open(redis.url);
    const roomId = await begin(log);
    const untouched = await begin(log);
    const follower = listener();
    await log.follow(roomId, follower);
    for (const i of upTo(5)) await say(log, roomId, `k${i}`);
    await redis.command('save');
    for (const i of upTo(9, 6)) await say(log, roomId, `k${i}`);
    await redis.kill9();
    await assert.rejects(say(log, roomId, 'k10'), unavailable);
    await redis.restart();
    assert.match(await redis.command('exists', `{veza-0}:room:${roomId}`), /./, 'it answers');

    assert.deepEqual(await answers(() => say(log, roomId, 'k10')), { kind: 'reopen' });
    assert.equal(await log.read(roomId, 0, 10), undefined);
    assert.deepEqual(await say(log, untouched), { kind: 'reopen' }, 'also where nothing was lost, for who could tell');
    await log.archived(roomId, 1, 5);
    await log.erase(roomId, 1, 1, 'gone', '{}');
    assert.deepEqual(await log.unarchived(0, 10), []);
    assert.equal(await log.open({ roomId, epoch: 1, head: 5, atMs: 0, entries: [] }), false, 'its epoch is used up');

    const entry = (offset: number) => ({ offset, atMs: Date.now(), type: 'msg', payload: '{}', key: `k${offset}` });
    assert.equal(await log.open({ roomId, epoch: 2, head: 7, atMs: 0, entries: upTo(7).map(entry) }), true);
    await follower.until(() => follower.restored() > 0);
    assert.deepEqual(await say(log, roomId, 'k10', 1), { kind: 'reopen' }, 'a process that slept');
    assert.equal((await say(log, roomId, 'k7', 2)).kind, 'duplicate');
    assert.equal(offsetOf(await say(log, roomId, 'k8', 2)), 8);
    await follower.until(() => follower.entries.at(-1)?.offset === 8 && follower.entries.at(-1)?.epoch === 2);
  });

  test('wiped while it runs: reopen', async () => {
    const redis = await startRedis();
    after(() => redis.stop());
    const log = await open(redis.url);
    const roomId = await begin(log);
    await say(log, roomId);
    await redis.command('flushall');
    assert.deepEqual(await say(log, roomId), { kind: 'reopen' });
    assert.equal(await log.read(roomId, 0, 10), undefined);
  });

  test('stalled: the outcome is unknown, and the same key again is one entry', async () => {
    const redis = await startRedis();
    after(() => redis.stop());
    const [log, other] = [await open(redis.url), await open(redis.url)];
    const roomId = await begin(log);
    const follower = listener();
    await other.follow(roomId, follower);
    await say(log, roomId, 'before');
    redis.suspend();
    const keys = upTo(20).map((i) => `k${i}`);
    // All of them while it stands still: these tests would wait for ever otherwise.
    await Promise.all(keys.map((key) => assert.rejects(say(log, roomId, key), unavailable)));
    await assert.rejects(log.read(roomId, 0, 10), unavailable);
    await assert.rejects(log.follow(randomUUID(), listener()), unavailable);
    redis.resume();
    for (const key of keys) offsetOf(await answers(() => say(log, roomId, key)));
    const page = await log.read(roomId, 0, 100);
    assert.equal(page?.head, 21);
    assert.deepEqual(new Set(page?.entries.map(({ key }) => key)), new Set(['before', ...keys]));
    assert.equal((await say(other, roomId, 'k20')).kind, 'duplicate');
  });

  test('links that are cut are made again, with every subscription; what was missed is read', async () => {
    const redis = await startRedis();
    after(() => redis.stop());
    const log = await open(redis.url);
    const roomIds = upTo(10_000).map(() => randomUUID());
    const heard = new Set<string>();
    const restored = new Set<string>();
    let changed = () => {};
    const until = (holds: () => boolean) =>
      new Promise<void>((resolve) => {
        changed = () => {
          if (holds()) resolve();
        };
        changed();
      });
    for (let i = 0; i < roomIds.length; i += 1000) {
      await Promise.all(
        roomIds.slice(i, i + 1000).map(async (roomId) => {
          await log.follow(roomId, {
            onEntry: () => {
              heard.add(roomId);
              changed();
            },
            onRestored: () => {
              restored.add(roomId);
              changed();
            },
          });
          await log.open({ roomId, epoch: 1, head: 0, atMs: 0, entries: [] });
        }),
      );
    }
    const links = async () => (await redis.command('client', 'list', 'type', 'pubsub')).trim().split('\n');
    assert.equal((await links()).length, 1, 'one link for all of them');
    await redis.command('client', 'kill', 'type', 'pubsub');
    await until(() => restored.size === 10_000);
    assert.equal((await links()).length, 1);
    for (let i = 0; i < roomIds.length; i += 1000) await Promise.all(roomIds.slice(i, i + 1000).map((roomId) => say(log, roomId)));
    await until(() => heard.size === 10_000);

    const [roomId] = roomIds as [string];
    const follower = listener();
    await log.follow(roomId, follower);
    await redis.command('client', 'kill', 'type', 'pubsub');
    offsetOf(await say(log, roomId));
    await follower.until(() => follower.restored() === 1);
    const seen = follower.entries.length;
    assert.equal((await log.read(roomId, 1 + seen, 10))?.entries.length, 1 - seen);
    offsetOf(await say(log, roomId));
    await follower.until(() => follower.offsets().includes(3));

    await redis.command('client', 'kill', 'type', 'normal');
    assert.equal(offsetOf(await answers(() => say(log, roomId, 'again'))), 4);
  });

  test('not there at the start: unavailable, and all is well as soon as it is there', async () => {
    const redis = await startRedis();
    after(() => redis.stop());
    await redis.kill9();
    const log = await open(redis.url);
    const roomId = randomUUID();
    const deaf = listener();
    await assert.rejects(say(log, roomId), unavailable);
    await assert.rejects(log.follow(roomId, deaf), unavailable);
    await redis.restart();
    const follower = listener();
    await answers(() => log.follow(roomId, follower));
    await log.open({ roomId, epoch: 1, head: 0, atMs: 0, entries: [] });
    await say(log, roomId);
    await follower.until(() => follower.entries.length === 1);
    assert.equal(deaf.entries.length, 0, 'who was told that it does not follow does not');
  });

  test('a server that takes connections and says nothing is unavailable', async () => {
    const server: Server = createServer(() => {});
    after(() => server.close());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    server.unref();
    const { port } = server.address() as { port: number };
    const log = await open(`redis://127.0.0.1:${port}`);
    await assert.rejects(say(log, randomUUID()), unavailable);
    await log.stop();
    await log.stop();
  });

  test('its memory is full: busy, and nothing is written; eviction is warned of', async () => {
    const redis = await startRedis();
    after(() => redis.stop());
    const log = await open(redis.url);
    const roomId = await begin(log);
    await say(log, roomId);
    await redis.command('config', 'set', 'maxmemory', '1');
    assert.deepEqual(await say(log, roomId, 'k'), { kind: 'busy' });
    assert.equal((await log.read(roomId, 0, 10))?.head, 1);
    await assert.rejects(log.open({ roomId: randomUUID(), epoch: 1, head: 0, atMs: 0, entries: [] }), unavailable);
    await log.erase(roomId, 1, 1, 'gone', '{}');
    await log.archived(roomId, 1, 1);
    const page = await log.read(roomId, 0, 10);
    assert.deepEqual([page?.archived, page?.entries[0]?.type], [1, 'gone'], 'what makes room is possible');
    await redis.command('config', 'set', 'maxmemory', '0');
    assert.equal(offsetOf(await say(log, roomId, 'k')), 2);

    const lines: string[] = [];
    const note = (_: object, message: string) => void lines.push(message);
    const noting: Log = { ...silentLog, warn: note, error: note };
    await open(redis.url, noting);
    assert.equal(lines.length, 0, lines.join());
    await redis.command('config', 'set', 'maxmemory-policy', 'allkeys-lru');
    await open(redis.url, noting);
    await eventually('the warning', () => (lines.some((line) => line.includes('maxmemory-policy noeviction')) ? true : undefined));
  });

  test('everything in it has an end, once it is archived', async () => {
    const redis = await startRedis();
    after(() => redis.stop());
    const log = await open(redis.url);
    const roomId = await begin(log);
    const rules = { ...EASY, uniqueHash: 'h', slowMs: 5000 };
    await log.append({ roomId, epoch: 1, type: 'msg', payload: '{}', key: 'k', rules });
    await say(log, roomId);
    await say(log, roomId);
    const endless = async () => {
      const keys = (await redis.command('keys', '*')).trim().split('\n');
      const ends = await Promise.all(keys.map(async (key) => [key, Number(await redis.command('ttl', key))] as const));
      return ends.filter(([, ttl]) => ttl < 0).map(([key]) => key.replace(/.*:/, ''));
    };
    await log.archived(roomId, 1, [3, 2]);
    assert.deepEqual((await endless()).sort(), ['a', 'log', roomId, 'waiting'].sort(), 'what waits is kept');
    await log.archived(roomId, 1, [1]);
    assert.deepEqual(await endless(), []);
    await say(log, roomId);
    assert.deepEqual((await endless()).sort(), ['log', roomId, 'waiting'].sort());
    await log.remove(roomId);
    assert.deepEqual(await endless(), []);
  });
});

describe('the log in a Redis cluster that fails', { timeout: 180_000 }, () => {
  const slotOf = async (cluster: Awaited<ReturnType<typeof startRedisCluster>>, roomId: string) => {
    for (const node of cluster.nodes) {
      const name = (await node.command('keys', `*:room:${roomId}`)).split('\n')[0];
      if (name) return { name, slot: Number(await node.command('cluster', 'keyslot', name)) };
    }
    throw new Error(`no node has room ${roomId}`);
  };

  test('rooms are spread over the masters; a master dies, its replica takes over, and followers go on', async () => {
    const cluster = await startRedisCluster({ replicas: 1 });
    after(() => cluster.stop());
    const [log, other] = [await open(cluster.url), await open(cluster.url)];
    const rooms = await Promise.all(
      upTo(60).map(async () => {
        const roomId = await begin(log);
        const follower = listener();
        await other.follow(roomId, follower);
        await say(log, roomId, 'first');
        return { roomId, follower };
      }),
    );
    for (const node of cluster.nodes.slice(0, 3)) assert.notEqual(await node.command('keys', '*:room:*'), '', 'each has some');
    const { slot } = await slotOf(cluster, rooms[0]!.roomId);
    const dead = await cluster.masterOf(slot);
    const lost = new Set<string>();
    for (const { roomId } of rooms) if ((await cluster.masterOf((await slotOf(cluster, roomId)).slot)) === dead) lost.add(roomId);
    assert.ok(lost.size > 0 && lost.size < 60);
    await dead.kill9();

    for (const { roomId, follower } of rooms) {
      const outcome = await answers(() => say(log, roomId, 'second'));
      if (lost.has(roomId)) {
        assert.deepEqual(outcome, { kind: 'reopen' }, 'a replica may lack the end');
        assert.equal(await log.open({ roomId, epoch: 2, head: 0, atMs: 0, entries: [] }), true);
        await follower.until(() => follower.restored() > 0);
        offsetOf(await say(log, roomId, 'second', 2));
        await follower.until(() => follower.entries.at(-1)?.epoch === 2);
      } else {
        assert.equal(offsetOf(outcome), 2, 'where no master died nothing is lost');
        await follower.until(() => follower.entries.length === 2);
        assert.equal(follower.restored(), 0);
      }
    }
  });

  test('a slot moves to another master', async () => {
    const cluster = await startRedisCluster();
    after(() => cluster.stop());
    const [log, other] = [await open(cluster.url), await open(cluster.url)];
    const roomId = await begin(log);
    const follower = listener();
    await other.follow(roomId, follower);
    await say(log, roomId, 'k1');
    const { slot } = await slotOf(cluster, roomId);
    const from = await cluster.masterOf(slot);
    const to = cluster.nodes.find((node) => node !== from)!;
    await to.command('cluster', 'setslot', String(slot), 'importing', from.id);
    await from.command('cluster', 'setslot', String(slot), 'migrating', to.id);
    const keys = (await from.command('cluster', 'getkeysinslot', String(slot), '1000')).split('\n');
    await from.command('migrate', '127.0.0.1', String(to.port), '', '0', '5000', 'keys', ...keys);
    for (const node of [to, from, ...cluster.nodes.filter((node) => node !== to && node !== from)])
      await node.command('cluster', 'setslot', String(slot), 'node', to.id);

    assert.deepEqual(await answers(() => say(log, roomId, 'k2')), { kind: 'reopen' });
    assert.equal(await log.open({ roomId, epoch: 2, head: 1, atMs: 0, entries: [] }), true);
    await follower.until(() => follower.restored() > 0);
    assert.equal(offsetOf(await say(log, roomId, 'k2', 2)), 2);
    // The link may be made again once more, and what is said meanwhile is read and not told.
    await eventually('it is told again', async () => {
      await say(log, roomId, undefined, 2);
      return follower.entries.at(-1)?.epoch === 2 ? true : undefined;
    });
    const third = listener();
    await other.follow(roomId, third);
    assert.equal((await say(other, roomId, 'k3', 2)).kind, 'appended');
    await third.until(() => third.entries.at(-1)?.key === 'k3');
  });
});
