import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { after, before, test } from 'node:test';
import { NginxEdge } from '../support/nginx.js';
import { ensurePackages } from '../support/packages.js';
import type { Running } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import { readPlaylist, Server } from '../support/server.js';

let server: Server;
let edge: NginxEdge;
let publisher: Running;

before(async () => {
  await ensurePackages('nginx', 'openssl', 'ffmpeg');
  server = await Server.start({ env: { TRUST_PROXY: '1' } });
  edge = await NginxEdge.start(server);
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
