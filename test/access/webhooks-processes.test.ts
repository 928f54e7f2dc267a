import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Database, openDatabase } from '../../src/backing/database/database.js';
import { silentLog } from '../../src/runtime/log.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { ON_AIR, Receiver, World } from './webhook-support.js';

let postgres: TestDatabase;
let databases: Database[];
before(async () => {
  postgres = await createTestDatabase();
  databases = [];
  for (let i = 0; i < 3; i++)
    databases.push(await openDatabase({ url: postgres.url, dataDir: '', poolSize: 8, timeoutMs: 20_000, log: silentLog }));
});
after(async () => {
  for (const database of databases) await database.stop();
  await postgres.drop();
});

test('three processes at one database: each delivery once, each channel in order', async () => {
  const world = new World(databases[0]!);
  const receiver = await Receiver.open();
  // Long enough that another process would find it, were it not claimed.
  receiver.answer = (res) => void setTimeout(() => res.writeHead(204).end(), 3);
  const processes = await Promise.all(databases.map((database) => world.process({ database })));
  const channels = await Promise.all(Array.from({ length: 12 }, () => world.channel()));
  await processes[0]!.create(undefined, { url: receiver.url(), events: ['channel.on_air'] }, { id: 'me' });
  const SHOWS = 15;
  for (let show = 0; show < SHOWS; show++) {
    await Promise.all(
      channels.map((channel, index) =>
        processes[index % processes.length]!.emit('channel.on_air', channel, { ...ON_AIR, broadcastId: `b${show}` }),
      ),
    );
  }
  const all = channels.length * SHOWS;
  for (let turn = 0; receiver.received.length < all; turn++) {
    assert.ok(turn < 1000, `${receiver.received.length} of ${all}`);
    await world.pass(5000);
  }
  await world.pass(120_000);
  assert.equal(receiver.received.length, all);
  assert.equal(new Set(receiver.ids()).size, all);
  const bodies = receiver.received.map(({ body }) => JSON.parse(body));
  const inOrder = Array.from({ length: SHOWS }, (_, show) => `b${show}`);
  for (const { slug } of channels) {
    assert.deepEqual(
      bodies.filter(({ channel }) => channel.slug === slug).map(({ data }) => data.broadcastId),
      inOrder,
      slug,
    );
  }
  const taken = processes.map(({ counts }) => counts.taken);
  assert.equal(
    taken.reduce((sum, count) => sum + count, 0),
    all,
  );
  assert.ok(taken.filter((count) => count > 0).length > 1, `one process did it all: ${taken.join()}`);
  await receiver.close();
  await world.end();
});

test('webhooks made at the same moment are still no more than allowed', async () => {
  const world = new World(databases[0]!);
  const processes = await Promise.all(databases.map((database) => world.process({ database })));
  const channel = await world.channel();
  const made = await Promise.allSettled(
    Array.from({ length: 30 }, (_, index) =>
      processes[index % processes.length]!.create(channel.id, { url: 'http://127.0.0.1:8080/', events: ['channel.on_air'] }, { id: 'me' }),
    ),
  );
  assert.equal(made.filter(({ status }) => status === 'fulfilled').length, 20);
  await world.end();
});
