import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { type ClientRequest, get, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { PlaybackOptions } from '../../src/app/playback/playback-options.js';
import { LADDER } from '../../src/media/ladder.js';
import { oggCrc } from '../../src/media/ogg.js';
import { type FakeService, plainFrames, startPlayback } from '../support/fake-edge.js';
import { ensurePackages } from '../support/packages.js';

async function service(t: TestContext, options: Partial<PlaybackOptions> = {}): Promise<FakeService> {
  const started = await startPlayback(options);
  t.after(() => started.close());
  return started;
}

/** A listener that keeps what it hears. */
class Ear {
  readonly res: Promise<IncomingMessage>;
  readonly ended: Promise<void>;
  bytes = Buffer.alloc(0);
  readonly #request: ClientRequest;
  #wake = () => {};

  constructor(url: string, headers: Record<string, string> = {}) {
    this.#request = get(url, { headers, agent: false });
    this.#request.on('error', () => undefined);
    this.res = new Promise((resolve) => this.#request.once('response', resolve));
    this.ended = this.res.then((res) => new Promise((resolve) => res.once('close', () => resolve())));
    void this.res.then((res) => {
      res.on('error', () => undefined);
      res.on('data', (chunk: Buffer) => {
        this.bytes = Buffer.concat([this.bytes, chunk]);
        this.#wake();
      });
    });
  }

  /** Resolves when at least `size` bytes were heard. */
  async heard(size: number): Promise<Buffer> {
    while (this.bytes.length < size) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.bytes;
  }

  leave(): void {
    this.#request.destroy();
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

const frameNumbers = (bytes: Buffer, headBytes: number, frameBytes: number) =>
  Array.from({ length: Math.floor(bytes.length / (headBytes + frameBytes)) }, (_, i) =>
    bytes.readUInt32BE(i * (headBytes + frameBytes) + headBytes + 8),
  );

const series = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

test('headers, with ICY only for who asks; HEAD ends at once', async (t) => {
  const s = await service(t, { titleOf: () => 'Rádio\n1' });
  s.edge.start('radio').segments(2);
  const expected = { mp3: 'audio/mpeg', aac: 'audio/aac', opus: 'audio/ogg' };
  for (const [format, type] of Object.entries(expected)) {
    const ear = new Ear(`${s.url}/listen/radio.${format}`, { 'Icy-MetaData': '1' });
    const { headers, statusCode } = await ear.res;
    assert.equal(statusCode, 200);
    assert.equal(headers['content-type'], type);
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(headers['access-control-allow-origin'], '*');
    assert.equal(headers['transfer-encoding'], undefined);
    assert.equal(headers['icy-br'], format === 'opus' ? '96' : '128');
    assert.equal(Buffer.from(String(headers['icy-name']), 'latin1').toString(), 'Rádio 1');
    assert.equal(headers['ice-audio-info'], `ice-samplerate=48000;ice-bitrate=${headers['icy-br']};ice-channels=2`);
    assert.equal(headers['icy-metaint'], format === 'opus' ? undefined : '16000');
    ear.leave();
    const head = await fetch(`${s.url}/listen/radio.${format}`, { method: 'HEAD' });
    assert.deepEqual([head.status, head.headers.get('icy-metaint')], [200, null]);
  }
  await until(() => s.playback.listeners('radio') === 0);
});

test('before a broadcast, after it, and for a codec that it has not: 404', async (t) => {
  const s = await service(t);
  assert.equal((await fetch(`${s.url}/listen/radio.mp3`)).status, 404);
  const channel = s.edge.start('radio', { renditions: LADDER.filter((rendition) => rendition.codec !== 'opus') });
  channel.segments(2);
  assert.equal((await fetch(`${s.url}/listen/radio.opus`)).status, 404);
  channel.end();
  assert.equal((await fetch(`${s.url}/listen/radio.mp3`)).status, 404);
});

test('mp3: two seconds at once, then each segment without its ID3 tag, frame after frame', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(4);
  const ear = new Ear(`${s.url}/listen/radio.mp3`);
  await ear.heard(2 * 80 * 384);
  assert.equal(ear.bytes.length, 2 * 80 * 384, 'the fewest whole segments that hold two seconds');
  channel.segments(2);
  assert.deepEqual(frameNumbers(await ear.heard(4 * 80 * 384), 0, 384), series(160, 320));
});

test('aac: ADTS frames of the rung nearest to 128 kbit/s; the burst begins within two seconds and a part', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  channel.part();
  const ear = new Ear(`${s.url}/listen/radio.aac`);
  await ear.heard(7 * 15 * 47);
  assert.equal(ear.bytes.length, 7 * 15 * 47);
  channel.part();
  const bytes = await ear.heard(8 * 15 * 47);
  assert.deepEqual(frameNumbers(bytes, 7, 40), series(285 - 7 * 15, 8 * 15));
  assert.equal(bytes.readUInt16BE(0), 0xfff1);
  assert.equal(bytes[7], 128, 'a frame of aac-128');
});

test('opus: every listener gets the head, then pages whose granule rises and whose checksum holds', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  const early = new Ear(`${s.url}/listen/radio.opus`);
  await early.heard(100);
  channel.parts(3);
  const pageBytes = 27 + 16 + 16 * 40;
  const late = new Ear(`${s.url}/listen/radio.opus`);
  await late.heard(7 * pageBytes);
  channel.parts(3);
  for (const ear of [early, late]) {
    const headBytes = 27 + 1 + 19 + 27 + 1 + 20;
    const count = ear === early ? 13 : 10;
    const bytes = await ear.heard(headBytes + count * pageBytes);
    assert.equal(bytes.length, headBytes + count * pageBytes);
    assert.equal(bytes.toString('latin1', 28, 36), 'OpusHead');
    const granules = series(0, count).map((i) => {
      const page = Buffer.from(bytes.subarray(headBytes + i * pageBytes, headBytes + (i + 1) * pageBytes));
      const crc = page.readUInt32LE(22);
      page.writeUInt32LE(0, 22);
      assert.equal(oggCrc(page), crc);
      return Number(page.readBigInt64LE(6));
    });
    for (let i = 1; i < granules.length; i += 1) assert.equal(granules[i]! - granules[i - 1]!, 15_360);
  }
});

test('the same bytes are made once: two listeners of one format share a broadcaster and hear the same', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  const ears = [new Ear(`${s.url}/listen/radio.aac`), new Ear(`${s.url}/listen/radio.aac`)];
  for (const ear of ears) await ear.heard(1);
  assert.equal(s.playback.listeners('radio'), 2);
  channel.parts(4);
  const [one, two] = await Promise.all(ears.map((ear) => ear.heard(11 * 15 * 47)));
  assert.deepEqual(one, two);
  ears[0]!.leave();
  await until(() => s.playback.listeners('radio') === 1);
  channel.part();
  await ears[1]!.heard(12 * 15 * 47);
});

