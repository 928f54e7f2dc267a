import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:http2';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { freePorts } from '../support/free-port.js';
import { ensurePackages } from '../support/packages.js';
import { eventually, type Running, run, start } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import { readPlaylist, Server } from '../support/server.js';

/** infra/nginx/veza.conf, as it is but for names, ports and paths, by the real nginx before the real service. */
class Edge {
  readonly dir: string;
  readonly port: number;
  readonly #nginx: Running;

  private constructor(dir: string, port: number, nginx: Running) {
    this.dir = dir;
    this.port = port;
    this.#nginx = nginx;
  }

  static async start(origin: Server): Promise<Edge> {
    const dir = await mkdtemp(join(tmpdir(), 'veza-nginx-'));
    const [port = 0, plainPort = 0] = await freePorts(2);
    const [cert, key] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
    const subject = ['-subj', '/CN=radio.example', '-addext', 'subjectAltName=DNS:radio.example'];
    await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', ...subject, '-keyout', key, '-out', cert]);
    let site = await readFile('infra/nginx/veza.conf', 'utf8');
    const put = (from: string, to: string) => {
      assert.ok(site.includes(from), `the configuration has ${from}`);
      site = site.replaceAll(from, to);
    };
    put('127.0.0.1:8080', `127.0.0.1:${origin.port}`);
    put('listen 443 ', `listen 127.0.0.1:${port} `);
    put('listen 80;', `listen 127.0.0.1:${plainPort};`);
    put('/var/cache/nginx/veza', join(dir, 'cache'));
    put('/etc/letsencrypt/live/radio.example/fullchain.pem', cert);
    put('/etc/letsencrypt/live/radio.example/privkey.pem', key);
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${join(dir, name)};`);
    await mkdir(join(dir, 'cache'));
    await writeFile(
      join(dir, 'nginx.conf'),
      `daemon off; master_process off; pid ${join(dir, 'pid')}; error_log stderr warn; events { worker_connections 512; }
       http { ${temporary.join(' ')}\n${site} }`,
    );
    const args = ['-p', dir, '-e', 'stderr', '-c', join(dir, 'nginx.conf')];
    const checked = await run('nginx', ['-t', ...args]);
    assert.doesNotMatch(checked.stderr, /\[(?:warn|error|emerg)\]/);
    const edge = new Edge(dir, port, start('nginx', args));
    await eventually('nginx answers', async () => ((await edge.get('/health/live')).status === 200 ? true : undefined));
    return edge;
  }

  async stop(): Promise<void> {
    await this.#nginx.kill('SIGTERM');
    await rm(this.dir, { recursive: true, force: true });
  }

  /** `from`: an address of this machine, as whose client it is asked. */
  get(
    path: string,
    headers: Record<string, string> = {},
    from = '127.0.0.1',
  ): Promise<{ status: number; header(name: string): string; bytes: Buffer }> {
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', localAddress: from, port: this.port, path, headers: { host: 'radio.example', ...headers } };
      const sent = request({ ...options, rejectUnauthorized: false, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            header: (name) => String(response.headers[name] ?? ''),
            bytes: Buffer.concat(chunks),
          }),
        );
      });
      sent.on('error', reject);
      sent.end();
    });
  }
}

let server: Server;
let edge: Edge;
let publisher: Running;

before(async () => {
  await ensurePackages('nginx', 'openssl', 'ffmpeg');
  server = await Server.start({ env: { TRUST_PROXY: '1' } });
  edge = await Edge.start(server);
  publisher = publishRtmp(server.rtmpUrl(await server.createChannel('radio')));
  await server.onAir('radio', 2);
});
after(async () => {
  await publisher?.kill();
  await edge?.stop();
  await server?.stop();
});

const base = '/live/radio/aac-128';

/** The live playlist through the edge, and the segments in it that can be had. */
async function playlist() {
  const answer = await edge.get(`${base}/index.m3u8`);
  assert.equal(answer.status, 200);
  const text = answer.bytes.toString();
  const { segments, mediaSequence, gaps, openNumber } = readPlaylist(text);
  const whole = segments.filter((_, index) => !gaps.includes(mediaSequence + index));
  return { answer, text, whole, openNumber };
}

test('a finished segment is fetched once, whatever stands behind the question mark', async () => {
  const { whole } = await playlist();
  const path = `${base}/${whole[0]}`;
  const first = await edge.get(path);
  assert.equal(first.status, 200);
  assert.equal(first.header('x-cache-status'), 'MISS');
  assert.equal(first.header('cache-control'), 'public, max-age=31536000, immutable');
  assert.equal(first.header('access-control-allow-origin'), '*');

  const requests = await server.metric('playback_requests_total');
  for (const query of ['', '?CMCD=sid%3D%22one%22', '?CMCD=sid%3D%22two%22', '?b=1&a=2']) {
    const again = await edge.get(path + query);
    assert.equal(again.header('x-cache-status'), 'HIT', `${query || 'the same again'}`);
    assert.deepEqual(again.bytes, first.bytes);
  }
  const part = await edge.get(path, { range: 'bytes=4-7' });
  assert.equal(part.status, 206);
  assert.deepEqual(part.bytes, first.bytes.subarray(4, 8));
  assert.equal(await server.metric('playback_requests_total'), requests, 'none of these reached the service');
});

test('init segments are kept too; playlists, parts and what is missing are not', async () => {
  const { answer, text } = await playlist();
  assert.equal(answer.header('x-cache-status'), '');
  assert.equal(answer.header('cache-control'), 'public, max-age=1');
  const init = `${base}/${/URI="([^"]+-init\.mp4)"/.exec(text)?.[1]}`;
  assert.equal((await edge.get(init)).header('x-cache-status'), 'MISS');
  assert.equal((await edge.get(init)).header('x-cache-status'), 'HIT');
  const part = await edge.get(`${base}/${[...text.matchAll(/EXT-X-PART:.*URI="([^"]+)"/g)].at(-1)?.[1]}`);
  assert.equal(part.status, 200);
  assert.equal(part.header('x-cache-status'), '');
  for (const time of ['first', 'second']) {
    const missing = await edge.get(`${base}/nosuchrun-1.m4s`);
    assert.equal(missing.status, 404, time);
    assert.equal(missing.header('x-cache-status'), 'MISS', time);
    assert.equal(missing.header('cache-control'), 'no-store', time);
  }
});

