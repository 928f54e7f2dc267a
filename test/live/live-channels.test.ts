import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wallMsOf } from '../../src/media/timeline.js';
import { VezaError } from '../../src/runtime/errors.js';
import { unexpectedIn } from '../support/unexpected.js';
import { CHANNEL, FIRST, World } from './live-world.js';

for (const ppm of [0, 200, -200]) {
  test(`half an hour from a broadcaster whose clock is off by ${ppm} ppm: numbers and dates are true to 50 ms, nothing is cut`, async () => {
    const world = new World();
    await world.live.start();
    const { source } = await world.connect();
    await world.send(source, 1_800_000, ppm);
    const { timeline } = world.view();
    const open = timeline.progress.aac?.openNumber ?? 0;
    const openParts = timeline.progress.aac?.openParts ?? 0;
    const dateMs = wallMsOf(timeline, open) + openParts * 320;
    assert.ok(Math.abs(world.clock.wallMs() - dateMs) <= 320 + 50, `the edge is ${world.clock.wallMs() - dateMs} ms away`);
    assert.ok(Math.max(...world.delaysS) <= 0.05, `a part came ${Math.max(...world.delaysS)} s late`);
    assert.equal(timeline.runs.length, 1);
    assert.equal(timeline.gaps.size, 0);
    assert.equal(world.counts.cuts, 0);
    await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
  });
}

test('a source that cannot be decoded never puts the channel on air, and is told why', async () => {
  const world = new World();
  await world.live.start();
  const { source, closed } = await world.connect();
  source.write(Buffer.alloc(2));
  world.ffmpeg.decoders[0]?.crash();
  await world.pass(2000);
  assert.equal(world.live.view('radio'), undefined);
  assert.equal(closed[0]?.code, 'unsupported_media');
  assert.equal(world.disk.documents.size, 0);
  assert.equal(world.live.streams, 0);
});

test("OBS's Stop ends the show after 5 s; a lost line is held for the reconnect window, then it ends; 404 after its own duration", async () => {
  for (const [how, windowMs] of [
    ['finished', 5000],
    ['lost', 60_000],
  ] as const) {
    const world = new World();
    await world.live.start();
    const { source } = await world.connect();
    await world.send(source, 10_000);
    source.end(how);
    await world.pass(windowMs - 1000);
    assert.equal(world.live.status('radio').state, 'holding');
    assert.equal(world.view().timeline.ended, false);
    await world.pass(4000);
    assert.equal(world.view().timeline.ended, true);
    assert.equal(world.live.status('radio').state, 'offline');
    // 10 s of sound began 0.2 s after the first byte: six segments; the fill behind them is not in the recording.
    assert.deepEqual(
      world.recordings.map(({ from, to }) => [from, to]),
      [[FIRST, FIRST + 5]],
    );
    await world.pass(58_000);
    assert.equal(world.live.view('radio'), undefined);
  }
});

test('numbers rise for the life of the channel: the next show begins where the last ended', async () => {
  const world = new World();
  await world.live.start();
  for (const expected of [FIRST, FIRST + 6]) {
    const { source } = await world.connect();
    await world.send(source, 10_000);
    assert.equal(world.view().timeline.firstNumber, expected);
    await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
  }
});

test('a takeover keeps the run; the displaced encoder is told, and refused while the other is sending', async () => {
  const world = new World();
  await world.live.start();
  const first = await world.connect('obs');
  await world.send(first.source, 5000);
  const second = await world.connect('butt');
  await world.send(second.source, 2000);
  assert.equal(first.closed[0]?.code, 'displaced');
  await assert.rejects(world.connect('obs'), (error) => error instanceof VezaError && error.code === 'displaced');
  // Once the winner has stopped sending, it may come back.
  await world.pass(4000);
  const third = await world.connect('obs');
  await world.send(third.source, 2000);
  assert.equal(second.closed[0]?.code, 'displaced');
  assert.equal(world.view().timeline.runs.length, 1);
  assert.equal(world.view().timeline.gaps.size, 0);
});

test('two encoders of one name that both reconnect at once change places once, not for ever', async () => {
  const world = new World();
  await world.live.start();
  let onAir = await world.connect('obs');
  await world.send(onAir.source, 3000);
  let takeovers = 0;
  for (let second = 0; second < 20; second += 1) {
    const other = await world.connect('obs').catch(() => undefined);
    if (other) {
      takeovers += 1;
      await world.send(other.source, 1000);
      onAir = other;
    } else await world.send(onAir.source, 1000);
  }
  assert.equal(takeovers, 1);
});

