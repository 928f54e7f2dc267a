import { SystemClock } from '../runtime/clock.js';
import { type CallApi, type CommandOutput, Failure } from './command.js';
import { accountPath } from './user.js';

export const KEY_USAGE = `  key create NAME --scopes SCOPE,SCOPE --user EMAIL [--expires SECONDS]
                               an API key of an account; shown only once. Scopes: veza permissions
  key rotate                   a new data key; encrypts all secrets in the database again
  user remove-second-factor EMAIL
                               for somebody who has lost it; ends the account's sessions
  audit [--action NAME] [--actor WHO] [--target WHAT] [--channel SLUG] [--from TIME] [--to TIME] [--limit N]
                               who did what, newest first; at most N entries (50)
  permissions                  who may do what, as Markdown`;

export const KEY_OPTIONS = {
  scopes: { type: 'string' },
  user: { type: 'string' },
  action: { type: 'string' },
  actor: { type: 'string' },
  target: { type: 'string' },
  channel: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  limit: { type: 'string' },
} as const;

type KeyValues = { readonly [option in keyof typeof KEY_OPTIONS | 'expires']?: string | undefined };

interface KeyCommand {
  readonly takes: readonly string[];
  run(call: CallApi, args: readonly string[], values: KeyValues): Promise<CommandOutput>;
}

interface AuditEntryJson {
  at: string;
  actor: string;
  actorName: string | null;
  address: string | null;
  action: string;
  target: string | null;
  channel: string | null;
  details: Record<string, unknown>;
}

const DEFAULT_ENTRIES = 50;
const MAX_ENTRIES = 100_000;
const PAGE = 200;

export const KEY_COMMANDS: Readonly<Record<string, KeyCommand>> = {
  'key create': {
    takes: ['NAME'],
    async run(call, [name], { scopes, user, expires }) {
      if (scopes === undefined) throw new Failure(2, '--scopes is missing, such as --scopes links,channels:read');
      if (user === undefined) throw new Failure(2, '--user EMAIL is missing: the account of the key');
      const expiresInS = expires === undefined ? undefined : whole('--expires', expires, 10 * 366 * 86_400);
      const created = await call<{ apiKey: { scopes: string[]; expiresAt: string | null }; secret: string }>(
        'POST',
        `${await accountPath(call, user)}/api-keys`,
        {
          name,
          scopes: scopes.split(',').map((scope) => scope.trim()),
          expiresAt: expiresInS === undefined ? undefined : new Date(new SystemClock().wallMs() + expiresInS * 1000).toISOString(),
        },
      );
      const { apiKey, secret } = created;
      const until = apiKey.expiresAt === null ? 'until it is deleted' : `until ${apiKey.expiresAt}`;
      return {
        json: created,
        text: `${secret}\n\nFor ${apiKey.scopes.join(', ')}, ${until}. It is shown only once. Use it as: Authorization: Bearer …\n`,
      };
    },
  },
  'key rotate': {
    takes: [],
    async run(call) {
      const rotated = await call<{ keyId: number; reencrypted: number; unreadable: number }>('POST', '/service/encryption-keys');
      const { keyId, reencrypted, unreadable } = rotated;
      const damaged = unreadable === 0 ? '' : `\n${unreadable} cannot be decrypted: the server's log names them.`;
      return { json: rotated, text: `Key ${keyId} encrypts from now on; ${reencrypted} values were encrypted again.${damaged}\n` };
    },
  },
  'user remove-second-factor': {
    takes: ['EMAIL'],
    async run(call, [email]) {
      await call('DELETE', `${await accountPath(call, email!)}/second-factor`);
      return {
        json: { email, removed: true },
        text: `${email} signs in with the password alone, until a second factor is set up again.\n`,
      };
    },
  },
  audit: {
    takes: [],
    async run(call, _args, { limit, action, actor, target, channel, from, to }) {
      const wanted = limit === undefined ? DEFAULT_ENTRIES : whole('--limit', limit, MAX_ENTRIES);
      const entries: AuditEntryJson[] = [];
      for (let next: string | null = ''; next !== null && entries.length < wanted; ) {
        const query = new URLSearchParams({ limit: String(Math.min(PAGE, wanted - entries.length)) });
        for (const [name, value] of Object.entries({ action, actor, target, channel, from, to, cursor: next || undefined }))
          if (value !== undefined) query.set(name, value);
        const page: { items: AuditEntryJson[]; next: string | null } = await call('GET', `/audit?${query}`);
        entries.push(...page.items);
        next = page.next;
      }
      return { json: entries, text: entries.length === 0 ? 'There is no such entry.\n' : entries.map(line).join('') };
    },
  },
};

function line({ at, actor, actorName, address, action, target, channel, details }: AuditEntryJson): string {
  const about = [target, channel !== null && target !== `channel:${channel}` ? `channel:${channel}` : null].filter(Boolean).join(' ');
  const more = Object.keys(details).length === 0 ? '' : `  ${JSON.stringify(details)}`;
  const text = `${at}  ${actor}${actorName === null ? '' : ` (${actorName})`}${address === null ? '' : ` from ${address}`}  ${action}  ${about}${more}`;
  // Entries contain text that people have typed. Control characters must not reach the terminal.
  return `${text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd')}\n`;
}

function whole(option: string, text: string, max: number): number {
  if (!/^\d{1,9}$/.test(text) || Number(text) < 1 || Number(text) > max)
    throw new Failure(2, `${option} is "${text}"; allowed: a whole number from 1 to ${max}`);
  return Number(text);
}
