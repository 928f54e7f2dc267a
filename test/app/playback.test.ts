import assert from 'node:assert/strict';
import { get, type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { Admissions } from '../../src/app/playback/admission.js';
import { MAX_KEYS_PER_ADDRESS } from '../../src/app/playback/audience.js';
import type { PlaybackOptions } from '../../src/app/playback/playback-options.js';
import { type FakeService, startPlayback } from '../support/fake-edge.js';

async function service(t: TestContext, options: Partial<PlaybackOptions> = {}): Promise<FakeService> {
  const started = await startPlayback(options);
  t.after(() => started.close());
  return started;
}

/** Resolves when the condition holds; looked at after each turn of the event loop. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

const waiting = (s: FakeService, count: number) => until(() => s.playback.counters.waiting === count);

interface Reply {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

/** Without a pool and without automatic decompression, unlike fetch. */
function ask(url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Reply> {
  return new Promise((resolve, reject) => {
    request(url, { headers, method, agent: false }, (res) => {
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => chunks.push(chunk));
      res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(chunks) }));
      res.on('error', reject);
    })
      .on('error', reject)
      .end();
  });
}

async function problem(reply: Promise<Reply>, status: number, code: string): Promise<void> {
  const { status: got, headers, body } = await reply;
  assert.equal(got, status);
  assert.equal(headers['content-type'], 'application/problem+json');
  assert.equal(headers['cache-control'], 'no-store');
  assert.equal(headers['access-control-allow-origin'], '*');
  assert.equal(JSON.parse(body.toString()).code, code);
}

test('headers of each kind of answer are those that a CDN needs', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  channel.parts(2);
  const immutable = 'public, max-age=31536000, immutable';
  const table: [path: string, type: string, cacheControl: string][] = [
    ['/live/radio/master.m3u8', 'application/vnd.apple.mpegurl', 'public, max-age=30'],
    ['/live/radio/opus.m3u8', 'application/vnd.apple.mpegurl', 'public, max-age=30'],
    ['/live/radio/dvr.m3u8', 'application/vnd.apple.mpegurl', 'public, max-age=30'],
    ['/live/radio/aac-128/index.m3u8', 'application/vnd.apple.mpegurl', 'public, max-age=1'],
    ['/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0', 'application/vnd.apple.mpegurl', 'public, max-age=6'],
    ['/live/radio/mp3-128/index.m3u8', 'application/vnd.apple.mpegurl', 'public, max-age=1'],
    ['/live/radio/aac-128/dvr.m3u8', 'application/vnd.apple.mpegurl', 'public, max-age=1'],
    ['/live/radio/manifest.mpd', 'application/dash+xml', 'public, max-age=1'],
    [`/live/radio/opus-96/${channel.run}-init.mp4`, 'audio/mp4', immutable],
    [channel.segmentPath('aac-128', 11), 'audio/mp4', immutable],
    [channel.partPath('aac-128', 12, 5), 'audio/mp4', immutable],
    [channel.segmentPath('mp3-128', 11), 'audio/mpeg', immutable],
    ['/t/abc/live/radio/master.m3u8', 'application/vnd.apple.mpegurl', 'public, max-age=30'],
  ];
  for (const [path, type, cacheControl] of table) {
    const reply = await ask(s.url + path);
    assert.equal(reply.status, 200, path);
    assert.equal(reply.headers['content-type'], type, path);
    assert.equal(reply.headers['cache-control'], cacheControl, path);
    assert.equal(reply.headers['access-control-allow-origin'], '*', path);
    assert.match(reply.headers['access-control-expose-headers'] ?? '', /Date/, path);
    assert.equal(reply.headers['content-length'], String(reply.body.length), path);
    const isText = type !== 'audio/mp4' && type !== 'audio/mpeg';
    assert.equal(reply.headers.vary, isText ? 'Accept-Encoding' : undefined, path);

    const head = await ask(s.url + path, {}, 'HEAD');
    assert.deepEqual([head.status, head.body.length, head.headers['content-length']], [200, 0, String(reply.body.length)], path);
    const again = await ask(s.url + path, { 'If-None-Match': reply.headers.etag ?? '' });
    assert.deepEqual([again.status, again.body.length, again.headers['cache-control']], [304, 0, cacheControl], path);
  }
});

