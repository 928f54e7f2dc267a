import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { MAX_PENDING_PER_WEBHOOK, MAX_UNWRITTEN } from '../../src/access/webhooks/webhook-outbox.js';
import {
  GIVE_UP_AFTER_MS,
  KEPT_MS,
  LEASE_MS,
  MAX_RETRIES_UNDER_WAY,
  MAX_RETRY_MS,
  MAX_UNDER_WAY,
  MAX_UNDER_WAY_PER_WEBHOOK,
  PAUSE_AFTER_MS,
  POLL_MS,
  TRIES_IN_ORDER,
} from '../../src/access/webhooks/webhook-worker.js';
import { MAX_WEBHOOKS, type Webhooks } from '../../src/access/webhooks/webhooks.js';
import type { Database } from '../../src/backing/database/database.js';
import { OUTBOUND_TIMEOUT_MS } from '../../src/backing/outbound.js';
import { VezaError } from '../../src/runtime/errors.js';
import { openTestDatabase } from '../support/database.js';
import { isSigned, OFF_AIR, ON_AIR, Receiver, World } from './webhook-support.js';

let database: Database;
let world: World;
let receiver: Receiver;
before(async () => {
  database = await openTestDatabase();
});
after(async () => {
  await database.stop();
});
beforeEach(async () => {
  world = new World(database);
  receiver = await Receiver.open();
});
afterEach(async () => {
  await receiver.close();
  await world.end();
});

const code = (expected: string) => (error: unknown) => error instanceof VezaError && error.code === expected;
const EVENTS = ['channel.on_air', 'channel.off_air'] as const;

test('an event reaches those who want it, signed', async () => {
  const hooks = await world.process();
  const [radio, other] = [await world.channel('Radio “Veza”'), await world.channel()];
  const mine = await hooks.create(radio.id, { url: receiver.url('/mine'), events: ['channel.on_air'] }, { id: 'me' });
  const all = await hooks.create(undefined, { url: receiver.url('/all'), events: ['channel.on_air', 'account.banned'] }, { id: 'me' });
  await hooks.create(radio.id, { url: receiver.url('/end'), events: ['channel.off_air'] }, { id: 'me' });
  await hooks.create(other.id, { url: receiver.url('/other'), events: ['channel.on_air'] }, { id: 'me' });
  assert.match(mine.secret, /^whsec_[\w-]{43}$/);

  await hooks.emit('channel.on_air', radio, ON_AIR);
  await hooks.emit('account.banned', undefined, { account: { id: 'a1', name: 'Eve' }, reason: 'spam' });
  await world.pass(50);
  const [first, second, third] = receiver.received.toSorted((a, b) => a.body.length - b.body.length || a.path.localeCompare(b.path));
  assert.equal(receiver.received.length, 3);
  assert.deepEqual([first?.path, second?.path, third?.path].sort(), ['/all', '/all', '/mine']);

  const got = receiver.received.find(({ path }) => path === '/mine')!;
  assert.equal(got.headers['content-type'], 'application/json');
  assert.equal(got.headers['veza-event'], 'channel.on_air');
  assert.deepEqual(JSON.parse(got.body), {
    id: got.headers['veza-delivery'],
    event: 'channel.on_air',
    createdAt: '2030-01-01T00:00:00.000Z',
    channel: { slug: radio.slug, title: 'Radio “Veza”' },
    data: ON_AIR,
  });
  assert.ok(isSigned(got, mine.secret, world.clock.wallMs()));
  assert.ok(!isSigned(got, all.secret, world.clock.wallMs()), 'each webhook has a secret of its own');
  assert.ok(!isSigned({ ...got, body: `${got.body} ` }, mine.secret, world.clock.wallMs()));
  const banned = receiver.received.find(({ headers }) => headers['veza-event'] === 'account.banned')!;
  assert.ok(isSigned(banned, all.secret, world.clock.wallMs()));
  assert.equal(JSON.parse(banned.body).channel, undefined);
  assert.equal(new Set(receiver.ids()).size, 3);

  const [delivery] = await hooks.deliveries(radio.id, mine.webhook.id, undefined, 10);
  assert.deepEqual(
    { state: delivery?.state, attempts: delivery?.attempts, status: delivery?.lastStatus, error: delivery?.lastError },
    { state: 'delivered', attempts: 1, status: 204, error: undefined },
  );
  assert.deepEqual({ ...hooks.counts }.taken, 3);
});

