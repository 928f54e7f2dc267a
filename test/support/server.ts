import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTestDatabase, type TestDatabase } from './database.js';
import { freePorts } from './free-port.js';
import { eventually, type Running, start, tail } from './process.js';

/** The embedded database alone takes three seconds of computing to start, which a busy machine makes a minute of. */
const START_PATIENCE_MS = 180_000;

/** One line of the service's log. */
export interface LogLine {
  level: number;
  msg: string;
  [field: string]: unknown;
}

export interface ServerOptions {
  /** More environment; what is here wins. */
  env?: Readonly<Record<string, string>>;
  /** Shared with another process; an own one unless given. */
  dataDir?: string;
  /** Prefix of the command line, for `taskset` and the like. */
  under?: readonly string[];
  /** Its own database, in its data directory, for tests that have it as their subject. The others use the tests' PostgreSQL, which is there at once. */
  embeddedDatabase?: boolean;
}

/**
 * The real service, built, in a process of its own with a data directory and ports that stay the same over `kill9` and `restart`.
 */
export class Server {
  readonly dataDir: string;
  readonly port: number;
  readonly ingestPort: number;
  readonly rtmpPort: number;
  readonly metricsPort: number;
  readonly #options: ServerOptions;
  readonly #database: TestDatabase | undefined;
  #running: Running | undefined;
  #log = '';

  private constructor(dataDir: string, ports: readonly number[], options: ServerOptions, database: TestDatabase | undefined) {
    this.dataDir = dataDir;
    [this.port, this.ingestPort, this.rtmpPort, this.metricsPort] = ports as [number, number, number, number];
    this.#options = options;
    this.#database = database;
  }

