import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, test } from 'node:test';
import { SignInQueue } from '../../src/access/accounts/sign-in-queue.js';
import { BUCKETS, type Bucket, RateLimited, RateLimits, UNSCALED } from '../../src/access/limits/rate-limits.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { eventually } from '../support/process.js';
import { startRedis, startRedisCluster } from '../support/redis.js';

const refused = async (task: Promise<unknown>): Promise<RateLimited> => {
  const error = await task.then(
    () => undefined,
    (thrown) => thrown,
  );
  assert.ok(error instanceof RateLimited, `not refused: ${error}`);
  return error;
};

const wrong = new VezaError('invalid_credentials', 'wrong');

const times = async (count: number, task: () => Promise<unknown>) => {
  for (let i = 0; i < count; i++) await task();
};

test('points are taken until there are none, and are back when the window ends', async () => {
  const clock = new FakeClock();
  const limits = new RateLimits({ clock, log: silentLog, perMinute: 1000 });
  assert.deepEqual(await limits.peek('token', 'a'), { bucket: 'token', points: 60, windowS: 60, remaining: 60, resetS: 60 });
  await times(59, () => limits.take('token', 'a'));
  clock.advance(20_500);
  assert.deepEqual(await limits.take('token', 'a'), { bucket: 'token', points: 60, windowS: 60, remaining: 0, resetS: 40 });
  const error = await refused(limits.take('token', 'a'));
  assert.equal(error.code, 'rate_limited');
  assert.deepEqual(error.details, { limit: 'token', retryAfterS: 40 });
  await limits.take('token', 'b');
  await limits.take('recover', 'a');
  clock.advance(39_499);
  assert.equal((await refused(limits.take('token', 'a'))).standing.resetS, 1, 'never "come back in 0 s"');
  clock.advance(1);
  assert.equal((await limits.take('token', 'a')).remaining, 59);
});

test('what is given back is never more than was taken', async () => {
  const limits = new RateLimits({ clock: new FakeClock(), log: silentLog });
  await limits.take('recover', 'a', 3);
  await limits.reward('recover', 'a', 100);
  await limits.reward('recover', 'b', 100);
  for (const key of ['a', 'b']) {
    await times(10, () => limits.take('recover', key));
    await refused(limits.take('recover', key));
  }
});

test('the limits follow RATE_LIMIT_PER_MINUTE, and none is less than one', async () => {
  const small = new RateLimits({ clock: new FakeClock(), log: silentLog, perMinute: 1 });
  for (const bucket of Object.keys(BUCKETS) as Bucket[]) {
    assert.equal((await small.peek(bucket, 'a')).points, UNSCALED.includes(bucket) ? BUCKETS[bucket].points : 1, bucket);
  }
  await small.take('api', 'a');
  await refused(small.take('api', 'a'));
  const large = new RateLimits({ clock: new FakeClock(), log: silentLog, perMinute: 100_000 });
  assert.equal((await large.peek('api', 'a')).points, 100_000);
  assert.equal((await large.peek('register', 'a')).points, 2000);
  assert.equal((await large.peek('sign-in-account', 'a')).points, 10, 'more requests are not more guesses');
});

test('an address of IPv6 counts by its /64, one of IPv4 by itself', async () => {
  const limits = new RateLimits({ clock: new FakeClock(), log: silentLog });
  for (let i = 0; i < 20; i++) await limits.take('register', `2001:db8:0:1::${i.toString(16)}`);
  await refused(limits.take('register', '2001:db8:0:1:ffff::1'));
  await limits.take('register', '2001:db8:0:2::1');
});

test('a flood of addresses does not make memory grow, and does not wash out what was counted last', async () => {
  const clock = new FakeClock();
  const maxKeys = 1000;
  const limits = new RateLimits({ clock, log: silentLog, maxKeys });
  // Its size cannot be seen from outside, but what it has forgotten can.
  const kept = async (from: number, to: number) => {
    let count = 0;
    for (let i = from; i < to; i++) if ((await limits.peek('api', `client ${i}`)).remaining < 1000) count++;
    return count;
  };
  for (let i = 0; i < 5 * maxKeys; i++) await limits.take('api', `client ${i}`);
  assert.equal(await kept(0, 4 * maxKeys), 0);
  assert.equal(await kept(4 * maxKeys, 5 * maxKeys), maxKeys);
  clock.advance(60_000);
  assert.equal(await kept(0, 5 * maxKeys), 0);
});

