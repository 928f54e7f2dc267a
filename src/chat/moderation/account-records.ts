import type { Queryable } from '../../backing/database/database.js';

const PAGE_ROWS = 500;

/** Something that the chat keeps about an account, for its owner: a line of his export. */
export interface AccountRecord {
  readonly kind: 'message' | 'held' | 'reaction' | 'ban' | 'timeout' | 'warning' | 'appeal' | 'writer';
  readonly room: string;
  /** The slug of the room's channel. */
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
  /** What tells the rows of one account apart; there is an index that begins with it, or few rows. */
  readonly key: readonly string[];
  readonly columns: readonly string[];
  readonly where?: string;
  fields(row: AccountRecordRow): object;
}

const iso = (at: unknown) => (at instanceof Date ? at.toISOString() : null);

/**
 * What there is, and what of it is told. Nothing that others wrote is in it but what was written to him, and nothing of what he is not to know: that he
 * is shadowed, what moderators say among themselves, where he wrote from (of which there is a keyed hash only).
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

/** Everything that the chat keeps about an account, read from PostgreSQL as it is asked for; messages last. */
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
