import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { CLOSE, MAX_ROOMS } from '../../src/chat/protocol/protocol.js';
import { VezaError } from '../../src/runtime/errors.js';
import { unexpectedCounts } from '../../src/runtime/unexpected.js';
import { type AnyFrame, ChatWorld, type Client, roomId } from './chat-world.js';

const inWorld = (name: string, run: (world: ChatWorld) => Promise<void>, options?: Parameters<typeof ChatWorld.start>[0]) =>
  test(name, { timeout: 30_000 }, async () => {
    const world = await ChatWorld.start(options);
    try {
      await run(world);
    } finally {
      await world.stop();
    }
  });
const room = (world: ChatWorld, n = 1) => world.rooms.get(roomId(n))!;
const offsets = (client: Client, t = 'msg') => client.all(t).map(({ offset }: AnyFrame) => offset);

inWorld('hello with a token, join by slug, publish: acknowledged after the commit, and another sees it once', async (world) => {
  const ann = await world.client();
  ann.send({ t: 'hello', token: 't-ann', client: 'test' });
  const welcome = await ann.next('welcome');
  assert.deepEqual(welcome.user, { id: 'u-ann', name: 'u-ann' });
  assert.equal(welcome.limits.textBytes, 8192);
  assert.deepEqual([welcome.limits.pubsPerS, welcome.limits.pubsBurst], [2, 20]);
  const joined = await ann.ask({ t: 'join', id: '1', room: 'radio' });
  assert.equal(joined.t, 'joined');
  assert.equal(joined.room, roomId(1));
  assert.equal(joined.channel, 'radio');
  assert.equal(joined.recovered, 'none');
  assert.equal(joined.offset, 0);
  const bob = await world.joined('t-bob');

  let commit!: (kind: 'stored') => void;
  room(world).committing = new Promise((resolve) => {
    commit = resolve;
  });
  ann.send({ t: 'pub', id: '2', room: roomId(1), key: 'k1', body: { text: 'hello there' } });
  const seen = await bob.next('msg');
  assert.deepEqual([seen.offset, seen.body.text, seen.user.id, 'key' in seen], [1, 'hello there', 'u-ann', false]);
  assert.equal((await ann.next('msg')).key, 'k1', 'the author’s copy has the key');
  assert.equal(ann.all('ack').length, 0, 'not committed yet');
  commit('stored');
  const ack = await ann.next('ack');
  assert.deepEqual({ ...ack, mid: '' }, { t: 'ack', id: '2', room: roomId(1), mid: '', epoch: 1, offset: 1, dup: false });
  assert.equal(ack.mid, seen.mid);

  ann.send({ t: 'pub', id: '3', room: roomId(1), key: 'k1', body: { text: 'hello there' } });
  const again = await ann.next('ack');
  assert.deepEqual([again.mid, again.offset, again.dup], [seen.mid, 1, true]);
  await bob.settled();
  assert.equal(bob.all('msg').length, 1);
});

inWorld('a guest reads and does not write; a room for members alone is closed to him', async (world) => {
  const guest = await world.client();
  guest.send({ t: 'hello' });
  assert.equal((await guest.next('welcome')).user, null);
  const joined = await guest.ask({ t: 'join', id: '1', room: 'radio' });
  assert.equal(joined.you.write, false);
  assert.equal((await guest.ask({ t: 'pub', id: '2', room: roomId(1), key: 'k', body: { text: 'x' } })).code, 'unauthorized');
  assert.equal(
    (await guest.ask({ t: 'react', id: '3', room: roomId(1), mid: 'A'.repeat(22), emoji: '👍', on: true })).code,
    'unauthorized',
  );
  assert.equal((await guest.ask({ t: 'mod', id: '4', room: roomId(1), action: 'slow', seconds: 5 })).code, 'unauthorized');
  assert.equal((await guest.ask({ t: 'auth', id: '5', token: 't-ann' })).code, 'forbidden');
  room(world).message('for all');
  await guest.next('msg');
  world.guests = 'none';
  world.tellRoom(roomId(1));
  assert.equal((await guest.next('left')).code, 'private');
  assert.equal((await guest.ask({ t: 'join', id: '6', room: 'radio' })).code, 'unauthorized');
});

inWorld('no hello within five seconds: closed', async (world) => {
  const silent = await world.client();
  await world.pass(4900);
  assert.equal(world.gateway.connections, 1);
  await world.pass(2200);
  assert.equal((await silent.closed).code, CLOSE.chatProtocol);
});

inWorld('something else before hello, a second hello, binary frames, what is not JSON', async (world) => {
  const early = await world.client();
  early.send({ t: 'join', id: '1', room: 'radio' });
  assert.equal((await early.closed).code, CLOSE.chatProtocol);
  const twice = await world.signedIn('t-ann');
  twice.send({ t: 'hello', token: 't-bob' });
  assert.equal((await twice.next('err')).code, 'bad_request');
  const binary = await world.signedIn('t-ann');
  binary.socket.send(Buffer.from('{"t":"hello"}'));
  assert.equal((await binary.closed).code, CLOSE.chatProtocol);
  for (const text of ['', 'hello', '[]', '"hello"', 'null', '{"t":5}', '{"t":"hello"', `${'['.repeat(60_000)}`]) {
    const client = await world.signedIn('t-ann');
    client.send(text);
    assert.equal((await client.closed).code, CLOSE.chatProtocol, text.slice(0, 20));
  }
});

