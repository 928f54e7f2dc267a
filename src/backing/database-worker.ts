import { chmod, rename, rm } from 'node:fs/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';

/** The thread of the embedded PostgreSQL; see `database-embedded`. */
export type EmbeddedTask = { task: 'create'; cluster: string } | { task: 'serve'; cluster: string; socket: string };

/** For a small database: with PGlite's own 128 MB of shared buffers the process is 130 MB larger. */
const SETTINGS = ['shared_buffers=8MB', 'wal_buffers=512kB', 'max_wal_size=64MB', 'min_wal_size=32MB'];

const given = workerData as EmbeddedTask;

if (given.task === 'create') {
  // Under another name until it is whole: a process killed here begins anew.
  const unfinished = `${given.cluster}.new`;
  await rm(unfinished, { recursive: true, force: true });
  const database = await PGlite.create(unfinished, { postgresqlconf: SETTINGS });
  await database.close();
  await rename(unfinished, given.cluster);
} else {
  const { cluster, socket } = given;
  const database = await PGlite.create(cluster, { postgresqlconf: SETTINGS });
  // Two, so that a client that lost its connection gets in before the old one is gone.
  const server = new PGLiteSocketServer({ db: database, path: socket, maxConnections: 2 });
  await server.start();
  await chmod(socket, 0o600);
  parentPort!.once('message', async () => {
    await server.stop();
    await database.close();
    parentPort!.close();
    process.exit(0);
  });
  parentPort!.postMessage('ready');
}
