import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { MAX_CHUNKS, MAX_FRAGMENTS, MESSAGE_MS } from '../../src/chat/protocol/frame-limits.js';
import { CLOSE } from '../../src/chat/protocol/protocol.js';
import { ChatWorld, type Client, roomId } from './chat-world.js';

const inWorld = (name: string, run: (world: ChatWorld) => Promise<void>) =>
  test(name, { timeout: 60_000 }, async () => {
    const world = await ChatWorld.start();
    try {
      await run(world);
    } finally {
      await world.stop();
    }
  });
const socketOf = (client: Client) => (client.socket as unknown as { _socket: Socket })._socket;
const turn = () => new Promise((resolve) => setImmediate(resolve));
/** A frame as a client makes it; the mask is zero. */
function masked(head: number, payload: Buffer): Buffer {
  const { length } = payload;
  const start = length < 126 ? [head, 0x80 | length, 0, 0, 0, 0] : [head, 0xfe, length >> 8, length & 255, 0, 0, 0, 0];
  return Buffer.concat([Buffer.from(start), payload]);
}
const frame = (head: number, data: string) => masked(head, Buffer.from(data));

inWorld('a message in pieces is bounded in frames and in reads, also where the pieces are empty', async (world) => {
  const inPieces = (text: string, pieces: number) => {
    const size = Math.ceil(text.length / pieces);
    return Array.from({ length: pieces }, (_, i) =>
      frame((i === pieces - 1 ? 0x80 : 0) | (i === 0 ? 1 : 0), text.slice(i * size, (i + 1) * size)),
    );
  };
  const join = JSON.stringify({ t: 'join', id: 'pieces', room: 'radio', unknown: 'x'.repeat(2000) });
  const honest = await world.signedIn();
  socketOf(honest).write(Buffer.concat(inPieces(join, MAX_FRAGMENTS)));
  assert.equal((await honest.next('joined')).id, 'pieces');

  for (const piece of [' ', '']) {
    const client = await world.signedIn();
    socketOf(client).write(Buffer.concat([frame(0x01, piece), ...Array.from({ length: MAX_FRAGMENTS }, () => frame(0x00, piece))]));
    assert.equal((await client.closed).code, CLOSE.policy);
  }
  // One frame, a byte in each segment.
  const dripping = await world.signedIn();
  const big = masked(0x81, Buffer.alloc(60_000, 0x20));
  let isOver = false;
  void dripping.closed.then(() => {
    isOver = true;
  });
  for (let at = 0; at < 10 * MAX_CHUNKS && !isOver; at++) {
    socketOf(dripping).write(big.subarray(at, at + 1));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal((await dripping.closed).code, CLOSE.policy);
});

inWorld('a message that is begun is finished in time or closes the connection; pings between its pieces do not help', async (world) => {
  const begun = await world.signedIn();
  const half = await world.signedIn();
  const inTime = await world.signedIn();
  const silent = await world.signedIn();
  socketOf(begun).write(frame(0x01, '{'));
  socketOf(half).write(masked(0x81, Buffer.from('{"t":"leave","id":"x","room":"radio"}')).subarray(0, 20));
  socketOf(inTime).write(frame(0x01, '{"t":"leave","id":"x",'));
  await turn();
  for (let passed = 0; passed < MESSAGE_MS - 2000; passed += 1000) {
    socketOf(begun).write(frame(0x89, 'still here'));
    await world.pass(1000);
  }
  assert.equal(begun.socket.readyState, WebSocket.OPEN);
  socketOf(inTime).write(frame(0x80, '"room":"radio"}'));
  assert.equal((await inTime.next('err')).code, 'not_joined');
  await world.pass(6000);
  assert.equal((await begun.closed).code, CLOSE.policy);
  assert.equal((await half.closed).code, CLOSE.policy);
  assert.deepEqual(
    [inTime, silent].map(({ socket }) => socket.readyState),
    [WebSocket.OPEN, WebSocket.OPEN],
  );
});

inWorld('pings are answered, count as frames, and fill nothing while nothing is read', async (world) => {
  const ann = await world.joined('t-ann');
  const answered = once(ann.socket, 'pong');
  ann.socket.ping('are you there');
  assert.equal(String((await answered)[0]), 'are you there');

  for (const opcode of [0x89, 0x8a]) {
    const flood = await world.signedIn();
    const control = masked(opcode, Buffer.alloc(125));
    socketOf(flood).write(Buffer.concat(Array.from({ length: 2000 }, () => control)));
    assert.equal((await flood.closed).code, CLOSE.chatProtocol);
  }

  const bob = await world.joined('t-bob');
  socketOf(bob).pause();
  const membership = world.gateway.localRooms.roomOf(roomId(1))!.members.find(({ connection }) => connection.identity?.id === 'u-bob')!;
  while (!membership.connection.isSlow) {
    world.rooms.get(roomId(1))!.message('x'.repeat(8000));
    await turn();
  }
  const served = (membership.connection.ws as unknown as { _socket: Socket })._socket;
  const before = served.writableLength;
  const seen = served.bytesRead;
  const ping = masked(0x89, Buffer.alloc(125, 1));
  socketOf(bob).write(Buffer.concat([...Array.from({ length: 200 }, () => ping), masked(0x89, Buffer.from('the last'))]));
  while (served.bytesRead < seen + 200 * ping.length) await turn();
  assert.equal(served.writableLength, before);
  const last = once(bob.socket, 'pong');
  socketOf(bob).resume();
  assert.equal(String((await last)[0]), 'the last');
});
