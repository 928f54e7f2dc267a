import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChatClient, type ChatRoom } from '../../src/chat-client/index.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { SimChat, type SimNet, type SimRoom, seeded, simSockets } from '../support/chat-sim.js';

interface PinWorld {
  readonly clock: FakeClock;
  readonly chat: SimChat;
  readonly room: SimRoom;
  readonly ann: { client: ChatClient; view: ChatRoom };
  readonly mod: { client: ChatClient; view: ChatRoom };
  passes(): Promise<void>;
  stop(): void;
}

/** Eighty messages, of which the first thirty are not shown to those who join. */
async function pinWorld(): Promise<PinWorld> {
  const clock = new FakeClock();
  const random = seeded(1);
  const role = (name: string) => (name === 'mod' ? 'moderator' : 'viewer');
  const chat = new SimChat({
    clock,
    whoIs: (token) => ({ id: token, name: token, role: role(token) }),
    storeMs: 40,
    tokenLastsMs: 3_600_000,
  });
  const room = chat.room('radio');
  for (let n = 1; n <= 80; n++)
    chat.append(room, { t: 'msg', mid: `m${n}`, user: { id: 'bo', name: 'bo', role: 'viewer' }, body: { text: `line ${n}` } });
  const [ann, mod] = ['ann', 'mod'].map((name) => {
    const net: SimNet = { random, isDown: false, sockets: new Set() };
    const client = new ChatClient({ url: 'ws://sim/chat', webSocket: simSockets(chat, clock, net), clock, random, token: () => name });
    const view = client.join('radio');
    client.start();
    return { client, view };
  }) as [{ client: ChatClient; view: ReturnType<ChatClient['join']> }, { client: ChatClient; view: ReturnType<ChatClient['join']> }];
  const passes = async () => {
    for (let n = 0; n < 40; n++) {
      clock.advance(50);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await passes();
  assert.equal(ann.view.timeline.items[0]?.offset, 31, 'the first thirty are not shown');
  return {
    clock,
    chat,
    room,
    ann,
    mod,
    passes,
    stop() {
      for (const { client } of [ann, mod]) client.stop();
      chat.stop();
    },
  };
}

test('a message that is pinned and lies before what is shown is asked for', async () => {
  const { ann, mod, passes, stop } = await pinWorld();

  void mod.view.moderate('pin', { mid: 'm3' });
  await passes();
  for (const { view } of [ann, mod]) assert.deepEqual([view.pinned?.mid, view.pinned?.body], ['m3', { text: 'line 3' }]);
  void mod.view.moderate('pin', { mid: 'm75' });
  await passes();
  assert.deepEqual(ann.view.pinned?.body, { text: 'line 75' });
  void mod.view.moderate('pin', { mid: null });
  await passes();
  assert.equal(ann.view.pinned, undefined);
  stop();
});

test('a pinned message goes with its deletion, by name or with all that its author has said, whichever comes first', async () => {
  const deletions: [string, object][] = [
    ['by name', { mids: ['m75'], offsets: [75] }],
    ['all of its author', { user: 'bo', upTo: 80 }],
  ];
  for (const [how, deletion] of deletions) {
    const { ann, mod, chat, room, passes, stop } = await pinWorld();
    const by = { id: 'mod', name: 'mod' };
    void mod.view.moderate('pin', { mid: 'm75' });
    await passes();
    assert.deepEqual(ann.view.pinned?.body, { text: 'line 75' });
    chat.append(room, { t: 'del', ...deletion, by });
    await passes();
    assert.equal(ann.view.pinned, undefined, how);
    // Pinned a moment before it was deleted, and told a moment after.
    chat.append(room, { t: 'pin', mid: 'm75', messageOffset: 75, by });
    await passes();
    assert.equal(ann.view.pinned, undefined, `${how}, and then the pin`);
    stop();
  }
  const { ann, chat, room, clock, passes, stop } = await pinWorld();
  const by = { id: 'mod', name: 'mod' };
  // It is asked for, and deleted while the answer is on its way.
  chat.append(room, { t: 'pin', mid: 'm3', messageOffset: 3, by });
  clock.advance(1);
  chat.append(room, { t: 'del', user: 'bo', upTo: 80, by });
  await passes();
  assert.equal(ann.view.pinned, undefined);
  // One that is let go of, so that nothing of it is left: it was never seen here.
  chat.append(room, { t: 'pin', mid: 'm999', messageOffset: 4, by });
  await passes();
  assert.equal(ann.view.pinned, undefined, 'there is nothing to show');
  stop();
});
