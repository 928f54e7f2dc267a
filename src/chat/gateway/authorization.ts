import type { RoomRole } from '../protocol/protocol.js';

/** The identity that a valid token or API key proves. */
export interface ChatIdentity {
  /**
   * The account's id, or a name such as `gateway:{subject}` for an identity of another system. Bans
   * and messages refer to this id.
   */
  readonly id: string;
  readonly name: string;
  /** When the token ends, ms since 1970; undefined: it has no end of its own. */
  readonly expiresAtMs: number | undefined;
  /**
   * The session of a token that this service signed. When the session ends, the connection ends.
   */
  readonly sessionId: string | undefined;
  /** The id of the API key. The key may be deleted while the connection is open. */
  readonly keyId: string | undefined;
  /** False for an API key without the scope to write. */
  readonly mayWrite: boolean;
  /** The name in the audit log. */
  readonly actor: string;
  /** The rights that the credential proves. Only `ChannelAccess` reads it. */
  readonly proof: unknown;
}

/** The role that a person has in a channel. */
export interface ChannelStanding {
  readonly role: RoomRole;
  /** `second-factor`: the person may moderate after signing in with a second factor. */
  readonly moderates: 'yes' | 'no' | 'second-factor';
}

/** The rights of identities in one channel, as of the last read. Answers without waiting. */
export interface ChannelAccess {
  readonly isPrivate: boolean;
  /**
   * Returns undefined when the channel does not exist for this identity. `identity` undefined: a
   * guest.
   */
  standingOf(identity: ChatIdentity | undefined): ChannelStanding | undefined;
  /**
   * When a playback link's access to the channel ends, ms since 1970; undefined: the link does not
   * open the channel.
   */
  linkValidUntilMs(token: string, client: LinkClient): number | undefined;
}

/** The properties of a client that a playback link may be bound to. */
interface LinkClient {
  readonly address: string;
  readonly country: string | undefined;
}

/**
 * Identities and channel rights as the chat needs them. Implemented outside the chat and passed in.
 */
export interface ChatAuthorization {
  /** Rejects with `unauthorized`, `forbidden` (banned from the service) or `unavailable`. */
  identify(credential: string): Promise<ChatIdentity>;
  /**
   * Whether the session was ended, or the key that signed the token was revoked. Called for each
   * connection every two seconds.
   */
  isSessionEnded(identity: ChatIdentity): boolean;
  /**
   * Returns the identities that are revoked: the key was deleted or lost a scope, or the account is
   * banned, deleted or has another role.
   */
  findEnded(identities: readonly ChatIdentity[]): Promise<ReadonlyMap<ChatIdentity, 'banned' | 'ended'>>;
  /** Resolves to undefined when the channel does not exist. */
  readAccess(channelId: string): Promise<ChannelAccess | undefined>;
  /** When the account was created, ms since 1970; undefined: the identity has no account here. */
  accountCreatedAtMs(identity: ChatIdentity): Promise<number | undefined>;
}
