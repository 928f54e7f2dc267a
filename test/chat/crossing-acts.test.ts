import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { makeRoom } from '../support/chat-rooms.js';
import { ACT_NAMES, atOnce, heldUp, MODERATOR, oneAfterTheOther, say, useWorld } from './crossing.js';
import { type TestProcess, type TwoProcesses, twoProcesses } from './two-processes.js';

/** Every pair of acts, in both orders and crossing. `npm run test:long` holds the first up before every one of its steps. */
let world: TwoProcesses;
before(async () => {
  world = await twoProcesses();
  useWorld(world);
});
after(() => world.stop());

for (const [index, a] of ACT_NAMES.entries()) {
  test(`${a}, crossing everything else, leaves nothing of what was deleted and everybody with the same`, { timeout: 150_000 }, async () => {
    for (const [other, b] of ACT_NAMES.entries()) {
      await oneAfterTheOther(a, b);
      // Each pair at once, and each held up for the other at some step: which one differs from pair to pair.
      if (index <= other) await atOnce([a, b]);
      else
        for (const [one, two] of [
          [a, b],
          [b, a],
        ] as const)
          await heldUp(one, two, (index * 7 + other * 3) % 12, ((index + other) % 2) as 0 | 1);
    }
  });
}

test('whoever has written a moment ago in another process can be timed out, warned and banned', async () => {
  const [one, two] = world.processes;
  const roomId = await makeRoom(world.database);
  for (const { desk } of world.processes) await desk.rules.openRoom(roomId);
  const info = (await one.rooms.open(roomId)).info;
  for (const action of ['timeout', 'warn', 'ban'] as const) {
    const victim = `gateway:${action} ${randomUUID()}`;
    await assert.rejects(two.desk.moderate(info, MODERATOR, { action: 'timeout', user: victim, seconds: 60 }), { code: 'not_found' });
    const { kind } = await say(one, { info, victim }, action === 'warn' ? 'hold on' : 'hello');
    assert.equal(kind, action === 'warn' ? 'held' : 'published');
    await two.desk.moderate(
      info,
      MODERATOR,
      action === 'timeout'
        ? { action, user: victim, seconds: 60 }
        : action === 'warn'
          ? { action, user: victim, text: 'stop' }
          : { action, user: victim },
    );
  }
});

test('once a timeout is answered, another process takes nothing of him, though it has not heard of it', async () => {
  const [one, two] = world.processes;
  const roomId = await makeRoom(world.database);
  for (const { desk } of world.processes) await desk.rules.openRoom(roomId);
  const info = (await one.rooms.open(roomId)).info;
  const scene = { info, victim: `victim-${randomUUID()}` };
  await say(one, scene, 'first');
  const codeOf = async (text: string) => {
    // As it is before the other process has told this one.
    const { refusalOf: allows } = one.desk.rules;
    one.desk.rules.refusalOf = () => undefined;
    try {
      const outcome = await say(one, scene, text);
      return outcome.kind === 'refused' ? outcome.code : outcome.kind;
    } finally {
      one.desk.rules.refusalOf = allows;
    }
  };
  await two.desk.moderate(info, MODERATOR, { action: 'timeout', user: scene.victim, seconds: 60 });
  assert.deepEqual([await codeOf('late'), await codeOf('hold late')], ['timed_out', 'timed_out']);
  await two.desk.moderate(info, MODERATOR, { action: 'untimeout', user: scene.victim });
  assert.deepEqual([await codeOf('later'), await codeOf('hold later')], ['published', 'held']);
  await two.desk.moderate(info, MODERATOR, { action: 'timeout', user: scene.victim, seconds: 60 });
  await two.desk.moderate(info, MODERATOR, { action: 'ban', user: scene.victim });
  assert.equal(await codeOf('last'), 'banned');
  await two.desk.moderate(info, MODERATOR, { action: 'unban', user: scene.victim });
  assert.equal(await codeOf('last'), 'timed_out', 'the timeout runs still');
});

test('a held message that is sent again is answered by what was decided about it', async () => {
  const [one, two] = world.processes;
  const roomId = await makeRoom(world.database);
  for (const { desk } of world.processes) await desk.rules.openRoom(roomId);
  const info = (await one.rooms.open(roomId)).info;
  const send = ({ rooms }: TestProcess, key: string) =>
    rooms.withRoom(roomId, (room) =>
      room.publishMessage({ author: { id: 'ann', name: 'Ann', role: 'viewer' }, key, body: { text: `hold ${key}` } }),
    );
  const first = await send(one, 'first');
  const second = await send(one, 'second');
  assert.deepEqual([first.kind, (await send(two, 'first')).kind], ['held', 'held']);
  await two.desk.moderate(info, MODERATOR, { action: 'deny', mid: first.mid, reason: 'not here' });
  for (const process of world.processes) {
    const again = await send(process, 'first');
    assert.deepEqual(again, { kind: 'refused', mid: first.mid, code: 'denied', reason: 'not here' });
  }
  await two.desk.moderate(info, MODERATOR, { action: 'approve', mid: second.mid });
  const again = await send(one, 'second');
  assert.deepEqual([again.kind, again.mid, again.kind === 'published' && again.dup], ['published', second.mid, true]);
});

test('who leaves a room while joining it is not in it', async () => {
  const [one] = world.processes;
  const roomId = await makeRoom(world.database);
  const client = await world.client(one, 'hasty');
  client.send({ t: 'join', id: 'in', room: roomId });
  client.send({ t: 'leave', id: 'out', room: roomId });
  assert.equal((await client.next('joined')).id, 'in');
  assert.equal((await client.next('ok')).id, 'out');
  assert.equal(one.gateway.localRooms.roomOf(roomId)?.members.length, 0);
});

test('while PostgreSQL is away a room in which somebody is can be joined and resumed, and another says when to ask again', async () => {
  const [one] = world.processes;
  const [openId, otherId] = [await makeRoom(world.database), await makeRoom(world.database)];
  const stays = await world.client(one, 'stays');
  const { offset, epoch } = await stays.ask({ t: 'join', id: 'j', room: openId });
  world.setDatabaseAway(true);
  try {
    const comes = await world.client(one, 'comes');
    assert.equal((await comes.ask({ t: 'join', id: '1', room: openId })).t, 'joined');
    await comes.ask({ t: 'leave', id: '2', room: openId });
    assert.equal((await comes.ask({ t: 'join', id: '3', room: openId, since: { epoch, offset } })).recovered, 'full');
    const refused = await comes.ask({ t: 'join', id: '4', room: otherId });
    assert.deepEqual([refused.t, refused.code, typeof refused.retryMs], ['err', 'unavailable', 'number']);
  } finally {
    world.setDatabaseAway(false);
  }
  assert.equal((await stays.ask({ t: 'join', id: '5', room: otherId })).t, 'joined');
});
