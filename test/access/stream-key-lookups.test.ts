import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Channels } from '../../src/access/channels.js';
import { StreamKeyLookups } from '../../src/access/stream-key-lookups.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';

const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Look-ups in a table of good keys, those that begin with `good`; queries are recorded and answered at once. */
function lookups() {
  const clock = new FakeClock();
  const queries: (readonly string[])[] = [];
  const queue = new StreamKeyLookups<string>(clock, async (names) => {
    queries.push(names);
    return new Map(names.filter((name) => name.startsWith('good')).map((name) => [name, `channel of ${name}`]));
  });
  return { clock, queries, queue };
}

/** What came of each: the value, or the code of the refusal. */
const outcomes = (loads: readonly Promise<string | undefined>[]) =>
  Promise.all(loads.map((load) => load.catch((error: { code: string }) => error.code)));

async function pass(clock: FakeClock, ms: number) {
  for (let passedMs = 0; passedMs < ms; passedMs += 50) {
    await settled();
    clock.advance(50);
    await settled();
  }
}

test('a flood of wrong stream keys is one query at a time, twenty a second, and a good key gets in meanwhile', async () => {
  const { clock, queries, queue } = lookups();
  const flood = outcomes(Array.from({ length: 900 }, (_, n) => queue.load(`wrong-${n}`, '192.0.2.1')));
  await settled();
  assert.equal(queries.length, 1);
  const good = queue.load('good', '192.0.2.2');
  await pass(clock, 50);
  assert.equal(await good, 'channel of good', 'in the next query');
  assert.equal(queries.length, 2);
  await pass(clock, 950);
  assert.ok(queries.length <= 21, `${queries.length} queries in a second`);
  assert.ok(queries.every((names) => names.length <= 200));
  await pass(clock, 5000);
  const told = await flood;
  assert.ok(told.every((outcome) => outcome === undefined || outcome === 'busy'));
});

test('an address with many wrong keys has one of its keys in a query, a crowd with right keys has what it asks for', async () => {
  const { clock, queries, queue } = lookups();
  void outcomes(Array.from({ length: 500 }, (_, n) => queue.load(`wrong-${n}`, '2001:db8::1')));
  await pass(clock, 150);
  const before = queries.length;
  // Another address of the same /64 is the same client.
  const behind = queue.load('good-behind', '2001:db8::2');
  const crowd = Array.from({ length: 300 }, (_, n) => queue.load(`good-${n}`, '192.0.2.7'));
  await pass(clock, 100);
  assert.equal((await outcomes(crowd)).filter((value) => value?.startsWith('channel')).length, 300);
  for (const names of queries.slice(before)) assert.ok(names.filter((name) => name.startsWith('wrong')).length <= 1);
  await pass(clock, 5000);
  assert.equal(await behind, 'channel of good-behind', 'it waits behind the wrong ones that came before it, and is not refused');
});

test('look-ups that wait are bounded, in all and by address, and end though the database does not answer', async () => {
  const clock = new FakeClock();
  let queries = 0;
  let release = () => {};
  const slow = new StreamKeyLookups<string>(clock, async () => {
    queries++;
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    return new Map();
  });
  const one = Array.from({ length: 2000 }, (_, n) => slow.load(`one-${n}`, '192.0.2.1'));
  const others = Array.from({ length: 6000 }, (_, n) => slow.load(`other-${n}`, `10.1.${n >> 8}.${n & 255}`));
  let refused = 0;
  for (const load of [...one, ...others]) load.catch(() => refused++);
  await settled();
  await settled();
  assert.equal(refused, 3000, '5,000 of 8,000 wait');
  clock.advance(5000);
  const told = await outcomes([...one, ...others]);
  assert.ok(told.every((outcome) => outcome === 'busy'));
  assert.equal(queries, 1);
  release();
  // Those that went with the query are over; the next are asked for as ever.
  await settled();
  const next = slow.load('next', '192.0.2.1');
  await pass(clock, 50);
  release();
  assert.equal(await next, undefined);
});

test('that nobody has a key is remembered for ten seconds, or until a key is made', async () => {
  const { clock, queries, queue } = lookups();
  const ask = async () => {
    const load = queue.load('wrong', '192.0.2.1');
    await pass(clock, 100);
    assert.equal(await load, undefined);
    return queries.length;
  };
  assert.equal(await ask(), 1);
  assert.equal(await ask(), 1);
  queue.changed();
  assert.equal(await ask(), 2);
  clock.advance(10_000);
  assert.equal(await ask(), 3);
});

test('a key that was good here is not held up by a flood, however long its queries take', async () => {
  const clock = new FakeClock();
  let holdsNew = false;
  const row = {
    id: 'id',
    slug: 'radio',
    title: 'x',
    visibility: 'public',
    recording: false,
    owner_id: null,
    countries_allowed: null,
    countries_denied: null,
    created_at: new Date(0),
    key_voids: 0,
    stream_key_hash: Buffer.alloc(0),
    previous_key_hash: null,
  };
  const key = `vz_${'a'.repeat(26)}`;
  let queries = 0;
  const database = {
    query: async (_sql: string, [names]: [readonly string[]]) => {
      queries++;
      if (queries === 1) row.stream_key_hash = Buffer.from(names[0]!.slice(2), 'hex');
      const isGood = names.includes(`\\x${row.stream_key_hash.toString('hex')}`);
      if (holdsNew && !isGood) await new Promise<void>(() => {});
      return { rows: isGood ? [row] : [], rowCount: 1 };
    },
  } as unknown as Database;
  const channels = new Channels(database, { clock });
  assert.equal((await channels.verifyKey(key, () => false, '192.0.2.1'))?.slug, 'radio');
  holdsNew = true;
  const letters = '0123456789abcdefghjkmnpqrstvwxyz';
  for (let n = 0; n < 900; n++) {
    const wrong = `vz_${letters[n >> 5]}${letters[n & 31]}${'0'.repeat(24)}`;
    channels.verifyKey(wrong, () => false, '192.0.2.9').catch(() => undefined);
  }
  await settled();
  const before = queries;
  assert.ok(before <= 2);
  for (let n = 0; n < 3; n++) {
    const again = channels.verifyKey(key, () => false, '192.0.2.9');
    await pass(clock, 50);
    assert.equal((await again)?.slug, 'radio');
  }
  assert.equal(queries, before + 3);
});
