import { test } from 'node:test';
import { ACT_NAMES, atOnce, heldUp, MOST_STEPS, useWorld } from '../chat/crossing.js';
import { twoProcesses } from '../chat/two-processes.js';
import { LONG_MS, randomOf, SEED } from '../support/long.js';

test('acts of moderators and members, crossing at random, leave nothing of what was deleted and everybody with the same', {
  timeout: LONG_MS + 120_000,
}, async () => {
  const world = await twoProcesses();
  useWorld(world);
  const random = randomOf(SEED);
  const below = (most: number) => Math.floor(random() * most);
  const one = () => ACT_NAMES[below(ACT_NAMES.length)]!;
  try {
    for (const untilMs = performance.now() + LONG_MS; performance.now() < untilMs; ) {
      if (random() < 0.3) await atOnce(Array.from({ length: 2 + below(4) }, one));
      else await heldUp(one(), one(), below(below(MOST_STEPS) + 1), below(2) as 0 | 1);
    }
  } catch (error) {
    throw new Error(`with seed ${SEED}: ${(error as Error).message}`, { cause: error });
  } finally {
    await world.stop();
  }
});
