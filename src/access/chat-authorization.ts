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
 * What the chat asks about people: who they are, and what a channel lets them do. The chat declares
 * the interfaces that it needs, and the composition hands these functions in.
 */
export interface ChatAccess {
  readonly database: Database;
  readonly identity: Identity;
  readonly ended: Pick<EndedSessions, 'has'>;
  readonly signingKeys: Pick<SigningKeys, 'has'>;
  readonly playbackLinks: PlaybackLinks;
}

/** A person with a good credential, in the form that the chat keeps. */
export interface ProvenIdentity {
  readonly id: string;
  readonly name: string;
  readonly expiresAtMs: number | undefined;
  readonly sessionId: string | undefined;
  readonly keyId: string | undefined;
  readonly mayWrite: boolean;
  readonly actor: string;
  /** A `Principal`. The chat only hands it back. */
  readonly proof: unknown;
}

/** A person's role in a channel's room, and whether they moderate it. */
export interface StandingInChannel {
  readonly role: 'viewer' | ChannelRole | 'admin';
  /** `second-factor`: they have the right to moderate, but signed in without a second factor. */
  readonly moderates: 'yes' | 'no' | 'second-factor';
}

const RANK: Readonly<Record<StandingInChannel['role'], number>> = { viewer: 0, moderator: 1, host: 2, owner: 3, admin: 4 };
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function provenIdentityOf(principal: Principal): ProvenIdentity {
  return {
    // A ban applies to the account, whatever its credential.
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

/** The standing of a principal in a channel in which the principal has `channelRole`. */
export function channelStandingOf(principal: Principal, channelRole: ChannelRole | undefined): StandingInChannel {
  const verdict = judge(principal, 'channel.moderate', channelRole);
  if (verdict !== 'yes') return { role: 'viewer', moderates: verdict };
  const serviceRole = serviceRoleOf(principal);
  const role = channelRole !== undefined && RANK[channelRole] > RANK[serviceRole] ? channelRole : serviceRole;
  return { role, moderates: 'yes' };
}

/**
 * The room role that a role on the service gives in every room. Moderators and administrators
 * without a second factor are viewers.
 */
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

    /** Finds those of `people` whose credential is not good any more. */
    async findEnded<Person extends ProvenIdentity>(people: readonly Person[]): Promise<ReadonlyMap<Person, 'banned' | 'ended'>> {
      const found = new Map<Person, 'banned' | 'ended'>();
      const accountIds = [...new Set(people.flatMap((person) => proofOf(person).accountId ?? []))];
      const keyIds = [...new Set(people.flatMap(({ keyId }) => keyId ?? []))];
      if (accountIds.length === 0) return found;
      const accounts = await accountsById(database, accountIds);
      const keys = await factorsOfApiKeys(database, keyIds);
      const sessionIds = [...new Set(people.flatMap((person) => (proofOf(person).secondFactor && person.sessionId) || []))];
      const provenSessions = await sessionsWithFactor(database, sessionIds);
      /** Whether the second factor that the credential was made with still exists. */
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

    /** Undefined: the channel does not exist any more. */
    async readAccess(channelId: string) {
      const channel = await channels.load(channelId);
      if (!channel) return undefined;
      const { slug, isPrivate, roles } = channel;
      return {
        isPrivate,
        /** Undefined: the channel is private, and they have no right to it. */
        standingOf(person: Pick<ProvenIdentity, 'proof'> | undefined): StandingInChannel | undefined {
          const principal = proofOf(person);
          const channelRole = principal.accountId === undefined ? undefined : roles.get(principal.accountId);
          if (isPrivate && judge(principal, 'channel.see-private', channelRole) !== 'yes') return undefined;
          return channelStandingOf(principal, channelRole);
        },
        /**
         * The time at which a playback link expires, in ms since 1970. Undefined: the link does not
         * open the channel.
         */
        linkValidUntilMs(token: string, { address, country }: { address: string; country: string | undefined }): number | undefined {
          try {
            return playbackLinks.check('live', slug, token, { address: () => address, country: () => country }).expiresAtMs;
          } catch {
            return undefined;
          }
        },
      };
    },

    /**
     * The time at which their account was made, in ms since 1970. Undefined: they have no account
     * here.
     */
    async accountCreatedAtMs(person: Pick<ProvenIdentity, 'proof'>): Promise<number | undefined> {
      const { accountId } = proofOf(person);
      if (accountId === undefined) return undefined;
      return (await accountsById(database, [accountId])).get(accountId)?.createdAtMs;
    },
  };
}

/**
 * Names and roles of people who are not connected. They show no credential, so roles count here
 * without a second factor.
 */
export function chatUserDirectory(database: Database) {
  return {
    async find(userId: string, channelId: string | undefined): Promise<{ name: string; role: StandingInChannel['role'] } | undefined> {
      if (userId === 'admin-token') return { name: 'admin token', role: 'admin' };
      // A gateway's user has no account here.
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
