import { test } from 'node:test';
import { fuzzHttp } from '../support/http-fuzz-service.js';

test('random requests and frames on every port that speaks HTTP: the process lives, and the others are served', async () => {
  // The same each time; `test/long` looks for what this does not find.
  await fuzzHttp(14, (sent) => sent >= 1200);
});
