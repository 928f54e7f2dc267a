import type { Database } from '../../backing/database/database.js';
import { type AccountRow, accountOf, noAccount } from './account-rows.js';

/** An export holds at most this many entries of the audit log, the newest. */
const MAX_EXPORTED_AUDIT = 10_000;

const iso = (at: Date | null) => at?.toISOString() ?? null;

/**
 * Everything that is stored about an account, for its owner. Secrets and their hashes are left out:
 * they prove who a person is, and say nothing about them. Rejects with `not_found`.
 */
export async function exportAccount(database: Database, accountId: string) {
  const read = async <Row extends object>(sql: string, ...more: unknown[]) => (await database.query<Row>(sql, [accountId, ...more])).rows;
  const [row] = await read<AccountRow & { totp_confirmed_at: Date | null }>('select * from accounts where id = $1');
  if (!row) throw noAccount();
  const sessions = await read<SessionExportRow>('select * from sessions where account_id = $1 order by created_at desc');
  const passkeys = await read<CredentialExportRow>(
    'select name, created_at, last_used_at from passkeys where account_id = $1 order by created_at desc',
  );
  const apiKeys = await read<CredentialExportRow & { hint: string; scopes: string[]; expires_at: Date | null }>(
    'select name, hint, scopes, created_at, last_used_at, expires_at from api_keys where account_id = $1 order by created_at desc',
  );
  const channels = await read<{ slug: string; role: string; since: Date }>(
    `select slug, 'owner' as role, created_at as since from channels where owner_id = $1
     union all select c.slug, m.role, m.added_at from channel_members m join channels c on c.id = m.channel_id where m.account_id = $1
     order by slug`,
  );
  const codes = await read<{ left: number }>('select count(*)::int as left from recovery_codes where account_id = $1 and used_at is null');
  const audit = await read<AuditExportRow>(
    `select at, address, action, target, channel, details, actor from audit_log
     where actor = 'account:' || $1::text or target = 'account:' || $1::text order by id desc limit $2`,
    MAX_EXPORTED_AUDIT + 1,
  );
  const { email, name, role, state, banReason } = accountOf(row);
  return {
    account: {
      id: row.id,
      email,
      name,
      role,
      state,
      createdAt: iso(row.created_at)!,
      confirmedAt: iso(row.confirmed_at),
      bannedAt: iso(row.banned_at),
      banReason: banReason ?? null,
      authenticatorAppSince: iso(row.totp_confirmed_at),
      recoveryCodesLeft: codes[0]?.left ?? 0,
    },
    sessions: sessions.map((session) => ({
      id: session.id,
      client: session.client,
      address: session.address,
      createdAt: iso(session.created_at)!,
      lastUsedAt: iso(session.last_used_at)!,
      endedAt: iso(session.ended_at),
    })),
    passkeys: passkeys.map((key) => ({ name: key.name, createdAt: iso(key.created_at)!, lastUsedAt: iso(key.last_used_at) })),
    apiKeys: apiKeys.map((key) => ({
      name: key.name,
      hint: key.hint,
      scopes: key.scopes,
      createdAt: iso(key.created_at)!,
      lastUsedAt: iso(key.last_used_at),
      expiresAt: iso(key.expires_at),
    })),
    channels: channels.map(({ slug, role: channelRole, since }) => ({ slug, role: channelRole, since: iso(since)! })),
    audit: audit.slice(0, MAX_EXPORTED_AUDIT).map((entry) => {
      const byOwner = entry.actor === `account:${accountId}`;
      return {
        at: iso(entry.at)!,
        action: entry.action,
        target: entry.target,
        channel: entry.channel,
        byMe: byOwner,
        // An administrator's address and the details of their act are the administrator's own data.
        address: byOwner ? entry.address : null,
        details: byOwner ? entry.details : {},
      };
    }),
    auditIsComplete: audit.length <= MAX_EXPORTED_AUDIT,
  };
}

interface SessionExportRow {
  id: string;
  client: string;
  address: string;
  created_at: Date;
  last_used_at: Date;
  ended_at: Date | null;
}

interface CredentialExportRow {
  name: string;
  created_at: Date;
  last_used_at: Date | null;
}

interface AuditExportRow {
  at: Date;
  actor: string;
  address: string | null;
  action: string;
  target: string | null;
  channel: string | null;
  details: Record<string, unknown>;
}
