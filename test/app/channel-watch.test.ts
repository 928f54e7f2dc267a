import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChannelWatch, type OnAirNews } from '../../player-demo/src/chat/channel-watch.js';
import { FakeClock } from '../../src/runtime/clock.js';

const MINUTE_MS = 60_000;
const LIVE: OnAirNews = { state: 'live', listeners: 1, nowPlaying: null };
const OFF_AIR: OnAirNews = { state: 'offline', listeners: 0, nowPlaying: null };

function watch(isOnAir: boolean, random = 0.5) {
  const clock = new FakeClock();
  const state = { isOnAir, isAway: false, asked: 0 };
  const watched = new ChannelWatch(isOnAir, {
    after: (waitMs, task) => clock.after(waitMs, task),
    random: () => random,
    ask: async () => {
      state.asked++;
      if (state.isAway) throw new Error('away');
      return state.isOnAir;
    },
  });
  return {
    watched,
    state,
    /** Requests within this time. */
    async during(forMs: number): Promise<number> {
      const before = state.asked;
      for (let ms = 0; ms < forMs; ms += 500) {
        clock.advance(500);
        await Promise.resolve();
        await Promise.resolve();
        await Promise.resolve();
      }
      return state.asked - before;
    },
  };
}

test('while the chat tells it the API is asked every five minutes', async () => {
  for (const news of [LIVE, OFF_AIR]) {
    const { watched, during } = watch(false);
    watched.tell(news);
    assert.equal(await during(4 * MINUTE_MS), 0);
    assert.equal(await during(MINUTE_MS + 1000), 1);
    watched.tell(news);
    assert.equal(await during(4 * MINUTE_MS), 0, 'news of the same kind begin nothing anew');
  }
});

test('without the chat it is asked twice a minute, on air and off air', async () => {
  for (const isOnAir of [true, false])
    for (const random of [0, 0.5, 1]) {
      const { during } = watch(isOnAir, random);
      await during(30_000);
      for (let minute = 0; minute < 5; minute++) assert.ok((await during(MINUTE_MS)) <= 2, `on air: ${isOnAir}, spread: ${random}`);
    }
});

test('off air it is asked soon at first; the end of a show begins that anew', async () => {
  const { watched, state, during } = watch(false);
  assert.ok((await during(15_000)) >= 3);
  state.isOnAir = true;
  await during(MINUTE_MS);
  state.isOnAir = false;
  watched.ended();
  assert.ok((await during(15_000)) >= 3);
  assert.ok((await during(5 * MINUTE_MS)) <= 10);
});

test('when the chat is lost the pages ask after some seconds, each at another moment, and not again when it is back', async () => {
  const { watched, during } = watch(true);
  watched.tell(LIVE);
  await during(MINUTE_MS);
  watched.tell(undefined);
  assert.equal(await during(8000), 0);
  assert.equal(await during(3000), 1);
  watched.tell(LIVE);
  assert.equal(await during(4 * MINUTE_MS), 0);
});

test('a server that does not answer is asked less and less often', async () => {
  const { state, during } = watch(true);
  state.isAway = true;
  await during(10 * MINUTE_MS);
  assert.ok((await during(10 * MINUTE_MS)) <= 6);
  state.isAway = false;
  await during(3 * MINUTE_MS);
  assert.ok((await during(5 * MINUTE_MS)) >= 7, 'and as before when it answers again');
});
