import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import { TitleNotes } from '../../src/live/title-notes.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';
import { World } from './live-world.js';

let database: Database;
before(async () => {
  database = await openTestDatabase();
  await database.query("insert into channels (id, slug, title, visibility, stream_key_hash) values ($1, 'radio', 'Radio', 'public', $2)", [
    randomUUID(),
    randomBytes(32),
  ]);
});
after(async () => {
  await database.stop();
});

/** Counts what is written. */
function counting(): { database: Database; counts: { writes: number }; fault: { isAway: boolean } } {
  const counts = { writes: 0 };
  const fault = { isAway: false };
  return {
    counts,
    fault,
    database: {
      ...database,
      query: (sql, values) => {
        counts.writes++;
        if (fault.isAway) return Promise.reject(new Error('the database is away'));
        return database.query(sql, values);
      },
    },
  };
}

const noted = async () =>
  (await database.query('select n.title, n.artist, n.broadcast_id, n.title_id from now_playing n join channels c on c.id = channel_id'))
    .rows;

test('what is heard is written down once; of ten titles a second the one of that moment; another process that goes on writes nothing', async () => {
  const world = new World();
  const watched = counting();
  const notes = new TitleNotes({ live: world.live, database: watched.database, clock: world.clock, log: silentLog });
  await world.live.start();
  await notes.look();
  const { source } = await world.connect();
  await world.send(source, 5000);
  await notes.look();
  assert.deepEqual([watched.counts.writes, await noted()], [0, []], 'nothing is playing by name');

  source.title({ title: 'A song', artist: 'Somebody' });
  await world.send(source, 3000);
  const { nowPlaying, broadcastId } = world.live.status('radio');
  assert.equal(nowPlaying?.title, 'A song');
  for (let i = 0; i < 3; i++) await notes.look();
  const first = [{ title: 'A song', artist: 'Somebody', broadcast_id: broadcastId, title_id: nowPlaying?.id }];
  assert.deepEqual([watched.counts.writes, await noted()], [1, first]);

  for (let i = 0; i < 50; i++) {
    source.title({ title: `Song ${i}` });
    await world.send(source, 100);
    if (i % 10 === 9) await notes.look();
  }
  assert.equal(watched.counts.writes, 6);

  watched.fault.isAway = true;
  source.title({ title: 'The last' });
  await world.send(source, 3000);
  await notes.look();
  watched.fault.isAway = false;
  await notes.look();
  await notes.look();
  assert.equal(watched.counts.writes, 8, 'once in vain, and once again');
  const last = await noted();
  assert.deepEqual([last[0]?.title, last[0]?.artist], ['The last', null]);

  await notes.stop();
  await notes.stop();
  // Another process finds the same title, under the same id.
  const again = counting();
  const next = new TitleNotes({ live: world.live, database: again.database, clock: new FakeClock(), log: silentLog });
  await next.look();
  assert.deepEqual(await noted(), last);
  await Promise.all([world.live.end('radio', 'test'), world.pass(3000)]);
  await next.look();
  assert.equal(again.counts.writes, 1, 'the end is no title');
  await next.stop();
});
