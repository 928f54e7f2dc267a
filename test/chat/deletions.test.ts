import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Database } from '../../src/backing/database/database.js';
import type { Room } from '../../src/chat/rooms/room.js';
import type { Rooms } from '../../src/chat/rooms/rooms.js';
import { Member, makeRoom, makeRooms, publish } from '../support/chat-rooms.js';
import { openTestDatabase } from '../support/database.js';
import { FastClock, FaultyLink, Gate, LogServer } from '../support/faulty-chat.js';

const MODERATOR = { id: 'moderator', name: 'Moderator' };

/** Everything goes on but the storing of entries. */
class Unstoring implements Database {
  isStoring = true;
  transaction: Database['transaction'] = (work) => this.database.transaction(work);

  constructor(private readonly database: Database) {}

  query<Row extends object>(sql: string, values?: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number }> {
    return this.isStoring || !sql.includes('chat_archive') ? this.database.query<Row>(sql, values) : new Promise(() => undefined);
  }

  async stop(): Promise<void> {}
}

interface Process {
  readonly rooms: Rooms;
  readonly room: Room;
  readonly member: Member;
  readonly link: FaultyLink;
  readonly database: Unstoring;
  readonly clock: FastClock;
}

/** Three processes that have a room open, on one log and one database. */
async function world(t: { after(done: () => Promise<void>): void }) {
  const database = await openTestDatabase();
  const clock = new FastClock(1);
  const server = new LogServer(clock);
  const roomId = await makeRoom(database);
  const start = async (): Promise<Process> => {
    const [link, unstoring, own] = [new FaultyLink(server, new Gate()), new Unstoring(database), clock.another()];
    const { rooms } = makeRooms(unstoring, link, { clock: own });
    const room = await rooms.open(roomId);
    return { rooms, room, member: new Member(room, 0), link, database: unstoring, clock: own };
  };
  const processes: [Process, Process, Process] = [await start(), await start(), await start()];
  t.after(async () => {
    for (const { rooms, link } of processes) if (!link.gate.isDead) await rooms.stop();
    await server.inner.stop();
    clock.halt();
    await database.stop();
  });
  const stored = async () => {
    const { rows } = await database.query<{ offset: number; type: string; user_id: string | null }>(
      'select "offset", type, user_id from messages where room_id = $1 order by 1',
      [roomId],
    );
    return rows.map(({ offset, type, user_id }) => `${offset} ${type} ${user_id ?? ''}`.trim());
  };
  return { server, processes, stored };
}

/** What somebody says in a process that dies before it has stored it, and the others show. */
async function sayAndDie(dying: Process, others: readonly Process[], who: string, texts: readonly string[]): Promise<string[]> {
  dying.database.isStoring = false;
  const mids: string[] = [];
  for (const text of texts) {
    const outcome = await publish(dying.room, who, text, text);
    assert.ok(outcome.kind === 'published');
    mids.push(outcome.mid);
    for (const { member } of others) await member.until(() => member.texts.includes(text));
  }
  dying.link.gate.isDead = true;
  dying.clock.halt();
  return mids;
}

async function say({ room }: Process, who: string, text: string): Promise<number> {
  const outcome = await publish(room, who, text, text);
  const commit = outcome.kind === 'published' ? await outcome.committed : undefined;
  assert.ok(commit?.kind === 'stored');
  return commit.offset;
}

async function untilAt({ member }: Process, offset: number): Promise<readonly string[]> {
  await member.until(() => member.cursor >= offset);
  return member.texts;
}

