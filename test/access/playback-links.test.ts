import assert from 'node:assert/strict';
import { createHmac, createVerify, generateKeyPairSync } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Access, openAccess } from '../../src/access/access.js';
import { cloudFrontCookies } from '../../src/access/playback/cloudfront.js';
import { admitsCountry, COUNTRIES, countryOf } from '../../src/access/playback/countries.js';
import { type LinkRequest, MAX_LINK_S, MIN_LINK_S, type PlaybackClient } from '../../src/access/playback/playback-links.js';
import { PlaybackRules } from '../../src/access/playback/playback-rules.js';
import { boundAddress, parseToken, signedText } from '../../src/access/playback/playback-token.js';
import type { Database } from '../../src/backing/database/database.js';
import { Broadcasts } from '../../src/library/broadcasts.js';
import { FakeClock, SystemClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

const code = (expected: string, text = /./) => {
  return (error: unknown) => error instanceof VezaError && error.code === expected && text.test(error.message);
};
const anybody: PlaybackClient = { address: () => '192.0.2.1', country: () => 'DE' };
const from = (address: string, country?: string): PlaybackClient => ({ address: () => address, country: () => country });

let dataDir: string;
let database: Database;
let clock: FakeClock;
/** Two processes on one database. */
let access: Access;
let other: Access;
before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'veza-links-'));
  database = await openTestDatabase();
  clock = new FakeClock();
  const options = { database, dataDir, clock, log: silentLog, publicUrl: 'http://radio.example' };
  access = await openAccess({ ...options, playbackKeysFile: join(dataDir, 'playback-keys.json') });
  other = await openAccess(options);
  await access.start();
  await other.start();
});
after(async () => {
  await access.stop();
  await other.stop();
  await database.stop();
  await rm(dataDir, { recursive: true });
});

const issue = (request: Partial<LinkRequest> = {}) =>
  access.playbackLinks.issue({ kind: 'live', name: 'radio', expiresInS: 3600, ...request });