test('a secret is kept sealed, and one that is replaced signs on for a day, or not at all', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  const { webhook, secret } = await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  const { rows } = await database.query<{ sealed_secret: Buffer }>('select * from webhooks where id = $1', [webhook.id]);
  assert.doesNotMatch(JSON.stringify(rows) + rows[0]!.sealed_secret.toString('latin1'), new RegExp(secret.slice(6)));
  assert.doesNotMatch(JSON.stringify(await hooks.list(radio.id)), /whsec/);

  const next = await hooks.replaceSecret(radio.id, webhook.id);
  const sent = async () => {
    await hooks.emit('channel.on_air', radio, ON_AIR);
    await world.pass(50);
    return receiver.received.at(-1)!;
  };
  const both = await sent();
  assert.ok(isSigned(both, next, world.clock.wallMs()) && isSigned(both, secret, world.clock.wallMs()));
  world.clock.sleep(86_400_000);
  const one = await sent();
  assert.ok(isSigned(one, next, world.clock.wallMs()));
  assert.ok(!isSigned(one, secret, world.clock.wallMs()));
  const leaked = await hooks.replaceSecret(radio.id, webhook.id, 0);
  const alone = await sent();
  assert.ok(isSigned(alone, leaked, world.clock.wallMs()));
  assert.ok(!isSigned(alone, next, world.clock.wallMs()));
});

test('what fails is tried again under the same id, later and later, for three days', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  const { webhook } = await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  const atMs: number[] = [];
  receiver.answer = (res) => {
    atMs.push(world.clock.wallMs());
    res.writeHead(500).end('no');
  };
  await hooks.emit('channel.on_air', radio, ON_AIR);
  await world.pass(50);
  const pending = async () => (await hooks.deliveries(radio.id, webhook.id, undefined, 1))[0]!;
  const waits: number[] = [];
  for (let delivery = await pending(); delivery.state === 'pending'; delivery = await pending()) {
    assert.equal(delivery.lastError, 'answered 500');
    const waitMs = delivery.nextAttemptAtMs! - atMs.at(-1)!;
    waits.push(waitMs);
    world.clock.sleep(waitMs - 1);
    await world.pass(0);
    assert.equal(atMs.length, waits.length, 'not before its time');
    await world.pass(5000);
    assert.equal(atMs.length, waits.length + 1);
  }
  // Half of 10 s, 20 s, 40 s …: the random number of this test is 0.5.
  assert.deepEqual(waits.slice(0, 5), [5000, 10_000, 20_000, 40_000, 80_000]);
  assert.equal(Math.max(...waits), MAX_RETRY_MS / 2);
  assert.equal(new Set(receiver.ids()).size, 1);
  assert.equal(new Set(receiver.received.map(({ body }) => body)).size, 1);
  const failed = await pending();
  assert.equal(failed.state, 'failed');
  assert.equal(failed.attempts, atMs.length);
  const lastedMs = atMs.at(-1)! - atMs[0]!;
  assert.ok(lastedMs < GIVE_UP_AFTER_MS && lastedMs > GIVE_UP_AFTER_MS - MAX_RETRY_MS, `${lastedMs}`);
  assert.equal((await hooks.get(radio.id, webhook.id)).active, true);

  // Asked for, it is tried once more, and is taken under the id that it has always had.
  receiver.answer = (res) => res.writeHead(200).end();
  await hooks.retry(radio.id, webhook.id, failed.id);
  await world.pass(50);
  assert.equal((await pending()).state, 'delivered');
  assert.equal(new Set(receiver.ids()).size, 1);
  assert.equal((await hooks.get(radio.id, webhook.id)).failingSinceMs, undefined);
  await assert.rejects(hooks.retry(radio.id, webhook.id, webhook.id), code('not_found'));
});

