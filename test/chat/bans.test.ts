import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import type { Moderator } from '../../src/chat/moderation/acts.js';
import type { ModAction } from '../../src/chat/moderation/mod-actions.js';
import type { ModerationService } from '../../src/chat/moderation/service.js';
import type { Author } from '../../src/chat/rooms/room.js';
import { VezaError } from '../../src/runtime/errors.js';
import { type DeskWorld, deskWorld } from './moderation-world.js';

let world: DeskWorld;
let here: ModerationService;
let there: ModerationService;
let moderator: Author & Moderator;

before(async () => {
  world = await deskWorld();
  here = world.desk();
  there = world.desk();
  for (const desk of [here, there]) {
    await desk.start();
    await desk.rules.openRoom(world.room.id);
  }
  moderator = await world.person('moderator');
});
after(() => world.stop());
beforeEach(() => {
  world.told.acts.length = 0;
  world.told.erased.length = 0;
  world.told.failure = undefined;
});

const does = (action: ModAction, by: Moderator = moderator) => here.moderate(world.room, by, action);
const says = (desk: ModerationService, author: Author, text = 'hello') =>
  desk.rules.refusalOf(world.room, author, world.clock.wallMs(), text)?.code;
const rejects = (promise: Promise<unknown>, code: string) =>
  assert.rejects(promise, (error) => error instanceof VezaError && error.code === code);

test('a ban counts here at once, in another process within a second, and after a restart', async () => {
  const one = await world.person();
  assert.equal(says(here, one), undefined);
  const { offset } = await does({ action: 'ban', user: one.id, reason: 'spam' });
  assert.equal(typeof offset, 'number');
  assert.equal(says(here, one), 'banned');
  await world.pass(900);
  assert.equal(says(there, one), 'banned');
  // Nothing of it is in a log that can be wiped.
  const restarted = world.desk();
  await restarted.rules.openRoom(world.room.id);
  assert.equal(says(restarted, one), 'banned');
  assert.equal(restarted.rules.readRefusalOf(world.room.id, one, world.clock.wallMs())?.code, 'banned');
  // The reason is between him and whoever moderates.
  assert.deepEqual(world.told.acts, [
    { type: 'act', payload: { action: 'ban', user: { id: one.id, name: one.name }, by: { id: moderator.id, name: moderator.name } } },
  ]);
  const { principal, action, target, details } = world.audited.at(-1)!;
  assert.deepEqual([principal.id, action, target, details], [moderator.actor, 'chat.ban', `user:${one.id}`, { reason: 'spam' }]);
  await does({ action: 'unban', user: one.id });
  await world.pass(900);
  assert.deepEqual([says(here, one), says(there, one)], [undefined, undefined]);
  await rejects(does({ action: 'unban', user: one.id }), 'not_found');
});

test('bans and timeouts end by themselves; a new ban is another than the one that has ended', async () => {
  const one = await world.person();
  await does({ action: 'ban', user: one.id, seconds: 60 });
  await does({ action: 'timeout', user: one.id, seconds: 120 });
  await world.pass(59_000);
  assert.equal(says(there, one), 'banned');
  await world.pass(2_000);
  assert.equal(says(there, one), 'timed_out');
  await world.pass(60_000);
  assert.equal(says(there, one), undefined);
  await does({ action: 'ban', user: one.id });
  assert.equal(says(here, one), 'banned');
  const { rows } = await world.database.query('select 1 from room_bans where user_id = $1', [one.id]);
  assert.equal(rows.length, 2);
});

test('a timeout is lifted, and replaced by another', async () => {
  const one = await world.person();
  await does({ action: 'timeout', user: one.id, seconds: 600, reason: 'calm down' });
  await does({ action: 'timeout', user: one.id, seconds: 60 });
  assert.equal(here.rules.timeoutUntilMs(world.room.id, one.id, world.clock.wallMs()), Math.trunc(world.clock.wallMs()) + 60_000);
  await does({ action: 'untimeout', user: one.id });
  assert.equal(says(here, one), undefined);
  await rejects(does({ action: 'untimeout', user: one.id }), 'not_found');
});

