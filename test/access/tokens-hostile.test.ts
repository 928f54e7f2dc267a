import assert from 'node:assert/strict';
import { createHmac, createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { AccessTokens } from '../../src/access/tokens/access-tokens.js';
import { gatewayTokens, issuerTokens } from '../../src/access/tokens/gateway-tokens.js';
import { VerifiedTokens } from '../../src/access/tokens/jwt.js';
import { RemoteKeys } from '../../src/access/tokens/remote-keys.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { client, json64, OURS, parts, SECRET, THEIRS, type TokenWorld, tokenWorld } from './token-world.js';

let world: TokenWorld;
let { ourToken, theirToken, gatewayToken, verified, refused, nowS } = {} as TokenWorld;
/** Of our own making and good; the tests spoil it. */
let token: string;
let sid: string;
before(async () => {
  world = await tokenWorld();
  ({ ourToken, theirToken, gatewayToken, verified, refused, nowS } = world);
});
after(() => world.stop());
beforeEach(async () => {
  ({ accessToken: token, sessionId: sid } = await world.begin());
});

const unauthorized = (error: unknown) => error instanceof VezaError && error.code === 'unauthorized';
const hmac = (signed: string, key: string | Buffer, hash = 'sha256') => createHmac(hash, key).update(signed).digest('base64url');

test('what the tests spoil is good', async () => {
  assert.equal((await verified(token)).id, `account:${world.accountId}`);
  assert.equal((await verified(await ourToken(sid))).id, `account:${world.accountId}`);
  assert.equal((await verified(await theirToken())).kind, 'gateway');
  assert.equal((await verified(await gatewayToken())).id, 'gateway:user-1');
});

test('algorithm: none, however it is spelt', async () => {
  const [header, payload] = parts(token);
  for (const alg of ['none', 'None', 'NONE', 'nOnE', '', null, undefined, 0, ['EdDSA'], { toString: 'EdDSA' }]) {
    const head = `${json64({ ...header, alg })}.${json64(payload)}`;
    await refused(`${head}.`, `${JSON.stringify(alg)} without a signature`);
    await refused(`${head}.${token.split('.')[2]}`, `${JSON.stringify(alg)} with the old one`);
  }
  const [, claims] = parts(await gatewayToken());
  await refused(`${json64({ alg: 'none' })}.${json64(claims)}.`, 'of the gateway');
  const [, theirClaims] = parts(await theirToken());
  await refused(`${json64({ alg: 'none', kid: 'rsa' })}.${json64(theirClaims)}.`, 'of the other issuer');
});

test('algorithm: HMAC with a public key as the secret', async () => {
  const [header, payload] = parts(token);
  const jwk = world.access.signingKeys.keySet().keys.at(-1)!;
  const publicKey = createPublicKey({ key: jwk as never, format: 'jwk' });
  const spki = publicKey.export({ format: 'pem', type: 'spki' });
  const secrets: (string | Buffer)[] = [
    spki,
    spki.toString().trim(),
    publicKey.export({ format: 'der', type: 'spki' }),
    Buffer.from(jwk.x!, 'base64url'),
    jwk.x!,
    JSON.stringify(jwk),
    '',
    SECRET,
  ];
  for (const [alg, hash] of [
    ['HS256', 'sha256'],
    ['HS384', 'sha384'],
    ['HS512', 'sha512'],
  ] as const) {
    const head = `${json64({ ...header, alg })}.${json64(payload)}`;
    for (const secret of secrets) await refused(`${head}.${hmac(head, secret, hash)}`, `${alg} ${String(secret).slice(0, 20)}`);
  }
  // The same against the other issuer, whose key is RSA: the classic.
  const pem = createPublicKey({ key: (await exportJWK(world.rsa.publicKey)) as never, format: 'jwk' }).export({
    format: 'pem',
    type: 'spki',
  });
  const [, theirs] = parts(await theirToken());
  for (const kid of ['rsa', 'oct', 'hmac', 'ec']) {
    const head = `${json64({ alg: 'HS256', kid })}.${json64(theirs)}`;
    for (const secret of [pem, SECRET, '']) await refused(`${head}.${hmac(head, secret)}`, `${kid} as HMAC`);
  }
});

test('algorithm: what the header says never chooses the key or the check', async () => {
  const [header, payload] = parts(token);
  for (const alg of ['RS256', 'PS256', 'ES256', 'ES384', 'Ed25519', 'ML-DSA-44', 'dir', 'A256GCM'])
    await refused(`${json64({ ...header, alg })}.${json64(payload)}.${token.split('.')[2]}`, alg);
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const { kid } = header as { kid: string };
  await refused(
    await new SignJWT(payload).setProtectedHeader({ alg: 'RS256', kid, typ: 'at+jwt' }).sign(privateKey),
    'RS256 under our key id',
  );
  await refused(await theirToken({ alg: 'PS256' }, {}, world.anyRsa), 'a key for RS256 with PS256');
  await refused(await theirToken({ alg: 'RS512' }, {}, world.anyRsa), 'a key for RS256 with RS512');
  await refused(await theirToken({ alg: 'ES256', kid: 'rsa' }, {}, world.ec.privateKey), 'ES256 under the id of an RSA key');
  await refused(await theirToken({ kid: 'ec' }), 'RS256 under the id of an EC key');
  await refused(await theirToken({ kid: 'enc' }), 'a key for encryption');
  await refused(await theirToken({ kid: 'hmac' }), 'a key that is for something else');
  await refused(await gatewayToken({}, SECRET, 'HS384'), 'HS384 for the gateway');
  await refused(await gatewayToken({}, SECRET, 'HS512'), 'HS512 for the gateway');
});

test('a header that is none, or asks for what nobody knows', async () => {
  for (const made of [await gatewayToken(), await theirToken()]) {
    const [, payload, signature] = made.split('.') as [string, string, string];
    for (const header of ['x', 'bnVsbA', 'W10', Buffer.from('{"alg"').toString('base64url')])
      await refused(`${header}.${payload}.${signature}`, header);
  }
  const claims = json64(parts(await gatewayToken())[1]);
  for (const header of [{ alg: 'none' }, { alg: 'HS256', crit: ['exp'], exp: 1 }, { alg: 'HS256', crit: ['b64'], b64: false }, {}]) {
    const head = `${json64(header)}.${claims}`;
    await refused(`${head}.${hmac(head, SECRET)}`, JSON.stringify(header));
    await refused(`${head}.`, `${JSON.stringify(header)}, no signature`);
  }
});

test('time: expired, not yet, without an end', async () => {
  await refused(await ourToken(sid, {}, { exp: nowS() }), 'expired now');
  await refused(await ourToken(sid, {}, { exp: nowS() - 3600 }), 'expired');
  await refused(await ourToken(sid, {}, { nbf: nowS() + 60 }), 'not yet');
  for (const exp of [undefined, null, '9999999999', -1, Number.MAX_VALUE, 1.5e300])
    await refused(await ourToken(sid, {}, { exp }), `exp ${exp}`);
  world.clock.advance(15 * 60_000);
  await refused(token, 'after fifteen minutes, though it was verified before');
  await refused(await gatewayToken({ exp: nowS() - 11 }), 'expired');
  await verified(await gatewayToken({ exp: nowS() - 9 }));
  await refused(await gatewayToken({ exp: undefined }), 'without an end');
  await refused(await gatewayToken({ nbf: nowS() + 60 }), 'not yet');
  await refused(await theirToken({}, { exp: nowS() - 11 }), 'expired');
  await refused(await theirToken({}, { exp: undefined }), 'without an end');
});

test('a token is good for its issuer, its audience and its type alone', async () => {
  await refused(await ourToken(sid, {}, { aud: 'other' }), 'audience');
  await refused(await ourToken(sid, {}, { aud: undefined }), 'no audience');
  await refused(await ourToken(sid, {}, { iss: 'https://other.example' }), 'an issuer that nobody knows');
  await refused(await ourToken(sid, {}, { iss: undefined }), 'no issuer');
  for (const iss of [[OURS], { [OURS]: 1 }, 0, true, null, `${OURS}/`, OURS.toUpperCase()])
    await refused(await ourToken(sid, {}, { iss }), `iss ${iss}`);
  for (const typ of ['JWT', 'id+jwt', undefined, 'refresh+jwt']) await refused(await ourToken(sid, { typ }), `typ ${typ}`);
  await refused(await theirToken({}, { aud: 'another-app' }), 'a token of the other issuer for somebody else');
  await refused(await theirToken({}, { aud: undefined }), 'for nobody');
  await refused(await gatewayToken({ aud: 'veza' }), 'our own audience is not the gateway’s');
});

test('a token of one issuer is none of another', async () => {
  await refused(await ourToken(sid, {}, { iss: 'gateway', aud: 'veza-gateway' }), 'ours as the gateway’s');
  await refused(await ourToken(sid, {}, { iss: THEIRS, aud: 'veza-app' }), 'ours as theirs');
  await refused(await gatewayToken({ iss: OURS, aud: 'veza', sid, amr: [] }), 'the gateway’s as ours');
  await refused(await gatewayToken({ iss: THEIRS, aud: 'veza-app' }), 'the gateway’s as theirs');
  const { kid } = parts(token)[0];
  await refused(await theirToken({ kid, typ: 'at+jwt' }, { iss: OURS, aud: 'veza', sub: world.accountId, sid, amr: [] }), 'theirs as ours');
  await refused(await theirToken({}, { iss: 'gateway', aud: 'veza-gateway' }), 'theirs as the gateway’s');
  await refused(await theirToken({}, { iss: [THEIRS, OURS] }), 'of two');
  const alone = await world.open({ jwtSecret: undefined, authJwksUrl: undefined });
  await refused(await gatewayToken(), 'nobody has asked for a gateway', alone);
  await refused(await gatewayToken({}, ''.padEnd(32, '0')), 'nor for this one', alone);
  await refused(await theirToken(), 'nor for another issuer', alone);
  await alone.stop();
});

test('each verifier asks for its issuer itself, whoever hands it a token', async () => {
  const rules = { clock: world.clock, privilegedRoles: false };
  const keys = new RemoteKeys({ url: world.jwksUrl, clock: world.clock, log: silentLog });
  const ours = new AccessTokens({ keys: world.access.signingKeys, issuer: OURS, clock: world.clock, isEnded: () => false });
  const gateway = gatewayTokens({ ...rules, secret: SECRET, audience: 'veza-gateway' });
  const theirs = issuerTokens({ ...rules, keys, issuer: THEIRS, audience: 'veza-app', roleClaim: 'role' });
  await ours.verify(await ourToken(sid));
  await gateway(await gatewayToken());
  await theirs(await theirToken());
  await assert.rejects(ours.verify(await ourToken(sid, {}, { iss: THEIRS })), unauthorized);
  await assert.rejects(gateway(await gatewayToken({ iss: THEIRS })), unauthorized);
  await assert.rejects(theirs(await theirToken({}, { iss: OURS })), unauthorized);
});

test('key ids are looked up, not resolved; keys in a header are nobody’s', async () => {
  const asked = world.issuer.requests;
  for (const kid of [
    '../../../../dev/null',
    '/proc/self/environ',
    "x' union select 'a' --",
    '__proto__',
    'constructor',
    'hasOwnProperty',
    'toString',
    '',
    `${world.jwksUrl}`,
    'x'.repeat(4000),
    '\0',
    null,
    0,
    {},
    [parts(token)[0].kid],
  ]) {
    await refused(await ourToken(sid, { kid }, {}), `kid ${String(kid).slice(0, 30)}`);
    const [, claims] = parts(await theirToken());
    await refused(`${json64({ alg: 'RS256', kid })}.${json64(claims)}.AAAA`, `their kid ${String(kid).slice(0, 30)}`);
  }
  assert.ok(world.issuer.requests - asked <= 1, 'and none of them sends a request');

  const stranger = await generateKeyPair('EdDSA', { extractable: true });
  const jwk = { ...(await exportJWK(stranger.publicKey)), alg: 'EdDSA', use: 'sig' };
  const [header, payload] = parts(token);
  for (const more of [
    { jwk },
    { jku: `${world.jwksUrl}?evil` },
    { x5u: `${world.jwksUrl}?evil` },
    { x5c: ['AAAA'] },
    { jwk, jku: world.jwksUrl, kid: undefined },
    { kid: 'stranger', jwk: { ...jwk, kid: 'stranger' } },
  ])
    await refused(
      await new SignJWT(payload).setProtectedHeader({ ...header, ...more } as never).sign(stranger.privateKey),
      Object.keys(more).join(),
    );
  assert.ok(world.issuer.requests - asked <= 1);
  await refused(await ourToken(sid, { crit: ['exp'], exp: nowS() + 900 }, {}), 'what must be understood and is not');
  await refused(await ourToken(sid, { crit: ['b64'], b64: false }, {}), 'a payload that is not encoded');
});

test('every bit counts', async () => {
  const [head, payload, signature] = token.split('.') as [string, string, string];
  const flip = (part: string, bit: number) => {
    const bytes = Buffer.from(part, 'base64url');
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    return bytes.toString('base64url');
  };
  for (let bit = 0; bit < 512; bit++) await refused(`${head}.${payload}.${flip(signature, bit)}`, `signature, bit ${bit}`);
  for (let bit = 0; bit < Buffer.from(payload, 'base64url').length * 8; bit += 7)
    await refused(`${head}.${flip(payload, bit)}.${signature}`, `payload, bit ${bit}`);
  for (let bit = 0; bit < Buffer.from(head, 'base64url').length * 8; bit += 7)
    await refused(`${flip(head, bit)}.${payload}.${signature}`, `header, bit ${bit}`);
  const [, claims] = parts(token);
  await refused(`${head}.${json64({ ...claims, role: 'admin', sub: randomUUID() })}.${signature}`, 'another subject');
  for (const spoilt of [
    `${head}.${payload}`,
    `${head}.${payload}.`,
    `${head}..${signature}`,
    `.${payload}.${signature}`,
    `${token}.`,
    `${token}.x`,
    `${token}=`,
    ` ${token}`,
    `${head}.${payload}.${signature}AAAA`,
  ])
    await refused(spoilt, spoilt.slice(-20));
});

test('claims that our own key would never have signed are refused as well', async () => {
  for (const claims of [
    { sub: 'admin-token' },
    { sub: undefined },
    { sub: '' },
    { sid: undefined },
    { sid: 'x' },
    { sid: { toString: 'x' } },
    { role: 'owner' },
    { role: ['admin'] },
    { role: undefined },
    { amr: 'otp' },
    { name: 7 },
    { iat: undefined },
  ])
    await refused(await ourToken(sid, {}, claims), JSON.stringify(claims));
});

test('a huge token is refused before anything is made of it', async () => {
  await refused(`${json64({ alg: 'EdDSA', x: 'x'.repeat(1e6) })}.${json64({ iss: OURS })}.AAAA`, 'header');
  await refused(`${json64({ alg: 'EdDSA' })}.${json64({ iss: OURS, x: 'x'.repeat(1e6) })}.AAAA`, 'payload');
  await refused(await gatewayToken({ x: 'x'.repeat(8192) }), 'rightly signed, and too long');
  await refused(`${json64({ alg: 'HS256' })}.${Buffer.from('['.repeat(4000)).toString('base64url')}.AAAA`, 'deep');
});

test('an ended session is over, though its token is verified and remembered', async () => {
  await verified(token);
  await world.access.sessions.end(sid);
  await refused(token, 'ended');
  await refused(await ourToken(sid), 'another token of it');
});

test('a refresh token is no access token, and the reverse', async () => {
  const { refreshToken, accessToken } = await world.access.sessions.begin({ accountId: world.accountId, amr: ['pwd'], client });
  await refused(refreshToken, 'refresh token as access token');
  await assert.rejects(world.access.sessions.refresh(accessToken), unauthorized);
  assert.equal(await world.access.sessions.endByToken(accessToken), undefined);
  await verified(accessToken);
});

test('a key that was thrown away takes its tokens along, verified or not', async () => {
  await verified(token);
  const other = await ourToken(sid);
  await world.access.signingKeys.rotate({ revoke: true });
  await refused(token, 'verified before');
  await refused(other, 'not verified before');
  const { accessToken } = await world.access.sessions.begin({ accountId: world.accountId, amr: ['pwd'], client });
  await verified(accessToken);
});

test('what is remembered of verified tokens is bounded', async () => {
  const remembered = new VerifiedTokens<{ untilMs: number }>(100);
  for (let i = 0; i < 1000; i++) remembered.put(`token-${i}`, { untilMs: 10 });
  assert.equal(remembered.size, 100);
  assert.ok(remembered.get('token-999', 9));
  assert.equal(remembered.get('token-999', 10), undefined);
  assert.equal(remembered.get('token-0', 9), undefined);
});