test('the jitter is full, and a receiver that says when is listened to', async () => {
  let random = 0.999;
  const hooks = await world.process({ random: () => random });
  const radio = await world.channel();
  const { webhook } = await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  const waitMs = async () => {
    await hooks.emit('channel.on_air', radio, ON_AIR);
    await world.pass(50);
    const [delivery] = await hooks.deliveries(radio.id, webhook.id, undefined, 1);
    const ms = delivery!.nextAttemptAtMs! - world.clock.wallMs();
    await database.query('delete from webhook_deliveries');
    return ms;
  };
  receiver.answer = (res) => res.writeHead(503).end();
  assert.equal(await waitMs(), 9990);
  random = 0;
  assert.equal(await waitMs(), 5000);
  receiver.answer = (res) => res.writeHead(429, { 'Retry-After': '120' }).end();
  assert.equal(await waitMs(), 120_000);
  receiver.answer = (res) => res.writeHead(429, { 'Retry-After': '99999999' }).end();
  assert.equal(await waitMs(), MAX_RETRY_MS);
});

test('an event outlives the process that met it', async () => {
  const first = await world.process();
  const radio = await world.channel();
  const { webhook, secret } = await first.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  // Written down, and the process ends before anything is sent.
  await first.emit('channel.on_air', radio, ON_AIR);
  await first.stop();
  assert.equal(receiver.received.length, 0);
  const second = await world.process();
  await world.pass(50);
  assert.deepEqual(receiver.events(), ['channel.on_air']);
  assert.ok(isSigned(receiver.received[0]!, secret, world.clock.wallMs()));

  // Claimed by one that dies: another claims it when the claim is over, not before.
  await second.emit('channel.off_air', radio, OFF_AIR);
  await database.query('update webhook_deliveries set attempts = 1, next_attempt_at = $1 where event = $2', [
    new Date(world.clock.wallMs() + LEASE_MS),
    'channel.off_air',
  ]);
  await world.pass(LEASE_MS - 5000);
  assert.equal(receiver.received.length, 1);
  await world.pass(10_000);
  assert.deepEqual(receiver.events(), ['channel.on_air', 'channel.off_air']);
  assert.equal((await second.deliveries(radio.id, webhook.id, undefined, 1))[0]?.attempts, 2);
});

test('an event of a transaction is told when that is through, and only then', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  await database
    .transaction(async (connection) => {
      await hooks.emit('channel.on_air', radio, ON_AIR, connection);
      throw new Error('changed my mind');
    })
    .catch(() => undefined);
  await world.pass(10_000);
  assert.equal(receiver.received.length, 0);
  await database.transaction((connection) => hooks.emit('channel.off_air', radio, OFF_AIR, connection));
  await world.pass(50);
  assert.deepEqual(receiver.events(), ['channel.off_air']);
});

test('while the database is away events wait in memory, in order and not without a bound', async () => {
  let away = false;
  const flaky: Database = {
    query: (sql, values) => (away ? Promise.reject(new VezaError('unavailable', 'away')) : database.query(sql, values)) as never,
    transaction: (work) => database.transaction(work),
    stop: async () => undefined,
  };
  const hooks = await world.process({ database: flaky });
  const radio = await world.channel();
  await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  away = true;
  await hooks.emit('channel.on_air', radio, ON_AIR);
  await hooks.emit('channel.off_air', radio, OFF_AIR);
  await world.pass(20_000);
  assert.equal(hooks.counts.unwritten, 2);
  assert.equal(receiver.received.length, 0);
  away = false;
  await world.pass(20_000);
  assert.deepEqual(receiver.events(), ['channel.on_air', 'channel.off_air']);
  assert.equal(JSON.parse(receiver.received[0]!.body).createdAt, '2030-01-01T00:00:00.000Z', 'when it happened');

  away = true;
  for (let i = 0; i <= MAX_UNWRITTEN; i++) await hooks.emit('channel.on_air', radio, ON_AIR);
  assert.equal(hooks.counts.unwritten, MAX_UNWRITTEN);
  assert.equal(hooks.counts.dropped, 1);
});

