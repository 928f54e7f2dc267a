import { Socket } from 'node:net';
import pg from 'pg';
import { type Clock, SystemClock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import type { Log } from '../../runtime/log.js';
import { startEmbeddedPostgres } from './embedded.js';
import { MIGRATIONS } from './migrations/index.js';
import { StartSteps } from './start.js';

/**
 * PostgreSQL: a server when there is a `url`, else an embedded one that keeps its data in
 * `dataDir`. The same client and protocol serve both.
 *
 * Queries reject with `conflict` (a unique value is taken) or `unavailable` (not reachable, slower
 * than `timeoutMs`, read-only, or a transaction that was rolled back because of a concurrent one).
 * Any other error is a defect and is passed on unchanged.
 */
export interface Queryable {
  /** `int8` values are numbers, `timestamptz` values are Dates, `jsonb` values are parsed. */
  query<Row extends object = Record<string, unknown>>(sql: string, values?: readonly unknown[]): Promise<{ rows: Row[]; rowCount: number }>;
}

export interface Database extends Queryable {
  /**
   * Commits when `work` resolves, rolls back when it rejects. Inside `work`, use only the given
   * connection.
   */
  transaction<T>(work: (connection: Queryable) => Promise<T>): Promise<T>;
  /** Waits for queries that are under way, then closes the connections. */
  stop(): Promise<void>;
}

export interface DatabaseOptions {
  url: string | undefined;
  dataDir: string;
  /** For the embedded database: a commit is answered after it is on the disk. Default: true. */
  sync?: boolean;
  /**
   * Connections of the pool. The embedded database has a single session and always gets one
   * connection.
   */
  poolSize: number;
  /** The time limit for opening a connection, and for a statement. */
  timeoutMs: number;
  /**
   * Whether the process is still starting; meanwhile the limit is `START_STEP_MS`. A slow machine
   * compiles, copies and recovers then, and the process cannot work without its database.
   * `START_STEP_MS` applies in any case until the tables are up to date.
   */
  isStarting?: () => boolean;
  log: Log;
  clock?: Clock;
}

/** The time limit for each step of a start. A step that ends is progress. */
const START_STEP_MS = 300_000;

interface TimedQuery extends pg.QueryConfig {
  readonly query_timeout: number;
}

/** The key of the advisory lock: an arbitrary number that is the same in every version of Veza. */
const MIGRATION_LOCK = 0x76657a61;

/**
 * Opens the database and brings its tables up to date. Several processes may do so at once. Rejects
 * when the database is newer than this version of Veza.
 */
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
    // The embedded server mixes the messages of its clients on one session, so that the unnamed
    // statement of one client replaces another's ("unnamed prepared statement does not exist", seen
    // with 8 connections). It runs one query at a time anyway.
    max: embedded ? 1 : options.poolSize,
    application_name: 'veza',
    statement_timeout: timeoutMs,
    types: {
      getTypeParser: ((oid: number, format: 'text') =>
        oid === pg.types.builtins.INT8 ? Number : pg.types.getTypeParser(oid, format)) as never,
    },
  });
  Object.defineProperty(pool.options, 'connectionTimeoutMillis', { get: limitMs });
  // The pool replaces an idle connection that breaks at the next query.
  const reportBroken = (error: Error) =>
    log.warn({ event: 'database.connection_lost', error: error.message }, 'a database connection was lost');
  pool.on('error', reportBroken);

  const query = async (on: { query(config: TimedQuery): Promise<pg.QueryResult> }, text: string, values: readonly unknown[]) => {
    try {
      // The server cancels a slow statement first. This limit is for a server that has disappeared
      // without closing the connection.
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
        // A statement failed and `work` went on. PostgreSQL then rolls back and reports no error
        // for the commit.
        if (failed)
          throw new Error('a transaction was rolled back: a statement in it had failed, and its error was not passed on', {
            cause: failed,
          });
        // No statement failed, so the server did not send this answer: bytes on the connection were
        // damaged. Whether the transaction was stored is unknown.
        broken ??= new Error(`the answer to a commit was ${command}`);
        throw new VezaError('unavailable', 'The database does not answer.', { cause: broken });
      } catch (error) {
        // Without an answer it is unknown what the server still does on this connection. It rolls
        // back when the connection closes.
        if (isUnanswered(error)) broken ??= error as Error;
        if (!broken) {
          await query(client, 'rollback', []).catch((failure) => {
            broken = failure;
          });
        }
        throw error;
      } finally {
        // The pool destroys a connection that is released with an error.
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
    start.begin('waiting for another process to bring the tables up to date');
    await connection.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
    start.begin('reading which migrations were applied');
    await connection.query(
      'create table if not exists schema_migrations (name text primary key, applied_at timestamptz not null default now())',
    );
    const { rows } = await connection.query<{ name: string }>('select name from schema_migrations');
    const applied = new Set(rows.map((row) => row.name));
    for (const { name, sql } of MIGRATIONS) {
      if (applied.delete(name)) continue;
      start.begin(`migration ${name}`);
      // A text with several statements needs the simple protocol, which has no values.
      await connection.query(sql);
      await connection.query('insert into schema_migrations (name) values ($1)', [name]);
      log.info({ event: 'database.migrated', migration: name }, 'a database migration was applied');
    }
    if (applied.size > 0) throw new Error(`the database is newer than this version of Veza: it has ${[...applied].join(', ')}`);
  });
}

