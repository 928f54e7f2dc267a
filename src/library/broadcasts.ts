import type { Database, Queryable } from '../backing/database/database.js';
import { VezaError } from '../runtime/errors.js';

/**
 * One broadcast, from its first segment to its end. Its id is the id of its recording:
 * `/vod/{id}/…`.
 */
export interface BroadcastRecord {
  readonly id: string;
  /** The channel's slug. */
  readonly channel: string;
  readonly channelId: string;
  /** The broadcast's own visibility if it has one, else its channel's. */
  readonly visibility: 'public' | 'unlisted' | 'private';
  /**
   * The country rule of its channel, as two-letter codes. At most one of the two lists is defined.
   */
  readonly countries: { readonly allowed: readonly string[] | undefined; readonly denied: readonly string[] | undefined };
  readonly title: string;
  /** Whether the recording is kept after the end. */
  readonly recording: boolean;
  readonly startedAtMs: number;
  /**
   * Undefined while it is on air. Also undefined after the process died, until its end is recorded.
   */
  readonly endedAtMs: number | undefined;
  readonly durationMs: number | undefined;
  readonly firstNumber: number;
  readonly lastNumber: number | undefined;
  /** Everything else that a recording needs: grid, runs, gaps, renditions, titles. JSON. */
  readonly details: Readonly<Record<string, unknown>>;
}

export interface BroadcastStart {
  /** The broadcast's id, at most 64 characters. */
  id: string;
  channelId: string;
  title: string;
  recording: boolean;
  startedAtMs: number;
  firstNumber: number;
  details?: Readonly<Record<string, unknown>>;
}

export interface BroadcastEnd {
  endedAtMs: number;
  /** Length of the playable range. */
  durationMs: number;
  lastNumber: number;
  /** Merged into the stored details. */
  details?: Readonly<Record<string, unknown>>;
}

export interface BroadcastFilter {
  /** The channel's slug. */
  channel?: string;
  /** Only playable recordings: ended, and kept. */
  recorded?: boolean;
  visibilities?: readonly BroadcastRecord['visibility'][];
  /** Only broadcasts after this one, which is the last of the previous page. */
  after?: { startedAtMs: number; id: string };
}

// A broadcast's own visibility takes precedence over its channel's: of two columns with one name,
// the later counts.
const SELECT =
  'select b.*, c.slug, c.countries_allowed, c.countries_denied, coalesce(b.visibility, c.visibility) as visibility from broadcasts b join channels c on c.id = b.channel_id';

/** The owner of the table `broadcasts`. */
export class Broadcasts {
  readonly #database: Database;

