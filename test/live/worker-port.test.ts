import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import type { WorkerClient } from '../../src/live/worker/client.js';
import { RemoteEdge } from '../../src/live/worker/edge-remote.js';
import { WorkerFeed } from '../../src/live/worker/feed.js';
import { EdgeFrameReader, frameOf, MAX_FRAME_BYTES, PROTOCOL } from '../../src/live/worker/protocol.js';
import { RemoteMedia } from '../../src/live/worker/remote-media.js';
import { partName, segmentName } from '../../src/media/timeline.js';
import { type Clock, FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { startPlayback } from '../support/fake-edge.js';
import { eventually } from '../support/process.js';
import { caughtUp, clockWith, startRemote, TestWorker } from '../support/remote-worker.js';
import { World } from './live-world.js';

const unavailable = (error: unknown) => error instanceof VezaError && error.code === 'unavailable';

async function onAir(t: TestContext, ms = 6000) {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, ms);
  let worker = await TestWorker.start(world.live);
  const edge = await startRemote(worker.url, clockWith(world.clock));
  t.after(async () => {
    edge.stop();
    await worker.kill();
  });
  return {
    world,
    source,
    edge,
    get worker() {
      return worker;
    },
    /** Another process takes its place, over the same disk. */
    async restart(next: World) {
      await next.live.start();
      worker = await TestWorker.start(next.live, worker.tcpPort);
    },
  };
}

interface Reply {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

const ask = (url: string, method = 'GET', body?: string): Promise<Reply> =>
  new Promise((resolve, reject) => {
    request(url, { method, agent: false }, (res) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk));
      res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(chunks) }));
      res.on('error', reject);
    })
      .on('error', reject)
      .end(body);
  });

test('fifty who want one segment, its parts or its growth are one question to the worker', async (t) => {
  const s = await onAir(t);
  const { timeline } = s.world.view();
  while (timeline.progress.aac?.openParts !== 2) await s.world.send(s.source, 20);
  await caughtUp(s.edge);
  const run = timeline.runs[0]!.id;
  const number = timeline.progress.aac!.openNumber;
  const view = s.edge.view('radio')!;
  await Promise.all(
    Array.from({ length: 50 }, async (_, index) => {
      const name = index % 2 === 0 ? segmentName(run, number, 'aac') : partName(run, number, index % 4 === 1 ? 0 : 1);
      await view.media('aac-128', name)?.loading;
    }),
  );
  while (timeline.progress.aac?.openNumber === number) await s.world.send(s.source, 20);
  await caughtUp(s.edge);
  for (let part = 0; part < 6; part += 1) await view.media('aac-128', partName(run, number, part))?.loading;
  assert.deepEqual(
    s.worker.asked.filter((line) => line.includes('/media/')),
    [`GET /v1/media/radio/aac-128/${segmentName(run, number, 'aac')}`],
  );
});

