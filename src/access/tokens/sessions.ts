import { randomBytes, randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { Loop } from '../../runtime/loop.js';
import type { Audit } from '../audit.js';
import { hashOf } from '../random-key.js';
import { ANONYMOUS, type Role } from '../roles.js';
import type { Vault } from '../vault.js';
import type { AccessTokens } from './access-tokens.js';
import { ENDED_KEPT_MS, type EndedSessions } from './ended-sessions.js';

const DAY_MS = 24 * 3_600_000;
/** A session that is not refreshed for this long ends. */
export const IDLE_MS = 30 * DAY_MS;
/** A session ends after this time even if it is refreshed. */
export const ABSOLUTE_MS = 90 * DAY_MS;
/**
 * For this long a replaced refresh token returns the same successor again, because two tabs may
 * refresh at the same moment.
 */
export const GRACE_MS = 10_000;
/**
 * At most this many sessions per account. A new one above it ends the one that was used least
 * recently.
 */
export const MAX_SESSIONS = 100;
/** User agents are cut to this many characters. */
const MAX_CLIENT_CHARS = 300;
/** Addresses are cut to this many characters. */
const MAX_ADDRESS_CHARS = 64;

const CLEAN_MS = 60_000;
/** Rows per statement of the cleanup. */
const CLEAN_BATCH = 1000;
/** At most this many statements per table and cleanup. */
const MAX_CLEAN_BATCHES = 100;
/**
 * A replaced token is kept for as long as a session can be idle, so that its second use is
 * recognised.
 */
const REPLACED_KEPT_MS = IDLE_MS;
/** Ended sessions are kept for a day, for operators who look into the table. */
const OVER_KEPT_MS = DAY_MS;

/** 256 random bits. The prefix tells the token from other secrets. */
const REFRESH_TOKEN = /^vzr_[\w-]{43}$/;

export interface SessionClient {
  readonly address: string;
  readonly userAgent: string;
}

export interface Tokens {
  readonly accessToken: string;
  /** How long the access token is good, in seconds. */
  readonly expiresIn: number;
  readonly refreshToken: string;
  readonly sessionId: string;
}

export interface Session {
  readonly id: string;
  /** The user agent of the last use. */
  readonly client: string;
  readonly address: string;
  readonly amr: readonly string[];
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  readonly expiresAtMs: number;
}

export interface SessionsOptions {
  readonly database: Database;
  readonly vault: Vault;
  readonly tokens: Pick<AccessTokens, 'issue'>;
  readonly ended: EndedSessions;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Sessions. Each is a family of refresh tokens, of which one is good at a time; every use replaces
 * it. A replaced token that is used again has been copied, and it is unknown which of the two is
 * the owner's, so the session ends. For ten seconds after its replacement it returns the same
 * successor instead.
 *
 * Only the SHA-256 of a token is stored: a token has 256 random bits and cannot be guessed, and the
 * timing of a lookup by hash tells nothing. Every change of a family's rows needs the lock on its
 * session's row.
 */
export class Sessions {
  readonly #database: Database;
  readonly #vault: Vault;
  readonly #tokens: Pick<AccessTokens, 'issue'>;
  readonly #ended: EndedSessions;
  readonly #audit: Audit;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #cleanings: Loop;

  constructor({ database, vault, tokens, ended, audit, clock, log }: SessionsOptions) {
    this.#database = database;
    this.#vault = vault;
    this.#tokens = tokens;
    this.#ended = ended;
    this.#audit = audit;
    this.#clock = clock;
    this.#log = log;
    this.#cleanings = new Loop({
      clock,
      periodMs: CLEAN_MS,
      task: () => this.#clean(),
      onError: (error) =>
        log.warn({ event: 'access.old_sessions_not_deleted', error: messageOf(error) }, 'could not delete expired sessions'),
    });
  }

  start(): void {
    this.#cleanings.start();
  }

  /** Waits for the running cleanup. A second call does nothing. */
  async stop(): Promise<void> {
    await this.#cleanings.stop();
  }

  /**
   * Begins a session after a sign-in. `amr`: how the owner has proven who they are (RFC 8176).
   * Rejects with `unauthorized` if the account does not exist or is banned.
   */
  async begin({ accountId, amr, client }: { accountId: string; amr: readonly string[]; client: SessionClient }): Promise<Tokens> {
    const nowMs = this.#clock.wallMs();
    const sessionId = randomUUID();
    const refreshToken = makeToken();
    const { account, excess } = await this.#database.transaction(async (connection) => {
      // A transaction that bans the account or changes its role waits for this lock, and then ends
      // its sessions, this one included.
      const { rows } = await connection.query<SessionAccountRow>('select name, role, banned_at from accounts where id = $1 for share', [
        accountId,
      ]);
      const account = rows[0];
      if (!account || account.banned_at) throw new VezaError('unauthorized', 'This account cannot sign in.');
      await connection.query(
        `insert into sessions (id, account_id, client, address, amr, created_at, last_used_at, expires_at) values ($1, $2, $3, $4, $5, $6, $6, $7)`,
        [
          sessionId,
          accountId,
          cut(client.userAgent, MAX_CLIENT_CHARS),
          cut(client.address, MAX_ADDRESS_CHARS),
          [...amr],
          new Date(nowMs),
          new Date(nowMs + IDLE_MS),
        ],
      );
      await this.#insertToken(connection, refreshToken, sessionId, nowMs);
      const excess = await this.#markEnded(
        connection,
        `id in (select id from sessions where account_id = $2 and ended_at is null and expires_at > $1
                order by last_used_at desc, id = $3 desc, id offset ${MAX_SESSIONS})`,
        [accountId, sessionId],
      );
      return { account, excess };
    });
    this.#ended.add(excess);
    const issued = await this.#tokens.issue({ accountId, sessionId, name: account.name, role: account.role, amr });
    return { ...issued, refreshToken, sessionId };
  }

  /**
   * Adds authentication methods that were shown later. Rejects with `unauthorized` if the session
   * has ended.
   */
  async upgrade(sessionId: string, amr: readonly string[]): Promise<{ accessToken: string; expiresIn: number }> {
    const { rows } = await this.#database.query<SessionAccountRow & { account_id: string; amr: string[] }>(
      `update sessions s set amr = array(select distinct unnest(s.amr || $2::text[])), last_used_at = $3 from accounts a
       where s.id = $1 and a.id = s.account_id and a.banned_at is null and s.ended_at is null and s.expires_at > $3
       returning s.account_id, s.amr, a.name, a.role, a.banned_at`,
      [sessionId, [...amr], new Date(this.#clock.wallMs())],
    );
    const [row] = rows;
    if (!row) throw over();
    return this.#tokens.issue({ accountId: row.account_id, sessionId, name: row.name, role: row.role, amr: row.amr });
  }

  /**
   * Replaces a refresh token and issues an access token with the account's current name and role.
   * Rejects with `unauthorized`: the token is unknown, its session has ended, or the token was used
   * before, which ends the session.
   */
  async refresh(token: string, client?: SessionClient): Promise<Tokens & { accountId: string }> {
    if (!REFRESH_TOKEN.test(token)) throw over();
    const hash = hashOf(token);
    const made = makeToken();
    const found = await this.#database.transaction((connection) => this.#replace(connection, hash, made, client));
    if (found === undefined) throw over();
    if (found === 'reused')
      throw new VezaError('unauthorized', 'This refresh token was used before, so its session was ended. Sign in again.');
    const { session, account, sealedSuccessor } = found;
    this.#ended.delete(session.id);
    // Opened outside the transaction, because the vault may need a query, and the embedded database
    // has one connection.
    const refreshToken = sealedSuccessor ? (await this.#vault.open(purposeOf(hash), sealedSuccessor)).toString() : made;
    const issued = await this.#tokens.issue({
      accountId: session.account_id,
      sessionId: session.id,
      name: account.name,
      role: account.role,
      amr: session.amr,
    });
    return { ...issued, refreshToken, sessionId: session.id, accountId: session.account_id };
  }

  async #replace(
    connection: Queryable,
    hash: Buffer,
    made: string,
    client: SessionClient | undefined,
  ): Promise<{ session: SessionRow; account: SessionAccountRow; sealedSuccessor?: Buffer } | 'reused' | undefined> {
    const nowMs = this.#clock.wallMs();
    const now = new Date(nowMs);
    // The session is locked before anything else is read, so that a caller that waited for the lock
    // sees what the caller before it has changed.
    const { rows } = await connection.query<SessionRow>(
      'select * from sessions where id = (select session_id from refresh_tokens where token_hash = $1) for update',
      [hash],
    );
    const session = rows[0];
    if (!session || session.ended_at || session.expires_at <= now) return undefined;
    const { rows: both } = await connection.query<SessionAccountRow & { replaced_at: Date | null; sealed_successor: Buffer | null }>(
      `select t.replaced_at, t.sealed_successor, a.name, a.role, a.banned_at
       from refresh_tokens t, accounts a where t.token_hash = $1 and a.id = $2`,
      [hash, session.account_id],
    );
    const row = both[0];
    if (!row || row.banned_at) return undefined;

    if (row.replaced_at) {
      if (row.sealed_successor && nowMs - row.replaced_at.getTime() < GRACE_MS)
        return { session, account: row, sealedSuccessor: row.sealed_successor };
      this.#ended.add(await this.#markEnded(connection, 'id = $2', [session.id]));
      await this.#audit.record(
        {
          principal: ANONYMOUS,
          action: 'refreshTokenReused',
          address: client?.address,
          target: `account:${session.account_id}`,
          details: { sessionId: session.id },
        },
        connection,
      );
      this.#log.warn(
        { event: 'access.refresh_token_reused', accountId: session.account_id, sessionId: session.id },
        'a refresh token was used twice; its session was ended',
      );
      return 'reused';
    }

    await connection.query('update refresh_tokens set replaced_at = $2, sealed_successor = $3 where token_hash = $1', [
      hash,
      now,
      this.#vault.seal(purposeOf(hash), made),
    ]);
    await this.#insertToken(connection, made, session.id, nowMs);
    await connection.query(
      `update sessions set last_used_at = $2, expires_at = $3, client = coalesce($4, client), address = coalesce($5, address) where id = $1`,
      [
        session.id,
        now,
        new Date(Math.min(nowMs + IDLE_MS, session.created_at.getTime() + ABSOLUTE_MS)),
        client ? cut(client.userAgent, MAX_CLIENT_CHARS) : null,
        client ? cut(client.address, MAX_ADDRESS_CHARS) : null,
      ],
    );
    return { session, account: row };
  }

  /** Sessions that have not ended, the most recently used first; at most `MAX_SESSIONS`. */
  async list(accountId: string): Promise<Session[]> {
    const { rows } = await this.#database.query<SessionRow>(
      `select * from sessions where account_id = $1 and ended_at is null and expires_at > $2 order by last_used_at desc, id limit ${MAX_SESSIONS}`,
      [accountId, new Date(this.#clock.wallMs())],
    );
    return rows.map((row) => ({
      id: row.id,
      client: row.client,
      address: row.address,
      amr: row.amr,
      createdAtMs: row.created_at.getTime(),
      lastUsedAtMs: row.last_used_at.getTime(),
      expiresAtMs: row.expires_at.getTime(),
    }));
  }

  /**
   * Ends one session, if it belongs to `accountId` or if that is undefined. Its access tokens are
   * refused from then on. Resolves to false if there is no such session.
   */
  async end(sessionId: string, accountId?: string): Promise<boolean> {
    return (await this.#end('id = $2 and ($3::uuid is null or account_id = $3)', [sessionId, accountId ?? null])).length > 0;
  }

  /** Ends the session of this refresh token. Undefined: there is none, or it has ended already. */
  async endByToken(token: string): Promise<{ sessionId: string; accountId: string } | undefined> {
    if (!REFRESH_TOKEN.test(token)) return undefined;
    const { rows } = await this.#database.query<{ id: string; account_id: string }>(
      'select s.id, s.account_id from refresh_tokens t join sessions s on s.id = t.session_id where t.token_hash = $1',
      [hashOf(token)],
    );
    const [row] = rows;
    return row && (await this.end(row.id)) ? { sessionId: row.id, accountId: row.account_id } : undefined;
  }

  /**
   * Ends all sessions of an account except `except`. The caller calls it after the change that is
   * the reason (a ban, another role), or with the connection of that transaction. Resolves to the
   * number of ended sessions.
   */
  async endAll(accountId: string, { except, connection }: { except?: string | undefined; connection?: Queryable } = {}): Promise<number> {
    return (await this.#end('account_id = $2 and ($3::uuid is null or id <> $3)', [accountId, except ?? null], connection)).length;
  }

  async #end(which: string, values: readonly unknown[], connection: Queryable = this.#database): Promise<string[]> {
    const ids = await this.#markEnded(connection, which, values);
    this.#ended.add(ids);
    return ids;
  }

  /** `which` is an SQL condition. `$1` is the current time; `values` begin with `$2`. */
  async #markEnded(connection: Queryable, which: string, values: readonly unknown[]): Promise<string[]> {
    const { rows } = await connection.query<{ session_id: string }>(
      `with over as (update sessions set ended_at = $1 where ended_at is null and ${which} returning id)
       insert into ended_sessions (session_id, ended_at) select id, $1 from over
       on conflict (session_id) do update set ended_at = excluded.ended_at returning session_id`,
      [new Date(this.#clock.wallMs()), ...values],
    );
    return rows.map((row) => row.session_id);
  }

  async #insertToken(connection: Queryable, token: string, sessionId: string, nowMs: number): Promise<void> {
    await connection.query('insert into refresh_tokens (token_hash, session_id, created_at) values ($1, $2, $3)', [
      hashOf(token),
      sessionId,
      new Date(nowMs),
    ]);
  }

  /**
   * Deletes successors after their grace period and rows that are not needed any more. Any process
   * may run it at any time.
   */
  clean(): Promise<void> {
    return this.#cleanings.run();
  }

  async #clean(): Promise<void> {
    const before = (agoMs: number) => [new Date(this.#clock.wallMs() - agoMs)];
    // Rows that are locked are skipped; the next cleanup takes them.
    const all = async (doing: string, table: string, id: string, which: string, agoMs: number) => {
      const some = `${id} in (select ${id} from ${table} where ${which} limit ${CLEAN_BATCH} for update skip locked)`;
      // Batches keep each statement short. The loop goes on until no row is left, otherwise rows
      // could come faster than they are deleted.
      let rowCount = CLEAN_BATCH;
      for (let batch = 0; batch < MAX_CLEAN_BATCHES && rowCount === CLEAN_BATCH; batch++)
        ({ rowCount } = await this.#database.query(`${doing} where ${some}`, before(agoMs)));
    };
    const unseal = 'update refresh_tokens set sealed_successor = null';
    await all(unseal, 'refresh_tokens', 'token_hash', 'sealed_successor is not null and replaced_at <= $1', GRACE_MS);
    await all('delete from refresh_tokens', 'refresh_tokens', 'token_hash', 'replaced_at <= $1', REPLACED_KEPT_MS);
    await all('delete from sessions', 'sessions', 'id', 'ended_at <= $1', OVER_KEPT_MS);
    await all('delete from sessions', 'sessions', 'id', 'expires_at <= $1', OVER_KEPT_MS);
    await this.#database.query('delete from ended_sessions where ended_at <= $1', before(ENDED_KEPT_MS));
  }
}

interface SessionRow {
  id: string;
  account_id: string;
  client: string;
  address: string;
  amr: string[];
  created_at: Date;
  last_used_at: Date;
  expires_at: Date;
  ended_at: Date | null;
}

interface SessionAccountRow {
  name: string;
  role: Role;
  banned_at: Date | null;
}

const over = () => new VezaError('unauthorized', 'The session has ended. Sign in again.');

const makeToken = () => `vzr_${randomBytes(32).toString('base64url')}`;
const purposeOf = (hash: Buffer) => `refresh:${hash.toString('hex')}`;

/**
 * The text without control characters, at most `maxChars` long: PostgreSQL stores no NUL, and
 * people read the list of sessions.
 */
const cut = (text: string, maxChars: number) => text.replace(/\p{Cc}/gu, ' ').slice(0, maxChars);