test('failed sign-ins: nobody can lock another out', async () => {
  const clock = new FakeClock();
  const limits = new RateLimits({ clock, log: silentLog });
  const signIn = async (email: string, address: string, right: boolean) => {
    await limits
      .signIn(email, address, async () => {
        if (!right) throw wrong;
      })
      .catch((error) => {
        if (error !== wrong) throw error;
      });
  };
  // At home, once.
  await signIn('Owner@example.org', '192.0.2.1', true);

  // One attacker at one address: cut off for this account there, and only there.
  await times(10, () => signIn('owner@example.org', '198.51.100.1', false));
  assert.equal((await refused(signIn('owner@example.org', '198.51.100.1', false))).standing.bucket, 'sign-in-account');
  // Who tries other accounts from there runs into the limit of the address.
  await times(19, () => signIn(`other-${clock.monotonicMs()}@example.org`, '198.51.100.1', false).catch(() => undefined));
  for (let i = 0; (await limits.peek('sign-in-address', '198.51.100.1')).remaining > 0; i++)
    await signIn(`more-${i}@example.org`, '198.51.100.1', false);
  assert.equal((await refused(signIn('new@example.org', '198.51.100.1', false))).standing.bucket, 'sign-in-address');

  // Many addresses: together they are slowed …
  let slowed = 0;
  for (let i = 0; i < 50; i++) await signIn('owner@example.org', `203.0.113.${i}`, false).catch(() => slowed++);
  assert.ok(slowed >= 30, `${slowed}`);
  const { standing } = await refused(signIn('owner@example.org', '203.0.113.200', false));
  assert.deepEqual([standing.bucket, standing.windowS], ['sign-in-unknown', 60], 'for a minute at most');
  // … and the owner signs in at home as if nothing were.
  await times(25, () => signIn('owner@example.org', '192.0.2.1', true));
  clock.advance(60_000);
  await signIn('owner@example.org', '203.0.113.201', true);
});

test('only failures count', async () => {
  const limits = new RateLimits({ clock: new FakeClock(), log: silentLog });
  await times(200, () => limits.signIn('a@example.org', '192.0.2.1', async () => undefined));
});

test('with Redis two processes count together; while it is away each counts by itself, and nothing fails', async (t) => {
  const redis = await startRedis();
  after(() => redis.stop());
  const lines: string[] = [];
  const log = { ...silentLog, warn: (_: object, text: string) => lines.push(text), info: (_: object, text: string) => lines.push(text) };
  const options = { clock: new SystemClock(), redisUrl: redis.url, perMinute: 1000 };
  const [one, two] = [new RateLimits({ ...options, log }), new RateLimits({ ...options, log: silentLog })];
  after(() => {
    one.stop();
    two.stop();
  });
  /** Whether both ask Redis: what the one takes, the other misses. */
  const shared = (key: string) =>
    eventually('both are connected', async () => {
      await one.take('api', key);
      return (await two.peek('api', key)).remaining < 1000 ? true : undefined;
    });
  await shared('probe');

  await t.test('one count for both', async () => {
    for (let i = 0; i < 5; i++) {
      await one.take('recover', 'a@example.org');
      await two.take('recover', 'a@example.org');
    }
    assert.ok((await refused(one.take('recover', 'a@example.org'))).standing.resetS > 3500);
    await refused(two.take('recover', 'a@example.org'));
    await one.reward('recover', 'a@example.org', 1000);
    assert.equal((await two.peek('recover', 'a@example.org')).remaining, 10, 'no more than there was');
    assert.equal((await two.peek('recover', 'never')).remaining, 10);
  });

  await t.test('no address and no name is in Redis, and every key has an end', async () => {
    await one.signIn('somebody@example.org', '192.0.2.77', async () => undefined);
    const keys = await redis.command('keys', '*');
    assert.match(keys, /veza:limit:sign-in-account:[\w-]{22}/);
    assert.doesNotMatch(keys, /example|192\.0/);
    for (const key of keys.trim().split('\n')) assert.ok(Number(await redis.command('ttl', key)) > 0, key);
  });

  await t.test('killed in the middle of it', async () => {
    const answers: Promise<unknown>[] = [];
    for (let i = 0; i < 400; i++) {
      answers.push(one.take('api', `client ${i}`));
      if (i === 200) await redis.kill9();
    }
    await Promise.all(answers);
    await times(10, () => one.take('recover', 'b@example.org'));
    await refused(one.take('recover', 'b@example.org'));
    // The other has its own count now.
    await two.take('recover', 'b@example.org');
    assert.deepEqual(lines, ['the connection to Redis is lost']);
  });

  await t.test('back again', async () => {
    await redis.restart();
    await shared('probe 2');
    assert.deepEqual(lines, ['the connection to Redis is lost', 'the connection to Redis is restored']);
    // What was counted meanwhile is forgotten with the process's own counts.
    await one.take('recover', 'b@example.org');
  });

  await t.test('one that hangs is away as well', async () => {
    redis.suspend();
    await times(10, () => one.take('recover', 'c@example.org'));
    await refused(one.take('recover', 'c@example.org'));
    redis.resume();
    await shared('probe 3');
  });
});

