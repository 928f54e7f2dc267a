/** Chunks, AMF and audio tags by themselves: every cut, every limit, any bytes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { adtsFrame, fitsAdts, readAacConfig } from '../../src/ingest/rtmp/aac.js';
import { type Amf, decodeAmf0, encodeAmf0 } from '../../src/ingest/rtmp/amf0.js';
import { AudioUnwrapper, flacFrameSamples } from '../../src/ingest/rtmp/audio.js';
import { ChunkReader, encodeMessage, MESSAGE, type RtmpMessage } from '../../src/ingest/rtmp/chunk.js';
import { RtmpRefusal } from '../../src/ingest/rtmp/errors.js';
import { RTMP_LIMITS } from '../../src/ingest/rtmp/limits.js';
import type { SourceFormat } from '../../src/ingest/source.js';
import { type Frames, toneFrames } from '../support/rtmp-publisher.js';
import { BUNDLED_FFMPEG, DEBIAN_FFMPEG, hear } from './http-support.js';

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

function read(bytes: Buffer, cuts: Iterable<number> = [], limits = {}): RtmpMessage[] {
  const messages: RtmpMessage[] = [];
  const reader = new ChunkReader({ ...RTMP_LIMITS, ...limits }, (message) =>
    messages.push({ ...message, payload: Buffer.from(message.payload) }),
  );
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    reader.push(bytes.subarray(from, cut));
    from = cut;
  }
  if (messages.length > 0) assert.equal(reader.pendingBytes, 0);
  return messages;
}

const refusal = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RtmpRefusal, String(error));
  assert.match(error.message, pattern);
  return true;
};

const pattern = (size: number, from = 0) => Buffer.from(Array.from({ length: size }, (_, i) => (i * 7 + from) & 0xff));
const message = (type: number, payload: Buffer, streamId = 1): RtmpMessage => ({ type, streamId, payload });

// Named chunk streams and what is in them: fixtures for the reader, each is also cut at every byte.
const audio = pattern(300);
const command = encodeAmf0('connect', 1, { app: 'live' });
const chunkOf = (header: string, payload: Buffer) => Buffer.concat([hex(header), payload]);
const FIXTURES: Record<string, { bytes: Buffer; messages: RtmpMessage[] }> = {
  'a message in chunks of 128 bytes': {
    bytes: encodeMessage(4, message(8, audio), 128),
    messages: [message(8, audio)],
  },
  'all four header types': {
    bytes: Buffer.concat([
      chunkOf('04 000000 000003 08 01000000', Buffer.from('abc')),
      chunkOf('44 000017 000002 08', Buffer.from('de')),
      chunkOf('84 000017', Buffer.from('fg')),
      chunkOf('c4', Buffer.from('hi')),
    ]),
    messages: ['abc', 'de', 'fg', 'hi'].map((text) => message(8, Buffer.from(text))),
  },
  'chunk stream ids of two and three bytes': {
    bytes: Buffer.concat([
      chunkOf('00 00 000000 000001 08 01000000', Buffer.from('a')),
      chunkOf('01 ffff 000000 000001 08 01000000', Buffer.from('b')),
      chunkOf('c0 00', Buffer.from('c')),
      chunkOf('c1 ffff', Buffer.from('d')),
    ]),
    messages: ['a', 'b', 'c', 'd'].map((text) => message(8, Buffer.from(text))),
  },
  'two messages interleaved, a new chunk size between them': {
    bytes: Buffer.concat([
      chunkOf('04 000000 000082 08 01000000', audio.subarray(0, 128)),
      encodeMessage(2, message(1, hex('00000003'), 0), 128),
      chunkOf('05 000000 000004 12 01000000', Buffer.from('xyz')),
      chunkOf('c4', audio.subarray(128, 130)),
      chunkOf('c5', Buffer.from('!')),
    ]),
    messages: [message(8, audio.subarray(0, 130)), message(18, Buffer.from('xyz!'))],
  },
  'an extended timestamp, repeated': {
    bytes: Buffer.concat([
      chunkOf('04 ffffff 000082 08 01000000 01000000', audio.subarray(0, 128)),
      chunkOf('c4 01000000', audio.subarray(128, 130)),
      chunkOf('c4 01000000', audio.subarray(0, 128)),
      chunkOf('c4 01000000', audio.subarray(128, 130)),
    ]),
    messages: [message(8, audio.subarray(0, 130)), message(8, audio.subarray(0, 130))],
  },
  'an extended timestamp that is not repeated': {
    bytes: Buffer.concat([
      chunkOf('04 ffffff 000100 08 01000000 01000000', audio.subarray(0, 128)),
      chunkOf('c4', audio.subarray(128, 256)),
      encodeMessage(5, message(8, Buffer.from('next')), 128),
    ]),
    messages: [message(8, audio.subarray(0, 256)), message(8, Buffer.from('next'))],
  },
  'an aborted message': {
    bytes: Buffer.concat([
      chunkOf('04 000000 000100 08 01000000', audio.subarray(0, 128)),
      encodeMessage(2, message(2, hex('00000004'), 0), 128),
      encodeMessage(4, message(8, Buffer.from('whole')), 128),
    ]),
    messages: [message(8, Buffer.from('whole'))],
  },
  'video that is skipped': {
    bytes: Buffer.concat([encodeMessage(6, message(9, pattern(5000)), 128), encodeMessage(4, message(8, Buffer.from('abc')), 128)]),
    messages: [message(8, Buffer.from('abc'))],
  },
  'an aggregate of audio, video and metadata': {
    bytes: encodeMessage(
      4,
      message(
        22,
        Buffer.concat([
          chunkOf('08 000003 000000 00 000000', Buffer.from('abc')),
          hex('0000000e'),
          chunkOf('09 000080 000000 00 000000', pattern(128)),
          hex('0000008b'),
          chunkOf('12 000002 000000 00 000000', Buffer.from('de')),
          hex('0000000d'),
        ]),
      ),
      128,
    ),
    messages: [message(8, Buffer.from('abc')), message(18, Buffer.from('de'))],
  },
  'empty messages': {
    bytes: Buffer.concat([encodeMessage(4, message(8, Buffer.alloc(0)), 128), hex('c4'), encodeMessage(3, message(20, command, 0), 128)]),
    messages: [message(8, Buffer.alloc(0)), message(8, Buffer.alloc(0)), message(20, command, 0)],
  },
};

for (const [name, fixture] of Object.entries(FIXTURES)) {
  test(`chunks: ${name}; whole, cut at every byte, and one byte at a time`, () => {
    assert.deepEqual(read(fixture.bytes), fixture.messages);
    for (let cut = 1; cut < fixture.bytes.length; cut++) assert.deepEqual(read(fixture.bytes, [cut]), fixture.messages, `cut at ${cut}`);
    assert.deepEqual(read(fixture.bytes, Array.from(fixture.bytes.keys())), fixture.messages);
  });
}

test('chunks: a reader that pauses goes on with the rest', () => {
  const bytes = Buffer.concat([
    encodeMessage(4, message(8, Buffer.from('one')), 128),
    encodeMessage(4, message(8, Buffer.from('two')), 128),
  ]);
  const seen: string[] = [];
  const reader: ChunkReader = new ChunkReader(RTMP_LIMITS, ({ payload }) => {
    seen.push(`${payload}`);
    reader.pause();
  });
  const used = reader.push(bytes);
  assert.deepEqual(seen, ['one']);
  assert.equal(used, bytes.length / 2);
  assert.equal(reader.push(bytes.subarray(used)), used);
  assert.deepEqual(seen, ['one', 'two']);
});

test('chunks: each limit, and one past it', () => {
  const head = (type: number, size: number) => {
    const bytes = hex('04 000000 000000 00 01000000');
    bytes.writeUIntBE(size, 4, 3);
    bytes[7] = type;
    return bytes;
  };
  for (const [type, limit] of [
    [MESSAGE.audio, RTMP_LIMITS.audioBytes],
    [MESSAGE.command, RTMP_LIMITS.commandBytes],
    [MESSAGE.commandAmf3, RTMP_LIMITS.commandBytes],
    [MESSAGE.data, RTMP_LIMITS.commandBytes],
    [MESSAGE.userControl, RTMP_LIMITS.commandBytes],
  ] as const) {
    read(head(type, limit));
    assert.throws(() => read(head(type, limit + 1)), refusal(/bytes; \d+ are taken/), `type ${type}`);
  }
  read(head(MESSAGE.video, 1000), [], { skippedBytes: 1000 });
  assert.throws(() => read(head(MESSAGE.video, 1001), [], { skippedBytes: 1000 }), refusal(/1001 bytes/));
  const chunkSize = (size: number) => {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(size);
    return encodeMessage(2, message(1, payload, 0), 128);
  };
  read(chunkSize(1));
  read(chunkSize(RTMP_LIMITS.chunkBytes));
  for (const size of [0, RTMP_LIMITS.chunkBytes + 1, 0x80000000, 0xffffffff])
    assert.throws(() => read(chunkSize(size)), refusal(/chunk size/));
  const streams = (count: number) =>
    Buffer.concat(
      Array.from({ length: count }, (_, index) =>
        chunkOf(`00 ${(index & 255).toString(16).padStart(2, '0')} 000000 000000 08 01000000`, Buffer.alloc(0)),
      ),
    );
  read(streams(RTMP_LIMITS.chunkStreams));
  assert.throws(() => read(streams(RTMP_LIMITS.chunkStreams + 1)), refusal(/chunk streams/));
  const aggregate = (size: number) => {
    const tag = hex('08 000000 000000 00 000000');
    tag.writeUIntBE(size, 1, 3);
    return encodeMessage(4, message(22, tag), 128);
  };
  read(aggregate(RTMP_LIMITS.audioBytes));
  assert.throws(() => read(aggregate(RTMP_LIMITS.audioBytes + 1)), refusal(/are taken/));
});

test('chunks: unfinished messages are bounded together, and held only as far as they came', () => {
  const begun = (streams: number, bytes: number) =>
    Buffer.concat([
      encodeMessage(2, message(1, hex('00010000'), 0), 128),
      ...Array.from({ length: streams }, (_, index) => {
        const header = hex('00 00 000000 010000 08 01000000');
        header[1] = index;
        return Buffer.concat([header, pattern(0x10000 - 1)]);
      }).map((chunk) => chunk.subarray(0, 13 + bytes)),
    ]);
  const reader = new ChunkReader(RTMP_LIMITS, () => assert.fail('nothing is finished'));
  reader.push(begun(1, 40));
  assert.equal(reader.pendingBytes, 40);
  const messages: RtmpMessage[] = [];
  const many = new ChunkReader({ ...RTMP_LIMITS, pendingBytes: 1000 }, (found) => messages.push(found));
  const part = (index: number) => chunkOf(`00 0${index} 000000 0000ff 08 01000000`, pattern(128));
  for (let index = 0; index < 7; index++) many.push(part(index));
  assert.equal(many.pendingBytes, 896);
  assert.throws(() => many.push(part(7)), refusal(/more than 1000 bytes of unfinished messages/));
});

test('chunks: what breaks the protocol is refused', () => {
  for (const bytes of [
    hex('c4'),
    hex('84 000000'),
    Buffer.concat([hex('04 000000 000100 08 01000000'), pattern(128), hex('04 000000 000100 08 01000000')]),
  ]) {
    assert.throws(() => read(bytes), refusal(/chunk stream/));
  }
  assert.throws(() => read(encodeMessage(2, message(1, hex('0001'), 0), 128)), refusal(/less than 4/));
  assert.throws(() => read(encodeMessage(2, message(2, hex('00'), 0), 128)), refusal(/less than 4/));
});

test('chunks: any bytes are messages or a refusal, and what is held is bounded', () => {
  const recorded = Buffer.concat(Object.values(FIXTURES).map((fixture) => fixture.bytes));
  const mutated = fc.array(fc.tuple(fc.nat(recorded.length - 1), fc.nat(255)), { maxLength: 8 }).map((changes) => {
    const bytes = Buffer.from(recorded);
    for (const [at, value] of changes) bytes[at] = value;
    return bytes;
  });
  const random = fc.uint8Array({ maxLength: 4000 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.oneof(random, mutated), fc.integer({ min: 1, max: 300 }), (bytes, step) => {
      let kept = 0;
      const reader = new ChunkReader(RTMP_LIMITS, ({ payload }) => {
        kept += payload.length;
      });
      try {
        for (let at = 0; at < bytes.length; at += step) {
          reader.push(bytes.subarray(at, at + step));
          assert.ok(reader.pendingBytes >= 0 && reader.pendingBytes <= RTMP_LIMITS.pendingBytes);
        }
      } catch (error) {
        if (!(error instanceof RtmpRefusal)) throw error;
      }
      assert.ok(kept <= bytes.length);
    }),
    { numRuns: 2000 },
  );
});

test('AMF 0: what is written is read', () => {
  const values = [
    'connect',
    1,
    -0.5,
    true,
    false,
    null,
    undefined,
    ['a', [1]],
    'x'.repeat(0x10000),
    { app: 'live', __proto__x: 1, deep: { er: [2] } },
  ];
  const plain = (value: Amf): unknown => {
    if (value instanceof Map) return Object.fromEntries([...value].map(([key, member]) => [key, plain(member)]));
    return Array.isArray(value) ? value.map(plain) : value;
  };
  assert.deepEqual(decodeAmf0(encodeAmf0(...values), RTMP_LIMITS).map(plain), values);
  // An ECMA array with a wrong count, a date, a typed object, and metadata without an end.
  const others = hex('08 00000063 0001 61 00 3ff0000000000000 000009  0b 4000000000000000 0000  10 0001 54 000009  03 0001 62 05');
  assert.deepEqual(decodeAmf0(others, RTMP_LIMITS).map(plain), [{ a: 1 }, 2, {}, { b: null }]);
  const names = decodeAmf0(encodeAmf0(JSON.parse('{"__proto__":"x","constructor":"y"}')), RTMP_LIMITS)[0];
  assert.ok(names instanceof Map && names.get('__proto__') === 'x' && names.get('constructor') === 'y');
});

test('AMF 0: each limit, and one past it', () => {
  const nested = (depth: number) => Buffer.concat([Buffer.alloc(depth * 5, hex('0a 00000001')), hex('05')]);
  decodeAmf0(nested(RTMP_LIMITS.amfDepth), RTMP_LIMITS);
  assert.throws(() => decodeAmf0(nested(RTMP_LIMITS.amfDepth + 1), RTMP_LIMITS), refusal(/nested deeper than 8/));
  assert.throws(() => decodeAmf0(nested(10_000), RTMP_LIMITS), refusal(/nested deeper/));
  decodeAmf0(Buffer.alloc(RTMP_LIMITS.amfValues, 5), RTMP_LIMITS);
  assert.throws(() => decodeAmf0(Buffer.alloc(RTMP_LIMITS.amfValues + 1, 5), RTMP_LIMITS), refusal(/more than 1000 values/));
  assert.throws(() => decodeAmf0(hex('0a ffffffff'), RTMP_LIMITS), refusal(/in the middle/));
  assert.throws(() => decodeAmf0(hex('0c ffffffff 61'), RTMP_LIMITS), refusal(/in the middle/));
  assert.throws(() => decodeAmf0(hex('11'), RTMP_LIMITS), refusal(/unknown marker 0x11/));
});

test('AMF 0: any bytes are values or a refusal', () => {
  const recorded = encodeAmf0('@setDataFrame', 'onMetaData', { title: 'a', list: [1, null], more: { x: true } });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 500 }), fc.array(fc.constantFrom(...recorded), { maxLength: 200 })), (bytes) => {
      try {
        decodeAmf0(Buffer.from(bytes), RTMP_LIMITS);
      } catch (error) {
        if (!(error instanceof RtmpRefusal)) throw error;
      }
    }),
    { numRuns: 2000 },
  );
});

interface Unwrapped {
  format: SourceFormat;
  bytes: Buffer;
}

function unwrap(tags: readonly Buffer[]): Unwrapped[] {
  const streams: { format: SourceFormat; chunks: Buffer[] }[] = [];
  const unwrapper = new AudioUnwrapper({
    begin: (format) => streams.push({ format, chunks: [] }),
    write: (bytes) => streams.at(-1)!.chunks.push(Buffer.from(bytes)),
  });
  for (const tag of tags) unwrapper.push(tag);
  return streams.map(({ format, chunks }) => ({ format, bytes: Buffer.concat(chunks) }));
}

const FOURCC = { aac: 'mp4a', mp3: '.mp3', opus: 'Opus', flac: 'fLaC' } as const;
type Wrap = (sound: Frames, packetType: number, body: Buffer) => Buffer;
const plain: Wrap = (sound, type, body) =>
  Buffer.concat([Buffer.from(`${String.fromCharCode(0x90 | type)}${FOURCC[sound.codec]}`, 'latin1'), body]);
const size24 = (size: number) => Buffer.from([size >> 16, (size >> 8) & 255, size & 255]);
const WRAPS: Record<string, Wrap> = {
  'Enhanced RTMP': plain,
  'with a time offset in ModEx': (sound, type, body) =>
    Buffer.concat([hex('97 02 000001'), Buffer.from([type]), Buffer.from(FOURCC[sound.codec], 'latin1'), body]),
  'with a ModEx of 300 bytes': (sound, type, body) =>
    Buffer.concat([hex('97 ff 012b'), Buffer.alloc(300), Buffer.from([0x10 | type]), Buffer.from(FOURCC[sound.codec], 'latin1'), body]),
  'as one track': (sound, type, body) =>
    Buffer.concat([hex('95'), Buffer.from([type]), Buffer.from(FOURCC[sound.codec], 'latin1'), hex('00'), body]),
  'as the second of two tracks': (sound, type, body) =>
    Buffer.concat([
      hex('95'),
      Buffer.from([0x10 | type]),
      Buffer.from(FOURCC[sound.codec], 'latin1'),
      hex('01 000003 aabbcc 00'),
      size24(body.length),
      body,
    ]),
  'as one of two tracks of two codecs': (sound, type, body) =>
    Buffer.concat([
      hex('95'),
      Buffer.from([0x20 | type]),
      Buffer.from(FOURCC[sound.codec], 'latin1'),
      hex('00'),
      size24(body.length),
      body,
      Buffer.from('ac-3\x01', 'latin1'),
      hex('000001 ff'),
    ]),
};

for (const codec of ['aac', 'mp3', 'opus', 'flac'] as const) {
  test(`audio: ${codec} in every wrapping comes out bare, and sounds`, async () => {
    const sound = await toneFrames(codec, { seconds: 2 });
    const format = ({ aac: 'adts', mp3: 'mp3', opus: 'ogg', flac: 'ogg' } as const)[codec];
    const tags = (wrap: Wrap) => [
      ...(codec === 'mp3' ? [] : [wrap(sound, 0, sound.config)]),
      ...sound.frames.map((frame) => wrap(sound, 1, frame)),
      hex('92'),
    ];
    const [expected, ...others] = unwrap(tags(plain).slice(0, -1));
    assert.equal(others.length, 0);
    assert.equal(expected!.format, format);
    for (const ffmpeg of [DEBIAN_FFMPEG, BUNDLED_FFMPEG]) {
      const heard = await hear(expected!.bytes, format, ffmpeg);
      assert.ok(Math.abs(heard.seconds - 2) < 0.1, `${heard.seconds} s`);
      const level = heard.level(1000, 0.2, heard.seconds - 0.2);
      assert.ok(level > 0.06 && level < 0.14, `level ${level}`);
    }
    for (const [name, wrap] of Object.entries(WRAPS)) assert.deepEqual(unwrap(tags(wrap).slice(0, -1)), [expected], name);
    assert.throws(() => unwrap([hex('92')]), refusal(/cut off/));
    // A sequence header that says the same again is no new stream; one that says something else is.
    const again = tags(plain).slice(0, -1);
    again.splice(10, 0, again[0]!);
    if (codec !== 'mp3') assert.deepEqual(unwrap(again), [expected]);
  });
}

test('audio: the tags of FLV, and a change of format', async () => {
  const aac = await toneFrames('aac', { seconds: 1 });
  const other = await toneFrames('aac', { seconds: 1, rateHz: 44_100, channels: 1 });
  const mp3 = await toneFrames('mp3', { seconds: 1 });
  const flv = (sound: Frames) => [
    Buffer.concat([hex('af00'), sound.config]),
    ...sound.frames.map((frame) => Buffer.concat([hex('af01'), frame])),
  ];
  const streams = unwrap([
    ...flv(aac),
    Buffer.alloc(0),
    hex('af01'),
    ...flv(other),
    ...mp3.frames.map((frame) => Buffer.concat([hex('2f'), frame])),
  ]);
  assert.deepEqual(
    streams.map(({ format }) => format),
    ['adts', 'adts', 'mp3'],
  );
  assert.deepEqual(streams[2]!.bytes, Buffer.concat(mp3.frames));
  for (const { bytes, format } of streams) assert.ok((await hear(bytes, format)).level(1000, 0.2, 0.8) > 0.06);
  // Frames before the first sequence header say nothing.
  assert.deepEqual(unwrap([hex('af0121'), ...flv(aac)]), [streams[0]]);
});

test('audio: ADTS headers for every rate, explicit HE-AAC as its core, and what ADTS cannot say', () => {
  const rates = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
  for (const [index, rateHz] of rates.entries()) {
    const config = readAacConfig(Buffer.from([(2 << 3) | (index >> 1), ((index & 1) << 7) | (2 << 3)]));
    assert.deepEqual(config, { objectType: 2, rateIndex: index, rateHz, channelConfig: 2, shortFrames: false });
    const frame = adtsFrame(config, Buffer.from('frame'));
    assert.equal(frame.readUInt16BE(0), 0xfff1);
    assert.equal((frame[2]! >> 2) & 15, index);
    assert.equal(((frame[3]! & 3) << 11) | (frame[4]! << 3) | (frame[5]! >> 5), 12);
  }
  // HE-AAC, 24 kHz core, 48 kHz out; HE-AAC v2 of one channel; a rate in 24 bits that is in the table.
  assert.deepEqual(readAacConfig(hex('2b 11 88 00')), {
    objectType: 2,
    rateIndex: 6,
    rateHz: 24_000,
    channelConfig: 2,
    shortFrames: false,
  });
  assert.deepEqual(readAacConfig(hex('eb 09 88 00')), {
    objectType: 2,
    rateIndex: 6,
    rateHz: 24_000,
    channelConfig: 1,
    shortFrames: false,
  });
  assert.equal(readAacConfig(hex('17 80 5d c0 10')).rateIndex, 3);
  for (const loas of [hex('17 80 50 00 10'), hex('11 80 00'), hex('11 94'), hex('b9 90')])
    assert.equal(fitsAdts(readAacConfig(loas)), false);
  adtsFrame(readAacConfig(hex('1190')), Buffer.alloc(8184));
  assert.throws(() => adtsFrame(readAacConfig(hex('1190')), Buffer.alloc(8185)), refusal(/8185 bytes/));
  for (const bad of ['', '11', '16 90', 'f9 48 40', '17 80 00 00 10']) assert.throws(() => readAacConfig(hex(bad)), refusal(/AAC/), bad);
});

test('audio: AAC of channel configuration 0 goes as LOAS, and sounds', async () => {
  const sound = await toneFrames('aac', { seconds: 2 });
  // AudioSpecificConfig with a program config element: AAC-LC, 48 kHz, one channel pair in front.
  const bits = `${'00010'}${'0011'}${'0000'}${'000'}${'0000'}${'01'}${'0011'}${'0001'}${'0000'}${'0000'}${'00'}${'000'}${'0000'}${'000'}${'1'}${'0000'}`;
  const padded = bits.padEnd(Math.ceil(bits.length / 8) * 8, '0');
  const config = Buffer.concat([Buffer.from(padded.match(/.{8}/g)!.map((byte) => Number.parseInt(byte, 2))), hex('00')]);
  const [stream] = unwrap([Buffer.concat([hex('af00'), config]), ...sound.frames.map((frame) => Buffer.concat([hex('af01'), frame]))]);
  assert.equal(stream!.format, 'loas');
  for (const ffmpeg of [DEBIAN_FFMPEG, BUNDLED_FFMPEG]) {
    const heard = await hear(stream!.bytes, 'loas', ffmpeg);
    assert.ok(Math.abs(heard.seconds - 2) < 0.1, `${heard.seconds} s`);
    assert.ok(heard.level(1000, 0.2, 1.8) > 0.06);
  }
});

test('audio: FLAC frame sizes', () => {
  assert.equal(flacFrameSamples(hex('fff8 19 18 00 00000000 00')), 192);
  assert.equal(flacFrameSamples(hex('fff8 c9 18 00 00000000 00')), 4096);
  assert.equal(flacFrameSamples(hex('fff8 69 18 05 ff 000000 00')), 256);
  assert.equal(flacFrameSamples(hex('fff8 79 18 c280 11ff 0000')), 4608);
  for (const bad of ['', 'fff8', '0000 c9 18 00 00000000 00', 'fff8 09 18 00 00000000 00'])
    assert.throws(() => flacFrameSamples(hex(bad)), refusal(/FLAC/));
});

test('audio: other codecs and malformed tags are refused', () => {
  for (const [tag, reason] of [
    ['b2 00', /Speex/],
    ['52 00', /Nellymoser/],
    ['3f 00', /PCM/],
    ['7f 00', /G\.711/],
    ['a1 05', /type 5/],
    [`90 ${Buffer.from('ac-3').toString('hex')} 00`, /"ac-3" is not taken; AAC, MP3, and by Enhanced RTMP Opus and FLAC are/],
    ['90 4f70', /cut off/],
    ['97 05', /cut off/],
    ['95 30', /multitrack/],
    ['95 10 4f707573 00 ffffff 00', /cut off/],
    ['90 4f707573 00', /OpusHead/],
    ['90 664c6143 00', /STREAMINFO/],
    ['91 4f707573 03', /malformed Opus/],
  ] as const) {
    assert.throws(() => unwrap([hex(tag)]), refusal(reason), tag);
  }
});

test('audio: any bytes are sound or a refusal', async () => {
  const sounds = await Promise.all((['aac', 'opus', 'flac'] as const).map((codec) => toneFrames(codec, { seconds: 0.2 })));
  const recorded = sounds.flatMap((sound) => [
    plain(sound, 0, sound.config),
    ...sound.frames.slice(0, 3).map((frame) => plain(sound, 1, frame)),
  ]);
  const mutated = fc
    .tuple(fc.constantFrom(...recorded), fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 4 }), fc.nat(400))
    .map(([tag, changes, cut]) => {
      const bytes = Buffer.from(tag.subarray(0, cut));
      for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
      return bytes;
    });
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
          mutated,
        ),
        { maxLength: 6 },
      ),
      (tags) => {
        try {
          unwrap(tags);
        } catch (error) {
          if (!(error instanceof RtmpRefusal)) throw error;
        }
      },
    ),
    { numRuns: 3000 },
  );
});