/**
 * Errors from before a connection was usable. PostgreSQL's error codes are then about the
 * connection: a database that accepts none (55000), or a revoked right to connect (42501). As the
 * error of a statement, both would be a defect.
 */
const fromConnecting = new WeakSet<Error>();

/**
 * A client that handles its errors from the start. The pool handles errors of idle connections
 * only. An error of a connection that is in a transaction, or not yet connected, would end the
 * process.
 */
class ListenedClient extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(typeof config === 'object' ? { ...config, stream: () => new ParsedSocket() } : config);
    this.on('error', () => undefined);
    // The pool always passes a callback.
    const connect = this.connect.bind(this) as (callback: (error: Error | null) => void) => void;
    this.connect = ((callback: (error: Error | null) => void) =>
      connect((error) => {
        if (error) fromConnecting.add(error);
        callback(error);
      })) as typeof this.connect;
  }
}

/**
 * A socket that turns an error of pg's parser into an error of the connection. The parser throws at
 * bytes that are not a message of PostgreSQL, and an exception in a socket's event would end the
 * process.
 */
class ParsedSocket extends Socket {
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    if (event !== 'data') return super.emit(event, ...values);
    try {
      return super.emit(event, ...values);
    } catch (error) {
      this.destroy(Object.assign(new Error('The database sent bytes that are not an answer.', { cause: error }), { code: 'EPROTO' }));
      return true;
    }
  }
}

/**
 * SQLSTATEs (PostgreSQL's appendix A) that mean "not now" and do not concern the statement: no
 * connection (08), a password, role or database that is being changed (28, 3D), no resources (53),
 * a server that starts, stops or fails over (57P), a timeout of a statement (57014), of a
 * transaction (25P03, 25P04) or of a lock (55P03), a disk error (58030), and a transaction that was
 * rolled back as a whole because of a concurrent one (40).
 */
const UNAVAILABLE = /^(?:08...|28...|3D000|40001|40003|40P01|53...|57P0.|57014|25P03|25P04|55P03|58030)$/;
/** The SQLSTATE of a standby, or of a server that an operator or a full disk made read-only. */
const READ_ONLY = '25006';
const UNANSWERED_TEXT =
  /timeout exceeded|timeout expired|Query read timeout|Connection terminated|not queryable|Cannot use a pool after|from backend\./;

/**
 * Whether an error is about the connection and not an answer of the server: an error of a system
 * call or of TLS, or pg gave up waiting.
 */
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
  if (code === READ_ONLY)
    return new VezaError('unavailable', 'The database is read-only at the moment; try again later.', { cause: error });
  const isConnecting = error instanceof Error && fromConnecting.has(error);
  if (isConnecting || (typeof code === 'string' && UNAVAILABLE.test(code)) || isConnectionError(error)) {
    return new VezaError('unavailable', 'The database does not answer.', { cause: error });
  }
  return error;
}
