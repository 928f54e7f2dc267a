import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { access, cp, mkdir, open, readdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../../runtime/clock.js';
import { messageOf, VezaError } from '../../runtime/errors.js';
import { type Log, silentLog } from '../../runtime/log.js';
import { startThread } from '../../runtime/thread.js';
import { countUnexpected } from '../../runtime/unexpected.js';
import { syncPath } from './files.js';
import type { StartSteps } from './start.js';
import type { EmbeddedSaid, EmbeddedTask } from './worker.js';

/**
 * The embedded PostgreSQL: PGlite in its own thread, so that no query delays live audio, behind a
 * Unix socket that only this user can open. A thread that dies is replaced; committed data is
 * restored from the write-ahead log.
 */
export interface EmbeddedPostgres {
  /** The directory of the socket; libpq takes it as its host. */
  readonly socketDir: string;
  readonly port: number;
  stop(): Promise<void>;
}

const PORT = 5432;
/**
 * The directory's share of `sun_path`, which holds 104 bytes on the most limited system; the
 * longest file name takes the rest.
 */
const MAX_SOCKET_DIR_BYTES = 85;

/**
 * The time for the thread to load, to recover from the write-ahead log and to be ready. It is
 * generous, because the process cannot work without its database.
 */
const READY_MS = 300_000;

/** The wait after a failed start of the thread. */
const RESTART_DELAY_MS = 1000;
/** Files that are synced concurrently. */
const SYNC_CONCURRENCY = 16;

export interface EmbeddedOptions {
  readonly dataDir: string;
  /** A commit is answered after it is on the disk. */
  readonly sync: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly start: StartSteps;
}

export async function startEmbeddedPostgres({ dataDir, sync, clock, log, start }: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const home = join(dataDir, 'database');
  await mkdir(home, { recursive: true, mode: 0o700 });
  const socketDir = await shortDir(await realpath(home));
  const lock = await acquireLock(join(socketDir, 'lock'), dataDir);
  const cluster = join(home, 'cluster');
  const socket = join(socketDir, `.s.PGSQL.${PORT}`);
  let thread: EmbeddedThread | undefined;
  let stopping: Promise<void> | undefined;
  let cancelRestart = () => {};

  const serve = async () => {
    await rm(socket, { force: true });
    const serving = runThread({ task: 'serve', cluster, socket, sync }, log);
    thread = serving;
    let isLate = false;
    const cancel = clock.after(READY_MS, () => {
      isLate = true;
      serving.kill();
    });
    await serving.ready.finally(cancel).catch((error) => {
      if (!isLate) throw error;
      throw new VezaError(
        'unavailable',
        `The embedded database was not ready after ${READY_MS / 1000} s. Give the machine more CPU or a faster disk, or set DATABASE_URL.`,
      );
    });
    void serving.ended.then((error) => {
      if (stopping) return;
      countUnexpected('exception');
      log.error({ event: 'database.died', error: error?.message }, 'the embedded database died; restarting it');
      restart();
    });
  };
  const restart = () => {
    serve().catch((error) => {
      if (stopping) return;
      log.error({ event: 'database.not_started', error: messageOf(error) }, 'the embedded database does not start; will try again');
      cancelRestart = clock.after(RESTART_DELAY_MS, restart);
    });
  };

  try {
    if (!(await isThere(join(cluster, 'PG_VERSION')))) {
      start.begin('creating the embedded database');
      await createCluster(cluster, sync);
    }
    start.begin('starting the embedded database, with recovery after a crash');
    await serve();
  } catch (error) {
    lock.close();
    throw error;
  }

  return {
    socketDir,
    port: PORT,
    stop() {
      stopping ??= (async () => {
        cancelRestart();
        thread?.stop();
        await thread?.ended;
        await new Promise((resolve) => lock.close(resolve));
      })();
      return stopping;
    },
  };
}

const isThere = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

/**
 * The empty cluster that the build makes, named after its PGlite version. Copying it takes a tenth
 * of a second; making one takes five seconds and 800 MB of memory.
 */
export function clusterTemplate(): string {
  // The package's `exports` do not include its package.json, so it is found beside the entry file.
  const manifest = join(dirname(createRequire(import.meta.url).resolve('@electric-sql/pglite')), '..', 'package.json');
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  const dist = import.meta.url.endsWith('.js') ? '../../../' : '../../../dist/';
  return fileURLToPath(new URL(`${dist}embedded-cluster-${version}`, import.meta.url));
}

/**
 * The cluster appears complete or not at all: if the process is killed before, the next start makes
 * it anew.
 */
async function createCluster(cluster: string, sync: boolean): Promise<void> {
  const template = clusterTemplate();
  if (!(await isThere(join(template, 'PG_VERSION')))) return makeCluster(cluster);
  const unfinished = `${cluster}.new`;
  await rm(unfinished, { recursive: true, force: true });
  await cp(template, unfinished, { recursive: true });
  if (sync) await syncAll(unfinished);
  await rename(unfinished, cluster);
  if (sync) syncPath(dirname(cluster));
}

/**
 * Syncs a directory and everything in it. PostgreSQL syncs only its own changes and assumes that
 * the rest is on the disk.
 */
async function syncAll(directory: string): Promise<void> {
  const names = await readdir(directory, { recursive: true });
  const paths = [...names.map((name) => join(directory, name)), directory];
  await Promise.all(
    Array.from({ length: SYNC_CONCURRENCY }, async () => {
      for (let path = paths.shift(); path !== undefined; path = paths.shift()) {
        const handle = await open(path, 'r');
        await handle.sync().finally(() => handle.close());
      }
    }),
  );
}

/**
 * Makes a cluster with initdb. It runs in a thread that ends, because initdb leaves 800 MB in its
 * WebAssembly memory; a thread that only serves takes 140 MB.
 */
export async function makeCluster(cluster: string): Promise<void> {
  const error = await runThread({ task: 'create', cluster }, silentLog).ended;
  if (error) throw error;
}

interface EmbeddedThread {
  readonly ready: Promise<void>;
  /** Resolves when the thread has ended, with its error if it failed. */
  readonly ended: Promise<Error | undefined>;
  stop(): void;
  kill(): void;
}

function runThread(task: EmbeddedTask, log: Log): EmbeddedThread {
  const worker = startThread(import.meta.url, 'worker', { workerData: task });
  let failure: Error | undefined;
  const ended = new Promise<Error | undefined>((resolve) => {
    worker.on('error', (error) => {
      failure = error instanceof Error ? error : new Error(String(error));
    });
    worker.on('exit', (code) => resolve(failure ?? (code === 0 ? undefined : new Error(`the thread ended with code ${code}`))));
  });
  const ready = new Promise<void>((resolve, reject) => {
    worker.on('message', (said: EmbeddedSaid) => {
      if (said.say === 'ready') return resolve();
      countUnexpected('rejection');
      log.error(
        { event: 'process.unhandled_rejection', thread: 'database', ...said.error },
        'a promise was rejected and nothing handled it',
      );
    });
    ended.then((error) => reject(error ?? new Error('the thread ended early')));
  });
  ready.catch(() => undefined);
  return {
    ready,
    ended,
    stop: () => worker.postMessage('stop'),
    kill: () => void worker.terminate(),
  };
}

/**
 * `home`; when its path is too long for a socket's address, a directory of this user whose name is
 * made from it.
 */
async function shortDir(home: string): Promise<string> {
  if (Buffer.byteLength(home) <= MAX_SOCKET_DIR_BYTES) return home;
  const dir = join(tmpdir(), `veza-${createHash('sha256').update(home).digest('hex').slice(0, 16)}`);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { uid, mode } = await stat(dir);
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0) throw new Error(`${dir} belongs to somebody else; choose a shorter DATA_DIR`);
  return dir;
}

/**
 * Holds a lock, since two processes on one cluster would destroy it. The lock is a listening
 * socket: after a killed process its file remains, but nothing answers on it. Throws VezaError
 * `conflict` when another process holds the lock.
 */
async function acquireLock(path: string, dataDir: string): Promise<Server> {
  for (let attempt = 0; ; attempt++) {
    const server = createServer((socket) => socket.destroy());
    const taken = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
      server.once('error', resolve);
      server.listen(path, () => resolve(undefined));
    });
    if (!taken) return server.unref();
    if (taken.code !== 'EADDRINUSE' || attempt > 0) throw taken;
    const answered = await new Promise<boolean>((resolve) => {
      const probe = connect(path, () => {
        probe.destroy();
        resolve(true);
      });
      probe.once('error', () => resolve(false));
    });
    if (answered) {
      throw new VezaError(
        'conflict',
        `DATA_DIR ${dataDir} is in use by another Veza process. Choose another DATA_DIR, or set DATABASE_URL.`,
      );
    }
    await rm(path, { force: true });
  }
}