  /**
   * Rises after each write in this process, so that a reader can see that its earlier answer may be
   * out of date.
   */
  changes = 0;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Inserts a broadcast; without effect when the id exists. Rejects with `not_found` when the
   * channel does not exist or was deleted.
   */
  async insert(start: BroadcastStart): Promise<void> {
    const { rowCount } = await this.#write(
      `insert into broadcasts (id, channel_id, title, recording, started_at, first_number, details)
       select $1, id, $3, $4, $5, $6, $7 from channels where id = $2 on conflict (id) do nothing`,
      [start.id, start.channelId, start.title, start.recording, new Date(start.startedAtMs), start.firstNumber, start.details ?? {}],
    );
    if (rowCount === 0 && !(await this.get(start.id))) throw new VezaError('not_found', 'There is no such channel.');
  }

  /**
   * Stores the end of a broadcast; the last call wins. `withIt` runs in the same transaction, but
   * only at the first end. Rejects with `not_found` when there is no such broadcast, for example
   * because its channel was deleted.
   */
  async end(id: string, end: BroadcastEnd, withIt?: (connection: Queryable) => Promise<void>): Promise<void> {
    const ended = this.#database.transaction(async (connection) => {
      const { rows } = await connection.query<{ ended_at: Date | null }>('select ended_at from broadcasts where id = $1 for update', [id]);
      if (!rows[0]) throw new VezaError('not_found', 'There is no such broadcast.');
      await connection.query(
        'update broadcasts set ended_at = $2, duration_ms = $3, last_number = $4, details = details || $5 where id = $1',
        [id, new Date(end.endedAtMs), Math.round(end.durationMs), end.lastNumber, end.details ?? {}],
      );
      if (rows[0].ended_at === null) await withIt?.(connection);
    });
    await ended.finally(() => this.changes++);
  }

  /**
   * Closes the segments of a broadcast whose channel was deleted while it was on air. At the
   * deletion its last segment was not known yet, so only now are they closed under their live
   * addresses. Segments of other broadcasts are closed by the deletion.
   */
  async closeDeleted(id: string, segments: { slug: string; from: number; to: number }): Promise<void> {
    await this.#database.query(
      `with closed as (
         insert into playback_closed (scope, slug, first_number, last_number, closed_until) values ('vod/' || $1, $2, $3, $4, now() + interval '7 days')
         on conflict (scope) do update set slug = excluded.slug, first_number = excluded.first_number, last_number = excluded.last_number
         where playback_closed.last_number is null returning 1)
       update playback_changes set version = version + 1 where exists (select 1 from closed)`,
      [id, segments.slug, segments.from, segments.to],
    );
  }

  async get(id: string): Promise<BroadcastRecord | undefined> {
    const { rows } = await this.#database.query<BroadcastRow>(`${SELECT} where b.id = $1`, [id]);
    return rows[0] && broadcastOf(rows[0]);
  }

  /** Returns at most `limit` broadcasts, newest first. */
  async list(filter: BroadcastFilter, limit: number): Promise<BroadcastRecord[]> {
    const { rows } = await this.#database.query<BroadcastRow>(
      `${SELECT}
       where ($1::text is null or c.slug = $1)
         and (not $2 or (b.recording and b.ended_at is not null))
         and ($3::text[] is null or coalesce(b.visibility, c.visibility) = any($3))
         and ($4::timestamptz is null or (b.started_at, b.id) < ($4, $5::text))
       order by b.started_at desc, b.id desc limit $6`,
      [
        filter.channel ?? null,
        filter.recorded ?? false,
        filter.visibilities ?? null,
        filter.after ? new Date(filter.after.startedAtMs) : null,
        filter.after?.id ?? null,
        limit,
      ],
    );
    return rows.map(broadcastOf);
  }

  /**
   * Changes title and visibility. `visibility` null: the channel's applies. Resolves to false when
   * there is no such broadcast.
   */
  async update(
    id: string,
    changes: { title?: string | undefined; visibility?: BroadcastRecord['visibility'] | null | undefined },
  ): Promise<boolean> {
    const { rowCount } = await this.#write(
      `update broadcasts set title = coalesce($2, title), visibility = case when $3 then $4 else visibility end where id = $1`,
      [id, changes.title ?? null, changes.visibility !== undefined, changes.visibility ?? null],
    );
    return rowCount > 0;
  }

  /** Broadcasts without an end, oldest first: on air, or left open by a process that died. */
  async unfinished(): Promise<BroadcastRecord[]> {
    const { rows } = await this.#database.query<BroadcastRow>(`${SELECT} where b.ended_at is null order by b.started_at`);
    return rows.map(broadcastOf);
  }

  /**
   * Deletes the row; the next sweep deletes the segments. Resolves to false when there is no such
   * broadcast.
   */
  async delete(id: string): Promise<boolean> {
    const { rowCount } = await this.#write('delete from broadcasts where id = $1', [id]);
    return rowCount > 0;
  }

  #write(sql: string, values: readonly unknown[]): Promise<{ rowCount: number }> {
    return this.#database.query(sql, values).finally(() => this.changes++);
  }
}

interface BroadcastRow {
  id: string;
  channel_id: string;
  slug: string;
  countries_allowed: string[] | null;
  countries_denied: string[] | null;
  visibility: BroadcastRecord['visibility'];
  title: string;
  recording: boolean;
  started_at: Date;
  ended_at: Date | null;
  duration_ms: number | null;
  first_number: number;
  last_number: number | null;
  details: Record<string, unknown>;
}

const broadcastOf = (row: BroadcastRow): BroadcastRecord => ({
  id: row.id,
  channel: row.slug,
  channelId: row.channel_id,
  visibility: row.visibility,
  countries: { allowed: row.countries_allowed ?? undefined, denied: row.countries_denied ?? undefined },
  title: row.title,
  recording: row.recording,
  startedAtMs: row.started_at.getTime(),
  endedAtMs: row.ended_at?.getTime(),
  durationMs: row.duration_ms ?? undefined,
  firstNumber: row.first_number,
  lastNumber: row.last_number ?? undefined,
  details: row.details,
});
