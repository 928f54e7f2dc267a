import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Channels } from '../../src/access/channels.js';
import type { Database } from '../../src/backing/database/database.js';
import type { ObjectStore } from '../../src/backing/object-store/object-store.js';
import { Broadcasts } from '../../src/library/broadcasts.js';
import { type FinishedRecording, type ReadyRecording, Recordings } from '../../src/library/recordings.js';
import { LiveWindow } from '../../src/live/window.js';
import { LADDER } from '../../src/media/ladder.js';
import { makeGrid } from '../../src/media/timeline.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

let database: Database;
let channels: Channels;
let broadcasts: Broadcasts;
before(async () => {
  database = await openTestDatabase();
  channels = new Channels(database);
  broadcasts = new Broadcasts(database);
});
after(async () => {
  await database.stop();
});

const HOUR_MS = 3_600_000;

class World {
  readonly clock = new FakeClock();
  readonly objects = new Map<string, number>();
  readonly recordings = new Recordings({
    store: {
      put: async (key: string) => {
        this.objects.set(key, this.clock.wallMs());
      },
      delete: async (keys: readonly string[]) => {
        for (const key of keys) this.objects.delete(key);
      },
      list: async function* (this: World, prefix: string) {
        for (const [key, modifiedMs] of [...this.objects]) if (key.startsWith(prefix)) yield { key, sizeBytes: 1, modifiedMs };
      }.bind(this),
    } as unknown as ObjectStore,
    broadcasts,
    clock: this.clock,
    log: silentLog,
    dvrWindowS: 7200,
    onReady: async (recording, connection) => {
      await connection.query('select 1');
      this.onReady();
      this.ready.push(recording);
    },
  });
  readonly ready: ReadyRecording[] = [];
  onReady = (): void => undefined;

  /** A show of ten segments, `heard` of them with sound, on a channel of its own. */
  async show(slug: string, heard = 10): Promise<FinishedRecording> {
    const { channel } = await channels.create(slug, { title: slug, visibility: 'public', recording: true });
    const window = new LiveWindow(slug, LADDER, {
      broadcastId: slug,
      grid: makeGrid(1920, 320),
      firstNumber: 6,
      runs: [{ id: 'run', firstNumber: 6, discontinuity: 0, startWallMs: this.clock.wallMs() }],
      gaps: [],
      titles: [],
    });
    for (const { codec, name } of LADDER) {
      window.progress[codec] = { openNumber: 16, openParts: 0 };
      for (let number = 6; number < 16; number += 1) this.objects.set(`live/${slug}/${name}/run-${number}.m4s`, this.clock.wallMs());
    }
    return { assetId: `asset-${slug}`, channel, window, from: 6, to: 5 + heard };
  }

  begun({ assetId, channel, from }: FinishedRecording): void {
    this.recordings.started({ assetId, channel, startedMs: this.clock.wallMs(), firstNumber: from });
  }

  count(prefix: string): number {
    return [...this.objects.keys()].filter((key) => key.startsWith(prefix)).length;
  }
}

test('a recording is written once, however often it is brought', async () => {
  const world = new World();
  const show = await world.show('again');
  world.begun(show);
  world.begun(show);
  assert.equal(await world.recordings.ended(show), true);
  assert.equal(await world.recordings.ended(show), true);
  const row = await broadcasts.get(show.assetId);
  assert.equal(row?.lastNumber, 15);
  assert.equal(row?.durationMs, 19_200);
  assert.deepEqual(world.ready, [{ assetId: show.assetId, channel: show.channel, startedAtMs: world.clock.wallMs(), durationMs: 19_200 }]);
  assert.ok(world.objects.has(`vod/${show.assetId}/master.m3u8`));
});

test('a recording whose beginning never reached the database is kept all the same, and its segments with it', async () => {
  const world = new World();
  const show = await world.show('no-row');
  const { insert } = broadcasts;
  broadcasts.insert = async () => {
    throw new Error('away');
  };
  world.begun(show);
  for (let attempt = 0; attempt < 70; attempt += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    world.clock.advance(5000);
  }
  broadcasts.insert = insert;
  world.clock.advance(3 * HOUR_MS);
  await world.recordings.sweep();
  assert.equal(world.count('live/no-row/'), 50);
  assert.equal(await world.recordings.ended(show), true);
  assert.equal((await broadcasts.get(show.assetId))?.lastNumber, 15);
});

test('that a recording is ready is told with its end or not at all; of one that is not kept it is not told', async () => {
  const world = new World();
  const show = await world.show('told');
  let failures = 2;
  world.onReady = () => {
    if (failures-- > 0) throw new Error('away');
  };
  world.begun(show);
  await world.recordings.settled();
  const ended = world.recordings.ended(show);
  const isOpen = async () => (await broadcasts.get(show.assetId))?.endedAtMs === undefined;
  while (failures > 0) {
    assert.ok(await isOpen());
    await new Promise((resolve) => setImmediate(resolve));
    world.clock.advance(5000);
  }
  world.clock.advance(5000);
  while (await isOpen()) world.clock.advance(5000);
  assert.equal(await ended, true);
  assert.equal(world.ready.length, 1);

  const unkept = await world.show('unkept');
  const forgotten = { ...unkept, channel: { ...unkept.channel, recording: false } };
  world.begun(forgotten);
  assert.equal(await world.recordings.ended(forgotten), true);
  assert.equal(world.ready.length, 1);
});

test('a show in which nothing was heard leaves no recording that cannot be played', async () => {
  const world = new World();
  const show = await world.show('silent', 0);
  world.begun(show);
  assert.equal(await world.recordings.ended(show), true);
  assert.equal(await broadcasts.get(show.assetId), undefined);
});

test('a recording that is deleted loses its manifests and its segments; one of a deleted channel, too', async () => {
  const world = new World();
  const shows = [await world.show('deleted'), await world.show('without-channel'), await world.show('kept')];
  for (const show of shows) {
    world.begun(show);
    await world.recordings.ended(show);
  }
  await broadcasts.delete('asset-deleted');
  await channels.delete('without-channel');
  world.clock.advance(3 * HOUR_MS);
  await world.recordings.sweep();
  for (const [slug, left] of [
    ['deleted', 0],
    ['without-channel', 0],
    ['kept', 50],
  ] as const) {
    assert.equal(world.count(`live/${slug}/`), left);
    assert.equal(world.count(`vod/asset-${slug}/`), left === 0 ? 0 : LADDER.length + 2);
  }
});

test('a channel that is deleted under its show: its recording is given up at once', async () => {
  const world = new World();
  const show = await world.show('on-air');
  world.begun(show);
  await world.recordings.settled();
  await channels.delete('on-air');
  assert.equal(await world.recordings.ended(show), true);
  assert.equal(world.count('vod/asset-on-air/'), 0);
  const { rows } = await database.query(`select slug, first_number, last_number from playback_closed where scope = 'vod/asset-on-air'`);
  assert.deepEqual(
    rows,
    [{ slug: 'on-air', first_number: 6, last_number: 16 }],
    'its segments are closed under the addresses that they had live',
  );
});

test('broadcasts without an end that nobody sees to are removed at start; others stay', async () => {
  const dead = new World();
  const orphan = await dead.show('orphan');
  const known = await dead.show('known');
  for (const show of [orphan, known]) dead.begun(show);
  await dead.recordings.settled();
  await new World().recordings.closeOrphans((assetId) => assetId === known.assetId);
  assert.equal(await broadcasts.get(orphan.assetId), undefined);
  assert.ok(await broadcasts.get(known.assetId));
});
