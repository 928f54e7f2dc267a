import { fork } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { MAX_PROCESS_CONNECTIONS, type ProcessStats, retrySpreadMs } from '../chat/gateway/process-stats.js';
import { aheadOf, type ChatPort, ProcessPool } from '../chat/processes/process-pool.js';
import { SharedPort } from '../chat/processes/shared-port.js';
import type { OnAirChanges } from '../chat/rooms/on-air.js';
import { Presence } from '../chat/rooms/presence/presence.js';
import { redisPresenceBus } from '../chat/rooms/presence/presence-bus.js';
import { childEnvironment } from '../config/child-environment.js';
import type { UpgradeHandler } from '../runtime/http-guard.js';
import type { Component } from '../runtime/lifecycle.js';
import type { ComposeChatOptions } from './chat.js';
import type { ChatProcessOptions } from './chat-process.js';

/**
 * Clients that a rolling restart (SIGHUP) sends away per second, at most, from the process that is
 * being replaced.
 */
const RESTARTED_PER_S = 1000;

/**
 * V8 flags for a process that holds about 17,000 connections for hours, beside similar processes on
 * the same cores. Measured at that size: with `--optimize-for-size` there were 10 collections per
 * second for the same garbage, with pauses of 100 ms. Without it the heap grew by half before the
 * first major collection, so its growth is limited to a quarter. A young generation of 4 MiB is
 * enough for objects that live as long as a write. Helper threads would wait for a core longer than
 * they help.
 */
const V8_FLAGS = ['--min-semi-space-size=4', '--max-semi-space-size=4', '--no-parallel-scavenge', '--heap-growing-percent=25'];

/**
 * The share of one address's limit for a single process. Each process counts by itself, and a
 * process may be ahead of the others.
 */
const addressShare = (limit: number, count: number, maxConnections: number) =>
  Math.min(limit, Math.ceil((limit / count) * 1.1) + aheadOf(maxConnections));

/** Composes the chat in several processes; the parts here start and balance them. */
export function composeProcesses(
  { config, clock, log, onUpgrade }: ComposeChatOptions,
  count: number,
): { part: Component; presence: Presence; stats(): ProcessStats; tellOnAir(changes: OnAirChanges): void } {
  const maxConnections = Math.min(Math.ceil(config.maxConnections / count), MAX_PROCESS_CONNECTIONS);
  const begin: ChatProcessOptions = {
    config,
    // The rest of the pool is for this process.
    poolSize: Math.max(1, Math.floor(config.databasePoolSize / (count + 1))),
    maxConnections: Math.min(MAX_PROCESS_CONNECTIONS, Math.ceil(maxConnections * 1.02)),
    maxPerAddress: config.trustProxyHops > 0 ? undefined : addressShare(config.maxHttpConnectionsPerAddress, count, maxConnections),
  };
  const isBuilt = import.meta.url.endsWith('.js');
  const entry = fileURLToPath(new URL(isBuilt ? './chat-process.js' : './chat-process.ts', import.meta.url));
  const processes = new ProcessPool({
    count,
    full: maxConnections,
    begin,
    clock,
    log,
    start: () =>
      fork(entry, [], {
        serialization: 'advanced',
        execArgv: [...(isBuilt ? [] : ['--import', 'tsx']), ...V8_FLAGS],
        env: childEnvironment('node', { MALLOC_ARENA_MAX: '2' }),
      }),
  });
  const bus = redisPresenceBus(config.redisUrl!, clock, log);
  const presence = new Presence({ clock, bus: bus.bus });
  const ports = new Map<ChatPort, SharedPort>();
  const upgrade: UpgradeHandler = (req, socket, head) => {
    socket.on('error', () => undefined);
    const { method = 'GET', url = '/', rawHeaders } = req;
    processes.handOver(socket as Socket, { method, url, rawHeaders, head: head.toString('base64') });
  };
  const restart = () => {
    log.info({ event: 'chat.processes_replacing' }, 'replacing the chat processes one by one');
    void processes.replaceAll(RESTARTED_PER_S);
  };
  return {
    presence,
    stats: () => processes.stats,
    tellOnAir: (changes) => processes.broadcastOnAir(changes),
    part: {
      name: 'chat',
      async start() {
        const { host, wsPort, wssPort, port, httpsPort, roles } = config;
        if (wssPort !== undefined && wssPort === httpsPort && wssPort !== 0 && roles.includes('app'))
          throw new Error(`WSS_PORT is ${wssPort}, which is HTTPS_PORT; with ${count} chat processes it must be another`);
        await processes.start();
        if (roles.includes('app') && wsPort === port && wsPort !== 0) onUpgrade('http', upgrade);
        else ports.set('plain', await SharedPort.bind(host, wsPort));
        if (wssPort !== undefined) ports.set('secure', await SharedPort.bind(host, wssPort));
        if (ports.size > 0) await processes.sharePorts(new Map([...ports].map(([port, { handle }]) => [port, handle])));
        process.on('SIGHUP', restart);
        log.info(
          { event: 'chat.listening', wsPort, wssPort, processes: count, connections: maxConnections * count },
          'the chat is listening',
        );
        if (httpsPort !== undefined && wssPort === undefined && roles.includes('app'))
          log.warn(
            { event: 'chat.no_wss_port', httpsPort },
            'pages loaded over HTTPS_PORT cannot reach the chat: several chat processes need WSS_PORT',
          );
        if (config.maxConnections > maxConnections * count)
          log.warn(
            { event: 'chat.too_few_processes', maxConnections: config.maxConnections, holds: maxConnections * count },
            `MAX_CONNECTIONS is more than ${count} processes hold; WORKER_THREADS=${Math.ceil(config.maxConnections / MAX_PROCESS_CONNECTIONS)} holds them`,
          );
      },
      async stop() {
        process.off('SIGHUP', restart);
        for (const port of ports.values()) port.close();
        await processes.stop(retrySpreadMs(processes.stats.connections));
        presence.stop();
        bus.stop();
      },
    },
  };
}
