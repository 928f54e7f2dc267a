// Messages that are published at once and judged afterwards.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { MAX_WAITING, Retractions } from '../../src/chat/automod/retractions.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { type DeskWorld, deskWorld } from './moderation-world.js';

let world: DeskWorld;
before(async () => {
  world = await deskWorld();
});
after(() => world.stop());

const settled = async () => {
  for (let i = 0; i < 20; i++) await turn();
};

test('what there is something against is taken back; the rest stays', async () => {
  const taken: [string, string][] = [];
  const retractions = new Retractions<string>({
    objection: async (text) => (text.startsWith('bad') ? 'hate' : undefined),
    takeBack: async (text, reason) => taken.push([text, reason]),
    clock: new FakeClock(),
    log: silentLog,
  });
  for (const text of ['good', 'bad 1', 'fine', 'bad 2']) retractions.judgeLater(text);
  await retractions.stop();
  assert.deepEqual(taken, [
    ['bad 1', 'hate'],
    ['bad 2', 'hate'],
  ]);
});

test('a log that is away is tried again each second, ten times, and not once more when the process stops', async () => {
  const clock = new FakeClock();
  let attempts = 0;
  const retractions = new Retractions<string>({
    objection: async () => 'hate',
    takeBack: async () => {
      attempts++;
      if (attempts !== 3) throw new Error('away');
    },
    clock,
    log: silentLog,
  });
  retractions.judgeLater('x');
  await settled();
  for (let second = 0; second < 20; second++) {
    clock.advance(1000);
    await settled();
  }
  assert.equal(attempts, 3);
  attempts = 10;
  retractions.judgeLater('y');
  await settled();
  assert.equal(attempts, 11);
  await retractions.stop();
  assert.equal(attempts, 12, 'a last time, and then no more');
  assert.equal(retractions.failed, 1);
});

test('a judge that fails is asked again, and the others are judged', async () => {
  const clock = new FakeClock();
  const taken: string[] = [];
  let fails = 1;
  const retractions = new Retractions<string>({
    objection: async (text) => {
      if (text === 'unlucky' && fails-- > 0) throw new Error('a defect');
      return 'hate';
    },
    takeBack: async (text) => taken.push(text),
    clock,
    log: silentLog,
  });
  retractions.judgeLater('unlucky');
  retractions.judgeLater('other');
  await settled();
  assert.deepEqual(taken, ['other']);
  clock.advance(1000);
  await settled();
  assert.deepEqual(taken, ['other', 'unlucky']);
  await retractions.stop();
});

test('at most 32 are judged at once and 1,000 wait: then it is full, and it is not when they are judged', async () => {
  let most = 0;
  let under = 0;
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const retractions = new Retractions<number>({
    objection: async () => {
      under++;
      most = Math.max(most, under);
      await gate;
      under--;
      return undefined;
    },
    takeBack: async () => undefined,
    clock: new FakeClock(),
    log: silentLog,
  });
  for (let i = 0; i < 32 + MAX_WAITING - 1; i++) retractions.judgeLater(i);
  assert.equal(retractions.isFull, false);
  retractions.judgeLater(-1);
  assert.equal(retractions.isFull, true);
  release();
  await retractions.stop();
  assert.equal(most, 32);
});

test('a message that is taken back leaves the room, is in the list of acts and the audit log, and waits for a moderator, once', async () => {
  const desk = world.desk();
  const author = await world.person();
  const moderator = await world.person('moderator');
  const mid = await world.message(author, 'something vile');
  await desk.moderate(world.room, moderator, { action: 'pin', mid });
  const said = { mid, author, body: { text: 'something vile' } };
  await desk.retractMessage(world.room, said, 'hate, harassment');
  await desk.retractMessage(world.room, said, 'hate, harassment');
  assert.deepEqual(world.told.erased, [{ mids: [mid] }]);
  assert.equal(desk.rules.pinnedMessage(world.room.id), undefined);
  const acts = await desk.listActs(world.room.id, author.id, undefined, 10);
  assert.deepEqual(
    acts.map(({ action, byId, byName, details }) => ({ action, byId, byName, details })),
    [{ action: 'retract', byId: 'service', byName: 'Automatic moderation', details: { mid, reason: 'hate, harassment' } }],
  );
  const audited = world.audited.filter(({ action }) => action === 'chat.retract');
  assert.deepEqual(
    audited.map(({ principal, target }) => [principal.id, target]),
    [['service', `user:${author.id}`]],
  );

  const waiting = await desk.held.listWaiting(world.room.id, undefined, 10);
  assert.deepEqual(
    waiting.map(({ message }) => [message.author.id, message.body.text, message.reason]),
    [[author.id, 'something vile', 'hate, harassment']],
  );
  const again = waiting[0]!.message.mid;
  assert.notEqual(again, mid, 'what was deleted under a mid does not come back under it');
  await desk.moderate(world.room, moderator, { action: 'approve', mid: again });
  assert.deepEqual(
    world.told.approved.map(({ mid: approved, body }) => [approved, body.text]),
    [[again, 'something vile']],
  );
});
