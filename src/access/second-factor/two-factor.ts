import { createHash, randomBytes } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { WayInMails } from '../accounts/ways-in.js';
import { randomLetters } from '../random-key.js';
import type { Vault } from '../vault.js';
import { base32, otpauthUri, stepOf } from './totp.js';

/** How often a code may be wrong. */
export interface Tries {
  /** Rejects with `rate_limited` when there were too many. */
  take(bucket: 'second-factor', key: string): Promise<unknown>;
  /** It was right, and does not count. */
  reward(bucket: 'second-factor', key: string): Promise<unknown>;
}

export interface TwoFactorStatus {
  readonly totp: boolean;
  readonly recoveryCodesLeft: number;
}

export const RECOVERY_CODES = 10;
/** RFC 4226 4: 160 bits are recommended. */
const SECRET_BYTES = 20;
const RECOVERY_LETTERS = 16;

const purposeOf = (accountId: string) => `totp:${accountId}`;

export interface TwoFactorOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly tries: Tries;
  /** How the service is called in an authenticator app. */
  readonly issuer: string;
  /** Tells its holder of a new app; nobody is told unless given. */
  readonly mails?: Pick<WayInMails, 'post' | 'wake'> | undefined;
}

/**
 * The second factor of an account: codes of an authenticator app, and recovery codes for the day on which the phone is gone. Each code is
 * good once, on whatever process it is tried, because the database takes it in one statement.
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

  /** Whether a password alone does not open this account. A secret whose first code was never right does not count. */
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

  /** A new secret, that counts once `confirm` has seen a code of it. Rejects with `conflict` when there is one that counts. */
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
   * The first right code makes the secret count. Resolves to recovery codes, which are shown this once. Rejects: `conflict` (nothing was begun,
   * or it is confirmed), `invalid_credentials` (a wrong code), `rate_limited`.
   */
  async confirm(accountId: string, code: string): Promise<string[]> {
    await this.#tries.take('second-factor', accountId);
    const { sealed, confirmed } = await this.#secretOf(accountId);
    if (confirmed) throw new VezaError('conflict', 'The authenticator app is set up already.');
    if (!sealed) throw new VezaError('conflict', 'Begin with a secret: POST /me/totp.');
    const step = stepOf(await this.#vault.open(purposeOf(accountId), sealed), digitsOf(code), this.#clock.wallMs());
    if (step === undefined) throw wrongCode();
    await this.#tries.reward('second-factor', accountId);
    const codes = await this.#database.transaction(async (connection) => {
      // Only the secret that the code was of: another window may have begun again meanwhile.
      const { rowCount } = await connection.query(
        `update accounts set totp_confirmed_at = $3, totp_step = $4
         where id = $1 and totp_confirmed_at is null and sealed_totp = $2`,
        [accountId, sealed, new Date(this.#clock.wallMs()), step],
      );
      if (rowCount === 0) throw new VezaError('conflict', 'Another setup was begun meanwhile; type a code of that one.');
      await this.#mails?.post(connection, accountId, 'app');
      return this.#renewRecoveryCodes(accountId, connection);
    });
    this.#mails?.wake();
    return codes;
  }

  /** Whether this is a code of the app, or a recovery code. It is used up by that. Rejects with `rate_limited` after too many tries. */
  async check(accountId: string, code: string): Promise<boolean> {
    await this.#tries.take('second-factor', accountId);
    const digits = digitsOf(code);
    const right = await (/^\d{6}$/.test(digits) ? this.#takeStep(accountId, digits) : this.#takeRecoveryCode(accountId, code));
    if (right) await this.#tries.reward('second-factor', accountId);
    return right;
  }

  /** No authenticator app and no recovery codes from now on. */
  async remove(accountId: string): Promise<void> {
    await this.#database.transaction(async (connection) => {
      await connection.query('update accounts set sealed_totp = null, totp_confirmed_at = null, totp_step = null where id = $1', [
        accountId,
      ]);
      await connection.query('delete from recovery_codes where account_id = $1', [accountId]);
    });
  }

  /** New ones; the old are void. Rejects with `conflict` when there is no authenticator app that they could stand in for. */
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
    // RFC 6238 5.2: a code that was accepted is not accepted again, and none from before it.
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

/** The answer to a code that is not right, where somebody is signed in already. */
export const wrongCode = () => new VezaError('invalid_credentials', 'The code is not right, or was used already. Wait for the next one.');

/** Apps show "123 456". */
const digitsOf = (code: string) => code.replaceAll(/[\s-]/g, '');

/** As it was made, however it is typed: case, dashes, and the letters that look like digits. */
const normal = (code: string) => code.toLowerCase().replaceAll(/[\s-]/g, '').replaceAll('o', '0').replaceAll(/[il]/g, '1');

/** With the account: whoever has the table must try each code for each account by itself. */
const hashOf = (accountId: string, code: string) =>
  createHash('sha256')
    .update(`${accountId}:${normal(code)}`)
    .digest();

const makeRecoveryCode = () => randomLetters(RECOVERY_LETTERS).replaceAll(/.{4}(?!$)/g, '$&-');
