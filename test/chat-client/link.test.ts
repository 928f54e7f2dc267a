import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BACK_OFF_MS,
  ChatClient,
  type ChatClientOptions,
  ChatProblem,
  type ChatRoom,
  KEEP_TRYING_MS,
} from '../../src/chat-client/index.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { SimChat, type SimNet, type SimOptions, type SimRoom, type SimSession, seeded, simSockets } from '../support/chat-sim.js';

interface World {
  readonly clock: FakeClock;
  readonly chat: SimChat;
  readonly room: SimRoom;
  readonly net: SimNet;
  readonly sessions: SimSession[];
  readonly client: ChatClient;
  readonly view: ChatRoom;
  readonly tokens: { fresh: boolean }[];
  sent(t: string): Record<string, unknown>[];
}

function world(sim: Partial<SimOptions> = {}, more: Partial<ChatClientOptions> = {}, clock = new FakeClock()): World {
  const tokens: { fresh: boolean }[] = [];
  const sessions: SimSession[] = [];
  const chat = new SimChat({
    clock,
    whoIs: (token) => (token.startsWith('ann') ? { id: 'ann', name: 'Ann', role: 'viewer' } : undefined),
    ...sim,
  });
  const room = chat.room('radio');
  const net: SimNet = { random: seeded(7), isDown: false, sockets: new Set(), onSession: (session) => sessions.push(session) };
  const client = new ChatClient({
    url: 'ws://sim/chat',
    webSocket: simSockets(chat, clock, net),
    clock,
    random: seeded(11),
    token: (want) => {
      tokens.push(want);
      return `ann-${tokens.length}`;
    },
    ...more,
  });
  const view = client.join('radio');
  client.start();
  clock.advance(1_000);
  return { clock, chat, room, net, sessions, client, view, tokens, sent: (t) => chat.received.filter((frame) => frame.t === t) };
}

const texts = (view: ChatRoom) => view.timeline.items.filter(({ visible, deleted }) => visible && !deleted).map(({ body }) => body.text);
const cut = ({ net }: World) => {
  for (const socket of net.sockets) socket.cut(1006);
};

test('a token is renewed before it ends, and the session goes on', () => {
  const { clock, client, tokens, sent, sessions } = world({ tokenLastsMs: 100_000 });
  assert.deepEqual(tokens, [{ fresh: false }]);
  clock.advance(79_000);
  assert.deepEqual(tokens.slice(1), []);
  clock.advance(3_000);
  assert.deepEqual(tokens.slice(1), [{ fresh: true }]);
  clock.advance(900_000);
  assert.equal(sessions.length, 1);
  assert.ok(sent('auth').length >= 10 && sent('auth').length <= 13, `${sent('auth').length} renewals in 1,000 s`);
  assert.equal(client.state.state, 'online');
});

test('a client whose clock is wrong, or jumps, renews its token when that is due, and stays', () => {
  const HOUR_MS = 3_600_000;
  for (const isOlder of [false, true]) {
    for (const [what, offsetMs, jumpMs] of [
      ['right', 0, 0],
      ['an hour ahead', HOUR_MS, 0],
      ['an hour behind', -HOUR_MS, 0],
      ['a year ahead', 8766 * HOUR_MS, 0],
      ['set forward', 0, HOUR_MS],
      ['set back', 0, -HOUR_MS],
      ['set right', HOUR_MS, -HOUR_MS],
    ] as const) {
      const time = new FakeClock();
      let wrongMs: number = offsetMs;
      const clock = {
        wallMs: () => time.wallMs() + wrongMs,
        monotonicMs: () => time.monotonicMs(),
        after: (delayMs: number, task: () => void) => time.after(delayMs, task),
      };
      const { client, tokens, sessions, view } = world({ tokenLastsMs: 900_000, isOlder }, { clock }, time);
      time.advance(2_000);
      view.publish('hello');
      time.advance(100_000);
      wrongMs += jumpMs;
      view.publish('hello again');
      time.advance(60_000);
      const name = `${what}, ${isOlder ? 'an older server' : 'this server'}`;
      const early = tokens.length - 1;
      assert.ok(early <= (jumpMs > 0 ? 1 : 0), `${name}: ${early} tokens were asked for too early`);
      time.advance(840_000);
      // One that does not say how long a token lasts ends it by a close.
      const least = isOlder && offsetMs + jumpMs < 0 ? 1 : 2;
      assert.ok(tokens.length >= least && tokens.length <= 5, `${name}: ${tokens.length - 1} fresh tokens in 1,000 s`);
      assert.deepEqual([client.state.state, view.state, sessions.length], ['online', 'joined', 1], name);
      assert.deepEqual(view.outgoing, [], name);
      client.stop();
    }
  }
});

