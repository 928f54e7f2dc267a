import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FileRegistry } from '../../src/backing/registry/files.js';
import { silentLog } from '../../src/runtime/log.js';

const folder = await mkdtemp(join(tmpdir(), 'veza-registry-'));
after(() => rm(folder, { recursive: true }));

test('what was saved last is what another process loads', async () => {
  const registry = new FileRegistry(folder, silentLog);
  await registry.load();
  await Promise.all(Array.from({ length: 50 }, (_, index) => registry.save('radio', { index })));
  await registry.save('other', { index: -1 });
  assert.deepEqual(
    new Map(await new FileRegistry(folder, silentLog).load()),
    new Map([
      ['radio', { index: 49 }],
      ['other', { index: -1 }],
    ]),
  );
  await registry.remove('other');
  assert.deepEqual([...(await registry.load()).keys()], ['radio']);
  assert.deepEqual(await readdir(folder), ['radio.json']);
});

test('a document that is broken is left out, and half of a new one does no harm', async () => {
  await writeFile(join(folder, 'broken.json'), '{"version":');
  await writeFile(join(folder, 'radio.json.new'), '{"ind');
  assert.deepEqual([...(await new FileRegistry(folder, silentLog).load()).keys()], ['radio']);
});

test('a name that is not a slug never becomes a path', async () => {
  const registry = new FileRegistry(folder, silentLog);
  await assert.rejects(registry.save('../x', {}), RangeError);
});
