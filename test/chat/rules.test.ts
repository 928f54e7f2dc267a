import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Moderator } from '../../src/chat/moderation/acts.js';
import { MAX_HELD } from '../../src/chat/moderation/held-message-queue.js';
import { parseModAction } from '../../src/chat/moderation/mod-actions.js';
import { isEmojiOnly } from '../../src/chat/moderation/rules.js';
import type { ModerationService } from '../../src/chat/moderation/service.js';
import { changedSettings, DEFAULT_SETTINGS, SETTING_LIMITS, settingsInForce, storedSettings } from '../../src/chat/moderation/settings.js';
import { addressHash } from '../../src/chat/protocol/address.js';
import type { Author } from '../../src/chat/rooms/room.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type DeskWorld, deskWorld } from './moderation-world.js';

let world: DeskWorld;
let here: ModerationService;
let there: ModerationService;
let moderator: Author & Moderator;
let viewer: Author & Moderator;

before(async () => {
  world = await deskWorld();
  here = world.desk();
  there = world.desk();
  for (const desk of [here, there]) {
    await desk.start();
    await desk.rules.openRoom(world.room.id);
  }
  moderator = await world.person('moderator');
  viewer = await world.person();
});
after(() => world.stop());

const says = (desk: ModerationService, author: Author, text = 'hello') =>
  desk.rules.refusalOf(world.room, author, world.clock.wallMs(), text)?.code;
const rejects = (promise: Promise<unknown>, code: string) =>
  assert.rejects(promise, (error) => error instanceof VezaError && error.code === code);
const isBad = (at: string) => (error: unknown) => error instanceof VezaError && error.code === 'bad_request' && error.details?.at === at;

test('a room that nobody has opened yet lets nobody speak until its rules are known', async () => {
  const fresh = world.desk();
  assert.deepEqual(fresh.rules.refusalOf(world.room, viewer, 0, 'x')?.code, 'busy');
  await fresh.rules.openRoom(world.room.id);
  assert.equal(says(fresh, viewer), undefined);
  fresh.rules.releaseRoom(world.room.id);
  fresh.rules.releaseRoom(world.room.id);
  world.clock.advance(31_000);
  assert.equal(fresh.rules.size, 0, 'and is forgotten when nobody has it open');
});

test('followers mode goes by the age of the account, and counts for viewers', async () => {
  await here.moderate(world.room, moderator, { action: 'followers', minutes: 60 });
  await world.pass(900);
  const nowMs = world.clock.wallMs();
  const aged = (minutes: number): Author => ({ ...viewer, sinceMs: nowMs - minutes * 60_000 });
  for (const desk of [here, there]) {
    assert.equal(says(desk, aged(59.9)), 'too_new');
    assert.equal(says(desk, aged(60)), undefined);
    const { sinceMs: _, ...ageless } = viewer;
    assert.equal(says(desk, ageless), 'too_new');
    assert.equal(says(desk, { ...aged(0), role: 'moderator' }), undefined);
  }
  assert.equal(world.told.acts.at(-1)!.payload.action, 'followers');
  assert.equal((world.told.acts.at(-1)!.payload.settings as { followersMin: number }).followersMin, 60);
  await here.moderate(world.room, moderator, { action: 'followers', minutes: 0 });
});

test('emote-only: emoji and spaces, in a time that goes by the length', async () => {
  for (const yes of ['🎧', '👍🏽 👍🏽', '👨‍👩‍👧‍👦', '🇩🇪🇫🇷', '❤️', '☺', '1️⃣', '🏴󠁧󠁢󠁥󠁮󠁧󠁿']) assert.ok(isEmojiOnly(yes), yes);
  for (const no of ['', '  ', 'x', '🎧x', '12', '#', ':)', 'ﷺ']) assert.ok(!isEmojiOnly(no), no);
  // With an expression that can go back, each of these has two ways and all of them 2^2000.
  assert.ok(!isEmojiOnly(`${'👍🏽'.repeat(2000)}x`));
  await here.moderate(world.room, moderator, { action: 'emoteOnly', on: true });
  assert.equal(says(here, viewer, 'hello'), 'emote_only');
  assert.equal(says(here, viewer, '🎉🎉'), undefined);
  assert.equal(says(here, moderator, 'hello'), undefined);
  await here.moderate(world.room, moderator, { action: 'emoteOnly', on: false });
});