test('a token that is not renewed is asked for less and less often, until the server ends it', () => {
  const given: boolean[] = [];
  const { clock, client } = world(
    { tokenLastsMs: 100_000 },
    {
      token: ({ fresh }) => {
        given.push(fresh);
        return fresh ? undefined : 'ann-1';
      },
    },
  );
  clock.advance(3_600_000);
  assert.ok(given.filter((fresh) => fresh).length <= 20, `${given.length} questions in an hour`);
  client.stop();
});

test('a laptop that has slept: the line is looked at, and what was typed before it is not sent unasked', () => {
  const time = new FakeClock();
  let sleptMs = 0;
  // The monotonic clock of a browser stands still while it sleeps, and so do its timers.
  const clock = {
    wallMs: () => time.wallMs() + sleptMs,
    monotonicMs: () => time.monotonicMs(),
    after: (delayMs: number, task: () => void) => time.after(delayMs, task),
  };
  const { client, net, sessions, view } = world({}, { clock }, time);
  time.advance(2_000);
  for (const socket of net.sockets) socket.session = undefined;
  sessions[0]!.gone();
  view.publish('from before');
  net.isDown = true;
  sleptMs = 3_600_000;
  client.wake();
  time.advance(5_500);
  net.isDown = false;
  time.advance(3_000);
  assert.equal(sessions.length, 2, 'five seconds after it woke');
  assert.equal(view.outgoing[0]?.state, 'unsent');
  client.stop();
});

test('a refused token is asked for anew; one that is never taken ends it', () => {
  const { clock, client, tokens, sessions } = world();
  sessions[0]!.end(4001);
  clock.advance(2_000);
  assert.equal(client.state.state, 'online');
  assert.deepEqual(tokens, [{ fresh: false }, { fresh: true }]);

  const refused = world({ whoIs: () => undefined });
  refused.clock.advance(600_000);
  assert.deepEqual(refused.client.state, { state: 'stopped', reason: 'signed_out' });
  assert.equal(refused.tokens.length, 3);
});

test('close codes say whether to come back', () => {
  for (const [code, reason] of [
    [1002, 'protocol'],
    [1007, 'protocol'],
    [1009, 'protocol'],
    [4009, 'protocol'],
    [4003, 'banned'],
  ] as const) {
    const { clock, client, sessions } = world();
    sessions[0]!.end(code);
    clock.advance(600_000);
    assert.deepEqual(client.state, { state: 'stopped', reason }, String(code));
    assert.equal(sessions.length, 1);
  }
  for (const code of [1000, 1006, 1011, 1012, 1013, 4008, 4999]) {
    const { clock, client, sessions } = world();
    sessions[0]!.end(code);
    assert.equal(client.state.state, 'waiting', String(code));
    clock.advance(31_000);
    assert.equal(client.state.state, 'online', String(code));
  }
});

