import type { Database, Queryable } from '../../backing/database/database.js';
import { addressGroup } from '../../runtime/addresses.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';
import type { Audit } from '../audit.js';
import { ANONYMOUS, outranks, type Principal, type Role } from '../roles.js';
import { exportAccount } from './account-export.js';
import type { AccountLinks } from './account-links.js';
import {
  type Account,
  type AccountRow,
  accountOf,
  checkedName,
  keyOf,
  knownOf,
  listRows,
  lockedAccount,
  lockedUnlessLastAdmin,
  MAX_BAN_REASON_CHARS,
  noAccount,
  rowByEmail,
} from './account-rows.js';
import type { Mail } from './mail.js';
import { deletedMail, passwordChangedMail } from './mail-texts.js';
import type { OneTimeLinks } from './one-time-links.js';
import type { Passwords } from './passwords.js';
import { waysIn } from './ways-in.js';

export interface SignInClient {
  readonly address: string;
  readonly userAgent: string;
}

export interface SignInTokens {
  readonly accessToken: string;
  /** How long the access token is good, in seconds. */
  readonly expiresIn: number;
  readonly refreshToken: string;
  readonly sessionId: string;
}

/** The part of sessions that accounts use. */
export interface AccountSessions {
  /** `amr`: how the owner has proven who they are (RFC 8176). */
  begin(of: { accountId: string; amr: readonly string[]; client: SignInClient }): Promise<SignInTokens>;
  end(sessionId: string): Promise<unknown>;
  endAll(accountId: string, options?: { except?: string | undefined; connection?: Queryable }): Promise<unknown>;
}

/** The part of the second factor that accounts use. `check` consumes the code. */
interface AccountFactor {
  isOn(accountId: string): Promise<boolean>;
  check(accountId: string, code: string): Promise<boolean>;
}

/** The rate limits that accounts use. Every method rejects with `rate_limited`. */
export interface AccountLimits {
  /** Runs one whole sign-in. Also rejects with `busy` if too many sign-ins are running. */
  inTurn<T>(email: string, address: string, signIn: () => Promise<T>): Promise<T>;
  /**
   * Runs one password check. Only failures count. Failures from other addresses do not count
   * against an address from which the account was signed in before.
   */
  signIn<T>(
    email: string,
    address: string,
    signIn: (attempt: { uncounted(): void }) => Promise<T>,
    wasHere: () => Promise<boolean>,
  ): Promise<T>;
  /** Runs one attempt. Only a wrong attempt counts. */
  attempt<T>(
    bucket: 'sign-in-account' | 'token',
    key: string | readonly string[],
    task: () => Promise<T>,
    isRight?: (result: T) => boolean,
  ): Promise<T>;
  take(bucket: 'recover' | 'register', key: string | readonly string[]): Promise<unknown>;
}

/**
 * The part of API keys that accounts use. A process caches recently used keys with their account's role
 * for a short time.
 */
export interface AccountKeys {
  forget(): void;
  /** Revokes the keys that were made with a session alone, without the password or a code. */
  endThoseOfSessions(accountId: string, connection: Queryable): Promise<void>;
}

/** Receives account events, for webhooks. */
interface AccountEvents {
  emit(
    event: 'account.banned',
    channel: undefined,
    data: { account: { id: string; name: string }; reason: string | null },
    connection: Queryable,
  ): Promise<unknown>;
}

export interface AccountsOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly passwords: Passwords;
  readonly oneTimeLinks: OneTimeLinks;
  readonly accountLinks: AccountLinks;
  readonly mail: Mail;
  readonly audit: Audit;
  readonly sessions: AccountSessions;
  readonly twoFactor: AccountFactor;
  readonly limits: AccountLimits;
  readonly apiKeys: AccountKeys;
  readonly events?: AccountEvents | undefined;
  /** `PUBLIC_URL`, without a slash at the end. */
  readonly publicUrl: string;
}

/**
 * Signs people in with a password, and changes, bans and deletes accounts. `registration.ts` makes
 * them.
 */
export class Accounts {
  readonly #options: AccountsOptions;
  readonly #database: Database;

  constructor(options: AccountsOptions) {
    this.#options = options;
    this.#database = options.database;
  }

