// One live tone, and every player that people use: what comes out of each is judged by ear.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { decode, findClicks, findHoles, findSlips, RATE_HZ, type Sound, soundOf, toneShare, trimSilence } from '../support/audio.js';
import { bePunctual, reachesState, sounding, startServer, told } from '../support/on-air.js';
import { ensurePackages } from '../support/packages.js';
import { Players } from '../support/players.js';
import { eventually, type Running, run, start, tail } from '../support/process.js';
import { publishRtmp } from '../support/publishers.js';
import { readPlaylist, type Server } from '../support/server.js';

const HZ = 997;
const SLUG = 'radio';
const HEARD_S = 5;

let server: Server;
let publisher: Running;
let home: string;

before(async () => {
  bePunctual();
  await ensurePackages(
    ...['ffmpeg', 'mpv', 'vlc-bin', 'vlc-plugin-base'],
    ...['gstreamer1.0-tools', 'gstreamer1.0-plugins-base', 'gstreamer1.0-plugins-good', 'gstreamer1.0-plugins-bad', 'gstreamer1.0-libav'],
  );
  home = await mkdtemp(join(tmpdir(), 'veza-players-'));
  server = await startServer();
  const key = await server.createChannel(SLUG);
  // Ahead of time: what is missing from the sound is then missing in the service or in the player.
  publisher = publishRtmp(server.rtmpUrl(key), { hz: HZ, unpaced: true });
  await sounding(server, SLUG, 3);
});

after(async () => {
  await publisher?.kill('SIGTERM');
  await server?.stop();
  await rm(home, { recursive: true, force: true });
});

const url = (path: string) => `${server.url}${path}`;

/**
 * The tone and nothing else, from the player's first sound on; half a second at its start is the player's own. `restarts`: the player
 * makes a new decoder when it changes rungs, which breaks the wave once, at the edge of a segment.
 */
function assertWhole(sound: Sound, what: string, restarts = false): void {
  const heard = trimSilence(sound.left).subarray(RATE_HZ / 2, -RATE_HZ / 10);
  assert.ok(heard.length > (HEARD_S - 1) * RATE_HZ, `${what}: ${heard.length / RATE_HZ} s heard`);
  assert.ok(toneShare(heard, HZ) > 0.99, `${what}: ${toneShare(heard, HZ)} of it is the tone`);
  const clicks = findClicks(heard, [HZ]);
  if (restarts) assert.ok(clicks.length <= 1, `${what}: ${JSON.stringify(clicks)}`);
  const found = { holes: findHoles(heard), clicks: restarts ? [] : clicks, slips: findSlips(heard, HZ) };
  assert.deepEqual(found, { holes: [], clicks: [], slips: [] }, what);
}

/** Listens to the PCM that a player writes until there is enough of it. */
async function hearPlayer(command: string, args: readonly string[], options: Parameters<typeof start>[2] = {}): Promise<Sound> {
  const player = start(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let bytes = 0;
  const enough = new Promise<void>((resolve) => {
    player.child.stdout?.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > (HEARD_S + 0.5) * RATE_HZ * 4) resolve();
    });
  });
  const ended = player.ended.then(({ code, signal, stderr }) => {
    throw new Error(`${command} ended with ${code ?? signal}:\n${tail(stderr)}`);
  });
  ended.catch(() => undefined);
  const timer = setTimeout(() => player.child.kill('SIGKILL'), 60_000);
  await Promise.race([enough, ended]).finally(() => clearTimeout(timer));
  return soundOf((await player.kill()).stdout);
}

const heardBy: Readonly<Record<string, (address: string) => Promise<Sound>>> = {
  ffmpeg: (address) => decode(address, { seconds: HEARD_S }),
  // It opens its output by name, which a pipe of Node's, a socket, does not allow.
  mpv: async (address) => {
    const file = join(home, 'mpv.pcm');
    const format = ['--audio-format=s16', '--audio-samplerate=48000', '--audio-channels=stereo'];
    const output = ['--ao=pcm', '--ao-pcm-waveheader=no', `--ao-pcm-file=${file}`, `--length=${HEARD_S}`];
    await run('mpv', ['--no-config', '--really-quiet', '--vid=no', ...format, ...output, address], { timeoutMs: 60_000 });
    return soundOf(await readFile(file));
  },
  // VLC refuses to run as root.
  VLC: (address) =>
    hearPlayer(
      'cvlc',
      [
        '--intf',
        'dummy',
        '--no-video',
        address,
        '--sout',
        '#transcode{acodec=s16l,channels=2,samplerate=48000}:std{access=file,mux=wav,dst=-}',
        'vlc://quit',
      ],
      { env: { PATH: process.env.PATH, HOME: home }, ...(process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}) },
    ),
  GStreamer: (address) =>
    hearPlayer('gst-launch-1.0', [
      ...['-q', 'playbin', `uri=${address}`, 'video-sink=fakesink'],
      'audio-sink=audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=2 ! fdsink',
    ]),
};

// They read ahead of what they play, and what they write is judged afterwards: beside each other they are heard as well as alone.
describe('players that are programs', { concurrency: 4 }, () => {
  for (const [player, addresses] of Object.entries({
    ffmpeg: [
      ...['master.m3u8', 'opus.m3u8', 'dvr.m3u8', 'manifest.mpd', 'mp3-128/index.m3u8'].map((path) => `/live/${SLUG}/${path}`),
      ...['mp3', 'aac', 'opus'].map((kind) => `/listen/${SLUG}.${kind}`),
    ],
    mpv: [`/live/${SLUG}/master.m3u8`, `/listen/${SLUG}.mp3`],
    VLC: [`/live/${SLUG}/master.m3u8`, `/live/${SLUG}/mp3-128/index.m3u8`, `/listen/${SLUG}.mp3`],
    GStreamer: [`/live/${SLUG}/aac-128/index.m3u8`, `/live/${SLUG}/master.m3u8`, `/live/${SLUG}/manifest.mpd`, `/listen/${SLUG}.opus`],
  })) {
    for (const path of addresses) {
      const restarts = player === 'GStreamer' && /master|manifest/.test(path);
      test(`${player} plays ${path}`, () =>
        told(server, async () => assertWhole(await heardBy[player]!(url(path)), `${player} ${path}`, restarts)));
    }
  }
});