test('back-off: full jitter below a ceiling that doubles to 30 s, and begins anew after a good session', () => {
  const draws: number[] = [];
  const waits: number[] = [];
  const { clock, client, net } = world(
    {},
    {
      random: () => {
        draws.push(0.999_999);
        return 0.999_999;
      },
    },
  );
  clock.advance(20_000);
  client.listen((event) => {
    if (event.type === 'state' && event.state.state === 'waiting') waits.push(Math.round(event.state.retryAtMs - clock.wallMs()));
  });
  net.isDown = true;
  for (const socket of net.sockets) socket.cut(1006);
  clock.advance(400_000);
  assert.deepEqual(waits.slice(0, 9), [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  assert.equal(BACK_OFF_MS.most, 30_000);
  net.isDown = false;
  clock.advance(60_000);
  for (const socket of net.sockets) socket.cut(1006);
  assert.equal(waits.at(-1), 500);

  // Any part of it, not the whole: clients that were cut together come back apart.
  const spread = world({}, { random: () => 0.1 });
  spread.sessions[0]!.end(1006);
  assert.ok(spread.client.state.state === 'waiting' && Math.round(spread.client.state.retryAtMs - spread.clock.wallMs()) === 50);
});

test('after 1013 it stays away for longer', () => {
  const { clock, client, sessions } = world({}, { random: () => 0.5 });
  sessions[0]!.end(1013);
  assert.ok(client.state.state === 'waiting' && client.state.retryAtMs - clock.wallMs() === 4_000);
});

test('drain: back when it was told to be, whether the server closes or not', () => {
  for (const closes of [true, false]) {
    const { clock, chat, client, sessions } = world();
    chat.drain(7_000);
    clock.advance(200);
    if (closes) chat.crash(1012);
    clock.advance(6_600);
    assert.equal(sessions.length, 1);
    clock.advance(1_000);
    assert.equal(sessions.length, 2);
    assert.equal(client.state.state, 'online');
  }
});

test('a line that is dead without saying so is noticed by the silence', () => {
  const { clock, net, sessions, client } = world();
  for (const socket of net.sockets) socket.session = undefined;
  sessions[0]!.gone();
  clock.advance(50_000);
  assert.equal(client.state.state, 'online');
  clock.advance(10_000);
  assert.equal(sessions.length, 2);
  assert.equal(client.state.state, 'online');
});

test('wake: what waits does not wait any longer', () => {
  const { clock, client, net, sessions } = world({}, { random: () => 0.99 });
  net.isDown = true;
  for (const socket of net.sockets) socket.cut(1006);
  clock.advance(120_000);
  net.isDown = false;
  client.wake();
  clock.advance(500);
  assert.equal(sessions.length, 2);
});

test('what was not acknowledged goes out again under its key, and is one message', () => {
  const all = world();
  const { clock, chat, room, view, sent } = all;
  chat.isStoring = false;
  const outgoing = view.publish('hello');
  clock.advance(1_000);
  assert.deepEqual(texts(view), ['hello']);
  assert.equal(outgoing.isShown, true, 'it is shown once, by its entry');
  cut(all);
  clock.advance(5_000);
  chat.isStoring = true;
  chat.store(room);
  clock.advance(1_000);
  assert.deepEqual(
    sent('pub').map(({ key }) => key),
    [outgoing.key, outgoing.key],
  );
  assert.deepEqual(texts(view), ['hello']);
  assert.equal(outgoing.state, 'sent');
  assert.deepEqual(view.outgoing, []);
  assert.equal(room.entries.length, 1);
});

test('older than five minutes: shown as unsent, and sent by a person only', () => {
  const all = world();
  const { clock, net, view, room, sent } = all;
  net.isDown = true;
  cut(all);
  const outgoing = view.publish('is anybody there?');
  clock.advance(KEEP_TRYING_MS - 1);
  assert.equal(outgoing.state, 'queued');
  clock.advance(1);
  assert.equal(outgoing.state, 'unsent');
  net.isDown = false;
  clock.advance(120_000);
  assert.equal(sent('pub').length, 0, 'never silently');
  view.retry(outgoing.key);
  clock.advance(1_000);
  assert.deepEqual(texts(view), ['is anybody there?']);
  assert.equal(room.entries.length, 1);
  assert.deepEqual(view.outgoing, []);
});

test('"Send again" long after: what had arrived all the same is one message, and is shown once', () => {
  for (const isSeen of [true, false]) {
    const all = world({ keyLastsMs: 300_000 });
    const { clock, chat, room, net, view, sent } = all;
    chat.isStoring = false;
    const outgoing = view.publish('did it arrive?');
    // It reaches the server, and neither its entry nor an answer comes back.
    for (const session of chat.sessions) Object.assign(session, { mangle: () => {} });
    clock.advance(300);
    assert.equal(room.entries.length, 1);
    net.isDown = true;
    cut(all);
    chat.isStoring = true;
    chat.store(room);
    // More than are fetched: then the view begins anew after it.
    for (let i = 0; i < (isSeen ? 60 : 1_100); i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, `b${i}`, {}, `b${i}`);
    clock.advance(KEEP_TRYING_MS);
    assert.equal(outgoing.state, 'unsent');
    if (!isSeen) {
      net.isDown = false;
      clock.advance(60_000);
      assert.equal(view.timeline.get(String(room.entries[0]!.mid)), undefined);
      assert.equal(outgoing.state, 'unsent');
    }
    const before = sent('pub').length;
    view.retry(outgoing.key);
    net.isDown = false;
    clock.advance(60_000);
    assert.ok(isSeen || sent('pub').length === before + 1, 'one more, under the same key');
    assert.equal(sent('pub').at(-1)!.key, outgoing.key);
    assert.equal(outgoing.state, 'sent');
    assert.deepEqual(view.outgoing, [], 'it does not hang below the messages');
    assert.equal(texts(view).filter((text) => text === 'did it arrive?').length, 1);
    const kept = room.entries.filter(({ t, key }) => t === 'msg' && key === outgoing.key);
    assert.equal(kept.length, 1, 'one message');
  }
});

test('what was typed while the line was down goes out no faster than the room takes it, in its order, and nothing is refused', () => {
  const all = world({ pace: { perS: 2, burst: 20 } });
  const { clock, chat, net, view, room, sent } = all;
  const outgoing = Array.from({ length: 10 }, (_, i) => view.publish(`before ${i}`));
  clock.advance(500);
  net.isDown = true;
  cut(all);
  for (let i = 0; i < 60; i++) outgoing.push(view.publish(`meanwhile ${i}`));
  clock.advance(40_000);
  net.isDown = false;
  // It comes and goes: what is sent again does not come on top of it.
  for (let times = 0; times < 4; times++) {
    clock.advance(5_000);
    cut(all);
  }
  clock.advance(90_000);
  assert.equal(chat.floods, 0);
  assert.deepEqual(
    outgoing.filter(({ state }) => state !== 'sent').map(({ body, state }) => `${body.text} ${state}`),
    [],
  );
  assert.deepEqual(
    texts(view),
    outgoing.map(({ body }) => body.text),
  );
  assert.equal(room.entries.length, 70);
  assert.ok(sent('pub').length < 70 + 4 * 8 + 1, `${sent('pub').length} sent`);
});

test('what another process has counted is counted again by the next', () => {
  const all = world({ pace: { perS: 2, burst: 20 } });
  const { clock, chat, net, view, room } = all;
  chat.isStoring = false;
  for (let i = 0; i < 8; i++) view.publish(`before ${i}`);
  clock.advance(60_000);
  net.isDown = true;
  chat.crash(1006);
  chat.loseLog(room);
  chat.isStoring = true;
  for (let i = 0; i < 40; i++) view.publish(`meanwhile ${i}`);
  net.isDown = false;
  clock.advance(120_000);
  assert.deepEqual([chat.floods, room.entries.length, view.outgoing.length], [0, 48, 0]);
});

test('who moderates the room, and a room without such a rule, are not held up', () => {
  for (const role of ['viewer', 'moderator']) {
    const { clock, chat, view, room } = world({
      whoIs: () => ({ id: 'ann', name: 'Ann', role }),
      ...(role === 'moderator' && { pace: { perS: 2, burst: 20 } }),
    });
    chat.mayStillSay = () => true;
    for (let i = 0; i < 60; i++) view.publish(`m${i}`);
    clock.advance(5_000);
    assert.equal(room.entries.length, 60, role);
  }
});

test('a reset withdraws what lies above keep, and the author’s client says it again', () => {
  const { clock, chat, room, view } = world();
  chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, 'kept', {}, 'k1');
  clock.advance(500);
  chat.isStoring = false;
  chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, 'lost', {}, 'k2');
  view.publish('mine');
  clock.advance(500);
  assert.deepEqual(texts(view), ['kept', 'lost', 'mine']);
  chat.isStoring = true;
  const withdrawn: string[] = [];
  view.listen((event) => {
    if (event.type === 'removed') withdrawn.push(...event.items.map(({ body }) => body.text));
  });
  chat.loseLog(room);
  clock.advance(1_000);
  assert.deepEqual(withdrawn, ['lost', 'mine']);
  assert.deepEqual(texts(view), ['kept', 'mine']);
  assert.deepEqual([view.epoch, view.position], [2, 2]);
  assert.deepEqual(view.outgoing, []);
});

