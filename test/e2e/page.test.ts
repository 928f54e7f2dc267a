import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { closingContexts, DESKTOP, launchChromium, openContext, PHONE, readLayoutShift, watchLayoutShift } from '../support/chromium.js';
import { type FakeChannel, type PageFiles, PageServer, preparePageFiles } from '../support/page-server.js';
import { eventually } from '../support/process.js';

/** Longer than anything below takes on a busy machine; a wait that ends by it has failed. */
const PATIENCE_MS = 60_000;
/** Tests at once: each waits most of its time, for sound that comes in its own time. */
const AT_ONCE = 4;

let files: PageFiles;
let browser: Browser;

before(async () => {
  [files, browser] = await Promise.all([preparePageFiles(), launchChromium()]);
});
after(async () => {
  await browser?.close();
  await files?.remove();
});

interface Visit {
  page: Page;
  /** Uncaught errors of the page. */
  errors: string[];
}

async function visit(server: PageServer, path = '/', options: BrowserContextOptions = DESKTOP, from = browser): Promise<Visit> {
  const context = await openContext(from, { ...options, permissions: ['clipboard-read', 'clipboard-write'] });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  await watchLayoutShift(page);
  await page.goto(server.url + path);
  return { page, errors };
}

async function withServer(channels: FakeChannel[] | undefined, run: (server: PageServer) => Promise<void>): Promise<void> {
  const server = await PageServer.start(files, channels);
  try {
    await closingContexts(() => run(server));
  } finally {
    await server.refuse();
  }
}

const state = (page: Page, wanted: string) => page.locator(`main[data-state="${wanted}"]`).waitFor();
const title = (page: Page, wanted: string) => page.locator('.player .title', { hasText: wanted }).waitFor();

/** What the player's audio element does is not in the DOM: the facts that it shows are. */
const fact = (page: Page, name: string) => page.locator('.facts div', { hasText: name }).locator('dd').textContent().then(String);
const seconds = async (page: Page, name: string) => Number.parseFloat(await fact(page, name));

