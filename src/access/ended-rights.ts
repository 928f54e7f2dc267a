/**
 * Which grants end within five seconds when a right is lost, and which stay. `docs/permissions.md`
 * and the tests of every cell are made from these tables. A cell is `ends`, `stays`, or `does not
 * apply` if the person who loses the right cannot have such a grant.
 */

/** What an account has. `test/access/ended-rights.test.ts` checks every cell of this table. */
export const HOLDINGS = {
  streamKey: 'broadcast on air and stream key that they made',
  accessToken: 'access token',
  chat: 'chat connection by an access token',
  refreshToken: 'refresh token',
  apiKey: 'API key, for which the password was shown again',
  keyChat: 'chat connection by an API key',
  sessionKey: 'API key, made by a session alone',
  passkey: 'sign-in by a passkey',
  webhook: 'webhook that they set up',
  link: 'link in a mail to choose a new password',
  confirmation: 'link in a mail to confirm their address',
  issuedLink: 'playback link that they gave to others, and connections by it',
  ownLink: 'playback address that they asked for, and connections by it',
  madeLink: 'account link that they made for somebody',
  desk: 'moderation of the channel’s chat by an open connection',
  export: 'running export of the channel’s chat',
  ownExport: 'running export of their own data',
  auditExport: 'running export of the audit log',
} as const;
export type Holding = keyof typeof HOLDINGS;

/**
 * What a listener or a guest in the chat has, by a playback link or without one.
 * `test/app/ended-hearing.test.ts` checks every cell.
 */
export const HEARING = {
  stream: 'open `/listen` stream',
  waiting: 'playlist request that waits',
  next: 'next request below `/live/`',
  recording: 'next request below `/vod/`',
  guest: 'chat connection of a guest',
  subject: 'chat connection of a gateway’s subject',
  linkStream: 'open `/listen` stream by a link',
  linkWaiting: 'playlist request by a link that waits',
  linkNext: 'next request below `/live/` by a link',
  linkRecording: 'next request below `/vod/` by a link',
  linkGuest: 'chat connection of a guest by a link',
} as const;
export type Hearing = keyof typeof HEARING;

interface RightLoss<Name> {
  readonly text: string;
  readonly ends: readonly Name[];
  /** Grants that the person who loses the right cannot have. */
  readonly none: readonly Name[];
  /** Why the other grants stay. */
  readonly because: string;
}

const OF_TOKENS = ['accessToken', 'chat', 'desk', 'export', 'ownExport'] as const;
const OF_SESSIONS = [...OF_TOKENS, 'refreshToken'] as const;
const NOT_ADMIN = ['madeLink', 'auditExport'] as const;
const ALL = Object.keys(HOLDINGS) as Holding[];

