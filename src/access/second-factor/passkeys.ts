import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { isIP } from 'node:net';
import {
  type AuthenticationResponseJSON,
  generateAuthenticationOptions,
  generateRegistrationOptions,
  type PublicKeyCredentialCreationOptionsJSON,
  type PublicKeyCredentialRequestOptionsJSON,
  type RegistrationResponseJSON,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
} from '@simplewebauthn/server';
import { decodeAttestationObject } from '@simplewebauthn/server/helpers';
import type { Database } from '../../backing/database/database.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { WayInMails } from '../accounts/ways-in.js';
import type { Vault } from '../vault.js';

export interface Passkey {
  /** The credential id, base64url. */
  readonly id: string;
  readonly name: string;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number | undefined;
}

export const MAX_PASSKEYS = 20;
export const MAX_PASSKEY_NAME_CHARS = 100;
const CHALLENGE_MS = 5 * 60_000;
/** WebAuthn 4: a credential id has at most 1,023 bytes. */
const MAX_ID_BYTES = 1023;
const RANDOM_BYTES = 24;

export interface PasskeysOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  /** Passkeys are bound to the host name of this address, and work on pages of its origin. */
  readonly publicUrl: string;
  /** The name of the service in the dialog in which a passkey is chosen. */
  readonly serviceName: string;
  /** Sends a mail to the owner of an account when a passkey is added. Undefined: no mail. */
  readonly mails?: Pick<WayInMails, 'post' | 'wake'> | undefined;
}

/**
 * WebAuthn passkeys. They are discoverable, and the authenticator always verifies the user (a
 * finger, a PIN), so that one passkey is password and second factor in one.
 *
 * A challenge is a sealed value with its own expiry: asking for one stores nothing, however often
 * it is done. A used challenge is stored until it expires, so that it cannot be used twice.
 */
export class Passkeys {
  readonly #database: Database;
  readonly #vault: Vault;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #boundedLog: BoundedLog;
  readonly #origin: string;
  readonly #host: string;
  readonly #serviceName: string;
  readonly #mails: PasskeysOptions['mails'];

  constructor({ database, vault, clock, log, publicUrl, serviceName, mails }: PasskeysOptions) {
    this.#mails = mails;
    this.#database = database;
    this.#vault = vault;
    this.#clock = clock;
    this.#log = log;
    this.#boundedLog = new BoundedLog(log, clock);
    const url = new URL(publicUrl);
    this.#origin = url.origin;
    this.#host = url.hostname;
    this.#serviceName = serviceName;
  }

