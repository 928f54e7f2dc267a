import { randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import { BoundedLog } from '../../runtime/bounded-log.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Loop } from '../../runtime/loop.js';
import { beyondKeys, keyReaches, outranks, type Principal, type Role } from '../roles.js';
import type { AccountLinks, ShownLink } from './account-links.js';
import {
  type Account,
  type AccountRow,
  accountOf,
  CAN_SIGN_IN,
  checkedName,
  knownOf,
  lockedAccount,
  noAccount,
  rowByEmail,
} from './account-rows.js';
import type { AccountKeys, AccountLimits, AccountSessions } from './accounts.js';
import { type EmailAddress, emailAddress } from './email-address.js';
import type { Mail } from './mail.js';
import { passwordChangedMail } from './mail-texts.js';
import type { OneTimeLinks } from './one-time-links.js';
import type { Passwords } from './passwords.js';
import { closeWaysIn, waysIn } from './ways-in.js';

export interface RegistrationOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  readonly passwords: Passwords;
  readonly oneTimeLinks: OneTimeLinks;
  readonly accountLinks: AccountLinks;
  readonly mail: Mail;
  readonly sessions: Pick<AccountSessions, 'endAll'>;
  readonly limits: Pick<AccountLimits, 'attempt' | 'take'>;
  readonly apiKeys: AccountKeys;
  /** Whether people may make accounts themselves. */
  readonly registration: 'open' | 'closed';
  /** The role of an account that its owner registered. */
  readonly defaultRole: 'listener' | 'broadcaster';
  /** The address of the administrator's account that the first start makes. */
  readonly adminEmail: string;
  readonly publicUrl: string;
}

/**
 * At most this many links to the first administrator's account are good at once: every process that
 * starts makes one.
 */
const FIRST_ADMIN_LINKS = 5;
const CLEAN_MS = 3_600_000;
/** After this time an address that was never confirmed can be registered again. */
const UNCONFIRMED_KEPT_MS = 7 * 24 * 3_600_000;
/**
 * At most this many password recoveries run at once; a request above it is dropped with a log line.
 */
const MAX_RECOVERIES = 100;

/**
 * The ways to get an account or to come back to it: by registering, by invitation, by a recovery
 * link.
 */
export class Registration {
  readonly #options: RegistrationOptions;
  /** Bounded, because anybody can cause these lines. */
  readonly #boundedLog: BoundedLog;
  readonly #recoveries = new Set<Promise<void>>();
  readonly #cleanings: Loop;

