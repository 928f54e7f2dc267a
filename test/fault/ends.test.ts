import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { decode, loudnessDbfs, RATE_HZ } from '../support/audio.js';
import {
  bePunctual,
  clicksIn,
  hearPlaylist,
  moreSegments,
  reachesState,
  sounding,
  soundStretches,
  startServer,
  told,
} from '../support/on-air.js';
import { eventually } from '../support/process.js';
import { publishRtmp, type RtmpPublisher, type RtmpStatusError, toneFrames } from '../support/rtmp-publisher.js';
import { readPlaylist, type Server } from '../support/server.js';

const RECONNECT_WINDOW_S = 6;
const SEGMENT_S = 1.92;
const HZ = 997;

let server: Server;
before(async () => {
  bePunctual();
  server = await startServer({ RECONNECT_WINDOW_S: String(RECONNECT_WINDOW_S), ADAPTIVE_BITRATE: 'false' });
});
after(() => server?.stop());

async function onAir(slug: string): Promise<{ publisher: RtmpPublisher; key: string; played: Promise<void> }> {
  const [key, sound] = [await server.createChannel(slug), await toneFrames('aac', { seconds: 60, hz: HZ })];
  const publisher = await publishRtmp({ port: server.rtmpPort, key });
  const played = publisher.play(sound, { realTime: true });
  await sounding(server, slug, 3);
  return { publisher, key, played };
}

/** Waits for the end of the broadcast; gives the last playlist, and the recording's id. */
async function ended(slug: string): Promise<{ text: string; asset: string }> {
  const text = await eventually(`${slug} has ended`, async () => {
    const playlist = await server.text(`/live/${slug}/aac-128/index.m3u8`);
    return playlist && readPlaylist(playlist).ended ? playlist : undefined;
  });
  const line = server.log().find(({ channel, event }) => channel === slug && event === 'show.started');
  return { text, asset: String(line?.broadcast) };
}

/** The recording plays from the segments that were live, and ends in the segment of the last sound. */
async function checkRecording(asset: string, live: string): Promise<void> {
  for (const rendition of ['aac-128', 'opus-96', 'mp3-128']) {
    const { text, segments, sound } = await hearPlaylist(server.url, `/vod/${asset}/${rendition}/index.m3u8`);
    assert.ok(readPlaylist(text).ended && text.includes('#EXT-X-PLAYLIST-TYPE:VOD'), rendition);
    const stretches = soundStretches(sound.left);
    assert.equal(stretches.length, 1, `${rendition}: ${JSON.stringify(stretches)}`);
    const silentS = sound.durationS - stretches[0]!.to / RATE_HZ;
    assert.ok(silentS < SEGMENT_S + 0.1, `${rendition}: ${silentS} s of fill at the end of the recording`);
    assert.deepEqual(clicksIn(sound.left, [HZ], stretches[0]!), [], rendition);
    if (rendition !== 'aac-128') continue;
    for (const { uri } of segments) assert.ok(live.includes(uri.split('/').at(-1)!), `${uri} is a segment of the live playlist`);
    const recordedS = segments.length * SEGMENT_S;
    const hls = await decode(`${server.url}/vod/${asset}/master.m3u8`);
    assert.ok(Math.abs(hls.durationS - recordedS) < 0.2, `master.m3u8: ${hls.durationS} s`);
    const mpd = String(await server.text(`/vod/${asset}/manifest.mpd`));
    const saidS = Number(/mediaPresentationDuration="PT([\d.]+)S"/.exec(mpd)?.[1]);
    assert.ok(Math.abs(saidS - recordedS) < 1e-6, `${saidS} s`);
    // ffmpeg rounds the number of segments up and asks for one past the end; that one is there until the next sweep.
    const dash = await decode(`${server.url}/vod/${asset}/manifest.mpd`);
    assert.ok(dash.durationS > recordedS - 0.2 && dash.durationS < recordedS + SEGMENT_S + 0.2, `manifest.mpd: ${dash.durationS} s`);
    for (const { left } of [hls, dash]) assert.ok(loudnessDbfs(left) > -40);
  }
}