const check = (token: string, client = anybody) => access.playbackLinks.check('live', 'radio', token, client);
/** Resolves when the condition holds; looked at after each turn of the event loop. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

test('a link opens what it was issued for, until it expires, in any process', async () => {
  const { token, expiresAtMs } = await issue({ expiresInS: 120 });
  assert.equal(expiresAtMs, clock.wallMs() + 120_000);
  assert.ok(token.length <= 80 && /^[A-Za-z0-9._-]+$/.test(token), token);
  const pass = check(token);
  assert.deepEqual([pass.kind, pass.name, pass.expiresAtMs], ['live', 'radio', expiresAtMs]);
  assert.equal(check(token), pass, 'remembered');
  assert.ok(other.playbackLinks.admits('live', 'radio', token, anybody));
  clock.advance(120_000 - 1);
  check(token);
  clock.advance(1);
  assert.throws(() => check(token), code('forbidden', /expired/));
  assert.throws(() => other.playbackLinks.check('live', 'radio', token, anybody), code('forbidden', /expired/));
});

test('it opens nothing else: no other channel, no recording of the same name', async () => {
  const { token } = await issue();
  check(token);
  for (const [kind, name] of [
    ['live', 'radi'],
    ['live', 'radio2'],
    ['live', ''],
    ['vod', 'radio'],
    ['live', 'Radio'],
    ['live', 'radio/../secret'],
  ] as const) {
    assert.throws(() => access.playbackLinks.check(kind, name, token, anybody), code('forbidden', /not good/), `${kind}/${name}`);
  }
  const recording = await issue({ kind: 'vod' });
  assert.throws(() => check(recording.token), code('forbidden', /not good/));
});

test('no letter of a token can be another', async () => {
  const { token } = await issue({ bind: { country: 'DE' } });
  check(token);
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.';
  for (let at = 0; at < token.length; at++) {
    // At the end of the signature four letters stand for the same bits: all are tried there, elsewhere some.
    const tried = at === token.length - 1 ? letters : letters.slice(at % 7, (at % 7) + 3);
    for (const letter of tried) {
      const changed = token.slice(0, at) + letter + token.slice(at + 1);
      if (changed !== token) assert.throws(() => check(changed), code('forbidden'), changed);
    }
  }
  for (const wrong of [
    '',
    '.',
    'x',
    ` ${token}`,
    `${token} `,
    `${token}=`,
    token.toUpperCase(),
    token.replace('.', '..'),
    `${token}.${token}`,
  ])
    assert.throws(() => check(wrong), code('forbidden'), wrong);
  assert.throws(() => check('x'.repeat(1_000_000)), code('forbidden'));
});

test('a token is one text only; what is longer than any is not even looked at', async () => {
  const { token } = await issue();
  const [kid = '', expiry = '', listener = '', signature = ''] = token.split('.');
  assert.deepEqual(parseToken(token), {
    keyId: kid,
    expiry,
    expiresAtMs: Number.parseInt(expiry, 36) * 1000,
    listener,
    binds: '',
    signature,
  });
  for (const wrong of [
    `${kid}.0${expiry}.${listener}.${signature}`,
    `${kid}.${expiry.toUpperCase()}.${listener}.${signature}`,
    `${kid}.-${expiry}.${listener}.${signature}`,
    `${kid}.${expiry}..${signature}`,
    `${kid}.${expiry}.${listener}.ca.${signature}`,
    `${kid}.${expiry}.${listener}..${signature}`,
    `${kid}\n.${expiry}.${listener}.${signature}`,
    `${token}\n`,
    `${kid}.${expiry}.${'l'.repeat(33)}.${signature}`,
    `${'k'.repeat(13)}${token}`,
  ]) {
    assert.equal(parseToken(wrong), undefined, wrong);
  }
  const one = signedText({ keyId: 'k', expiry: 'e', listener: 'l' }, { kind: 'live', name: 'a', address: '', country: 'b' });
  const two = signedText({ keyId: 'k', expiry: 'e', listener: 'l' }, { kind: 'live', name: 'a', address: 'b', country: '' });
  assert.notEqual(one, two);
});

test('somebody who knows the form and not the key makes none', async () => {
  const { token } = await issue();
  const { keyId, expiry, listener } = parseToken(token)!;
  for (const secret of ['', keyId, '\0'.repeat(32)]) {
    const text = signedText({ keyId, expiry, listener }, { kind: 'live', name: 'radio', address: '', country: '' });
    const forged = createHmac('sha256', secret).update(text).digest('base64url');
    assert.throws(() => check([keyId, expiry, listener, forged].join('.')), code('forbidden'));
    assert.throws(() => check(['constructor', expiry, listener, forged].join('.')), code('forbidden'));
  }
});

test('a link may be bound to an address or a country, and is good nowhere else', async () => {
  const bound = await issue({ bind: { address: '192.0.2.7' } });
  check(bound.token, from('192.0.2.7'));
  check(bound.token, from('::ffff:192.0.2.7'));
  assert.throws(() => check(bound.token, from('192.0.2.8')), code('forbidden', /another address/));
  assert.throws(() => other.playbackLinks.check('live', 'radio', bound.token, from('192.0.2.8')), code('forbidden'));
  assert.throws(() => other.playbackLinks.check('live', 'radio', bound.token, from('')), code('forbidden'));
  assert.throws(() => check(bound.token.replace('.a.', '.'), from('192.0.2.8')), code('forbidden'), 'the binding cannot be left out');
  assert.throws(() => check(bound.token.replace('.a.', '.c.'), from('192.0.2.8', 'DE')), code('forbidden'));

  const abroad = await issue({ bind: { country: 'AT' } });
  check(abroad.token, from('192.0.2.7', 'AT'));
  assert.throws(() => check(abroad.token, from('192.0.2.7', 'DE')), code('forbidden', /another country/));
  assert.throws(() => check(abroad.token, from('192.0.2.7')), code('forbidden'), 'nobody knows where');
  assert.throws(() => other.playbackLinks.check('live', 'radio', abroad.token, from('192.0.2.7')), code('forbidden'));

  const both = await issue({ bind: { country: 'AT', address: '2001:db8:1:2:3::1' } });
  check(both.token, from('2001:db8:1:2:ffff::9', 'AT'));
  assert.throws(() => check(both.token, from('2001:db8:1:3:3::1', 'AT')), code('forbidden'));
  assert.throws(() => check(both.token, from('2001:db8:1:2:3::1', 'DE')), code('forbidden'));
  await assert.rejects(issue({ bind: { address: '192.0.2' } }), code('bad_request'));
});

test('addresses: an IPv4 address whole, of an IPv6 address the network', () => {
  for (const [address, bound] of [
    ['192.0.2.7', 'c0000207'],
    ['::ffff:192.0.2.7', 'c0000207'],
    ['::ffff:c000:207', 'c0000207'],
    ['2001:db8::1', '20010db800000000'],
    ['2001:DB8:0:0:1::', '20010db800000000'],
    ['1:2:3:4:5:6:7:8', '0001000200030004'],
    ['::', '0000000000000000'],
    ['::1.2.3.4', '0000000000000000'],
    ['', undefined],
    ['192.0.2', undefined],
    ['192.0.2.256', undefined],
    ['fe80::1%eth0', undefined],
    ['unknown', undefined],
  ] as const) {
    assert.equal(boundAddress(address), bound, address);
  }
});

test('how long it may be good', async () => {
  await issue({ expiresInS: MIN_LINK_S });
  await issue({ expiresInS: MAX_LINK_S });
  for (const expiresInS of [MIN_LINK_S - 1, MAX_LINK_S + 1, Number.NaN, -1])
    await assert.rejects(issue({ expiresInS }), code('bad_request'));
});

test('two keys are good at a time: links live through a change, and end with their key', async () => {
  const { playbackKeys } = access;
  const first = await issue();
  await playbackKeys.replace(60_000);
  assert.equal(playbackKeys.list().length, 2);
  const before = await issue();
  assert.equal(parseToken(before.token)?.keyId, parseToken(first.token)?.keyId, 'the new key does not sign yet');
  clock.advance(60_000);
  const second = await issue();
  assert.notEqual(parseToken(second.token)?.keyId, parseToken(first.token)?.keyId);
  check(first.token);
  check(second.token);
  await until(() => other.playbackLinks.admits('live', 'radio', second.token, anybody));

  await playbackKeys.replace(0);
  assert.equal(playbackKeys.list().length, 2);
  assert.throws(() => check(first.token), code('forbidden'), 'verified before, and not any more');
  check(second.token);
  clock.advance(1000);
  await until(() => !other.playbackLinks.admits('live', 'radio', first.token, anybody));
  await playbackKeys.replace(60_000);
  assert.throws(() => check(second.token), code('forbidden'), 'twice in a row ends all');
  check((await issue()).token);
});

test('keys lie sealed in the database, and open to the edge server’s group in a file', async () => {
  const { rows } = await database.query<{ kid: string; sealed_secret: Buffer }>('select kid, sealed_secret from playback_keys');
  const { keys } = access.playbackKeys.export();
  assert.deepEqual(rows.map(({ kid }) => kid).sort(), Object.keys(keys).sort());
  for (const { kid, sealed_secret } of rows) {
    const secret = Buffer.from(keys[kid] ?? '', 'base64url');
    assert.equal(secret.length, 32);
    assert.equal(sealed_secret.indexOf(secret), -1);
    assert.equal(
      access.playbackKeys.list().some((key) => JSON.stringify(key).includes(keys[kid] ?? '')),
      false,
    );
  }
  const file = join(dataDir, 'playback-keys.json');
  assert.deepEqual(JSON.parse(await readFile(file, 'utf8')), { keys });
  assert.equal((await stat(file)).mode & 0o777, 0o640);
  assert.deepEqual(
    (await readdir(dataDir)).filter((name) => name.startsWith('playback-keys')),
    ['playback-keys.json'],
    'nothing unfinished is left',
  );

  const { token } = await issue();
  await access.vault.rotate();
  await access.playbackKeys.load();
  check(token);
  assert.deepEqual(access.playbackKeys.export().keys, keys);
});

test('a place is taken when a link is issued, kept by listening, and free a minute after', async () => {
  const limited = { name: 'small', limit: 2, expiresInS: MAX_LINK_S };
  const one = await issue(limited);
  await issue({ ...limited, listener: 'bob' });
  await assert.rejects(issue(limited), code('busy'));
  await issue({ ...limited, listener: 'bob' });
  await issue({ ...limited, name: 'another' });
  await issue({ ...limited, name: 'small', kind: 'vod' });

  const pass = access.playbackLinks.check('live', 'small', one.token, anybody);
  for (let tick = 0; tick < 4; tick++) {
    access.playbackLinks.seen(pass);
    clock.advance(20_000);
    await access.playbackGrants.flush();
  }
  await issue({ ...limited, listener: 'carol' });
  await assert.rejects(issue(limited), code('busy'), 'the first is there, bob has gone and made room');
  clock.advance(60_000);
  await access.playbackGrants.flush();
  const { rows } = await database.query(`select 1 from playback_grants where scope = 'live/small'`);
  assert.equal(rows.length, 0, 'nothing is kept of who is gone');

  access.playbackLinks.seen(pass);
  await access.playbackGrants.flush();
  await issue({ ...limited, limit: 2 });
  await assert.rejects(issue(limited), code('busy'), 'who comes back takes a place again');
});

test('what is private is known within a second, whichever process said so', async () => {
  const settings = { title: 'Radio', visibility: 'public', recording: true } as const;
  const { channel } = await access.channels.create('hidden', settings);
  const broadcasts = new Broadcasts(database);
  const show = { channelId: channel.id, title: 'Show', recording: true, startedAtMs: clock.wallMs() };
  await broadcasts.insert({ ...show, id: 'show-a', firstNumber: 10 });
  await broadcasts.end('show-a', { endedAtMs: clock.wallMs(), durationMs: 1, lastNumber: 19 });
  await broadcasts.insert({ ...show, id: 'show-b', firstNumber: 20 });
  const rules = other.playbackRules;
  const polled = async (condition: () => boolean) => {
    clock.advance(1000);
    await until(condition);
  };

  await broadcasts.update('show-a', { visibility: 'private' });
  await polled(() => rules.asset('show-a')?.isPrivate === true);
  assert.deepEqual(rules.asset('show-a'), { channel: 'hidden', isPrivate: true, from: 10, to: 19 });
  assert.equal(rules.asset('show-b'), undefined);
  assert.deepEqual(await rules.recording('show-b'), { channel: 'hidden', isPrivate: false, from: 20, to: Number.POSITIVE_INFINITY });
  assert.deepEqual(
    [9, 10, 19, 20].map((number) => rules.isClosedSegment('hidden', number)),
    [false, true, true, false],
  );
  assert.equal(rules.isPrivate('hidden'), false);

  await access.channels.update('hidden', { visibility: 'private' });
  await broadcasts.update('show-a', { visibility: 'public' });
  await polled(() => rules.isPrivate('hidden'));
  await until(() => rules.asset('show-a')?.isPrivate === false);
  assert.equal(rules.asset('show-b')?.isPrivate, true, 'as its channel');

  await access.channels.update('hidden', { visibility: 'public', countriesAllowed: ['DE', 'AT', 'DE'] });
  await polled(() => !rules.isPrivate('hidden') && rules.countries('hidden') !== undefined);
  assert.deepEqual(rules.countries('hidden'), { allowed: ['AT', 'DE'], denied: undefined });
  await access.channels.update('hidden', { countriesDenied: ['US'] });
  await polled(() => rules.countries('hidden')?.allowed === undefined);
  assert.deepEqual(rules.countries('hidden'), { allowed: undefined, denied: ['US'] });
  await access.channels.update('hidden', { countriesDenied: null });
  await polled(() => rules.countries('hidden') === undefined);
  await broadcasts.update('show-a', { visibility: null, title: 'Renamed' });
  assert.equal((await broadcasts.get('show-a'))?.title, 'Renamed');
});

test('what was deleted is not opened by that: until the sweep its files are there', async () => {
  const settings = { title: 'Radio', visibility: 'private', recording: true } as const;
  const { channel } = await access.channels.create('gone', settings);
  const broadcasts = new Broadcasts(database);
  for (const id of ['show-c', 'show-d'])
    await broadcasts.insert({ id, channelId: channel.id, title: 'Show', recording: true, startedAtMs: clock.wallMs(), firstNumber: 0 });
  await broadcasts.delete('show-c');
  await access.channels.delete('gone');
  for (const { playbackRules } of [access, other]) {
    await playbackRules.refresh();
    assert.ok(playbackRules.isDeleted('show-c'));
    assert.ok(playbackRules.isDeleted('show-d'), 'with its channel');
    assert.ok(playbackRules.isPrivate('gone'));
  }
  await assert.rejects(access.channels.create('gone', { ...settings, visibility: 'public' }), code('conflict', /links to it may be good/));
  const endAfter = (scope: string, moreS: number) =>
    database.query(
      `update playback_closed set closed_until = now() where scope = $1 and closed_until > now() + make_interval(secs => $2)`,
      [scope, moreS],
    );
  assert.equal((await endAfter('live/gone', MAX_LINK_S - 60)).rowCount, 1, 'as long as a link can be good');
  await access.channels.create('gone', { ...settings, visibility: 'public' });
  await other.playbackRules.refresh();
  assert.equal(other.playbackRules.isPrivate('gone'), false, 'when no link to the old one can be good');
});

test('segments of a deleted recording are closed under the address of their channel, whoever could hear it', async () => {
  const broadcasts = new Broadcasts(database);
  const show = async (id: string, channelId: string, firstNumber: number, visibility: 'private' | null, isEnded = true) => {
    await broadcasts.insert({ id, channelId, title: 'Show', recording: true, startedAtMs: clock.wallMs(), firstNumber });
    if (isEnded) await broadcasts.end(id, { endedAtMs: clock.wallMs(), durationMs: 1, lastNumber: firstNumber + 9 });
    await broadcasts.update(id, { visibility });
  };
  const settings = { title: 'Radio', visibility: 'public', recording: true } as const;
  const { channel } = await access.channels.create('archive', settings);
  await show('deleted-private', channel.id, 10, 'private');
  await show('deleted-public', channel.id, 20, null);
  await show('kept-public', channel.id, 30, null);
  await show('lost', channel.id, 40, null, false);
  for (const id of ['deleted-private', 'deleted-public', 'lost']) await broadcasts.delete(id);
  const closed = () => [9, 10, 19, 20, 29, 30, 39, 40, 99].filter((number) => other.playbackRules.isClosedSegment('archive', number));
  await other.playbackRules.refresh();
  assert.deepEqual(closed(), [10, 19, 20, 29], 'one that had no end closes nothing that comes after it');
  await access.channels.delete('archive');
  await other.playbackRules.refresh();
  assert.deepEqual(closed(), [10, 19, 20, 29, 30, 39], 'what goes with its channel');
  assert.ok(other.playbackRules.isDeleted('kept-public'));
  await access.channels.create('archive', settings);
  await other.playbackRules.refresh();
  assert.deepEqual(closed(), [10, 19, 20, 29, 30, 39], 'and stays closed whoever has the slug now');
});

test('country rules fail closed, and codes are what ISO has assigned', async () => {
  assert.equal(new Set(COUNTRIES).size, 249);
  for (const [given, code] of [
    ['de', 'DE'],
    [' AT ', 'AT'],
    ['XX', undefined],
    ['T1', undefined],
    ['EU', undefined],
    ['DEU', undefined],
    ['', undefined],
    ['DE, US', undefined],
    [undefined, undefined],
  ] as const)
    assert.equal(countryOf(given), code, given);
  const allowed = { allowed: ['DE'], denied: undefined };
  const denied = { allowed: undefined, denied: ['US'] };
  assert.deepEqual([admitsCountry(allowed, 'DE'), admitsCountry(allowed, 'AT'), admitsCountry(allowed, undefined)], [true, false, false]);
  assert.deepEqual([admitsCountry(denied, 'DE'), admitsCountry(denied, 'US'), admitsCountry(denied, undefined)], [true, false, false]);
  assert.equal(admitsCountry({ allowed: undefined, denied: undefined }, undefined), true);

  await access.channels.create('rules', { title: 'Radio', visibility: 'public', recording: true });
  for (const wrong of [
    { countriesAllowed: ['DE'], countriesDenied: ['US'] },
    { countriesAllowed: [] },
    { countriesDenied: ['de'] },
    { countriesAllowed: ['XX'] },
  ])
    await assert.rejects(access.channels.update('rules', wrong), code('bad_request'), JSON.stringify(wrong));
});

test('CloudFront: one address has a canned policy, many a custom one; both are signed as it checks them', () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = { keyPairId: 'K2JCJMDEHXQW5F', privateKey };
  const expiresAtMs = Date.UTC(2030, 0, 1) + 999;
  const epoch = Date.UTC(2030, 0, 1) / 1000;
  const decoded = (text: string) => Buffer.from(text.replaceAll('-', '+').replaceAll('_', '=').replaceAll('~', '/'), 'base64');
  const verifies = (policy: string, signature: string) => createVerify('RSA-SHA1').update(policy).verify(publicKey, decoded(signature));

  const canned = cloudFrontCookies(key, { resource: 'https://cdn.example/a.mp3', expiresAtMs });
  assert.deepEqual(
    canned.map(({ name }) => name),
    ['CloudFront-Expires', 'CloudFront-Signature', 'CloudFront-Key-Pair-Id'],
  );
  const policy = `{"Statement":[{"Resource":"https://cdn.example/a.mp3","Condition":{"DateLessThan":{"AWS:EpochTime":${epoch}}}}]}`;
  assert.equal(canned[0]?.value, String(epoch));
  assert.ok(verifies(policy, canned[1]!.value));
  assert.equal(canned[2]?.value, 'K2JCJMDEHXQW5F');

  const custom = cloudFrontCookies(key, { resource: 'https://cdn.example/live/radio/*', expiresAtMs, address: '192.0.2.7' });
  assert.deepEqual(
    custom.map(({ name }) => name),
    ['CloudFront-Policy', 'CloudFront-Signature', 'CloudFront-Key-Pair-Id'],
  );
  const text = decoded(custom[0]!.value).toString();
  assert.deepEqual(JSON.parse(text), {
    Statement: [
      {
        Resource: 'https://cdn.example/live/radio/*',
        Condition: { DateLessThan: { 'AWS:EpochTime': epoch }, IpAddress: { 'AWS:SourceIp': '192.0.2.7' } },
      },
    ],
  });
  assert.ok(verifies(text, custom[1]!.value));
  assert.equal(verifies(text.replace('radio', 'other'), custom[1]!.value), false);
  for (const { value } of [...canned, ...custom]) assert.match(value, /^[A-Za-z0-9_~-]+$/);
});

test('recordings that strangers ask for: one query at a time, and none twice', async () => {
  const settings = { title: 'Radio', visibility: 'public', recording: true } as const;
  const { channel } = await access.channels.create('sought', settings);
  const broadcasts = new Broadcasts(database);
  await broadcasts.insert({ id: 'sought-1', channelId: channel.id, title: 'Show', recording: true, startedAtMs: 0, firstNumber: 1 });
  const asked: (readonly string[])[] = [];
  let underWay = 0;
  let most = 0;
  const counted: Database = {
    ...database,
    async query(sql: string, values: readonly unknown[] = []) {
      const isLookUp = sql.includes('b.id = any');
      if (isLookUp) {
        asked.push(values[0] as string[]);
        most = Math.max(most, ++underWay);
      }
      return database.query(sql, values).finally(() => {
        if (isLookUp) underWay--;
      }) as never;
    },
  };
  const rules = new PlaybackRules({
    database: counted,
    channels: access.channels,
    clock: new SystemClock(),
    log: silentLog,
    alsoReload: async () => {},
  });
  const unknown = Array.from({ length: 1000 }, (_, index) => `unknown-${index}`);
  const found = await Promise.all([...unknown, 'sought-1'].map((id) => rules.recording(id)));
  assert.deepEqual(found.filter(Boolean), [{ channel: 'sought', isPrivate: false, from: 1, to: Number.POSITIVE_INFINITY }]);
  assert.equal(most, 1);
  assert.ok(asked.length <= 6, `${asked.length} queries`);
  const before = asked.length;
  await Promise.all([...unknown, 'sought-1'].map((id) => rules.recording(id)));
  for (const id of ['UPPER', 'a'.repeat(65), '../x', 'a b', '']) assert.equal(await rules.recording(id), undefined);
  assert.equal(asked.length, before, 'neither what is known, nor what is no id');
  // Whatever strangers ask for, what is there stays remembered.
  for (let i = 0; i < 11_000; i += 1000)
    await Promise.all(Array.from({ length: 1000 }, (_, index) => rules.recording(`flood-${i + index}`)));
  const after = asked.length;
  assert.equal((await rules.recording('sought-1'))?.channel, 'sought');
  assert.equal(asked.length, after);
});
