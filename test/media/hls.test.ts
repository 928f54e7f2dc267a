import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decideReload,
  isReached,
  LIVE_WINDOW_SEGMENTS,
  renderDvr,
  renderMedia,
  renderMultivariant,
  renderVod,
} from '../../src/media/hls.js';
import { assertGolden } from './golden.js';
import { rendition, World } from './manifest-world.js';

const media = (world: World, name: string, skip = false) => renderMedia(world.timeline(), rendition(name), world.renditions, { skip });
const rollover = () => new World().segments(32).title('One', 'Ann').segments(3).title('Two "2"\n').segments(1).publish(640);

test('golden: multivariant playlists', () => {
  const { renditions } = new World();
  assertGolden('master.m3u8', renderMultivariant(renditions));
  assertGolden('opus.m3u8', renderMultivariant(renditions, { only: 'opus' }));
  assertGolden('master-dvr.m3u8', renderMultivariant(renditions, { playlist: 'dvr.m3u8' }));
});

test('golden: first part, which gaps precede', () => {
  assertGolden('nothing-yet.m3u8', media(new World(), 'aac-128'));
  assertGolden('first-part.m3u8', media(new World().publish(320), 'aac-128'));
  assertGolden('first-part-mp3.m3u8', media(new World().publish(320), 'mp3-128'));
});

