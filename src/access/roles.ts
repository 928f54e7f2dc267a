import { VezaError } from '../runtime/errors.js';
import { endedRightsReference } from './ended-rights.js';

/** Roles of an account on the whole service. */
export const ROLES = ['listener', 'broadcaster', 'moderator', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** Roles in one channel. The owner made the channel, or was given it. */
export const CHANNEL_ROLES = ['owner', 'host', 'moderator'] as const;
export type ChannelRole = (typeof CHANNEL_ROLES)[number];

/** What an API key may be used for. */
export const SCOPES = {
  'channels:read': 'see channels that are not public, their members and recordings',
  'channels:write': 'make, change and delete channels, their members and recordings; stream keys',
  broadcast: 'end a broadcast, set what is playing',
  links: 'issue playback links for private channels and recordings',
  webhooks: 'manage webhooks',
  moderate: 'moderate chat',
  admin: 'accounts, the audit log and the keys of the service',
} as const;
export type Scope = keyof typeof SCOPES;

interface Rule {
  readonly roles: readonly Role[];
  /**
   * Roles in the channel that also have the permission. Undefined: the permission is not about one
   * channel.
   */
  readonly channelRoles?: readonly ChannelRole[];
  readonly scope: Scope;
  readonly text: string;
}

/**
 * The table of permissions. The API, its description and `docs/permissions.md` are made from it.
 * Every permission that a `broadcaster` does not have by role is privileged, and needs a second
 * factor.
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
  'channel.stream-key': { roles: ['admin'], channelRoles: ['owner', 'host'], scope: 'channels:write', text: 'rotate its stream key' },
  'channel.end': { roles: ['moderator', 'admin'], channelRoles: ['owner', 'host'], scope: 'broadcast', text: 'end its broadcast' },
  'channel.now-playing': { roles: ['admin'], channelRoles: ['owner', 'host'], scope: 'broadcast', text: 'set what is playing' },
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

/** The subject of a request, as far as it is proven. */
export interface Principal {
  /** `admin-token`: a client with the admin token, which is in a file on the server. */
  readonly kind: 'anonymous' | 'account' | 'api-key' | 'gateway' | 'admin-token';
  /**
   * The name in the audit log and in bans: `account:{id}`, `api-key:{id}`, `gateway:{sub}`, …
   * Subjects of different issuers have different ids.
   */
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** For `account` and `api-key`: the account. */
  readonly accountId?: string;
  /** For `account`: the session, which can be ended on its own. */
  readonly sessionId?: string;
  /** For `account`: the id of the key that signed the access token. The key can be revoked. */
  readonly signedBy?: string;
  /** When the access token expires, in wall clock milliseconds. */
  readonly expiresAtMs?: number;
  /**
   * Whether the principal has shown a second factor. For an API key: whether its maker had shown
   * one.
   */
  readonly secondFactor: boolean;
  /** For `api-key`: the only scopes that it may be used for. */
  readonly scopes?: readonly Scope[];
}

export const ANONYMOUS: Principal = { kind: 'anonymous', id: 'anonymous', name: '', role: 'listener', secondFactor: false };

/** `second-factor`: allowed once the principal has shown a second factor. */
export type PermissionAnswer = 'yes' | 'no' | 'second-factor';

/**
 * Whether `principal` has `permission`. `channelRole`: its role in the channel, if the permission
 * is about one.
 */
export function judge(principal: Principal, permission: Permission, channelRole?: ChannelRole): PermissionAnswer {
  const rule: Rule = PERMISSIONS[permission];
  if (principal.kind === 'anonymous') return 'no';
  if (principal.kind === 'admin-token') return 'yes';
  if (principal.scopes && !principal.scopes.includes(rule.scope)) return 'no';
  // Roles in a channel need no second factor.
  if (channelRole !== undefined && rule.channelRoles?.includes(channelRole)) return 'yes';
  if (!rule.roles.includes(principal.role)) return 'no';
  const privileged = principal.role === 'moderator' || principal.role === 'admin';
  return privileged && !principal.secondFactor ? 'second-factor' : 'yes';
}

export const may = (principal: Principal, permission: Permission, channelRole?: ChannelRole): boolean =>
  judge(principal, permission, channelRole) === 'yes';

const RANK: Readonly<Record<Role, number>> = { listener: 0, broadcaster: 1, moderator: 2, admin: 3 };

/**
 * Whether the first role is higher than the second. Equal roles do not outrank each other: a
 * moderator cannot ban a moderator.
 */
export const outranks = (one: Role, other: Role): boolean => RANK[one] > RANK[other];

/**
 * Whether the principal may give this role, or open an account that has it. An API key must not:
 * with an administrator's account it would have neither scopes nor an expiry.
 */
export const keyReaches = (principal: Principal, role: Role): boolean => principal.kind !== 'api-key' || !outranks(role, 'broadcaster');

export const beyondKeys = () =>
  new VezaError('forbidden', 'An API key cannot do this for a role above broadcaster. Sign in, or use the admin token.');

/** The text of `docs/permissions.md`. */
export function permissionReference(): string {
  const columns = [...ROLES, ...CHANNEL_ROLES.map((role) => `${role} of the channel`)];
  const lines = [
    '# Who may do what',
    '',
    'This page is made from `src/access/roles.ts`: `npm run -s veza -- permissions > docs/permissions.md`.',
    '',
    'An account has one role on the whole service (`listener`, `broadcaster`, `moderator`, `admin`) and may have one in each channel (`owner`, `host`,',
    '`moderator`). Moderators and administrators must show a second factor before they can use the rights of their role on the service. An API key has the',
    'rights of its account, within its scopes. The admin token, a file on the server, may do everything.',
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
    'A key cannot make keys. With `admin` a key manages accounts up to `broadcaster`. Above that it gives no role, makes',
    'no link, removes no second factor, changes no role and deletes no account: the key could get rights beyond its scopes, or rights that',
    'outlive it. A key deletes an account’s channels together with the account only if it has `channels:write` as well.',
    ...endedRightsReference(),
  );
  return `${lines.join('\n')}\n`;
}
