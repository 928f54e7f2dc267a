import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Channels } from '../../src/access/channels.js';
import { openVault, type Vault } from '../../src/access/vault.js';
import { Webhooks, type WebhooksOptions } from '../../src/access/webhooks/webhooks.js';
import type { Database } from '../../src/backing/database/database.js';
import { FakeClock } from '../../src/runtime/clock.js';
import { silentLog } from '../../src/runtime/log.js';

export interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Somebody's server: takes everything unless told otherwise. */
export class Receiver {
  readonly received: Received[] = [];
  answer: (res: ServerResponse, received: Received, req: IncomingMessage) => void = (res) => res.writeHead(204).end();
  readonly #server: Server;
  readonly #waiting: { count: number; resolve: () => void }[] = [];
  connections = 0;

  private constructor() {
    this.#server = createServer((req, res) => {
      const chunks: Buffer[] = [];
      req.on('data', (chunk: Buffer) => chunks.push(chunk));
      req.on('error', () => undefined);
      res.on('error', () => undefined);
      req.on('end', () => {
        const received = { path: req.url ?? '', headers: req.headers, body: Buffer.concat(chunks).toString() };
        this.received.push(received);
        this.answer(res, received, req);
        for (const { count, resolve } of this.#waiting) if (this.received.length >= count) resolve();
      });
    });
    this.#server.on('connection', () => {
      this.connections += 1;
    });
  }

  static async open(host = '127.0.0.1'): Promise<Receiver> {
    const receiver = new Receiver();
    await new Promise<void>((resolve) => receiver.#server.listen(0, host, resolve));
    return receiver;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  url(path = '/hook'): string {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  async has(count: number): Promise<void> {
    if (this.received.length < count) await new Promise<void>((resolve) => this.#waiting.push({ count, resolve }));
  }

  events(): string[] {
    return this.received.map(({ headers }) => String(headers['veza-event']));
  }

  ids(): string[] {
    return this.received.map(({ headers }) => String(headers['veza-delivery']));
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** As docs/webhooks.md tells a receiver to do it; not with the service's own code. */
export function isSigned({ headers, body }: Received, secret: string, nowMs: number): boolean {
  const timestamp = String(headers['veza-timestamp']);
  if (Math.abs(nowMs / 1000 - Number(timestamp)) > 300) return false;
  const expected = createHmac('sha256', secret).update(`${timestamp}.${body}`).digest();
  return String(headers['veza-signature'])
    .split(',')
    .some((part) => {
      const given = Buffer.from(part.replace(/^v1=/, ''), 'hex');
      return part.startsWith('v1=') && given.length === expected.length && timingSafeEqual(given, expected);
    });
}

let channelCount = 0;

/** Processes that share a database and a clock. */
export class World {
  readonly clock = new FakeClock();
  readonly channels: Channels;
  readonly #open: { hooks: Webhooks; vault: Vault }[] = [];

  constructor(readonly database: Database) {
    this.channels = new Channels(database);
  }

  /** A process. Loopback is allowed by name unless said otherwise; no jitter makes the back-off half of what it may be. */
  async process(options: Partial<WebhooksOptions> = {}): Promise<Webhooks> {
    const { clock } = this;
    const database = options.database ?? this.database;
    const vault = await openVault({ database, masterKey: Buffer.alloc(32, 7), clock, log: silentLog });
    const hooks = new Webhooks({ database, vault, clock, log: silentLog, allowedHosts: ['127.0.0.1'], random: () => 0.5, ...options });
    hooks.start();
    this.#open.push({ hooks, vault });
    return hooks;
  }

  async channel(title = 'Radio') {
    const slug = `radio-${channelCount++}`;
    return (await this.channels.create(slug, { title, visibility: 'public', recording: true })).channel;
  }

  /** The time passes, and what falls due on the way is delivered. */
  async pass(ms: number, stepMs = 5000): Promise<void> {
    let leftMs = ms;
    do {
      this.clock.advance(Math.min(stepMs, leftMs));
      leftMs -= stepMs;
      for (const { hooks } of this.#open) await hooks.settled();
    } while (leftMs > 0);
  }

  async end(): Promise<void> {
    for (const { hooks, vault } of this.#open.splice(0)) {
      await hooks.stop();
      vault.stop();
    }
    await this.database.query('delete from webhooks');
  }
}

export const ON_AIR = { broadcastId: 'b1', startedAt: '2030-01-01T00:00:00.000Z' };
export const OFF_AIR = { ...ON_AIR, endedAt: '2030-01-01T01:00:00.000Z' };
