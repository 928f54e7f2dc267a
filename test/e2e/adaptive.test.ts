// Rungs are changed while the show is heard, by hand and by a network that gets worse; titles come with the sound they belong to.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { transformWithOxc } from 'vite';
import { liveConfig } from '../../player-demo/src/hls-config.js';
import { findClicks, findHoles, findSlips, RATE_HZ, toneShare } from '../support/audio.js';
import { launchChromium } from '../support/chromium.js';
import { bePunctual, sounding, startServer, told } from '../support/on-air.js';
import { type Player, Players, SHAKA_LOW_LATENCY } from '../support/players.js';
import { eventually, type Running } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import type { Server } from '../support/server.js';

const HZ = 997;
const SLUG = 'radio';
const HLS_CONFIG = new URL('../../player-demo/src/hls-config.ts', import.meta.url);

let server: Server;
let publisher: Running;
let players: Players;
/** The page's settings as a script: what an embedder copies. */
let hlsConfigScript: string;

before(async () => {
  bePunctual();
  server = await startServer();
  const key = await server.createChannel(SLUG);
  publisher = publishRtmp(server.rtmpUrl(key), { hz: HZ, unpaced: true });
  await sounding(server, SLUG, 4);
  players = await Players.start();
  hlsConfigScript = (await transformWithOxc(await readFile(HLS_CONFIG, 'utf8'), HLS_CONFIG.pathname)).code;
});

after(async () => {
  await players?.stop();
  await publisher?.kill('SIGTERM');
  await server?.stop();
});

const master = () => `${server.url}/live/${SLUG}/master.m3u8`;
const mpd = () => `${server.url}/live/${SLUG}/manifest.mpd`;

/** hls.js as the page sets it up. Unless asked for, without its catch-up: that stretches the tone, which sounds like a splice to a test. */
async function playOurs(changes: object = { maxLiveSyncPlaybackRate: 1 }): Promise<Player> {
  // Its retry policies are functions, which do not go into a page.
  const settings = JSON.parse(JSON.stringify({ ...liveConfig(), ...changes })) as object;
  const player = await players.play('hls.js', master(), settings);
  await player.page.addScriptTag({ type: 'module', content: `${hlsConfigScript}\nfollowLiveEdge(player);` });
  return player;
}

/** `aac-64` and so on, by hls.js's level. */
const levelsOf = (player: Player) =>
  player.page.evaluate(`player.levels.map((level) => level.url[0].split('/').at(-2))`) as Promise<string[]>;

const bufferedRanges = (player: Player) =>
  player.page.evaluate(
    `Array.from({ length: media.buffered.length }, (_, i) => [media.buffered.start(i), media.buffered.end(i)])`,
  ) as Promise<[number, number][]>;

/** What was heard since the last time is the tone, whole; a tenth of a second at either end belongs to another. */
async function assertWhole(player: Player, what: string): Promise<void> {
  const { samples } = await player.take();
  const heard = samples.subarray(RATE_HZ / 10);
  assert.ok(heard.length > RATE_HZ, `${what}: ${heard.length / RATE_HZ} s heard`);
  assert.ok(toneShare(heard, HZ) > 0.99, `${what}: ${toneShare(heard, HZ)} of it is the tone`);
  const found = { holes: findHoles(heard), clicks: findClicks(heard, [HZ]), slips: findSlips(heard, HZ) };
  assert.deepEqual(found, { holes: [], clicks: [], slips: [] }, what);
}

/** Settled: playing for five seconds. What a player does before that is its start, which is not what is tested here. */
async function settle(player: Player): Promise<() => Promise<void>> {
  await player.playedOn(5);
  const before = (await player.disturbances()).length;
  return async () => assert.deepEqual((await player.disturbances()).slice(before), []);
}