test('a database that was restored from a backup: the view is what it has, what is said then is seen, and what was acknowledged and is lost is not shown', () => {
  const { clock, chat, room, view } = world();
  const bo = { id: 'bo', name: 'Bo', role: 'viewer' };
  for (let i = 0; i < 3; i++) chat.say(room, bo, `before ${i}`, {}, `k${i}`);
  clock.advance(500);
  for (let i = 0; i < 9; i++) chat.say(room, bo, `lost ${i}`, {}, `l${i}`);
  view.publish('mine, and lost');
  clock.advance(500);
  assert.deepEqual([view.position, view.outgoing.length], [13, 0]);
  chat.restoreBackup(room, 3);
  clock.advance(60_000);
  assert.deepEqual(texts(view), ['before 0', 'before 1', 'before 2']);
  chat.say(room, bo, 'after', {}, 'a');
  clock.advance(500);
  view.publish('mine, after');
  clock.advance(500);
  assert.deepEqual(texts(view), ['before 0', 'before 1', 'before 2', 'after', 'mine, after']);
  assert.deepEqual([view.position, view.outgoing], [5, []]);
});

test('a deletion that is withdrawn: what it had taken from the view is fetched again', () => {
  const { clock, chat, room, view } = world();
  const entry = chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, 'said', {}, 'k1');
  clock.advance(500);
  chat.isStoring = false;
  // Told to the members, and lost before anything was stored.
  chat.append(room, { t: 'del', mids: [entry.mid], offsets: [1] });
  clock.advance(500);
  assert.deepEqual(texts(view), []);
  chat.isStoring = true;
  chat.loseLog(room);
  clock.advance(2_000);
  assert.deepEqual(texts(view), ['said']);
});

