import { createHash, randomBytes } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { WayInMails } from '../accounts/ways-in.js';
import { randomLetters } from '../random-key.js';
import type { Vault } from '../vault.js';
import { base32, otpauthUri, stepOf } from './totp.js';

/** The limit of wrong codes. */
export interface Tries {
  /** Rejects with `rate_limited` after too many wrong codes. */
  take(bucket: 'second-factor', key: string): Promise<unknown>;
  /** Gives the point back after a right code. */
  reward(bucket: 'second-factor', key: string): Promise<unknown>;
}

export interface TwoFactorStatus {
  readonly totp: boolean;
  readonly recoveryCodesLeft: number;
}

export const RECOVERY_CODES = 10;
/** RFC 4226 4 recommends 160 bits. */
const SECRET_BYTES = 20;
const RECOVERY_LETTERS = 16;

const purposeOf = (accountId: string) => `totp:${accountId}`;

export interface TwoFactorOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly tries: Tries;
  /** The name of the service in an authenticator app. */
  readonly issuer: string;
  /** Sends a mail to the owner of an account when an app is added. Undefined: no mail. */
  readonly mails?: Pick<WayInMails, 'post' | 'wake'> | undefined;
}

/**
 * The second factor of an account: codes of an authenticator app, and recovery codes for a lost
 * phone. Each code is good once in all processes, because the database consumes it in one
 * statement.
 */
export class TwoFactor {
  readonly #database: Database;
  readonly #vault: Vault;
  readonly #clock: Clock;
  readonly #tries: Tries;
  readonly #issuer: string;
  readonly #mails: TwoFactorOptions['mails'];

  constructor({ database, vault, clock, tries, issuer, mails }: TwoFactorOptions) {
    this.#mails = mails;
    this.#database = database;
    this.#vault = vault;
    this.#clock = clock;
    this.#tries = tries;
    this.#issuer = issuer;
  }

  /** Whether signing in needs a code. A secret does not count before its first right code. */
  async isOn(accountId: string): Promise<boolean> {
    return (await this.status(accountId)).totp;
  }

