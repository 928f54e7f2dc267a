import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PcmBuffer } from '../../src/live/pcm-buffer.js';

const RATE = 48_000;
const BLOCK = 960;

/** 440 Hz at 48 kHz repeats after 1,200 samples. */
const WAVE = Int16Array.from({ length: 1200 }, (_, at) => Math.round(12_000 * Math.sin((2 * Math.PI * 440 * at) / RATE)));

/** A sine that never stops, at an amplitude where rounding is small; the same in both channels. */
class Tone {
  #at = 0;
  next(samples: number): Int16Array {
    const pcm = new Int16Array(samples * 2);
    for (let index = 0; index < samples; index += 1) {
      const value = WAVE[this.#at % WAVE.length] ?? 0;
      pcm[2 * index] = value;
      pcm[2 * index + 1] = value;
      this.#at += 1;
    }
    return pcm;
  }
}

interface Heard {
  /** Samples that were sound. */
  sound: number;
  /** Blocks that were partly or wholly fill, after the first sound. */
  starvedBlocks: number;
  /** Largest |x[n] − 2cos(w)x[n−1] + x[n−2]|: what a click adds to a sine. */
  worstStep: number;
  cuts: number[];
  minLevelMs: number;
  maxLevelMs: number;
}

/**
 * Runs a buffer for `seconds` of simulated time: `arrivals(nowMs)` says how many samples come in this millisecond; a block is
 * read each 20 ms.
 */
function simulate(
  seconds: number,
  targetMs: number | undefined,
  arrivals: (nowMs: number, paused: boolean) => number,
  endAtMs = Number.POSITIVE_INFINITY,
): Heard {
  const tone = new Tone();
  const heard: Heard = { sound: 0, starvedBlocks: 0, worstStep: 0, cuts: [], minLevelMs: Number.POSITIVE_INFINITY, maxLevelMs: 0 };
  let paused = false;
  const buffer = new PcmBuffer({
    targetMs,
    onPressure: (pause) => {
      paused = pause;
    },
    onCut: (removedMs) => heard.cuts.push(removedMs),
  });
  const c = 2 * Math.cos((2 * Math.PI * 440) / RATE);
  let [last, beforeLast] = [0, 0];
  let settledBlocks = 0;
  for (let nowMs = 0; nowMs < seconds * 1000; nowMs += 1) {
    const samples = nowMs < endAtMs ? arrivals(nowMs, paused) : 0;
    if (samples > 0) buffer.push(tone.next(samples), nowMs);
    if (nowMs === endAtMs) buffer.end();
    if (nowMs % 20 !== 0) continue;
    if (heard.sound === 0 && !buffer.ready(nowMs)) continue;
    const out = new Int16Array(BLOCK * 2);
    const got = buffer.read(out, nowMs);
    heard.sound += got;
    if (got < BLOCK && !buffer.drained) heard.starvedBlocks += 1;
    settledBlocks = got < BLOCK ? 0 : settledBlocks + 1;
    for (let index = 0; index < got; index += 1) {
      const value = out[2 * index] ?? 0;
      const step = Math.abs(value - c * last + beforeLast);
      if (settledBlocks > 2 && step > heard.worstStep) heard.worstStep = step;
      beforeLast = last;
      last = value;
    }
    if (nowMs > 10_000) {
      heard.minLevelMs = Math.min(heard.minLevelMs, buffer.levelMs);
      heard.maxLevelMs = Math.max(heard.maxLevelMs, buffer.levelMs);
    }
  }
  return heard;
}

/** A broadcaster whose clock is off by `ppm`, sending frames of 1,024 samples when they are full. */
function realTime(ppm: number): (nowMs: number) => number {
  let sent = 0;
  return (nowMs) => {
    const made = Math.floor(((nowMs * RATE) / 1000) * (1 + ppm / 1e6));
    const frames = Math.floor((made - sent) / 1024);
    sent += frames * 1024;
    return frames * 1024;
  };
}

for (const ppm of [0, 200, -200, 450, -450]) {
  test(`a broadcaster's clock off by ${ppm} ppm for twenty minutes: nothing cut, nothing missing, the level stands`, () => {
    const heard = simulate(1200, 100, realTime(ppm));
    assert.equal(heard.starvedBlocks, 0);
    assert.deepEqual(heard.cuts, []);
    assert.ok(heard.worstStep < 400, `a step of ${heard.worstStep}`);
    assert.ok(heard.maxLevelMs < 100 + 80, `level up to ${heard.maxLevelMs} ms`);
    assert.ok(heard.minLevelMs > 20, `level down to ${heard.minLevelMs} ms`);
  });
}

test('the simulation hears a click: an unfaded splice is far above the bound that the other tests use', () => {
  const tone = new Tone();
  const first = tone.next(500);
  tone.next(100);
  const second = tone.next(500);
  const joined = new Int16Array([...first, ...second]);
  const c = 2 * Math.cos((2 * Math.PI * 440) / RATE);
  let worst = 0;
  for (let index = 2; index < joined.length / 2; index += 1) {
    worst = Math.max(worst, Math.abs((joined[2 * index] ?? 0) - c * (joined[2 * index - 2] ?? 0) + (joined[2 * index - 4] ?? 0)));
  }
  assert.ok(worst > 2000, `only ${worst}`);
});

test('what a real-time source sent before it was put on is trimmed to the target', () => {
  const steady = realTime(0);
  // 180 ms arrive at once, then in real time.
  const heard = simulate(30, 100, (nowMs) => (nowMs === 0 ? 8640 : 0) + steady(nowMs));
  assert.equal(heard.starvedBlocks, 0);
  assert.ok(heard.maxLevelMs <= 100 + 40, `held ${heard.maxLevelMs} ms`);
});

/** In real time but for one stall at 12 s, after which all that was held back comes at once. */
function stalling(ms: number): (nowMs: number) => number {
  const steady = realTime(0);
  let held = 0;
  return (nowMs) => {
    const samples = steady(nowMs);
    if (nowMs >= 12_000 && nowMs < 12_000 + ms) {
      held += samples;
      return 0;
    }
    const all = samples + held;
    held = 0;
    return all;
  };
}

test('an uplink that hiccups: what the buffer covers leaves nothing, and what it does not is cut, not carried as delay', () => {
  const covered = simulate(60, 100, stalling(60));
  assert.deepEqual([covered.starvedBlocks, covered.cuts], [0, []]);
  const heard = simulate(60, 100, stalling(250));
  assert.equal(heard.cuts.length, 1);
  assert.ok(Math.abs((heard.cuts[0] ?? 0) - 150) < 60, `cut ${heard.cuts[0]} ms`);
});

test('an uplink that stalls 3 s and catches up: fill, all of it back, and one cut brings the latency back', () => {
  const heard = simulate(60, 100, stalling(3000));
  assert.equal(heard.cuts.length, 1);
  assert.ok(Math.abs((heard.cuts[0] ?? 0) - 2900) < 200, `cut ${heard.cuts[0]} ms`);
  const steadyAfter = simulate(60, 100, realTime(0));
  assert.ok(steadyAfter.maxLevelMs < 150);
  assert.ok(heard.worstStep < 2000, `a step of ${heard.worstStep}`);
});

test('a file faster than real time is heard whole, at its own speed, and its sender is held back above 3 s', () => {
  let left = 120 * RATE;
  let mostMs = 0;
  let level = 0;
  const heard = simulate(
    125,
    undefined,
    (_nowMs, paused) => {
      if (paused || left === 0) return 0;
      const samples = Math.min(left, 4800);
      left -= samples;
      level += samples;
      mostMs = Math.max(mostMs, level / 48);
      return samples;
    },
    124_000,
  );
  assert.equal(heard.sound, 120 * RATE);
  assert.deepEqual(heard.cuts, []);
  assert.ok(heard.maxLevelMs <= 3200, `level up to ${heard.maxLevelMs} ms`);
  assert.ok(heard.worstStep < 400);
});

test('a file is put on as soon as more of it is there than an encoder sends when it begins', () => {
  for (const targetMs of [undefined, 100]) {
    const buffer = new PcmBuffer({ targetMs, onPressure: () => {} });
    buffer.push(new Tone().next(2 * RATE + 48), 1000);
    assert.equal(buffer.ready(1000), true);
    assert.ok(buffer.levelMs > 2000, 'nothing of it is trimmed');
    const burst = new PcmBuffer({ targetMs, onPressure: () => {} });
    burst.push(new Tone().next(2 * RATE), 1000);
    assert.equal(burst.ready(1000), false, 'an encoder may send a burst');
  }
});

test('a short file that ends at once is heard to its last sample', () => {
  const heard = simulate(5, undefined, (nowMs) => (nowMs === 0 ? 30_000 : 0), 1);
  assert.equal(heard.sound, 30_000);
});

test('a source that arrives in lumps of half a second gets a buffer for it by itself', () => {
  const steady = realTime(0);
  let held = 0;
  const heard = simulate(60, undefined, (nowMs) => {
    held += steady(nowMs);
    if (nowMs % 500 !== 0) return 0;
    const all = held;
    held = 0;
    return all;
  });
  // Until it has seen two lumps it cannot know; from then on it holds.
  assert.ok(heard.starvedBlocks < 60, `${heard.starvedBlocks} starved blocks`);
  assert.ok(heard.maxLevelMs < 1200);
});
