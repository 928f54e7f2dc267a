import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
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
  /** On the same port, with what was saved last (the command `save`), or nothing. */
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

export interface TestRedisCluster {
  /** Of all masters at the start, as `REDIS_URL` wants them. */
  readonly url: string;
  readonly nodes: readonly TestClusterNode[];
  /** The one that answers to a slot now. */
  masterOf(slot: number): Promise<TestClusterNode>;
  stop(): Promise<void>;
}

interface TestClusterNode {
  readonly id: string;
  readonly port: number;
  command(...words: string[]): Promise<string>;
  kill9(): Promise<void>;
}

/** Three masters on this machine, each with so many replicas. */
export async function startRedisCluster({ replicas = 0 } = {}): Promise<TestRedisCluster> {
  await ensurePackages('redis-server', 'redis-tools');
  const masters = 3;
  const count = masters * (1 + replicas);
  const dir = await mkdtemp(join(tmpdir(), 'veza-redis-cluster-'));
  const ports = await freePorts(2 * count);
  const running: Running[] = [];
  const nodes: TestClusterNode[] = [];
  for (let i = 0; i < count; i++) {
    const port = ports[2 * i]!;
    const own = join(dir, String(port));
    await mkdir(own);
    const program = start('redis-server', [
      ...['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', own],
      ...['--cluster-enabled', 'yes', '--cluster-port', String(ports[2 * i + 1]), '--cluster-node-timeout', '1000'],
      ...['--repl-diskless-sync-delay', '0', '--cluster-allow-replica-migration', 'no'],
    ]);
    running.push(program);
    const command = async (...words: string[]) => {
      const { stdout } = await run('redis-cli', ['-e', '-p', String(port), ...words]);
      return stdout.trim();
    };
    await eventually('Redis answers', async () => ((await command('ping')) === 'PONG' ? true : undefined));
    nodes.push({ port, id: await command('cluster', 'myid'), command, kill9: async () => void (await program.kill('SIGKILL')) });
  }
  for (const [i, node] of nodes.entries()) {
    await node.command('cluster', 'set-config-epoch', String(i + 1));
    for (let other = 0; other < i; other++) {
      await node.command('cluster', 'meet', '127.0.0.1', String(ports[2 * other]), String(ports[2 * other + 1]));
    }
    if (i >= masters) continue;
    const [first, last] = [Math.ceil((16_384 / masters) * i), Math.ceil((16_384 / masters) * (i + 1)) - 1];
    await node.command('cluster', 'addslotsrange', String(first), String(last));
  }
  for (const [i, node] of nodes.entries()) {
    if (i < masters) continue;
    const master = nodes[i % masters]!;
    await eventually(
      'the replica takes its master',
      async () => (await node.command('cluster', 'replicate', master.id)) === 'OK' || undefined,
    );
    await eventually(
      'the replica has its data',
      async () => (await node.command('info', 'replication')).includes('link_status:up') || undefined,
    );
  }
  for (const node of nodes) {
    await eventually('the cluster is whole', async () => {
      const info = await node.command('cluster', 'info');
      return (info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${count}`)) || undefined;
    });
  }
  return {
    url: nodes
      .slice(0, masters)
      .map(({ port }) => `redis://127.0.0.1:${port}`)
      .join(','),
    nodes,
    masterOf: (slot) =>
      eventually('some node has the slot', async () => {
        for (const node of nodes) {
          const lines = await node.command('cluster', 'nodes').catch(() => '');
          const own = lines.split('\n').find((line) => line.includes('myself,master'));
          const ranges = (own?.split(' ').slice(8) ?? []).map((range) => range.split('-').map(Number));
          if (ranges.some(([first, last = first]) => first! <= slot && slot <= last!)) return node;
        }
        return undefined;
      }),
    stop: async () => {
      for (const program of running) await program.kill('SIGKILL');
      await rm(dir, { recursive: true, force: true });
    },
  };
}
