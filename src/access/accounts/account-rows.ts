import type { Database, Queryable } from '../../backing/database/database.js';
import { VezaError } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';
import type { Role } from '../roles.js';
import { isSeen, PLAIN_LINE } from '../shown-text.js';
import { emailAddress } from './email-address.js';

export const MAX_NAME_CHARS = 64;
export const MAX_BAN_REASON_CHARS = 500;

export interface Account {
  readonly id: string;
  readonly email: string;
  readonly name: string;
  readonly role: Role;
  /**
   * `invited`: the account has no password yet; its owner sets one with a link. `unconfirmed`: its
   * owner has not followed the link in the confirmation mail yet. Only an `active` account can sign
   * in.
   */
  readonly state: 'active' | 'invited' | 'unconfirmed' | 'banned';
  readonly createdAtMs: number;
  readonly bannedAtMs: number | undefined;
  readonly banReason: string | undefined;
}

export interface AccountRow {
  id: string;
  email: string;
  email_key: string;
  name: string;
  role: Role;
  password_hash: string | null;
  confirmed_at: Date | null;
  banned_at: Date | null;
  ban_reason: string | null;
  created_at: Date;
}

export const accountOf = (row: AccountRow): Account => ({
  id: row.id,
  email: row.email,
  name: row.name,
  role: row.role,
  state: row.banned_at ? 'banned' : row.password_hash === null ? 'invited' : row.confirmed_at ? 'active' : 'unconfirmed',
  createdAtMs: row.created_at.getTime(),
  bannedAtMs: row.banned_at?.getTime(),
  banReason: row.ban_reason ?? undefined,
});

/** The same condition as `state === 'active'`, in SQL for the table `accounts`. */
export const CAN_SIGN_IN = '(password_hash is not null and confirmed_at is not null and banned_at is null)';

export const noAccount = () => new VezaError('not_found', 'There is no such account.');

/** Locks and returns the account's row. A transaction that changes an account calls this first. */
export async function lockedAccount(connection: Queryable, id: string): Promise<AccountRow> {
  const { rows } = await connection.query<AccountRow>('select * from accounts where id = $1 for update', [id]);
  if (!rows[0]) throw noAccount();
  return rows[0];
}

/**
 * Like `lockedAccount`, for an account that is about to stop being an administrator. Rejects with
 * `conflict` if no other administrator could sign in. Two administrators who give up their role at
 * once are handled one after the other, and the second is refused.
 */
export async function lockedUnlessLastAdmin(connection: Queryable, id: string): Promise<AccountRow> {
  // Every transaction locks the rows in the order of their ids, otherwise two could deadlock.
  const { rows } = await connection.query<AccountRow>(`select * from accounts where id = $1 or role = 'admin' order by id for update`, [
    id,
  ]);
  const row = rows.find((candidate) => candidate.id === id);
  if (!row) throw noAccount();
  // An account that cannot sign in (banned, invited or unconfirmed) does not count as an
  // administrator.
  const administers = (candidate: AccountRow) => candidate.role === 'admin' && accountOf(candidate).state === 'active';
  if (administers(row) && !rows.some((other) => other.id !== id && administers(other))) {
    throw new VezaError('conflict', 'This is the last administrator. Give another account this role first.');
  }
  return row;
}

/** Name, role, ban and age of accounts, by id. Accounts that do not exist are left out. */
export async function accountsById(
  database: Queryable,
  ids: readonly string[],
): Promise<ReadonlyMap<string, { name: string; role: Role; isBanned: boolean; createdAtMs: number }>> {
  const { rows } = await database.query<Pick<AccountRow, 'id' | 'name' | 'role' | 'created_at'> & { is_banned: boolean }>(
    'select id, name, role, created_at, banned_at is not null as is_banned from accounts where id = any($1::uuid[])',
    [ids],
  );
  return new Map(
    rows.map(({ id, name, role, is_banned, created_at }) => [id, { name, role, isBanned: is_banned, createdAtMs: created_at.getTime() }]),
  );
}

export async function rowByEmail(database: Queryable, email: string): Promise<AccountRow | undefined> {
  const key = keyOf(email);
  if (key === undefined) return undefined;
  const { rows } = await database.query<AccountRow>('select * from accounts where email_key = $1', [key]);
  return rows[0];
}

/** The address as it is compared. Undefined: `email` is not an e-mail address. */
export function keyOf(email: string): string | undefined {
  try {
    return emailAddress(email).key;
  } catch {
    return undefined;
  }
}

/**
 * Accounts after the cursor `after`, newest first. If `query` is an e-mail address, only its
 * account is returned; any other text is searched in addresses and names, without regard to case.
 */
export async function listRows(
  database: Database,
  query: string | undefined,
  after: { createdAtMs: number; id: string } | undefined,
  limit: number,
): Promise<AccountRow[]> {
  const key = query === undefined ? undefined : keyOf(query);
  const like =
    query === undefined || key !== undefined
      ? null
      : `%${query
          .trim()
          .toLowerCase()
          .replace(/[\\%_]/g, '\\$&')}%`;
  const { rows } = await database.query<AccountRow>(
    `select * from accounts
     where ($1::text is null or email_key = $1) and ($2::text is null or email_key like $2 or lower(name) like $2)
       and ($3::timestamptz is null or (created_at, id) < ($3, $4::uuid))
     order by created_at desc, id desc limit $5`,
    [key ?? null, like, after ? new Date(after.createdAtMs) : null, after?.id ?? null, limit],
  );
  return rows;
}

/**
 * A name that other people see: one visible line, without characters that change the direction of
 * text. Throws `bad_request`.
 */
export function checkedName(given: string): string {
  const name = given.trim().normalize('NFC');
  if (characterCount(name) > MAX_NAME_CHARS || !PLAIN_LINE.test(name) || !isSeen(name)) {
    throw new VezaError('bad_request', `A name is 1 to ${MAX_NAME_CHARS} characters on one line.`, { details: { at: 'body.name' } });
  }
  return name;
}

/**
 * Everything that other people know about an account's owner and would try as the owner's password.
 */
export const knownOf = ({ email, name }: { email: string; name: string }): string[] => [
  email,
  email.slice(0, email.lastIndexOf('@')),
  name,
  ...name.split(/\s+/),
];
