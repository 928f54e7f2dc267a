import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { permissionReference } from '../access/roles.js';
import { adminTokenPath } from '../access/tokens/admin-token.js';
import { MOD_FRAMES } from '../chat/moderation/mod-actions.js';
import { frameTables } from '../chat/protocol/frame-tables.js';
import { chatFrameReference } from '../chat/protocol/server-frames.js';
import { type Config, ConfigError, loadConfig } from '../config/config.js';
import { configurationReference } from '../config/reference.js';
import { messageOf } from '../runtime/errors.js';
import { type CallApi, type CommandOutput, everything, Failure } from './command.js';
import { KEY_COMMANDS, KEY_OPTIONS, KEY_USAGE } from './keys.js';
import { PLAYBACK_COMMANDS, PLAYBACK_OPTIONS, PLAYBACK_USAGE } from './playback.js';
import { USER_COMMANDS, USER_OPTIONS, USER_USAGE } from './user.js';

/**
 * The `veza` command: administration over the API, with the admin token of this machine. Exit
 * codes: 0 done, 1 refused by the server, 2 wrong usage or configuration, 3 no server.
 */
const USAGE = `usage: veza COMMAND [--json]

  channel create SLUG [--title TEXT] [--visibility public|unlisted|private] [--no-recording]
  channel list
  channel show SLUG
  channel rotate-key SLUG      a new stream key; the old one stays good for a broadcast that is on air
  channel end SLUG             ends the broadcast that is on air
  channel delete SLUG          with its recordings
${USER_USAGE}
${PLAYBACK_USAGE}
${KEY_USAGE}
  config reference             every environment variable, as Markdown
  chat frames                  every frame that the chat sends, as JSON Schema
  chat tables                  the members of every frame, as Markdown

The command talks to the server on this machine: set PORT and DATA_DIR as they are set for the server.
`;

interface ShownChannel {
  slug: string;
  title: string;
  visibility: string;
  state: string;
  listeners: number;
  recording: boolean;
  nowPlaying: { title: string; artist: string | null } | null;
  urls: { page: string; hls: string; dash: string; listen: string };
}

interface IngestAddressesJson {
  rtmp: string;
  rtmps: string | null;
  icecast: string;
  post: string;
}

const OPTIONS = {
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  title: { type: 'string' },
  visibility: { type: 'string' },
  'no-recording': { type: 'boolean' },
  ...USER_OPTIONS,
  ...PLAYBACK_OPTIONS,
  ...KEY_OPTIONS,
} as const satisfies ParseArgsConfig['options'];

async function main(args: string[]): Promise<number> {
  let json = args.includes('--json');
  try {
    const { values, positionals } = parsed(args);
    json = values.json ?? false;
    if (values.help || positionals.length === 0) {
      process.stdout.write(USAGE);
      return values.help ? 0 : 2;
    }
    const [noun, verb, ...rest] = positionals;
    const outcome = await run(`${noun} ${verb ?? ''}`.trim(), rest, values);
    process.stdout.write(json ? `${JSON.stringify(outcome.json)}\n` : outcome.text);
    return 0;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    process.stderr.write(json ? `${JSON.stringify({ error: error.message })}\n` : `veza: ${error.message}\n`);
    return error.exitCode;
  }
}

function parsed(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new Failure(2, `${messageOf(error)}\n\n${USAGE}`);
  }
}

type Values = ReturnType<typeof parsed>['values'];

async function run(command: string, rest: string[], values: Values): Promise<CommandOutput> {
  if (command === 'config reference' && rest.length === 0) {
    const text = configurationReference();
    return { json: text, text };
  }
  if (command === 'permissions' && rest.length === 0) {
    const text = permissionReference();
    return { json: text, text };
  }
  if (command === 'chat frames' && rest.length === 0) {
    const frames = chatFrameReference();
    return { json: frames, text: `${JSON.stringify(frames, null, 2)}\n` };
  }
  if (command === 'chat tables' && rest.length === 0) {
    const text = frameTables(MOD_FRAMES);
    return { json: text, text: `${text}\n` };
  }
  if (command === 'channel list' && rest.length === 0) return listChannels(await connect());
  const commands = { ...USER_COMMANDS, ...PLAYBACK_COMMANDS, ...KEY_COMMANDS };
  const user = Object.hasOwn(commands, command) ? commands[command] : undefined;
  if (user) {
    if (rest.length !== user.takes.length) {
      throw new Failure(2, `"${command}" takes ${user.takes.join(' and ') || 'nothing more'}\n\n${USAGE}`);
    }
    return user.run(await connect(), rest, values);
  }
  const one = ONE_CHANNEL[command];
  if (!one) throw new Failure(2, `there is no command "${command}"\n\n${USAGE}`);
  const [slug, ...more] = rest;
  if (slug === undefined || more.length > 0) throw new Failure(2, `"${command}" takes one channel\n\n${USAGE}`);
  return one(await connect(), slug, values);
}

const pathOf = (slug: string) => `/channels/${encodeURIComponent(slug)}`;

