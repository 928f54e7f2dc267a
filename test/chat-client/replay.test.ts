import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChatReplay } from '../../player-demo/src/chat/replay.js';
import type { Entry } from '../../src/chat-client/index.js';

const START_MS = Date.UTC(2030, 0, 1);

function roomOf(gapsMs: readonly number[]): {
  log: Entry[];
  before: (from: number, limit: number) => Promise<Entry[]>;
  asked: () => number;
} {
  let atMs = START_MS;
  let asked = 0;
  const log = gapsMs.map((gapMs, i): Entry => {
    atMs += gapMs;
    return {
      t: i % 9 === 8 ? 'gone' : 'msg',
      epoch: 1,
      offset: i + 1,
      at: atMs,
      mid: `m${i}`,
      user: { id: 'a', name: 'A' },
      body: { text: `${i + 1}` },
    };
  });
  return {
    log,
    before: async (from, limit) => {
      asked++;
      return log.slice(Math.max(0, from - 1 - limit), from - 1);
    },
    asked: () => asked,
  };
}

test('at every moment, wherever one plays and seeks: the newest that had been said is the last shown, and nothing is missing above', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(40_000), { minLength: 1, maxLength: 600 }),
      fc.array(fc.oneof(fc.record({ play: fc.nat(20_000) }), fc.record({ seek: fc.double({ min: -0.05, max: 1.05, noNaN: true }) })), {
        minLength: 1,
        maxLength: 30,
      }),
      async (gaps, moves) => {
        const { log, before } = roomOf(gaps);
        const replay = new ChatReplay(log.length, before, () => {});
        const lengthMs = (log.at(-1)!.at as number) - START_MS;
        let momentMs = START_MS;
        for (const move of moves) {
          momentMs = 'play' in move ? momentMs + move.play : START_MS + Math.round(move.seek * lengthMs);
          await replay.at(momentMs, 0);
          const shown = replay.timeline.items.map(({ offset }) => offset);
          const last = log.filter(({ at }) => (at as number) <= momentMs).at(-1)?.offset ?? 0;
          assert.equal(shown.at(-1) ?? 0, last, `at ${momentMs - START_MS}`);
          for (let i = 1; i < shown.length; i++) assert.equal(shown[i], shown[i - 1]! + 1);
        }
      },
    ),
    { numRuns: 300, seed: 5, includeErrorInReport: true },
  );
});

test('a moment in a long room is found by few questions; a chat that is away is asked again', async () => {
  const { log, before, asked } = roomOf(Array.from({ length: 20_000 }, () => 1_000));
  let isAway = true;
  const replay = new ChatReplay(
    log.length,
    (from, limit) => (isAway ? Promise.reject(new Error('away')) : before(from, limit)),
    () => {},
  );
  await replay.at(START_MS + 12_345_678, 0);
  assert.equal(replay.timeline.items.length, 0);
  isAway = false;
  await replay.at(START_MS + 12_345_678, 4_000);
  assert.equal(replay.timeline.items.length, 0, 'not at once');
  await replay.at(START_MS + 12_345_678, 5_000);
  assert.equal(replay.timeline.items.at(-1)?.offset, 12_345);
  assert.ok(asked() < 25, `${asked()} questions`);
});

test('between two recordings everything may have been let go, and long messages are fewer a page: the replay goes on where there is something', async () => {
  const { log } = roomOf(Array.from({ length: 500_000 }, () => 1_000));
  const kept = log.filter(({ offset }) => (offset > 1_000 && offset <= 1_500) || offset > 499_000);
  let asked = 0;
  const before = async (from: number, limit: number) => {
    asked++;
    // 64 KB have been reached before the number that was asked for.
    return kept.filter(({ offset }) => offset < from).slice(-Math.min(limit, 30));
  };
  const replay = new ChatReplay(log.length, before, () => {});
  const shown = () => replay.timeline.items.map(({ offset }) => offset);
  await replay.at(START_MS + 1_400_000, 0);
  assert.equal(shown().at(-1), 1_400);
  for (let n = 1; n <= 12; n++) await replay.at(START_MS + 1_400_000 + n * 15_000, 0);
  assert.equal(shown().at(-1), 1_500);
  assert.deepEqual(
    shown(),
    Array.from({ length: shown().length }, (_, i) => 1_500 - shown().length + 1 + i),
  );
  assert.ok(asked < 200, `${asked} questions`);
  await replay.at(START_MS + 499_500_000, 0);
  assert.equal(shown().at(-1), 499_500);
});