inWorld('frames that are wrong are answered by name, and the connection stays', async (world) => {
  const ann = await world.joined('t-ann');
  const wrong: [object, string][] = [
    [{ t: 'dance', id: 'x' }, 'unknown_type'],
    [{ t: 'join', id: 'x' }, 'bad_request'],
    [{ t: 'join', id: 'x', room: 5 }, 'bad_request'],
    [{ t: 'join', id: 'x', room: 'radio', since: { epoch: -1, offset: 0 } }, 'bad_request'],
    [{ t: 'join', id: 'x', room: 'radio', since: { epoch: 1, offset: 1.5 } }, 'bad_request'],
    [{ t: 'join', id: 'x', room: 'radio', link: 'x'.repeat(201) }, 'bad_request'],
    [{ t: 'join', id: 'x', room: 'none-such' }, 'not_found'],
    [{ t: 'join', id: 'x', room: '../admin' }, 'not_found'],
    [{ t: 'leave', id: 'x', room: 'other' }, 'not_joined'],
    [{ t: 'pub', id: 'x', room: 'radio', key: '', body: { text: 'x' } }, 'bad_request'],
    [{ t: 'pub', id: 'x', room: 'radio', key: 'a\nb', body: { text: 'x' } }, 'bad_request'],
    [{ t: 'pub', id: 'x', room: 'radio', key: 'k', body: { text: ' ' } }, 'bad_request'],
    [{ t: 'pub', id: 'x', room: 'radio', key: 'k', body: 'x' }, 'bad_request'],
    [{ t: 'pub', id: 'x', room: 'radio', key: 'k', body: { text: 'x', html: '<b>' } }, 'bad_request'],
    [{ t: 'pub', id: 'x', room: 'radio', key: 'k', body: { text: 'x', reply: 'y' } }, 'bad_request'],
    [{ t: 'pub', id: 'x', room: 'radio', key: 'k', body: { text: 'x', mentions: [1] } }, 'bad_request'],
    [{ t: 'pub', id: 'x', room: 'radio', key: 'k', body: { text: 'é'.repeat(4097) } }, 'too_long'],
    [{ t: 'pub', id: 'x', room: 'other', key: 'k', body: { text: 'x' } }, 'not_joined'],
    [{ t: 'react', id: 'x', room: 'radio', mid: 'A'.repeat(22), emoji: 'hello', on: true }, 'bad_request'],
    [{ t: 'react', id: 'x', room: 'radio', mid: 'short', emoji: '👍', on: true }, 'bad_request'],
    [{ t: 'history', id: 'x', room: 'radio', limit: 101 }, 'bad_request'],
    [{ t: 'range', id: 'x', room: 'radio', from: 5, to: 4 }, 'bad_request'],
    [{ t: 'range', id: 'x', room: 'radio', from: 0, to: 4 }, 'bad_request'],
    [{ t: 'mod', id: 'x', room: 'radio', action: 'slow' }, 'forbidden'],
    [{ t: 'mod', id: 'x', room: 'radio' }, 'bad_request'],
    [{ t: 'auth', id: 'x' }, 'bad_request'],
  ];
  let n = 0;
  for (const [frame, code] of wrong) {
    const id = `w${n++}`;
    const answer = await ann.ask({ ...frame, id });
    assert.equal(answer.t === 'err' && answer.code, code, JSON.stringify(frame));
  }
  assert.equal((await ann.ask({ t: 'pub', id: 'fine', room: 'radio', key: 'k', body: { text: 'é'.repeat(4096) } })).t, 'ack');
  ann.send({ t: 'join', room: 'radio' });
  assert.equal('id' in (await ann.next('err', ({ code }) => code === 'bad_request' && n++ > 0)), true);
});

inWorld('a token that is not good, of a banned account, while the database is away', async (world) => {
  for (const [token, code] of [
    ['t-nobody', CLOSE.token],
    ['t-banned', CLOSE.banned],
    ['t-away', CLOSE.overloaded],
  ] as const) {
    const client = await world.client();
    client.send({ t: 'hello', token });
    assert.equal((await client.closed).code, code, token);
  }
  while (world.gateway.connections > 0) await world.pass(100);
});

