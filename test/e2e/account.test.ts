import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import type { Browser, BrowserContext, BrowserContextOptions, Page, Route } from 'playwright-core';
import { DESKTOP, launchChromium, PHONE, readLayoutShift, watchLayoutShift } from '../support/chromium.js';
import { eventually, type Running } from '../support/process.js';
import { publishIcecast } from '../support/publishers.js';
import { readPlaylist, Server } from '../support/server.js';

/** The pages of accounts and channels in Chromium, against the real service: what one test leaves, the next goes on with. */
const PATIENCE_MS = 60_000;
const ADMIN = { email: 'admin@localhost', password: 'harbour lamp ferry' };
const MEMBER = { email: 'marit@example.org', name: 'Marit <b>Vale</b>', password: 'lamps along the quay' };

let server: Server;
let browser: Browser;
let adminContext: BrowserContext;
let admin: Page;
let totpSecret = '';
let streamKey = '';
let show: Running | undefined;
const errors: string[] = [];

before(async () => {
  [server, browser] = await Promise.all([Server.start(), launchChromium()]);
  adminContext = await contextOf();
  admin = await pageOf(adminContext);
});
after(async () => {
  await browser?.close();
  await show?.kill('SIGKILL');
  await server?.stop();
});

/** As people come: by the service's own name, which passkeys are bound to. */
const base = () => `http://localhost:${server.port}`;

const contextOf = (options: BrowserContextOptions = DESKTOP) =>
  browser.newContext({ ...options, permissions: ['clipboard-read', 'clipboard-write'] });

async function pageOf(context: BrowserContext): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => {
    if (/content security policy/i.test(message.text())) errors.push(message.text());
  });
  await watchLayoutShift(page);
  return page;
}

const heading = (page: Page, name: string | RegExp) => page.getByRole('heading', { name }).first().waitFor();
const button = (page: Page, name: string) => page.getByRole('button', { name, exact: true });
const input = (page: Page, label: string) => page.locator('input, select').and(page.getByLabel(label, { exact: true }));
const copied = (page: Page) => page.evaluate(() => navigator.clipboard.readText());

async function signIn(page: Page, who: { email: string; password: string }, code?: string): Promise<void> {
  await input(page, 'E-mail').fill(who.email);
  await input(page, 'Password').fill(who.password);
  await button(page, 'Sign in').click();
  if (code === undefined) return;
  await input(page, 'Code').fill(code);
  await button(page, 'Sign in').click();
}

