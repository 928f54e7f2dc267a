import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { MAX_ACCOUNT_CONNECTIONS } from '../../src/chat/gateway/accounts.js';
import { CLOSE } from '../../src/chat/protocol/protocol.js';
import { type AnyFrame, ChatWorld, type Client, roomId } from './chat-world.js';

const inWorld = (name: string, run: (world: ChatWorld) => Promise<void>) =>
  test(name, { timeout: 60_000 }, async () => {
    const world = await ChatWorld.start();
    try {
      await run(world);
    } finally {
      await world.stop();
    }
  });
const room = (world: ChatWorld) => world.rooms.get(roomId(1))!;
const socketOf = (client: Client) => (client.socket as unknown as { _socket: Socket })._socket;
const TEXT = 'x'.repeat(8000);

/** Says so much that no kernel's buffers hold it, until the connection is seen to be slow; the number of messages. */
async function stall(world: ChatWorld, client: Client): Promise<number> {
  socketOf(client).pause();
  const membership = memberOf(world, 'u-ann');
  for (let n = 1; ; n++) {
    room(world).message(TEXT);
    await world.pass(0);
    await new Promise((resolve) => setImmediate(resolve));
    if (membership().connection.isSlow) return n;
    assert.ok(n < 10_000, 'it never became slow');
  }
}
const memberOf = (world: ChatWorld, userId: string) => () =>
  world.gateway.localRooms.roomOf(roomId(1))!.members.find(({ connection }) => connection.identity?.id === userId)!;

const isGapless = (offsets: number[], from: number, to: number) =>
  assert.deepEqual(
    offsets,
    Array.from({ length: to - from + 1 }, (_, n) => from + n),
  );

inWorld('a slow reader is a cursor: nothing is queued for it, and it gets everything once it reads again', async (world) => {
  const ann = await world.joined('t-ann');
  const bob = await world.joined('t-bob');
  await stall(world, ann);
  const { connection } = memberOf(world, 'u-ann')();
  const held = (connection.ws as unknown as { _socket: Socket })._socket.writableLength;
  const before = room(world).head;
  for (let n = 0; n < 500; n++) room(world).message(TEXT);
  await bob.next('msg', ({ offset }) => offset === before + 500);
  assert.equal((connection.ws as unknown as { _socket: Socket })._socket.writableLength, held, 'not a byte more than was under way');
  assert.ok(held < 70 * 8300, 'one write was under way');
  socketOf(ann).resume();
  await ann.next('msg', ({ offset }) => offset === before + 500);
  isGapless(
    ann.all('msg').map(({ offset }: AnyFrame) => offset),
    1,
    before + 500,
  );
});

inWorld('behind for more than ten seconds: told what it has missed, and goes on at the end', async (world) => {
  const ann = await world.joined('t-ann');
  await stall(world, ann);
  for (let n = 0; n < 200; n++) room(world).message(TEXT);
  await world.pass(11_000);
  const head = room(world).head;
  socketOf(ann).resume();
  const lag = await ann.next('lag');
  assert.equal(lag.to, head);
  const seen = ann.all('msg').map(({ offset }: AnyFrame) => offset);
  isGapless(seen, 1, lag.from - 1);
  room(world).message('after');
  assert.equal((await ann.next('msg')).offset, head + 1);
  const hole = await ann.ask({ t: 'range', id: 'r', room: 'radio', from: lag.from, to: lag.to });
  assert.equal(hole.entries[0].offset, lag.from);
  assert.equal(world.gateway.counters.skipped, lag.to - lag.from + 1);
});

inWorld('nothing read for thirty seconds: put out, and nobody else waits for it', async (world) => {
  const ann = await world.joined('t-ann');
  const bob = await world.joined('t-bob');
  await stall(world, ann);
  for (let n = 0; n < 20; n++) room(world).message('still talking');
  await bob.next('msg', ({ offset }) => offset === room(world).head);
  await world.pass(31_000);
  await world.pass(5_000);
  while (world.gateway.connections > 1) await world.pass(100);
  assert.equal(world.gateway.counters.slowClosed, 1);
  socketOf(ann).destroy();
});