inWorld('a token that ends is renewed by one of the same subject, or closes', async (world) => {
  world.person('t-short', 'u-ann', { expiresAtMs: world.clock.wallMs() + 10_000 });
  world.person('t-long', 'u-ann', { expiresAtMs: world.clock.wallMs() + 100_000 });
  const renews = await world.joined('t-short');
  const ends = await world.joined('t-short');
  assert.equal((await renews.ask({ t: 'auth', id: '1', token: 't-bob' })).code, 'forbidden');
  assert.equal((await renews.ask({ t: 'auth', id: '2', token: 't-nobody' })).code, 'unauthorized');
  const ok = await renews.ask({ t: 'auth', id: '3', token: 't-long' });
  assert.deepEqual(ok, { t: 'ok', id: '3', expiresAt: world.clock.wallMs() + 100_000, expiresInMs: 100_000 });
  await world.pass(12_100);
  assert.equal((await ends.closed).code, CLOSE.token);
  assert.equal((await renews.ask({ t: 'history', id: '4', room: 'radio' })).t, 'page');
});

inWorld('a session that is ended, an account that is banned, a key that is deleted: closed', async (world) => {
  world.person('t-key', 'u-bot', { sessionId: undefined, keyId: 'k1' });
  const [ended, told, banned, bot, stays] = [
    await world.joined('t-ann'),
    await world.joined('t-bob'),
    await world.signedIn('t-bob'),
    await world.joined('t-key'),
    await world.joined(undefined),
  ];
  world.endedSessions.add('s-t-ann');
  await world.pass(2100);
  assert.equal((await ended.closed).code, CLOSE.token);
  world.gateway.endSession('s-t-bob');
  assert.equal((await told.closed).code, CLOSE.token);
  assert.equal((await banned.closed).code, CLOSE.token);
  world.endedPeople.set('u-bot', 'ended');
  await world.pass(2100);
  assert.equal((await bot.closed).code, CLOSE.token);
  const bob = await world.joined('t-bob');
  world.endedPeople.set('u-bob', 'banned');
  await world.gateway.recheckAccount('u-bob');
  assert.equal((await bob.closed).code, CLOSE.banned);
  await stays.settled();
  assert.equal(world.gateway.connections, 1);
});

inWorld('an API key that was made for something else only reads', async (world) => {
  world.person('t-reader', 'u-bot', { mayWrite: false });
  const bot = await world.joined('t-reader');
  assert.equal((await bot.ask({ t: 'pub', id: '1', room: 'radio', key: 'k', body: { text: 'x' } })).code, 'forbidden');
});

inWorld('a room that is missing and one that is forbidden answer the same, letter by letter', async (world) => {
  world.room(2, 'secret', true);
  const ann = await world.signedIn('t-ann');
  const answers = [];
  for (const name of ['none-such', 'secret', roomId(2), roomId(9), '', '__proto__', 'A'.repeat(64), 'x'.repeat(500)]) {
    const answer = await ann.ask({ t: 'join', id: `j-${answers.length}`, room: name });
    answers.push(JSON.stringify({ ...answer, id: '' }));
  }
  assert.deepEqual(new Set(answers).size, 1, answers.join('\n'));
  assert.equal(room(world, 2).holders, 0, 'nothing was opened for a stranger');
});

inWorld('a private room: members by their role, others by a playback link until it ends', async (world) => {
  const secret = world.room(2, 'secret', true);
  const access = world.access.get('c-2')!;
  access.roles.set('u-ann', { role: 'host', moderates: 'yes' });
  access.links.set('link-1', world.clock.wallMs() + 5000);
  const ann = await world.signedIn('t-ann');
  assert.equal((await ann.ask({ t: 'join', id: '1', room: 'secret' })).you.role, 'host');
  const guest = await world.signedIn();
  assert.equal((await guest.ask({ t: 'join', id: '1', room: 'secret', link: 'link-0' })).code, 'not_found');
  assert.equal((await guest.ask({ t: 'join', id: '2', room: 'secret', link: 'link-1' })).t, 'joined');
  secret.message('psst');
  await guest.next('msg');
  await world.pass(7100);
  assert.equal((await guest.next('left')).code, 'private');
  secret.message('alone again');
  await ann.next('msg', ({ body }) => body.text === 'alone again');
  await guest.settled();
  assert.equal(guest.all('msg').length, 1);

  access.roles.delete('u-ann');
  await world.gateway.recheckChannel('c-2');
  assert.equal((await ann.next('left')).code, 'private');

  access.links.set('link-2', world.clock.wallMs() + 3_600_000);
  const listener = await world.signedIn();
  assert.equal((await listener.ask({ t: 'join', id: '3', room: 'secret', link: 'link-2' })).t, 'joined');
  access.links.delete('link-2');
  await world.pass(3000);
  assert.equal((await listener.next('left')).code, 'private', 'a link that is taken back ends it as well');
});

