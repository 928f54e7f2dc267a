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
 * The embedded PostgreSQL: PGlite in a thread of its own, so that no query holds up the live path, behind a Unix socket
 * that only this user can open. A thread that dies is replaced; what was committed is there again from the write-ahead log.
 */
export interface EmbeddedPostgres {
  /** What libpq calls host when it is a directory. */
  readonly socketDir: string;
  readonly port: number;
  stop(): Promise<void>;
}

const PORT = 5432;
/** sun_path holds 104 bytes on the narrowest system; the rest is for the longest name that goes into it. */
const MAX_SOCKET_DIR_BYTES = 85;

/** For a thread to load, to recover from the write-ahead log and to serve. Generous: whoever waits has nothing to do without it. */
const READY_MS = 300_000;

/** After a start of the thread that failed. */
const AGAIN_MS = 1000;
/** Files that are synced at once. */
const SYNCED_AT_ONCE = 16;

export interface EmbeddedOptions {
  readonly dataDir: string;
  /** A commit is answered when it is on the disk. */
  readonly sync: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly start: StartSteps;
}

export async function startEmbeddedPostgres({ dataDir, sync, clock, log, start }: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const home = join(dataDir, 'database');
  await mkdir(home, { recursive: true, mode: 0o700 });
  const socketDir = await shortDir(await realpath(home));
  const lock = await takeLock(join(socketDir, 'lock'), dataDir);
  const cluster = join(home, 'cluster');
  const socket = join(socketDir, `.s.PGSQL.${PORT}`);
  let thread: EmbeddedThread | undefined;
  let stopping: Promise<void> | undefined;
  let cancelAgain = () => {};

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
      serveAgain();
    });
  };
  const serveAgain = () => {
    serve().catch((error) => {
      if (stopping) return;
      log.error({ event: 'database.not_started', error: messageOf(error) }, 'the embedded database does not start; will try again');
      cancelAgain = clock.after(AGAIN_MS, serveAgain);
    });
  };

  try {
    if (!(await isThere(join(cluster, 'PG_VERSION')))) {
      start.begin('making the embedded database');
      await createCluster(cluster, sync);
    }
    start.begin('starting the embedded database, with recovery when it was not stopped');
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
        cancelAgain();
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
 * An empty cluster that the build makes: to copy it takes a tenth of a second, to make one takes five and 800 MB of memory.
 * Named after the PGlite that made it.
 */
export function clusterTemplate(): string {
  // Beside its entry, since its exports do not name it.
  const manifest = join(dirname(createRequire(import.meta.url).resolve('@electric-sql/pglite')), '..', 'package.json');
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  const dist = import.meta.url.endsWith('.js') ? '../../../' : '../../../dist/';
  return fileURLToPath(new URL(`${dist}embedded-cluster-${version}`, import.meta.url));
}

/** Whole or not at all: a process killed here begins anew. */
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

/** A directory with all that is in it. PostgreSQL syncs what it changes, and takes the rest for synced. */
async function syncAll(directory: string): Promise<void> {
  const names = await readdir(directory, { recursive: true });
  const paths = [...names.map((name) => join(directory, name)), directory];
  await Promise.all(
    Array.from({ length: SYNCED_AT_ONCE }, async () => {
      for (let path = paths.shift(); path !== undefined; path = paths.shift()) {
        const handle = await open(path, 'r');
        await handle.sync().finally(() => handle.close());
      }
    }),
  );
}

/** By initdb, in a thread that ends: it leaves 800 MB behind in its WebAssembly memory. One that merely serves takes 140 MB. */
export async function makeCluster(cluster: string): Promise<void> {
  const error = await runThread({ task: 'create', cluster }, silentLog).ended;
  if (error) throw error;
}

interface EmbeddedThread {
  readonly ready: Promise<void>;
  /** Resolves, with the error if it was one, when the thread is gone. */
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

/** `home`, or where it is too long for a socket's address, a directory of this user named after it. */
async function shortDir(home: string): Promise<string> {
  if (Buffer.byteLength(home) <= MAX_SOCKET_DIR_BYTES) return home;
  const dir = join(tmpdir(), `veza-${createHash('sha256').update(home).digest('hex').slice(0, 16)}`);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { uid, mode } = await stat(dir);
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0) throw new Error(`${dir} belongs to somebody else; choose a shorter DATA_DIR`);
  return dir;
}

/**
 * Two processes on one cluster would ruin it. A listening socket is a lock that a killed process cannot leave behind:
 * its file stays, but nobody answers.
 */
async function takeLock(path: string, dataDir: string): Promise<Server> {
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
        `DATA_DIR ${dataDir} is in use by another Veza process; give it one of its own, or set DATABASE_URL.`,
      );
    }
    await rm(path, { force: true });
  }
}
