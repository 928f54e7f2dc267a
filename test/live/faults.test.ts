import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unexpectedIn } from '../support/unexpected.js';
import { FIRST, World } from './live-world.js';

test('a title that comes before the first sound is shown with it', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  source.title({ title: 'Opening' });
  await world.send(source, 3000);
  assert.equal(world.live.status('radio').nowPlaying?.title, 'Opening');
});

test('no decoder outlives the show that it was started for', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 5000);
  await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
  assert.deepEqual(
    world.ffmpeg.decoders.map(({ dead }) => dead),
    [true],
  );
  await world.connect();
  await world.live.end('radio', 'before it was heard');
  assert.ok(world.ffmpeg.decoders.every(({ dead }) => dead));
});

test('connections that are never heard do not hold a show for longer than the reconnect window', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 5000);
  source.end('lost');
  await world.pass(20_000);
  for (let attempt = 0; attempt < 4; attempt += 1) {
    const { source } = await world.connect();
    source.write(Buffer.alloc(2));
    world.ffmpeg.decoders.at(-1)?.crash();
    await world.pass(11_000);
  }
  assert.equal(world.live.status('radio').state, 'offline');
});

test('a registry that does not answer does not keep a show from ending, nor the next from beginning', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 5000);
  world.disk.registry.save = () => new Promise(() => undefined);
  await Promise.all([world.live.end('radio', 'test'), world.pass(8000)]);
  assert.equal(world.view().timeline.ended, true);
  const { source: next } = await world.connect();
  await world.send(next, 5000);
  assert.equal(world.live.status('radio').state, 'live');
});

test('a recording is cut where every rendition is complete', async () => {
  const world = new World(undefined, undefined, { recordingMaxH: 0.02 });
  const finished: boolean[] = [];
  world.onRecordingEnded = ({ window, to }) => {
    finished.push(Object.values(window.progress).every((progress) => progress.openNumber > to));
  };
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 160_000);
  assert.deepEqual(finished, [true, true]);
});

test('runs that end before their first segment leave no trace: one discontinuity, one step of its number', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 7000);
  for (let failure = 0; failure < 3; failure += 1) {
    world.clock.sleep(60_000);
    await world.send(source, 60);
  }
  await world.send(source, 6000);
  const { runs } = world.view().timeline;
  assert.deepEqual(
    runs.map(({ discontinuity }) => discontinuity),
    [0, 1],
  );
  assert.ok((runs[1]?.firstNumber ?? 0) > FIRST);
});

test('a show whose encoder is 30 s behind for a while is one run without a gap; one that is never served is given up at 120 s, and counted', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 3000);
  world.ffmpeg.encodersAreStarved = true;
  for (let second = 0; second < 33; second += 1) {
    await world.send(source, 1000);
    world.ffmpeg.give(10);
  }
  world.ffmpeg.give(100_000);
  await world.settle();
  assert.deepEqual([world.ffmpeg.encoders.length, world.counts.encoderLags, world.counts.lostS], [1, 1, 0]);
  assert.deepEqual([world.view().timeline.runs.length, world.view().timeline.gaps.size], [1, 0]);
  assert.equal(world.view().timeline.progress.aac?.openNumber, FIRST + Math.floor(36_000 / 1920));
  await world.send(source, 125_000);
  assert.equal(world.view().timeline.runs.length, 2);
  assert.ok(world.counts.lostS > 120 && world.counts.lostS < 122, `${world.counts.lostS} s`);
});

test('MAX_STREAMS holds for publishers that were let in at the same moment', async () => {
  const world = new World();
  await world.live.start();
  const admissions = await Promise.all(
    ['key', 'key-2', 'key-3'].map((streamKey) =>
      world.live.admit({ protocol: 'rtmp', channel: undefined, streamKey, remoteAddress: '127.0.0.1', client: 'obs' }),
    ),
  );
  const open = () => admissions.map((admission) => admission.open('adts', { onDrain: () => undefined, onClose: () => undefined }));
  assert.throws(open, { code: 'busy' });
  assert.equal(world.live.streams, 2);
});

test('a machine whose clock was behind when it started does not put a run before the one that it follows', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 10_000);
  for (const backMs of [2000, 3_600_000]) {
    const next = world.after(-backMs);
    await next.live.start();
    const { runs, ended } = next.view().timeline;
    for (const run of runs) assert.ok(run.startWallMs >= (runs[0]?.startWallMs ?? 0) + (run.firstNumber - FIRST) * 1920 - 1920);
    assert.equal(ended, backMs > 60_000);
  }
});