inWorld('a channel that becomes private, another role in it, a channel that is deleted', async (world) => {
  const [ann, bob, guest] = [await world.joined('t-ann'), await world.joined('t-bob'), await world.joined(undefined)];
  const access = world.access.get('c-1')!;
  access.roles.set('u-ann', { role: 'moderator', moderates: 'yes' });
  await world.gateway.recheckChannel('c-1');
  const you = await ann.next('you');
  assert.deepEqual([you.role, you.moderate], ['moderator', 'yes']);
  access.isPrivate = true;
  await world.gateway.recheckChannel('c-1');
  assert.equal((await bob.next('left')).code, 'private');
  assert.equal((await guest.next('left')).code, 'private');
  world.access.delete('c-1');
  await world.gateway.recheckChannel('c-1');
  assert.equal((await ann.next('left')).code, 'deleted');
  assert.equal(room(world).holders, 0);
});

inWorld('a ban puts out of the room and says until when; a timeout is told', async (world) => {
  const [ann, bob] = [await world.joined('t-ann'), await world.joined('t-bob')];
  world.timeouts.set('u-bob', world.clock.wallMs() + 60_000);
  world.tellPeople(roomId(1), ['u-bob']);
  assert.equal((await bob.next('you')).timeoutUntil, world.clock.wallMs() + 60_000);
  world.warnings.set('u-bob', 2);
  world.tellPeople(roomId(1), ['u-bob']);
  assert.equal((await bob.next('you')).warnings, 2);
  world.bans.set('u-bob', world.clock.wallMs() + 90_000);
  world.tellPeople(roomId(1), ['u-bob']);
  assert.deepEqual(await bob.next('left'), { t: 'left', room: roomId(1), code: 'banned', until: world.clock.wallMs() + 90_000 });
  assert.equal((await bob.ask({ t: 'join', id: '9', room: 'radio' })).code, 'banned');
  room(world).message('he is gone');
  await ann.next('msg');
  await bob.settled();
  assert.equal(bob.all('msg').length, 0);
});

inWorld('a room that ends', async (world) => {
  const ann = await world.joined('t-ann');
  for (const listener of room(world).listeners) listener.onClosed('deleted');
  assert.deepEqual(await ann.next('left'), { t: 'left', room: roomId(1), code: 'deleted' });
  assert.equal(room(world).listeners.size, 0);
});

inWorld('moderating: by those who may, with their second factor', async (world) => {
  const access = world.access.get('c-1')!;
  access.roles.set('u-ann', { role: 'owner', moderates: 'yes' });
  access.roles.set('u-bob', { role: 'viewer', moderates: 'second-factor' });
  const [ann, bob] = [await world.joined('t-ann'), await world.joined('t-bob')];
  assert.equal((await bob.ask({ t: 'mod', id: 'm', room: 'radio', action: 'slow', seconds: 5 })).code, 'second_factor_missing');
  assert.deepEqual(await ann.ask({ t: 'mod', id: 'm', room: 'radio', action: 'slow', seconds: 5 }), {
    t: 'ok',
    id: 'm',
    result: { offset: 7 },
  });
  assert.deepEqual(world.moderated, [
    [
      room(world).info,
      { id: 'u-ann', name: 'u-ann', role: 'owner', unproven: false, actor: 'account:u-ann', address: '192.0.2.1' },
      { action: 'slow', seconds: 5 },
    ],
  ]);
});

inWorld('join: the newest fifty; since: what was missed, in order, the rest as ordinary frames', async (world) => {
  for (let n = 0; n < 300; n++) room(world).message(`m${n}`);
  const fresh = await world.signedIn('t-ann');
  const joined = await fresh.ask({ t: 'join', id: '1', room: 'radio' });
  assert.deepEqual([joined.entries.length, joined.entries[0].offset, joined.offset, joined.recovered], [50, 251, 300, 'none']);

  const back = await world.signedIn('t-bob');
  const resumed = await back.ask({ t: 'join', id: '1', room: 'radio', since: { epoch: 1, offset: 100 } });
  assert.deepEqual([resumed.entries.length, resumed.entries[0].offset, resumed.offset, resumed.recovered], [50, 101, 150, 'full']);
  room(world).message('new');
  await back.next('msg', ({ offset }) => offset === 301);
  assert.deepEqual(
    offsets(back),
    Array.from({ length: 151 }, (_, n) => 151 + n),
  );

  const upToDate = await world.signedIn('t-ann');
  const nothing = await upToDate.ask({ t: 'join', id: '1', room: 'radio', since: { epoch: 1, offset: 301 } });
  assert.deepEqual([nothing.entries, nothing.offset, nothing.recovered], [[], 301, 'full']);
});

inWorld('who was away for very long gets the newest; what was let go by age is not promised', async (world) => {
  room(world).floor = 10;
  for (let n = 0; n < 1200; n++) room(world).message(`m${n}`);
  const long = await world.signedIn('t-ann');
  const joined = await long.ask({ t: 'join', id: '1', room: 'radio', since: { epoch: 1, offset: 20 } });
  assert.deepEqual([joined.recovered, joined.entries.length, joined.offset], ['partial', 50, 1210]);
  assert.equal((await long.ask({ t: 'range', id: '2', room: 'radio', from: 21, to: 1160 })).entries.length, 100);
  const old = await world.signedIn('t-bob');
  room(world).frames = room(world).frames.slice(0, 100);
  assert.deepEqual((await old.ask({ t: 'join', id: '1', room: 'radio', since: { epoch: 1, offset: 3 } })).recovered, 'partial');
});

