import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { ConnectionLimits } from '../../src/app/http/connection-limits.js';
import { type HttpListener, listenHttp } from '../../src/app/http/listener.js';
import { loadPages } from '../../src/app/http/static.js';
import { loadConfig } from '../../src/config/config.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { MAX_HEADERS, MAX_URL_CHARS } from '../../src/runtime/request-head.js';
import { startApp, type TestApp } from '../support/app.js';
import { personOf, signedIn } from '../support/people.js';
import { eventually } from '../support/process.js';

const clock = new SystemClock();

async function withApp(
  task: (app: TestApp) => Promise<void>,
  options: Parameters<typeof startApp>[0] = {},
  access: Parameters<typeof startApp>[1] = {},
): Promise<void> {
  const app = await startApp(options, access);
  try {
    await task(app);
  } finally {
    await app.stop();
  }
}

test('the API says how much is left, and refuses what is too much with the true time to wait', async () => {
  const fake = new FakeClock();
  const get = (app: TestApp, headers: Record<string, string> = {}, path = '/channels?limit=1') =>
    fetch(`${app.url}/api/v1${path}`, { headers });
  await withApp(
    async (app) => {
      // Forwarded addresses: one proxy is ours, so what it says is believed.
      const from = (address: string, more = {}) => ({ 'x-forwarded-for': address, ...more });
      const first = await get(app, from('192.0.2.1'));
      assert.equal(first.headers.get('ratelimit-policy'), '"api";q=20;w=60');
      assert.equal(first.headers.get('ratelimit'), '"api";r=19;t=60');
      fake.advance(13_000);
      for (let i = 0; i < 19; i++) assert.equal((await get(app, from('192.0.2.1'))).status, 200);
      const refused = await get(app, from('192.0.2.1', { origin: 'https://x.example' }));
      assert.equal(refused.status, 429);
      assert.equal(refused.headers.get('retry-after'), '47');
      assert.equal(refused.headers.get('ratelimit'), '"api";r=0;t=47');
      assert.equal(refused.headers.get('content-type'), 'application/problem+json');
      assert.equal(refused.headers.get('access-control-allow-origin'), '*', 'a page can read why');
      assert.match(refused.headers.get('access-control-expose-headers')!, /RateLimit, RateLimit-Policy, Retry-After,/);
      const problem = (await refused.json()) as { code: string; details: object };
      assert.equal(problem.code, 'rate_limited');
      assert.deepEqual(problem.details, { limit: 'api', retryAfterS: 47 });
      // Unknown paths and the document count as well; health, pages and preflights do not.
      for (const path of ['/nothing', '/openapi.json']) assert.equal((await get(app, from('192.0.2.1'), path)).status, 429, path);
      assert.equal((await fetch(`${app.url}/health/live`, { headers: from('192.0.2.1') })).status, 200);
      const preflight = { ...from('192.0.2.1'), origin: 'https://x.example', 'access-control-request-method': 'GET' };
      assert.equal((await fetch(`${app.url}/api/v1/channels`, { method: 'OPTIONS', headers: preflight })).status, 204);
      // Another client is not touched, and neither is one at the same address who is known.
      assert.equal((await get(app, from('192.0.2.2'))).status, 200);
      const known = from('192.0.2.1', { authorization: `Bearer ${app.token}` });
      assert.equal((await get(app, known)).headers.get('ratelimit'), '"api";r=19;t=60');
      // Known, it is counted wherever it comes from.
      assert.equal((await get(app, { ...known, 'x-forwarded-for': '192.0.2.9' })).headers.get('ratelimit'), '"api";r=18;t=60');
      fake.advance(47_000);
      assert.equal((await get(app, from('192.0.2.1'))).status, 200);
    },
    { trustProxyHops: 1 },
    { clock: fake, rateLimitPerMinute: 20 },
  );
});

