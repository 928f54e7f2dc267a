import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import { findSlips } from '../support/audio.js';
import {
  bePunctual,
  breaksOf,
  clicksIn,
  ffmpegsOf,
  hear,
  moreSegments,
  punctual,
  runsOf,
  sounding,
  soundStretches,
  startServer,
  told,
  UNBROKEN,
} from '../support/on-air.js';
import { eventually, type Running } from '../support/process.js';
import { encodeTone, POST_FORMATS, type PostFormat, publishRtmp } from '../support/publishers.js';
import type { Server } from '../support/server.js';

const HZ = 997;
const RENDITIONS = ['aac-128', 'opus-96', 'mp3-128'] as const;

let server: Server;
const publishers: Running[] = [];

before(async () => {
  bePunctual();
  // One rung a codec: that is what differs when an encoder starts again, and it is half of the work.
  server = await startServer({ ADAPTIVE_BITRATE: 'false' });
});
after(async () => {
  await Promise.all(publishers.map((publisher) => publisher.kill('SIGKILL')));
  await server?.stop();
});

/** Puts a channel on air and tells which two children are its own. */
async function onAir(slug: string, publish: (key: string) => Running): Promise<{ encoder: number; decoder: number }> {
  const before = await ffmpegsOf(server.pid);
  const key = await server.createChannel(slug);
  publishers.push(punctual(publish(key)));
  await sounding(server, slug);
  const now = await ffmpegsOf(server.pid);
  const [encoder, decoder] = [
    now.encoders.filter((pid) => !before.encoders.includes(pid)),
    now.decoders.filter((pid) => !before.decoders.includes(pid)),
  ];
  assert.deepEqual([encoder.length, decoder.length], [1, 1]);
  return { encoder: encoder[0]!, decoder: decoder[0]! };
}

function post(slug: string, format: PostFormat) {
  return (key: string): Running => {
    const encoder = encodeTone(format, { hz: HZ });
    const headers = { authorization: `Bearer ${key}`, 'content-type': POST_FORMATS[format].type };
    const body = request({ host: '127.0.0.1', port: server.ingestPort, method: 'POST', path: `/ingest/${slug}`, headers });
    body.on('error', () => undefined);
    encoder.child.stdout?.pipe(body);
    return encoder;
  };
}

const said = (slug: string, event: string) =>
  eventually(`${event} of ${slug}`, () => server.log().find((line) => line.channel === slug && line.event === event));

/** Checks one rendition of a show: one run, and no click; returns its holes in milliseconds. */
async function check(slug: string, rendition: string): Promise<number[]> {
  const { text, segments, sound } = await hear(server, slug, rendition);
  assert.deepEqual([runsOf(segments), breaksOf(text)], [1, UNBROKEN], `${slug}, ${rendition}: one run`);
  const stretches = soundStretches(sound.left);
  const holes = stretches.slice(1).map(({ from }, index) => (from - stretches[index]!.to) / 48);
  for (const stretch of stretches) assert.deepEqual(clicksIn(sound.left, [HZ], stretch), [], `${slug}, ${rendition}: clicks`);
  return holes;
}

const PAIRS: readonly (readonly PostFormat[])[] = [
  ['adts', 'mp3'],
  ['ogg opus', 'webm'],
  ['flac', 'wav'],
];

for (const formats of PAIRS) {
  test(`a decoder of ${formats.join(' and of ')} that is killed is replaced within the run`, async () => {
    await told(server, async () => {
      const shows = new Map<string, number>();
      for (const format of formats) {
        const slug = format.replace(' ', '-');
        shows.set(slug, (await onAir(slug, post(slug, format))).decoder);
      }
      for (const [slug, decoder] of shows) {
        process.kill(decoder, 'SIGKILL');
        await said(slug, 'decoder.died');
      }
      for (const slug of shows.keys()) await moreSegments(server, slug, 2);
      for (const slug of shows.keys()) {
        for (const rendition of RENDITIONS) {
          const holes = await check(slug, rendition);
          // What the dead decoder had taken is lost: for FLAC, whose parser holds ten frames, a second, and it takes as long to fill again.
          const most = slug === 'flac' ? 3000 : 1000;
          assert.ok(holes.length <= 1 && (holes[0] ?? 0) < most, `${slug}, ${rendition}: holes of ${holes} ms`);
        }
      }
      await Promise.all(publishers.splice(0).map((publisher) => publisher.kill('SIGKILL')));
    });
  });
}

test('an encoder that is killed is replaced within the run; a show beside it does not notice', async () => {
  await told(server, async () => {
    const { encoder } = await onAir('struck', (key) => publishRtmp(server.rtmpUrl(key), { hz: HZ }));
    await onAir('witness', (key) => publishRtmp(server.rtmpUrl(key), { hz: HZ }));
    await moreSegments(server, 'witness', 1);
    process.kill(encoder, 'SIGKILL');
    await said('struck', 'encoder.died');
    await moreSegments(server, 'struck', 3);
    for (const slug of ['struck', 'witness']) {
      for (const rendition of RENDITIONS) assert.deepEqual(await check(slug, rendition), [], `${slug}, ${rendition}: no hole`);
      const { sound } = await hear(server, slug, 'aac-128');
      assert.deepEqual(findSlips(sound.left, HZ), [], `${slug}: no sample is lost or repeated`);
    }
    assert.equal(await server.metric('encoder_restarts_total'), 1);
    assert.equal(await server.metric('decoder_restarts_total'), PAIRS.flat().length);
  });
});
