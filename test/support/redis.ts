import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePorts } from './free-port.js';
import { ensurePackages } from './packages.js';
import { eventually, type Running, start } from './process.js';

const run = promisify(execFile);

export interface TestRedis {
  readonly url: string;
  /** What `redis-cli` prints. */
  command(...words: string[]): Promise<string>;
  kill9(): Promise<void>;
  /** On the same port, with nothing in it. */
  restart(): Promise<void>;
  /** It keeps its connections and takes new ones, and says nothing. */
  suspend(): void;
  resume(): void;
  stop(): Promise<void>;
}

/** Debian's Redis as a server of this test alone. */
export async function startRedis(): Promise<TestRedis> {
  await ensurePackages('redis-server', 'redis-tools');
  const dir = await mkdtemp(join(tmpdir(), 'veza-redis-'));
  const [port] = await freePorts(1);
  let running: Running;
  const command = async (...words: string[]) => (await run('redis-cli', ['-p', String(port), ...words])).stdout;
  const restart = async () => {
    running = start('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', dir]);
    await eventually('Redis answers', async () => ((await command('ping')).startsWith('PONG') ? true : undefined));
  };
  await restart();
  return {
    url: `redis://127.0.0.1:${port}`,
    command,
    restart,
    kill9: async () => {
      await running.kill('SIGKILL');
    },
    suspend: () => running.child.kill('SIGSTOP'),
    resume: () => running.child.kill('SIGCONT'),
    stop: async () => {
      await running.kill('SIGKILL');
      await rm(dir, { recursive: true, force: true });
    },
  };
}
