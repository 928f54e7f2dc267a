import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkRolling } from '../bench/chat/rolling.js';

test('all chat processes are replaced one by one with 10,000 clients on: everybody sees everything once, in one order', async (t) => {
  const report = await checkRolling({ clients: 10_000 });
  const { faults, counts, fullest, cap, compared, messages, acked, resumed } = report;
  t.diagnostic(
    `${compared} (client, room, offset) compared, ${messages} messages, ${acked} acknowledged, ${counts.dupAcks} acks of keys sent again, restart ${report.restartS.toFixed(1)} s, fullest process ${fullest} of ${cap}`,
  );
  assert.deepEqual(faults, {
    notBack: 0,
    differentViews: 0,
    lost: [],
    holesInStore: [],
    duplicates: [],
    unequalAcks: 0,
    withdrawn: 0,
    unsettled: 0,
    refused: {},
    errors: {},
    closes: {},
    library: {},
  });
  assert.ok(fullest <= cap, `${fullest} connections in one process, which may have ${cap}`);
  assert.ok(resumed >= 2 * 10_000, `${resumed} rooms were resumed: everybody was sent away`);
  assert.ok(messages > 500 && counts.dupAcks > 100, 'something was said, and some of it ten times');
});
