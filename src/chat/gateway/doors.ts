import type { Author, RoomInfo, RoomRole } from '../rooms/room.js';

/** What the chat asks of others, and is handed in: who somebody is, what a channel lets him do, and what a room's moderators have decided. */

/** Somebody who has shown a good credential. */
export interface ChatIdentity {
  /** The account's id; `gateway:{subject}` and the like of whom another system vouches for. Bans and messages go by it. */
  readonly id: string;
  readonly name: string;
  /** Where the token ends by itself. ms since 1970. */
  readonly expiresAtMs: number | undefined;
  /** Of a token of ours: ending the session ends the connection. */
  readonly sessionId: string | undefined;
  /** Of an API key, which may be deleted meanwhile. */
  readonly keyId: string | undefined;
  /** An API key that was made for something else only reads. */
  readonly mayWrite: boolean;
  /** For the audit log. */
  readonly actor: string;
  /** What the credential proves, for `ChannelAccess`. */
  readonly proof: unknown;
}

/** What somebody is in a channel. */
export interface ChannelStanding {
  readonly role: RoomRole;
  /** `second-factor`: he would be a moderator, had he shown one. */
  readonly moderates: 'yes' | 'no' | 'second-factor';
}

/** Who may what in a channel, as last read: asked without waiting. */
export interface ChannelAccess {
  readonly isPrivate: boolean;
  /** Undefined: the channel is not there for him. `person` undefined: a guest. */
  standing(person: ChatIdentity | undefined): ChannelStanding | undefined;
  /** Until when a playback link opens it, ms since 1970; undefined: it does not. */
  linkUntilMs(token: string, client: LinkClient): number | undefined;
}

/** Where somebody comes from, as far as a link may be bound to it. */
export interface LinkClient {
  readonly address: string;
  readonly country: string | undefined;
}

export interface ChatAuthorization {
  /** Rejects with `unauthorized`, `forbidden` (banned from the service), `unavailable`. */
  who(credential: string): Promise<ChatIdentity>;
  /** Whether the session of it was ended, or the key that signed its token was revoked; asked every two seconds for each connection. */
  isEnded(person: ChatIdentity): boolean;
  /** Of those given, who is no longer good: keys that were deleted or have lost a scope, accounts that were banned or deleted or have another role. */
  ended(people: readonly ChatIdentity[]): Promise<ReadonlyMap<ChatIdentity, 'banned' | 'ended'>>;
  /** Undefined: there is no such channel any more. */
  channel(channelId: string): Promise<ChannelAccess | undefined>;
  /** Since when there is his account, ms since 1970; undefined: he has none here. */
  sinceMs(person: ChatIdentity): Promise<number | undefined>;
}

/** What moderators have decided; `RoomRules`. */
export interface GatewayRules {
  /** Resolves when the room's rules are known; `release` once for each. */
  open(roomId: string): Promise<void>;
  release(roomId: string): void;
  mayRead(
    roomId: string,
    author: Pick<Author, 'id' | 'role' | 'address'> | undefined,
    nowMs: number,
  ): { readonly code: string; readonly reason: string; readonly untilMs?: number } | undefined;
  timeoutOf(roomId: string, userId: string, nowMs: number): number | undefined;
  /** Warnings that he has not seen. */
  warningsOf(roomId: string, userId: string): number;
  /** As `joined` shows it. */
  inForce(roomId: string): { readonly followersMin: number };
  pinned(roomId: string): unknown;
  listen(listener: { onPeople(roomId: string, userIds: readonly string[]): void; onRoom(roomId: string): void }): () => void;
}

/** Who moderates, by frame. */
export interface FrameModerator {
  readonly id: string;
  readonly name: string;
  readonly role: RoomRole;
  /** He would be more with a second factor. */
  readonly unproven: boolean;
  readonly actor: string;
  readonly address: string;
}

/** What is asked for by a `mod` frame. Rejects with a `VezaError`; what it resolves to is the answer's `result`. */
export type Moderate = (room: RoomInfo, moderator: FrameModerator, frame: Readonly<Record<string, unknown>>) => Promise<object>;
