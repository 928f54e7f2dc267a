/**
 * What ends with a right, within five seconds, and what stays: the tables that `docs/permissions.md` and the tests of every cell are made from. A
 * cell is `ends`, `stays`, or, where who loses the right cannot have such a thing, `does not apply`.
 */

/** What an account has. Each cell of this table is held by `test/access/ended-rights.test.ts`. */
export const HOLDINGS = {
  streamKey: 'show on air and stream key that they made',
  accessToken: 'access token',
  chat: 'chat connection by an access token',
  refreshToken: 'refresh token',
  apiKey: 'API key, for which the password was shown again',
  keyChat: 'chat connection by an API key',
  sessionKey: 'API key, made by a session alone',
  passkey: 'sign-in by a passkey',
  webhook: 'webhook that they set up',
  link: 'link in a mail that chooses a new password',
  confirmation: 'link in a mail that confirms their address',
  issuedLink: 'playback link that they gave to others, and connections by it',
  ownLink: 'playback address that they asked for, and connections by it',
  madeLink: 'account link that they made for somebody',
  desk: 'moderation of the channel’s chat by an open connection',
  export: 'running export of the channel’s chat',
  ownExport: 'running export of their own data',
  auditExport: 'running export of the audit log',
} as const;
export type Holding = keyof typeof HOLDINGS;

/** What somebody has who listens or chats, by a playback link or without one. Each cell is held by `test/app/ended-hearing.test.ts`. */
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

interface Act<Name> {
  readonly text: string;
  readonly ends: readonly Name[];
  /** Holdings that who loses the right cannot have. */
  readonly none: readonly Name[];
  /** Why the others stay. */
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
    because: 'keys have the role that their account has now, and what opens the account opens it with that role',
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
    none: ['streamKey', 'webhook', 'issuedLink', 'export', ...NOT_ADMIN],
    because: 'the role on the service is the same, and what it gives',
  },
  handOver: {
    text: 'an owner hands the channel over',
    ends: [],
    none: NOT_ADMIN,
    because: 'the former owner is a host, and may do all of it still',
  },
  makePrivate: {
    text: 'an owner makes the channel private',
    ends: [],
    none: NOT_ADMIN,
    because: 'the owner hears a private channel',
  },
  deleteChannel: {
    text: 'an owner’s channel is deleted',
    ends: ['streamKey', 'webhook', 'issuedLink', 'ownLink', 'desk', 'export'],
    none: NOT_ADMIN,
    because: 'the role on the service is the same, and what it gives',
  },
  removeFactor: {
    text: 'the last second factor of an administrator is removed',
    ends: ['chat', 'passkey', 'issuedLink', 'ownLink', 'desk', 'export', 'auditExport'],
    none: [],
    because: 'sessions and keys are good still, but not for what wants a second factor',
  },
  removePasskey: {
    text: 'a passkey is removed, and an authenticator app stays',
    ends: ['passkey'],
    none: NOT_ADMIN,
    because: 'sessions that it opened go on until they are ended',
  },
  changePassword: {
    text: 'the password is changed, from another session',
    ends: [...OF_SESSIONS, 'sessionKey', 'link', 'confirmation'],
    none: NOT_ADMIN,
    because:
      'the account may do it still; a key that a session alone made may be another’s, and ends; the mail about it names the passkeys',
  },
  resetPassword: {
    text: 'the password is reset by a link',
    ends: [...OF_SESSIONS, 'sessionKey', 'link', 'confirmation'],
    none: NOT_ADMIN,
    because: 'the account may do it still; the mail about it names the passkeys',
  },
  endSession: { text: 'a session is ended', ends: OF_SESSIONS, none: NOT_ADMIN, because: 'the account may do it still' },
  endAllSessions: {
    text: 'all sessions are ended',
    ends: [...OF_SESSIONS, 'sessionKey'],
    none: NOT_ADMIN,
    because: 'the account may do it still',
  },
  deleteApiKey: { text: 'an API key is deleted', ends: ['apiKey', 'keyChat'], none: NOT_ADMIN, because: 'the account may do it still' },
  expireApiKey: { text: 'an API key expires', ends: ['apiKey', 'keyChat'], none: NOT_ADMIN, because: 'the account may do it still' },
  deleteWebhook: { text: 'a webhook is deleted', ends: ['webhook'], none: NOT_ADMIN, because: 'the account may do it still' },
  rotateStreamKey: {
    text: 'the stream key is replaced while a show is on air',
    ends: [],
    none: NOT_ADMIN,
    because: 'the former key is good for this show, and for no other',
  },
  revokeSigningKeys: {
    text: 'the keys that sign access tokens are revoked',
    ends: OF_TOKENS,
    none: NOT_ADMIN,
    because: 'sessions are good still, and get tokens that the new key signed',
  },
  rotateSigningKey: {
    text: 'a new key to sign access tokens is made',
    ends: [],
    none: NOT_ADMIN,
    because: 'the former key is kept for as long as its tokens are good',
  },
  replacePlaybackKeys: {
    text: 'both playback keys are replaced',
    ends: ['issuedLink', 'ownLink'],
    none: NOT_ADMIN,
    because: 'they are signed with other keys',
  },
} as const satisfies Record<string, Act<Holding>>;
export type ActName = keyof typeof ACTS;

