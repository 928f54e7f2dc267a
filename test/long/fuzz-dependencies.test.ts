import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEPENDENCIES, DependencyWorld, FAULT_KINDS } from '../support/dependency-world.js';
import { LONG_MS, randomOf, SEED } from '../support/long.js';

test(`lines to every dependency are broken at every point of a conversation, then anywhere (VEZA_SEED=${SEED})`, async (t) => {
  const untilMs = performance.now() + LONG_MS;
  const world = await DependencyWorld.start({ processes: 2 });
  t.after(() => world.stop());
  const random = randomOf(SEED);
  const isOver = () => performance.now() > untilMs;
  const counts = await world.count();
  let struck = 0;
  // In the midst of each piece that a conversation consists of.
  for (const dependency of DEPENDENCIES) {
    for (let point = 0; point < counts.get(dependency)! && !isOver(); point++)
      if (await world.strike({ dependency, kind: 'cut', point, where: random(), times: 1 })) struck++;
  }
  while (!isOver()) {
    if (random() < 0.1) {
      await world.strikeChild(random);
      continue;
    }
    const dependency = DEPENDENCIES[Math.floor(random() * DEPENDENCIES.length)]!;
    const kind = FAULT_KINDS[Math.floor(random() * FAULT_KINDS.length)]!;
    const point = Math.floor(random() * Math.max(1, counts.get(dependency)!));
    if (await world.strike({ dependency, kind, point, where: random(), times: 1 + Math.floor(random() * 5) })) struck++;
  }
  t.diagnostic(`${struck} strikes`);
  assert.ok(struck > 0);
});
