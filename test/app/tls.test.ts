import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from 'node:http2';
import { get } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { ConnectionLimits } from '../../src/app/http/connection-limits.js';
import { type HttpListener, type HttpListenerOptions, listenHttp, useCertificate } from '../../src/app/http/listener.js';
import { startMetricsServer } from '../../src/app/http/metrics-server.js';
import { createApp } from '../../src/app/server.js';
import { startService } from '../../src/compose/run.js';
import { loadConfig } from '../../src/config/config.js';
import { RtmpServer } from '../../src/ingest/rtmp/server.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { Metrics } from '../../src/runtime/metrics.js';
import { internalClientTls, internalServerTls } from '../../src/runtime/tls/internal-tls.js';
import { TlsFiles } from '../../src/runtime/tls/tls-files.js';
import { startApp } from '../support/app.js';
import { type Issued, TestAuthority } from '../support/certificates.js';
import { startPlayback } from '../support/fake-edge.js';
import { freePorts } from '../support/free-port.js';
import { eventually, run } from '../support/process.js';

const clock = new SystemClock();
let authority: TestAuthority;
let ca: Buffer;
let first: Issued;
let second: Issued;

before(async () => {
  authority = await TestAuthority.make();
  ca = await authority.ca();
  [first, second] = [await authority.issue('first'), await authority.issue('second')];
});
after(() => authority.remove());

const pair = ({ cert, key }: Issued) => ({ cert, key });

async function serve(
  t: TestContext,
  handler: Parameters<typeof listenHttp>[0],
  options: Partial<HttpListenerOptions> = {},
): Promise<HttpListener> {
  const tls = { ...pair(first), minVersion: 'TLSv1.3' as const };
  const listener = await listenHttp(handler, { host: '127.0.0.1', port: 0, tls, ...options }, clock);
  t.after(() => listener.stop(0));
  return listener;
}

/** Resolves when the handshake is done, and with TLS 1.3 when the server has agreed to it, too: it speaks first, or nobody does for long. */
function handshake(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca, ...options }, () => resolve(socket));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed')));
  });
}

const nameShown = async (port: number, options: ConnectionOptions = {}): Promise<string> => {
  const socket = await handshake(port, options);
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return String(CN);
};

interface Answer {
  status: number;
  headers: Record<string, unknown>;
  body: Buffer;
}

function ask(session: ClientHttp2Session, path: string, headers: Record<string, string> = {}, body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':path': path, ...headers }, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    const chunks: Buffer[] = [];
    let got: Record<string, unknown> = {};
    stream.on('response', (received) => {
      got = received;
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('close', () => resolve({ status: Number(got[':status']), headers: got, body: Buffer.concat(chunks) }));
  });
}

function session(t: TestContext, port: number): ClientHttp2Session {
  const opened = connectHttp2(`https://localhost:${port}`, { ca });
  opened.on('error', () => undefined);
  t.after(() => opened.destroy());
  return opened;
}

test('TLS 1.3 unless an older one is asked for; HTTP/2 where the client speaks it', async (t) => {
  const versions: string[] = [];
  const strict = await serve(t, (req, res) => {
    versions.push(req.httpVersion);
    res.end('there');
  });
  const { port } = strict;
  assert.equal((await handshake(port)).getProtocol(), 'TLSv1.3');
  await assert.rejects(handshake(port, { maxVersion: 'TLSv1.2' }), /protocol version|alert/i);
  const older = await serve(t, (_req, res) => res.end(), { tls: { ...pair(first), minVersion: 'TLSv1.2' } });
  assert.equal((await handshake(older.port, { maxVersion: 'TLSv1.2' })).getProtocol(), 'TLSv1.2');
  await assert.rejects(handshake(older.port, { maxVersion: 'TLSv1.1', minVersion: 'TLSv1' }));

  assert.equal((await ask(session(t, port), '/')).body.toString(), 'there');
  const text = await new Promise<string>((resolve, reject) => {
    get({ port, host: '127.0.0.1', servername: 'localhost', ca, agent: false }, (res) => {
      res.on('data', (bytes) => resolve(String(bytes)));
    }).on('error', reject);
  });
  assert.equal(text, 'there');
  assert.deepEqual(versions, ['2.0', '1.1']);
  for (const [http, wanted] of [
    ['--http2', '2'],
    ['--http1.1', '1.1'],
  ] as const) {
    const printed = ['-o', '/dev/null', '-w', '%{http_version}'];
    const { stdout } = await run('curl', ['-sS', http, '--cacert', authority.caFile, ...printed, `https://localhost:${port}/`]);
    assert.equal(stdout.toString(), wanted);
  }
});

