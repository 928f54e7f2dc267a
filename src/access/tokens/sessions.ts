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
/** A session that is not refreshed for so long is over. */
export const IDLE_MS = 30 * DAY_MS;
/** And so is one that was begun so long ago. */
export const ABSOLUTE_MS = 90 * DAY_MS;
/** How long a token that was just replaced gives its successor once more: two tabs refresh at the same moment. */
export const GRACE_MS = 10_000;
/** Of one account at a time; the one that was used least lately gives way. */
export const MAX_SESSIONS = 100;
/** What a user agent and an address are cut to. */
const MAX_CLIENT_CHARS = 300;
const MAX_ADDRESS_CHARS = 64;

const CLEAN_MS = 60_000;
/** Rows that one statement of a cleaning takes, and statements a kind. */
const CLEAN_BATCH = 1000;
const MAX_CLEAN_BATCHES = 100;
/** A replaced token is known again for as long as the one who holds it could have come back with it. */
const REPLACED_KEPT_MS = IDLE_MS;
/** What is over is kept a little for whoever looks into the table. */
const OVER_KEPT_MS = DAY_MS;

/** 256 random bits; the letters before them keep it from being taken for anything else. */
const REFRESH_TOKEN = /^vzr_[\w-]{43}$/;

export interface SessionClient {
  readonly address: string;
  readonly userAgent: string;
}

export interface Tokens {
  readonly accessToken: string;
  /** Seconds. */
  readonly expiresIn: number;
  readonly refreshToken: string;
  readonly sessionId: string;
}

export interface Session {
  readonly id: string;
  /** The user agent that it was last used by. */
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
 * Sign-ins: each a family of refresh tokens, of which one is good at a time. A token is replaced whenever it is used. One that is used again
 * after that is in two hands, nobody knows whose, and ends the family; only for ten seconds it gives the same successor instead.
 *
 * Of a token its SHA-256 is kept: with 256 random bits there is nothing to guess, and a look-up by hash tells nothing by its time.
 * Whoever changes a row of a family holds the lock of its session's row.
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

  /** Waits for what is under way. Twice is harmless. */
  async stop(): Promise<void> {
    await this.#cleanings.stop();
  }

  /**
   * After a sign-in: `amr` (RFC 8176) says how. Rejects with `unauthorized` when the account is gone or banned.
   */
  async begin({ accountId, amr, client }: { accountId: string; amr: readonly string[]; client: SessionClient }): Promise<Tokens> {
    const nowMs = this.#clock.wallMs();
    const sessionId = randomUUID();
    const refreshToken = makeToken();
    const { account, excess } = await this.#database.transaction(async (connection) => {
      // Whoever bans it or changes its role ends its sessions afterwards, and waits here: this one is among them.
      const { rows } = await connection.query<AccountRow>('select name, role, banned_at from accounts where id = $1 for share', [
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

  /** What was shown beside the password, from now on. Rejects with `unauthorized` when the session is over. */
  async upgrade(sessionId: string, amr: readonly string[]): Promise<{ accessToken: string; expiresIn: number }> {
    const { rows } = await this.#database.query<AccountRow & { account_id: string; amr: string[] }>(
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
   * Replaces a refresh token and gives an access token with the account's name and role of now. Rejects with `unauthorized`: it is none of
   * ours, its session is over, or it was used before, which ends the session.
   */
  async refresh(token: string, client?: SessionClient): Promise<Tokens & { accountId: string }> {
    if (!REFRESH_TOKEN.test(token)) throw over();
    const hash = hashOf(token);
    const made = makeToken();
    const found = await this.#database.transaction((connection) => this.#replace(connection, hash, made, client));
    if (found === undefined) throw over();
    if (found === 'reused') throw new VezaError('unauthorized', 'This refresh token was used before; its session is ended. Sign in again.');
    const { session, account, sealedSuccessor } = found;
    this.#ended.delete(session.id);
    // Not inside the transaction: to open may take a query, and the embedded database has one connection.
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
  ): Promise<{ session: SessionRow; account: AccountRow; sealedSuccessor?: Buffer } | 'reused' | undefined> {
    const nowMs = this.#clock.wallMs();
    const now = new Date(nowMs);
    // The session's lock first, then everything else is read: who waited for it sees what the one before has done.
    const { rows } = await connection.query<SessionRow>(
      'select * from sessions where id = (select session_id from refresh_tokens where token_hash = $1) for update',
      [hash],
    );
    const session = rows[0];
    if (!session || session.ended_at || session.expires_at <= now) return undefined;
    const { rows: both } = await connection.query<AccountRow & { replaced_at: Date | null; sealed_successor: Buffer | null }>(
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

  /** Those that are not over, the last used first; at most `MAX_SESSIONS`. */
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

  /** Ends one session, of this account when one is given; its access tokens are good for nothing from then on. False: there is none. */
  async end(sessionId: string, accountId?: string): Promise<boolean> {
    return (await this.#end('id = $2 and ($3::uuid is null or account_id = $3)', [sessionId, accountId ?? null])).length > 0;
  }

  /** The session that this refresh token belongs to. Undefined: none, or it is over already. */
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
   * Every session of an account, but for one. Call it after what it is done for (a ban, another role), or with the connection of the
   * transaction that does it. Resolves to how many there were.
   */
  async endAll(accountId: string, { except, connection }: { except?: string | undefined; connection?: Queryable } = {}): Promise<number> {
    return (await this.#end('account_id = $2 and ($3::uuid is null or id <> $3)', [accountId, except ?? null], connection)).length;
  }

  async #end(which: string, values: readonly unknown[], connection: Queryable = this.#database): Promise<string[]> {
    const ids = await this.#markEnded(connection, which, values);
    this.#ended.add(ids);
    return ids;
  }

  /** `which`: a condition in which `$1` is now, and `values` begin with `$2`. */
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

  /** Successors that are not given again, and rows that nobody needs any more. Every process may do so at any time. */
  clean(): Promise<void> {
    return this.#cleanings.run();
  }

  async #clean(): Promise<void> {
    const before = (agoMs: number) => [new Date(this.#clock.wallMs() - agoMs)];
    // Somebody who holds a row's lock is left alone; it is taken the next time.
    const all = async (doing: string, table: string, id: string, which: string, agoMs: number) => {
      const some = `${id} in (select ${id} from ${table} where ${which} limit ${CLEAN_BATCH} for update skip locked)`;
      // In batches, so that no statement takes long; until there is none left, or they would come faster than they go.
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

interface AccountRow {
  name: string;
  role: Role;
  banned_at: Date | null;
}

const over = () => new VezaError('unauthorized', 'The session is over; sign in again.');

const makeToken = () => `vzr_${randomBytes(32).toString('base64url')}`;
const purposeOf = (hash: Buffer) => `refresh:${hash.toString('hex')}`;

/** Printable, and no longer than `maxChars`: PostgreSQL takes no NUL, and a list is for people. */
const cut = (text: string, maxChars: number) => text.replace(/\p{Cc}/gu, ' ').slice(0, maxChars);