/** Splits an ICY stream into its audio and its titles with the audio byte at which each came. */
function splitIcy(bytes: Buffer): { audio: Buffer; titles: [at: number, title: string][] } {
  const audio: Buffer[] = [];
  const titles: [number, string][] = [];
  for (let at = 0, heard = 0; at < bytes.length; ) {
    const part = bytes.subarray(at, at + 16_000);
    audio.push(part);
    at += part.length;
    heard += part.length;
    const length = (bytes[at] ?? 0) * 16;
    if (length > 0) titles.push([heard, /^StreamTitle='(.*)';\0*$/s.exec(bytes.toString('utf8', at + 1, at + 1 + length))![1]!]);
    at += 1 + length;
  }
  return { audio: Buffer.concat(audio), titles };
}

test('ICY: the title changes at the first metadata place after it is heard, not when it arrives', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  const startMs = channel.writtenWallMs;
  channel.title({ id: 't1', startWallMs: startMs - 5000, title: 'First', artist: 'Añejo' });
  const ear = new Ear(`${s.url}/listen/radio.mp3`, { 'Icy-MetaData': '1' });
  await ear.heard(2 * 80 * 384);
  // Heard 1 s into the next segment: byte 61,440 + 16,000 of what this listener gets.
  channel.title({ id: 't2', startWallMs: startMs + 1000, title: "It's; here'; now" });
  channel.title({ id: 't3', startWallMs: startMs + 60_000, title: 'Later' });
  channel.segments(2);
  const audioBytes = 4 * 80 * 384;
  const titleBytes = (title: string) => Math.ceil((Buffer.byteLength(title) + 15) / 16) * 16;
  const total = audioBytes + Math.floor(audioBytes / 16_000) + titleBytes('Añejo - First') + titleBytes("It's; here’; now");
  const { audio, titles } = splitIcy(await ear.heard(total));
  assert.equal(audio.length, audioBytes);
  assert.deepEqual(frameNumbers(audio, 0, 384), series(80, 320));
  assert.deepEqual(titles, [
    [16_000, 'Añejo - First'],
    [80_000, "It's; here’; now"],
  ]);
});

test('a run that dies is gone over: the stream goes on with the next', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  const ear = new Ear(`${s.url}/listen/radio.aac`);
  channel.part();
  await ear.heard(7 * 15 * 47);
  channel.restart();
  channel.parts(2);
  const bytes = await ear.heard(9 * 15 * 47);
  assert.deepEqual(frameNumbers(bytes, 7, 40).slice(-31), [284, ...series(360, 30)]);
});

test('the end of the broadcast ends the stream, after its last frame', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(3);
  const ear = new Ear(`${s.url}/listen/radio.aac`);
  await ear.heard(1);
  channel.segments(1);
  channel.end();
  await ear.ended;
  assert.equal(frameNumbers(ear.bytes, 7, 40).at(-1), 359);
  await until(() => s.playback.listeners('radio') === 0);
});