  /** All passkeys of an account, newest first. There are at most `MAX_PASSKEYS`. */
  async list(accountId: string): Promise<Passkey[]> {
    const { rows } = await this.#database.query<PasskeyRow>(
      'select id, name, created_at, last_used_at from passkeys where account_id = $1 order by created_at desc, id',
      [accountId],
    );
    return rows.map(passkeyOf);
  }

  async count(accountId: string): Promise<number> {
    const { rows } = await this.#database.query<{ count: number }>('select count(*)::int as count from passkeys where account_id = $1', [
      accountId,
    ]);
    return rows[0]!.count;
  }

  /**
   * The options for `navigator.credentials.create`. Rejects with `conflict` if `PUBLIC_URL` has no
   * host name.
   */
  async registration(account: { id: string; email: string; name: string }): Promise<PublicKeyCredentialCreationOptionsJSON> {
    // WebAuthn 5.1.2: browsers refuse a host that is an IP address, with an error that does not say
    // why.
    if (isIP(this.#host.replaceAll(/[[\]]/g, '')) !== 0)
      throw new VezaError('conflict', 'Passkeys need a host name, and PUBLIC_URL is an address. Ask the operator of this service.');
    const { rows } = await this.#database.query<{ id: Buffer; transports: string[] }>(
      'select id, transports from passkeys where account_id = $1 limit $2',
      [account.id, MAX_PASSKEYS],
    );
    return generateRegistrationOptions({
      rpName: this.#serviceName,
      rpID: this.#host,
      userName: account.email,
      userDisplayName: account.name,
      userID: userHandleOf(account.id),
      challenge: this.#challenge(`register:${account.id}`),
      timeout: CHALLENGE_MS,
      attestationType: 'none',
      excludeCredentials: rows.map(({ id, transports }) => ({ id: id.toString('base64url'), transports })),
      authenticatorSelection: { residentKey: 'required', userVerification: 'required' },
    });
  }

  /**
   * Adds a passkey. Rejects: `bad_request` (the response does not match the options), `conflict`
   * (`MAX_PASSKEYS`, or the passkey is registered already), `not_found` (the account).
   */
  async register(accountId: string, name: string, response: RegistrationResponseJSON): Promise<Passkey> {
    const refused = (reason: string) => {
      this.#log.info({ event: 'access.passkey_not_registered', accountId, reason }, 'a passkey was not registered');
      return new VezaError('bad_request', 'This passkey cannot be registered. Ask for new options and try again.');
    };
    let verified: Awaited<ReturnType<typeof verifyRegistrationResponse>>;
    let challenge = '';
    try {
      refuseAttestation(response.response.attestationObject);
      verified = await verifyRegistrationResponse({
        response,
        expectedChallenge: (given) => {
          challenge = given;
          return this.#isIssued(given, `register:${accountId}`);
        },
        expectedOrigin: this.#origin,
        expectedRPID: this.#host,
        requireUserVerification: true,
      });
    } catch (error) {
      throw refused(messageOf(error));
    }
    if (!verified.verified) throw refused('the attestation does not verify');
    const { credential } = verified.registrationInfo;
    const id = Buffer.from(credential.id, 'base64url');
    if (id.length > MAX_ID_BYTES) throw refused('the credential id is too long');
    if (!(await this.#useChallenge(challenge))) throw refused('the challenge was used already');
    const passkey = await this.#database.transaction(async (connection) => {
      const { rowCount } = await connection.query('select 1 from accounts where id = $1 for update', [accountId]);
      if (rowCount === 0) throw new VezaError('not_found', 'There is no such account.');
      const { rows } = await connection.query<PasskeyRow>(
        `insert into passkeys (id, account_id, name, public_key, counter, transports, created_at)
         select $1, $2, $3, $4, $5, $6, $7 where (select count(*) from passkeys where account_id = $2) < ${MAX_PASSKEYS}
         returning id, name, created_at, last_used_at`,
        [
          id,
          accountId,
          name,
          Buffer.from(credential.publicKey),
          credential.counter,
          response.response.transports ?? [],
          new Date(this.#clock.wallMs()),
        ],
      );
      if (!rows[0]) throw new VezaError('conflict', `An account has at most ${MAX_PASSKEYS} passkeys; delete one first.`);
      await this.#mails?.post(connection, accountId, 'passkey');
      return passkeyOf(rows[0]);
    });
    this.#mails?.wake();
    return passkey;
  }

  /** Rejects with `not_found`, also for a passkey of another account. */
  async delete(accountId: string, id: string): Promise<void> {
    const { rowCount } = await this.#database.query('delete from passkeys where account_id = $1 and id = $2', [
      accountId,
      Buffer.from(id, 'base64url'),
    ]);
    if (rowCount === 0) throw new VezaError('not_found', 'There is no such passkey.');
  }

  async deleteAll(accountId: string): Promise<void> {
    await this.#database.query('delete from passkeys where account_id = $1', [accountId]);
  }

  /**
   * The options for `navigator.credentials.get`. The account is not known yet: the passkey tells
   * it.
   */
  async signIn(): Promise<{ options: PublicKeyCredentialRequestOptionsJSON; challengeId: string }> {
    const challengeId = randomUUID();
    const options = await generateAuthenticationOptions({
      rpID: this.#host,
      challenge: this.#challenge(`sign-in:${challengeId}`),
      timeout: CHALLENGE_MS,
      userVerification: 'required',
    });
    return { options, challengeId };
  }

  /**
   * The id of the account whose passkey has signed the challenge. Undefined if anything is wrong
   * with the response; the reason is in the log.
   */
  async verify(challengeId: string, response: AuthenticationResponseJSON): Promise<string | undefined> {
    try {
      return await this.#verify(challengeId, response);
    } catch (error) {
      if (error instanceof VezaError) throw error;
      this.#boundedLog.info({ event: 'access.passkey_refused', reason: messageOf(error) }, 'a sign-in with a passkey was refused');
      return undefined;
    }
  }

  async #verify(challengeId: string, response: AuthenticationResponseJSON): Promise<string> {
    const id = Buffer.from(response.id, 'base64url');
    const { rows } = await this.#database.query<{ account_id: string; public_key: Buffer; counter: number }>(
      'select account_id, public_key, counter from passkeys where id = $1',
      [id],
    );
    const row = rows[0];
    if (!row) throw new Error('the passkey is not known');
    const handle = response.response.userHandle;
    if (handle !== undefined && handle !== Buffer.from(userHandleOf(row.account_id)).toString('base64url'))
      throw new Error('the passkey is another account’s');
    let challenge = '';
    const { verified, authenticationInfo } = await verifyAuthenticationResponse({
      response,
      expectedChallenge: (given) => {
        challenge = given;
        return this.#isIssued(given, `sign-in:${challengeId}`);
      },
      expectedOrigin: this.#origin,
      expectedRPID: this.#host,
      credential: { id: response.id, publicKey: new Uint8Array(row.public_key), counter: row.counter },
      requireUserVerification: true,
    });
    if (!verified) throw new Error('the signature is wrong');
    if (!(await this.#useChallenge(challenge))) throw new Error('the challenge was used already');
    // The counter is checked again in one statement. If two responses at once show the same count,
    // one of them is from a copy of the passkey (WebAuthn 6.1.1).
    const { rowCount } = await this.#database.query(
      'update passkeys set counter = $2, last_used_at = $3 where id = $1 and (counter < $2 or (counter = 0 and $2 = 0))',
      [id, authenticationInfo.newCounter, new Date(this.#clock.wallMs())],
    );
    if (rowCount === 0) throw new Error('the counter of the passkey went back: it may have been copied');
    return row.account_id;
  }

  #challenge(purpose: string): Uint8Array<ArrayBuffer> {
    const plain = Buffer.concat([Buffer.alloc(8), randomBytes(RANDOM_BYTES)]);
    plain.writeDoubleBE(this.#clock.wallMs() + CHALLENGE_MS);
    return new Uint8Array(this.#vault.seal(`passkey-challenge:${purpose}`, plain));
  }

  async #isIssued(challenge: string, purpose: string): Promise<boolean> {
    const plain = await this.#vault.open(`passkey-challenge:${purpose}`, Buffer.from(challenge, 'base64url')).catch(() => undefined);
    return plain !== undefined && plain.readDoubleBE() > this.#clock.wallMs();
  }

  /** Resolves to false if the challenge was used before, in any process. */
  async #useChallenge(challenge: string): Promise<boolean> {
    const nowMs = this.#clock.wallMs();
    await this.#database.query('delete from used_challenges where expires_at <= $1', [new Date(nowMs)]);
    // The bytes are hashed, not the text: base64url has several spellings of the same bytes.
    const hash = createHash('sha256').update(Buffer.from(challenge, 'base64url')).digest();
    const { rowCount } = await this.#database.query(
      'insert into used_challenges (challenge_hash, expires_at) values ($1, $2) on conflict do nothing',
      [hash, new Date(nowMs + CHALLENGE_MS)],
    );
    return rowCount === 1;
  }
}

/**
 * Refuses attestation certificates. The service asks for no attestation: checking one would fetch
 * revocation lists from addresses that the certificate names. `packed` without certificates is self
 * attestation, which browsers let through.
 */
function refuseAttestation(attestationObject: string): void {
  const decoded = decodeAttestationObject(new Uint8Array(Buffer.from(attestationObject, 'base64url')));
  const format = decoded.get('fmt');
  if (format === 'none') return;
  if (format !== 'packed' || decoded.get('attStmt').get('x5c') !== undefined) throw new Error(`an attestation of the format ${format}`);
}

/**
 * The user handle by which an authenticator names the account: random, without personal data
 * (WebAuthn 14.6.1).
 */
const userHandleOf = (accountId: string) => new Uint8Array(Buffer.from(accountId.replaceAll('-', ''), 'hex'));

interface PasskeyRow {
  id: Buffer;
  name: string;
  created_at: Date;
  last_used_at: Date | null;
}

const passkeyOf = (row: PasskeyRow): Passkey => ({
  id: row.id.toString('base64url'),
  name: row.name,
  createdAtMs: row.created_at.getTime(),
  lastUsedAtMs: row.last_used_at?.getTime(),
});