test('an insert that went through without our knowing is not told twice', async () => {
  let lost = true;
  const flaky: Database = {
    ...database,
    query: async (sql, values) => {
      const answer = await database.query(sql, values);
      if (!lost || !sql.includes('insert into webhook_deliveries')) return answer as never;
      lost = false;
      throw new VezaError('unavailable', 'the answer was lost');
    },
  };
  const hooks = await world.process({ database: flaky });
  const radio = await world.channel();
  await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  await hooks.emit('channel.on_air', radio, ON_AIR);
  await world.pass(20_000);
  assert.equal(lost, false);
  assert.equal(hooks.counts.unwritten, 0);
  assert.equal(receiver.received.length, 1);
});

test('events of a channel come in order, and one that is never taken does not stop the others for good', async () => {
  const hooks = await world.process();
  const [radio, other] = [await world.channel(), await world.channel()];
  await hooks.create(undefined, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  const names = () =>
    receiver.received
      .map(({ body }) => JSON.parse(body))
      .map(({ channel, data }) => `${channel.slug === radio.slug ? 'radio' : 'other'} ${data.broadcastId}`);
  let poison = 'b1';
  receiver.answer = (res, { body }) => res.writeHead(JSON.parse(body).data.broadcastId === poison ? 500 : 204).end();
  for (const broadcastId of ['b1', 'b2', 'b3']) await hooks.emit('channel.on_air', radio, { ...ON_AIR, broadcastId });
  await hooks.emit('channel.on_air', other, { ...ON_AIR, broadcastId: 'o1' });
  await world.pass(50);
  assert.deepEqual(names().sort(), ['other o1', 'radio b1'], 'the other channel does not wait');
  await world.pass(10_000);
  assert.deepEqual(names().slice(2), ['radio b1']);
  poison = '';
  await world.pass(30_000);
  assert.deepEqual(names().slice(3), ['radio b1', 'radio b2', 'radio b3']);

  poison = 'p1';
  receiver.received.length = 0;
  for (const broadcastId of ['p1', 'p2', 'p3']) await hooks.emit('channel.on_air', radio, { ...ON_AIR, broadcastId });
  await world.pass(600_000);
  const seen = names();
  assert.equal(seen.indexOf('radio p2'), TRIES_IN_ORDER);
  assert.equal(seen.indexOf('radio p3'), TRIES_IN_ORDER + 1);
});

test('a receiver that answers nothing is given ten seconds, and keeps nobody else waiting', async () => {
  const hooks = await world.process();
  const slow = await Receiver.open();
  slow.answer = () => undefined;
  const bad = await hooks.create(undefined, { url: slow.url(), events: ['channel.on_air'] }, { id: 'me' });
  await hooks.create(undefined, { url: receiver.url(), events: ['channel.on_air'] }, { id: 'me' });
  const channels = await Promise.all(Array.from({ length: 2 * MAX_UNDER_WAY_PER_WEBHOOK }, () => world.channel()));
  for (const channel of channels) await hooks.emit('channel.on_air', channel, ON_AIR);
  world.clock.advance(50);
  await receiver.has(channels.length);
  await slow.has(MAX_UNDER_WAY_PER_WEBHOOK);
  assert.equal(slow.received.length, MAX_UNDER_WAY_PER_WEBHOOK, 'the others wait for a place');
  await assert.rejects(hooks.test(undefined, bad.webhook.id, undefined), code('busy'));
  world.clock.advance(OUTBOUND_TIMEOUT_MS - 1);
  assert.equal((await hooks.deliveries(undefined, bad.webhook.id, undefined, 100)).filter(({ lastError }) => lastError).length, 0);
  world.clock.advance(1);
  await slow.has(2 * MAX_UNDER_WAY_PER_WEBHOOK);
  const told = (await hooks.deliveries(undefined, bad.webhook.id, undefined, 100)).filter(({ lastError }) => lastError);
  assert.equal(told.length, MAX_UNDER_WAY_PER_WEBHOOK);
  assert.equal(told[0]?.lastError, 'no answer within 10 s');
  slow.answer = (res) => res.writeHead(204).end();
  await slow.close();
});

test('many that answer nothing take all places but not for long: of what is tried again there is half', async () => {
  const hooks = await world.process();
  const slow = await Receiver.open();
  slow.answer = () => undefined;
  const channels = await Promise.all(Array.from({ length: MAX_UNDER_WAY_PER_WEBHOOK }, () => world.channel()));
  const make = (url: string) => hooks.create(undefined, { url, events: ['channel.on_air'] }, { id: 'me' });
  for (let i = 1; i < MAX_WEBHOOKS; i++) await make(slow.url(`/${i}`));
  for (const channel of channels) await hooks.emit('channel.on_air', channel, ON_AIR);
  world.clock.advance(50);
  await slow.has(MAX_UNDER_WAY);
  // What was behind them gets its place when they fail; then all wait for their second try.
  world.clock.advance(OUTBOUND_TIMEOUT_MS);
  const all = (MAX_WEBHOOKS - 1) * channels.length;
  await slow.has(all);
  assert.equal(slow.received.length, all);
  while (hooks.counts.failed < MAX_UNDER_WAY) await new Promise(setImmediate);
  world.clock.advance(2 * POLL_MS);
  await slow.has(all + MAX_RETRIES_UNDER_WAY);
  await make(receiver.url());
  await hooks.emit('channel.on_air', channels[0]!, ON_AIR);
  world.clock.advance(50);
  await receiver.has(1);
  assert.equal(slow.received.length, all + MAX_RETRIES_UNDER_WAY);
  await slow.close();
});

test('410 turns a webhook off at once, days of failing in the end; turned on it starts afresh', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  const { webhook } = await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  receiver.answer = (res) => res.writeHead(410).end();
  await hooks.emit('channel.on_air', radio, ON_AIR);
  await hooks.emit('channel.off_air', radio, OFF_AIR);
  await world.pass(50);
  assert.equal(receiver.received.length, 1);
  const gone = await hooks.get(radio.id, webhook.id);
  assert.deepEqual([gone.active, gone.note], [false, 'The receiver answered 410 Gone.']);
  assert.deepEqual(
    (await hooks.deliveries(radio.id, webhook.id, undefined, 10)).map(({ state }) => state),
    ['failed', 'failed'],
  );
  await hooks.emit('channel.on_air', radio, ON_AIR);
  await world.pass(60_000);
  assert.equal(receiver.received.length, 1, 'one that is off is told nothing');
  assert.equal((await hooks.deliveries(radio.id, webhook.id, undefined, 10)).length, 2, 'and nothing is kept for it');
  await assert.rejects(
    hooks.retry(radio.id, webhook.id, (await hooks.deliveries(radio.id, webhook.id, undefined, 1))[0]!.id),
    code('conflict'),
  );

  const again = await hooks.update(radio.id, webhook.id, { active: true });
  assert.deepEqual([again.active, again.note, again.failingSinceMs], [true, undefined, undefined]);
  receiver.answer = (res) => res.writeHead(500).end();
  for (let passedMs = 0; passedMs <= PAUSE_AFTER_MS; passedMs += MAX_RETRY_MS) {
    assert.equal((await hooks.get(radio.id, webhook.id)).active, true);
    await hooks.emit('channel.on_air', radio, ON_AIR);
    world.clock.sleep(MAX_RETRY_MS);
    await world.pass(5000);
  }
  const paused = await hooks.get(radio.id, webhook.id);
  assert.equal(paused.active, false);
  assert.match(paused.note!, /^Nothing has been taken since 2030-.*; the last try: answered 500\.$/);
});

