import type { Database, Queryable } from '../backing/database/database.js';
import { VezaError } from '../runtime/errors.js';
import { type Account, type AccountRow, accountOf, noAccount } from './accounts/account-rows.js';
import type { Channel, Channels } from './channels.js';
import { type ChannelRole, judge, type Principal, type Role } from './roles.js';

export interface ChannelMember {
  readonly accountId: string;
  readonly name: string;
  readonly role: ChannelRole;
  readonly addedAtMs: number;
}

const MAX_MEMBERS = 1000;

/**
 * The roles of accounts in channels. The owner is a column of the channel; each host or moderator
 * is a row of `channel_members`.
 */
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
   * The channel, for a principal who may see it. A private channel does not exist for other
   * principals. `asPrivate`: treat the channel as private, because the request is about one of its
   * private recordings. Rejects with `not_found`.
   */
  async visible(principal: Principal, slug: string, asPrivate = false): Promise<Channel> {
    const channel = await this.#channels.get(slug);
    const open = channel && channel.visibility !== 'private' && !asPrivate;
    if (channel && (open || judge(principal, 'channel.see-private', await this.roleOf(channel, principal.accountId)) === 'yes'))
      return channel;
    throw new VezaError('not_found', `There is no channel "${slug}".`);
  }

  /** At most `limit` members after the cursor `after`: the owner first, then the others by name. */
  async list(
    channel: Channel,
    after: { place: number; name: string; accountId: string } | undefined,
    limit: number,
  ): Promise<ChannelMember[]> {
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
   * Gives an account a role in the channel. `owner` hands the channel over to an account that can
   * sign in, and the former owner becomes a host. Rejects: `not_found` (the account or the channel
   * does not exist), `quota_exceeded`, `conflict` (the owner can only hand over, the account is
   * banned or cannot own a channel yet, or `MAX_MEMBERS` is reached).
   */
  async set(channel: Channel, accountId: string, role: ChannelRole): Promise<void> {
    await this.#database.transaction(async (connection) => {
      // The account is locked before the channel, in the same order as when an account is banned or
      // deleted. The lock also keeps the account from being banned meanwhile.
      const { rows: accounts } = await connection.query<AccountRow>('select * from accounts where id = $1 for no key update', [accountId]);
      if (!accounts[0]) throw noAccount();
      if (role === 'owner' && accountId !== channel.ownerId) await this.#channels.checkQuota(connection, accountId);
      checkCanBe(role, accountOf(accounts[0]).state);
      // The row is locked and read again: two hand-overs at once run one after the other, and the
      // second sees that the first has changed the owner.
      const { rows: channels } = await connection.query<{ owner_id: string | null }>(
        'select owner_id from channels where id = $1 for update',
        [channel.id],
      );
      if (!channels[0]) throw new VezaError('not_found', `There is no channel "${channel.slug}".`);
      const ownerId = channels[0].owner_id ?? undefined;
      if (ownerId !== channel.ownerId) throw new VezaError('conflict', 'The channel has another owner now. Reload it and try again.');
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
        if (ownerId === accountId) throw new VezaError('conflict', 'The owner can be changed only by making another account the owner.');
        await put(accountId, role);
        return;
      }
      await connection.query('update channels set owner_id = $2 where id = $1', [channel.id, accountId]);
      await connection.query('delete from channel_members where channel_id = $1 and account_id = $2', [channel.id, accountId]);
      if (ownerId !== undefined && ownerId !== accountId) await put(ownerId, 'host');
    });
    this.#channels.changed();
  }

  /** Takes away a host's or moderator's role. Rejects with `not_found`. */
  async remove(channel: Channel, accountId: string): Promise<void> {
    const { rowCount } = await this.#database.query('delete from channel_members where channel_id = $1 and account_id = $2', [
      channel.id,
      accountId,
    ]);
    if (rowCount === 0) throw new VezaError('not_found', 'This account has no role in the channel, or is its owner.');
  }

  /** Channels in which the account has a role: at most `limit`, by slug, after the slug `after`. */
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

/** A channel and the role of every account that has a role in it. */
export interface ChannelWithRoles {
  readonly slug: string;
  readonly isPrivate: boolean;
  readonly roles: ReadonlyMap<string, ChannelRole>;
}

/** Channels by id. Channels that do not exist are left out. */
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

/**
 * An account's name, its role on the service, and its role in one channel. Undefined: the account
 * does not exist.
 */
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

/**
 * An owner must be able to sign in, otherwise nobody could hand the channel on. An invited account
 * may be a host or moderator, and uses the role after it has set a password. Throws `conflict`.
 */
function checkCanBe(role: ChannelRole, state: Account['state']): void {
  const details = { state };
  if (state === 'banned') throw new VezaError('conflict', 'This account is banned.', { details });
  if (role === 'owner' && state !== 'active')
    throw new VezaError(
      'conflict',
      'The owner of a channel must be able to sign in: this account has no password yet, or its address is not confirmed.',
      {
        details,
      },
    );
}
