import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Audit } from '../../src/access/audit.js';
import { ANONYMOUS, type Principal } from '../../src/access/roles.js';
import type { Database } from '../../src/backing/database/database.js';
import { openTestDatabase } from '../support/database.js';

let database: Database;
let audit: Audit;
before(async () => {
  database = await openTestDatabase();
  audit = new Audit(database);
});
after(async () => {
  await database.stop();
});

const somebody: Principal = { kind: 'account', id: 'account:1', name: 'Ada', role: 'admin', secondFactor: true };

test('what is in the log stays as it is: the database refuses to change, delete or empty it', async () => {
  await audit.record({ principal: somebody, action: 'createChannel', address: '192.0.2.1', target: 'channel:radio', channel: 'radio' });
  const before = await audit.list({}, 10);
  for (const sql of [
    `update audit_log set actor = 'account:2'`,
    `update audit_log set actor = 'account:2' where false`,
    'delete from audit_log',
    'truncate audit_log',
    'truncate audit_log, webhooks cascade',
    `insert into audit_log (id, actor, action) overriding system value values (1, 'x', 'x') on conflict (id) do update set actor = 'x'`,
  ]) {
    await assert.rejects(database.query(sql), /the audit log is append-only/, sql);
  }
  assert.deepEqual(await audit.list({}, 10), before);
  assert.deepEqual(
    { ...before[0], id: 0, atMs: 0 },
    {
      id: 0,
      atMs: 0,
      actor: 'account:1',
      actorName: 'Ada',
      address: '192.0.2.1',
      action: 'createChannel',
      target: 'channel:radio',
      channel: 'radio',
      requestId: undefined,
      details: {},
    },
  );
});

test('what a transaction that is rolled back has said is not in the log', async () => {
  await assert.rejects(
    database.transaction(async (connection) => {
      await audit.record({ principal: 'system', action: 'rolledBack' }, connection);
      throw new Error('no');
    }),
  );
  assert.deepEqual(await audit.list({ action: 'rolledBack' }, 10), []);
});

test('each filter, alone and together; a page after the other', async () => {
  for (let i = 0; i < 5; i++)
    await audit.record({ principal: somebody, action: 'listed', target: `account:${i % 2}`, channel: `c${i}`, details: { i } });
  await audit.record({ principal: ANONYMOUS, action: 'listed' });
  await audit.record({ principal: 'system', action: 'listed' });
  const found = async (filter: Parameters<Audit['list']>[0]) => (await audit.list({ action: 'listed', ...filter }, 100)).length;
  assert.equal(await found({}), 7);
  assert.equal(await found({ actor: 'account:1' }), 5);
  assert.equal(await found({ actor: 'anonymous' }), 1);
  assert.equal(await found({ actor: 'system' }), 1);
  assert.equal(await found({ target: 'account:1' }), 2);
  assert.equal(await found({ target: 'account:1', channel: 'c1' }), 1);
  assert.equal(await found({ target: 'account:1', channel: 'c2' }), 0);
  const all = await audit.list({ action: 'listed' }, 100);
  const at = all[3]!.atMs;
  assert.equal((await found({ fromMs: at })) + (await found({ toMs: at })), 7);
  const pages: number[] = [];
  for (let before: number | undefined; ; ) {
    const page = await audit.list({ action: 'listed', before }, 3);
    pages.push(...page.map((entry) => entry.id));
    if (page.length < 3) break;
    before = page.at(-1)!.id;
  }
  assert.deepEqual(
    pages,
    all.map((entry) => entry.id),
  );
  assert.deepEqual(
    [...pages],
    [...pages].sort((a, b) => b - a),
    'newest first',
  );
});

test('nobody keeps himself out of the log by what he types', async () => {
  await audit.record({
    principal: { ...somebody, name: 'A\0da' },
    action: 'odd',
    target: 'x\ud800',
    details: { reason: ['a\0b', '\udfff'] },
  });
  const [entry] = await audit.list({ action: 'odd' }, 1);
  assert.deepEqual([entry!.actorName, entry!.target, entry!.details], ['A\ufffdda', 'x\ufffd', { reason: ['a\ufffdb', '\ufffd'] }]);
});