test('unknown channels, channels off air, unknown names and methods are refused, never cached', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  for (const path of [
    '/live/nobody/master.m3u8',
    '/live/nobody/aac-128/index.m3u8',
    '/live/nobody/manifest.mpd',
    '/live/radio/aac-999/index.m3u8',
    '/live/radio/aac-128/other.m3u8',
    '/live/radio/aac-128/..%2f..%2fsecret',
    '/live/radio/aac-128/x/y',
    '/live/radio',
    '/live/',
    `/live/radio/aac-128/${channel.run}-10.0.mp3`,
    '/vod/x/..%2fy.m3u8',
    '/vod/unknown/master.m3u8',
    '/vod/unknown/script.js',
    '/listen/radio.wav',
    '/listen/nobody.mp3',
  ]) {
    await problem(ask(s.url + path), 404, 'not_found');
  }
  const post = await ask(`${s.url}/live/radio/master.m3u8`, {}, 'POST');
  assert.deepEqual([post.status, post.headers.allow, post.headers['cache-control']], [405, 'GET, HEAD, OPTIONS', 'no-store']);
  s.edge.remove('radio');
  await problem(ask(`${s.url}/live/radio/master.m3u8`), 404, 'not_found');
});

test('other paths go on to the next middleware', async (t) => {
  const s = await service(t);
  for (const path of ['/', '/c/radio', '/api/v1/channels', '/tx/abc', '/timer', '/lives/x']) {
    assert.equal((await ask(s.url + path)).body.toString(), 'next', path);
  }
});

test('a preflight for CMCD headers is answered', async (t) => {
  const s = await service(t);
  const reply = await ask(`${s.url}/live/radio/aac-128/index.m3u8`, { Origin: 'https://a.example' }, 'OPTIONS');
  assert.equal(reply.status, 204);
  assert.equal(reply.headers['access-control-allow-origin'], '*');
  assert.match(reply.headers['access-control-allow-headers'] ?? '', /If-Match, If-None-Match, .*CMCD-Session/);
  assert.deepEqual([reply.headers['content-length'], reply.headers.allow], [undefined, 'GET, HEAD, OPTIONS']);
});

test('/time is the one clock, with milliseconds, never cached', async (t) => {
  const s = await service(t);
  s.clock.advance(1234);
  const reply = await ask(`${s.url}/time`);
  assert.equal(reply.body.toString(), new Date(s.clock.wallMs()).toISOString());
  assert.equal(reply.headers['cache-control'], 'no-store');
});

test('a playlist is rendered and compressed once, and compressed only for who asks', async (t) => {
  const s = await service(t);
  s.edge.start('radio').segments(3);
  const url = `${s.url}/live/radio/aac-128/index.m3u8`;
  const plain = await ask(url);
  const zipped = await ask(url, { 'Accept-Encoding': 'br, gzip' });
  const refused = await ask(`${url}?utm=1&x`, { 'Accept-Encoding': 'gzip;q=0, br' });
  assert.equal(plain.headers['content-encoding'], undefined);
  assert.equal(zipped.headers['content-encoding'], 'gzip');
  assert.equal(refused.headers['content-encoding'], undefined);
  assert.deepEqual(gunzipSync(zipped.body), plain.body);
  assert.equal(s.playback.counters.renders, 1);
});

