import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import Koa from 'koa';
import { readiness } from '../../src/app/http/health.js';
import { listenHttp } from '../../src/app/http/listener.js';
import { startMetricsServer } from '../../src/app/http/metrics-server.js';
import { loadPages } from '../../src/app/http/static.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { Metrics } from '../../src/runtime/metrics.js';
import { startApp } from '../support/app.js';

const clock = new SystemClock();

test('ready: every part answers, or the ones that do not are named', async () => {
  const fake = new FakeClock();
  assert.deepEqual(await readiness({ a: () => true, b: async () => 1 }, fake, silentLog), { status: 'ok', failing: [] });
  const asked = readiness(
    {
      slow: () => new Promise(() => {}),
      fine: () => undefined,
      thrown: () => {
        throw new Error('x');
      },
      rejected: async () => {
        throw new Error('x');
      },
    },
    fake,
    silentLog,
  );
  fake.advance(2000);
  assert.deepEqual(await asked, { status: 'unavailable', failing: ['rejected', 'slow', 'thrown'] });
});

test('health over HTTP, and errors of the inside stay inside', async () => {
  let broken = false;
  const app = await startApp({
    health: {
      ingest: () => {
        if (broken) throw new Error('secret reason');
      },
    },
    pages: {
      middleware: (ctx, next) => {
        if (ctx.path === '/broken') throw new Error('secret reason');
        return next();
      },
    },
  });
  assert.equal((await fetch(`${app.url}/health/live`)).status, 200);
  assert.deepEqual(await (await fetch(`${app.url}/health/ready`)).json(), { status: 'ok', failing: [] });
  broken = true;
  const ready = await fetch(`${app.url}/health/ready`);
  assert.equal(ready.status, 503);
  assert.deepEqual(await ready.json(), { status: 'unavailable', failing: ['ingest'] });
  assert.equal((await fetch(`${app.url}/health/ready`, { method: 'POST' })).status, 405);

  for (const path of ['/broken', '/api/v1/channels']) {
    if (path !== '/broken') await app.database.stop();
    const response = await fetch(app.url + path);
    const text = await response.text();
    assert.equal(JSON.parse(text).code, path === '/broken' ? 'internal' : 'unavailable', text);
    assert.doesNotMatch(text, /secret|postgres/);
    assert.equal(response.headers.get('content-type'), 'application/problem+json');
  }
  assert.equal((await fetch(`${app.url}/health/live`)).status, 200, 'a database that is away is no reason to be killed');
  await app.stop();
});

test('a listener stops when what is under way has ended, and cuts what does not', async () => {
  const fake = new FakeClock();
  let answer = () => {};
  const asked = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const listener = await listenHttp(
    (_req, res) => {
      res.write('begun');
      answer();
    },
    { host: '127.0.0.1', port: 0 },
    fake,
  );
  const response = await fetch(`http://127.0.0.1:${listener.port}/`);
  await asked;
  const stopped = listener.stop(5000);
  assert.equal(listener.stop(1), stopped, 'twice is once');
  await assert.rejects(fetch(`http://127.0.0.1:${listener.port}/`), 'no new connection');
  fake.advance(5000);
  await stopped;
  await assert.rejects(response.text());
});

test('the metrics of the contract are there, with the values of those who provide them', async () => {
  const metrics = new Metrics({ clock: new FakeClock(), service: 'veza', version: '1', memoryLimitMb: 1000 });
  metrics.provide('listeners_active', () => 7);
  metrics.duration('part_publish_delay_seconds', 0.09);
  metrics.request('/x', 'GET', 503, 0.1);
  metrics.counter('ingest_cut_total', 'x').add(2);
  metrics.counter('ingest_cut_total', 'x').add();
  let rising = 5;
  metrics.provideCount('renders_total', 'x', () => rising);
  await metrics.text();
  rising = 9;
  const text = await metrics.text();
  for (const name of [
    'http_request_duration_seconds',
    'http_requests_total',
    'http_errors_total',
    'cpu_usage_percent',
    'memory_usage_percent',
    'stream_quality_degraded_percent',
    'streams_active',
    'listeners_active',
    'ingest_bitrate_bits',
    'part_publish_delay_seconds',
    'segment_upload_seconds',
    'segment_upload_backlog',
    'nodejs_eventloop_lag_seconds',
  ]) {
    assert.match(text, new RegExp(`^# TYPE ${name} `, 'm'));
  }
  const value = (name: string) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(text)?.[1]);
  assert.equal(value('listeners_active'), 7);
  assert.equal(value('streams_active'), 0);
  assert.equal(value('ingest_cut_total'), 3);
  assert.equal(value('renders_total'), 9);
  assert.equal(value('http_errors_total'), 1);
  assert.equal(value('part_publish_delay_seconds_count'), 1);
  assert.ok(value('memory_usage_percent') > 0.5 && value('memory_usage_percent') < 100);
});

