import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { chown, mkdtemp, readdir, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ensurePackages } from './packages.js';

const run = promisify(execFile);

export interface TestPostgres {
  readonly url: string;
  /** It ends at once, as in a power cut; what was committed is kept. */
  crash(): Promise<void>;
  /** After a crash: on the same data and socket. */
  restart(): Promise<void>;
  /** From here on it does not keep the test's process, and ends with it; nobody has to stop it. */
  endWithProcess(): void;
  stop(): Promise<void>;
}

/** Debian's PostgreSQL as a server of this test alone, reached by a Unix socket. */
export async function startPostgres(): Promise<TestPostgres> {
  await ensurePackages('postgresql');
  const [version] = (await readdir('/usr/lib/postgresql')).sort((a, b) => Number(b) - Number(a));
  const bin = `/usr/lib/postgresql/${version}/bin`;
  const dir = await mkdtemp(join(tmpdir(), 'veza-pg-'));
  // PostgreSQL refuses to run as root.
  const root = process.getuid?.() === 0;
  const [uid, gid] = root ? await Promise.all(['-u', '-g'].map(async (flag) => Number((await run('id', [flag, 'postgres'])).stdout))) : [];
  const as = root ? { uid: uid!, gid: gid!, cwd: dir } : { cwd: dir };
  if (root) await chown(dir, uid!, gid!);
  await run(`${bin}/initdb`, ['-D', `${dir}/data`, '-U', 'postgres', '--auth=trust', '--no-sync', '-E', 'UTF8'], as);
  let server: ChildProcess;
  let exited: Promise<void>;
  const restart = async () => {
    server = spawn(
      `${bin}/postgres`,
      ['-D', `${dir}/data`, '-k', dir, '-c', 'listen_addresses=', '-c', 'fsync=off', '-c', 'max_connections=200'],
      {
        ...as,
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    exited = new Promise<void>((resolve) => server.once('exit', () => resolve()));
    await new Promise<void>((resolve, reject) => {
      let text = '';
      server.stderr!.on('data', (chunk) => {
        text += chunk;
        if (text.includes('ready to accept connections')) resolve();
      });
      server.once('exit', () => reject(new Error(text)));
    });
  };
  await restart();
  return {
    url: `postgres:///postgres?host=${encodeURIComponent(dir)}&user=postgres`,
    restart,
    endWithProcess() {
      server.unref();
      (server.stderr as Socket).unref();
      process.once('exit', () => {
        server.kill('SIGQUIT');
        rmSync(dir, { recursive: true, force: true });
      });
    },
    async crash() {
      server.kill('SIGQUIT');
      await exited;
    },
    async stop() {
      // After `endWithProcess` the wait below would not keep the process alive.
      server.ref();
      server.kill('SIGINT');
      await exited;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
