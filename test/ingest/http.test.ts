import assert from 'node:assert/strict';
import { once } from 'node:events';
import { STATUS_CODES } from 'node:http';
import { Socket } from 'node:net';
import { before, test } from 'node:test';
import { plainAddress } from '../../src/runtime/addresses.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { ensurePackages } from '../support/packages.js';
import { BASIC, BEARER, makeTone, RawClient, setUp } from './http-support.js';

let mp3: Buffer;
let opus: Buffer;

before(async () => {
  await ensurePackages('ffmpeg');
  mp3 = await makeTone('libmp3lame', 'mp3', { more: ['-id3v2_version', '0'] });
  opus = await makeTone('libopus', 'ogg', { more: ['-metadata', 'title=One'] });
});

const chunk = (bytes: Uint8Array) => Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]);
const LAST_CHUNK = '0\r\n\r\n';
const PUT = `PUT /radio HTTP/1.1\r\nHost: x\r\n${BASIC}`;
const SOURCE = `SOURCE /radio HTTP/1.0\r\n${BASIC}`;
const POST = `POST /ingest/radio HTTP/1.1\r\nHost: x\r\n${BEARER}`;
const CHUNKED = 'Transfer-Encoding: chunked\r\n';

test('http: POST in chunks ends as finished, with 200 after the last one', async (t) => {
  const { gate, port } = await setUp(t);
  const client = new RawClient(port).send(`${POST}User-Agent: studio/1\r\n${CHUNKED}\r\n`).send(chunk(mp3.subarray(0, 9000)));
  const source = await gate.source();
  assert.equal(client.text, '');
  client.send(chunk(mp3.subarray(9000))).send(LAST_CHUNK);
  assert.match(await client.answer(), /^HTTP\/1\.1 200 OK\r\n.*"finished"/s);
  assert.equal(source.how, 'finished');
  assert.equal(source.format, 'mp3');
  assert.deepEqual(source.bytes, mp3);
  assert.deepEqual(gate.requests, [
    { protocol: 'post', channel: 'radio', streamKey: 'secret', remoteAddress: '127.0.0.1', client: 'studio/1' },
  ]);
});

test('http: POST and PUT with a length end as finished; the answer waits for neither close nor half-close', async (t) => {
  for (const start of [POST, PUT]) {
    const { gate, port } = await setUp(t);
    const client = new RawClient(port).send(`${start}Content-Length: ${mp3.length}\r\n\r\n`).send(mp3);
    assert.match(await client.answer(), /^HTTP\/1\.1 200 OK/);
    assert.equal(gate.sources[0]!.how, 'finished');
    assert.deepEqual(gate.sources[0]!.bytes, mp3);
  }
});

test('http: a body that begins a show is answered when the show can be seen, or after five seconds', async (t) => {
  const clock = new FakeClock();
  for (const start of [POST, PUT]) {
    for (const isSeen of [true, false]) {
      const { gate, port } = await setUp(t, { clock });
      let begin = () => {};
      gate.begun = new Promise((resolve) => {
        begin = resolve;
      });
      const client = new RawClient(port).send(`${start}Content-Length: ${mp3.length}\r\n\r\n`).send(mp3);
      const source = await gate.source();
      assert.equal(await source.ended(), 'finished');
      clock.advance(4400);
      // An answer that was written would be here before that of a later connection.
      assert.match(await new RawClient(port).send('GET / HTTP/1.0\r\n\r\n').answer(), /^HTTP\/1\.\d 200/);
      assert.equal(client.text, '');
      if (isSeen) begin();
      else clock.advance(1100);
      assert.match(await client.answer(), /^HTTP\/1\.1 200 OK/);
    }
  }
});

test('http: a body that arrives byte by byte, head included', async (t) => {
  const { gate, port } = await setUp(t);
  const client = new RawClient(port);
  const request = Buffer.concat([Buffer.from(`${POST}${CHUNKED}\r\n`), chunk(mp3.subarray(0, 3000)), Buffer.from(LAST_CHUNK)]);
  for (const byte of request) client.send(Buffer.of(byte));
  assert.match(await client.answer(), /^HTTP\/1\.1 200 OK/);
  assert.deepEqual(gate.sources[0]!.bytes, mp3.subarray(0, 3000));
});

