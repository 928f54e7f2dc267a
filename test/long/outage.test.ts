import { test } from 'node:test';
import { OutageWorld } from '../support/outages.js';

test('kill −9 of the server: stock hls.js survives the restart; the page and dash.js survive a minute', async () => {
  const world = await OutageWorld.start();
  try {
    await world.surviveKills(60);
  } finally {
    await world.stop();
  }
});
