import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { findSlips, tonePcm } from '../support/audio.js';
import { fuzzIngest } from '../support/ingest-fuzz.js';
import { SEED } from '../support/long.js';
import {
  breaksOf,
  clicksIn,
  hear,
  moreSegments,
  punctual,
  residentBytes,
  runsOf,
  sounding,
  soundStretches,
  startServer,
  told,
  UNBROKEN,
} from '../support/on-air.js';
import { eventually, type Running } from '../support/process.js';
import { publishRtmp as publishTone } from '../support/publishers.js';
import { publishRtmp, RtmpPublisher, toneFrames } from '../support/rtmp-publisher.js';
import type { Server } from '../support/server.js';

const HZ = 997;
const SILENT_CONNECTIONS = 500;
const FUZZ_CONNECTIONS = 40;
const RANDOM_CONNECTIONS = 120;

let server: Server;
let key: string;
let otherKey: string;
let witness: Running;

before(async () => {
  server = await startServer({ ADAPTIVE_BITRATE: 'false' });
  [key, otherKey] = [await server.createChannel('victim'), await server.createChannel('witness')];
  witness = punctual(publishTone(server.rtmpUrl(otherKey), { hz: HZ }));
  await sounding(server, 'witness', 2);
});
after(async () => {
  await witness?.kill('SIGKILL');
  await server?.stop();
});

/** Sends bytes and reads to the end of the connection. */
async function send(port: number, bytes: Uint8Array, options: { end?: boolean; aByteATime?: boolean } = {}): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1' });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.on('error', () => undefined);
  const closed = once(socket, 'close');
  await once(socket, 'connect');
  if (options.aByteATime) {
    socket.setNoDelay(true);
    for (let at = 0; at < bytes.length && !socket.destroyed; at++)
      await new Promise((done) => socket.write(bytes.subarray(at, at + 1), done));
  } else {
    socket.write(bytes);
  }
  if (options.end) socket.end();
  await closed;
  return Buffer.concat(chunks).toString('latin1');
}

const head = (path: string, streamKey: string, type = 'audio/mpeg', more = '') =>
  `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${streamKey}\r\nContent-Type: ${type}\r\n${more}\r\n`;
const post = (body: Uint8Array, type: string) =>
  Buffer.concat([Buffer.from(head('/ingest/victim', key, type, `Content-Length: ${body.length}\r\n`)), body]);
const status = (answer: string) => Number(/^HTTP\/1\.[01] (\d{3})/.exec(answer)?.[1]);

const refused = (code: string, publish: () => Promise<unknown>) =>
  assert.rejects(publish, (error: { code?: string }) => error.code === code, `refused with ${code}`);

