import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { schemaOfMigrations } from '../support/schema.js';

/** PostgreSQL groups `a or b or c` otherwise when it reads its own text back. */
const withoutBrackets = (sql: string) => sql.replace(/[()]/g, '');

test('docs/schema.sql is what the migrations make, and makes the same tables again', async () => {
  const { text, madeAgain } = await schemaOfMigrations();
  assert.equal(withoutBrackets(madeAgain), withoutBrackets(text), 'the printed SQL makes another schema than the migrations');
  const written = await readFile('docs/schema.sql', 'utf8');
  assert.ok(written === text, 'docs/schema.sql is not what the migrations make: run `npm run -s schema` and commit what it writes');
});