describe('the end of a broadcast', { concurrency: true }, () => {
  test("OBS's Stop: the broadcast ends after 5 s, the recording is there, the live address is gone in its time", async () => {
    await told(server, async () => {
      const slug = 'stopped';
      const { publisher, played } = await onAir(slug);
      publisher.unpublish();
      await played;
      await reachesState(server, slug, 'holding');
      const atHold = readPlaylist(await sounding(server, slug)).openNumber;
      const { text, asset } = await ended(slug);
      const heldS = (readPlaylist(text).openNumber - atHold) * SEGMENT_S;
      assert.ok(heldS > 5 - SEGMENT_S && heldS < 5 + 2 * SEGMENT_S, `held ${heldS} s`);
      await eventually('the recording', () => server.text(`/vod/${asset}/master.m3u8`));
      await checkRecording(asset, text);
      await eventually(
        '404',
        async () => ((await fetch(`${server.url}/live/${slug}/master.m3u8`)).status === 404 ? true : undefined),
        60_000,
      );
      assert.equal((await fetch(`${server.url}/live/${slug}/aac-128/index.m3u8`)).status, 404);
    });
  });

  test('a lost line: the show is held, and ends when nobody comes; the fill is not in the recording', async () => {
    await told(server, async () => {
      const slug = 'lost';
      const { publisher, played } = await onAir(slug);
      publisher.drop();
      await played;
      await reachesState(server, slug, 'holding');
      const atHold = readPlaylist(await sounding(server, slug)).openNumber;
      const { text, asset } = await ended(slug);
      const heldS = (readPlaylist(text).openNumber - atHold) * SEGMENT_S;
      assert.ok(heldS > RECONNECT_WINDOW_S - SEGMENT_S && heldS < RECONNECT_WINDOW_S + 2 * SEGMENT_S, `held ${heldS} s`);
      await eventually('the recording', () => server.text(`/vod/${asset}/master.m3u8`));
      await checkRecording(asset, text);
    });
  });

  for (const [name, flashVers] of [
    ['two of the same kind', ['FMLE/3.0 (same)', 'FMLE/3.0 (same)']],
    ['two kinds', ['FMLE/3.0 (one)', 'FMLE/3.0 (other)']],
  ] as const) {
    test(`two encoders with one key that reconnect by themselves: ${name}`, async () => {
      await told(server, async () => {
        const slug = `rivals-${name.length}`;
        const [key, sound] = [await server.createChannel(slug), await toneFrames('aac', { seconds: 60, hz: HZ })];
        let stopping = false;
        const connected: RtmpPublisher[] = [];
        const refusals: (RtmpStatusError | undefined)[] = [];
        // What OBS does: connects again a moment after it was thrown out or refused, for ever.
        const rival = async (flashVer: string) => {
          while (!stopping) {
            try {
              const publisher = await publishRtmp({ port: server.rtmpPort, key, flashVer });
              connected.push(publisher);
              await publisher.play(sound, { realTime: true });
              refusals.push(await publisher.ended());
            } catch (error) {
              refusals.push(error as RtmpStatusError);
            }
            await new Promise((resolve) => setTimeout(resolve, 500));
          }
        };
        const first = rival(flashVers[0]);
        await sounding(server, slug);
        const second = rival(flashVers[1]);
        await moreSegments(server, slug, 8);
        stopping = true;
        for (const publisher of connected) publisher.drop();
        await Promise.all([first, second]);
        const onAir = server.log().filter(({ channel, event }) => channel === slug && event === 'source.on_air');
        assert.ok(onAir.length >= 2 && onAir.length <= 3, `${onAir.length - 1} takeovers`);
        assert.ok(refusals.length > 5, 'the loser goes on trying');
        const codes = new Set(refusals.slice(1, -2).map((refusal) => refusal?.code));
        assert.deepEqual([...codes], ['NetStream.Publish.BadName'], 'and is told why it may not');
      });
    });
  }
});