test("an encoder whose line breaks again and again is let in each time, and is never told of another encoder's", async () => {
  const world = new World();
  await world.live.start();
  const said: string[] = [];
  let connection = await world.connect('obs');
  await world.send(connection.source, 3000);
  for (const silentMs of [0, 1100, 2000]) {
    // The old connection is neither closed nor written to any more.
    await world.pass(silentMs);
    const before = connection;
    try {
      connection = await world.connect('obs');
    } catch (error) {
      said.push((error as Error).message);
      await world.pass(1100);
      connection = await world.connect('obs');
    }
    await world.send(connection.source, 2000);
    said.push(...before.closed.map(({ message }) => message));
  }
  // This time it is closed, and the encoder is back at once.
  for (let turn = 0; turn < 3; turn += 1) {
    connection.source.end('lost');
    connection = await world.connect('obs');
    await world.send(connection.source, 2000);
  }
  assert.deepEqual(connection.closed, []);
  assert.ok(said.length > 0);
  for (const message of said) assert.match(message, /connection of this encoder \(same address, same name\)/);
});

test('an encoder that comes back from another address of its /64 is the same one', async () => {
  const world = new World();
  await world.live.start();
  const admit = (remoteAddress: string) =>
    world.live.admit({ protocol: 'rtmp', channel: undefined, streamKey: 'key', remoteAddress, client: 'obs' });
  const events = { onDrain: () => undefined, onClose: () => undefined };
  await world.send((await admit('2001:db8::1')).open('adts', events), 3000);
  const second = (await admit('2001:db8::2')).open('adts', events);
  await world.send(second, 3000);
  await assert.rejects(admit('2001:db8::3'), /an earlier connection of this encoder/);
  await world.send(second, 1000);
  await admit('2001:db8:0:1::1');
});

test('a wrong key, and a right one at another channel, are the same refusal; streams above MAX_STREAMS are refused as busy', async () => {
  const world = new World();
  await world.live.start();
  const request = { protocol: 'icecast', remoteAddress: '127.0.0.1', client: '' };
  const code = (expected: string) => (error: unknown) => error instanceof VezaError && error.code === expected;
  await assert.rejects(world.live.admit({ ...request, channel: 'radio', streamKey: 'wrong' }), code('unauthorized'));
  await assert.rejects(world.live.admit({ ...request, channel: 'other', streamKey: 'key' }), code('unauthorized'));
});

test('killed on air and started again: same show, higher numbers, the open segment a gap, one discontinuity', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 11_000);
  const before = world.view();
  const open = before.timeline.progress.aac?.openNumber ?? 0;
  await world.settle();

  const next = world.after(8000);
  await next.live.start();
  const { timeline } = next.view();
  assert.equal(timeline.broadcastId, before.timeline.broadcastId);
  assert.deepEqual([...timeline.gaps], [open]);
  assert.deepEqual(
    timeline.runs.map((run) => [run.firstNumber, run.discontinuity]),
    [
      [FIRST, 0],
      [open + 1, 1],
    ],
  );
  assert.equal(timeline.runs[1]?.startWallMs, next.clock.wallMs());
  assert.equal(next.live.status('radio').state, 'holding');
  const again = await next.connect();
  await next.send(again.source, 4000);
  assert.equal(next.live.status('radio').state, 'live');
  assert.ok((next.view().timeline.progress.aac?.openNumber ?? 0) > open + 1);
});

test('killed between two segments: the one that was finished is no gap', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 10_000);
  assert.deepEqual(world.view().timeline.progress.aac, { openNumber: FIRST + 5, openParts: 0 });
  const next = world.after(1000);
  await next.live.start();
  assert.equal(next.view().timeline.gaps.size, 0);
  assert.equal(next.view().timeline.runs[1]?.firstNumber, FIRST + 5);
});

test('what was finished but not stored when the process died is a gap, too', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 10_000);
  await world.settle();
  for (const key of world.disk.objects) if (key.includes('aac-64') && key.endsWith(`-${FIRST + 2}.m4s`)) world.disk.objects.delete(key);
  const next = world.after(1000);
  await next.live.start();
  assert.ok(next.view().timeline.gaps.has(FIRST + 2));
});

