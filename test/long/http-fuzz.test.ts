import { test } from 'node:test';
import { fuzzHttp } from '../support/http-fuzz-service.js';
import { LONG_MS, SEED } from '../support/long.js';

test('random requests and frames on every port that speaks HTTP: the process lives, and the others are served', async (t) => {
  const untilMs = performance.now() + LONG_MS;
  t.diagnostic(`${await fuzzHttp(SEED, () => performance.now() > untilMs)} connections, from seed ${SEED}`);
});