test('a worker that is away: 503 with Retry-After for live things, what waited is let go, stored segments and recordings go on; then it is back', async (t) => {
  const s = await onAir(t, 9000);
  const playback = await startPlayback({ edge: s.edge });
  t.after(() => playback.close());
  const { timeline } = s.world.view();
  const run = timeline.runs[0]!.id;
  const { openNumber } = timeline.progress.aac!;
  const stored = `live/radio/aac-128/${segmentName(run, openNumber - 3, 'aac')}`;
  await playback.store.put(stored, Buffer.from('stored'));
  await playback.store.put('vod/old/master.m3u8', Buffer.from('#EXTM3U\n'));
  const playlist = `${playback.url}/live/radio/aac-128/index.m3u8`;
  assert.equal((await ask(playlist)).status, 200);

  const blocked = ask(`${playlist}?_HLS_msn=${openNumber + 1}`);
  await eventually('it waits', () => playback.playback.counters.waiting === 1 || undefined);
  await s.worker.kill();
  const released = await blocked;
  assert.deepEqual([released.status, released.headers['retry-after']], [503, '1']);
  assert.throws(() => s.edge.view('radio'), unavailable);
  await assert.rejects(s.edge.check());
  for (const path of [
    '/live/radio/master.m3u8',
    '/live/radio/manifest.mpd',
    '/live/radio/aac-128/index.m3u8',
    '/live/radio/aac-128/dvr.m3u8',
    `/live/radio/aac-128/${partName(run, openNumber - 1, 0)}`,
    `/live/radio/aac-128/${segmentName(run, openNumber - 1, 'aac')}`,
    '/live/nobody/master.m3u8',
    '/listen/radio.mp3',
  ]) {
    const { status, headers, body } = await ask(`${playback.url}${path}`);
    assert.deepEqual([path, status, headers['retry-after'], headers['cache-control']], [path, 503, '1', 'no-store']);
    assert.equal(JSON.parse(body.toString()).code, 'unavailable');
  }
  assert.equal((await ask(`${playback.url}/${stored}`)).body.toString(), 'stored');
  assert.equal((await ask(`${playback.url}/vod/old/master.m3u8`)).status, 200);
  // What was on air is remembered: its show is gone on with when the worker is back.
  assert.equal(s.edge.status('radio').state, 'holding');
  assert.equal(s.edge.status('radio').nowPlaying, undefined);
  await assert.rejects(s.edge.end('radio', 'test'), unavailable);
  await assert.rejects(s.edge.setTitle('radio', { title: 'x' }), unavailable);

  const next = s.world.after(3000);
  await s.restart(next);
  await eventually('the worker is back', () => s.edge.check().then(() => true));
  const view = s.edge.view('radio')!;
  assert.equal(view.timeline.runs.length, 2);
  assert.equal(view.timeline.broadcastId, timeline.broadcastId);
  assert.ok(view.timeline.gaps.has(openNumber));
  await next.pass(2000);
  await caughtUp(s.edge);
  const again = await ask(playlist);
  assert.equal(again.status, 200);
  assert.match(again.body.toString(), /#EXT-X-DISCONTINUITY\n/);
});

test('a feed that breaks off for a moment changes nothing: the same view goes on, and who waits waits on', async (t) => {
  const s = await onAir(t);
  const view = s.edge.view('radio')!;
  const waits = new Promise<void>((resolve) => view.onChange(resolve));
  s.worker.cut();
  await eventually('the feed is followed again', () => s.worker.asked.filter((line) => line === 'GET /v1/feed').length === 2 || undefined);
  await caughtUp(s.edge);
  assert.equal(s.edge.view('radio'), view);
  await s.world.send(s.source, 2000);
  await waits;
  await caughtUp(s.edge);
  assert.equal(s.edge.view('radio')?.timeline.progress.aac?.openNumber, s.world.view().timeline.progress.aac?.openNumber);
});

test('a show whose channel is gone from the database ends, though nobody could say so here', async () => {
  const world = new World();
  await world.live.start();
  const { source, closed } = await world.connect();
  await world.send(source, 4000);
  await world.live.endOver();
  assert.equal(world.live.status('radio').state, 'live');
  world.channel = undefined;
  await Promise.all([world.live.endOver(), world.pass(3000)]);
  assert.equal(world.live.status('radio').state, 'offline');
  assert.equal(closed.length, 1);
});

test('the port answers what it is for and nothing else, and takes no long body', async (t) => {
  const s = await onAir(t);
  const { url } = s.worker;
  const { timeline } = s.world.view();
  const segment = segmentName(timeline.runs[0]!.id, timeline.progress.aac!.openNumber - 1, 'aac');
  for (const [method, path, body, status] of [
    ['GET', '/', undefined, 404],
    ['GET', '/v1/feed?x', undefined, 404],
    ['GET', '/v1/media/radio/aac-128/../../x', undefined, 404],
    ['GET', `/v1/media/radio/aac-128/${'x'.repeat(4000)}`, undefined, 404],
    ['GET', `/v1/media/other/aac-128/${segment}`, undefined, 404],
    ['GET', `/v1/media/radio/aac-128/${segment}`, undefined, 200],
    ['DELETE', `/v1/media/radio/aac-128/${segment}`, undefined, 400],
    ['POST', '/v1/feed', undefined, 400],
    ['GET', '/v1/channels/radio/end', undefined, 400],
    ['POST', '/v1/channels/radio/end', '{', 400],
    ['POST', '/v1/channels/radio/end', '{}', 400],
    ['POST', '/v1/channels/radio/title', '{"title":""}', 400],
    ['POST', '/v1/channels/radio/title', JSON.stringify({ title: 'x'.repeat(20_000) }), 413],
    ['POST', '/v1/channels/nobody/end', '{"reason":"test"}', 200],
    ['GET', '/health/live', undefined, 200],
    ['GET', '/health/ready', undefined, 200],
    ['GET', '/metrics', undefined, 404],
  ] as const)
    assert.equal((await ask(`${url}${path}`, method, body)).status, status, `${method} ${path}`);
  assert.equal(s.world.live.status('radio').state, 'live');
});

test('sixty-four apps follow at most', async (t) => {
  const s = await onAir(t);
  const feeds: IncomingMessage[] = [];
  const follow = () =>
    new Promise<number>((resolve, reject) => {
      request(`${s.worker.url}/v1/feed`, { agent: false }, (res) => {
        res.resume();
        res.on('error', () => undefined);
        feeds.push(res);
        resolve(res.statusCode ?? 0);
      })
        .on('error', reject)
        .end();
    });
  // The edge is one of them.
  const answers = await Promise.all(Array.from({ length: 64 }, follow));
  assert.deepEqual([answers.filter((status) => status === 200).length, answers.filter((status) => status === 503).length], [63, 1]);
  for (const feed of feeds) feed.destroy();
});

/** Something at the worker's address that is none, or an evil one. */
async function imposter(
  t: TestContext,
  handler: RequestListener,
  clock: Clock = new SystemClock(),
): Promise<{ edge: RemoteEdge; faults: string[] }> {
  const server: Server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const faults: string[] = [];
  const note = (fields: object) => void faults.push(String((fields as { error?: unknown }).error));
  const log = { ...silentLog, warn: note, error: note } as typeof silentLog;
  const edge = new RemoteEdge({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, clock, log });
  t.after(() => {
    edge.stop();
    server.closeAllConnections();
    server.close();
  });
  void edge.start();
  return { edge, faults };
}

for (const [what, say, fault] of [
  ['another version of the protocol', () => `${JSON.stringify({ hello: { protocol: PROTOCOL + 1, worker: 'x' } })}\n`, /version/],
  ['what is no JSON', () => 'hello\n', /JSON/],
  ['what is not understood', () => '{"show":{"channel":7},"sequence":1}\n', /not understood/],
  ['a patch of a view that was never told', () => `${JSON.stringify(patch)}\n`, /not all of it/],
  ['a line without end', () => 'x'.repeat(9 * 1024 * 1024), /too long/],
] as const) {
  test(`a worker that says ${what} is away, and says why in the log`, async (t) => {
    const { edge, faults } = await imposter(t, (_req, res) => {
      res.on('error', () => undefined);
      res.write(say());
    });
    assert.match(await eventually('a fault is named', () => faults[0]), fault);
    assert.throws(() => edge.view('radio'), unavailable);
  });
}

const progress = { aac: { openNumber: 10, openParts: 2 } };
const patch = { show: { channel: 'radio', viewId: 'v', progress, ended: false, held: [9, 10], state: 'live' }, sequence: 1 };
const aac = { name: 'aac-128', codec: 'aac', bitrateKbps: 128, codecs: 'mp4a.40.2', lowLatency: true, score: 3 };
const whole = {
  show: {
    ...patch.show,
    view: { broadcastId: 'b', renditions: [aac], grid: { segmentSamples: 92_160, partSamples: 15_360 }, firstNumber: 6 },
    runs: [{ id: 'r', firstNumber: 6, discontinuity: 0, startWallMs: 1 }],
  },
  sequence: 1,
};
const feed = [{ hello: { protocol: PROTOCOL, worker: 'x' } }, whole, { synced: true, sequence: 1 }].map(
  (line) => `${JSON.stringify(line)}\n`,
);

for (const [what, media] of [
  ['is broken off', (res: Parameters<RequestListener>[1]) => void res.write(frameOf(Buffer.alloc(100))[0], () => res.destroy())],
  [
    'has a frame of a gigabyte',
    (res: Parameters<RequestListener>[1]) => {
      const head = Buffer.alloc(4);
      head.writeUInt32BE(2 ** 30);
      res.write(head);
    },
  ],
  ['is answered 500', (res: Parameters<RequestListener>[1]) => void res.writeHead(500).end()],
  ['ends without its end', (res: Parameters<RequestListener>[1]) => void res.end(Buffer.concat(frameOf(Buffer.alloc(100))))],
] as const) {
  test(`a segment of a worker that ${what} is unavailable, and is asked for anew the next time`, async (t) => {
    let asked = 0;
    const { edge } = await imposter(t, (req, res) => {
      res.on('error', () => undefined);
      if (req.url === '/v1/feed') res.write(feed.join(''));
      else {
        asked++;
        res.setHeader('veza-frames', '3');
        res.setHeader('veza-complete', '1');
        media(res);
      }
    });
    const view = await eventually('the view is told', () => edge.view('radio'));
    for (const expected of [1, 2]) {
      const found = view.media('aac-128', 'r-9.m4s');
      await assert.rejects(found!.loading!, unavailable);
      assert.equal(asked, expected);
    }
  });
}

test('a segment of which nothing more comes, or too much, is given up', async () => {
  const clock = new FakeClock();
  const open = (answer: PassThrough) => {
    const headers = { 'veza-frames': '0', 'veza-complete': '0' };
    const client = { get: async () => Object.assign(answer, { headers }) } as unknown as WorkerClient;
    return new RemoteMedia(client, clock, '/v1/media/x', 'audio/mp4');
  };
  const silent = new PassThrough();
  const first = open(silent);
  await first.loading;
  const broken = new Promise((resolve) => first.follow((chunk, aborted) => resolve([chunk, aborted])));
  clock.advance(7999);
  assert.equal(silent.destroyed, false);
  clock.advance(1);
  assert.deepEqual(await broken, [undefined, true]);

  const endless = new PassThrough();
  const second = open(endless);
  await second.loading;
  const cut = new Promise((resolve) => second.follow((chunk, aborted) => chunk ?? resolve(aborted)));
  const bytes = Buffer.concat(frameOf(Buffer.alloc(1024 * 1024)));
  for (let megabytes = 0; megabytes < 17 && !endless.destroyed; megabytes += 1) {
    endless.write(bytes);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(await cut, true);
  assert.ok(second.chunks.length <= 16);
});

test('a worker that does not answer, says nothing more, or answers an act at length is away', async (t) => {
  const clock = new FakeClock();
  let mode: 'mute' | 'silent' = 'mute';
  let feeds = 0;
  const { edge } = await imposter(
    t,
    (req, res) => {
      res.on('error', () => undefined);
      if (req.method === 'POST') res.end(`{"done":true,"sequence":1,"more":"${'x'.repeat(65 * 1024)}"}`);
      else if (req.url === '/v1/feed' && ++feeds && mode === 'silent') res.write(feed.join(''));
    },
    clock,
  );
  // Looked at between steps of the clock, since what comes over the socket comes by itself.
  const passing = (what: string, is: () => unknown, stepMs: number) =>
    eventually(what, () => {
      if (is()) return true;
      clock.advance(stepMs);
      return undefined;
    });
  await eventually('the feed is asked for', () => feeds === 1 || undefined);
  clock.advance(4999);
  assert.equal(feeds, 1);
  mode = 'silent';
  await passing('it is asked for again', () => feeds > 1, 500);
  await eventually('the feed is told', () => edge.channels().length === 1 || undefined);
  assert.equal(edge.view('radio')?.channel, 'radio');
  await assert.rejects(edge.end('radio', 'test'), unavailable);
  const before = feeds;
  clock.advance(4000);
  assert.doesNotThrow(() => edge.view('radio'));
  mode = 'mute';
  await passing('it is given up', () => feeds > before, 500);
  await passing(
    'it is away',
    () => {
      try {
        edge.view('radio');
        return false;
      } catch {
        return true;
      }
    },
    500,
  );
});

test('a worker with more channels than there can be is away', async (t) => {
  const many = Array.from({ length: 10_001 }, (_, index) => ({
    ...whole,
    show: { ...whole.show, channel: `c${index}`, viewId: `v${index}` },
  }));
  const { faults } = await imposter(t, (_req, res) => {
    res.on('error', () => undefined);
    res.write([{ hello: { protocol: PROTOCOL, worker: 'x' } }, ...many].map((line) => `${JSON.stringify(line)}\n`).join(''));
  });
  assert.match(await eventually('a fault is named', () => faults[0]), /more than 10000 channels/);
});

test('an app that does not read is disconnected; the others are told on', async () => {
  const world = new World();
  await world.live.start();
  const follower = (writableLength: number) => {
    const lines: string[] = [];
    const res = Object.assign(new EventEmitter(), {
      writableLength,
      gone: false,
      lines,
      writeHead: () => undefined,
      write: (text: string) => lines.push(text),
      end: () => undefined,
      destroy() {
        res.gone = true;
      },
    });
    return res;
  };
  const told = new WorkerFeed({ edge: world.live, clock: world.clock, log: silentLog, worker: 'w' });
  told.start();
  const [slow, quick] = [follower(16 * 1024 * 1024 + 1), follower(16 * 1024 * 1024)];
  for (const res of [slow, quick]) told.add(res as unknown as ServerResponse);
  const { source } = await world.connect();
  await world.send(source, 3000);
  assert.deepEqual([slow.gone, slow.lines.length, quick.gone], [true, 1, false]);
  assert.ok(quick.lines.length > 5);
  assert.equal(told.apps, 1);
  told.stop();
});

test('a segment that the worker has no more is looked for in the store', async (t) => {
  const { edge } = await imposter(t, (req, res) => {
    if (req.url === '/v1/feed') res.write(feed.join(''));
    else res.writeHead(404).end();
  });
  await eventually('the view is told', () => edge.view('radio'));
  const playback = await startPlayback({ edge });
  t.after(() => playback.close());
  await playback.store.put('live/radio/aac-128/r-9.m4s', Buffer.from('stored'));
  assert.equal((await ask(`${playback.url}/live/radio/aac-128/r-9.m4s`)).body.toString(), 'stored');
  assert.equal((await ask(`${playback.url}/live/radio/aac-128/r-9.0.m4s`)).status, 404);
});

test('frames come out whole wherever the bytes are cut; one that is too long is refused', () => {
  const parts = [Buffer.from('one'), Buffer.alloc(0), Buffer.from('three')];
  const bytes = Buffer.concat([...frameOf(parts[0]!), ...frameOf(parts[2]!), Buffer.alloc(4)]);
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const got: (string | undefined)[] = [];
    const reader = new EdgeFrameReader((frame) => got.push(frame?.toString()));
    reader.push(bytes.subarray(0, cut));
    reader.push(bytes.subarray(cut));
    assert.deepEqual(got, ['one', 'three', undefined]);
  }
  const head = Buffer.alloc(4);
  head.writeUInt32BE(MAX_FRAME_BYTES + 1);
  assert.throws(() => new EdgeFrameReader(() => undefined).push(head));
});

test('an endless stream stays open while the worker is away for a moment, and goes on', async (t) => {
  const s = await onAir(t, 9000);
  const playback = await startPlayback({ edge: s.edge, clock: new SystemClock() });
  t.after(() => playback.close());
  let bytes = 0;
  let closed = false;
  request(`${playback.url}/listen/radio.mp3`, { agent: false }, (res) => {
    res.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    res.on('close', () => {
      closed = true;
    });
    res.on('error', () => undefined);
  }).end();
  await eventually('it is heard', () => bytes > 0 || undefined);
  await s.worker.kill();
  await eventually('the worker is away', () =>
    s.edge.check().then(
      () => undefined,
      () => true,
    ),
  );
  const before = bytes;
  const next = s.world.after(3000);
  await s.restart(next);
  const { source } = await next.connect();
  await next.send(source, 8000);
  await eventually('it is heard again', () => bytes > before || undefined);
  assert.equal(closed, false);
});