test('stopped in order: no gap, and the show goes on after it', async () => {
  const world = new World();
  await world.live.start();
  const { source, closed } = await world.connect();
  await world.send(source, 10_000);
  await Promise.all([world.live.stop(), world.pass(3000)]);
  assert.equal(closed[0]?.code, 'unavailable');
  const next = world.after(1000);
  await next.live.start();
  assert.equal(next.view().timeline.gaps.size, 0);
  assert.equal(next.view().timeline.runs.length, 2);
  assert.deepEqual(world.recordings, []);
});

test('a server that was away for an hour ends the show where it broke off, and keeps the recording', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 20_000);
  await world.settle();
  const next = world.after(3_600_000);
  await next.live.start();
  assert.equal(next.view().timeline.ended, true);
  assert.deepEqual(
    next.told.map(([state]) => state),
    ['off'],
  );
  assert.equal(next.recordings.length, 1);
  assert.equal(next.live.status('radio').state, 'offline');
});

test('on air and off air are told once a show: not of one that is held, handed over, stopped with its process or never heard', async () => {
  const world = new World();
  await world.live.start();
  const { source: mute } = await world.connect();
  mute.write(Buffer.alloc(2));
  world.ffmpeg.decoders[0]?.crash();
  await world.pass(1000);
  assert.deepEqual(world.told, []);

  const first = await world.connect();
  await world.send(first.source, 4000);
  const { broadcastId } = world.view().timeline;
  const startedMs = world.live.status('radio').startWallMs!;
  assert.deepEqual(world.told, [['on', broadcastId, startedMs]]);
  first.source.end('lost');
  await world.pass(10_000);
  assert.equal(world.live.status('radio').state, 'holding');
  const second = await world.connect();
  await world.send(second.source, 4000);
  const third = await world.connect('other');
  await world.send(third.source, 4000);
  await Promise.all([world.live.stop(), world.pass(3000)]);
  assert.equal(world.told.length, 1);

  const next = world.after(1000);
  await next.live.start();
  const back = await next.connect();
  await next.send(back.source, 4000);
  assert.deepEqual(next.told, []);
  await Promise.all([next.live.end('radio', 'test'), next.pass(3000)]);
  assert.deepEqual(next.told, [['off', broadcastId, startedMs]]);
});

test('sound that is a little late is waited for; what comes later than that leaves a hole of what it is later', async () => {
  for (const [stallMs, heardMs] of [
    [200, 0],
    [500, 320],
  ] as const) {
    const world = new World();
    await world.live.start();
    const { source } = await world.connect();
    await world.send(source, 7000);
    world.ffmpeg.silentSamples = 0;
    await world.pass(stallMs);
    source.write(new Uint8Array(stallMs * 48 * 4).fill(1));
    await world.send(source, 7000);
    const silentMs = world.ffmpeg.silentSamples / 48;
    assert.ok(Math.abs(silentMs - heardMs) <= (heardMs === 0 ? 0 : 100), `${stallMs} ms late: ${silentMs} ms of silence`);
  }
});

test('an encoder that dies: the same run, every frame once and in order', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 7000);
  world.ffmpeg.encoders[0]?.crash();
  await world.send(source, 7000);
  assert.equal(world.ffmpeg.encoders.length, 2);
  assert.equal(world.counts.encoderRestarts, 1);
  const view = world.view();
  assert.equal(view.timeline.runs.length, 1);
  assert.equal(view.timeline.gaps.size, 0);
  assert.equal(view.timeline.progress.aac?.openNumber, FIRST + 7);
  // Each chunk holds as many frames as its part: an index that came twice or never would shift them.
  for (let number = FIRST + 2; number < FIRST + 7; number += 1) {
    const media = view.media('aac-128', `${view.timeline.runs[0]?.id}-${number}.m4s`);
    assert.equal(media?.chunks.length, 6);
  }
});

test('the disk is full: segments are listed all the same, and each is counted as not durable', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 4000);
  world.disk.failing = true;
  await world.send(source, 8000);
  assert.ok(world.counts.undurable >= 3);
  assert.equal(world.view().timeline.progress.aac?.openNumber, FIRST + 6);
});