test('one mid is shown once, wherever its copies stand; when the shown one goes, another takes its place', async () => {
  const { clock, chat, room, view, client } = world();
  const bo = { id: 'bo', name: 'Bo', role: 'viewer' };
  for (let i = 1; i <= 80; i++) chat.say(room, bo, i === 5 ? 'twice' : String(i), {}, i === 5 ? 'same' : `k${i}`);
  chat.say(room, bo, 'twice', {}, 'same');
  clock.advance(500);
  const shown = (of: ChatRoom) =>
    of.timeline.items.filter(({ visible, body }) => visible && body.text === 'twice').map(({ offset }) => offset);
  assert.deepEqual([view.position, shown(view)], [81, [5]], 'the second takes its place only');

  client.leave(view);
  chat.isStoring = false;
  chat.say(room, bo, 'twice', {}, 'same');
  const again = client.join('radio');
  clock.advance(500);
  assert.deepEqual(shown(again), [81]);
  const asked = again.history(100);
  clock.advance(500);
  await asked;
  assert.deepEqual([again.timeline.items.length, shown(again)], [82, [81]], 'an older copy that comes later is not shown either');
  room.stored = 80;
  chat.loseLog(room);
  clock.advance(500);
  assert.deepEqual([again.position, shown(again)], [80, [5]]);
});

