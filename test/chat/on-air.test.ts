import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LISTENERS_MS, type OnAirChanges, OnAirFrames, type OnAirState, OnAirWatcher } from '../../src/chat/rooms/on-air.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { ChatWorld, roomId } from './chat-world.js';

const live = (more: Partial<OnAirState> = {}): OnAirState => ({
  state: 'live',
  listeners: 1,
  startedAt: 1000,
  nowPlaying: null,
  ...more,
});

test('what is on air is told when it changes; the number of listeners alone every 20 s at most', () => {
  const clock = new FakeClock();
  const onAir = new Map<string, OnAirState>();
  const told: OnAirChanges[] = [];
  const news = new OnAirWatcher({
    clock,
    channels: () => [...onAir.keys()],
    news: (slug) => onAir.get(slug)!,
    tell: (changes) => void told.push(changes),
  });
  const next = (forMs = 1000) => {
    told.length = 0;
    clock.advance(forMs);
    return told;
  };
  news.start();
  assert.deepEqual(told, [{}], 'that nothing is on air is known from the start');
  assert.deepEqual(next(5000), []);
  onAir.set('radio', live());
  onAir.set('other', live());
  assert.deepEqual(next(), [{ radio: live(), other: live() }]);
  onAir.set('radio', live({ listeners: 2 }));
  assert.deepEqual(next(LISTENERS_MS - 1000), []);
  assert.deepEqual(next(), [{ radio: live({ listeners: 2 }) }]);
  const titled = live({ listeners: 3, nowPlaying: { title: 'Song', startedAt: 5 } });
  onAir.set('radio', titled);
  assert.deepEqual(next(), [{ radio: titled }], 'a title at once, with the number');
  onAir.set('radio', { ...titled, state: 'holding' });
  assert.deepEqual(next(), [{ radio: { ...titled, state: 'holding' } }]);
  onAir.delete('radio');
  onAir.set('other', live({ state: 'offline' }));
  assert.deepEqual(next(), [{ radio: null, other: null }]);
  assert.deepEqual(next(60_000), []);
  news.stop();
  onAir.set('radio', live());
  assert.deepEqual(next(), []);
});

test('who joins is told what is on air, and everybody in the room when it changes; nobody while it is not known', async () => {
  const world = await ChatWorld.start();
  try {
    const early = await world.joined('t-ann');
    await early.settled();
    assert.deepEqual(early.all('channel'), []);
    world.gateway.broadcastOnAir({});
    const guest = await world.joined('t-bob');
    const nothing = { t: 'channel', room: roomId(1), state: 'offline', listeners: 0, startedAt: null, nowPlaying: null };
    assert.deepEqual(await guest.next('channel'), nothing);
    const news = live({ nowPlaying: { title: 'Ä “song”', artist: 'Someone', startedAt: 2000 } });
    world.gateway.broadcastOnAir({ radio: news, elsewhere: live() });
    for (const client of [early, guest]) assert.deepEqual(await client.next('channel'), { t: 'channel', room: roomId(1), ...news });
    world.gateway.broadcastOnAir({ radio: null });
    for (const client of [early, guest]) assert.deepEqual(await client.next('channel'), nothing);
    world.gateway.broadcastOnAir({ elsewhere: null });
    await guest.settled();
    assert.equal(guest.all('channel').length, 3);
  } finally {
    await world.stop();
  }
});

test('a room without a channel is told nothing', () => {
  const onAir = new OnAirFrames();
  onAir.applyChanges({});
  assert.equal(onAir.frameFor('room', undefined), undefined);
});
