import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { test } from 'node:test';
import { chatServer } from '../../src/chat/listener.js';
import { FakeClock } from '../../src/runtime/clock.js';

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
