import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VezaError } from '../../src/runtime/errors.js';
import { World } from './live-world.js';

const SECOND = 48_000;
/** `World.send` writes 1. */
const FILE = 7;

/** A file that was received whole at once; every byte of its samples is `mark`. */
async function sendFile(world: World, mark: number, seconds: number, client = `curl ${mark}`) {
  const { source, closed } = await world.connect(client);
  source.write(new Uint8Array(seconds * SECOND * 4).fill(mark));
  source.end('finished');
  return { closed };
}

/** Seconds heard of what was sent with this mark; a fade takes a few milliseconds of it. */
const heardS = (world: World, mark: number) => (world.ffmpeg.heard.get(mark) ?? 0) / SECOND;

test('three short files sent one after the other are heard whole and in their order, with nothing between them', async () => {
  const world = new World();
  await world.live.start();
  for (const mark of [1, 2, 3]) await sendFile(world, mark, 4);
  await world.pass(5000);
  assert.ok(heardS(world, 1) > 3.9 && heardS(world, 3) === 0, 'the first before the second');
  await world.pass(9000);
  for (const mark of [1, 2, 3]) assert.ok(Math.abs(heardS(world, mark) - 4) < 0.05, `${heardS(world, mark)} s of file ${mark}`);
  const silenceBetween = world.ffmpeg.longestSilenceBetweenSound;
  assert.ok(silenceBetween < SECOND / 50, `${silenceBetween} samples of silence`);
});

test('the end of a file that begins a show is over when the show can be seen, and at once when nothing comes of the file', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect('curl 1');
  source.write(new Uint8Array(4 * SECOND * 4).fill(1));
  let states: string[] = [];
  void source.end('finished')?.then(() => states.push(world.live.status('radio').state));
  assert.equal(world.live.status('radio').state, 'offline');
  await world.pass(200);
  assert.deepEqual(states, ['live']);
  const { source: next } = await world.connect('curl 2');
  assert.equal(next.end('finished'), undefined, 'the channel is on air already');

  const other = new World();
  await other.live.start();
  const { source: broken } = await other.connect('curl 1');
  broken.write(Buffer.alloc(2));
  states = [];
  void broken.end('finished')?.then(() => states.push(other.live.status('radio').state));
  other.ffmpeg.decoders[0]!.crash();
  await other.pass(2000);
  assert.deepEqual(states, ['offline']);
});

test('a file whose decoder is slower than its sender is heard whole before the next one', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect('curl 1');
  source.write(new Uint8Array(2 * SECOND * 4).fill(1));
  // The sender is done; the child still reads what waits in its pipe.
  world.ffmpeg.decoders[0]!.holdEnd = true;
  source.end('finished');
  await sendFile(world, 2, 4);
  await world.pass(500);
  world.ffmpeg.decoders[0]!.late(new Uint8Array(2 * SECOND * 4).fill(1));
  await world.pass(9000);
  assert.ok(heardS(world, 1) > 3.9, `${heardS(world, 1)} s of the first`);
  assert.ok(heardS(world, 2) > 3.9, `${heardS(world, 2)} s of the second`);
});

test('a file whose decoder hangs after its end does not keep the next one from the air', async () => {
  const world = new World();
  await world.live.start();
  const { source } = await world.connect('curl 1');
  source.write(new Uint8Array(SECOND * 4).fill(1));
  world.ffmpeg.decoders[0]!.holdEnd = true;
  source.end('finished');
  await sendFile(world, 2, 4);
  await world.pass(10_000);
  assert.ok(heardS(world, 2) > 3.9, `${heardS(world, 2)} s of the second`);
});

test('an encoder that comes while a file is played waits for its end, is heard from then on without delay, and is not displaced', async () => {
  const world = new World();
  await world.live.start();
  await sendFile(world, FILE, 6);
  await world.pass(1000);
  const { source, closed } = await world.connect('obs');
  await world.send(source, 3000);
  assert.ok(heardS(world, FILE) > 3.8);
  // A fade of the file's edge passes through every level.
  assert.ok(heardS(world, 1) < 0.01);
  await world.send(source, 4000);
  assert.ok(Math.abs(heardS(world, FILE) - 6) < 0.05, `${heardS(world, FILE)} s of the file`);
  assert.ok(heardS(world, 1) > 1.5);
  assert.deepEqual(closed, []);
  // In 7 s it has sent 7 s, of which 5 s were beside the file; what is in its buffer now is no more than at any other time.
  assert.equal(world.live.status('radio').state, 'live');
  source.end('lost');
  const before = world.ffmpeg.silentSamples;
  await world.pass(1000);
  assert.ok((world.ffmpeg.silentSamples - before) / SECOND > 0.8, 'it is heard late');
});

test('an encoder takes over at once from a connection that broke, and from one that is connected', async () => {
  for (const end of ['lost', undefined] as const) {
    const world = new World();
    await world.live.start();
    const dead = await world.connect('obs');
    dead.source.write(new Uint8Array(10 * SECOND * 4).fill(FILE));
    await world.pass(1000);
    if (end) dead.source.end(end);
    const { source } = await world.connect('obs');
    await world.send(source, 3000);
    const before = heardS(world, FILE);
    assert.ok(before < 3, `${before} s of the dead connection are heard`);
    await world.send(source, 1000);
    assert.equal(heardS(world, FILE), before);
    assert.ok(heardS(world, 1) > 3);
  }
});