test('slow and unique go into the limits, but for whom they are not meant', async () => {
  await here.moderate(world.room, moderator, { action: 'slow', seconds: 30 });
  await here.moderate(world.room, moderator, { action: 'unique', on: true });
  assert.deepEqual(here.rules.limitsOf(world.room, viewer), { perS: 5, burst: 10, roomPerS: 50, slowMs: 30_000, unique: true });
  assert.deepEqual(here.rules.limitsOf(world.room, moderator), { perS: 5, burst: 10, roomPerS: 50, slowMs: 0, unique: false });
  const owner = await world.person('owner');
  await here.changeSettings(world.room, owner, { slowExempt: ['host'] });
  assert.equal(here.rules.limitsOf(world.room, moderator).slowMs, 30_000);
  assert.equal(here.rules.limitsOf(world.room, { role: 'host' }).slowMs, 0);
  await here.changeSettings(world.room, owner, { ...DEFAULT_SETTINGS });
});

test('the shield is one switch: stricter while it is up, as before after it', async () => {
  await here.moderate(world.room, moderator, { action: 'slow', seconds: 60 });
  await here.moderate(world.room, moderator, { action: 'shield', on: true });
  await world.pass(900);
  const { slowS, followersMin, unique, perS } = there.rules.settingsInForce(world.room.id);
  assert.deepEqual({ slowS, followersMin, unique, perS }, { slowS: 60, followersMin: 1440, unique: true, perS: 1 });
  assert.equal(says(there, { ...viewer, sinceMs: world.clock.wallMs() }), 'too_new');
  await here.moderate(world.room, moderator, { action: 'shield', on: false });
  await here.moderate(world.room, moderator, { action: 'slow', seconds: 0 });
  assert.deepEqual(here.rules.settingsInForce(world.room.id), DEFAULT_SETTINGS);
});

test('guests read where the room lets them', async () => {
  const reads = (desk: ModerationService) => desk.rules.readRefusalOf(world.room.id, undefined, world.clock.wallMs())?.code;
  assert.equal(reads(there), undefined);
  const owner = await world.person('owner');
  await here.changeSettings(world.room, owner, { guests: 'none' });
  await world.pass(900);
  assert.equal(reads(there), 'unauthorized');
  await here.changeSettings(world.room, owner, { guests: 'read' });
});

test('blocked terms reach every process and are told to nobody', async () => {
  const before = world.told.acts.length;
  await here.moderate(world.room, moderator, { action: 'terms', blocked: ['foo'], allowed: ['food'] });
  await world.pass(900);
  assert.deepEqual(there.rules.termsOf(world.room.id), { blocked: ['foo'], allowed: ['food'] });
  assert.deepEqual(await here.readTerms(world.room), { blocked: ['foo'], allowed: ['food'] });
  assert.equal(world.told.acts.length, before);
});

test('a pin names a message and is gone with it', async () => {
  const mid = await world.message(viewer, 'the rules of this house');
  await here.moderate(world.room, moderator, { action: 'pin', mid });
  const told = world.told.acts.at(-1);
  await world.pass(900);
  const messageOffset = there.rules.pinnedMessage(world.room.id)?.offset;
  assert.deepEqual(told, { type: 'pin', payload: { mid, messageOffset, by: { id: moderator.id, name: moderator.name } } });
  assert.equal(there.rules.pinnedMessage(world.room.id)?.body.text, 'the rules of this house');
  assert.equal(there.rules.pinnedMessage(world.room.id)?.user.id, viewer.id);
  await rejects(here.moderate(world.room, moderator, { action: 'pin', mid: 'x'.repeat(22) }), 'not_found');
  await here.moderate(world.room, moderator, { action: 'delete', mid });
  await world.pass(900);
  assert.equal(there.rules.pinnedMessage(world.room.id), undefined);
  await here.moderate(world.room, moderator, { action: 'pin', mid: null });
});