inWorld('a new epoch while it was slow: told before anything else of that room', async (world) => {
  const ann = await world.joined('t-ann');
  await stall(world, ann);
  const keep = room(world).head - 3;
  room(world).reset(keep);
  room(world).message('again');
  await world.pass(0);
  socketOf(ann).resume();
  const reset = await ann.next('reset');
  assert.deepEqual([reset.epoch, reset.keep], [2, keep]);
  const again = await ann.next('msg', ({ body }) => body.text === 'again');
  assert.deepEqual([again.offset, again.epoch], [keep + 1, 2]);
  assert.equal(memberOf(world, 'u-ann')().cursor, room(world).head);
});

inWorld('more came at once than the room has at hand: it is read, in order, and what comes meanwhile follows', async (world) => {
  const ann = await world.joined('t-ann');
  let read!: () => void;
  room(world).reading = new Promise((resolve) => {
    read = resolve;
  });
  for (let n = 0; n < 300; n++) room(world).message(`m${n}`);
  await new Promise((resolve) => setImmediate(resolve));
  room(world).message('meanwhile');
  read();
  await ann.next('msg', ({ offset }) => offset === 301);
  isGapless(
    ann.all('msg').map(({ offset }: AnyFrame) => offset),
    1,
    301,
  );
});

inWorld('what cannot be read now is asked for again', async (world) => {
  const ann = await world.joined('t-ann');
  room(world).reading = Promise.reject(new Error('log and database are away'));
  room(world).reading.catch(() => undefined);
  for (let n = 0; n < 100; n++) room(world).message(`m${n}`);
  await world.pass(200);
  assert.equal(ann.all('msg').length, 0);
  room(world).reading = Promise.resolve();
  await world.pass(2100);
  await ann.next('msg', ({ offset }) => offset === 100);
});

inWorld('an entry is put into a frame once, whoever gets it; its author gets his own', async (world) => {
  const clients = [await world.joined('t-bob')];
  for (let n = 0; n < 5; n++) clients.push(await world.joined(undefined));
  const ann = await world.joined('t-ann');
  const written = new Map<Buffer | string, number>();
  for (const { connection } of world.gateway.localRooms.roomOf(roomId(1))!.members) {
    const { writeFrames } = connection;
    connection.writeFrames = (frames) => {
      written.set(frames, (written.get(frames) ?? 0) + 1);
      writeFrames.call(connection, frames);
    };
  }
  room(world).message('once', 'u-ann', 'my-key');
  room(world).message('twice');
  await ann.next('msg', ({ offset }) => offset === 2);
  for (const client of clients) await client.next('msg', ({ offset }) => offset === 2);
  assert.deepEqual([...written.values()].sort(), [1, 6], 'two entries in one write, one buffer for all but the author');
  assert.deepEqual(
    ann.all('msg').map(({ key }: AnyFrame) => key),
    ['my-key', undefined],
  );
});

inWorld('one account has so many connections to a process', async (world) => {
  for (let n = 0; n < MAX_ACCOUNT_CONNECTIONS; n++) await world.signedIn('t-ann');
  const more = await world.client();
  more.send({ t: 'hello', token: 't-ann' });
  assert.equal((await more.closed).code, CLOSE.overloaded);
  await world.signedIn('t-bob');
});

inWorld('nothing is left of a connection that is gone, nor of a room', async (world) => {
  for (let n = 0; n < 20; n++) {
    const client = await world.joined(n % 2 === 0 ? 't-ann' : undefined);
    if (n % 3 === 0) client.socket.terminate();
    else await client.close();
  }
  while (world.gateway.connections > 0) await world.pass(100);
  await world.pass(13_000);
  assert.deepEqual(
    [world.gateway.users, world.gateway.localRooms.size, room(world).holders, world.presence.count(roomId(1))],
    [0, 0, 0, 0],
  );
});