  async status(accountId: string): Promise<TwoFactorStatus> {
    const { rows } = await this.#database.query<{ totp: boolean; codes: number }>(
      `select totp_confirmed_at is not null as totp,
         (select count(*)::int from recovery_codes where account_id = $1 and used_at is null) as codes
       from accounts where id = $1`,
      [accountId],
    );
    return { totp: rows[0]?.totp ?? false, recoveryCodesLeft: rows[0]?.codes ?? 0 };
  }

  /**
   * Makes a new secret, which counts after `confirm` has seen a code of it. Rejects with `conflict`
   * if the account has an app already.
   */
  async begin(account: { id: string; email: string }): Promise<{ secret: string; uri: string }> {
    const secret = randomBytes(SECRET_BYTES);
    const { rowCount } = await this.#database.query(
      'update accounts set sealed_totp = $2, totp_step = null where id = $1 and totp_confirmed_at is null',
      [account.id, this.#vault.seal(purposeOf(account.id), secret)],
    );
    if (rowCount === 0) throw new VezaError('conflict', 'There is an authenticator app already; remove it first.');
    return { secret: base32(secret), uri: otpauthUri(secret, this.#issuer, account.email) };
  }

  /**
   * Turns the app on with its first right code. Resolves to the recovery codes, which are shown
   * only once. Rejects: `conflict` (no setup was begun, or the app is on already),
   * `invalid_credentials` (a wrong code), `rate_limited`.
   */
  async confirm(accountId: string, code: string): Promise<string[]> {
    await this.#tries.take('second-factor', accountId);
    const { sealed, confirmed } = await this.#secretOf(accountId);
    if (confirmed) throw new VezaError('conflict', 'The authenticator app is set up already.');
    if (!sealed) throw new VezaError('conflict', 'Begin the setup first: POST /me/totp.');
    const step = stepOf(await this.#vault.open(purposeOf(accountId), sealed), digitsOf(code), this.#clock.wallMs());
    if (step === undefined) throw wrongCode();
    await this.#tries.reward('second-factor', accountId);
    const codes = await this.#database.transaction(async (connection) => {
      // Only the secret that the code belongs to is confirmed: another window may have begun a new
      // setup.
      const { rowCount } = await connection.query(
        `update accounts set totp_confirmed_at = $3, totp_step = $4
         where id = $1 and totp_confirmed_at is null and sealed_totp = $2`,
        [accountId, sealed, new Date(this.#clock.wallMs()), step],
      );
      if (rowCount === 0) throw new VezaError('conflict', 'Another setup was begun since then. Enter a code from that one.');
      await this.#mails?.post(connection, accountId, 'app');
      return this.#renewRecoveryCodes(accountId, connection);
    });
    this.#mails?.wake();
    return codes;
  }

  /**
   * Whether the code is a good code of the app or a recovery code. A good code is consumed. Rejects
   * with `rate_limited` after too many tries.
   */
  async check(accountId: string, code: string): Promise<boolean> {
    await this.#tries.take('second-factor', accountId);
    const digits = digitsOf(code);
    const right = await (/^\d{6}$/.test(digits) ? this.#takeStep(accountId, digits) : this.#takeRecoveryCode(accountId, code));
    if (right) await this.#tries.reward('second-factor', accountId);
    return right;
  }

  /** Removes the authenticator app and the recovery codes. */
  async remove(accountId: string): Promise<void> {
    await this.#database.transaction(async (connection) => {
      await connection.query('update accounts set sealed_totp = null, totp_confirmed_at = null, totp_step = null where id = $1', [
        accountId,
      ]);
      await connection.query('delete from recovery_codes where account_id = $1', [accountId]);
    });
  }

  /**
   * Makes new recovery codes; the old ones are void. Rejects with `conflict` if the account has no
   * authenticator app.
   */
  async renewRecoveryCodes(accountId: string): Promise<string[]> {
    return this.#database.transaction(async (connection) => {
      const { rowCount } = await connection.query('select 1 from accounts where id = $1 and totp_confirmed_at is not null for update', [
        accountId,
      ]);
      if (rowCount === 0) throw new VezaError('conflict', 'Set up an authenticator app first.');
      return this.#renewRecoveryCodes(accountId, connection);
    });
  }

  async #renewRecoveryCodes(accountId: string, connection: Queryable): Promise<string[]> {
    const codes = Array.from({ length: RECOVERY_CODES }, makeRecoveryCode);
    await connection.query('delete from recovery_codes where account_id = $1', [accountId]);
    await connection.query('insert into recovery_codes (account_id, code_hash) select $1, unnest($2::bytea[])', [
      accountId,
      codes.map((code) => hashOf(accountId, code)),
    ]);
    return codes;
  }

  async #secretOf(accountId: string): Promise<{ sealed: Buffer | undefined; confirmed: boolean }> {
    const { rows } = await this.#database.query<{ sealed_totp: Buffer | null; confirmed: boolean }>(
      'select sealed_totp, totp_confirmed_at is not null as confirmed from accounts where id = $1',
      [accountId],
    );
    return { sealed: rows[0]?.sealed_totp ?? undefined, confirmed: rows[0]?.confirmed ?? false };
  }

  async #takeStep(accountId: string, code: string): Promise<boolean> {
    const { sealed, confirmed } = await this.#secretOf(accountId);
    if (!sealed || !confirmed) return false;
    const step = stepOf(await this.#vault.open(purposeOf(accountId), sealed), code, this.#clock.wallMs());
    if (step === undefined) return false;
    // RFC 6238 5.2: a code that was accepted, or an older one, is not accepted again.
    const { rowCount } = await this.#database.query(
      `update accounts set totp_step = $2 where id = $1 and totp_confirmed_at is not null and (totp_step is null or totp_step < $2)`,
      [accountId, step],
    );
    return rowCount === 1;
  }

  async #takeRecoveryCode(accountId: string, code: string): Promise<boolean> {
    const typed = normal(code);
    if (typed.length !== RECOVERY_LETTERS) return false;
    const { rowCount } = await this.#database.query(
      `update recovery_codes set used_at = $3 where account_id = $1 and code_hash = $2 and used_at is null`,
      [accountId, hashOf(accountId, typed), new Date(this.#clock.wallMs())],
    );
    return rowCount === 1;
  }
}

/** The error for a wrong code of somebody who is signed in. */
export const wrongCode = () => new VezaError('invalid_credentials', 'The code is not right, or was used already. Wait for the next one.');

/** Apps show codes as "123 456". */
const digitsOf = (code: string) => code.replaceAll(/[\s-]/g, '');

/**
 * The recovery code as it was made: in lower case, without dashes, and with digits in place of the
 * letters that look like them.
 */
const normal = (code: string) => code.toLowerCase().replaceAll(/[\s-]/g, '').replaceAll('o', '0').replaceAll(/[il]/g, '1');

/**
 * The hash covers the account too: an attacker with the table has to try every code for every
 * account separately.
 */
const hashOf = (accountId: string, code: string) =>
  createHash('sha256')
    .update(`${accountId}:${normal(code)}`)
    .digest();

const makeRecoveryCode = () => randomLetters(RECOVERY_LETTERS).replaceAll(/.{4}(?!$)/g, '$&-');
