import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { closingContexts, DESKTOP, launchChromium, openContext, PHONE } from '../support/chromium.js';
import { eventually } from '../support/process.js';
import { Server } from '../support/server.js';

/** The desk of a room, the studio's chat, and what those see whom a moderator has decided about: real pages, the real service. */
const PATIENCE_MS = 60_000;
/** Tests at once: each waits most of its time, for its pages. */
const AT_ONCE = 3;
let server: Server;
let browser: Browser;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), launchChromium()]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

interface Account {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly user: { readonly id?: string; readonly name: string; readonly email: string; readonly role: string };
}

async function post<T>(path: string, body: object, token?: string): Promise<T> {
  const response = await fetch(`${server.url}/api/v1${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
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

interface World {
  readonly slug: string;
  readonly moderator: Account;
  readonly viewer: Account;
  say(who: Account, text: string): Promise<{ state: string; mid: string }>;
}

/** A channel of its own for each test, with a moderator and a viewer. */
async function withRoom(slug: string, run: (world: World) => Promise<void>): Promise<void> {
  await server.createChannel(slug);
  const [moderator, viewer] = [await accountOf(`Marit ${slug}`), await accountOf(`Bo ${slug}`)];
  await server.api('POST', `/channels/${slug}/members`, { email: moderator.user.email, role: 'moderator' });
  await server.api('PATCH', `/rooms/${slug}`, { links: 'hold', perS: 100, burst: 100, roomPerS: 1000 });
  let keys = 0;
  const say: World['say'] = (who, text) => post(`/rooms/${slug}/messages`, { text, key: `k${++keys}` }, who.accessToken);
  await closingContexts(() => run({ slug, moderator, viewer, say }));
}

async function visit(account: Account | undefined, path: string, options: BrowserContextOptions = DESKTOP) {
  const context = await openContext(browser, options);
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
  await page.goto(server.url + path);
  return { page, errors };
}

const row = (page: Page, text: string) => page.locator('.chat-rows .chat-row', { hasText: text });
const held = (page: Page) => page.locator('.held-row');
const picture = async (page: Page, name: string) => {
  if (process.env.PICTURES) await page.screenshot({ path: `${process.env.PICTURES}/${name}.png` });
};

describe('the desk', { concurrency: AT_ONCE }, () => {
  test('the queue: by mouse, by keyboard, by somebody else; what comes is there by itself', async () => {
    await withRoom('queue', async ({ slug, moderator, viewer, say }) => {
      const { page, errors } = await visit(moderator, `/channels/${slug}/chat`);
      await page.getByRole('heading', { name: 'Chat of queue' }).waitFor();
      await page.getByText('Nothing waits.').waitFor();
      await page.locator('.chat-panel[data-link="online"]').waitFor();

      for (const letter of ['a', 'b', 'c', 'd', 'e']) assert.equal((await say(viewer, `see https://example.org/${letter}`)).state, 'held');
      await page.getByRole('link', { name: 'Waiting 5' }).waitFor();
      await eventually('all five are there', async () => (await held(page).count()) === 5);
      await picture(page, 'desk-held');

      // By mouse; it is in the chat beside the desk.
      await page
        .getByRole('button', { name: /^Approve the message/ })
        .first()
        .click();
      await page.getByText('Approved: the message of Bo queue.').waitFor();
      await row(page, 'https://example.org/a').waitFor();
      // By keyboard, and the focus goes on to the next one.
      await held(page).first().focus();
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('a');
      await row(page, 'https://example.org/c').waitFor();
      await eventually('the focus is on the next', async () =>
        page.evaluate(
          () => document.activeElement?.matches('.held-row') === true && document.activeElement.textContent?.includes('/d') === true,
        ),
      );
      await page.keyboard.press('r');
      await page.getByRole('dialog', { name: 'Deny with a reason' }).getByLabel('Reason').fill('one is enough');
      await page.keyboard.press('Enter');
      await page.getByText('Denied: the message of Bo queue.').waitFor();
      await eventually('two are left', async () => (await held(page).count()) === 2);
      // Somebody else decides: it goes by itself, or says so.
      const waiting = await server.api<{ items: { mid: string; body: { text: string } }[] }>('GET', `/rooms/${slug}/held`);
      assert.deepEqual(
        waiting.items.map(({ body }) => body.text.at(-1)),
        ['b', 'e'],
      );
      await server.api('POST', `/rooms/${slug}/held/${waiting.items[0]!.mid}/approve`);
      await held(page).filter({ hasText: '/b' }).waitFor({ state: 'detached' });
      await server.api('POST', `/rooms/${slug}/held/${waiting.items[1]!.mid}/approve`);
      await held(page)
        .first()
        .focus()
        .catch(() => undefined);
      await page.keyboard.press('d');
      await page.getByText('Nothing waits.').waitFor();
      assert.deepEqual(errors, []);
    });
  });

  test('words: blocked, tried, removed; a list that somebody else has changed meanwhile is not overwritten', async () => {
    await withRoom('words', async ({ slug, moderator }) => {
      const { page, errors } = await visit(moderator, `/channels/${slug}/chat#words`);
      await page.getByText('No words are blocked here.').waitFor();
      await server.api('PUT', `/rooms/${slug}/terms`, { blocked: ['from another'], allowed: [] });
      await page.getByLabel('A word or phrase to block').fill('spoil*, buy followers');
      await page.keyboard.press('Enter');
      await page.getByText('Added: spoil*, buy followers').waitFor();
      const stored = () => server.api<{ blocked: string[]; allowed: string[] }>('GET', `/rooms/${slug}/terms`);
      assert.deepEqual((await stored()).blocked, ['from another', 'spoil*', 'buy followers']);

      const tries = async (text: string, says: string) => {
        await page.getByLabel('What somebody might write').fill(text);
        await page.getByRole('button', { name: 'Try it' }).click();
        await page.locator('.trial', { hasText: says }).waitFor();
      };
      await tries('no  s p o i l e r s please', 'It would be refused: a blocked word.');
      await tries('see https://example.org', 'It would wait for a moderator: link.');
      await tries('good evening', 'It would be published.');
      await picture(page, 'desk-words');
      // Too many, and what is wrong is said where it was typed.
      await page.getByLabel('A word or phrase to block').fill(Array.from({ length: 201 }, (_, i) => `w${i}`).join(','));
      await page.keyboard.press('Enter');
      await page.locator('.field.wrong', { hasText: 'A word or phrase to block' }).waitFor();

      await page.getByRole('button', { name: 'Remove spoil*' }).click();
      await page.getByText('Removed: spoil*').waitFor();
      await page.getByLabel('A word or phrase to allow').fill('scunthorpe');
      await page.keyboard.press('Enter');
      await page.getByRole('button', { name: 'Remove scunthorpe' }).waitFor();
      assert.deepEqual(await stored(), { blocked: ['from another', 'buy followers'], allowed: ['scunthorpe'] });
      assert.deepEqual(errors, []);
    });
  });

  test('a warning is shown until it is read, in every page; a timeout counts down and says why; both end', async () => {
    await withRoom('warned', async ({ slug, moderator, viewer, say }) => {
      await say(viewer, 'hello');
      const [one, two] = [await visit(viewer, `/c/${slug}`), await visit(await accountOf(`Bo ${slug}`), `/c/${slug}`, PHONE)];
      const desk = await visit(moderator, `/channels/${slug}/chat`);
      for (const { page } of [one, two]) await row(page, 'hello').waitFor();
      await row(desk.page, 'hello').waitFor();

      // From the message in the chat to what is known of its author.
      await row(desk.page, 'hello').focus();
      await desk.page.keyboard.press('Enter');
      await desk.page.getByRole('menuitem', { name: 'About this person…' }).click();
      await desk.page.getByText('May read and write here.').waitFor();
      await desk.page.getByRole('textbox', { name: 'Warning' }).fill('Please stop <b>advertising</b>.');
      await desk.page.getByRole('button', { name: 'Warn', exact: true }).click();
      await desk.page.getByText('is warned.').waitFor();
      const warning = (page: Page) => page.getByRole('alertdialog', { name: 'A warning' });
      for (const { page } of [one, two]) await warning(page).getByText('Please stop <b>advertising</b>.').waitFor();
      await picture(one.page, 'warning');
      await picture(two.page, 'warning-phone');
      await one.page.reload();
      await warning(one.page).getByRole('button', { name: 'I have read it' }).click();
      for (const { page } of [one, two]) await warning(page).waitFor({ state: 'hidden' });
      await desk.page.reload();
      await desk.page.getByText(/· seen /).waitFor();

      await desk.page.getByLabel('How long?').selectOption('An hour');
      await desk.page.getByRole('textbox', { name: 'Reason' }).fill('caps');
      await desk.page.getByRole('button', { name: 'Give the timeout' }).click();
      await one.page
        .locator('.chat-note', { hasText: /You have a timeout \(caps\)\. You can write again in (59 min \d+ s|1 h|60 min)/ })
        .waitFor();
      await one.page.getByRole('textbox', { name: 'Message' }).fill('BUT');
      assert.equal(await one.page.getByRole('button', { name: 'Send', exact: true }).isDisabled(), true);
      await picture(one.page, 'timeout');

      await desk.page.getByRole('link', { name: 'People' }).first().click();
      await desk.page.getByText(/left, until .* · caps/).waitFor();
      await picture(desk.page, 'desk-people');
      await desk.page.getByRole('button', { name: 'End the timeout of Bo warned' }).click();
      await desk.page.getByText('Nobody has a timeout.').waitFor();
      await one.page.locator('.chat-note', { hasText: 'You have a timeout' }).waitFor({ state: 'hidden' });
      await desk.page.getByRole('link', { name: 'Who did what' }).click();
      await desk.page.getByText('Marit warned ended the timeout of Bo warned.').waitFor();
      await picture(desk.page, 'desk-acts');
      for (const { errors } of [one, two, desk]) assert.deepEqual(errors, []);
    });
  });

  test('a ban is said with its reason and its end; an appeal goes out, is turned down, and another is accepted: he is back', async () => {
    await withRoom('banned', async ({ slug, moderator, viewer, say }) => {
      await say(viewer, 'rude');
      const one = await visit(viewer, `/c/${slug}`);
      const desk = await visit(moderator, `/channels/${slug}/chat#appeals`);
      await row(one.page, 'rude').waitFor();
      const ban = async () => {
        await row(desk.page, 'rude').focus();
        await desk.page.keyboard.press('b');
        const dialog = desk.page.getByRole('dialog', { name: 'Ban Bo banned?' });
        await dialog.getByLabel('How long?').selectOption('A day');
        await dialog.getByLabel('Reason').fill('no <i>manners</i>');
        await dialog.getByRole('button', { name: 'Ban', exact: true }).click();
      };
      const appeal = async (text: string) => {
        await one.page.getByRole('heading', { name: 'You are banned from this chat' }).waitFor();
        await one.page.getByText('Why: no <i>manners</i>').waitFor();
        await one.page.getByText(/^Until .*\d/).waitFor();
        await one.page.getByLabel('Why should it be lifted?').fill(text);
        await picture(one.page, 'banned');
        await one.page.getByRole('button', { name: 'Appeal' }).click();
        await one.page.getByText('Your appeal waits for an answer.').waitFor();
      };
      await ban();
      await appeal('I am\nsorry');
      // After a reload as well.
      await one.page.reload();
      await one.page.getByText('Your appeal waits for an answer.').waitFor();
      await desk.page.getByRole('link', { name: 'Appeals 1' }).waitFor();
      await desk.page.reload();
      await desk.page.getByText('I am').waitFor();
      await picture(desk.page, 'desk-appeals');
      await desk.page.getByRole('button', { name: 'Turn it down' }).click();
      await desk.page.getByText('Answer to Bo banned is missing.').waitFor();
      await desk.page.getByLabel('Answer to Bo banned').fill('Come back tomorrow.');
      await desk.page.getByRole('button', { name: 'Turn it down' }).click();
      await desk.page.getByText('The appeal of Bo banned is turned down.').waitFor();
      await one.page.getByText('Come back tomorrow.').waitFor();

      // Another ban: its appeal is another, too.
      await desk.page.getByRole('link', { name: 'People' }).click();
      await desk.page.getByRole('button', { name: 'Lift the ban of Bo banned' }).click();
      await desk.page.getByText('Nobody is banned.').waitFor();
      await one.page.getByRole('textbox', { name: 'Message' }).waitFor();
      await ban();
      await appeal('Once more');
      await desk.page.getByRole('link', { name: /^Appeals/ }).click();
      await desk.page.getByLabel('Answer to Bo banned').fill('Welcome back.');
      await desk.page.getByRole('button', { name: 'Lift the ban' }).click();
      await desk.page.getByText('The ban of Bo banned is lifted.').waitFor();
      await one.page.getByRole('textbox', { name: 'Message' }).waitFor();
      await row(one.page, 'rude').waitFor();
      for (const { errors } of [one, desk]) assert.deepEqual(errors, []);
    });
  });

  test('the studio has the chat beside it, with what waits; who may not moderate does not see the desk', async () => {
    await withRoom('deck', async ({ slug, moderator, viewer, say }) => {
      await say(viewer, 'good evening');
      await say(viewer, 'see https://example.org/');
      const studio = await visit(moderator, `/channels/${slug}`);
      await row(studio.page, 'good evening').waitFor();
      const link = studio.page.getByRole('link', { name: 'Desk: 1 waiting' });
      await link.waitFor();
      await row(studio.page, 'good evening').focus();
      await studio.page.keyboard.press('Delete');
      await studio.page.getByText('Message deleted').waitFor();
      await picture(studio.page, 'studio');
      await link.click();
      await eventually('the desk', async () => (await held(studio.page).count()) === 1);

      const other = await visit(viewer, `/channels/${slug}/chat`);
      await other.page.getByRole('heading', { name: 'This is not for your account.' }).waitFor();
      const listener = await visit(viewer, `/c/${slug}`);
      await listener.page.locator('.chat-panel[data-link="online"]').waitFor();
      assert.equal(await listener.page.getByRole('link', { name: /^Desk/ }).count(), 0);
      for (const { errors } of [studio, other, listener]) assert.deepEqual(errors, []);
    });
  });

  test('the settings: modes by a moderator; the rules by who runs the channel, and only what has changed is sent', async () => {
    await withRoom('rules', async ({ slug, moderator, viewer }) => {
      const { page, errors } = await visit(moderator, `/channels/${slug}/chat#settings`);
      await page
        .locator('.desk')
        .getByLabel(/^Slow mode/)
        .fill('5000');
      await page.getByRole('button', { name: 'Save the modes' }).click();
      await page.getByText('a whole number from 0 to 3600').waitFor();
      await page
        .locator('.desk')
        .getByLabel(/^Slow mode/)
        .fill('30');
      await page.getByLabel('Emoji only.').check();
      await page.getByRole('button', { name: 'Save the modes' }).click();
      await page.getByText('Saved. It holds at once.').waitFor();
      const settings = async () => (await server.api<{ settings: Record<string, unknown> }>('GET', `/rooms/${slug}`)).settings;
      assert.deepEqual([(await settings()).slowS, (await settings()).emoteOnly], [30, true]);
      assert.equal(await page.getByRole('button', { name: 'Save the rules' }).count(), 0);

      await server.api('POST', `/channels/${slug}/members`, { email: viewer.user.email, role: 'host' });
      const host = await visit(viewer, `/channels/${slug}/chat#settings`);
      await host.page.getByLabel('Links', { exact: true }).selectOption('Refuse them');
      await host.page.getByLabel('Where links may always lead').fill('not a host');
      await host.page.getByRole('button', { name: 'Save the rules' }).click();
      await host.page.locator('.field.wrong', { hasText: 'Where links may always lead' }).waitFor();
      await host.page.getByLabel('Where links may always lead').fill('example.org\nveza.example');
      await host.page.getByRole('button', { name: 'Save the rules' }).click();
      await host.page.getByText('Saved. It holds at once.').waitFor();
      await picture(host.page, 'desk-settings');
      const now = await settings();
      assert.deepEqual([now.links, now.allowedHosts, now.slowS], ['refuse', ['example.org', 'veza.example'], 30]);
      const acts = await server.api<{ items: { action: string; details: object }[] }>('GET', `/rooms/${slug}/acts?limit=1`);
      assert.deepEqual(Object.keys(acts.items[0]!.details).sort(), ['allowedHosts', 'links']);
      for (const found of [errors, host.errors]) assert.deepEqual(found, []);
    });
  });

  for (const [name, options] of [
    ['phone', PHONE],
    ['dark', { ...DESKTOP, colorScheme: 'dark' }],
  ] as const) {
    test(`the desk, ${name}: nothing is wider than the page, every control has a name`, async () => {
      await withRoom(`looks-${name}`, async ({ slug, moderator, viewer, say }) => {
        await say(viewer, `see https://example.org/${'long'.repeat(60)} and what is there, which needs more than one line`);
        await server.api('PUT', `/rooms/${slug}/terms`, { blocked: ['buy followers', 'w'.repeat(100)], allowed: ['scunthorpe'] });
        const { page, errors } = await visit(moderator, `/channels/${slug}/chat`, options);
        await held(page).waitFor();
        for (const tab of ['waiting', 'words', 'people', 'appeals', 'settings', 'acts']) {
          await page.evaluate((to) => {
            location.hash = to;
          }, `#${tab}`);
          await page.locator(`.desk-tabs a[href="#${tab}"][aria-current="page"]`).waitFor();
          await eventually('it is loaded', async () => (await page.getByText('Loading…').count()) === 0);
          const width = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(width <= (options.viewport?.width ?? 0), `${tab}: the page is ${width} px wide`);
          const nameless = await page
            .locator('.desk :is(button, input, select, textarea)')
            .evaluateAll((all) =>
              all
                .filter((one) => !one.getAttribute('aria-label') && !one.textContent?.trim() && !(one as HTMLInputElement).labels?.length)
                .map((one) => one.outerHTML),
            );
          assert.deepEqual(nameless, []);
          await picture(page, `desk-${name}-${tab}`);
        }
        assert.deepEqual(errors, []);
      });
    });
  }
});
