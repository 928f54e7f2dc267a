import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { request as requestHttp } from 'node:http';
import { type RequestOptions, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { composeWorker } from '../../src/compose/live.js';
import { ConfigError, loadConfig } from '../../src/config/config.js';
import { RemoteEdge } from '../../src/live/worker/edge-remote.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { TlsFiles } from '../../src/runtime/tls/tls-files.js';
import { type Issued, type IssuedFiles, TestAuthority } from '../support/certificates.js';
import { freePorts } from '../support/free-port.js';
import { eventually } from '../support/process.js';
import { World } from './live-world.js';

const clock = new SystemClock();
const ENV = { ROLES: 'ingest', DATABASE_URL: 'postgres://localhost/veza' };
let ours: TestAuthority;
let foreign: TestAuthority;
let ca: Buffer;
let worker: Issued;
let app: Issued;
let elsewhere: Issued;
let stranger: Issued;

before(async () => {
  [ours, foreign] = await Promise.all([TestAuthority.make(), TestAuthority.make()]);
  ca = await ours.ca();
  worker = await ours.issue('worker');
  app = await ours.issue('app');
  elsewhere = await ours.issue('elsewhere', 30, 'DNS:other.internal');
  stranger = await foreign.issue('app');
});
after(() => Promise.all([ours.remove(), foreign.remove()]));

const files = ({ certFile, keyFile }: IssuedFiles, authority = ours) =>
  TlsFiles.open({ certFile, keyFile, caFile: authority.caFile, clock, log: silentLog });

/** A worker's port as the service opens it, with a show on air. */
async function open(t: TestContext, shown: IssuedFiles | undefined, env: Record<string, string> = {}) {
  const [port] = (await freePorts(1)) as [number];
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 3000);
  const internalTls = shown && (await files(shown));
  const config = loadConfig({ ...ENV, HOST: '127.0.0.1', WORKER_PORT: String(port), ...env });
  const { first, last } = composeWorker({ config, log: silentLog, clock, live: world.live, internalTls, ready: async () => undefined });
  await last.start?.();
  t.after(async () => {
    await first.stop?.();
    internalTls?.stop();
  });
  return { port, world, internalTls };
}

/** The status, or why there was none. */
const asked = (port: number, options: RequestOptions, plain = false): Promise<number | string> =>
  new Promise((resolve) => {
    const send = plain ? requestHttp : request;
    send({ host: '127.0.0.1', port, path: '/health/live', servername: 'localhost', agent: false, ca, ...options }, (res) => {
      res.resume();
      resolve(res.statusCode ?? 0);
    })
      .on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
      .end();
  });

test('with certificates: only who shows one of our own authority, over TLS 1.3, gets an answer', async (t) => {
  const { port } = await open(t, worker);
  const mine = { cert: app.cert, key: app.key };
  assert.equal(await asked(port, mine), 200);
  for (const [what, options, plain] of [
    ['no certificate', {}, false],
    ['a foreign certificate', { cert: stranger.cert, key: stranger.key }, false],
    ['TLS 1.2', { ...mine, maxVersion: 'TLSv1.2' }, false],
    ['plain HTTP', {}, true],
  ] as const) {
    const answer = await asked(port, options, plain);
    assert.equal(typeof answer, 'string', `${what} was answered ${answer}`);
  }
  // It is still there for those who may.
  assert.equal(await asked(port, mine), 200);
});

test('with names: a certificate of ours without one of them gets nothing', async (t) => {
  const { port } = await open(t, worker, { ...internal(worker), WORKER_CLIENT_NAMES: 'app.internal,other.internal' });
  assert.equal(typeof (await asked(port, { cert: app.cert, key: app.key })), 'string');
  assert.equal(await asked(port, { cert: elsewhere.cert, key: elsewhere.key }), 200);
});

const internal = ({ certFile, keyFile }: IssuedFiles) => ({
  INTERNAL_CA_FILE: ours.caFile,
  INTERNAL_CERT_FILE: certFile,
  INTERNAL_KEY_FILE: keyFile,
});

async function follow(t: TestContext, port: number, shown: IssuedFiles, authority = ours) {
  const tls = await files(shown, authority);
  const edge = new RemoteEdge({ url: `https://localhost:${port}`, tls, clock, log: silentLog });
  t.after(() => {
    edge.stop();
    tls.stop();
  });
  await edge.start();
  return { edge, tls };
}

test('an app follows a worker whose certificate has its name, and no other: neither of a foreign authority nor of another name', async (t) => {
  const good = await open(t, worker);
  const { edge } = await follow(t, good.port, app);
  assert.equal(edge.status('radio').state, 'live');
  assert.equal(await edge.setTitle('radio', { title: 'Song' }), true);

  const misnamed = await open(t, elsewhere);
  const wrong = await follow(t, misnamed.port, app);
  await assert.rejects(wrong.edge.check());
  assert.equal(wrong.edge.status('radio').state, 'offline');

  const untrusted = await follow(t, good.port, app, foreign);
  await assert.rejects(untrusted.edge.check());
  const uninvited = await follow(t, good.port, stranger, ours);
  await assert.rejects(uninvited.edge.check());
});