export const ACTS = {
  ban: { text: 'an administrator is banned', ends: ALL, none: [], because: '' },
  delete: { text: 'an administrator’s account is deleted', ends: ALL, none: [], because: '' },
  demote: {
    text: 'an administrator becomes a listener',
    ends: ['streamKey', ...OF_SESSIONS, 'keyChat', 'webhook', 'issuedLink', 'ownLink', 'madeLink', 'auditExport'],
    none: [],
    because: 'API keys and other credentials stay, with the account’s new role',
  },
  removeHost: {
    text: 'a host is removed from the channel',
    ends: ['streamKey', 'webhook', 'issuedLink', 'ownLink', 'desk', 'export'],
    none: NOT_ADMIN,
    because: 'the role on the service has not changed',
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
    none: ['streamKey', 'webhook', 'issuedLink', 'export', ...NOT_ADMIN],
    because: 'the role on the service has not changed',
  },
  handOver: {
    text: 'an owner hands the channel over',
    ends: [],
    none: NOT_ADMIN,
    because: 'the former owner becomes a host, who may do all of it',
  },
  makePrivate: {
    text: 'an owner makes the channel private',
    ends: [],
    none: NOT_ADMIN,
    because: 'the owner may hear a private channel',
  },
  deleteChannel: {
    text: 'an owner’s channel is deleted',
    ends: ['streamKey', 'webhook', 'issuedLink', 'ownLink', 'desk', 'export'],
    none: NOT_ADMIN,
    because: 'the role on the service has not changed',
  },
  removeFactor: {
    text: 'the last second factor of an administrator is removed',
    ends: ['chat', 'passkey', 'issuedLink', 'ownLink', 'desk', 'export', 'auditExport'],
    none: [],
    because: 'sessions and keys stay good, but not for operations that need a second factor',
  },
  removePasskey: {
    text: 'a passkey is removed, and an authenticator app stays',
    ends: ['passkey'],
    none: NOT_ADMIN,
    because: 'sessions that it opened stay until they are ended',
  },
  changePassword: {
    text: 'the password is changed, from another session',
    ends: [...OF_SESSIONS, 'sessionKey', 'link', 'confirmation'],
    none: NOT_ADMIN,
    because:
      'the account keeps its rights; a key made by a session alone may be somebody else’s and ends; the mail about the change names the passkeys',
  },
  resetPassword: {
    text: 'the password is reset by a link',
    ends: [...OF_SESSIONS, 'sessionKey', 'link', 'confirmation'],
    none: NOT_ADMIN,
    because: 'the account keeps its rights; the mail about the change names the passkeys',
  },
  endSession: { text: 'a session is ended', ends: OF_SESSIONS, none: NOT_ADMIN, because: 'the account keeps its rights' },
  endAllSessions: {
    text: 'all sessions are ended',
    ends: [...OF_SESSIONS, 'sessionKey'],
    none: NOT_ADMIN,
    because: 'the account keeps its rights',
  },
  deleteApiKey: { text: 'an API key is deleted', ends: ['apiKey', 'keyChat'], none: NOT_ADMIN, because: 'the account keeps its rights' },
  expireApiKey: { text: 'an API key expires', ends: ['apiKey', 'keyChat'], none: NOT_ADMIN, because: 'the account keeps its rights' },
  deleteWebhook: { text: 'a webhook is deleted', ends: ['webhook'], none: NOT_ADMIN, because: 'the account keeps its rights' },
  rotateStreamKey: {
    text: 'the stream key is replaced during a broadcast',
    ends: [],
    none: NOT_ADMIN,
    because: 'the former key stays good for this broadcast only',
  },
  revokeSigningKeys: {
    text: 'the keys that sign access tokens are revoked',
    ends: OF_TOKENS,
    none: NOT_ADMIN,
    because: 'sessions stay good, and get tokens that the new key signs',
  },
  rotateSigningKey: {
    text: 'a new key to sign access tokens is made',
    ends: [],
    none: NOT_ADMIN,
    because: 'the former key is kept until its tokens expire',
  },
  replacePlaybackKeys: {
    text: 'both playback keys are replaced',
    ends: ['issuedLink', 'ownLink'],
    none: NOT_ADMIN,
    because: 'other grants are not signed with playback keys',
  },
} as const satisfies Record<string, RightLoss<Holding>>;
export type ActName = keyof typeof ACTS;

const BY_LINK = ['linkStream', 'linkWaiting', 'linkNext', 'linkRecording'] as const;
const WITHOUT_LINK = ['stream', 'waiting', 'next', 'recording'] as const;

