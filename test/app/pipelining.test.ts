import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { ConnectionLimits } from '../../src/app/http/connection-limits.js';
import { listenHttp } from '../../src/app/http/listener.js';
import { MAX_UNANSWERED, Pipelining, STALL_MS } from '../../src/app/http/pipelining.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';

/** Requests that reached the application and are not answered yet, until a test answers them. */
async function serve(t: TestContext) {
  const connections = new ConnectionLimits({ total: 100, perAddress: undefined });
  const clock = new FakeClock();
  const open: ServerResponse[] = [];
  const seen: string[] = [];
  let arrived = () => {};
  const handler = (req: IncomingMessage, res: ServerResponse) => {
    seen.push(req.url!);
    if (req.url!.startsWith('/now')) res.end(req.url);
    else open.push(res);
    arrived();
  };
  const listener = await listenHttp(handler, { host: '127.0.0.1', port: 0, connections }, clock);
  t.after(() => listener.stop(0));
  return {
    listener,
    connections,
    clock,
    open,
    seen,
    async until(count: number) {
      while (seen.length < count) await new Promise<void>((resolve) => (arrived = resolve));
    },
  };
}

/** `text` is what came back; `until` resolves when it holds that many answers, `closed` when the server has closed. */
function client(port: number) {
  const socket = connect(port, '127.0.0.1');
  const state = {
    socket,
    text: '',
    until: async (_count: number) => {},
    closed: new Promise<Error | undefined>((resolve) => socket.once('error', resolve).once('close', () => resolve(undefined))),
  };
  let came = () => {};
  socket.on('data', (bytes) => {
    state.text += bytes;
    came();
  });
  socket.on('error', () => undefined);
  socket.once('close', () => came());
  state.until = async (count) => {
    while ((state.text.match(/HTTP\/1\.1 200/g) ?? []).length < count && !socket.destroyed)
      await new Promise<void>((resolve) => (came = resolve));
  };
  return state;
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
const many = (count: number, path: string) => Array.from({ length: count }, (_, index) => get(`${path}${index}`)).join('');

test('requests that are pipelined reach the application one at a time, and are all answered in order', async (t) => {
  const { listener, open, seen, until } = await serve(t);
  const { socket, ...rest } = client(listener.port);
  const state = Object.assign(rest, { socket });
  socket.write(many(3, '/wait') + get('/now'));
  for (let count = 1; count <= 3; count++) {
    await until(count);
    // A further one would have come in the same read.
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(seen.length, count);
    open.shift()!.end(`answer ${count}`);
  }
  await until(4);
  socket.end();
  await state.closed;
  assert.deepEqual(seen, ['/wait0', '/wait1', '/wait2', '/now']);
});

test('a connection with too many requests that wait is closed, and no other is touched', async (t) => {
  const { listener, connections, open, seen, until, clock } = await serve(t);
  const honest = client(listener.port);
  honest.socket.write(get('/wait'));
  await until(1);
  const crowd = client(listener.port);
  crowd.socket.write(many(5000, '/wait'));
  await until(2);
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(STALL_MS);
  assert.equal(await crowd.closed, undefined, 'with an end, not with a reset');
  assert.equal(crowd.text, '');
  assert.equal(seen.length, 2, 'only the first of the crowd was begun');
  assert.equal(connections.overrun, 1);
  open[0]!.end();
  await honest.until(1);
  assert.match(honest.text, /200 OK/);
});

test('as many as a client likes are answered when none of them waits', async (t) => {
  const { listener, connections, clock } = await serve(t);
  const quick = client(listener.port);
  quick.socket.write(many(5000, '/now'));
  for (let count = 500; count <= 5000; count += 500) {
    await quick.until(count);
    clock.advance(STALL_MS);
  }
  assert.equal(connections.overrun, 0);
  quick.socket.destroy();
});

test('between two requests of one connection the others have their turn', async (t) => {
  const order: string[] = [];
  const listener = await listenHttp(
    (req, res) => {
      order.push(req.url!);
      res.end();
    },
    { host: '127.0.0.1', port: 0 },
    new SystemClock(),
  );
  t.after(() => listener.stop(0));
  const first = client(listener.port);
  const second = client(listener.port);
  await Promise.all([first, second].map(({ socket }) => new Promise((resolve) => socket.once('connect', resolve))));
  first.socket.write(many(1000, '/first'));
  second.socket.write(many(10, '/second'));
  await second.until(10);
  await first.until(1000);
  assert.ok(order.indexOf('/second9') < 500, `the tenth of the second came ${order.indexOf('/second9')}th`);
  first.socket.destroy();
  second.socket.destroy();
});

test('a connection is closed for requests that wait behind others that were answered', async (t) => {
  const { listener, connections, until, clock } = await serve(t);
  const crowd = client(listener.port);
  crowd.socket.write(many(3, '/now') + many(1000, '/wait'));
  await until(4);
  await crowd.until(3);
  clock.advance(STALL_MS);
  clock.advance(STALL_MS);
  await crowd.closed;
  assert.equal(connections.overrun, 1);
});

test('fewer may wait for as long as it takes', async (t) => {
  const { listener, connections, open, until, clock } = await serve(t);
  const patient = client(listener.port);
  patient.socket.write(get('/wait') + many(MAX_UNANSWERED - 1, '/now'));
  await until(1);
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(60_000);
  open[0]!.end();
  await patient.until(MAX_UNANSWERED);
  assert.equal(connections.overrun, 0);
  patient.socket.destroy();
});

test('a body is read while later requests wait', async (t) => {
  const bodies: string[] = [];
  const listener = await listenHttp(
    (req, res) => {
      let body = '';
      req.on('data', (bytes) => {
        body += bytes;
      });
      req.on('end', () => {
        bodies.push(body);
        res.end('there');
      });
    },
    { host: '127.0.0.1', port: 0 },
    new SystemClock(),
  );
  t.after(() => listener.stop(0));
  const { socket, ...state } = client(listener.port);
  const large = 'a'.repeat(200_000);
  const post = (body: string) => `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  socket.write(post('first') + post(large) + post('third') + post(large) + post('last'));
  await new Promise<void>((resolve) => {
    socket.on('data', () => bodies.length === 5 && resolve());
  });
  assert.deepEqual(
    bodies.map((body) => body.length),
    [5, 200_000, 5, 200_000, 4],
  );
  socket.destroy();
  await state.closed;
});

test('parked requests are bounded over all connections, and those of a closed connection count no more', async () => {
  const begun: string[] = [];
  let overruns = 0;
  const pipelining = new Pipelining({
    handler: (req) => void begun.push(req.url!),
    clock: new FakeClock(),
    overrun: () => overruns++,
    maxParked: 10,
  });
  const made: { socket: Socket; closes: (() => void)[] }[] = [];
  const request = (of: number, url: string) => {
    made[of] ??= { socket: fakeSocket(), closes: [] };
    const { socket, closes } = made[of]!;
    const res = { once: (_event: string, close: () => void) => closes.push(close) };
    pipelining.listener({ url, socket } as never, res as never);
  };
  for (let i = 0; i < 6; i++) request(0, `a${i}`);
  for (let i = 0; i < 6; i++) request(1, `b${i}`);
  assert.deepEqual(begun, ['a0', 'b0']);
  request(2, 'c0');
  request(2, 'c1');
  assert.equal(overruns, 1, 'ten are parked');
  assert.equal(made[2]!.socket.destroyed, true);
  made[0]!.socket.destroy();
  made[0]!.closes.shift()!();
  assert.deepEqual(begun, ['a0', 'b0', 'c0'], 'what a closed connection had asked for is not begun');
  request(3, 'd0');
  request(3, 'd1');
  assert.equal(overruns, 1);
  made[1]!.closes.shift()!();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(begun.at(-1), 'b1');
});

function fakeSocket(): Socket {
  const socket = {
    destroyed: false,
    pause: () => socket,
    resume: () => socket,
    end: () => socket.destroy(),
    destroy() {
      socket.destroyed = true;
      return socket;
    },
    on: () => socket,
    removeAllListeners: () => socket,
  };
  return socket as never;
}
