import { Socket } from 'node:net';
import pg from 'pg';
import { type Clock, SystemClock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { startEmbeddedPostgres } from './embedded.js';
import { MIGRATIONS } from './migrations/index.js';
import { StartSteps } from './start.js';

/**
 * PostgreSQL: a server when there is a url, else one that is embedded and keeps its data in `dataDir`. Both are spoken to
 * by the same client over the same protocol.
 *
 * Rejections: `conflict` (a unique value is taken), `unavailable` (not reachable, slower than `timeoutMs`, read-only, or a transaction
 * that was rolled back for another's sake); anything else is a defect and comes through as it is.
 */
export interface Queryable {
  /** `int8` comes as a number, `timestamptz` as a Date, `jsonb` parsed. */
  query<Row extends object = Record<string, unknown>>(sql: string, values?: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number }>;
}

export interface Database extends Queryable {
  /** Commits when `work` resolves, rolls back when it rejects. Inside, use only the handed connection. */
  transaction<T>(work: (connection: Queryable) => Promise<T>): Promise<T>;
  /** Waits for what is under way. */
  stop(): Promise<void>;
}

export interface DatabaseOptions {
  url: string | undefined;
  dataDir: string;
  /** Of the embedded one: a commit is answered when it is on the disk, unless this is false. */
  sync?: boolean;
  /** Connections. The embedded one has a single session and gets one whatever this says. */
  poolSize: number;
  /** Limit for a connection, and for a statement. */
  timeoutMs: number;
  /**
   * Whether the process still starts; until then the limit is that of a start. A slow machine compiles, copies and recovers, and nobody has anything to do
   * without. Until its tables are up to date a database has the limit of a start in any case.
   */
  isStarting?: () => boolean;
  log: Log;
  clock?: Clock;
}

/** Limit for each step of a start: one that ends is progress. */
const START_STEP_MS = 300_000;

interface TimedQuery extends pg.QueryConfig {
  readonly query_timeout: number;
}

/** Any number will do, as long as every version of Veza takes the same. */
const MIGRATION_LOCK = 0x76657a61;

/** Opens it, and brings its tables up to date; several processes may do so at once. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { url, timeoutMs, log } = options;
  const clock = options.clock ?? new SystemClock();
  const start = new StartSteps(clock, log);
  const limitMs = () => (start.isUnderWay || options.isStarting?.() ? Math.max(timeoutMs, START_STEP_MS) : timeoutMs);
  const embedded =
    url === undefined
      ? await startEmbeddedPostgres({ dataDir: options.dataDir, sync: options.sync ?? true, clock, log, start }).catch((error) => {
          start.end();
          throw error;
        })
      : undefined;
  const pool = new pg.Pool({
    Client: ListenedClient,
    ...(embedded ? { host: embedded.socketDir, port: embedded.port, user: 'postgres', database: 'postgres' } : { connectionString: url }),
    // The embedded server interleaves the messages of its clients on one session, so that one's unnamed statement
    // replaces another's ("unnamed prepared statement does not exist", seen with 8 connections). It runs one query at a
    // time in any case.
    max: embedded ? 1 : options.poolSize,
    application_name: 'veza',
    statement_timeout: timeoutMs,
    types: {
      getTypeParser: ((oid: number, format: 'text') =>
        oid === pg.types.builtins.INT8 ? Number : pg.types.getTypeParser(oid, format)) as never,
    },
  });
  Object.defineProperty(pool.options, 'connectionTimeoutMillis', { get: limitMs });
  // An idle connection that breaks is replaced at the next query.
  const reportBroken = (error: Error) =>
    log.warn({ event: 'database.connection_lost', error: error.message }, 'a database connection was lost');
  pool.on('error', reportBroken);

  const query = async (on: { query(config: TimedQuery): Promise<pg.QueryResult> }, text: string, values: readonly unknown[]) => {
    try {
      // The server cancels first; this is for a server that is gone without a word.
      const { command, rows, rowCount } = await on.query({ text, values: [...values], query_timeout: limitMs() + 1000 });
      return { command, rows, rowCount: rowCount ?? 0 };
    } catch (error) {
      throw translated(error);
    }
  };

  let stopping: Promise<void> | undefined;
  const database: Database = {
    query: (sql, values = []) => query(pool, sql, values) as never,
    async transaction(work) {
      const client = await pool.connect().catch((error) => {
        throw translated(error);
      });
      let broken: Error | undefined;
      let failed: unknown;
      const onError = (error: Error) => {
        if (!broken) reportBroken(error);
        broken ??= error;
      };
      client.on('error', onError);
      try {
        await query(client, 'begin', []);
        const connection: Queryable = {
          query: (sql, values = []) =>
            query(client, sql, values).catch((error) => {
              failed ??= error;
              throw error;
            }) as never,
        };
        const result = await work(connection);
        const { command } = await query(client, 'commit', []);
        if (command === 'COMMIT') return result;
        // A statement failed, and `work` went on: PostgreSQL rolls back, and answers as if nothing were wrong.
        if (failed)
          throw new Error('a transaction was rolled back: a statement in it had failed, and its error was not passed on', {
            cause: failed,
          });
        // No statement failed, so that the answer is not the server's: bytes of the connection were damaged. Nobody knows whether it was stored.
        broken ??= new Error(`the answer to a commit was ${command}`);
        throw new VezaError('unavailable', 'The database does not answer.', { cause: broken });
      } catch (error) {
        // Without an answer nobody knows what the server still does on this connection; it rolls back when the connection closes.
        if (isUnanswered(error)) broken ??= error as Error;
        if (!broken) {
          await query(client, 'rollback', []).catch((failure) => {
            broken = failure;
          });
        }
        throw error;
      } finally {
        // With an error the pool destroys it.
        client.release(broken);
        client.off('error', onError);
      }
    },
    stop() {
      stopping ??= pool.end().then(() => embedded?.stop());
      return stopping;
    },
  };

  try {
    start.begin('connecting');
    await migrate(database, log, start);
  } catch (error) {
    await database.stop();
    throw error;
  } finally {
    start.end();
  }
  return database;
}

async function migrate(database: Database, log: Log, start: StartSteps): Promise<void> {
  await database.transaction(async (connection) => {
    await connection.query(`set local statement_timeout = ${START_STEP_MS}`);
    start.begin('waiting for another process that brings the tables up to date');
    await connection.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
    start.begin('looking at the tables');
    await connection.query(
      'create table if not exists schema_migrations (name text primary key, applied_at timestamptz not null default now())',
    );
    const { rows } = await connection.query<{ name: string }>('select name from schema_migrations');
    const applied = new Set(rows.map((row) => row.name));
    for (const { name, sql } of MIGRATIONS) {
      if (applied.delete(name)) continue;
      start.begin(`migration ${name}`);
      // Several statements in one text go by the simple protocol, without values.
      await connection.query(sql);
      await connection.query('insert into schema_migrations (name) values ($1)', [name]);
      log.info({ event: 'database.migrated', migration: name }, 'a database migration was applied');
    }
    if (applied.size > 0) throw new Error(`the database is newer than this version of Veza: it has ${[...applied].join(', ')}`);
  });
}

/**
 * Errors that came before a connection could be used. Whatever PostgreSQL says then is about the connection: a database that takes none (55000), a right to
 * connect that was revoked (42501); as the error of a statement either is a defect.
 */
const fromConnecting = new WeakSet<Error>();

/**
 * From its first moment a listener takes its errors. The pool listens to idle connections only: one that broke while a transaction held it, or
 * before it was connected, would end the process.
 */
class ListenedClient extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(typeof config === 'object' ? { ...config, stream: () => new ParsedSocket() } : config);
    this.on('error', () => undefined);
    // The pool always gives a callback.
    const connect = this.connect.bind(this) as (callback: (error: Error | null) => void) => void;
    this.connect = ((callback: (error: Error | null) => void) =>
      connect((error) => {
        if (error) fromConnecting.add(error);
        callback(error);
      })) as typeof this.connect;
  }
}

