import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Erasures } from '../../src/chat/moderation/erasures.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

const ACCOUNT = '11111111-1111-4111-8111-111111111111';

test('what a deleted account has said is erased, once it is quiet, and until it succeeded', async (t) => {
  const database = await openTestDatabase();
  t.after(async () => {
    await database.stop();
  });
  const clock = new FakeClock();
  const asked: string[] = [];
  let isAway = true;
  const erasures = new Erasures({
    database,
    clock,
    log: silentLog,
    async eraseAccount(userId) {
      asked.push(userId);
      if (isAway) throw new Error('the log is away');
    },
  });
  await database.query(
    "insert into accounts (id, email, email_key, name, role) values ($1, 'a@example.org', 'a@example.org', 'A', 'listener')",
    [ACCOUNT],
  );
  await database.query('delete from accounts where id = $1', [ACCOUNT]);
  await database.query('update chat_erasures set at = $1', [new Date(clock.wallMs())]);
  await erasures.eraseDue();
  assert.deepEqual(asked, [], 'it may still be saying something');
  clock.advance(6000);
  await erasures.eraseDue();
  isAway = false;
  await erasures.eraseDue();
  await erasures.eraseDue();
  assert.deepEqual(asked, [ACCOUNT, ACCOUNT], 'again after a failure, and then no more');
  clock.advance(61_000);
  await erasures.eraseDue();
  await erasures.eraseDue();
  assert.equal(asked.length, 3, 'and once more a minute later, for what a process that was held up has taken');
  assert.deepEqual((await database.query('select 1 from chat_erasures')).rows, []);
});