test('with a Redis cluster two processes count together', async () => {
  const cluster = await startRedisCluster();
  after(() => cluster.stop());
  const options = { clock: new SystemClock(), log: silentLog, redisUrl: cluster.url, perMinute: 1000 };
  const [one, two] = [new RateLimits(options), new RateLimits(options)];
  after(() => {
    one.stop();
    two.stop();
  });
  for (let key = 0; key < 40; key++) {
    await eventually('both ask the node that has the key', async () => {
      await one.take('api', `key ${key}`);
      return (await two.peek('api', `key ${key}`)).remaining < 1000 ? true : undefined;
    });
  }
  for (const node of cluster.nodes) assert.notEqual(await node.command('keys', 'veza:limit:*'), '', 'the keys are spread');
});

test('a Redis that was never there is none', async () => {
  const limits = new RateLimits({ clock: new FakeClock(), log: silentLog, redisUrl: 'redis://:secret@127.0.0.1:1' });
  await times(10, () => limits.take('recover', 'a'));
  await refused(limits.take('recover', 'a'));
  limits.stop();
  limits.stop();
});

/** Tasks that go on until they are told to end. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const begun: string[] = [];
  const task = (name: string) => () => {
    begun.push(name);
    return opened;
  };
  return { begun, open, task };
}
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('sixty right passwords from one address at once: nobody is refused, and nothing is used up', async () => {
  const limits = new RateLimits({ clock: new FakeClock(), log: silentLog });
  const right = (i: number) => limits.signIn(`pupil-${i}@example.org`, '192.0.2.1', turn);
  await Promise.all(Array.from({ length: 60 }, (_, i) => right(i)));
  // One account on sixty devices, too.
  await Promise.all(Array.from({ length: 60 }, () => right(0)));
  assert.equal((await limits.peek('sign-in-address', '192.0.2.1')).remaining, 30);
  assert.equal((await limits.peek('sign-in-account', ['pupil-0@example.org', '192.0.2.1'])).remaining, 10);
  await Promise.all(Array.from({ length: 150 }, () => limits.attempt('token', '192.0.2.1', turn)));
  await Promise.all(Array.from({ length: 300 }, async () => (await limits.hold('credential', '192.0.2.1')).release()));
  for (const bucket of ['token', 'credential'] as const)
    assert.equal((await limits.peek(bucket, '192.0.2.1')).remaining, BUCKETS[bucket].points, bucket);
});

for (const [bucket, tries] of [
  ['sign-in-address', 30],
  ['sign-in-account', 10],
  ['sign-in-unknown', 20],
] as const) {
  test(`wrong passwords at the same time get no more tries than the limit of ${bucket}, among right ones as well`, async () => {
    const limits = new RateLimits({ clock: new FakeClock(), log: silentLog });
    let looked = 0;
    const guess = (i: number) => {
      const email = bucket === 'sign-in-address' ? `guess-${i}@example.org` : 'owner@example.org';
      const address = bucket === 'sign-in-unknown' ? `198.51.100.${i}` : '192.0.2.1';
      return limits.signIn(email, address, async () => {
        looked++;
        await turn();
        throw wrong;
      });
    };
    const right = (i: number) => limits.signIn(`pupil-${i}@example.org`, '192.0.2.1', turn);
    const all = await Promise.allSettled(Array.from({ length: 200 }, (_, i) => (i % 4 === 3 ? right(i) : guess(i))));
    assert.equal(looked, tries);
    const refusals = all.filter((one) => one.status === 'rejected' && one.reason instanceof RateLimited);
    assert.ok(refusals.length >= 150 - tries);
    await assert.rejects(guess(250), { code: 'rate_limited' });
  });
}

test('an attempt that was turned away takes nothing', async () => {
  const limits = new RateLimits({ clock: new FakeClock(), log: silentLog });
  for (const code of ['rate_limited', 'busy', 'unavailable'] as const) {
    const turnedAway = async () => {
      throw new VezaError(code, 'not looked at');
    };
    await assert.rejects(limits.signIn('a@example.org', '192.0.2.1', turnedAway), { code });
    await assert.rejects(limits.attempt('token', '192.0.2.1', turnedAway), { code });
  }
  assert.equal((await limits.peek('sign-in-address', '192.0.2.1')).remaining, 30);
  assert.equal((await limits.peek('token', '192.0.2.1')).remaining, 60);
  // What the limit of the account refuses is not counted for the address.
  for (let i = 0; i < 50; i++)
    await limits
      .signIn('a@example.org', '192.0.2.1', async () => {
        throw wrong;
      })
      .catch(() => undefined);
  assert.equal((await limits.peek('sign-in-address', '192.0.2.1')).remaining, 20);
  for (let i = 0; i < 50; i++) await limits.take('recover', 'x').catch(() => undefined);
  await limits.reward('recover', 'x');
  await limits.take('recover', 'x');
});

test('sign-ins under way: the others wait their turn, and a flood leaves places for those who are known', async () => {
  const clock = new FakeClock();
  const limits = new RateLimits({ clock, log: silentLog });
  await limits.signIn('owner@example.org', '192.0.2.1', async () => undefined);
  const { begun, open, task } = gate();
  const refusals: { code: string; details: object }[] = [];
  const under = (email: string, address: string) =>
    limits.inTurn(email, address, task(address)).catch((error) => void refusals.push(error));
  // One address floods; then many others come, and the owner at home.
  const all = Array.from({ length: 400 }, (_, i) => under(`a${i}@example.org`, '198.51.100.1'));
  await turn();
  assert.equal(begun.length, 16, 'half of the places');
  for (let i = 0; i < 40; i++) all.push(under(`b${i}@example.org`, `203.0.113.${i}`));
  for (let i = 0; i < 16; i++) all.push(under('Owner@example.org', '192.0.2.1'));
  await turn();
  assert.equal(begun.filter((address) => address === '192.0.2.1').length, 16);
  assert.equal(begun.filter((address) => address.startsWith('203.')).length, 16);
  assert.ok(refusals.every(({ code, details }) => code === 'busy' && 'retryAfterS' in details));
  assert.equal(refusals.length, 400 - 16 - 256 + 24, 'who comes later takes the places of those who wait in large numbers');
  open();
  await Promise.all(all);
  assert.equal(begun.filter((address) => address.startsWith('203.')).length, 40, 'nobody else was turned away');
  await assert.rejects(
    limits.inTurn('a@example.org', '192.0.2.9', async () => {
      throw new Error('wrong');
    }),
    /wrong/,
  );
});

test('addresses with failures wait behind the others, and nobody waits for ever', async () => {
  const clock = new FakeClock();
  const queue = new SignInQueue(clock, { strangers: 1, perAddress: 1, known: 1, waiting: 10, maxWaitMs: 1000 });
  const { begun, open, task } = gate();
  const run = (address: string, hasFailed: boolean) => queue.run({ address, hasFailed, isKnown: false }, task(address));
  const first = run('a', false);
  const order: string[] = [];
  const others = (
    [
      ['bad', true],
      ['bad', true],
      ['b', false],
      ['b', false],
      ['c', false],
    ] as const
  ).map(([address, hasFailed]) => run(address, hasFailed).then(() => order.push(address)));
  const late = assert.rejects(run('z', true), { code: 'busy' });
  assert.deepEqual(begun, ['a']);
  await turn();
  open();
  await first;
  await Promise.all(others);
  assert.deepEqual(order, ['b', 'c', 'b', 'bad', 'bad'].slice(0, 5));
  clock.advance(1000);
  await late.catch(() => undefined);
});

test('docs/limits.md says what the code does', async () => {
  const text = await readFile('docs/limits.md', 'utf8');
  const rows = [...text.matchAll(/^\| `([\w-]+)`( ‡)? \| (\d+) \| (\d+) \|/gm)].map(([, bucket, unscaled, points, windowS]) => [
    bucket,
    unscaled !== undefined,
    Number(points),
    Number(windowS),
  ]);
  const wanted = Object.entries(BUCKETS).map(([bucket, { points, windowS }]) => [
    bucket,
    UNSCALED.includes(bucket as Bucket),
    points,
    windowS,
  ]);
  assert.deepEqual(rows, wanted);
});
