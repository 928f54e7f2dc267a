import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChatClient, type ChatRoom, Timeline } from '../../src/chat-client/index.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { SimChat as Sim, type SimChat, type SimNet, type SimRoom, seeded, simSockets } from '../support/chat-sim.js';

/**
 * Whatever goes wrong on the way, in the end every client shows exactly the server's log, each message once, and what was acknowledged is in it.
 */
interface Member {
  readonly client: ChatClient;
  readonly room: ChatRoom;
  readonly net: SimNet;
  readonly acked: Set<string>;
  readonly published: Set<string>;
}

type Step =
  | { do: 'publish' | 'cut' | 'freeze' | 'clumsy'; who: number }
  | { do: 'wait'; ms: number }
  | { do: 'crash'; code: number; downMs: number }
  | { do: 'wipe' | 'unstore' | 'store' | 'erase' | 'burst' | 'approve' }
  | { do: 'drain'; retryMs: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('publish' as const), who: fc.nat(2) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat(3_000) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('cut' as const, 'freeze' as const, 'clumsy' as const), who: fc.nat(2) }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('wipe', 'unstore', 'store', 'erase', 'burst', 'approve') }) as fc.Arbitrary<Step>,
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('crash' as const),
      code: fc.constantFrom(1006, 1011, 1012, 1013, 4001, 4008),
      downMs: fc.nat(20_000),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('drain' as const), retryMs: fc.nat(10_000) }) },
);

function world(seed: number): { clock: FakeClock; chat: SimChat; room: SimRoom; members: Member[]; random: () => number } {
  const clock = new FakeClock();
  const random = seeded(seed);
  const chat = new Sim({ clock, whoIs: (token) => ({ id: token, name: token, role: 'viewer' }), storeMs: 40, tokenLastsMs: 30_000 });
  const room = chat.room('radio');
  chat.judge = () => (random() < 0.1 ? { t: 'err', code: 'busy', retryMs: 300 } : random() < 0.05 ? { t: 'held' } : undefined);
  const members = ['ann', 'bo', 'cy'].map((name): Member => {
    const net: SimNet = { random, isDown: false, sockets: new Set() };
    const client = new ChatClient({
      url: 'ws://sim/chat',
      webSocket: simSockets(chat, clock, net),
      clock,
      random,
      token: () => name,
      mostFetched: 10_000,
    });
    const joined = client.join('radio');
    client.start();
    return { client, room: joined, net, acked: new Set(), published: new Set() };
  });
  return { clock, chat, room, members, random };
}

