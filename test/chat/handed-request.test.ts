import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, Socket } from 'node:net';
import { test } from 'node:test';
import { requestOf } from '../../src/chat/gateway/handed-request.js';
import { clientAddress } from '../../src/runtime/addresses.js';

test('a request that is handed over means what it meant to who read it, also with a header in two lines', async (t) => {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  t.after(() => client.destroy());
  const twice: [string, string, string][] = [
    ['X-Forwarded-For', '198.51.100.9, 203.0.113.5', '192.0.2.1'],
    ['x-country', 'DE', 'AT'],
    ['Cookie', 'a=1', 'b=2'],
    ['Authorization', 'Bearer one', 'Bearer two'],
    ['Origin', 'https://one.example', 'https://two.example'],
    ['User-Agent', 'one', 'two'],
    ['Referer', 'one', 'two'],
    ['Sec-WebSocket-Protocol', 'veza.chat.v1', 'other'],
    ['Sec-WebSocket-Key', 'one', 'two'],
    ['Set-Cookie', 'a=1', 'b=2'],
    ['__proto__', 'one', 'two'],
  ];
  const lines = twice.flatMap(([name, first, second]) => [`${name}: ${first}`, `${name.toUpperCase()}: ${second}`]);
  const upgraded = once(server, 'upgrade');
  client.write(['GET /chat HTTP/1.1', 'Host: radio.example', 'Connection: Upgrade', 'Upgrade: websocket', ...lines, '', ''].join('\r\n'));
  const [read] = (await upgraded) as [IncomingMessage];
  const { method = '', url = '', rawHeaders } = read;
  const handed = requestOf({ method, url, rawHeaders }, read.socket);
  assert.deepEqual({ ...handed.headers }, { ...read.headers });
  assert.deepEqual([handed.method, handed.url], ['GET', '/chat']);
  for (const hops of [0, 1, 2, 3]) assert.equal(clientAddress(handed, hops), clientAddress(read, hops), `${hops} proxies`);
  assert.equal(clientAddress(handed, 1), '192.0.2.1', 'what our proxy has added');
  assert.equal(clientAddress(requestOf({ method, url, rawHeaders: [] }, new Socket()), 1), '', 'nothing is known');
  read.socket.destroy();
});