test('nobody acts on an equal or a higher role, nor without the role or its second factor', async () => {
  const people = {
    viewer: await world.person('viewer'),
    moderator: await world.person('moderator'),
    host: await world.person('host'),
    owner: await world.person('owner'),
    admin: await world.person('admin'),
  };
  const order = Object.values(people);
  for (const [rank, by] of order.entries())
    for (const [other, user] of order.entries()) {
      const acting = does({ action: 'warn', user: user.id, text: 'x' }, { ...by, id: `by-${by.id}` });
      if (rank > 0 && rank > other) await acting;
      else await rejects(acting, 'forbidden');
    }
  const mid = await world.message(people.owner, 'from the owner');
  await rejects(does({ action: 'delete', mid }), 'forbidden');
  await rejects(does({ action: 'purge', user: people.owner.id }), 'forbidden');
  await does({ action: 'delete', mid: await world.message(moderator, 'my own') });
  await rejects(does({ action: 'shield', on: true }, people.viewer), 'forbidden');
  await rejects(does({ action: 'shield', on: true }, { ...people.viewer, unproven: true }), 'second_factor_missing');
  await rejects(does({ action: 'ban', user: '00000000-0000-4000-8000-000000000000' }), 'not_found');
});

test('a ban by address: hashed, with an end, of whoever shares the network, not of whoever moderates', async () => {
  const one = await world.person('viewer', '2001:db8:1:2::7');
  assert.equal(says(here, one), undefined);
  await here.writers.flush();
  await does({ action: 'ban', user: one.id, addressSeconds: 3600 });
  const neighbour = await world.person('viewer', '2001:db8:1:2:ffff::1');
  const stranger = await world.person('viewer', '2001:db8:1:3::7');
  await world.pass(900);
  for (const desk of [here, there]) {
    assert.equal(says(desk, neighbour), 'banned');
    assert.equal(says(desk, stranger), undefined);
    assert.equal(says(desk, { ...moderator, address: '2001:db8:1:2::9' }), undefined);
  }
  for (const table of ['room_address_bans', 'room_writers', 'room_acts', 'room_bans']) {
    const { rows } = await world.database.query(`select * from ${table}`);
    assert.ok(!/2001:db8|2001:0db8/.test(JSON.stringify(rows)), table);
  }
  assert.ok(!JSON.stringify(world.audited).includes('2001:db8:1:2'));
  await world.pass(3_600_000);
  assert.equal(says(there, neighbour), undefined);
  assert.equal(says(there, one), 'banned');

  // Lifted with the ban of the account.
  const other = await world.person('viewer', '192.0.2.7');
  assert.equal(says(here, other), undefined);
  await does({ action: 'ban', user: other.id, addressSeconds: 3600 });
  const mapped = await world.person('viewer', '::ffff:192.0.2.7');
  assert.equal(says(here, mapped), 'banned');
  await does({ action: 'unban', user: other.id });
  await world.pass(900);
  assert.deepEqual([says(here, mapped), says(there, mapped)], [undefined, undefined]);

  const silent = await world.person('viewer', '192.0.2.8');
  await rejects(does({ action: 'ban', user: silent.id, addressSeconds: 60 }), 'conflict');
  assert.equal(says(here, silent), undefined, 'and nothing of it was done');
});

test('a shadow ban: he may write on, it is told to nobody and not to him', async () => {
  const one = await world.person();
  await does({ action: 'shadowBan', user: one.id });
  await world.pass(900);
  for (const desk of [here, there]) {
    assert.equal(says(desk, one), undefined);
    assert.ok(desk.rules.isShadowed(world.room, one, world.clock.wallMs()));
  }
  assert.deepEqual(world.told.acts, []);
  const standing = await here.sanctionsOf(world.room.id, one.id);
  assert.equal(standing.ban, undefined);
  await rejects(here.fileAppeal(world.room, one, 'why?'), 'not_found');
  await does({ action: 'unban', user: one.id });
  assert.deepEqual(world.told.acts, []);
  assert.ok(!here.rules.isShadowed(world.room, one, world.clock.wallMs()));
});