test('what waits while a webhook is turned off is sent when it is on again', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  const { webhook } = await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  await hooks.emit('channel.on_air', radio, ON_AIR);
  await hooks.update(radio.id, webhook.id, { active: false });
  await world.pass(60_000);
  assert.equal(receiver.received.length, 0);
  await hooks.update(radio.id, webhook.id, { active: true });
  await world.pass(50);
  assert.equal(receiver.received.length, 1);
});

test('whatever is answered, little of it is read', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  const { webhook } = await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  let sent = 0;
  const closed = new Promise<void>((resolve) => {
    receiver.answer = (res) => {
      res.writeHead(200);
      const more = () => {
        while (!res.destroyed && sent < 1e9 && res.write(Buffer.alloc(65_536))) sent += 65_536;
      };
      res.on('drain', more).on('close', resolve);
      more();
    };
  });
  const told = await hooks.test(radio.id, webhook.id, radio);
  await closed;
  assert.deepEqual([told.state, told.lastStatus], ['delivered', 200]);
  assert.ok(sent < 50e6, `${sent} bytes were taken`);

  // Headers without an end, an answer that is none, and a line that breaks off.
  receiver.answer = (res) => {
    res.socket!.write('HTTP/1.1 200 OK\r\n');
    res.socket!.write(`X: ${'x'.repeat(10_000)}\r\n`);
  };
  assert.match((await hooks.test(radio.id, webhook.id, radio)).lastError!, /Header overflow/i);
  receiver.answer = (res) => void res.socket!.end('what?\r\n\r\n');
  assert.match((await hooks.test(radio.id, webhook.id, radio)).lastError!, /Parse Error/i);
  receiver.answer = (res) => void res.socket!.destroy();
  assert.match((await hooks.test(radio.id, webhook.id, radio)).lastError!, /hang up|ECONNRESET/);
  // The status is there, the rest never comes: it counts as it is.
  receiver.answer = (res) => {
    res.writeHead(200, { 'Content-Length': '10' });
    res.write('x');
    res.socket!.end();
  };
  assert.equal((await hooks.test(radio.id, webhook.id, radio)).state, 'delivered');
});

