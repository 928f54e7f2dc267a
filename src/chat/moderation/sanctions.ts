import { randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';

export interface RoomBan {
  readonly id: string;
  readonly userId: string;
  readonly userName: string;
  readonly isShadow: boolean;
  readonly reason: string | undefined;
  readonly byId: string;
  readonly byName: string;
  readonly createdAtMs: number;
  /** Undefined: the ban has no end. */
  readonly untilMs: number | undefined;
  /** When the ban of the user's last known address ends; undefined: no address is banned. */
  readonly addressUntilMs: number | undefined;
}

export interface RoomTimeout {
  readonly userId: string;
  readonly userName: string;
  readonly reason: string | undefined;
  readonly byId: string;
  readonly byName: string;
  readonly createdAtMs: number;
  readonly untilMs: number;
}

export interface RoomWarning {
  readonly id: string;
  readonly text: string;
  readonly byName: string;
  readonly createdAtMs: number;
  readonly seenAtMs: number | undefined;
}

export interface SanctionedUser {
  readonly id: string;
  readonly name: string;
}

/** Bans in force in one room at most. Every process that has the room open keeps them in memory. */
const MAX_BANS = 50_000;
const MAX_TIMEOUTS = 10_000;
/** Unseen warnings of one user in one room at most. */
const MAX_WARNINGS = 50;

/**
 * The rows of bans, timeouts and warnings. `ModerationService` checks the moderator's rights and
 * writes the notices.
 */
export class Sanctions {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor({ database, clock }: { database: Database; clock: Clock }) {
    this.#database = database;
    this.#clock = clock;
  }

  /** Replaces a ban in force. Rejects with `conflict` (`MAX_BANS`). */
  async banUser(
    connection: Queryable,
    roomId: string,
    user: SanctionedUser,
    by: SanctionedUser,
    ban: { isShadow: boolean; untilMs: number | undefined; reason: string | undefined },
  ): Promise<string> {
    const now = new Date(this.#clock.wallMs());
    // A ban that has ended stays in the table as a record.
    await connection.query(
      'update room_bans set lifted_at = until where room_id = $1 and user_id = $2 and lifted_at is null and until <= $3',
      [roomId, user.id, now],
    );
    const { rows } = await connection.query<{ id: string }>(
      `insert into room_bans (id, room_id, user_id, user_name, shadow, reason, by_id, by_name, created_at, until)
       select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
       where (select count(*) from room_bans where room_id = $2 and lifted_at is null and (until is null or until > $9) and user_id <> $3) < ${MAX_BANS}
       on conflict (room_id, user_id) where lifted_at is null do update set user_name = excluded.user_name, shadow = excluded.shadow,
         reason = excluded.reason, by_id = excluded.by_id, by_name = excluded.by_name, until = excluded.until
       returning id`,
      [
        randomUUID(),
        roomId,
        user.id,
        user.name,
        ban.isShadow,
        ban.reason ?? null,
        by.id,
        by.name,
        now,
        ban.untilMs === undefined ? null : new Date(ban.untilMs),
      ],
    );
    if (!rows[0]) throw new VezaError('conflict', `A room has at most ${MAX_BANS} bans; lift those that are no longer needed.`);
    return rows[0].id;
  }

  async banAddress(connection: Queryable, roomId: string, banId: string, addressHash: string, untilMs: number): Promise<void> {
    await connection.query(
      `insert into room_address_bans (room_id, address_hash, ban_id, until) values ($1, $2, $3, $4)
       on conflict (room_id, address_hash) do update set ban_id = excluded.ban_id, until = greatest(room_address_bans.until, excluded.until)`,
      [roomId, addressHash, banId, new Date(untilMs)],
    );
  }

  /** Also lifts the ban of the address. Rejects with `not_found`. */
  async liftBan(connection: Queryable, roomId: string, userId: string): Promise<{ userName: string; isShadow: boolean }> {
    const now = new Date(this.#clock.wallMs());
    const { rows } = await connection.query<{ id: string; user_name: string; shadow: boolean }>(
      `update room_bans set lifted_at = $3 where room_id = $1 and user_id = $2 and lifted_at is null and (until is null or until > $3)
       returning id, user_name, shadow`,
      [roomId, userId, now],
    );
    const row = rows[0];
    if (!row) throw new VezaError('not_found', 'This user is not banned here.');
    // The row is ended and not deleted, so that the control room reports the change. A sweep
    // deletes it later.
    await connection.query('update room_address_bans set until = $2 where ban_id = $1', [row.id, now]);
    return { userName: row.user_name, isShadow: row.shadow };
  }

  /** Replaces a timeout in force. Rejects with `conflict` (`MAX_TIMEOUTS`). */
  async startTimeout(
    connection: Queryable,
    roomId: string,
    user: SanctionedUser,
    by: SanctionedUser,
    untilMs: number,
    reason: string | undefined,
  ) {
    const { rowCount } = await connection.query(
      `insert into room_timeouts (room_id, user_id, user_name, reason, by_id, by_name, created_at, until)
       select $1, $2, $3, $4, $5, $6, $7, $8
       where (select count(*) from room_timeouts where room_id = $1 and until > $7 and user_id <> $2) < ${MAX_TIMEOUTS}
       on conflict (room_id, user_id) do update set user_name = excluded.user_name, reason = excluded.reason, by_id = excluded.by_id,
         by_name = excluded.by_name, created_at = excluded.created_at, until = excluded.until`,
      [roomId, user.id, user.name, reason ?? null, by.id, by.name, new Date(this.#clock.wallMs()), new Date(untilMs)],
    );
    if (rowCount === 0) throw new VezaError('conflict', `A room has at most ${MAX_TIMEOUTS} timeouts at once.`);
  }

  /** Rejects with `not_found`. */
  async endTimeout(connection: Queryable, roomId: string, userId: string): Promise<{ userName: string }> {
    const { rows } = await connection.query<{ user_name: string }>(
      'update room_timeouts set until = $3 where room_id = $1 and user_id = $2 and until > $3 returning user_name',
      [roomId, userId, new Date(this.#clock.wallMs())],
    );
    if (!rows[0]) throw new VezaError('not_found', 'This user has no timeout here.');
    return { userName: rows[0].user_name };
  }

  /** Rejects with `conflict` (`MAX_WARNINGS`). */
  async addWarning(connection: Queryable, roomId: string, userId: string, by: SanctionedUser, text: string): Promise<void> {
    const { rowCount } = await connection.query(
      `insert into room_warnings (id, room_id, user_id, text, by_id, by_name, created_at) select $1, $2, $3, $4, $5, $6, $7
       where (select count(*) from room_warnings where room_id = $2 and user_id = $3 and seen_at is null) < ${MAX_WARNINGS}`,
      [randomUUID(), roomId, userId, text, by.id, by.name, new Date(this.#clock.wallMs())],
    );
    if (rowCount === 0) throw new VezaError('conflict', `This user has not seen ${MAX_WARNINGS} warnings yet.`);
  }

  /** Rejects with `not_found`. Marking a seen warning again does nothing. */
  async markWarningSeen(roomId: string, userId: string, id: string): Promise<void> {
    const { rowCount } = await this.#database.query(
      // The update reaches the user's other connections through the control room.
      `with before as (select id, seen_at from room_warnings where id = $3 and room_id = $1 and user_id = $2),
         seen as (update room_warnings w set seen_at = $4 from before b where w.id = b.id and b.seen_at is null returning w.room_id, w.user_id)
       select before.id, (select chat_has_changed('sanction', room_id, null, user_id, null) from seen)::text as told from before`,
      [roomId, userId, id, new Date(this.#clock.wallMs())],
    );
    if (rowCount === 0) throw new VezaError('not_found', 'There is no such warning.');
  }

  /** A user's warnings, newest first. */
  async listWarnings(roomId: string, userId: string, limit: number): Promise<RoomWarning[]> {
    const { rows } = await this.#database.query<{ id: string; text: string; by_name: string; created_at: Date; seen_at: Date | null }>(
      'select * from room_warnings where room_id = $1 and user_id = $2 order by created_at desc, id desc limit $3',
      [roomId, userId, limit],
    );
    return rows.map((row) => ({
      id: row.id,
      text: row.text,
      byName: row.by_name,
      createdAtMs: row.created_at.getTime(),
      seenAtMs: row.seen_at?.getTime(),
    }));
  }

  /** The bans in force, newest first. */
  async listBans(roomId: string, before: { createdAtMs: number; id: string } | undefined, limit: number): Promise<RoomBan[]> {
    const { rows } = await this.#database.query<BanRow>(
      `${BAN_ROWS} and ($3::timestamptz is null or (b.created_at, b.id) < ($3, $4)) order by b.created_at desc, b.id desc limit $5`,
      [roomId, new Date(this.#clock.wallMs()), before === undefined ? null : new Date(before.createdAtMs), before?.id ?? null, limit],
    );
    return rows.map(banOf);
  }

  /** The ban in force; undefined: there is none. */
  async findBan(roomId: string, userId: string): Promise<RoomBan | undefined> {
    const { rows } = await this.#database.query<BanRow>(`${BAN_ROWS} and b.user_id = $3`, [roomId, new Date(this.#clock.wallMs()), userId]);
    return rows[0] && banOf(rows[0]);
  }

  /** The timeouts in force. The first to end comes first. */
  async listTimeouts(roomId: string, after: { untilMs: number; userId: string } | undefined, limit: number): Promise<RoomTimeout[]> {
    const { rows } = await this.#database.query<TimeoutRow>(
      `select * from room_timeouts where room_id = $1 and until > $2
         and ($3::timestamptz is null or (until, user_id collate "C") > ($3, $4::text collate "C")) order by until, user_id collate "C" limit $5`,
      [roomId, new Date(this.#clock.wallMs()), after === undefined ? null : new Date(after.untilMs), after?.userId ?? null, limit],
    );
    return rows.map(timeoutOf);
  }

  async findTimeout(roomId: string, userId: string): Promise<RoomTimeout | undefined> {
    const { rows } = await this.#database.query<TimeoutRow>(
      'select * from room_timeouts where room_id = $1 and user_id = $3 and until > $2',
      [roomId, new Date(this.#clock.wallMs()), userId],
    );
    return rows[0] && timeoutOf(rows[0]);
  }
}

interface BanRow {
  id: string;
  user_id: string;
  user_name: string;
  shadow: boolean;
  reason: string | null;
  by_id: string;
  by_name: string;
  created_at: Date;
  until: Date | null;
  address_until: Date | null;
}

const BAN_ROWS = `select b.*, (select max(a.until) from room_address_bans a where a.ban_id = b.id and a.until > $2) as address_until
  from room_bans b where b.room_id = $1 and b.lifted_at is null and (b.until is null or b.until > $2)`;

const banOf = (row: BanRow): RoomBan => ({
  id: row.id,
  userId: row.user_id,
  userName: row.user_name,
  isShadow: row.shadow,
  reason: row.reason ?? undefined,
  byId: row.by_id,
  byName: row.by_name,
  createdAtMs: row.created_at.getTime(),
  untilMs: row.until?.getTime(),
  addressUntilMs: row.address_until?.getTime(),
});

interface TimeoutRow {
  user_id: string;
  user_name: string;
  reason: string | null;
  by_id: string;
  by_name: string;
  created_at: Date;
  until: Date;
}

const timeoutOf = (row: TimeoutRow): RoomTimeout => ({
  userId: row.user_id,
  userName: row.user_name,
  reason: row.reason ?? undefined,
  byId: row.by_id,
  byName: row.by_name,
  createdAtMs: row.created_at.getTime(),
  untilMs: row.until.getTime(),
});
