import type { Queryable } from '../../backing/database/database.js';

const PAGE_ROWS = 500;

/** One record that the chat keeps about an account: a line of the account's export. */
export interface AccountRecord {
  readonly kind: 'message' | 'held' | 'reaction' | 'ban' | 'timeout' | 'warning' | 'appeal' | 'writer';
  readonly room: string;
  /** The slug of the room's channel; null: the room belongs to no channel any more. */
  readonly channel: string | null;
  readonly [field: string]: unknown;
}

interface AccountRecordRow {
  readonly room_id: string;
  readonly slug: string | null;
  readonly [column: string]: unknown;
}

interface RecordedTable {
  readonly kind: AccountRecord['kind'];
  readonly table: string;
  /**
   * The columns that tell the rows of one account apart. An index begins with them, or an account
   * has few rows.
   */
  readonly key: readonly string[];
  readonly columns: readonly string[];
  readonly where?: string;
  fields(row: AccountRecordRow): object;
}

const iso = (at: unknown) => (at instanceof Date ? at.toISOString() : null);

/**
 * The tables with records about an account, and the columns that its export contains. The export
 * has no text of other people except texts that were written to the account's owner. It also leaves
 * out what the owner must not learn: a shadow ban, notes between moderators, and the hash of the
 * address that they wrote from.
 */
const KEPT: readonly RecordedTable[] = [
  {
    kind: 'ban',
    table: 'room_bans',
    key: ['id'],
    columns: ['reason', 'created_at', 'until', 'lifted_at'],
    where: 'not x.shadow',
    fields: ({ reason, created_at, until, lifted_at }) => ({ reason, at: iso(created_at), until: iso(until), liftedAt: iso(lifted_at) }),
  },
  {
    kind: 'timeout',
    table: 'room_timeouts',
    key: ['room_id'],
    columns: ['reason', 'created_at', 'until'],
    fields: ({ reason, created_at, until }) => ({ reason, at: iso(created_at), until: iso(until) }),
  },
  {
    kind: 'warning',
    table: 'room_warnings',
    key: ['id'],
    columns: ['text', 'created_at', 'seen_at'],
    fields: ({ text, created_at, seen_at }) => ({ text, at: iso(created_at), seenAt: iso(seen_at) }),
  },
  {
    kind: 'appeal',
    table: 'room_appeals',
    key: ['id'],
    columns: ['text', 'created_at', 'accepted', 'answer', 'answered_at'],
    fields: ({ text, created_at, accepted, answer, answered_at }) => ({
      text,
      at: iso(created_at),
      accepted,
      answer,
      answeredAt: iso(answered_at),
    }),
  },
  {
    kind: 'held',
    table: 'held_messages',
    key: ['room_id', 'mid'],
    columns: ['body', 'created_at', 'decision', 'decided_at', 'reason'],
    fields: ({ mid, body, created_at, decision, decided_at, reason }) => ({
      mid,
      body: JSON.parse(body as string),
      at: iso(created_at),
      state: decision ?? 'waiting',
      decidedAt: iso(decided_at),
      reason,
    }),
  },
  {
    kind: 'writer',
    table: 'room_writers',
    key: ['room_id'],
    columns: ['seen_at'],
    fields: ({ seen_at }) => ({ at: iso(seen_at) }),
  },
  {
    kind: 'reaction',
    table: 'reactions',
    key: ['room_id', 'mid', 'emoji'],
    columns: [],
    fields: ({ mid, emoji }) => ({ mid, emoji }),
  },
  {
    kind: 'message',
    table: 'messages',
    key: ['room_id', '"offset"'],
    columns: ['mid', 'payload', 'created_at', 'sent_at'],
    where: "x.type in ('msg', 'shadow')",
    fields: ({ mid, offset, payload, created_at, sent_at }) => ({
      mid,
      offset,
      at: iso(created_at),
      ...(sent_at instanceof Date && { sentAt: iso(sent_at) }),
      body: (JSON.parse(payload as string) as { body?: unknown }).body ?? {},
    }),
  },
];

/**
 * Yields everything that the chat keeps about an account, messages last. Reads PostgreSQL page by
 * page.
 */
export async function* accountRecords(database: Queryable, accountId: string): AsyncGenerator<AccountRecord> {
  for (const kept of KEPT) yield* recordsOf(database, accountId, kept);
}

async function* recordsOf(database: Queryable, accountId: string, kept: RecordedTable): AsyncGenerator<AccountRecord> {
  const { kind, table, key, columns, where = 'true', fields } = kept;
  const names = key.map((name) => `x.${name}`);
  const places = key.map((_, i) => `$${i + 3}`);
  const wanted = [...new Set(['room_id', ...key, ...columns])].map((name) => `x.${name}`);
  for (let after: readonly unknown[] | undefined; ; ) {
    const { rows } = await database.query<AccountRecordRow>(
      `select ${wanted.join(', ')}, c.slug from ${table} x left join rooms r on r.id = x.room_id left join channels c on c.id = r.channel_id
       where x.user_id = $1 and ${where}${after ? ` and (${names.join(', ')}) > (${places.join(', ')})` : ''}
       order by ${names.join(', ')} limit $2`,
      [accountId, PAGE_ROWS, ...(after ?? [])],
    );
    for (const row of rows) yield { kind, room: row.room_id, channel: row.slug, ...fields(row) };
    if (rows.length < PAGE_ROWS) return;
    const last = rows.at(-1)!;
    after = key.map((name) => last[name.replaceAll('"', '')]);
  }
}
