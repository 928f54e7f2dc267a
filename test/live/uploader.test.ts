import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ObjectStore } from '../../src/backing/object-store/object-store.js';
import { Uploader } from '../../src/live/uploader.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { unexpectedIn } from '../support/unexpected.js';

/** A store that takes, refuses or never answers. */
class Store implements Pick<ObjectStore, 'put'> {
  mode: 'takes' | 'refuses' | 'hangs' = 'takes';
  readonly kept: string[] = [];
  attempts = 0;

  async put(key: string): Promise<void> {
    this.attempts += 1;
    if (this.mode === 'hangs') await new Promise(() => undefined);
    if (this.mode === 'refuses') throw new Error('no space left');
    this.kept.push(key);
  }
}

function make(maxBytes?: number) {
  const store = new Store();
  const clock = new FakeClock();
  const counts = { lost: 0, backlog: 0 };
  const metrics = {
    segmentUploadSeconds: () => undefined,
    segmentUploadBacklog: (count: number) => {
      counts.backlog = count;
    },
    segmentLost: () => {
      counts.lost += 1;
    },
  };
  const options = { store: store as unknown as ObjectStore, clock, log: silentLog, metrics };
  return { store, clock, counts, uploader: new Uploader(maxBytes === undefined ? options : { ...options, maxBytes }) };
}

/** Lets promises settle. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

test('what the store refuses is tried again, slower and slower, and none is lost', async () => {
  const { store, clock, counts, uploader } = make();
  store.mode = 'refuses';
  for (let index = 0; index < 20; index += 1) uploader.put(`s${index}`, Buffer.alloc(10), 'audio/mp4');
  await settle();
  for (let second = 0; second < 120; second += 1) {
    clock.advance(1000);
    await settle();
  }
  assert.equal(counts.backlog, 20);
  assert.ok(store.attempts < 40, `${store.attempts} attempts in two minutes`);
  store.mode = 'takes';
  const drained = uploader.drained();
  clock.advance(10_000);
  await drained;
  assert.deepEqual([...store.kept].sort(), Array.from({ length: 20 }, (_, index) => `s${index}`).sort());
  assert.equal(counts.lost, 0);
});

test('above its bound the oldest is given up, by name', async () => {
  const { store, counts, uploader } = make(1000);
  store.mode = 'refuses';
  const lost: string[] = [];
  for (let index = 0; index < 30; index += 1) {
    uploader.put(`s${index}`, Buffer.alloc(100), 'audio/mp4', undefined, () => lost.push(`s${index}`));
    await settle();
  }
  assert.equal(counts.lost, 20);
  assert.deepEqual(
    lost,
    Array.from({ length: 20 }, (_, index) => `s${index}`),
  );
});

test('a store that never answers counts as one that refuses', async () => {
  const { store, clock, counts, uploader } = make();
  store.mode = 'hangs';
  uploader.put('s', Buffer.alloc(10), 'audio/mp4');
  await settle();
  store.mode = 'takes';
  clock.advance(30_000);
  await settle();
  clock.advance(500);
  await uploader.drained();
  assert.deepEqual(store.kept, ['s']);
  assert.equal(counts.lost, 0);
});

test('whoever is told that a segment is stored, and fails, has it stored once; the others do not wait behind it', async (t) => {
  const errors = unexpectedIn(t);
  const { store, clock, counts, uploader } = make();
  uploader.put('s0', Buffer.alloc(10), 'audio/mp4', () => {
    throw new Error('a defect');
  });
  uploader.put('s1', Buffer.alloc(10), 'audio/mp4');
  await settle();
  clock.advance(60_000);
  await settle();
  assert.deepEqual(store.kept, ['s0', 's1']);
  assert.deepEqual([counts.backlog, errors.length], [0, 1]);
  await uploader.check();
});
