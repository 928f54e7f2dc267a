import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FIRST, World } from './live-world.js';

/** A show of 12 s whose encoder has been without a processor for the last second. */
async function busyShow(): Promise<World> {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 11_000);
  world.ffmpeg.encodersAreStarved = true;
  await world.send(source, 1000);
  source.end('finished');
  return world;
}

test('an encoder that is slow at the end of a show is waited for while it gives frames, and the recording has all of it', async () => {
  const world = await busyShow();
  let isOver = false;
  void world.live.end('radio', 'test').then(() => {
    isOver = true;
  });
  await world.pass(3000);
  // Some frames every ten seconds, for longer than it was waited for in all before.
  for (let turn = 0; turn < 6; turn += 1) {
    world.ffmpeg.give(20);
    await world.pass(10_000);
    assert.equal(isOver, false);
    assert.equal(world.recordings.length, 0);
  }
  world.ffmpeg.give(100_000);
  await world.pass(2000);
  assert.equal(isOver, true);
  const { from, to, window } = world.recordings[0]!;
  assert.deepEqual([from, window.gaps.size, world.counts.endsLost], [FIRST, 0, 0]);
  assert.equal(to - from + 1, Math.ceil(12_000 / 1920));
});

test('an encoder that gives nothing for fifteen seconds at the end of a show is replaced, and the recording has all of it', async () => {
  const world = await busyShow();
  const ended = world.live.end('radio', 'test');
  await world.pass(14_000);
  assert.equal(world.recordings.length, 0);
  world.ffmpeg.encodersAreStarved = false;
  await world.pass(6000);
  await ended;
  const { from, to, window } = world.recordings[0]!;
  assert.deepEqual([window.gaps.size, world.counts.endsLost, world.counts.encoderRestarts], [0, 0, 1]);
  assert.equal(to - from + 1, Math.ceil(12_000 / 1920));
});

test('when the next one gives nothing for fifteen seconds either, what they have given is kept, and the loss is counted', async () => {
  const world = await busyShow();
  const ended = world.live.end('radio', 'test');
  await world.pass(29_000);
  assert.equal(world.recordings.length, 0);
  await world.pass(5000);
  await ended;
  assert.equal(world.counts.endsLost, 1);
  assert.ok(world.counts.lostS > 0.9 && world.counts.lostS < 3, `${world.counts.lostS} s`);
  assert.ok(world.recordings[0]!.window.gaps.size > 0);
});

test('an encoder that gives a frame now and then is given up after two minutes, and the channel is free for its next show', async () => {
  const world = await busyShow();
  const ended = world.live.end('radio', 'test');
  for (let turn = 0; turn < 13; turn += 1) {
    world.ffmpeg.give(1);
    await world.pass(10_000, 160);
  }
  await ended;
  assert.equal(world.counts.endsLost, 1);
  world.ffmpeg.encodersAreStarved = false;
  const { source } = await world.connect();
  await world.send(source, 3000);
  assert.equal(world.live.status('radio').state, 'live');
});

test('a process that ends waits ten seconds for a slow encoder', async () => {
  const world = await busyShow();
  await world.pass(500);
  let isStopped = false;
  const stopped = world.live.stop().then(() => {
    isStopped = true;
  });
  await world.pass(9000);
  assert.equal(isStopped, false);
  await world.pass(6000);
  await stopped;
  assert.equal(world.counts.endsLost, 1);
});
