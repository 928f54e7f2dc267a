import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Database } from '../../src/backing/database/database.js';
import { MemoryRoomLog } from '../../src/backing/room-log/memory.js';
import type { RoomLog } from '../../src/backing/room-log/room-log.js';
import type { ChatIdentity } from '../../src/chat/gateway/authorization.js';
import { Gateway } from '../../src/chat/gateway/gateway.js';
import { parseModAction } from '../../src/chat/moderation/mod-actions.js';
import { ModerationService } from '../../src/chat/moderation/service.js';
import { Presence } from '../../src/chat/rooms/presence/presence.js';
import type { Rooms } from '../../src/chat/rooms/rooms.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { VezaError } from '../../src/runtime/errors.js';
import { silentLog } from '../../src/runtime/log.js';
import { makeRooms } from '../support/chat-rooms.js';
import { openTestDatabase } from '../support/database.js';
import { Client } from './chat-world.js';

/** Counts what some work asks of the database and the log, and can hold it up before one of these steps. */
export class Steps {
  taken = 0;
  #at = Number.POSITIVE_INFINITY;
  #paused: () => void = () => {};
  #resumed: Promise<void> = Promise.resolve();

  static current = new AsyncLocalStorage<Steps>();

  /** Runs the work; before its step `at` it waits until `resumed`, and calls `paused`. */
  run<T>(work: () => Promise<T>, at = Number.POSITIVE_INFINITY, paused: () => void = () => {}, resumed = Promise.resolve()): Promise<T> {
    this.#at = at;
    this.#paused = paused;
    this.#resumed = resumed;
    return Steps.current.run(this, work);
  }

  static async step(): Promise<void> {
    const steps = Steps.current.getStore();
    if (!steps || steps.taken++ !== steps.#at) return;
    steps.#paused();
    await steps.#resumed;
  }
}

const stepping = <T extends object>(of: T, names: readonly (keyof T)[], before: () => void = () => undefined): T =>
  new Proxy(of, {
    get(target, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      if (!names.includes(name as keyof T)) return value.bind(target);
      return async (...args: unknown[]) => {
        await Steps.step();
        before();
        return value.apply(target, args);
      };
    },
  });

export interface TestProcess {
  readonly rooms: Rooms;
  readonly desk: ModerationService;
  readonly gateway: Gateway;
  readonly url: string;
}

export interface TwoProcesses {
  readonly database: Database;
  readonly roomLog: RoomLog;
  readonly processes: readonly [TestProcess, TestProcess];
  client(process: TestProcess, userId: string): Promise<Client>;
  /** Neither process reaches it. */
  setDatabaseAway(is: boolean): void;
  stop(): Promise<void>;
}

/** Two processes of the chat as they are, on one database and one log. A text that begins with "hold" is held; whoever says his name is somebody. */
export async function twoProcesses(): Promise<TwoProcesses> {
  const clock = new SystemClock();
  const database = await openTestDatabase();
  const roomLog = new MemoryRoomLog({ clock, log: silentLog });
  const addressKey = randomBytes(32);
  const servers: Server[] = [];
  const stops: (() => Promise<unknown>)[] = [];
  const clients = new Set<Client>();
  let isAway = false;
  const begin = async (): Promise<TestProcess> => {
    const ownDatabase = stepping(database, ['query', 'transaction'], () => {
      if (isAway) throw new VezaError('unavailable', 'The database does not answer.');
    });
    const ownLog = stepping(roomLog as RoomLog, ['append', 'read', 'erase', 'bar']);
    let rooms: Rooms | undefined;
    const desk = new ModerationService({
      database: ownDatabase,
      clock,
      log: silentLog,
      people: {
        // Whom another system vouches for has no account here.
        find: async (id) => (id.startsWith('gateway:') ? undefined : { name: id, role: id === 'mod' ? 'moderator' : 'viewer' }),
        names: async () => new Map(),
      },
      audit: { record: async () => undefined },
      addressKey,
      withRoom: (roomId, work) => rooms!.withRoom(roomId, work),
    });
    ({ rooms } = makeRooms(ownDatabase, ownLog, {
      clock,
      rules: desk.rules,
      held: desk.held,
      reviewer: { review: ({ body }) => (body.text.startsWith('hold') ? { kind: 'hold', reason: 'spam' } : { kind: 'allow' }) },
    }));
    const presence = new Presence({ clock });
    const gateway = new Gateway({
      rooms,
      authorization: {
        identify: async (token): Promise<ChatIdentity> => ({
          id: token,
          name: token,
          expiresAtMs: undefined,
          sessionId: undefined,
          keyId: undefined,
          mayWrite: true,
          actor: `account:${token}`,
          proof: undefined,
        }),
        isSessionEnded: () => false,
        findEnded: async () => new Map(),
        readAccess: async () => ({
          isPrivate: false,
          standingOf: () => ({ role: 'viewer', moderates: 'no' }),
          linkValidUntilMs: () => undefined,
        }),
        accountCreatedAtMs: async () => 0,
      },
      rules: desk.rules,
      moderate: (room, moderator, frame) => desk.moderate(room, moderator, parseModAction(frame)),
      presence,
      clock,
      log: silentLog,
      maxConnections: 1000,
      maxTextBytes: 8192,
      isOriginAllowed: () => true,
      addressOf: () => '192.0.2.1',
      countryOf: () => undefined,
    });
    const server = createServer((_req, res) => res.writeHead(426).end());
    server.on('upgrade', (req, socket, head) => gateway.upgrade(req, socket, head));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    servers.push(server);
    await desk.start();
    rooms.start();
    const opened = rooms;
    stops.push(async () => {
      await gateway.stop();
      presence.stop();
      await opened.stop();
      await desk.stop();
    });
    return { rooms, desk, gateway, url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/chat` };
  };
  const processes = [await begin(), await begin()] as const;
  return {
    database,
    roomLog,
    processes,
    async client(process, userId) {
      const client = new Client(process.url);
      clients.add(client);
      await client.opened;
      client.send({ t: 'hello', token: userId });
      await client.next('welcome');
      return client;
    },
    setDatabaseAway(is) {
      isAway = is;
    },
    async stop() {
      for (const client of clients) client.socket.terminate();
      for (const stop of stops) await stop();
      for (const server of servers) {
        server.closeAllConnections();
        server.close();
      }
      await roomLog.stop();
      await database.stop();
    },
  };
}
