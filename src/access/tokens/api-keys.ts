import { randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import { BoundedMap } from '../../runtime/bounded-map.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import type { WayInMails } from '../accounts/ways-in.js';
import { hashOf, randomLetters } from '../random-key.js';
import { PERMISSIONS, type Principal, type Role, SCOPES, type Scope } from '../roles.js';
import type { Verifier } from './identity.js';

export interface ApiKey {
  readonly id: string;
  readonly name: string;
  /** The first characters of the key, by which its owner recognises it. */
  readonly hint: string;
  readonly scopes: readonly Scope[];
  readonly expiresAtMs: number | undefined;
  readonly lastUsedAtMs: number | undefined;
  readonly createdAtMs: number;
}

export const MAX_API_KEYS = 50;
export const MAX_KEY_NAME_CHARS = 100;
const KEY = /^vza_[0-9a-hjkmnp-tv-z]{26}$/;
const HINT_CHARS = 'vza_'.length + 4;
/**
 * A key that was deleted, or whose account was banned, is refused by every process after at most
 * this time.
 */
const CACHE_MS = 5000;
const MAX_CACHED = 10_000;
/** The precision of `lastUsedAt`: a busy key is written at most once per minute. */
const LAST_USED_MS = 60_000;

/** The scopes that are of use to an API key of an account with this role. */
export function scopesOf(role: Role): Scope[] {
  const rules = Object.values(PERMISSIONS);
  return (Object.keys(SCOPES) as Scope[]).filter((scope) =>
    rules.some((rule) => rule.scope === scope && ((rule.roles as readonly Role[]).includes(role) || 'channelRoles' in rule)),
  );
}

export interface ApiKeysOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  /** Sends a mail to the owner of an account when a key is made. Undefined: no mail. */
  readonly mails?: Pick<WayInMails, 'post' | 'wake'> | undefined;
}

/**
 * API keys for programs. Only the SHA-256 of a key is stored: a key has 130 random bits and cannot
 * be guessed, and as keys are looked up by their hash, the time of a lookup says nothing about the
 * key. A key has its account's current role within the key's scopes. It counts as second factor
 * only if its maker had shown one, and only while the account has one.
 */
export class ApiKeys {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Cached principals by key hash, oldest first. */
  readonly #cached = new BoundedMap<string, { principal: Promise<Principal | undefined>; untilMs: number }>(MAX_CACHED);

  readonly #mails: ApiKeysOptions['mails'];