test('hostile broadcasters are refused clearly, and the show beside them does not notice', async (t) => {
  await told(server, async () => {
    const from = await moreSegments(server, 'witness', 1);
    const residentBefore = await residentBytes(server.pid);
    const rtmp = { port: server.rtmpPort, key };

    await t.test('a wrong key', async () => {
      await refused('NetStream.Publish.Denied', () => publishRtmp({ ...rtmp, key: 'wrong' }));
      assert.equal(
        status(await send(server.ingestPort, Buffer.from(head('/ingest/victim', 'wrong', 'audio/mpeg', 'Content-Length: 9\r\n')))),
        401,
      );
      const basic = Buffer.from('source:wrong').toString('base64');
      const put = `PUT /victim HTTP/1.1\r\nHost: x\r\nAuthorization: Basic ${basic}\r\nContent-Type: audio/mpeg\r\n\r\n`;
      assert.equal(status(await send(server.ingestPort, Buffer.from(put))), 401);
      assert.equal(
        status(await send(server.ingestPort, Buffer.from(head('/ingest/victim', otherKey, 'audio/mpeg', 'Content-Length: 9\r\n')))),
        401,
      );
    });

    await t.test('no handshake, a slow handshake, half a head', async () => {
      const slow = Buffer.concat([Buffer.from([3]), randomBytes(20)]);
      const answers = await Promise.all([
        send(server.rtmpPort, Buffer.alloc(0)),
        send(server.rtmpPort, slow),
        send(server.ingestPort, Buffer.alloc(0)),
        send(server.ingestPort, Buffer.from('POST /ingest/victim HTTP/1.1\r\nHost: ')),
      ]);
      assert.equal(answers[0], '', 'nothing is said to one that said nothing');
      assert.equal(status(answers[3]!), 408);
    });

    await t.test('an oversized chunk and an oversized message', async () => {
      const chunk = await RtmpPublisher.open({ ...rtmp, chunkBytes: 0x7fffffff });
      await chunk.handshake();
      await assert.rejects(() => chunk.connect());
      const message = await publishRtmp(rtmp);
      // A basic header, type 0: audio of 16 MiB − 1 is announced.
      message.raw(Buffer.from([4, 0, 0, 0, 0xff, 0xff, 0xff, 8, 1, 0, 0, 0]));
      message.raw(Buffer.alloc(256 * 1024));
      assert.equal((await message.ended())?.code, 'NetConnection.Call.Failed');
      assert.equal(
        status(await send(server.ingestPort, Buffer.from(head('/ingest/victim', key, 'audio/mpeg', `X: ${'y'.repeat(40_000)}\r\n`)))),
        431,
      );
      const body = head('/ingest/victim', key, 'audio/mpeg', 'Transfer-Encoding: chunked\r\n');
      assert.equal(status(await send(server.ingestPort, Buffer.from(`${body}fffffffff\r\n`))), 413);
    });

    await t.test('one byte at a time is slow, not wrong', async () => {
      const sound = await toneFrames('aac', { seconds: 1 });
      const trickling = await RtmpPublisher.open(rtmp);
      trickling.socket.setNoDelay(true);
      const write = trickling.socket.write.bind(trickling.socket);
      trickling.raw = (bytes) => {
        for (const byte of bytes) write(Buffer.from([byte]));
        return true;
      };
      await trickling.publish();
      await trickling.play(sound);
      await eventually('it is taken', () => server.log().find((line) => line.channel === 'victim' && line.event === 'source.on_air'));
      trickling.unpublish();
      const answer = await send(server.ingestPort, post(Buffer.from('this is no sound at all, '.repeat(400)), 'audio/mpeg'), {
        aByteATime: true,
      });
      assert.equal(status(answer), 415);
    });

    await t.test('random bytes on both ports, with and without a good beginning', async () => {
      const beginnings = [
        [server.rtmpPort, Buffer.alloc(0)],
        [server.rtmpPort, Buffer.concat([Buffer.from([3]), randomBytes(1536), randomBytes(1536)])],
        [server.ingestPort, Buffer.alloc(0)],
        ...['audio/mpeg', 'audio/aac', 'audio/ogg', 'audio/webm', 'audio/flac', 'audio/wav'].map((type) => [
          server.ingestPort,
          Buffer.from(head('/ingest/victim', key, type, 'Content-Length: 20000\r\n')),
        ]),
        // Enough of a beginning that a decoder is given the rest.
        ...[tonePcm(HZ, 0.01)].map((pcm) => [server.ingestPort, post(Buffer.concat([wavHead(), pcm, randomBytes(100_000)]), 'audio/wav')]),
        [server.ingestPort, post(Buffer.concat([Buffer.from('OggS\0\x02'), randomBytes(50_000)]), 'audio/ogg')],
        [server.ingestPort, post(Buffer.concat([Buffer.from('fLaC\0\0\0\x22'), randomBytes(50_000)]), 'audio/flac')],
        [server.ingestPort, post(Buffer.concat([Buffer.from([0x1a, 0x45, 0xdf, 0xa3]), randomBytes(50_000)]), 'audio/webm')],
      ] as [number, Buffer][];
      for (let at = 0; at < FUZZ_CONNECTIONS; at += 8) {
        const some = Array.from({ length: 8 }, (_, index) => beginnings[(at + index) % beginnings.length]!);
        await Promise.all(some.map(([port, bytes]) => send(port, Buffer.concat([bytes, randomBytes(20_000)]), { end: true })));
      }
    });

    await t.test(`connections that are made at random, seed ${SEED}`, async () => {
      const keys = { victim: key, honest: await server.createChannel('honest') };
      await fuzzIngest(server, keys, { seed: SEED, isOver: (connections) => connections >= RANDOM_CONNECTIONS });
    });

    await t.test('a truncated file is heard as far as it goes, or refused', async () => {
      const sound = await toneFrames('mp3', { seconds: 2 });
      const whole = Buffer.concat(sound.frames);
      // Those before it may have used up what a channel may start of decoders in ten seconds.
      await eventually('it is taken', async () => {
        const answer = await send(server.ingestPort, post(whole.subarray(0, whole.length - 100), 'audio/mpeg'));
        return status(answer) === 200 ? true : undefined;
      });
      // A head with nothing behind it.
      await send(server.ingestPort, post(wavHead(), 'audio/wav'), { end: true });
      await eventually('it is named', () =>
        server.log().find(({ channel, event }) => channel === 'victim' && event === 'source.undecodable'),
      );
    });

    await t.test(`${SILENT_CONNECTIONS} connections that say nothing, on both ports`, async () => {
      const sockets: Socket[] = [];
      const closed: Promise<unknown>[] = [];
      for (const port of [server.rtmpPort, server.ingestPort]) {
        for (let count = 0; count < SILENT_CONNECTIONS; count++) {
          const socket = connect({ port, host: '127.0.0.1' });
          socket.on('error', () => undefined);
          socket.resume();
          sockets.push(socket);
          closed.push(new Promise((done) => socket.once('close', done)));
        }
      }
      await Promise.all(closed);
      for (const socket of sockets) socket.destroy();
      const ok = await publishRtmp(rtmp);
      ok.drop();
    });

    await moreSegments(server, 'witness', 1);
    const growth = (await residentBytes(server.pid)) / residentBefore;
    assert.ok(growth < 1.6, `memory grew ${growth} times`);
    for (const rendition of ['aac-128', 'opus-96', 'mp3-128']) {
      const { text, segments, sound } = await hear(server, 'witness', rendition, from);
      const left = sound.left.subarray(4800, sound.left.length - 4800);
      assert.deepEqual([runsOf(segments), breaksOf(text)], [1, UNBROKEN], rendition);
      assert.equal(soundStretches(left, 5).length, 1, `${rendition}: no hole`);
      assert.deepEqual(clicksIn(left, [HZ], { from: 0, to: left.length }), [], rendition);
      assert.deepEqual(findSlips(left, HZ), [], rendition);
    }
  });
});

function wavHead(): Buffer {
  const bytes = Buffer.alloc(44);
  bytes.write('RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x02\0', 0, 'latin1');
  bytes.writeUInt32LE(48_000, 24);
  bytes.writeUInt32LE(192_000, 28);
  bytes.writeUInt16LE(4, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write('data\xff\xff\xff\xff', 36, 'latin1');
  return bytes;
}
