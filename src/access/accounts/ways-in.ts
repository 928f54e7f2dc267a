import type { Queryable } from '../../backing/database/database.js';
import type { Mail } from './mail.js';
import { type AddedWayIn, wayInAddedMail } from './mail-texts.js';

/** The credentials of an account other than its password. */
export interface WaysIn {
  readonly apiKeys: number;
  readonly passkeys: number;
  readonly hasApp: boolean;
}

export async function waysIn(connection: Queryable, accountId: string): Promise<WaysIn> {
  const { rows } = await connection.query<{ api_keys: number; passkeys: number; has_app: boolean }>(
    `select totp_confirmed_at is not null as has_app,
       (select count(*)::int from api_keys where account_id = $1) as api_keys,
       (select count(*)::int from passkeys where account_id = $1) as passkeys
     from accounts where id = $1`,
    [accountId],
  );
  const [row] = rows;
  return { apiKeys: row?.api_keys ?? 0, passkeys: row?.passkeys ?? 0, hasApp: row?.has_app ?? false };
}

/** Deletes every credential of the account except its password and its links. */
export async function closeWaysIn(connection: Queryable, accountId: string): Promise<void> {
  for (const table of ['api_keys', 'passkeys', 'recovery_codes']) {
    await connection.query(`delete from ${table} where account_id = $1`, [accountId]);
  }
  await connection.query('update accounts set sealed_totp = null, totp_confirmed_at = null, totp_step = null where id = $1', [accountId]);
}

/**
 * Sends a mail to the owner of an account when a credential is added. The mail is posted in the
 * transaction that adds it.
 */
export class WayInMails {
  readonly #mail: Mail;
  readonly #page: string;

  constructor(mail: Mail, publicUrl: string) {
    this.#mail = mail;
    this.#page = `${publicUrl}/account`;
  }

  /**
   * The caller calls `wake` after the commit. No mail goes to an address that was never confirmed,
   * because it may be somebody else's.
   */
  async post(connection: Queryable, accountId: string, added: AddedWayIn): Promise<void> {
    const { rows } = await connection.query<{ email: string }>('select email from accounts where id = $1 and confirmed_at is not null', [
      accountId,
    ]);
    if (rows[0]) await this.#mail.post({ to: rows[0].email, ...wayInAddedMail(this.#page, added), accountId }, connection);
  }

  wake(): void {
    this.#mail.wake();
  }
}
