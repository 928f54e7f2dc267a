import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { LADDER } from '../../src/media/ladder.js';
import { breaksOf, clicksIn, hear, listed, moreSegments, sounding, soundStretches, told } from '../support/on-air.js';
import { HZ, OutageWorld, pagePlaysOn } from '../support/outages.js';

/** `test/long` has a minute. */
const DOWN_S = 8;

let world: OutageWorld;
before(async () => {
  world = await OutageWorld.start();
});
after(() => world?.stop());

const lowLatency = LADDER.filter((rendition) => rendition.lowLatency).map(({ name }) => name);

test(`kill −9 of the server: stock hls.js survives the restart; the page and dash.js survive ${DOWN_S} s`, () =>
  world.surviveKills(DOWN_S));

test('SIGTERM with a show on air: nothing is missing but the time of the restart; listeners go on', async () => {
  await told(world.server, async () => {
    const slug = 'rolling';
    const key = await world.server.createChannel(slug);
    world.publish(key);
    await sounding(world.server, slug, 2);
    const page = await world.openPage(slug);
    await moreSegments(world.server, slug, 1);
    const from = listed(String(await world.server.text(`/live/${slug}/aac-128/index.m3u8`))).length;

    assert.equal(await world.server.stopGracefully(), 0);
    await world.server.restart();
    world.publish(key);
    await pagePlaysOn(page, 5);
    await moreSegments(world.server, slug, 3);
    for (const rendition of ['aac-128', 'opus-96', 'mp3-128']) {
      const { text, segments, sound } = await hear(world.server, slug, rendition);
      const { discontinuities, gaps } = breaksOf(text);
      assert.equal(discontinuities.length, 1, rendition);
      assert.deepEqual(gaps, [], `${rendition}: no gap`);
      assert.ok(segments.length > from);
      for (const stretch of soundStretches(sound.left)) assert.deepEqual(clicksIn(sound.left, [HZ], stretch), [], rendition);
    }
    for (const name of lowLatency)
      assert.ok((await world.server.text(`/live/${slug}/${name}/index.m3u8`))?.includes('#EXT-X-DISCONTINUITY\n'));
    await page.context().close();
  });
});
