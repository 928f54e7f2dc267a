import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { request } from 'node:https';
import { after, before, test } from 'node:test';
import type { Browser } from 'playwright-core';
import type { ClientOptions } from 'ws';
import { Company, handshake, socketsWith } from '../support/chat-sockets.js';
import { DESKTOP, launchChromium } from '../support/chromium.js';
import { freePorts } from '../support/free-port.js';
import { NginxEdge } from '../support/nginx.js';
import { ensurePackages } from '../support/packages.js';
import { eventually } from '../support/process.js';
import { Server } from '../support/server.js';

/** The chat of the real service through infra/nginx/veza.conf in the real nginx: TLS outside, the chat on a port of its own inside. */
const secret = randomBytes(32).toString('base64url');
let server: Server;
let edge: NginxEdge;
let browser: Browser;

before(async () => {
  await ensurePackages('nginx', 'openssl');
  const [wsPort] = (await freePorts(1)) as [number];
  const env = {
    TRUST_PROXY: '1',
    PUBLIC_URL: 'https://radio.example',
    WS_PORT: String(wsPort),
    JWT_SECRET: secret,
    ALLOWED_ORIGINS: 'https://friend.example',
  };
  server = await Server.start({ env });
  [edge, browser] = await Promise.all([NginxEdge.start(server, undefined, { wsPort, shutdownS: 1, chatsOfAddress: 8 }), launchChromium()]);
  for (const slug of ['radio', 'night', 'club']) await server.createChannel(slug);
});
after(async () => {
  await browser?.close();
  await edge?.stop();
  await server?.stop();
});

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
function tokenOf(sub: string): string {
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: 'gateway', aud: 'veza', sub, name: sub, role: 'listener', exp })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

const url = () => `wss://127.0.0.1:${edge.port}/chat`;
/** From an address of this machine. */
const from = (address: string, more: ClientOptions = {}): ClientOptions => ({
  ...more,
  rejectUnauthorized: false,
  localAddress: address,
  headers: { host: 'radio.example', ...more.headers },
});
const person = (name: string, options: ClientOptions) => ({
  url: url(),
  webSocket: socketsWith(options),
  token: async () => tokenOf(name),
});

test('nginx is reloaded under people who talk: they come back by themselves, and nothing is lost or doubled', async () => {
  await server.api('PATCH', '/rooms/night', { moderated: false, perS: 100, burst: 100, roomPerS: 1000 });
  const company = new Company(
    'night',
    ['ann', 'bob', 'cid'].map((name, n) => person(name, from(`127.0.2.${n + 1}`))),
  );
  try {
    await company.start();
    company.say(6);
    for (let round = 1; round <= 2; round++) {
      edge.reload();
      while (company.breaks < round * company.clients.length) {
        company.say(1);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      await company.joined();
    }
    company.say(6);
    const [first, ...others] = await company.finish();
    assert.deepEqual([...first!].sort(), [...company.written].sort(), 'each once');
    for (const seen of others) assert.deepEqual(seen, first, 'in one order');
  } finally {
    company.stop();
  }
});

test('pages of the service may open it, those of others may not', async () => {
  for (const [origin, status] of [
    ['https://radio.example', 'open'],
    [`https://radio.example:${edge.port}`, 'open'],
    ['https://friend.example', 'open'],
    [undefined, 'open'],
    ['https://evil.example', 403],
    ['https://radio.example.evil.example', 403],
    ['null', 403],
  ] as const) {
    const answer = await handshake(url(), from('127.0.3.1', origin === undefined ? {} : { origin }));
    assert.equal(answer.status, status, String(origin));
    answer.socket.terminate();
  }
});

test('a ban by address meets the address of the client, and what he says of himself changes nothing', async () => {
  const rooms = new Company('club', [person('loud', from('127.0.4.1')), person('kind', from('127.0.4.2'))]);
  const more: Company[] = [];
  try {
    await rooms.start();
    rooms.say(2);
    await rooms.finish();
    await server.api('PUT', `/rooms/club/bans/${encodeURIComponent('gateway:loud')}`, { seconds: 600, addressSeconds: 600 });
    const again = new Company('club', [
      person('other', from('127.0.4.1')),
      person('disguised', from('127.0.4.1', { headers: { 'x-forwarded-for': '10.9.8.7' } })),
    ]);
    more.push(again);
    for (const client of again.clients) client.start();
    for (const room of again.rooms) {
      await eventually('he is told', () => (room.state === 'refused' ? true : undefined));
      assert.equal(room.problem?.code, 'banned');
    }
    assert.equal((await rooms.rooms[1]!.publish('all others write on').settled).state, 'sent');
  } finally {
    for (const company of [rooms, ...more]) company.stop();
  }
});

test('only /chat is upgraded; an ordinary request there is told what is spoken', async () => {
  const ask = (path: string, headers: Record<string, string>) =>
    new Promise<number | undefined>((resolve, reject) => {
      const sent = request(
        {
          host: '127.0.0.1',
          port: edge.port,
          path,
          rejectUnauthorized: false,
          agent: false,
          headers: { host: 'radio.example', ...headers },
        },
        (response) => resolve(response.resume().statusCode),
      );
      sent.on('upgrade', (_response, socket) => {
        socket.destroy();
        resolve(101);
      });
      sent.on('error', reject);
      sent.end();
    });
  const offer = {
    connection: 'upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
  };
  assert.equal(await ask('/chat', { ...offer, 'sec-websocket-protocol': 'veza.chat.v1' }), 101);
  assert.equal(await ask('/api/v1/channels', offer), 200);
  assert.equal(await ask('/chat', {}), 426);
  assert.equal(await ask('/chat', { connection: 'upgrade', upgrade: 'h2c' }), 426);
});

test('with its limit set an address has so many chats and no more', async () => {
  const sockets = [];
  for (let n = 0; n < 8; n++) {
    const { status, socket } = await handshake(url(), from('127.0.5.1'));
    assert.equal(status, 'open');
    sockets.push(socket);
  }
  assert.equal((await handshake(url(), from('127.0.5.1'))).status, 429);
  const other = await handshake(url(), from('127.0.5.2'));
  assert.equal(other.status, 'open');
  for (const socket of [...sockets, other.socket]) socket.terminate();
});

test('the page finds it at the place that it came from, over TLS', async () => {
  const context = await browser.newContext({ ...DESKTOP, ignoreHTTPSErrors: true });
  try {
    const page = await context.newPage();
    const opened: string[] = [];
    page.on('websocket', (socket) => opened.push(socket.url()));
    await page.goto(`https://127.0.0.1:${edge.port}/c/radio`);
    await page.locator('.chat-panel[data-link="online"]').waitFor();
    assert.deepEqual(opened, [url()]);
    await server.api('POST', '/rooms/radio/messages', { key: 'one', text: 'through the proxy' });
    await page.locator('.chat-row', { hasText: 'through the proxy' }).waitFor();
  } finally {
    await context.close();
  }
});
