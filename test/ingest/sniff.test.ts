import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import fc from 'fast-check';
import { OggScanner } from '../../src/ingest/ogg.js';
import { type Sniffed, Sniffer } from '../../src/ingest/sniff.js';
import type { SourceFormat, TitleUpdate } from '../../src/ingest/source.js';
import { ensurePackages } from '../support/packages.js';
import { BUNDLED_FFMPEG, collect, DEBIAN_FFMPEG, hear, makeTone } from './http-support.js';

const LIMITS = { sniffBytes: 64 * 1024, id3Bytes: 16 * 1024 * 1024 };

before(() => ensurePackages('ffmpeg'));

/** The verdict, and how many bytes it took. */
function sniff(bytes: Uint8Array, step = bytes.length || 1, contentType = '', limits = LIMITS): { result: Sniffed; used: number } {
  const sniffer = new Sniffer(limits, contentType);
  for (let at = 0; at < bytes.length; at += step) {
    const result = sniffer.push(Buffer.from(bytes.subarray(at, at + step)));
    if (result) return { result, used: Math.min(at + step, bytes.length) };
  }
  return { result: sniffer.end(), used: bytes.length };
}

function formatOf(bytes: Uint8Array, step?: number): SourceFormat | string {
  const { result } = sniff(bytes, step);
  return result.kind === 'format' ? result.format : result.message;
}

const TAKEN: readonly [name: string, codec: string, container: string, format: SourceFormat, more?: string[]][] = [
  ['MP3', 'libmp3lame', 'mp3', 'mp3'],
  ['MP3 without an ID3 tag', 'libmp3lame', 'mp3', 'mp3', ['-id3v2_version', '0', '-write_xing', '0']],
  ['MP3 at 24 kHz', 'libmp3lame', 'mp3', 'mp3', ['-ar', '24000', '-b:a', '48k']],
  ['MP3 at 11.025 kHz', 'libmp3lame', 'mp3', 'mp3', ['-ar', '11025', '-b:a', '32k']],
  ['MP3 with a changing bitrate', 'libmp3lame', 'mp3', 'mp3', ['-q:a', '4']],
  ['ADTS', 'aac', 'adts', 'adts'],
  ['Ogg Opus', 'libopus', 'ogg', 'ogg'],
  ['Ogg Vorbis', 'libvorbis', 'ogg', 'ogg'],
  ['Ogg FLAC', 'flac', 'ogg', 'ogg'],
  ['WebM', 'libopus', 'webm', 'matroska'],
  ['live WebM', 'libopus', 'webm', 'matroska', ['-live', '1']],
  ['Matroska', 'flac', 'matroska', 'matroska'],
  ['FLAC', 'flac', 'flac', 'flac'],
  ['WAV', 'pcm_s16le', 'wav', 'wav'],
];

for (const [name, codec, container, format, more] of TAKEN) {
  test(`sniff: ${name}, whole and byte by byte`, async () => {
    const bytes = await makeTone(codec, container, { seconds: 1, ...(more ? { more } : {}) });
    assert.equal(formatOf(bytes), format);
    const slow = sniff(bytes, 1);
    assert.equal(slow.result.kind === 'format' && slow.result.format, format);
    assert.ok(slow.used < 4096, `${slow.used} bytes were needed`);
    if (slow.result.kind === 'format' && !bytes.subarray(0, 3).equals(Buffer.from('ID3'))) {
      assert.deepEqual(slow.result.bytes, bytes.subarray(0, slow.used), 'nothing is lost');
    }
  });
}

test('sniff: MP3 and ADTS that are joined in mid-frame', async () => {
  const mp3 = await makeTone('libmp3lame', 'mp3', { seconds: 2, more: ['-id3v2_version', '0'] });
  const adts = await makeTone('aac', 'adts', { seconds: 2 });
  for (const cut of [1, 100, 333, 1000, 5001]) {
    assert.equal(formatOf(mp3.subarray(cut)), 'mp3', `MP3 from ${cut}`);
    assert.equal(formatOf(mp3.subarray(cut), 1), 'mp3');
    assert.equal(formatOf(adts.subarray(cut)), 'adts', `ADTS from ${cut}`);
  }
});