test('a message that the log loses while it is deleted leaves its place to another, which is not deleted in its stead', async (t) => {
  const { server, processes, stored } = await world(t);
  const [dying, deleting, other] = processes;
  const [mid] = (await sayAndDie(dying, [deleting, other], 'ann', ['first'])) as [string];
  deleting.link.gate.sleep();
  const deletion = deleting.room.eraseMessages({ mids: [mid] }, MODERATOR).catch((error: { code?: string }) => error.code);
  await server.wipe();
  assert.equal(await say(other, 'bob', 'second'), 1, 'the place of the first');
  deleting.link.gate.wake();
  assert.equal(await deletion, 'unavailable', 'it is to be tried again');
  assert.deepEqual(await stored(), ['1 msg bob']);

  // Its author sends it again, and the moderator tries once more.
  await say(other, 'ann', 'first');
  await untilAt(deleting, 2);
  const { offset } = (await deleting.room.eraseMessages({ mids: [mid] }, MODERATOR))!;
  for (const process of [deleting, other]) assert.deepEqual(await untilAt(process, offset), ['second']);
  assert.deepEqual(await stored(), ['1 msg bob', '2 gone', '3 del']);
});

test('a message that only the log has is stored before it is deleted: it does not come again', async (t) => {
  const { server, processes, stored } = await world(t);
  const [dying, deleting, other] = processes;
  const [mid] = (await sayAndDie(dying, [deleting, other], 'ann', ['first'])) as [string];
  await deleting.room.eraseMessages({ mids: [mid] }, MODERATOR);
  await server.wipe();
  const again = await publish(other.room, 'ann', 'first', 'first');
  assert.ok(again.kind === 'published' && again.mid === mid);
  const commit = await again.committed;
  assert.ok(commit.kind === 'stored' && commit.dup && commit.offset === 1, 'sent again, it is the one that was deleted');
  assert.equal(await say(other, 'bob', 'second'), 3);
  assert.deepEqual(await untilAt(deleting, 3), ['second']);
  assert.deepEqual(await stored(), ['1 gone', '2 del', '3 msg bob']);
});

test('a deletion of all that somebody has said takes nothing that comes after it, though the log has lost what was before', async (t) => {
  const { server, processes, stored } = await world(t);
  const [dying, deleting, other] = processes;
  await say(other, 'bob', 'zero');
  await sayAndDie(dying, [deleting, other], 'ann', ['first', 'second', 'third']);
  // It knows how far the room goes; what it wants to read there is lost at this moment.
  const read = deleting.link.read;
  let isWiped = false;
  deleting.link.read = async (...args) => {
    if (args[1] === Number.MAX_SAFE_INTEGER && !isWiped) {
      isWiped = true;
      await server.wipe();
    }
    return read(...args);
  };
  const { offset } = (await deleting.room.eraseMessages({ userId: 'ann' }, MODERATOR))!;
  assert.ok(isWiped);
  assert.equal(offset, 2, 'before it there is what was stored');
  assert.equal(await say(other, 'ann', 'fourth'), 3);
  for (const process of [deleting, other]) assert.deepEqual(await untilAt(process, 3), ['zero', 'fourth']);
  assert.deepEqual(await stored(), ['1 msg bob', '2 del', '3 msg ann']);
});

test('a deletion that was withdrawn takes nothing that is said in its place', async (t) => {
  const { server, processes, stored } = await world(t);
  const [dying, bystander, other] = processes;
  await say(other, 'bob', 'zero');
  dying.database.isStoring = false;
  await publish(dying.room, 'ann', 'first', 'first');
  // As if the log was away for the moment in which it is asked what is not stored.
  const read = dying.link.read;
  dying.link.read = async (...args) => (args[1] === Number.MAX_SAFE_INTEGER ? undefined : read(...args));
  void dying.room.eraseMessages({ userId: 'ann' }, MODERATOR);
  for (const process of [bystander, other]) assert.deepEqual(await untilAt(process, 3), ['zero']);
  dying.link.gate.isDead = true;
  dying.clock.halt();

  const before = bystander.member.epoch;
  await server.wipe();
  assert.equal(await say(other, 'ann', 'second'), 2);
  for (const { member } of [bystander, other]) {
    await member.until(() => member.epoch > before && member.cursor === 2);
    assert.deepEqual(member.texts, ['zero', 'second']);
  }
  assert.deepEqual(await stored(), ['1 msg bob', '2 msg ann']);
});
