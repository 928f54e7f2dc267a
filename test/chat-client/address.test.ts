import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chatUrlFor } from '../../player-demo/src/chat/address.js';

const PORTS = '8080=8081 8443=8444 443=9443';

for (const [page, told, chat] of [
  ['http://radio.example:8080/c/night', PORTS, 'ws://radio.example:8081/chat'],
  ['https://radio.example:8443/', PORTS, 'wss://radio.example:8444/chat'],
  ['https://radio.example/', PORTS, 'wss://radio.example:9443/chat'],
  ['http://[2001:db8::1]:8080/', PORTS, 'ws://[2001:db8::1]:8081/chat'],
  // One port has both.
  ['https://radio.example:8443/', '8080=8081 8443=8443', 'wss://radio.example:8443/chat'],
  // Behind a proxy, whatever its port.
  ['https://radio.example/', '8080=8081', 'wss://radio.example/chat'],
  ['https://radio.example:4433/c/night', PORTS, 'wss://radio.example:4433/chat'],
  ['http://radio.example/', PORTS, 'ws://radio.example/chat'],
  // Nothing was put in.
  ['http://localhost:5173/', '', 'ws://localhost:5173/chat'],
  // Any free port: nobody knows it here.
  ['http://radio.example:8080/', '8080=0', 'ws://radio.example:8080/chat'],
] as const)
  test(`from ${page}, told "${told}", the chat is at ${chat}`, () => assert.equal(chatUrlFor(new URL(page), told), chat));
