import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ObjectStore } from '../../src/backing/object-store/object-store.js';
import { VezaError } from '../../src/runtime/errors.js';

/** What every maker of ObjectStore promises. `make` gives an empty one. */
export function objectStoreContract(name: string, make: () => Promise<ObjectStore>): void {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const textOf = async (store: ObjectStore, key: string, range?: { start: number; end: number }) => {
    const found = await store.get(key, range);
    return found && new TextDecoder().decode(found.bytes);
  };
  const keysOf = async (store: ObjectStore, prefix: string) => {
    const keys: string[] = [];
    for await (const { key } of store.list(prefix)) keys.push(key);
    return keys.sort();
  };

  test(`${name}: what was put is there, whole and in ranges`, async () => {
    const store = await make();
    await store.put('live/radio/aac-128/r1-7.m4s', bytes('0123456789'), 'audio/mp4');
    assert.equal(await textOf(store, 'live/radio/aac-128/r1-7.m4s'), '0123456789');
    assert.equal(await store.head('live/radio/aac-128/r1-7.m4s'), 10);
    assert.deepEqual(await textOf(store, 'live/radio/aac-128/r1-7.m4s', { start: 2, end: 4 }), '234');
    assert.equal((await store.get('live/radio/aac-128/r1-7.m4s', { start: 8, end: 99 }))?.sizeBytes, 10);
    assert.equal(await textOf(store, 'live/radio/aac-128/r1-7.m4s', { start: 8, end: 99 }), '89');
    assert.equal(await textOf(store, 'live/radio/aac-128/r1-7.m4s', { start: 10, end: 12 }), '');
  });

  test(`${name}: what was never put is not there, and may be deleted`, async () => {
    const store = await make();
    assert.equal(await store.get('a/b'), undefined);
    assert.equal(await store.head('a/b'), undefined);
    assert.deepEqual(await keysOf(store, 'a/'), []);
    await store.delete(['a/b', 'c']);
    await store.put('a', bytes('x'), 'text/plain');
    assert.equal(await store.get('a/b'), undefined);
    await store.delete(['a/b']);
    assert.equal(await store.head('a'), 1);
  });

  test(`${name}: the last put wins, and an empty object is an object`, async () => {
    const store = await make();
    await store.put('k', bytes('first, and longer'), 'text/plain');
    await store.put('k', bytes('second'), 'text/plain');
    assert.equal(await textOf(store, 'k'), 'second');
    await store.put('k', bytes(''), 'text/plain');
    assert.equal(await store.head('k'), 0);
    assert.equal(await textOf(store, 'k'), '');
  });

  test(`${name}: list and delete by prefix`, async () => {
    const store = await make();
    const keys = ['vod/x/a.m4s', 'vod/x/deep/b.m4s', 'vod/xy/c.m4s', 'live/d.m4s'];
    for (const key of keys) await store.put(key, bytes(key), 'audio/mp4');
    assert.deepEqual(await keysOf(store, ''), [...keys].sort());
    assert.deepEqual(await keysOf(store, 'vod/x/'), ['vod/x/a.m4s', 'vod/x/deep/b.m4s']);
    for await (const found of store.list('live/')) {
      assert.equal(found.sizeBytes, 10);
      assert.ok(Math.abs(found.modifiedMs - Date.now()) < 60_000);
    }
    await store.delete(await keysOf(store, 'vod/x/'));
    assert.deepEqual(await keysOf(store, 'vod/'), ['vod/xy/c.m4s']);
  });

  test(`${name}: puts and deletes of neighbours at once`, async () => {
    const store = await make();
    const work = Array.from({ length: 200 }, async (_, i) => {
      await store.put(`busy/dir/${i}`, bytes(String(i)), 'text/plain');
      await store.delete([`busy/dir/${i}`]);
    });
    await Promise.all(work);
    assert.deepEqual(await keysOf(store, ''), []);
  });

  test(`${name}: keys that are no keys are refused everywhere`, async () => {
    const store = await make();
    const wrong = ['', '/a', 'a/', 'a//b', '.', '..', 'a/../b', './a', 'a b', 'a\\b', 'a\0', 'ä', '%2e%2e/a', 'x'.repeat(513)];
    for (const key of wrong) {
      const refused = (error: unknown) => error instanceof VezaError && error.code === 'bad_request';
      await assert.rejects(store.put(key, bytes('x'), 'text/plain'), refused, JSON.stringify(key));
      await assert.rejects(store.get(key), refused, JSON.stringify(key));
      await assert.rejects(store.head(key), refused, JSON.stringify(key));
      await assert.rejects(store.delete([key]), refused, JSON.stringify(key));
    }
    await store.put('x'.repeat(200) + '/y'.repeat(156), bytes('x'), 'text/plain');
    assert.deepEqual(await keysOf(store, ''), ['x'.repeat(200) + '/y'.repeat(156)]);
  });
}
