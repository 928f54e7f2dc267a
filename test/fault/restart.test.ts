import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { LADDER } from '../../src/media/ladder.js';
import { DESKTOP, launchChromium } from '../support/chromium.js';
import { Players } from '../support/players.js';
import { eventually, type Running } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import { readPlaylist, type Server } from '../support/server.js';
import { breaksOf, clicksIn, hear, listed, moreSegments, punctual, sounding, soundStretches, startServer, told } from './support.js';

const HZ = 997;
const DOWN_S = 60;

/**
 * dash.js stops for good when a segment cannot be had after its retries; asked again and again for one of the dead run it would get 404 for ever.
 * So whoever embeds it has it load the address again, as our own page does with hls.js.
 */
const loadAgain = (url: string) => `{
  let waiting = false;
  player.on('error', () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; player.attachSource(${JSON.stringify(url)}); }, 1000);
  });
}`;

let server: Server;
let players: Players;
let browser: Browser;
const publishers: Running[] = [];

before(async () => {
  [server, players, browser] = await Promise.all([startServer(), Players.start(), launchChromium()]);
});
after(async () => {
  await Promise.all(publishers.map((publisher) => publisher.kill('SIGKILL')));
  await Promise.all([players?.stop(), browser?.close()]);
  await server?.stop();
});

function publish(key: string): Running {
  const publisher = punctual(publishRtmp(server.rtmpUrl(key), { hz: HZ }));
  publishers.push(publisher);
  return publisher;
}

/** The channel's own page, playing. */
async function openPage(slug: string): Promise<Page> {
  const context = await browser.newContext(DESKTOP);
  const page = await context.newPage();
  await page.addInitScript(() => {
    const { Audio: Original } = window;
    window.Audio = class extends Original {
      constructor() {
        super();
        Object.assign(window, { heard: this });
      }
    } as typeof Audio;
  });
  await page.goto(`${server.url}/c/${slug}`);
  await page.locator('main[data-state="playing"]').waitFor();
  return page;
}

const positionS = (page: Page): Promise<number> =>
  page.evaluate(() => (window as unknown as { heard?: HTMLAudioElement }).heard?.currentTime ?? 0);

async function pagePlaysOn(page: Page, seconds: number, timeoutMs = 40_000): Promise<void> {
  const from = await positionS(page);
  await eventually(
    `the page plays ${seconds} s more`,
    async () => ((await positionS(page)) > from + seconds ? true : undefined),
    timeoutMs,
  );
}

const lowLatency = LADDER.filter((rendition) => rendition.lowLatency).map(({ name }) => name);

/** The live playlists of all renditions, all with a segment of the newest run. */
async function playlists(slug: string, discontinuity: number): Promise<Map<string, string>> {
  return new Map(
    await Promise.all(
      LADDER.map(
        async ({ name }) =>
          [
            name,
            await eventually(`${name} goes on`, async () => {
              const text = await server.text(`/live/${slug}/${name}/index.m3u8`);
              return text && breaksOf(text).discontinuities.length >= discontinuity ? text : undefined;
            }),
          ] as const,
      ),
    ),
  );
}

test('kill −9 of the server: stock hls.js survives the restart; the page and dash.js survive a minute', async () => {
  await told(server, async () => {
    const slug = 'phoenix';
    const key = await server.createChannel(slug);
    publish(key);
    const before = readPlaylist(await sounding(server, slug, 3));
    const address = `${server.url}/live/${slug}`;
    const stock = await players.play('hls.js', `${address}/master.m3u8`);
    const page = await openPage(slug);
    const dash = await players.play('dash.js', `${address}/manifest.mpd`);
    await dash.page.evaluate(loadAgain(`${address}/manifest.mpd`));
    const open = await moreSegments(server, slug, 1);
    await eventually('a part of the open segment is listed', async () => {
      const text = await server.text(`/live/${slug}/aac-128/index.m3u8`);
      return text && new RegExp(`EXT-X-PART:.*-${open}\\.1\\.m4s`).test(text) ? true : undefined;
    });

    await server.kill9();
    await server.restart();
    publish(key);
    await stock.playedOn(8).catch(async (error: Error) => {
      const events = (await stock.events()).slice(-12).map(({ type, detail, mediaS }) => `${type} ${detail} @${mediaS.toFixed(1)}`);
      throw new Error(`stock hls.js: ${error.message}: ${events.join(', ')}`);
    });
    const fatal = (await stock.events()).filter(({ type }) => type === 'fatal');
    assert.deepEqual(fatal, [], 'stock hls.js');
    await stock.close();
    await pagePlaysOn(page, 5);

    const texts = await playlists(slug, 1);
    const [first] = [...texts.values()].map(breaksOf);
    assert.equal(first?.discontinuities.length, 1);
    for (const [name, text] of texts) {
      assert.deepEqual(breaksOf(text).discontinuities, first?.discontinuities, `${name}: the discontinuity stands at the same number`);
      assert.ok(readPlaylist(text).mediaSequence >= before.mediaSequence, name);
      assert.ok(breaksOf(text).gaps.includes(first!.discontinuities[0]! - 1), `${name}: the segment that was open is a gap`);
    }
    const mpd = String(await server.text(`/live/${slug}/manifest.mpd`));
    assert.equal(mpd.match(/<Period /g)?.length, 2, 'the MPD has a second period');

    await server.kill9();
    // There is no event to wait for while nothing runs: a minute without a server is what is asked for.
    await new Promise((resolve) => setTimeout(resolve, DOWN_S * 1000));
    await server.restart();
    const backMs = Date.now();
    publish(key);
    await Promise.all([
      dash.waitFor((events) => events.some(({ type, wallMs }) => type === 'playing' && wallMs > backMs), 'dash.js plays again', 60_000),
      pagePlaysOn(page, 8, 60_000),
    ]);
    await dash.playedOn(8);
    await page.locator('main[data-state="playing"]').waitFor();
    assert.deepEqual(
      [...(await playlists(slug, 2)).values()].map((text) => breaksOf(text).discontinuities.length),
      LADDER.map(() => 2),
    );
    const { segments } = await hear(server, slug, 'aac-128');
    assert.deepEqual(
      segments.map(({ number }) => number),
      segments.map((_, index) => segments[0]!.number + index),
    );
    await dash.close();
    await page.context().close();
  });
});

test('SIGTERM with a show on air: nothing is missing but the time of the restart; listeners go on', async () => {
  await told(server, async () => {
    const slug = 'rolling';
    const key = await server.createChannel(slug);
    publish(key);
    await sounding(server, slug, 2);
    const page = await openPage(slug);
    await moreSegments(server, slug, 1);
    const from = listed(String(await server.text(`/live/${slug}/aac-128/index.m3u8`))).length;

    assert.equal(await server.stopGracefully(), 0);
    await server.restart();
    publish(key);
    await pagePlaysOn(page, 5);
    await moreSegments(server, slug, 3);
    for (const rendition of ['aac-128', 'opus-96', 'mp3-128']) {
      const { text, segments, sound } = await hear(server, slug, rendition);
      const { discontinuities, gaps } = breaksOf(text);
      assert.equal(discontinuities.length, 1, rendition);
      assert.deepEqual(gaps, [], `${rendition}: no gap`);
      assert.ok(segments.length > from);
      for (const stretch of soundStretches(sound.left)) assert.deepEqual(clicksIn(sound.left, [HZ], stretch), [], rendition);
    }
    for (const name of lowLatency) assert.ok((await server.text(`/live/${slug}/${name}/index.m3u8`))?.includes('#EXT-X-DISCONTINUITY\n'));
    await page.context().close();
  });
});
