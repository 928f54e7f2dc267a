/**
 * What ends with a right, within five seconds, and what stays: the one table that `docs/permissions.md` and the test of every cell are made from.
 * A cell is `ends` or `stays`; the comment beside a row says why.
 */
export const HOLDINGS = {
  streamKey: 'show on air and stream key that they made',
  accessToken: 'access token, and the chat connection it opened',
  refreshToken: 'refresh token',
  apiKey: 'API key, for which the password was shown again',
  sessionKey: 'API key, made by a session alone',
  webhook: 'webhook that they set up',
  link: 'one-time link in a mail',
} as const;
export type Holding = keyof typeof HOLDINGS;

interface Act {
  readonly text: string;
  readonly ends: readonly Holding[];
}

export const ACTS = {
  ban: { text: 'an account is banned', ends: ['streamKey', 'accessToken', 'refreshToken', 'apiKey', 'sessionKey', 'webhook', 'link'] },
  delete: { text: 'an account is deleted', ends: ['streamKey', 'accessToken', 'refreshToken', 'apiKey', 'sessionKey', 'webhook', 'link'] },
  // Keys have the role that their account has now.
  demote: { text: 'an administrator becomes a listener', ends: ['streamKey', 'accessToken', 'refreshToken', 'webhook'] },
  // The role on the service is the same, and what it gives.
  removeHost: { text: 'a host is removed from the channel', ends: ['streamKey', 'webhook'] },
  hostToModerator: { text: 'a host becomes a moderator of the channel', ends: ['streamKey', 'webhook'] },
  // The former owner is a host, and may make a key still.
  handOver: { text: 'an owner hands the channel over', ends: [] },
  // Whoever had a session may have made the second; the first wanted the password.
  changePassword: { text: 'the password is changed, from another session', ends: ['accessToken', 'refreshToken', 'sessionKey', 'link'] },
  resetPassword: { text: 'the password is reset by a link', ends: ['accessToken', 'refreshToken', 'sessionKey', 'link'] },
  endSession: { text: 'a session is ended', ends: ['accessToken', 'refreshToken'] },
  endAllSessions: { text: 'all sessions are ended', ends: ['accessToken', 'refreshToken', 'sessionKey'] },
  deleteApiKey: { text: 'an API key is deleted', ends: ['apiKey'] },
} as const satisfies Record<string, Act>;
export type ActName = keyof typeof ACTS;

/** A part of `docs/permissions.md`. */
export function endedRightsReference(): string[] {
  const holdings = Object.entries(HOLDINGS) as [Holding, string][];
  return [
    '',
    '## What ends with a right',
    '',
    'Within five seconds, in every process; while the database is away, when it is back. What does not end stays.',
    '',
    `| act | ${holdings.map(([, text]) => text).join(' | ')} |`,
    `|---|${holdings.map(() => '---').join('|')}|`,
    ...Object.values(ACTS).map(
      ({ text, ends }: Act) => `| ${text} | ${holdings.map(([name]) => (ends.includes(name) ? '**ends**' : 'stays')).join(' | ')} |`,
    ),
    '',
    'A stream key is good for whoever knows it, and so is bound to the account that made it. A ban or a deletion of an owner or a host makes the key of the',
    'channel void whoever made it, since they knew it. A void key stays void after an unban: an owner, a host or an administrator makes a new one. When a',
    'key is replaced in the ordinary way, the old one stays good for the show that is on air. A removed host who knew a key of somebody else’s goes on',
    'knowing it: replace it, and end the show. Playback links stay until they expire: they name a channel and nobody; new playback keys end them all. A ban',
    'from a room ends the chat of that room alone. Tokens of a gateway are good until they expire.',
  ];
}
