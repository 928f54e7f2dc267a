// Every way in, with the encoders that people use, and what comes out of every rendition judged by ear.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { test } from 'node:test';
import { findClicks, findHoles, findSlips, RATE_HZ, toneShare, trimSilence } from './audio.js';
import { bePunctual, hearPlaylist, punctual, reachesState, sounding, startServer, told } from './on-air.js';
import type { Running } from './process.js';
import { BUNDLED_FFMPEG, encodeTone, POST_FORMATS, type PostFormat, publishIcecast, publishRtmp, type ToneOptions } from './publishers.js';
import type { Server } from './server.js';

const HZ = 997;
const ENV = { RECONNECT_WINDOW_S: '2' };
/** Sent as fast as it goes: a source that is ahead waits for its turn, so nothing here depends on how busy the machine is. */
const SENT_S = 6;
const TONE: ToneOptions = { hz: HZ, seconds: SENT_S, unpaced: true };
const RENDITIONS = ['aac-64', 'aac-128', 'aac-256', 'opus-96', 'mp3-128'];
/** Encoders at once. More would be a test of the machine. */
const AT_ONCE = 3;

interface Sent {
  running: Running;
  /** The answer to a request that ended, for those who get one. */
  status?: Promise<number>;
}

function post(server: Server, slug: string, key: string, format: PostFormat): Sent {
  const running = encodeTone(format, TONE);
  const status = new Promise<number>((resolve, reject) => {
    const call = request({
      host: '127.0.0.1',
      port: server.ingestPort,
      path: `/ingest/${slug}`,
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': POST_FORMATS[format].type },
    });
    call.on('error', reject);
    call.on('response', (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    running.child.stdout?.pipe(call);
  });
  status.catch(() => undefined);
  return { running, status };
}

const rtmp =
  (options: ToneOptions) =>
  (server: Server, _slug: string, key: string): Sent => ({ running: publishRtmp(server.rtmpUrl(key), { ...TONE, ...options }) });
const icecast =
  (options: ToneOptions) =>
  (server: Server, slug: string, key: string): Sent => ({ running: publishIcecast(server.icecastUrl(slug, key), { ...TONE, ...options }) });

type Case = readonly [name: string, publish: (server: Server, slug: string, key: string) => Sent];

export const EVERY_WAY: readonly Case[] = [
  ['RTMP, AAC', rtmp({})],
  ['RTMP, AAC beside a picture', rtmp({ video: true })],
  ['RTMP, MP3', rtmp({ codec: 'mp3' })],
  ['RTMP, AAC, from the ffmpeg of 2018', rtmp({ ffmpeg: BUNDLED_FFMPEG })],
  ['Icecast, MP3', icecast({})],
  ['Icecast, Ogg Opus', icecast({ codec: 'opus' })],
  ['Icecast, ADTS', icecast({ codec: 'aac' })],
  ...(Object.keys(POST_FORMATS) as PostFormat[]).map(
    (format): Case => [`POST, ${format}`, (server, slug, key) => post(server, slug, key, format)],
  ),
];

/** Publishes, waits for the end of the show, listens to every rendition of the recording. */
async function heardWhole(server: Server, slug: string, publish: Case[1]): Promise<void> {
  const key = await server.createChannel(slug);
  const { running, status } = publish(server, slug, key);
  punctual(running);
  await sounding(server, slug, 1);
  await reachesState(server, slug, 'offline', 60_000);
  const { code, stderr } = await running.ended;
  assert.equal(code, 0, stderr);
  if (status) assert.ok((await status) < 300, 'a POST that ended is answered with success');
  const { items } = await server.api<{ items: { id: string }[] }>('GET', `/channels/${slug}/broadcasts`);
  assert.equal(items.length, 1);
  for (const rendition of RENDITIONS) {
    const { sound } = await hearPlaylist(server.url, `/vod/${items[0]!.id}/${rendition}/index.m3u8`);
    for (const samples of [sound.left, sound.right]) {
      const heard = trimSilence(samples);
      // A source is taken for one that is ahead when it has given 1 s more than has passed; less than that is trimmed as a live one's is.
      const heardS = heard.length / RATE_HZ;
      assert.ok(heardS > SENT_S - 1.5 && heardS < SENT_S + 0.1, `${rendition}: ${heardS} s heard of ${SENT_S}`);
      // Its first and last moments are the source codec's own beginning and end.
      const tone = heard.subarray(RATE_HZ / 4, -RATE_HZ / 4);
      assert.ok(toneShare(tone, HZ) > 0.99, `${rendition}: ${toneShare(tone, HZ)} of it is the tone`);
      const found = { holes: findHoles(tone), clicks: findClicks(tone, [HZ]), slips: findSlips(tone, HZ) };
      assert.deepEqual(found, { holes: [], clicks: [], slips: [] }, rendition);
    }
  }
}

/** A test for each way in, beside each other, on one service. */
export function testEveryWay(name: string, env: Readonly<Record<string, string>>, ways: readonly Case[]): void {
  test(name, { concurrency: AT_ONCE }, async (t) => {
    bePunctual();
    const server = await startServer({ ...ENV, ...env });
    try {
      await told(server, async () => {
        await Promise.all(ways.map(([way, publish], index) => t.test(way, () => heardWhole(server, `way-${index}`, publish))));
      });
    } finally {
      await server.stop();
    }
  });
}
