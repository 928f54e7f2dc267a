import assert from 'node:assert/strict';
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { after, before, type TestContext, test } from 'node:test';
import { connect } from 'node:tls';
import { ConnectionLimits } from '../../src/app/http/connection-limits.js';
import { listenHttp } from '../../src/app/http/listener.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { type Issued, TestAuthority } from '../support/certificates.js';
import { eventually } from '../support/process.js';

let authority: TestAuthority;
let ca: Buffer;
let issued: Issued;

before(async () => {
  authority = await TestAuthority.make();
  ca = await authority.ca();
  issued = await authority.issue('first');
});
after(() => authority.remove());

const SILENCE_MS = 60_000;
const LARGE = Buffer.from(Array.from({ length: 300_001 }, (_, at) => at % 251));

async function serve(t: TestContext) {
  const clock = new FakeClock();
  const connections = new ConnectionLimits({ total: 100, perAddress: undefined });
  const open = new Set<string>();
  const listener = await listenHttp(
    (req, res) => {
      open.add(req.url!);
      res.once('close', () => open.delete(req.url!));
      if (req.url === '/large') res.end(LARGE);
      else if (req.url === '/pieces') {
        for (let at = 0; at < LARGE.length; at += 50_000) res.write(LARGE.subarray(at, at + 50_000));
        res.end('the end');
      } else if (req.url === '/text') res.end('é'.repeat(20_000), 'utf8');
      else if (req.url !== '/waits') res.end('there');
    },
    { host: '127.0.0.1', port: 0, tls: { cert: issued.cert, key: issued.key }, silenceMs: SILENCE_MS, connections },
    clock,
  );
  t.after(() => listener.stop(0));
  return { clock, connections, open, port: listener.port };
}

function session(t: TestContext, port: number, initialWindowSize: number): ClientHttp2Session {
  const opened = connectHttp2(`https://localhost:${port}`, { ca, settings: { initialWindowSize } });
  opened.on('error', () => undefined);
  t.after(() => opened.destroy());
  return opened;
}

function ask(from: ClientHttp2Session, path: string, onData: (stream: { pause(): void; resume(): void }) => void = () => undefined) {
  return new Promise<{ body: Buffer; code: number }>((resolve) => {
    const stream = from.request({ ':path': path });
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      onData(stream);
    });
    stream.on('error', () => undefined);
    stream.once('close', () => resolve({ body: Buffer.concat(chunks), code: stream.rstCode }));
  });
}

const ping = (from: ClientHttp2Session) =>
  new Promise<void>((resolve, reject) => from.ping((error) => (error ? reject(error) : resolve())));

test('an answer of HTTP/2 that its client does not take is ended in time, whatever pings come; what waits for us is not', async (t) => {
  const { clock, connections, open, port } = await serve(t);
  const client = session(t, port, 0);
  const unread = ['/large', '/small', '/pieces'].map((path) => ask(client, path));
  const waits = ask(client, '/waits');
  await eventually('all are asked for', () => (open.size === 4 ? true : undefined));
  await ping(client);
  for (let waitedMs = 0; waitedMs < SILENCE_MS - 1000; waitedMs += 1000) {
    clock.advance(1000);
    if (waitedMs % 20_000 === 0) await ping(client);
  }
  assert.deepEqual([open.size, connections.unread], [4, 0]);
  clock.advance(1000);
  for (const { body, code } of await Promise.all(unread)) assert.deepEqual([body.length, code], [0, constants.NGHTTP2_CANCEL]);
  await eventually('they are gone here', () => (open.size === 1 ? true : undefined));
  assert.equal(connections.unread, 3);
  clock.advance(10_000);
  // The session is not to blame: its other streams go on.
  await new Promise<void>((resolve) => client.settings({ initialWindowSize: 65_535 }, () => resolve()));
  assert.equal((await ask(client, '/small')).body.toString(), 'there');
  client.destroy();
  await waits;
});

test('a client that reads slowly gets the whole answer, byte for byte', async (t) => {
  const { clock, connections, port } = await serve(t);
  const client = session(t, port, 16_384);
  const begunMs = clock.monotonicMs();
  const slowly = (stream: { pause(): void; resume(): void }) => {
    stream.pause();
    setImmediate(() => {
      clock.advance(SILENCE_MS / 10);
      stream.resume();
    });
  };
  assert.deepEqual((await ask(client, '/large', slowly)).body, LARGE);
  assert.ok(clock.monotonicMs() - begunMs > SILENCE_MS, 'longer than a client may be silent');
  assert.deepEqual((await ask(client, '/pieces', slowly)).body, Buffer.concat([LARGE, Buffer.from('the end')]));
  assert.equal((await ask(client, '/text')).body.toString(), 'é'.repeat(20_000));
  assert.equal(connections.unread, 0);
});

const frame = (type: number, flags: number, streamId: number, payload: Buffer = Buffer.alloc(0)) => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
};
const windowUpdate = (streamId: number, by: number) => {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(by);
  return frame(8, 0, streamId, payload);
};
const PING = frame(6, 0, 0, Buffer.alloc(8));
/** Of RFC 7541: GET, https, `/large`, `localhost`. */
const HEADERS = Buffer.concat([
  Buffer.from([0x82, 0x87, 0x04, 6]),
  Buffer.from('/large'),
  Buffer.from([0x41, 9]),
  Buffer.from('localhost'),
]);

/** Its streams have no window. */
async function rawClient(t: TestContext, port: number) {
  const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca, ALPNProtocols: ['h2'] });
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  await new Promise((resolve) => socket.once('secureConnect', resolve));
  const settings = Buffer.alloc(6);
  settings.writeUInt16BE(4, 0);
  socket.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0, settings), frame(1, 5, 1, HEADERS)]));
  return socket;
}

test('updates of a byte now and then are no progress', async (t) => {
  const { clock, connections, open, port } = await serve(t);
  const socket = await rawClient(t, port);
  socket.resume();
  await eventually('it is asked for', () => (open.size === 1 ? true : undefined));
  for (let i = 0; i < 100; i++) {
    socket.write(Buffer.concat([windowUpdate(1, 1), PING]));
    clock.advance(SILENCE_MS / 100);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await eventually('it is ended', () => (open.size === 0 ? true : undefined));
  assert.equal(connections.unread, 1);
});