/** RFC 6238 as authenticator apps do it. `ahead`: of the step after this one, since each code is good once. */
function totp(secret: string, ahead = 0): string {
  const bits = [...secret].map((letter) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + ahead));
  const digest = createHmac('sha1', key).update(step).digest();
  const at = digest.at(-1)! & 15;
  return String((digest.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

test('the link of the first start: a password is chosen, and is what one signs in with', async () => {
  const link = await eventually('the link is in the log', () => server.log().find((line) => typeof line.link === 'string')?.link as string);
  assert.ok(link.startsWith(`${base()}/account#`), link);
  await admin.goto(link);
  await heading(admin, 'Welcome');
  assert.doesNotMatch(admin.url(), /token/, 'the address does not show it');

  await input(admin, 'Password').fill('short');
  await button(admin, 'Set the password').click();
  await admin.getByText('A password has at least 8 characters.').waitFor();
  assert.equal(await admin.evaluate(() => document.activeElement?.getAttribute('name')), 'newPassword');
  await input(admin, 'Password').fill('password1');
  await button(admin, 'Set the password').click();
  await admin.getByText(/among the first that anybody would try/).waitFor();
  assert.equal(await input(admin, 'Password').getAttribute('aria-invalid'), 'true');
  await input(admin, 'Password').fill(ADMIN.password);
  await button(admin, 'Set the password').click();
  await admin.getByText('Your password is set.').waitFor();

  await admin.goto('about:blank');
  await admin.goto(link);
  await input(admin, 'Password').fill('another good one of mine');
  await button(admin, 'Set the password').click();
  await heading(admin, 'This link is over');
  await admin.getByRole('link', { name: 'sign in', exact: true }).click();

  await signIn(admin, { ...ADMIN, password: 'not this one' });
  await admin.locator('.field.wrong', { hasText: 'Password' }).waitFor();
  await signIn(admin, ADMIN);
  await heading(admin, 'Account');
  await admin.locator('.account-menu', { hasText: 'Administrator' }).waitFor();
});

test('a second factor is led to, set up by hand, and its recovery codes are kept', async () => {
  await admin.goto(`${base()}/admin`);
  await heading(admin, 'A second factor first');
  await admin.getByRole('link', { name: 'Set it up' }).click();
  await button(admin, 'Set up an authenticator app').click();
  await admin.getByRole('img', { name: /QR code/ }).waitFor();
  await admin.getByText('Type the key instead').click();
  totpSecret = (await input(admin, 'Key').inputValue()).replaceAll(' ', '');

  await input(admin, 'Code').fill('000000');
  await button(admin, 'Turn on').click();
  await admin.locator('.field.wrong', { hasText: 'The code is not right' }).waitFor();
  await input(admin, 'Code').fill(totp(totpSecret));
  await button(admin, 'Turn on').click();
  const codes = admin.getByRole('list', { name: 'Recovery codes' });
  await codes.waitFor();
  const shown = await codes.locator('code').allTextContents();
  assert.equal(new Set(shown).size, 10);
  await button(admin, 'Copy recovery codes').click();
  await button(admin, 'recovery codes copied').waitFor();
  assert.deepEqual((await copied(admin)).split('\n'), shown);
  const [file] = await Promise.all([admin.waitForEvent('download'), button(admin, 'Download').click()]);
  assert.match(await readFile(await file.path(), 'utf8'), new RegExp(shown[9]!));
  await button(admin, 'I have kept them').click();
  await admin.getByText('10 recovery codes left').waitFor();
  await admin.goto(`${base()}/admin`);
  await heading(admin, 'Administration');
});

test('a channel: made, its key copied, on air; rotated while the show goes on', async () => {
  await admin.goto(`${base()}/channels`);
  await admin.getByText('No channel yet.').waitFor();
  await input(admin, 'Title').fill('Café Noir');
  assert.equal(await input(admin, 'Address').inputValue(), 'cafe-noir');
  await button(admin, 'Make the channel').click();
  await heading(admin, 'Café Noir');
  assert.equal(new URL(admin.url()).pathname, '/channels/cafe-noir');
  await button(admin, 'Copy Stream key').click();
  await button(admin, 'Stream key copied').waitFor();
  streamKey = await copied(admin);
  assert.equal(streamKey, await input(admin, 'Stream key').inputValue());
  assert.match(await input(admin, 'Server').inputValue(), new RegExp(`^rtmp://localhost:${server.rtmpPort}/live$`));

  show = publishIcecast(server.icecastUrl('cafe-noir', streamKey));
  await admin.getByText('On air, ').waitFor();
  const before = readPlaylist(await server.onAir('cafe-noir', 2));

  await button(admin, 'Make a new key').click();
  await admin.getByRole('dialog').getByText('The show on air goes on').waitFor();
  await admin.getByRole('dialog').getByRole('button', { name: 'Make a new key' }).click();
  const next = await eventually('another key is shown', async () => {
    const value = await input(admin, 'Stream key').inputValue();
    return value !== streamKey ? value : undefined;
  });
  assert.notEqual(next, streamKey);
  const later = await eventually('the show goes on for three segments', async () => {
    const text = await server.text('/live/cafe-noir/aac-128/index.m3u8');
    const now = text && readPlaylist(text);
    return now && now.openNumber >= before.openNumber + 3 ? now : undefined;
  });
  // What is listed before the show is one.
  const gaps = later.gaps.filter((number) => !before.gaps.includes(number));
  assert.deepEqual({ gaps, discontinuities: later.discontinuities, ended: later.ended }, { gaps: [], discontinuities: [], ended: false });
  assert.equal((await server.channel('cafe-noir')).state, 'live');

  await admin.goBack();
  await heading(admin, 'My channels');
  await admin.getByRole('link', { name: /Café Noir/ }).click();
  await admin.getByText('cannot be shown again').waitFor();
});

test('an invitation; a private channel plays for a member, and is not there for a stranger', async () => {
  await admin.goto(`${base()}/admin`);
  await input(admin, 'E-mail').fill(MEMBER.email);
  await input(admin, 'Name').fill(MEMBER.name);
  await input(admin, 'Role').selectOption('listener');
  await button(admin, 'Invite').click();
  const link = await input(admin, 'Link').inputValue();
  await admin.locator('.rows li', { hasText: MEMBER.name }).getByText('invited').waitFor();

  await admin.goto(`${base()}/channels/cafe-noir`);
  await admin.getByLabel(/^Private/).check();
  await admin.getByRole('form', { name: 'Settings' }).getByRole('button', { name: 'Save' }).click();
  await admin.getByText('Saved.').waitFor();

  const member = await pageOf(await contextOf());
  await member.goto(link);
  await input(member, 'Password').fill(MEMBER.password);
  await button(member, 'Set the password').click();
  await member.getByText('Your password is set.').waitFor();
  await signIn(member, MEMBER);
  await heading(member, 'Account');
  await member.goto(`${base()}/c/cafe-noir`);
  await heading(member, 'There is no such channel.');

  await input(admin, 'E-mail of an account here').fill(MEMBER.email);
  await input(admin, 'Role').selectOption('moderator');
  await button(admin, 'Add').click();
  await admin.getByText('Added.').waitFor();
  const played: string[] = [];
  member.on('request', (request) => played.push(new URL(request.url()).pathname));
  await member.reload();
  await member.locator('main[data-state="playing"]').waitFor();
  assert.ok(
    played.some((path) => /^\/t\/[^/]+\/live\/cafe-noir\/.*\.(?:m4s|mp4)$/.test(path)),
    'it plays by a signed address',
  );
  assert.deepEqual(
    played.filter((path) => path.startsWith('/live/')),
    [],
    'and by no other',
  );

  // Its address is renewed before it ends, and nothing is heard of it.
  let asked = 0;
  await member.route('**/api/v1/channels/cafe-noir/play', async (route) => {
    const response = await route.fetch();
    const soon = asked++ === 0 ? { expiresAt: new Date(Date.now() + 13_000).toISOString() } : {};
    await route.fulfill({ response, json: { ...((await response.json()) as object), ...soon } });
  });
  await member.reload();
  await member.locator('main[data-state="playing"]').waitFor();
  const tokens = () => [...new Set(played.map((path) => /^\/t\/([^/]+)\/live\//.exec(path)?.[1]).filter((token) => token !== undefined))];
  const first = tokens().length;
  await member.evaluate(() => {
    const main = document.querySelector('main')!;
    new MutationObserver(() => {
      if (main.dataset.state !== 'playing') main.setAttribute('data-was', main.dataset.state!);
    }).observe(main, { attributeFilter: ['data-state'] });
  });
  await eventually('media is asked for by another address', () => (tokens().length > first ? true : undefined), PATIENCE_MS);
  assert.equal(await member.evaluate(() => document.querySelector('main')!.dataset.was ?? 'playing'), 'playing');

  const stranger = await pageOf(await contextOf());
  await stranger.goto(`${base()}/c/cafe-noir`);
  await heading(stranger, 'There is no such channel.');
  await stranger.goto(`${base()}/channels/cafe-noir`);
  await heading(stranger, 'Sign in');

  await button(admin, 'Make a link').click();
  const given = new URL(await input(admin, 'HLS').inputValue());
  assert.equal((await fetch(`${server.url}${given.pathname}`)).status, 200, 'a playback link is good for whoever has it');

  await admin.getByRole('button', { name: `Remove ${MEMBER.name}` }).click();
  await admin.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await admin.locator('.rows li', { hasText: MEMBER.name }).waitFor({ state: 'detached' });
  await member.reload();
  await heading(member, 'There is no such channel.');
  await member.context().close();
});

test('what wants a fresh sign-in asks for the password: Cancel leaves the page as it was, a wrong one is said, the right one goes on', async () => {
  const page = await pageOf(adminContext);
  // What the service answers when the sign-in is older than ten minutes, until it has been shown the password.
  let isProven = false;
  const proofs: number[] = [];
  let refused = 0;
  await page.route('**/api/v1/me/proof', async (route) => {
    const response = await route.fetch();
    proofs.push(response.status());
    isProven ||= response.status() === 204;
    await route.fulfill({ response });
  });
  const old = async (route: Route) => {
    if (route.request().method() !== 'POST' || isProven) return route.continue();
    refused++;
    await route.fulfill({ status: 403, json: { code: 'fresh_sign_in_required', detail: 'Show your password once more.' } });
  };
  await page.route('**/api/v1/accounts', old);
  await page.route('**/api/v1/channels/cafe-noir/members', old);
  const dialog = page.getByRole('dialog', { name: 'Your password, once more' });
  const password = dialog.getByLabel('Password', { exact: true });

  await page.goto(`${base()}/admin`);
  await input(page, 'E-mail').fill('liv@example.org');
  await input(page, 'Name').fill('Liv');
  await button(page, 'Invite').click();
  await dialog.waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('name')), 'password');
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  await page.getByText('Nothing was changed').waitFor();
  assert.equal(await dialog.count(), 0);
  assert.deepEqual([await input(page, 'E-mail').inputValue(), await input(page, 'Name').inputValue()], ['liv@example.org', 'Liv']);
  assert.deepEqual([refused, proofs, await page.locator('.rows li', { hasText: 'Liv' }).count()], [1, [], 0]);

  await button(page, 'Invite').click();
  await password.fill('not this one');
  await dialog.getByRole('button', { name: 'Go on' }).click();
  await dialog.locator('.field.wrong', { hasText: 'The password is wrong' }).waitFor();
  assert.equal(refused, 2, 'the act waits');
  await password.fill(ADMIN.password);
  await dialog.getByRole('button', { name: 'Go on' }).click();
  await input(page, 'Link').waitFor();
  await page.locator('.rows li', { hasText: 'Liv' }).getByText('invited').waitFor();
  assert.equal(await dialog.count(), 0);
  assert.deepEqual([refused, proofs.length, proofs.at(-1)], [2, 2, 204]);

  isProven = false;
  await page.goto(`${base()}/channels/cafe-noir`);
  await input(page, 'E-mail of an account here').fill(MEMBER.email);
  await button(page, 'Add').click();
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await page.getByText('Nothing was changed').waitFor();
  assert.equal(await input(page, 'E-mail of an account here').inputValue(), MEMBER.email);
  assert.equal(await page.locator('.rows li', { hasText: MEMBER.name }).count(), 0);
  await button(page, 'Add').click();
  await password.fill(ADMIN.password);
  await dialog.getByRole('button', { name: 'Go on' }).click();
  await page.getByText('Added.').waitFor();
  assert.deepEqual([refused, proofs.length, proofs.at(-1)], [4, 3, 204]);
  await page.getByRole('button', { name: `Remove ${MEMBER.name}` }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await page.locator('.rows li', { hasText: MEMBER.name }).waitFor({ state: 'detached' });
  await page.close();
});

test('a passkey: made, and signed in with', async () => {
  const page = await pageOf(await contextOf());
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('WebAuthn.enable');
  const options = {
    protocol: 'ctap2',
    transport: 'internal',
    hasResidentKey: true,
    hasUserVerification: true,
    isUserVerified: true,
  } as const;
  await cdp.send('WebAuthn.addVirtualAuthenticator', { options: { ...options, automaticPresenceSimulation: true } });
  await page.goto(`${base()}/account`);
  await signIn(page, MEMBER);
  await heading(page, 'Account');
  await input(page, 'Name of the new passkey').fill('My desk');
  await button(page, 'Make a passkey').click();
  await page.getByText('Made. The next time').waitFor();
  await page.locator('.rows li', { hasText: 'My desk' }).waitFor();

  await page.locator('.account-menu summary').click();
  await button(page, 'Sign out').click();
  // The link is on the page that is being left, too.
  await page.waitForURL(`${base()}/`);
  await page.getByRole('link', { name: 'Sign in' }).click();
  await button(page, 'Sign in with a passkey').click();
  await heading(page, 'Account');
  await page.locator('.account-menu', { hasText: MEMBER.name }).waitFor();
  await page.getByRole('button', { name: 'Delete the passkey My desk' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.getByText('No passkey yet.').waitFor();
  await page.context().close();
});

test('API keys: shown once, good for what was chosen, dead when deleted', async () => {
  await admin.goto(`${base()}/account`);
  await admin.getByText('Make an API key').click();
  await input(admin, 'What is it for?').fill('Website');
  await button(admin, 'Make the key').click();
  await admin.getByText('Choose at least one').waitFor();
  await admin.getByLabel(/^channels:read/).check();
  await button(admin, 'Make the key').click();
  const secret = await input(admin, 'API key').inputValue();
  const list = () => fetch(`${server.url}/api/v1/channels/cafe-noir`, { headers: { authorization: `Bearer ${secret}` } });
  assert.equal((await list()).status, 200);
  await admin.reload();
  await admin.locator('.rows li', { hasText: 'Website' }).getByText('channels:read').waitFor();
  assert.equal((await admin.content()).includes(secret), false);
  await admin.getByRole('button', { name: 'Delete the key Website' }).click();
  await admin.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await admin.getByText('No API key yet.').waitFor();
  await eventually('the key is dead', async () => ((await list()).status === 401 ? true : undefined));
});

test('one session in several tabs: both stay signed in, and what one does the other sees', async () => {
  const second = await pageOf(adminContext);
  for (let round = 0; round < 3; round++) await Promise.all([admin.goto(`${base()}/account`), second.goto(`${base()}/channels`)]);
  await heading(admin, 'Account');
  await heading(second, 'My channels');
  await input(admin, 'Name').fill('Ada');
  await admin.getByRole('form', { name: 'Profile' }).getByRole('button', { name: 'Save' }).click();
  await second.locator('.account-menu', { hasText: 'Ada' }).waitFor();
  await second.close();
});

test('administration: search, a ban with its reason, the audit log filtered', async () => {
  await admin.goto(`${base()}/admin`);
  await input(admin, 'Name or e-mail').fill('marit');
  await button(admin, 'Search').click();
  await admin.locator('.accounts li', { hasText: 'Ada' }).waitFor({ state: 'detached' });
  await admin.getByRole('button', { name: `More about ${MEMBER.name}` }).click();
  await input(admin, 'Reason').fill('Advertises');
  await button(admin, 'Ban').click();
  await admin.locator('.accounts li', { hasText: 'Advertises' }).getByText('banned').waitFor();

  const banned = await pageOf(await contextOf());
  await banned.goto(`${base()}/account`);
  await signIn(banned, MEMBER);
  await banned.getByText('This account is banned: Advertises').waitFor();
  await banned.context().close();

  await admin.getByRole('link', { name: 'Audit log' }).click();
  await admin.locator('.audit li', { hasText: 'banAccount' }).getByRole('button', { name: 'banAccount' }).click();
  await admin.locator('.audit li', { hasText: 'createChannel' }).waitFor({ state: 'detached' });
  assert.equal(await admin.locator('.audit li').count(), 1);
  await input(admin, 'What was done').fill('nothingLikeThis');
  await button(admin, 'Filter').click();
  await admin.getByText('Nothing like that has happened.').waitFor();
});

test('a form is sent once; a limit is counted down; without a server what was typed stays', async () => {
  const page = await pageOf(await contextOf());
  await page.goto(`${base()}/account?to=https://evil.example/`);
  let answers = 0;
  let answer: (route: Route) => Promise<void> = async (route) => {
    answers++;
    await new Promise((resolve) => setTimeout(resolve, 300));
    await route.fulfill({ status: 429, headers: { 'retry-after': '2' }, json: { code: 'rate_limited', detail: 'Too many.' } });
  };
  await page.route('**/api/v1/auth/login', (route) => answer(route));
  await signIn(page, ADMIN);
  await page.evaluate(() => document.querySelector('form')?.requestSubmit());
  await page.getByText(/Try again in [12] s/).waitFor();
  assert.equal(answers, 1, 'two clicks are one request');
  assert.ok(await button(page, 'Sign in').isDisabled());
  await page.getByText('You can try again now.').waitFor();

  answer = (route) => route.abort('connectionrefused');
  await button(page, 'Sign in').click();
  await page.getByText('The server does not answer.').waitFor();
  assert.equal(await input(page, 'Password').inputValue(), ADMIN.password);

  await page.unroute('**/api/v1/auth/login');
  await button(page, 'Sign in').click();
  await page.getByText('Six digits of your authenticator app').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('autocomplete')), 'one-time-code');
  await input(page, 'Code').fill(totp(totpSecret, 1));
  await button(page, 'Sign in').click();
  await heading(page, 'Account');
  assert.equal(page.url(), `${base()}/account`, 'a way back to somewhere else is not taken');
  await page.context().close();
});

test('a session that is over leads to the sign-in page; a token that is over is renewed; without a server the page waits for it', async () => {
  const page = await pageOf(await contextOf());
  await page.goto(`${base()}/account`);
  const user = { name: 'Ada', email: ADMIN.email, role: 'admin' };
  await page.evaluate((value) => localStorage.setItem('veza.session', value), JSON.stringify({ refreshToken: 'none-of-ours', user }));
  await page.goto(`${base()}/channels`);
  await heading(page, 'Sign in');
  assert.equal(new URL(page.url()).search, '?to=%2Fchannels');

  let refused = 0;
  await admin.route('**/api/v1/me/channels*', async (route) => {
    if (refused++ === 0) await route.fulfill({ status: 401, json: { code: 'unauthorized', detail: 'The token is not valid.' } });
    else if (refused === 2) await route.abort('connectionrefused');
    else await route.continue();
  });
  const refreshes: string[] = [];
  const note = (request: { url(): string }) => {
    if (request.url().endsWith('/auth/refresh')) refreshes.push(request.url());
  };
  admin.on('request', note);
  await admin.goto(`${base()}/channels`);
  await heading(admin, 'Connecting…');
  await heading(admin, 'My channels');
  assert.equal(refreshes.length, 2, 'one for the page, one for the refusal');
  admin.off('request', note);
  await admin.unroute('**/api/v1/me/channels*');
  await page.context().close();
});

test('an account of one’s own: registered, its data fetched, its password changed, deleted', async () => {
  const page = await pageOf(await contextOf());
  const jon = { email: 'jon@example.org', password: 'slow ferry to nowhere' };
  await page.goto(`${base()}/account`);
  await page.getByRole('link', { name: 'Register' }).click();
  await input(page, 'Name').fill('Jón Þór');
  await input(page, 'E-mail').fill('jon');
  await input(page, 'Password').fill(jon.password);
  await button(page, 'Make an account').click();
  await page.getByText('This is not an e-mail address.').waitFor();
  await input(page, 'E-mail').fill(jon.email);
  await button(page, 'Make an account').click();
  await page.getByText('Your account is made.').waitFor();
  await signIn(page, jon);
  await heading(page, 'Account');
  await page.goto(`${base()}/channels`);
  await page.getByText('ask an administrator to make you a broadcaster').waitFor();
  await page.goto(`${base()}/admin`);
  await heading(page, 'This is not for your account.');
  await page.goto(`${base()}/account`);

  const [file] = await Promise.all([page.waitForEvent('download'), button(page, 'Download my data').click()]);
  assert.equal((JSON.parse(await readFile(await file.path(), 'utf8')) as { account: { email: string } }).account.email, jon.email);

  await input(page, 'Password now').fill('wrong');
  await input(page, 'New password').fill('another slow ferry');
  await button(page, 'Change the password').click();
  await page.locator('.field.wrong', { hasText: 'Password now' }).waitFor();
  await input(page, 'Password now').fill(jon.password);
  await button(page, 'Change the password').click();
  await page.getByText('You are signed out everywhere else.').waitFor();

  await button(page, 'Delete my account').first().click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Password', { exact: true }).fill(jon.password);
  await dialog.getByRole('button', { name: 'Delete my account' }).click();
  await dialog.locator('.field.wrong').waitFor();
  await dialog.getByLabel('Password', { exact: true }).fill('another slow ferry');
  await dialog.getByRole('button', { name: 'Delete my account' }).click();
  await page.waitForURL(`${base()}/`);
  await page.getByRole('link', { name: 'Sign in' }).click();
  await signIn(page, { ...jon, password: 'another slow ferry' });
  await page.locator('.field.wrong', { hasText: 'Password' }).waitFor();
  await page.context().close();
});

test('an address is confirmed by the link of its mail and the password that was chosen for it', async () => {
  const page = await pageOf(await contextOf());
  const sent: { token: string; password: string }[] = [];
  await page.route('**/api/v1/auth/confirm', async (route) => {
    const body = route.request().postDataJSON();
    sent.push(body);
    if (body.password === MEMBER.password) await route.fulfill({ status: 204 });
    else await route.fulfill({ status: 401, json: { code: 'invalid_credentials', detail: 'Another was registered last.' } });
  });
  await page.goto(`${base()}/account#token=of-the-mail&for=confirmation`);
  await heading(page, 'One more step');
  assert.doesNotMatch(page.url(), /token/, 'the address does not show it');
  await button(page, 'Confirm my address').click();
  await page.getByText('Password is missing.').waitFor();
  await input(page, 'Password').fill('of a stranger');
  await button(page, 'Confirm my address').click();
  await page.locator('.field.wrong', { hasText: 'Another was registered last.' }).waitFor();
  await input(page, 'Password').fill(MEMBER.password);
  await button(page, 'Confirm my address').click();
  await page.getByText('Your address is confirmed. Sign in.').waitFor();
  assert.deepEqual(sent, [
    { token: 'of-the-mail', password: 'of a stranger' },
    { token: 'of-the-mail', password: MEMBER.password },
  ]);

  await page.unroute('**/api/v1/auth/confirm');
  await page.goto('about:blank');
  await page.goto(`${base()}/account#token=of-another-mail&for=confirmation`);
  await input(page, 'Password').fill(MEMBER.password);
  await button(page, 'Confirm my address').click();
  await heading(page, 'This link is over');
  await page.goto('about:blank');
  await page.goto(`${base()}/account#token=of-another-mail&for=confirmation`);
  await page.getByRole('link', { name: 'Forgotten password' }).click();
  await heading(page, 'Forgotten password');
  await page.context().close();
});

for (const [name, options] of [
  ['desktop', DESKTOP],
  ['phone', PHONE],
] as const) {
  test(`${name}: nothing moves and nothing is cut off`, async () => {
    const context = await contextOf({ ...options, storageState: await adminContext.storageState() });
    // A refresh token is one's own: this browser takes the session over for as long as it is open.
    await admin.goto('about:blank');
    const page = await pageOf(context);
    for (const path of ['/account', '/channels', '/channels/cafe-noir', '/admin', '/admin/audit']) {
      await page.goto(base() + path);
      await page.locator('.page').waitFor();
      assert.deepEqual(await readLayoutShift(page), { sum: 0, nodes: [] }, path);
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= (options.viewport?.width ?? 0), `${path} is ${width} px wide`);
    }
    const session = await page.evaluate(() => localStorage.getItem('veza.session'));
    await context.close();
    await admin.goto(`${base()}/health/live`);
    await admin.evaluate((value) => localStorage.setItem('veza.session', value!), session);
  });
}

test('signed out everywhere: every tab leads to the sign-in page, and back', async () => {
  const second = await pageOf(adminContext);
  await second.goto(`${base()}/channels`);
  await heading(second, 'My channels');
  await admin.goto(`${base()}/account`);
  await admin.getByText('this device').waitFor();
  const devices = admin.locator('#devices .rows li');
  assert.equal(await devices.count(), 2, 'this one, and the one that a code was typed in');
  await devices.getByRole('button', { name: /^End the session/ }).click();
  await eventually('the other is gone', async () => ((await devices.count()) === 1 ? true : undefined));
  await button(admin, 'Sign out everywhere').click();
  await admin.getByRole('dialog').getByRole('button', { name: 'Sign out everywhere' }).click();
  await heading(admin, 'Sign in');
  await heading(second, 'Sign in');
  assert.equal(new URL(second.url()).search, '?to=%2Fchannels');
  assert.equal(await admin.evaluate(() => localStorage.getItem('veza.session')), null);
});

test('no page has thrown or run into its own content security policy; none but a player may be framed', async () => {
  assert.deepEqual(errors, []);
  for (const path of ['/account', '/channels', '/channels/cafe-noir', '/admin', '/admin/audit']) {
    const { headers, status } = await fetch(server.url + path);
    assert.equal(status, 200, path);
    assert.equal(headers.get('x-frame-options'), 'DENY', path);
    assert.match(headers.get('content-security-policy') ?? '', /script-src 'self'.*frame-ancestors 'none'/, path);
  }
  assert.match((await fetch(`${server.url}/c/cafe-noir`)).headers.get('content-security-policy') ?? '', /frame-ancestors \*/);
});
