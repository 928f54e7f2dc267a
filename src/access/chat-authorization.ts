import type { Database } from '../backing/database/database.js';
import { Batched } from '../runtime/batched.js';
import type { Clock } from '../runtime/clock.js';
import { accountsById } from './accounts/account-rows.js';
import { type ChannelWithRoles, channelsWithRoles, nameAndRolesOf } from './members.js';
import type { PlaybackLinks } from './playback/playback-links.js';
import { ANONYMOUS, type ChannelRole, judge, type Principal } from './roles.js';
import { factorsOfApiKeys } from './tokens/api-keys.js';
import type { EndedSessions } from './tokens/ended-sessions.js';
import type { Identity } from './tokens/identity.js';
import { sessionsWithFactor } from './tokens/session-factors.js';
import type { SigningKeys } from './tokens/signing-keys.js';
import { isKeyRevoked } from './tokens/standing-principals.js';

/**
 * What the chat asks about people: who somebody is, and what a channel lets them do. The chat declares the
 * interfaces that it needs; the composition hands these functions in.
 */
export interface ChatAccess {
  readonly database: Database;
  readonly identity: Identity;
  readonly ended: Pick<EndedSessions, 'has'>;
  readonly signingKeys: Pick<SigningKeys, 'has'>;
  readonly playbackLinks: PlaybackLinks;
}

/** Somebody who has shown a good credential, as the chat keeps them. */
export interface ProvenIdentity {
  readonly id: string;
  readonly name: string;
  readonly expiresAtMs: number | undefined;
  readonly sessionId: string | undefined;
  readonly keyId: string | undefined;
  readonly mayWrite: boolean;
  readonly actor: string;
  /** A `Principal`; the chat hands it back and does not look into it. */
  readonly proof: unknown;
}

/** Somebody's role in a channel's room, and whether they moderate it. */
export interface StandingInChannel {
  readonly role: 'viewer' | ChannelRole | 'admin';
  /** `second-factor`: they would moderate, had they shown one. */
  readonly moderates: 'yes' | 'no' | 'second-factor';
}

const RANK: Readonly<Record<StandingInChannel['role'], number>> = { viewer: 0, moderator: 1, host: 2, owner: 3, admin: 4 };
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function provenIdentityOf(principal: Principal): ProvenIdentity {
  return {
    // A ban is of the account, whatever credential it shows.
    id: principal.accountId ?? principal.id,
    name: principal.name,
    expiresAtMs: principal.expiresAtMs,
    sessionId: principal.sessionId,
    keyId: principal.kind === 'api-key' ? principal.id.slice('api-key:'.length) : undefined,
    mayWrite: principal.scopes === undefined || principal.scopes.includes('moderate'),
    actor: principal.id,
    proof: principal,
  };
}

const proofOf = (identity: Pick<ProvenIdentity, 'proof'> | undefined) => (identity?.proof as Principal | undefined) ?? ANONYMOUS;

/** The standing of a principal in a channel in which it has `channelRole`. */
export function channelStandingOf(principal: Principal, channelRole: ChannelRole | undefined): StandingInChannel {
  const verdict = judge(principal, 'channel.moderate', channelRole);
  if (verdict !== 'yes') return { role: 'viewer', moderates: verdict };
  const serviceRole = serviceRoleOf(principal);
  const role = channelRole !== undefined && RANK[channelRole] > RANK[serviceRole] ? channelRole : serviceRole;
  return { role, moderates: 'yes' };
}

/** What a role on the service gives in every room. Without a second factor it gives nothing. */
function serviceRoleOf(principal: Principal): 'viewer' | 'moderator' | 'admin' {
  if (!principal.secondFactor && principal.kind !== 'admin-token') return 'viewer';
  return principal.role === 'admin' || principal.role === 'moderator' ? principal.role : 'viewer';
}

