import assert from 'node:assert/strict';
import type { Browser, Page } from 'playwright-core';
import { LADDER } from '../../src/media/ladder.js';
import { DESKTOP, launchChromium } from './chromium.js';
import { breaksOf, hear, moreSegments, punctual, sounding, startServer, told } from './on-air.js';
import { Players } from './players.js';
import { eventually, type Running } from './process.js';
import { publishRtmp } from './publishers.js';
import { readPlaylist, type Server } from './server.js';

export const HZ = 997;

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

/** A service with the database that it has when it was given none (a kill must not harm that either), and who listens to it. */
export class OutageWorld {
  readonly server: Server;
  readonly players: Players;
  readonly #browser: Browser;
  readonly #publishers: Running[] = [];

  private constructor(server: Server, players: Players, browser: Browser) {
    this.server = server;
    this.players = players;
    this.#browser = browser;
  }

  static async start(): Promise<OutageWorld> {
    return new OutageWorld(...(await Promise.all([startServer({}, { embeddedDatabase: true }), Players.start(), launchChromium()])));
  }

  async stop(): Promise<void> {
    await Promise.all(this.#publishers.map((publisher) => publisher.kill('SIGKILL')));
    await Promise.all([this.players.stop(), this.#browser.close()]);
    await this.server.stop();
  }

  publish(key: string): void {
    this.#publishers.push(punctual(publishRtmp(this.server.rtmpUrl(key), { hz: HZ })));
  }

  /** The channel's own page, playing. */
  async openPage(slug: string): Promise<Page> {
    const context = await this.#browser.newContext(DESKTOP);
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
    await page.goto(`${this.server.url}/c/${slug}`);
    await page.locator('main[data-state="playing"]').waitFor();
    return page;
  }

  /** The live playlists of all renditions, all with a segment of the newest run. */
  async #playlists(slug: string, discontinuity: number): Promise<Map<string, string>> {
    return new Map(
      await Promise.all(
        LADDER.map(
          async ({ name }) =>
            [
              name,
              await eventually(`${name} goes on`, async () => {
                const text = await this.server.text(`/live/${slug}/${name}/index.m3u8`);
                return text && breaksOf(text).discontinuities.length >= discontinuity ? text : undefined;
              }),
            ] as const,
        ),
      ),
    );
  }

  /** Kills the service twice: it is back at once, and after `downS`. Stock hls.js survives the first, the page and dash.js both. */
  async surviveKills(downS: number): Promise<void> {
    await told(this.server, () => this.#surviveKills(downS));
  }

  async #surviveKills(downS: number): Promise<void> {
    const slug = 'phoenix';
    const key = await this.server.createChannel(slug);
    this.publish(key);
    const before = readPlaylist(await sounding(this.server, slug, 3));
    const address = `${this.server.url}/live/${slug}`;
    const stock = await this.players.play('hls.js', `${address}/master.m3u8`);
    const page = await this.openPage(slug);
    const dash = await this.players.play('dash.js', `${address}/manifest.mpd`);
    await dash.page.evaluate(loadAgain(`${address}/manifest.mpd`));
    const open = await moreSegments(this.server, slug, 1);
    await eventually('a part of the open segment is listed', async () => {
      const text = await this.server.text(`/live/${slug}/aac-128/index.m3u8`);
      return text && new RegExp(`EXT-X-PART:.*-${open}\\.1\\.m4s`).test(text) ? true : undefined;
    });

    await this.server.kill9();
    await this.server.restart();
    this.publish(key);
    await stock.playedOn(8).catch(async (error: Error) => {
      const events = (await stock.events()).slice(-12).map(({ type, detail, mediaS }) => `${type} ${detail} @${mediaS.toFixed(1)}`);
      throw new Error(`stock hls.js: ${error.message}: ${events.join(', ')}`);
    });
    const fatal = (await stock.events()).filter(({ type }) => type === 'fatal');
    assert.deepEqual(fatal, [], 'stock hls.js');
    await stock.close();
    await pagePlaysOn(page, 5);

    const texts = await this.#playlists(slug, 1);
    const [first] = [...texts.values()].map(breaksOf);
    assert.equal(first?.discontinuities.length, 1);
    for (const [name, text] of texts) {
      assert.deepEqual(breaksOf(text).discontinuities, first?.discontinuities, `${name}: the discontinuity stands at the same number`);
      assert.ok(readPlaylist(text).mediaSequence >= before.mediaSequence, name);
      assert.ok(breaksOf(text).gaps.includes(first!.discontinuities[0]! - 1), `${name}: the segment that was open is a gap`);
    }
    const mpd = String(await this.server.text(`/live/${slug}/manifest.mpd`));
    assert.equal(mpd.match(/<Period /g)?.length, 2, 'the MPD has a second period');

    await this.server.kill9();
    // There is no event to wait for while nothing runs: so long without a server is what is asked for.
    await new Promise((resolve) => setTimeout(resolve, downS * 1000));
    await this.server.restart();
    const backMs = Date.now();
    this.publish(key);
    await Promise.all([
      dash.waitFor((events) => events.some(({ type, wallMs }) => type === 'playing' && wallMs > backMs), 'dash.js plays again', 60_000),
      pagePlaysOn(page, 8, 60_000),
    ]);
    await dash.playedOn(8);
    await page.locator('main[data-state="playing"]').waitFor();
    assert.deepEqual(
      [...(await this.#playlists(slug, 2)).values()].map((text) => breaksOf(text).discontinuities.length),
      LADDER.map(() => 2),
    );
    const { segments } = await hear(this.server, slug, 'aac-128');
    assert.deepEqual(
      segments.map(({ number }) => number),
      segments.map((_, index) => segments[0]!.number + index),
    );
    await dash.close();
    await page.context().close();
  }
}

const positionS = (page: Page): Promise<number> =>
  page.evaluate(() => (window as unknown as { heard?: HTMLAudioElement }).heard?.currentTime ?? 0);

export async function pagePlaysOn(page: Page, seconds: number, timeoutMs = 40_000): Promise<void> {
  const from = await positionS(page);
  await eventually(
    `the page plays ${seconds} s more`,
    async () => ((await positionS(page)) > from + seconds ? true : undefined),
    timeoutMs,
  );
}
