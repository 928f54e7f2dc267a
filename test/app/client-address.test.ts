import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { clientAddress } from '../../src/app/http-listener.js';

const request = (forwarded: string | undefined) =>
  ({ headers: { 'x-forwarded-for': forwarded }, socket: { remoteAddress: '10.1.1.1' } }) as unknown as IncomingMessage;

test('behind proxies the address is the one that the outermost of them saw', () => {
  assert.equal(clientAddress(request('192.0.2.1'), 0), '10.1.1.1', 'nobody is believed');
  assert.equal(clientAddress(request('192.0.2.1'), 1), '192.0.2.1');
  assert.equal(clientAddress(request('198.51.100.9, 192.0.2.1'), 1), '192.0.2.1', 'what a client sent itself is not believed');
  assert.equal(clientAddress(request('198.51.100.9,192.0.2.1 , 10.2.2.2'), 2), '192.0.2.1');
  assert.equal(clientAddress(request('192.0.2.1'), 2), '192.0.2.1', 'fewer entries than proxies');
  assert.equal(clientAddress(request(undefined), 1), '10.1.1.1');
  assert.equal(clientAddress(request(' , '), 1), '10.1.1.1');
});
