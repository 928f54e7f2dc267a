import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Channels, MAX_TITLE_CHARS, RESERVED_SLUGS, VISIBILITIES } from '../../src/access/channels.js';
import { MAX_LINK_S } from '../../src/access/playback/playback-links.js';
import { adminTokenPath, loadAdminToken } from '../../src/access/tokens/admin-token.js';
import type { Database } from '../../src/backing/database/database.js';
import { Broadcasts } from '../../src/library/broadcasts.js';
import { VezaError } from '../../src/runtime/errors.js';
import { openTestDatabase } from '../support/database.js';

const code = (expected: string) => (error: unknown) => error instanceof VezaError && error.code === expected;
const settings = { title: 'Radio', visibility: 'public', recording: true } as const;
const offAir = () => false;
const onAir = () => true;

let dataDir: string;
let database: Database;
let channels: Channels;
before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'veza-channels-'));
  database = await openTestDatabase();
  channels = new Channels(database);
});
after(async () => {
  await database.stop();
  await rm(dataDir, { recursive: true });
});

test('private channels are known without asking the database, also to the next process', async () => {
  await channels.create('closed', { ...settings, visibility: 'private' });
  await channels.create('open', settings);
  assert.deepEqual([channels.isPrivate('closed'), channels.isPrivate('open')], [true, false]);
  const next = new Channels(database);
  await next.start();
  assert.deepEqual([next.isPrivate('closed'), next.isPrivate('open')], [true, false]);
  await channels.update('closed', { visibility: 'unlisted' });
  await channels.update('open', { visibility: 'private' });
  assert.deepEqual([channels.isPrivate('closed'), channels.isPrivate('open')], [false, true]);
  await channels.delete('closed');
  await channels.delete('open');
});

test('an answer that is late does not open again what was closed meanwhile', async () => {
  const { streamKey } = await channels.create('late', settings);
  await channels.rotateKey('late', true);
  const held: (() => void)[] = [];
  let holds = true;
  const slow: Database = Object.assign(Object.create(database), {
    query: async (sql: string, values?: readonly unknown[]) => {
      const result = await database.query(sql, values);
      if (holds) await new Promise<void>((resolve) => held.push(resolve));
      return result;
    },
  });
  const here = new Channels(slow);
  const reading = [here.get('late'), here.list(['public'], '', 100), here.verifyKey(streamKey, onAir)];
  while (held.length < reading.length) await new Promise((resolve) => setImmediate(resolve));
  holds = false;
  await here.update('late', { visibility: 'private' });
  for (const release of held) release();
  await Promise.all(reading);
  assert.equal(here.isPrivate('late'), true);
  await channels.delete('late');
});

test('a channel is created, changed, found, listed and deleted', async () => {
  const { channel } = await channels.create('life', settings);
  assert.deepEqual(await channels.get('life'), channel);
  assert.equal((await channels.update('life', { visibility: 'private' })).title, 'Radio');
  assert.equal((await channels.update('life', { title: 'New', recording: false })).visibility, 'private');
  assert.deepEqual({ ...channel, title: 'New', recording: false, visibility: 'private' }, await channels.get('life'));
  await channels.delete('life');
  assert.equal(await channels.get('life'), undefined);
  for (const gone of [channels.delete('life'), channels.update('life', {}), channels.rotateKey('life', false)]) {
    await assert.rejects(gone, code('not_found'));
  }
});

test('the slug of a deleted channel is free again when no link to it can be good', async () => {
  const closedFor = async (slug: string) => {
    const { rows } = await database.query<{ s: number }>(
      `select extract(epoch from closed_until - now())::float8 as s from playback_closed where scope = $1`,
      [`live/${slug}`],
    );
    return rows[0]?.s;
  };
  const isHeld = (error: unknown) => code('conflict')(error) && /was deleted.*Take another slug/.test((error as Error).message);
  const about = (actual: number | undefined, expected: number) => assert.ok(actual && Math.abs(actual - expected) < 60, String(actual));

  await channels.create('was-private', { ...settings, visibility: 'private' });
  await channels.delete('was-private');
  about(await closedFor('was-private'), MAX_LINK_S);
  for (const visibility of VISIBILITIES)
    await assert.rejects(channels.create('was-private', { ...settings, visibility }), isHeld, visibility);
  assert.equal(await channels.get('was-private'), undefined);

  await channels.create('once-private', { ...settings, visibility: 'private' });
  await channels.update('once-private', { visibility: 'public' });
  await channels.delete('once-private');
  about(await closedFor('once-private'), MAX_LINK_S);
  await assert.rejects(channels.create('once-private', settings), isHeld);

  const linked = (await channels.create('linked', settings)).channel;
  await channels.willBeLinked(linked, 3600);
  await channels.willBeLinked(linked, 60);
  await channels.delete('linked');
  about(await closedFor('linked'), 86_400 + 3600);
  await assert.rejects(channels.create('linked', settings), isHeld);

  await database.query('update playback_closed set closed_until = now()');
  for (const slug of ['was-private', 'once-private', 'linked', 'plain']) {
    await channels.create(slug, settings);
    await channels.delete(slug);
    await channels.create(slug, settings);
    await channels.delete(slug);
  }
  assert.equal(await closedFor('linked'), undefined);
});

