import assert from 'node:assert/strict';
import { mkdtemp, readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createFileStore } from '../../src/backing/object-store/files.js';
import { objectStoreContract } from '../contract/object-store.js';

const tempDir = () => mkdtemp(join(tmpdir(), 'veza-objects-'));

objectStoreContract('files', async () => createFileStore(await tempDir()));

test('what a killed process left half written is removed at the next start, and was never an object', async () => {
  const root = await tempDir();
  const store = await createFileStore(root);
  await store.put('k', new Uint8Array(3), 'audio/mp4');
  await writeFile(join(root, 'partial', 'rest'), 'half');
  // Another process may be writing it.
  await createFileStore(root, { isShared: true });
  assert.deepEqual(await readdir(join(root, 'partial')), ['rest']);
  const again = await createFileStore(root);
  assert.deepEqual(await readdir(join(root, 'partial')), []);
  assert.equal(await again.head('k'), 3);
});

test('an object that cannot be written rejects and leaves nothing behind', async () => {
  const root = await tempDir();
  const store = await createFileStore(root);
  await store.put('name', new Uint8Array(3), 'audio/mp4');
  await assert.rejects(store.put('name/below', new Uint8Array(3), 'audio/mp4'));
  assert.deepEqual(await readdir(join(root, 'partial')), []);
  assert.equal(await store.head('name'), 3);
});
