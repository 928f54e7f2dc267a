import { chmod, rename, rm } from 'node:fs/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';
import { describe } from '../../runtime/unexpected.js';
import { SyncedFiles } from './files.js';

/** A task for the thread of the embedded PostgreSQL (`embedded.ts`). */
export type EmbeddedTask =
  | { task: 'create'; cluster: string }
  /** `sync`: a commit is answered after it is on the disk. */
  | { task: 'serve'; cluster: string; socket: string; sync: boolean };

/** Messages of the thread: it is ready, or a promise was rejected in it and nothing handled it. */
export type EmbeddedSaid = { say: 'ready' } | { say: 'rejection'; error: Record<string, unknown> };

/**
 * Settings for a small database. With PGlite's default of 128 MB of shared buffers the process is
 * 130 MB larger.
 */
const SETTINGS = ['shared_buffers=8MB', 'wal_buffers=512kB', 'max_wal_size=64MB', 'min_wal_size=32MB'];
/**
 * PGlite starts with `-F`, which is `fsync=off`. PostgreSQL's default sync method, `fdatasync`,
 * does nothing in Emscripten; the method `fsync` calls `SyncedFiles`.
 */
const SYNCED = [...PGlite.defaultStartParams.filter((param) => param !== '-F'), '-c', 'fsync=on', '-c', 'wal_sync_method=fsync'];

const given = workerData as EmbeddedTask;
const say = (said: EmbeddedSaid) => parentPort!.postMessage(said);

if (given.task === 'create') {
  // The cluster gets its name when it is complete. If the process is killed before, the next start
  // makes it anew.
  const unfinished = `${given.cluster}.new`;
  await rm(unfinished, { recursive: true, force: true });
  const database = await PGlite.create(unfinished, { postgresqlconf: SETTINGS });
  await database.close();
  await rename(unfinished, given.cluster);
} else {
  const { cluster, socket, sync } = given;
  process.on('unhandledRejection', (thrown) => say({ say: 'rejection', error: describe(thrown) }));
  const database = await PGlite.create({
    ...(sync ? { fs: new SyncedFiles(cluster), startParams: SYNCED } : { dataDir: cluster }),
    postgresqlconf: SETTINGS,
  });
  endWithPostgres(database);
  // Two, so that a client that lost its connection can connect before the old one is closed.
  const server = new PGLiteSocketServer({ db: database, path: socket, maxConnections: 2 });
  await server.start();
  await chmod(socket, 0o600);
  parentPort!.once('message', async () => {
    await server.stop();
    await database.close();
    parentPort!.close();
    process.exit(0);
  });
  say({ say: 'ready' });
}

/**
 * Ends the thread when PostgreSQL has crashed. Errors of SQL are answers; an exception here means
 * that PostgreSQL has ended. The socket server would answer no client any more (0.2.17,
 * `processQueue`).
 */
function endWithPostgres(database: PGlite): void {
  const execute = database.execProtocolRawStream.bind(database);
  database.execProtocolRawStream = async (message, options) => {
    try {
      return await execute(message, options);
    } catch (error) {
      setImmediate(() => {
        throw error;
      });
      throw error;
    }
  };
}