// Two at once are heard whole on two cores.
test('players in Chromium', { concurrency: 2 }, async (t) => {
  const players = await Players.start();
  try {
    const kinds = [
      ['hls.js, low latency', 'hls.js', 'master.m3u8', { lowLatencyMode: true }],
      ['hls.js, classic', 'hls.js', 'master.m3u8', { lowLatencyMode: false }],
      ['hls.js, Opus', 'hls.js', 'opus.m3u8', {}],
      ['hls.js, rewind', 'hls.js', 'dvr.m3u8', { lowLatencyMode: false }],
      ['dash.js', 'dash.js', 'manifest.mpd', {}],
      ['Shaka, DASH', 'shaka', 'manifest.mpd', {}],
      ['Shaka, DASH, low latency', 'shaka', 'manifest.mpd', { streaming: { lowLatencyMode: true } }],
      ['Shaka, HLS', 'shaka', 'master.m3u8', {}],
    ] as const;
    await Promise.all(
      kinds.map(([name, kind, path, settings]) =>
        t.test(name, () =>
          told(server, async () => {
            const player = await players.play(kind, url(`/live/${SLUG}/${path}`), settings);
            try {
              // Until it has found its distance from the live edge and a rung it may do as it likes.
              await player.playedOn(4);
              await player.take();
              const before = (await player.disturbances()).length;
              await player.playedOn(HEARD_S);
              const { samples } = await player.take();
              assert.ok(samples.length > (HEARD_S - 0.5) * RATE_HZ, `${samples.length / RATE_HZ} s heard`);
              assert.ok(toneShare(samples, HZ) > 0.99, `${toneShare(samples, HZ)} of it is the tone`);
              assert.deepEqual(findHoles(samples), []);
              assert.deepEqual((await player.disturbances()).slice(before), []);
            } finally {
              await player.close();
            }
          }),
        ),
      ),
    );
  } finally {
    await players.stop();
  }
});

test('titles come in ICY metadata to those who ask for it, and to nobody else', async () => {
  await server.api('POST', `/channels/${SLUG}/now-playing`, { artist: 'Ann O’Nymous', title: 'A Song' });
  for (const kind of ['mp3', 'aac']) {
    const title = await new Promise<string>((resolve, reject) => {
      const call = get(url(`/listen/${SLUG}.${kind}`), { headers: { 'icy-metadata': '1' } }, (response) => {
        const every = Number(response.headers['icy-metaint']);
        let bytes = Buffer.alloc(0);
        response.on('data', (chunk: Buffer) => {
          bytes = Buffer.concat([bytes, chunk]);
          while (bytes.length > every) {
            const length = bytes[every]! * 16;
            if (bytes.length < every + 1 + length) return;
            const text = bytes.subarray(every + 1, every + 1 + length).toString();
            bytes = bytes.subarray(every + 1 + length);
            const found = /StreamTitle='(.*?)';/.exec(text)?.[1];
            if (found) {
              resolve(found);
              call.destroy();
              return;
            }
          }
        });
        response.on('error', reject);
      });
      call.on('error', reject);
    });
    assert.equal(title, 'Ann O’Nymous - A Song');
  }
  const plain = await fetch(url(`/listen/${SLUG}.mp3`));
  assert.equal(plain.headers.get('icy-metaint'), null);
  await plain.body?.cancel();
});

test('the validator finds nothing, in HLS and in DASH', async () => {
  const paths = [`/live/${SLUG}/master.m3u8`, `/live/${SLUG}/manifest.mpd`];
  await Promise.all(
    paths.map(async (path) => {
      const { child, ended } = start(process.execPath, ['dist/src/validator/validate.js', url(path), '--duration', '12']);
      child.stdin?.end();
      const { code, stdout, stderr } = await ended;
      assert.equal(code, 0, `${path}\n${stdout}${stderr}`);
    }),
  );
});

test('when the show has ended it is a recording at once, whole, in HLS and DASH', async () => {
  await server.api('POST', `/channels/${SLUG}/end`);
  await reachesState(server, SLUG, 'offline');
  const last = readPlaylist((await server.text(`/live/${SLUG}/aac-128/index.m3u8`)) ?? '');
  assert.ok(last.ended);
  const { items } = await server.api<{ items: { id: string }[] }>('GET', `/channels/${SLUG}/broadcasts`);
  const heard: number[] = [];
  for (const manifest of ['master.m3u8', 'manifest.mpd']) {
    const address = url(`/vod/${items[0]!.id}/${manifest}`);
    const sound = await eventually(`${manifest} can be played`, () => decode(address));
    assert.ok(toneShare(trimSilence(sound.left), HZ) > 0.99, manifest);
    heard.push(sound.durationS);
    await run(process.execPath, ['dist/src/validator/validate.js', address]);
  }
  // From its first sound on: more than the live playlist listed.
  assert.ok(
    heard.every((seconds) => seconds > (last.segments.length - last.gaps.length) * 1.92 - 0.1),
    `${heard} s`,
  );
});
