import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { ChatPageWorld } from '../support/chat-page.js';
import { closingContexts, DESKTOP, launchChromium, PHONE, readLayoutShift } from '../support/chromium.js';
import { type PageFiles, preparePageFiles } from '../support/page-server.js';
import { eventually } from '../support/process.js';

/** Tests at once: each waits most of its time, for its page. */
const AT_ONCE = 3;
let files: PageFiles;
let browser: Browser;

before(async () => {
  [files, browser] = await Promise.all([preparePageFiles(), launchChromium()]);
});
after(async () => {
  await browser?.close();
  await files?.remove();
});

async function withChat(run: (world: ChatPageWorld) => Promise<void>): Promise<void> {
  const world = await ChatPageWorld.start(files);
  try {
    await closingContexts(() => run(world));
  } finally {
    await world.stop();
  }
}

const row = (page: Page, text: string) => page.locator('.chat-rows .chat-row', { hasText: text });
const field = (page: Page) => page.getByRole('textbox', { name: 'Message' });
const texts = (page: Page) => page.locator('.chat-rows .chat-text').allTextContents();
const send = async (page: Page, text: string) => {
  await field(page).fill(text);
  await field(page).press('Enter');
};
const belowPx = (page: Page) =>
  page.locator('.chat-scroll').evaluate((log) => Math.round(log.scrollHeight - log.scrollTop - log.clientHeight));