test('rules 24 and 25: a blocking reload waits for its part, a whole segment waits for all of it, what is there is answered at once', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  channel.part();
  const url = `${s.url}/live/radio/aac-128/index.m3u8`;
  for (const now of ['_HLS_msn=12&_HLS_part=0', '_HLS_msn=11', '_HLS_msn=3&_HLS_part=5', 'a=b&_HLS_msn=11&_HLS_part=7']) {
    assert.equal((await ask(`${url}?${now}`)).status, 200, now);
  }
  const order: string[] = [];
  const wait = (query: string) =>
    ask(`${url}?${query}`).then((reply) => {
      order.push(query);
      return reply;
    });
  const part = wait('_HLS_msn=12&_HLS_part=1');
  const segment = wait('_HLS_msn=12');
  const rolled = wait('_HLS_msn=12&_HLS_part=6');
  await waiting(s, 3);
  channel.part();
  const answered = await part;
  assert.match(answered.body.toString(), new RegExp(`${channel.run}-12\\.1\\.m4s`));
  assert.equal(answered.headers['cache-control'], 'public, max-age=6');
  channel.parts(4);
  assert.doesNotMatch((await segment).body.toString(), /PART:[^\n]*-13\.0\.m4s/);
  assert.equal(s.playback.counters.waiting, 1, 'a part past the last waits for the first of the next segment');
  channel.part();
  await rolled;
  assert.deepEqual(order, ['_HLS_msn=12&_HLS_part=1', '_HLS_msn=12', '_HLS_msn=12&_HLS_part=6']);
  assert.equal(s.playback.counters.waiting, 0);
});

test('rule 26: bad delivery directives are 400', async (t) => {
  const s = await service(t);
  s.edge.start('radio').segments(2);
  for (const query of [
    '_HLS_part=1',
    '_HLS_msn=x',
    '_HLS_msn=-1',
    '_HLS_msn=12&_HLS_part=1.5',
    '_HLS_msn=14',
    '_HLS_msn=12&_HLS_part=99',
  ]) {
    await problem(ask(`${s.url}/live/radio/aac-128/index.m3u8?${query}`), 400, 'bad_request');
  }
});

test('rule 27: after 3 target durations a waiting request is 503, the oldest first', async (t) => {
  const s = await service(t);
  s.edge.start('radio').segments(2);
  const url = `${s.url}/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0`;
  const first = ask(url);
  await waiting(s, 1);
  s.clock.advance(4000);
  const second = ask(url);
  await waiting(s, 2);
  s.clock.advance(1999);
  assert.equal(s.playback.counters.waiting, 2);
  s.clock.advance(1);
  await problem(first, 503, 'unavailable');
  assert.equal(s.playback.counters.waiting, 1);
  s.clock.advance(4000);
  await problem(second, 503, 'unavailable');
  assert.equal(s.playback.counters.timeouts, 2);
});

test('rule 28: a client that goes away leaves no waiter', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  const paths = ['/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0', channel.partPath('aac-128', 12, 0)];
  const requests = paths.map((path) => get(s.url + path, { agent: false }).on('error', () => undefined));
  await waiting(s, 2);
  for (const made of requests) made.destroy();
  await waiting(s, 0);
  channel.part();
  assert.equal(s.playback.counters.renders, 0, 'nobody is rendered for');
});

test('200 clients that wait for one part cost one rendering and get the same bytes', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(8);
  const url = `${s.url}/live/radio/aac-128/index.m3u8?_HLS_msn=18&_HLS_part=0`;
  const replies = Array.from({ length: 200 }, () => ask(url));
  await waiting(s, 200);
  channel.part();
  const bodies = new Set((await Promise.all(replies)).map((reply) => reply.body.toString()));
  assert.equal(bodies.size, 1);
  assert.equal(s.playback.counters.renders, 1);
});

test('one more than may wait is refused', async (t) => {
  const s = await service(t, { maxWaiting: 2 });
  const channel = s.edge.start('radio');
  channel.segments(2);
  const url = `${s.url}/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0`;
  const kept = [ask(url), ask(url)];
  await waiting(s, 2);
  await problem(ask(url), 503, 'busy');
  channel.part();
  for (const reply of kept) assert.equal((await reply).status, 200);
});

