import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { WebSocket } from 'ws';
import { ChatClient, type ChatRoom } from '../../src/chat-client/index.js';
import { DESKTOP, launchChromium, PHONE } from '../support/chromium.js';
import { freePorts } from '../support/free-port.js';
import { eventually } from '../support/process.js';
import { Server } from '../support/server.js';

/** The page and the library against the real service, with the chat on a port of its own. */
const PATIENCE_MS = 60_000;
let server: Server;
let browser: Browser;
let wsPort: number;

before(async () => {
  [wsPort] = (await freePorts(1)) as [number];
  [server, browser] = await Promise.all([Server.start({ env: { WS_PORT: String(wsPort) } }), launchChromium()]);
  await server.createChannel('radio');
  await server.createChannel('night');
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

interface Account {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly user: { readonly name: string; readonly email: string; readonly role: string };
}

async function post<T>(path: string, body: object): Promise<T> {
  const response = await fetch(`${server.url}/api/v1${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  assert.ok(response.ok, `${path}: ${response.status} ${text}`);
  return JSON.parse(text) as T;
}

async function accountOf(name: string): Promise<Account> {
  const email = `${name.toLowerCase().replaceAll(' ', '.')}@example.org`;
  const password = 'lamps along the quay';
  await post('/auth/register', { email, password, name }).catch(() => undefined);
  return post<Account>('/auth/login', { email, password });
}

async function visit(account: Account | undefined, options = DESKTOP): Promise<{ page: Page; errors: string[] }> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => {
    if (/content security policy/i.test(message.text())) errors.push(message.text());
  });
  if (account) {
    const { refreshToken, user } = account;
    await page.addInitScript(
      (stored) => localStorage.getItem('veza.session') ?? localStorage.setItem('veza.session', stored),
      JSON.stringify({ refreshToken, user }),
    );
  }
  await page.goto(`${server.url}/c/radio`);
  await page.locator('.chat-panel[data-link="online"]').waitFor();
  return { page, errors };
}

const row = (page: Page, text: string) => page.locator('.chat-rows .chat-row', { hasText: text });
const say = async (page: Page, text: string) => {
  const field = page.getByRole('textbox', { name: 'Message' });
  await field.fill(text);
  await field.press('Enter');
};

test('a listener, a moderator and a guest: written, seen, answered, reacted to, pinned, deleted; there again after a reload', async () => {
  const [ann, marit] = [await accountOf('Ann Quay'), await accountOf('Marit Vale')];
  await server.api('POST', '/channels/radio/members', { email: marit.user.email, role: 'moderator' });
  const member = await visit(ann);
  const moderator = await visit(marit);
  const guest = await visit(undefined, PHONE);
  await guest.page.getByRole('link', { name: 'Sign in to write' }).waitFor();

  await say(member.page, 'Good evening, see https://example.org/');
  for (const { page } of [member, moderator, guest]) await row(page, 'Good evening').waitFor();
  await eventually('it is acknowledged', async () => (await member.page.locator('.chat-tail li').count()) === 0);
  await say(moderator.page, 'Hello @Ann Quay');
  await member.page.locator('.chat-row.for-me', { hasText: 'Hello' }).waitFor();
  assert.match(String(await row(guest.page, 'Hello').textContent()), /Marit Vale\s*Mod/);

  await row(member.page, 'Hello').focus();
  await member.page.keyboard.press('Enter');
  await member.page.getByRole('menuitem', { name: '🎉' }).click();
  await row(guest.page, 'Hello').getByRole('button', { name: '🎉, 1' }).waitFor();

  await row(moderator.page, 'Hello').focus();
  await moderator.page.keyboard.press('p');
  await guest.page.locator('.chat-pinned', { hasText: 'Hello' }).waitFor();
  await row(moderator.page, 'Good evening').focus();
  await moderator.page.keyboard.press('Delete');
  for (const { page } of [member, moderator, guest]) await page.getByText('Message deleted').waitFor();

  await moderator.page.getByText('Modes').click();
  await moderator.page.getByLabel('Slow mode').selectOption('30 s');
  await member.page.locator('.chat-note', { hasText: 'one message in 30 s' }).waitFor();
  // What was said before the mode counts, too: the first may be taken or not, a second is not.
  await say(member.page, 'a first word');
  await say(member.page, 'a second');
  await member.page.locator('.chat-note', { hasText: /you can send in \d+ s/ }).waitFor();
  await moderator.page.getByLabel('Slow mode').selectOption('Off');

  await member.page.reload();
  await row(member.page, 'Hello').waitFor();
  assert.equal(await row(member.page, 'Good evening').count(), 0);
  await member.page.locator('.chat-pinned', { hasText: 'Hello' }).waitFor();
  await row(member.page, 'Hello').getByRole('button', { name: '🎉, 1' }).waitFor();
  for (const { errors } of [member, moderator, guest]) assert.deepEqual(errors, []);
  for (const context of browser.contexts()) await context.close();
});

test('the service is killed and comes back: the library loses nothing it was told is stored, and says again what was not', async () => {
  const account = await accountOf('Bo Fields');
  let { accessToken, refreshToken } = account;
  const clients = [0, 1].map(
    () =>
      new ChatClient({
        url: `ws://127.0.0.1:${wsPort}/chat`,
        webSocket: WebSocket,
        token: async ({ fresh }) => {
          if (fresh) ({ accessToken, refreshToken } = await post<Account>('/auth/refresh', { refreshToken }));
          return accessToken;
        },
      }),
  );
  const [writer, reader] = clients.map((client) => client.join('night')) as [ChatRoom, ChatRoom];
  try {
    for (const client of clients) client.start();
    await eventually('both are there', () => writer.state === 'joined' && reader.state === 'joined');
    // So many so alike are a flood otherwise.
    await server.api('PATCH', '/rooms/night', { moderated: false, perS: 100, burst: 100, roomPerS: 1000 });
    const stored: string[] = [];
    const written: string[] = [];
    const write = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const text = `number ${written.length}`;
        written.push(text);
        void writer.publish(text).settled.then(({ state }) => state === 'sent' && stored.push(text));
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    };
    await write(8);
    const killed = server.kill9();
    await write(4);
    await killed;
    await server.restart();
    await write(4);
    await eventually('everything is stored', () => stored.length === written.length);
    await eventually('the reader has all of it', () => reader.position === writer.position && writer.outgoing.length === 0);
    for (const room of [writer, reader]) {
      const seen = room.timeline.items
        .filter(({ visible, body }) => visible && body.text.startsWith('number'))
        .map(({ body }) => body.text);
      assert.deepEqual([...seen].sort(), [...written].sort(), 'each once');
    }
    assert.deepEqual(
      reader.timeline.items.map(({ offset, mid }) => [offset, mid]),
      writer.timeline.items.filter(({ offset }) => offset >= reader.timeline.items[0]!.offset).map(({ offset, mid }) => [offset, mid]),
    );
  } finally {
    for (const client of clients) client.stop();
  }
});

test('the package gives the library by its name', async () => {
  const name = 'veza/chat-client';
  const library = (await import(name)) as { ChatClient: unknown };
  assert.equal(typeof library.ChatClient, 'function');
});