  /** Starts it and waits until it is ready. `stop` it in a `finally` or an `after`. */
  static async start(options: ServerOptions = {}): Promise<Server> {
    const database = options.embeddedDatabase || options.env?.DATABASE_URL ? undefined : await createTestDatabase();
    const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'veza-test-')));
    const server = new Server(dataDir, await freePorts(4), options, database);
    try {
      await server.restart();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    const pid = this.#running?.child.pid;
    if (pid === undefined) throw new Error('the service does not run');
    return pid;
  }

  rtmpUrl(streamKey: string): string {
    return `rtmp://127.0.0.1:${this.rtmpPort}/live/${streamKey}`;
  }

  /** Where Icecast clients put a channel; with the key as ffmpeg wants it. */
  icecastUrl(channel: string, streamKey: string): string {
    return `icecast://source:${streamKey}@127.0.0.1:${this.ingestPort}/${channel}`;
  }

  /** Starts the service (again) on the same data and ports; resolves when `/health/ready` says so. */
  async restart(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const [command = '', ...args] = [...(this.#options.under ?? []), process.execPath, '--min-semi-space-size=16', 'dist/src/main.js'];
    const running = start(command, args, {
      env: {
        PATH: process.env.PATH,
        HOME: process.env.HOME,
        HOST: '127.0.0.1',
        LOG_LEVEL: 'info',
        RATE_LIMIT_PER_MINUTE: '100000',
        WS_PORT: String(this.port),
        ...(this.#database && { DATABASE_URL: this.#database.url }),
        ...this.#options.env,
        ...env,
        DATA_DIR: this.dataDir,
        PORT: String(this.port),
        INGEST_PORT: String(this.ingestPort),
        RTMP_PORT: String(this.rtmpPort),
        PROMETHEUS_PORT: String(this.metricsPort),
        GRPC_PORT: '0',
      },
    });
    this.#running = running;
    running.child.stdout?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    running.child.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    const ready = eventually(
      'the service is ready',
      async () => {
        const { child } = running;
        if (child.exitCode !== null || child.signalCode !== null) return { gone: child.exitCode ?? child.signalCode };
        return (await fetch(`${this.url}/health/ready`)).ok ? {} : undefined;
      },
      START_PATIENCE_MS,
    );
    const { gone } = (await ready.catch((error) => {
      throw new Error(`${error.message}\n${tail(this.#log)}`);
    })) as { gone?: unknown };
    if (gone !== undefined) throw new Error(`the service ended with ${gone}:\n${tail(this.#log)}`);
  }

  /** What a power cut does to the process. */
  async kill9(): Promise<void> {
    await this.#running?.kill('SIGKILL');
  }

  /** SIGTERM; resolves with the exit code. */
  async stopGracefully(): Promise<number | null> {
    return (await this.#running?.kill('SIGTERM'))?.code ?? null;
  }

  /** Ends the process, gracefully if it will, and removes its data. */
  async stop(): Promise<void> {
    if (this.#running) {
      const force = setTimeout(() => this.#running?.child.kill('SIGKILL'), 10_000);
      await this.#running.kill('SIGTERM').catch(() => undefined);
      clearTimeout(force);
    }
    await rm(this.dataDir, { recursive: true, force: true, maxRetries: 5 });
    await this.#database?.drop();
  }

  /** Everything it has logged, over all its lives. */
  log(): LogLine[] {
    return this.#log
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .flatMap((line) => {
        try {
          return [JSON.parse(line) as LogLine];
        } catch {
          return [];
        }
      });
  }

  /** Its last words as they were written, for messages of failed tests. */
  logTail(lines = 30): string {
    return tail(this.#log, lines);
  }

  /** An API call as administrator; rejects unless it is answered with 2xx. */
  async api<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const token = (await readFile(join(this.dataDir, 'admin-token'), 'utf8')).trim();
    const response = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  /** Makes a channel and a stream key for it. */
  async createChannel(slug: string): Promise<string> {
    return (await this.api<{ streamKey: string }>('POST', '/channels', { slug, title: slug, visibility: 'public' })).streamKey;
  }

  channel(slug: string): Promise<{ state: 'offline' | 'live' | 'holding'; nowPlaying: { title: string; artist?: string } | null }> {
    return this.api('GET', `/channels/${slug}`);
  }

  /** Text of an address of this service; undefined unless it is 200. */
  async text(path: string): Promise<string | undefined> {
    const response = await fetch(`${this.url}${path}`);
    const text = await response.text();
    return response.status === 200 ? text : undefined;
  }

  /** Waits until the channel has at least so many whole segments with sound, and gives its playlist. */
  onAir(slug: string, segments = 1, rendition = 'aac-128'): Promise<string> {
    return eventually(`${slug} is on air with ${segments} segments`, async () => {
      const playlist = await this.text(`/live/${slug}/${rendition}/index.m3u8`);
      if (!playlist) return undefined;
      const { segments: listed, gaps } = readPlaylist(playlist);
      return listed.length - gaps.length >= segments ? playlist : undefined;
    });
  }

  /** A metric's value (all its series added up), or undefined. */
  async metric(name: string): Promise<number | undefined> {
    const text = await (await fetch(`http://127.0.0.1:${this.metricsPort}/metrics`)).text();
    const values = [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? ([-+.\\deE]+)$`, 'gm'))].map((match) => Number(match[1]));
    return values.length === 0 ? undefined : values.reduce((a, b) => a + b, 0);
  }
}

/** The numbers in a media playlist that tests ask for. */
export function readPlaylist(text: string) {
  const lines = text.split('\n');
  const number = (tag: string) => Number(new RegExp(`^#${tag}:(\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN);
  let at = number('EXT-X-MEDIA-SEQUENCE');
  const discontinuities: number[] = [];
  const gaps: number[] = [];
  for (const line of lines) {
    if (line === '#EXT-X-DISCONTINUITY') discontinuities.push(at);
    if (line === '#EXT-X-GAP') gaps.push(at);
    if (/^[^#\s]/.test(line)) at++;
  }
  return {
    mediaSequence: number('EXT-X-MEDIA-SEQUENCE'),
    discontinuitySequence: number('EXT-X-DISCONTINUITY-SEQUENCE'),
    /** Segment numbers before which a discontinuity stands. */
    discontinuities,
    gaps,
    /** Number of the segment after the last whole one. */
    openNumber: at,
    ended: lines.includes('#EXT-X-ENDLIST'),
    segments: lines.filter((line) => /^[^#\s]/.test(line)),
    programDateTimesMs: [...text.matchAll(/^#EXT-X-PROGRAM-DATE-TIME:(.*)$/gm)].map((match) => Date.parse(match[1]!)),
  };
}
