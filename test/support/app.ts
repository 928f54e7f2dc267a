import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Access, type AccessOptions, openAccess } from '../../src/access/access.js';
import type { Channels } from '../../src/access/channels.js';
import { adminTokenPath } from '../../src/access/tokens/admin-token.js';
import type { ChannelStatusAnswer, LiveStatus } from '../../src/app/api/channels/channels.js';
import { type HttpListener, listenHttp } from '../../src/app/http/listener.js';
import { type AppOptions, apiOperations, createApp } from '../../src/app/server.js';
import type { Database } from '../../src/backing/database/database.js';
import { accountRecords } from '../../src/chat/moderation/account-records.js';
import { Broadcasts } from '../../src/library/broadcasts.js';
import { SystemClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';
import { Metrics } from '../../src/runtime/metrics.js';
import { openTestDatabase } from './database.js';
import { type TestChat, testChat } from './fake-rooms.js';

/** A live room in which a test says what is on air. */
class FakeLive implements LiveStatus {
  readonly shows = new Map<string, ChannelStatusAnswer>();
  readonly titles: { slug: string; title: string; artist?: string }[] = [];
  status(slug: string): ChannelStatusAnswer {
    return this.shows.get(slug) ?? { state: 'offline', listeners: 0, nowPlaying: undefined };
  }
  async end(slug: string): Promise<boolean> {
    return this.shows.delete(slug);
  }
  nowPlaying(slug: string, update: { title: string; artist?: string }): boolean {
    this.titles.push({ slug, ...update });
    return this.shows.has(slug);
  }
}

export interface TestApp {
  readonly url: string;
  readonly token: string;
  readonly dataDir: string;
  readonly live: FakeLive;
  readonly database: Database;
  readonly broadcasts: Broadcasts;
  readonly channels: Channels;
  readonly access: Access;
  readonly chat: TestChat;
  readonly metrics: Metrics;
  readonly operations: ReturnType<typeof apiOperations>;
  readonly listener: HttpListener;
  stop(): Promise<void>;
}

/** The whole app on an embedded database and a free port, with a fake live room. */
export async function startApp(overrides: Partial<AppOptions> = {}, accessOptions: Partial<AccessOptions> = {}): Promise<TestApp> {
  const dataDir = await mkdtemp(join(tmpdir(), 'veza-app-'));
  const clock = new SystemClock();
  const database = await openTestDatabase();
  const metrics = new Metrics({ clock, service: 'veza', version: 'test', memoryLimitMb: undefined });
  const live = new FakeLive();
  const access = await openAccess({
    database,
    dataDir,
    clock,
    log: silentLog,
    publicUrl: 'http://radio.example:8080',
    rateLimitPerMinute: 100_000,
    ...accessOptions,
  });
  await access.start();
  const chat = testChat({ database: accessOptions.database ?? database, clock, audit: access.audit });
  await chat.start();
  const options: AppOptions = {
    clock,
    log: silentLog,
    metrics,
    version: 'test',
    addresses: {
      publicUrl: 'http://radio.example:8080',
      mediaUrl: 'https://cdn.example',
      rtmpPort: 1935,
      rtmpsPort: undefined,
      ingestPort: 8000,
    },
    access,
    broadcasts: new Broadcasts(database),
    live,
    chat,
    maxMessageBytes: 8192,
    chatRecords: (accountId) => accountRecords(accessOptions.database ?? database, accountId),
    health: { database: () => database.query('select 1') },
    allowedOrigins: ['*'],
    trustProxyHops: 0,
    pages: undefined,
    ...overrides,
  };
  const listener = await listenHttp(createApp(options).callback(), { host: '127.0.0.1', port: 0 }, clock);
  return {
    url: `http://127.0.0.1:${listener.port}`,
    token: (await readFile(adminTokenPath(dataDir), 'utf8')).trim(),
    dataDir,
    live,
    database,
    broadcasts: options.broadcasts,
    channels: options.access.channels,
    access: options.access,
    chat,
    metrics,
    operations: apiOperations(options),
    listener,
    async stop() {
      await listener.stop(1000);
      await chat.stop();
      await access.stop();
      await database.stop();
      await rm(dataDir, { recursive: true });
    },
  };
}