/** An ID3v2.3 tag of `size` bytes in all. */
function id3(size: number): Buffer {
  const body = size - 10;
  return Buffer.concat([
    Buffer.from('ID3\x03\0\0', 'latin1'),
    Buffer.from([21, 14, 7, 0].map((shift) => (body >> shift) & 127)),
    Buffer.alloc(body, 0xff),
  ]);
}

test('sniff: ID3 tags are dropped, also large, several and before ADTS; one byte past the limit is refused', async () => {
  const mp3 = await makeTone('libmp3lame', 'mp3', { seconds: 1, more: ['-id3v2_version', '0'] });
  const adts = await makeTone('aac', 'adts', { seconds: 1 });
  for (const step of [1, 1000, 1 << 20]) {
    const two = sniff(Buffer.concat([id3(100_000), id3(20), mp3]), step).result;
    assert.ok(two.kind === 'format' && two.format === 'mp3');
    assert.deepEqual(two.bytes, mp3.subarray(0, two.bytes.length));
    assert.equal(formatOf(Buffer.concat([id3(300), adts]), step), 'adts');
  }
  const limits = { ...LIMITS, id3Bytes: 1000 };
  assert.equal(sniff(Buffer.concat([id3(1000), mp3]), 64, '', limits).result.kind, 'format');
  assert.equal(sniff(Buffer.concat([id3(1001), mp3]), 64, '', limits).result.kind, 'refused');
  assert.equal(sniff(Buffer.concat([id3(600), id3(401), mp3]), 64, '', limits).result.kind, 'refused');
});

test('sniff: what is not taken is refused by name, with the list', async () => {
  const mp4 = await makeTone('aac', 'mp4', { seconds: 1, more: ['-movflags', 'frag_keyframe+empty_moov'] });
  assert.match(formatOf(mp4), /MP4; taken are MP3, AAC as ADTS, Ogg/);
  assert.ok(sniff(mp4, 1).used <= 8);
  assert.match(formatOf(await makeTone('mp2', 'mp2', { seconds: 1 })), /not layer 3/);
  assert.match(formatOf(await makeTone('aac', 'flv', { seconds: 1 })), /FLV/);
  assert.match(formatOf(Buffer.from('ffd8ffe000104a464946', 'hex')), /JPEG/);
  assert.match(formatOf(Buffer.from('RIFF\x10\0\0\0AVI LIST')), /not WAV/);
  assert.match(formatOf(await makeTone('libspeex', 'ogg', { seconds: 1, channels: 1, rateHz: 16_000 })), /Ogg without/);
  const video = ['-f', 'lavfi', '-i', 'testsrc=duration=1:size=64x64:rate=5', '-c:v', 'libvpx', '-f', 'webm', 'pipe:1'];
  assert.match(formatOf(await collect(DEBIAN_FFMPEG, ['-v', 'error', ...video])), /no audio/);
  assert.match(formatOf(Buffer.from('just some text')), /not a format/);
  assert.match(formatOf(Buffer.alloc(0)), /not a format/);
});

test('sniff: the window ends, and no later', () => {
  const limits = { ...LIMITS, sniffBytes: 1000 };
  assert.deepEqual(sniff(Buffer.alloc(2000, 'a'), 1, '', limits), {
    result: { kind: 'refused', message: (sniff(Buffer.alloc(0)).result as { message: string }).message },
    used: 1000,
  });
  assert.equal(sniff(Buffer.alloc(200_000, 0xff), 1).used <= 64 * 1024, true);
});

