import { type ChildProcess, spawn } from 'node:child_process';
import { access, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { adminTokenPath } from '../access/tokens/admin-token.js';
import { Ffmpeg } from '../backing/ffmpeg.js';
import { PRIVATE_FILE, PRIVATE_FOLDER } from '../backing/files/private-files.js';
import { keptSecret } from '../backing/files/secret-file.js';
import { startService } from '../compose/run.js';
import { childEnvironment } from '../config/child-environment.js';
import { type Config, ConfigError, loadConfig } from '../config/config.js';
import { type Clock, SystemClock } from '../runtime/clock.js';
import { messageOf } from '../runtime/errors.js';
import { createLog, exit, type Log } from '../runtime/log.js';
import { takeUnexpectedErrors } from '../runtime/unexpected.js';
import { sleep } from '../runtime/waiting.js';
import { MUSIC_SECONDS, renderMusic } from './demo-music.js';

/**
 * `npm run demo`: the service with its embedded database and a broadcast on air. The music takes
 * the way of any broadcaster: out of an encoder and in through the RTMP port.
 */
const CHANNEL = 'demo';
const TITLES: readonly (readonly [artist: string, title: string])[] = [
  ['Veza', 'Lamps Along the Quay'],
  ['Veza', 'Slow Ferry'],
  ['Veza', 'Last Tram Home'],
];
const TITLE_MS = (MUSIC_SECONDS * 1000) / TITLES.length;
/**
 * The wait before the encoder connects again. It is short, so that the music returns soon after a
 * person who took over the channel has left.
 */
const REPUBLISH_MS = 3000;
const STARTED_WITHIN_MS = 120_000;

/**
 * A message that names the variable for a port that cannot be opened; undefined for other errors.
 */
function portHint(config: Config, error: unknown): string | undefined {
  const { code, port } = error as NodeJS.ErrnoException & { port?: number };
  if (code !== 'EADDRINUSE' && code !== 'EACCES') return undefined;
  const names: readonly (readonly [string, number | undefined])[] = [
    ['PORT', config.port],
    ['WS_PORT', config.wsPort],
    ['INGEST_PORT', config.ingestPort],
    ['RTMP_PORT', config.rtmpPort],
    ['RTMPS_PORT', config.rtmpsPort],
    ['PROMETHEUS_PORT', config.prometheusPort],
  ];
  const name = names.find(([, value]) => value === port)?.[0] ?? 'PORT';
  const why = code === 'EADDRINUSE' ? 'is in use by another program' : 'may not be opened by this user';
  return `Port ${port} ${why}. Choose another one: ${name}=${(port ?? 0) + 1000} npm run demo`;
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

/** Renders the music to a file once. Later starts use the file. */
async function musicFile(dataDir: string): Promise<string> {
  const path = join(dataDir, 'demo-music-1.wav');
  if (await exists(path)) return path;
  await mkdir(dataDir, { recursive: true, mode: PRIVATE_FOLDER });
  await writeFile(`${path}.unfinished`, renderMusic(), { mode: PRIVATE_FILE });
  await rename(`${path}.unfinished`, path);
  return path;
}

/** A client of this process's API, with administrator rights. */
class Api {
  readonly #base: string;
  readonly #token: string;

  constructor(base: string, token: string) {
    this.#base = base;
    this.#token = token;
  }

  /** Resolves to undefined when the answer is 404. Rejects at any other error. */
  async call<T>(method: string, path: string, body?: object): Promise<T | undefined> {
    const response = await fetch(`${this.#base}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    if (response.status === 404) return undefined;
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T | undefined;
  }
}

/**
 * A link to choose a password for the administrator that the first start has made; undefined when
 * that is done.
 */
async function firstAdminLink(api: Api, email: string): Promise<string | undefined> {
  const found = await api.call<{ items: { id: string; role: string; state: string }[] }>(
    'GET',
    `/accounts?query=${encodeURIComponent(email)}&limit=1`,
  );
  const account = found?.items[0];
  if (account?.role !== 'admin' || account.state !== 'invited') return undefined;
  return (await api.call<{ link: string }>('POST', `/accounts/${account.id}/link`))?.link;
}

/**
 * Keeps an encoder running until stopped. When the encoder is refused, because another one is on
 * air with the key, it tries again.
 */
class Publisher {
  readonly #ffmpeg: string;
  readonly #args: readonly string[];
  readonly #clock: Clock;
  #child: ChildProcess | undefined;
  #cancel: () => void = () => undefined;
  #stopped = false;
  /** The encoder's last error text, for the case that the broadcast does not come on air. */
  lastErrorText = '';

  constructor(ffmpeg: string, music: string, url: string, clock: Clock) {
    this.#ffmpeg = ffmpeg;
    this.#args = [
      ...['-hide_banner', '-loglevel', 'error', '-nostdin', '-re', '-stream_loop', '-1', '-f', 'wav', '-i', music],
      ...['-c:a', 'aac', '-b:a', '192k', '-f', 'flv', '-flvflags', 'no_duration_filesize', url],
    ];
    this.#clock = clock;
  }

  start(): void {
    const child = spawn(this.#ffmpeg, [...this.#args], { stdio: ['ignore', 'ignore', 'pipe'], env: childEnvironment('ffmpeg') });
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => {
      this.lastErrorText = chunk.toString().trim();
    });
    child.on('error', (error) => {
      this.lastErrorText = error.message;
    });
    child.once('close', () => {
      if (!this.#stopped) this.#cancel = this.#clock.after(REPUBLISH_MS, () => this.start());
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
    this.#child?.kill('SIGTERM');
  }
}

/**
 * The channel's stream key. It is kept in a file, so that an encoder that was set up once keeps
 * working. Makes the channel when there is none.
 */
async function streamKeyOf(api: Api, path: string): Promise<string> {
  let fresh: { streamKey: string } | undefined;
  if (!(await api.call('GET', `/channels/${CHANNEL}`))) {
    await rm(path, { force: true });
    // Not recorded: a demo that is left running must not fill the disk.
    fresh = await api.call('POST', '/channels', { slug: CHANNEL, title: 'Veza demo', visibility: 'public', recording: false });
  } else if (!(await exists(path))) {
    fresh = await api.call('POST', `/channels/${CHANNEL}/stream-key`);
  }
  return keptSecret(path, () => fresh?.streamKey ?? '');
}

async function onAir(api: Api, publisher: Publisher, clock: Clock): Promise<void> {
  const deadlineMs = clock.monotonicMs() + STARTED_WITHIN_MS;
  for (;;) {
    const channel = await api.call<{ state: string }>('GET', `/channels/${CHANNEL}`);
    if (channel?.state === 'live') return;
    if (clock.monotonicMs() > deadlineMs) throw new Error(`The demo did not come on air. ${publisher.lastErrorText}`);
    await sleep(clock, 100);
  }
}

/**
 * A log without warnings while the demo stops. Ctrl-C reaches every process of the terminal at
 * once, so encoders end too, and that is expected.
 */
function withoutWarnings(log: Log, stopping: () => boolean): Log {
  return {
    debug: (fields, message) => log.debug(fields, message),
    info: (fields, message) => log.info(fields, message),
    warn: (fields, message) => {
      if (!stopping()) log.warn(fields, message);
    },
    error: (fields, message) => log.error(fields, message),
    child: (fields) => withoutWarnings(log.child(fields), stopping),
  };
}

function framed(lines: readonly string[]): string {
  const width = Math.max(...lines.map((line) => line.length));
  const edge = '─'.repeat(width + 4);
  return [`┌${edge}┐`, ...lines.map((line) => `│  ${line.padEnd(width)}  │`), `└${edge}┘`].join('\n');
}

async function demo(config: Config): Promise<void> {
  const clock = new SystemClock();
  const print = (line: string) => process.stdout.write(`${line}\n`);
  // The framed text below is what a newcomer should read, so the log has only warnings and errors.
  let signals = 0;
  const level = config.logLevel === 'info' ? 'warn' : config.logLevel;
  const log = withoutWarnings(createLog({ level, service: config.serviceName, version: config.version }), () => signals > 0);

  let isOnAir = false;
  takeUnexpectedErrors({ clock, log, onException: () => void (isOnAir || exit(1)) });
  print('Making two minutes of music …');
  const music = await musicFile(config.dataDir);
  print('Starting Veza …');
  const service = await startService(config, log, clock);
  let publisher: Publisher | undefined;
  let cancelTitles = () => {};
  const stop = async (code: number) => {
    if (++signals > 1) process.exit(1);
    print('\nStopping …');
    cancelTitles();
    publisher?.stop();
    await exit((await service.stop()) ? code : 1);
  };
  process.on('SIGINT', () => void stop(0));
  process.on('SIGTERM', () => void stop(0));

  try {
    const host = config.host === '0.0.0.0' ? '127.0.0.1' : config.host === '::' ? '[::1]' : config.host;
    const api = new Api(`http://${host}:${config.port}`, (await readFile(adminTokenPath(config.dataDir), 'utf8')).trim());
    const streamKey = await streamKeyOf(api, join(config.dataDir, 'demo-key'));
    publisher = new Publisher(new Ffmpeg(config.ffmpegPath).path, music, `rtmp://${host}:${config.rtmpPort}/live/${streamKey}`, clock);
    publisher.start();
    await onAir(api, publisher, clock);
    isOnAir = true;

    let shown = 0;
    const nextTitle = () => {
      const [artist, title] = TITLES[shown++ % TITLES.length]!;
      // This fails while the encoder restarts and the channel is off air; the next title follows
      // soon.
      api.call('POST', `/channels/${CHANNEL}/now-playing`, { artist, title }).catch(() => undefined);
    };
    nextTitle();
    cancelTitles = clock.every(TITLE_MS, nextTitle);
    const adminLink = await firstAdminLink(api, config.adminEmail);
    print(
      framed([
        'Veza is on air.',
        '',
        `Listen          ${config.publicUrl}/c/${CHANNEL}`,
        `Any player      ${config.publicUrl}/live/${CHANNEL}/master.m3u8`,
        '',
        'Your own sound  OBS → Settings → Stream → Custom',
        `  Server        rtmp://localhost:${config.rtmpPort}/live`,
        `  Stream key    ${streamKey}`,
        'It takes over from the music, and the music comes back when you stop.',
        '',
        `Everything is kept in ${resolve(config.dataDir)}`,
        'Ctrl-C stops it.',
      ]),
    );
    // Outside the frame, so that it can be copied from a narrow terminal too.
    if (adminLink !== undefined)
      print(`To become the administrator (${config.adminEmail}), open this once and choose a password:\n${adminLink}`);
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    await stop(1);
  }
}

let config: Config;
try {
  config = loadConfig();
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exit(2);
}
try {
  await demo(config);
} catch (error) {
  process.stderr.write(`${portHint(config, error) ?? messageOf(error)}\n`);
  await exit(1);
}