test('heads: what does not come by itself is asked for', () => {
  const { clock, chat, room, view, sessions, sent } = world();
  sessions[0]!.mangle = () => {};
  chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, 'unheard', {}, 'k1');
  clock.advance(20_000);
  assert.deepEqual(texts(view), []);
  clock.advance(8_000);
  assert.deepEqual(texts(view), ['unheard']);
  assert.deepEqual(
    sent('range').map(({ from, to }) => [from, to]),
    [[1, 1]],
  );
});

test('lag: the skipped are fetched, page after page, before what comes after them', () => {
  const { clock, chat, room, view, sessions, sent } = world();
  sessions[0]!.mangle = () => {};
  for (let i = 1; i <= 250; i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, String(i), {}, `k${i}`);
  sessions[0]!.mangle = (entry, send) => send(entry);
  sessions[0]!.say({ t: 'lag', room: room.id, from: 1, to: 250 });
  chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, '251', {}, 'k251');
  clock.advance(2_000);
  assert.deepEqual(
    texts(view),
    Array.from({ length: 251 }, (_, i) => String(i + 1)),
  );
  assert.equal(sent('range').length, 3);
});

test('a hole that is too long to fetch is said, and the view begins anew with the newest', () => {
  const { clock, chat, room, view, sessions } = world({}, { mostFetched: 200 });
  const missing: number[][] = [];
  view.listen((event) => {
    if (event.type === 'missing') missing.push([event.from, event.to]);
  });
  sessions[0]!.mangle = () => {};
  for (let i = 1; i <= 300; i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, String(i), {}, `k${i}`);
  clock.advance(30_000);
  assert.deepEqual(missing, [[1, 300]]);
  assert.equal(view.position, 300);
  assert.equal(view.timeline.items.length, 50);
  assert.equal(view.hasOlder, true);
});

test('let go by age while away: said, and gone on after it', () => {
  const all = world();
  const { clock, chat, room, view } = all;
  for (let i = 1; i <= 5; i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, String(i), {}, `k${i}`);
  clock.advance(500);
  const missing: number[][] = [];
  view.listen((event) => {
    if (event.type === 'missing') missing.push([event.from, event.to]);
  });
  cut(all);
  for (let i = 6; i <= 9; i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, String(i), {}, `k${i}`);
  room.floor = 7;
  clock.advance(2_000);
  assert.deepEqual(missing, [[6, 7]]);
  assert.deepEqual(texts(view), ['1', '2', '3', '4', '5', '8', '9']);
});

test('away for more than the server sends unasked: the view begins anew, or all of it is fetched', () => {
  for (const mostFetched of [1_000, Number.POSITIVE_INFINITY]) {
    const all = world({}, { mostFetched });
    const { clock, chat, room, view } = all;
    chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, '1', {}, 'k1');
    clock.advance(500);
    cut(all);
    for (let i = 2; i <= 1_500; i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, String(i), {}, `k${i}`);
    clock.advance(20_000);
    const count = mostFetched === 1_000 ? 50 : 1_500;
    assert.deepEqual(
      texts(view),
      Array.from({ length: count }, (_, i) => String(1_500 - count + i + 1)),
    );
    assert.deepEqual([view.position, view.hasOlder], [1_500, mostFetched === 1_000]);
  }
});

test('history goes back to the beginning, and a view has a bound', async () => {
  const { clock, chat, room, view, client } = world({}, { mostItems: 400 });
  for (let i = 1; i <= 300; i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, String(i), {}, `k${i}`);
  clock.advance(1_000);
  client.leave(view);
  const again = client.join('radio');
  clock.advance(1_000);
  assert.equal(again.timeline.items.length, 50);
  for (let more = again.hasOlder; more; ) {
    const asked = again.history(100);
    clock.advance(500);
    more = await asked;
  }
  assert.deepEqual([again.timeline.items.length, again.timeline.items[0]?.offset], [300, 1]);
  for (let i = 301; i <= 900; i++) chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, String(i), {}, `k${i}`);
  clock.advance(1_000);
  assert.ok(again.timeline.items.length <= 400);
  assert.equal(again.position, 900);
  assert.equal(again.hasOlder, true);
});