test('the show is held from the last sample on, not from the end of a body, and the recording has all of it', async () => {
  const world = new World();
  await world.live.start();
  await sendFile(world, 1, 12);
  await sendFile(world, 2, 12);
  await world.pass(23_000);
  assert.equal(world.live.status('radio').state, 'live');
  await world.pass(12_000);
  assert.equal(world.live.status('radio').state, 'offline');
  const { from, to } = world.recordings[0]!;
  assert.ok(to - from + 1 >= 12, `${to - from + 1} segments of 1.92 s`);
});

test('a file that has been taken when the show would end for want of a source is heard', async () => {
  const world = new World();
  await world.live.start();
  await sendFile(world, 1, 2);
  // The window of five seconds after its end is all but over.
  await world.pass(6950);
  assert.equal(world.live.status('radio').state, 'holding');
  const { source } = await world.connect('curl 2');
  source.write(new Uint8Array(SECOND).fill(2));
  await world.pass(100);
  source.write(new Uint8Array(3 * SECOND * 4).fill(2));
  source.end('finished');
  await world.pass(5000);
  assert.ok(heardS(world, 2) > 2.9, `${heardS(world, 2)} s of the second`);
});

test('a process that stops plays out what ended sources have left', async () => {
  const world = new World();
  await world.live.start();
  await sendFile(world, 1, 4);
  await world.pass(1000);
  await Promise.all([world.live.stop(), world.pass(15_000)]);
  assert.ok(heardS(world, 1) > 3.9, `${heardS(world, 1)} s`);
});

test('nine files at once: the ninth is refused as busy, and taken when one has been played', async () => {
  const world = new World();
  await world.live.start();
  for (let mark = 1; mark <= 8; mark += 1) await sendFile(world, mark, 1);
  await assert.rejects(sendFile(world, 9, 1), (error) => error instanceof VezaError && error.code === 'busy');
  await world.pass(3000);
  await sendFile(world, 9, 1);
  await world.pass(9000);
  for (let mark = 1; mark <= 9; mark += 1) assert.ok(heardS(world, mark) > 0.95, `${heardS(world, mark)} s of file ${mark}`);
});

test('an encoder that changes its format at once plays what it had before', async () => {
  const world = new World();
  await world.live.start();
  const admission = await world.live.admit({
    protocol: 'post',
    channel: undefined,
    streamKey: 'key',
    remoteAddress: '127.0.0.1',
    client: 'ices',
  });
  const events = { onDrain: () => undefined, onClose: () => undefined };
  for (const mark of [1, 2, 3]) {
    const source = admission.open('ogg', events);
    source.write(new Uint8Array(2 * SECOND * 4).fill(mark));
    source.end('finished');
  }
  await world.pass(8000);
  for (const mark of [1, 2, 3]) assert.ok(heardS(world, mark) > 1.95, `${heardS(world, mark)} s of link ${mark}`);
});

test('more than ten decoders in ten seconds for a connection, or twenty for a channel, are refused; then it goes on', async () => {
  const world = new World();
  await world.live.start();
  const refused = (error: unknown) => error instanceof VezaError && error.code === 'rate_limited' && error.status === 429;
  const events = { onDrain: () => undefined, onClose: () => undefined };
  const request = { protocol: 'rtmp', channel: undefined, streamKey: 'key', remoteAddress: '127.0.0.1', client: 'obs' };
  const admissions = await Promise.all([1, 2, 3].map(() => world.live.admit(request)));
  for (const admission of admissions.slice(0, 2)) {
    for (let count = 0; count < 10; count += 1) admission.open('adts', events).end('lost');
    assert.throws(() => admission.open('adts', events), refused);
  }
  assert.throws(() => admissions[2]!.open('adts', events), refused, 'the channel has had twenty');
  const other = await world.live.admit({ ...request, streamKey: 'key-2' });
  other.open('adts', events).end('lost');
  assert.equal(world.ffmpeg.decoders.length, 21);
  await world.pass(10_000, 320);
  admissions[2]!.open('adts', events);
});

test('a decoder that dies again and again, each time after a second of sound, is replaced ten times in ten seconds and no more', async () => {
  const world = new World();
  await world.live.start();
  const admission = await world.live.admit({
    protocol: 'post',
    channel: undefined,
    streamKey: 'key',
    remoteAddress: '127.0.0.1',
    client: 'x',
  });
  const closed: { code: string }[] = [];
  const source = admission.open('mp3', { onDrain: () => undefined, onClose: (error) => closed.push(error) });
  for (let turn = 0; turn < 40 && closed.length === 0; turn += 1) {
    source.write(new Uint8Array(1.1 * SECOND * 4).fill(1));
    world.ffmpeg.decoders.at(-1)!.crash();
    await world.settle();
  }
  assert.equal(closed[0]?.code, 'unsupported_media');
  assert.equal(world.ffmpeg.decoders.length, 10);
});
