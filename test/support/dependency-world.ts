import { randomBytes } from 'node:crypto';
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import pg from 'pg';
import { WebSocket } from 'ws';
import { SUBPROTOCOL } from '../../src/chat-client/index.js';
import { type Fault, FaultyLine, type Piece } from './faulty-line.js';
import { gatewayTokens } from './gateway-token.js';
import { ffmpegsOf } from './on-air.js';
import { startPostgres, type TestPostgres } from './postgres.js';
import { eventually, type Running } from './process.js';
import { publishRtmp } from './publishers.js';
import { startRedis, type TestRedis } from './redis.js';
import { readPlaylist, Server } from './server.js';
import { type SmtpServer, startSmtp } from './smtp.js';

/** What the service talks to, each over a line that can be broken. */
export const DEPENDENCIES = ['postgres', 'redis', 'smtp', 'webhook', 'judge', 'jwks'] as const;
export type Dependency = (typeof DEPENDENCIES)[number];

export const FAULT_KINDS = ['cut', 'half-close', 'stall', 'delay', 'garble'] as const;
type FaultKind = (typeof FAULT_KINDS)[number];

/** At the `point`th piece of the conversations with a dependency, and at so many after it. */
export interface Plan {
  readonly dependency: Dependency;
  readonly kind: FaultKind;
  readonly point: number;
  /** From 0 to below 1: which byte of the piece. */
  readonly where: number;
  readonly times: number;
}

const SLUG = 'fuzzed';
const CHANNELS_OWN_ROOM = `/rooms/${SLUG}`;
/** A statement has 2 s, a connection as well, and some requests make several. */
const ANSWER_WITHIN_MS = 30_000;
const MEMBERS = 2;

/** The whole service on air, with a chat and every dependency it can have, and what it is asked to do while they fail. */
export class DependencyWorld {
  readonly lines: ReadonlyMap<Dependency, FaultyLine>;
  readonly server: Server;
  /** What nobody may see: an answer that blames the service itself, no answer. */
  findings: string[] = [];
  /** Acknowledged messages that were found where they belong. */
  kept = 0;
  readonly #stops: (() => Promise<unknown> | unknown)[];
  readonly #tokenOf: (name: string) => string;
  readonly #members = new Set<WebSocket>();
  /** Places of messages that were answered as stored since the last look, by mid. */
  #acknowledged = new Map<string, number>();
  readonly #databaseUrl: string;
  #isStopped = false;
  #said = 0;
  #openNumber = 0;

  private constructor(
    server: Server,
    lines: ReadonlyMap<Dependency, FaultyLine>,
    tokenOf: (name: string) => string,
    databaseUrl: string,
    stops: (() => Promise<unknown> | unknown)[],
  ) {
    this.server = server;
    this.lines = lines;
    this.#tokenOf = tokenOf;
    this.#databaseUrl = databaseUrl;
    this.#stops = stops;
  }

