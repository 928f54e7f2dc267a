import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type DecodableFormat, Ffmpeg } from '../../src/backing/ffmpeg.js';
import { LADDER } from '../../src/media/ladder.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { randomOf } from '../support/long.js';
import { ensurePackages } from '../support/packages.js';
import { unexpectedIn } from '../support/unexpected.js';

test('an ffmpeg that works passes; one that is missing or is something else is named, with what is wrong', async () => {
  const clock = new SystemClock();
  await new Ffmpeg(undefined).check(LADDER, clock);
  const folder = await mkdtemp(join(tmpdir(), 'veza-ffmpeg-'));
  const other = join(folder, 'something-else');
  await writeFile(other, '#!/bin/sh\necho "no such encoder: libopus" >&2\nexit 1\n');
  await chmod(other, 0o755);
  const silent = join(folder, 'silent');
  await writeFile(silent, '#!/bin/sh\ncat > /dev/null\n');
  await chmod(silent, 0o755);
  for (const [path, reason] of [
    [join(folder, 'missing'), /FFMPEG_PATH: .*missing does not work/],
    [other, /no such encoder: libopus/],
    [silent, /it puts nothing out/],
  ] as const) {
    await assert.rejects(new Ffmpeg(path).check(LADDER, clock), reason);
  }
  await rm(folder, { recursive: true });
});

/** What a decoder makes of bytes: how many of PCM, and its last words. */
function decode(ffmpeg: Ffmpeg, format: DecodableFormat, bytes: Uint8Array): Promise<{ pcmBytes: number; error: string | undefined }> {
  return new Promise((resolve) => {
    let pcmBytes = 0;
    const transform = ffmpeg.decoder(format, {
      onData: (data) => {
        pcmBytes += data.length;
      },
      onExit: (error) => resolve({ pcmBytes, error }),
    });
    transform.write(bytes);
    transform.end();
  });
}

const encode = (...args: string[]) =>
  execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'sine=440:duration=1:sample_rate=48000', ...args, 'pipe:1'], {
    maxBuffer: 1 << 26,
  });

for (const [name, path] of [
  ['the bundled ffmpeg', undefined],
  ["Debian's ffmpeg", '/usr/bin/ffmpeg'],
] as const) {
  test(`${name} decodes what is listed, and refuses by name the codecs that are not`, async () => {
    await ensurePackages('ffmpeg');
    const ffmpeg = new Ffmpeg(path);
    const taken: [DecodableFormat, string[]][] = [
      ['adts', ['-c:a', 'aac', '-f', 'adts']],
      ['loas', ['-c:a', 'aac', '-f', 'latm']],
      ['mp3', ['-c:a', 'libmp3lame', '-f', 'mp3']],
      ['flac', ['-c:a', 'flac', '-f', 'flac']],
      ...['libopus', 'libvorbis', 'flac'].map((codec): [DecodableFormat, string[]] => ['ogg', ['-c:a', codec, '-f', 'ogg']]),
      ...['libopus', 'libvorbis', 'flac', 'aac', 'libmp3lame', 'pcm_s16le', 'pcm_f32le'].map((codec): [DecodableFormat, string[]] => [
        'matroska',
        ['-c:a', codec, '-f', 'matroska'],
      ]),
      ...['pcm_u8', 'pcm_s16le', 'pcm_s24le', 'pcm_s32le', 'pcm_f32le', 'pcm_f64le', 'pcm_alaw', 'pcm_mulaw'].map(
        (codec): [DecodableFormat, string[]] => ['wav', ['-c:a', codec, '-f', 'wav']],
      ),
    ];
    for (const [format, args] of taken) {
      const { pcmBytes, error } = await decode(ffmpeg, format, encode(...args));
      assert.ok(pcmBytes > 180_000, `${format} ${args.join(' ')}: ${pcmBytes} bytes, ${error}`);
    }
    const refused: [DecodableFormat, string[]][] = [
      ...['ac3', 'wmav2', 'alac', 'mp2', 'adpcm_ms', 'truehd', 'pcm_s16be'].map((codec): [DecodableFormat, string[]] => [
        'matroska',
        ['-c:a', codec, '-ac', '2', '-strict', '-2', '-f', 'matroska'],
      ]),
      ...['adpcm_ima_wav', 'wmav1', 'ac3'].map((codec): [DecodableFormat, string[]] => ['wav', ['-c:a', codec, '-f', 'wav']]),
      ['mp3', ['-c:a', 'mp2', '-f', 'mp2']],
    ];
    for (const [format, args] of refused) {
      const { pcmBytes, error } = await decode(ffmpeg, format, encode(...args));
      assert.equal(pcmBytes, 0, `${format} ${args.join(' ')}`);
      if (format !== 'mp3') assert.match(error ?? '', /^the codec \w+ is not taken$/);
    }
  });

  test(`${name}: a decoder that is led past the checks of its headers does not get the memory that it asks for`, async () => {
    const ffmpeg = new Ffmpeg(path);
    for (const rateHz of [1, 7, 2_147_483_647]) {
      const bytes = encode('-c:a', 'pcm_u8', '-bitexact', '-f', 'wav');
      bytes.writeUInt32LE(rateHz, 24);
      // 4 KB at 1 Hz are more than an hour of sound; ffmpeg gives up where it would need a block of hundreds of MB.
      const { pcmBytes } = await decode(ffmpeg, 'wav', bytes.subarray(0, 4096));
      assert.ok(pcmBytes < 32 * 1024 * 1024, `${pcmBytes} bytes at ${rateHz} Hz`);
    }
  });
}

