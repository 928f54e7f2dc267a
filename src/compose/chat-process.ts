import type { IncomingMessage, Server } from 'node:http';
import type { Server as SecureServer } from 'node:https';
import type { Socket } from 'node:net';
import { countryReader } from '../app/http/country.js';
import { openDatabase } from '../backing/database/database.js';
import { type HandedRequest, requestOf } from '../chat/gateway/handed-request.js';
import { chatServer } from '../chat/gateway/listener.js';
import { mostSockets } from '../chat/gateway/process-stats.js';
import type { FromProcess, PortHandle, ToProcess } from '../chat/processes/process-pool.js';
import { Acceptor } from '../chat/processes/shared-port.js';
import type { Config } from '../config/config.js';
import { clientAddress } from '../runtime/addresses.js';
import { BoundedLog } from '../runtime/bounded-log.js';
import { SystemClock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import { createLog, exit } from '../runtime/log.js';
import { TlsFiles } from '../runtime/tls/tls-files.js';
import { countUnexpected, describe, takeUnexpectedErrors } from '../runtime/unexpected.js';
import { openChatAccess } from './chat-access.js';
import { openChatRooms, openGateway } from './chat-service.js';
import { statsOf } from './chat-stats.js';

/** The options of a chat process, sent by the primary. */
export interface ChatProcessOptions {
  readonly config: Config;
  readonly poolSize: number;
  readonly maxConnections: number;
  readonly maxPerAddress: number | undefined;
}

const STATE_MS = 200;
/** Clients that this process sends away by itself come back within this time, in random order. */
const RETRY_MS = 2000;
const END_MS = 10_000;
/** A process with repeated exceptions asks to be replaced at most once per this time. */
const UNWELL_MS = 1000;

/** Starts a chat process that the primary has forked; see `chat/processes`. */
async function begin({ config, poolSize, maxConnections, maxPerAddress }: ChatProcessOptions): Promise<void> {
  const clock = new SystemClock();
  const log = createLog({ level: config.logLevel, service: config.serviceName, version: config.version }).child({
    part: 'chat',
    pid: process.pid,
  });
  takeUnexpectedErrors({ clock, log, onException: () => onException() });
  const { databaseUrl: url, dataDir, databaseTimeoutMs: timeoutMs } = config;
  let isStarting = true;
  const database = await openDatabase({ url, dataDir, poolSize, timeoutMs, isStarting: () => isStarting, clock, log });
  const access = await openChatAccess({ ...config, database, clock, log });
  await access.start();
  const chat = await openChatRooms({ config, database, vault: access.vault, audit: access.audit, clock, log });
  await chat.start();
  const { trustProxyHops, countryHeader: header, tlsCertFile, tlsKeyFile } = config;
  const addressOf = (req: IncomingMessage) => clientAddress(req, trustProxyHops);
  const geoIp =
    config.geoipFile === undefined ? undefined : await (await import('../backing/geoip.js')).openGeoIp(config.geoipFile, clock, log);
  const countryOf = countryReader({ header, trustProxyHops, lookup: geoIp?.countryOf, addressOf });
  const opened = openGateway({ config, chat, access, clock, log, maxConnections, maxPerAddress, addressOf, countryOf });
  const { gateway } = opened;

  const plain = chatServer(clock, (req, socket, head) => gateway.upgrade(req, socket, head));
  let secure: Server | undefined;
  const tls = tlsCertFile && tlsKeyFile ? await TlsFiles.open({ certFile: tlsCertFile, keyFile: tlsKeyFile, clock, log }) : undefined;
  if (config.wssPort !== undefined && tls) {
    const minVersion = `TLSv${config.tlsMinVersion}` as const;
    secure = chatServer(clock, (req, socket, head) => gateway.upgrade(req, socket, head), { ...tls.current, minVersion });
    tls.onChange((certificates) => (secure as SecureServer).setSecureContext({ ...certificates, minVersion }));
  }

  const failureLog = new BoundedLog(log, clock);
  let taken = 0;
  const acceptor = new Acceptor({
    take: (socket, port) => (port === 'secure' ? secure : plain)?.emit('connection', socket),
    changed: () => sayState(),
    failed: (error) => say({ say: 'deaf', reason: error.message }),
    most: mostSockets(maxConnections),
  });
  const sayState = () => say({ say: 'state', open: acceptor.open, taken, accepts: acceptor.accepts, stats: statsOf(gateway, chat) });
  clock.every(STATE_MS, sayState);
  // After an exception the process may be in an inconsistent state, so other processes take over
  // its clients. Without a primary nobody replaces it, and it ends by itself.
  let saidUnwellMs = Number.NEGATIVE_INFINITY;
  onException = () => {
    if (clock.monotonicMs() - saidUnwellMs < UNWELL_MS) return;
    saidUnwellMs = clock.monotonicMs();
    sayState();
    if (process.connected) say({ say: 'unwell' });
    else end(RETRY_MS);
  };

  let isEnding = false;
  const end = (retryMs: number) => {
    if (isEnding) return;
    isEnding = true;
    acceptor.stop();
    // The deadline for a graceful end. When the primary is gone, no other process enforces it.
    clock.after(END_MS, () => void exit(1));
    void (async () => {
      await gateway.drainAll(retryMs);
      sayState();
      failureLog.close();
      await opened.stop();
      await chat.stop();
      await access.stop();
      await database.stop();
      await exit(0);
    })().catch((error) => {
      log.error({ event: 'chat.process_stop_failed', error: messageOf(error) }, 'a chat process did not stop cleanly');
      return exit(1);
    });
  };
  process.on('message', (told: ToProcess, handle: unknown) => {
    if (told.do === 'end') end(told.retryMs);
    else if (told.do === 'drain') {
      acceptor.stop();
      gateway.drainConnections(told.count, told.retryMs);
    } else if (told.do === 'accept') {
      acceptor.acceptUpTo(told.upTo);
      if (told.port && handle) acceptor.addPort(told.port.name, handle as PortHandle, told.port.of);
    } else if (told.do === 'tell') gateway.broadcastOnAir(told.channels);
    else if (told.do === 'take') {
      taken++;
      // The client may have closed the socket on its way to this process.
      const socket = handle as Socket | undefined;
      try {
        if (socket) handOver(told.request, socket, acceptor, (req, from, head) => gateway.upgrade(req, from, head));
      } catch (error) {
        // The error concerns only this request; other connections of the process stay.
        countUnexpected('exception');
        failureLog.error(
          { event: 'chat.connection_failed', ...describe(error) },
          'a chat connection failed by an internal error and was closed',
        );
        socket?.destroy();
      }
    }
  });
  // When the primary is gone, the clients of this process have to connect to another process.
  onGone = () => end(RETRY_MS);
  isStarting = false;
  say({ say: 'ready' });
}

/**
 * Takes over a request that the primary has read on the port that the chat shares with the pages.
 */
function handOver(
  request: HandedRequest,
  socket: Socket,
  acceptor: Acceptor,
  upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void,
): void {
  acceptor.addSocket(socket);
  socket.setNoDelay(true);
  upgrade(requestOf(request, socket), socket, Buffer.from(request.head, 'base64'));
  socket.resume();
}

/**
 * Sends a message to the primary. A message to a primary that is gone is not an error: the event
 * `disconnect` handles that.
 */
const say = (what: FromProcess, done: () => void = () => undefined) => {
  if (process.connected) process.send!(what, undefined, {}, done);
  else done();
};

/** Called when the primary is gone. */
let onGone: () => void = () => void exit(1);
process.on('disconnect', () => onGone());

/** Before the process is ready it has no clients, so an exception ends it. */
let onException: () => void = () => void exit(1);

// The primary decides when this process ends, even if a terminal signals all processes at once.
process.on('SIGTERM', () => undefined);
process.on('SIGINT', () => undefined);
process.on('SIGHUP', () => undefined);
process.on('message', (told: ToProcess) => {
  if (told.do !== 'begin') return;
  begin(told.with as ChatProcessOptions).catch((error) => {
    say({ say: 'failed', reason: messageOf(error) }, () => void exit(1));
  });
});