test('slow mode: the countdown comes from the refusal; refusals that last are said', () => {
  const { clock, chat, view } = world();
  chat.judge = () => ({ t: 'err', code: 'slow_mode', retryMs: 9_000 });
  const first = view.publish('too soon');
  clock.advance(1_000);
  assert.equal(first.state, 'refused');
  assert.equal(first.problem?.code, 'slow_mode');
  const leftMs = view.slowUntilMs - clock.wallMs();
  assert.ok(leftMs > 7_000 && leftMs <= 9_000, String(leftMs));
  chat.judge = () => ({ t: 'refused', code: 'blocked' });
  view.retry(first.key);
  clock.advance(1_000);
  assert.equal(first.problem?.code, 'blocked');
  chat.judge = () => ({ t: 'held' });
  const held = view.publish('hm');
  clock.advance(1_000);
  assert.equal(held.state, 'held');
  chat.approve(chat.room('radio'), held.mid!);
  clock.advance(1_000);
  assert.deepEqual(texts(view), ['hm']);
  view.discard(first.key);
  assert.deepEqual(view.outgoing, []);
});

test('busy: the same key again after retryMs, and in the order of writing', () => {
  const { clock, chat, view, room } = world();
  let busy = 3;
  chat.judge = () => (busy-- > 0 ? { t: 'err', code: 'busy', retryMs: 500 } : undefined);
  for (const text of ['one', 'two', 'three']) view.publish(text);
  clock.advance(5_000);
  assert.deepEqual(texts(view), ['one', 'two', 'three']);
  assert.equal(room.entries.length, 3);
});

test('no more than the server takes at once, and no more than a person can have meant', () => {
  const all = world();
  const { clock, chat, view, sent, room } = all;
  chat.isStoring = false;
  for (let i = 0; i < 100; i++) view.publish(`m${i}`);
  assert.throws(
    () => view.publish('one more'),
    (error) => error instanceof ChatProblem && error.code === 'outbox_full',
  );
  clock.advance(5_000);
  assert.equal(sent('pub').length, 8);
  chat.isStoring = true;
  chat.store(room);
  clock.advance(10_000);
  assert.equal(room.entries.length, 100);
  assert.throws(() => view.publish('   '), { code: 'empty' });
  assert.throws(() => view.publish('ü'.repeat(4_097)), { code: 'too_long' });
  view.publish('ü'.repeat(4_096));
});

test('a guest reads and does not write', () => {
  const { chat, clock, room, view } = world({}, { token: () => undefined });
  chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, 'hi', {}, 'k');
  clock.advance(500);
  assert.deepEqual(texts(view), ['hi']);
  assert.throws(() => view.publish('me too'), { code: 'guest' });
});

test('put out: the room is left, the connection stays, and what waits is refused', () => {
  const { chat, clock, client, view, room, sessions } = world();
  chat.judge = () => ({ t: 'err', code: 'busy', retryMs: 60_000 });
  const waiting = view.publish('hm');
  clock.advance(500);
  sessions[0]!.say({ t: 'left', room: room.id, code: 'banned', until: clock.wallMs() + 1_000 });
  sessions[0]!.joined.delete(room);
  clock.advance(500);
  assert.deepEqual([view.state, view.problem?.code, waiting.state, client.state.state], ['left', 'banned', 'refused', 'online']);
  assert.ok(view.bannedUntilMs);
  chat.judge = () => undefined;
  view.join();
  clock.advance(500);
  assert.equal(view.state, 'joined');
  assert.equal(client.join('nowhere').state, 'joining');
  clock.advance(500);
  assert.deepEqual([client.join('nowhere').state, client.join('nowhere').problem?.code], ['refused', 'not_found']);
});

