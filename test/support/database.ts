import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { type Database, openDatabase } from '../../src/backing/database/database.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { startPostgres, type TestPostgres } from './postgres.js';

/** Environment variable with the address of the server that `npm test` has started for all its files. */
export const TEST_POSTGRES = 'VEZA_TEST_POSTGRES';
/** A database with every table and no row, of which others are copies. */
const TEMPLATE = 'veza_template';

const inDatabase = (url: string, name: string): string => url.replace('/postgres?', `/${name}?`);

async function ask(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/** A PostgreSQL server with the template in it. */
export async function startTestPostgres(): Promise<TestPostgres> {
  const postgres = await startPostgres();
  await ask(postgres.url, `create database ${TEMPLATE}`);
  const template = await openDatabase({
    url: inDatabase(postgres.url, TEMPLATE),
    dataDir: '/',
    poolSize: 1,
    timeoutMs: 20_000,
    log: silentLog,
  });
  await template.stop();
  return postgres;
}

let own: Promise<TestPostgres> | undefined;

/** The server of this run; a file that is run by itself starts one, which ends with the process. */
async function serverUrl(): Promise<string> {
  const given = process.env[TEST_POSTGRES];
  if (given !== undefined) return given;
  own ??= startTestPostgres().then((postgres) => {
    postgres.endWithProcess();
    return postgres;
  });
  return (await own).url;
}

export interface TestDatabase {
  /** For other processes, and for clients of a test's own. */
  readonly url: string;
  /** Drops it; connections to it are closed. */
  drop(): Promise<void>;
}

/** A database of its own with every table and no row. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const server = await serverUrl();
  const name = `test_${randomBytes(8).toString('hex')}`;
  await ask(server, `create database ${name} template ${TEMPLATE}`);
  return { url: inDatabase(server, name), drop: () => ask(server, `drop database if exists ${name} with (force)`) };
}

export interface TestDatabaseOptions {
  poolSize?: number;
  timeoutMs?: number;
  log?: Log;
}

/** Opens a database of its own; `stop` drops it. */
export async function openTestDatabase(options: TestDatabaseOptions = {}): Promise<Database & { readonly url: string }> {
  const { url, drop } = await createTestDatabase();
  const database = await openDatabase({ url, dataDir: '/', poolSize: 1, timeoutMs: 20_000, log: silentLog, ...options });
  let stopping: Promise<void> | undefined;
  return {
    url,
    query: database.query,
    transaction: database.transaction,
    stop() {
      stopping ??= database.stop().then(drop);
      return stopping;
    },
  };
}
