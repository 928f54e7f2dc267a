import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { addressGroup, clientAddress, networkOf } from '../../src/runtime/addresses.js';

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

test('an IPv6 address counts by its /64, an IPv4 address by itself, however it is written', () => {
  for (const [address, group] of [
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0DB8:0001:0002::', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8:0:0:1::', '2001:db8:0:0::/64'],
    ['2001:db8::a:b:c:d:1', '2001:db8:0:a::/64'],
    ['::1', '0:0:0:0::/64'],
    ['64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::ffff:c000:207', '192.0.2.7'],
    ['someone@example.org', 'someone@example.org'],
  ] as const) {
    assert.equal(addressGroup(address), group, address);
  }
});

test('a text that Node does not take for an address has no network', () => {
  for (const text of ['', '1', '1.2', '0x7f.1', '010.1.1.1', '[::1]', '1.2.3.4:5', '1.2.3.4 ', '::1::', 'localhost']) {
    assert.equal(networkOf(text), undefined, text);
  }
});