// Two at once are heard whole on two cores.
describe('rungs', { concurrency: 2 }, () => {
  test('hls.js: each AAC rung to each other, and nothing is heard of it', () =>
    told(server, async () => {
      const player = await playOurs();
      const levels = await levelsOf(player);
      const assertUndisturbed = await settle(player);
      const before = await player.state();
      await player.take();
      for (const rung of ['aac-64', 'aac-256', 'aac-128', 'aac-64', 'aac-128', 'aac-256']) {
        const level = levels.indexOf(rung);
        const seen = (await player.events()).length;
        await player.page.evaluate(`player.nextLevel = ${level}`);
        await player.waitFor(
          (events) => events.slice(seen).some(({ type, detail }) => type === 'level' && detail === String(level)),
          `${rung} is heard`,
        );
        // Past the end of the segment in which the switch fell, and of the next.
        await player.playedOn(4);
        await assertWhole(player, `to ${rung}`);
        await assertUndisturbed();
        assert.equal((await bufferedRanges(player)).length, 1, `to ${rung}: one stretch of sound`);
      }
      const now = await player.state();
      assert.ok(now.latencyS < before.latencyS + 0.2, `the delay was ${before.latencyS} s and is ${now.latencyS} s`);
      await player.close();
    }));

  const BY_HAND = {
    'dash.js': {
      settings: { streaming: { abr: { autoSwitchBitrate: { audio: false } } } },
      to: (rung: string) => `player.setRepresentationForTypeById('audio', '${rung}')`,
      rung: `player.getCurrentRepresentationForType('audio').id`,
    },
    shaka: {
      settings: { ...SHAKA_LOW_LATENCY, abr: { enabled: false } },
      to: (rung: string) => `player.selectVariantTrack(player.getVariantTracks().find((track) => track.originalAudioId === '${rung}'))`,
      rung: 'player.getVariantTracks().find((track) => track.active).originalAudioId',
    },
  } as const;

  for (const kind of ['dash.js', 'shaka'] as const) {
    test(`${kind}: each AAC rung to each other, in low latency, without a stall or a hole`, () =>
      told(server, async () => {
        const { settings, to, rung: current } = BY_HAND[kind];
        const player = await players.play(kind, mpd(), settings);
        const assertUndisturbed = await settle(player);
        await player.take();
        for (const rung of ['aac-64', 'aac-256', 'aac-128', 'aac-64', 'aac-128', 'aac-256']) {
          await player.page.evaluate(to(rung));
          // Past the end of the segment in which the switch fell, and of the next.
          await player.playedOn(4.5);
          assert.equal(await player.page.evaluate(current), rung);
          await assertUndisturbed();
          const { samples } = await player.take();
          assert.deepEqual(findHoles(samples.subarray(RATE_HZ / 10)), [], `to ${rung}`);
        }
        const { latencyS } = await player.state();
        assert.ok(latencyS < 2.2, `${latencyS} s behind`);
        await player.close();
      }));
  }

  test('hls.js: a listener who fell behind catches up at 5 % at most, down to the distance that the server asks for', () =>
    told(server, async () => {
      const player = await playOurs({});
      await player.playedOn(3);
      await player.page.evaluate('media.currentTime -= 0.6');
      const behindS = () => player.page.evaluate('player.latency - player.targetLatency') as Promise<number>;
      await eventually('it is behind', async () => ((await behindS()) > 0.3 ? true : undefined));
      const seen = (await player.events()).length;
      await eventually('it has caught up', async () => ((await behindS()) < 0.06 ? true : undefined), 60_000);
      const later = (await player.events()).slice(seen);
      const rates = later.filter(({ type }) => type === 'ratechange').map(({ detail }) => Number(detail));
      assert.ok(rates.length > 0 && Math.max(...rates) <= 1.05, `rates ${rates}`);
      assert.deepEqual(
        later.filter(({ type }) => ['waiting', 'seeking'].includes(type)),
        [],
      );
      await player.close();
    }));
});

// Alone: it is about what a network gives to one player.
test('hls.js: a network that gets worse is answered with a lower rung in time, and a good one with the best', () =>
  told(server, async () => {
    const player = await playOurs();
    const levels = await levelsOf(player);
    const best = levels.indexOf('aac-256');
    await player.waitFor((events) => events.some(({ type, detail }) => type === 'level' && Number(detail) === best), 'the best rung');
    const assertUndisturbed = await settle(player);
    const network = await player.page.context().newCDPSession(player.page);
    await network.send('Network.enable');
    const limit = (kbps: number) => {
      const bytesPerSecond = kbps < 0 ? -1 : (kbps * 1000) / 8;
      const conditions = { offline: false, latency: 0, downloadThroughput: bytesPerSecond, uploadThroughput: -1 };
      return network.send('Network.emulateNetworkConditions', conditions);
    };
    const seen = (await player.events()).length;
    // Not enough for 256, enough for 128 with its playlists.
    await limit(220);
    await player.waitFor(
      (events) => events.slice(seen).some(({ type, detail }) => type === 'level' && Number(detail) < best),
      'a lower rung',
    );
    await player.playedOn(10);
    await limit(-1);
    const risen = (await player.events()).length;
    await player.waitFor(
      (events) => events.slice(risen).some(({ type, detail }) => type === 'level' && Number(detail) === best),
      'the best rung again',
      60_000,
    );
    await player.playedOn(5);
    await assertUndisturbed();
    assert.ok(!(await player.events()).some(({ type, detail }) => type === 'level' && levels[Number(detail)] === 'opus-96'), 'AAC only');
    await player.close();
  }));