  constructor(options: RegistrationOptions) {
    this.#options = options;
    const { clock, log } = options;
    this.#boundedLog = new BoundedLog(log, clock);
    this.#cleanings = new Loop({
      clock,
      periodMs: CLEAN_MS,
      task: () => this.clean(),
      onError: (error) =>
        log.warn({ event: 'access.old_links_not_deleted', error: messageOf(error) }, 'could not delete expired account links'),
    });
  }

  start(): void {
    this.#cleanings.start();
  }

  async stop(): Promise<void> {
    await this.#cleanings.stop();
    await this.idle();
    this.#boundedLog.close();
  }

  /** Resolves when the mails of all requested recoveries are in the outbox. */
  async idle(): Promise<void> {
    while (this.#recoveries.size > 0) await Promise.all(this.#recoveries);
  }

  /**
   * Makes an account. An address that has an account gets the same answer; its owner gets a mail
   * that says so. With a mail server the account waits until its address is confirmed. Until then a
   * second registration of the address replaces name and password: the address may be somebody
   * else's, so the first to register it must not keep it. `confirm` needs the password, so nobody
   * confirms an account that has another person's password.
   *
   * Rejects: `forbidden` (registration is closed), `bad_request`, `rate_limited`, `busy`.
   */
  async register(given: { email: string; password: string; name: string }, address: string): Promise<{ email: string; name: string }> {
    const { database, passwords, accountLinks, mail, limits, clock } = this.#options;
    if (this.#options.registration === 'closed') {
      throw new VezaError('forbidden', 'Registration is closed. Ask an administrator for an invitation.');
    }
    await limits.take('register', address);
    const email = emailAddress(given.email);
    const name = checkedName(given.name);
    await passwords.check(given.password, knownOf({ email: email.shown, name }));
    const hash = await passwords.hash(given.password);
    await database.transaction(async (connection) => {
      const now = new Date(clock.wallMs());
      const { rows } = await connection.query<AccountRow>(
        `insert into accounts (id, email, email_key, name, role, password_hash, confirmed_at, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (email_key) do nothing returning *`,
        [randomUUID(), email.shown, email.key, name, this.#options.defaultRole, hash, mail.canSend ? null : now, now],
      );
      if (rows[0]) {
        if (mail.canSend) await accountLinks.post(connection, rows[0], 'confirmation');
        return;
      }
      await this.#registeredAgain(connection, email, { name, hash });
    });
    mail.wake();
    return { email: email.shown, name };
  }

  async #registeredAgain(connection: Queryable, email: EmailAddress, { name, hash }: { name: string; hash: string }): Promise<void> {
    const { accountLinks, mail } = this.#options;
    const { rows } = await connection.query<AccountRow>('select * from accounts where email_key = $1 for update', [email.key]);
    const row = rows[0];
    // The account was deleted a moment ago, or it is banned. Neither gets a mail.
    if (!row || row.banned_at) return;
    const { state } = accountOf(row);
    if (state !== 'unconfirmed') {
      await accountLinks.post(connection, row, state === 'invited' ? 'invitation' : 'known-address');
      return;
    }
    if (!mail.canSend) return;
    await connection.query('update accounts set name = $2, password_hash = $3 where id = $1', [row.id, name, hash]);
    await accountLinks.post(connection, row, 'confirmation');
  }

  /**
   * Confirms the address of an account. The link proves who owns the address, the password proves
   * who registered it. The link alone would open the account to somebody who registered another
   * person's address. Resolves to the account's id. Rejects: `not_found` (the link is not good),
   * `invalid_credentials` (the password is not the one that was registered last; the link stays
   * good), `rate_limited`, `busy`.
   */
  confirm(token: string, password: string, address: string): Promise<string> {
    return this.#options.limits.attempt('token', address, () => this.#confirm(token, password));
  }

  async #confirm(token: string, password: string): Promise<string> {
    const { database, passwords, oneTimeLinks, clock } = this.#options;
    const accountId = await oneTimeLinks.look(database, token, ['confirmation']);
    const { rows } = await database.query<AccountRow>('select * from accounts where id = $1', [accountId]);
    const known = rows[0]?.password_hash ?? undefined;
    if (!(await passwords.verify(known, password)).right) throw otherPassword();
    return database.transaction(async (connection) => {
      const row = await lockedAccount(connection, accountId);
      // The address was registered again while the password was checked.
      if (row.password_hash !== known) throw otherPassword();
      await oneTimeLinks.use(connection, token, ['confirmation']);
      await connection.query('update accounts set confirmed_at = coalesce(confirmed_at, $2) where id = $1', [
        accountId,
        new Date(clock.wallMs()),
      ]);
      await oneTimeLinks.void(connection, accountId, ['confirmation']);
      return accountId;
    });
  }

  /**
   * Mails a recovery link if the address has an account. Resolves before the account is looked up,
   * so that the response time does not show whether there is one. Rejects with `rate_limited`.
   */
  async recover(email: string, address: string): Promise<void> {
    const { limits } = this.#options;
    const log = this.#boundedLog;
    await limits.take('recover', address);
    if (this.#recoveries.size >= MAX_RECOVERIES) {
      log.error(
        { event: 'access.password_resets_full', underWay: MAX_RECOVERIES },
        'too many password resets run at once: a request was dropped',
      );
      return;
    }
    const sent = this.#sendRecovery(email).catch((error) =>
      log.error({ event: 'access.password_reset_failed', error: messageOf(error) }, 'a password reset failed'),
    );
    this.#recoveries.add(sent);
    sent.finally(() => this.#recoveries.delete(sent));
  }

  async #sendRecovery(email: string): Promise<void> {
    const { database, accountLinks, mail } = this.#options;
    const found = await rowByEmail(database, email);
    if (!found) return;
    await database.transaction(async (connection) => {
      const row = await lockedAccount(connection, found.id);
      if (!row.banned_at) await accountLinks.post(connection, row, row.password_hash === null ? 'invitation' : 'recovery');
    });
    mail.wake();
  }

  /**
   * Sets a password by a recovery or an invitation link, which also confirms the address. Ends all
   * sessions. If the address was never confirmed, every other credential of the account is revoked
   * too, because somebody else may have set it up. Resolves to the account's id. Rejects:
   * `not_found` (the link is not good), `bad_request` (the password; the link stays good),
   * `rate_limited`, `busy`.
   */
  reset(token: string, newPassword: string, address: string): Promise<string> {
    return this.#options.limits.attempt('token', address, () => this.#reset(token, newPassword));
  }

  async #reset(token: string, newPassword: string): Promise<string> {
    const { database, passwords, oneTimeLinks, sessions, apiKeys, mail, clock, publicUrl } = this.#options;
    const accountId = await oneTimeLinks.look(database, token, ['recovery', 'invitation']);
    const { rows } = await database.query<AccountRow>('select * from accounts where id = $1', [accountId]);
    if (!rows[0]) throw noAccount();
    await passwords.check(newPassword, knownOf(rows[0]));
    const hash = await passwords.hash(newPassword);
    await database.transaction(async (connection) => {
      // Every transaction locks the account before its link, otherwise two could deadlock.
      const row = await lockedAccount(connection, accountId);
      await oneTimeLinks.use(connection, token, ['recovery', 'invitation']);
      await connection.query('update accounts set password_hash = $2, confirmed_at = coalesce(confirmed_at, $3) where id = $1', [
        accountId,
        hash,
        new Date(clock.wallMs()),
      ]);
      await oneTimeLinks.void(connection, accountId, ['recovery', 'invitation', 'confirmation']);
      await sessions.endAll(accountId, { connection });
      await apiKeys.endThoseOfSessions(accountId, connection);
      if (row.password_hash === null) return;
      if (!row.confirmed_at) await closeWaysIn(connection, accountId);
      const text = passwordChangedMail(`${publicUrl}/account`, await waysIn(connection, accountId));
      await mail.post({ to: row.email, ...text, accountId }, connection);
    });
    apiKeys.forget();
    mail.wake();
    return accountId;
  }

  /**
   * Makes an account that has no password yet, and a link with which its owner sets one. If a mail server is configured, the
   * link is mailed as well. The link is void when `by` is no longer an administrator. Rejects:
   * `bad_request`, `conflict` (the address has an account), `forbidden` (`by` is not an
   * administrator any more).
   */
  async invite(given: { email: string; name: string; role: Role }, by?: Principal): Promise<{ account: Account } & ShownLink> {
    const { database, accountLinks, mail, clock } = this.#options;
    const email = emailAddress(given.email);
    const name = checkedName(given.name);
    const made = await database.transaction(async (connection) => {
      const row = await this.#insertInvited(connection, email, name, given.role, new Date(clock.wallMs()));
      if (!row) throw new VezaError('conflict', 'This address has an account already.');
      const shown = await accountLinks.show(connection, row.id, 'invitation', { madeBy: await stillAdmin(connection, by) });
      if (mail.canSend) await accountLinks.mailShown(connection, row, 'invitation', shown);
      return { account: accountOf(row), ...shown };
    });
    mail.wake();
    return made;
  }

  /**
   * A link to hand over to somebody who gets no mail: an invitation for an account without a
   * password, otherwise a recovery link. Rejects: `not_found`; `forbidden` (the role of `by` is not
   * higher, or `by` is an API key that does not reach the account, or the account is banned).
   */
  async link(by: Principal, accountId: string): Promise<ShownLink> {
    const { database, accountLinks } = this.#options;
    return database.transaction(async (connection) => {
      const row = await lockedAccount(connection, accountId);
      if (by.kind !== 'admin-token' && !outranks(by.role, row.role)) {
        throw new VezaError('forbidden', 'Links can be made only for accounts with a lower role than yours.');
      }
      if (!keyReaches(by, row.role)) throw beyondKeys();
      if (row.banned_at) throw new VezaError('forbidden', 'This account is banned.');
      const purpose = row.password_hash === null ? 'invitation' : 'recovery';
      return accountLinks.show(connection, accountId, purpose, { madeBy: await stillAdmin(connection, by) });
    });
  }

  /**
   * Makes an invited administrator account and a new link to it, as long as no administrator can
   * sign in. Resolves to undefined if one can, or if ADMIN_EMAIL belongs to an account that cannot
   * become the administrator.
   */
  async firstAdmin(): Promise<({ email: string } & ShownLink) | undefined> {
    const { database, accountLinks, adminEmail, clock, log } = this.#options;
    const email = emailAddress(adminEmail);
    return database.transaction(async (connection) => {
      const { rowCount } = await connection.query(`select 1 from accounts where role = 'admin' and ${CAN_SIGN_IN} limit 1`);
      if (rowCount > 0) return undefined;
      await this.#insertInvited(connection, email, 'Administrator', 'admin', new Date(clock.wallMs()));
      const { rows } = await connection.query<AccountRow>('select * from accounts where email_key = $1 for update', [email.key]);
      const row = rows[0];
      if (row?.role !== 'admin' || row.banned_at) {
        // Registering the address of ADMIN_EMAIL must not be enough to become the administrator.
        log.warn(
          { event: 'access.admin_email_not_administrator', email: email.shown },
          'ADMIN_EMAIL belongs to an account that is not an administrator; change its role with: veza user set-role',
        );
        return undefined;
      }
      return { email: row.email, ...(await accountLinks.show(connection, row.id, 'invitation', { besides: FIRST_ADMIN_LINKS - 1 })) };
    });
  }

  async #insertInvited(connection: Queryable, email: EmailAddress, name: string, role: Role, now: Date): Promise<AccountRow | undefined> {
    const { rows } = await connection.query<AccountRow>(
      `insert into accounts (id, email, email_key, name, role, created_at) values ($1, $2, $3, $4, $5, $6)
       on conflict (email_key) do nothing returning *`,
      [randomUUID(), email.shown, email.key, name, role, now],
    );
    return rows[0];
  }

  /** Deletes expired links, and accounts whose address was not confirmed in time. */
  async clean(): Promise<void> {
    const { database, clock } = this.#options;
    const now = clock.wallMs();
    await database.query('delete from one_time_links where expires_at <= $1', [new Date(now)]);
    await database.query(
      `delete from accounts a where confirmed_at is null and password_hash is not null and banned_at is null and created_at <= $1
         and not exists (select 1 from one_time_links l where l.account_id = a.id)`,
      [new Date(now - UNCONFIRMED_KEPT_MS)],
    );
  }
}

/**
 * Resolves to the account id of the administrator `by` who makes a link, or to undefined for the
 * admin token. The row stays locked until the link is committed, so that a demotion at the same
 * moment voids the link. Rejects with `forbidden`.
 */
async function stillAdmin(connection: Queryable, by: Principal | undefined): Promise<string | undefined> {
  if (by?.accountId === undefined) return undefined;
  const { rowCount } = await connection.query(`select 1 from accounts where id = $1 and role = 'admin' and banned_at is null for share`, [
    by.accountId,
  ]);
  if (rowCount === 0) throw new VezaError('forbidden', 'This is for an administrator.');
  return by.accountId;
}

const otherPassword = () =>
  new VezaError(
    'invalid_credentials',
    'This is not the password that this address was registered with last. Choose “Forgotten password” to set a new one; that confirms the address, too.',
  );
