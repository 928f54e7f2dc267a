import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { access, cp, mkdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VezaError } from '../runtime/errors.js';
import type { Log } from '../runtime/log.js';
import { startThread } from '../runtime/thread.js';
import type { EmbeddedTask } from './database-worker.js';

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

export async function startEmbeddedPostgres(dataDir: string, log: Log): Promise<EmbeddedPostgres> {
  const home = join(dataDir, 'database');
  await mkdir(home, { recursive: true, mode: 0o700 });
  const socketDir = await shortDir(await realpath(home));
  const lock = await takeLock(join(socketDir, 'lock'), dataDir);
  const cluster = join(home, 'cluster');
  const socket = join(socketDir, `.s.PGSQL.${PORT}`);
  let thread: EmbeddedThread | undefined;
  let stopping: Promise<void> | undefined;

  const serve = async () => {
    await rm(socket, { force: true });
    thread = runThread({ task: 'serve', cluster, socket });
    await thread.ready;
    thread.ended.then(async (error) => {
      if (stopping) return;
      log.error({ error: error?.message }, 'the embedded database died; starting it again');
      await serve().catch((failure) => log.error({ error: failure.message }, 'the embedded database does not start'));
    });
  };

  try {
    if (!(await isThere(join(cluster, 'PG_VERSION')))) await createCluster(cluster);
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
  const dist = import.meta.url.endsWith('.js') ? '../../' : '../../dist/';
  return fileURLToPath(new URL(`${dist}embedded-cluster-${version}`, import.meta.url));
}

/** Whole or not at all: a process killed here begins anew. */
async function createCluster(cluster: string): Promise<void> {
  const template = clusterTemplate();
  if (!(await isThere(join(template, 'PG_VERSION')))) return makeCluster(cluster);
  const unfinished = `${cluster}.new`;
  await rm(unfinished, { recursive: true, force: true });
  await cp(template, unfinished, { recursive: true });
  await rename(unfinished, cluster);
}

/** By initdb, in a thread that ends: it leaves 800 MB behind in its WebAssembly memory. One that merely serves takes 140 MB. */
export async function makeCluster(cluster: string): Promise<void> {
  const error = await runThread({ task: 'create', cluster }).ended;
  if (error) throw error;
}

interface EmbeddedThread {
  readonly ready: Promise<void>;
  /** Resolves, with the error if it was one, when the thread is gone. */
  readonly ended: Promise<Error | undefined>;
  stop(): void;
}

function runThread(task: EmbeddedTask): EmbeddedThread {
  const worker = startThread(import.meta.url, 'database-worker', { workerData: task });
  let failure: Error | undefined;
  const ended = new Promise<Error | undefined>((resolve) => {
    worker.on('error', (error) => {
      failure = error instanceof Error ? error : new Error(String(error));
    });
    worker.on('exit', (code) => resolve(failure ?? (code === 0 ? undefined : new Error(`the thread ended with code ${code}`))));
  });
  const ready = new Promise<void>((resolve, reject) => {
    worker.once('message', () => resolve());
    ended.then((error) => reject(error ?? new Error('the thread ended early')));
  });
  ready.catch(() => undefined);
  return { ready, ended, stop: () => worker.postMessage('stop') };
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
