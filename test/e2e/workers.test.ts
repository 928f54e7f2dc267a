import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { listen, toneShare } from '../support/audio.js';
import { type Issued, TestAuthority } from '../support/certificates.js';
import { createTestDatabase, type TestDatabase } from '../support/database.js';
import { freePorts } from '../support/free-port.js';
import { listed, punctual, UNDER } from '../support/on-air.js';
import { eventually, type Running, start, tail } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import { readPlaylist, Server } from '../support/server.js';

/** One process takes broadcasts, another serves them: PostgreSQL and a folder are shared, and between them is mutual TLS. */
const HZ = 997;
let database: TestDatabase;
let authority: TestAuthority;
let certificates: { worker: Issued; app: Issued };
let dataDir: string;
let ports: { rtmp: number; ingest: number; worker: number; metrics: number };
let worker: Running | undefined;
let workerLog = '';
let app: Server;
const publishers: Running[] = [];

const internal = (issued: Issued) => ({
  INTERNAL_CA_FILE: authority.caFile,
  INTERNAL_CERT_FILE: issued.certFile,
  INTERNAL_KEY_FILE: issued.keyFile,
});

async function startWorker(): Promise<void> {
  const [command = '', ...args] = [...UNDER, process.execPath, 'dist/workers/ingest.js'];
  const started = start(command, args, {
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      HOST: '127.0.0.1',
      DATA_DIR: dataDir,
      DATABASE_URL: database.url,
      RTMP_PORT: String(ports.rtmp),
      INGEST_PORT: String(ports.ingest),
      WORKER_PORT: String(ports.worker),
      PROMETHEUS_PORT: String(ports.metrics),
      ...internal(certificates.worker),
    },
  });
  started.child.stdout?.on('data', (chunk: Buffer) => {
    workerLog += chunk.toString();
  });
  worker = started;
  await started.printed(/"event":"service.ready"/);
}

before(async () => {
  [database, authority] = await Promise.all([createTestDatabase(), TestAuthority.make()]);
  certificates = { worker: await authority.issue('worker'), app: await authority.issue('app') };
  dataDir = await mkdtemp(join(tmpdir(), 'veza-workers-'));
  const [rtmp, ingest, workerPort, metrics] = (await freePorts(4)) as [number, number, number, number];
  ports = { rtmp, ingest, worker: workerPort, metrics };
  await startWorker();
  app = await Server.start({
    dataDir,
    under: UNDER,
    env: { ROLES: 'app,chat', DATABASE_URL: database.url, WORKER_URL: `https://localhost:${workerPort}`, ...internal(certificates.app) },
  });
});
after(async () => {
  await Promise.all(publishers.map((publisher) => publisher.kill('SIGKILL')));
  await app?.stop();
  await worker?.kill('SIGKILL');
  await database?.drop();
  await authority?.remove();
});

function publish(key: string): Running {
  const publisher = punctual(publishRtmp(`rtmp://127.0.0.1:${ports.rtmp}/live/${key}`, { hz: HZ }));
  publishers.push(publisher);
  return publisher;
}

/** Rejects with the rules that are broken. */
async function validate(path: string): Promise<void> {
  const [command = '', ...args] = [...UNDER, process.execPath, 'dist/src/validator/validate.js', `${app.url}${path}`];
  const { code, stdout, stderr } = await start(command, args).ended;
  assert.equal(code, 0, `${path}: ${stdout}${stderr}`);
}

/** Status, Retry-After and the answer's text. */
async function ask(path: string): Promise<[number, string | null, string]> {
  const answer = await fetch(`${app.url}${path}`);
  return [answer.status, answer.headers.get('retry-after'), await answer.text()];
}

async function told(body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    console.log(`${app.logTail(15)}\n${tail(workerLog, 25)}`);
    throw error;
  }
}

test('a show at a worker is heard through the app, keeps every rule, and can be acted on', () =>
  told(async () => {
    const key = await app.createChannel('first');
    publish(key);
    await app.onAir('first', 3);
    const hls = listen(`${app.url}/live/first/master.m3u8`);
    const endless = listen(`${app.url}/listen/first.mp3`);
    await Promise.all([validate('/live/first/master.m3u8'), validate('/live/first/manifest.mpd')]);
    await eventually('both are heard', () => (hls.heardS() > 3 && endless.heardS() > 3) || undefined);
    for (const heard of [hls, endless]) assert.ok(toneShare((await heard.stop()).left, HZ) > 0.9);

    await app.api('POST', '/channels/first/now-playing', { title: 'Song', artist: 'Band' });
    assert.equal((await eventually('the title is told', async () => (await app.channel('first')).nowPlaying ?? undefined)).title, 'Song');
    assert.match((await app.text('/live/first/aac-128/index.m3u8')) ?? '', /EXT-X-DATERANGE/);
    const inRoom = async () => (await app.api<{ items: { t: string; title?: string }[] }>('GET', '/rooms/first/messages')).items;
    const said = await eventually('the room is told', async () => ((await inRoom()).length > 0 ? inRoom() : undefined));
    assert.deepEqual(
      said.map(({ t, title }) => [t, title]),
      [['now', 'Song']],
    );
    assert.equal((await app.channel('first')).state, 'live');
    // What is private is closed by the app, whatever the worker has.
    await app.api('PATCH', '/channels/first', { visibility: 'private' });
    assert.equal((await ask('/live/first/master.m3u8'))[0], 404);
    await app.api('PATCH', '/channels/first', { visibility: 'public' });
    assert.equal((await ask('/live/first/master.m3u8'))[0], 200);

    await app.api('POST', '/channels/first/end');
    assert.equal((await app.channel('first')).state, 'offline');
    assert.ok(readPlaylist((await app.text('/live/first/aac-128/index.m3u8')) ?? '').ended);
    await assert.rejects(app.api('POST', '/channels/first/end'), /409/);
    const { items } = await app.api<{ items: { id: string }[] }>('GET', '/channels/first/broadcasts');
    assert.equal(items.length, 1);
    await eventually('the recording is there', () => app.text(`/vod/${items[0]!.id}/master.m3u8`));
    await validate(`/vod/${items[0]!.id}/master.m3u8`);
  }));

