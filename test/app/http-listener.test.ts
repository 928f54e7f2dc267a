import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { listenHttp } from '../../src/app/http/listener.js';
import { listenAt } from '../../src/chat/gateway/listener.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

/** What libuv calls with each connection, or with the error of accept(2). */
interface Listening {
  readonly _handle: { onconnection(status: number, client?: unknown): void };
}
const ENOBUFS = -105;

test('a connection that the system cannot give (no memory, no descriptor) is logged; the port goes on', async (t) => {
  const logged: unknown[] = [];
  const log = { ...silentLog, warn: (fields: object) => void logged.push((fields as { event?: string }).event) };
  const listener = await listenHttp((_req, res) => res.end('here'), { host: '127.0.0.1', port: 0, log }, new SystemClock());
  t.after(() => listener.stop(0));
  (listener.server as unknown as Listening)._handle.onconnection(ENOBUFS);
  assert.deepEqual(logged, ['http.accept_failed']);
  assert.equal(await (await fetch(`http://127.0.0.1:${listener.port}/`, { headers: { connection: 'close' } })).text(), 'here');
});

test('the same at a port of the chat alone', async (t) => {
  const server = createServer();
  await listenAt(server, '127.0.0.1', 0);
  t.after(() => new Promise((resolve) => server.close(resolve)));
  (server as unknown as Listening)._handle.onconnection(ENOBUFS);
  assert.equal(server.listening, true);
});
