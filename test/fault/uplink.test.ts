import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { findSlips, fitTone, RATE_HZ, tonePcm } from '../support/audio.js';
import { bePunctual, breaksOf, clicksIn, hear, runsOf, soundStretches, startServer, told, UNBROKEN } from '../support/on-air.js';
import { eventually, run } from '../support/process.js';
import { type Frames, publishRtmp, toneFrames } from '../support/rtmp-publisher.js';
import { readPlaylist, type Server } from '../support/server.js';

let server: Server;
before(async () => {
  bePunctual();
  server = await startServer({ ADAPTIVE_BITRATE: 'false' });
});
after(() => server?.stop());

const LOW_HZ = 997;
const HIGH_HZ = 1701;

/** Wall-clock times, in milliseconds, at which the sound changes to `toHz`. */
function changesMs(samples: Float32Array, startWallMs: number, fromHz: number, toHz: number): number[] {
  const window = RATE_HZ / 100;
  const changes: number[] = [];
  let before: number | undefined;
  for (let at = 0; at + window <= samples.length; at += window) {
    const [from, to] = [fitTone(samples, fromHz, at, at + window).amplitude, fitTone(samples, toHz, at, at + window).amplitude];
    if (Math.max(from, to) < 0.02) continue;
    const now = from > to ? fromHz : toHz;
    if (before === fromHz && now === toHz) changes.push(startWallMs + (at / RATE_HZ) * 1000);
    before = now;
  }
  return changes;
}

const isLow = (samples: Float32Array, at: number) => {
  const [low, high] = [LOW_HZ, HIGH_HZ].map((hz) => fitTone(samples, hz, at, at + RATE_HZ / 100).amplitude);
  return low! > high!;
};

describe('a source that is not in step', { concurrency: true }, () => {
  test('an uplink that stalls for 3 s and then sends it all: fill, one cut, and the delay is what it was', async () => {
    await told(server, async () => {
      const slug = 'stalled';
      const key = await server.createChannel(slug);
      const [low, high] = [await toneFrames('aac', { seconds: 45, hz: LOW_HZ }), await toneFrames('aac', { seconds: 12, hz: HIGH_HZ })];
      const publisher = await publishRtmp({ port: server.rtmpPort, key });
      publisher.begin(low);
      const startMs = performance.now();
      let sent = 0;
      // Each tone goes on where it was: begun anew in itself it would click.
      const used = new Map<Frames, number>();
      /** Sends so much sound in real time, and gives the wall-clock time at which it began. */
      const send = async (sound: Frames, seconds: number): Promise<number> => {
        const beganMs = Date.now();
        const from = used.get(sound) ?? 0;
        const to = from + Math.round((seconds * 1000) / sound.frameMs);
        assert.ok(to <= sound.frames.length, 'the tone is long enough');
        used.set(sound, to);
        for (const frame of sound.frames.slice(from, to)) {
          publisher.frame(sound, frame);
          sent++;
          await sleep(Math.max(0, startMs + sent * sound.frameMs - performance.now()));
        }
        return beganMs;
      };
      await send(low, 6);
      const beforeMs = await send(high, 4);
      const stalled = publisher.stall(3000);
      await send(low, 3);
      await stalled;
      await send(low, 4);
      // The surplus is looked for every 5 s.
      let cuts = 0;
      while (cuts === 0) {
        await send(low, 1);
        cuts = (await server.metric('source_cuts_total')) ?? 0;
        assert.ok(sent * low.frameMs < 40_000, 'the surplus is not cut');
      }
      const afterMs = await send(high, 4);
      await send(high, 3);
      const { text, segments, sound } = await hear(server, slug, 'aac-128');
      publisher.drop();

      assert.equal(await server.metric('source_cuts_total'), 1);
      assert.deepEqual([runsOf(segments), breaksOf(text)], [1, UNBROKEN]);
      const wallMs = readPlaylist(text).programDateTimesMs[0]! + segments.findIndex(({ gap }) => !gap) * 1920;
      const [beforeHeardMs, afterHeardMs, ...others] = changesMs(sound.left, wallMs, LOW_HZ, HIGH_HZ);
      assert.deepEqual(others, []);
      const [beforeDelayMs, afterDelayMs] = [beforeHeardMs! - beforeMs, afterHeardMs! - afterMs];
      assert.ok(afterDelayMs < beforeDelayMs + 250, `the delay was ${beforeDelayMs} ms and is ${afterDelayMs} ms`);
      const stretches = soundStretches(sound.left);
      assert.equal(stretches.length, 2, 'one stretch of fill');
      for (const stretch of stretches) {
        const clicks = clicksIn(sound.left, [LOW_HZ, HIGH_HZ], stretch);
        assert.deepEqual(
          // The publisher changes its tone without asking whether that clicks.
          clicks.filter(({ at }) => isLow(sound.left, at - RATE_HZ / 20) === isLow(sound.left, at + RATE_HZ / 20)),
          [],
        );
      }
    });
  });

  test('a file that is sent faster than real time: all of it is heard, once, at its own speed', async () => {
    await told(server, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'veza-file-'));
      try {
        const slug = 'file';
        const key = await server.createChannel(slug);
        const seconds = 20;
        const path = join(folder, 'show.wav');
        await run('ffmpeg', ['-v', 'error', '-f', 's16le', '-ar', '48000', '-ac', '2', '-i', 'pipe:0', path], {
          input: tonePcm(LOW_HZ, seconds),
        });
        const sent = await run(
          'curl',
          [
            ...[
              '-sS',
              '-f',
              '-X',
              'POST',
              '-T',
              path,
              '-H',
              `Authorization: Bearer ${key}`,
              '-H',
              'Content-Type: audio/wav',
              '-H',
              'Expect:',
            ],
            `http://127.0.0.1:${server.ingestPort}/ingest/${slug}`,
          ],
          { timeoutMs: 60_000 },
        );
        assert.match(sent.stdout.toString(), /finished/);
        await eventually(
          'the end',
          async () => {
            const text = await server.text(`/live/${slug}/aac-128/index.m3u8`);
            return text && readPlaylist(text).ended ? true : undefined;
          },
          60_000,
        );
        for (const rendition of ['aac-128', 'opus-96', 'mp3-128']) {
          const { text, segments, sound } = await hear(server, slug, rendition);
          assert.deepEqual([runsOf(segments), breaksOf(text)], [1, UNBROKEN], rendition);
          const stretches = soundStretches(sound.left);
          assert.equal(stretches.length, 1, `${rendition}: without a hole`);
          const [{ from, to }] = stretches as [(typeof stretches)[0]];
          assert.ok(Math.abs((to - from) / RATE_HZ - seconds) < 0.03, `${rendition}: ${(to - from) / RATE_HZ} s of ${seconds}`);
          assert.deepEqual(
            findSlips(sound.left.subarray(from + 2400, to - 2400), LOW_HZ),
            [],
            `${rendition}: nothing is missing or repeated`,
          );
          // The tone begins hard in the file, and is faded in over 20 ms: what a codec makes of that is not looked at.
          assert.deepEqual(clicksIn(sound.left, [LOW_HZ], { from: from + RATE_HZ / 20, to }), [], rendition);
        }
      } finally {
        await rm(folder, { recursive: true });
      }
    });
  });
});