test('the view equals the log, whatever is lost, doubled, reordered, withdrawn or restarted on the way', () => {
  let withdrawals = 0;
  let holes = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 120 }), fc.nat(), (steps, seed) => {
      const { clock, chat, room, members, random } = world(seed);
      let said = 0;
      const publish = (member: Member) => {
        if (member.room.outgoing.length > 50) return;
        const outgoing = member.room.publish(`text ${++said}`);
        member.published.add(outgoing.key);
      };
      clock.advance(1_000);
      for (const one of steps) {
        const member = 'who' in one ? members[one.who]! : members[0]!;
        switch (one.do) {
          case 'publish':
            publish(member);
            break;
          case 'burst':
            for (let i = 0; i < 130; i++) chat.say(room, { id: 'dj', name: 'DJ', role: 'host' }, `burst ${i}`, {}, `burst-${++said}`);
            break;
          case 'wait':
            clock.advance(one.ms);
            break;
          case 'cut':
            for (const socket of member.net.sockets) socket.cut(1006);
            break;
          case 'freeze':
            // The line is dead and nobody says so: only the silence tells.
            for (const socket of member.net.sockets) {
              socket.session?.gone();
              socket.session = undefined;
            }
            break;
          case 'clumsy':
            for (const { session } of member.net.sockets) {
              if (!session) continue;
              const late: (() => void)[] = [];
              session.mangle = (entry, send) => {
                const chance = random();
                if (chance < 0.2) return;
                if (chance < 0.4) send(entry);
                if (chance < 0.6) late.push(() => send(entry));
                else send(entry);
                if (random() < 0.3) for (const tell of late.splice(0)) tell();
              };
            }
            break;
          case 'crash':
            chat.crash(one.code);
            for (const { net } of members) net.isDown = true;
            clock.advance(one.downMs);
            for (const { net } of members) net.isDown = false;
            break;
          case 'wipe':
            if (room.head > room.stored) withdrawals++;
            chat.loseLog(room);
            break;
          case 'unstore':
            chat.isStoring = false;
            break;
          case 'store':
            chat.isStoring = true;
            chat.store(room);
            break;
          case 'erase': {
            const entry = room.entries.filter(({ t }) => t === 'msg').at(-1);
            // What is erased and the entry that says so are stored in one.
            if (!entry || !chat.isStoring) break;
            chat.erase(room, [String(entry.mid)], { id: 'mod', name: 'Mod' });
            chat.store(room);
            break;
          }
          case 'approve':
            if (!chat.isStoring) break;
            for (const mid of room.held.keys()) chat.approve(room, mid);
            chat.store(room);
            break;
          case 'drain':
            chat.drain(one.retryMs);
            break;
        }
      }
      // Everything is well again, and two minutes pass.
      chat.isStoring = true;
      chat.store(room);
      chat.judge = () => undefined;
      for (const { net } of members) net.isDown = false;
      for (let i = 0; i < 130; i++) {
        clock.advance(1_000);
        chat.store(room);
      }
      for (const mid of room.held.keys()) chat.approve(room, mid);
      clock.advance(60_000);
      holes += chat.received.filter(({ t }) => t === 'range').length;

      const log = room.entries;
      for (const { room: view, published, client } of members) {
        assert.equal(client.state.state, 'online');
        assert.equal(view.state, 'joined');
        assert.equal(view.position, room.head, 'up to the newest');
        assert.equal(view.epoch, room.epoch);
        const first = view.timeline.items[0]?.offset ?? room.head + 1;
        const shown = view.timeline.items.map(({ offset, type, mid, deleted, body }) => [
          offset,
          deleted ? 'gone' : type,
          deleted ? '' : (mid ?? ''),
          deleted ? '' : body.text,
        ]);
        const wanted = log
          .slice(first - 1)
          .map(({ offset, t, mid, body }) => [offset, t, t === 'msg' ? mid : '', (body as { text: string } | undefined)?.text ?? '']);
        assert.deepEqual(shown, wanted);
        const mids = view.timeline.items.filter(({ visible, mid }) => visible && mid !== undefined).map(({ mid }) => mid);
        assert.equal(new Set(mids).size, mids.length, 'one mid is shown once');
        // What is not there was never acknowledged, and stands as unsent; or it was deleted.
        const inLog = new Set(log.map(({ key }) => key));
        const waiting = new Set(view.outgoing.map(({ key, state }) => `${key} ${state}`));
        assert.deepEqual(
          [...waiting].filter((one) => !one.endsWith('unsent') && !one.endsWith('held')),
          [],
        );
        const erased = log.filter(({ t }) => t === 'gone').length;
        const lost = [...published].filter((key) => !inLog.has(key) && !waiting.has(`${key} unsent`));
        assert.ok(lost.length <= erased, `lost: ${lost}`);
      }
      // The log itself has no message twice: a resent one is the same one.
      const all = log.filter(({ t }) => t === 'msg').map(({ mid }) => mid);
      assert.equal(new Set(all).size, all.length);
      for (const { client } of members) client.stop();
      chat.stop();
    }),
    { numRuns: 500, seed: 20_301, includeErrorInReport: true },
  );
  assert.ok(withdrawals > 20 && holes > 100, `too tame: ${withdrawals} withdrawals, ${holes} ranges`);
});

test('what is in a page of history though it was deleted is struck by the deletion in that page, and so is what is in older ones', () => {
  const timeline = new Timeline(() => {});
  const said = (offset: number) => ({
    t: 'msg',
    epoch: 1,
    offset,
    at: 1,
    mid: `m${offset}`,
    user: { id: 'ann' },
    body: { text: `${offset}` },
  });
  timeline.append([said(6)]);
  timeline.prepend([said(4), { t: 'del', epoch: 1, offset: 5, at: 1, offsets: [2, 4], mids: ['m2', 'm4'] }]);
  timeline.prepend([said(1), said(2), said(3)]);
  assert.deepEqual(
    timeline.items.flatMap(({ type, deleted, body }) => (type === 'msg' && !deleted ? [body.text] : [])),
    ['1', '3', '6'],
  );
  assert.ok(timeline.items.every(({ deleted, body }) => !deleted || body.text === ''));
});