test('sniff: any bytes give the same verdict however they are cut', () => {
  const start = fc.constantFrom(
    '',
    'OggS\0\x02',
    'fLaC',
    'RIFF',
    'ID3\x03\0\0\0\0\0\x05',
    '\x1aE\xdf\xa3',
    '\xff\xfb\x90\x44',
    '\xff\xf1\x50\x80',
  );
  fc.assert(
    fc.property(start, fc.uint8Array({ maxLength: 400 }), fc.integer({ min: 1, max: 50 }), (magic, tail, step) => {
      const bytes = Buffer.concat([Buffer.from(magic, 'latin1'), tail]);
      const limits = { sniffBytes: 256, id3Bytes: 100 };
      const verdict = ({ result }: { result: Sniffed }) => (result.kind === 'format' ? result.format : 'refused');
      assert.equal(verdict(sniff(bytes, step, '', limits)), verdict(sniff(bytes, 1, '', limits)));
    }),
    { numRuns: 1000 },
  );
});

/** Everything that comes out, with a bar where a new decoder begins. */
function scan(bytes: Buffer, step: number): { decoders: Buffer[]; titles: TitleUpdate[] } {
  const decoders: Buffer[][] = [[]];
  const titles: TitleUpdate[] = [];
  const scanner = new OggScanner({
    bytes: (piece) => decoders.at(-1)!.push(Buffer.from(piece)),
    newDecoder: () => decoders.push([]),
    title: (update) => titles.push(update),
    refuse: (reason) => {
      throw new Error(reason);
    },
  });
  for (let at = 0; at < bytes.length; at += step) scanner.push(bytes.subarray(at, at + step));
  scanner.end();
  return { decoders: decoders.map((pieces) => Buffer.concat(pieces)), titles };
}

const titled = (title: string, artist: string) => ['-metadata', `title=${title}`, '-metadata', `artist=${artist}`];

for (const codec of ['libopus', 'libvorbis', 'flac']) {
  for (const [other, channels, rateHz] of [
    ['alike', 2, 48_000],
    ['with another channel count', 1, 48_000],
    ['with another rate', 2, 24_000],
  ] as const) {
    test(`sniff: chained Ogg ${codec}, ${other}: titles, and both songs are heard with both builds`, async () => {
      const first = await makeTone(codec, 'ogg', { more: titled('Première', 'Anna') });
      const second = await makeTone(codec, 'ogg', { hz: 500, channels, rateHz, more: titled('Second', 'Ben') });
      const bytes = Buffer.concat([first, second]);
      const whole = scan(bytes, bytes.length);
      assert.deepEqual(whole.titles, [
        { title: 'Première', artist: 'Anna' },
        { title: 'Second', artist: 'Ben' },
      ]);
      for (const step of [1, 27, 1000]) assert.deepEqual(scan(bytes, step), whole, `in steps of ${step}`);
      assert.deepEqual(Buffer.concat(whole.decoders), bytes, 'nothing is changed');
      const split = codec === 'libopus' && channels === 1;
      assert.deepEqual(
        whole.decoders.map((part) => part.length),
        split ? [first.length, second.length] : [bytes.length],
      );
      for (const ffmpeg of [DEBIAN_FFMPEG, BUNDLED_FFMPEG]) {
        const parts = await Promise.all(whole.decoders.map((part) => hear(part, 'ogg', ffmpeg)));
        const seconds = parts.reduce((sum, part) => sum + part.seconds, 0);
        assert.ok(Math.abs(seconds - 6) < 0.06, `${seconds} s`);
        const [one, two] = [parts[0]!, parts.at(-1)!];
        assert.ok(Math.abs(one.level(1000, 0.5, 2.5) - 0.088) < 0.005, `first: ${one.level(1000, 0.5, 2.5)}`);
        const at = two.seconds - 2.5;
        assert.ok(Math.abs(two.level(500, at, at + 2) - 0.088) < 0.005, `second: ${two.level(500, at, at + 2)}`);
      }
    });
  }
}

test('sniff: a chain into another codec gets a new decoder', async () => {
  const opus = await makeTone('libopus', 'ogg');
  const vorbis = await makeTone('libvorbis', 'ogg', { more: titled('Next', '') });
  const { decoders, titles } = scan(Buffer.concat([opus, vorbis]), 777);
  assert.deepEqual(decoders, [opus, vorbis]);
  assert.deepEqual(titles, [{ title: 'Next' }]);
});