test('certificates that change are used by both sides: when the authority changes, the old one opens nothing', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'veza-worker-tls-'));
  t.after(() => rm(dir, { recursive: true }));
  const at = (name: string) => join(dir, name);
  const put = async (who: string, issued: IssuedFiles) => {
    await Promise.all([copyFile(issued.certFile, at(`${who}.pem`)), copyFile(issued.keyFile, at(`${who}-key.pem`))]);
  };
  const shown = (who: string) => ({ certFile: at(`${who}.pem`), keyFile: at(`${who}-key.pem`) });
  const authority = { caFile: at('ca.pem') } as TestAuthority;
  await copyFile(ours.caFile, authority.caFile);
  await Promise.all([put('worker', worker), put('app', app)]);

  const [port] = (await freePorts(1)) as [number];
  const world = new World();
  await world.live.start();
  const { source } = await world.connect();
  await world.send(source, 3000);
  const internalTls = await files(shown('worker'), authority);
  const config = loadConfig({ ...ENV, HOST: '127.0.0.1', WORKER_PORT: String(port) });
  const { first, last } = composeWorker({ config, log: silentLog, clock, live: world.live, internalTls, ready: async () => undefined });
  await last.start?.();
  t.after(async () => {
    await first.stop?.();
    internalTls.stop();
  });
  const { edge, tls } = await follow(t, port, shown('app'), authority);
  assert.equal(edge.status('radio').state, 'live');
  // Somebody with a certificate that will be good no more follows, too.
  const cut = new Promise<void>((resolve, reject) => {
    request(
      { host: '127.0.0.1', port, path: '/v1/feed', servername: 'localhost', agent: false, ca, cert: app.cert, key: app.key },
      (res) => {
        res.resume();
        res.once('close', resolve);
      },
    )
      .on('error', reject)
      .end();
  });

  await copyFile(foreign.caFile, authority.caFile);
  await Promise.all([put('worker', await foreign.issue('worker')), put('app', stranger)]);
  await Promise.all([internalTls.reload(), tls.reload()]);
  await cut;
  assert.equal(await edge.setTitle('radio', { title: 'Song' }), true);
  assert.equal(typeof (await asked(port, { cert: app.cert, key: app.key })), 'string');
  await eventually(
    'the new one opens',
    async () => (await asked(port, { cert: stranger.cert, key: stranger.key, ca: await foreign.ca() })) === 200 || undefined,
  );
});

test('without certificates the port is open to this machine alone, and more is not to be had', async (t) => {
  const { port } = await open(t, undefined);
  assert.equal(await asked(port, {}, true), 200);
  const refused = (env: Record<string, string>): string => {
    try {
      loadConfig({ ...ENV, ...env });
      return '';
    } catch (error) {
      assert.ok(error instanceof ConfigError);
      return error.message;
    }
  };
  const certificates = { INTERNAL_CA_FILE: 'ca', INTERNAL_CERT_FILE: 'cert', INTERNAL_KEY_FILE: 'key' };
  const app = { ROLES: 'app' };
  assert.match(refused({ WORKER_HOST: '0.0.0.0' }), /^WORKER_HOST is "0\.0\.0\.0"; allowed without INTERNAL_CA_FILE/);
  assert.match(refused({ WORKER_CLIENT_NAMES: 'app.internal' }), /^WORKER_CLIENT_NAMES is set; allowed: only together with/);
  assert.match(refused({ DATABASE_URL: '' }), /^DATABASE_URL is unset; allowed where ROLES is "ingest"/);
  assert.match(refused(app), /^WORKER_URL is unset; allowed where ROLES is "app"/);
  assert.match(
    refused({ ...app, WORKER_URL: 'http://10.0.0.1:8090' }),
    /^WORKER_URL is "http:\/\/10\.0\.0\.1:8090"; allowed: http:\/\/ only to/,
  );
  assert.match(
    refused({ ...app, WORKER_URL: 'https://worker:8090' }),
    /^WORKER_URL is "https:\/\/worker:8090"; allowed: https:\/\/ only together/,
  );
  assert.match(refused({ ...app, WORKER_URL: 'http://127.0.0.1.evil.example:8090' }), /^WORKER_URL is/);
  for (const env of [
    {},
    { WORKER_HOST: '127.0.0.1' },
    { WORKER_HOST: '0.0.0.0', ...certificates },
    { ...app, WORKER_URL: 'http://[::1]:8090' },
    { ...app, WORKER_URL: 'https://worker.internal:8090', ...certificates },
    // In one process there is no such port, and nothing to say about it.
    { ROLES: 'app,ingest', DATABASE_URL: '', WORKER_HOST: '0.0.0.0' },
  ])
    assert.equal(refused(env as Record<string, string>), '');
});
