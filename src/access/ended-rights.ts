/**
 * What ends with a right, within five seconds, and what stays: the one table that `docs/permissions.md` and the test of every cell are made from.
 * A cell is `ends`, `stays`, or, where who loses the right cannot have such a thing, `does not apply`.
 */
export const HOLDINGS = {
  streamKey: 'show on air and stream key that they made',
  accessToken: 'access token, and the chat connection it opened',
  refreshToken: 'refresh token',
  apiKey: 'API key, for which the password was shown again',
  sessionKey: 'API key, made by a session alone',
  webhook: 'webhook that they set up',
  link: 'one-time link in a mail',
  issuedLink: 'playback link that they gave to others, and connections by it',
  ownLink: 'playback address that they asked for, and connections by it',
  madeLink: 'account link that they made for somebody',
  desk: 'moderation of the channel’s chat by an open connection',
  export: 'running export of the channel’s chat',
} as const;
export type Holding = keyof typeof HOLDINGS;

interface Act {
  readonly text: string;
  readonly ends: readonly Holding[];
  /** Holdings that the account of this act cannot have. */
  readonly none: readonly Holding[];
  /** Why the others stay. */
  readonly because: string;
}

const OF_SESSIONS = ['accessToken', 'refreshToken', 'desk', 'export'] as const;
const NOT_ADMIN = ['madeLink'] as const;
const ALL = Object.keys(HOLDINGS) as Holding[];

export const ACTS = {
  ban: { text: 'an administrator is banned', ends: ALL, none: [], because: '' },
  delete: { text: 'an administrator’s account is deleted', ends: ALL, none: [], because: '' },
  demote: {
    text: 'an administrator becomes a listener',
    ends: ['streamKey', ...OF_SESSIONS, 'webhook', 'issuedLink', 'ownLink', 'madeLink'],
    none: [],
    because: 'keys have the role that their account has now, and a link in the account’s own mailbox opens it with that role',
  },
  removeHost: {
    text: 'a host is removed from the channel',
    ends: ['streamKey', 'webhook', 'issuedLink', 'ownLink', 'desk', 'export'],
    none: NOT_ADMIN,
    because: 'the role on the service is the same, and what it gives',
  },
  hostToModerator: {
    text: 'a host becomes a moderator of the channel',
    ends: ['streamKey', 'webhook', 'issuedLink', 'export'],
    none: NOT_ADMIN,
    because: 'a moderator hears the channel and moderates its chat',
  },
  removeModerator: {
    text: 'a moderator is removed from the channel',
    ends: ['ownLink', 'desk'],
    none: ['streamKey', 'webhook', 'issuedLink', 'export', 'madeLink'],
    because: 'the role on the service is the same, and what it gives',
  },
  handOver: {
    text: 'an owner hands the channel over',
    ends: [],
    none: NOT_ADMIN,
    because: 'the former owner is a host, and may do all of it still',
  },
  removeFactor: {
    text: 'the last second factor of an administrator is removed',
    ends: ['issuedLink', 'ownLink', 'desk', 'export'],
    none: [],
    because: 'sessions and keys are good still, but not for what wants a second factor',
  },
  changePassword: {
    text: 'the password is changed, from another session',
    ends: [...OF_SESSIONS, 'sessionKey', 'link'],
    none: NOT_ADMIN,
    because: 'the account may do it still; a key that a session alone made may be another’s, and ends',
  },
  resetPassword: {
    text: 'the password is reset by a link',
    ends: [...OF_SESSIONS, 'sessionKey', 'link'],
    none: NOT_ADMIN,
    because: 'the account may do it still',
  },
  endSession: { text: 'a session is ended', ends: OF_SESSIONS, none: NOT_ADMIN, because: 'the account may do it still' },
  endAllSessions: {
    text: 'all sessions are ended',
    ends: [...OF_SESSIONS, 'sessionKey'],
    none: NOT_ADMIN,
    because: 'the account may do it still',
  },
  deleteApiKey: { text: 'an API key is deleted', ends: ['apiKey'], none: NOT_ADMIN, because: 'the account may do it still' },
  expireApiKey: { text: 'an API key expires', ends: ['apiKey'], none: NOT_ADMIN, because: 'the account may do it still' },
  replacePlaybackKeys: {
    text: 'both playback keys are replaced',
    ends: ['issuedLink', 'ownLink'],
    none: NOT_ADMIN,
    because: 'they are signed with other keys',
  },
} as const satisfies Record<string, Act>;
export type ActName = keyof typeof ACTS;

/** A part of `docs/permissions.md`. */
export function endedRightsReference(): string[] {
  const holdings = Object.entries(HOLDINGS) as [Holding, string][];
  return [
    '',
    '## What ends with a right',
    '',
    'Within five seconds, in every process; while the database is away, when it is back. What does not end stays, for the reason in the last column.',
    '',
    `| act | ${holdings.map(([, text]) => text).join(' | ')} | what stays, because |`,
    `|---|${holdings.map(() => '---').join('|')}|---|`,
    ...Object.values(ACTS).map(({ text, ends, none, because }: Act) => {
      const cellOf = (name: Holding) => (ends.includes(name) ? '**ends**' : none.includes(name) ? 'does not apply' : 'stays');
      return `| ${text} | ${holdings.map(([name]) => cellOf(name)).join(' | ')} | ${because} |`;
    }),
    '',
    'A stream key is good for whoever knows it, and so is bound to the account that made it. A ban or a deletion of an owner or a host makes the key of the',
    'channel void whoever made it, since they knew it. A void key stays void after an unban: an owner, a host or an administrator makes a new one. When a',
    'key is replaced in the ordinary way, the old one stays good for the show that is on air. A removed host who knew a key of somebody else’s goes on',
    'knowing it: replace it, and end the show. A ban from a room ends the chat of that room alone. Tokens of a gateway are good until they expire.',
    '',
    'A playback link names the account that made it, so that it ends with its maker’s right; links to the same channel by others stay good, and so do',
    'links that the admin token made. Links that were made before this version name nobody and stay good until they expire (30 days at most): new',
    'playback keys end them all. A link that was made in the five seconds after its maker lost the right is void, too, should they get it back. Servers',
    'that check links by themselves (`infra/nginx/veza-signed.conf`) and CloudFront’s signed cookies know keys and times alone: there a link stays good',
    'until it expires, so give short ones, and where it matters make new playback keys (of CloudFront: a new key pair). The holder of an account gets a',
    'mail when a passkey, an authenticator app or an API key is added to it.',
  ];
}
