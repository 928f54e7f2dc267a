import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fuzzIngest } from '../support/ingest-fuzz.js';
import { LONG_MS, SEED } from '../support/long.js';
import { breaksOf, hear, moreSegments, punctual, runsOf, sounding, startServer, told, UNBROKEN } from '../support/on-air.js';
import { ensurePackages } from '../support/packages.js';
import type { Running } from '../support/process.js';
import { publishRtmp as publishTone } from '../support/publishers.js';
import type { Server } from '../support/server.js';

/** A rewind playlist is looked at this often, before its window has passed. */
const LOOK_MS = 60_000;

let server: Server;
let witness: Running;
let keys: { victim: string; honest: string };

before(async () => {
  await ensurePackages('ffmpeg');
  server = await startServer({ ADAPTIVE_BITRATE: 'false' });
  keys = { victim: await server.createChannel('victim'), honest: await server.createChannel('honest') };
  witness = punctual(publishTone(server.rtmpUrl(await server.createChannel('witness')), { hz: 997 }));
  await sounding(server, 'witness', 2);
});
after(async () => {
  await witness?.kill('SIGKILL');
  await server?.stop();
});

test(`random broadcasters on both ports leave the process, what is on air and honest encoders alone (seed ${SEED})`, async () => {
  await told(server, async () => {
    const endMs = performance.now() + LONG_MS;
    for (let round = 0; round === 0 || performance.now() < endMs; round++) {
      const from = await moreSegments(server, 'witness', 1);
      const untilMs = Math.min(endMs, performance.now() + LOOK_MS);
      await fuzzIngest(server, keys, { seed: SEED + round, isOver: () => performance.now() >= untilMs });
      await moreSegments(server, 'witness', 1);
      const { text, segments } = await hear(server, 'witness', 'aac-128', from);
      assert.deepEqual([runsOf(segments), breaksOf(text)], [1, UNBROKEN], `seed ${SEED + round}`);
    }
  });
});
