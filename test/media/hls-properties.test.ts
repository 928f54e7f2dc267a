import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { renderMedia, renderVod } from '../../src/media/hls.js';
import { checkPlaylist } from '../../src/validator/hls/one-playlist.js';
import { comparePlaylists } from '../../src/validator/hls/succession.js';
import { applyDelta, listed, type MediaPlaylist, parsePlaylist } from '../../src/validator/playlist.js';
import { Report } from '../../src/validator/report.js';
import { rendition, World } from './manifest-world.js';

type Step = { do: 'publish'; parts: number } | { do: 'crash'; downMs: number } | { do: 'title'; text: string } | { do: 'end' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 20, arbitrary: fc.record({ do: fc.constant('publish' as const), parts: fc.integer({ min: 1, max: 12 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('crash' as const), downMs: fc.integer({ min: 0, max: 20_000 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('title' as const), text: fc.string({ maxLength: 40, unit: 'binary' }) }) },
  { weight: 1, arbitrary: fc.constant({ do: 'end' as const }) },
);

function take(world: World, action: Step): void {
  if (world.ended) return;
  if (action.do === 'publish') world.publish((action.parts * world.grid.partSamples) / 48);
  else if (action.do === 'crash') world.crash(action.downMs);
  else if (action.do === 'title') world.title(action.text);
  else world.end();
}

function read(world: World, name: string, skip: boolean): MediaPlaylist {
  const playlist = parsePlaylist(renderMedia(world.timeline(), rendition(name), world.renditions, { skip }));
  assert.equal(playlist.kind, 'media');
  return playlist as MediaPlaylist;
}

/** What a client knows: everything but the form it came in. */
const meaning = (playlist: MediaPlaylist) => ({
  ...playlist,
  versions: [],
  neededVersion: 0,
  skippedSegments: 0,
  segments: playlist.segments.map(({ ownMap, writtenPdtMs, ...rest }) => rest),
  open: playlist.open && { ...playlist.open, ownMap: false, writtenPdtMs: undefined },
});

test('every pair of successive playlists keeps the rules, and delta + what the client had = the full playlist', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(320, 214, 107),
      fc.constantFrom('aac-128', 'opus-96', 'mp3-128'),
      fc.integer({ min: 0, max: 45 }),
      fc.array(step, { minLength: 1, maxLength: 40 }),
      (partMs, name, gaps, steps) => {
        const world = new World({ partMs }).leadingGaps(gaps);
        let before = read(world, name, false);
        for (const action of steps) {
          take(world, action);
          const report = new Report();
          const full = read(world, name, false);
          const sent = read(world, name, true);
          checkPlaylist(full, 'full', report);
          comparePlaylists(before, full, 'reload', report);
          // A client whose list is older than half the skip boundary may not ask for a delta.
          const moved = (listed(full).at(-1)?.number ?? 0) - (listed(before).at(-1)?.number ?? 0);
          if (moved <= 3 || sent.skippedSegments === 0) {
            const joined = applyDelta(before, sent);
            assert.ok(joined, 'the delta skips only what the client had');
            assert.deepEqual(meaning(joined), meaning(full));
          }
          assert.deepEqual(report.breaches, []);
          before = full;
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('all renditions count the same discontinuities and list the same titles', () => {
  fc.assert(
    fc.property(fc.constantFrom(320, 214, 107), fc.array(step, { minLength: 1, maxLength: 30 }), (partMs, steps) => {
      const world = new World({ partMs }).leadingGaps(6);
      for (const action of steps) take(world, action);
      const all = world.renditions.map((rung) => read(world, rung.name, false));
      const numbers = new Map<number, number>();
      for (const playlist of all) {
        assert.deepEqual(playlist.dateRanges, all[0]!.dateRanges);
        for (const segment of listed(playlist)) {
          assert.equal(segment.discontinuitySequence, numbers.get(segment.number) ?? segment.discontinuitySequence);
          numbers.set(segment.number, segment.discontinuitySequence);
        }
      }
    }),
    { numRuns: 200 },
  );
});

test('any range of a recording is a whole playlist', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.integer({ min: -5, max: 60 }), fc.nat(60), (steps, from, length) => {
      const world = new World().leadingGaps(6).segments(2);
      for (const action of steps) take(world, action);
      const range = { from: 1000 + from, to: 1000 + from + length };
      const playlist = parsePlaylist(renderVod(world.timeline(), rendition('aac-64'), '../x/', range)) as MediaPlaylist;
      const report = new Report();
      checkPlaylist(playlist, 'vod', report);
      assert.deepEqual(
        report.breaches.filter(({ rule }) => playlist.segments.length > 0 || rule !== '1'),
        [],
      );
      assert.ok(playlist.ended);
      assert.notEqual(playlist.segments[0]?.gap, true);
    }),
    { numRuns: 200 },
  );
});