test('sniff: comments over several pages and longer than what is looked at', async () => {
  const long = await makeTone('libopus', 'ogg', { more: [...titled('Here', 'Me'), '-metadata', `comment=${'x'.repeat(100_000)}`] });
  const { decoders, titles } = scan(long, 1000);
  assert.deepEqual(titles, [{ title: 'Here', artist: 'Me' }]);
  assert.deepEqual(decoders, [long]);
});

test('sniff: broken Ogg passes unchanged, and the scanner finds its way back', async () => {
  const one = await makeTone('libopus', 'ogg', { more: titled('One', '') });
  const two = await makeTone('libopus', 'ogg', { more: titled('Two', '') });
  const bytes = Buffer.concat([one.subarray(0, one.length - 700), Buffer.from('garbage Ogg OggX'), two.subarray(0, two.length - 5)]);
  for (const step of [1, 500, bytes.length]) {
    const { decoders, titles } = scan(bytes, step);
    assert.deepEqual(Buffer.concat(decoders), bytes);
    assert.equal(titles[0]?.title, 'One');
  }
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(one.length - 1), fc.nat(255)), { maxLength: 20 }),
      fc.integer({ min: 1, max: 5000 }),
      (changes, step) => {
        const broken = Buffer.from(one);
        for (const [at, value] of changes) broken[at] = value;
        assert.deepEqual(Buffer.concat(scan(broken, step).decoders), broken);
      },
    ),
    { numRuns: 100 },
  );
});

/** A WAV of `format` bytes with a little silence. */
function wav(
  options: { tag?: number; channels?: number; rateHz?: number; bits?: number; frameBytes?: number; before?: Buffer } = {},
): Buffer {
  const { tag = 1, channels = 2, rateHz = 48_000, bits = 16, before = Buffer.alloc(0) } = options;
  const { frameBytes = (channels * bits) / 8 } = options;
  const format = Buffer.alloc(24);
  format.write('fmt ');
  format.writeUInt32LE(16, 4);
  format.writeUInt16LE(tag, 8);
  format.writeUInt16LE(channels, 10);
  format.writeUInt32LE(rateHz, 12);
  format.writeUInt32LE((rateHz * frameBytes) >>> 0, 16);
  format.writeUInt16LE(frameBytes & 0xffff, 20);
  format.writeUInt16LE(bits, 22);
  return Buffer.concat([Buffer.from('RIFF\xff\xff\xff\xffWAVE', 'latin1'), before, format, Buffer.from('data\0\0\0\0'), Buffer.alloc(400)]);
}

test('sniff: sample rates and channel counts are taken up to their bounds, and refused one past them, in every container', async () => {
  for (const rateHz of [8000, 192_000]) assert.equal(formatOf(wav({ rateHz })), 'wav');
  for (const rateHz of [0, 1, 7, 7999, 192_001, 300_000_000, 0xffffffff])
    assert.match(formatOf(wav({ rateHz })), /sample rate of \d+ Hz; taken/);
  assert.equal(formatOf(wav({ channels: 8 })), 'wav');
  for (const channels of [0, 9, 60, 8191]) assert.match(formatOf(wav({ channels })), /of \d+ channels/);
  assert.match(formatOf(wav({ channels: 2, frameBytes: 65_535 })), /another length/);
  assert.match(formatOf(wav({ bits: 12, frameBytes: 3 })), /12 bits/);
  // What encoders write before the format is stepped over.
  const before = Buffer.concat([Buffer.from('JUNK\x1b\0\0\0', 'latin1'), Buffer.alloc(28)]);
  assert.equal(formatOf(wav({ before }), 1), 'wav');
  assert.match(formatOf(wav({ before, rateHz: 1 }), 1), /sample rate of 1 Hz/);

  const flac = await makeTone('flac', 'flac', { seconds: 1 });
  const oggFlac = await makeTone('flac', 'ogg', { seconds: 1 });
  const matroska = await makeTone('flac', 'matroska', { seconds: 1 });
  for (const bytes of [flac, oggFlac, matroska]) {
    // STREAMINFO has 20 bits of rate behind its first ten bytes.
    const at = bytes.indexOf('fLaC', 0, 'latin1') + 8 + 10;
    for (const hz of [1, 7999, 192_001, 655_350]) {
      const odd = Buffer.from(bytes);
      odd.writeUIntBE((hz << 4) | (odd.readUIntBE(at, 3) & 15), at, 3);
      assert.match(formatOf(odd), /sample rate of \d+ Hz/);
    }
  }
  const vorbis = await makeTone('libvorbis', 'ogg', { seconds: 1 });
  const at = vorbis.indexOf('\x01vorbis', 0, 'latin1');
  for (const [write, expected] of [
    [(bytes: Buffer) => bytes.writeUInt32LE(1, at + 12), /sample rate of 1 Hz/],
    [(bytes: Buffer) => bytes.writeUInt32LE(0x7fffffff, at + 12), /sample rate of 2147483647 Hz/],
    [(bytes: Buffer) => bytes.writeUInt8(255, at + 11), /255 channels/],
  ] as const) {
    const odd = Buffer.from(vorbis);
    write(odd);
    assert.match(formatOf(odd), expected);
    // A link in the middle of a stream is looked at as well as the first one.
    assert.throws(() => scan(Buffer.concat([vorbis, odd]), 777), expected);
  }
});