export function chatAuthorization({ database, identity, ended, signingKeys, playbackLinks }: ChatAccess, clock: Clock) {
  const channels = new Batched<ChannelWithRoles>(clock, (ids) => channelsWithRoles(database, ids));
  return {
    identify: async (credential: string) => provenIdentityOf(await identity.ofCredential(credential)),

    isSessionEnded: (person: Pick<ProvenIdentity, 'sessionId' | 'proof'>) =>
      (person.sessionId !== undefined && ended.has(person.sessionId)) || isKeyRevoked(proofOf(person), signingKeys, clock),

    /** Of those given, whose credential is good no longer. */
    async findEnded<Person extends ProvenIdentity>(people: readonly Person[]): Promise<ReadonlyMap<Person, 'banned' | 'ended'>> {
      const found = new Map<Person, 'banned' | 'ended'>();
      const accountIds = [...new Set(people.flatMap((person) => proofOf(person).accountId ?? []))];
      const keyIds = [...new Set(people.flatMap(({ keyId }) => keyId ?? []))];
      if (accountIds.length === 0) return found;
      const accounts = await accountsById(database, accountIds);
      const keys = await factorsOfApiKeys(database, keyIds);
      const sessionIds = [...new Set(people.flatMap((person) => (proofOf(person).secondFactor && person.sessionId) || []))];
      const provenSessions = await sessionsWithFactor(database, sessionIds);
      /** The second factor that the credential showed is still there. */
      const isProven = (person: ProvenIdentity) => {
        const { keyId, sessionId } = person;
        if (!proofOf(person).secondFactor) return true;
        return keyId === undefined ? sessionId === undefined || provenSessions.has(sessionId) : keys.get(keyId) === true;
      };
      for (const person of people) {
        const { accountId, role } = proofOf(person);
        if (accountId === undefined) continue;
        const account = accounts.get(accountId);
        if (account?.isBanned) found.set(person, 'banned');
        else if (account?.role !== role || (person.keyId !== undefined && !keys.has(person.keyId)) || !isProven(person))
          found.set(person, 'ended');
      }
      return found;
    },

    /** Undefined: there is no such channel any more. */
    async readAccess(channelId: string) {
      const channel = await channels.load(channelId);
      if (!channel) return undefined;
      const { slug, isPrivate, roles } = channel;
      return {
        isPrivate,
        /** Undefined: the channel is not there for them. */
        standingOf(person: Pick<ProvenIdentity, 'proof'> | undefined): StandingInChannel | undefined {
          const principal = proofOf(person);
          const channelRole = principal.accountId === undefined ? undefined : roles.get(principal.accountId);
          if (isPrivate && judge(principal, 'channel.see-private', channelRole) !== 'yes') return undefined;
          return channelStandingOf(principal, channelRole);
        },
        /** Until when a playback link opens it, ms since 1970; undefined: it does not. */
        linkValidUntilMs(token: string, { address, country }: { address: string; country: string | undefined }): number | undefined {
          try {
            return playbackLinks.check('live', slug, token, { address: () => address, country: () => country }).expiresAtMs;
          } catch {
            return undefined;
          }
        },
      };
    },

    /** Since when there is their account, ms since 1970; undefined: they have none here. */
    async accountCreatedAtMs(person: Pick<ProvenIdentity, 'proof'>): Promise<number | undefined> {
      const { accountId } = proofOf(person);
      if (accountId === undefined) return undefined;
      return (await accountsById(database, [accountId])).get(accountId)?.createdAtMs;
    },
  };
}

/** Names and roles of people who are not here to show a credential: an administrator is one though they have not signed in with a second factor. */
export function chatUserDirectory(database: Database) {
  return {
    async find(userId: string, channelId: string | undefined): Promise<{ name: string; role: StandingInChannel['role'] } | undefined> {
      if (userId === 'admin-token') return { name: 'admin token', role: 'admin' };
      // A user whom another system vouches for has no account here.
      if (!UUID.test(userId)) return undefined;
      const found = await nameAndRolesOf(database, userId, channelId);
      if (!found) return undefined;
      const { name, role, channelRole } = found;
      if (role === 'admin') return { name, role: 'admin' };
      return { name, role: channelRole ?? (role === 'moderator' ? 'moderator' : 'viewer') };
    },

    async names(userIds: readonly string[]): Promise<ReadonlyMap<string, string>> {
      const accounts = await accountsById(
        database,
        userIds.filter((userId) => UUID.test(userId)),
      );
      return new Map([...accounts].map(([id, { name }]) => [id, name]));
    },
  };
}
