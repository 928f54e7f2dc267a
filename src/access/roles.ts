import { VezaError } from '../runtime/errors.js';
import { endedRightsReference } from './ended-rights.js';

/** Of an account, on the whole service. */
export const ROLES = ['listener', 'broadcaster', 'moderator', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** On one channel. The owner is who made it, or was given it. */
export const CHANNEL_ROLES = ['owner', 'host', 'moderator'] as const;
export type ChannelRole = (typeof CHANNEL_ROLES)[number];

/** What an API key may be made for. */
export const SCOPES = {
  'channels:read': 'see channels that are not public, their members and recordings',
  'channels:write': 'make, change and delete channels, their members and recordings; stream keys',
  broadcast: 'end a show, say what is playing',
  links: 'issue playback links for private channels and recordings',
  webhooks: 'manage webhooks',
  moderate: 'moderate chat',
  admin: 'accounts, the audit log and the keys of the service',
} as const;
export type Scope = keyof typeof SCOPES;

interface Rule {
  readonly roles: readonly Role[];
  /** On a channel, beside the roles. Undefined: it is not about one channel. */
  readonly channelRoles?: readonly ChannelRole[];
  readonly scope: Scope;
  readonly text: string;
}

/**
 * Who may do what: the one table that the API, its document and `docs/permissions.md` are made from. Whatever a role may that `broadcaster`
 * may not is privileged, and wants a second factor.
 */
export const PERMISSIONS = {
  'channel.create': { roles: ['broadcaster', 'admin'], scope: 'channels:write', text: 'make a channel and own it' },
  'channel.list-all': { roles: ['moderator', 'admin'], scope: 'channels:read', text: 'list channels that are not public' },
  'channel.see-private': {
    roles: ['moderator', 'admin'],
    channelRoles: ['owner', 'host', 'moderator'],
    scope: 'channels:read',
    text: 'see and hear a private channel',
  },
  'channel.update': { roles: ['admin'], channelRoles: ['owner'], scope: 'channels:write', text: 'change its title, visibility and rules' },
  'channel.delete': { roles: ['admin'], channelRoles: ['owner'], scope: 'channels:write', text: 'delete it with its recordings' },
  'channel.stream-key': { roles: ['admin'], channelRoles: ['owner', 'host'], scope: 'channels:write', text: 'replace its stream key' },
  'channel.end': { roles: ['moderator', 'admin'], channelRoles: ['owner', 'host'], scope: 'broadcast', text: 'end its show' },
  'channel.now-playing': { roles: ['admin'], channelRoles: ['owner', 'host'], scope: 'broadcast', text: 'say what is playing' },
  'channel.links': {
    roles: ['admin'],
    channelRoles: ['owner', 'host'],
    scope: 'links',
    text: 'issue playback links for it and its recordings',
  },
  'channel.see-members': {
    roles: ['moderator', 'admin'],
    channelRoles: ['owner', 'host', 'moderator'],
    scope: 'channels:read',
    text: 'see who has a role in it',
  },
  'channel.set-members': { roles: ['admin'], channelRoles: ['owner'], scope: 'channels:write', text: 'give and take roles in it' },
  'channel.set-recordings': {
    roles: ['admin'],
    channelRoles: ['owner'],
    scope: 'channels:write',
    text: 'change and delete its recordings',
  },
  'channel.webhooks': { roles: ['admin'], channelRoles: ['owner'], scope: 'webhooks', text: 'manage its webhooks' },
  'channel.moderate': {
    roles: ['moderator', 'admin'],
    channelRoles: ['owner', 'host', 'moderator'],
    scope: 'moderate',
    text: 'moderate its chat',
  },
  'channel.chat-settings': {
    roles: ['admin'],
    channelRoles: ['owner', 'host'],
    scope: 'moderate',
    text: 'set up its chat, and export it',
  },
  'service.webhooks': { roles: ['admin'], scope: 'webhooks', text: 'manage webhooks for every channel' },
  'accounts.read': { roles: ['moderator', 'admin'], scope: 'admin', text: 'look up accounts' },
  'accounts.ban': { roles: ['moderator', 'admin'], scope: 'admin', text: 'ban an account of a lower role, and lift the ban' },
  'accounts.manage': { roles: ['admin'], scope: 'admin', text: 'make and delete accounts, and set their roles' },
  'audit.read': { roles: ['admin'], scope: 'admin', text: 'read and export the audit log' },
  'service.keys': { roles: ['admin'], scope: 'admin', text: 'replace the keys that the service signs and encrypts with' },
} as const satisfies Record<string, Rule>;

export type Permission = keyof typeof PERMISSIONS;
/** Permissions that are about one channel. */
export type ChannelPermission = Extract<Permission, `channel.${string}`>;

/** Who asks, as far as it is proven. */
export interface Principal {
  /** `admin-token`: whoever can read the server's own file. */
  readonly kind: 'anonymous' | 'account' | 'api-key' | 'gateway' | 'admin-token';
  /** For the audit log and for bans: `account:{id}`, `api-key:{id}`, `gateway:{sub}`, … One of another issuer is another. */
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** Of `account` and `api-key`. */
  readonly accountId?: string;
  /** Of `account`: the session, which can be ended by itself. */
  readonly sessionId?: string;
  /** Of `account`: the id of the key that signed the access token, which can be revoked. */
  readonly signedBy?: string;
  /** When the access token ends, wall clock milliseconds. */
  readonly expiresAtMs?: number;
  /** It has shown, or (an API key) its maker had shown, more than a password. */
  readonly secondFactor: boolean;
  /** Of `api-key`: all that it may be used for. */
  readonly scopes?: readonly Scope[];
}

export const ANONYMOUS: Principal = { kind: 'anonymous', id: 'anonymous', name: '', role: 'listener', secondFactor: false };

/** `second-factor`: it may, once it has shown a second factor. */
export type Verdict = 'yes' | 'no' | 'second-factor';

/** Whether `principal` may do it; on the channel in which it has `channelRole`, when it is about one. */
export function judge(principal: Principal, permission: Permission, channelRole?: ChannelRole): Verdict {
  const rule: Rule = PERMISSIONS[permission];
  if (principal.kind === 'anonymous') return 'no';
  if (principal.kind === 'admin-token') return 'yes';
  if (principal.scopes && !principal.scopes.includes(rule.scope)) return 'no';
  // What an account may as owner or member of a channel needs no privilege.
  if (channelRole !== undefined && rule.channelRoles?.includes(channelRole)) return 'yes';
  if (!rule.roles.includes(principal.role)) return 'no';
  const privileged = principal.role === 'moderator' || principal.role === 'admin';
  return privileged && !principal.secondFactor ? 'second-factor' : 'yes';
}

export const may = (principal: Principal, permission: Permission, channelRole?: ChannelRole): boolean =>
  judge(principal, permission, channelRole) === 'yes';

const RANK: Readonly<Record<Role, number>> = { listener: 0, broadcaster: 1, moderator: 2, admin: 3 };

/** Whether the first stands above the second: a moderator bans no moderator. */
export const outranks = (one: Role, other: Role): boolean => RANK[one] > RANK[other];

/**
 * Whether it may give somebody this role, or open an account that has it. A key that could make itself an administrator would have neither
 * scopes nor an end.
 */
export const keyReaches = (principal: Principal, role: Role): boolean => principal.kind !== 'api-key' || !outranks(role, 'broadcaster');

export const beyondKeys = () =>
  new VezaError('forbidden', 'Not with an API key: the role of the account is above broadcaster. Sign in, or use the admin token.');

/** `docs/permissions.md`. */
export function permissionReference(): string {
  const columns = [...ROLES, ...CHANNEL_ROLES.map((role) => `${role} of the channel`)];
  const lines = [
    '# Who may do what',
    '',
    'This page is made from `src/access/roles.ts`: `npm run -s veza -- permissions > docs/permissions.md`.',
    '',
    'Roles are of an account on the whole service (`listener`, `broadcaster`, `moderator`, `admin`) and on one channel (`owner`, `host`,',
    '`moderator`). Moderators and administrators must have shown a second factor before they use what their role gives them. An API key may what',
    'its account may, within its scopes. The admin token of the server’s own machine may do everything.',
    '',
    `| permission | ${columns.join(' | ')} | scope |`,
    `|---|${columns.map(() => ':-:').join('|')}|---|`,
  ];
  for (const [name, rule] of Object.entries(PERMISSIONS) as [Permission, Rule][]) {
    const cells = [
      ...ROLES.map((role) => (rule.roles.includes(role) ? '✓' : '')),
      ...CHANNEL_ROLES.map((role) => (rule.channelRoles?.includes(role) ? '✓' : '')),
    ];
    lines.push(`| \`${name}\`: ${rule.text} | ${cells.join(' | ')} | \`${rule.scope}\` |`);
  }
  lines.push('', '## Scopes of API keys', '', '| scope | lets a key |', '|---|---|');
  for (const [scope, text] of Object.entries(SCOPES)) lines.push(`| \`${scope}\` | ${text} |`);
  lines.push(
    '',
    'No key makes keys. With `admin` a key manages accounts up to `broadcaster`, and could get into one by a link: above that it gives no role, makes',
    'no link, removes no second factor, changes no role and deletes nobody, because it would be a way out of its scopes and past its expiry, or would',
    'outlive it. An account’s channels are deleted together with it only when the key has `channels:write` as well.',
    ...endedRightsReference(),
  );
  return `${lines.join('\n')}\n`;
}
