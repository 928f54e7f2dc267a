import type { Database, Queryable } from '../backing/database/database.js';
import { VezaError } from '../runtime/errors.js';
import { type Account, type AccountRow, accountOf, noAccount } from './accounts/account-rows.js';
import type { Channel, Channels } from './channels.js';
import { type ChannelRole, judge, type Principal, type Role } from './roles.js';

export interface Member {
  readonly accountId: string;
  readonly name: string;
  readonly role: ChannelRole;
  readonly addedAtMs: number;
}

export const MAX_MEMBERS = 1000;

/** Who has a role in which channel. The owner is a column of the channel; hosts and moderators are rows of their own. */
export class Members {
  readonly #database: Database;
  readonly #channels: Channels;

  constructor(database: Database, channels: Channels) {
    this.#database = database;
    this.#channels = channels;
  }

  async roleOf(channel: Channel, accountId: string | undefined): Promise<ChannelRole | undefined> {
    if (accountId === undefined) return undefined;
    if (channel.ownerId === accountId) return 'owner';
    const { rows } = await this.#database.query<{ role: 'host' | 'moderator' }>(
      'select role from channel_members where channel_id = $1 and account_id = $2',
      [channel.id, accountId],
    );
    return rows[0]?.role;
  }

  /**
   * The channel, for those who may know of it: a private one is not there for others. `asPrivate`: one of its recordings is private. Rejects
   * with `not_found`.
   */
  async visible(principal: Principal, slug: string, asPrivate = false): Promise<Channel> {
    const channel = await this.#channels.get(slug);
    const open = channel && channel.visibility !== 'private' && !asPrivate;
    if (channel && (open || judge(principal, 'channel.see-private', await this.roleOf(channel, principal.accountId)) === 'yes'))
      return channel;
    throw new VezaError('not_found', `There is no channel "${slug}".`);
  }

  /** The owner, then the others by name; from the first after `after`. */
  async list(channel: Channel, after: { place: number; name: string; accountId: string } | undefined, limit: number): Promise<Member[]> {
    const { rows } = await this.#database.query<{ account_id: string; name: string; role: ChannelRole; added_at: Date }>(
      `select * from (
         select a.id as account_id, a.name, 'owner' as role, c.created_at as added_at, 0 as place
         from channels c join accounts a on a.id = c.owner_id where c.id = $1
         union all
         select a.id, a.name, m.role, m.added_at, 1 from channel_members m join accounts a on a.id = m.account_id where m.channel_id = $1
       ) as members
       where $2::int is null or (place, name collate "C", account_id) > ($2::int, $3::text collate "C", $4::uuid)
       order by place, name collate "C", account_id limit $5`,
      [channel.id, after?.place ?? null, after?.name ?? null, after?.accountId ?? null, limit],
    );
    return rows.map((row) => ({ accountId: row.account_id, name: row.name, role: row.role, addedAtMs: row.added_at.getTime() }));
  }

  /**
   * `owner` hands the channel over, to an account that can sign in; who owned it before is a host from then on. Rejects: `not_found` (no such
   * account, or the channel is gone), `quota_exceeded`, `conflict` (the owner is to be less, the account is banned or cannot sign in yet, `MAX_MEMBERS`).
   */
  async set(channel: Channel, accountId: string, role: ChannelRole): Promise<void> {
    await this.#database.transaction(async (connection) => {
      // The account first, as where it is banned or deleted, which locks its channels after it; held, so that it is not banned meanwhile.
      const { rows: accounts } = await connection.query<AccountRow>('select * from accounts where id = $1 for no key update', [accountId]);
      if (!accounts[0]) throw noAccount();
      if (role === 'owner' && accountId !== channel.ownerId) await this.#channels.checkQuota(connection, accountId);
      checkCanBe(role, accountOf(accounts[0]).state);
      // Held, and read again: of two who hand it over at once, the second hands over what the first has given away.
      const { rows: channels } = await connection.query<{ owner_id: string | null }>(
        'select owner_id from channels where id = $1 for update',
        [channel.id],
      );
      if (!channels[0]) throw new VezaError('not_found', `There is no channel "${channel.slug}".`);
      const ownerId = channels[0].owner_id ?? undefined;
      if (ownerId !== channel.ownerId) throw new VezaError('conflict', 'The channel was handed over meanwhile.');
      const put = async (id: string, memberRole: string) => {
        const { rowCount } = await connection.query(
          `insert into channel_members (channel_id, account_id, role) select $1, $2, $3
           where (select count(*) from channel_members where channel_id = $1 and account_id <> $2) < ${MAX_MEMBERS}
           on conflict (channel_id, account_id) do update set role = excluded.role`,
          [channel.id, id, memberRole],
        );
        if (rowCount === 0) throw new VezaError('conflict', `A channel has at most ${MAX_MEMBERS} hosts and moderators; remove one first.`);
      };
      if (role !== 'owner') {
        if (ownerId === accountId) throw new VezaError('conflict', 'The owner hands the channel over by making somebody else the owner.');
        await put(accountId, role);
        return;
      }
      await connection.query('update channels set owner_id = $2 where id = $1', [channel.id, accountId]);
      await connection.query('delete from channel_members where channel_id = $1 and account_id = $2', [channel.id, accountId]);
      if (ownerId !== undefined && ownerId !== accountId) await put(ownerId, 'host');
    });
    this.#channels.changed();
  }

  /** Rejects with `not_found`. */
  async remove(channel: Channel, accountId: string): Promise<void> {
    const { rowCount } = await this.#database.query('delete from channel_members where channel_id = $1 and account_id = $2', [
      channel.id,
      accountId,
    ]);
    if (rowCount === 0) throw new VezaError('not_found', 'This account has no role in the channel, or is its owner.');
  }

  /** Channels in which an account has a role, by slug; from the first after `after`. */
  async channelsOf(accountId: string, after = '', limit = 1000): Promise<{ slug: string; role: ChannelRole }[]> {
    const { rows } = await this.#database.query<{ slug: string; role: ChannelRole }>(
      `select * from (
         select slug, 'owner' as role from channels where owner_id = $1
         union all select c.slug, m.role from channel_members m join channels c on c.id = m.channel_id where m.account_id = $1
       ) as found
       where slug collate "C" > $2 order by slug collate "C" limit $3`,
      [accountId, after, limit],
    );
    return rows;
  }
}

