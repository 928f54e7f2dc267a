import { randomBytes } from 'node:crypto';
import type { Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { hashOf } from '../random-key.js';

export type LinkPurpose = 'recovery' | 'invitation' | 'confirmation';

const HOUR_MS = 3_600_000;
const LINK_LIFE_MS: Readonly<Record<LinkPurpose, number>> = {
  recovery: HOUR_MS,
  confirmation: 48 * HOUR_MS,
  invitation: 7 * 24 * HOUR_MS,
};

export interface OneTimeLink {
  readonly token: string;
  readonly expiresAtMs: number;
}

export interface LinkIssue {
  readonly besides?: number | undefined;
  readonly madeBy?: string | undefined;
}

/**
 * Links that open an account once. A token has 256 random bits; only its SHA-256 is stored. Each
 * link has one purpose, expires, and can be used once; a new link voids the older ones. All methods
 * take the connection of the transaction that they are part of.
 */
export class OneTimeLinks {
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * `besides`: how many older links stay good. `madeBy`: the administrator who made the link; it is
   * void when they lose their role.
   */
  async issue(
    connection: Queryable,
    accountId: string,
    purpose: LinkPurpose,
    { besides = 0, madeBy }: LinkIssue = {},
  ): Promise<OneTimeLink> {
    const token = randomBytes(32).toString('base64url');
    const now = this.#clock.wallMs();
    const expiresAtMs = Math.trunc(now + LINK_LIFE_MS[purpose]);
    await connection.query(
      `delete from one_time_links where account_id = $1 and purpose = $2 and token_hash not in
         (select token_hash from one_time_links where account_id = $1 and purpose = $2 and used_at is null
          order by created_at desc, token_hash limit $3)`,
      [accountId, purpose, besides],
    );
    await connection.query(
      'insert into one_time_links (token_hash, account_id, purpose, created_at, expires_at, made_by) values ($1, $2, $3, $4, $5, $6)',
      [hashOf(token), accountId, purpose, new Date(now), new Date(expiresAtMs), madeBy ?? null],
    );
    return { token, expiresAtMs };
  }

  /**
   * The id of the account, if the link is good for one of `purposes`. The link stays good. Rejects
   * with `not_found`.
   */
  async look(connection: Queryable, token: string, purposes: readonly LinkPurpose[]): Promise<string> {
    const { rows } = await connection.query<{ account_id: string }>(
      'select account_id from one_time_links where token_hash = $1 and purpose = any($2) and used_at is null and expires_at > $3',
      [hashOf(token), purposes, new Date(this.#clock.wallMs())],
    );
    if (!rows[0]) throw invalidLink();
    return rows[0].account_id;
  }

  /**
   * Uses the link up and returns the id of its account. Only the first of several callers in all
   * processes succeeds. Rejects with `not_found`.
   */
  async use(connection: Queryable, token: string, purposes: readonly LinkPurpose[]): Promise<string> {
    const { rows } = await connection.query<{ account_id: string }>(
      `update one_time_links set used_at = $3 where token_hash = $1 and purpose = any($2) and used_at is null and expires_at > $3
       returning account_id`,
      [hashOf(token), purposes, new Date(this.#clock.wallMs())],
    );
    if (!rows[0]) throw invalidLink();
    return rows[0].account_id;
  }

  async void(connection: Queryable, accountId: string, purposes: readonly LinkPurpose[]): Promise<void> {
    await connection.query('delete from one_time_links where account_id = $1 and purpose = any($2) and used_at is null', [
      accountId,
      purposes,
    ]);
  }

  /**
   * Whether a link that is still good was made in the last `withinMs`: its mail need not be sent
   * again.
   */
  async isFresh(connection: Queryable, accountId: string, purpose: LinkPurpose, withinMs: number): Promise<boolean> {
    const now = this.#clock.wallMs();
    const { rowCount } = await connection.query(
      `select 1 from one_time_links where account_id = $1 and purpose = $2 and used_at is null and created_at > $3 and expires_at > $4 limit 1`,
      [accountId, purpose, new Date(now - withinMs), new Date(now)],
    );
    return rowCount > 0;
  }
}

const invalidLink = () =>
  new VezaError(
    'not_found',
    'This link does not work any more: it was used, has expired, or was replaced by a newer one. Ask for a new one.',
  );