test('a young broadcast is preceded by gaps, and goes on where the one before it ended', () => {
  const before = new World({ firstNumber: 100 }).segments(1).end();
  const after = new World({ firstNumber: 101 });
  const sequence = (world: World) => Number(/MEDIA-SEQUENCE:(\d+)/.exec(media(world, 'aac-128'))?.[1]);
  for (let last = sequence(before), step = 0; step < 40; step++) {
    const text = media(after, 'aac-128');
    assert.ok(text.match(/#EXTINF/g)!.length >= 6);
    assert.equal(text.match(/#EXT-X-GAP/g)?.length ?? 0, Math.max(0, 6 - step));
    assert.ok(sequence(after) >= last);
    last = sequence(after);
    after.segments(1);
  }
  assert.equal(sequence(new World({ firstNumber: 2 }).publish(320)), 0, 'numbers begin at 0');
});

test('golden: rollover, delta, end', () => {
  assertGolden('rollover.m3u8', media(rollover(), 'aac-128'));
  assertGolden('delta.m3u8', media(rollover(), 'aac-128', true));
  assertGolden('end.m3u8', media(rollover().end(), 'aac-128', true));
});

test('golden: gap and discontinuity, before and after the first part of the new run', () => {
  const world = new World().segments(8).publish(640).crash(3000);
  assertGolden('gap.m3u8', media(world, 'aac-128'));
  assertGolden('gap-discontinuity.m3u8', media(world.publish(320), 'aac-128'));
  assertGolden('gap-discontinuity-mp3.m3u8', media(world.segments(1), 'mp3-128'));
});

test('the discontinuity counts the same while its segment is the first of the list and after', () => {
  const world = new World().segments(4).crash(1000);
  world.segments(LIVE_WINDOW_SEGMENTS);
  assertGolden('discontinuity-first.m3u8', media(world, 'aac-128'));
  assert.match(media(world, 'aac-128'), /#EXT-X-DISCONTINUITY-SEQUENCE:7\n[\s\S]*#EXT-X-DISCONTINUITY\n/);
  world.segments(1);
  assert.match(media(world, 'aac-128'), /#EXT-X-DISCONTINUITY-SEQUENCE:8\n/);
  assert.doesNotMatch(media(world, 'aac-128'), /#EXT-X-DISCONTINUITY\n/);
});

test('golden: mp3, rewind, recording', () => {
  const world = new World().segments(3).title('One').publish(400).crash(2000).segments(40);
  assertGolden('mp3.m3u8', media(world, 'mp3-128'));
  assertGolden('dvr.m3u8', renderDvr(world.timeline(), rendition('aac-64'), 80 * 48_000));
  const recording = new World().leadingGaps(6).segments(3).title('One').publish(400).crash(2000).segments(2).end();
  assertGolden('vod.m3u8', renderVod(recording.timeline(), rendition('aac-64'), '/live/radio/aac-64/'));
  assertGolden('vod-range.m3u8', renderVod(recording.timeline(), rendition('opus-96'), '../', { from: 1007, to: 1009 }));
});

test('golden: fast profiles, whose codecs have parts of their own', () => {
  for (const partMs of [214, 107]) {
    const world = new World({ partMs, renditions: [rendition('aac-128'), rendition('opus-96')] }).segments(4).publish(1000);
    assertGolden(`parts-${partMs}-aac.m3u8`, media(world, 'aac-128'));
    assertGolden(`parts-${partMs}-opus.m3u8`, media(world, 'opus-96'));
  }
});

test('a reload is answered, held or refused as rules 24 to 26 say', () => {
  // Segments to 1009 are complete; 1010 has two of its six parts.
  const world = new World().segments(10).publish(640);
  const decide = (msn?: string, part?: string) => decideReload(world.timeline(), 'aac', { msn, part });
  const wait = (msn: number, part?: number) => ({ kind: 'wait', msn, part });

  assert.deepEqual(decide(), { kind: 'now' });
  assert.deepEqual(decide('1009'), { kind: 'now' });
  assert.deepEqual(decide('3', '5'), { kind: 'now' }, 'an old number');
  assert.deepEqual(decide('1010'), wait(1010));
  assert.deepEqual(decide('1010', '1'), { kind: 'now' });
  assert.deepEqual(decide('1010', '2'), wait(1010, 2));
  assert.deepEqual(decide('1009', '6'), { kind: 'now' }, 'part 0 of the next, which is there');
  assert.deepEqual(decide('1010', '6'), wait(1011, 0), 'a part past the last of its segment');
  assert.deepEqual(decide('1011'), wait(1011));
  assert.deepEqual(decide('1011', '4'), wait(1011, 4), '9 parts past the last');

  for (const [msn, part] of [
    [undefined, '1'],
    ['x', undefined],
    ['-1', undefined],
    ['1.5', undefined],
    ['', undefined],
    ['9'.repeat(16), undefined],
    ['1010', 'x'],
    ['1012', undefined],
    ['1012', '0'],
    ['1010', '11'],
    ['1010', '1000'],
    ['1011', '5'],
  ]) {
    assert.equal(decide(msn, part).kind, 'bad', `${msn} ${part}`);
  }
  assert.equal(decideReload(world.timeline(), 'mp3', { msn: 'x' }).kind, 'now', 'packed audio offers no directives');
});

test('a waiter is released by its part, anything later, or the end', () => {
  const world = new World().segments(10).publish(320);
  const reached = (msn: number, part?: number) => isReached(world.timeline(), 'aac', msn, part);
  assert.equal(reached(1010, 0), true);
  assert.equal(reached(1010, 1), false);
  assert.equal(reached(1010), false);
  world.publish(320);
  assert.equal(reached(1010, 1), true);
  world.crash(0);
  assert.equal(reached(1010, 5), true, 'the segment became a gap');
  assert.equal(reached(1011, 0), false);
  world.end();
  assert.equal(reached(1011, 0), true);
  assert.deepEqual(decideReload(world.timeline(), 'aac', { part: 'x' }), { kind: 'now' }, 'directives are ignored once it has ended');
});

test('titles: cut, unquoted, and only those heard in the window', () => {
  const world = new World()
    .title(`A "b"\r\n\u0007\ud800${'x'.repeat(300)}`)
    .segments(50)
    .title('Now')
    .segments(1);
  const lines = media(world, 'aac-128')
    .split('\n')
    .filter((line) => line.startsWith('#EXT-X-DATERANGE'));
  assert.equal(lines.length, 2);
  assert.match(lines[0]!, /X-TITLE="A 'b' x{1,300}"$/);
  assert.ok(lines[0]!.length < 400);
  world.segments(29);
  assert.equal(media(world, 'aac-128').match(/EXT-X-DATERANGE/g)?.length, 2);
  world.segments(3);
  assert.equal(media(world, 'aac-128').match(/EXT-X-DATERANGE/g)?.length, 1);
});