const ONE_CHANNEL: Record<string, (call: CallApi, slug: string, values: Values) => Promise<CommandOutput>> = {
  async 'channel create'(call, slug, { title, visibility, 'no-recording': noRecording }) {
    const body = { slug, title, visibility, recording: noRecording ? false : undefined };
    const { channel, streamKey, ingest } = await call<{ channel: ShownChannel; streamKey: string; ingest: IngestAddressesJson }>(
      'POST',
      '/channels',
      body,
    );
    return {
      json: { channel: slug, streamKey },
      text: `Channel "${slug}" was created.\n\n${connecting(ingest, streamKey)}\nListen at ${channel.urls.page}\n`,
    };
  },
  async 'channel show'(call, slug) {
    const channel = await call<ShownChannel>('GET', pathOf(slug));
    return { json: channel, text: description(channel) };
  },
  async 'channel rotate-key'(call, slug) {
    const { streamKey, ingest } = await call<{ streamKey: string; ingest: IngestAddressesJson }>('POST', `${pathOf(slug)}/stream-key`);
    return {
      json: { channel: slug, streamKey },
      text: `"${slug}" has a new stream key. The old one stays good for the broadcast that is on air, if there is one.\n\n${connecting(ingest, streamKey)}`,
    };
  },
  async 'channel end'(call, slug) {
    await call('POST', `${pathOf(slug)}/end`);
    return { json: { channel: slug, ended: true }, text: `The broadcast of "${slug}" has ended.\n` };
  },
  async 'channel delete'(call, slug) {
    await call('DELETE', pathOf(slug));
    return { json: { channel: slug, deleted: true }, text: `Channel "${slug}" and its recordings are deleted.\n` };
  },
};

async function listChannels(call: CallApi): Promise<CommandOutput> {
  const channels = await everything<ShownChannel>(call, '/channels');
  if (channels.length === 0) return { json: channels, text: 'There is no channel. Make one: veza channel create SLUG\n' };
  const width = Math.max(...channels.map((channel) => channel.slug.length));
  const rows = channels.map(
    (channel) =>
      `${channel.slug.padEnd(width)}  ${channel.state.padEnd(7)}  ${String(channel.listeners).padStart(6)}  ${channel.visibility.padEnd(8)}  ${channel.title}`,
  );
  return { json: channels, text: `${'channel'.padEnd(width)}  state    listens  visible   title\n${rows.join('\n')}\n` };
}

/** The settings that a broadcaster enters in OBS, BUTT and other encoders. */
function connecting(ingest: IngestAddressesJson, streamKey: string): string {
  const icecast = new URL(ingest.icecast);
  return [
    'OBS and other RTMP encoders',
    `  server      ${ingest.rtmp}`,
    ...(ingest.rtmps ? [`  or, by TLS  ${ingest.rtmps}`] : []),
    `  stream key  ${streamKey}`,
    '',
    'BUTT, Mixxx, darkice and other Icecast clients',
    `  server ${icecast.hostname}, port ${icecast.port || '80'}, mount ${icecast.pathname}, user source`,
    `  password    ${streamKey}`,
    '',
    'HTTP',
    `  curl -T show.mp3 -X POST -H "Authorization: Bearer ${streamKey}" ${ingest.post}`,
    '',
    'The key is shown only once. To replace a lost key: veza channel rotate-key',
    '',
  ].join('\n');
}

function description(channel: ShownChannel): string {
  const { nowPlaying, urls } = channel;
  const playing = nowPlaying ? `${nowPlaying.artist ? `${nowPlaying.artist} – ` : ''}${nowPlaying.title}` : '–';
  const rows: [string, string][] = [
    ['channel', channel.slug],
    ['title', channel.title],
    ['visibility', channel.visibility],
    ['recording', channel.recording ? 'on' : 'off'],
    ['state', channel.state],
    ['listeners', String(channel.listeners)],
    ['playing', playing],
    ['page', urls.page],
    ['HLS', urls.hls],
    ['DASH', urls.dash],
    ['stream', urls.listen],
  ];
  return rows.map(([name, value]) => `${name.padEnd(11)} ${value}\n`).join('');
}

const ANSWER_WITHIN_MS = 30_000;

const isAny = (host: string) => host === '0.0.0.0' || host === '::';
const bracketed = (host: string) => (host.includes(':') ? `[${host}]` : host);

/**
 * Calls the API on this machine directly and not by PUBLIC_URL, so that the admin token passes no
 * proxy.
 */
async function connect(): Promise<CallApi> {
  const config = configured();
  const server = `http://${isAny(config.host) ? '127.0.0.1' : bracketed(config.host)}:${config.port}`;
  const token = await adminToken(config);
  return async <T>(method: string, path: string, body?: object) => {
    let response: Response;
    let text: string;
    try {
      response = await fetch(`${server}/api/v1${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
        ...(body && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      });
      text = await response.text();
    } catch (error) {
      const reason = messageOf((error as Error).cause ?? error);
      throw new Failure(3, `no server answers at ${server} (${reason}). Is it running, and is PORT the same here as there?`);
    }
    if (response.ok) return (text === '' ? undefined : jsonOf(text, server)) as T;
    const problem = jsonOf(text, server) as { code?: string; detail?: string };
    if (problem.code === 'unauthorized') {
      throw new Failure(
        1,
        `${server} does not accept the admin token. Is DATA_DIR (${resolve(config.dataDir)}) that of the running server?`,
      );
    }
    throw new Failure(1, `${problem.detail ?? `status ${response.status}`}${problem.code ? ` (${problem.code})` : ''}`);
  };
}

function jsonOf(text: string, server: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Failure(1, `the server at ${server} is not Veza.`);
  }
}

function configured(): Config {
  try {
    return loadConfig();
  } catch (error) {
    if (error instanceof ConfigError) throw new Failure(2, error.message);
    throw error;
  }
}

async function adminToken(config: Config): Promise<string> {
  const path = resolve(adminTokenPath(config.dataDir));
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new Failure(3, `there is no ${path}: the server has not been started yet, or with another DATA_DIR.`);
    throw new Failure(2, `${path} cannot be read (${code}): run this command as the server's user.`);
  }
}

process.exitCode = await main(process.argv.slice(2));
