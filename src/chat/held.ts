import type { Database } from '../backing/database.js';
import type { Clock } from '../runtime/clock.js';
import { VezaError } from '../runtime/errors.js';
import type { ChatRole, Held, HeldMessage } from './room.js';

/** A message that waits for a moderator, or has waited. */
export interface HeldRecord {
  readonly message: HeldMessage;
  /** Undefined: it waits. */
  readonly decision: 'approved' | 'denied' | undefined;
  readonly decidedBy: string | undefined;
  readonly decidedAtMs: number | undefined;
  readonly denialReason: string | undefined;
}

/** Of a room. More are refused as `busy`: nobody would read them in time. */
export const MAX_HELD = 1000;
/** After that, what waits is dropped, and what was decided is forgotten. */
export const HELD_KEPT_MS = 30 * 86_400_000;
/** Approved, and not in the room: the process that was about to put it there is gone, and another may. */
const STUCK_MS = 30_000;

/** The queue of messages that were held. A row is what the author's `held` stands for. */
export class HeldMessages implements Held {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor({ database, clock }: { database: Database; clock: Clock }) {
    this.#database = database;
    this.#clock = clock;
  }

  /** Rejects with `busy` (`MAX_HELD`), `unavailable`. */
  async hold({ roomId, mid, key, author, body, saidAtMs, reason }: HeldMessage): Promise<void> {
    const values = [
      roomId,
      mid,
      author.id,
      author.name,
      author.role,
      author.sinceMs === undefined ? null : new Date(author.sinceMs),
      key,
      JSON.stringify(body),
      reason,
      new Date(saidAtMs),
    ];
    const { rowCount } = await this.#database.query(
      `insert into held_messages (room_id, mid, user_id, user_name, user_role, user_since, key, body, why, created_at)
       select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
       where (select count(*) from held_messages where room_id = $1 and decision is null) < ${MAX_HELD}
       on conflict (room_id, mid) do nothing`,
      values,
    );
    if (rowCount > 0) return;
    const { rowCount: known } = await this.#database.query('select 1 from held_messages where room_id = $1 and mid = $2', [roomId, mid]);
    if (known === 0) throw new VezaError('busy', 'Too many messages wait for the moderators of this room. Try again later.');
  }

  /** Those that wait, oldest first; from the first after `after`. */
  async waiting(roomId: string, after: { createdAtMs: number; mid: string } | undefined, limit: number): Promise<HeldRecord[]> {
    const { rows } = await this.#database.query<HeldRow>(
      `select * from held_messages
       where room_id = $1 and (decision is null or (decision = 'approved' and "offset" is null and decided_at < $2))
         and ($3::timestamptz is null or (created_at, mid) > ($3, $4))
       order by created_at, mid limit $5`,
      [
        roomId,
        new Date(this.#clock.wallMs() - STUCK_MS),
        after === undefined ? null : new Date(after.createdAtMs),
        after?.mid ?? null,
        limit,
      ],
    );
    return rows.map(recordOf);
  }

  /** Undefined: there is none. */
  async get(roomId: string, mid: string): Promise<HeldRecord | undefined> {
    const { rows } = await this.#database.query<HeldRow>('select * from held_messages where room_id = $1 and mid = $2', [roomId, mid]);
    return rows[0] && recordOf(rows[0]);
  }

  /** What became of what somebody wrote, newest first. */
  async of(roomId: string, userId: string, limit: number): Promise<HeldRecord[]> {
    const { rows } = await this.#database.query<HeldRow>(
      'select * from held_messages where room_id = $1 and user_id = $2 order by created_at desc limit $3',
      [roomId, userId, limit],
    );
    return rows.map(recordOf);
  }

  /** It is in the room. */
  async published(roomId: string, mid: string, offset: number): Promise<void> {
    await this.#database.query('update held_messages set "offset" = $3 where room_id = $1 and mid = $2', [roomId, mid, offset]);
  }

  /** It could not be put into the room: it waits again. */
  async waitsAgain(roomId: string, mid: string): Promise<void> {
    await this.#database.query(
      `update held_messages set decision = null, decided_by = null, decided_at = null
       where room_id = $1 and mid = $2 and decision = 'approved' and "offset" is null`,
      [roomId, mid],
    );
  }

  /** The statement of a decision, for the transaction that makes it; a row: it waited. */
  decide(roomId: string, mid: string, decision: 'approved' | 'denied', by: string, reason: string | undefined): [string, unknown[]] {
    const nowMs = this.#clock.wallMs();
    return [
      `update held_messages set decision = $3, decided_by = $4, decided_at = $5, reason = $6
       where room_id = $1 and mid = $2
         and (decision is null or (decision = 'approved' and $3 = 'approved' and "offset" is null and decided_at < $7))
       returning *`,
      [roomId, mid, decision, by, new Date(nowMs), reason ?? null, new Date(nowMs - STUCK_MS)],
    ];
  }
}

export interface HeldRow {
  room_id: string;
  mid: string;
  user_id: string;
  user_name: string;
  user_role: ChatRole;
  user_since: Date | null;
  key: string;
  body: string;
  why: string;
  created_at: Date;
  decision: 'approved' | 'denied' | null;
  decided_by: string | null;
  decided_at: Date | null;
  reason: string | null;
}

export const recordOf = (row: HeldRow): HeldRecord => ({
  message: {
    roomId: row.room_id,
    mid: row.mid,
    key: row.key,
    author: {
      id: row.user_id,
      name: row.user_name,
      role: row.user_role,
      ...(row.user_since && { sinceMs: row.user_since.getTime() }),
    },
    body: JSON.parse(row.body),
    saidAtMs: row.created_at.getTime(),
    reason: row.why,
  },
  decision: row.decision ?? undefined,
  decidedBy: row.decided_by ?? undefined,
  decidedAtMs: row.decided_at?.getTime(),
  denialReason: row.reason ?? undefined,
});
