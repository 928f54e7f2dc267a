import type { Database, Queryable } from '../../backing/database/database.js';
import type { Clock } from '../../runtime/clock.js';
import { VezaError } from '../../runtime/errors.js';
import type { RoomRole } from '../protocol/protocol.js';
import type { HeldMessage, HeldMessages, HoldOutcome } from '../rooms/room.js';

/** A message that is or was held for a moderator. */
export interface HeldRecord {
  readonly message: HeldMessage;
  /** Undefined: the message is waiting. */
  readonly decision: 'approved' | 'denied' | undefined;
  readonly decidedBy: string | undefined;
  readonly decidedAtMs: number | undefined;
  readonly denialReason: string | undefined;
}

/** Waiting messages of one room. Above this `busy`: moderators could not read more in time. */
export const MAX_HELD = 1000;
/** Held messages are deleted after this, whether they were decided or not. */
export const HELD_KEPT_MS = 30 * 86_400_000;
/**
 * An approved message that is not in the room after this is waiting again: the process that had to
 * publish it has ended.
 */
const STUCK_MS = 30_000;

/** The held messages of all rooms. A message's row is stored before its author gets `held`. */
export class HeldMessageQueue implements HeldMessages {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor({ database, clock }: { database: Database; clock: Clock }) {
    this.#database = database;
    this.#clock = clock;
  }

  /** Rejects with `busy` (`MAX_HELD`) or `unavailable`. */
  async holdMessage(message: HeldMessage): Promise<HoldOutcome> {
    const { outcome, reason, other } = await this.#hold(this.#database, message, undefined);
    switch (outcome) {
      case 'banned':
      case 'timed_out':
        return { kind: outcome };
      case 'denied':
        return { kind: 'denied', reason: reason ?? undefined };
      case 'approved':
        return { kind: 'approved', offset: other ?? undefined };
      case 'held':
      case 'waiting':
        return { kind: 'waiting' };
      case 'gone':
        throw new VezaError('not_found', 'There is no such room.');
      case 'full':
        throw new VezaError('busy', 'Too many messages wait for the moderators of this room. Try again later.');
    }
  }

  /**
   * Holds a message in place of the published message `instead`, which stays until `connection`
   * commits. Resolves to `held` (now waiting), `waiting` (it was held before), `decided` (a
   * moderator has decided about it), `gone` (`instead` no longer exists) or `full` (nothing is
   * held; `instead` may be deleted).
   */
  async holdInstead(
    connection: Queryable,
    message: HeldMessage,
    instead: string,
  ): Promise<'held' | 'waiting' | 'gone' | 'full' | 'decided'> {
    const { outcome } = await this.#hold(connection, message, instead);
    return outcome === 'approved' || outcome === 'denied' || outcome === 'banned' || outcome === 'timed_out' ? 'decided' : outcome;
  }

  async #hold(
    connection: Queryable,
    { roomId, mid, key, author, body, saidAtMs, reason }: HeldMessage,
    instead: string | undefined,
  ): Promise<HoldRow> {
    const { rows } = await connection.query<HoldRow>(
      `select * from chat_hold($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::text, $8::text, $9::text, $10::timestamptz,
         $11::timestamptz, $12::int, $13::text)`,
      [
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
        new Date(this.#clock.wallMs()),
        MAX_HELD,
        instead ?? null,
      ],
    );
    return rows[0]!;
  }

  /**
   * Deletes a user's held messages. Returns the `mid`s of approved ones, which may be on their way
   * into the room. Waits for messages that are being held at the same time, and deletes them too.
   */
  async deleteOfUser(roomId: string, userId: string): Promise<string[]> {
    return this.#database.transaction(async (connection) => {
      await connection.query('select 1 from rooms where id = $1 for no key update', [roomId]);
      const { rows } = await connection.query<{ mid: string; decision: string | null }>(
        'delete from held_messages where room_id = $1 and user_id = $2 returning mid, decision',
        [roomId, userId],
      );
      return rows.flatMap(({ mid, decision }) => (decision === 'approved' ? [mid] : []));
    });
  }

  /** Waiting messages after `after`, oldest first. */
  async listWaiting(roomId: string, after: { createdAtMs: number; mid: string } | undefined, limit: number): Promise<HeldRecord[]> {
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

  /** Resolves to undefined when there is no such message. */
  async findMessage(roomId: string, mid: string): Promise<HeldRecord | undefined> {
    const { rows } = await this.#database.query<HeldRow>('select * from held_messages where room_id = $1 and mid = $2', [roomId, mid]);
    return rows[0] && recordOf(rows[0]);
  }

  /** A user's held messages, newest first. */
  async listOfUser(roomId: string, userId: string, limit: number): Promise<HeldRecord[]> {
    const { rows } = await this.#database.query<HeldRow>(
      'select * from held_messages where room_id = $1 and user_id = $2 order by created_at desc limit $3',
      [roomId, userId, limit],
    );
    return rows.map(recordOf);
  }

  /**
   * Notes that the message is in the room. Resolves to false when all messages of its author were
   * deleted in the meantime.
   */
  async markPublished(roomId: string, mid: string, offset: number): Promise<boolean> {
    const { rowCount } = await this.#database.query('update held_messages set "offset" = $3 where room_id = $1 and mid = $2', [
      roomId,
      mid,
      offset,
    ]);
    return rowCount > 0;
  }

  /** Makes an approved message wait again. Called when it could not be published. */
  async markWaiting(roomId: string, mid: string): Promise<void> {
    await this.#database.query(
      `update held_messages set decision = null, decided_by = null, decided_at = null
       where room_id = $1 and mid = $2 and decision = 'approved' and "offset" is null`,
      [roomId, mid],
    );
  }

  /**
   * The statement that stores a decision, for the caller's transaction. It returns the row if the
   * message was waiting.
   */
  decisionStatement(
    roomId: string,
    mid: string,
    decision: 'approved' | 'denied',
    by: string,
    reason: string | undefined,
  ): [string, unknown[]] {
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

interface HoldRow {
  outcome: 'held' | 'waiting' | 'approved' | 'denied' | 'banned' | 'timed_out' | 'full' | 'gone';
  reason: string | null;
  other: number | null;
}

export interface HeldRow {
  room_id: string;
  mid: string;
  user_id: string;
  user_name: string;
  user_role: RoomRole;
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
