import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PlaybackGrants } from '../../src/access/playback/playback-grants.js';
import { openDatabase } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { createTestDatabase } from '../support/database.js';

// On a server, because the embedded database has one session and does one thing after the other.
test('many who ask for the last place at once, of several processes, are one', async () => {
  const server = await createTestDatabase();
  const open = () => openDatabase({ url: server.url, dataDir: '', poolSize: 10, timeoutMs: 20_000, log: silentLog });
  const databases = [await open(), await open()];
  try {
    const clock = new FakeClock();
    const processes = databases.map((database) => new PlaybackGrants({ database, clock, log: silentLog }));
    const expiresAtMs = clock.wallMs() + 3600_000;
    for (let round = 0; round < 5; round++) {
      const scope = `live/rush-${round}`;
      const asked = Array.from({ length: 20 }, (_, i) => processes[i % 2]!.take({ id: `${round}-${i}`, scope, expiresAtMs }, 3));
      assert.equal((await Promise.all(asked)).filter(Boolean).length, 3, scope);
    }
  } finally {
    for (const database of databases) await database.stop();
    await server.drop();
  }
});