  async get(id: string): Promise<Account | undefined> {
    const row = await this.#row(id);
    return row && accountOf(row);
  }

  /** Finds an account by its address, without regard to case. */
  async byEmail(email: string): Promise<Account | undefined> {
    const row = await rowByEmail(this.#database, email);
    return row && accountOf(row);
  }

  /**
   * At most `limit` accounts after the cursor `after`, newest first. `query`: an address, or a part
   * of a name or an address.
   */
  async list(query: string | undefined, after: { createdAtMs: number; id: string } | undefined, limit: number): Promise<Account[]> {
    return (await listRows(this.#database, query, after, limit)).map(accountOf);
  }

  /**
   * Signs in and begins a session. An address without an account costs the same work and gets the
   * same answer as a wrong password. So does an account whose address is not confirmed: otherwise
   * anybody who registers an address could see whether it had an account before.
   *
   * Rejects: `invalid_credentials`; `second_factor_required` (the password is right, the code is
   * missing or wrong); `forbidden` (the password is right, the account is banned); `rate_limited`;
   * `busy`.
   */
  async signIn(given: {
    email: string;
    password: string;
    code?: string | undefined;
    client: SignInClient;
  }): Promise<{ account: Account; tokens: SignInTokens }> {
    const { email, client } = given;
    return this.#options.limits.inTurn(keyOf(email) ?? email, client.address, () => this.#signIn(given));
  }

  #signIn(given: Parameters<Accounts['signIn']>[0]): Promise<{ account: Account; tokens: SignInTokens }> {
    const { address } = given.client;
    const key = keyOf(given.email);
    return this.#options.limits.signIn(
      key ?? given.email,
      address,
      (attempt) => this.#tryPassword(given, attempt),
      () => this.#wasHere(key, address),
    );
  }

  async #tryPassword(
    { email, client, password, code }: Parameters<Accounts['signIn']>[0],
    attempt: { uncounted(): void },
  ): Promise<{ account: Account; tokens: SignInTokens }> {
    const { passwords, sessions, twoFactor } = this.#options;
    const row = await rowByEmail(this.#database, email);
    const { right, outdated } = await passwords.verify(row?.password_hash ?? undefined, password);
    if (!row || !right) throw await this.#failed(row, client, 'password');
    if (row.banned_at) {
      await this.#failed(row, client, 'banned');
      throw new VezaError('forbidden', `This account is banned${row.ban_reason ? `: ${row.ban_reason}` : '.'}`, {
        details: { reason: row.ban_reason },
      });
    }
    if (!row.confirmed_at) {
      await this.#remindOfConfirmation(row.id);
      throw await this.#failed(row, client, 'unconfirmed');
    }
    const amr = ['pwd'];
    if (await twoFactor.isOn(row.id)) {
      if (code === undefined) {
        // Clients ask for the code after the password, so every sign-in with a second factor gets
        // here once.
        attempt.uncounted();
        throw new VezaError('second_factor_required', 'Send a code from your authenticator app, or a recovery code.');
      }
      if (!(await twoFactor.check(row.id, code))) {
        await this.#failed(row, client, 'code');
        throw new VezaError('second_factor_required', 'This code is wrong, or was used before.');
      }
      amr.push('otp', 'mfa');
    }
    const hash = outdated ? await this.#rehash(row, password) : row.password_hash;
    const tokens = await sessions.begin({ accountId: row.id, amr, client });
    // The password or the second factor may have changed during the check. That change ended all
    // sessions that existed then, but not this one, which began later.
    const { rowCount } = await this.#database.query(
      'select 1 from accounts where id = $1 and password_hash = $2 and (totp_confirmed_at is null or $3)',
      [row.id, hash, amr.includes('otp')],
    );
    if (rowCount === 0) {
      await sessions.end(tokens.sessionId);
      throw wrongCredentials();
    }
    return { account: accountOf(row), tokens };
  }