test('a redirect is an answer like any other that is not 2xx', async () => {
  const hooks = await world.process();
  const inside = await Receiver.open();
  const { webhook } = await hooks.create(undefined, { url: receiver.url(), events: ['channel.on_air'] }, { id: 'me' });
  for (const status of [301, 302, 303, 307, 308]) {
    receiver.answer = (res) => res.writeHead(status, { Location: inside.url('/admin') }).end();
    const told = await hooks.test(undefined, webhook.id, undefined);
    assert.deepEqual([told.state, told.lastError], ['failed', `answered ${status}`]);
  }
  assert.equal(inside.received.length, 0);
  await inside.close();
});

test('a test is sent once, also by a webhook that is off, and is not tried again', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  const { webhook, secret } = await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  await hooks.update(radio.id, webhook.id, { active: false });
  const told = await hooks.test(radio.id, webhook.id, radio);
  assert.deepEqual([told.event, told.state], ['webhook.test', 'delivered']);
  assert.ok(isSigned(receiver.received[0]!, secret, world.clock.wallMs()));
  assert.equal(JSON.parse(receiver.received[0]!.body).channel.slug, radio.slug);
  receiver.answer = (res) => res.writeHead(400).end();
  assert.equal((await hooks.test(radio.id, webhook.id, radio)).lastError, 'answered 400');
  await hooks.update(radio.id, webhook.id, { active: true });
  await world.pass(60_000);
  assert.equal(receiver.received.length, 2);
});