/** What pg's parser throws at bytes that are no message of PostgreSQL is an error of the connection; out of a socket's event it would be the process's. */
class ParsedSocket extends Socket {
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    if (event !== 'data') return super.emit(event, ...values);
    try {
      return super.emit(event, ...values);
    } catch (error) {
      this.destroy(Object.assign(new Error('The database sent something else than an answer.', { cause: error }), { code: 'EPROTO' }));
      return true;
    }
  }
}

/**
 * SQLSTATEs (PostgreSQL's appendix A) that say "not now", and nothing about the statement: no connection (08), a password, a role or a database
 * that is being changed (28, 3D), no resources (53), a server that starts, ends or takes over (57P), a timeout of a statement (57014), of a
 * transaction (25P03, 25P04) or of a lock (55P03), an error of the disk (58030); and transactions that stood in each other's way (40), of which one was rolled
 * back whole.
 */
const UNAVAILABLE = /^(?:08...|28...|3D000|40001|40003|40P01|53...|57P0.|57014|25P03|25P04|55P03|58030)$/;
/** A standby, or a server that an operator or a full disk made read-only. */
const READ_ONLY = '25006';
const UNANSWERED_TEXT =
  /timeout exceeded|timeout expired|Query read timeout|Connection terminated|not queryable|Cannot use a pool after|from backend\./;

/** An error of the connection, not an answer of the server: of a system call or of TLS, or pg gave up waiting. */
function isConnectionError(error: unknown): boolean {
  const { code, syscall } = (error ?? {}) as { code?: unknown; syscall?: unknown };
  return (
    syscall !== undefined ||
    (typeof code === 'string' && /^(?:E[A-Z]+|E\w+_AGAIN|ERR_(?:SSL|TLS|STREAM|SOCKET)\w*)$/.test(code)) ||
    UNANSWERED_TEXT.test(messageOf(error))
  );
}

const isUnanswered = (error: unknown) => isConnectionError(error instanceof VezaError ? error.cause : error);

function translated(error: unknown): unknown {
  const code = (error as { code?: unknown } | undefined)?.code;
  if (code === '23505') {
    const { constraint } = error as { constraint?: string };
    return new VezaError('conflict', 'This value is taken.', { cause: error, details: { constraint: constraint ?? '' } });
  }
  if (code === READ_ONLY) return new VezaError('unavailable', 'The database takes no changes at the moment.', { cause: error });
  const isConnecting = error instanceof Error && fromConnecting.has(error);
  if (isConnecting || (typeof code === 'string' && UNAVAILABLE.test(code)) || isConnectionError(error)) {
    return new VezaError('unavailable', 'The database does not answer.', { cause: error });
  }
  return error;
}