  constructor({ database, clock, log, mails }: ApiKeysOptions) {
    this.#mails = mails;
    this.#database = database;
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * Makes a key. Its secret is returned once and cannot be read again. Rejects: `bad_request` (no
   * scope, scopes that are of no use to the account's role, an expiry in the past), `conflict` (the
   * account has `MAX_API_KEYS`), `not_found` (the account).
   */
  async create(
    accountId: string,
    given: {
      name: string;
      scopes: readonly Scope[];
      expiresAtMs: number | undefined;
      secondFactor: boolean;
      /** Whether only the session was shown to make it; see `endThoseOfSessions`. */
      bySessionAlone?: boolean;
      /**
       * Whether it is made with the admin token. Such a key keeps its second factor when the
       * account removes its own.
       */
      byServer?: boolean | undefined;
    },
  ): Promise<{ apiKey: ApiKey; secret: string }> {
    const nowMs = this.#clock.wallMs();
    if (given.expiresAtMs !== undefined && given.expiresAtMs <= nowMs)
      throw new VezaError('bad_request', 'expiresAt must be in the future.');
    const scopes = [...new Set(given.scopes)];
    if (scopes.length === 0) throw new VezaError('bad_request', 'A key needs at least one scope.');
    const secret = makeKey();
    const made = await this.#database.transaction(async (connection) => {
      // The row is locked, so that two requests at once cannot both use the last place.
      const { rows: accounts } = await connection.query<{ role: Role }>('select role from accounts where id = $1 for update', [accountId]);
      const account = accounts[0];
      if (!account) throw new VezaError('not_found', 'There is no such account.');
      const useful = scopesOf(account.role);
      const useless = scopes.filter((scope) => !useful.includes(scope));
      if (useless.length > 0)
        throw new VezaError('bad_request', `These scopes are of no use to a ${account.role}: ${useless.join(', ')}.`, {
          details: { allowed: useful },
        });
      const { rows } = await connection.query<ApiKeyRow>(
        `insert into api_keys (id, account_id, name, hint, key_hash, scopes, second_factor, expires_at, created_at, by_session_alone, by_server)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 where (select count(*) from api_keys where account_id = $2) < ${MAX_API_KEYS}
         returning *`,
        [
          randomUUID(),
          accountId,
          given.name,
          secret.slice(0, HINT_CHARS),
          hashOf(secret),
          scopes,
          given.secondFactor,
          given.expiresAtMs === undefined ? null : new Date(given.expiresAtMs),
          new Date(nowMs),
          given.bySessionAlone ?? false,
          given.byServer ?? false,
        ],
      );
      if (!rows[0]) throw new VezaError('conflict', `An account has at most ${MAX_API_KEYS} keys; delete one first.`);
      await this.#mails?.post(connection, accountId, 'api-key');
      return { apiKey: apiKeyOf(rows[0]), secret };
    });
    this.#mails?.wake();
    return made;
  }

  /** All keys of an account, newest first. There are at most `MAX_API_KEYS`. */
  async list(accountId: string): Promise<ApiKey[]> {
    const { rows } = await this.#database.query<ApiKeyRow>(
      'select * from api_keys where account_id = $1 order by created_at desc, id desc',
      [accountId],
    );
    return rows.map(apiKeyOf);
  }

  /** Rejects with `not_found`, also for a key of another account. */
  async delete(accountId: string, id: string): Promise<void> {
    const { rowCount } = await this.#database.query('delete from api_keys where account_id = $1 and id = $2', [accountId, id]);
    if (rowCount === 0) throw new VezaError('not_found', 'There is no such key.');
    this.forget();
  }

  /**
   * Revokes the keys that were made with a session alone. Called when the password changes or all
   * sessions end, because somebody with a stolen session may have made them. With `connection` the
   * caller also calls `forget` after its commit.
   */
  async endThoseOfSessions(accountId: string, connection: Queryable = this.#database): Promise<void> {
    await connection.query('delete from api_keys where account_id = $1 and by_session_alone', [accountId]);
    this.forget();
  }

  /**
   * Clears the cache of this process after a key or an account has changed. Other processes follow
   * within 5 s.
   */
  forget(): void {
    this.#cached.clear();
  }

  /**
   * The verifier for `Identity`. Rejects with `unauthorized` for a key that is unknown, deleted or
   * expired, or whose account is banned.
   */
  readonly verify: Verifier = async (credential) => {
    if (!credential.startsWith('vza_')) return undefined;
    const principal = KEY.test(credential) ? await this.#lookUp(hashOf(credential)) : undefined;
    if (!principal || (principal.expiresAtMs !== undefined && principal.expiresAtMs <= this.#clock.wallMs()))
      throw new VezaError('unauthorized', 'The API key is not valid: it is unknown, deleted or expired, or its account is banned.');
    return principal;
  };

  #lookUp(hash: Buffer): Promise<Principal | undefined> {
    const name = hash.toString('base64');
    const nowMs = this.#clock.monotonicMs();
    const known = this.#cached.get(name);
    if (known && known.untilMs > nowMs) return known.principal;
    // The time is taken before the read, so that a change during the read does not extend the cache
    // time.
    const principal = this.#read(hash);
    const entry = { principal, untilMs: nowMs + CACHE_MS };
    this.#cached.set(name, entry);
    const drop = () => {
      if (this.#cached.get(name) === entry) this.#cached.delete(name);
    };
    // Unknown keys are not kept, because they would push good keys out of the cache.
    principal.then((found) => found ?? drop(), drop);
    return principal;
  }

  async #read(hash: Buffer): Promise<Principal | undefined> {
    const { rows } = await this.#database.query<ApiKeyRow & { account_name: string; role: Role }>(
      `select k.*, a.name as account_name, a.role from api_keys k join accounts a on a.id = k.account_id
       where k.key_hash = $1 and a.banned_at is null`,
      [hash],
    );
    const row = rows[0];
    if (!row) return undefined;
    const nowMs = this.#clock.wallMs();
    if (row.expires_at !== null && row.expires_at.getTime() <= nowMs) return undefined;
    if (row.last_used_at === null || row.last_used_at.getTime() <= nowMs - LAST_USED_MS) {
      await this.#database
        .query('update api_keys set last_used_at = $2 where id = $1', [row.id, new Date(nowMs)])
        // The request is answered even if this write fails.
        .catch((error) =>
          this.#log.warn({ event: 'access.key_use_not_recorded', error: messageOf(error) }, 'could not record the last use of an API key'),
        );
    }
    return {
      kind: 'api-key',
      id: `api-key:${row.id}`,
      name: row.account_name,
      role: row.role,
      accountId: row.account_id,
      secondFactor: row.second_factor,
      scopes: row.scopes,
      ...(row.expires_at && { expiresAtMs: row.expires_at.getTime() }),
    };
  }
}

/**
 * Whether each key was made with a second factor, by key id. Keys that do not exist are left out.
 */
export async function factorsOfApiKeys(database: Queryable, ids: readonly string[]): Promise<ReadonlyMap<string, boolean>> {
  if (ids.length === 0) return new Map();
  const { rows } = await database.query<Pick<ApiKeyRow, 'id' | 'second_factor'>>(
    'select id, second_factor from api_keys where id = any($1::uuid[])',
    [ids],
  );
  return new Map(rows.map(({ id, second_factor }) => [id, second_factor]));
}

interface ApiKeyRow {
  id: string;
  account_id: string;
  name: string;
  hint: string;
  scopes: Scope[];
  second_factor: boolean;
  expires_at: Date | null;
  last_used_at: Date | null;
  created_at: Date;
}

const apiKeyOf = (row: ApiKeyRow): ApiKey => ({
  id: row.id,
  name: row.name,
  hint: row.hint,
  scopes: row.scopes,
  expiresAtMs: row.expires_at?.getTime(),
  lastUsedAtMs: row.last_used_at?.getTime(),
  createdAtMs: row.created_at.getTime(),
});

const makeKey = () => `vza_${randomLetters(26)}`;