export const HEARING_ACTS = {
  banFromRoom: {
    text: 'a gateway’s subject is banned from the room of a channel',
    ends: ['subject'],
    none: [],
    because: 'a ban from a room applies to its chat alone',
  },
  timeOut: {
    text: 'a gateway’s subject gets a timeout in the room of a channel',
    ends: [],
    none: [],
    because: 'a person with a timeout may read; their messages are refused',
  },
  restrict: {
    text: 'a public channel is closed to the country of the listener',
    ends: [...WITHOUT_LINK, ...BY_LINK],
    none: [],
    because: 'country rules apply to audio, not to the chat',
  },
  makeRecordingPrivate: { text: 'a recording is made private', ends: ['recording'], none: [], because: 'only one recording changes' },
  banMaker: {
    text: 'the account that made a link to a public channel is banned',
    ends: BY_LINK,
    none: [],
    because: 'the channel and its room are public, but a request with a link needs a good link',
  },
  makePrivate: {
    text: 'a public channel is made private',
    ends: [...WITHOUT_LINK, 'guest', 'subject'],
    none: [],
    because: 'a link still opens it',
  },
  replaceKeys: {
    text: 'both playback keys are replaced, of a private channel',
    ends: [...BY_LINK, 'linkGuest'],
    none: [...WITHOUT_LINK, 'guest', 'subject'],
    because: '',
  },
  deleteRecording: {
    text: 'a recording is deleted',
    ends: ['recording', 'linkRecording'],
    none: [],
    because: 'only one recording is deleted',
  },
  deleteChannel: { text: 'a public channel is deleted', ends: Object.keys(HEARING) as Hearing[], none: [], because: '' },
} as const satisfies Record<string, RightLoss<Hearing>>;
export type HearingAct = keyof typeof HEARING_ACTS;

function tableOf<Name extends string>(holdings: Readonly<Record<Name, string>>, acts: readonly RightLoss<Name>[]): string[] {
  const names = Object.keys(holdings) as Name[];
  const listed = (some: readonly Name[]) =>
    some.length === names.length
      ? 'all of these'
      : names
          .filter((name) => some.includes(name))
          .map((name) => holdings[name])
          .join('; ');
  return [
    ...names.map((name) => `- ${holdings[name]}`),
    '',
    '| act | ends | does not apply | the others stay, because |',
    '|---|---|---|---|',
    ...acts.map(({ text, ends, none, because }) => `| ${text} | ${listed(ends) || 'nothing'} | ${listed(none)} | ${because} |`),
  ];
}

/** The section of `docs/permissions.md` about these tables. */
export function endedRightsReference(): string[] {
  return [
    '',
    '## What ends with a right',
    '',
    'These grants end within five seconds, in every process. If the database is unavailable, they end when it is back. An account can have:',
    '',
    ...tableOf(HOLDINGS, Object.values(ACTS)),
    '',
    'Listeners and people in the chat can have the grants below. A blocked request is refused at the time at which it would have been answered.',
    '',
    ...tableOf(HEARING, Object.values(HEARING_ACTS)),
    '',
    'Everybody who knows a stream key can use it, so it is bound to the account that made it. If an owner or a host is banned or deleted, the key of the',
    'channel becomes void, whoever made it, because they knew it. A void key stays void after an unban: an owner, a host or an administrator makes a new one. If a',
    'key is rotated, the old one stays good until the broadcast on air ends. A removed host who knows a key that somebody else made',
    'still knows it: rotate the key and end the broadcast. A ban from a room ends the chat in that room alone. A session that has ended cannot finish',
    'the setup of a passkey or an authenticator app that it began. The former secret of a webhook signs beside the new one for `overlapS` seconds, which may be 0.',
    '',
    'Tokens of a gateway, and chat connections by them, are good until they expire: make short-lived ones. A new `JWT_SECRET` needs a restart, which ends every',
    'connection. A key that another issuer removes from its key set (`AUTH_JWKS_URL`) stays good for at most 15 minutes if its tokens arrive all',
    'the time, and for at most 65 minutes if they arrive rarely or the set cannot be read.',
    '',
    'A playback link names the account that made it, so that it ends with that account’s right. Links that other accounts or the admin token',
    'made to the same channel stay good. Links from versions before this one name no account and stay good until they expire (at most 30 days): new',
    'playback keys end them all. A link that was made within five seconds after its maker lost the right stays void even if they get the right back. Servers',
    'that check links by themselves (`infra/nginx/veza-signed.conf`) and CloudFront’s signed cookies check only keys and times: there a link stays good',
    'until it expires, so make short-lived ones, and if a link must end at once, replace the playback keys (for CloudFront, the key pair). The owner of an account gets a',
    'mail when a passkey, an authenticator app or an API key is added to it.',
  ];
}