test('http: a body cut short is a lost source and an answer of 400', async (t) => {
  for (const body of [`${POST}Content-Length: ${mp3.length + 1}\r\n\r\n`, `${POST}${CHUNKED}\r\n${mp3.length.toString(16)}\r\n`]) {
    const { gate, port } = await setUp(t);
    const client = new RawClient(port).send(body).send(mp3);
    const source = await gate.source();
    client.socket.end();
    assert.match(await client.answer(), /^HTTP\/1\.1 400 .*"code":"bad_request"/s);
    assert.equal(source.how, 'lost');
  }
});

test('http: POST until close only when the client says so', async (t) => {
  const { gate, port } = await setUp(t);
  assert.match(await new RawClient(port).send(`${POST}\r\n`).answer(), /^HTTP\/1\.1 411 .*length_required/s);
  const client = new RawClient(port).send(`${POST}Connection: Close\r\n\r\n`).send(mp3);
  const source = await gate.source();
  client.socket.end();
  assert.match(await client.answer(), /^HTTP\/1\.1 200 OK/);
  assert.equal(source.how, 'closed');
});

test('http: SOURCE is answered at once; a close in order does not tell whether it is over, a reset is a lost line', async (t) => {
  for (const [version, how, ended] of [
    ['HTTP/1.0', 'end', 'closed'],
    ['ICE/1.0', 'destroy', 'closed'],
    ['HTTP/1.0', 'resetAndDestroy', 'lost'],
  ] as const) {
    const { gate, port } = await setUp(t);
    const client = new RawClient(port).send(`SOURCE /radio ${version}\r\n${BASIC}ice-name: My Radio\r\n\r\n`);
    await client.until('\r\n\r\n');
    assert.match(client.text, /^HTTP\/1\.0 200 OK\r\n/);
    client.send(mp3);
    const source = await gate.source();
    await source.until(() => source.sizeBytes === mp3.length);
    client.socket[how]();
    assert.equal(await source.ended(), ended);
  }
});

test('http: 100 Continue comes after the key, never before a refusal', async (t) => {
  const { gate, port } = await setUp(t);
  const good = new RawClient(port).send(`${PUT}Expect: 100-continue\r\n\r\n`);
  await good.until('\r\n\r\n');
  assert.equal(good.text, 'HTTP/1.1 100 Continue\r\n\r\n');
  good.send(mp3);
  const source = await gate.source();
  await source.until(() => source.sizeBytes === mp3.length);
  good.socket.destroy();
  const bad = new RawClient(port).send(
    `PUT /radio HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c291cmNlOndyb25n\r\nExpect: 100-continue\r\n\r\n`,
  );
  assert.match(await bad.answer(), /^HTTP\/1\.1 401 .*\r\nWWW-Authenticate: Basic realm/s);
  assert.match(await new RawClient(port).send(`${PUT}Expect: a-miracle\r\n\r\n`).answer(), /^HTTP\/1\.1 417 /);
});