inWorld('a resume from an older epoch is told to drop first', async (world) => {
  for (let n = 0; n < 5; n++) room(world).message(`m${n}`);
  room(world).epoch = 2;
  const ann = await world.signedIn('t-ann');
  ann.send({ t: 'join', id: '1', room: 'radio', since: { epoch: 1, offset: 3 } });
  await ann.next('joined');
  assert.deepEqual(
    ann.frames.map(({ t }) => t).filter((t) => t !== 'welcome'),
    ['reset', 'joined'],
  );
});

inWorld('a new epoch: everybody is told what to keep, and goes on there', async (world) => {
  const [ann, bob] = [await world.joined('t-ann'), await world.joined('t-bob')];
  for (let n = 0; n < 5; n++) room(world).message(`m${n}`);
  await ann.next('msg', ({ offset }) => offset === 5);
  await bob.next('msg', ({ offset }) => offset === 5);
  room(world).reset(3);
  room(world).message('again');
  for (const client of [ann, bob]) {
    assert.deepEqual(await client.next('reset'), { t: 'reset', room: roomId(1), epoch: 2, keep: 3 });
    const next = await client.next('msg');
    assert.deepEqual([next.offset, next.epoch, next.body.text], [4, 2, 'again']);
  }
});

inWorld('a message that a new epoch has withdrawn is to be sent again', async (world) => {
  const ann = await world.joined('t-ann');
  room(world).committing = Promise.resolve('resend');
  const answer = await ann.ask({ t: 'pub', id: '1', room: 'radio', key: 'k', body: { text: 'x' } });
  assert.deepEqual([answer.t, answer.code, answer.retryMs], ['err', 'resend', 0]);
});

inWorld('held, refused for good, refused for now', async (world) => {
  const ann = await world.joined('t-ann');
  const mid = 'A'.repeat(22);
  const pub = (id: string) => ann.ask({ t: 'pub', id, room: 'radio', key: id, body: { text: 'x' } });
  room(world).outcome = { kind: 'held', mid };
  assert.deepEqual(await pub('1'), { t: 'held', id: '1', mid });
  room(world).outcome = { kind: 'refused', mid, code: 'blocked_term', reason: 'No.' };
  assert.deepEqual(await pub('2'), { t: 'refused', id: '2', mid, code: 'blocked_term', reason: 'No.' });
  room(world).outcome = { kind: 'refused', mid, code: 'slow_mode', reason: 'Slowly.', retryMs: 4000.5 };
  assert.deepEqual(await pub('3'), { t: 'err', id: '3', code: 'slow_mode', message: 'Slowly.', retryMs: 4001 });
  room(world).outcome = { kind: 'refused', mid, code: 'something_new', reason: 'Later.', retryMs: 100 };
  assert.equal((await pub('4')).code, 'busy');
});

inWorld('messages in flight are bounded', async (world) => {
  const ann = await world.joined('t-ann');
  let commit!: (kind: 'stored') => void;
  room(world).committing = new Promise((resolve) => {
    commit = resolve;
  });
  for (let n = 0; n < 9; n++) ann.send({ t: 'pub', id: `p${n}`, room: 'radio', key: `k${n}`, body: { text: 'x' } });
  const err = await ann.next('err');
  assert.deepEqual([err.id, err.code], ['p8', 'busy']);
  commit('stored');
  await ann.next('ack', ({ id }) => id === 'p7');
  assert.equal(room(world).published.length, 8);
});

inWorld('how old an account is, is asked once, and only where the room asks', async (world) => {
  const ann = await world.joined('t-ann');
  await ann.ask({ t: 'pub', id: '1', room: 'radio', key: 'a', body: { text: 'x' } });
  world.followersMin = 10;
  await ann.ask({ t: 'pub', id: '2', room: 'radio', key: 'b', body: { text: 'x' } });
  assert.deepEqual(
    room(world).published.map(({ author }) => author.sinceMs),
    [undefined, 1234],
  );
});

inWorld('history and a hole', async (world) => {
  for (let n = 0; n < 120; n++) room(world).message(`m${n}`);
  const ann = await world.joined('t-ann');
  const page = await ann.ask({ t: 'history', id: '1', room: 'radio', before: 71, limit: 30 });
  assert.deepEqual([page.entries[0].offset, page.entries.at(-1).offset, page.more, page.epoch], [41, 70, true, 1]);
  const hole = await ann.ask({ t: 'range', id: '2', room: 'radio', from: 5, to: 7 });
  assert.deepEqual(
    hole.entries.map(({ offset }: AnyFrame) => offset),
    [5, 6, 7],
  );
  assert.equal(hole.more, false);
});