test('a blocked playlist waits through the edge and is compressed', async () => {
  const { openNumber } = await playlist();
  const blocked = await edge.get(`${base}/index.m3u8?_HLS_msn=${openNumber}&anything=else`, { 'accept-encoding': 'gzip' });
  assert.equal(blocked.status, 200);
  assert.equal(blocked.header('cache-control'), 'public, max-age=6');
  assert.equal(blocked.header('content-encoding'), 'gzip');
});

test('listeners are told apart by their own addresses, and nobody can make up more', async () => {
  const count = 20;
  const asked = Array.from({ length: count }, (_, i) => {
    const madeUp = { 'x-forwarded-for': `10.0.0.${i + 1}` };
    return [
      edge.get(`${base}/index.m3u8`, { 'user-agent': 'one', ...madeUp }, `127.0.1.${i + 1}`),
      edge.get(`${base}/index.m3u8`, { 'user-agent': 'two', ...madeUp }),
    ];
  });
  await Promise.all(asked.flat());
  const { listeners } = await server.api<{ listeners: number }>('GET', '/channels/radio');
  // A few more: what the tests before this asked.
  assert.ok(listeners >= count + 1 && listeners < count + 10, `${listeners} listeners`);
});

test('HTTP/2: a segment in the making comes as it is made, and is kept only once it is whole', async () => {
  const session = connect(`https://127.0.0.1:${edge.port}`, { rejectUnauthorized: false });
  try {
    const { whole, openNumber } = await playlist();
    const run = whole[0]!.split('-')[0];
    // The next one: it has not begun, so that its first bytes come long before its last.
    const path = `${base}/${run}-${openNumber + 1}.m4s`;
    const stream = session.request({ ':path': path, ':authority': 'radio.example' });
    const finished = server.text(`${base}/index.m3u8?_HLS_msn=${openNumber + 1}`).then(() => 'finished');
    const begun = once(stream, 'readable').then(() => 'first bytes');
    const order = Promise.race([begun, finished]);
    let status: unknown;
    stream.on('response', (headers) => {
      status = headers[':status'];
      assert.equal(headers['x-cache-status'], 'MISS');
    });
    assert.equal(await order, 'first bytes', 'they come before the segment is finished');
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(chunk as Buffer);
    await finished;
    assert.equal(session.alpnProtocol, 'h2');
    assert.equal(status, 200);
    assert.equal((await edge.get(path)).header('x-cache-status'), 'MISS', 'what was passed on is not kept');
    const kept = await edge.get(path);
    assert.equal(kept.header('x-cache-status'), 'HIT');
    assert.deepEqual(kept.bytes, Buffer.concat(chunks));
  } finally {
    session.close();
  }
});

test('while the service is away a player reads 503 and may come back; what is kept is still served', async () => {
  const { whole } = await playlist();
  const path = `${base}/${whole[0]}`;
  await edge.get(path);
  await server.kill9();
  const away = await edge.get(`${base}/index.m3u8`);
  assert.equal(away.status, 503);
  assert.equal(away.header('access-control-allow-origin'), '*');
  assert.equal(away.header('cache-control'), 'no-store');
  assert.equal((await edge.get(path)).header('x-cache-status'), 'HIT');
  await server.restart();
  assert.equal((await edge.get('/health/ready')).status, 200);
});
