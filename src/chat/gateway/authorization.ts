import type { RoomRole } from '../protocol/protocol.js';

/** What a good token or API key says about its bearer. */
export interface ChatIdentity {
  /** The account's id, or `gateway:{subject}` and the like for identities of another system. Bans and messages go by it. */
  readonly id: string;
  readonly name: string;
  /** When the token ends, ms since 1970; undefined: it does not end by itself. */
  readonly expiresAtMs: number | undefined;
  /** The session of a token that this service signed: ending the session ends the connection. */
  readonly sessionId: string | undefined;
  /** The API key, which may be deleted while the connection is open. */
  readonly keyId: string | undefined;
  /** False: an API key without the scope to write. */
  readonly mayWrite: boolean;
  /** The name in the audit log. */
  readonly actor: string;
  /** What the credential proves; read by `ChannelAccess` alone. */
  readonly proof: unknown;
}

/** The role that somebody has in a channel. */
export interface ChannelStanding {
  readonly role: RoomRole;
  /** `second-factor`: yes, after signing in with a second factor. */
  readonly moderates: 'yes' | 'no' | 'second-factor';
}

/** Who may do what in a channel, as it was last read. Answers without waiting. */
export interface ChannelAccess {
  readonly isPrivate: boolean;
  /** Undefined: the channel does not exist for this identity. `identity` undefined: a guest. */
  standingOf(identity: ChatIdentity | undefined): ChannelStanding | undefined;
  /** Until when a playback link opens the channel, ms since 1970; undefined: it does not. */
  linkValidUntilMs(token: string, client: LinkClient): number | undefined;
}

/** What a playback link may be bound to. */
interface LinkClient {
  readonly address: string;
  readonly country: string | undefined;
}

/** Identities and channel access, as the chat needs them. Implemented outside the chat and handed in. */
export interface ChatAuthorization {
  /** Rejects with `unauthorized`, `forbidden` (banned from the service) or `unavailable`. */
  identify(credential: string): Promise<ChatIdentity>;
  /** Whether its session was ended, or the key that signed its token was revoked. Called every two seconds for each connection. */
  isSessionEnded(identity: ChatIdentity): boolean;
  /** Those that are no longer good: the key is gone or lost a scope, the account is banned, deleted or has another role. */
  findEnded(identities: readonly ChatIdentity[]): Promise<ReadonlyMap<ChatIdentity, 'banned' | 'ended'>>;
  /** Undefined: there is no such channel. */
  readAccess(channelId: string): Promise<ChannelAccess | undefined>;
  /** When the account was made, ms since 1970; undefined: the identity has no account here. */
  accountCreatedAtMs(identity: ChatIdentity): Promise<number | undefined>;
}