test('slugs and titles have their limits', async () => {
  for (const slug of ['', 'a', '-a', 'A1', 'a_b', 'ä1', 'a b', 'a/b', 'a.b', 'x'.repeat(64)]) {
    await assert.rejects(channels.create(slug, settings), code('bad_request'), slug);
  }
  for (const slug of RESERVED_SLUGS) await assert.rejects(channels.create(slug, settings), code('conflict'), slug);
  for (const title of ['', '  ', 'a\nb', 'x'.repeat(MAX_TITLE_CHARS + 1), 'gnp.\u202eexe', '\u200b\u200d', '\u2800']) {
    await assert.rejects(channels.create('titles', { ...settings, title }), code('bad_request'), JSON.stringify(title));
  }
  await channels.create('x'.repeat(63), { ...settings, title: 'x'.repeat(MAX_TITLE_CHARS) });
  await assert.rejects(channels.create('x'.repeat(63), settings), code('conflict'));
  await channels.delete('x'.repeat(63));
});

test('the key opens its channel and no other, and is nowhere in the database', async () => {
  const one = await channels.create('key-one', settings);
  const two = await channels.create('key-two', settings);
  assert.match(one.streamKey, /^vz_[0-9a-z]{26}$/);
  assert.equal((await channels.verifyKey(one.streamKey, offAir))?.slug, 'key-one');
  assert.equal((await channels.verifyKey(two.streamKey, offAir))?.slug, 'key-two');
  for (const wrong of [
    '',
    'vz_',
    `${one.streamKey}0`,
    one.streamKey.toUpperCase(),
    `vz_${'0'.repeat(26)}`,
    `${'x'.repeat(1e6)}`,
    "'; drop table channels",
  ]) {
    assert.equal(await channels.verifyKey(wrong, onAir), undefined);
  }
  const { rows } = await database.query('select channels::text as row from channels');
  assert.ok(rows.every((row) => !String(row.row).includes(one.streamKey)));
});

test('a replaced key is good for the show that it began, and for no later one', async () => {
  const { streamKey: first } = await channels.create('rotated', settings);
  const second = await channels.rotateKey('rotated', true);
  const third = await channels.rotateKey('rotated', true);
  assert.ok(await channels.verifyKey(first, onAir), 'the encoder on air may reconnect');
  assert.ok(await channels.verifyKey(third, onAir), 'and may be taken over with the new key');
  assert.equal(await channels.verifyKey(second, onAir), undefined, 'a key in between began nothing');
  assert.ok(await channels.verifyKey(third, offAir), 'the next show');
  assert.equal(await channels.verifyKey(first, onAir), undefined, 'the first key is over');

  const fourth = await channels.rotateKey('rotated', false);
  assert.equal(await channels.verifyKey(third, onAir), undefined, 'off air a rotation takes effect at once');
  assert.ok(await channels.verifyKey(fourth, onAir));
});

test('the database is away: an encoder may come back to its show, nobody else gets in', async () => {
  const { streamKey } = await channels.create('away', settings);
  const { streamKey: stranger } = await channels.create('stranger', settings);
  let away = false;
  const flaky = new Channels({
    ...database,
    query: (sql, values) => (away ? Promise.reject(new VezaError('unavailable', 'x')) : database.query(sql, values)),
  });
  assert.ok(await flaky.verifyKey(streamKey, offAir));
  away = true;
  assert.equal((await flaky.verifyKey(streamKey, onAir))?.slug, 'away');
  await assert.rejects(flaky.verifyKey(streamKey, offAir), code('unavailable'));
  await assert.rejects(flaky.verifyKey(stranger, onAir), code('unavailable'));
});

