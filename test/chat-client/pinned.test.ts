import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChatClient } from '../../src/chat-client/index.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { SimChat, type SimNet, seeded, simSockets } from '../support/chat-sim.js';

test('a message that is pinned and lies before what is shown is asked for', async () => {
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

  void mod.view.moderate('pin', { mid: 'm3' });
  await passes();
  for (const { view } of [ann, mod]) assert.deepEqual([view.pinned?.mid, view.pinned?.body], ['m3', { text: 'line 3' }]);
  void mod.view.moderate('pin', { mid: 'm75' });
  await passes();
  assert.deepEqual(ann.view.pinned?.body, { text: 'line 75' });
  void mod.view.moderate('pin', { mid: null });
  await passes();
  assert.equal(ann.view.pinned, undefined);
  for (const { client } of [ann, mod]) client.stop();
  chat.stop();
});