test('a listener that does not read is disconnected at the limit of its queue; the others hear on', async (t) => {
  const s = await service(t);
  // Frames of 1,000 bytes: the burst is within the limit, and the system's buffers are full after some hundred parts.
  const channel = s.edge.start('radio', {
    renditions: LADDER.filter((rendition) => rendition.name === 'aac-128'),
    frames: (rendition, index) => Buffer.concat([plainFrames(rendition, index), Buffer.alloc(960)]),
  });
  channel.segments(3);
  const deaf = connect(s.port, '127.0.0.1');
  t.after(() => deaf.destroy());
  deaf.on('error', () => undefined);
  deaf.pause();
  deaf.write('GET /listen/radio.aac HTTP/1.0\r\n\r\n');
  await until(() => s.playback.listeners('radio') === 1);
  const ear = new Ear(`${s.url}/listen/radio.aac`);
  const partBytes = 15 * 1007;
  let heard = 7 * partBytes;
  await ear.heard(heard);
  while (s.playback.counters.slowListeners === 0) {
    channel.part();
    heard += partBytes;
    await ear.heard(heard);
    ear.bytes = Buffer.alloc(0);
    heard = 0;
  }
  await until(() => s.playback.listeners('radio') === 1);
  channel.part();
  await ear.heard(partBytes);
});

test('a channel with as many listeners as it may have refuses one more', async (t) => {
  const s = await service(t, { maxListenersPerStream: 1 });
  s.edge.start('radio').segments(3);
  const ear = new Ear(`${s.url}/listen/radio.mp3`);
  await ear.heard(1);
  const refused = await fetch(`${s.url}/listen/radio.mp3`);
  assert.deepEqual([refused.status, ((await refused.json()) as { code: string }).code], [503, 'busy']);
});

test('real sound: what ffmpeg decodes from each stream is the encoded sine, whole', async (t) => {
  await ensurePackages('ffmpeg');
  const run = (args: string[], input?: Buffer) =>
    execFileSync('ffmpeg', ['-v', 'error', ...args], { maxBuffer: 1 << 26, ...(input ? { input } : {}) });
  const sine = ['-f', 'lavfi', '-i', 'sine=f=440:d=12:r=48000', '-ac', '2'];
  const adtsBytes = run([...sine, '-c:a', 'aac', '-b:a', '128k', '-f', 'adts', '-']);
  const aac: Buffer[] = [];
  for (let at = 0; at < adtsBytes.length; ) {
    const length = ((adtsBytes[at + 3]! & 3) << 11) | (adtsBytes[at + 4]! << 3) | (adtsBytes[at + 5]! >> 5);
    aac.push(adtsBytes.subarray(at + 7, at + length));
    at += length;
  }
  const mp3Bytes = run([
    ...sine,
    '-c:a',
    'libmp3lame',
    '-b:a',
    '128k',
    '-reservoir',
    '0',
    '-write_xing',
    '0',
    '-id3v2_version',
    '0',
    '-f',
    'mp3',
    '-',
  ]);
  const mp3 = series(0, Math.floor(mp3Bytes.length / 384)).map((i) => mp3Bytes.subarray(i * 384, (i + 1) * 384));
  const ogg = run([...sine, '-c:a', 'libopus', '-b:a', '96k', '-f', 'ogg', '-']);
  const opus: Buffer[] = [];
  for (let at = 0; at < ogg.length; ) {
    const lacings = ogg[at + 26]!;
    let body = at + 27 + lacings;
    let length = 0;
    for (let i = 0; i < lacings; i += 1) {
      length += ogg[at + 27 + i]!;
      if (ogg[at + 27 + i] === 255) continue;
      opus.push(ogg.subarray(body, body + length));
      body += length;
      length = 0;
    }
    at = body;
  }
  opus.splice(0, 2);
  const encoded = { aac, mp3, opus };

  const s = await service(t);
  const channel = s.edge.start('radio', { frames: (rendition, index) => encoded[rendition.codec][index]! });
  channel.segments(3);
  const ears = Object.entries({ aac: 'aac', mp3: 'mp3', opus: 'ogg' }).map(([format, container]) => ({
    container,
    ear: new Ear(`${s.url}/listen/radio.${format}`),
  }));
  for (const { ear } of ears) await ear.heard(1);
  channel.segments(2);
  channel.end();
  for (const { container, ear } of ears) {
    await ear.ended;
    const pcm = run(['-xerror', '-f', container, '-i', 'pipe:0', '-f', 's16le', '-ac', '1', '-ar', '48000', '-'], ear.bytes);
    const samples = new Int16Array(pcm.buffer, pcm.byteOffset, pcm.length / 2);
    assert.ok(samples.length >= 5.8 * 48_000, `${container}: ${samples.length} samples`);
    // After the first 100 ms every 20 ms hold the sine: no hole where segments and pages meet.
    for (let at = 4800; at + 960 <= samples.length - 4800; at += 960) {
      const peak = Math.max(...samples.subarray(at, at + 960));
      assert.ok(peak > 2500 && peak < 3500, `${container}: peak ${peak} at ${at}`);
    }
  }
});
