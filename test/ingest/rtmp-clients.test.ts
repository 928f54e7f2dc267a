/** Encoders that people use, against the RTMP ports; what arrived is decoded again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ensurePackages } from '../support/packages.js';
import { assertTone, BUNDLED_FFMPEG, DEBIAN_FFMPEG, runClient } from './http-support.js';
import { selfSigned, setUpRtmp } from './rtmp-support.js';

const TONE = ['-f', 'lavfi', '-i', 'sine=frequency=1000:sample_rate=48000:duration=3'];
const PICTURE = ['-f', 'lavfi', '-i', 'testsrc=size=640x360:rate=25:duration=3'];
const SECONDS = { atLeast: 2.9, atMost: 3.2 };

for (const [name, ffmpeg] of [
  ['ffmpeg of Debian', DEBIAN_FFMPEG],
  ['ffmpeg of 2018', BUNDLED_FFMPEG],
] as const) {
  for (const [codec, encoder, format] of [
    ['AAC', 'aac', 'adts'],
    ['MP3', 'libmp3lame', 'mp3'],
  ] as const) {
    test(`${name}: ${codec} with a video track, which is dropped`, async (t) => {
      await ensurePackages('ffmpeg');
      const { gate, port, log } = await setUpRtmp(t);
      const audio = [
        '-ac',
        '2',
        '-ar',
        '44100',
        '-c:a',
        encoder,
        '-b:a',
        '128k',
        '-metadata',
        'title=A tone',
        '-metadata',
        'artist=ffmpeg',
      ];
      const video = ['-c:v', 'libx264', '-preset', 'ultrafast', '-g', '25', '-pix_fmt', 'yuv420p'];
      const output = ['-f', 'flv', `rtmp://127.0.0.1:${port}/live/secret?a=b`];
      const client = runClient(t, ffmpeg, ['-v', 'error', '-re', ...TONE, ...PICTURE, ...audio, ...video, ...output]);
      const source = await gate.source();
      assert.equal(await source.ended(), 'finished');
      assert.equal(await client.ended, 0, client.output());
      assert.deepEqual(source.titles, [{ title: 'A tone', artist: 'ffmpeg' }]);
      assert.deepEqual(log.of('warn'), []);
      assert.deepEqual(
        { ...gate.requests[0], client: '' },
        { protocol: 'rtmp', channel: undefined, streamKey: 'secret', remoteAddress: '127.0.0.1', client: '' },
      );
      assert.match(gate.requests[0]!.client, /^FMLE|^LNX/);
      await assertTone(source, format, SECONDS);
    });
  }
}

test('ffmpeg shows why it was refused', async (t) => {
  await ensurePackages('ffmpeg');
  const { port, log } = await setUpRtmp(t);
  const address = `rtmp://127.0.0.1:${port}/live/wrong`;
  const client = runClient(t, DEBIAN_FFMPEG, ['-v', 'error', '-re', ...TONE, '-c:a', 'aac', '-f', 'flv', address]);
  assert.notEqual(await client.ended, 0);
  assert.match(client.output(), /wrong stream key/);
  assert.deepEqual(log.of('warn'), ['a source was refused: wrong stream key']);
});

test('ffmpeg: a video without sound is refused, and one with Speex', async (t) => {
  await ensurePackages('ffmpeg');
  const { port, log, gate } = await setUpRtmp(t, { limits: { audioMs: 1000 } });
  const address = `rtmp://127.0.0.1:${port}/live/secret`;
  const silent = runClient(t, DEBIAN_FFMPEG, ['-v', 'error', '-re', ...PICTURE, '-c:v', 'flv1', '-f', 'flv', address]);
  await silent.ended;
  const speex = runClient(t, DEBIAN_FFMPEG, [
    '-v',
    'error',
    '-re',
    ...TONE,
    '-ar',
    '16000',
    '-ac',
    '1',
    '-c:a',
    'libspeex',
    '-f',
    'flv',
    address,
  ]);
  await speex.ended;
  assert.deepEqual(log.of('warn'), [
    'a source was refused: no audio in 1 s',
    'a source was refused: Speex is not taken; AAC, MP3, and by Enhanced RTMP Opus and FLAC are',
  ]);
  assert.equal(gate.sources.length, 0);
});

test('ffmpeg: killed in the middle, the source is lost', async (t) => {
  await ensurePackages('ffmpeg');
  const { port, gate } = await setUpRtmp(t);
  const address = `rtmp://127.0.0.1:${port}/live/secret`;
  const client = runClient(t, DEBIAN_FFMPEG, ['-v', 'error', '-re', ...TONE, '-c:a', 'aac', '-f', 'flv', address]);
  const source = await gate.source();
  await source.until(() => source.sizeBytes > 4000);
  client.process.kill('SIGKILL');
  assert.equal(await source.ended(), 'lost');
});

const GST_TONE = ['audiotestsrc', 'is-live=true', 'wave=sine', 'freq=1000', 'volume=0.125', 'num-buffers=130'];
// flvmux takes MP3 at 44.1 kHz and its fractions only.
const GST_CAPS = 'audio/x-raw,rate=44100,channels=2';
// librtmp is what rtmpdump, and OBS in a version of its own, are built on; rtmpsink is GStreamer's way to it.
for (const [name, sink] of [
  ['GStreamer (rtmp2sink)', (port: number) => ['rtmp2sink', `location=rtmp://127.0.0.1:${port}/live/secret`]],
  ['librtmp (rtmpsink)', (port: number) => ['rtmpsink', `location=rtmp://127.0.0.1:${port}/live/secret live=1`]],
] as const) {
  for (const [codec, encoder, format] of [
    ['AAC', ['voaacenc', 'bitrate=128000', '!', 'aacparse'], 'adts'],
    ['MP3', ['lamemp3enc', 'target=bitrate', 'bitrate=128', 'cbr=true', '!', 'mpegaudioparse'], 'mp3'],
  ] as const) {
    test(`${name}: ${codec}`, async (t) => {
      await ensurePackages(
        'gstreamer1.0-tools',
        'gstreamer1.0-plugins-base',
        'gstreamer1.0-plugins-good',
        'gstreamer1.0-plugins-bad',
        'gstreamer1.0-plugins-ugly',
      );
      const { gate, port, log } = await setUpRtmp(t);
      const pipeline = [...GST_TONE, '!', GST_CAPS, '!', ...encoder, '!', 'flvmux', 'streamable=true', '!', ...sink(port)];
      const client = runClient(t, 'gst-launch-1.0', ['-q', ...pipeline]);
      const source = await Promise.race([gate.source(), client.ended.then(() => assert.fail(client.output()))]);
      assert.equal(await source.ended(), 'finished', client.output());
      assert.equal(await client.ended, 0, client.output());
      assert.deepEqual(log.of('warn'), []);
      await assertTone(source, format, { atLeast: 2.8, atMost: 3.2 });
    });
  }
}

test('rtmpdump, which wants to listen, is told where to', async (t) => {
  await ensurePackages('rtmpdump');
  const { port, log } = await setUpRtmp(t);
  const client = runClient(t, 'rtmpdump', ['-V', '-v', '-r', `rtmp://127.0.0.1:${port}/live/secret`, '-o', '/dev/null']);
  await client.ended;
  assert.deepEqual(log.of('warn'), ['a source was refused: this address takes broadcasts; listeners use HLS, DASH or /listen']);
  assert.match(client.output(), /NetStream\.Play\.Failed/);
});

for (const [name, ffmpeg] of [
  ['ffmpeg of Debian', DEBIAN_FFMPEG],
  ['ffmpeg of 2018', BUNDLED_FFMPEG],
] as const) {
  test(`RTMPS: ${name}, with a certificate of our own`, async (t) => {
    await ensurePackages('ffmpeg');
    const { gate, port, log } = await setUpRtmp(t, { tls: await selfSigned(t) });
    const output = ['-c:a', 'aac', '-f', 'flv', `rtmps://127.0.0.1:${port}/live/secret`];
    const client = runClient(t, ffmpeg, ['-v', 'error', '-re', ...TONE, '-ac', '2', ...output]);
    const source = await gate.source();
    assert.equal(await source.ended(), 'finished');
    assert.equal(await client.ended, 0, client.output());
    assert.equal(gate.requests[0]?.protocol, 'rtmps');
    assert.deepEqual(log.of('warn'), []);
    await assertTone(source, 'adts', SECONDS);
  });
}