test('a decoder that ends with an error has given everything that it made before, however slowly it is read', async () => {
  const song = encode('-af', 'aloop=loop=5:size=48000', '-c:a', 'libmp3lame', '-f', 'mp3');
  // Noise with the beginnings of frames in it makes ffmpeg 5 and its versions of 2018 exit with 69 when they are done.
  const random = randomOf(1);
  const noise = Buffer.from(Array.from({ length: 3_000_000 }, () => random() * 256));
  for (let at = 0; at + 4 < noise.length; at += 997) noise.set([0xff, 0xfb, 0x90, 0x64], at);
  let [pcmBytes, isPaused] = [0, false];
  const error = await new Promise<string | undefined>((resolve) => {
    const transform = new Ffmpeg(undefined).decoder('mp3', {
      onData: (data) => {
        pcmBytes += data.length;
        transform.pause();
        isPaused = true;
        setTimeout(() => transform.resume(), 20);
      },
      onExit: resolve,
    });
    transform.write(Buffer.concat([song, noise, song]));
    transform.end();
  });
  assert.ok(isPaused);
  assert.notEqual(error, undefined, 'it has to end badly, or this shows nothing');
  assert.ok(pcmBytes > 11.9 * 192_000, `${pcmBytes / 192_000} s of 12`);
});

test('children see only the environment that they are given', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'veza-ffmpeg-'));
  const spy = join(folder, 'spy');
  await writeFile(spy, `#!/bin/sh\n/usr/bin/env >> ${folder}/seen\nexit 1\n`);
  await chmod(spy, 0o755);
  process.env.JWT_SECRET = 'a-secret-that-no-child-may-see';
  await assert.rejects(new Ffmpeg(spy, { LD_LIBRARY_PATH: '/opt/x' }).check(LADDER, new SystemClock()));
  delete process.env.JWT_SECRET;
  const seen = (await readFile(join(folder, 'seen'), 'utf8')).split('\n').map((line) => line.split('=')[0]);
  assert.ok(seen.includes('LD_LIBRARY_PATH'));
  // The shell's own.
  const own = ['PWD', 'SHLVL', '_', 'OLDPWD', ''];
  assert.deepEqual(
    [...new Set(seen)].filter((name) => name !== 'LD_LIBRARY_PATH' && !own.includes(name ?? '')),
    [],
  );
  await rm(folder, { recursive: true });
});

test('output that cannot be taken ends its child, and its exit says why; the process does not see it as an exception', async (t) => {
  const errors = unexpectedIn(t);
  const ended = await new Promise<string | undefined>((resolve) => {
    const encoder = new Ffmpeg(undefined).encoder(LADDER, {
      onData: () => {
        throw new Error('a defect of whoever takes it');
      },
      onExit: resolve,
    });
    encoder.write(new Uint8Array(48_000 * 4));
  });
  assert.equal(ended, 'a defect of whoever takes it');
  assert.ok(errors.length > 0);
});