test('who is over his limit is refused before anything that costs: no database, no body, no look at the token', async () => {
  const fake = new FakeClock();
  await withApp(
    async (app) => {
      const looked: string[] = [];
      const { identity } = app.access;
      const ofHeader = identity.ofHeader.bind(identity);
      identity.ofHeader = (authorization) => {
        looked.push(authorization);
        return ofHeader(authorization);
      };
      const headers = { authorization: `Bearer ${app.token}` };
      for (let i = 0; i < 3; i++) assert.equal((await fetch(`${app.url}/api/v1/channels`, { headers })).status, 200);
      await app.database.stop();
      looked.length = 0;
      assert.equal((await fetch(`${app.url}/api/v1/channels`, { headers })).status, 429);
      assert.deepEqual(looked, []);
      // A body of a gigabyte is announced; nothing of it is waited for.
      const socket = connect(app.listener.port, '127.0.0.1');
      socket.write(
        `POST /api/v1/channels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${app.token}\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{`,
      );
      assert.match(await untilClosed(socket), /^HTTP\/1\.1 429 [\s\S]*\r\nConnection: close\r\n/);
    },
    {},
    { clock: fake, rateLimitPerMinute: 3 },
  );
});

test('many people behind one address: open pages keep nobody from signing in, and what is right takes nothing', async () => {
  const password = 'three quiet herons';
  await withApp(
    async (app) => {
      const post = (path: string, body: object) =>
        fetch(`${app.url}/api/v1${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: 'Bearer of-a-session-that-is-over' },
          body: JSON.stringify(body),
        });
      const email = 'ann@example.org';
      assert.equal((await post('/auth/register', { email, password, name: 'Ann' })).status, 201);
      const people = await Promise.all(Array.from({ length: 30 }, () => personOf(app, 'listener', false)));
      while ((await fetch(`${app.url}/api/v1/channels?limit=1`)).status === 200);
      // Signing in and refreshing, more often than the address may ask for anything, in a row and at once.
      for (let i = 0; i < 25; i++) assert.equal((await post('/auth/login', { email, password })).status, 200, `${i}`);
      const refreshed = await Promise.all(people.map(({ refreshToken }) => post('/auth/refresh', { refreshToken })));
      assert.deepEqual(new Set(refreshed.map(({ status }) => status)), new Set([200]));
      // Tokens that nobody has seen before.
      const asked = await Promise.all(
        people.map(({ token }) => fetch(`${app.url}/api/v1/me`, { headers: { authorization: `Bearer ${token}` } })),
      );
      assert.deepEqual(new Set(asked.map(({ status }) => status)), new Set([200]));
      // Guesses are as few as ever: nine wrong refresh tokens are one too many, at once or not.
      const guesses = await Promise.all(
        Array.from({ length: 9 }, (_, i) => post('/auth/refresh', { refreshToken: `vzr_${String(i).repeat(43)}` })),
      );
      assert.equal(guesses.filter(({ status }) => status === 401).length, 1);
      assert.equal(guesses.filter(({ status }) => status === 429).length, 8);
    },
    {},
    { clock: new FakeClock(), rateLimitPerMinute: 20 },
  );
});

test('bad credentials are counted by address, good ones are not', async () => {
  await withApp(
    async (app) => {
      const status = async (token: string, address: string) =>
        (await fetch(`${app.url}/api/v1/channels`, { headers: { authorization: `Bearer ${token}`, 'x-forwarded-for': address } })).status;
      for (let i = 0; i < 5; i++) assert.equal(await status(`guess-${i}`, '192.0.2.1'), 401);
      assert.equal(await status('guess-6', '192.0.2.1'), 429);
      assert.equal(await status('guess-6', '192.0.2.2'), 401);
      // One that was good before is known at once, also from there.
      for (let i = 0; i < 3; i++) assert.equal(await status(app.token, `192.0.2.${3 + i}`), 200);
      assert.equal(await status(app.token, '192.0.2.1'), 200);
    },
    { trustProxyHops: 1 },
    { clock: new FakeClock(), rateLimitPerMinute: 50 },
  );
});

test('what is left of an ended session uses up nothing of what its account may', async () => {
  await withApp(
    async (app) => {
      const person = await personOf(app, 'listener', false);
      const call = async (method: string, path: string, token: string, address: string) =>
        fetch(`${app.url}/api/v1${path}`, { method, headers: { authorization: `Bearer ${token}`, 'x-forwarded-for': address } });
      for (const [method, path, address] of [
        ['GET', '/channels', '192.0.2.1'],
        ['POST', '/auth/passkey/options', '192.0.2.3'],
      ] as const) {
        const stolen = await signedIn(app, person, false);
        assert.equal((await call('GET', '/me', stolen.token, address)).status, 200);
        await app.access.sessions.end(stolen.sessionId);
        for (let i = 0; i < 60; i++) await call(method, path, stolen.token, address);
        assert.equal((await call('GET', '/me', person.token, '192.0.2.2')).status, 200, path);
      }
    },
    { trustProxyHops: 1 },
    { clock: new FakeClock(), rateLimitPerMinute: 50 },
  );
});

test('only the proxies of ours are believed about addresses', async () => {
  const rows: Readonly<Record<number, readonly [readonly [string, string], 'together' | 'apart'][]>> = {
    0: [[['192.0.2.1', '192.0.2.2'], 'together']],
    // `TRUST_PROXY=true` is one.
    [loadConfig({ TRUST_PROXY: 'true' }).trustProxyHops]: [
      [['192.0.2.1', '192.0.2.2'], 'apart'],
      // What the client itself sent stands left of what the proxy wrote.
      [['192.0.2.1, 198.51.100.7', '192.0.2.2, 198.51.100.7'], 'together'],
      [['192.0.2.1, 198.51.100.7', '192.0.2.1, 198.51.100.8'], 'apart'],
      // No addresses: as if nothing had been said.
      [['anything', 'something else'], 'together'],
      [['<script>', '192.0.2.1:99999999:1'], 'together'],
      [['[2001:db8::1]:4711', '2001:db8::2'], 'together'],
    ],
    2: [
      [['192.0.2.1, 198.51.100.7, 10.0.0.1', '192.0.2.2, 198.51.100.7, 10.0.0.2'], 'together'],
      [['198.51.100.7, 10.0.0.1', '198.51.100.8, 10.0.0.1'], 'apart'],
    ],
  };
  for (const [hops, cases] of Object.entries(rows)) {
    const fake = new FakeClock();
    await withApp(
      async (app) => {
        for (const [forwarded, counted] of cases) {
          const left = [];
          for (const value of forwarded) {
            const response = await fetch(`${app.url}/api/v1/channels?limit=1`, { headers: { 'x-forwarded-for': value } });
            left.push(/r=(\d+)/.exec(response.headers.get('ratelimit')!)![1]);
          }
          assert.deepEqual(left, counted === 'together' ? ['9', '8'] : ['9', '9'], `${hops}: ${forwarded.join(' | ')}`);
          fake.advance(60_000);
        }
      },
      { trustProxyHops: Number(hops) },
      { clock: fake, rateLimitPerMinute: 10 },
    );
  }
});

test('a head has limits: the address, the number of fields, their size', async () => {
  await withApp(async (app) => {
    const get = (path: string, headers: Record<string, string> = {}) =>
      new Promise<number>((resolve, reject) => {
        const sent = request(`${app.url}${path}`, { headers }, (res) => {
          res.resume();
          resolve(res.statusCode!);
        });
        sent.once('error', reject);
        sent.end();
      });
    const path = (chars: number) => `/${'x'.repeat(chars - 1)}`;
    assert.equal(await get(path(MAX_URL_CHARS)), 404);
    assert.equal(await get(path(MAX_URL_CHARS + 1)), 414);
    const fields = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`x-${index}`, 'y']));
    // Host and Connection are two.
    assert.equal(await get('/health/live', fields(MAX_HEADERS - 2)), 200);
    assert.equal(await get('/health/live', fields(MAX_HEADERS - 1)), 431);
    // What is far beyond Node leaves out, Host with it.
    assert.equal(await get('/health/live', fields(1400)), 431);
    assert.equal(await get('/health/live', { x: 'y'.repeat(15_000) }), 200);
    assert.equal(await get('/health/live', { x: 'y'.repeat(16_384) }), 431);
  });
});

test('a body: compressed, in another charset, deep, large, with a prototype', async () => {
  await withApp(async (app) => {
    const post = async (body: string | Buffer, headers: Record<string, string> = {}) => {
      const response = await fetch(`${app.url}/api/v1/channels`, {
        method: 'POST',
        headers: { authorization: `Bearer ${app.token}`, 'content-type': 'application/json', ...headers },
        body: body as BodyInit,
      });
      return [response.status, ((await response.json()) as { code?: string }).code] as const;
    };
    const bomb = gzipSync(Buffer.alloc(20_000_000, ' '));
    assert.ok(bomb.length < 65_536);
    for (const encoding of ['gzip', 'deflate', 'br', 'zstd', 'gzip, identity', 'x'])
      assert.deepEqual(await post(bomb, { 'content-encoding': encoding }), [415, 'unsupported_media'], encoding);
    assert.equal((await post('{"slug":"identity"}', { 'content-encoding': 'identity' }))[0], 201);
    for (const charset of ['utf-16', 'iso-8859-1', '"utf-7"', 'utf-8x', ''])
      assert.deepEqual(await post('{}', { 'content-type': `application/json; charset=${charset}` }), [415, 'unsupported_media'], charset);
    for (const [index, charset] of ['utf-8', '"UTF-8"', 'utf8'].entries())
      assert.equal((await post(`{"slug":"c${index}"}`, { 'content-type': `application/json;charset=${charset}` }))[0], 201, charset);
    assert.deepEqual(await post(Buffer.from([...Buffer.from('{"slug":"'), 0xff, 0xfe, ...Buffer.from('"}')])), [400, 'bad_request']);
    assert.deepEqual(await post(Buffer.from('{"slug":"utf16"}', 'utf16le')), [400, 'bad_request']);
    for (const body of [
      '{"slug":"p1","__proto__":{"role":"admin"}}',
      '{"slug":"p2","\\u005f_proto__":{"role":"admin"}}',
      '{"slug":"p3","a":[{"__proto__":1}]}',
      '{"slug":"p4","constructor":{"prototype":{"role":"admin"}}}',
      '{"slug":"p5","hasOwnProperty":1}',
    ]) {
      assert.deepEqual(await post(body), [400, 'bad_request'], body);
    }
    assert.equal(({} as { role?: string }).role, undefined);
    // Refused as such, and not only because the schema does not know it.
    const reply = await fetch(`${app.url}/api/v1/channels`, {
      method: 'POST',
      headers: { authorization: `Bearer ${app.token}`, 'content-type': 'application/json' },
      body: '{"__proto__":{}}',
    });
    assert.match(((await reply.json()) as { detail: string }).detail, /has a member "__proto__"/);
    for (const body of [
      `${'['.repeat(60_000)}`,
      `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`,
      `{"slug":"${'x'.repeat(60_000)}"}`,
      `[${'1,'.repeat(30_000)}1]`,
    ])
      assert.deepEqual(await post(body), [400, 'bad_request'], body.slice(0, 20));
    assert.deepEqual(await post(`{"slug":"${'x'.repeat(70_000)}"}`), [413, 'payload_too_large']);
  });
});

const untilClosed = (socket: Socket) =>
  new Promise<string>((resolve) => {
    let text = '';
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(text));
  });

test('connections: so many of one address, so many in all, over all ports', async () => {
  const limits = new ConnectionLimits({ total: 5, perAddress: 3 });
  const listeners: HttpListener[] = [];
  for (let i = 0; i < 2; i++)
    listeners.push(await listenHttp((_req, res) => res.end('there'), { host: '127.0.0.1', port: 0, connections: limits }, clock));
  const open = async (localAddress: string, port: number) => {
    const socket = connect({ port, host: '127.0.0.1', localAddress });
    const got = new Promise<string>((resolve) => {
      socket.once('data', (bytes) => resolve(bytes.toString().slice(0, 12)));
      socket.once('error', () => resolve('closed'));
      socket.once('close', () => resolve('closed'));
    });
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    return { socket, got: await got };
  };
  const ports = listeners.map(({ port }) => port) as [number, number];
  const held = [];
  for (let i = 0; i < 3; i++) held.push(await open('127.0.0.2', ports[i % 2]!));
  assert.deepEqual(
    held.map(({ got }) => got),
    ['HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 200'],
  );
  assert.equal((await open('127.0.0.2', ports[0])).got, 'closed');
  for (let i = 0; i < 2; i++) assert.equal((await open('127.0.0.3', ports[0])).got, 'HTTP/1.1 200');
  assert.equal((await open('127.0.0.4', ports[1])).got, 'closed', 'five in all');
  assert.equal(limits.open, 5);
  assert.equal(limits.refused, 2);
  held[0]!.socket.destroy();
  await eventually('it has left', () => (limits.open === 4 ? true : undefined));
  assert.equal((await open('127.0.0.4', ports[1])).got, 'HTTP/1.1 200');
  await Promise.all(listeners.map((listener) => listener.stop(0)));
});

test('who is slow is cut off: nothing sent, a head that never ends, a body that never ends, an answer that is not read', async () => {
  const listener = await listenHttp(
    (req, res) => {
      req.resume();
      if (req.url === '/large') res.write(Buffer.alloc(64 * 1024 * 1024));
      else req.once('end', () => res.end('there'));
    },
    {
      host: '127.0.0.1',
      port: 0,
      timeouts: { headersTimeout: 300, requestTimeout: 600, connectionsCheckingInterval: 50 },
      silenceMs: 700,
    },
    clock,
  );
  const slowly = (socket: Socket, letter: string) => {
    const timer = setInterval(() => socket.write(letter), 100);
    socket.once('close', () => clearInterval(timer));
  };
  const start = (text: string) => {
    const socket = connect(listener.port, '127.0.0.1');
    if (text !== '') socket.write(text);
    return socket;
  };
  const silent = start('');
  const head = start('GET / HTTP/1.1\r\nHost: x\r\nX-');
  slowly(head, 'a');
  const body = start('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n');
  slowly(body, 'a');
  const unread = start('GET /large HTTP/1.1\r\nHost: x\r\n\r\n');
  unread.pause();
  const closed = new Promise((resolve) => unread.once('close', resolve).on('error', () => undefined));
  const fine = start('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.match(await untilClosed(fine), /^HTTP\/1\.1 200/);
  const answers = await Promise.all([silent, head, body].map(untilClosed));
  for (const answer of answers) assert.match(answer, /^(?:HTTP\/1\.1 408|$)/);
  await eventually('nobody is left', async () => {
    const open = await new Promise<number>((resolve) => listener.server.getConnections((_, count) => resolve(count)));
    return open === 0 ? true : undefined;
  });
  unread.resume();
  await closed;
  await listener.stop(0);
});

test('what answers say to browsers', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'veza-pages-'));
  await writeFile(join(dir, 'index.html'), '<p>player');
  await writeFile(join(dir, 'account.html'), '<p>account');
  try {
    const pages = await loadPages({ dir, mediaOrigins: [] });
    await withApp(
      async (app) => {
        const headers = async (path: string, sent: Record<string, string> = {}) =>
          (await fetch(`${app.url}${path}`, { headers: sent })).headers;
        for (const path of ['/api/v1/channels', '/api/v1/nothing', '/api/v1/openapi.json', '/health/live']) {
          const api = await headers(path);
          assert.equal(api.get('content-security-policy'), "default-src 'none'; frame-ancestors 'none'", path);
          assert.equal(api.get('x-content-type-options'), 'nosniff');
          assert.equal(api.get('x-frame-options'), 'DENY');
          assert.equal(api.get('referrer-policy'), 'no-referrer');
          assert.equal(api.get('strict-transport-security'), null, 'not over plain HTTP');
        }
        const player = await headers('/c/radio');
        assert.match(player.get('content-security-policy')!, /default-src 'none'; script-src 'self';.*frame-ancestors \*$/);
        assert.equal(player.get('x-frame-options'), null, 'a player may be embedded');
        assert.equal(player.get('referrer-policy'), 'strict-origin-when-cross-origin');
        assert.equal(player.get('cross-origin-opener-policy'), 'same-origin');
        assert.match(player.get('permissions-policy')!, /microphone=\(\)/);
        for (const path of ['/studio', '/account.html']) {
          const other = await headers(path);
          assert.match(other.get('content-security-policy')!, /frame-ancestors 'none'$/, path);
          assert.equal(other.get('x-frame-options'), 'DENY');
        }
        assert.match((await headers('/studio')).get('permissions-policy')!, /microphone=\(self\)/);
        const https = { 'x-forwarded-proto': 'https' };
        assert.equal((await headers('/c/radio', https)).get('strict-transport-security'), null, 'anybody may say so');
      },
      { pages },
    );
    await withApp(
      async (app) => {
        const response = await fetch(`${app.url}/c/radio`, { headers: { 'x-forwarded-proto': 'https' } });
        assert.match(response.headers.get('strict-transport-security')!, /^max-age=\d+$/);
      },
      { pages, trustProxyHops: 1 },
    );
  } finally {
    await rm(dir, { recursive: true });
  }
});