test('rule 21: a delta update is an answer of its own', async (t) => {
  const s = await service(t);
  s.edge.start('radio').segments(20);
  const url = `${s.url}/live/radio/aac-128/index.m3u8`;
  assert.match((await ask(`${url}?_HLS_skip=YES`)).body.toString(), /#EXT-X-SKIP/);
  assert.doesNotMatch((await ask(url)).body.toString(), /#EXT-X-SKIP/);
});

test('after ENDLIST the directives are ignored and every waiter is released', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  const url = `${s.url}/live/radio/aac-128/index.m3u8`;
  const blocked = ask(`${url}?_HLS_msn=13&_HLS_part=0`);
  const hinted = ask(s.url + channel.partPath('aac-128', 13, 0));
  await waiting(s, 2);
  channel.end();
  assert.match((await blocked).body.toString(), /#EXT-X-ENDLIST/);
  await problem(hinted, 404, 'not_found');
  for (const query of ['_HLS_msn=99', '_HLS_part=1', '_HLS_msn=14&_HLS_skip=YES']) {
    const { status, body } = await ask(`${url}?${query}`);
    assert.equal(status, 200);
    assert.match(body.toString(), /#EXT-X-ENDLIST/);
  }
});

test('rule 22: the hinted part waits for its bytes; what is farther ahead is 404', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  channel.parts(5);
  const open = ask(s.url + channel.partPath('aac-128', 12, 5));
  const next = ask(s.url + channel.partPath('opus-96', 13, 0));
  await waiting(s, 2);
  for (const [number, part] of [
    [12, 6],
    [13, 1],
    [14, 0],
  ] as const) {
    await problem(ask(s.url + channel.partPath('aac-128', number, part)), 404, 'not_found');
  }
  channel.part();
  const first = await open;
  assert.equal(first.headers['content-length'], String(first.body.length));
  assert.deepEqual(first.body, (await ask(s.url + channel.partPath('aac-128', 12, 5))).body);
  channel.part();
  assert.equal((await next).status, 200);
});

test('a hinted part or segment of a run that died will never exist: 404', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  channel.part();
  const hinted = ask(s.url + channel.partPath('aac-128', 12, 1));
  const early = ask(s.url + channel.segmentPath('aac-128', 13));
  await waiting(s, 2);
  channel.restart();
  await problem(hinted, 404, 'not_found');
  await problem(early, 404, 'not_found');
});

test('the running segment is streamed as its parts are made, and equals the finished one', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  channel.part();
  const path = channel.segmentPath('aac-128', 12);
  const seen: number[] = [];
  const streamed = await new Promise<Buffer>((resolve, reject) => {
    get(s.url + path, { agent: false }, (res) => {
      assert.equal(res.headers['transfer-encoding'], 'chunked');
      const chunks: Buffer[] = [];
      res.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        seen.push(channel.nextPart);
        if (channel.number === 12) channel.part();
      });
      res.on('end', () => resolve(Buffer.concat(chunks)));
    }).on('error', reject);
  });
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 0], 'each part arrived before the next was made');
  assert.deepEqual(streamed, (await ask(s.url + path)).body);
});

test('the next segment asked early waits for its first part, is streamed, and is bounded in time', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  const early = ask(s.url + channel.segmentPath('aac-128', 13));
  await waiting(s, 1);
  await problem(ask(s.url + channel.segmentPath('aac-128', 14)), 404, 'not_found');
  channel.segments(1);
  assert.equal(s.playback.counters.waiting, 1);
  channel.part();
  await waiting(s, 0);
  channel.segments(1);
  assert.deepEqual((await early).body, (await ask(s.url + channel.segmentPath('aac-128', 13))).body);

  const never = ask(s.url + channel.segmentPath('aac-128', 14));
  await waiting(s, 1);
  s.clock.advance(6000);
  await problem(never, 503, 'unavailable');
});

test('a run that dies in mid-response destroys the socket', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  channel.part();
  const path = channel.segmentPath('aac-128', 12);
  const error = await new Promise<Error>((resolve, reject) => {
    get(s.url + path, { agent: false }, (res) => {
      res.once('data', () => channel.restart());
      res.on('data', () => undefined);
      res.on('end', () => reject(new Error('ended cleanly')));
      res.on('error', resolve);
    });
  });
  assert.equal(error.message, 'aborted');
  assert.equal(s.playback.counters.aborted, 1);
});

