import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { findHoles, listen, RATE_HZ, toneShare } from '../support/audio.js';
import {
  breaksOf,
  clicksIn,
  hear,
  moreSegments,
  punctual,
  reachesState,
  runsOf,
  sounding,
  soundStretches,
  startServer,
  UNBROKEN,
} from '../support/on-air.js';
import { Players } from '../support/players.js';
import { publishIcecast, publishRtmp } from '../support/publishers.js';
import type { Server } from '../support/server.js';

let server: Server;
let players: Players;

before(async () => {
  [server, players] = await Promise.all([startServer(), Players.start()]);
});
after(async () => {
  await players?.stop();
  await server?.stop();
});

/** Low latency with six times the usual distance from the edge: a busy machine must not look like a fault of the stream. */
const PATIENT = { liveSyncDuration: 6, liveMaxLatencyDuration: 30 };
const TONES = [440, 1000, 1700, 2600] as const;

test('a publisher is killed, returns after 5 s by RTMP and after 20 s by Icecast, and is taken over: one unbroken stream', async () => {
  const slug = 'comeback';
  const key = await server.createChannel(slug);
  const first = punctual(publishRtmp(server.rtmpUrl(key), { hz: TONES[0] }));
  await sounding(server, slug, 3);
  // One rung: what a player does when it changes rungs is shown elsewhere.
  const player = await players.play('hls.js', `${server.url}/live/${slug}/aac-128/index.m3u8`, PATIENT);
  // What a machine does that starts a browser is not what is tested: it counts from here.
  const settled = await moreSegments(server, slug, 1);
  const before = (await player.events()).length;
  const follower = listen(`${server.url}/live/${slug}/aac-128/index.m3u8`);
  await moreSegments(server, slug, 1);

  await first.kill('SIGKILL');
  await reachesState(server, slug, 'holding');
  await moreSegments(server, slug, 3); // 5.8 s
  const second = punctual(publishRtmp(server.rtmpUrl(key), { hz: TONES[1] }));
  await reachesState(server, slug, 'live');
  await moreSegments(server, slug, 3);

  await second.kill('SIGKILL');
  await reachesState(server, slug, 'holding');
  await moreSegments(server, slug, 10); // 19.2 s
  const third = punctual(publishIcecast(server.icecastUrl(slug, key), { hz: TONES[2] }));
  await reachesState(server, slug, 'live');
  await moreSegments(server, slug, 3);

  const fourth = punctual(publishRtmp(server.rtmpUrl(key), { hz: TONES[3] }));
  await third.ended;
  // ffmpeg plays three segments behind the edge and up to one more.
  await moreSegments(server, slug, 7);
  await player.playedOn(4);

  const events = await player.events();
  const tail = await hear(server, slug, 'aac-128', settled);
  const heard = await follower.stop();
  await player.close();
  await fourth.kill('SIGKILL');

  const noticed = events.slice(before).filter(({ type }) => type !== 'level' && type !== 'ratechange');
  // With seconds of sound in its buffer, a browser whose own audio thread came late says that it waits and plays again within the same moment.
  const late = noticed.filter(({ type, wallMs }) => {
    const again = noticed.find((later) => later.type === 'playing' && later.wallMs >= wallMs);
    return ['waiting', 'error', 'playing'].includes(type) && again !== undefined && again.wallMs - wallMs < 50;
  });
  assert.deepEqual(
    noticed.filter((event) => !late.includes(event)),
    [],
    'the player notices nothing',
  );
  assert.equal(runsOf(tail.segments), 1, 'one run');
  for (const rendition of ['aac-128', 'opus-96', 'mp3-128']) {
    const { text, sound } = rendition === 'aac-128' ? tail : await hear(server, slug, rendition, settled);
    assert.deepEqual(breaksOf(text), UNBROKEN, rendition);
    const left = sound.left.subarray(RATE_HZ / 10);
    const stretches = soundStretches(left);
    const inSeconds = stretches.map(({ from, to }) => `${(from / RATE_HZ).toFixed(2)}–${(to / RATE_HZ).toFixed(2)} s`).join(', ');
    assert.equal(stretches.length, 3, `${rendition}: two fills and nothing else: ${inSeconds}`);
    const tones = [[TONES[0]], [TONES[1]], [TONES[2], TONES[3]]];
    stretches.forEach((stretch, index) => {
      assert.deepEqual(clicksIn(left, tones[index]!, stretch), [], `${rendition}: clicks in stretch ${index}`);
    });
  }
  assert.equal(findHoles(heard.left, { minMs: 20 }).length, 2, 'ffmpeg that follows the playlist hears the two fills and nothing else');
  // The playout steers by up to 500 ppm after a takeover, which is 1.3 Hz of this tone and leaves 0.98 of it where it is looked for.
  assert.ok(toneShare(heard.left.subarray(-48_000), TONES[3]) > 0.97, 'and at last the one that took over');
});