test('limits: webhooks a channel, deliveries that wait, how long they are kept', async () => {
  const hooks = await world.process();
  const [radio, other] = [await world.channel(), await world.channel()];
  const make = (channelId: string | undefined) =>
    hooks.create(channelId, { url: receiver.url(), events: ['channel.on_air'] }, { id: 'me' });
  const made = await Promise.allSettled(Array.from({ length: MAX_WEBHOOKS + 3 }, () => make(radio.id)));
  assert.equal(made.filter(({ status }) => status === 'fulfilled').length, MAX_WEBHOOKS);
  await assert.rejects(make(radio.id), code('conflict'));
  const { webhook } = await make(other.id);

  await hooks.update(other.id, webhook.id, { active: true });
  await database.query(
    `insert into webhook_deliveries (id, webhook_id, event, body, created_at, next_attempt_at)
     select gen_random_uuid(), $1, 'channel.on_air', '{}', $2, $3 from generate_series(1, $4)`,
    [webhook.id, new Date(world.clock.wallMs()), new Date(world.clock.wallMs() + 1e9), MAX_PENDING_PER_WEBHOOK - 1],
  );
  await hooks.emit('channel.on_air', other, ON_AIR);
  assert.equal(hooks.counts.dropped, 0);
  await hooks.emit('channel.on_air', other, ON_AIR);
  assert.equal(hooks.counts.dropped, 1);

  const count = async () => (await database.query<{ count: number }>('select count(*) from webhook_deliveries')).rows[0]!.count;
  assert.equal(await count(), MAX_PENDING_PER_WEBHOOK);
  await hooks.update(other.id, webhook.id, { active: false });
  world.clock.sleep(KEPT_MS - 1);
  await hooks.sweep();
  assert.equal(await count(), MAX_PENDING_PER_WEBHOOK);
  assert.ok(
    (await hooks.deliveries(other.id, webhook.id, undefined, 5)).every(({ state }) => state === 'failed'),
    'given up while it was off',
  );
  world.clock.sleep(2);
  await hooks.sweep();
  assert.equal(await count(), 0);
});

test('a webhook is found by its own channel alone', async () => {
  const hooks = await world.process();
  const [radio, other] = [await world.channel(), await world.channel()];
  const { webhook } = await hooks.create(radio.id, { url: receiver.url(), events: ['channel.on_air'] }, { id: 'me' });
  for (const channelId of [other.id, undefined]) {
    const calls: ((hooks: Webhooks) => Promise<unknown>)[] = [
      (on) => on.get(channelId, webhook.id),
      (on) => on.update(channelId, webhook.id, { active: false }),
      (on) => on.delete(channelId, webhook.id),
      (on) => on.replaceSecret(channelId, webhook.id),
      (on) => on.deliveries(channelId, webhook.id, undefined, 1),
      (on) => on.test(channelId, webhook.id, undefined),
      (on) => on.retry(channelId, webhook.id, webhook.id),
    ];
    for (const call of calls) await assert.rejects(call(hooks), code('not_found'));
    assert.deepEqual(await hooks.list(channelId), []);
  }
  assert.equal((await hooks.list(radio.id)).length, 1);
  await world.channels.delete(radio.slug);
  await assert.rejects(hooks.get(radio.id, webhook.id), code('not_found'));
});

test('what waits, and for how long, is known to the metrics', async () => {
  const hooks = await world.process();
  const radio = await world.channel();
  await hooks.create(radio.id, { url: receiver.url(), events: [...EVENTS] }, { id: 'me' });
  receiver.answer = (res) => res.writeHead(500).end();
  await hooks.emit('channel.on_air', radio, ON_AIR);
  await world.pass(3000, 50);
  await hooks.emit('channel.off_air', radio, OFF_AIR);
  await world.pass(30_000);
  // The measurement is a query of its own.
  while (hooks.counts.waiting === 0) await new Promise(setImmediate);
  assert.equal(hooks.counts.waiting, 2);
  assert.ok(hooks.counts.oldestDueS >= 20 && hooks.counts.oldestDueS <= 40, `${hooks.counts.oldestDueS}`);
  assert.ok(hooks.counts.failed >= 2);
});