test('held messages: approved once, denied once, and again in the queue when the room could not take it', async () => {
  const held = (n: number, author: Author = viewer) => ({
    roomId: world.room.id,
    mid: `held-${n}`.padEnd(22, '_'),
    key: `k${n}`,
    author,
    body: { text: `\0 ${n} \ud800` },
    saidAtMs: 1e12 + n,
    reason: 'spam 0.97',
  });
  const mid = (n: number) => held(n).mid;
  for (const n of [1, 1, 2, 3]) await here.held.holdMessage(held(n));
  const waiting = await there.held.listWaiting(world.room.id, undefined, 10);
  assert.deepEqual(
    waiting.map(({ message }) => message),
    [1, 2, 3].map((n) => {
      const { actor: _, ...author } = viewer;
      return { ...held(n), author };
    }),
  );
  const [first] = waiting;
  const after = { createdAtMs: first!.message.saidAtMs, mid: first!.message.mid };
  assert.equal((await there.held.listWaiting(world.room.id, after, 10)).length, 2);

  await here.moderate(world.room, moderator, { action: 'approve', mid: mid(1) });
  assert.deepEqual(
    world.told.approved.map((message) => message.mid),
    [mid(1)],
  );
  await rejects(here.moderate(world.room, moderator, { action: 'approve', mid: mid(1) }), 'conflict');
  await rejects(here.moderate(world.room, moderator, { action: 'deny', mid: mid(1) }), 'conflict');
  await rejects(here.moderate(world.room, moderator, { action: 'approve', mid: mid(9) }), 'not_found');

  world.told.failure = new VezaError('unavailable', 'away');
  await rejects(here.moderate(world.room, moderator, { action: 'approve', mid: mid(2) }), 'unavailable');
  world.told.failure = undefined;
  assert.deepEqual(
    (await here.held.listWaiting(world.room.id, undefined, 10)).map(({ message }) => message.mid),
    [mid(2), mid(3)],
  );
  // A process that died between the two.
  await world.database.query(`update held_messages set decision = 'approved', decided_at = $2 where mid = $1`, [
    mid(2),
    new Date(world.clock.wallMs()),
  ]);
  await rejects(here.moderate(world.room, moderator, { action: 'approve', mid: mid(2) }), 'conflict');
  await world.pass(31_000);
  await here.moderate(world.room, moderator, { action: 'approve', mid: mid(2) });

  const shown: string[] = [];
  const end = there.rules.listen({ onPeople: (_room, userIds) => shown.push(...userIds), onRoom: () => undefined });
  await here.moderate(world.room, moderator, { action: 'deny', mid: mid(3), reason: 'not here' });
  await world.pass(900);
  end();
  assert.deepEqual(shown, [viewer.id], 'the author is told');
  const standing = await there.sanctionsOf(world.room.id, viewer.id);
  assert.deepEqual([standing.held[0]?.decision, standing.held[0]?.denialReason], ['denied', 'not here']);

  await here.held.holdMessage(held(4, moderator));
  await rejects(here.moderate(world.room, moderator, { action: 'approve', mid: mid(4) }), 'forbidden');
});

test('the queue of held messages is bounded', async () => {
  await world.database.query(
    `insert into held_messages (room_id, mid, user_id, user_name, user_role, key, body, why, created_at)
     select $1, 'many' || n, 'x', 'x', 'viewer', 'k', '{}', 'x', now() from generate_series(1, ${MAX_HELD}) n`,
    [world.room.id],
  );
  const message = { roomId: world.room.id, mid: 'z'.repeat(22), key: 'k', author: viewer, body: { text: 'x' }, saidAtMs: 1, reason: 'x' };
  await rejects(here.held.holdMessage(message), 'busy');
  // One that is there is no more.
  await here.held.holdMessage({ ...message, mid: 'many1' });
});

test('settings: each within its limits, and what an old row has is no reason not to open', () => {
  for (const [name, [least, most]] of Object.entries(SETTING_LIMITS)) {
    for (const good of [least, most]) assert.equal(changedSettings(DEFAULT_SETTINGS, { [name]: good })[name as 'slowS'], good);
    for (const bad of [least - 1, most + 1, 0.5, '1', null, Number.NaN])
      assert.throws(() => changedSettings(DEFAULT_SETTINGS, { [name]: bad }), isBad(name), `${name} ${bad}`);
  }
  for (const bad of [{ unique: 1 }, { guests: 'write' }, { slowExempt: ['god'] }, { slowExempt: 'host' }, { more: 1 }, { toString: 1 }])
    assert.throws(() => changedSettings(DEFAULT_SETTINGS, bad), isBad(Object.keys(bad)[0]!));
  assert.deepEqual(storedSettings({ slowS: 5, unique: 'yes', gone: 1 }), { ...DEFAULT_SETTINGS, slowS: 5 });
  for (const bad of [null, 5, 'x', []]) assert.deepEqual(storedSettings(bad), DEFAULT_SETTINGS);
  assert.equal(settingsInForce({ ...DEFAULT_SETTINGS, shield: true, followersMin: 9999 }).followersMin, 9999);
});

