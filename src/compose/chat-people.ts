import type { ChannelRole, Role } from '../access/roles.js';
import type { Database } from '../backing/database/database.js';
import type { AccountDirectory } from '../chat/moderation/acts.js';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What people are in a room who are not here to show it: an administrator is one though he has not signed in with a second factor. */
export function chatPeople(database: Database): AccountDirectory {
  return {
    async find(userId, channelId) {
      if (userId === 'admin-token') return { name: 'admin token', role: 'admin' };
      // Whom another system vouches for has no row here.
      if (!UUID.test(userId)) return undefined;
      const { rows } = await database.query<{ name: string; role: Role; channel_role: ChannelRole | null }>(
        `select a.name, a.role, case when c.owner_id = a.id then 'owner' else m.role end as channel_role
         from accounts a left join channels c on c.id = $2 left join channel_members m on m.channel_id = c.id and m.account_id = a.id
         where a.id = $1`,
        [userId, channelId ?? null],
      );
      const row = rows[0];
      if (!row) return undefined;
      const { name, role, channel_role } = row;
      if (role === 'admin') return { name, role: 'admin' };
      return { name, role: channel_role ?? (role === 'moderator' ? 'moderator' : 'viewer') };
    },

    async names(userIds) {
      const { rows } = await database.query<{ id: string; name: string }>('select id, name from accounts where id = any($1::uuid[])', [
        userIds.filter((userId) => UUID.test(userId)),
      ]);
      return new Map(rows.map(({ id, name }) => [id, name]));
    },
  };
}