test('the operators’ port: metrics, and profiles of a running process', async () => {
  const metrics = new Metrics({ clock, service: 'veza', version: '1', memoryLimitMb: undefined });
  const listener = await startMetricsServer({ host: '127.0.0.1', port: 0, metrics, clock, log: silentLog });
  const get = (path: string) => fetch(`http://127.0.0.1:${listener.port}${path}`);
  const scraped = await get('/metrics');
  assert.match(scraped.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/);
  assert.match(await scraped.text(), /^veza_info\{version="1",service="veza"\} 1$/m);
  for (const seconds of ['0', '121', '-1', 'x', '1.5', ''])
    assert.equal((await get(`/debug/pprof/profile?seconds=${seconds}`)).status, 400, seconds);
  assert.equal((await get('/other')).status, 404);
  const taking = get('/debug/pprof/profile?seconds=1');
  let second = await get('/debug/pprof/heap?seconds=1');
  const first = await taking;
  // Whichever came first is taken; the other is told so.
  assert.deepEqual([first.status, second.status].sort(), [200, 409]);
  assert.ok(((await (first.status === 200 ? first : second).json()) as object) !== null);
  second = await get('/debug/pprof/heap?seconds=1');
  assert.ok('head' in ((await second.json()) as object));
  await listener.stop(1000);
});

describe('pages', () => {
  const built = async (files: Record<string, string>) => {
    const dir = await mkdtemp(join(tmpdir(), 'veza-pages-'));
    await mkdir(join(dir, 'assets'));
    for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
    const pages = await loadPages({ dir, mediaOrigins: ['https://cdn.example'] });
    const app = new Koa();
    app.use(pages!.middleware);
    const listener = await listenHttp(app.callback(), { host: '127.0.0.1', port: 0 }, clock);
    const get = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${listener.port}${path}`, init);
    return {
      get,
      async stop() {
        await listener.stop(1000);
        await rm(dir, { recursive: true });
      },
    };
  };
  const script = 'console.log(1);\n'.repeat(100);

  test('one document for the page addresses, and nothing for others', async () => {
    const { get, stop } = await built({
      'index.html': '<p>player',
      'studio.html': '<p>studio',
      'assets/main-Ab12_-Cd.js': script,
      'icon.svg': '<svg/>',
    });
    for (const path of ['/', '/index.html', '/c/radio', '/r/0Ab_-9']) assert.equal(await (await get(path)).text(), '<p>player', path);
    assert.equal(await (await get('/studio')).text(), '<p>studio');
    assert.equal((await get('/icon.svg')).headers.get('content-type'), 'image/svg+xml');
    for (const path of [
      '/c/',
      '/c/a',
      '/c/radio/x',
      '/c/Radio',
      '/other',
      '/assets/',
      '/assets/../index.html/x',
      '/..%2fpackage.json',
      '/assets/gone.js',
    ]) {
      assert.equal((await get(path)).status, 404, path);
    }
    assert.equal((await get('/', { method: 'POST' })).status, 405);
    const options = await get('/', { method: 'OPTIONS' });
    assert.deepEqual([options.status, options.headers.get('allow')], [204, 'GET, HEAD, OPTIONS']);
    await stop();
  });

  test('hashed files for good, pages asked for again; compressed once; conditional', async () => {
    const { get, stop } = await built({ 'index.html': '<p>player', 'assets/main-Ab12_-Cd.js': script });
    const hashed = await get('/assets/main-Ab12_-Cd.js', { headers: { 'accept-encoding': 'gzip, deflate, br' } });
    assert.equal(hashed.headers.get('cache-control'), 'public, max-age=31536000, immutable');
    assert.equal(hashed.headers.get('content-encoding'), 'br');
    assert.equal(await hashed.text(), script);
    assert.ok(Number(hashed.headers.get('content-length')) < 200);
    assert.equal(
      (await get('/assets/main-Ab12_-Cd.js', { headers: { 'accept-encoding': 'gzip' } })).headers.get('content-encoding'),
      'gzip',
    );
    const plain = await get('/assets/main-Ab12_-Cd.js', { headers: { 'accept-encoding': 'identity' } });
    assert.equal(plain.headers.get('content-encoding'), null);
    assert.equal(plain.headers.get('content-length'), String(script.length));
    assert.equal(plain.headers.get('vary'), 'Accept-Encoding');

    const page = await get('/');
    assert.equal(page.headers.get('cache-control'), 'no-cache');
    const again = await get('/', { headers: { 'if-none-match': page.headers.get('etag')!, 'cache-control': 'max-age=0' } });
    assert.equal(again.status, 304);
    assert.equal((await get('/', { method: 'HEAD' })).headers.get('content-length'), '9');
    await stop();
  });

  test('a player may be framed, the studio may not; scripts are our own', async () => {
    const { get, stop } = await built({ 'index.html': '<p>player' });
    const player = (await get('/c/radio')).headers.get('content-security-policy')!;
    assert.match(player, /script-src 'self';/);
    assert.match(player, /media-src 'self' https:\/\/cdn\.example blob: data:/);
    assert.match(player, /worker-src 'self' blob:/);
    assert.match(player, /frame-ancestors \*/);
    const studio = await get('/studio');
    assert.match(studio.headers.get('content-security-policy')!, /frame-ancestors 'none'/);
    assert.equal(studio.headers.get('x-frame-options'), 'DENY');
    await stop();
  });

  test('without a build there are none', async () => {
    assert.equal(await loadPages({ dir: '/nonexistent', mediaOrigins: [] }), undefined);
  });
});
