import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { MAX_PAGE, problemSchema } from '../../src/app/api/openapi.js';
import { MAX_BODY_BYTES, MAX_JSON_DEPTH } from '../../src/app/http/request-body.js';
import { ERROR_CODES } from '../../src/runtime/errors.js';
import { startApp, type TestApp } from '../support/app.js';

let app: TestApp;
before(async () => {
  app = await startApp();
});
after(() => app.stop());

interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: its shape is checked against the operation's schema.
  body: any;
}

/** Calls the API, and holds every answer against what the API says of itself. */
async function call(
  method: string,
  path: string,
  options: { body?: unknown; raw?: BodyInit; token?: string | null; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const token = options.token === undefined ? app.token : options.token;
  const response = await fetch(`${app.url}/api/v1${path}`, {
    method,
    headers: { ...(token && { authorization: `Bearer ${token}` }), 'content-type': 'application/json', ...options.headers },
    ...(options.raw !== undefined ? { body: options.raw } : options.body !== undefined && { body: JSON.stringify(options.body) }),
  });
  const text = await response.text();
  const body = text === '' ? undefined : JSON.parse(text);
  const pathname = path.split('?')[0]!;
  const operation = app.operations.find(
    (candidate) =>
      candidate.method === method.toLowerCase() && new RegExp(`^${candidate.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(pathname),
  );
  if (response.status >= 400) {
    const problem = problemSchema.parse(body);
    assert.equal(response.headers.get('content-type'), 'application/problem+json');
    assert.equal(response.headers.get('cache-control'), 'no-store');
    assert.equal(problem.status, response.status);
    assert.equal(problem.requestId, response.headers.get('x-request-id'));
    const known = [
      'bad_request',
      'internal',
      'unavailable',
      'unauthorized',
      'payload_too_large',
      'unsupported_media',
      'method_not_allowed',
      ...(operation?.errors ?? ['not_found']),
    ];
    assert.ok(known.includes(problem.code), `${problem.code} is not documented for ${method} ${path}`);
  } else if (operation) {
    assert.equal(response.status, operation.status);
    if (operation.answer) operation.answer.parse(body);
    else assert.equal(text, '');
  }
  return { status: response.status, headers: response.headers, body };
}

test('an address is what it is, letter by letter: what limits and headers do not see is not answered', async () => {
  for (const path of ['/API/v1/channels', '/api/V1/channels', '/Api/v1/openapi.json']) {
    const response = await fetch(`${app.url}${path}`);
    await response.arrayBuffer();
    assert.equal(response.status, 404, path);
  }
});

test('a channel from its creation to its end', async () => {
  const created = await call('POST', '/channels', { body: { slug: 'radio', title: 'Radio Veza' } });
  assert.match(created.body.streamKey, /^vz_/);
  assert.deepEqual(created.body.ingest, {
    rtmp: 'rtmp://radio.example:1935/live',
    rtmps: null,
    icecast: 'http://radio.example:8000/radio',
    post: 'http://radio.example:8000/ingest/radio',
  });
  assert.deepEqual(created.body.channel.urls, {
    page: 'http://radio.example:8080/c/radio',
    hls: 'https://cdn.example/live/radio/master.m3u8',
    dash: 'https://cdn.example/live/radio/manifest.mpd',
    listen: 'http://radio.example:8080/listen/radio.mp3',
  });

  const offline = await call('GET', '/channels/radio', { token: null });
  assert.equal(offline.body.state, 'offline');
  assert.equal(offline.body.nowPlaying, null);
  app.live.shows.set('radio', {
    state: 'live',
    listeners: 3,
    startWallMs: Date.UTC(2030, 0, 1),
    broadcastId: 'b1',
    nowPlaying: { title: 'Song', startWallMs: Date.UTC(2030, 0, 1, 1) },
  });
  const live = (await call('GET', '/channels/radio', { token: null })).body;
  assert.equal(live.state, 'live');
  assert.equal(live.listeners, 3);
  assert.deepEqual(live.nowPlaying, { title: 'Song', artist: null, startedAt: '2030-01-01T01:00:00.000Z' });

  assert.equal((await call('POST', '/channels/radio/now-playing', { body: { title: 'Next', artist: 'Them' } })).status, 204);
  assert.deepEqual(app.live.titles.at(-1), { slug: 'radio', title: 'Next', artist: 'Them' });

  const rotated = await call('POST', '/channels/radio/stream-key');
  assert.equal((await app.channels.verifyKey(created.body.streamKey, () => true))?.slug, 'radio', 'good for the show on air');
  assert.equal((await app.channels.verifyKey(rotated.body.streamKey, () => true))?.slug, 'radio');

  assert.equal((await call('PATCH', '/channels/radio', { body: { title: 'New', visibility: 'unlisted' } })).body.title, 'New');
  assert.equal((await call('POST', '/channels/radio/end')).status, 204);
  assert.equal((await call('POST', '/channels/radio/end')).body.code, 'conflict');
  assert.equal((await call('POST', '/channels/radio/now-playing', { body: { title: 'x' } })).body.code, 'conflict');
  assert.equal((await call('DELETE', '/channels/radio')).status, 204);
  assert.equal((await call('GET', '/channels/radio')).body.code, 'not_found');
  assert.equal((await call('DELETE', '/channels/radio')).status, 404);
});

test('who may do what', async () => {
  await call('POST', '/channels', { body: { slug: 'hidden', visibility: 'private' } });
  for (const [method, path] of [
    ['POST', '/channels'],
    ['PATCH', '/channels/hidden'],
    ['DELETE', '/channels/hidden'],
    ['POST', '/channels/hidden/stream-key'],
    ['POST', '/channels/hidden/end'],
    ['POST', '/channels/hidden/now-playing'],
    ['DELETE', '/assets/x'],
  ] as const) {
    for (const token of [null, 'wrong', `${app.token}x`]) {
      const { status, headers } = await call(method, path, { token, body: {} });
      assert.equal(status, 401, `${method} ${path}`);
      assert.match(headers.get('www-authenticate')!, /^Bearer/);
    }
  }
  assert.equal((await call('GET', '/channels', { token: 'wrong' })).status, 401, 'a wrong token never counts as none');
  assert.equal((await call('GET', '/channels/hidden', { token: null })).status, 404);
  assert.equal((await call('GET', '/channels/hidden/broadcasts', { token: null })).status, 404);
  assert.equal((await call('GET', '/channels/hidden')).status, 200);
  await call('DELETE', '/channels/hidden');
});

test('lists are paged, and hold what one may see', async () => {
  for (const [slug, visibility] of [
    ['p1', 'public'],
    ['p2', 'public'],
    ['p3', 'public'],
    ['q1', 'unlisted'],
    ['q2', 'private'],
  ] as const) {
    await call('POST', '/channels', { body: { slug, visibility } });
  }
  const all = async (path: string, token?: null) => {
    const found: string[] = [];
    let pages = 0;
    for (let next: string | null = ''; next !== null; pages++) {
      const { body } = await call('GET', `${path}?limit=2${next && `&cursor=${next}`}`, token === undefined ? {} : { token });
      found.push(...body.items.map((item: { slug?: string; id: string }) => item.slug ?? item.id));
      next = body.next;
    }
    return { found, pages };
  };
  assert.deepEqual(await all('/channels', null), { found: ['p1', 'p2', 'p3'], pages: 2 });
  assert.deepEqual(await all('/channels'), { found: ['p1', 'p2', 'p3', 'q1', 'q2'], pages: 3 });

  const ids = new Map(await Promise.all(['p1', 'q2'].map(async (slug) => [slug, (await app.channels.get(slug))!.id] as const)));
  for (let i = 0; i < 5; i++) {
    const channelId = ids.get(i === 3 ? 'q2' : 'p1')!;
    await app.broadcasts.insert({
      id: `show-${i}`,
      channelId,
      title: `Show ${i}`,
      recording: i !== 1,
      startedAtMs: 1e12 + (i >> 1),
      firstNumber: 0,
    });
    if (i !== 4) await app.broadcasts.end(`show-${i}`, { endedAtMs: 1e12 + 9000, durationMs: 9000, lastNumber: 4 });
  }
  assert.deepEqual(await all('/channels/p1/broadcasts', null), { found: ['show-4', 'show-2', 'show-1', 'show-0'], pages: 2 });
  const shows = (await call('GET', '/channels/p1/broadcasts')).body.items;
  assert.deepEqual(
    shows.map((show: { asset: string | null }) => show.asset),
    [null, 'show-2', null, 'show-0'],
  );
  assert.deepEqual((await all('/assets', null)).found, ['show-2', 'show-0']);
  assert.deepEqual((await all('/assets')).found, ['show-3', 'show-2', 'show-0']);
  assert.equal((await call('GET', '/assets/show-0', { token: null })).body.urls.hls, 'https://cdn.example/vod/show-0/master.m3u8');
  for (const id of ['show-1', 'show-3', 'show-4', 'none'])
    assert.equal((await call('GET', `/assets/${id}`, { token: null })).status, 404, id);
  assert.equal((await call('DELETE', '/assets/show-0')).status, 204);
  assert.equal((await call('GET', '/assets/show-0')).status, 404);

  for (const query of [
    'limit=0',
    `limit=${MAX_PAGE + 1}`,
    'limit=x',
    'cursor=x',
    'cursor=W10',
    `cursor=${'x'.repeat(513)}`,
    'unknown=1',
    'limit=1&limit=2',
  ]) {
    assert.equal((await call('GET', `/channels?${query}`)).body.code, 'bad_request', query);
  }
  assert.equal((await call('GET', '/assets?cursor=WyJ4Il0')).status, 400);
});

test('bodies have their limits', async () => {
  const title = (body: unknown) => call('POST', '/channels', { body });
  for (const body of [
    {},
    { slug: 'A' },
    { slug: 'ok', more: 1 },
    { slug: 'ok', title: '' },
    { slug: 'ok', title: 'x'.repeat(201) },
    { slug: 'ok', title: 'a\nb' },
    { slug: 'ok', visibility: 'x' },
    [],
    'x',
    null,
  ]) {
    assert.equal((await title(body)).body.code, 'bad_request', JSON.stringify(body));
  }
  assert.match((await title({ slug: 'ok', visibility: 'x' })).body.detail, /^body\.visibility: /);
  assert.equal((await title({ slug: 'admin' })).body.code, 'conflict');
  assert.equal((await call('POST', '/channels', { raw: '{' })).body.code, 'bad_request');
  assert.equal(
    (await call('POST', '/channels', { raw: 'slug=x', headers: { 'content-type': 'application/x-www-form-urlencoded' } })).status,
    415,
  );
  const nested = '['.repeat(MAX_JSON_DEPTH + 1) + ']'.repeat(MAX_JSON_DEPTH + 1);
  assert.match((await call('POST', '/channels', { raw: nested })).body.detail, /nested/);
  assert.doesNotMatch((await call('POST', '/channels', { raw: nested.slice(1, -1) })).body.detail, /nested/);
  const padded = (size: number) => JSON.stringify({ slug: 'x' }).padEnd(size, ' ');
  assert.equal((await call('POST', '/channels', { raw: padded(MAX_BODY_BYTES) })).status, 400);
  assert.equal((await call('POST', '/channels', { raw: padded(MAX_BODY_BYTES + 1) })).status, 413);
});

test('a body of no declared length is cut at the limit', async () => {
  const status = await new Promise<number>((resolve, reject) => {
    const sent = request(
      `${app.url}/api/v1/channels`,
      { method: 'POST', headers: { authorization: `Bearer ${app.token}`, 'content-type': 'application/json' } },
      (res) => {
        res.resume();
        resolve(res.statusCode!);
        sent.destroy();
      },
    );
    sent.on('error', reject);
    sent.write(Buffer.alloc(MAX_BODY_BYTES, 32));
    sent.write(Buffer.alloc(1, 32));
  });
  assert.equal(status, 413);
});

test('unknown paths and methods are problems', async () => {
  assert.equal((await call('GET', '/nothing')).status, 404);
  const wrong = await call('PUT', '/channels');
  assert.equal(wrong.status, 405);
  assert.deepEqual(wrong.headers.get('allow')!.split(', ').sort(), ['GET', 'HEAD', 'POST']);
  for (const path of ['/', '/api', '/health', '/c/radio', '/%', '/api/v1/channels/%E0%A4%A']) {
    const response = await fetch(app.url + path);
    assert.ok([400, 404].includes(response.status), `${path} ${response.status}`);
    problemSchema.parse(await response.json());
  }
  assert.equal((await fetch(`${app.url}/api/v1/channels`, { method: 'HEAD' })).status, 200);
});

test('the request id is taken over when it is one', async () => {
  const id = async (given?: string) =>
    (await fetch(`${app.url}/health/live`, given === undefined ? {} : { headers: { 'x-request-id': given } })).headers.get('x-request-id')!;
  assert.equal(await id('abc-1.2_3'), 'abc-1.2_3');
  assert.match(await id(), /^[0-9a-f-]{36}$/);
  assert.match(await id('x'.repeat(65)), /^[0-9a-f-]{36}$/);
  assert.match(await id('a b'), /^[0-9a-f-]{36}$/);
});

test('pages of other origins may call the API, without cookies', async () => {
  const preflight = await fetch(`${app.url}/api/v1/channels`, {
    method: 'OPTIONS',
    headers: { origin: 'https://a.example', 'access-control-request-method': 'POST' },
  });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get('access-control-allow-origin'), '*');
  assert.match(preflight.headers.get('access-control-allow-headers')!, /Authorization/);
  assert.equal(preflight.headers.get('access-control-allow-credentials'), null);
  const failed = await call('GET', '/channels/none', { headers: { origin: 'https://a.example' } });
  assert.equal(failed.headers.get('access-control-allow-origin'), '*', 'or the page could not read the error');
});

test('a page may send every header that the API reads, and read every header that the API’s document lists', async () => {
  const listed = (text: string | null) => text!.toLowerCase().split(', ');
  for (const header of ['authorization', 'content-type', 'content-encoding', 'if-match', 'if-none-match', 'x-request-id', 'range']) {
    const preflight = await fetch(`${app.url}/api/v1/channels`, {
      method: 'OPTIONS',
      headers: { origin: 'https://a.example', 'access-control-request-method': 'PATCH', 'access-control-request-headers': header },
    });
    assert.equal(preflight.status, 204);
    assert.ok(listed(preflight.headers.get('access-control-allow-headers')).includes(header), header);
  }
  const answer = await fetch(`${app.url}/api/v1/openapi.json`, { headers: { origin: 'https://a.example' } });
  const exposed = listed(answer.headers.get('access-control-expose-headers'));
  const { components } = (await answer.json()) as { components: { headers: Record<string, unknown> } };
  assert.ok(Object.keys(components.headers).length > 5);
  for (const header of ['ETag', 'Date', ...Object.keys(components.headers)]) assert.ok(exposed.includes(header.toLowerCase()), header);
});

test('the documented error codes are those of the source', async () => {
  const text = await readFile('docs/errors.md', 'utf8');
  const documented = Object.fromEntries([...text.matchAll(/^\| `(\w+)` \| (\d{3}) \|/gm)].map((match) => [match[1], Number(match[2])]));
  assert.deepEqual(documented, { ...ERROR_CODES });
});

test('requests are counted by route, and no label comes from outside', async () => {
  await fetch(`${app.url}/api/v1/channels/some-slug-or-other`);
  const socket = connect(app.listener.port, '127.0.0.1');
  socket.end('PROPFIND /strange-path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await new Promise((resolve) => socket.resume().once('close', resolve));
  const text = await app.metrics.text();
  assert.match(text, /http_request_duration_seconds_count\{[^}]*route="\/api\/v1\/channels\/\{slug\}"/);
  assert.match(text, /http_requests_total\{[^}]*status="404"/);
  assert.doesNotMatch(text, /some-slug|strange-path|PROPFIND/);
});