test('somebody else signs in: nothing of the one before is sent by him', () => {
  let name = 'ann';
  const all = world({ whoIs: (token) => ({ id: token, name: token, role: 'viewer' }) }, { token: () => name });
  const { client, clock, view, net, room } = all;
  net.isDown = true;
  cut(all);
  view.publish('from ann');
  name = 'bo';
  net.isDown = false;
  client.restart();
  clock.advance(5_000);
  assert.equal(client.user?.id, 'bo');
  assert.deepEqual([view.state, view.outgoing.length, room.entries.length], ['joined', 0, 0]);
});

test('reactions: absolute counts, one’s own at once, and back when it failed', async () => {
  const { chat, clock, room, view, sessions } = world();
  const { mid } = chat.say(room, { id: 'bo', name: 'Bo', role: 'viewer' }, 'hi', {}, 'k') as unknown as { mid: string };
  clock.advance(500);
  const done = view.react(mid, '🎉', true);
  assert.equal(view.hasReacted(mid, '🎉'), true);
  clock.advance(500);
  await done;
  assert.deepEqual(view.timeline.get(mid)?.reactions, { '🎉': 1 });
  sessions[0]!.end(1006);
  await assert.rejects(view.react(mid, '👍', true), { code: 'disconnected' });
  assert.equal(view.hasReacted(mid, '👍'), false);
});

test('whatever a server says, nothing throws', () => {
  const { clock, client, sessions, view } = world();
  const socket = sessions[0]!;
  const id = view.id!;
  for (const frame of [
    null,
    [],
    {},
    { t: 5 },
    { t: 'msg' },
    { t: 'msg', room: id, epoch: 1, offset: -1 },
    { t: 'msg', room: id, epoch: 1, offset: 1e300 },
    { t: 'msg', room: id, epoch: 'x', offset: 1 },
    { t: 'reset', room: id },
    { t: 'reacts', room: id, counts: [] },
    { t: 'reacts', room: id, counts: { a: 5 } },
    { t: 'heads', rooms: null },
    { t: 'heads', rooms: { [id]: null } },
    { t: 'joined', room: id },
    { t: 'page', id: '1' },
    { t: 'lag', room: id, to: 'far' },
    { t: 'you', room: id },
    { t: 'left', room: id },
    { t: 'err' },
    { t: 'drain', retryMs: 'soon' },
    { t: 'welcome' },
    { t: 'unheard-of', room: id, epoch: 1, offset: 1 },
    { t: 'msg', room: id, epoch: 1, offset: 2, mid: 3, user: 4, body: 5, at: {} },
  ]) {
    socket.say(frame as object);
  }
  clock.advance(500);
  assert.equal(view.position, 2, 'an entry of an unknown type takes its place');
  assert.deepEqual(
    view.timeline.items.map(({ visible }) => visible),
    [false, true],
  );
  assert.equal(client.state.state, 'online');
});

test('the room of a private channel is joined by a playback link, and by a fresh one when that has ended', async () => {
  const { chat, clock, client, sessions, sent } = world();
  const turns = async () => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    clock.advance(1_000);
  };
  const secret = chat.room('secret');
  secret.link = 'one';
  const view = client.join('secret', { link: async () => secret.link });
  await turns();
  assert.deepEqual([view.state, sent('join').at(-1)!.link], ['joined', 'one']);
  secret.link = 'two';
  sessions[0]!.say({ t: 'left', room: secret.id, code: 'private' });
  await turns();
  await turns();
  await turns();
  assert.deepEqual([view.state, sent('join').at(-1)!.link], ['joined', 'two']);

  const shut = client.join('secret-too', {
    link: () => {
      throw new Error('whoever hands out links is away');
    },
  });
  chat.room('secret-too').link = 'x';
  await turns();
  assert.deepEqual([shut.state, shut.problem?.code], ['refused', 'not_found']);
});