const REFUSALS: readonly [name: string, request: string, expected: RegExp][] = [
  ['no key', 'PUT /radio HTTP/1.1\r\nHost: x\r\n\r\n', /^HTTP\/1\.1 401 .*WWW-Authenticate: Basic/s],
  ['a key that is not base64', 'PUT /radio HTTP/1.1\r\nHost: x\r\nAuthorization: Basic ###\r\n\r\n', /^HTTP\/1\.1 401 /],
  ['an empty password', 'PUT /radio HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c291cmNlOg==\r\n\r\n', /^HTTP\/1\.1 401 /],
  [
    'POST without a key',
    `POST /ingest/radio HTTP/1.1\r\nHost: x\r\n${CHUNKED}\r\n`,
    /^HTTP\/1\.1 401 .*WWW-Authenticate: Bearer.*"code":"unauthorized"/s,
  ],
  ['an unknown channel', `PUT /elsewhere HTTP/1.1\r\nHost: x\r\n${BASIC}\r\n`, /^HTTP\/1\.1 404 /],
  ['both framings', `${POST}${CHUNKED}Content-Length: 3\r\n\r\nabc`, /^HTTP\/1\.1 400 .*"code":"bad_request"/s],
  ['an unknown coding', `${POST}Transfer-Encoding: gzip\r\n\r\n`, /^HTTP\/1\.1 501 /],
  ['PUT to the POST address', `PUT /ingest/radio HTTP/1.1\r\nHost: x\r\n${BASIC}\r\n`, /^HTTP\/1\.1 405 /],
  ['a listener', 'GET /radio HTTP/1.1\r\nHost: x\r\n\r\n', /^HTTP\/1\.1 405 .*PUT and SOURCE/s],
  ['a statistics probe', 'GET /admin/stats HTTP/1.0\r\n\r\n', /^HTTP\/1\.0 404 .*web port/s],
  ['another address', 'GET /a/b HTTP/1.1\r\nHost: x\r\n\r\n', /^HTTP\/1\.1 404 /],
  ['a broken head', 'GET\r\n\r\n', /^HTTP\/1\.0 400 /],
  ['TLS', '\x16\x03\x01\x02\x00\x01\x00', /^HTTP\/1\.0 400 .*TLS/s],
  [
    'an MP4 file',
    `${POST}Content-Length: 16\r\n\r\n\0\0\0\x20ftypisom\0\0\0\0`,
    /^HTTP\/1\.1 415 .*"code":"unsupported_media".*MP4; taken are MP3/s,
  ],
  ['text that ends', `${PUT}Content-Length: 5\r\n\r\nhello`, /^HTTP\/1\.1 415 .*taken are MP3/s],
  ['an empty body', `${POST}Content-Length: 0\r\n\r\n`, /^HTTP\/1\.1 415 /],
  ['a huge chunk', `${POST}${CHUNKED}\r\n4000001\r\n`, /^HTTP\/1\.1 413 .*chunk_too_large/s],
  ['a long address', `PUT /${'a'.repeat(9_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, /^HTTP\/1\.0 414 URI Too Long\r\n.*text\/plain/s],
  ['many headers', `${POST}${'A: b\r\n'.repeat(100)}\r\n`, /^HTTP\/1\.0 431 /],
  ['a long head', `${POST}A: ${'b'.repeat(16 * 1024)}\r\n\r\n`, /^HTTP\/1\.0 431 /],
];

for (const [name, request, expected] of REFUSALS) {
  test(`http: ${name} is refused clearly, with one line in the log`, async (t) => {
    const lines: object[] = [];
    const log: Log = { ...silentLog, info: (fields) => lines.push(fields) };
    const { gate, port } = await setUp(t, { log });
    assert.match(await new RawClient(port).send(Buffer.from(request, 'latin1')).answer(), expected);
    assert.equal(lines.filter((fields) => 'status' in fields).length, 1);
    assert.ok(!JSON.stringify(lines).includes('secret'));
    assert.equal(gate.sources.length, 0);
  });
}

test('http: refused keys without end are a few lines and a count; a broadcaster whose key is good has lines of its own', async (t) => {
  const clock = new FakeClock();
  const lines: Record<string, unknown>[] = [];
  const log: Log = { ...silentLog, info: (fields, message) => lines.push({ ...fields, message }) };
  const { gate, port } = await setUp(t, { clock, log });
  const good = new RawClient(port).send(`${PUT}${CHUNKED}\r\n`).send(chunk(mp3));
  await gate.source();
  const wrong = `PUT /radio HTTP/1.1\r\nHost: x\r\nAuthorization: Basic ${Buffer.from('source:no').toString('base64')}\r\n\r\n`;
  const refused = () => lines.filter(({ message }) => message === 'a source was refused');
  for (let attempt = 0; attempt < 40; attempt++) assert.match(await new RawClient(port).send(wrong).answer(), /^HTTP\/1\.1 401 /);
  assert.equal(refused().length, 10);
  clock.advance(9_000);
  good.send('zz\r\n');
  assert.match(await good.answer(), /^HTTP\/1\.1 400 /);
  assert.equal(refused().length, 11);
  clock.advance(51_000);
  assert.deepEqual(refused().slice(11), [
    { event: 'log.lines_left_out', of: 'ingest.refused', code: 'unauthorized', leftOut: 30, message: 'a source was refused' },
  ]);
});

test('http: OPTIONS and the front page say what this port is', async (t) => {
  const { port } = await setUp(t);
  assert.match(
    await new RawClient(port).send('OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n').answer(),
    /^HTTP\/1\.1 204 .*\r\nAllow: PUT, SOURCE, GET, OPTIONS/s,
  );
  assert.match(await new RawClient(port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n').answer(), /^HTTP\/1\.1 200 .*broadcasters/s);
  assert.match(
    await new RawClient(port).send('GET /status-json.xsl HTTP/1.1\r\nHost: x\r\n\r\n').answer(),
    /^HTTP\/1\.1 200 .*\{"icestats":/s,
  );
});

test('http: what the gate says becomes a status', async (t) => {
  const { gate, port } = await setUp(t);
  for (const [error, status, retryAfter] of [
    [new VezaError('displaced', 'another encoder is on air'), 409],
    [new VezaError('busy', 'MAX_STREAMS reached'), 503, '1'],
    [new VezaError('rate_limited', 'too many'), 429, '10'],
    [new VezaError('rate_limited', 'too many', { details: { retryAfterS: 40 } }), 429, '40'],
    [new Error('the database is gone'), 500],
  ] as const) {
    gate.error = error;
    const answer = await new RawClient(port).send(`${POST}${CHUNKED}\r\n`).answer();
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
    assert.equal(JSON.parse(answer.slice(answer.indexOf('{'))).title, STATUS_CODES[status]);
    assert.equal(/^Retry-After: (\d+)\r$/m.exec(answer)?.[1], retryAfter);
    assert.equal(answer.includes('database'), false);
  }
});

test('http: a source that Veza closes is told why, where it can still be told', async (t) => {
  const { gate, port } = await setUp(t);
  const post = new RawClient(port).send(`${POST}${CHUNKED}\r\n`).send(chunk(mp3));
  (await gate.source(0)).events.onClose({ code: 'displaced', message: 'taken over' });
  assert.match(await post.answer(), /^HTTP\/1\.1 409 .*"code":"displaced","detail":"taken over"/s);
  const icecast = new RawClient(port).send(`${SOURCE}\r\n`).send(mp3);
  (await gate.source(1)).events.onClose({ code: 'unsupported_media', message: 'not decodable' });
  assert.match(await icecast.answer(), /^HTTP\/1\.0 200 OK\r\n.*\r\n\r\n$/s);
});

test('http: Ogg titles reach the source, and another channel count gets a new one on the same admission', async (t) => {
  const { gate, port } = await setUp(t);
  const mono = await makeTone('libopus', 'ogg', { channels: 1, more: ['-metadata', 'title=Two'] });
  const client = new RawClient(port)
    .send(`${POST}${CHUNKED}\r\n`)
    .send(chunk(Buffer.concat([opus, mono])))
    .send(LAST_CHUNK);
  assert.match(await client.answer(), /^HTTP\/1\.1 200 OK/);
  assert.deepEqual(
    gate.sources.map((source) => [source.format, source.bytes.length, source.how, source.titles]),
    [
      ['ogg', opus.length, 'finished', [{ title: 'One' }]],
      ['ogg', mono.length, 'finished', [{ title: 'Two' }]],
    ],
  );
  assert.equal(gate.requests.length, 1);
});

test('http: a slow source stops the reading, and the idle deadline with it', async (t) => {
  const clock = new FakeClock();
  const { gate, port } = await setUp(t, { clock });
  gate.slow = true;
  const file = Buffer.concat(Array.from({ length: 1000 }, () => mp3));
  const client = new RawClient(port).send(`${POST}Content-Length: ${file.length}\r\n\r\n`).send(file);
  const source = await gate.source();
  await source.until(() => source.sizeBytes > 0);
  let drains = 0;
  while (source.how === undefined) {
    const before = source.sizeBytes;
    // Far longer than the deadline: it does not count while the source is the one who waits.
    clock.advance(60_000);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(source.sizeBytes, before, 'nothing is read while the source is full');
    source.events.onDrain();
    drains++;
    await source.until(() => source.sizeBytes > before);
    assert.ok(source.sizeBytes - before <= 128 * 1024, `${source.sizeBytes - before} bytes at once`);
  }
  assert.ok(drains > 100, `${drains} drains`);
  assert.match(await client.answer(), /^HTTP\/1\.1 200 OK/);
  assert.ok(source.bytes.equals(file));
});

/** Deadlines are looked at every half second. */
const STEP_MS = 500;

test('http: deadlines of the head, the key, the container and the silence', async (t) => {
  const clock = new FakeClock();
  const { gate, port } = await setUp(t, { clock });
  const open = async (request: string | Buffer) => {
    const client = new RawClient(port).send(request);
    await once(client.socket, 'connect');
    return client;
  };
  /** The server has read what was sent before: it has answered somebody who came later. */
  const settled = () => new RawClient(port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n').answer();

  const head = await open('PUT /radio HT');
  await settled();
  clock.advance(5_000 - STEP_MS);
  assert.equal(head.closed, false);
  clock.advance(STEP_MS);
  assert.match(await head.answer(), /^HTTP\/1\.0 408 /);

  gate.hold = new Promise(() => undefined);
  const key = await open(`${POST}${CHUNKED}\r\n`);
  await settled();
  clock.advance(10_000);
  assert.match(await key.answer(), /^HTTP\/1\.1 503 /);
  gate.hold = undefined;

  const garbage = await open(Buffer.concat([Buffer.from(`${POST}${CHUNKED}\r\n`), chunk(Buffer.alloc(1000, 'x'))]));
  await settled();
  clock.advance(10_000);
  assert.match(await garbage.answer(), /^HTTP\/1\.1 408 .*taken are MP3/s);

  const silent = await open(Buffer.concat([Buffer.from(`${POST}${CHUNKED}\r\n`), chunk(mp3)]));
  const source = await gate.source();
  await source.until(() => source.sizeBytes === mp3.length);
  clock.advance(10_000 - STEP_MS);
  silent.send(chunk(mp3));
  await source.until(() => source.sizeBytes === 2 * mp3.length);
  clock.advance(10_000 - STEP_MS);
  assert.equal(source.how, undefined);
  clock.advance(STEP_MS);
  assert.equal(source.how, 'lost');
  assert.match(await silent.answer(), /^HTTP\/1\.1 408 .*"code":"timeout"/s);
});

test('http: 500 connections that say nothing: bounded, then dropped; a source on air stays', async (t) => {
  const clock = new FakeClock();
  const warnings: object[] = [];
  const { gate, port } = await setUp(t, { clock, log: { ...silentLog, warn: (fields) => warnings.push(fields) } });
  const onAir = new RawClient(port).send(`${SOURCE}\r\n`).send(mp3);
  const source = await gate.source();
  const crowd = Array.from({ length: 500 }, () => new RawClient(port));
  const refused = await Promise.all(crowd.slice(100).map((client) => client.answer()));
  assert.equal(refused.filter((text) => text !== '').length, 20, 'the others are reset');
  for (const text of refused) assert.match(text, /^(HTTP\/1\.0 503 .*too many connections\n)?$/s);
  assert.equal(crowd.slice(0, 100).filter((client) => client.closed).length, 0);
  clock.advance(4_500);
  assert.deepEqual(warnings, [{ event: 'ingest.connections_refused', protocol: 'http', connections: 400 }]);
  onAir.send(mp3);
  await source.until(() => source.sizeBytes === 2 * mp3.length);
  clock.advance(500);
  for (const client of crowd.slice(0, 100)) assert.equal(await client.answer(), '');
  assert.equal(source.how, undefined);
  assert.match(await new RawClient(port).send('GET / HTTP/1.1\r\nHost: x\r\n\r\n').answer(), /^HTTP\/1\.1 200/);
});

test('http: the limit of all connections holds over addresses, and those on air do not count', async (t) => {
  const { gate, port } = await setUp(t, { limits: { connections: 2, connectionsPerAddress: 1 } });
  for (let index = 0; index < 3; index++) {
    new RawClient(port).send(`${SOURCE}\r\n`).send(mp3);
    await gate.source(index);
  }
  const waiting = new RawClient(port);
  await once(waiting.socket, 'connect');
  assert.match(await new RawClient(port).answer(), /^HTTP\/1\.0 503 /);
  waiting.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.match(await waiting.answer(), /^HTTP\/1\.1 200/);
});

test('http: the addresses of one /64 are one client, those of another and of IPv4 are not', async (t) => {
  const { port } = await setUp(t, { limits: { connections: 100, connectionsPerAddress: 2 } });
  let peer = '';
  // What Node asks the kernel once for each socket.
  t.mock.method(Socket.prototype as unknown as { _getpeername(): unknown }, '_getpeername', () => ({
    address: peer,
    family: 'IPv6',
    port: 1,
  }));
  const held: RawClient[] = [];
  const connectFrom = async (address: string) => {
    peer = address;
    const client = new RawClient(port);
    held.push(client);
    await once(client.socket, 'connect');
    client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.slice(0, -2));
    return client;
  };
  for (const address of ['2001:db8::1', '2001:db8::2']) await connectFrom(address);
  for (const address of ['2001:db8::3', '2001:db8:0:0:ffff::1']) {
    assert.match(await (await connectFrom(address)).answer(), /^HTTP\/1\.0 503 /, address);
  }
  for (const address of ['2001:db8:0:1::1', '192.0.2.1', '::ffff:192.0.2.1']) {
    const client = await connectFrom(address);
    client.send('\r\n');
    assert.match(await client.answer(), /^HTTP\/1\.1 200 /, address);
  }
  for (const client of held) client.socket.destroy();
});

test('http: HEAD is answered as GET, without a body; every answer has its date', async (t) => {
  const clock = new FakeClock();
  const { port } = await setUp(t, { clock });
  const date = `Date: ${new Date(clock.wallMs()).toUTCString()}`;
  const ask = async (method: string, path: string, headers = '') => {
    const answer = await new RawClient(port).send(`${method} ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`).answer();
    assert.ok(answer.includes(date), `${method} ${path}`);
    return answer;
  };
  for (const path of ['/', '/status-json.xsl', '/nothing/here', '/radio', '/ingest/radio', '/admin/metadata']) {
    const get = await ask('GET', path);
    assert.equal(await ask('HEAD', path), get.slice(0, get.indexOf('\r\n\r\n') + 4), path);
  }
  assert.match(await ask('HEAD', '/'), /^HTTP\/1\.1 200 .*Content-Length: [1-9]/s);
  for (const [method, path, allow] of [
    ['GET', '/radio', 'PUT, SOURCE, OPTIONS'],
    ['DELETE', '/radio', 'PUT, SOURCE, OPTIONS'],
    ['PUT', '/ingest/radio', 'POST, OPTIONS'],
    ['TRACE', '/', 'GET, HEAD, OPTIONS'],
    ['PUT', '/admin/metadata', 'GET, POST, HEAD, OPTIONS'],
    ['SOURCE', '/status-json.xsl', 'PUT, SOURCE, OPTIONS'],
  ] as const) {
    const answer = await ask(method, path);
    if (path === '/status-json.xsl') assert.match(answer, /\r\nAllow: GET, HEAD, OPTIONS\r\n/);
    else assert.match(answer, new RegExp(`^HTTP/1\\.1 405 .*\\r\\nAllow: ${allow}\\r\\n`, 's'));
  }
  assert.match(await ask('OPTIONS', '*'), /^HTTP\/1\.1 204 .*Allow: PUT, SOURCE, GET, OPTIONS, HEAD, POST\r\n/s);
  assert.match(await ask('BREW', '/'), /^HTTP\/1\.1 501 /);
});

test('http: HEAD of a metadata call checks the key and changes nothing', async (t) => {
  const { gate, port } = await setUp(t);
  const call = (method: string, authorization: string) =>
    new RawClient(port)
      .send(`${method} /admin/metadata?mount=/radio&mode=updinfo&song=a HTTP/1.1\r\nHost: x\r\n${authorization}\r\n`)
      .answer();
  assert.match(await call('HEAD', BASIC), /^HTTP\/1\.1 200 .*\r\n\r\n$/s);
  assert.match(await call('HEAD', ''), /^HTTP\/1\.1 401 .*\r\n\r\n$/s);
  assert.equal(gate.titles.length, 0);
  assert.match(await call('GET', BASIC), /^HTTP\/1\.1 200 /);
  assert.equal(gate.titles.length, 1);
});

test('http: what makes a request doubtful is refused at every address, before its key is looked at', async (t) => {
  const { gate, port } = await setUp(t);
  for (const path of ['/', '/radio', '/ingest/radio', '/status-json.xsl', '/nothing/here']) {
    const method = path === '/radio' ? 'PUT' : path === '/ingest/radio' ? 'POST' : 'GET';
    const ask = (headers: string, version = 'HTTP/1.1') =>
      new RawClient(port).send(`${method} ${path} ${version}\r\n${BASIC}${headers}\r\n`).answer();
    assert.match(await ask(''), /^HTTP\/1\.1 400 /, 'no Host');
    assert.match(await ask('Host: x\r\nHost: y\r\n'), /^HTTP\/1\.[01] 400 /);
    assert.match(await ask('Host: x y\r\n'), /^HTTP\/1\.1 400 /);
    assert.match(await ask('Host: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n'), /^HTTP\/1\.1 400 /);
    assert.match(await ask('Host: x\r\nTransfer-Encoding: gzip, chunked\r\n'), /^HTTP\/1\.1 501 /);
    assert.match(await ask('Host: x\r\nContent-Length: 1x\r\n'), /^HTTP\/1\.1 400 /);
    assert.match(await ask('Host: x\r\nExpect: 200-ok\r\n'), /^HTTP\/1\.1 417 /);
  }
  assert.equal(gate.requests.length, 0);
});

test('http: absolute addresses are the same as those that begin with a slash', async (t) => {
  const { gate, port } = await setUp(t);
  new RawClient(port)
    .send(`PUT http://radio.example:8000/radio HTTP/1.1\r\nHost: x\r\n${BASIC}Content-Length: ${mp3.length}\r\n\r\n`)
    .send(mp3);
  const source = await gate.source();
  await source.until(() => source.sizeBytes === mp3.length);
  assert.match(await new RawClient(port).send('GET http://host HTTP/1.1\r\nHost: x\r\n\r\n').answer(), /^HTTP\/1\.1 200 /);
});

