import assert from 'node:assert/strict';
import { Agent, type IncomingHttpHeaders, request } from 'node:http';
import type { Operation } from '../../src/app/api/openapi.js';
import type { Database } from '../../src/backing/database/database.js';
import { Broadcasts } from '../../src/library/broadcasts.js';
import { type Log, silentLog } from '../../src/runtime/log.js';
import { type ApiDocument, type Documented, documentedOperations } from './api-document.js';
import { startApp, type TestApp } from './app.js';
import { openTestDatabase } from './database.js';
import { type Person, personOf, signedIn } from './people.js';
import { UndoneDatabase } from './undone.js';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}
export interface Sent {
  readonly body?: string | Buffer;
  readonly headers?: Record<string, string>;
}
export type Tried = Documented & { readonly operation: Operation };

/** These replace keys of the process, which nothing undoes. */
export const replacesKeys = ({ path, method }: { path: string; method: string }) => path.startsWith('/service/') && method !== 'GET';

/** As if the password was shown again a day from now: on a slow machine the requests take longer than a sign-in is fresh. */
const staysFresh = (database: Database, { sessionId }: Person) =>
  database.query(`update sessions set proven_at = now() + interval '1 day' where id = $1`, [sessionId]);

/**
 * The app with one of everything in it (a channel with a show, a recording, a message, webhooks, an account), an administrator who asks, and the
 * operations that its document has; what a request changes in the database is undone after it.
 */
export class ApiWorld {
  readonly app: TestApp;
  readonly database: UndoneDatabase;
  readonly document: ApiDocument;
  readonly operations: Tried[];
  /** Lines of the log about defects. */
  readonly failures: string[];
  readonly admin: Person;
  token: string;
  /** Values with which a path leads to something. */
  readonly known: Readonly<Record<string, string>>;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #plain: Database;

  private constructor(made: Pick<ApiWorld, 'app' | 'database' | 'failures' | 'admin'> & { plain: Database }) {
    this.app = made.app;
    this.database = made.database;
    this.failures = made.failures;
    this.admin = made.admin;
    this.token = made.admin.token;
    this.#plain = made.plain;
    this.document = { paths: {}, components: { schemas: {} } };
    this.operations = [];
    this.known = {};
  }

  static async start(): Promise<ApiWorld> {
    const plain = await openTestDatabase();
    const database = new UndoneDatabase(plain);
    const failures: string[] = [];
    const log: Log = { ...silentLog, error: (fields: object, text?: string) => failures.push(`${text}: ${JSON.stringify(fields)}`) } as Log;
    const app = await startApp(
      { broadcasts: new Broadcasts(database), log },
      { database, rateLimitPerMinute: 1e9, webhookAllowedHosts: ['127.0.0.1'] },
    );
    const admin = await personOf({ ...app, database } as TestApp, 'admin', true);
    await staysFresh(database, admin);
    const world = new ApiWorld({ app, database, failures, admin, plain });
    await world.#fill();
    return world;
  }

  async #fill(): Promise<void> {
    const { app, database, admin } = this;
    const { channel } = await app.access.channels.create('fuzz', { title: 'x', visibility: 'public', recording: true }, admin.id);
    await app.broadcasts.insert({ id: 'recording', channelId: channel.id, title: 'x', recording: true, startedAtMs: 1e12, firstNumber: 0 });
    await app.broadcasts.end('recording', { endedAtMs: 1e12 + 9000, durationMs: 9000, lastNumber: 4 });
    const target = await personOf({ ...app, database } as TestApp, 'listener', false);
    const hook = async (path: string) => {
      const { text } = await this.send('POST', path, {
        body: JSON.stringify({ url: 'http://127.0.0.1:65535/', events: ['channel.on_air'] }),
      });
      assert.ok(JSON.parse(text).webhook, text);
      return JSON.parse(text).webhook.id as string;
    };
    const said = { user: { id: target.id, name: 'x', role: 'viewer' }, body: { text: 'x' } };
    await database.query(
      `insert into messages (room_id, "offset", epoch, type, mid, user_id, payload, created_at)
       select id, 1, 1, 'msg', 'from-the-target-123456', $2, $3, now() from rooms where channel_id = $1`,
      [channel.id, target.id, JSON.stringify(said)],
    );
    Object.assign(this.known, {
      mid: 'from-the-target-123456',
      slug: 'fuzz',
      asset: 'recording',
      account: target.id,
      channelHook: await hook('/channels/fuzz/webhooks'),
      serviceHook: await hook('/webhooks'),
    });
    Object.assign(this.document, JSON.parse((await this.send('GET', '/openapi.json')).text));
    for (const one of documentedOperations(this.document))
      this.operations.push({ ...one, operation: app.operations.find(({ id }) => id === one.operationId)! });
    this.operations.sort((a, b) => Number(replacesKeys(a)) - Number(replacesKeys(b)));
  }

  /** As it is, without a client that would put a path or a body right. */
  send(method: string, path: string, more: Sent = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const { hostname, port } = new URL(this.app.url);
      const headers: Record<string, string> = {
        authorization: `Bearer ${this.token}`,
        ...(more.body !== undefined && { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(more.body)) }),
        ...more.headers,
      };
      const sent = request({ agent: this.#agent, hostname, port, method, path: `/api/v1${path}`, headers }, (res) => {
        const chunks: Buffer[] = [];
        res.on('data', (chunk) => chunks.push(chunk));
        res.on('end', () => resolve({ status: res.statusCode!, headers: res.headers, text: Buffer.concat(chunks).toString() }));
        res.on('error', reject);
      });
      sent.on('error', reject);
      sent.end(more.body);
    });
  }

  /** One request to an operation; what it has changed is undone. */
  async ask(one: Tried, path: string, more: Sent = {}): Promise<Answer> {
    const isUndone = one.method !== 'GET' && !replacesKeys(one);
    if (isUndone) await this.database.begin();
    try {
      return await this.send(one.method, path, more);
    } finally {
      if (isUndone) await this.database.undo();
      this.app.access.channels.changed();
    }
  }

  /** After what may have ended the session. */
  async stillSignedIn(one: Tried, { status }: Answer): Promise<void> {
    if (one.method !== 'GET' && (status < 300 || status === 401) && (one.path.startsWith('/me') || replacesKeys(one)))
      await this.signInAgain();
  }

  async signInAgain(): Promise<void> {
    const again = await signedIn({ ...this.app, database: this.database } as TestApp, this.admin, true);
    await staysFresh(this.database, again);
    this.token = again.token;
  }

  /** A good value of a parameter of the path. */
  knownAt(one: { path: string }, name: string): string {
    const { known } = this;
    if (name === 'slug') return known.slug!;
    if (name === 'webhookId') return one.path.startsWith('/webhooks') ? known.serviceHook! : known.channelHook!;
    if (name === 'id' && one.path.startsWith('/assets')) return known.asset!;
    if (name === 'mid') return known.mid!;
    if (name === 'userId') return known.account!;
    if (name === 'accountId' || (name === 'id' && one.path.startsWith('/accounts'))) return known.account!;
    return '00000000-0000-4000-8000-000000000000';
  }

  pathWith(one: { path: string }, other: Record<string, string> = {}): string {
    return one.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => other[name] ?? encodeURIComponent(this.knownAt(one, name)));
  }

  async stop(): Promise<void> {
    this.#agent.destroy();
    await this.app.stop();
    await this.#plain.stop();
  }
}
