import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createPrivateKey, createSign, randomBytes, randomUUID, X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { MAX_PASSKEYS, Passkeys } from '../../src/access/second-factor/passkeys.js';
import { openVault, type Vault } from '../../src/access/vault.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { cbor, SoftAuthenticator } from '../support/authenticator.js';
import { openTestDatabase } from '../support/database.js';
import { ensurePackages } from '../support/packages.js';

const ORIGIN = 'https://radio.example';
let dataDir: string;
let database: Database;
let clock: FakeClock;
let vault: Vault;
let passkeys: Passkeys;
before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'veza-passkeys-'));
  database = await openTestDatabase();
  clock = new FakeClock();
  vault = await openVault({ database, masterKey: randomBytes(32), clock, log: silentLog });
  passkeys = new Passkeys({ database, vault, clock, log: silentLog, publicUrl: `${ORIGIN}/somewhere`, serviceName: 'Veza' });
});
after(async () => {
  vault.stop();
  await database.stop();
  await rm(dataDir, { recursive: true });
});

async function newAccount() {
  const id = randomUUID();
  await database.query('insert into accounts (id, email, email_key, name) values ($1, $2, $2, $3)', [id, `${id}@example.org`, 'Ada']);
  return { id, email: `${id}@example.org`, name: 'Ada' };
}

/** An account with a passkey in an authenticator of its own. */
async function registered(authenticator = new SoftAuthenticator({ origin: ORIGIN, counting: true })) {
  const account = await newAccount();
  const options = await passkeys.registration(account);
  const passkey = await passkeys.register(account.id, 'key', authenticator.create(options));
  return { account, authenticator, passkey };
}

test('a passkey is registered, and signs in by itself', async () => {
  const account = await newAccount();
  const options = await passkeys.registration(account);
  assert.equal(options.rp.id, 'radio.example');
  assert.deepEqual(options.authenticatorSelection, { residentKey: 'required', userVerification: 'required', requireResidentKey: true });
  assert.equal(options.attestation, 'none');
  assert.ok(!Buffer.from(options.user.id, 'base64url').includes('Ada'));
  const authenticator = new SoftAuthenticator({ origin: ORIGIN, counting: true });
  const passkey = await passkeys.register(account.id, 'My key', authenticator.create(options));
  assert.equal(passkey.id, authenticator.id);
  assert.deepEqual(
    (await passkeys.list(account.id)).map(({ name, lastUsedAtMs }) => ({ name, lastUsedAtMs })),
    [{ name: 'My key', lastUsedAtMs: undefined }],
  );
  assert.deepEqual(
    (await passkeys.registration(account)).excludeCredentials?.map(({ id }) => id),
    [authenticator.id],
    'it is not registered twice',
  );
  const { options: asked, challengeId } = await passkeys.signIn();
  assert.equal(asked.userVerification, 'required');
  assert.deepEqual(asked.allowCredentials ?? [], [], 'nobody has said who he is');
  assert.equal(await passkeys.verify(challengeId, authenticator.get(asked)), account.id);
  assert.equal((await passkeys.list(account.id))[0]!.lastUsedAtMs, clock.wallMs());

  await assert.rejects(passkeys.delete(randomUUID(), passkey.id), { code: 'not_found' }, 'somebody else’s');
  await passkeys.delete(account.id, passkey.id);
  const again = await passkeys.signIn();
  assert.equal(await passkeys.verify(again.challengeId, authenticator.get(again.options)), undefined);
});

test('a challenge is good once, for five minutes, for what it was made, and made here', async () => {
  const { account, authenticator } = await registered();
  const asked = await passkeys.signIn();
  const answer = authenticator.get(asked.options);
  assert.equal(await passkeys.verify(asked.challengeId, answer), account.id);
  assert.equal(await passkeys.verify(asked.challengeId, answer), undefined, 'again');

  const late = await passkeys.signIn();
  clock.advance(5 * 60_000);
  assert.equal(await passkeys.verify(late.challengeId, authenticator.get(late.options)), undefined, 'late');

  const one = await passkeys.signIn();
  const other = await passkeys.signIn();
  assert.equal(await passkeys.verify(other.challengeId, authenticator.get(one.options)), undefined, 'of another request');
  const registration = await passkeys.registration(account);
  assert.equal(
    await passkeys.verify(one.challengeId, authenticator.get({ challenge: registration.challenge })),
    undefined,
    'of a registration',
  );
  for (const challenge of ['', 'x', randomBytes(57).toString('base64url'), one.options.challenge.slice(0, -2)])
    assert.equal(await passkeys.verify(one.challengeId, authenticator.get({ challenge })), undefined, 'not ours');
});