const BY_LINK = ['linkStream', 'linkWaiting', 'linkNext', 'linkRecording'] as const;
const WITHOUT_LINK = ['stream', 'waiting', 'next', 'recording'] as const;

export const HEARING_ACTS = {
  banFromRoom: {
    text: 'a gateway’s subject is banned from the room of a channel',
    ends: ['subject'],
    none: [],
    because: 'a ban from a room is of its chat',
  },
  timeOut: {
    text: 'a gateway’s subject gets a timeout in the room of a channel',
    ends: [],
    none: [],
    because: 'who has a timeout reads; what they write is refused',
  },
  restrict: {
    text: 'a public channel is closed to the country of the listener',
    ends: [...WITHOUT_LINK, ...BY_LINK],
    none: [],
    because: 'countries are asked for where there is sound',
  },
  makeRecordingPrivate: { text: 'a recording is made private', ends: ['recording'], none: [], because: 'it is one recording' },
  banMaker: {
    text: 'the account that made a link to a public channel is banned',
    ends: BY_LINK,
    none: [],
    because: 'the channel and its room are open to everybody, but a link that is given has to be good',
  },
  makePrivate: {
    text: 'a public channel is made private',
    ends: [...WITHOUT_LINK, 'guest', 'subject'],
    none: [],
    because: 'a link opens it still',
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
    because: 'it is one recording',
  },
  deleteChannel: { text: 'a public channel is deleted', ends: Object.keys(HEARING) as Hearing[], none: [], because: '' },
} as const satisfies Record<string, Act<Hearing>>;
export type HearingAct = keyof typeof HEARING_ACTS;

function tableOf<Name extends string>(holdings: Readonly<Record<Name, string>>, acts: readonly Act<Name>[]): string[] {
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

/** A part of `docs/permissions.md`. */
export function endedRightsReference(): string[] {
  return [
    '',
    '## What ends with a right',
    '',
    'Within five seconds, in every process; while the database is away, when it is back. Of what an account has:',
    '',
    ...tableOf(HOLDINGS, Object.values(ACTS)),
    '',
    'And of what listeners have, and whoever is in the chat. A request that waits is refused when it would have been answered.',
    '',
    ...tableOf(HEARING, Object.values(HEARING_ACTS)),
    '',
    'A stream key is good for whoever knows it, and so is bound to the account that made it. A ban or a deletion of an owner or a host makes the key of the',
    'channel void whoever made it, since they knew it. A void key stays void after an unban: an owner, a host or an administrator makes a new one. When a',
    'key is replaced in the ordinary way, the old one stays good for the show that is on air. A removed host who knew a key of somebody else’s goes on',
    'knowing it: replace it, and end the show. A ban from a room ends the chat of that room alone. What a session has begun (a passkey, an authenticator app)',
    'it cannot finish once it is over. The former secret of a webhook signs beside the new one for as long as `overlapS` says, which may be not at all.',
    '',
    'Tokens of a gateway, and chat connections by them, are good until they expire: give short ones. A new `JWT_SECRET` takes a restart, which ends every',
    'connection. A key that another issuer takes out of its key set (`AUTH_JWKS_URL`) is believed for 15 minutes more where its tokens come all',
    'the time, and for an hour and five minutes at most: when they come rarely, or the set cannot be read.',
    '',
    'A playback link names the account that made it, so that it ends with its maker’s right; links to the same channel by others stay good, and so do',
    'links that the admin token made. Links that were made before this version name nobody and stay good until they expire (30 days at most): new',
    'playback keys end them all. A link that was made in the five seconds after its maker lost the right is void, too, should they get it back. Servers',
    'that check links by themselves (`infra/nginx/veza-signed.conf`) and CloudFront’s signed cookies know keys and times alone: there a link stays good',
    'until it expires, so give short ones, and where it matters make new playback keys (of CloudFront: a new key pair). The holder of an account gets a',
    'mail when a passkey, an authenticator app or an API key is added to it.',
  ];
}
