import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { test } from 'node:test';
import { problemSchema } from '../../src/app/api/openapi.js';
import { chatServer } from '../../src/chat/gateway/listener.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { sendRaw } from '../support/raw-http.js';

test('a head that never ends is cut after five seconds, also of a socket that was handed over; one that has asked is left alone', {
  timeout: 20_000,
}, async () => {
  const clock = new FakeClock();
  const upgraded: string[] = [];
  const server = chatServer(clock, (_req, socket) => {
    upgraded.push('one');
    socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n');
  });
  const primary = createServer({ pauseOnConnect: true }, (socket) => {
    server.emit('connection', socket);
    socket.resume();
  });
  primary.listen(0, '127.0.0.1');
  await once(primary, 'listening');
  const { port } = primary.address() as AddressInfo;
  const slow = connect(port, '127.0.0.1');
  const asks = connect(port, '127.0.0.1');
  slow.write('GET /chat HTTP/1.1\r\nHost: radio.example\r\n');
  asks.write('GET /chat HTTP/1.1\r\nHost: radio.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await once(asks, 'data');
  assert.deepEqual(upgraded, ['one']);
  let isCut = false;
  asks.once('close', () => {
    isCut = true;
  });
  const cut = once(slow.resume(), 'close');
  clock.advance(4900);
  assert.equal(slow.destroyed, false);
  clock.advance(200);
  await cut;
  assert.equal(isCut, false);
  asks.destroy();
  primary.close();
});

test('what asks for no WebSocket is told what to ask for, in a problem document; odd heads are refused like elsewhere', async () => {
  let upgraded = 0;
  const server = chatServer(new FakeClock(), (req, socket) => {
    upgraded++;
    socket.end(`HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\nX-Url: ${req.url}\r\n\r\n`);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const offer = (protocol: string) => `Connection: Upgrade\r\nUpgrade: ${protocol}\r\n`;
  for (const [target, fields, status] of [
    ['/chat', 'Host: x\r\n', 426],
    ['/chat', `Host: x\r\n${offer('foo')}`, 426],
    ['/', 'Host: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n', 426],
    ['http://[%]/chat', `Host: x\r\n${offer('websocket')}`, 400],
    ['/chat', `Host: [%\r\n${offer('websocket')}`, 400],
    ['/chat', offer('websocket'), 400],
    ['/chat', `Host: x\r\nContent-Length: 5\r\n${offer('websocket')}`, 400],
    ['/chat', 'Host: x\r\nTransfer-Encoding: gzip, chunked\r\n', 501],
    ['/chat', 'Host: x\r\nExpect: x\r\n', 417],
    ['/chat', `Host: x\r\nX: ${'y'.repeat(17_000)}\r\n`, 431],
    ['/ chat', 'Host: x\r\n', 400],
  ] as const) {
    const [answer] = await sendRaw(port, `GET ${target} HTTP/1.1\r\n${fields}\r\n`);
    assert.equal(answer?.status, status, `${target} ${fields}`);
    assert.equal(problemSchema.parse(JSON.parse(answer.body)).status, status);
    if (status === 426) assert.deepEqual([answer.headers.upgrade, answer.headers.connection], ['websocket', 'close, Upgrade']);
  }
  assert.equal(upgraded, 0);
  const [absolute] = await sendRaw(port, `GET http://radio.example/chat?a HTTP/1.1\r\nHost: x\r\n${offer('websocket')}\r\n`);
  assert.deepEqual([absolute?.status, absolute?.headers['x-url']], [101, '/chat?a']);
  server.close();
});