test('the worker is killed: live things are 503, recordings go on; it comes back, and so do numbers, sound and who listened', () =>
  told(async () => {
    const key = await app.createChannel('second');
    const broadcaster = publish(key);
    await app.onAir('second', 5);
    // It stays good for the show that is on air, as it does in one process.
    await app.api('POST', '/channels/second/stream-key');
    const endless = listen(`${app.url}/listen/second.mp3`);
    await eventually('it is heard', () => endless.heardS() > 2 || undefined);
    const before = readPlaylist((await app.text('/live/second/aac-128/index.m3u8'))!);
    const old = listed((await app.text('/live/second/aac-128/index.m3u8'))!).filter(({ gap }) => !gap)[0]!;

    await worker!.kill('SIGKILL');
    await broadcaster.ended;
    await eventually('the app says so', async () => (await ask('/health/ready'))[0] === 503 || undefined);
    assert.deepEqual(JSON.parse((await ask('/health/ready'))[2]).failing, ['worker']);
    assert.equal((await ask('/health/live'))[0], 200);
    for (const path of ['master.m3u8', 'manifest.mpd', 'aac-128/index.m3u8', `aac-128/index.m3u8?_HLS_msn=${before.openNumber + 1}`]) {
      const [status, retryAfter, text] = await ask(`/live/second/${path}`);
      assert.deepEqual([path, status, retryAfter, JSON.parse(text).code], [path, 503, '1', 'unavailable']);
    }
    assert.equal((await ask(`/live/second/aac-128/${old.uri}`))[0], 200);
    const { items } = await app.api<{ items: { id: string }[] }>('GET', '/assets');
    await validate(`/vod/${items[0]!.id}/master.m3u8`);
    assert.equal((await app.channel('second')).state, 'holding');
    await assert.rejects(app.api('POST', '/channels/second/now-playing', { title: 'x' }), /503/);
    const heardBefore = endless.heardS();

    await startWorker();
    publish(key);
    const now = await eventually('the show goes on', async () => {
      const text = await app.text('/live/second/aac-128/index.m3u8');
      return text && readPlaylist(text).openNumber > before.openNumber + 4 ? readPlaylist(text) : undefined;
    });
    assert.equal((await ask('/health/ready'))[0], 200);
    assert.ok(now.mediaSequence >= before.mediaSequence);
    assert.equal(now.discontinuities.length, 1);
    assert.ok(now.gaps.filter((number) => number >= before.openNumber - 1).length <= 1);
    assert.equal(now.ended, false);
    await eventually('the same connection is heard again', () => endless.heardS() > heardBefore + 4 || undefined);
    const sound = (await endless.stop()).left;
    assert.ok(toneShare(sound.subarray(-48_000), HZ) > 0.9);
    await eventually('live again', async () => (await app.channel('second')).state === 'live' || undefined);
    await validate('/live/second/master.m3u8');
  }));

test('a channel that is deleted goes off air at the worker; its broadcaster does not come in again', () =>
  told(async () => {
    const key = await app.createChannel('third');
    const broadcaster = publish(key);
    await app.onAir('third', 1);
    await app.api('DELETE', '/channels/third');
    await broadcaster.ended;
    const [status, , text] = await ask('/live/third/aac-128/index.m3u8');
    assert.ok(status === 404 || readPlaylist(text).ended);
    assert.notEqual((await publish(key).ended).code, 0);
  }));

test('the worker’s port is open to nobody else, and the app has no port for broadcasters', async () => {
  const refused = await new Promise<string>((resolve) => {
    request({ host: '127.0.0.1', port: ports.worker, path: '/v1/feed', rejectUnauthorized: false, agent: false }, (res) =>
      resolve(String(res.statusCode)),
    )
      .on('error', () => resolve('nothing'))
      .end();
  });
  assert.equal(refused, 'nothing');
  await assert.rejects(fetch(`http://127.0.0.1:${app.ingestPort}/`));
});

test('both end in order when they are asked to', async () => {
  assert.equal(await app.stopGracefully(), 0);
  assert.equal((await worker!.kill('SIGTERM')).code, 0);
});