inWorld('reactions: handed on, told behind what they are of', async (world) => {
  const ann = await world.joined('t-ann');
  const { mid } = room(world).message('like me');
  assert.deepEqual(await ann.ask({ t: 'react', id: '1', room: 'radio', mid, emoji: '👍🏽', on: true }), { t: 'ok', id: '1' });
  assert.deepEqual(room(world).reacted, [['u-ann', mid, '👍🏽', true]]);
  room(world).reactionsNow = { [mid!]: { '👍🏽': 1 } };
  const bob = await world.joined('t-bob');
  assert.deepEqual((await bob.next('reacts')).counts, { [mid!]: { '👍🏽': 1 } });
  for (const listener of room(world).listeners) listener.onEvent(`{"t":"reacts","room":"${roomId(1)}","counts":{"${mid}":{"👍🏽":2}}}`);
  assert.equal((await ann.next('reacts', ({ counts }) => counts[mid!]['👍🏽'] === 2)).room, roomId(1));
  world.timeouts.set('u-ann', world.clock.wallMs() + 1);
  assert.equal((await ann.ask({ t: 'react', id: '2', room: 'radio', mid, emoji: '🎉', on: true })).code, 'forbidden');
});

inWorld('joining again moves the cursor; leaving ends; so many rooms and no more', async (world) => {
  for (let n = 2; n <= MAX_ROOMS + 1; n++) {
    const id = `${String(n).padStart(8, '0')}-0000-4000-8000-000000000000`;
    const made = world.room(1, 'radio');
    world.rooms.delete(made.id);
    Object.assign(made, { info: { ...made.info, id, slug: `room-${n}`, channelId: 'c-1' } });
    world.rooms.set(id, made);
  }
  world.room(1, 'radio');
  const ann = await world.joined('t-ann');
  for (let n = 2; n <= MAX_ROOMS; n++) assert.equal((await ann.ask({ t: 'join', id: `j${n}`, room: `room-${n}` })).t, 'joined');
  assert.equal((await ann.ask({ t: 'join', id: 'more', room: `room-${MAX_ROOMS + 1}` })).code, 'too_many_rooms');
  assert.equal((await ann.ask({ t: 'join', id: 'again', room: 'radio' })).t, 'joined');
  room(world).message('once');
  await ann.next('msg');
  assert.deepEqual(await ann.ask({ t: 'leave', id: 'bye', room: 'radio' }), { t: 'ok', id: 'bye' });
  room(world).message('unheard');
  await ann.settled();
  assert.equal(ann.all('msg').length, 1);
});

inWorld('a room is let go some time after the last has left', async (world) => {
  const ann = await world.joined('t-ann');
  assert.equal(room(world).holders, 1);
  await ann.ask({ t: 'leave', id: 'bye', room: 'radio' });
  await world.pass(8000);
  assert.equal(room(world).holders, 1);
  await world.pass(4100);
  assert.equal(room(world).holders, 0);
  assert.equal(room(world).listeners.size, 0);
});

