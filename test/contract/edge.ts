import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { LiveEdge, LiveMedia } from '../../src/live/edge.js';
import { renderMpd } from '../../src/media/dash.js';
import { renderDvr, renderMedia, renderMultivariant } from '../../src/media/hls.js';
import { initName, type Progress, partName, segmentName } from '../../src/media/timeline.js';
import { Disk, World } from '../live/live-world.js';

export interface EdgeUnderTest {
  readonly edge: LiveEdge;
  /** Resolves when the edge knows what the live room knows. */
  caughtUp(): Promise<unknown>;
}

/** Media by its name when it is here, or undefined when it is not in memory. */
async function mediaOf(edge: LiveEdge, rendition: string, name: string): Promise<LiveMedia | undefined> {
  for (let tries = 0; tries < 3; tries += 1) {
    const media = edge.view('radio')?.media(rendition, name);
    if (!media?.loading) return media;
    await media.loading;
  }
  throw new Error(`${name} is still loading`);
}

const bytesOf = async (edge: LiveEdge, rendition: string, name: string): Promise<Buffer | undefined> => {
  const media = await mediaOf(edge, rendition, name);
  return media && Buffer.concat(media.chunks);
};

/** Follows until the end; rejects when it is broken off. */
const whole = (media: LiveMedia): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const chunks = [...media.chunks];
    if (media.complete) resolve(Buffer.concat(chunks));
    media.follow((chunk, aborted) => {
      if (chunk) chunks.push(chunk);
      else if (aborted) reject(new Error('aborted'));
      else resolve(Buffer.concat(chunks));
    });
  });