test('a challenge is used up by its bytes, however they are written', async () => {
  // Without a counter nothing else would notice.
  const { account, authenticator } = await registered(new SoftAuthenticator({ origin: ORIGIN, counting: false }));
  const { options, challengeId } = await passkeys.signIn();
  assert.equal(await passkeys.verify(challengeId, authenticator.get(options)), account.id);
  assert.equal(await passkeys.verify(challengeId, authenticator.get({ challenge: `${options.challenge}=` })), undefined);
  assert.equal(await passkeys.verify(challengeId, authenticator.get(options)), undefined);
});

test('asking for a challenge keeps nothing, and what was used is forgotten when it has ended', async () => {
  const rows = async () => (await database.query('select 1 from used_challenges')).rows.length;
  const { authenticator } = await registered();
  const before = await rows();
  for (let i = 0; i < 20; i++) await passkeys.signIn();
  assert.equal(await rows(), before);
  clock.advance(5 * 60_000);
  const { options, challengeId } = await passkeys.signIn();
  assert.ok(await passkeys.verify(challengeId, authenticator.get(options)));
  assert.equal(await rows(), 1);
});

test('another origin, another host, no finger on it, a wrong signature, another key: nobody', async () => {
  const { account, authenticator } = await registered();
  const tried = async (change: Parameters<SoftAuthenticator['get']>[1]) => {
    const { options, challengeId } = await passkeys.signIn();
    return passkeys.verify(challengeId, authenticator.get(options, change));
  };
  assert.equal(await tried({}), account.id);
  assert.equal(await tried({ origin: 'https://evil.example' }), undefined);
  assert.equal(await tried({ origin: 'http://radio.example' }), undefined);
  assert.equal(await tried({ rpId: 'evil.example' }), undefined);
  assert.equal(await tried({ userVerified: false }), undefined);
  assert.equal(await tried({ type: 'webauthn.create' }), undefined);
  assert.equal(await tried({ spoilSignature: true }), undefined);
  assert.equal(await tried({ userHandle: randomBytes(16).toString('base64url') }), undefined);
  const { authenticator: another } = await registered();
  assert.equal(await tried({ signWith: another }), undefined);
  assert.equal(await tried({}), account.id, 'and it is still good');
});

test('a counter that goes back, or stands still, is a copy', async () => {
  const { account, authenticator } = await registered();
  const tried = async (counter: number) => {
    const { options, challengeId } = await passkeys.signIn();
    return passkeys.verify(challengeId, authenticator.get(options, { counter }));
  };
  assert.equal(await tried(10), account.id);
  assert.equal(await tried(10), undefined);
  assert.equal(await tried(9), undefined);
  assert.equal(await tried(0), undefined);
  assert.equal(await tried(11), account.id);
  const answers = await Promise.all([tried(12), tried(12), tried(12)]);
  assert.equal(answers.filter(Boolean).length, 1, 'of several at once one');
});

test('an authenticator that does not count is let in each time', async () => {
  const { account, authenticator } = await registered(new SoftAuthenticator({ origin: ORIGIN, counting: false }));
  for (let i = 0; i < 3; i++) {
    const { options, challengeId } = await passkeys.signIn();
    assert.equal(await passkeys.verify(challengeId, authenticator.get(options)), account.id);
  }
});

test('a registration is for the account that asked, once, with the user verified, on our origin', async () => {
  const account = await newAccount();
  const other = await newAccount();
  const authenticator = new SoftAuthenticator({ origin: ORIGIN, counting: true });
  const refused = async (accountId: string, change: Parameters<SoftAuthenticator['create']>[1], hint: string) =>
    assert.rejects(
      passkeys.register(accountId, 'key', authenticator.create(await passkeys.registration(account), change)),
      { code: 'bad_request' },
      hint,
    );
  await refused(other.id, {}, 'another account');
  await refused(account.id, { origin: 'https://evil.example' }, 'another origin');
  await refused(account.id, { rpId: 'evil.example' }, 'another host');
  await refused(account.id, { userVerified: false }, 'nobody verified');
  await refused(account.id, { type: 'webauthn.get' }, 'an answer to something else');
  const options = await passkeys.registration(account);
  const response = authenticator.create(options);
  await passkeys.register(account.id, 'key', response);
  await assert.rejects(passkeys.register(account.id, 'key', response), { code: 'bad_request' }, 'again');
  await assert.rejects(passkeys.register(other.id, 'key', authenticator.create(await passkeys.registration(other))), { code: 'conflict' });
  const late = await passkeys.registration(account);
  clock.advance(5 * 60_000);
  await assert.rejects(passkeys.register(account.id, 'key', new SoftAuthenticator({ origin: ORIGIN, counting: true }).create(late)), {
    code: 'bad_request',
  });
});