test('a process that slept begins a new run instead of making up for it', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 7000);
  const tickless = world.clock.monotonicMs();
  // The clock jumps over the timers, as it does over a suspended process.
  world.clock.sleep(60_000);
  assert.equal(world.clock.monotonicMs(), tickless + 60_000);
  await world.send(source, 6000);
  const { timeline } = world.view();
  assert.equal(timeline.runs.length, 2);
  assert.equal(timeline.runs[1]?.firstNumber, ([...timeline.gaps].at(-1) ?? 0) + 1);
});

test('a station that never stops is cut into recordings; its timeline goes on', async () => {
  const world = new World(undefined, undefined, { recordingMaxH: 1 });
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 3_700_000);
  assert.deepEqual(
    world.recordings.map(({ from, to }) => [from, to]),
    [[FIRST, FIRST + 1874]],
  );
  assert.equal(world.view().timeline.runs.length, 1);
});

test('a title begins when it is heard, once, and is told in the media from then on', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 6000);
  const announcedMs = world.clock.wallMs();
  source.title({ title: 'A song', artist: 'Somebody' });
  source.title({ title: 'A song', artist: 'Somebody' });
  const [title, ...more] = world.view().timeline.titles;
  assert.deepEqual(more, []);
  const waitsMs = (title?.startWallMs ?? 0) - announcedMs;
  assert.ok(waitsMs > 50 && waitsMs < 250, `heard ${waitsMs} ms later`);
  assert.equal(world.live.status('radio').nowPlaying, undefined);
  await world.send(source, 4000);
  assert.equal(world.live.status('radio').nowPlaying?.title, 'A song');
  const { timeline } = world.view();
  const last = (timeline.progress.aac?.openNumber ?? 0) - 1;
  const media = world.view().media('aac-64', `${timeline.runs[0]?.id}-${last}.m4s`);
  assert.ok(Buffer.from(media?.chunks[0] ?? []).includes('A song'));
});

test('a show whose stream key is made void ends within five seconds, also when its process died before it saw that', async () => {
  const world = new World();
  await world.live.start();
  const { source, closed } = await world.connect();
  await world.send(source, 4000);
  world.channel = { ...CHANNEL, keyVoids: 1 };
  await world.pass(5000);
  assert.equal(world.live.status('radio').state, 'offline');
  assert.equal(closed.length, 1, 'its encoder is sent away');

  const killed = new World();
  await killed.live.start();
  await killed.send((await killed.connect()).source, 4000);
  const after = killed.after(1000);
  after.channel = { ...CHANNEL, keyVoids: 1 };
  await after.live.start();
  assert.equal(after.live.status('radio').state, 'offline');
});

test('of a channel that is deleted nothing is shown after five seconds: neither a show that is on air nor one that has just ended', async () => {
  for (const isOnAir of [true, false]) {
    const world = new World();
    await world.live.start();
    await world.send((await world.connect()).source, 20_000);
    if (!isOnAir) await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
    await world.pass(5000);
    const view = world.live.view('radio');
    assert.ok(view, 'while the channel is there it is shown');
    let changes = 0;
    view.onChange(() => changes++);
    world.channel = undefined;
    await world.pass(1000);
    // A segment may have nearly ten seconds: what is on air is hidden before its last one is over.
    assert.equal(world.live.streams, isOnAir ? 1 : 0);
    assert.deepEqual([world.live.view('radio'), world.live.channels()], [undefined, []]);
    await world.pass(4000);
    assert.deepEqual([world.live.streams, world.live.view('radio'), world.live.channels()], [0, undefined, []]);
    assert.ok(changes > 0, 'requests that wait are told');
  }
});

test('while the database does not say how a show stands, it stays on air', async () => {
  const world = new World();
  world.standing = async () => {
    throw new VezaError('unavailable', 'away');
  };
  await world.live.start();
  await world.send((await world.connect()).source, 8000);
  assert.equal(world.live.status('radio').state, 'live');
  await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
});

test('a show whose end fails is over all the same, and its channel takes the next one; other shows go on', async (t) => {
  const errors = unexpectedIn(t);
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 4000);
  world.onRecordingEnded = () => {
    throw new Error('a defect');
  };
  const ended = world.live.end('radio', 'asked for');
  await world.pass(5000);
  assert.equal(await ended, true);
  assert.equal(errors.length, 1);
  assert.equal(world.live.streams, 0);
  world.onRecordingEnded = () => undefined;
  await world.send((await world.connect()).source, 4000);
  assert.equal(world.live.status('radio').state, 'live');
});
