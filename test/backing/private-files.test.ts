import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openPrivateFolder } from '../../src/backing/files/private-files.js';
import { keptSecret } from '../../src/backing/files/secret-file.js';
import { createFileStore } from '../../src/backing/object-store/files.js';
import { FileRegistry } from '../../src/backing/registry/files.js';
import { silentLog } from '../../src/runtime/log.js';

async function temporary(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'veza-private-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

/** Everything below, with what others may do of it. */
async function openToOthers(folder: string): Promise<string[]> {
  const open: string[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    if (!entry.isSymbolicLink() && ((await stat(path)).mode & 0o077) !== 0) open.push(path);
  }
  return open;
}

test('what is written below the data folder is for its user alone, whatever the umask', async (t) => {
  const data = join(await temporary(t), 'data');
  const umask = process.umask(0);
  try {
    await openPrivateFolder(data, silentLog);
    const store = await createFileStore(join(data, 'objects'));
    await store.put('live/radio/aac-256/abc-1.m4s', Buffer.from('sound'), 'audio/mp4');
    await new FileRegistry(join(data, 'timelines'), silentLog).save('radio', {});
    await keptSecret(join(data, 'secrets', 'token'), () => 'secret');
  } finally {
    process.umask(umask);
  }
  assert.equal((await stat(data)).mode & 0o777, 0o700);
  assert.deepEqual(await openToOthers(data), []);
});

test('a data folder that everybody could read is closed at the next start, with all that is in it, and nothing outside', async (t) => {
  const folder = await temporary(t);
  const data = join(folder, 'data');
  const outside = join(folder, 'outside');
  await mkdir(join(data, 'objects', 'live', 'secret'), { recursive: true, mode: 0o755 });
  await writeFile(join(data, 'objects', 'live', 'secret', '1.m4s'), 'sound', { mode: 0o644 });
  await writeFile(join(data, 'token'), 'secret', { mode: 0o640 });
  await writeFile(outside, 'mine', { mode: 0o644 });
  await chmod(outside, 0o644);
  await symlink(outside, join(data, 'link'));
  for (const path of [data, join(data, 'objects'), join(data, 'objects', 'live')]) await chmod(path, 0o755);
  await openPrivateFolder(data, silentLog);
  assert.equal((await stat(data)).mode & 0o777, 0o700);
  assert.deepEqual(await openToOthers(data), []);
  assert.equal((await stat(outside)).mode & 0o777, 0o644);
  // Once is enough; a file that an operator opens on purpose stays open.
  await chmod(join(data, 'token'), 0o640);
  await openPrivateFolder(data, silentLog);
  assert.equal((await stat(join(data, 'token'))).mode & 0o777, 0o640);
});
