/** Connections to the RTMP port: what is told to whom, deadlines, limits, and those who mean no good. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { encodeAmf0 } from '../../src/ingest/rtmp/amf0.js';
import { ChunkReader, MESSAGE } from '../../src/ingest/rtmp/chunk.js';
import { RTMP_LIMITS } from '../../src/ingest/rtmp/limits.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { publishRtmp, RtmpPublisher, toneFrames } from '../support/rtmp-publisher.js';
import { assertTone, DEBIAN_FFMPEG, hear, runClient } from './http-support.js';
import { type RtmpSetup, selfSigned, setUpRtmp } from './rtmp-support.js';

const TAKEN = 'AAC, MP3, and by Enhanced RTMP Opus and FLAC are';
const KEY = { key: 'secret' };

/** A publisher that is dropped when the test ends. */
async function onAir(t: TestContext, { port }: { port: number }, options = {}): Promise<RtmpPublisher> {
  const publisher = await publishRtmp({ port, ...KEY, ...options });
  t.after(() => publisher.drop());
  return publisher;
}

async function opened(t: TestContext, { port }: { port: number }, options = {}): Promise<RtmpPublisher> {
  const publisher = await RtmpPublisher.open({ port, ...KEY, ...options });
  t.after(() => publisher.drop());
  return publisher;
}

/** Asserts what the client is told, and that the log has exactly one line of it. */
async function assertRefused(publisher: RtmpPublisher, { log }: RtmpSetup, code: string, reason: RegExp): Promise<void> {
  const refusal = await publisher.ended();
  assert.equal(refusal?.code, code);
  assert.match(refusal!.message, reason);
  const lines = log.of('warn');
  assert.equal(lines.length, 1, lines.join('\n'));
  assert.match(lines[0]!, reason);
  assert.deepEqual(log.of('error'), []);
}

for (const [codec, format] of [
  ['aac', 'adts'],
  ['mp3', 'mp3'],
  ['opus', 'ogg'],
  ['flac', 'ogg'],
] as const) {
  test(`Enhanced RTMP: ${codec} is heard, and Stop ends it`, async (t) => {
    const world = await setUpRtmp(t);
    const sound = await toneFrames(codec);
    const publisher = await onAir(t, world);
    await publisher.play(sound, { enhanced: true });
    publisher.unpublish();
    const source = await world.gate.source();
    assert.equal(await source.ended(), 'finished');
    await assertTone(source, format, { atLeast: 2.9, atMost: 3.1 });
    assert.deepEqual(world.log.of('warn'), []);
  });
}

test('connect is answered with what Enhanced RTMP may send', async (t) => {
  const world = await setUpRtmp(t);
  const publisher = await onAir(t, world, { flashVer: 'OBS' });
  const info = publisher.connectInfo;
  assert.equal(info.get('code'), 'NetConnection.Connect.Success');
  assert.deepEqual(info.get('fourCcList'), ['mp4a', '.mp3', 'Opus', 'fLaC']);
  assert.deepEqual(Object.fromEntries(info.get('audioFourCcInfoMap') as Map<string, number>), { mp4a: 1, '.mp3': 1, Opus: 1, fLaC: 1 });
  assert.equal(info.get('capsEx'), 6);
  assert.deepEqual(world.gate.requests, [
    { protocol: 'rtmp', channel: undefined, streamKey: 'secret', remoteAddress: '127.0.0.1', client: 'OBS' },
  ]);
});

test('addresses: a query and a slash are no part of app and key', async (t) => {
  const world = await setUpRtmp(t);
  await onAir(t, world, { app: 'live/?a=b', key: 'secret?token=1' });
  assert.equal(world.gate.requests[0]!.streamKey, 'secret');
});

test('titles: from the metadata, at once or when the sound begins, and later', async (t) => {
  const world = await setUpRtmp(t);
  const sound = await toneFrames('aac', { seconds: 1 });
  const publisher = await onAir(t, world);
  publisher.metadata({ title: 'First', artist: 'Somebody', audiocodecid: 10 });
  publisher.begin(sound);
  publisher.frame(sound, sound.frames[0]!);
  publisher.message(MESSAGE.data, encodeAmf0('onMetaData', { StreamTitle: 'An artist - A song' }));
  publisher.message(MESSAGE.data, Buffer.from('0300', 'hex'));
  publisher.message(MESSAGE.dataAmf3, Buffer.concat([Buffer.from([0]), encodeAmf0('onMetaData', { title: 'Third\u0000\n line' })]));
  publisher.message(MESSAGE.data, encodeAmf0('onMetaData', { title: 7, artist: 'Nobody' }));
  publisher.frame(sound, sound.frames[1]!);
  publisher.unpublish();
  const source = await world.gate.source();
  await source.ended();
  assert.deepEqual(source.titles, [
    { title: 'First', artist: 'Somebody' },
    { title: 'A song', artist: 'An artist' },
    { title: 'Third line' },
  ]);
});

