import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BoundedMap, BoundedSet } from '../../src/runtime/bounded-map.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { Loop } from '../../src/runtime/loop.js';
import { singleFlight } from '../../src/runtime/shared-work.js';
import { rejectLate, sleep, withDeadline } from '../../src/runtime/waiting.js';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Work that the test ends by hand, and how often it was begun. */
function handWork() {
  const begun: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const work = () => new Promise<void>((resolve, reject) => begun.push({ resolve, reject }));
  return { begun, work };
}

test('sleep resolves after its time and not before', async () => {
  const clock = new FakeClock();
  let isAwake = false;
  const slept = sleep(clock, 100).then(() => {
    isAwake = true;
  });
  clock.advance(99);
  await turn();
  assert.equal(isAwake, false);
  clock.advance(1);
  await slept;
});

test('work in time gives its own answer, and its timer is gone', async () => {
  const clock = new FakeClock();
  let lateCalls = 0;
  const late = () => {
    lateCalls++;
  };
  assert.equal(await withDeadline(clock, 100, Promise.resolve(7), late), 7);
  await assert.rejects(withDeadline(clock, 100, Promise.reject(new Error('broken')), late), /^Error: broken$/);
  clock.advance(1000);
  await turn();
  assert.equal(lateCalls, 0);
});

test('work that is done when the deadline comes is not late', async () => {
  const clock = new FakeClock();
  const answer = withDeadline(clock, 100, Promise.resolve('done'), () => 'late');
  clock.advance(100);
  assert.equal(await answer, 'done');
});

test('late work gives what onLate returns or throws, and its own failure is dropped', async () => {
  const clock = new FakeClock();
  const { begun, work } = handWork();
  const answers = [
    withDeadline(clock, 100, work(), () => 'late'),
    withDeadline(clock, 100, work(), rejectLate('the disk took longer than 100 ms')),
  ];
  clock.advance(100);
  assert.equal(await answers[0], 'late');
  await assert.rejects(answers[1]!, /the disk took longer than 100 ms/);
  for (const one of begun) one.reject(new Error('after the deadline'));
  await turn();
});

test('calls while work is under way share it; the next call begins it again', async () => {
  const { begun, work } = handWork();
  const run = singleFlight(work);
  const both = [run(), run()];
  assert.equal(both[0], both[1]);
  begun[0]!.reject(new Error('away'));
  await Promise.allSettled(both);
  const third = run();
  assert.equal(begun.length, 2);
  begun[1]!.resolve();
  await third;
});

test('a loop runs every period, never twice at once, and goes on after a failure', async () => {
  const clock = new FakeClock();
  const { begun, work } = handWork();
  const errors: unknown[] = [];
  const loop = new Loop({ clock, periodMs: 10, task: work, onError: (error) => errors.push(error) });
  loop.start();
  loop.start();
  clock.advance(9);
  assert.equal(begun.length, 0);
  clock.advance(21);
  assert.equal(begun.length, 1, 'two turns were left out while the first run was under way');
  begun[0]!.reject(new Error('once'));
  await turn();
  assert.equal(errors.length, 1);
  clock.advance(10);
  assert.equal(begun.length, 2);
  const joined = loop.run();
  assert.equal(begun.length, 2, 'run joins the run that is under way');
  begun[1]!.resolve();
  await joined;
  await loop.stop();
});

test('stop waits for the run that is under way, whatever becomes of it, and begins no other', async () => {
  const clock = new FakeClock();
  const { begun, work } = handWork();
  const loop = new Loop({ clock, periodMs: 10, task: work, onError: () => undefined });
  loop.start();
  clock.advance(10);
  let isStopped = false;
  const stopped = loop.stop().then(() => {
    isStopped = true;
  });
  await turn();
  assert.equal(isStopped, false);
  begun[0]!.reject(new Error('at the end'));
  await stopped;
  clock.advance(100);
  assert.equal(begun.length, 1);
  await loop.stop();
});

test('a bounded map lets the oldest go, and setting or using a key makes it the newest', () => {
  const map = new BoundedMap<string, number>(2);
  map.set('a', 1).set('b', 2).set('a', 3).set('c', 4);
  assert.deepEqual(
    [...map],
    [
      ['a', 3],
      ['c', 4],
    ],
  );
  assert.equal(map.use('a'), 3);
  map.set('d', 5);
  assert.deepEqual([...map.keys()], ['a', 'd']);
  assert.equal(map.use('nothing'), undefined);
  assert.equal(map.size, 2);
});

test('a bounded set lets the oldest go', () => {
  const set = new BoundedSet<string>(2);
  set.add('a').add('b').add('a').add('c');
  assert.deepEqual([...set], ['a', 'c']);
});