test('byte ranges: one range, a suffix, open, past the end; several are answered with the whole', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  const url = s.url + channel.segmentPath('aac-128', 11);
  const whole = await ask(url);
  const size = whole.body.length;
  assert.equal(whole.headers['accept-ranges'], 'bytes');
  for (const [range, from, to] of [
    ['bytes=0-0', 0, 1],
    ['bytes=5-9', 5, 10],
    [`bytes=${size - 3}-`, size - 3, size],
    ['bytes=-7', size - 7, size],
    [`bytes=-${size + 5}`, 0, size],
    [`bytes=10-${size + 100}`, 10, size],
  ] as const) {
    const reply = await ask(url, { Range: range });
    assert.equal(reply.status, 206, range);
    assert.equal(reply.headers['content-range'], `bytes ${from}-${to - 1}/${size}`);
    assert.deepEqual(reply.body, whole.body.subarray(from, to), range);
  }
  for (const range of ['bytes=0-1,4-5', 'bytes=9-3', 'lines=1-2', 'bytes=-']) {
    assert.equal((await ask(url, { Range: range })).status, 200, range);
  }
  assert.equal((await ask(url, { Range: 'bytes=0-1', 'If-Range': whole.headers.etag ?? '' })).status, 206);
  assert.equal((await ask(url, { Range: 'bytes=0-1', 'If-Range': '"other"' })).status, 200);
  for (const range of ['BYTES=0-1', 'bytes= 0-1']) assert.equal((await ask(url, { Range: range })).status, 206, range);
  const head = await ask(url, { Range: 'bytes=0-1' }, 'HEAD');
  assert.deepEqual([head.status, head.headers['content-length'], head.headers['content-range']], [200, String(size), undefined]);
  assert.equal((await ask(url, { Range: `bytes=${size}-` }, 'HEAD')).status, 200);
  assert.equal((await ask(url, { Range: `bytes=${'9'.repeat(30)}-` })).status, 416);
  const past = await ask(url, { Range: `bytes=${size}-` });
  assert.deepEqual([past.status, past.headers['content-range'], past.headers['cache-control']], [416, `bytes */${size}`, 'no-store']);
});

test('conditions are looked at in their order, by every kind of answer, also of what is not finished and what was waited for', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  channel.parts(2);
  const segment = channel.segmentPath('aac-128', 11);
  for (const path of [
    segment,
    '/live/radio/master.m3u8',
    '/live/radio/aac-128/index.m3u8?_HLS_msn=12',
    '/live/radio/manifest.mpd',
    '/time',
  ]) {
    for (const method of ['GET', 'HEAD']) {
      const other = await ask(s.url + path, { 'If-Match': '"other"', 'If-None-Match': '*', Range: 'bytes=0-1' }, method);
      assert.equal(other.status, 412, `${method} ${path}`);
      if (method === 'GET') assert.equal(JSON.parse(other.body.toString()).code, 'precondition_failed');
      assert.equal((await ask(s.url + path, { 'If-Match': '*' }, method)).status, 200, `${method} ${path}`);
    }
    // Nothing has a modification date.
    assert.equal((await ask(s.url + path, { 'If-Unmodified-Since': 'Thu, 01 Jan 1970 00:00:00 GMT' })).status, 200, path);
  }
  const { etag = '' } = (await ask(s.url + segment)).headers;
  assert.equal((await ask(s.url + segment, { 'If-Match': `"a", ${etag}` })).status, 200);
  assert.equal((await ask(s.url + segment, { 'If-Match': etag, 'If-None-Match': etag })).status, 304);
  assert.equal((await ask(s.url + segment, { 'If-Match': `W/${etag}` })).status, 412, 'by strong comparison');
  const playlist = '/live/radio/aac-128/index.m3u8';
  const weak = (await ask(s.url + playlist)).headers.etag ?? '';
  assert.equal((await ask(s.url + playlist, { 'If-Match': weak })).status, 412, 'a weak tag never matches');
  const open = await ask(`${s.url}${channel.segmentPath('aac-128', 13)}`, { 'If-Match': '"other"' });
  assert.equal(open.status, 412, 'in the making');
  const waits = ask(`${s.url}${playlist}?_HLS_msn=14`, { 'If-Match': '"other"' });
  await waiting(s, 1);
  channel.segments(2);
  assert.equal((await waits).status, 412, 'waited for');
});