  static async start({ processes }: { processes: number }): Promise<DependencyWorld> {
    const stops: (() => Promise<unknown> | unknown)[] = [];
    try {
      const [postgres, redis, smtp] = await Promise.all([startPostgres(), startRedis(), startSmtp()]);
      stops.push(
        () => postgres.stop(),
        () => redis.stop(),
        () => smtp.stop(),
      );
      const http = await startHttp();
      stops.push(() => http.close());
      const lines = await layLines(postgres, redis, smtp, (http.address() as AddressInfo).port);
      const port = (dependency: Dependency) => lines.get(dependency)!.port;
      const secret = randomBytes(32).toString('base64url');
      const server = await Server.start({
        env: {
          DATABASE_URL: `postgres://postgres@127.0.0.1:${port('postgres')}/postgres`,
          DATABASE_TIMEOUT_MS: '2000',
          REDIS_URL: `redis://127.0.0.1:${port('redis')}`,
          SMTP_URL: `smtp://127.0.0.1:${port('smtp')}`,
          MAIL_FROM: 'veza@example.org',
          MODERATION_URL: `http://127.0.0.1:${port('judge')}/v1/moderations`,
          AUTH_JWKS_URL: `http://127.0.0.1:${port('jwks')}/jwks.json`,
          AUTH_ISSUER: 'https://issuer.example',
          AUTH_AUDIENCE: 'test',
          WEBHOOK_ALLOWED_HOSTS: '127.0.0.1',
          JWT_SECRET: secret,
          JWT_AUDIENCE: 'test',
          WORKER_THREADS: String(processes),
          ADAPTIVE_BITRATE: 'false',
          LOG_LEVEL: 'warn',
        },
      });
      stops.push(() => server.stop());
      const key = await server.createChannel(SLUG);
      const publisher: Running = publishRtmp(server.rtmpUrl(key));
      stops.push(() => publisher.kill());
      const world = new DependencyWorld(server, lines, gatewayTokens(secret), postgres.url, stops);
      await server.api('PATCH', CHANNELS_OWN_ROOM, { remote: 'hold', perS: 100, burst: 100, roomPerS: 1000 });
      await server.api('POST', '/webhooks', {
        url: `http://127.0.0.1:${port('webhook')}/hook`,
        events: ['channel.on_air', 'account.banned'],
      });
      for (let n = 0; n < MEMBERS; n++) world.#join(`member-${n}`);
      await server.onAir(SLUG);
      return world;
    } catch (error) {
      for (const stop of stops.reverse()) await stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const member of this.#members) member.terminate();
    for (const stop of this.#stops.reverse()) await stop();
    for (const line of this.lines.values()) await line.stop();
  }

  /** Everything that uses a dependency, side by side; each must be answered, with anything but a 500. */
  async exercise(): Promise<void> {
    const n = this.#said++;
    const person = `${n}-${randomBytes(4).toString('hex')}`;
    const unknown = `${encoded({ alg: 'RS256', kid: person })}.${encoded({ iss: 'https://issuer.example', aud: 'test', sub: 'x', exp: 4e9 })}.AAAA`;
    // What members say is judged, unlike what the administrator says.
    for (const [index, member] of [...this.#members].entries()) {
      const key = `${person}-${index}`;
      if (member.readyState === WebSocket.OPEN)
        member.send(JSON.stringify({ t: 'pub', id: key, room: SLUG, key, body: { text: `something that only ${key} would say` } }));
    }
    await Promise.all([
      this.ask('POST', `${CHANNELS_OWN_ROOM}/messages`, { text: `a message that nobody has said before: ${person}`, key: person }),
      this.ask('POST', '/accounts', { email: `${person}@example.org`, name: 'Somebody', role: 'listener' }),
      this.ask('PUT', `${CHANNELS_OWN_ROOM}/terms`, { blocked: [`word-${person}`], allowed: [] }),
      this.ask('PATCH', `/channels/${SLUG}`, { title: `Title ${n}` }),
      this.ask('POST', `/channels/${SLUG}/now-playing`, { artist: 'A', title: person }),
      this.ask('POST', '/sessions', { email: `${person}@example.org`, password: 'not the password' }),
      this.ask('GET', `/channels/${SLUG}`, undefined, unknown),
      this.ask('GET', `/channels/${SLUG}`, undefined, this.#tokenOf(`guest-${n}`)),
      this.ask('GET', `${CHANNELS_OWN_ROOM}/messages?limit=5`),
      this.#testWebhook(),
    ]);
  }

  /** One request; what is not answered, or with a 500, is a finding. */
  async ask(method: string, path: string, body?: object, token?: string): Promise<number | undefined> {
    const bearer = token ?? (await this.#adminToken());
    try {
      const response = await fetch(`${this.server.url}/api/v1${path}`, {
        method,
        headers: { authorization: `Bearer ${bearer}`, ...(body && { 'content-type': 'application/json' }) },
        ...(body && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      });
      const text = await response.text();
      if (response.status === 201 && path.endsWith('/messages')) this.#note(JSON.parse(text));
      if (response.status === 500) this.findings.push(`${method} ${path}: 500 ${text.slice(0, 200)}`);
      return response.status;
    } catch (error) {
      this.findings.push(`${method} ${path}: ${(error as Error).message} ${String((error as Error).cause ?? '')}`);
      return undefined;
    }
  }

  /** Pieces that went over each line while everything was asked for once. */
  async count(): Promise<Map<Dependency, number>> {
    const before = new Map([...this.lines].map(([name, line]) => [name, line.pieces]));
    await this.exercise();
    return new Map([...this.lines].map(([name, line]) => [name, line.pieces - before.get(name)!]));
  }

  /** Breaks one line as planned while everything is asked for, and checks that all is well when it is whole again. Resolves to whether it met a piece. */
  async strike(plan: Plan): Promise<boolean> {
    const line = this.lines.get(plan.dependency)!;
    const from = line.pieces + plan.point;
    let left = plan.times;
    line.fault = (piece) => {
      if (line.pieces <= from || left === 0) return undefined;
      left--;
      return faultOf(plan, piece);
    };
    await this.exercise();
    line.heal();
    if (plan.kind === 'garble') {
      // A mid that was garbled on its way is another message's, and PostgreSQL calls a garbled statement a syntax error, which is a 500.
      this.#acknowledged.clear();
      this.findings = this.findings.filter((finding) => !finding.includes(': 500 '));
    }
    await this.isWell(JSON.stringify(plan));
    return left < plan.times;
  }

  /** Kills, or halts for a while, one of the children that make sound. */
  async strikeChild(random: () => number): Promise<void> {
    const { encoders, decoders } = await ffmpegsOf(this.server.pid);
    const all = [...encoders, ...decoders];
    const pid = all[Math.floor(random() * all.length)];
    if (pid === undefined) return;
    const signal = random() < 0.5 ? 'SIGKILL' : 'SIGSTOP';
    signalled(pid, signal);
    await this.exercise();
    signalled(pid, 'SIGCONT');
    await this.isWell(`${signal} to ffmpeg`);
  }

  /** The process lives and met nothing unexpected, the show goes on, and every kind of request is answered with success again. */
  async isWell(after: string): Promise<void> {
    const fail = (what: string): never => {
      throw new Error(`after ${after}: ${what}\n${this.findings.join('\n')}\n${this.server.logTail(20)}`);
    };
    const works = async () => {
      const key = randomBytes(8).toString('hex');
      const statuses = [
        await this.ask('PATCH', `/channels/${SLUG}`, { title: key }),
        await this.ask('POST', `${CHANNELS_OWN_ROOM}/messages`, { text: `all is well again, says ${key}`, key }),
        await this.ask('PUT', `${CHANNELS_OWN_ROOM}/terms`, { blocked: [], allowed: [] }),
      ];
      return statuses.every((status) => status !== undefined && status < 300) || undefined;
    };
    await eventually('requests are answered again', works).catch((error) => fail((error as Error).message));
    await this.#checkAcknowledged().catch((error) => fail((error as Error).message));
    if (this.findings.length > 0) fail('something was not answered as it should be');
    const unexpected = await this.server.metric('process_unexpected_errors_total');
    if (unexpected !== 0) fail(`${unexpected} errors that nobody took`);
    await eventually('the show goes on', async () => {
      const text = await this.server.text(`/live/${SLUG}/aac-128/index.m3u8`);
      const open = text === undefined ? 0 : readPlaylist(text).openNumber;
      if (open <= this.#openNumber) return undefined;
      this.#openNumber = open;
      return true;
    }).catch((error) => fail((error as Error).message));
  }

  #note({ mid, offset }: { mid?: unknown; offset?: unknown }): void {
    // One that is held has no place.
    if (typeof mid === 'string' && typeof offset === 'number') this.#acknowledged.set(mid, offset);
  }

  /** What was acknowledged is in PostgreSQL at the place that was named, and the room shows it there. */
  async #checkAcknowledged(): Promise<void> {
    const wanted = [...this.#acknowledged];
    this.#acknowledged = new Map();
    const places = async () => {
      const client = new pg.Client(this.#databaseUrl);
      await client.connect();
      try {
        const text = 'select mid, "offset" from messages where mid = any($1) and type <> \'gone\'';
        const { rows } = await client.query<{ mid: string; offset: string }>(text, [wanted.map(([mid]) => mid)]);
        return new Map(rows.map((row) => [row.mid, Number(row.offset)]));
      } finally {
        await client.end();
      }
    };
    const missingIn = (found: ReadonlyMap<string, number>) =>
      wanted
        .filter(([mid, offset]) => found.get(mid) !== offset)
        .map(([mid, offset]) => `${mid} at ${offset} (found at ${found.get(mid)})`);
    const notStored = missingIn(await places());
    if (notStored.length > 0) throw new Error(`acknowledged and not in PostgreSQL: ${notStored.join(', ')}`);
    const lowest = Math.min(...wanted.map(([, offset]) => offset));
    const shown = async () => {
      const found = new Map<string, number>();
      for (let before: string | null = ''; before !== null; ) {
        const path: string = `${CHANNELS_OWN_ROOM}/messages?limit=100${before && `&before=${before}`}`;
        const page = await eventually('history is answered', () => this.#list<{ mid?: string; offset: number }>(path));
        for (const { mid, offset } of page.items) if (mid !== undefined) found.set(mid, offset);
        before = page.next !== null && Number(page.next) > lowest ? page.next : null;
      }
      return found;
    };
    // A process whose connection to Redis was cut follows the log again a moment after another process acknowledges.
    let notShown = missingIn(await shown());
    const isShown = async () => {
      notShown = missingIn(await shown());
      return notShown.length === 0 || undefined;
    };
    if (notShown.length > 0)
      await eventually('the room shows them', isShown).catch(() => {
        throw new Error(`acknowledged and not shown in the room: ${notShown.join(', ')}`);
      });
    this.kept += wanted.length;
  }

  async #testWebhook(): Promise<void> {
    const { items } = (await this.#list<{ id: string }>('/webhooks')) ?? {};
    if (items?.[0]) await this.ask('POST', `/webhooks/${items[0].id}/test`);
  }

  async #list<Item>(path: string): Promise<{ items: Item[]; next: string | null } | undefined> {
    const response = await fetch(`${this.server.url}/api/v1${path}`, { headers: { authorization: `Bearer ${await this.#adminToken()}` } });
    return response.ok ? ((await response.json()) as { items: Item[]; next: string | null }) : undefined;
  }

  #admin: string | undefined;
  async #adminToken(): Promise<string> {
    this.#admin ??= (await (await import('node:fs/promises')).readFile(`${this.server.dataDir}/admin-token`, 'utf8')).trim();
    return this.#admin;
  }

  /** Somebody in the chat, who comes back whenever he is cut off. */
  #join(name: string): void {
    const socket = new WebSocket(`ws://127.0.0.1:${this.server.port}/chat`, [SUBPROTOCOL]);
    this.#members.add(socket);
    socket.on('error', () => undefined);
    socket.on('open', () => socket.send(JSON.stringify({ t: 'hello', token: this.#tokenOf(name) })));
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data)) as { t: string; mid?: string; offset?: number };
      if (frame.t === 'ack') this.#note(frame);
      if (frame.t === 'welcome') socket.send(JSON.stringify({ t: 'join', id: 'j', room: SLUG }));
    });
    socket.on('close', () => {
      this.#members.delete(socket);
      if (!this.#isStopped) setTimeout(() => this.#isStopped || this.#join(name), 500).unref();
    });
  }
}

function faultOf({ kind, where }: Plan, { bytes }: Piece): Fault {
  const at = Math.floor(where * bytes.length);
  if (kind === 'cut' || kind === 'half-close') return { kind, after: at };
  if (kind === 'delay') return { kind, ms: 500 + 2500 * where };
  if (kind === 'garble') return { kind, at, count: 1 + Math.floor(where * 7) };
  return { kind };
}

const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

function signalled(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // It has been replaced.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Judge, key set and receiver of webhooks in one: all of them answer at once. */
async function startHttp(): Promise<HttpServer> {
  const server = createServer((req, res) => {
    req.resume();
    const body = req.url?.startsWith('/jwks')
      ? { keys: [] }
      : { results: [{ flagged: false, categories: { hate: false }, category_scores: { hate: 0.01 } }] };
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

async function layLines(
  postgres: TestPostgres,
  redis: TestRedis,
  smtp: SmtpServer,
  httpPort: number,
): Promise<ReadonlyMap<Dependency, FaultyLine>> {
  const socketDir = new URL(postgres.url).searchParams.get('host')!;
  const portOf = (url: string) => Number(new URL(url).port);
  const to = {
    postgres: { path: `${socketDir}/.s.PGSQL.5432` },
    redis: { port: portOf(redis.url) },
    smtp: { port: portOf(smtp.url) },
    webhook: { port: httpPort },
    judge: { port: httpPort },
    jwks: { port: httpPort },
  };
  return new Map(await Promise.all(DEPENDENCIES.map(async (name) => [name, await FaultyLine.to(to[name])] as const)));
}