/** After the server's end of sending, only a write shows that the connection is gone. */
async function sendUntilClosed(client: RawClient, bytes: Buffer): Promise<void> {
  while (!client.socket.closed) {
    client.send(bytes);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('http: after a refusal the rest is read, up to a limit and a time, so that the answer arrives', async (t) => {
  const clock = new FakeClock();
  const { port } = await setUp(t, { clock, limits: { lingerBytes: 100_000 } });
  const client = new RawClient(port).send(`PUT /radio HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n`).send(Buffer.alloc(90_000));
  assert.match(await client.answer(), /^HTTP\/1\.1 401 /);
  const stubborn = new RawClient(port).send('PUT /radio HTTP/1.1\r\nHost: x\r\n\r\n');
  await stubborn.until('401');
  await sendUntilClosed(stubborn, Buffer.alloc(10_000));
  const holding = new RawClient(port).send('PUT /radio HTTP/1.1\r\nHost: x\r\n\r\n');
  await holding.until('401');
  clock.advance(2_000);
  await sendUntilClosed(holding, Buffer.of(0));
});

test('http: stop ends what is on air as lost, closes every connection, and is harmless twice', async (t) => {
  const { gate, server, port } = await setUp(t);
  const silent = new RawClient(port);
  await once(silent.socket, 'connect');
  const post = new RawClient(port).send(`${POST}${CHUNKED}\r\n`).send(chunk(mp3));
  const source = await gate.source();
  await Promise.all([server.stop(), server.stop()]);
  await server.stop();
  assert.equal(source.how, 'lost');
  assert.match(await post.answer(), /^HTTP\/1\.1 503 .*shutting down/s);
  assert.equal(await silent.answer(), '');
});

test('http: a client that leaves while its key is checked leaves nothing behind', async (t) => {
  const { gate, server, port } = await setUp(t);
  let admit = () => {};
  gate.hold = new Promise((resolve) => {
    admit = resolve;
  });
  const client = new RawClient(port).send(`${SOURCE}\r\n`).send(mp3);
  while (gate.requests.length === 0) await new Promise((resolve) => setImmediate(resolve));
  client.socket.resetAndDestroy();
  await server.stop();
  admit();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(gate.sources.length, 0);
});

test('http: IPv4 addresses are written as such on an IPv6 listener', async (t) => {
  assert.equal(plainAddress('::ffff:192.0.2.1'), '192.0.2.1');
  assert.equal(plainAddress('2001:db8::ffff:1'), '2001:db8::ffff:1');
  assert.equal(plainAddress(undefined), '');
  const { gate, port } = await setUp(t, { host: '::' });
  new RawClient(port).send(`${SOURCE}\r\n`).send(mp3);
  await gate.source();
  assert.equal(gate.requests[0]!.remoteAddress, '127.0.0.1');
});
