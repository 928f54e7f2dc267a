import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { freePorts } from '../support/free-port.js';
import { ensurePackages } from '../support/packages.js';
import { assertTone, BUNDLED_FFMPEG, DEBIAN_FFMPEG, hear, makeTone, runClient, setUp, temporaryFolder } from './http-support.js';

const SINE = ['-re', '-f', 'lavfi', '-i', 'sine=frequency=1000:sample_rate=48000:duration=3', '-ac', '2'];

const FFMPEG_OUTPUTS = [
  { name: 'MP3', args: ['-c:a', 'libmp3lame', '-content_type', 'audio/mpeg', '-f', 'mp3'], format: 'mp3' },
  { name: 'Ogg Opus', args: ['-c:a', 'libopus', '-content_type', 'application/ogg', '-f', 'ogg'], format: 'ogg' },
] as const;

for (const [build, ffmpeg] of [
  ['Debian', DEBIAN_FFMPEG],
  ['bundled', BUNDLED_FFMPEG],
] as const) {
  for (const output of FFMPEG_OUTPUTS) {
    for (const legacy of [0, 1]) {
      test(`icecast clients: ffmpeg (${build}), icecast:// with ${output.name}, ${legacy ? 'SOURCE' : 'PUT'}`, async (t) => {
        await ensurePackages('ffmpeg');
        const { gate, port } = await setUp(t);
        const address = `icecast://source:secret@127.0.0.1:${port}/radio`;
        const client = runClient(t, ffmpeg, ['-v', 'error', ...SINE, ...output.args, '-legacy_icecast', `${legacy}`, address]);
        const source = await gate.source();
        // It closes the connection when its input ends. As SOURCE it has our 200 unread, so that a kernel may make a reset of it.
        const ended = await source.ended();
        assert.ok(ended === 'closed' || (legacy === 1 && ended === 'lost'), `${ended}: ${client.output()}`);
        assert.equal(await client.ended, 0, client.output());
        // As SOURCE it never reads our 200, so its close is a reset, and a kernel may throw away what it received just before
        // one (RFC 9293 3.10.7.4: "all segment queues should be flushed"): the last page, which in Ogg is a second of sound.
        const lastPageS = legacy && output.format === 'ogg' ? 1.05 : 0;
        await assertTone(source, output.format, { atLeast: 2.9 - lastPageS, atMost: 3.2 });
        assert.match(gate.requests[0]!.client, /^Lavf\//);
        assert.equal(gate.requests[0]!.protocol, 'icecast');
      });
    }
  }
}

test('icecast clients: GStreamer shout2send', async (t) => {
  await ensurePackages('gstreamer1.0-tools', 'gstreamer1.0-plugins-base', 'gstreamer1.0-plugins-good');
  const { gate, port } = await setUp(t);
  const pipeline =
    'audiotestsrc is-live=true num-buffers=150 samplesperbuffer=960 freq=1000 volume=0.125 ! audio/x-raw,rate=48000,channels=2 ! ' +
    `audioconvert ! lamemp3enc ! shout2send ip=127.0.0.1 port=${port} mount=radio username=source password=secret`;
  const client = runClient(t, 'gst-launch-1.0', ['-q', ...pipeline.split(' ')]);
  const source = await gate.source();
  await source.ended();
  assert.equal(await client.ended, 0, client.output());
  await assertTone(source, 'mp3', { atLeast: 2.7, atMost: 3.3 });
  assert.match(gate.requests[0]!.client, /GStreamer/);
});

test('icecast clients: ezstream sends a file and its titles', async (t) => {
  await ensurePackages('ezstream');
  const { gate, port } = await setUp(t);
  const folder = await temporaryFolder(t);
  const song = join(folder, 'song.mp3');
  await writeFile(song, await makeTone('libmp3lame', 'mp3', { more: ['-metadata', 'title=Séance', '-metadata', 'artist=The Encoders'] }));
  const config = join(folder, 'ezstream.xml');
  await writeFile(
    config,
    `<ezstream><servers><server><hostname>127.0.0.1</hostname><port>${port}</port><password>secret</password></server></servers>
     <streams><stream><mountpoint>/radio</mountpoint><format>MP3</format></stream></streams>
     <intakes><intake><type>file</type><filename>${song}</filename><stream_once>yes</stream_once></intake></intakes></ezstream>`,
    { mode: 0o600 },
  );
  const client = runClient(t, 'ezstream', ['-c', config]);
  const source = await gate.source();
  await source.ended();
  await client.ended;
  await assertTone(source, 'mp3', { atLeast: 2.9, atMost: 3.3 });
  assert.deepEqual(gate.titles.at(-1)?.update, { artist: 'The Encoders', title: 'Séance' }, client.output());
});

test('icecast clients: liquidsoap sends and updates its title', async (t) => {
  await ensurePackages('liquidsoap');
  const { gate, port } = await setUp(t);
  const script = `settings.init.allow_root.set(true)
    s = once(sine(duration=4., amplitude=0.125, 1000.))
    s = insert_metadata(s)
    thread.run(delay=1., { s.insert_metadata([("title", "Café del Mar"), ("artist", "Näme")]) })
    output.icecast(%mp3(bitrate=128), host="127.0.0.1", port=${port}, user="source", password="secret", mount="radio", fallible=true, on_stop=shutdown, s)`;
  const client = runClient(t, 'liquidsoap', [script]);
  const source = await gate.source();
  await gate.until(() => gate.titles.length > 0);
  await source.ended();
  await client.ended;
  await assertTone(source, 'mp3', { atLeast: 2.5, atMost: 4.5 });
  assert.deepEqual(gate.titles.at(-1)?.update, { artist: 'Näme', title: 'Café del Mar' }, client.output());
});

test('icecast clients: darkice reads a sound device and sends', async (t) => {
  await ensurePackages('darkice', 'libasound2-data');
  const { gate, port } = await setUp(t);
  const folder = await temporaryFolder(t);
  const tone = join(folder, 'tone.raw');
  await writeFile(tone, await makeTone('pcm_s16le', 's16le', { seconds: 10, rateHz: 44_100 }));
  const alsa = join(folder, 'alsa.conf');
  await writeFile(
    alsa,
    `</usr/share/alsa/alsa.conf>\npcm.tone { type file slave.pcm "null" file "/dev/null" infile "${tone}" format "raw" }\n`,
  );
  const config = join(folder, 'darkice.cfg');
  await writeFile(
    config,
    `[general]\nduration = 4\nbufferSecs = 1\nreconnect = no\nrealtime = no
[input]\ndevice = tone\nsampleRate = 44100\nbitsPerSample = 16\nchannel = 2
[icecast2-0]\nbitrateMode = cbr\nformat = mp3\nbitrate = 128\nserver = 127.0.0.1\nport = ${port}\npassword = secret\nmountPoint = radio\n`,
  );
  const client = runClient(t, 'darkice', ['-c', config], { env: { ...process.env, ALSA_CONFIG_PATH: alsa } });
  const source = await gate.source();
  await source.ended();
  assert.equal(await client.ended, 0, client.output());
  await assertTone(source, 'mp3', { atLeast: 3.8, atMost: 4.3 });
  assert.match(gate.requests[0]!.client, /DarkIce/);
});

test('icecast clients: butt sends from a sound device and updates its title', async (t) => {
  await ensurePackages('butt', 'xvfb', 'libasound2-data');
  const { gate, port } = await setUp(t);
  const folder = await temporaryFolder(t);
  const tone = join(folder, 'tone.raw');
  await writeFile(tone, await makeTone('pcm_s16le', 's16le', { seconds: 30, rateHz: 44_100 }));
  const alsa = join(folder, 'alsa.conf');
  await writeFile(
    alsa,
    `</usr/share/alsa/alsa.conf>\npcm.tone { type file slave.pcm "null" file "/dev/null" infile "${tone}" format "raw" }
pcm.!default { type plug slave { pcm "tone" format S16_LE rate 44100 channels 2 } }\n`,
  );
  const config = join(folder, 'buttrc');
  await writeFile(
    config,
    `[main]\nserver = veza\nnum_of_srv = 1\nnum_of_icy = 0\nsrv_ent = veza\nconnect_at_startup = 1\ngain = 1.0
[audio]\ndevice = default\nsamplerate = 44100\nbitrate = 128\nchannel = 2\ncodec = mp3\nbuffer_ms = 50
[veza]\naddress = 127.0.0.1\nport = ${port}\npassword = secret\ntype = 1\ntls = 0\nmount = radio\nusr = source\n`,
  );
  // The display picks a free number and says which on its fd 1.
  const display = runClient(t, 'Xvfb', ['-displayfd', '1', '-screen', '0', '640x480x24']);
  await once(display.process.stdout!, 'data');
  const env = { ...process.env, DISPLAY: `:${display.output().trim().split('\n').at(-1)}`, ALSA_CONFIG_PATH: alsa, HOME: folder };
  const control = `${(await freePorts(1))[0]}`;
  const client = runClient(t, 'butt', ['-c', config, '-p', control], { env });
  const source = await gate.source();
  await source.until(() => source.sizeBytes > 64_000);
  const update = runClient(t, 'butt', ['-p', control, '-u', 'Füße - Song 2'], { env });
  assert.equal(await update.ended, 0, update.output());
  await gate.until(() => gate.titles.length > 0);
  assert.deepEqual(gate.titles[0]!.update, { artist: 'Füße', title: 'Song 2' });
  assert.match(gate.titles[0]!.request.client, /^butt/);
  await runClient(t, 'butt', ['-p', control, '-d'], { env }).ended;
  assert.equal(await source.ended(), 'closed', client.output());
  // The sound device of this test delivers faster than real time, and then its file is over.
  const heard = await hear(source.bytes.subarray(0, 64_000), 'mp3');
  assert.ok(Math.abs(heard.level(1000, 0.5, 3.5) - 0.088) < 0.005);
});