describe('the listening page', { concurrency: AT_ONCE }, () => {
  test('off air: the page says so, and starts by itself when the channel goes on air', async () => {
    await withServer(undefined, async (server) => {
      const { page, errors } = await visit(server);
      await state(page, 'offAir');
      await title(page, 'Nothing on air');
      server.goOnAir();
      await state(page, 'playing');
      await eventually('delay and buffer are shown', async () => (await seconds(page, 'Delay')) > 0 && (await seconds(page, 'Buffer')) > 0);

      server.goOffAir();
      await state(page, 'offAir');
      server.goOnAir();
      await state(page, 'playing');
      assert.deepEqual(errors, []);
    });
  });

  test('keyboard: space, M, arrows, L and the list of keys', async () => {
    await withServer(undefined, async (server) => {
      server.goOnAir('radio', 90);
      const { page } = await visit(server, '/c/radio');
      await state(page, 'playing');
      await page.keyboard.press('Space');
      await state(page, 'stopped');
      await page.keyboard.press('Space');
      await state(page, 'playing');

      await page.keyboard.press('m');
      await page.getByRole('button', { name: 'Sound on' }).waitFor();
      await page.keyboard.press('m');
      await page.getByRole('button', { name: 'Mute' }).waitFor();
      await page.keyboard.press('ArrowDown');
      assert.equal(await page.getByRole('slider', { name: 'Volume' }).inputValue(), '0.95');

      await page.locator('.seek:enabled').waitFor();
      await page.keyboard.press('ArrowLeft');
      await page.locator('.status', { hasText: 'Rewound' }).waitFor();
      await page.keyboard.press('ArrowLeft');
      await eventually('20 s further back', async () => (await seconds(page, 'Delay')) > 20);
      await page.keyboard.press('l');
      await page.locator('.status', { hasText: /^Live$/ }).waitFor();
      await eventually('the live edge', async () => (await seconds(page, 'Delay')) < 15);

      await page.keyboard.press('?');
      await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('dialog', { name: 'Keyboard' }).waitFor({ state: 'hidden' });
    });
  });

  test('rewind: the control reaches as far as the playlist, and plays from there', async () => {
    await withServer(undefined, async (server) => {
      server.goOnAir('radio', 100);
      const { page } = await visit(server);
      await state(page, 'playing');
      const seek = page.locator('.seek:enabled');
      await seek.waitFor();
      assert.ok(Number(await seek.getAttribute('min')) <= -90, 'the whole broadcast can be reached');
      await seek.fill('-60');
      await page.locator('.status', { hasText: 'Rewound' }).waitFor();
      await eventually('a minute back', async () => {
        const text = await fact(page, 'Delay');
        return Number.parseFloat(text) > 55 && Number.parseFloat(text) < 75;
      });
      assert.match(await seek.getAttribute('aria-valuetext').then(String), /behind live/);
      await page.getByRole('button', { name: 'Live' }).click();
      await page.locator('.status', { hasText: /^Live$/ }).waitFor();
    });
  });

  test('quality: a chosen rung is what is heard, Opus too, and Auto again', async () => {
    await withServer(undefined, async (server) => {
      server.goOnAir();
      const { page } = await visit(server);
      await state(page, 'playing');
      const choose = (label: string) => page.getByLabel('Quality').selectOption({ label });
      for (const label of ['64 kbit/s AAC', '128 kbit/s AAC', '96 kbit/s Opus']) {
        await choose(label);
        await eventually(
          label,
          async () => (await fact(page, 'Heard')) === label && (await page.locator('main[data-state="playing"]').count()) === 1,
        );
      }
      await choose('Auto');
      await eventually('AAC again', async () => (await fact(page, 'Heard')).endsWith('AAC'));
    });
  });

  test('titles: shown when they are heard, not when they arrive; the one before moves to the history', async () => {
    await withServer(undefined, async (server) => {
      server.goOnAir();
      server.setTitle('First Light', 'Marit Vale', { heardInS: -15 });
      const { page } = await visit(server);
      await state(page, 'playing');
      await title(page, 'First Light');
      const setAtMs = Date.now();
      server.setTitle('Tin Roof', 'The Night Ferry', { heardInS: 0 });
      await title(page, 'Tin Roof');
      const delayMs = (await seconds(page, 'Delay')) * 1000;
      const shownAfterMs = Date.now() - setAtMs;
      assert.ok(shownAfterMs >= delayMs - 1_000, `shown ${shownAfterMs} ms after it was on air, with ${delayMs} ms of delay`);
      await page.locator('.history li', { hasText: 'First Light' }).waitFor();
      assert.deepEqual(await page.evaluate(() => [navigator.mediaSession.metadata?.title, navigator.mediaSession.metadata?.artist]), [
        'Tin Roof',
        'The Night Ferry',
      ]);
    });
  });

  test('connections refused until the buffer is empty: the page says so and goes on by itself', async () => {
    await withServer(undefined, async (server) => {
      server.goOnAir();
      const { page, errors } = await visit(server);
      await state(page, 'playing');
      await server.refuse();
      await state(page, 'reconnecting');
      await page.locator('.status', { hasText: 'Reconnecting' }).waitFor();
      await eventually('nothing left to play', async () => (await seconds(page, 'Buffer')) < 0.3);
      await server.accept();
      await state(page, 'playing');
      await eventually('near the live edge', async () => (await seconds(page, 'Delay')) < 15);
      assert.deepEqual(errors, []);
    });
  });

  test('a browser that wants a click first: one play button, and nothing is loaded meanwhile', async () => {
    const asking = await launchChromium({ autoplay: 'ask' });
    try {
      await withServer(undefined, async (server) => {
        server.goOnAir();
        const { page } = await visit(server, '/', DESKTOP, asking);
        await state(page, 'blocked');
        await page.locator('.status', { hasText: 'press play' }).waitFor();
        await page.getByRole('button', { name: 'Play' }).click();
        await state(page, 'playing');
      });
    } finally {
      await asking.close();
    }
  });

  test('the level meter moves, and addresses can be copied', async () => {
    await withServer(undefined, async (server) => {
      server.goOnAir();
      const { page } = await visit(server);
      await state(page, 'playing');
      // Bars of sound are taller than the dots of silence: paint a quarter of the height above the middle.
      await page.waitForFunction(() => {
        const canvas = document.querySelector<HTMLCanvasElement>('canvas.ribbon');
        const row = canvas?.getContext('2d')?.getImageData(0, Math.floor(canvas.height / 4), canvas.width, 1).data;
        return row?.some((value, i) => i % 4 === 3 && value > 0) ?? false;
      });
      await page.getByText('Listen elsewhere').click();
      await page.getByRole('button', { name: 'Copy MP3 stream' }).click();
      await page.getByText('Copied').waitFor();
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `${server.url}/listen/radio.mp3`);
    });
  });

  for (const [name, options] of [
    ['desktop', DESKTOP],
    ['phone', PHONE],
  ] as const) {
    test(`${name}: nothing moves and nothing is cut off, from off air to the third title`, async () => {
      await withServer(undefined, async (server) => {
        const { page } = await visit(server, '/c/radio', options);
        await state(page, 'offAir');
        server.goOnAir();
        server.setTitle('Go', 'A', { heardInS: -15 });
        await state(page, 'playing');
        await title(page, 'Go');
        server.setTitle('A Title That Is Far Too Long for Two Lines on Any Telephone, and Goes On and On All the Same', 'Somebody', {
          heardInS: -1,
        });
        await title(page, 'A Title That');
        server.setTitle('Tin Roof', 'The Night Ferry', { heardInS: -1 });
        await title(page, 'Tin Roof');
        assert.deepEqual(await readLayoutShift(page), { sum: 0, nodes: [] });
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= (options.viewport?.width ?? 0), `the page is ${width} px wide`);
      });
    });
  }

  test('several channels: the one on air plays at /, each has a page of its own', async () => {
    const channels = [
      { slug: 'radio', title: 'Harbour Radio' },
      { slug: 'night', title: 'Night Desk' },
    ];
    await withServer(channels, async (server) => {
      server.goOnAir('night');
      const { page } = await visit(server);
      await state(page, 'playing');
      await page.getByRole('heading', { level: 1, name: 'Night Desk' }).waitFor();
      await page.getByRole('link', { name: /Harbour Radio/ }).click();
      await page.waitForURL(/\/c\/radio$/);
      await state(page, 'offAir');
      await page.goto(`${server.url}/c/nowhere`);
      await page.getByRole('heading', { name: 'There is no such channel.' }).waitFor();
    });
  });
});
