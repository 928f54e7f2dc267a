import { randomUUID } from 'node:crypto';
import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import { characterCount } from '../../runtime/text.js';
import type { SanctionedUser, Sanctions } from './sanctions.js';

export const MAX_APPEAL_CHARS = 2000;
export const MAX_ANSWER_CHARS = 1000;
/** A text that may have several lines. */
const LINES = /^(?:[^\p{Cc}\p{Cs}]|[\t\n\r])*$/u;

export interface BanAppeal {
  readonly id: string;
  readonly userId: string;
  readonly userName: string;
  readonly text: string;
  readonly createdAtMs: number;
  /** Undefined: the appeal is not answered yet. */
  readonly accepted: boolean | undefined;
  readonly answer: string | undefined;
  readonly answeredBy: string | undefined;
  readonly answeredAtMs: number | undefined;
}

/** Appeals against bans. A ban has at most one appeal, and an appeal one answer. */
export class Appeals {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #sanctions: Sanctions;

  constructor({ database, clock, sanctions }: { database: Database; clock: Clock; sanctions: Sanctions }) {
    this.#database = database;
    this.#clock = clock;
    this.#sanctions = sanctions;
  }

  /**
   * Rejects with `not_found` (the user knows of no ban), `conflict` (this ban has an appeal) or
   * `bad_request`.
   */
  async fileAppeal(roomId: string, user: SanctionedUser, text: string): Promise<BanAppeal> {
    const ban = await this.#sanctions.findBan(roomId, user.id);
    // A shadow-banned user does not know of the ban.
    if (!ban || ban.isShadow) throw new VezaError('not_found', 'You are not banned here.');
    const given = checked(text, MAX_APPEAL_CHARS, 'text');
    const { rows } = await this.#database.query<AppealRow>(
      `insert into room_appeals (id, room_id, ban_id, user_id, user_name, text, created_at) values ($1, $2, $3, $4, $5, $6, $7)
       on conflict (ban_id) do nothing returning *`,
      [randomUUID(), roomId, ban.id, user.id, user.name, given, new Date(this.#clock.wallMs())],
    );
    if (!rows[0]) throw new VezaError('conflict', 'You have already appealed against this ban.');
    return appealOf(rows[0]);
  }

  /** Appeals, newest first. `isOpen`: only unanswered ones. */
  async list(
    roomId: string,
    isOpen: boolean | undefined,
    before: { createdAtMs: number; id: string } | undefined,
    limit: number,
  ): Promise<BanAppeal[]> {
    const { rows } = await this.#database.query<AppealRow>(
      `select * from room_appeals where room_id = $1 and ($2::boolean is null or (accepted is null) = $2)
         and ($3::timestamptz is null or (created_at, id) < ($3, $4)) order by created_at desc, id desc limit $5`,
      [roomId, isOpen ?? null, before === undefined ? null : new Date(before.createdAtMs), before?.id ?? null, limit],
    );
    return rows.map(appealOf);
  }

  /** The user's newest appeal. `banId`: only the appeal against this ban. */
  async findOfUser(roomId: string, userId: string, banId?: string): Promise<BanAppeal | undefined> {
    const { rows } = await this.#database.query<AppealRow>(
      `select * from room_appeals where room_id = $1 and user_id = $2 and ($3::uuid is null or ban_id = $3)
       order by created_at desc limit 1`,
      [roomId, userId, banId ?? null],
    );
    return rows[0] && appealOf(rows[0]);
  }

  /** Rejects with `not_found`, `conflict` (the appeal is answered) or `bad_request`. */
  async answerAppeal(
    connection: Queryable,
    roomId: string,
    id: string,
    accepted: boolean,
    answer: string,
    by: SanctionedUser,
  ): Promise<BanAppeal> {
    const given = checked(answer, MAX_ANSWER_CHARS, 'answer');
    const { rows } = await connection.query<AppealRow>(
      `update room_appeals set accepted = $3, answer = $4, answered_by = $5, answered_at = $6
       where room_id = $1 and id = $2 and accepted is null returning *`,
      [roomId, id, accepted, given, by.name, new Date(this.#clock.wallMs())],
    );
    if (rows[0]) return appealOf(rows[0]);
    const { rowCount } = await connection.query('select 1 from room_appeals where room_id = $1 and id = $2', [roomId, id]);
    if (rowCount === 0) throw new VezaError('not_found', 'There is no such appeal.');
    throw new VezaError('conflict', 'This appeal is already answered.');
  }
}

function checked(text: string, maxChars: number, at: string): string {
  const trimmed = text.trim();
  if (trimmed === '' || characterCount(trimmed) > maxChars || !LINES.test(trimmed))
    throw new VezaError('bad_request', `${at}: 1 to ${maxChars} characters.`, { details: { at } });
  return trimmed;
}

interface AppealRow {
  id: string;
  user_id: string;
  user_name: string;
  text: string;
  created_at: Date;
  accepted: boolean | null;
  answer: string | null;
  answered_by: string | null;
  answered_at: Date | null;
}

const appealOf = (row: AppealRow): BanAppeal => ({
  id: row.id,
  userId: row.user_id,
  userName: row.user_name,
  text: row.text,
  createdAtMs: row.created_at.getTime(),
  accepted: row.accepted ?? undefined,
  answer: row.answer ?? undefined,
  answeredBy: row.answered_by ?? undefined,
  answeredAtMs: row.answered_at?.getTime(),
});
