import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import type { PlaybackOptions } from '../../src/app/playback/playback-options.js';
import { clientAddress } from '../../src/runtime/addresses.js';
import { Places } from '../../src/runtime/places.js';
import { type FakeService, startPlayback } from '../support/fake-edge.js';

const EDGE = '192.0.2.1';
const BLOCKED = 'index.m3u8?_HLS_msn=12&_HLS_part=0';

async function service(t: TestContext, options: Partial<PlaybackOptions> = {}): Promise<FakeService> {
  const started = await startPlayback({ addressOf: (req) => clientAddress(req, 1), ...options });
  t.after(() => started.close());
  return started;
}

class FakeResponse extends EventEmitter {
  statusCode = 0;
  headersSent = false;
  writableEnded = false;
  readonly destroyed = false;
  writableLength = 0;
  useChunkedEncodingByDefault = true;
  writeHead(status: number) {
    this.statusCode = status;
    this.headersSent = true;
    return this;
  }
  write() {
    return true;
  }
  end() {
    this.writableEnded = true;
    this.emit('close');
    return this;
  }
}

/** A request that came through a proxy, without the sockets that ten thousand of them would need. */
function ask({ playback }: FakeService, path: string, client: string | undefined): FakeResponse {
  const headers = client === undefined ? {} : { 'x-forwarded-for': client };
  const res = new FakeResponse();
  const req = { url: path, method: 'GET', headers, socket: { remoteAddress: EDGE } };
  assert.equal(playback.handle(req as unknown as IncomingMessage, res as unknown as ServerResponse), true);
  return res;
}

const crowd = (count: number, make: (index: number) => FakeResponse) => Array.from({ length: count }, (_, index) => make(index));
const address = (index: number) => `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
const refused = (responses: FakeResponse[]) => responses.filter(({ statusCode }) => statusCode === 503).length;
/** What waits is answered in the turn after the part. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('ten thousand listeners of a channel through one trusted edge are all served, whether or not it names them', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  for (const named of [true, false]) {
    const url = `/live/radio/aac-128/index.m3u8?_HLS_msn=12&_HLS_part=${named ? 0 : 1}`;
    const listeners = crowd(10_000, (index) => ask(s, url, named ? address(index) : undefined));
    assert.equal(s.playback.counters.waiting, 10_000);
    channel.part();
    await turn();
    assert.ok(listeners.every(({ statusCode }) => statusCode === 200));
  }
  assert.equal(s.playback.counters.waiting, 0);
});

test('three hundred people behind one address are served while five others take what they can', async (t) => {
  const s = await service(t);
  const channel = s.edge.start('radio');
  channel.segments(2);
  for (let attacker = 0; attacker < 5; attacker++)
    for (let rank = 0; ask(s, `/live/radio/aac-128/${BLOCKED}`, address(attacker)).statusCode === 0; rank++) assert.ok(rank < 50_000);
  const part = channel.partPath('aac-128', 12, 0);
  const people = crowd(300, (index) => ask(s, index % 2 ? part : `/live/radio/aac-128/${BLOCKED}`, '198.51.100.7'));
  const more = crowd(300, (index) => ask(s, index % 2 ? part : `/live/radio/aac-128/${BLOCKED}`, '198.51.100.7'));
  assert.equal(refused([...people, ...more]), 0);
  channel.part();
  while (s.playback.counters.waiting > 0) await turn();
  assert.ok([...people, ...more].every(({ statusCode }) => statusCode === 200));
});

test('the crowd of one address leaves places for others, of one /64 as well', async (t) => {
  const s = await service(t, { maxWaiting: 100 });
  s.edge.start('radio').segments(2);
  for (const client of [() => '203.0.113.5', (index: number) => `2001:db8::${index.toString(16)}`]) {
    const asked = crowd(200, (index) => ask(s, `/live/radio/aac-128/${BLOCKED}`, client(index)));
    assert.ok(refused(asked) >= 180, `${refused(asked)} of 200`);
  }
  const others = crowd(15, (index) => ask(s, `/live/radio/aac-128/${BLOCKED}`, address(index)));
  assert.equal(refused(others), 0);
});

test('the crowd of one channel leaves places for the others', async (t) => {
  const s = await service(t, { maxWaiting: 100 });
  s.edge.start('radio').segments(2);
  const other = s.edge.start('other');
  other.segments(2);
  const asked = crowd(200, (index) => ask(s, `/live/radio/aac-128/${BLOCKED}`, address(index)));
  assert.equal(refused(asked), 150);
  const others = crowd(25, (index) => ask(s, `/live/other/aac-128/${BLOCKED}`, address(1000 + index)));
  assert.equal(refused(others), 0);
  other.part();
  await turn();
  assert.ok(others.every(({ statusCode }) => statusCode === 200));
});

test('hinted parts, segments in the making and endless streams take places, and give them back when their client goes', async (t) => {
  const s = await service(t, { maxWaiting: 10 });
  const channel = s.edge.start('radio');
  channel.segments(2);
  channel.parts(1);
  const part = channel.partPath('aac-128', 12, 1);
  const open = part.replace(/\.1\.m4s$/, '.m4s');
  for (const path of [part, open, '/listen/radio.aac']) {
    const held = crowd(2, () => ask(s, path, '203.0.113.5'));
    assert.equal(refused(held), 0, path);
    assert.equal(ask(s, path, '203.0.113.5').statusCode, 503, path);
    assert.notEqual(ask(s, path, '203.0.113.6').statusCode, 503, path);
    for (const res of held) res.emit('close');
    const again = ask(s, path, '203.0.113.5');
    assert.notEqual(again.statusCode, 503, path);
    again.emit('close');
  }
});

test('requests for recordings that wait for the store are bounded by address', async (t) => {
  const s = await service(t);
  s.store.get = () => new Promise(() => undefined);
  const asked = crowd(10_000, (index) => ask(s, `/vod/a${index}/aac-128/a-1.m4s`, '203.0.113.5'));
  assert.equal(refused(asked), 8000);
  assert.equal(ask(s, '/vod/b/aac-128/a-1.m4s', '203.0.113.6').statusCode, 0);
});

test('a place that is given back twice is given back once', () => {
  const places = new Places(10);
  const leave = places.take('a', 'c')!;
  places.take('a', 'c');
  leave();
  leave();
  assert.equal(places.held, 1);
});

test('what is taken at once counts for what it is', () => {
  const places = new Places(1000);
  assert.equal(places.take('a', undefined, 251), undefined);
  assert.ok(places.take('a', undefined, 250));
  assert.equal(places.take('a', undefined, 1), undefined);
  assert.ok(places.take('b', undefined, 187));
});