test('rules 8 and 19: parts that left the list are still there while memory has them; then 404', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(6);
  const playlist = (await ask(`${s.url}/live/radio/aac-128/index.m3u8`)).body.toString();
  assert.doesNotMatch(playlist, /-10\.0\.m4s/);
  assert.equal((await ask(s.url + channel.partPath('aac-128', 10, 0))).status, 200);
  await problem(ask(`${s.url}/live/radio/aac-128/${channel.run}-3.0.m4s`), 404, 'not_found');
  assert.equal(s.store.reads, 0, 'parts are in no store');
});

test('a segment that memory does not have comes from the object store, read once for all who ask', async (t) => {
  const s = await service(t);
  const key = 'live/radio/aac-128/old-7.m4s';
  s.store.objects.set(key, Buffer.from('0123456789'));
  let open = () => {};
  s.store.gate = new Promise((resolve) => {
    open = resolve;
  });
  const replies = Array.from({ length: 20 }, (_, i) => ask(`${s.url}/${key}`, i === 0 ? { Range: 'bytes=2-4' } : {}));
  await until(() => s.playback.counters.requests === 20);
  open();
  const [ranged, ...whole] = await Promise.all(replies);
  assert.deepEqual([ranged!.status, ranged!.body.toString()], [206, '234']);
  for (const reply of whole) assert.equal(reply.body.toString(), '0123456789');
  assert.equal(whole[0]!.headers['cache-control'], 'public, max-age=31536000, immutable');
  assert.equal(s.store.reads, 1);
  await problem(ask(`${s.url}/live/radio/aac-128/old-8.m4s`), 404, 'not_found');
});

test('a right that ends while the store or the look-up of a recording hangs: nothing is sent', async (t) => {
  let isOver = false;
  let isClosed = false;
  let lookUp: Promise<void> = Promise.resolve();
  const rules: ConstructorParameters<typeof Admissions>[0]['rules'] = {
    isPrivate: () => isOver,
    countries: () => undefined,
    asset: () => undefined,
    recording: async () => {
      await lookUp;
      return { channel: 'radio', isPrivate: false, from: 0, to: 99 };
    },
    isDeleted: () => isOver,
    isClosedSegment: () => isClosed,
  };
  const links = { check: () => assert.fail('nobody has a link'), seen: () => undefined };
  const admissions = new Admissions({ links, rules, addressOf: () => '', countryOf: () => undefined });
  const s = await service(t, { admissions });
  const channel = s.edge.start('radio');
  channel.segments(2);
  const own = channel.segmentPath('aac-128', 10).split('/').at(-1)!;
  for (const key of ['live/radio/aac-128/old-7.m4s', 'vod/show/master.m3u8']) s.store.objects.set(key, Buffer.from(key));
  const paths = ['/live/radio/aac-128/old-7.m4s', '/vod/show/master.m3u8', '/vod/show/aac-128/old-7.m4s', `/vod/show/aac-128/${own}`];
  // A manifest would be kept, and need the store no more.
  for (const path of paths.filter((path) => !path.endsWith('.m3u8'))) assert.equal((await ask(s.url + path)).status, 200, path);

  /** Asked while all of it hangs; `end` comes before it goes on. */
  const askedMeanwhile = async (asked: readonly string[], end: () => void) => {
    let goOn = () => {};
    s.store.gate = new Promise((resolve) => {
      goOn = resolve;
    });
    lookUp = s.store.gate;
    const { requests } = s.playback.counters;
    const replies = asked.map((path) => ask(s.url + path));
    await until(() => s.playback.counters.requests === requests + asked.length);
    end();
    goOn();
    return Promise.all(replies);
  };
  const [closed] = await askedMeanwhile(paths.slice(0, 1), () => {
    isClosed = true;
  });
  await problem(Promise.resolve(closed!), 404, 'not_found');
  isClosed = false;
  const replies = await askedMeanwhile(paths, () => {
    isOver = true;
  });
  for (const reply of replies) await problem(Promise.resolve(reply), 404, 'not_found');
});

