import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { after, before, test } from 'node:test';
import { exportJWK, generateKeyPair } from 'jose';
import type { Access } from '../../src/access/access.js';
import { type TokenWorld, tokenWorld } from './token-world.js';

let world: TokenWorld;
let { theirToken, gatewayToken, verified, refused, unavailable } = {} as TokenWorld;
before(async () => {
  world = await tokenWorld();
  ({ theirToken, gatewayToken, verified, refused, unavailable } = world);
});
after(() => world.stop());

test('subjects of different issuers are different people', async () => {
  const ids = [
    (await verified(await gatewayToken({ sub: world.accountId }))).id,
    (await verified(await theirToken({}, { sub: world.accountId }))).id,
    (await verified((await world.begin()).accessToken)).id,
    (await verified(await gatewayToken({ sub: `account:${world.accountId}` }))).id,
  ];
  assert.equal(new Set(ids).size, 4);
  for (const by of [gatewayToken, (claims: object) => theirToken({}, claims)]) {
    const principal = await verified(await by({ sub: world.accountId }));
    assert.equal(principal.accountId, undefined, 'and none of them has an account here');
    assert.equal(principal.sessionId, undefined);
    for (const sub of ['', undefined, 7, 'a\nb', 'a\u0000', '\ud800', 'x'.repeat(256), { a: 1 }, [world.accountId]])
      await refused(await by({ sub }), `sub ${sub}`);
  }
  for (const sub of ['Ann Lee', ' x ', 'a/b?c#d%e', '😀'.repeat(255)])
    assert.equal((await verified(await gatewayToken({ sub }))).id, `gateway:${sub}`);
  const { name } = await verified(await gatewayToken({ name: `a\n${'é'.repeat(500)}` }));
  assert.equal([...name].length, 100);
  assert.equal((await verified(await gatewayToken({ name: { a: 1 } }))).name, '');
});

test('privileges come from outside only when they are wanted, and with a second factor', async () => {
  const trusting = await world.open({ authPrivilegedRoles: true });
  const role = async (by: Access, claims: object) => (await verified(await gatewayToken(claims), by)).role;
  for (const privileged of ['moderator', 'admin']) {
    for (const amr of [undefined, [], ['pwd'], 'otp', { otp: true }, ['pwd', 'kba']])
      assert.equal(await role(trusting, { role: privileged, amr }), 'broadcaster', JSON.stringify(amr));
    for (const amr of [['pwd', 'otp'], ['mfa'], ['hwk']]) {
      assert.equal(await role(trusting, { role: privileged, amr }), privileged);
      assert.equal(await role(world.access, { role: privileged, amr }), 'broadcaster', 'not configured');
    }
  }
  for (const [given, taken] of [
    ['listener', 'listener'],
    ['broadcaster', 'broadcaster'],
    ['owner', 'listener'],
    ['ADMIN', 'listener'],
    [undefined, 'listener'],
    [{ admin: true }, 'listener'],
    [['listener', 'broadcaster'], 'broadcaster'],
    ['__proto__', 'listener'],
  ])
    assert.equal(await role(trusting, { role: given, amr: ['mfa'] }), taken, JSON.stringify(given));
  const theirs = async (claims: object) => (await verified(await theirToken({}, { amr: ['mfa'], ...claims }), trusting)).role;
  assert.equal(await theirs({ realm_access: { roles: ['offline_access', 'moderator'] } }), 'moderator');
  assert.equal(await theirs({ 'realm_access.roles': 'admin' }), 'admin', 'a claim of that very name');
  assert.equal(await theirs({ role: 'admin' }), 'listener', 'not the claim that was configured');
  assert.equal(await theirs({ realm_access: 'admin' }), 'listener');
  const inherited = await world.open({ authPrivilegedRoles: true, authRoleClaim: '__proto__.role' });
  assert.equal((await verified(await theirToken({}, { role: 'admin', amr: ['mfa'] }), inherited)).role, 'listener');
});

test('the other issuer’s keys: cached, asked for again when one is new, used on while it is away', async () => {
  const fresh = await world.open();
  const good = await theirToken({}, { exp: world.nowS() + 7200 });
  const asked = world.issuer.requests;
  await Promise.all(Array.from({ length: 50 }, async () => verified(await theirToken(), fresh)));
  assert.equal(world.issuer.requests - asked, 1, 'fifty at once ask once');
  await verified(good, fresh);
  for (let i = 0; i < 20; i++) await refused(await theirToken({ kid: `unknown-${i}` }), 'unknown', fresh);
  assert.equal(world.issuer.requests - asked, 1, 'within the cool-down nobody makes us ask');
  const added = await generateKeyPair('ES384', { extractable: true });
  world.issuer.keys.push({ ...(await exportJWK(added.publicKey)), kid: 'added' });
  world.clock.advance(10_000);
  await verified(await theirToken({ alg: 'ES384', kid: 'added' }, {}, added.privateKey), fresh);
  assert.equal(world.issuer.requests - asked, 2);

  world.issuer.answer = (res) => res.writeHead(500).end();
  world.clock.advance(11 * 60_000);
  await verified(await theirToken(), fresh);
  world.clock.advance(50 * 60_000);
  await unavailable(await theirToken(), 'after an hour nobody knows whether they are good', fresh);
  world.issuer.answer = (res) => res.end(JSON.stringify({ keys: world.issuer.keys.slice(1) }));
  world.clock.advance(10_000);
  await refused(await theirToken(), 'thrown away by its issuer', fresh);
  await refused(good, 'also what was verified before', fresh);
  world.issuer.answer = (res) => res.end(JSON.stringify({ keys: world.issuer.keys }));
});

test('the other issuer’s answer may be anything', async () => {
  for (const [what, answer] of Object.entries<(res: ServerResponse, path: string) => void>({
    'no JSON': (res) => res.end('<html>'),
    'an error with keys that are good': (res) => res.writeHead(500).end(JSON.stringify({ keys: world.issuer.keys })),
    'no keys': (res) => res.end('{}'),
    'keys that are none': (res) => res.end('{"keys":[null,7,"x"]}'),
    'too long': (res) => {
      res.write('{"keys":[');
      const more = () => {
        while (res.write(' '.repeat(65_536)));
        res.once('drain', more);
      };
      more();
    },
    'a redirect to keys that are good': (res, path) =>
      path === '/keys' ? res.writeHead(302, { location: '/elsewhere' }).end() : res.end(JSON.stringify({ keys: world.issuer.keys })),
    'cut off': (res) => {
      res.writeHead(200, { 'content-length': 1000 });
      res.write('{');
      res.destroy();
    },
    slow: () => world.clock.advance(5000),
  })) {
    world.issuer.answer = answer;
    const fresh = await world.open();
    await unavailable(await theirToken(), what, fresh);
  }
  world.issuer.answer = (res) =>
    res.end(JSON.stringify({ keys: Array.from({ length: 200 }, (_, i) => ({ ...world.issuer.keys[0], kid: `${i}` })) }));
  const many = await world.open();
  await verified(await theirToken({ kid: '99' }), many);
  await refused(await theirToken({ kid: '100' }), 'of very many keys a hundred count', many);
});
