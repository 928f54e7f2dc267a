import type { Database, Queryable } from '../backing/database/database.js';
import type { Principal } from './roles.js';

/**
 * One entry of the audit log: who did what to what, and from which address. Entries are only ever
 * added: the database refuses to change or delete them.
 */
export interface AuditEntry {
  readonly id: number;
  readonly atMs: number;
  /** `Principal.id`, or `system`. */
  readonly actor: string;
  readonly actorName: string | undefined;
  readonly address: string | undefined;
  /**
   * The id of the operation, such as `createChannel`, or of an event that is no operation, such as
   * `signInFailed`.
   */
  readonly action: string;
  /** The object of the action: `channel:radio`, `account:{id}`, … */
  readonly target: string | undefined;
  readonly channel: string | undefined;
  readonly requestId: string | undefined;
  /** More about the action, without secrets. */
  readonly details: Readonly<Record<string, unknown>>;
}

export interface AuditFilter {
  actor?: string | undefined;
  action?: string | undefined;
  target?: string | undefined;
  channel?: string | undefined;
  /** Wall clock milliseconds; `fromMs` is inclusive, `toMs` is exclusive. */
  fromMs?: number | undefined;
  toMs?: number | undefined;
  /** An entry id: only older entries are returned. */
  before?: number | undefined;
}

export interface AuditRecord {
  principal: Principal | 'system';
  action: string;
  address?: string | undefined;
  target?: string | undefined;
  channel?: string | undefined;
  requestId?: string | undefined;
  details?: Readonly<Record<string, unknown>> | undefined;
}

export class Audit {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * `connection`: the transaction that makes the change, so that the change and its entry are
   * committed together.
   */
  async record(entry: AuditRecord, connection: Queryable = this.#database): Promise<void> {
    const { principal } = entry;
    await connection.query(
      `insert into audit_log (actor, actor_name, address, action, target, channel, request_id, details)
       values ($1, $2, $3, $4, $5, $6, $7, $8)`,
      [
        ...[
          principal === 'system' ? 'system' : principal.id,
          principal === 'system' ? null : principal.name || null,
          entry.address ?? null,
          entry.action,
          entry.target ?? null,
          entry.channel ?? null,
          entry.requestId ?? null,
        ].map((text) => (text === null ? null : storable(text))),
        JSON.stringify(entry.details ?? {}, (_, value) => (typeof value === 'string' ? storable(value) : value)),
      ],
    );
  }

  /** At most `limit` entries, newest first. */
  async list(filter: AuditFilter, limit: number): Promise<AuditEntry[]> {
    const { rows } = await this.#database.query<AuditRow>(
      `select * from audit_log
       where ($1::text is null or actor = $1) and ($2::text is null or action = $2) and ($3::text is null or target = $3)
         and ($4::text is null or channel = $4) and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
         and ($7::bigint is null or id < $7)
       order by id desc limit $8`,
      [
        filter.actor ?? null,
        filter.action ?? null,
        filter.target ?? null,
        filter.channel ?? null,
        filter.fromMs === undefined ? null : new Date(filter.fromMs),
        filter.toMs === undefined ? null : new Date(filter.toMs),
        filter.before ?? null,
        limit,
      ],
    );
    return rows.map((row) => ({
      id: row.id,
      atMs: row.at.getTime(),
      actor: row.actor,
      actorName: row.actor_name ?? undefined,
      address: row.address ?? undefined,
      action: row.action,
      target: row.target ?? undefined,
      channel: row.channel ?? undefined,
      requestId: row.request_id ?? undefined,
      details: row.details,
    }));
  }
}

/**
 * PostgreSQL stores neither NUL nor unpaired surrogates. A text that contains them must not prevent
 * the entry.
 */
const storable = (text: string) => text.replace(/[\0\p{Cs}]/gu, '\ufffd');

interface AuditRow {
  id: number;
  at: Date;
  actor: string;
  actor_name: string | null;
  address: string | null;
  action: string;
  target: string | null;
  channel: string | null;
  request_id: string | null;
  details: Record<string, unknown>;
}