test('a mod frame says what is wrong with it, and takes no more than it needs', () => {
  const mid = 'm'.repeat(22);
  const good = [
    { action: 'delete', mid },
    { action: 'purge', user: 'u' },
    { action: 'timeout', user: 'gateway:a|b', seconds: 1 },
    { action: 'timeout', user: 'gateway: 李雷 ', seconds: 1 },
    { action: 'timeout', user: 'u', seconds: 1_209_600, reason: 'x'.repeat(300) },
    { action: 'untimeout', user: 'u' },
    { action: 'ban', user: 'u', seconds: 60, addressSeconds: 2_592_000, purge: true, reason: 'x' },
    { action: 'shadowBan', user: 'u' },
    { action: 'unban', user: 'u' },
    { action: 'warn', user: 'u', text: 'x' },
    { action: 'slow', seconds: 0 },
    { action: 'followers', minutes: 525_600 },
    { action: 'shield', on: true },
    { action: 'pin', mid: null },
    { action: 'approve', mid },
    { action: 'deny', mid, reason: 'x' },
    { action: 'terms', blocked: ['a'], allowed: [] },
  ];
  for (const frame of good) assert.deepEqual(parseModAction({ t: 'mod', id: 1, room: 'r', ...frame, more: 1 }), frame);
  const bad: [string, Record<string, unknown>][] = [
    ['action', { action: 'toString' }],
    ['action', {}],
    ['mid', { action: 'delete', mid: 'x' }],
    ['mid', { action: 'pin' }],
    ['user', { action: 'ban', user: '' }],
    ['user', { action: 'ban', user: 'a\u0000b' }],
    ['user', { action: 'ban', user: 'a\ud800' }],
    ['user', { action: 'ban', user: 'x'.repeat(1025) }],
    ['user', { action: 'ban', user: ['u'] }],
    ['seconds', { action: 'timeout', user: 'u' }],
    ['seconds', { action: 'timeout', user: 'u', seconds: 0 }],
    ['seconds', { action: 'timeout', user: 'u', seconds: 1_209_601 }],
    ['seconds', { action: 'ban', user: 'u', seconds: null }],
    ['addressSeconds', { action: 'ban', user: 'u', addressSeconds: 2_592_001 }],
    ['reason', { action: 'ban', user: 'u', reason: 'a\nb' }],
    ['reason', { action: 'ban', user: 'u', reason: '\ud800' }],
    ['reason', { action: 'ban', user: 'u', reason: 'x'.repeat(301) }],
    ['text', { action: 'warn', user: 'u', text: ' ' }],
    ['on', { action: 'shield', on: 'true' }],
    ['blocked', { action: 'terms', blocked: Array.from({ length: 201 }, (_, n) => `t${n}`) }],
    ['blocked', { action: 'terms', blocked: ['x'.repeat(101)] }],
    ['blocked', { action: 'terms', blocked: 'x' }],
  ];
  for (const [at, frame] of bad) assert.throws(() => parseModAction(frame), isBad(at), JSON.stringify(frame).slice(0, 100));
});

test('hashes of addresses: the network of IPv6, one way of writing, nothing of what is no address', () => {
  const key = Buffer.alloc(32, 1);
  const of = (address: string) => addressHash(key, address);
  assert.equal(of('2001:db8::1'), of('2001:0db8:0:0:ffff::2'));
  assert.notEqual(of('2001:db8::1'), of('2001:db8:0:1::1'));
  assert.equal(of('::ffff:192.0.2.1'), of('192.0.2.1'));
  assert.equal(of('::ffff:c000:201'), of('192.0.2.1'));
  assert.notEqual(of('192.0.2.1'), of('192.0.2.2'));
  assert.equal(of('fe80::1%eth0'), of('fe80::2'));
  for (const none of ['', 'x', '1.2.3', '1.2.3.4, 5.6.7.8']) assert.equal(of(none), undefined);
  assert.notEqual(of('192.0.2.1'), addressHash(Buffer.alloc(32, 2), '192.0.2.1'));
  assert.match(of('192.0.2.1')!, /^[\w-]{22}$/);
});