/** What every maker of LiveEdge promises. `make` gives one over the world's live room, which has been started. */
export function edgeContract(name: string, make: (t: TestContext, world: World) => Promise<EdgeUnderTest>): void {
  async function onAir(t: TestContext, ms: number, disk = new Disk()) {
    const world = new World(disk);
    await world.live.start();
    const made = await make(t, world);
    const { source } = await world.connect();
    await world.send(source, ms);
    await made.caughtUp();
    return { ...made, world, source };
  }

  test(`${name}: a channel that is off air has nothing, and nothing can be done to it`, async (t) => {
    const world = new World();
    await world.live.start();
    const { edge } = await make(t, world);
    assert.equal(edge.view('radio'), undefined);
    assert.deepEqual(edge.channels(), []);
    assert.deepEqual(edge.status('radio'), { state: 'offline', nowPlaying: undefined });
    assert.equal(edge.streams, 0);
    assert.equal(await edge.end('radio', 'test'), false);
    assert.equal(await edge.setTitle('radio', { title: 'Nothing' }), false);
  });

  test(`${name}: manifests rendered from it are those of the live room, letter by letter, at every step`, async (t) => {
    const { edge, caughtUp, world, source } = await onAir(t, 9000);
    await world.live.setTitle('radio', { title: 'One', artist: 'Somebody' });
    for (let step = 0; step < 8; step += 1) {
      await world.send(source, 340);
      await caughtUp();
      const [theirs, ours] = [world.view(), edge.view('radio')!];
      assert.deepEqual(ours.renditions, theirs.renditions);
      assert.equal(renderMultivariant(ours.renditions), renderMultivariant(theirs.renditions));
      for (const rendition of theirs.renditions) {
        assert.equal(
          renderMedia(ours.timeline, rendition, ours.renditions, { skip: false }),
          renderMedia(theirs.timeline, rendition, theirs.renditions, { skip: false }),
        );
        assert.equal(renderDvr(ours.timeline, rendition, 7200 * 48_000), renderDvr(theirs.timeline, rendition, 7200 * 48_000));
      }
      const mpd = { utcTimingUrl: '/time', windowSamples: 7200 * 48_000 };
      assert.equal(renderMpd(ours.timeline, ours.renditions, mpd), renderMpd(theirs.timeline, theirs.renditions, mpd));
    }
    assert.deepEqual(edge.channels(), ['radio']);
  });

  test(`${name}: whoever waits is called once at the next change, and not when it is cancelled`, async (t) => {
    const { edge, caughtUp, world, source } = await onAir(t, 4000);
    const view = edge.view('radio')!;
    const before = view.version;
    let [calls, cancelled] = [0, 0];
    view.onChange(() => calls++);
    view.onChange(() => cancelled++)();
    await world.send(source, 2000);
    await caughtUp();
    assert.deepEqual([calls, cancelled], [1, 0]);
    assert.equal(edge.view('radio'), view);
    assert.ok(view.version > before);
  });

  test(`${name}: init segments, segments and parts have the bytes that the live room has`, async (t) => {
    const { edge, world } = await onAir(t, 9000);
    const { timeline, renditions } = world.view();
    const run = timeline.runs[0]!.id;
    for (const rendition of renditions) {
      const open = timeline.progress[rendition.codec]!.openNumber;
      const names = [segmentName(run, open - 1, rendition.codec), segmentName(run, open - 2, rendition.codec)];
      if (rendition.lowLatency) names.push(initName(run), ...[0, 1, 5].map((part) => partName(run, open - 1, part)));
      for (const name of names) {
        const theirs = world.view().media(rendition.name, name);
        assert.ok(theirs?.complete, name);
        const media = await mediaOf(edge, rendition.name, name);
        assert.ok(media?.complete, `${rendition.name}/${name}`);
        assert.equal(media.contentType, theirs.contentType);
        assert.deepEqual(Buffer.concat(media.chunks), Buffer.concat(theirs.chunks));
        // A listener of an endless stream takes them apart.
        assert.deepEqual(
          media.chunks.map(({ length }) => length),
          theirs.chunks.map(({ length }) => length),
        );
      }
    }
  });

  test(`${name}: a segment in the making grows for all who follow it, and its parts can be had one by one`, async (t) => {
    const { edge, caughtUp, world, source } = await onAir(t, 6000);
    const { timeline } = world.view();
    const run = timeline.runs[0]!.id;
    while (timeline.progress.aac?.openParts !== 2) await world.send(source, 20);
    await caughtUp();
    const number = timeline.progress.aac!.openNumber;
    const name = segmentName(run, number, 'aac');
    const media = await mediaOf(edge, 'aac-128', name);
    assert.ok(media && !media.complete);
    assert.equal(media.chunks.length, 2);
    const followed = [whole(media), whole(media)];
    while (timeline.progress.aac?.openNumber === number) {
      await world.send(source, 20);
      await caughtUp();
      const { openNumber, openParts }: Progress = timeline.progress.aac!;
      const part: number = openNumber === number ? openParts - 1 : 5;
      assert.deepEqual(
        await bytesOf(edge, 'aac-128', partName(run, number, part)),
        Buffer.concat(world.view().media('aac-128', partName(run, number, part))!.chunks),
      );
    }
    const made = Buffer.concat(world.view().media('aac-128', name)!.chunks);
    for (const bytes of await Promise.all(followed)) assert.deepEqual(bytes, made);
    assert.equal(media.complete, true);
  });

  test(`${name}: what is not in memory, not made yet or of another run is undefined`, async (t) => {
    const { edge, world } = await onAir(t, 9000);
    const { timeline } = world.view();
    const run = timeline.runs[0]!.id;
    const { openNumber, openParts } = timeline.progress.aac!;
    for (const [rendition, name] of [
      ['aac-127', segmentName(run, openNumber - 1, 'aac')],
      ['aac-128', segmentName('other', openNumber - 1, 'aac')],
      ['aac-128', segmentName(run, openNumber - 1, 'mp3')],
      ['mp3-128', segmentName(run, openNumber - 1, 'aac')],
      ['mp3-128', partName(run, openNumber - 1, 0)],
      ['mp3-128', initName(run)],
      ['aac-128', initName('other')],
      ['aac-128', segmentName(run, openNumber + 1, 'aac')],
      ['aac-128', segmentName(run, 0, 'aac')],
      ['aac-128', partName(run, openNumber, openParts)],
      ['aac-128', partName(run, openNumber - 1, 6)],
      ['mp3-128', segmentName(run, timeline.progress.mp3!.openNumber, 'mp3')],
      ['aac-128', '../../secret'],
      ['aac-128', ''],
    ] as const)
      assert.equal(await mediaOf(edge, rendition, name), undefined, `${rendition}/${name}`);
  });

  test(`${name}: what the store has leaves memory; what it has not stays, however old`, async (t) => {
    const { edge, caughtUp, world, source } = await onAir(t, 30_000);
    const first = world.view().timeline.firstNumber;
    const run = world.view().timeline.runs[0]!.id;
    assert.equal(await mediaOf(edge, 'aac-128', segmentName(run, first, 'aac')), undefined);
    world.disk.store.put = () => Promise.reject(new Error('away'));
    const kept = world.view().timeline.progress.aac!.openNumber;
    await world.send(source, 40_000);
    await caughtUp();
    const bytes = await bytesOf(edge, 'aac-128', segmentName(run, kept, 'aac'));
    assert.deepEqual(bytes, Buffer.concat(world.view().media('aac-128', segmentName(run, kept, 'aac'))!.chunks));
  });

  test(`${name}: a title is told when it is heard; the state is that of the show`, async (t) => {
    const { edge, caughtUp, world, source } = await onAir(t, 4000);
    assert.equal(await edge.setTitle('radio', { title: 'Song', artist: 'Band' }), true);
    assert.equal(edge.view('radio')?.timeline.titles.at(-1)?.title, 'Song');
    await world.send(source, 2000);
    await caughtUp();
    const { nowPlaying, ...status } = edge.status('radio');
    assert.deepEqual([nowPlaying?.title, nowPlaying?.artist], ['Song', 'Band']);
    const { broadcastId, runs } = world.view().timeline;
    assert.deepEqual(status, { state: 'live', title: 'Radio', startWallMs: runs[0]!.startWallMs, broadcastId });
    assert.equal(edge.streams, 1);
    source.end('lost');
    await world.pass(2000);
    await caughtUp();
    assert.equal(edge.status('radio').state, 'holding');
  });

  test(`${name}: an end is told at once, its last playlist stays for its duration, and the next show is another view`, async (t) => {
    const { edge, caughtUp, world } = await onAir(t, 6000);
    const view = edge.view('radio')!;
    let changes = 0;
    edge.onChannels(() => changes++);
    const [ended] = await Promise.all([
      edge.end('radio', 'test'),
      (async () => {
        // The worker has to be asked before its time passes.
        while (!world.view().timeline.ended) {
          await new Promise((resolve) => setTimeout(resolve, 5));
          await world.pass(100);
        }
      })(),
    ]);
    assert.equal(ended, true);
    assert.equal(edge.status('radio').state, 'offline');
    assert.equal(edge.view('radio')?.timeline.ended, true);
    assert.equal(edge.streams, 0);
    assert.equal(await edge.end('radio', 'test'), false);
    const next = await world.connect();
    await world.send(next.source, 4000);
    await caughtUp();
    assert.notEqual(edge.view('radio'), view);
    assert.equal(edge.view('radio')?.timeline.ended, false);
    assert.equal(edge.status('radio').state, 'live');
    await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
    await world.pass(60_000);
    await caughtUp();
    assert.equal(edge.view('radio'), undefined);
    assert.deepEqual(edge.channels(), []);
    assert.ok(changes >= 2);
  });

  test(`${name}: who follows a segment that will never be finished is told so`, async (t) => {
    const { edge, caughtUp, world, source } = await onAir(t, 6000);
    const { timeline } = world.view();
    while (timeline.progress.aac?.openParts !== 3) await world.send(source, 20);
    await caughtUp();
    const number = timeline.progress.aac!.openNumber;
    const media = await mediaOf(edge, 'aac-128', segmentName(timeline.runs[0]!.id, number, 'aac'));
    assert.ok(media && !media.complete);
    const followed = assert.rejects(whole(media), /aborted/);
    // As when the process slept: what was open is given up.
    world.clock.sleep(30_000);
    await world.pass(100);
    await followed;
    await caughtUp();
    assert.ok(edge.view('radio')!.timeline.gaps.has(number));
    assert.equal(edge.view('radio')!.timeline.runs.length, 2);
    assert.equal(await mediaOf(edge, 'aac-128', segmentName(timeline.runs[0]!.id, number, 'aac')), undefined);
  });
}
