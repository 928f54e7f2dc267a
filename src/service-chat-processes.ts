import { fork } from 'node:child_process';
import { createServer, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { listenAt } from './chat/listener.js';
import { Presence } from './chat/presence.js';
import { MAX_PROCESS_CONNECTIONS, type ProcessStats, retrySpreadMs } from './chat/process-stats.js';
import { Processes } from './chat/processes.js';
import type { ChatProcessOptions } from './chat-process.js';
import { redisBus } from './chat-service.js';
import { childEnvironment } from './config.js';
import type { Component } from './runtime/lifecycle.js';
import type { ComposeChatOptions, UpgradeHandler } from './service-chat.js';

/** A rolling restart (SIGHUP) sends so many away a second from the process that goes. */
const RESTARTED_PER_S = 1000;

/**
 * V8 for a process that holds some 17,000 connections for hours, beside others like it on the same cores. Measured at that size: with
 * `--optimize-for-size` there were 10 collections a second for the same garbage, and pauses of 100 ms; without it the heap grew by half until the
 * first great one, so that it may grow by a quarter only. A nursery of 4 MiB is enough for what lives as long as a write, and threads that help
 * with it would wait for a core longer than they help.
 */
const V8_FLAGS = ['--min-semi-space-size=4', '--max-semi-space-size=4', '--no-parallel-scavenge', '--heap-growing-percent=25'];

/** The chat in processes of its own, in this one what accepts for them. */
export function composeProcesses(
  { config, clock, log, onUpgrade }: ComposeChatOptions,
  count: number,
): { part: Component; presence: Presence; stats(): ProcessStats } {
  const maxConnections = Math.min(Math.ceil(config.maxConnections / count), MAX_PROCESS_CONNECTIONS);
  const begin: ChatProcessOptions = {
    config,
    // What is left is of this process.
    poolSize: Math.max(1, Math.floor(config.databasePoolSize / (count + 1))),
    maxConnections: Math.min(MAX_PROCESS_CONNECTIONS, Math.ceil(maxConnections * 1.02)),
    maxPerAddress: config.trustProxyHops > 0 ? undefined : Math.ceil((config.maxHttpConnectionsPerAddress / count) * 1.1),
  };
  const isBuilt = import.meta.url.endsWith('.js');
  const entry = fileURLToPath(new URL(isBuilt ? './chat-process.js' : './chat-process.ts', import.meta.url));
  const processes = new Processes({
    count,
    begin,
    clock,
    log,
    start: () =>
      fork(entry, [], {
        serialization: 'advanced',
        execArgv: [...(isBuilt ? [] : ['--import', 'tsx']), ...V8_FLAGS],
        env: childEnvironment({ MALLOC_ARENA_MAX: '2' }),
      }),
  });
  const bus = redisBus(config.redisUrl!, log);
  const presence = new Presence({ clock, bus: bus.bus });
  const servers: Server[] = [];
  const accept = (secure: boolean) => {
    const server = createServer({ pauseOnConnect: true }, (socket: Socket) => {
      socket.on('error', () => undefined);
      processes.give(socket, secure);
    });
    servers.push(server);
    return server;
  };
  const upgrade: UpgradeHandler = (req, socket, head) => {
    socket.on('error', () => undefined);
    const { method = 'GET', url = '/', rawHeaders } = req;
    processes.give(socket as Socket, false, { method, url, rawHeaders, head: head.toString('base64') });
  };
  const restart = () => {
    log.info({}, 'the chat processes are replaced, one by one');
    void processes.restart(RESTARTED_PER_S);
  };
  return {
    presence,
    stats: () => processes.stats,
    part: {
      name: 'chat',
      async start() {
        const { host, wsPort, wssPort, port, httpsPort, roles } = config;
        if (wssPort !== undefined && wssPort === httpsPort && wssPort !== 0 && roles.includes('app'))
          throw new Error(`WSS_PORT is ${wssPort}, which is HTTPS_PORT; with ${count} chat processes it must be another`);
        await processes.start();
        if (roles.includes('app') && wsPort === port && wsPort !== 0) onUpgrade('http', upgrade);
        else await listenAt(accept(false), host, wsPort);
        if (wssPort !== undefined) await listenAt(accept(true), host, wssPort);
        process.on('SIGHUP', restart);
        log.info({ wsPort, wssPort, processes: count, connections: maxConnections * count }, 'the chat is open');
        if (httpsPort !== undefined && wssPort === undefined && roles.includes('app'))
          log.warn({ httpsPort }, 'pages that are loaded over HTTPS_PORT find no chat: set WSS_PORT, which several chat processes need');
        if (config.maxConnections > maxConnections * count)
          log.warn(
            { maxConnections: config.maxConnections, holds: maxConnections * count },
            `MAX_CONNECTIONS is more than ${count} processes hold; WORKER_THREADS=${Math.ceil(config.maxConnections / MAX_PROCESS_CONNECTIONS)} holds them`,
          );
      },
      async stop() {
        process.off('SIGHUP', restart);
        for (const server of servers) server.close();
        await processes.stop(retrySpreadMs(processes.stats.connections));
        presence.stop();
        bus.stop();
      },
    },
  };
}
