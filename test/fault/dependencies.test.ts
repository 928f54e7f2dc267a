import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEPENDENCIES, DependencyWorld, FAULT_KINDS } from '../support/dependency-world.js';
import { randomOf, SEED } from '../support/long.js';

/** Of the points of a conversation; `npm run test:long` goes through all of them. */
const POINTS = 2;
/** What a test may take of everybody's time; what is left is for the long one. */
const BUDGET_MS = 30_000;

test('whatever is lost on the way to a dependency, the process lives, the show goes on, and requests are answered again', async (t) => {
  const world = await DependencyWorld.start({ processes: 1 });
  t.after(() => world.stop());
  t.diagnostic(`VEZA_SEED=${SEED}`);
  const random = randomOf(SEED);
  const counts = await world.count();
  for (const dependency of DEPENDENCIES)
    assert.ok(counts.get(dependency)! > 0 || dependency === 'smtp', `nothing was said to ${dependency}`);
  const plans = DEPENDENCIES.flatMap((dependency) =>
    FAULT_KINDS.flatMap((kind) =>
      Array.from({ length: dependency === 'postgres' || dependency === 'redis' ? POINTS : 1 }, () => ({
        ...{ dependency, kind, where: random(), times: 1 + Math.floor(random() * 3) },
        point: Math.floor(random() * counts.get(dependency)!),
      })),
    ),
  )
    .map((plan) => [random(), plan] as const)
    .sort(([one], [other]) => one - other);
  const untilMs = performance.now() + BUDGET_MS;
  let struck = 0;
  for (const [, plan] of plans) {
    if (await world.strike(plan)) struck++;
    if (performance.now() > untilMs) break;
  }
  assert.ok(struck > 3, `${struck} strikes`);
  assert.ok(world.kept > struck, `${world.kept} acknowledged messages were looked for`);
  await world.strikeChild(random);
});