test('no certificate is looked at, so that none can send us to an address of its own', async () => {
  let asked = 0;
  const server = createServer((_req, res) => {
    asked++;
    res.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const crl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/crl`;
  const account = await newAccount();
  for (const [format, statement] of [
    ['packed', { alg: -7, sig: randomBytes(64), x5c: [Buffer.from(crl)] }],
    ['fido-u2f', { sig: randomBytes(64), x5c: [Buffer.from(crl)] }],
    ['android-safetynet', { ver: '1', response: Buffer.from(crl) }],
    ['tpm', { ver: '2.0', x5c: [Buffer.from(crl)] }],
    ['apple', { x5c: [Buffer.from(crl)] }],
    ['nonsense', {}],
  ] as const) {
    const authenticator = new SoftAuthenticator({ origin: ORIGIN, counting: true });
    const response = authenticator.create(await passkeys.registration(account), { format, statement });
    await assert.rejects(passkeys.register(account.id, 'key', response), { code: 'bad_request' }, format);
  }

  // One that is in order, of a maker that nobody knows.
  await ensurePackages('openssl');
  const [key, certificate] = [join(dataDir, 'key.pem'), join(dataDir, 'certificate.pem')];
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', certificate],
    ...['-subj', '/C=DE/O=Nobody/OU=Authenticator Attestation/CN=Nobody', '-addext', 'basicConstraints=critical,CA:FALSE'],
    ...['-addext', `crlDistributionPoints=URI:${crl}`],
  ]);
  const x5c = [new X509Certificate(await readFile(certificate)).raw];
  const privateKey = createPrivateKey(await readFile(key));
  const certified = new SoftAuthenticator({ origin: ORIGIN, counting: true }).create(await passkeys.registration(account), {
    format: 'packed',
    statement: (signed) => ({ alg: -7, sig: createSign('sha256').update(signed).sign(privateKey), x5c }),
  });
  await assert.rejects(passkeys.register(account.id, 'key', certified), { code: 'bad_request' });
  assert.equal(asked, 0);
  await new Promise((resolve) => server.close(resolve));
});

test('what is no CBOR, no JSON or far too deep is refused and nothing else', async () => {
  const account = await newAccount();
  const authenticator = new SoftAuthenticator({ origin: ORIGIN, counting: true });
  const good = authenticator.create(await passkeys.registration(account));
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url');
  for (const attestationObject of [
    '',
    'AA',
    text(randomBytes(200)),
    text(Buffer.alloc(8000, 0x81)),
    text(cbor({ fmt: 'none' })),
    text(cbor({ fmt: 'none', attStmt: {}, authData: Buffer.alloc(10) })),
    text(cbor('x')),
    text(Buffer.from('bb7fffffffffffffff', 'hex')),
  ]) {
    const response = { ...good, response: { ...good.response, attestationObject } };
    await assert.rejects(passkeys.register(account.id, 'key', response), { code: 'bad_request' }, attestationObject.slice(0, 40));
  }
  for (const clientDataJSON of ['', 'AA', text(Buffer.from('null')), text(Buffer.from('{}')), text(Buffer.from('{"challenge":{}}'))]) {
    const response = { ...good, response: { ...good.response, clientDataJSON } };
    await assert.rejects(passkeys.register(account.id, 'key', response), { code: 'bad_request' }, clientDataJSON);
    const { challengeId } = await passkeys.signIn();
    const { authenticator: known } = await registered();
    const signedIn = known.get({ challenge: 'x' });
    assert.equal(await passkeys.verify(challengeId, { ...signedIn, response: { ...signedIn.response, clientDataJSON } }), undefined);
  }
});

test('where there is no host name that they could be bound to, that is said', async () => {
  for (const publicUrl of ['http://192.0.2.1:8080', 'https://[2001:db8::1]']) {
    const here = new Passkeys({ database, vault, clock, log: silentLog, publicUrl, serviceName: 'Veza' });
    await assert.rejects(here.registration(await newAccount()), { code: 'conflict', message: /PUBLIC_URL is an address/ }, publicUrl);
  }
});

test('an account has a bounded number of them', async () => {
  const account = await newAccount();
  const add = async () =>
    passkeys.register(
      account.id,
      'key',
      new SoftAuthenticator({ origin: ORIGIN, counting: true }).create(await passkeys.registration(account)),
    );
  for (let i = 0; i < MAX_PASSKEYS; i++) await add();
  await assert.rejects(add(), { code: 'conflict' });
  assert.equal(await passkeys.count(account.id), MAX_PASSKEYS);
});
