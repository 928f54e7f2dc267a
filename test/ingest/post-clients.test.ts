import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { SourceFormat } from '../../src/ingest/source.js';
import { ensurePackages } from '../support/packages.js';
import { assertTone, BUNDLED_FFMPEG, DEBIAN_FFMPEG, makeTone, runClient, setUp, temporaryFolder } from './http-support.js';

const OUTPUTS: readonly [name: string, format: SourceFormat, contentType: string, args: string[]][] = [
  ['MP3', 'mp3', 'audio/mpeg', ['-c:a', 'libmp3lame', '-f', 'mp3']],
  ['ADTS', 'adts', 'audio/aac', ['-c:a', 'aac', '-f', 'adts']],
  ['Ogg Opus', 'ogg', 'audio/ogg', ['-c:a', 'libopus', '-f', 'ogg']],
  ['Ogg Vorbis', 'ogg', 'audio/ogg', ['-c:a', 'libvorbis', '-f', 'ogg']],
  ['Ogg FLAC', 'ogg', 'audio/ogg', ['-c:a', 'flac', '-f', 'ogg']],
  ['WebM', 'matroska', 'audio/webm', ['-c:a', 'libopus', '-f', 'webm']],
  ['FLAC', 'flac', 'audio/flac', ['-c:a', 'flac', '-f', 'flac']],
  ['WAV', 'wav', 'audio/wav', ['-c:a', 'pcm_s16le', '-f', 'wav']],
  ['MP3 under a wrong type', 'mp3', 'video/mp4', ['-c:a', 'libmp3lame', '-f', 'mp3']],
];

// As fast as it goes: two minutes would take half a second, so the source has to be what sets the pace.
const SINE = ['-v', 'error', '-f', 'lavfi', '-i', 'sine=frequency=1000:sample_rate=48000:duration=3', '-ac', '2'];

for (const [build, ffmpeg] of [
  ['Debian', DEBIAN_FFMPEG],
  ['bundled', BUNDLED_FFMPEG],
] as const) {
  for (const [name, format, contentType, args] of OUTPUTS) {
    test(`post clients: ffmpeg (${build}), POST of ${name}`, async (t) => {
      await ensurePackages('ffmpeg');
      const { gate, port } = await setUp(t);
      const http = ['-method', 'POST', '-headers', 'Authorization: Bearer secret\r\n', '-content_type', contentType];
      const client = runClient(t, ffmpeg, [...SINE, ...args, ...http, `http://127.0.0.1:${port}/ingest/radio`]);
      const source = await gate.source();
      assert.equal(await source.ended(), 'finished', client.output());
      assert.equal(await client.ended, 0, client.output());
      await assertTone(source, format, { atLeast: 2.9, atMost: 3.2 });
      assert.equal(gate.requests[0]!.protocol, 'post');
    });
  }

  test(`post clients: ffmpeg (${build}), PUT in chunks with the key in the address`, async (t) => {
    await ensurePackages('ffmpeg');
    const { gate, port } = await setUp(t);
    const address = `http://source:secret@127.0.0.1:${port}/radio`;
    // It asks without a key first and comes again after the 401, unless it is told to send the key at once.
    const http = ['-method', 'PUT', '-auth_type', 'basic', '-content_type', 'audio/mpeg'];
    const client = runClient(t, ffmpeg, [...SINE, '-c:a', 'libmp3lame', '-f', 'mp3', ...http, address]);
    const source = await gate.source();
    assert.equal(await source.ended(), 'finished', client.output());
    await assertTone(source, 'mp3', { atLeast: 2.9, atMost: 3.2 });
  });
}

test('post clients: ffmpeg is told that its key is wrong', async (t) => {
  await ensurePackages('ffmpeg');
  const { port } = await setUp(t);
  const address = `icecast://source:wrong@127.0.0.1:${port}/radio`;
  const client = runClient(t, DEBIAN_FFMPEG, [...SINE, '-c:a', 'libmp3lame', '-f', 'mp3', address]);
  assert.notEqual(await client.ended, 0);
  assert.match(client.output(), /401/);
});

for (const [name, args] of [
  ['PUT with a length', ['-T', 'FILE', '-u', 'source:secret', 'ADDRESS/radio']],
  ['PUT in chunks', ['-T', 'FILE', '-H', 'Transfer-Encoding: chunked', '-u', 'source:secret', 'ADDRESS/radio']],
  ['POST with a length', ['--data-binary', '@FILE', '-H', 'Authorization: Bearer secret', 'ADDRESS/ingest/radio']],
] as const) {
  test(`post clients: curl, ${name}, is held to the pace of a slow source and then told 200`, async (t) => {
    await ensurePackages('curl', 'ffmpeg');
    const { gate, port } = await setUp(t);
    gate.slow = true;
    const file = join(await temporaryFolder(t), 'show.wav');
    const bytes = await makeTone('pcm_s16le', 'wav', { seconds: 60 });
    await writeFile(file, bytes);
    const filled = args.map((arg) => arg.replace('FILE', file).replace('ADDRESS', `http://127.0.0.1:${port}`));
    const client = runClient(t, 'curl', ['-sS', '-w', '%{http_code}', ...filled]);
    const source = await gate.source();
    let drains = 0;
    while (source.how === undefined) {
      const before = source.sizeBytes;
      source.events.onDrain();
      await source.until(() => source.sizeBytes > before || source.how !== undefined);
      drains++;
    }
    assert.ok(drains > bytes.length / (128 * 1024), `${drains} drains`);
    assert.equal(await client.ended, 0, client.output());
    assert.match(client.output(), /200$/);
    assert.equal(source.how, 'finished');
    assert.ok(source.bytes.equals(bytes));
  });
}

test('post clients: curl is told 415 with the list, and why', async (t) => {
  await ensurePackages('curl', 'ffmpeg');
  const { port } = await setUp(t);
  const file = join(await temporaryFolder(t), 'show.mp4');
  await writeFile(file, await makeTone('aac', 'ipod', { seconds: 1, more: ['-movflags', 'frag_keyframe+empty_moov'] }));
  const address = `http://127.0.0.1:${port}/ingest/radio`;
  const client = runClient(t, 'curl', [
    '-sS',
    '-w',
    '%{http_code}',
    '--data-binary',
    `@${file}`,
    '-H',
    'Authorization: Bearer secret',
    address,
  ]);
  assert.equal(await client.ended, 0, client.output());
  assert.match(client.output(), /"code":"unsupported_media".*MP4; taken are MP3, AAC as ADTS.*\n415$/s);
});
