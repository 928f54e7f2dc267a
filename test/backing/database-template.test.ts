import assert from 'node:assert/strict';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { clusterTemplate } from '../../src/backing/database/embedded.js';

test('the empty cluster of the build can be read by whoever runs the service, and written by its owner alone', async () => {
  const template = clusterTemplate();
  const names = await readdir(template, { recursive: true });
  assert.ok(names.includes('PG_VERSION'));
  for (const name of ['', ...names]) {
    const { mode } = await stat(join(template, name));
    assert.equal((mode & 0o777).toString(8), mode & 0o040000 ? '755' : '644', name);
  }
});