test('a new sequence header begins a new source; the same one again does not', async (t) => {
  const world = await setUpRtmp(t);
  const [one, two] = [await toneFrames('aac', { seconds: 1 }), await toneFrames('opus', { seconds: 1 })];
  const publisher = await onAir(t, world);
  await publisher.play(one);
  await publisher.play(one);
  await publisher.play(two);
  publisher.unpublish();
  assert.equal(await (await world.gate.source(1)).ended(), 'finished');
  assert.deepEqual(
    world.gate.sources.map(({ format, how }) => [format, how]),
    [
      ['adts', 'finished'],
      ['ogg', 'finished'],
    ],
  );
  assert.equal(world.gate.requests.length, 1);
  assert.ok(Math.abs((await hear(world.gate.sources[0]!.bytes, 'adts')).seconds - 2) < 0.15);
});

test('the end: deleteStream and closeStream finish, and the connection may publish again', async (t) => {
  const world = await setUpRtmp(t);
  const sound = await toneFrames('aac', { seconds: 0.2 });
  const publisher = await onAir(t, world);
  for (const [index, command] of ['closeStream', 'deleteStream'].entries()) {
    await publisher.play(sound);
    publisher.command(command, null, 1);
    assert.equal(await (await world.gate.source(index)).ended(), 'finished');
    await publisher.startStream();
  }
  await publisher.play(sound);
  const source = await world.gate.source(2);
  publisher.drop();
  assert.equal(await source.ended(), 'lost');
});

test('the end of a stream that is not the published one ends nothing', async (t) => {
  const world = await setUpRtmp(t);
  const sound = await toneFrames('aac', { seconds: 0.2 });
  const publisher = await onAir(t, world);
  await publisher.play(sound);
  const source = await world.gate.source();
  publisher.command('createStream', null);
  for (const id of [0, 2, 7, -1, 1.5]) publisher.command('deleteStream', null, id);
  publisher.command('FCUnpublish', null, 'another');
  publisher.message(MESSAGE.command, encodeAmf0('closeStream', 0, null), 3, 2);
  await publisher.play(sound);
  // Answered in order: when this one is, the others have been read.
  publisher.command('_checkbw', null);
  const replies = () => publisher.received.filter(({ name }) => name === '_result').length;
  await publisher.until(() => replies() >= 9);
  assert.equal(source.how, undefined);
  publisher.command('FCUnpublish', null, 'secret?of=a-query');
  assert.equal(await source.ended(), 'finished');
});

test('each stream that is created has a number of its own', async (t) => {
  const world = await setUpRtmp(t);
  const publisher = await opened(t, world);
  await publisher.handshake();
  await publisher.connect();
  for (let count = 0; count < 3; count++) publisher.command('createStream', null);
  const ids = () => publisher.received.filter(({ name }) => name === '_result').map(({ args }) => args[1]);
  await publisher.until(() => ids().length === 4);
  assert.deepEqual(ids().slice(1), [1, 2, 3]);
});

test('what follows publish at once waits for the key', async (t) => {
  const world = await setUpRtmp(t);
  let decide = () => {};
  world.gate.hold = new Promise((resolve) => {
    decide = resolve;
  });
  const sound = await toneFrames('aac', { seconds: 1 });
  const publisher = await opened(t, world);
  await publisher.handshake();
  await publisher.connect();
  publisher.command('publish', null, 'secret', 'live');
  void publisher.play(sound);
  publisher.unpublish();
  await world.gate.until(() => world.gate.requests.length === 1);
  assert.equal(world.gate.sources.length, 0);
  decide();
  const source = await world.gate.source();
  assert.equal(await source.ended(), 'finished');
  await assertTone(source, 'adts', { atLeast: 0.9, atMost: 1.1 });
});

