import assert from 'node:assert/strict';
import { createPrivateKey, type KeyObject, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { type Access, type AccessOptions, openAccess } from '../../src/access/access.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { openTestDatabase } from '../support/database.js';

export const OURS = 'https://radio.example';
export const THEIRS = 'https://id.example/';
export const SECRET = 'a secret of the gateway with more than 32 bytes';
export const client = { address: '192.0.2.1', userAgent: 'Test/1' };

export const json64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
export const parts = (jwt: string) =>
  jwt
    .split('.')
    .slice(0, 2)
    .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString())) as [Record<string, unknown>, Record<string, unknown>];

/** The whole of Access with a gateway and another issuer, whose key set a server on this machine hands out; and tokens of all three. */
export async function tokenWorld() {
  const dataDir = await mkdtemp(join(tmpdir(), 'veza-tokens-'));
  const database = await openTestDatabase();
  const clock = new FakeClock();
  const rsa = await generateKeyPair('RS256', { extractable: true });
  const ec = await generateKeyPair('ES256', { extractable: true });
  const theirKeys: object[] = [
    { ...(await exportJWK(rsa.publicKey)), kid: 'rsa', use: 'sig', alg: 'RS256' },
    { ...(await exportJWK(ec.publicKey)), kid: 'ec' },
    // What must never count: a shared secret, a key for encryption, one for something else, one that is none.
    { kty: 'oct', k: Buffer.from(SECRET).toString('base64url'), kid: 'oct', alg: 'HS256' },
    { ...(await exportJWK(rsa.publicKey)), kid: 'enc', use: 'enc' },
    { ...(await exportJWK(rsa.publicKey)), kid: 'hmac', alg: 'HS256' },
    { kty: 'RSA', kid: 'broken' },
  ];
  const issuer = {
    requests: 0,
    keys: theirKeys,
    answer: (res: ServerResponse, _path: string): void => void res.end(JSON.stringify({ keys: theirKeys })),
  };
  const server = createServer((req, res) => {
    issuer.requests++;
    issuer.answer(res, req.url ?? '');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const jwksUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`;

  const opened: Access[] = [];
  /** Another process, configured in another way. */
  const open = async (over: Partial<AccessOptions> = {}): Promise<Access> => {
    const access = await openAccess({
      database,
      dataDir,
      clock,
      log: silentLog,
      publicUrl: OURS,
      jwtSecret: SECRET,
      jwtAudience: 'veza-gateway',
      authJwksUrl: jwksUrl,
      authIssuer: THEIRS,
      authAudience: 'veza-app',
      authRoleClaim: 'realm_access.roles',
      ...over,
    });
    opened.push(access);
    return access;
  };
  const access = await open();
  const accountId = randomUUID();
  await database.query(`insert into accounts (id, email, email_key, name, role) values ($1, 'a@b', 'a@b', 'Ada', 'admin')`, [accountId]);

  const nowS = () => Math.floor(clock.wallMs() / 1000);
  const verified = (credential: string, by = access) => by.identity.ofCredential(credential);
  return {
    database,
    clock,
    access,
    open,
    accountId,
    issuer,
    jwksUrl,
    rsa,
    ec,
    /** The RSA key, not bound to the algorithm that it is published for. */
    anyRsa: createPrivateKey({ key: (await exportJWK(rsa.privateKey)) as never, format: 'jwk' }),
    nowS,
    verified,
    refused: (credential: string, why: string, by = access) =>
      assert.rejects(verified(credential, by), (error) => error instanceof VezaError && error.code === 'unauthorized', why),
    unavailable: (credential: string, why: string, by = access) =>
      assert.rejects(verified(credential, by), (error) => error instanceof VezaError && error.code === 'unavailable', why),
    begin: (amr = ['pwd', 'otp']) => access.sessions.begin({ accountId, amr, client }),
    /** Signed with our own key, as nobody else can: what is wrong with it is what the test makes wrong, whatever the library thinks of it. */
    async ourToken(sessionId: string, header: object = {}, claims: object = {}): Promise<string> {
      const { kid, privateKey } = await access.signingKeys.signer();
      const good = {
        iss: OURS,
        aud: 'veza',
        sub: accountId,
        sid: sessionId,
        role: 'admin',
        name: 'Ada',
        amr: ['pwd'],
        iat: nowS(),
        exp: nowS() + 900,
      };
      const signed = `${json64({ alg: 'EdDSA', kid, typ: 'at+jwt', ...header })}.${json64({ ...good, ...claims })}`;
      return `${signed}.${Buffer.from(await crypto.subtle.sign('Ed25519', privateKey, Buffer.from(signed))).toString('base64url')}`;
    },
    theirToken: (header: object = {}, claims: object = {}, key: CryptoKey | KeyObject = rsa.privateKey) =>
      new SignJWT({ iss: THEIRS, aud: 'veza-app', sub: 'user-1', exp: nowS() + 900, ...claims } as never)
        .setProtectedHeader({ alg: 'RS256', kid: 'rsa', ...header } as never)
        .sign(key),
    gatewayToken: (claims: object = {}, key = SECRET, alg = 'HS256') =>
      new SignJWT({
        iss: 'gateway',
        aud: 'veza-gateway',
        sub: 'user-1',
        name: 'Bea',
        role: 'broadcaster',
        exp: nowS() + 900,
        ...claims,
      } as never)
        .setProtectedHeader({ alg })
        .sign(new TextEncoder().encode(key)),
    async stop() {
      for (const one of opened) await one.stop();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await database.stop();
      await rm(dataDir, { recursive: true });
    },
  };
}
export type TokenWorld = Awaited<ReturnType<typeof tokenWorld>>;