inWorld('a page of an origin that is not allowed, no subprotocol, another path, and what is no WebSocket', async (world) => {
  const status = async (headers: Record<string, string>, path = '/chat', method = 'GET') => {
    const socket = connect(world.port, '127.0.0.1');
    const lines = Object.entries({ Host: 'x', Connection: 'Upgrade', Upgrade: 'websocket', ...headers }).map(
      ([name, value]) => `${name}: ${value}`,
    );
    socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
    let answer = '';
    for await (const chunk of socket) {
      answer += chunk;
      if (answer.includes('\r\n\r\n')) break;
    }
    socket.destroy();
    return Number(answer.split(' ')[1]);
  };
  const good = { 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Protocol': 'veza.chat.v1' };
  assert.equal(await status(good), 101);
  assert.equal(await status({ ...good, Origin: 'https://radio.example' }), 101);
  assert.equal(await status({ ...good, Origin: 'https://evil.example' }), 403);
  assert.equal(await status({ ...good, Origin: 'null' }), 403);
  assert.equal(await status(good, '/'), 404);
  assert.equal(await status(good, '/chat/x'), 404);
  assert.equal(await status(good, '/chat?x=1'), 101);
  assert.equal(await status({ ...good, 'Sec-WebSocket-Protocol': 'other' }), 400);
  assert.equal(await status({ ...good, 'Sec-WebSocket-Version': '99' }), 426);
  assert.equal(await status({ ...good, 'Sec-WebSocket-Key': 'short' }), 400);
  assert.equal(await status(good, '/chat', 'POST'), 405);
  assert.equal(await status({ Connection: 'close', Upgrade: '' }), 426);
});

inWorld('the WebSocket itself broken: an oversized message, bad UTF-8, a frame without a mask, fragments without end', async (world) => {
  const raw = async (...bytes: Buffer[]) => {
    const client = await world.signedIn('t-ann');
    const { _socket: socket } = client.socket as unknown as { _socket: import('node:net').Socket };
    for (const piece of bytes) socket.write(piece);
    return (await client.closed).code;
  };
  const masked = (first: number, payload: Buffer) => {
    const head =
      payload.length < 126
        ? Buffer.from([first, 0x80 | payload.length, 0, 0, 0, 0])
        : Buffer.from([first, 0xfe, payload.length >> 8, payload.length & 255, 0, 0, 0, 0]);
    return Buffer.concat([head, payload]);
  };
  const large = await world.signedIn('t-ann');
  large.send(`{"t":"pub","x":"${'x'.repeat(65_536)}"}`);
  assert.equal((await large.closed).code, CLOSE.tooBig);
  assert.equal(await raw(masked(0x81, Buffer.from([0xff, 0xfe]))), CLOSE.badText);
  assert.equal(await raw(Buffer.from([0x81, 0x02, 0x7b, 0x7d])), CLOSE.protocolError);
  assert.equal(await raw(masked(0xf1, Buffer.from('{}'))), CLOSE.protocolError);
  const fragments = [masked(0x01, Buffer.alloc(60_000, 0x20)), masked(0x00, Buffer.alloc(60_000, 0x20))];
  assert.equal(await raw(...fragments), CLOSE.tooBig);
  assert.ok(world.gateway.counters.badFrames >= 5);
});

inWorld('a flood of frames is answered, then closed; of one account over many connections as over one', async (world) => {
  const flood = await world.joined('t-ann');
  const other = await world.joined('t-ann');
  const bob = await world.joined('t-bob');
  for (let n = 0; n < 2000; n++) flood.send({ t: 'history', id: `f${n}`, room: 'radio', limit: 1 });
  assert.equal((await flood.closed).code, CLOSE.chatProtocol);
  assert.ok(flood.all('err').some(({ code }: AnyFrame) => code === 'rate_limited' || code === 'busy'));
  other.send({ t: 'history', id: 'o', room: 'radio' });
  const { code, id } = await other.next('err');
  assert.deepEqual([code, id], ['rate_limited', 'o'], 'whoever asked is answered');
  assert.equal((await bob.ask({ t: 'history', id: 'b', room: 'radio' })).t, 'page');
  await world.pass(1000);
  assert.equal((await other.ask({ t: 'history', id: 'o2', room: 'radio' })).t, 'page');
});

inWorld('thousands of joins of what is not there open nothing', async (world) => {
  const flood = await world.signedIn();
  for (let n = 0; n < 5000; n++) flood.send({ t: 'join', id: `f${n}`, room: `none-${n}` });
  await flood.closed;
  assert.equal(world.gateway.localRooms.size, 0);
});

inWorld('too much before the welcome', async (world) => {
  let look!: () => void;
  world.looking = new Promise((resolve) => {
    look = resolve;
  });
  const patient = await world.client();
  patient.send({ t: 'hello', token: 't-ann' });
  patient.send({ t: 'join', id: '1', room: 'radio' });
  const eager = await world.client();
  eager.send({ t: 'hello', token: 't-bob' });
  for (let n = 0; n < 20; n++) eager.send({ t: 'join', id: `${n}`, room: 'radio' });
  assert.equal((await eager.closed).code, CLOSE.chatProtocol);
  look();
  await patient.next('welcome');
  assert.equal((await patient.next('joined')).room, roomId(1), 'what came early is answered after the welcome');
});

inWorld(
  'a process that is full accepts, says so, and keeps those it has',
  async (world) => {
    const [ann, bob] = [await world.joined('t-ann'), await world.joined('t-bob')];
    const more = await world.client();
    assert.equal((await more.closed).code, CLOSE.overloaded);
    room(world).message('still here');
    await ann.next('msg');
    await bob.next('msg');
    await bob.close();
    await world.joined('t-bob');
  },
  { maxConnections: 2 },
);

inWorld('heads every 25 s, with a ping where nothing has come since the last; who sends nothing for two of them is cut', async (world) => {
  const ann = await world.joined('t-ann');
  for (let n = 0; n < 3; n++) room(world).message('x');
  await ann.next('msg', ({ offset }) => offset === 3);
  await world.pass(25_000);
  assert.deepEqual((await ann.next('heads')).rooms, { [roomId(1)]: [1, 3] });
  assert.equal(ann.pings, 0, 'he has just come');
  await world.pass(25_000);
  await ann.next('heads');
  assert.equal(ann.pings, 1);
  await world.pass(50_000);
  assert.equal(ann.all('heads').length, 4);
  assert.equal(ann.pings, 2, 'a pong is a sign of life for the turn after it');
  const { _socket: socket } = ann.socket as unknown as { _socket: import('node:net').Socket };
  // A phone that has gone: it takes what is sent, and nothing comes back.
  socket.write = (() => true) as never;
  await world.pass(110_000);
  assert.equal(world.gateway.connections, 0);
});

inWorld('draining: each is told when to come back, and closed; nobody new comes in', async (world) => {
  const clients = await Promise.all(Array.from({ length: 8 }, () => world.joined(undefined)));
  world.gateway.drainConnections(3, 1000);
  while (world.gateway.connections > 5) await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(world.gateway.connections, 5, 'so many are sent away at first');
  world.gateway.drainConnections(Number.POSITIVE_INFINITY, 1000);
  await world.pass(600);
  const retries = new Set<number>();
  for (const client of clients) {
    assert.equal((await client.closed).code, CLOSE.restart);
    retries.add(client.all('drain')[0].retryMs);
  }
  assert.ok(retries.size > 4 && [...retries].every((ms) => ms > 0 && ms <= 1000), [...retries].join());
  await assert.rejects(world.client(), /503/);
});

inWorld('how many are in the room is told once a second at most; who comes back in a moment was never away', async (world) => {
  const ann = await world.joined('t-ann');
  for (let n = 0; n < 3; n++) await world.joined(undefined);
  const bob = await world.joined('t-bob');
  await world.joined('t-bob');
  await world.pass(1000);
  assert.deepEqual(
    ann.all('members').map(({ count }: AnyFrame) => count),
    [5],
  );
  await bob.close();
  await world.pass(5000);
  assert.equal(ann.all('members').length, 1);
  await world.joined('t-bob');
  await world.pass(20_000);
  assert.equal(ann.all('members').length, 1);
});

inWorld('frames of several rooms and answers share a write; what comes while the process is busy is gathered', async (world) => {
  const ann = await world.joined('t-ann');
  world.busy = 0.9;
  world.clock.advance(100);
  assert.ok(world.gateway.gatherMs > 30 && world.gateway.gatherMs <= 50, String(world.gateway.gatherMs));
  for (let n = 0; n < 10; n++) room(world).message('x');
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(ann.all('msg').length, 0);
  world.clock.advance(50);
  await ann.next('msg', ({ offset }) => offset === 10);
  world.busy = 0;
  world.clock.advance(100);
  assert.equal(world.gateway.gatherMs, 0);
});

inWorld('a refused upgrade is closed from here, whatever the client does with his half', async (world) => {
  const closed = new Promise<void>((resolve) => world.server.once('connection', (socket) => socket.once('close', () => resolve())));
  const socket = connect({ port: world.port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => undefined).resume();
  socket.write(
    'GET /elsewhere HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  await closed;
  socket.destroy();
});

inWorld('a ban that could not be looked up is looked up again', async (world) => {
  const bob = await world.joined('t-bob');
  const look = world.findEnded.bind(world);
  world.findEnded = async () => {
    throw new Error('The database does not answer.');
  };
  world.endedPeople.set('u-bob', 'banned');
  await world.gateway.recheckAccount('u-bob');
  assert.equal((await bob.ask({ t: 'history', id: 'h', room: roomId(1) })).t, 'page', 'what is known counts on');
  world.findEnded = look;
  await world.pass(5000);
  assert.equal((await bob.closed).code, CLOSE.banned);
});

inWorld('a channel whose change could not be read is read again, and lets nobody new in until then', async (world) => {
  const guest = await world.joined(undefined);
  const look = world.readAccess.bind(world);
  world.readAccess = async () => {
    throw new VezaError('unavailable', 'The database does not answer.');
  };
  world.access.get('c-1')!.isPrivate = true;
  await world.gateway.recheckChannel('c-1');
  const late = await world.client();
  late.send({ t: 'hello' });
  await late.next('welcome');
  const refused = await late.ask({ t: 'join', id: '1', room: 'radio' });
  assert.deepEqual([refused.t, refused.code], ['err', 'unavailable']);
  world.readAccess = look;
  await world.pass(5000);
  assert.equal((await guest.next('left')).code, 'private');
});

inWorld('a channel that becomes private while its room is opened lets in nobody by what it was', async (world) => {
  const look = world.readAccess.bind(world);
  world.readAccess = async (channelId) => {
    const asItWas = await look(channelId);
    world.readAccess = look;
    world.access.get(channelId)!.isPrivate = true;
    await world.gateway.recheckChannel(channelId);
    return asItWas;
  };
  const guest = await world.signedIn();
  assert.equal((await guest.ask({ t: 'join', id: '1', room: 'radio' })).code, 'not_found');
});

inWorld(
  'a frame that meets a defect costs its connection alone: it is cut, the others go on, and no exception reaches the process',
  async (world) => {
    const ann = await world.joined('t-ann');
    const bob = await world.joined('t-bob');
    const { gateway } = world;
    const received = gateway.receiveText.bind(gateway);
    gateway.receiveText = (connection, text) => {
      if (text.includes('"boom"')) throw new TypeError('a defect');
      received(connection, text);
    };
    const before = unexpectedCounts().exception;
    ann.send({ t: 'leave', id: 'boom', room: roomId(1) });
    assert.equal((await ann.closed).code, 1006);
    assert.equal(unexpectedCounts().exception, before + 1);
    assert.equal((await bob.ask({ t: 'pub', id: '1', room: roomId(1), key: 'k', body: { text: 'still here' } })).t, 'ack');
  },
);