/** A channel and the role of every account that has one in it. */
export interface ChannelWithRoles {
  readonly slug: string;
  readonly isPrivate: boolean;
  readonly roles: ReadonlyMap<string, ChannelRole>;
}

/** By id; channels that are gone are left out. */
export async function channelsWithRoles(database: Queryable, ids: readonly string[]): Promise<Map<string, ChannelWithRoles>> {
  const { rows } = await database.query<{
    id: string;
    slug: string;
    visibility: string;
    owner_id: string | null;
    roles: Record<string, ChannelRole> | null;
  }>(
    `select id, slug, visibility, owner_id,
       (select json_object_agg(account_id, role) from channel_members where channel_id = id) as roles
     from channels where id = any($1::uuid[])`,
    [ids],
  );
  return new Map(
    rows.map(({ id, slug, visibility, owner_id, roles }) => [
      id,
      {
        slug,
        isPrivate: visibility === 'private',
        roles: new Map<string, ChannelRole>([...Object.entries(roles ?? {}), ...(owner_id === null ? [] : [[owner_id, 'owner'] as const])]),
      },
    ]),
  );
}

/** An account's name, its role on the service, and its role in one channel. Undefined: there is no such account. */
export async function nameAndRolesOf(
  database: Queryable,
  accountId: string,
  channelId: string | undefined,
): Promise<{ name: string; role: Role; channelRole: ChannelRole | undefined } | undefined> {
  const { rows } = await database.query<{ name: string; role: Role; channel_role: ChannelRole | null }>(
    `select a.name, a.role, case when c.owner_id = a.id then 'owner' else m.role end as channel_role
     from accounts a left join channels c on c.id = $2 left join channel_members m on m.channel_id = c.id and m.account_id = a.id
     where a.id = $1`,
    [accountId, channelId ?? null],
  );
  return rows[0] && { name: rows[0].name, role: rows[0].role, channelRole: rows[0].channel_role ?? undefined };
}

/** Nobody could give the channel back from an account that cannot sign in. One that is invited may be a host or moderator once it is opened. */
function checkCanBe(role: ChannelRole, state: Account['state']): void {
  const details = { state };
  if (state === 'banned') throw new VezaError('conflict', 'This account is banned.', { details });
  if (role === 'owner' && state !== 'active')
    throw new VezaError(
      'conflict',
      'A channel can be owned only by an account that can sign in: this one is not opened or not confirmed yet.',
      {
        details,
      },
    );
}