test('a store that fails is 503, not a miss', async (t) => {
  const s = await service(t);
  s.store.gate = Promise.reject(new Error('disk'));
  s.store.gate.catch(() => undefined);
  await problem(ask(`${s.url}/live/radio/aac-128/old-7.m4s`), 503, 'unavailable');
  await problem(ask(`${s.url}/vod/a/master.m3u8`), 503, 'unavailable');
});

test('recordings: manifests an hour, media for ever, read once a minute', async (t) => {
  const s = await service(t);
  const texts = ['master.m3u8', 'aac-128/index.m3u8', 'manifest.mpd'];
  for (const name of texts) s.store.objects.set(`vod/show-1/${name}`, Buffer.from(`text of ${name}`));
  s.store.objects.set('vod/show-1/aac-128/u-1.m4s', Buffer.from('media'));
  for (const name of texts) {
    const reply = await ask(`${s.url}/vod/show-1/${name}`);
    assert.deepEqual([reply.status, reply.body.toString()], [200, `text of ${name}`]);
    assert.equal(reply.headers['cache-control'], 'public, max-age=3600');
    const zipped = await ask(`${s.url}/vod/show-1/${name}`, { 'Accept-Encoding': 'gzip' });
    assert.equal(gunzipSync(zipped.body).toString(), `text of ${name}`);
  }
  assert.equal(s.store.reads, 3);
  s.clock.advance(60_001);
  await ask(`${s.url}/vod/show-1/master.m3u8`);
  assert.equal(s.store.reads, 4);
  const media = await ask(`${s.url}/vod/show-1/aac-128/u-1.m4s`);
  assert.deepEqual([media.headers['content-type'], media.headers['cache-control']], ['audio/mp4', 'public, max-age=31536000, immutable']);
});

test('the rewind playlist is rendered once a segment', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(40);
  const url = `${s.url}/live/radio/aac-128/dvr.m3u8`;
  const first = await ask(url);
  assert.match(first.body.toString(), /-10\.m4s/);
  channel.parts(3);
  assert.deepEqual((await ask(url)).body, first.body);
  assert.equal(s.playback.counters.renders, 1);
  channel.segments(1);
  assert.notDeepEqual((await ask(url)).body, first.body);
});