  /**
   * Checks the password of an account that is signed in already. Rejects with `rate_limited` after
   * too many wrong passwords.
   */
  async checkPassword(accountId: string, password: string): Promise<boolean> {
    return (await this.#verified(accountId, password)) !== undefined;
  }

  /**
   * Changes the password and ends all sessions except `sessionId`. Rejects: `invalid_credentials`
   * (the old password is wrong), `bad_request` (the new password is not allowed), `conflict`,
   * `rate_limited`, `busy`.
   */
  async changePassword(accountId: string, password: string, newPassword: string, sessionId: string | undefined): Promise<void> {
    const { passwords, oneTimeLinks, sessions, apiKeys, mail, publicUrl } = this.#options;
    const row = await this.#verified(accountId, password);
    if (!row) throw new VezaError('invalid_credentials', 'The password is wrong.');
    await passwords.check(newPassword, knownOf(row));
    const hash = await passwords.hash(newPassword);
    await this.#database.transaction(async (connection) => {
      const { rowCount } = await connection.query('update accounts set password_hash = $3 where id = $1 and password_hash = $2', [
        accountId,
        row.password_hash,
        hash,
      ]);
      if (rowCount === 0) throw new VezaError('conflict', 'The password was changed in another session a moment ago. Sign in again.');
      await oneTimeLinks.void(connection, accountId, ['recovery', 'invitation', 'confirmation']);
      await sessions.endAll(accountId, { except: sessionId, connection });
      await apiKeys.endThoseOfSessions(accountId, connection);
      const text = passwordChangedMail(`${publicUrl}/account`, await waysIn(connection, accountId));
      await mail.post({ to: row.email, ...text, accountId }, connection);
    });
    apiKeys.forget();
    mail.wake();
  }

  /** Rejects: `bad_request`, `not_found`. */
  async rename(accountId: string, name: string): Promise<void> {
    const { rowCount } = await this.#database.query('update accounts set name = $2 where id = $1', [accountId, checkedName(name)]);
    if (rowCount === 0) throw noAccount();
  }

  /**
   * Changes the role and ends the account's sessions, because their tokens name the old role.
   * Rejects: `not_found`, `conflict` (the last administrator).
   */
  async setRole(accountId: string, role: Role): Promise<Account> {
    const account = await this.#database.transaction(async (connection) => {
      const row = await lockedUnlessLastAdmin(connection, accountId);
      if (row.role === role) return accountOf(row);
      await connection.query('update accounts set role = $2 where id = $1', [accountId, role]);
      await this.#options.sessions.endAll(accountId, { connection });
      return accountOf({ ...row, role });
    });
    this.#options.apiKeys.forget();
    return account;
  }

  /**
   * Bans the account and ends its sessions, keys and links. A second ban changes only the reason.
   * Rejects: `not_found`, `forbidden` (the role of `by` is not higher), `conflict` (the last
   * administrator), `bad_request` (the reason).
   */
  async ban(by: Principal, accountId: string, reason: string | undefined): Promise<Account> {
    const { clock, oneTimeLinks, sessions, apiKeys, events } = this.#options;
    const text = reason?.trim().normalize('NFC') || undefined;
    if (text !== undefined && (characterCount(text) > MAX_BAN_REASON_CHARS || /[\p{Cc}\p{Cs}]/u.test(text))) {
      throw new VezaError('bad_request', `A reason is at most ${MAX_BAN_REASON_CHARS} characters on one line.`, {
        details: { at: 'body.reason' },
      });
    }
    const account = await this.#database.transaction(async (connection) => {
      const row = await lockedUnlessLastAdmin(connection, accountId);
      mayBan(by, row.role);
      const bannedAt = row.banned_at ?? new Date(clock.wallMs());
      await connection.query('update accounts set banned_at = $2, ban_reason = $3 where id = $1', [accountId, bannedAt, text ?? null]);
      await oneTimeLinks.void(connection, accountId, ['recovery', 'invitation', 'confirmation']);
      await sessions.endAll(accountId, { connection });
      if (!row.banned_at) {
        await events?.emit('account.banned', undefined, { account: { id: row.id, name: row.name }, reason: text ?? null }, connection);
      }
      return accountOf({ ...row, banned_at: bannedAt, ban_reason: text ?? null });
    });
    apiKeys.forget();
    return account;
  }

  /** Lifts the ban, if there is one. Rejects: `not_found`, `forbidden`. */
  async unban(by: Principal, accountId: string): Promise<Account> {
    return this.#database.transaction(async (connection) => {
      const row = await lockedAccount(connection, accountId);
      mayBan(by, row.role);
      await connection.query('update accounts set banned_at = null, ban_reason = null where id = $1', [accountId]);
      return accountOf({ ...row, banned_at: null, ban_reason: null });
    });
  }

  /**
   * Deletes the account with its sessions, keys, links and memberships. Its channels are deleted if
   * `withChannels` is true; otherwise they stay without an owner. The audit log keeps the account's
   * entries. Resolves to the slugs of the deleted channels, whose broadcasts the caller must end.
   * Rejects: `not_found`, `conflict` (the last administrator).
   */
  async delete(accountId: string, withChannels: boolean): Promise<string[]> {
    const { sessions, apiKeys, mail } = this.#options;
    const slugs = await this.#database.transaction(async (connection) => {
      const row = await lockedUnlessLastAdmin(connection, accountId);
      // The sessions must end before their rows are deleted: their access tokens would otherwise
      // stay good until they expire.
      await sessions.endAll(accountId, { connection });
      const { rows } = withChannels
        ? await connection.query<{ slug: string }>('delete from channels where owner_id = $1 returning slug', [accountId])
        : { rows: [] };
      await connection.query('delete from accounts where id = $1', [accountId]);
      if (row.password_hash !== null && row.confirmed_at) await mail.post({ to: row.email, ...deletedMail() }, connection);
      return rows.map(({ slug }) => slug);
    });
    apiKeys.forget();
    mail.wake();
    return slugs;
  }

  /** Everything that is stored about the account. Rejects with `not_found`. */
  export(accountId: string): ReturnType<typeof exportAccount> {
    return exportAccount(this.#database, accountId);
  }

  async #row(id: string): Promise<AccountRow | undefined> {
    const { rows } = await this.#database.query<AccountRow>('select * from accounts where id = $1', [id]);
    return rows[0];
  }

  #verified(accountId: string, password: string): Promise<AccountRow | undefined> {
    const { limits, passwords } = this.#options;
    return limits.attempt(
      'sign-in-account',
      ['password', accountId],
      async () => {
        const row = await this.#row(accountId);
        return (await passwords.verify(row?.password_hash ?? undefined, password)).right ? row : undefined;
      },
      (row) => row !== undefined,
    );
  }

  /**
   * Whether the account has a session from this address or its group of addresses. A session ends
   * 30 days after its last use, and is deleted a day later.
   */
  async #wasHere(key: string | undefined, address: string): Promise<boolean> {
    if (key === undefined) return false;
    const { rows } = await this.#database.query<{ address: string }>(
      'select distinct s.address from sessions s join accounts a on a.id = s.account_id where a.email_key = $1',
      [key],
    );
    return rows.some((session) => addressGroup(session.address) === addressGroup(address));
  }

  /** Stores a hash with the current cost. Resolves to the hash that is stored now. */
  async #rehash(row: AccountRow, password: string): Promise<string | null> {
    const hash = await this.#options.passwords.hash(password);
    const { rowCount } = await this.#database.query('update accounts set password_hash = $3 where id = $1 and password_hash = $2', [
      row.id,
      row.password_hash,
      hash,
    ]);
    return rowCount === 0 ? row.password_hash : hash;
  }

  async #remindOfConfirmation(accountId: string): Promise<void> {
    await this.#database.transaction(async (connection) => {
      const row = await lockedAccount(connection, accountId);
      if (!row.confirmed_at) await this.#options.accountLinks.post(connection, row, 'confirmation');
    });
    this.#options.mail.wake();
  }

  /**
   * Records a failed sign-in in the audit log, with the account if there is one, and returns the
   * error to throw.
   */
  async #failed(row: AccountRow | undefined, client: SignInClient, reason: string): Promise<VezaError> {
    await this.#options.audit.record({
      principal: ANONYMOUS,
      action: 'signInFailed',
      address: client.address,
      target: row && `account:${row.id}`,
      details: { reason: row ? reason : 'unknown' },
    });
    return wrongCredentials();
  }
}

function mayBan(by: Principal, role: Role): void {
  if (by.kind !== 'admin-token' && !outranks(by.role, role))
    throw new VezaError('forbidden', 'Only an account of a lower role can be banned.');
}

const wrongCredentials = () =>
  new VezaError(
    'invalid_credentials',
    'The e-mail address or the password is wrong, or the address is not confirmed yet. Check your mail for a confirmation link.',
  );
