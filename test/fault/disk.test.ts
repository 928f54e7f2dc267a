import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { findSlips, listen } from '../support/audio.js';
import { breaksOf, moreSegments, punctual, sounding, soundStretches, startServer, told, UNBROKEN } from '../support/on-air.js';
import { Players } from '../support/players.js';
import { eventually, type Running, run } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import type { Server } from '../support/server.js';

const HZ = 997;

let server: Server;
let players: Players;
let publisher: Running | undefined;
let mounted: string | undefined;

before(async () => {
  [server, players] = await Promise.all([startServer({ ADAPTIVE_BITRATE: 'false', SHUTDOWN_TIMEOUT_S: '5' }), Players.start()]);
});
after(async () => {
  await publisher?.kill('SIGKILL');
  await players?.stop();
  await server?.kill9();
  if (mounted) await run('umount', ['-l', mounted]);
  await server?.stop();
});

test('the disk is full: the live edge goes on, what waits is named and counted, and is stored when there is room again', async () => {
  await told(server, async () => {
    const slug = 'full';
    const key = await server.createChannel(slug);
    assert.equal(await server.stopGracefully(), 0);
    const objects = join(server.dataDir, 'objects');
    await run('mount', ['-t', 'tmpfs', '-o', 'size=700k', 'tmpfs', objects]);
    mounted = objects;
    await server.restart();

    publisher = punctual(publishRtmp(server.rtmpUrl(key), { hz: HZ }));
    await sounding(server, slug, 4);
    const player = await players.play('hls.js', `${server.url}/live/${slug}/master.m3u8`, { lowLatencyMode: false });
    const named = (event: string) => eventually(event, () => server.log().find((line) => line.event === event), 60_000);
    const line = await named('store.upload_failed');
    assert.match(String(line.error), /ENOSPC|no space/i);
    const follower = listen(`${server.url}/live/${slug}/aac-128/index.m3u8`);
    const since = (await player.events()).length;
    await moreSegments(server, slug, 6);
    await player.playedOn(3);
    assert.ok(Number(await server.metric('segment_upload_backlog')) >= 6, 'the metric counts what waits');
    assert.equal(await server.metric('segments_lost_total'), 0, 'nothing is lost yet');
    assert.deepEqual(breaksOf(await sounding(server, slug)), UNBROKEN);
    const noticed = (await player.events()).slice(since).filter(({ type }) => ['fatal', 'emptied', 'ended', 'pause'].includes(type));
    assert.deepEqual(noticed, [], 'hls.js plays on');
    await eventually('readiness names it', async () => {
      const ready = await fetch(`${server.url}/health/ready`);
      return ready.status === 503 && (await ready.text()).includes('objects') ? true : undefined;
    });
    assert.equal((await fetch(`${server.url}/health/live`)).status, 200);
    const { left } = await follower.stop();
    const heard = left.subarray(4800);
    const stretches = soundStretches(heard, 5);
    assert.equal(stretches.length, 1, `no hole: ${JSON.stringify(stretches)}`);
    assert.deepEqual(findSlips(heard, HZ), []);

    await run('mount', ['-o', 'remount,size=50m', objects]);
    await named('store.upload_restored');
    await eventually('nothing waits', async () => (Number(await server.metric('segment_upload_backlog')) <= 1 ? true : undefined));
    await eventually('ready', async () => ((await fetch(`${server.url}/health/ready`)).ok ? true : undefined));
    assert.equal(await server.metric('segments_lost_total'), 0);
    assert.deepEqual(breaksOf(String(await server.text(`/live/${slug}/aac-128/dvr.m3u8`))), UNBROKEN, 'rewind has all of it');
  });
});