test('a new broadcast of the channel is a new presentation', async (t) => {
  const s = await service(t);
  const before = s.edge.start('radio');
  before.segments(2);
  const url = `${s.url}/live/radio/aac-128/index.m3u8`;
  const blocked = ask(`${url}?_HLS_msn=12&_HLS_part=0`);
  await waiting(s, 1);
  const after = s.edge.start('radio', { broadcastId: 'second', firstNumber: 30 });
  after.segments(2);
  before.end();
  assert.match((await blocked).body.toString(), /#EXT-X-MEDIA-SEQUENCE:26\n/);
  assert.match((await ask(url)).body.toString(), /#EXT-X-MEDIA-SEQUENCE:26\n/);
});

test('a channel that goes off air releases who waits', async (t) => {
  const s = await service(t);
  s.edge.start('radio').segments(2);
  const blocked = ask(`${s.url}/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0`);
  await waiting(s, 1);
  s.edge.remove('radio');
  await problem(blocked, 404, 'not_found');
});

test('listeners are counted by CMCD session, else by address and agent, and forgotten', async (t) => {
  const s = await service(t, { maxListenersPerStream: 4 });
  s.edge.start('radio').segments(2);
  const url = `${s.url}/live/radio/aac-128/index.m3u8`;
  for (let i = 0; i < 3; i += 1) await ask(url, { 'User-Agent': 'a' });
  assert.equal(s.playback.listeners('radio'), 1);
  await ask(url, { 'User-Agent': 'b' });
  await ask(`${url}?CMCD=${encodeURIComponent('br=128,sid="x-1",ot=m')}`, { 'User-Agent': 'a' });
  await ask(url, { 'User-Agent': 'a', 'CMCD-Session': 'cid="q",sid="x-2"' });
  assert.equal(s.playback.listeners('radio'), 4);
  await problem(ask(`${s.url}/live/radio/master.m3u8`), 503, 'busy');
  s.clock.advance(3000);
  await ask(url, { 'User-Agent': 'a' });
  assert.equal(s.playback.listeners('radio'), 4);
  s.clock.advance(3000);
  assert.equal(s.playback.listeners('radio'), 1);
  s.clock.advance(60_000);
  assert.equal(s.playback.listeners('radio'), 0);
  assert.equal(s.playback.listeners('nobody'), 0);
});

test('one client is no crowd, whatever its players call themselves', async (t) => {
  const s = await service(t, { addressOf: (req) => String(req.headers['x-from']) });
  s.edge.start('radio').segments(2);
  const url = `${s.url}/live/radio/aac-128/index.m3u8`;
  const crowd = async (from: (i: number) => string, count: number, name: string) => {
    for (let i = 0; i < count; i += 1)
      await ask(i % 2 === 0 ? `${url}?CMCD=${encodeURIComponent(`sid="${name}-${i}"`)}` : url, {
        'X-From': from(i),
        'User-Agent': `${name} ${i}`,
      });
  };
  await crowd(() => '192.0.2.1', MAX_KEYS_PER_ADDRESS + 9, 'a');
  assert.equal(s.playback.listeners('radio'), MAX_KEYS_PER_ADDRESS);
  await crowd((i) => `2001:db8::${i.toString(16)}`, MAX_KEYS_PER_ADDRESS + 9, 'b');
  assert.equal(s.playback.listeners('radio'), 2 * MAX_KEYS_PER_ADDRESS, 'all that is below a /64 is one');
  await crowd((i) => `2001:db8:0:${(i + 1).toString(16)}::1`, 3, 'c');
  assert.equal(s.playback.listeners('radio'), 2 * MAX_KEYS_PER_ADDRESS + 3, 'others are counted');
  await ask(url, { 'X-From': '192.0.2.9', 'User-Agent': 'd' }, 'HEAD');
  assert.equal(s.playback.listeners('radio'), 2 * MAX_KEYS_PER_ADDRESS + 3, 'who asks for heads alone hears nothing');
  s.clock.advance(6000);
  await ask(url, { 'X-From': '192.0.2.1', 'User-Agent': 'a' });
  assert.equal(s.playback.listeners('radio'), 1);
});

test('requests in a row on one connection are answered in order', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  const socket = connect(s.port, '127.0.0.1');
  t.after(() => socket.destroy());
  let text = '';
  socket.on('data', (data) => {
    text += data.toString('latin1');
  });
  socket.write(
    'GET /live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0 HTTP/1.1\r\nHost: x\r\n\r\n' +
      'GET /live/radio/nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
  );
  await waiting(s, 1);
  assert.equal(text, '');
  channel.part();
  await new Promise((resolve) => socket.once('close', resolve));
  assert.deepEqual(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 404', 'HTTP/1.1 200']);
});

test('stopping releases who waits, and is harmless twice', async (t) => {
  const s = await service(t);
  s.edge.start('radio').segments(2);
  const blocked = ask(`${s.url}/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0`);
  await waiting(s, 1);
  s.playback.stop();
  s.playback.stop();
  await problem(blocked, 503, 'unavailable');
  await problem(ask(`${s.url}/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=0`), 503, 'unavailable');
  await problem(ask(`${s.url}/listen/radio.mp3`), 503, 'unavailable');
  assert.equal((await ask(`${s.url}/live/radio/aac-128/index.m3u8`)).status, 200);
});