describe('the chat of the listening page', { concurrency: AT_ONCE }, () => {
  test('a guest reads along, and is told where to sign in; nothing said yet is said so', async () => {
    await withChat(async (world) => {
      const { page, errors } = await world.visit(browser, undefined);
      await page.getByText('Nothing was said here yet').waitFor();
      world.say('bo', 'Good evening');
      await row(page, 'Good evening').waitFor();
      await page.getByText('Nothing was said here yet').waitFor({ state: 'hidden' });
      assert.equal(await page.getByRole('link', { name: 'Sign in to write' }).getAttribute('href'), '/account?to=%2Fc%2Fradio');
      assert.equal(await field(page).count(), 0);
      assert.deepEqual(errors, []);
    });
  });

  test('what is on air is told by the chat, and the API is not asked for it', async () => {
    await withChat(async (world) => {
      world.chat.onAir(world.room, { state: 'offline', listeners: 0, startedAt: null, nowPlaying: null });
      const { page, errors } = await world.visit(browser, undefined);
      const status = page.locator('.status');
      await status.getByText('Off air').waitFor();
      await page.locator('.chat-panel[data-link=online]').waitFor();
      const asked = () => world.server.asked.filter((path) => path.startsWith('/api/')).length;
      // What was under way when the room was joined.
      await eventually('the room has told it', () =>
        page.evaluate(() => (window as never as { vezaChat: { room: { channel?: object } } }).vezaChat.room.channel !== undefined),
      );
      const before = asked();
      world.server.goOnAir();
      world.chat.onAir(world.room, { state: 'live', listeners: 41, startedAt: Date.now(), nowPlaying: null });
      await page.getByText('41 listening').waitFor();
      await eventually('it plays', async () => (await page.locator('main').getAttribute('data-state')) === 'playing');
      world.chat.onAir(world.room, {
        state: 'holding',
        listeners: 42,
        startedAt: Date.now(),
        nowPlaying: { title: 'A song', startedAt: Date.now() },
      });
      await status.getByText('waiting for the broadcaster').waitFor();
      await page.getByText('42 listening').waitFor();
      assert.equal(asked(), before);
      assert.deepEqual(errors, []);
    });
  });

  test('what one says is there at once, and once; the other sees it with name and role', async () => {
    await withChat(async (world) => {
      const [ann, dj] = [await world.visit(browser, 'ann'), await world.visit(browser, 'dj')];
      world.chat.isStoring = false;
      await send(ann.page, 'Hello, everybody');
      await row(ann.page, 'Hello, everybody').waitFor();
      await row(dj.page, 'Hello, everybody').waitFor();
      assert.equal(await field(ann.page).inputValue(), '');
      world.chat.isStoring = true;
      world.chat.store(world.room);
      await send(dj.page, 'And to you');
      const answer = row(ann.page, 'And to you');
      await answer.waitFor();
      assert.match(String(await answer.textContent()), /DJ Harbour.*Host/);
      await eventually('nothing waits', async () => (await ann.page.locator('.chat-tail li').count()) === 0);
      assert.deepEqual(await texts(ann.page), ['Hello, everybody', 'And to you']);
      assert.deepEqual([...ann.errors, ...dj.errors], []);
    });
  });

  test('text is text: no markup, links of http and https alone, which lend nothing', async () => {
    await withChat(async (world) => {
      const { page, errors } = await world.visit(browser, 'ann');
      const hostile = `<img src=x onerror="window.hit=1"><script>window.hit=1</script> javascript:alert(1) data:text/html,x`;
      world.say('<b>Bo</b>', hostile);
      world.say(
        'bo',
        'see https://example.org/a_(b)?x=1&y=<i>, http://exa mple. and HTTPS://EXAMPLE.ORG/Z.',
        {},
        { mentions: ['"><img>'] },
      );
      world.chat.append(world.room, { t: 'now', title: '<img src=x onerror="window.hit=1">', artist: '<b>x</b>' });
      world.chat.append(world.room, { t: 'act', action: '<b>', by: { name: '<img src=x onerror="window.hit=1">' } });
      await row(page, 'javascript:alert(1)').waitFor();
      await eventually('all four', async () => (await page.locator('.chat-rows .chat-row').count()) === 4);
      assert.equal((await texts(page))[0], hostile);
      assert.equal(await page.locator('.chat-panel img, .chat-panel script, .chat-panel i').count(), 0);
      const links = await page
        .locator('.chat-text a')
        .evaluateAll((all) => all.map((link) => [link.getAttribute('href'), link.getAttribute('rel'), link.getAttribute('target')]));
      const rel = 'nofollow noopener noreferrer ugc';
      assert.deepEqual(links, [
        ['https://example.org/a_(b)?x=1&y=', rel, '_blank'],
        ['http://exa/', rel, '_blank'],
        ['https://example.org/Z', rel, '_blank'],
      ]);
      assert.equal(await page.evaluate(() => 'hit' in window), false);
      assert.deepEqual(errors, []);
    });
  });

  test('@ offers names; who is named sees it', async () => {
    await withChat(async (world) => {
      world.say('bo', 'I am here');
      world.say('dj', 'Me too');
      const ann = await world.visit(browser, 'ann');
      const bo = await world.visit(browser, 'bo');
      await row(ann.page, 'Me too').waitFor();
      await field(ann.page).pressSequentially('hey @b');
      await ann.page.getByRole('option', { name: '@Bo Fields' }).waitFor();
      await field(ann.page).press('Enter');
      assert.equal(await field(ann.page).inputValue(), 'hey @Bo Fields ');
      await field(ann.page).pressSequentially('listen');
      await field(ann.page).press('Enter');
      await bo.page.locator('.chat-row.for-me', { hasText: 'listen' }).waitFor();
      assert.equal(await bo.page.locator('.chat-row.for-me .mention').textContent(), '@Bo Fields');
      assert.deepEqual((world.chat.received.find(({ t }) => t === 'pub') as { body: unknown }).body, {
        text: 'hey @Bo Fields listen',
        mentions: ['bo'],
      });
      // An address is no name.
      world.say('bo', 'mail ann@Bo Fields or @nobody');
      const last = row(ann.page, 'mail ann');
      await last.waitFor();
      assert.equal(await last.locator('.mention').count(), 0);
    });
  });

  test('by keyboard alone: to a message, its menu, a reply, a reaction; and the player keeps still', async () => {
    await withChat(async (world) => {
      const mid = world.say('bo', 'First');
      world.say('dj', 'Second');
      const { page, errors } = await world.visit(browser, 'ann');
      await row(page, 'Second').waitFor();
      const state = await page.locator('main').getAttribute('data-state');
      await page.getByRole('log', { name: 'Messages' }).focus();
      await page.keyboard.press('ArrowUp');
      await page.keyboard.press('ArrowUp');
      assert.match(String(await page.evaluate(() => document.activeElement?.textContent)), /First/);
      await page.keyboard.press('Enter');
      await page.getByRole('menu').waitFor();
      // A quick reaction has the focus; the fourth on from it.
      for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowRight');
      await page.keyboard.press('Enter');
      await row(page, 'First').getByRole('button', { name: '🎉, 1', pressed: true }).waitFor();
      assert.match(String(await page.evaluate(() => document.activeElement?.textContent)), /First/, 'the focus is back');

      await page.keyboard.press('r');
      await page.getByText('Reply to Bo Fields: First').waitFor();
      await page.keyboard.type('I reply, l and m');
      await page.keyboard.press('Enter');
      const replied = row(page, 'I reply');
      await replied.waitFor();
      assert.equal(await replied.locator('.chat-reply').textContent(), '↪ Bo Fields: First');
      assert.equal((world.room.entries.at(-1)!.body as { reply: string }).reply, mid);

      await page.getByRole('button', { name: 'Emoji' }).click();
      await page.keyboard.type('radio');
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('Enter');
      assert.equal(await field(page).inputValue(), '📻');
      assert.equal(await page.locator('main').getAttribute('data-state'), state);
      assert.deepEqual(errors, []);
    });
  });

  test('scrolled up: what is read stays where it is, and a button counts what is new', async () => {
    await withChat(async (world) => {
      for (let i = 1; i <= 400; i++) world.say('bo', `line ${i}`);
      const { page, errors } = await world.visit(browser, 'ann');
      await row(page, 'line 400').waitFor();
      await eventually('the end', async () => (await belowPx(page)) <= 1);
      // Up through the history, to the first.
      await eventually('the first message', async () => {
        await page.locator('.chat-scroll').evaluate((log) => {
          log.scrollTop = 0;
        });
        return (await page.locator('.chat-rows .chat-row[data-offset="1"]').count()) === 1;
      });
      assert.ok((await page.locator('.chat-row').count()) <= 130, 'rows are bounded');
      await page.locator('.chat-scroll').evaluate((log) => {
        log.scrollTop = 300;
      });
      const anchor = page.locator('.chat-rows .chat-row[data-offset="12"]');
      const before = await anchor.boundingBox();
      for (let i = 1; i <= 5; i++) world.say('dj', `new ${i}`);
      await page.getByRole('button', { name: '5 new messages' }).waitFor();
      assert.deepEqual(await anchor.boundingBox(), before);
      await page.getByRole('button', { name: '5 new messages' }).click();
      await row(page, 'new 5').waitFor();
      await eventually('the end', async () => (await belowPx(page)) <= 1);
      await page.getByRole('button', { name: 'new messages' }).waitFor({ state: 'hidden' });
      assert.deepEqual(errors, []);
    });
  });

  test('offline: said, what is written waits, and all of it goes on by itself', async () => {
    await withChat(async (world) => {
      const { page, errors } = await world.visit(browser, 'ann');
      world.say('bo', 'before');
      await row(page, 'before').waitFor();
      world.chat.isDown = true;
      world.chat.crash(1006);
      await page.getByText('Reconnecting…').waitFor();
      await send(page, 'from the tunnel');
      await page.locator('.chat-tail .chat-row', { hasText: 'from the tunnel' }).getByText('Sending…').waitFor();
      world.say('bo', 'meanwhile');
      world.chat.isDown = false;
      await row(page, 'meanwhile').waitFor();
      await row(page, 'from the tunnel').waitFor();
      await page.getByText('Reconnecting…').waitFor({ state: 'hidden' });
      await eventually('nothing waits', async () => (await page.locator('.chat-tail li').count()) === 0);
      assert.deepEqual(await texts(page), ['before', 'meanwhile', 'from the tunnel']);
      assert.deepEqual(errors, []);
    });
  });

  test('refused, held, slow: each says what it is and what can be done', async () => {
    await withChat(async (world) => {
      const { page } = await world.visit(browser, 'ann');
      world.chat.judge = () => ({ t: 'err', code: 'slow_mode', retryMs: 4_000 });
      await send(page, 'too soon');
      await page.locator('.chat-note', { hasText: /Slow mode: you can send in \d s/ }).waitFor();
      await field(page).fill('next');
      assert.equal(await page.getByRole('button', { name: 'Send', exact: true }).isDisabled(), true);
      world.chat.judge = () => undefined;
      await page.locator('.chat-note', { hasText: 'you can send in' }).waitFor({ state: 'hidden' });
      assert.equal(await page.getByRole('button', { name: 'Send', exact: true }).isDisabled(), false);
      await page.getByRole('button', { name: 'Send again' }).click();
      await row(page, 'too soon').waitFor();

      world.chat.judge = () => ({ t: 'refused', code: 'not_unique' });
      await send(page, 'next');
      await page.getByText('This was said here already').waitFor();
      await page.getByRole('button', { name: 'Discard' }).click();
      await page.getByText('This was said here already').waitFor({ state: 'hidden' });

      world.chat.judge = () => ({ t: 'held' });
      await send(page, 'hm');
      await page.getByText('A moderator looks at it first').waitFor();
      for (const mid of world.room.held.keys()) world.chat.approve(world.room, mid);
      await row(page, 'hm').waitFor();
      await page.getByText('A moderator looks at it first').waitFor({ state: 'hidden' });

      await field(page).fill('ü'.repeat(4_097));
      await page.getByText('Too long by 2 bytes.').waitFor();
    });
  });

  test('a moderator: by menu and by keys, with a question before what cannot be taken back', async () => {
    await withChat(async (world) => {
      const rude = world.say('bo', 'something rude');
      world.say('bo', 'something else');
      const [mod, ann] = [await world.visit(browser, 'mod'), await world.visit(browser, 'ann')];
      await row(mod.page, 'something rude').waitFor();
      await row(mod.page, 'something rude').hover();
      await row(mod.page, 'something rude').locator('.chat-more').click();
      await mod.page.getByRole('menuitem', { name: 'Delete Del' }).click();
      await row(ann.page, 'Message deleted').waitFor();
      assert.equal(await row(ann.page, 'something rude').count(), 0);
      assert.equal(world.room.entries.find(({ mid }) => mid === rude)?.t, 'gone');

      await row(mod.page, 'something else').focus();
      await mod.page.keyboard.press('p');
      await ann.page.locator('.chat-pinned', { hasText: 'something else' }).waitFor();
      await row(mod.page, 'something else').focus();
      await mod.page.keyboard.press('b');
      await mod.page.getByRole('heading', { name: 'Ban Bo Fields?' }).waitFor();
      await mod.page.keyboard.press('Enter');
      assert.equal(
        world.chat.received.filter(({ t, action }) => t === 'mod' && action === 'ban').length,
        0,
        'the safe answer has the focus',
      );
      await row(mod.page, 'something else').focus();
      await mod.page.keyboard.press('b');
      await mod.page.getByRole('button', { name: 'Ban', exact: true }).click();
      await eventually('banned', () => world.chat.received.some(({ action, user }) => action === 'ban' && user === 'bo'));

      await mod.page.getByText('Modes').click();
      await mod.page.getByLabel('Slow mode').selectOption('10 s');
      await ann.page.locator('.chat-note', { hasText: 'one message in 10 s' }).waitFor();
      // Who may not, is not offered it.
      await row(ann.page, 'something else').hover();
      await row(ann.page, 'something else').locator('.chat-more').click();
      await ann.page.getByRole('menuitem', { name: 'Reply R' }).waitFor();
      assert.equal(await ann.page.getByRole('menuitem', { name: 'Ban' }).count(), 0);
      assert.equal(await ann.page.getByText('Modes').isVisible(), false);
    });
  });

  test('put out of the room: said, until when, and nothing can be written', async () => {
    await withChat(async (world) => {
      const { page } = await world.visit(browser, 'ann');
      for (const session of world.chat.sessions)
        session.say({ t: 'left', room: world.room.id, code: 'banned', until: Date.now() + 7_200_000 });
      await page.getByText('You are banned from this chat for 2 h.').waitFor();
      assert.equal(await field(page).count(), 0);
    });
  });

  test('a recording: the chat is shown as it was at the moment that is heard, after a seek, too', async () => {
    await withChat(async (world) => {
      const startMs = Date.now() - 90_000;
      world.server.goOnAir('radio', 90);
      world.server.goOffAir('radio');
      for (let i = 0; i < 120; i++) world.say('bo', `at ${i}`, { at: startMs + i * 700 });
      const { page, errors } = await world.visit(browser, undefined, DESKTOP, '/r/rec1');
      await page.getByRole('heading', { name: 'The night of it' }).waitFor();
      const audio = page.locator('audio');
      const newest = () => page.locator('.chat-rows .chat-text').last().textContent();
      const placeS = () => audio.evaluate((element: HTMLAudioElement) => element.currentTime);
      await audio.evaluate((element: HTMLAudioElement) => element.play());
      for (const toS of [20, 60, 5]) {
        await audio.evaluate((element: HTMLAudioElement, at) => {
          element.currentTime = at;
        }, toS);
        // The moment is between one look at the place and the next; what is shown, too.
        await eventually(`in step after ${toS} s`, async () => {
          if ((await page.locator('.chat-rows .chat-text').count()) === 0) return false;
          const beforeS = await placeS();
          const shown = Number(/\d+/.exec(String(await newest()))?.[0]);
          const afterS = await placeS();
          return beforeS >= toS && shown >= Math.floor((beforeS - 1.5) / 0.7) && shown <= Math.floor((afterS + 0.5) / 0.7);
        });
      }
      assert.deepEqual(errors, []);
    });
  });

  for (const [name, options] of [
    ['desktop', DESKTOP],
    ['phone', PHONE],
  ] as const) {
    test(`${name}: nothing jumps, from the first message to a pinned one and a lost connection`, async () => {
      await withChat(async (world) => {
        for (let i = 1; i <= 60; i++) world.say('bo', `line ${i}, with enough text to need more than one row of a narrow chat`);
        const { page } = await world.visit(browser, 'ann', options);
        await row(page, 'line 60').waitFor();
        const first = String(world.room.entries[57]?.mid);
        world.room.reactions.set(first, new Map([['🎉', new Set(['bo'])]]));
        world.chat.append(world.room, { t: 'now', title: 'First Light', artist: 'Marit Vale' });
        world.chat.append(world.room, { t: 'pin', mid: world.room.entries[59]?.mid, by: { id: 'mod', name: 'Marit' } });
        await page.locator('.chat-pinned', { hasText: 'line 60' }).waitFor();
        for (let i = 61; i <= 90; i++) world.say('bo', `line ${i}`);
        await row(page, 'line 90').waitFor();
        world.chat.isDown = true;
        world.chat.crash(1006);
        await page.getByText('Reconnecting…').waitFor();
        world.chat.isDown = false;
        await page.getByText('Reconnecting…').waitFor({ state: 'hidden' });
        const shift = await readLayoutShift(page);
        assert.deepEqual({ sum: Math.round(shift.sum * 1e4) / 1e4, nodes: shift.nodes }, { sum: 0, nodes: [] });
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= (options.viewport?.width ?? 0), `the page is ${width} px wide`);
      });
    });
  }

  test('10,000 messages: the document stays small, and the newest is shown', async () => {
    await withChat(async (world) => {
      for (let i = 1; i <= 10_000; i++) world.say(`p${i % 40}`, `line ${i} https://example.org/${i} @p${i % 7}`);
      const { page, errors } = await world.visit(browser, 'ann');
      await row(page, 'line 10000').waitFor();
      // All of it is fetched into the view, as somebody does who reads it all.
      await page.evaluate(async () => {
        const { room } = (window as unknown as { vezaChat: { room: { hasOlder: boolean; history(limit: number): Promise<boolean> } } })
          .vezaChat;
        while (room.hasOlder) await room.history(100);
      });
      assert.equal(
        await page.evaluate(
          () => (window as unknown as { vezaChat: { room: { timeline: { items: unknown[] } } } }).vezaChat.room.timeline.items.length,
        ),
        10_000,
      );
      await page.evaluate(() => {
        const tasks: number[] = [];
        Object.assign(window, { tasks });
        new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: 'longtask' });
      });
      // Read up through some thousands, and then live at 50 a second.
      for (let i = 0; i < 60; i++) {
        await page.locator('.chat-scroll').evaluate((log) => {
          log.scrollTop -= 2_000;
        });
        await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
      }
      await page.locator('.chat-newer').click();
      for (let i = 1; i <= 150; i++) {
        world.say('bo', `live ${i}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await row(page, 'live 150').waitFor();
      const rows = await page.locator('.chat-row').count();
      const elements = await page.locator('.chat-panel *').count();
      const tasks = await page.evaluate(() => (window as unknown as { tasks: number[] }).tasks.map((ms) => Math.round(ms)));
      console.log(`10,000 messages: ${rows} rows, ${elements} elements, long tasks ${JSON.stringify(tasks)} ms`);
      assert.ok(rows <= 130 && elements <= 2_000, `${rows} rows, ${elements} elements`);
      assert.equal(await page.locator('.chat-rows .chat-row').last().locator('.chat-text').textContent(), 'live 150');
      assert.deepEqual(errors, []);
    });
  });

  /** Relative luminance (WCAG 2.2). */
  function luminance(pixel: readonly number[]): number {
    const [r = 0, g = 0, b = 0] = pixel.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  test('accessible: a log that is read politely, names for every control, the order of the focus', async () => {
    await withChat(async (world) => {
      world.say('bo', 'hi');
      const { page } = await world.visit(browser, 'ann');
      await row(page, 'hi').waitFor();
      const log = page.getByRole('log', { name: 'Messages' });
      assert.equal(await log.getAttribute('aria-live'), 'polite');
      const nameless = await page
        .locator('.chat-panel button, .chat-panel textarea, .chat-panel select')
        .evaluateAll((all) =>
          all.filter((one) => !(one.getAttribute('aria-label') || one.textContent?.trim())).map((one) => one.outerHTML),
        );
      assert.deepEqual(nameless, []);
      await log.focus();
      const order: string[] = [];
      for (let i = 0; i < 2; i++) {
        await page.keyboard.press('Tab');
        order.push(await page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? ''));
      }
      assert.deepEqual(order, ['Message', 'Emoji']);
      // Contrast of every name's colour and of the quiet text, against the panel, in both schemes (WCAG 1.4.3: 4.5 to 1).
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme });
        const found = await page.locator('.chat-panel').evaluate((panel) => {
          const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })!;
          const style = getComputedStyle(panel);
          const names = [0, 1, 2, 3, 4, 5, 6, 7].map((hue) => `--hue-${hue}`);
          return ['background', '--soft', '--ink', '--accent', ...names].map((name) => {
            canvas.fillStyle = name === 'background' ? style.backgroundColor : style.getPropertyValue(name);
            canvas.fillRect(0, 0, 1, 1);
            return [name, [...canvas.getImageData(0, 0, 1, 1).data]] as const;
          });
        });
        const [ground, ...others] = found.map(([name, pixel]) => [name, luminance(pixel)] as const);
        const ratios = others.map(
          ([name, text]) => [name, (Math.max(text, ground![1]) + 0.05) / (Math.min(text, ground![1]) + 0.05)] as const,
        );
        for (const [name, ratio] of ratios) assert.ok(ratio >= 4.5, `${colorScheme} ${name}: ${ratio.toFixed(2)}`);
      }
    });
  });
});