test('what waited for the store for minutes when the process died is a gap, too', async () => {
  const world = new World();
  const { put } = world.disk.store;
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 10_000);
  world.disk.store.put = () => Promise.reject(new Error('away'));
  await world.send(source, 60_000);
  world.disk.store.put = put;
  const next = world.after(1000);
  await next.live.start();
  const { gaps } = next.view().timeline;
  assert.ok(gaps.has(FIRST + 6) && gaps.has(FIRST + 20), `gaps: ${[...gaps]}`);
  assert.ok(!gaps.has(FIRST + 3));
});

test('killed after the end of a show and before its recording was written: the next process brings it again, until it is', async () => {
  const world = new World();
  world.written = new Promise(() => undefined);
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 10_000);
  await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
  const [recording] = world.recordings;
  assert.ok(recording);

  const next = world.after(1000);
  await next.live.start();
  await next.settle();
  assert.equal(next.live.knows(recording.assetId), true);
  assert.equal(next.live.status('radio').state, 'offline');
  assert.deepEqual(
    next.recordings.map(({ assetId, from, to, window }) => [assetId, from, to, window.runs, window.openNumber, [...window.gaps]]),
    [[recording.assetId, recording.from, recording.to, recording.window.runs, recording.window.openNumber, []]],
  );

  const last = next.after(1000);
  await last.live.start();
  await last.settle();
  assert.deepEqual(last.recordings, []);
});

test('a recording that is not written yet is remembered through the next show on the channel', async () => {
  const world = new World();
  world.written = new Promise(() => undefined);
  await world.live.start();
  for (let show = 0; show < 2; show += 1) {
    const { source } = await world.connect();
    await world.send(source, 6000);
    if (show === 0) await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
  }
  const next = world.after(1000);
  await next.live.start();
  await next.settle();
  assert.deepEqual(
    next.recordings.map(({ assetId }) => assetId),
    world.recordings.map(({ assetId }) => assetId),
  );
  assert.equal(next.live.status('radio').state, 'holding');
});

test('a store that takes nothing does not keep the process from ending', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 4000);
  world.disk.store.put = () => Promise.reject(new Error('away'));
  await world.send(source, 4000);
  await Promise.all([world.live.stop(), world.pass(15_000)]);
  const next = world.after(1000);
  await next.live.start();
  assert.ok(next.view().timeline.gaps.size >= 2);
});

const defect = () => {
  throw new Error('a defect');
};

/** A show from beginning to end while `fault` is there; then the channel has to be free and off air, and its document as it should be. */
async function endedShow(world: World): Promise<void> {
  await world.live.start();
  const { source, closed } = await world.connect();
  await world.send(source, 6000);
  assert.equal(world.live.status('radio').state, 'live');
  await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
  assert.equal(closed.length, 1);
  assert.deepEqual([world.live.streams, world.live.status('radio').state], [0, 'offline']);
  // Its window is shown for its own duration, and then no longer.
  assert.ok(world.live.view('radio'));
  const { nextNumber, onAir } = world.disk.documents.get('radio') as { nextNumber: number; onAir?: object };
  assert.deepEqual([nextNumber > FIRST, onAir], [true, undefined]);
  await world.pass(120_000, 1000);
  assert.equal(world.live.view('radio'), undefined);
}

for (const event of ['on air', 'off air', 'recording started', 'connection closed'] as const) {
  test(`a show begins and ends as it should when somebody who is told of it throws: ${event}`, async (t) => {
    const errors = unexpectedIn(t);
    const world = new World();
    world.hear = (heard) => {
      if (heard === event) defect();
    };
    await endedShow(world);
    assert.deepEqual(errors.map(String), ['Error: a defect']);
    assert.deepEqual(
      world.told.map(([state]) => state),
      ['on', 'off'],
    );
  });
}

test('a recording whose writing throws or rejects ends its show as it should, and is brought again at the next start', async (t) => {
  const errors = unexpectedIn(t);
  const throws = new World();
  throws.onRecordingEnded = defect;
  const rejects = new World();
  rejects.written = Promise.reject(new Error('a defect'));
  rejects.written.catch(() => undefined);
  for (const world of [throws, rejects]) {
    await endedShow(world);
    const next = world.after(1000);
    await next.live.start();
    await next.settle();
    assert.deepEqual(
      next.recordings.map(({ assetId }) => assetId),
      world.recordings.map(({ assetId }) => assetId),
    );
  }
  assert.deepEqual(errors.map(String), ['Error: a defect', 'Error: a defect']);
});
