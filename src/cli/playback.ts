import { type CallApi, type CommandOutput, Failure } from './command.js';

export const PLAYBACK_USAGE = `  link create SLUG [--expires SECONDS]
                               a playback link for one listener of a private channel
  playback-keys list
  playback-keys replace [--signs-in SECONDS]
                               replaces the older of the two playback keys; twice in a row ends all links
  playback-keys export         the keys with which nginx checks links (infra/nginx/veza-signed.conf); secret`;

export const PLAYBACK_OPTIONS = {
  expires: { type: 'string' },
  'signs-in': { type: 'string' },
} as const;

interface PlaybackValues {
  expires?: string | undefined;
  'signs-in'?: string | undefined;
}

interface PlaybackCommand {
  readonly takes: readonly string[];
  run(call: CallApi, args: readonly string[], values: PlaybackValues): Promise<CommandOutput>;
}

interface ShownKeys {
  items: { id: string; createdAt: string; signsFrom: string }[];
}

export const PLAYBACK_COMMANDS: Readonly<Record<string, PlaybackCommand>> = {
  'link create': {
    takes: ['SLUG'],
    async run(call, [slug = ''], { expires }) {
      const path = `/channels/${encodeURIComponent(slug)}/links`;
      const link = await call<{ expiresAt: string; urls: { hls: string; dash: string; listen: string } }>('POST', path, {
        expiresInS: seconds('--expires', expires),
      });
      const { hls, dash, listen } = link.urls;
      return {
        json: link,
        text: `HLS     ${hls}\nDASH    ${dash}\nstream  ${listen}\n\nGood until ${link.expiresAt}, for one listener.\n`,
      };
    },
  },
  'playback-keys list': {
    takes: [],
    run: async (call) => shown(await call<ShownKeys>('GET', '/service/playback-keys')),
  },
  'playback-keys replace': {
    takes: [],
    run: async (call, _args, values) =>
      shown(await call<ShownKeys>('POST', '/service/playback-keys', { signsInS: seconds('--signs-in', values['signs-in']) })),
  },
  'playback-keys export': {
    takes: [],
    async run(call) {
      const keys = await call<object>('POST', '/service/playback-keys/export', {});
      return { json: keys, text: `${JSON.stringify(keys)}\n` };
    },
  },
};

const shown = (keys: ShownKeys): CommandOutput => ({
  json: keys.items,
  text: keys.items.map(({ id, createdAt, signsFrom }) => `${id}  made ${createdAt}  signs from ${signsFrom}\n`).join(''),
});

/** Undefined: the option is not given, and the server uses its default. */
function seconds(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,9}$/.test(text)) throw new Failure(2, `${option} is "${text}"; allowed: a whole number of seconds`);
  return Number(text);
}