test('one byte at a time', async (t) => {
  const world = await setUpRtmp(t);
  const port = await proxy(t, world.port, (from, to) =>
    from.on('data', (bytes: Buffer) => {
      for (const byte of bytes) to.write(Buffer.of(byte));
    }),
  );
  const sound = await toneFrames('aac', { seconds: 0.2 });
  const publisher = await onAir(t, { port });
  await publisher.play(sound);
  publisher.unpublish();
  assert.equal(await (await world.gate.source()).ended(), 'finished');
  assert.equal(
    world.gate.sources[0]!.sizeBytes,
    sound.frames.reduce((sum, frame) => sum + frame.length + 7, 0),
  );
});

test('back-pressure: a decoder that is full stops the socket, not the bytes; silence is then no offence', async (t) => {
  const clock = new FakeClock();
  const world = await setUpRtmp(t, { clock });
  world.gate.slow = true;
  const sound = await toneFrames('aac', { seconds: 3 });
  const publisher = await onAir(t, world);
  let sentBytes = 0;
  const playing = (async () => {
    // More than the buffers of both sockets hold.
    for (; !publisher.closed && sentBytes < 64 << 20; sentBytes += sound.frames.length * 340) await publisher.play(sound);
  })();
  const source = await world.gate.source();
  while (!publisher.socket.writableNeedDrain) await new Promise((resolve) => setImmediate(resolve));
  const takenBytes = source.sizeBytes;
  assert.ok(takenBytes <= 2 * 64 * 1024, `${takenBytes} bytes`);
  clock.advance(120_000);
  assert.equal(source.how, undefined);
  source.events.onDrain();
  await source.until(() => source.sizeBytes > takenBytes);
  publisher.drop();
  await playing;
  for (; source.how === undefined; ) {
    source.events.onDrain();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(source.how, 'lost');
});

for (const [code, rtmp] of [
  ['displaced', 'NetStream.Publish.BadName'],
  ['unsupported_media', 'NetStream.Publish.Rejected'],
  ['unauthorized', 'NetStream.Publish.Denied'],
  ['not_found', 'NetStream.Publish.Denied'],
  ['busy', 'NetStream.Failed'],
] as const) {
  test(`${code}: at the gate and on air it is ${rtmp}`, async (t) => {
    const world = await setUpRtmp(t);
    const sound = await toneFrames('aac', { seconds: 0.1 });
    const publisher = await onAir(t, world);
    await publisher.play(sound);
    const source = await world.gate.source();
    source.events.onClose({ code, message: 'for a reason' });
    await assertRefused(publisher, world, rtmp, /for a reason/);
    assert.equal(source.how, 'lost');
    world.gate.error = new VezaError(code, 'for another');
    await assert.rejects(publishRtmp({ port: world.port, ...KEY }), { code: rtmp, message: 'for another' });
  });
}

test('refused: another app, no key, a key too long, play, a second connect, commands out of order', async (t) => {
  for (const [options, code, reason] of [
    [{ app: 'vod' }, 'NetConnection.Connect.InvalidApp', /ends in \/live/],
    [{ key: '' }, 'NetStream.Publish.Denied', /no stream key/],
    [{ key: '?x' }, 'NetStream.Publish.Denied', /no stream key/],
    [{ key: 'k'.repeat(RTMP_LIMITS.keyChars) }, 'NetStream.Publish.Denied', /wrong stream key/],
    [{ key: 'k'.repeat(RTMP_LIMITS.keyChars + 1) }, 'NetStream.Publish.Denied', /no such stream key/],
  ] as const) {
    const world = await setUpRtmp(t);
    const publisher = await opened(t, world, options);
    await assert.rejects(publisher.publish(), { code });
    await assertRefused(publisher, world, code, reason);
  }
  for (const [step, code, reason] of [
    [(publisher: RtmpPublisher) => publisher.command('play', null, 'x'), 'NetStream.Play.Failed', /takes broadcasts/],
    [(publisher: RtmpPublisher) => publisher.command('connect', { app: 'live' }), 'NetConnection.Call.Failed', /connect twice/],
    [(publisher: RtmpPublisher) => publisher.command('publish', null, 'secret'), 'NetConnection.Call.Failed', /publish while on air/],
    [(publisher: RtmpPublisher) => publisher.message(MESSAGE.command, encodeAmf0(1, 2)), 'NetConnection.Call.Failed', /without a name/],
    [(publisher: RtmpPublisher) => publisher.message(MESSAGE.command, Buffer.from([2])), 'NetConnection.Call.Failed', /AMF/],
    [
      (publisher: RtmpPublisher) => publisher.message(MESSAGE.audio, Buffer.alloc(RTMP_LIMITS.audioBytes + 1)),
      'NetConnection.Call.Failed',
      /65537 bytes/,
    ],
    [
      (publisher: RtmpPublisher) => publisher.control(MESSAGE.setChunkSize, RTMP_LIMITS.chunkBytes + 1),
      'NetConnection.Call.Failed',
      /chunk size/,
    ],
    [
      (publisher: RtmpPublisher) => publisher.message(MESSAGE.audio, Buffer.from([0xb2, 0])),
      'NetStream.Publish.Rejected',
      new RegExp(`Speex is not taken; ${TAKEN}`),
    ],
  ] as const) {
    const world = await setUpRtmp(t);
    const publisher = await onAir(t, world);
    step(publisher);
    await assertRefused(publisher, world, code, reason);
  }
  const world = await setUpRtmp(t);
  const publisher = await opened(t, world);
  await publisher.handshake();
  publisher.command('publish', null, 'secret');
  await assertRefused(publisher, world, 'NetConnection.Call.Failed', /before connect/);
});

test('control: acknowledgements as often as asked for, pings answered, unknown commands too', async (t) => {
  const world = await setUpRtmp(t);
  const sound = await toneFrames('aac', { seconds: 1 });
  const publisher = await onAir(t, world);
  publisher.control(MESSAGE.windowAckSize, 5000);
  await publisher.play(sound);
  publisher.message(MESSAGE.userControl, Buffer.from('0006 00001234'.replace(' ', ''), 'hex'), 2, 0);
  publisher.command('somethingElse', null);
  await assert.rejects(
    publisher.until(() => false),
    { code: 'NetConnection.Call.Failed', message: 'no such command' },
  );
  assert.ok(publisher.acknowledged.length >= 1);
  assert.ok(publisher.acknowledged[0]! >= 5000);
  assert.equal(publisher.closed, false);
});

test('deadlines: silence, a slow handshake, no publish, a gate that does not answer, nothing on air, no audio', async (t) => {
  const clock = new FakeClock();
  const step = async (prepare: (world: RtmpSetup) => Promise<RtmpPublisher>, ms: number, reason: RegExp | undefined) => {
    const world = await setUpRtmp(t, { clock });
    const publisher = await prepare(world);
    clock.advance(ms - 501);
    assert.deepEqual(world.log.of('warn'), []);
    clock.advance(1001);
    const refusal = await publisher.ended();
    if (reason) {
      assert.equal(world.log.of('warn').length, 1);
      assert.match(world.log.of('warn')[0]!, reason);
      if (!reason.source.includes('handshake')) assert.match(refusal!.message, reason);
    } else assert.deepEqual(world.log.of('warn'), []);
  };
  await step((world) => opened(t, world), RTMP_LIMITS.handshakeMs, undefined);
  const slow = async (world: RtmpSetup) => {
    const publisher = await opened(t, world);
    publisher.raw(Buffer.concat([Buffer.from([3]), Buffer.alloc(1536)]));
    await once(publisher.socket, 'data');
    return publisher;
  };
  await step(slow, RTMP_LIMITS.handshakeMs, /handshake took longer than 5 s/);
  const idle = async (world: RtmpSetup) => {
    const publisher = await opened(t, world);
    await publisher.handshake();
    await publisher.connect();
    return publisher;
  };
  await step(idle, RTMP_LIMITS.publishMs, /no publish in 30 s/);
  const undecided = async (world: RtmpSetup) => {
    world.gate.hold = new Promise(() => undefined);
    const publisher = await idle(world);
    publisher.command('publish', null, 'secret');
    await world.gate.until(() => world.gate.requests.length === 1);
    return publisher;
  };
  await step(undecided, RTMP_LIMITS.admitMs, /could not be checked in time/);
  await step((world) => onAir(t, world), RTMP_LIMITS.idleMs, /nothing was sent for 10 s/);
  const world = await setUpRtmp(t, { clock });
  const video = await onAir(t, world);
  for (let sec = 0; sec <= RTMP_LIMITS.audioMs / 1000 && !video.closed; sec++) {
    clock.advance(1000);
    const answers = video.received.length;
    video.message(MESSAGE.video, Buffer.alloc(1000));
    video.command('releaseStream', null);
    if (world.log.of('warn').length === 0) await video.until(() => video.received.length > answers).catch(() => undefined);
  }
  await assertRefused(video, world, 'NetStream.Publish.Rejected', /no audio in 15 s/);
});

test('500 connections that say nothing: so many of an address, then the door is shut, and who is on air does not notice', async (t) => {
  const clock = new FakeClock();
  const world = await setUpRtmp(t, { clock });
  const sound = await toneFrames('aac', { seconds: 1 });
  const publisher = await onAir(t, world);
  const sockets = await Promise.all(
    Array.from({ length: 500 }, async () => {
      const socket = connect(world.port, '127.0.0.1');
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      return socket;
    }),
  );
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const gone = (socket: Socket) => (socket.closed ? undefined : once(socket.resume(), 'close'));
  let left = 500;
  await new Promise<void>((resolve) => {
    for (const socket of sockets) Promise.resolve(gone(socket)).then(() => --left === RTMP_LIMITS.connectionsPerAddress && resolve());
  });
  clock.advance(1000);
  assert.equal(world.log.lines.find((line) => line.level === 'warn')?.fields.connections, 400);
  await publisher.play(sound);
  clock.advance(RTMP_LIMITS.handshakeMs);
  await Promise.all(sockets.map(gone));
  await publisher.play(sound);
  await onAir(t, world);
  publisher.unpublish();
  await (await world.gate.source()).ended();
  await assertTone(world.gate.sources[0]!, 'adts', { atLeast: 1.9, atMost: 2.2 });
  assert.deepEqual(world.log.of('error'), []);
});

test('refused clients without end are a few lines and a count', async (t) => {
  const clock = new FakeClock();
  const world = await setUpRtmp(t, { clock });
  for (let attempt = 0; attempt < 40; attempt++) {
    const client = await opened(t, world);
    client.raw(Buffer.from([6]));
    await client.ended();
  }
  assert.equal(world.log.of('warn').length, 10);
  clock.advance(60_000);
  const told = world.log.lines.filter(({ level }) => level === 'warn').slice(10);
  assert.deepEqual(
    told.map(({ fields }) => [fields.event, fields.leftOut]),
    [['log.lines_left_out', 30]],
  );
});

test('connections of all: one more than the limit is turned away; those on air do not count', async (t) => {
  const world = await setUpRtmp(t, { limits: { connections: 1 } });
  await onAir(t, world);
  await onAir(t, world);
  const waiting = await opened(t, world);
  await waiting.handshake();
  const late = await opened(t, world);
  await late.ended();
  assert.equal(waiting.closed, false);
});

test('a client that never reads is dropped', async (t) => {
  const world = await setUpRtmp(t);
  const publisher = await onAir(t, world);
  publisher.socket.pause();
  const ping = Buffer.concat(Array.from({ length: 5000 }, () => Buffer.from('020000000000060400000000000600000001', 'hex')));
  const closed = once(publisher.socket, 'close');
  void (async () => {
    while (world.log.of('warn').length === 0 && publisher.raw(ping) !== undefined) await new Promise((resolve) => setImmediate(resolve));
  })();
  await world.log.until(() => world.log.of('warn').length > 0);
  assert.match(world.log.of('warn')[0]!, /more than 65536 bytes of answers were not read/);
  publisher.socket.resume();
  await closed;
});

test('a wrong version and other protocols are closed at once', async (t) => {
  const world = await setUpRtmp(t);
  for (const bytes of [Buffer.from([6]), Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.from([0x16, 3, 1])]) {
    const client = await opened(t, world);
    client.raw(bytes);
    assert.equal(await client.ended(), undefined);
  }
  assert.equal(world.log.of('warn').length, 3);
});

test('RTMPS: the same commands; silence and what is no TLS are dropped, and nobody else notices', async (t) => {
  const clock = new FakeClock();
  const world = await setUpRtmp(t, { clock, tls: await selfSigned(t) });
  const sound = await toneFrames('aac', { seconds: 1 });
  const publisher = await onAir(t, world, { tls: true });
  const [silent, garbage] = [await opened(t, world), await opened(t, world)];
  garbage.raw(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  await garbage.ended();
  clock.advance(RTMP_LIMITS.handshakeMs + 500);
  await silent.ended();
  await publisher.play(sound);
  publisher.unpublish();
  assert.equal(await (await world.gate.source()).ended(), 'finished');
  assert.equal(world.gate.requests[0]!.protocol, 'rtmps');
  await assertTone(world.gate.sources[0]!, 'adts', { atLeast: 0.9, atMost: 1.1 });
  assert.deepEqual(world.log.of('error'), []);
});

test('stopping: who is on air is told, their source is lost, and it may be asked twice', async (t) => {
  const world = await setUpRtmp(t);
  const publisher = await onAir(t, world);
  await publisher.play(await toneFrames('aac', { seconds: 0.1 }));
  const silent = await opened(t, world);
  await Promise.all([world.server.stop(), world.server.stop()]);
  assert.equal((await publisher.ended())?.code, 'NetConnection.Connect.AppShutdown');
  await silent.ended();
  assert.equal(world.gate.sources[0]!.how, 'lost');
});

/** Between a client and the server; `forward` decides how the client's bytes go on. */
async function proxy(t: TestContext, port: number, forward: (from: Socket, to: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port, host: '127.0.0.1', noDelay: true });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
    }
    forward(client, upstream);
    client.on('end', () => upstream.end());
    upstream.pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as { port: number }).port;
}