test('titles: in hls.js, dash.js and on the page at the moment they belong to', () =>
  told(server, async () => {
    const [hls, dash] = await Promise.all([playOurs(), players.play('dash.js', mpd())]);
    await hls.page.evaluate(`(() => {
      window.inband = [];
      player.on('hlsFragParsingMetadata', (_, { samples, frag }) => {
        for (const { data, pts } of samples)
          inband.push({ text: new TextDecoder().decode(data), dateMs: frag.programDateTime + (pts - frag.start) * 1000 });
      });
    })()`);
    await dash.page.evaluate(`(() => {
      window.inband = [];
      player.on('https://aomedia.org/emsg/ID3', ({ event }) => inband.push({
        text: new TextDecoder('latin1').decode(event.messageData), presentationS: event.calculatedPresentationTime, heardS: player.time(),
      }));
    })()`);
    await Promise.all([hls.playedOn(2), dash.playedOn(2)]);
    const title = 'Tin Roof';
    await server.api('POST', `/channels/${SLUG}/now-playing`, { title, artist: 'The Night Ferry' });
    const startedMs = await eventually('the API names it', async () => {
      const { nowPlaying } = await server.api<{ nowPlaying: { title: string; startedAt: string } | null }>('GET', `/channels/${SLUG}`);
      return nowPlaying?.title === title ? Date.parse(nowPlaying.startedAt) : undefined;
    });

    const range = await eventually('DATERANGE in hls.js', async () => {
      const found = `Object.values(player.latestLevelDetails.dateRanges).find((range) => range.attr['X-TITLE'] === '${title}')`;
      const startMs = (await hls.page.evaluate(`${found}?.startDate.getTime() ?? null`)) as number | null;
      return startMs ?? undefined;
    });
    assert.ok(Math.abs(range - startedMs) < 30, `DATERANGE ${range - startedMs} ms off`);
    const sample = await eventually('emsg in hls.js', async () =>
      ((await hls.page.evaluate('inband')) as { text: string; dateMs: number }[]).find(({ text }) => text.includes(title)),
    );
    assert.ok(Math.abs(sample.dateMs - startedMs) < 30, `emsg in hls.js ${sample.dateMs - startedMs} ms off`);
    const event = await eventually('emsg in dash.js', async () =>
      ((await dash.page.evaluate('inband')) as { text: string; presentationS: number; heardS: number }[]).find(({ text }) =>
        text.includes(title),
      ),
    );
    const text = (await server.text(`/live/${SLUG}/manifest.mpd`)) ?? '';
    const originMs = Date.parse(/availabilityStartTime="([^"]+)"/.exec(text)?.[1] ?? '');
    const offMs = originMs + event.presentationS * 1000 - startedMs;
    assert.ok(Math.abs(offMs) < 30, `emsg in dash.js ${offMs} ms off`);
    const lateS = event.heardS - event.presentationS;
    assert.ok(lateS > -0.3 && lateS < 1, `told ${lateS} s after it was heard`);
    await Promise.all([hls.close(), dash.close()]);
  }));

test('the page shows a title when it is heard', () =>
  told(server, async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(`${server.url}/c/${SLUG}`);
      await page.locator('main[data-state="playing"]').waitFor();
      const title = 'First Light';
      await page.evaluate(`(() => {
        const look = () => {
          if (!document.querySelector('.player .title')?.textContent.includes('${title}')) return setTimeout(look, 20);
          const delay = [...document.querySelectorAll('.facts div')].find((fact) => fact.textContent.includes('Delay'));
          window.shown = { atMs: Date.now(), delayS: Number.parseFloat(delay.querySelector('dd').textContent) };
        };
        look();
      })()`);
      await eventually('sound', async () =>
        Number.parseFloat(
          await page
            .locator('.facts')
            .textContent()
            .then((text) => /([\d.]+)\s*s/.exec(text ?? '')?.[1] ?? '0'),
        ) > 0
          ? true
          : undefined,
      );
      await server.api('POST', `/channels/${SLUG}/now-playing`, { title, artist: 'Marit Vale' });
      const shown = await eventually(
        'the title is shown',
        async () => ((await page.evaluate('window.shown ?? null')) as { atMs: number; delayS: number } | null) ?? undefined,
      );
      const { nowPlaying } = await server.api<{ nowPlaying: { startedAt: string } }>('GET', `/channels/${SLUG}`);
      const afterS = (shown.atMs - Date.parse(nowPlaying.startedAt)) / 1000;
      assert.ok(afterS > shown.delayS - 0.5, `shown ${afterS} s after it went on air, with ${shown.delayS} s of delay`);
    } finally {
      await browser.close();
    }
  }));