test('readers at once share a query, and a reader after a write sees it', async () => {
  let queries = 0;
  const counted = new Channels({
    ...database,
    query: (sql, values) => {
      queries++;
      return database.query(sql, values);
    },
  });
  await counted.create('shared', settings);
  queries = 0;
  const found = await Promise.all(Array.from({ length: 100 }, () => counted.get('shared')));
  assert.equal(queries, 1);
  assert.ok(found.every((channel) => channel?.title === 'Radio'));
  const early = counted.get('shared');
  await counted.update('shared', { title: 'Later' });
  const late = counted.get('shared');
  assert.equal((await late)?.title, 'Later');
  await early;
});

test('lists are by slug, from where the last ended, of the visibilities asked for', async () => {
  await database.query('delete from channels');
  for (const [slug, visibility] of [
    ['b2', 'public'],
    ['a1', 'private'],
    ['b-1', 'public'],
    ['c3', 'unlisted'],
  ] as const) {
    await channels.create(slug, { ...settings, visibility });
  }
  const slugs = async (...args: Parameters<Channels['list']>) => (await channels.list(...args)).map((channel) => channel.slug);
  assert.deepEqual(await slugs(['public'], '', 10), ['b-1', 'b2']);
  assert.deepEqual(await slugs(VISIBILITIES, '', 2), ['a1', 'b-1']);
  assert.deepEqual(await slugs(VISIBILITIES, 'b-1', 2), ['b2', 'c3']);
});

test('a broadcast is begun, ended, listed newest first, and goes with its channel', async () => {
  const broadcasts = new Broadcasts(database);
  const { channel } = await channels.create('shows', settings);
  const startedAtMs = Date.UTC(2030, 0, 1);
  for (const [i, id] of ['one', 'two', 'three'].entries()) {
    const recording = id !== 'two';
    await broadcasts.insert({
      id,
      channelId: channel.id,
      title: id,
      recording,
      startedAtMs: startedAtMs + i,
      firstNumber: 100 * i,
      details: { a: 1 },
    });
  }
  const start = { channelId: channel.id, title: '', recording: true, startedAtMs, firstNumber: 0 };
  await broadcasts.insert({ id: 'one', ...start });
  assert.equal((await broadcasts.get('one'))?.title, 'one', 'said twice, it is what was said first');
  await assert.rejects(broadcasts.insert({ ...start, id: 'none', channelId: randomUUID() }), code('not_found'));
  await broadcasts.end('one', { endedAtMs: startedAtMs + 5000, durationMs: 4999.6, lastNumber: 2, details: { b: [2] } });
  await broadcasts.end('two', { endedAtMs: startedAtMs + 5000, durationMs: 1, lastNumber: 102 });
  await assert.rejects(broadcasts.end('none', { endedAtMs: 0, durationMs: 1, lastNumber: 1 }), code('not_found'));
  assert.deepEqual(await broadcasts.get('one'), {
    id: 'one',
    channel: 'shows',
    channelId: channel.id,
    visibility: 'public',
    countries: { allowed: undefined, denied: undefined },
    title: 'one',
    recording: true,
    startedAtMs,
    endedAtMs: startedAtMs + 5000,
    durationMs: 5000,
    firstNumber: 0,
    lastNumber: 2,
    details: { a: 1, b: [2] },
  });
  const ids = async (...args: Parameters<Broadcasts['list']>) => (await broadcasts.list(...args)).map((broadcast) => broadcast.id);
  assert.deepEqual(await ids({ channel: 'shows' }, 2), ['three', 'two']);
  assert.deepEqual(await ids({ channel: 'shows', after: { startedAtMs: startedAtMs + 1, id: 'two' } }, 2), ['one']);
  assert.deepEqual(await ids({ recorded: true, visibilities: ['public'] }, 9), ['one']);
  assert.deepEqual(await ids({ visibilities: ['private'] }, 9), []);
  assert.deepEqual(
    (await broadcasts.unfinished()).map((broadcast) => broadcast.id),
    ['three'],
  );
  assert.equal(await broadcasts.delete('three'), true);
  assert.equal(await broadcasts.delete('three'), false);
  await channels.delete('shows');
  assert.equal(await broadcasts.get('one'), undefined);
});

test('the admin token is made once, by whoever comes first, and only its owner can read it', async () => {
  const tokens = await Promise.all([loadAdminToken(dataDir), loadAdminToken(dataDir), loadAdminToken(dataDir)]);
  const text = (await readFile(adminTokenPath(dataDir), 'utf8')).trim();
  assert.match(text, /^[\w-]{43}$/);
  assert.equal((await stat(adminTokenPath(dataDir))).mode & 0o777, 0o600);
  for (const token of tokens) {
    assert.ok(token.matches(text));
    assert.ok(!token.matches(''));
    assert.ok(!token.matches(`${text}x`));
  }
});
