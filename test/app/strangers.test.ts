import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import { Strangers } from '../../src/app/http/strangers.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { startApp } from '../support/app.js';

const response = () => new EventEmitter() as ServerResponse;
const isBusy = (error: unknown) => error instanceof VezaError && error.code === 'busy';
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('few are worked on at one time, and addresses have their turn one after the other', async () => {
  const strangers = new Strangers(new FakeClock(), { atWork: 2 });
  const begun: string[] = [];
  const leaves: (() => void)[] = [];
  const ask = (address: string, name: string) =>
    void strangers.enter(address, response()).then((leave) => {
      begun.push(name);
      leaves.push(leave);
    });
  for (let i = 0; i < 500; i++) ask('192.0.2.1', `crowd ${i}`);
  ask('192.0.2.2', 'other');
  ask('2001:db8::1', 'v6 1');
  ask('2001:db8::2', 'v6 2');
  await turn();
  assert.deepEqual(begun, ['crowd 0', 'crowd 1']);
  for (let i = 0; i < 6; i++) {
    const leave = leaves.shift()!;
    leave();
    leave();
    await turn();
  }
  assert.deepEqual(begun.slice(2), ['crowd 2', 'other', 'v6 1', 'crowd 3', 'v6 2', 'crowd 4'], 'and a /64 is one address');
});

test('an address has a share of those that wait; who waits too long is told to come back, who has gone is forgotten', async () => {
  const clock = new FakeClock();
  const strangers = new Strangers(clock, { atWork: 1, maxWaiting: 100 });
  const leave = await strangers.enter('192.0.2.1', response());
  const crowd = Array.from({ length: 100 }, () => strangers.enter('192.0.2.1', response()).catch((error) => error));
  await turn();
  const other = response();
  const gone = strangers.enter('192.0.2.2', other);
  other.emit('close');
  await assert.rejects(gone, isBusy);
  const late = strangers.enter('192.0.2.3', response());
  clock.advance(5000);
  await assert.rejects(late, isBusy);
  assert.ok((await Promise.all(crowd)).every(isBusy));
  leave();
  (await strangers.enter('192.0.2.4', response()))();
});

test('while a crowd of strangers asks the database has few of their queries, and who is signed in is answered', async (t) => {
  const app = await startApp();
  t.after(() => app.stop());
  const auth = { authorization: `Bearer ${app.token}` };
  const api = (path: string, headers: Record<string, string> = {}) => fetch(`${app.url}/api/v1${path}`, { headers });
  assert.equal((await api('/channels', auth)).status, 200);
  // What strangers ask for is held until the test lets it go; there is no such channel.
  const held: (() => void)[] = [];
  let most = 0;
  const { database } = app as { database: Database };
  const query = database.query.bind(database);
  database.query = (async (sql: string, values?: readonly unknown[]) => {
    if (String(values?.[0]).startsWith('unknown-') || sql.includes('from api_keys')) {
      await new Promise<void>((resolve) => held.push(resolve));
      most = Math.max(most, held.length);
    }
    return query(sql, values);
  }) as Database['query'];
  const key = (index: number) => ({
    authorization: `Bearer vza_${'0123456789abcdefghjkmnpqrs'.slice(0, 23)}${String(index).padStart(3, '0')}`,
  });
  const crowd = Array.from({ length: 40 }, (_, index) => (index % 2 ? api(`/channels/unknown-${index}`) : api('/channels', key(index))));
  while (held.length < 8) await turn();
  for (let i = 0; i < 3; i++) assert.equal((await api('/channels', auth)).status, 200);
  assert.equal(held.length, 8);
  let answered = 0;
  for (const one of crowd) void one.then(() => answered++);
  while (answered < crowd.length) {
    held.shift()?.();
    await turn();
  }
  assert.ok(most <= 8, `${most} at one time`);
  assert.deepEqual(new Set((await Promise.all(crowd)).map(({ status }) => status)), new Set([404, 401]));
});