describe('over HTTP/2', () => {
  test('the API: headers, errors, bodies, limits', async (t) => {
    const app = await startApp();
    t.after(() => app.stop());
    const handler = createApp({
      clock,
      log: silentLog,
      metrics: new Metrics({ clock, service: 'veza', version: 'x', memoryLimitMb: undefined }),
      version: 'test',
      addresses: {
        publicUrl: 'https://radio.example',
        mediaUrl: 'https://radio.example',
        rtmpPort: 1,
        rtmpsPort: undefined,
        ingestPort: 2,
      },
      access: app.access,
      broadcasts: app.broadcasts,
      live: app.live,
      health: {},
      allowedOrigins: ['*'],
      trustProxyHops: 0,
      pages: undefined,
    } as never).callback();
    const { port } = await serve(t, handler);
    const client = session(t, port);
    const json = { ':method': 'POST', authorization: `Bearer ${app.token}`, 'content-type': 'application/json' };
    const created = await ask(client, '/api/v1/channels', json, '{"slug":"radio"}');
    assert.equal(created.status, 201);
    assert.match(String(created.headers['strict-transport-security']), /^max-age=/);
    assert.match(String(created.headers.ratelimit), /^"api";r=/);
    assert.equal((await ask(client, '/api/v1/channels/radio')).status, 200);
    assert.equal((await ask(client, '/api/v1/channels/none')).status, 404);
    assert.equal((await ask(client, '/api/v1/channels', json, '{')).status, 400);
    assert.equal((await ask(client, '/api/v1/channels', json, `{"slug":"${'x'.repeat(70_000)}"}`)).status, 413);
    assert.equal((await ask(client, '/api/v1/channels/radio', { ':method': 'DELETE', authorization: `Bearer ${app.token}` })).status, 204);
    assert.equal((await ask(client, '/nothing', { ':method': 'HEAD' })).status, 404);
    assert.equal((await ask(client, `/${'x'.repeat(9000)}`)).status, 414);
    const many = Object.fromEntries(Array.from({ length: 101 }, (_, index) => [`x-${index}`, 'y']));
    await assert.rejects(
      ask(client, '/health/live', many).then(({ status }) => assert.equal(status, 200)),
      'refused as a whole, or answered 431',
    );
    assert.equal((await ask(session(t, port), '/health/live')).status, 200, 'others are not touched');
  });

  test('playback: manifests, parts, those who wait, endless streams, and clients that leave', async (t) => {
    const s = await startPlayback();
    t.after(() => s.close());
    const { port } = await serve(t, (req, res) => {
      if (!s.playback.handle(req, res)) res.writeHead(404).end();
    });
    const channel = s.edge.start('radio');
    channel.segments(3);
    channel.parts(2);
    const client = session(t, port);
    const master = await ask(client, '/live/radio/master.m3u8');
    assert.deepEqual([master.status, master.headers['content-type']], [200, 'application/vnd.apple.mpegurl']);
    assert.equal(master.headers['access-control-allow-origin'], '*');
    const etag = String(master.headers.etag);
    assert.equal((await ask(client, '/live/radio/master.m3u8', { 'if-none-match': etag })).status, 304);
    const zipped = await ask(client, '/live/radio/aac-128/index.m3u8', { 'accept-encoding': 'gzip' });
    assert.equal(zipped.headers['content-encoding'], 'gzip');
    const segment = await ask(client, channel.segmentPath('aac-128', 11));
    assert.equal(Number(segment.headers['content-length']), segment.body.length);
    const range = await ask(client, channel.segmentPath('aac-128', 11), { range: 'bytes=10-19' });
    assert.deepEqual([range.status, range.body], [206, segment.body.subarray(10, 20)]);
    const head = await ask(client, channel.segmentPath('aac-128', 11), { ':method': 'HEAD' });
    assert.deepEqual([head.status, head.body.length], [200, 0]);
    assert.equal((await ask(client, '/live/none/master.m3u8')).status, 404);
    assert.equal((await ask(client, '/live/radio/master.m3u8', { ':method': 'OPTIONS' })).status, 204);

    // Fifty wait on one connection; one of them leaves.
    const waiting = (count: number) => eventually(`${count} wait`, () => (s.playback.counters.waiting === count ? true : undefined));
    const path = '/live/radio/aac-128/index.m3u8?_HLS_msn=13&_HLS_part=2';
    const answers = Array.from({ length: 50 }, () => ask(client, path));
    const leaving = client.request({ ':path': path });
    leaving.on('error', () => undefined);
    await waiting(51);
    leaving.close(constants.NGHTTP2_CANCEL);
    await waiting(50);
    channel.parts(1);
    for (const { status, body } of await Promise.all(answers)) {
      assert.equal(status, 200);
      assert.match(body.toString(), /-13\.2\.m4s"/);
    }

    // A segment in the making comes as it is made.
    const growing = client.request({ ':path': channel.segmentPath('aac-128', 13) });
    const bytes = await firstBytes(growing);
    assert.ok(bytes.length > 0);
    growing.close();

    // Endless.
    const ear = client.request({ ':path': '/listen/radio.mp3' });
    assert.ok((await firstBytes(ear)).length > 0);
    assert.equal(s.playback.listeners('radio') > 0, true);
    const before = s.playback.listeners('radio');
    const other = session(t, port);
    const second = other.request({ ':path': '/listen/radio.aac' });
    second.on('error', () => undefined);
    await firstBytes(second);
    assert.equal(s.playback.listeners('radio'), before + 1);
    other.destroy();
    await eventually('it has left', () => (s.playback.listeners('radio') === before ? true : undefined));
    channel.segments(1);
    ear.close();
    assert.equal(s.playback.counters.slowListeners, 0);
  });

  test('hostile: more streams than allowed, endless bodies, streams opened and reset; others do not notice', async (t) => {
    const fake = new FakeClock();
    let [open, ended] = [0, 0];
    const listener = await listenHttp(
      (req, res) => {
        open++;
        res.once('close', () => {
          open--;
          ended++;
        });
        if (req.url === '/quick') res.end('there');
        else req.resume();
      },
      { host: '127.0.0.1', port: 0, tls: pair(first) },
      fake,
    );
    t.after(() => listener.stop(0));
    const calm = session(t, listener.port);
    const flood = session(t, listener.port);
    await ask(flood, '/quick');
    const streams: ClientHttp2Stream[] = [];
    for (let i = 0; i < 300; i++) {
      const stream = flood.request({ ':path': '/held', ':method': 'POST' }, { endStream: false });
      stream.on('error', () => undefined);
      streams.push(stream);
    }
    await eventually('as many as there may be', () => (open === 100 ? true : undefined));
    assert.equal((await ask(calm, '/quick')).body.toString(), 'there');
    assert.equal(open, 100, 'never more');
    // Their bodies do not end: they are cut off.
    fake.advance(30_000);
    await eventually('they are gone', () => (ended >= 102 ? true : undefined));
    flood.destroy();
    await eventually('all are', () => (open === 0 ? true : undefined));

    const resets = session(t, listener.port);
    const gone = new Promise((resolve) => resets.once('close', resolve));
    await ask(resets, '/quick');
    let sent = 0;
    const resetting = (async () => {
      while (!resets.destroyed && !resets.closed) {
        const some: ClientHttp2Stream[] = [];
        for (let i = 0; i < 50 && !resets.destroyed && !resets.closed; i++) {
          const stream = resets.request({ ':path': '/held' });
          stream.on('error', () => undefined);
          some.push(stream);
        }
        // What was not sent yet would be taken back silently.
        await new Promise((resolve) => setImmediate(resolve));
        for (const stream of some) stream.close(constants.NGHTTP2_CANCEL);
        sent += some.length;
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    await gone;
    await resetting;
    assert.ok(sent < 20_000, `${sent}`);
    await eventually('nothing is left of them', () => (open === 0 ? true : undefined));
    assert.equal((await ask(calm, '/quick')).body.toString(), 'there');
  });

  test('a stop answers what is under way and cuts what does not end', async () => {
    const fake = new FakeClock();
    let finish = () => {};
    const listener = await listenHttp(
      (req, res) => {
        if (req.url === '/held') res.write('begun');
        else finish = () => res.end('done');
      },
      { host: '127.0.0.1', port: 0, tls: pair(first) },
      fake,
    );
    const client = connectHttp2(`https://localhost:${listener.port}`, { ca });
    client.on('error', () => undefined);
    const held = client.request({ ':path': '/held' });
    held.on('error', () => undefined);
    const closed = new Promise((resolve) => held.once('close', resolve));
    await firstBytes(held);
    const ending = ask(client, '/ending');
    const none = finish;
    await eventually('it is asked', () => (finish === none ? undefined : true));
    const stopped = listener.stop(5000);
    finish();
    assert.equal((await ending).body.toString(), 'done');
    fake.advance(5000);
    await stopped;
    await closed;
    client.destroy();
  });
});

const firstBytes = (stream: ClientHttp2Stream) => new Promise<Buffer>((resolve) => stream.once('data', (chunk: Buffer) => resolve(chunk)));

test('a stop cuts who is still in the handshake', async () => {
  const fake = new FakeClock();
  const connections = new ConnectionLimits({ total: 3, perAddress: undefined });
  const options = { host: '127.0.0.1', port: 0, tls: pair(first), connections };
  const listener = await listenHttp((_req, res) => res.end(), options, fake);
  const silent = connectTcp(listener.port, '127.0.0.1');
  silent.on('error', () => undefined);
  const closed = new Promise((resolve) => silent.once('close', resolve));
  await eventually('it is in', () => (connections.open === 1 ? true : undefined));
  const stopped = listener.stop(5000);
  fake.advance(5000);
  await stopped;
  await closed;
  await eventually('it is out', () => (connections.open === 0 ? true : undefined));
});

test('connections are counted before the handshake, and what is none is not kept', async (t) => {
  const connections = new ConnectionLimits({ total: 3, perAddress: undefined });
  const { port } = await serve(t, (_req, res) => res.end(), { connections });
  const silent = Array.from({ length: 3 }, () => connectTcp(port, '127.0.0.1'));
  for (const socket of silent) socket.on('error', () => undefined);
  await eventually('they are in', () => (connections.open === 3 ? true : undefined));
  await assert.rejects(handshake(port));
  for (const socket of silent) socket.destroy();
  await eventually('they are out', () => (connections.open === 0 ? true : undefined));
  // Rubbish instead of a handshake is not kept.
  const rubbish = connectTcp(port, '127.0.0.1');
  rubbish.on('error', () => undefined);
  rubbish.resume();
  rubbish.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await new Promise((resolve) => rubbish.once('close', resolve));
  const good = await handshake(port);
  assert.equal(good.authorized, true);
  good.destroy();
});

describe('certificates that change', () => {
  const setUp = async (t: TestContext, issued: Issued) => {
    const dir = await mkdtemp(join(tmpdir(), 'veza-tls-'));
    t.after(() => rm(dir, { recursive: true, force: true }));
    const [certFile, keyFile] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
    await cp(issued.certFile, certFile);
    await cp(issued.keyFile, keyFile);
    const lines: { level: string; message: string; error?: string }[] = [];
    const line = (level: string) => (fields: object, message: string) => lines.push({ level, message, ...fields });
    const log = { ...silentLog, info: line('info'), warn: line('warn'), error: line('error') };
    return { dir, certFile, keyFile, log, lines };
  };

  test('a new pair is in use without a restart, a broken one never is', async (t) => {
    const { certFile, keyFile, log, lines } = await setUp(t, first);
    const files = await TlsFiles.open({ certFile, keyFile, clock, log });
    t.after(() => files.stop());
    const listener = await serve(t, (_req, res) => res.end('there'), { tls: files.current });
    files.onChange((certificates) => useCertificate(listener, certificates));
    const rtmps = new RtmpServer({ gate: {} as never, clock, log: silentLog, port: 0, host: '127.0.0.1', tls: files.current });
    await rtmps.start();
    t.after(() => rtmps.stop());
    files.onChange((certificates) => rtmps.useCertificate(certificates));
    const shown = async () => [await nameShown(listener.port), await nameShown(rtmps.port)];
    assert.deepEqual(await shown(), ['first', 'first']);
    const old = session(t, listener.port);
    await ask(old, '/');

    // Half of a renewal: the certificate is there, its key is not.
    await cp(second.certFile, certFile);
    await eventually('it is seen', () => (lines.some(({ level }) => level === 'error') ? true : undefined));
    assert.match(lines[0]!.error!, /key values mismatch|mismatch/i);
    assert.deepEqual(await shown(), ['first', 'first']);
    // The other half.
    await cp(second.keyFile, keyFile);
    await eventually('it is in use', async () => ((await shown()).join() === 'second,second' ? true : undefined));
    assert.equal((await ask(old, '/')).body.toString(), 'there', 'a connection that there is goes on');

    for (const text of ['', 'rubbish', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n']) {
      lines.length = 0;
      await writeFile(certFile, text);
      await files.reload();
      await files.reload();
      assert.deepEqual(await shown(), ['second', 'second']);
    }
    await unlink(certFile);
    lines.length = 0;
    await files.reload();
    await files.reload();
    assert.equal(lines.filter(({ level }) => level === 'error').length, 1, 'said once');
    assert.doesNotMatch(JSON.stringify(lines), /PRIVATE/);
    await cp(second.certFile, certFile);
    await files.reload();
    assert.deepEqual(await shown(), ['second', 'second']);
  });

  test('a link that is moved to another folder, as renewals in containers do', async (t) => {
    const { dir, log } = await setUp(t, first);
    for (const [name, issued] of [
      ['one', first],
      ['two', second],
    ] as const) {
      await mkdir(join(dir, name));
      await cp(issued.certFile, join(dir, name, 'tls.crt'));
      await cp(issued.keyFile, join(dir, name, 'tls.key'));
    }
    await symlink('one', join(dir, 'data'));
    const [certFile, keyFile] = [join(dir, 'data', 'tls.crt'), join(dir, 'data', 'tls.key')];
    const fake = new FakeClock();
    const files = await TlsFiles.open({ certFile, keyFile, clock: fake, log });
    t.after(() => files.stop());
    const changed = new Promise<Buffer>((resolve) => files.onChange(({ cert }) => resolve(cert)));
    await symlink('two', join(dir, 'new'));
    await rename(join(dir, 'new'), join(dir, 'data'));
    // Nobody told us: the folder that is watched is still the old one.
    fake.advance(30_000);
    assert.deepEqual(await changed, second.cert);
  });

  test('a start with what cannot be used is refused, and one that ends soon is named', async (t) => {
    const { certFile, keyFile, log, lines } = await setUp(t, first);
    const options = { clock, log };
    await assert.rejects(TlsFiles.open({ ...options, certFile, keyFile: second.keyFile }), /cert\.pem with the key .* cannot be used/);
    await assert.rejects(TlsFiles.open({ ...options, certFile: '/none', keyFile }), /\/none.*cannot be used/);
    const short = await authority.issue('short', 3);
    const files = await TlsFiles.open({ ...options, ...short });
    files.stop();
    files.stop();
    assert.deepEqual(
      lines.map(({ message }) => message),
      ['the certificate expires soon: renew it'],
    );
  });
});

describe('mutual TLS on the operators’ port', () => {
  const open = async (t: TestContext, own: Issued) => {
    const metrics = new Metrics({ clock, service: 'veza', version: 'x', memoryLimitMb: undefined });
    const tls = internalServerTls({ ...pair(own), ca });
    const listener = await startMetricsServer({ host: '127.0.0.1', port: 0, metrics, clock, log: silentLog, tls });
    t.after(() => listener.stop(0));
    return listener;
  };
  const scrape = (port: number, options: ConnectionOptions) =>
    new Promise<number>((resolve, reject) => {
      const sent = get({ port, host: '127.0.0.1', servername: 'localhost', path: '/metrics', agent: false, ...options }, (res) => {
        res.resume();
        resolve(res.statusCode!);
      });
      sent.once('error', reject);
    });

  test('only those whose certificate is of our own authority get in, and they check ours', async (t) => {
    const listener = await open(t, first);
    const { port } = listener;
    assert.equal(await scrape(port, internalClientTls({ ...pair(second), ca })), 200);
    await assert.rejects(scrape(port, { ca }), 'no certificate');
    const foreign = await TestAuthority.make();
    t.after(() => foreign.remove());
    const stranger = await foreign.issue('second');
    await assert.rejects(scrape(port, { ca, ...pair(stranger) }), 'a certificate of another authority, of the same name');
    await assert.rejects(
      scrape(port, { ...internalClientTls({ ...pair(second), ca: await foreign.ca() }) }),
      'a server of another authority',
    );
    await assert.rejects(scrape(port, { ...internalClientTls({ ...pair(second), ca }), maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' }));
    await assert.rejects(
      fetch(`http://127.0.0.1:${port}/metrics`).then((answer) => answer.text()),
      'plain HTTP',
    );
    const other = await scrape(port, { ...internalClientTls({ ...pair(second), ca }), servername: 'elsewhere' }).catch(
      (error) => error.code,
    );
    assert.equal(other, 'ERR_TLS_CERT_ALTNAME_INVALID');
    // The authority itself is replaced.
    useCertificate(listener, internalServerTls({ ...pair(stranger), ca: await foreign.ca() }));
    await assert.rejects(scrape(port, internalClientTls({ ...pair(second), ca })));
    assert.equal(await scrape(port, internalClientTls({ ...pair(stranger), ca: await foreign.ca() })), 200);
  });

  test('without an authority there is none', () => {
    assert.throws(() => internalServerTls(pair(first)), /authority/);
    assert.throws(() => internalClientTls(pair(first)), /authority/);
  });
});

test('the whole service: HTTPS, RTMPS and the operators’ port', async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'veza-tls-service-'));
  t.after(() => rm(dataDir, { recursive: true, force: true, maxRetries: 5 }));
  const [port, httpsPort, rtmpsPort, prometheusPort] = (await freePorts(4)) as [number, number, number, number];
  const config = loadConfig({
    DATA_DIR: dataDir,
    HOST: '127.0.0.1',
    PORT: String(port),
    HTTPS_PORT: String(httpsPort),
    RTMPS_PORT: String(rtmpsPort),
    RTMP_PORT: '0',
    WS_PORT: '0',
    INGEST_PORT: '0',
    PROMETHEUS_PORT: String(prometheusPort),
    TLS_CERT_FILE: first.certFile,
    TLS_KEY_FILE: first.keyFile,
    METRICS_TLS: 'true',
    INTERNAL_CA_FILE: authority.caFile,
    INTERNAL_CERT_FILE: second.certFile,
    INTERNAL_KEY_FILE: second.keyFile,
  });
  const service = await startService(config, silentLog);
  t.after(() => service.stop());
  const answer = await ask(session(t, httpsPort), '/api/v1/channels');
  assert.equal(answer.status, 200);
  assert.match(String(answer.headers['strict-transport-security']), /^max-age=/);
  assert.equal((await fetch(`http://127.0.0.1:${port}/api/v1/channels`)).headers.get('strict-transport-security'), null);
  assert.equal(await nameShown(rtmpsPort), 'first');
  assert.equal(await nameShown(prometheusPort, pair(first)), 'second');
  assert.equal(await service.stop(), true);
  await assert.rejects(handshake(httpsPort));
});
