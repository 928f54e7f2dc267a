import assert from 'node:assert/strict';
import { test } from 'node:test';
import { renderMpd, renderVodMpd, targetLatencyMs } from '../../src/media/dash.js';
import { LADDER } from '../../src/media/ladder.js';
import { assertGolden } from './golden.js';
import { rendition, World } from './manifest-world.js';

const TIMESCALE = 2 ** 26;
const SEGMENT_TICKS = 128_849_019;
const options = { utcTimingUrl: 'https://radio.example/time?a=1&b=2', windowSamples: 7200 * 48_000 };

test('golden: live, two Periods after a crash, ended, recording', () => {
  const world = new World().leadingGaps(6).segments(10).publish(640);
  assertGolden('live.mpd', renderMpd(world.timeline(), LADDER, options));
  world.crash(3000).segments(4);
  assertGolden('two-periods.mpd', renderMpd(world.timeline(), LADDER, options));
  world.end();
  assertGolden('ended.mpd', renderMpd(world.timeline(), LADDER, options));
  assertGolden('vod.mpd', renderVodMpd(world.timeline(), LADDER, { uriPrefix: '/live/radio/' }));
  assertGolden('vod-range.mpd', renderVodMpd(world.timeline(), LADDER, { uriPrefix: '../', from: 1008, to: 1018 }));
});

test('an update changes nothing of what was said before', () => {
  const world = new World().segments(10);
  const periods = () => renderMpd(world.timeline(), LADDER, options).match(/<Period [^>]*>[\s\S]*?<\/Period>/g) ?? [];
  const first = periods();
  world.segments(7).publish(960);
  assert.deepEqual(periods(), first, 'nothing at all within a run');
  world.crash(5000).segments(2);
  const second = periods();
  assert.equal(second.length, 2);
  // 17 whole segments; the eighteenth was lost.
  assert.equal(second[0], first[0]!.replace('start="PT0S"', `start="PT0S" duration="PT${(17 * SEGMENT_TICKS) / TIMESCALE}S"`));
});

test('a segment that was lost after all cuts a recording, but no Period that players are in', () => {
  const world = new World().segments(20);
  const before = renderMpd(world.timeline(), LADDER, options);
  world.gaps.add(1005);
  assert.equal(renderMpd(world.timeline(), LADDER, options), before);
  world.end();
  const recording = renderVodMpd(world.timeline(), LADDER, { uriPrefix: '' });
  assert.deepEqual(recording.match(/<Period [^>]*>/g), [
    `<Period id="run0-1000" start="PT0S" duration="PT${(5 * SEGMENT_TICKS) / TIMESCALE}S">`,
    `<Period id="run0-1006" start="PT${(5 * SEGMENT_TICKS) / TIMESCALE}S" duration="PT${(14 * SEGMENT_TICKS) / TIMESCALE}S">`,
  ]);
});

test('Periods that left the window are dropped, the rest keep their explicit start', () => {
  const world = new World().segments(5).crash(1000).segments(50);
  const text = renderMpd(world.timeline(), LADDER, { ...options, windowSamples: 60 * 48_000 });
  assert.equal(text.match(/<Period /g)?.length, 1);
  // 5 segments, then 1 s down.
  const start = Number(/<Period id="run1-1006" start="PT([\d.]+)S">/.exec(text)?.[1]);
  assert.ok(Math.abs(start - 10.6) < 1e-7);
  assert.match(text, new RegExp(`startNumber="1006" presentationTimeOffset="${Math.round((552_960 / 48_000) * TIMESCALE)}"`));
});

test('the arithmetic of a player in binary fractions finds each segment by its start, in every Period, for weeks', () => {
  const world = new World().segments(5).crash(1234.567).segments(2);
  const text = renderMpd(world.timeline(), LADDER, options);
  const periods = [...text.matchAll(/<Period [^>]*start="PT([\d.]+)S"/g)].map((match) => Number(match[1]));
  assert.equal(periods.length, 2);
  const [timescale, ticks] = /timescale="(\d+)" duration="(\d+)"/.exec(text)!.slice(1).map(Number);
  const durationS = ticks! / timescale!;
  for (const startS of periods) {
    for (let position = 0; position < 1_000_000; position++) {
      const endS = position * durationS + startS + durationS;
      if (Math.floor((endS - startS) / durationS) !== position + 1) assert.fail(`${startS} s: the segment after ${position} is not found`);
    }
  }
  // And they are the segments' true places: 23 days of them are off by 2 ms.
  assert.ok(Math.abs(1_000_000 * durationS - 1_920_000) < 0.002);
});

test('latency and availability follow the part', () => {
  assert.equal(targetLatencyMs(new World().timeline()), 1500);
  assert.equal(targetLatencyMs(new World({ partMs: 107 }).timeline()), 860);
  assert.match(renderMpd(new World({ partMs: 107 }).segments(1).timeline(), LADDER, options), /availabilityTimeOffset="1\.613"/);
});

test('mp3 is never in an MPD, and a ladder of nothing else gives one without media', () => {
  const world = new World().segments(3).end();
  assert.doesNotMatch(renderMpd(world.timeline(), LADDER, options), /mp3/);
  assert.doesNotMatch(renderVodMpd(world.timeline(), [rendition('mp3-128')], { uriPrefix: '' }), /Period/);
});