test('a warning is shown until it has been seen, to him alone', async () => {
  const one = await world.person();
  const other = await world.person();
  await world.pass(900);
  const shown: string[] = [];
  const end = there.rules.listen({ onPeople: (_room, userIds) => shown.push(...userIds), onRoom: () => undefined });
  await does({ action: 'warn', user: one.id, text: 'mind your language' });
  await world.pass(900);
  end();
  assert.deepEqual(shown, [one.id]);
  assert.deepEqual(world.told.acts, []);
  assert.deepEqual([there.rules.unseenWarnings(world.room.id, one.id), there.rules.unseenWarnings(world.room.id, other.id)], [1, 0]);
  const [warning] = (await there.sanctionsOf(world.room.id, one.id)).warnings;
  assert.equal(warning?.text, 'mind your language');
  await rejects(there.sanctions.markWarningSeen(world.room.id, other.id, warning!.id), 'not_found');
  // Every page of his learns that he has seen it, once.
  const told: string[] = [];
  const endHere = here.rules.listen({ onPeople: (_room, userIds) => told.push(...userIds), onRoom: () => undefined });
  await there.sanctions.markWarningSeen(world.room.id, one.id, warning!.id);
  await there.sanctions.markWarningSeen(world.room.id, one.id, warning!.id);
  await world.pass(900);
  endHere();
  assert.deepEqual(told, [one.id]);
  assert.equal(here.rules.unseenWarnings(world.room.id, one.id), 0);
  assert.deepEqual((await there.sanctionsOf(world.room.id, one.id)).warnings, []);
  for (let i = 0; i < 50; i++) await does({ action: 'warn', user: one.id, text: 'again' });
  await rejects(does({ action: 'warn', user: one.id, text: 'one more' }), 'conflict');
});

test('one appeal for each ban; accepted, it lifts the ban', async () => {
  const one = await world.person();
  await rejects(here.fileAppeal(world.room, one, 'let me in'), 'not_found');
  await does({ action: 'ban', user: one.id });
  await rejects(here.fileAppeal(world.room, one, '  '), 'bad_request');
  await rejects(here.fileAppeal(world.room, one, 'x'.repeat(2001)), 'bad_request');
  const { id } = await here.fileAppeal(world.room, one, 'it was\na mistake');
  await rejects(here.fileAppeal(world.room, one, 'again'), 'conflict');
  assert.deepEqual(
    (await here.appeals.list(world.room.id, true, undefined, 10)).map((appeal) => appeal.id),
    [id],
  );
  await rejects(here.answerAppeal(world.room, one, id, true, 'ok'), 'forbidden');
  await here.answerAppeal(world.room, moderator, id, false, 'no');
  await rejects(here.answerAppeal(world.room, moderator, id, true, 'yes'), 'conflict');
  assert.equal(says(here, one), 'banned');
  await does({ action: 'unban', user: one.id });
  await does({ action: 'ban', user: one.id });
  await world.pass(1000);
  const second = await here.fileAppeal(world.room, one, 'this one too');
  await here.answerAppeal(world.room, moderator, second.id, true, 'you are right');
  assert.equal(says(here, one), undefined);
  assert.equal((await here.sanctionsOf(world.room.id, one.id)).appeal?.answer, 'you are right');
});

test('a ban is in force though the room cannot be told; a deletion that did not happen is no success', async () => {
  const one = await world.person();
  const mid = await world.message(one, 'x');
  world.told.failure = new VezaError('unavailable', 'The log is away.');
  assert.deepEqual(await does({ action: 'ban', user: one.id }), {});
  assert.equal(says(here, one), 'banned');
  await rejects(does({ action: 'delete', mid }), 'unavailable');
  await rejects(does({ action: 'purge', user: one.id }), 'unavailable');
});

test('everything that somebody has said goes, with what waits and what is pinned', async () => {
  const one = await world.person();
  const mid = await world.message(one, 'look at me');
  await does({ action: 'pin', mid });
  assert.equal(here.rules.pinnedMessage(world.room.id)?.body.text, 'look at me');
  const held = { roomId: world.room.id, mid: 'h'.repeat(22), key: 'k', author: one, body: { text: 'x' }, saidAtMs: 1e12, reason: 'spam' };
  await here.held.holdMessage(held);
  await does({ action: 'ban', user: one.id, purge: true });
  assert.deepEqual(world.told.erased, [{ userId: one.id }]);
  assert.equal(here.rules.pinnedMessage(world.room.id), undefined);
  assert.equal(await here.held.findMessage(world.room.id, held.mid), undefined);
});

test('what is so new that it is not stored yet is deleted all the same', async () => {
  const one = await world.person();
  const mid = 'n'.repeat(22);
  await rejects(does({ action: 'delete', mid }), 'not_found');
  world.told.recents.set(mid, one.id);
  await does({ action: 'delete', mid });
  assert.deepEqual(world.told.erased, [{ mids: [mid] }]);
});