test('sniff: codecs that are not taken are named, whatever carries them', async () => {
  assert.match(formatOf(wav({ tag: 0x161 })), /codec 0x0161; taken/);
  for (const codec of ['ac3', 'wmav2', 'alac', 'mp2'] as const) {
    assert.match(formatOf(await makeTone(codec, 'matroska', { seconds: 1 })), /Matroska with the codec "A_[A-Z0-9/_]+"; taken/);
  }
  for (const codec of ['adpcm_ms', 'adpcm_ima_wav'] as const) {
    assert.match(formatOf(await makeTone(codec, 'wav', { seconds: 1 })), /WAV with the codec 0x00(02|11)/);
  }
  for (const codec of ['pcm_u8', 'pcm_s24le', 'pcm_f32le', 'pcm_alaw', 'pcm_mulaw'] as const) {
    assert.equal(formatOf(await makeTone(codec, 'wav', { seconds: 1 })), 'wav');
  }
  for (const codec of ['aac', 'libmp3lame', 'libvorbis', 'libopus', 'pcm_s16le'] as const) {
    assert.equal(formatOf(await makeTone(codec, 'matroska', { seconds: 1 })), 'matroska');
  }
});

test('sniff: more than sixteen ID3 tags are refused, however they are cut; a byte is copied once', async () => {
  const mp3 = await makeTone('libmp3lame', 'mp3', { seconds: 1, more: ['-id3v2_version', '0'] });
  const empty = id3(10);
  for (const step of [1, 7, 1 << 20]) {
    assert.equal(formatOf(Buffer.concat([...Array(16).fill(empty), mp3]), step), 'mp3');
    assert.match(formatOf(Buffer.concat([...Array(17).fill(empty), mp3]), step), /more than 16 ID3 tags/);
  }
});

test('sniff: what comes in pieces of a byte is not looked at again from its start with each', (t) => {
  const page = Buffer.concat([Buffer.from('OggS\0\x02', 'latin1'), Buffer.alloc(21)]);
  const chunk = Buffer.from('JUNK\0\0\0\0', 'latin1');
  for (const [head, piece] of [
    [page, page],
    [Buffer.from('RIFF\0\0\0\0WAVE', 'latin1'), chunk],
  ] as const) {
    const bytes = Buffer.concat([head, ...Array(Math.floor(8000 / piece.length)).fill(piece)]);
    const read = t.mock.method(Buffer.prototype, 'toString');
    const { used } = sniff(bytes, 1);
    assert.equal(used, bytes.length);
    assert.ok(read.mock.callCount() < 5 * bytes.length, `${read.mock.callCount()} texts read from ${bytes.length} bytes`);
    read.mock.restore();
  }
});
