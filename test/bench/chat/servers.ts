import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpuSeconds, residentBytes } from '../../support/cpu.js';
import { freePorts } from '../../support/free-port.js';
import { ensurePackages } from '../../support/packages.js';
import { startPostgres } from '../../support/postgres.js';
import { eventually, start } from '../../support/process.js';
import { startRedis, type TestRedis } from '../../support/redis.js';
import { Server } from '../../support/server.js';
import type { CrowdOptions } from './crowd.js';
import type { TokenOptions } from './dialects.js';

/** A chat server under test. */
export interface ChatServer {
  readonly name: string;
  readonly crowd: Pick<CrowdOptions, 'dialect' | 'tokens' | 'port' | 'prefix'>;
  /** CPU seconds until now of the server and all below it; without Redis and PostgreSQL, which stand beside it. */
  cpuS(): number;
  residentBytes(): number;
  stop(): Promise<void>;
}

const costs = (pid: number) => ({
  cpuS: () => cpuSeconds(pid),
  residentBytes: () => residentBytes(pid),
});

/** What the settings of a room's rates may be raised to, so that one hot room is not the rate limiter's measurement. */
const HOT = { perS: 100, burst: 100, roomPerS: 1000, moderated: false };

export interface VezaOptions {
  readonly processes: number;
  /** More than the default. */
  readonly maxConnections?: number;
  readonly rooms: number;
  readonly prefix: string;
  /** Rates of its rooms are raised, and nobody judges. */
  readonly hot?: boolean;
}

export interface VezaServer extends ChatServer {
  readonly redis: TestRedis | undefined;
  /** More rooms: `{prefix}0` … */
  makeRooms(prefix: string, rooms: number, hot: boolean): Promise<void>;
}

/** The whole service with PostgreSQL, Redis when there are several chat processes, and so many channels. */
export async function startVeza({ processes, maxConnections, rooms, prefix, hot = false }: VezaOptions): Promise<VezaServer> {
  const postgres = await startPostgres();
  const redis = processes > 1 ? await startRedis() : undefined;
  const secret = randomBytes(32).toString('base64url');
  const [wsPort] = (await freePorts(1)) as [number];
  const server = await Server.start({
    env: {
      DATABASE_URL: postgres.url,
      ...(redis && { REDIS_URL: redis.url }),
      JWT_SECRET: secret,
      JWT_AUDIENCE: 'bench',
      WORKER_THREADS: String(processes),
      ...(maxConnections !== undefined && { MAX_CONNECTIONS: String(maxConnections) }),
      WS_PORT: String(wsPort),
      LOG_LEVEL: 'warn',
    },
  });
  const makeRooms = async (prefix: string, rooms: number, hot: boolean) => {
    const make = async (from: number) => {
      for (let room = from; room < rooms; room += 8) {
        await server.createChannel(`${prefix}${room}`);
        if (hot) await server.api('PATCH', `/rooms/${prefix}${room}`, HOT);
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, from) => make(from)));
  };
  await makeRooms(prefix, rooms, hot);
  const tokens: TokenOptions = { secret, localRoom: 'bench' };
  return {
    name: `Veza, ${processes} ${processes === 1 ? 'process' : 'processes'}`,
    crowd: { dialect: 'veza', tokens, port: wsPort, prefix },
    ...costs(server.pid),
    redis,
    makeRooms,
    async stop() {
      await server.stop();
      await redis?.stop();
      await postgres.stop();
    },
  };
}

/** The control. */
export async function startBare(processes: number): Promise<ChatServer> {
  const redis = await startRedis();
  const [port] = (await freePorts(1)) as [number];
  const file = new URL('./bare-server.ts', import.meta.url).pathname;
  const running = start(process.execPath, ['--import', 'tsx', file, String(port), String(processes), redis.url]);
  await running.printed(/ready/);
  return {
    name: 'bare fan-out',
    crowd: { dialect: 'bare', port, prefix: 'room' },
    ...costs(running.child.pid!),
    async stop() {
      await running.kill();
      await redis.stop();
    },
  };
}

/** One process, as its adapter has it without anything else. */
export async function startSocketIo(): Promise<ChatServer> {
  const [port] = (await freePorts(1)) as [number];
  const running = start(process.execPath, ['--import', 'tsx', new URL('./socket-io-server.ts', import.meta.url).pathname, String(port)]);
  await running.printed(/ready/);
  return {
    name: 'Socket.IO',
    crowd: { dialect: 'socketIo', port, prefix: 'room' },
    ...costs(running.child.pid!),
    stop: async () => void (await running.kill()),
  };
}

/** Debian's nats-server, its WebSocket listener; core NATS: nothing is kept. */
export async function startNats(): Promise<ChatServer> {
  await ensurePackages('nats-server');
  const [port, client] = (await freePorts(2)) as [number, number];
  const dir = await mkdtemp(join(tmpdir(), 'veza-nats-'));
  await writeFile(join(dir, 'nats.conf'), `port: ${client}\nmax_connections: 120000\nwebsocket { port: ${port}, no_tls: true }\n`);
  const running = start('nats-server', ['-c', join(dir, 'nats.conf')]);
  await eventually('nats-server listens', async () => (/Server is ready/.test(running.stderr()) ? true : undefined));
  return {
    name: 'nats-server',
    crowd: { dialect: 'nats', port, prefix: 'room' },
    ...costs(running.child.pid!),
    async stop() {
      await running.kill();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
