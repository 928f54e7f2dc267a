import type { PlaybackLinks } from '../access/playback/playback-links.js';
import { ANONYMOUS, type ChannelRole, judge, type Principal, type Role } from '../access/roles.js';
import { SECOND_FACTORS } from '../access/tokens/access-tokens.js';
import type { EndedSessions } from '../access/tokens/ended-sessions.js';
import type { Identity } from '../access/tokens/identity.js';
import type { SigningKeys } from '../access/tokens/signing-keys.js';
import { isKeyRevoked } from '../access/tokens/standing-principals.js';
import type { Database } from '../backing/database/database.js';
import type { ChannelAccess, Doors, Person, Standing } from '../chat/gateway/doors.js';
import type { ChatRole } from '../chat/rooms/room.js';
import { Batched } from '../runtime/batched.js';
import type { Clock } from '../runtime/clock.js';

/** Who somebody is and what a channel lets him do, as the access room knows it, for the chat. */
export interface ChatAccess {
  readonly database: Database;
  readonly identity: Identity;
  readonly ended: Pick<EndedSessions, 'has'>;
  readonly signingKeys: Pick<SigningKeys, 'has'>;
  readonly playbackLinks: PlaybackLinks;
}

const RANK: Readonly<Record<ChatRole, number>> = { viewer: 0, moderator: 1, host: 2, owner: 3, admin: 4 };

export function personOf(principal: Principal): Person {
  return {
    // A ban is of the account, whatever it shows.
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

const proofOf = (person: Person | undefined) => (person?.proof as Principal | undefined) ?? ANONYMOUS;

/** What somebody is in a channel in which he has that role. */
export function standingOf(principal: Principal, channelRole: ChannelRole | undefined): Standing {
  const verdict = judge(principal, 'channel.moderate', channelRole);
  if (verdict !== 'yes') return { role: 'viewer', moderates: verdict };
  const isProven = principal.secondFactor || principal.kind === 'admin-token';
  const ofService: ChatRole = !isProven
    ? 'viewer'
    : principal.role === 'admin'
      ? 'admin'
      : principal.role === 'moderator'
        ? 'moderator'
        : 'viewer';
  const role = channelRole !== undefined && RANK[channelRole] > RANK[ofService] ? channelRole : ofService;
  return { role, moderates: 'yes' };
}

interface KeyRow {
  id: string;
  second_factor: boolean;
}

interface ChannelRow {
  id: string;
  slug: string;
  visibility: string;
  owner_id: string | null;
  roles: Record<string, ChannelRole> | null;
}

export function chatDoors({ database, identity, ended, signingKeys, playbackLinks }: ChatAccess, clock: Clock): Doors {
  const channels = new Batched<ChannelRow>(clock, async (ids) => {
    const { rows } = await database.query<ChannelRow>(
      `select id, slug, visibility, owner_id,
         (select json_object_agg(account_id, role) from channel_members where channel_id = id) as roles
       from channels where id = any($1::uuid[])`,
      [ids],
    );
    return new Map(rows.map((row) => [row.id, row]));
  });
  return {
    who: async (credential) => personOf(await identity.ofCredential(credential)),

    isEnded: (person) =>
      (person.sessionId !== undefined && ended.has(person.sessionId)) || isKeyRevoked(proofOf(person), signingKeys, clock),

    async ended(people) {
      const found = new Map<Person, 'banned' | 'ended'>();
      const accountIds = [...new Set(people.flatMap((person) => proofOf(person).accountId ?? []))];
      const keyIds = [...new Set(people.flatMap(({ keyId }) => keyId ?? []))];
      if (accountIds.length === 0) return found;
      const { rows: accounts } = await database.query<{ id: string; role: Role; banned: boolean }>(
        'select id, role, banned_at is not null as banned from accounts where id = any($1::uuid[])',
        [accountIds],
      );
      const { rows: keys } =
        keyIds.length === 0
          ? { rows: [] }
          : await database.query<KeyRow>('select id, second_factor from api_keys where id = any($1::uuid[])', [keyIds]);
      const sessionIds = [...new Set(people.flatMap((person) => (proofOf(person).secondFactor && person.sessionId) || []))];
      const { rows: proven } =
        sessionIds.length === 0
          ? { rows: [] }
          : await database.query<{ id: string }>('select id from sessions where id = any($1::uuid[]) and amr && $2', [
              sessionIds,
              SECOND_FACTORS,
            ]);
      const byId = new Map(accounts.map((account) => [account.id, account]));
      const good = new Map(keys.map((key) => [key.id, key]));
      const provenSessions = new Set(proven.map(({ id }) => id));
      /** What it showed to moderate is still there. */
      const isProven = ({ keyId, sessionId, ...person }: Person) =>
        !(person.proof as Principal).secondFactor ||
        (keyId === undefined ? sessionId === undefined || provenSessions.has(sessionId) : good.get(keyId)?.second_factor === true);
      for (const person of people) {
        const { accountId, role } = proofOf(person);
        if (accountId === undefined) continue;
        const account = byId.get(accountId);
        if (account?.banned) found.set(person, 'banned');
        else if (!account || account.role !== role || (person.keyId !== undefined && !good.has(person.keyId)) || !isProven(person))
          found.set(person, 'ended');
      }
      return found;
    },

    async channel(channelId) {
      const row = await channels.load(channelId);
      if (!row) return undefined;
      const roles = new Map(Object.entries(row.roles ?? {}));
      if (row.owner_id !== null) roles.set(row.owner_id, 'owner');
      const isPrivate = row.visibility === 'private';
      const access: ChannelAccess = {
        isPrivate,
        standing(person) {
          const principal = proofOf(person);
          const channelRole = principal.accountId === undefined ? undefined : roles.get(principal.accountId);
          if (isPrivate && judge(principal, 'channel.see-private', channelRole) !== 'yes') return undefined;
          return standingOf(principal, channelRole);
        },
        linkUntilMs(token, { address, country }) {
          try {
            return playbackLinks.check('live', row.slug, token, { address: () => address, country: () => country }).expiresAtMs;
          } catch {
            return undefined;
          }
        },
      };
      return access;
    },

    async sinceMs(person) {
      const { accountId } = proofOf(person);
      if (accountId === undefined) return undefined;
      const { rows } = await database.query<{ created_at: Date }>('select created_at from accounts where id = $1', [accountId]);
      return rows[0]?.created_at.getTime();
    },
  };
}