test('recordings of ffmpeg and of an encoder like OBS: cut at every byte, and with any bytes changed', async (t) => {
  const world = await setUpRtmp(t);
  const recorded: Buffer[][] = [];
  const port = await proxy(t, world.port, (from, to) => {
    const bytes: Buffer[] = [];
    recorded.push(bytes);
    from.on('data', (chunk: Buffer) => {
      bytes.push(chunk);
      to.write(chunk);
    });
  });
  const tone = ['-f', 'lavfi', '-i', 'sine=frequency=1000:duration=0.3', '-f', 'lavfi', '-i', 'testsrc=size=32x32:rate=10:duration=0.3'];
  const ffmpeg = runClient(t, DEBIAN_FFMPEG, [
    '-v',
    'error',
    ...tone,
    '-c:a',
    'aac',
    '-b:a',
    '64k',
    '-c:v',
    'flv1',
    '-f',
    'flv',
    `rtmp://127.0.0.1:${port}/live/secret`,
  ]);
  assert.equal(await ffmpeg.ended, 0, ffmpeg.output());
  const publisher = await onAir(t, { port });
  await publisher.play(await toneFrames('opus', { seconds: 0.1 }));
  publisher.unpublish();
  await (await world.gate.source(1)).ended();

  for (const session of recorded) {
    const bytes = Buffer.concat(session).subarray(1 + 2 * 1536);
    const messagesOf = (cut: number) => {
      const seen: string[] = [];
      const reader = new ChunkReader(RTMP_LIMITS, ({ type, payload }) => seen.push(`${type} ${payload.toString('latin1')}`));
      reader.push(bytes.subarray(0, cut));
      reader.push(bytes.subarray(cut));
      return seen;
    };
    const expected = messagesOf(0);
    assert.ok(expected.length > 10);
    for (let cut = 1; cut < bytes.length; cut++) assert.deepEqual(messagesOf(cut), expected, `cut at ${cut}`);
  }

  // Whole connections, changed anywhere or cut off: each ends, none with an error of ours.
  const sessions = recorded.map((session) => Buffer.concat(session));
  const changed = fc.constantFrom(...sessions).chain((bytes) =>
    fc
      .tuple(
        fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { maxLength: 6 }),
        fc.nat(bytes.length),
        fc.uint8Array({ maxLength: 50 }),
      )
      .map(([changes, cut, more]) => {
        const copy = Buffer.from(bytes);
        for (const [at, value] of changes) copy[at] = value;
        return Buffer.concat([copy.subarray(0, cut), more]);
      }),
  );
  await fc.assert(
    fc.asyncProperty(changed, async (bytes) => {
      const client = connect(world.port, '127.0.0.1');
      client.on('error', () => undefined);
      const closed = once(client, 'close');
      client.resume();
      client.end(bytes);
      await closed;
      assert.deepEqual(world.log.of('error'), []);
    }),
    { numRuns: 300 },
  );
  const after = await onAir(t, world);
  await after.play(await toneFrames('aac', { seconds: 0.1 }));
  for (const source of world.gate.sources.slice(0, -1)) assert.ok(source.how !== undefined);
});
